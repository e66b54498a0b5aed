//! The arbiter's ports over a backend of the world.
use super::Faults;
use super::backend::SharedChain;
use crate::chain::{EmbeddedChain, PackageReject, PackageVerdict, Reject};
use arb_core::ports::{
    BlockSource, Broadcast, FeeEstimates, FeeSource, Package, SeesMempool, Verdict,
};
use arb_core::units::{BlockHeight, BlockRef};
use arb_node_adapter::SourceError;
use arb_watcher::core_rpc::{CoreBlocks, CoreBroadcast, CoreError, verdict_of};
use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

/// Why a port of the world did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The story switched it off.
    #[error("the port is switched off")]
    Off,
    /// The real node did not answer.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// What the chain client delivered does not have it yet.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The chain client's round did not come to its end.
    #[error("a round of the chain client: {0}")]
    Round(String),
}

/// Blocks and mempool of a backend.
#[derive(Clone, Debug)]
pub enum WorldBlocks {
    /// Of the embedded chain.
    Embedded(SharedChain),
    /// Of a real node.
    Core(Arc<CoreBlocks>),
}

impl SeesMempool for WorldBlocks {}

impl BlockSource for WorldBlocks {
    type Error = PortError;

    async fn tip(&self) -> Result<BlockRef, PortError> {
        match self {
            Self::Embedded(chain) => {
                let (height, hash) = chain.lock().tip();
                Ok(BlockRef { height: BlockHeight(height), hash })
            }
            Self::Core(core) => Ok(core.tip().await?),
        }
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, PortError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().hash_at(height.0)),
            Self::Core(core) => Ok(core.hash_at(height).await?),
        }
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, PortError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().block(&hash).map(|block| (**block).clone())),
            Self::Core(core) => Ok(core.block(hash).await?),
        }
    }

    async fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Transaction>, PortError> {
        match self {
            Self::Embedded(chain) => {
                let chain = chain.lock();
                let spenders = outpoints.iter().filter_map(|o| chain.mempool_spender(o));
                let found: BTreeMap<Txid, Transaction> =
                    spenders.map(|tx| (tx.compute_txid(), tx.clone())).collect();
                Ok(found.into_values().collect())
            }
            Self::Core(core) => Ok(core.mempool_spenders(outpoints).await?),
        }
    }

    async fn changed(&self) {
        match self {
            Self::Embedded(chain) => chain.changed().await,
            Self::Core(core) => core.changed().await,
        }
    }
}

/// A source that ends at a height, with an empty mempool; `None`: it hides nothing.
#[derive(Clone, Debug)]
pub struct UpTo {
    /// The whole.
    pub inner: WorldBlocks,
    /// The last height that is shown.
    pub height: Option<u32>,
}

impl SeesMempool for UpTo {}

impl BlockSource for UpTo {
    type Error = PortError;

    async fn tip(&self) -> Result<BlockRef, PortError> {
        let tip = self.inner.tip().await?;
        let Some(height) = self.height.map(BlockHeight).filter(|height| *height < tip.height)
        else {
            return Ok(tip);
        };
        let hash = self.inner.hash_at(height).await?;
        Ok(hash.map_or(tip, |hash| BlockRef { height, hash }))
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, PortError> {
        if self.height.is_some_and(|last| height.0 > last) {
            return Ok(None);
        }
        self.inner.hash_at(height).await
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, PortError> {
        self.inner.block(hash).await
    }

    async fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Transaction>, PortError> {
        if self.height.is_some() {
            return Ok(Vec::new());
        }
        self.inner.mempool_spenders(outpoints).await
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}

/// Publishes to a backend, as long as the story lets it.
#[derive(Clone, Debug)]
pub struct WorldBroadcast {
    pub(super) way: Way,
    pub(super) faults: Arc<Faults>,
}

#[derive(Clone, Debug)]
pub(super) enum Way {
    Embedded(SharedChain),
    Core(Arc<CoreBroadcast>),
}

impl Broadcast for WorldBroadcast {
    type Error = PortError;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, PortError> {
        if !self.faults.broadcaster_works() {
            return Err(PortError::Off);
        }
        let transactions = package.transactions.clone();
        let verdicts = match &self.way {
            Way::Embedded(chain) => submit(&mut chain.lock(), &package.transactions),
            Way::Core(core) => core.broadcast(package).await?,
        };
        for (transaction, (_, verdict)) in transactions.iter().zip(&verdicts) {
            self.faults.remember(transaction, verdict);
        }
        if let Way::Embedded(chain) = &self.way {
            chain.announce();
        }
        Ok(verdicts)
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, PortError> {
        if !self.faults.broadcaster_works() {
            return Err(PortError::Off);
        }
        Ok(match &self.way {
            Way::Embedded(chain) => Some(match chain.lock().test_accept(&transaction) {
                Ok(_) => Verdict::Accepted,
                Err(reject) => verdict_of(&reject.to_string()),
            }),
            Way::Core(core) => core.test(transaction).await?,
        })
    }
}

/// Hands transactions to the embedded mempool, together if there are several.
pub(super) fn submit(
    chain: &mut EmbeddedChain,
    transactions: &[Transaction],
) -> Vec<(Txid, Verdict)> {
    let txid = Transaction::compute_txid;
    let known = |chain: &EmbeddedChain, tx: &Transaction| chain.tx_height(&txid(tx)).is_some();
    // What is confirmed is no longer part of a package.
    let rest: Vec<Transaction> =
        transactions.iter().filter(|tx| !known(chain, tx)).cloned().collect();
    let mut said: BTreeMap<Txid, Verdict> = BTreeMap::new();
    if let [single] = rest.as_slice() {
        let verdict = match chain.submit(single.clone()) {
            Ok(_) => Verdict::Accepted,
            Err(reject) => verdict_of(&reject.to_string()),
        };
        said.insert(txid(single), verdict);
    } else if !rest.is_empty() {
        let report = chain.submit_package(&rest);
        let failed = |reject: &PackageReject| *reject == PackageReject::TransactionFailed;
        let whole = report.outcome.err().map(|reject| (failed(&reject), reject.to_string()));
        let together = whole.as_ref().filter(|(failed, _)| !failed);
        let together = together.map(|(_, reason)| verdict_of(reason));
        let whole = whole.as_ref().map(|(_, reason)| verdict_of(reason));
        for (id, verdict) in report.verdicts {
            let verdict = match verdict {
                PackageVerdict::Accepted(_) => Verdict::Accepted,
                PackageVerdict::AlreadyInMempool | PackageVerdict::DifferentWitness(_) => {
                    Verdict::Known
                }
                // Its parents were refused together with it: the package says why.
                PackageVerdict::Rejected(Reject::MissingOrSpent) => {
                    let missing = || verdict_of(&Reject::MissingOrSpent.to_string());
                    together.clone().unwrap_or_else(missing)
                }
                PackageVerdict::Rejected(reject) => verdict_of(&reject.to_string()),
                PackageVerdict::NotEvaluated => {
                    let unknown = || Verdict::Refused("package-not-validated".to_owned());
                    whole.clone().unwrap_or_else(unknown)
                }
            };
            said.insert(id, verdict);
        }
    }
    let verdict = |tx: &Transaction| said.get(&txid(tx)).cloned().unwrap_or(Verdict::Known);
    transactions.iter().map(|tx| (txid(tx), verdict(tx))).collect()
}

/// The estimator of the story.
#[derive(Clone, Debug)]
pub struct WorldFees {
    /// Holds its answer.
    pub faults: Arc<Faults>,
}

impl FeeSource for WorldFees {
    type Error = Infallible;

    async fn estimates(&self) -> Result<FeeEstimates, Infallible> {
        Ok(self.faults.estimates())
    }
}
