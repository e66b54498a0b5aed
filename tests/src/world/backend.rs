//! The chain of a world: embedded, or a real Bitcoin Core on regtest. Same methods, same story.
use super::ports::{Way, submit};
use super::{Faults, WorldBlocks, WorldBroadcast, WorldError};
use crate::chain::{EmbeddedChain, Selection};
use crate::regtest::Regtest;
use arb_core::ports::Verdict;
use arb_core::units::BlockHeight;
use arb_watcher::core_rpc::{CoreBlocks, CoreBlocksConfig, CoreBroadcast, CoreBroadcastConfig};
use bitcoin::{Amount, Block, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What a block is made of.
#[derive(Clone, Copy)]
pub enum Fill<'a> {
    /// The mempool by feerate.
    Mempool,
    /// Nothing.
    Empty,
    /// The mempool without what this names, and without descendants of that.
    Without(&'a dyn Fn(&Transaction) -> bool),
}

/// The embedded chain, shared with the arbiter's ports.
#[derive(Clone, Debug)]
pub struct SharedChain {
    chain: Arc<Mutex<EmbeddedChain>>,
    news: Arc<watch::Sender<u64>>,
    heard: Arc<tokio::sync::Mutex<watch::Receiver<u64>>>,
}

impl SharedChain {
    /// Shares a chain.
    pub fn new(chain: EmbeddedChain) -> Self {
        let (news, heard) = watch::channel(0);
        Self {
            chain: Arc::new(Mutex::new(chain)),
            news: Arc::new(news),
            heard: Arc::new(tokio::sync::Mutex::new(heard)),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, EmbeddedChain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the chain.
    pub fn with<T>(&self, work: impl FnOnce(&mut EmbeddedChain) -> T) -> T {
        work(&mut self.lock())
    }

    /// Tells whoever waits that something may have changed.
    pub fn announce(&self) {
        let sequence = self.lock().sequence();
        self.news.send_if_modified(|last| std::mem::replace(last, sequence) != sequence);
    }

    pub(super) async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.heard.lock().await.changed().await;
    }
}

/// The chain of a world.
#[derive(Debug)]
pub enum Backend {
    /// In memory.
    Embedded(SharedChain),
    /// A real node.
    Bitcoind(Box<Regtest>),
}

impl Backend {
    /// A fresh embedded chain.
    pub fn embedded() -> Self {
        Self::Embedded(SharedChain::new(EmbeddedChain::new()))
    }

    /// Starts a real node.
    ///
    /// # Errors
    /// There is none, or it does not start.
    pub async fn bitcoind() -> Result<Self, WorldError> {
        Ok(Self::Bitcoind(Box::new(Regtest::start().await?)))
    }

    /// Blocks and mempool, for the arbiter.
    pub fn blocks(&self) -> WorldBlocks {
        match self {
            Self::Embedded(chain) => WorldBlocks::Embedded(chain.clone()),
            Self::Bitcoind(node) => {
                let config =
                    CoreBlocksConfig { poll: Duration::from_millis(50), ..Default::default() };
                WorldBlocks::Core(Arc::new(CoreBlocks::new(node.client().build(), config)))
            }
        }
    }

    /// The broadcaster, for the arbiter.
    pub fn broadcaster(&self, faults: Arc<Faults>) -> WorldBroadcast {
        let way = match self {
            Self::Embedded(chain) => Way::Embedded(chain.clone()),
            Self::Bitcoind(node) => Way::Core(Arc::new(CoreBroadcast::new(
                node.client().build(),
                CoreBroadcastConfig::default(),
            ))),
        };
        WorldBroadcast { way, faults }
    }

    /// Tells whoever waits that something may have changed. A real node does so by itself.
    pub fn announce(&self) {
        if let Self::Embedded(chain) = self {
            chain.announce();
        }
    }

    /// Height of the tip.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn height(&self) -> Result<u32, WorldError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().height()),
            Self::Bitcoind(node) => Ok(node.tip().await?.height.0),
        }
    }

    /// The block of the active chain at a height.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn block_at(&self, height: u32) -> Result<Option<Block>, WorldError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().block_at(height).map(|b| (**b).clone())),
            Self::Bitcoind(node) => match node.hash_at(BlockHeight(height)).await? {
                Some(hash) => Ok(node.block(hash).await?),
                None => Ok(None),
            },
        }
    }

    /// Makes confirmed outputs.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn fund(
        &mut self,
        payments: &[(ScriptBuf, Amount)],
    ) -> Result<Vec<OutPoint>, WorldError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().fund_many(payments)?),
            Self::Bitcoind(node) => {
                let output = |(script, value): &(ScriptBuf, Amount)| TxOut {
                    value: *value,
                    script_pubkey: script.clone(),
                };
                let tx = node.pay(payments.iter().map(output).collect()).await?;
                node.mine_only(std::slice::from_ref(&tx)).await?;
                let txid = tx.compute_txid();
                Ok((0..payments.len() as u32).map(|vout| OutPoint { txid, vout }).collect())
            }
        }
    }

    /// Mines one block.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn mine(&mut self, fill: &Fill<'_>) -> Result<(), WorldError> {
        match self {
            Self::Embedded(chain) => {
                let selection = match fill {
                    Fill::Mempool => Selection::All,
                    Fill::Empty => Selection::Empty,
                    Fill::Without(unwanted) => Selection::Without(unwanted),
                };
                chain.lock().mine(&selection);
            }
            Self::Bitcoind(node) => match fill {
                Fill::Mempool => drop(node.mine(1).await?),
                Fill::Empty => drop(node.mine_empty().await?),
                Fill::Without(unwanted) => drop(node.mine_without(unwanted).await?),
            },
        }
        Ok(())
    }

    /// Disconnects blocks for good.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn disconnect(
        &mut self,
        blocks: u32,
        gone: &[Transaction],
        drop: &dyn Fn(&Transaction) -> bool,
    ) -> Result<(), WorldError> {
        match self {
            Self::Embedded(chain) => {
                chain.lock().disconnect(blocks, drop)?;
            }
            Self::Bitcoind(node) => node.disconnect(blocks, gone, drop).await?,
        }
        Ok(())
    }

    /// Hands a transaction or a package, parents first, to the mempool: a verdict each.
    ///
    /// # Errors
    /// The node does not answer. A refusal is a value.
    pub async fn submit(&self, all: &[Transaction]) -> Result<Vec<Verdict>, WorldError> {
        let verdicts = match self {
            Self::Embedded(chain) => {
                let verdicts = submit(&mut chain.lock(), all);
                verdicts.into_iter().map(|(_, verdict)| verdict).collect()
            }
            Self::Bitcoind(node) => node.submit_package(all).await?,
        };
        self.announce();
        Ok(verdicts)
    }

    /// The mempool, parents first.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn mempool(&self) -> Result<Vec<Transaction>, WorldError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().mempool().map(|tx| (**tx).clone()).collect()),
            Self::Bitcoind(node) => Ok(node.mempool().await?),
        }
    }

    /// The unconfirmed transaction that spends an output.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn mempool_spender(
        &self,
        outpoint: &OutPoint,
    ) -> Result<Option<Transaction>, WorldError> {
        match self {
            Self::Embedded(chain) => Ok(chain.lock().mempool_spender(outpoint).cloned()),
            Self::Bitcoind(node) => Ok(node.mempool_spender(*outpoint).await?),
        }
    }

    /// Changes the mempool's floor.
    ///
    /// # Errors
    /// The node does not start again.
    pub async fn set_floor(&mut self, floor: FeeRate) -> Result<(), WorldError> {
        match self {
            Self::Embedded(chain) => chain.lock().set_floor(floor),
            Self::Bitcoind(node) => node.set_floor(floor).await?,
        }
        self.announce();
        Ok(())
    }
}
