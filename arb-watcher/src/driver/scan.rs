//! Scanning the past of channels. One scan is for many: each block is read once, for all whose past
//! it is part of. What keeps one of them from its end keeps nobody else.
use super::lanes::Lane;
use super::panics::Caught;
use super::rescan::Watching;
use super::work::answer;
use crate::abandon::Sought;
use crate::settings::Settings;
use arb_core::arbitrator::BlockView;
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How many transactions after the funding output an output may be whose spend matters: that of a second stage is. What
/// becomes of money that has left the channel is nobody's business here.
const FURTHEST: u8 = 2;

/// Most blocks that are read before those who came meanwhile may join.
const STRETCH: u32 = 144;

/// The same, where each takes long.
const SLOW_STRETCH: u32 = 1;

/// How long a block may take before those who need it wait for it apart from the others.
const LONG_READ: Duration = Duration::from_secs(5);

/// How often the pause doubles at most where the source fails.
const MOST_DOUBLED: u32 = 6;

/// What a scan found of one channel so far.
#[derive(Debug)]
pub(super) struct History {
    /// No spend of the funding outputs is in a block at or below this height.
    birth: BlockHeight,
    fundings: Vec<OutPoint>,
    pub(super) views: Vec<BlockView>,
    /// Last block that was scanned.
    pub(super) to: Option<BlockRef>,
    /// What is watched, and after how many transactions: 0 is a funding output.
    watched: HashMap<OutPoint, u8>,
    pub(super) sought: Option<Sought>,
}

impl History {
    pub(super) fn new(birth: BlockHeight, fundings: Vec<OutPoint>) -> Self {
        let watched = fundings.iter().map(|funding| (*funding, 0)).collect();
        Self { birth, fundings, views: Vec::new(), to: None, watched, sought: None }
    }

    /// What was scanned counts for nothing any more.
    pub(super) fn start_over(&mut self) {
        let mut sought = self.sought.take();
        sought.iter_mut().for_each(Sought::start_over);
        *self = Self { sought, ..Self::new(self.birth, std::mem::take(&mut self.fundings)) };
    }

    fn next(&self) -> BlockHeight {
        let last = self.to.map_or(self.birth, |block| block.height);
        BlockHeight(last.0.saturating_add(1))
    }

    /// How many blocks are to be read up to this one.
    pub(super) fn left(&self, to: BlockRef) -> u32 {
        to.height.0.saturating_add(1).saturating_sub(self.next().0)
    }

    /// Nothing is left to be read. Where all of the chain is older than the channel, what was found above is in no
    /// chain any more.
    pub(super) fn end(&mut self, to: BlockRef) {
        if self.birth >= to.height {
            self.start_over();
            self.to = Some(to);
        }
    }

    /// Watches the outputs of a transaction that touches the channel, as far as what spends them may matter. Gives
    /// those that it did not before.
    fn follow(&mut self, tx: &Transaction) -> Vec<OutPoint> {
        let nearest = tx.input.iter().filter_map(|i| self.watched.get(&i.previous_output)).min();
        let Some(steps) = nearest.filter(|steps| **steps < FURTHEST) else { return Vec::new() };
        let (steps, txid) = (steps.saturating_add(1), tx.compute_txid());
        let outputs = (0u32..).zip(&tx.output).map(|(vout, _)| OutPoint { txid, vout });
        let is_new = |outpoint: &OutPoint| match self.watched.entry(*outpoint) {
            Entry::Vacant(new) => {
                new.insert(steps);
                true
            }
            Entry::Occupied(mut known) => {
                let nearer = steps.min(*known.get());
                known.insert(nearer);
                false
            }
        };
        outputs.filter(is_new).collect()
    }
}

/// A channel whose scan has ended; an error: before its end.
pub(super) type Scanned = (Watching, Result<(), String>);

/// Whose next block is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// Theirs who have most left, for all who come to it later: no block is read twice.
    Most,
    /// Theirs who have fewest left.
    Fewest,
}

/// Channels whose past is scanned together.
pub(super) struct Scan {
    members: BTreeMap<usize, Watching>,
    /// Who watches an output; some of them may be done.
    watching: HashMap<OutPoint, Vec<usize>>,
    done: Vec<Scanned>,
    lane: Lane,
    first: First,
}

/// Why a block cannot be read.
enum Pause {
    /// The source failed: go on a moment later.
    Later(String),
    /// The chain is not what it was: the driver says where it ends now.
    Moved,
    /// The source does not have the block.
    Never(String),
}

impl Scan {
    pub(super) fn of(members: Vec<Watching>, lane: Lane, first: First) -> Self {
        let members: BTreeMap<usize, Watching> = members.into_iter().enumerate().collect();
        let mut watching: HashMap<OutPoint, Vec<usize>> = HashMap::new();
        for (place, member) in &members {
            for outpoint in member.history.watched.keys() {
                watching.entry(*outpoint).or_default().push(*place);
            }
        }
        Self { members, watching, done: Vec::new(), lane, first }
    }

    /// Scans from where the histories end, or the channels' births, up to `to`, but not for long: others may have
    /// come meanwhile. Gives those that are done as soon as there are any, and those that are to go on.
    pub(super) async fn run<S: BlockSource>(
        mut self,
        source: &S,
        to: BlockRef,
        settings: &Settings,
    ) -> (Vec<Scanned>, Vec<Watching>) {
        let stuck = self.members.values_mut().map(|member| std::mem::take(&mut member.stuck));
        // Not `any`: it would leave some of them so.
        if stuck.fold(false, |one, other| one | other) {
            sleep(settings.retry).await;
        }
        let mut stretch = 0..self.stretch();
        loop {
            self.end_complete(to);
            if !self.done.is_empty() {
                break;
            }
            let Some(height) = self.next(Instant::now()) else {
                if let Some(until) = self.waits_until() {
                    // Others may have come meanwhile, and need not wait for that.
                    sleep_until(until.min(Instant::now() + settings.retry)).await;
                }
                break;
            };
            if stretch.next().is_none() {
                break;
            }
            let begun = Instant::now();
            // Whoever waits for it is answered even if the source panics.
            let read = Caught::new(block_at(source, height, settings));
            let Ok(read) = timeout(self.longest(settings), read).await else {
                self.are_slow(height, true);
                break;
            };
            match read {
                Ok(Ok((at, block))) => {
                    if begun.elapsed() < LONG_READ {
                        self.are_slow(height, false);
                    }
                    self.take(at, &block);
                }
                Ok(Err(Pause::Moved)) => self.end_at(height, &Ok(())),
                Ok(Err(Pause::Never(why))) => self.end_at(height, &Err(why)),
                Err(what) => self.end_at(height, &Err(format!("the scan panicked: {what}"))),
                Ok(Err(Pause::Later(why))) => {
                    self.end_those(|member| !member.is_wanted(), &Err(why.clone()));
                    let channels = self.fail_at(height, settings);
                    tracing::warn!(channels, why, "the rescan waits");
                }
            }
        }
        self.so_far()
    }

    /// How many blocks are read at most.
    const fn stretch(&self) -> u32 {
        match self.lane {
            Lane::Short | Lane::Middle | Lane::Long => STRETCH,
            Lane::Slow => SLOW_STRETCH,
        }
    }

    /// How long a block may take in this lane: in the slow one each question to the source has its own time.
    fn longest(&self, settings: &Settings) -> Duration {
        match self.lane {
            Lane::Short | Lane::Middle | Lane::Long => LONG_READ,
            Lane::Slow => settings.patience.saturating_mul(QUESTIONS),
        }
    }

    /// Whether those who must read this block wait for it apart from the others.
    fn are_slow(&mut self, height: BlockHeight, slow: bool) {
        let here = self.members.values_mut().filter(|member| member.history.next() == height);
        here.for_each(|member| member.slow = slow);
    }

    /// Those that have read all are done.
    fn end_complete(&mut self, to: BlockRef) {
        let is_complete = |member: &Watching| member.history.next() > to.height;
        self.members.values_mut().filter(|m| is_complete(m)).for_each(|m| m.history.end(to));
        self.end_those(is_complete, &Ok(()));
    }

    /// The source has failed to give this block: whoever must read it tries again after a pause, which doubles, and the
    /// others go on meanwhile. Gives how many wait for it.
    fn fail_at(&mut self, height: BlockHeight, settings: &Settings) -> usize {
        let mut channels = 0;
        for member in self.members.values_mut().filter(|m| m.history.next() == height) {
            let failures = member.failed.map_or(0, |(_, failures)| failures);
            let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
            let until = Instant::now() + settings.retry.saturating_mul(factor);
            member.failed = Some((until, failures.saturating_add(1).min(MOST_DOUBLED)));
            channels += 1;
        }
        channels
    }

    /// When the first of those that wait for the source may go on.
    fn waits_until(&self) -> Option<Instant> {
        self.members.values().filter_map(|member| Some(member.failed?.0)).min()
    }

    fn so_far(self) -> (Vec<Scanned>, Vec<Watching>) {
        (self.done, self.members.into_values().collect())
    }

    /// The next block, of those that anybody must read who does not wait.
    fn next(&self, now: Instant) -> Option<BlockHeight> {
        let waits = |member: &Watching| member.failed.is_some_and(|(until, _)| until > now);
        let reading = self.members.values().filter(|member| !waits(member));
        let heights = reading.map(|member| member.history.next());
        match self.first {
            First::Most => heights.min(),
            First::Fewest => heights.max(),
        }
    }

    fn end_those(&mut self, which: impl Fn(&Watching) -> bool, result: &Result<(), String>) {
        let ended = self.take_out(which).into_iter();
        self.done.extend(ended.map(|member| (member, result.clone())));
    }

    fn take_out(&mut self, which: impl Fn(&Watching) -> bool) -> Vec<Watching> {
        let those = self.members.iter().filter(|(_, member)| which(member));
        let places: Vec<usize> = those.map(|(place, _)| *place).collect();
        places.iter().filter_map(|place| self.members.remove(place)).collect()
    }

    /// Who must read this block cannot go on.
    fn end_at(&mut self, height: BlockHeight, result: &Result<(), String>) {
        let here = |member: &Watching| member.history.next() == height;
        self.members.values_mut().filter(|member| here(member)).for_each(|m| m.stuck = true);
        self.end_those(here, result);
    }

    /// Keeps the transactions of a block that touch channels which are to read it next.
    fn take(&mut self, at: BlockRef, block: &Block) {
        self.drop_stale(at.height, block.header.prev_blockhash);
        let mut touched: BTreeMap<usize, Vec<Transaction>> = BTreeMap::new();
        for tx in &block.txdata {
            let spent = tx.input.iter().filter_map(|i| self.watching.get(&i.previous_output));
            let places: BTreeSet<usize> = spent.flatten().copied().collect();
            for place in places {
                let Some(member) = self.members.get_mut(&place) else { continue };
                if member.history.next() != at.height {
                    continue;
                }
                for outpoint in member.history.follow(tx) {
                    self.watching.entry(outpoint).or_default().push(place);
                }
                touched.entry(place).or_default().push(tx.clone());
            }
        }
        for (place, member) in &mut self.members {
            let history = &mut member.history;
            if history.next() != at.height {
                continue;
            }
            history.sought.iter_mut().for_each(|sought| sought.scan(at, block));
            if let Some(transactions) = touched.remove(place) {
                history.views.push(BlockView { at, transactions });
            }
            history.to = Some(at);
            member.failed = None;
        }
    }

    /// Whoever has scanned another block below this one starts over: that is in no chain any more.
    fn drop_stale(&mut self, height: BlockHeight, prev: BlockHash) {
        let stale = self.take_out(|member| {
            let last = member.history.to.filter(|_| member.history.next() == height);
            last.is_some_and(|last| last.hash != prev)
        });
        self.done.extend(stale.into_iter().map(|mut member| {
            member.history.start_over();
            member.stuck = true;
            (member, Ok(()))
        }));
    }
}

/// Most questions to the source for one block.
const QUESTIONS: u32 = 4;

/// The block at a height that the chain had when the scan began. It may be shorter now; a source that has the
/// blocks above and not this one will not have it later either.
async fn block_at<S: BlockSource>(
    source: &S,
    height: BlockHeight,
    settings: &Settings,
) -> Result<(BlockRef, Block), Pause> {
    let hash = hash_at(source, height, settings).await?;
    let block = asked(settings, source.block(hash)).await?;
    let block = block.ok_or_else(|| Pause::Never(format!("the source has no block {hash}")))?;
    Ok((BlockRef { height, hash }, block))
}

async fn hash_at<S: BlockSource>(
    source: &S,
    height: BlockHeight,
    settings: &Settings,
) -> Result<BlockHash, Pause> {
    if let Some(hash) = asked(settings, source.hash_at(height)).await? {
        return Ok(hash);
    }
    if asked(settings, source.tip()).await?.height < height {
        return Err(Pause::Moved);
    }
    // The chain may have grown again meanwhile.
    let hash = asked(settings, source.hash_at(height)).await?;
    hash.ok_or_else(|| Pause::Never(format!("the source has no block at height {}", height.0)))
}

async fn asked<T, E: std::error::Error>(
    settings: &Settings,
    of_source: impl Future<Output = Result<T, E>>,
) -> Result<T, Pause> {
    answer(settings.patience, of_source).await.map_err(Pause::Later)
}
