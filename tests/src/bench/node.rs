//! The driver with its store, and ports in memory that cost next to nothing: blocks are handed
//! over, the network takes everything, and the signer counts.
use arb_core::claim::trough::Troughs;
use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{HtlcId, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog, Damaged, Durable, StoredChannel, Write};
use arb_core::ports::{
    BlockSource, Broadcast, CoinSource, FeeEstimates, FeeSource, Package, PointRequest,
    SignRequest, Signer, Verdict,
};
use arb_core::units::{BlockHeight, BlockRef, CommitmentNumber};
use arb_store::{LmdbLog, StoreConfig, StoreError};
use arb_watcher::memory::{MemoryCoins, MemorySigner, SignError};
use arb_watcher::{Arbiter, Ports, ScriptsPort, Settings};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, SecretKey, ecdsa};
use bitcoin::{
    Amount, Block, BlockHash, FeeRate, OutPoint, Transaction, TxMerkleNode, TxOut, Txid,
};
use tokio::sync::watch;

use super::BenchError;
use super::channels::{TIP, block_ref};
use super::synthetic;
use super::told::{Revoked, Told};

/// What writes the channels into the store, in pieces.
const FILLED_AT_ONCE: usize = 2_000;
/// Batches that fill the store are numbered from here, beyond those of the engine.
const FILLING: u64 = (1 << 63) | (1 << 62);
/// Coins of the wallet: none of the claims here needs one, but a wallet is never empty.
const COINS: u32 = 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When things happened.
#[derive(Clone, Default)]
struct Watch {
    durable: Arc<Mutex<Option<(BlockHeight, Instant)>>>,
    signed: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<Instant>>>,
}

/// What a block took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// From its announcement until it was durable.
    pub(super) durable: Duration,
    /// Until the last signature was given.
    pub(super) signed: Duration,
    /// Signatures that were asked for.
    pub(super) signatures: usize,
}

/// A driver with channels, and hands to give it blocks.
pub(super) struct Node {
    arbiter: Arbiter,
    blocks: Blocks,
    watch: Watch,
}

impl Node {
    /// A driver on a new store in `folder` that holds these channels.
    ///
    /// # Errors
    /// The store fails.
    pub(super) async fn start(
        folder: &Path,
        model: &Revoked,
        channels: &[Told],
    ) -> Result<Self, BenchError> {
        let mut log = LmdbLog::open(folder, StoreConfig::default())?;
        let mut ids = (FILLING..).map(BatchId);
        let mut next = || ids.next().unwrap_or(BatchId(u64::MAX));
        let writes = vec![Write::BlockConnected(block_ref(TIP))];
        let _ = log.append(Batch { id: next(), writes }).await?;
        let secrets = model.secrets();
        let signer = MemorySigner::new();
        for (part, told) in channels.chunks(FILLED_AT_ONCE).enumerate() {
            let first = (part * FILLED_AT_ONCE) as u32;
            let writes = (first..).map(Slot).zip(told).flat_map(|(slot, t)| t.writes(slot));
            let _ = log.append(Batch { id: next(), writes: writes.collect() }).await?;
        }
        for told in channels {
            signer.insert(told.facts.id, secrets.clone());
        }
        let blocks = Blocks::new();
        let watch = Watch::default();
        let ports = Ports {
            source: blocks.clone(),
            broadcast: Network,
            fees: Fees,
            signer: Counting { inner: signer, watch: watch.clone() },
            coins: wallet().await?,
            scripts: ScriptsPort::default(),
        };
        let numbers = channels.iter().map(Told::numbers).collect();
        let log = Watched { inner: log, watch: watch.clone() };
        let arbiter = Arbiter::start(log, ports, Settings::default(), numbers).await;
        let arbiter = arbiter.map_err(|error| BenchError::Engine(error.to_string()))?;
        let node = Self { arbiter, blocks, watch };
        node.idle().await?;
        Ok(node)
    }

    async fn idle(&self) -> Result<(), BenchError> {
        self.arbiter.idle().await.map_err(|error| BenchError::Engine(error.to_string()))
    }

    /// A block with these transactions among those of others.
    ///
    /// # Errors
    /// The driver has ended, or never had the block.
    pub(super) async fn connect(&self, among: &[Transaction]) -> Result<Took, BenchError> {
        let before = self.watch.signed.load(Ordering::SeqCst);
        *lock(&self.watch.last) = None;
        let height = self.blocks.prepare(among)?;
        let start = Instant::now();
        self.blocks.announce();
        self.idle().await?;
        let durable = match *lock(&self.watch.durable) {
            Some((at, when)) if at == height => when,
            _ => return Err(BenchError::Engine("the block is not durable".to_owned())),
        };
        let signed = lock(&self.watch.last).unwrap_or(durable);
        Ok(Took {
            durable: durable.saturating_duration_since(start),
            signed: signed.saturating_duration_since(start),
            signatures: self.watch.signed.load(Ordering::SeqCst) - before,
        })
    }

    /// Ends the driver and closes the store.
    pub(super) async fn stop(self) {
        self.arbiter.shutdown().await;
    }
}

async fn wallet() -> Result<MemoryCoins, BenchError> {
    let failed = |error: &dyn std::error::Error| BenchError::Engine(error.to_string());
    let key = SecretKey::from_slice(&[7; 32]).map_err(|error| failed(&error))?;
    let wallet = MemoryCoins::new(key, &[]);
    let script = wallet.change_script().await.map_err(|error| failed(&error))?;
    for vout in 0..COINS {
        let txid = Txid::from_byte_array([8; 32]);
        let output = TxOut { value: Amount::ONE_BTC, script_pubkey: script.clone() };
        wallet.add(OutPoint { txid, vout }, output);
    }
    Ok(wallet)
}

/// A chain of blocks that are handed over.
#[derive(Clone)]
struct Blocks {
    above: Arc<Mutex<Vec<Block>>>,
    /// Number of blocks that the source shows.
    shown: Arc<watch::Sender<usize>>,
    heard: Arc<tokio::sync::Mutex<watch::Receiver<usize>>>,
}

impl Blocks {
    fn new() -> Self {
        let (shown, heard) = watch::channel(0);
        let heard = Arc::new(tokio::sync::Mutex::new(heard));
        Self { above: Arc::default(), shown: Arc::new(shown), heard }
    }

    /// Makes a block that nobody sees yet.
    fn prepare(&self, among: &[Transaction]) -> Result<BlockHeight, BenchError> {
        let mut above = lock(&self.above);
        let tip = above.last().map_or(block_ref(TIP).hash, Block::block_hash);
        let mut block = synthetic::block(above.len() as u64, &[])?;
        block.txdata.splice(1..1, among.iter().cloned());
        block.header.prev_blockhash = tip;
        block.header.merkle_root =
            block.compute_merkle_root().unwrap_or_else(TxMerkleNode::all_zeros);
        above.push(block);
        Ok(BlockHeight(TIP + above.len() as u32))
    }

    fn announce(&self) {
        let count = lock(&self.above).len();
        self.shown.send_replace(count);
    }

    fn count(&self) -> u32 {
        *self.shown.borrow() as u32
    }

    fn hash(&self, height: u32) -> Option<BlockHash> {
        match height.checked_sub(TIP + 1) {
            None => Some(block_ref(height).hash),
            Some(index) if index >= self.count() => None,
            Some(index) => lock(&self.above).get(index as usize).map(Block::block_hash),
        }
    }
}

impl BlockSource for Blocks {
    type Error = Infallible;

    async fn tip(&self) -> Result<BlockRef, Infallible> {
        let height = TIP + self.count();
        let hash = self.hash(height).unwrap_or_else(BlockHash::all_zeros);
        Ok(BlockRef { height: BlockHeight(height), hash })
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, Infallible> {
        Ok(self.hash(height.0))
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, Infallible> {
        let above = lock(&self.above);
        Ok(above.iter().rev().find(|block| block.block_hash() == hash).cloned())
    }

    async fn mempool_spenders(&self, _: Vec<OutPoint>) -> Result<Vec<Transaction>, Infallible> {
        Ok(Vec::new())
    }

    async fn changed(&self) {
        // The sender lives as long as `self`.
        let _ = self.heard.lock().await.changed().await;
    }
}

/// Takes everything.
struct Network;

impl Broadcast for Network {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        let accepted = |tx: &Transaction| (tx.compute_txid(), Verdict::Accepted);
        Ok(package.transactions.iter().map(accepted).collect())
    }
}

struct Fees;

impl FeeSource for Fees {
    type Error = Infallible;

    async fn estimates(&self) -> Result<FeeEstimates, Infallible> {
        let rate = FeeRate::from_sat_per_vb_u32;
        Ok(FeeEstimates {
            targets: vec![(1, rate(10)), (144, rate(2))],
            floor: rate(1),
            troughs: Troughs::default(),
        })
    }
}

/// Signs, counts, and looks at the clock.
struct Counting {
    inner: MemorySigner,
    watch: Watch,
}

impl Signer for Counting {
    type Error = SignError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, SignError> {
        let signature = self.inner.sign(request).await?;
        self.watch.signed.fetch_add(1, Ordering::SeqCst);
        *lock(&self.watch.last) = Some(Instant::now());
        Ok(signature)
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, SignError> {
        self.inner.point(request).await
    }
}

/// The store, watched.
struct Watched {
    inner: LmdbLog,
    watch: Watch,
}

impl ChangeLog for Watched {
    type Error = StoreError;
    type Append = Pin<Box<dyn Future<Output = Result<Durable, StoreError>> + Send>>;

    fn append(&mut self, batch: Batch) -> Self::Append {
        let block = batch.writes.iter().find_map(|write| match write {
            Write::BlockConnected(at) => Some(at.height),
            _ => None,
        });
        let (append, durable) = (self.inner.append(batch), self.watch.durable.clone());
        Box::pin(async move {
            let receipt = append.await?;
            if let Some(height) = block {
                *lock(&durable) = Some((height, Instant::now()));
            }
            Ok(receipt)
        })
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), StoreError> {
        self.inner.each_channel(each)
    }

    fn channel_count(&self) -> Result<u64, StoreError> {
        self.inner.channel_count()
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, StoreError> {
        self.inner.channel(slot)
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, StoreError> {
        self.inner.facts(slot)
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, StoreError> {
        self.inner.changes(slot)
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, StoreError> {
        self.inner.ended_htlcs(slot, number)
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, StoreError> {
        self.inner.subscribers_to_all()
    }

    fn next_slot(&self) -> Result<Slot, StoreError> {
        self.inner.next_slot()
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, StoreError> {
        self.inner.blocks()
    }
}
