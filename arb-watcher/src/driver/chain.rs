//! Following the chain: one block a step, so that commands and outcomes are never far behind. A
//! worker asks the source; the driver takes what it found.
use super::durable::{Patience, set_aside};
use super::mempool::Looks;
use super::panics::Caught;
use super::work::{Job, Outcome};
use super::{Around, Driver, measure};
use crate::alarms::ChainAlarm;
use crate::core_rpc::TipAlarm;
use crate::epochs::Epoch;
use crate::settings::{Ports, Settings};
use arb_core::arbitrator::{BlockView, Input, Position};
use arb_core::engine::EngineInput;
use arb_core::log::Write;
use arb_core::ports::{BlockSource, FeeEstimates, FeeSource};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::Block;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

/// Longest wait for feerates.
const FEES_PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait of a block for them, where there are any: it is worth more than fresh ones.
const BLOCKS_PATIENCE: Duration = Duration::from_millis(500);

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
    fees: Fees,
    pub(super) mempool: Looks,
    /// What the source heard of too late.
    late: Vec<(BlockRef, Box<Block>)>,
}

/// Where asking for feerates stands.
#[derive(Clone, Copy)]
enum Fees {
    /// None came yet: blocks wait for them.
    None,
    /// There are some.
    Some,
    /// They came too late for a block: a worker asks for them.
    Late,
}

impl Fees {
    /// How long a look waits for them.
    const fn patience(self) -> Duration {
        match self {
            Self::None => FEES_PATIENCE,
            Self::Some => BLOCKS_PATIENCE,
            Self::Late => Duration::ZERO,
        }
    }
}

/// What a look learned of feerates.
pub(super) enum Asked {
    /// What the source says, if it said anything.
    Answered(Option<FeeEstimates>),
    /// It did not answer in time.
    Late,
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
    Next { at: BlockRef, block: Box<Block>, position: Position, fees: Option<Asked> },
    /// Transactions of a block that the engine has had.
    Late { at: BlockRef, block: Box<Block> },
    /// There is nothing above the engine's tip.
    AtTip(Asked),
    /// The chain moved between two questions.
    Unsettled,
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
            fees: Fees::None,
            mempool: Looks::default(),
            late: Vec::new(),
        }
    }

    pub(super) fn rung(&mut self) {
        self.behind.get_or_insert_with(Instant::now);
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.behind.is_some() || self.looking || self.mempool.is_in_round()
    }

    pub(super) const fn is_looking(&self) -> bool {
        self.looking
    }

    /// When the next look is due.
    pub(super) fn due(&self) -> Instant {
        let due = self.behind.unwrap_or(self.heartbeat).min(self.heartbeat);
        // Where the source does not answer, its own pause counts.
        let mempool = self.mempool.due().filter(|_| self.failures == 0);
        mempool.map_or(due, |mempool| mempool.min(due))
    }

    /// Channels or facts are new: what the mempool holds may mean something else to them.
    pub(super) fn look_again(&mut self) {
        self.mempool.forget();
        self.look_at_all();
    }

    /// A whole round through the mempool, from now on.
    pub(super) fn look_at_all(&mut self) {
        self.mempool.start_over();
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
        let wait = wait(settings, self.failures);
        self.failures = self.failures.saturating_add(1);
        self.behind = Some(Instant::now() + wait);
        self.heartbeat = self.heartbeat.max(Instant::now() + wait);
    }
}

/// The pause after so many failures in a row.
pub(super) fn wait(settings: &Settings, failures: u32) -> Duration {
    settings.retry.saturating_mul(1 << failures.min(DOUBLINGS))
}

pub(super) fn source(error: impl std::error::Error) -> FollowError {
    FollowError::Source(error.to_string())
}

impl<A: Around> Driver<A> {
    /// Sends a worker to the source.
    pub(super) fn look(&mut self) {
        self.chain.begin(&self.settings);
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        let remembered: Vec<BlockRef> = self.engine.blocks().copied().collect();
        let patience = (patience, self.chain.fees.patience());
        self.workers.spawn(Job::Look, async move {
            Outcome::Looked(look(&ports, &remembered, patience).await)
        });
    }

    /// Takes feerates over; a worker goes on asking for those that are late. Tells whether they are different now.
    fn on_asked(&mut self, fees: Asked) -> bool {
        let estimates = match (fees, self.chain.fees) {
            (Asked::Answered(estimates), _) => estimates,
            (Asked::Late, Fees::Late) => return false,
            (Asked::Late, Fees::None | Fees::Some) => {
                self.chain.fees = Fees::Late;
                let ports = self.ports.clone();
                self.workers.spawn(Job::Fees, async move {
                    Outcome::Fees(estimates(&ports.fees, FEES_PATIENCE).await)
                });
                return false;
            }
        };
        if estimates.is_some() && matches!(self.chain.fees, Fees::None) {
            self.chain.fees = Fees::Some;
        }
        self.engine_estimates(estimates)
    }

    /// Feerates that were late for a block are there, or are not to be had for now.
    pub(super) fn on_late_fees(&mut self, fees: Asked) {
        self.chain.fees = Fees::Some;
        let Asked::Answered(estimates) = fees else { return };
        if self.engine_estimates(estimates) && self.engine.position() == Position::AtTip {
            self.renew_active();
        }
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
                let alarm = match error {
                    FollowError::TooDeep => Some(ChainAlarm::ReorganisedTooDeeply),
                    FollowError::NoBlock(hash) => Some(ChainAlarm::BlockMissing(hash)),
                    FollowError::Source(_) | FollowError::Late | FollowError::Panicked => stalled,
                };
                if let Some(alarm) = alarm {
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
            What::Next { at, block, position, fees } => {
                if let Some(fees) = fees {
                    self.on_asked(fees);
                }
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
            What::Late { at, block } => {
                self.tell_late(at, &block).await?;
                self.ports.source.had(at, &block);
                self.chain.late.push((at, block));
                self.chain.moved();
            }
            What::AtTip(fees) => {
                let changed = self.on_asked(fees);
                if self.engine.position() == Position::CatchingUp {
                    self.step(vec![EngineInput::ReachedTip]).await?;
                    self.epochs.tell(Epoch::ReachedTip { block: found.tip });
                } else if changed {
                    self.renew_active();
                }
                self.chain.failures = 0;
                self.chain.looking = false;
                self.look_at_mempool();
            }
            What::Unsettled => self.chain.retry(&self.settings),
        }
        Ok(())
    }

    /// Transactions of a block that lies in the chain already.
    async fn tell_late(&mut self, at: BlockRef, block: &Block) -> Result<(), crate::CommandError> {
        let touched = self.engine.scan(block).touched;
        if touched.is_empty() {
            return Ok(());
        }
        tracing::debug!(height = at.height.0, touched = touched.len(), "late");
        let of: Vec<_> = touched.iter().map(|(slot, txs)| (*slot, txs.clone())).collect();
        let input = |(slot, transactions)| {
            let input = Input::BlockConnected(BlockView { at, transactions });
            EngineInput::Channel { slot, input: Box::new(input) }
        };
        self.step(touched.into_iter().map(input).collect()).await?;
        for (slot, transactions) in of {
            if let Some(active) = self.engine.active(slot) {
                measure::confirmed(&active.state, &transactions);
            }
        }
        Ok(())
    }

    /// A channel is watched, or watched again, whose past was scanned: what came late meanwhile may be missing in that.
    /// Who has had it is not changed by it.
    pub(super) async fn tell_late_again(&mut self) {
        let mut late = std::mem::take(&mut self.chain.late);
        let differs =
            |known: &BlockRef, at: &BlockRef| known.height == at.height && known.hash != at.hash;
        late.retain(|(at, _)| !self.engine.blocks().any(|known| differs(known, at)));
        late.sort_by_key(|(at, _)| at.height);
        for (at, block) in &late {
            // An error: the driver is to end.
            let _ = self.tell_late(*at, block).await;
        }
        self.chain.late.append(&mut late);
    }

    /// A new store begins at the source's tip: channels tell their births, and are scanned from
    /// there. The blocks below it are remembered too: the next reorganisation may go below.
    async fn begin_at(&mut self, blocks: Vec<BlockRef>) -> Result<(), crate::CommandError> {
        // Channels that were there before it have missed blocks: no start takes them for what the cursor says.
        let marks = self.quarantine.marks();
        let mut writes: Vec<Write> = marks.iter().map(set_aside).collect();
        writes.extend(blocks.iter().copied().map(Write::BlockConnected));
        let batch = self.direct_batch(writes);
        let receipt = self.append(batch, Patience::UntilDurable).await?;
        self.quarantine.marked(&marks);
        tracing::debug!(batch = receipt.batch().0, "the cursor begins");
        self.engine.begin_at(blocks);
        if let Some(block) = self.engine.tip() {
            self.epochs.tell(Epoch::Connected { block, position: self.engine.position() });
        }
        self.rescan_early();
        Ok(())
    }

    /// Tells whether they are different now.
    fn engine_estimates(&mut self, estimates: Option<FeeEstimates>) -> bool {
        let changed = estimates.filter(|new| new != self.engine.estimates());
        let is_changed = changed.is_some();
        for (target, rate) in changed.iter().flat_map(|new| &new.targets) {
            if *rate > FeeEstimates::HIGHEST {
                tracing::error!(target_blocks = target, %rate, "no block has taken that: not believed");
            }
        }
        changed.into_iter().for_each(|new| self.engine.set_estimates(new));
        is_changed
    }
}

/// What the source has beyond `remembered` (highest first).
async fn look<S, B, F, K, C>(
    ports: &Ports<S, B, F, K, C>,
    remembered: &[BlockRef],
    (patience, for_fees): (Duration, Duration),
) -> Result<Found, FollowError>
where
    S: BlockSource,
    F: FeeSource,
{
    let tip = answer(patience, ports.source.tip()).await?;
    let what = match remembered.first() {
        None => beginning(&ports.source, tip, patience).await?,
        Some(own) if *own == tip => match late(&ports.source, tip) {
            Some(late) => late,
            None => What::AtTip(estimates(&ports.fees, for_fees).await),
        },
        Some(own) => {
            let fork_point = fork_point(&ports.source, remembered, patience).await?;
            if fork_point == *own {
                match late(&ports.source, *own) {
                    Some(late) => late,
                    None => next(ports, *own, tip, (patience, for_fees)).await?,
                }
            } else {
                What::Fork(fork_point)
            }
        }
    };
    Ok(Found { tip, what })
}

/// What the source heard of after the engine had the block: before the next one, which may decide.
fn late<S: BlockSource>(source: &S, own: BlockRef) -> Option<What> {
    let late = source.late(own).filter(|(at, _)| at.height <= own.height);
    late.map(|(at, block)| What::Late { at, block: Box::new(block) })
}

/// One answer of the source's: a look may ask a hundred times, of one that is slow but well.
async fn answer<T, E: std::error::Error>(
    patience: Duration,
    asked: impl Future<Output = Result<T, E>>,
) -> Result<T, FollowError> {
    timeout(patience, asked).await.map_err(|_| FollowError::Late)?.map_err(source)
}

/// The last blocks of the source's chain.
async fn beginning<S: BlockSource>(
    from: &S,
    tip: BlockRef,
    patience: Duration,
) -> Result<What, FollowError> {
    let mut blocks = Vec::new();
    let lowest = tip.height.0.saturating_sub(REMEMBERED_AT_FIRST);
    for height in (lowest..=tip.height.0).map(BlockHeight) {
        let hash = answer(patience, from.hash_at(height)).await?;
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
    patience: Duration,
) -> Result<BlockRef, FollowError> {
    for block in remembered {
        let there = answer(patience, from.hash_at(block.height)).await?;
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
    (patience, for_fees): (Duration, Duration),
) -> Result<What, FollowError>
where
    S: BlockSource,
    F: FeeSource,
{
    let height = BlockHeight(own.height.0.saturating_add(1));
    let Some(hash) = answer(patience, ports.source.hash_at(height)).await? else {
        return Ok(What::Unsettled);
    };
    let block = answer(patience, ports.source.block(hash)).await?;
    let block = block.ok_or(FollowError::NoBlock(hash))?;
    if block.header.prev_blockhash != own.hash {
        return Ok(What::Unsettled);
    }
    let at = BlockRef { height, hash };
    let (position, fees) = if hash == tip.hash {
        (Position::AtTip, Some(estimates(&ports.fees, for_fees).await))
    } else {
        (Position::CatchingUp, None)
    };
    Ok(What::Next { at, block: Box::new(block), position, fees })
}

/// What the fee source says by then. One that panics says nothing.
async fn estimates<F: FeeSource>(fees: &F, patience: Duration) -> Asked {
    if patience.is_zero() {
        return Asked::Late;
    }
    let asked = Caught::new(fees.estimates());
    match timeout(patience, asked).await {
        Ok(Ok(Ok(estimates))) => Asked::Answered(Some(estimates)),
        Ok(Ok(Err(error))) => {
            tracing::warn!(%error, "the last feerates stay in use");
            Asked::Answered(None)
        }
        Ok(Err(what)) => {
            tracing::error!(what, "the fee source has panicked: the last feerates stay in use");
            Asked::Answered(None)
        }
        Err(_) => {
            tracing::warn!("no feerates in time: the last ones stay in use");
            Asked::Late
        }
    }
}
