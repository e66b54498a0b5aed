//! A chain, a network and feerates in memory: whoever holds a clone says what happens.
use super::lock;
use arb_core::claim::trough::Troughs;
use arb_core::ports::{
    BlockSource, Broadcast, FeeEstimates, FeeSource, Package, SeesMempool, Verdict,
};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::{
    Block, BlockHash, CompactTarget, FeeRate, OutPoint, Transaction, TxMerkleNode, Txid,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// A chain in memory, without proof of work: it begins with one empty block, and its owner mines
/// and disconnects.
///
/// ```
/// use arb_core::ports::BlockSource;
/// use arb_watcher::memory::MemoryChain;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let chain = MemoryChain::new();
/// let block = chain.mine(vec![]);
/// assert_eq!(chain.tip().await, Ok(block));
/// chain.disconnect(1);
/// assert_ne!(chain.tip().await, Ok(block));
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryChain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct State {
    best: Vec<BlockRef>,
    blocks: HashMap<BlockHash, Block>,
    mempool: Vec<Transaction>,
}

impl State {
    fn mine(&mut self, txdata: Vec<Transaction>) -> BlockRef {
        let prev_blockhash = self.best.last().map_or(BlockHash::all_zeros(), |tip| tip.hash);
        let header = Header {
            version: Version::TWO,
            prev_blockhash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::default(),
            // No two blocks are the same, on whatever branch.
            nonce: u32::try_from(self.blocks.len()).unwrap_or(u32::MAX),
        };
        let height = self.best.last().map_or(0, |tip| tip.height.0.saturating_add(1));
        let at = BlockRef { height: BlockHeight(height), hash: header.block_hash() };
        self.mempool.retain(|tx| !txdata.contains(tx));
        self.blocks.insert(at.hash, Block { header, txdata });
        self.best.push(at);
        at
    }
}

impl Default for MemoryChain {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryChain {
    /// A chain of one empty block, at height 0.
    #[must_use]
    pub fn new() -> Self {
        let mut state = State::default();
        state.mine(Vec::new());
        Self(Arc::new(Inner { state: Mutex::new(state), bell: Notify::new() }))
    }

    /// Connects a block with these transactions on top of the tip. Nothing is validated.
    pub fn mine(&self, transactions: Vec<Transaction>) -> BlockRef {
        let at = lock(&self.0.state).mine(transactions);
        self.0.bell.notify_one();
        at
    }

    /// Disconnects as many blocks, but never the first one. A shorter chain is no news: whoever
    /// follows hears of it once as many and one more were mined.
    pub fn disconnect(&self, blocks: usize) {
        let mut state = lock(&self.0.state);
        let left = state.best.len().saturating_sub(blocks).max(1);
        state.best.truncate(left);
    }

    /// Puts a transaction into the mempool, until a block holds it.
    pub fn enter_mempool(&self, transaction: Transaction) {
        lock(&self.0.state).mempool.push(transaction);
        self.0.bell.notify_one();
    }
}

impl SeesMempool for MemoryChain {}

impl BlockSource for MemoryChain {
    type Error = Infallible;

    async fn tip(&self) -> Result<BlockRef, Infallible> {
        let first = BlockRef { height: BlockHeight(0), hash: BlockHash::all_zeros() };
        Ok(lock(&self.0.state).best.last().copied().unwrap_or(first))
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, Infallible> {
        let index = usize::try_from(height.0).ok();
        Ok(index.and_then(|at| lock(&self.0.state).best.get(at).map(|block| block.hash)))
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, Infallible> {
        Ok(lock(&self.0.state).blocks.get(&hash).cloned())
    }

    async fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Transaction>, Infallible> {
        let spends = |tx: &&Transaction| {
            tx.input.iter().any(|input| outpoints.contains(&input.previous_output))
        };
        Ok(lock(&self.0.state).mempool.iter().filter(spends).cloned().collect())
    }

    async fn changed(&self) {
        self.0.bell.notified().await;
    }
}

/// A network in memory: it accepts everything and remembers it.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork(Arc<Mutex<Vec<Transaction>>>);

impl MemoryNetwork {
    /// A network that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes out what was broadcast since the last call, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Transaction> {
        std::mem::take(&mut *lock(&self.0))
    }
}

impl Broadcast for MemoryNetwork {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        let accepted = |tx: &Transaction| (tx.compute_txid(), Verdict::Accepted);
        let verdicts = package.transactions.iter().map(accepted).collect();
        lock(&self.0).extend(package.transactions);
        Ok(verdicts)
    }
}

/// One feerate for every target, in memory.
#[derive(Clone, Debug)]
pub struct MemoryFees(Arc<Mutex<FeeRate>>);

impl MemoryFees {
    /// This feerate, until another is set.
    #[must_use]
    pub fn new(feerate: FeeRate) -> Self {
        Self(Arc::new(Mutex::new(feerate)))
    }

    /// Another feerate from now on.
    pub fn set(&self, feerate: FeeRate) {
        *lock(&self.0) = feerate;
    }
}

impl Default for MemoryFees {
    /// 1 sat/vB, the floor of the network.
    fn default() -> Self {
        Self::new(FeeRate::BROADCAST_MIN)
    }
}

impl FeeSource for MemoryFees {
    type Error = Infallible;

    async fn estimates(&self) -> Result<FeeEstimates, Infallible> {
        let feerate = *lock(&self.0);
        Ok(FeeEstimates {
            targets: vec![(1, feerate)],
            floor: FeeRate::BROADCAST_MIN,
            troughs: Troughs::default(),
        })
    }
}
