//! Following the chain: one block a step, so that commands and outcomes are never far behind. A
//! worker asks the source; the driver takes what it found.
use super::work::{Job, Outcome};
use super::{Driver, durable::Patience, measure};
use crate::alarms::ChainAlarm;
use crate::core_rpc::TipAlarm;
use crate::epochs::Epoch;
use crate::settings::{Ports, Settings};
use arb_core::arbitrator::{Input, Position};
use arb_core::classify;
use arb_core::engine::EngineInput;
use arb_core::format::number::is_commitment_shaped;
use arb_core::ids::Slot;
use arb_core::log::{ChangeLog, Write};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeEstimates, FeeSource, Signer};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, OutPoint, Transaction, Txid};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// Longest wait for feerates: a block is worth more than fresh ones.
const FEES_PATIENCE: Duration = Duration::from_secs(10);

/// Blocks below the tip that a new store begins with.
const REMEMBERED_AT_FIRST: u32 = 144;

/// Most doublings of the wait after a failure.
const DOUBLINGS: u32 = 6;

/// Where following the source stands.
pub(super) struct Following {
    /// There may be something new at the source; asked from this moment on.
    behind: Option<Instant>,
    /// A worker is asking.
    looking: bool,
    /// When the source is asked even though it did not ring.
    heartbeat: Instant,
    failures: u32,
    /// The source did not answer when it was last asked.
    lost: bool,
    stalled: TipAlarm,
    /// Where the next slice of the round through all channels begins.
    slice: usize,
    /// A new round was asked for while a look may have been under way.
    anew: bool,
    /// Mempool transactions that the engine has been shown in the last round, and in this one.
    seen: [HashSet<Shown>; 2],
}

/// A mempool transaction that the engine has been shown, and as what. What it knew of a child of an unconfirmed
/// commitment is not all: once that has a block, the child spends what is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Spender(Txid),
    Under(Txid),
}

/// What a look at the source found.
pub(super) struct Found {
    tip: BlockRef,
    what: What,
}

enum What {
    /// The store is new: the last blocks up to the tip, lowest first.
    Beginning(Vec<BlockRef>),
    /// Blocks above this one are no longer in the chain.
    Fork(BlockRef),
    /// The next block.
    Next { at: BlockRef, block: Box<Block>, position: Position, estimates: Option<FeeEstimates> },
    /// There is nothing above the engine's tip.
    AtTip(Option<FeeEstimates>),
    /// The chain moved between two questions.
    Unsettled,
}

/// What the mempool holds for a slice of the channels, and where the next slice begins; `None`
/// after the last.
pub(super) struct MempoolSlice {
    found: Vec<Transaction>,
    /// Transactions that spend an output of an unconfirmed commitment in `found`.
    under: Vec<Transaction>,
    next: Option<usize>,
}

/// Why a look failed: it is repeated.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("block source: {0}")]
    Source(String),
    #[error("the block source does not answer")]
    Late,
    #[error("the look at the source panicked")]
    Panicked,
    #[error("the source has no block {0}")]
    NoBlock(bitcoin::BlockHash),
    #[error("no remembered block is in the source's chain: it was reorganised too deeply")]
    TooDeep,
}

impl Following {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            behind: Some(Instant::now()),
            looking: false,
            heartbeat: Instant::now(),
            failures: 0,
            lost: false,
            stalled: TipAlarm::new(settings.stalled_after),
            slice: 0,
            anew: false,
            seen: <[HashSet<Shown>; 2]>::default(),
        }
    }

    pub(super) fn rung(&mut self) {
        self.behind.get_or_insert_with(Instant::now);
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.behind.is_some() || self.looking
    }

    pub(super) const fn is_looking(&self) -> bool {
        self.looking
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        self.behind.unwrap_or(self.heartbeat).min(self.heartbeat)
    }

    /// A transaction of the mempool is to be shown again.
    pub(super) fn unseen(&mut self, txid: &Txid) {
        for seen in &mut self.seen {
            seen.remove(&Shown::Spender(*txid));
        }
    }

    /// Channels or facts are new: what the mempool holds may mean something else to them.
    pub(super) fn look_again(&mut self) {
        self.seen = <[HashSet<Shown>; 2]>::default();
        self.look_at_all();
    }

    /// A whole round through the mempool, from now on.
    pub(super) fn look_at_all(&mut self) {
        self.anew = true;
        self.rung();
    }

    fn begin(&mut self, settings: &Settings) {
        self.looking = true;
        self.behind = None;
        self.heartbeat = Instant::now() + settings.heartbeat;
    }

    fn moved(&mut self) {
        self.looking = false;
        self.behind = Some(Instant::now());
    }

    /// Asks again after a wait that doubles with each failure in a row.
    fn retry(&mut self, settings: &Settings) {
        self.looking = false;
        let wait = settings.retry.saturating_mul(1 << self.failures.min(DOUBLINGS));
        self.failures = self.failures.saturating_add(1);
        self.behind = Some(Instant::now() + wait);
        self.heartbeat = self.heartbeat.max(Instant::now() + wait);
    }

    fn is_shown(&self, shown: &Shown) -> bool {
        self.seen.iter().any(|seen| seen.contains(shown))
    }

    /// The engine was shown what the mempool holds for one slice. What it was shown in neither this
    /// round nor the one before would be new to it.
    fn shown(&mut self, shown: Vec<Shown>, next: Option<usize>, settings: &Settings) {
        self.seen[1].extend(shown);
        self.slice = next.unwrap_or_default();
        if next.is_some() {
            let soon = Instant::now() + settings.retry;
            self.behind = Some(self.behind.map_or(soon, |due| due.min(soon)));
        } else {
            self.seen[0] = std::mem::take(&mut self.seen[1]);
        }
    }
}

fn source(error: impl std::error::Error) -> FollowError {
    FollowError::Source(error.to_string())
}

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    /// Sends a worker to the source.
    pub(super) fn look(&mut self) {
        self.chain.begin(&self.settings);
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        let remembered: Vec<BlockRef> = self.engine.blocks().copied().collect();
        self.workers.spawn(Job::Look, async move {
            let found = timeout(patience, look(&ports, &remembered)).await;
            Outcome::Looked(found.unwrap_or(Err(FollowError::Late)))
        });
    }

    pub(super) async fn on_looked(&mut self, found: Result<Found, FollowError>) {
        let now = Instant::now().into_std();
        match found {
            Ok(found) => {
                let stalled = self.chain.stalled.observe(found.tip, now);
                self.alarms.chain(stalled.map(ChainAlarm::Stalled));
                if std::mem::take(&mut self.chain.lost) {
                    // It may be a node that was restarted, without its mempool.
                    self.tasks.reconnected();
                }
                let source = found.tip.height;
                // An error: the driver is to end.
                let _ = self.on_found(found).await;
                self.measure_channels(source);
            }
            Err(error) => {
                tracing::warn!(%error, "following the chain");
                self.chain.lost = true;
                let stalled = self.chain.stalled.check(now).map(ChainAlarm::Stalled);
                let deep = matches!(error, FollowError::TooDeep);
                if let Some(alarm) = deep.then_some(ChainAlarm::ReorganisedTooDeeply).or(stalled) {
                    self.alarms.chain(Some(alarm));
                }
                self.chain.retry(&self.settings);
            }
        }
    }

    async fn on_found(&mut self, found: Found) -> Result<(), crate::CommandError> {
        match found.what {
            What::Beginning(blocks) => {
                self.begin_at(blocks).await?;
                self.chain.moved();
            }
            What::Fork(fork_point) => {
                let from = self.engine.height().0;
                tracing::info!(from, to = fork_point.height.0, "reorganisation");
                let above = |block: &&BlockRef| block.height > fork_point.height;
                let gone: Vec<_> = self.engine.blocks().take_while(above).copied().collect();
                measure::reorganised(self.engine.height(), fork_point.height);
                self.step(vec![EngineInput::Disconnected { fork_point }]).await?;
                for block in gone {
                    self.epochs.tell(Epoch::Disconnected { block });
                }
                self.chain.moved();
            }
            What::Next { at, block, position, estimates } => {
                self.engine_estimates(estimates);
                let touched = self.engine.scan(&block).touched;
                tracing::debug!(height = at.height.0, touched = touched.len(), "block");
                let hash = tracing::field::display(at.hash);
                let span = tracing::info_span!("block", height = at.height.0, hash);
                let of: Vec<_> = touched.iter().map(|(slot, txs)| (*slot, txs.clone())).collect();
                let block = vec![EngineInput::Block { at, touched, position }];
                self.step(block).instrument(span).await?;
                for (slot, transactions) in of {
                    if let Some(active) = self.engine.active(slot) {
                        measure::confirmed(&active.state, &transactions);
                    }
                }
                self.notices.repeat_alarms();
                self.epochs.tell(Epoch::Connected { block: at, position });
                self.chain.failures = 0;
                self.chain.moved();
            }
            What::AtTip(estimates) => {
                let changed = self.engine_estimates(estimates);
                if self.engine.position() == Position::CatchingUp {
                    self.step(vec![EngineInput::ReachedTip]).await?;
                    self.epochs.tell(Epoch::ReachedTip { block: found.tip });
                } else if changed {
                    self.renew_active();
                }
                self.look_at_mempool();
            }
            What::Unsettled => self.chain.retry(&self.settings),
        }
        Ok(())
    }

    /// A new store begins at the source's tip: channels tell their births, and are scanned from
    /// there. The blocks below it are remembered too: the next reorganisation may go below.
    async fn begin_at(&mut self, blocks: Vec<BlockRef>) -> Result<(), crate::CommandError> {
        let batch = self.direct_batch(blocks.iter().copied().map(Write::BlockConnected).collect());
        let receipt = self.append(batch, Patience::UntilDurable).await?;
        tracing::debug!(batch = receipt.batch().0, "the cursor begins");
        self.engine.begin_at(blocks);
        if let Some(block) = self.engine.tip() {
            self.epochs.tell(Epoch::Connected { block, position: self.engine.position() });
        }
        for watching in std::mem::take(&mut self.waiting) {
            self.rescan(watching);
        }
        Ok(())
    }

    /// Tells whether they are different now.
    fn engine_estimates(&mut self, estimates: Option<FeeEstimates>) -> bool {
        let changed = estimates.filter(|new| new != self.engine.estimates());
        let is_changed = changed.is_some();
        changed.into_iter().for_each(|new| self.engine.set_estimates(new));
        is_changed
    }

    /// Preimages and mutual closes are learned from the mempool as well (BOLT 5 X3). Active
    /// channels are asked about at every look, all others in turn.
    fn look_at_mempool(&mut self) {
        if std::mem::take(&mut self.chain.anew) {
            self.chain.slice = 0;
        }
        let channels = self.settings.mempool_slice.max(1);
        let (mut outpoints, next) = self.engine.watched_slice(self.chain.slice, channels);
        outpoints.extend(self.engine.watched_by_active());
        outpoints.extend(self.engine.anchors_on_their_way());
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        self.workers.spawn(Job::Look, async move {
            if outpoints.is_empty() {
                let (found, under) = (Vec::new(), Vec::new());
                return Outcome::Mempool(Ok(MempoolSlice { found, under, next }));
            }
            let outpoints = outpoints.into_iter().collect();
            let found = timeout(patience, in_mempool(&ports.source, outpoints)).await;
            Outcome::Mempool(match found {
                Ok(Ok((found, under))) => Ok(MempoolSlice { found, under, next }),
                Ok(Err(error)) => Err(source(error)),
                Err(_) => Err(FollowError::Late),
            })
        });
    }

    /// Those that spend what active channels watch, or an anchor that a child of ours is to spend; and all that they
    /// spend.
    fn of_active(&self, found: &[Transaction]) -> HashMap<Txid, Vec<OutPoint>> {
        let anchors: HashSet<OutPoint> = self.engine.anchors_on_their_way().collect();
        let is_active = |outpoint: OutPoint| {
            let mut watching = self.engine.watching(outpoint);
            anchors.contains(&outpoint) || watching.any(|slot| self.engine.active(slot).is_some())
        };
        let of_active =
            found.iter().filter(|tx| tx.input.iter().any(|i| is_active(i.previous_output)));
        let spent = |tx: &Transaction| tx.input.iter().map(|input| input.previous_output).collect();
        of_active.map(|tx| (tx.compute_txid(), spent(tx))).collect()
    }

    pub(super) async fn on_mempool(&mut self, slice: Result<MempoolSlice, FollowError>) {
        let MempoolSlice { found, under, next } = match slice {
            Ok(slice) => slice,
            Err(error) => {
                tracing::warn!(%error, "the mempool");
                return self.chain.retry(&self.settings);
            }
        };
        self.chain.looking = false;
        self.chain.failures = 0;
        let mut shown = Vec::new();
        let (mut inputs, mut closes) = (Vec::new(), Vec::new());
        for tx in &found {
            let as_this = Shown::Spender(tx.compute_txid());
            shown.push(as_this);
            if self.chain.is_shown(&as_this) {
                continue;
            }
            let of = tx.input.iter().flat_map(|i| self.engine.watching(i.previous_output));
            let slots: BTreeSet<_> = of.collect();
            if classify::is_closing_shaped(tx) {
                closes.push((slots.clone(), tx.clone()));
            }
            inputs.extend(slots.into_iter().map(|slot| seen_in_mempool(slot, tx)));
        }
        let parents: HashMap<Txid, &Transaction> =
            found.iter().map(|tx| (tx.compute_txid(), tx)).collect();
        for tx in &under {
            let as_this = Shown::Under(tx.compute_txid());
            shown.push(as_this);
            if self.chain.is_shown(&as_this) {
                continue;
            }
            let parents = tx.input.iter().filter_map(|i| parents.get(&i.previous_output.txid));
            let spent = parents.flat_map(|parent| &parent.input);
            let of: BTreeSet<_> =
                spent.flat_map(|i| self.engine.watching(i.previous_output)).collect();
            inputs.extend(of.into_iter().map(|slot| seen_in_mempool(slot, tx)));
        }
        if !inputs.is_empty() && self.step(inputs).await.is_err() {
            return;
        }
        let mutual = self.engine.closed_mutually_by(&found);
        self.hold_back(&mutual);
        // What is back later is shown again.
        for txid in self.tasks.mempool_holds(self.of_active(&found)) {
            self.chain.unseen(&txid);
        }
        self.chain.shown(shown, next, &self.settings);
        for (slots, tx) in closes {
            self.judge_close(slots, tx);
        }
    }
}

fn seen_in_mempool(slot: Slot, tx: &Transaction) -> EngineInput {
    let input = Box::new(Input::SeenInMempool(Box::new(tx.clone())));
    EngineInput::Channel { slot, input }
}

/// Mempool transactions that spend any of these outputs; and those that spend an output of an unconfirmed
/// commitment among these, by the preimage perhaps.
async fn in_mempool<S: BlockSource>(
    from: &S,
    outpoints: Vec<OutPoint>,
) -> Result<(Vec<Transaction>, Vec<Transaction>), S::Error> {
    let found = from.mempool_spenders(outpoints).await?;
    let commitments = found.iter().filter(|tx| is_commitment_shaped(tx));
    let outputs = commitments.flat_map(|tx| {
        let txid = tx.compute_txid();
        (0u32..).zip(&tx.output).map(move |(vout, _)| OutPoint { txid, vout })
    });
    let outputs: Vec<OutPoint> = outputs.collect();
    if outputs.is_empty() {
        return Ok((found, Vec::new()));
    }
    let under = from.mempool_spenders(outputs).await?;
    Ok((found, under))
}

/// What the source has beyond `remembered` (highest first).
async fn look<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    remembered: &[BlockRef],
) -> Result<Found, FollowError>
where
    S: BlockSource,
    F: FeeSource,
{
    let tip = ports.source.tip().await.map_err(source)?;
    let what = match remembered.first() {
        None => beginning(&ports.source, tip).await?,
        Some(own) if *own == tip => What::AtTip(estimates(&ports.fees).await),
        Some(own) => {
            let fork_point = fork_point(&ports.source, remembered).await?;
            if fork_point == *own { next(ports, *own, tip).await? } else { What::Fork(fork_point) }
        }
    };
    Ok(Found { tip, what })
}

/// The last blocks of the source's chain.
async fn beginning<S: BlockSource>(from: &S, tip: BlockRef) -> Result<What, FollowError> {
    let mut blocks = Vec::new();
    let lowest = tip.height.0.saturating_sub(REMEMBERED_AT_FIRST);
    for height in (lowest..=tip.height.0).map(BlockHeight) {
        let hash = from.hash_at(height).await.map_err(source)?;
        blocks.extend(hash.map(|hash| BlockRef { height, hash }));
    }
    // All of them belong to one chain if the last one is still the tip.
    let settled = blocks.last() == Some(&tip);
    Ok(if settled { What::Beginning(blocks) } else { What::Unsettled })
}

/// The highest remembered block that is in the source's chain.
async fn fork_point<S: BlockSource>(
    from: &S,
    remembered: &[BlockRef],
) -> Result<BlockRef, FollowError> {
    for block in remembered {
        let there = from.hash_at(block.height).await.map_err(source)?;
        if there == Some(block.hash) {
            return Ok(*block);
        }
    }
    Err(FollowError::TooDeep)
}

async fn next<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    own: BlockRef,
    tip: BlockRef,
) -> Result<What, FollowError>
where
    S: BlockSource,
    F: FeeSource,
{
    let height = BlockHeight(own.height.0.saturating_add(1));
    let Some(hash) = ports.source.hash_at(height).await.map_err(source)? else {
        return Ok(What::Unsettled);
    };
    let block = ports.source.block(hash).await.map_err(source)?;
    let block = block.ok_or(FollowError::NoBlock(hash))?;
    if block.header.prev_blockhash != own.hash {
        return Ok(What::Unsettled);
    }
    let at = BlockRef { height, hash };
    let (position, estimates) = if hash == tip.hash {
        (Position::AtTip, estimates(&ports.fees).await)
    } else {
        (Position::CatchingUp, None)
    };
    Ok(What::Next { at, block: Box::new(block), position, estimates })
}

async fn estimates<F: FeeSource>(fees: &F) -> Option<FeeEstimates> {
    match timeout(FEES_PATIENCE, fees.estimates()).await {
        Ok(Ok(estimates)) => Some(estimates),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the last feerates stay in use");
            None
        }
        Err(_) => {
            tracing::warn!("no feerates in time: the last ones stay in use");
            None
        }
    }
}
