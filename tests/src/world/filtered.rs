//! Blocks as a node sees them that asks a chain server for what concerns it: single transactions and tips.
use super::{PortError, UpTo};
use arb_core::ports::{BlockSource, SeesMempool};
use arb_core::units::{BlockHeight, BlockRef};
use arb_node_adapter::{ConfirmSource, Headers, OutputFilter, SourceError};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::chain::{Confirm, Filter, WatchedOutput};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// How the arbiter is shown blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Shown {
    /// Whole.
    #[default]
    Blocks,
    /// Transactions that spend registered outputs, and tips, as `lightning::chain::Confirm` has them.
    Confirm,
}

/// Blocks and mempool of a world, as they are shown.
#[derive(Clone, Debug)]
pub enum ShownBlocks {
    /// Whole blocks.
    Whole(UpTo),
    /// What a filtering chain client asks for. A round of its goes before each look at the tip.
    Filtered(Arc<Client>),
}

/// The funding outputs that the node has registered.
pub type Fundings = Box<dyn Fn() -> Vec<(OutPoint, ScriptBuf)> + Send + Sync>;

/// A chain client that asks for what spends registered outputs, as LDK's do, and what it said so far.
pub struct Client {
    blocks: UpTo,
    source: ConfirmSource,
    outputs: Arc<OutputFilter>,
    fundings: Fundings,
    said: Mutex<Said>,
}

/// What a chain client has said.
#[derive(Default)]
struct Said {
    /// The chain, from the first block on.
    chain: Vec<Block>,
    /// What it has said to be confirmed, and in which block.
    confirmed: BTreeSet<(BlockHash, Txid)>,
}

/// Most headers that are given at once.
const HEADERS: usize = 7;

struct Chain<'a>(&'a [Block]);

impl Headers for Chain<'_> {
    type Error = Infallible;

    async fn headers(&self, to: BlockRef, most: u32) -> Result<Vec<Header>, Infallible> {
        let Some(below) = self.0.get(..=to.height.0 as usize) else { return Ok(Vec::new()) };
        let first = below.len().saturating_sub(HEADERS.min(most as usize));
        Ok(below[first..].iter().map(|block| block.header).collect())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Client {
    /// A client that starts anew, for an arbiter that remembers these blocks.
    pub fn new(blocks: UpTo, remembered: Vec<BlockRef>, fundings: Fundings) -> Self {
        let outputs = Arc::new(OutputFilter::new());
        let source = ConfirmSource::new(remembered, outputs.clone());
        Self { blocks, source, outputs, fundings, said: Mutex::default() }
    }

    /// Asks the chain server for news, until there are no more.
    async fn round(&self) -> Result<(), PortError> {
        let mut said = self.said.lock().await;
        for (outpoint, script_pubkey) in (self.fundings)() {
            let Ok(index) = u16::try_from(outpoint.vout) else { continue };
            let outpoint = LdkOutPoint { txid: outpoint.txid, index };
            let block_hash = None;
            self.source.register_output(WatchedOutput { block_hash, outpoint, script_pubkey });
        }
        self.follow(&mut said).await?;
        for (txid, height, block) in self.source.get_relevant_txids() {
            if said.chain.get(height as usize).map(Block::block_hash) != block {
                self.source.transaction_unconfirmed(&txid);
            }
        }
        let best = said.chain.last().map(|block| block.header);
        let height = u32::try_from(said.chain.len()).unwrap_or(u32::MAX).saturating_sub(1);
        // Either comes first.
        if height.is_multiple_of(2) {
            best.iter().for_each(|best| self.source.best_block_updated(best, height));
        }
        while self.tell(&mut said) {}
        best.iter().for_each(|best| self.source.best_block_updated(best, height));
        let complete = self.source.round_complete(&Chain(&said.chain)).await;
        complete.map_err(|why| PortError::Round(why.to_string()))
    }

    /// Goes to the tip.
    async fn follow(&self, said: &mut Said) -> Result<(), PortError> {
        let tip = self.blocks.tip().await?;
        loop {
            let height = BlockHeight(u32::try_from(said.chain.len()).unwrap_or(u32::MAX));
            let below = match height.0.checked_sub(1).map(BlockHeight) {
                Some(below) => self.blocks.hash_at(below).await?,
                None => None,
            };
            if let Some(last) =
                said.chain.last().map(Block::block_hash).filter(|last| below != Some(*last))
            {
                said.chain.pop();
                said.confirmed.retain(|(block, _)| *block != last);
                continue;
            }
            if height > tip.height {
                return Ok(());
            }
            let Some(hash) = self.blocks.hash_at(height).await? else { return Ok(()) };
            said.chain.extend(self.blocks.block(hash).await?);
        }
    }

    /// Says what spends registered outputs; true if something was new, for then more may be registered.
    fn tell(&self, said: &mut Said) -> bool {
        let mut is_new = false;
        for (height, block) in (0..).zip(&said.chain) {
            let hash = block.block_hash();
            for (place, transaction) in self.outputs.relevant(block) {
                if said.confirmed.insert((hash, transaction.compute_txid())) {
                    let alone = [(place, transaction)];
                    self.source.transactions_confirmed(&block.header, &alone, height);
                    is_new = true;
                }
            }
        }
        is_new
    }
}

impl SeesMempool for ShownBlocks {}

impl BlockSource for ShownBlocks {
    type Error = PortError;

    async fn tip(&self) -> Result<BlockRef, PortError> {
        match self {
            Self::Whole(blocks) => blocks.tip().await,
            Self::Filtered(client) => {
                client.round().await?;
                Ok(client.source.tip().await?)
            }
        }
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, PortError> {
        match self {
            Self::Whole(blocks) => blocks.hash_at(height).await,
            Self::Filtered(client) => match client.source.hash_at(height).await {
                // The next round comes at once.
                Err(SourceError::NotYet(_)) => {
                    client.round().await?;
                    Ok(client.source.hash_at(height).await?)
                }
                answer => Ok(answer?),
            },
        }
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, PortError> {
        match self {
            Self::Whole(blocks) => blocks.block(hash).await,
            Self::Filtered(client) => match client.source.block(hash).await {
                Err(SourceError::NotYet(_)) => {
                    client.round().await?;
                    Ok(client.source.block(hash).await?)
                }
                answer => Ok(answer?),
            },
        }
    }

    async fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Transaction>, PortError> {
        match self {
            Self::Whole(blocks) => blocks.mempool_spenders(outpoints).await,
            // A server tells this of an output, too.
            Self::Filtered(client) => client.blocks.mempool_spenders(outpoints).await,
        }
    }

    async fn changed(&self) {
        match self {
            Self::Whole(blocks) => blocks.changed().await,
            Self::Filtered(client) => client.blocks.changed().await,
        }
    }

    fn late(&self, tip: BlockRef) -> Option<(BlockRef, Block)> {
        match self {
            Self::Whole(blocks) => blocks.late(tip),
            Self::Filtered(client) => client.source.late(tip),
        }
    }

    fn had(&self, at: BlockRef, block: &Block) {
        match self {
            Self::Whole(blocks) => blocks.had(at, block),
            Self::Filtered(client) => client.source.had(at, block),
        }
    }
}
