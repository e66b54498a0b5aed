//! Which rescans are made together. There are four lanes, and one scan at a time in each: the blocks that
//! come wait for four questions at most, and a channel that missed a few blocks not for one that missed
//! thousands, nor that one for one that missed years. Who needs a block that the source takes long to give waits for it in
//! a lane apart, where pasts of every length are together: each block is a scan of its own there, in turn one of those
//! who have most left and one of those who have fewest. So a short past waits for one block before each of its own, and
//! at most twice as many are read as are in the longest. Who comes while a scan is under way joins it after a stretch of blocks.
use super::rescan::Watching;
use super::scan::{First, Scan, Scanned};
use super::work::{Job, Outcome};
use super::{Around, Driver};
use arb_core::ids::ChannelId;
use arb_core::units::BlockRef;
use std::collections::VecDeque;

/// Most blocks that are a short past: a day.
const SHORT: u32 = 144;
/// Most blocks that are no long one: four weeks, in which somebody may still be punished.
const MIDDLE: u32 = 4_032;

/// Channels that are done with their past and that the driver takes before it looks at what else there is.
const AT_ONCE: usize = 16;

/// How long a past is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Short,
    Middle,
    Long,
    /// Of any length, with a block that the source takes long to give.
    Slow,
}

/// The rescans.
#[derive(Default)]
pub(super) struct Rescans {
    /// Channels to be watched once there is a tip to scan to.
    early: Waiting,
    short: Scans,
    middle: Scans,
    long: Scans,
    slow: Scans,
    /// Whether the next block in the slow lane is one of those who have most left.
    most_left: bool,
    /// What was found, to be taken by the driver.
    scanned: VecDeque<Scanned>,
}

/// Those of one lane.
#[derive(Default)]
struct Scans {
    waiting: Waiting,
    under_way: bool,
}

/// Some that wait.
#[derive(Default)]
struct Waiting {
    all: Vec<Watching>,
    /// With so many it is time to see who is gone: twice as many as there were then.
    tidy_at: usize,
}

impl Waiting {
    fn push(&mut self, watching: Watching) {
        if self.all.len() >= self.tidy_at {
            self.tidy();
        }
        self.all.push(watching);
    }

    fn tidy(&mut self) {
        self.all.retain(Watching::is_wanted);
        self.tidy_at = self.all.len().saturating_mul(2).max(SHORT as usize);
    }

    fn take(&mut self) -> Vec<Watching> {
        self.tidy();
        std::mem::take(&mut self.all)
    }
}

impl Rescans {
    fn of(&mut self, lane: Lane) -> &mut Scans {
        match lane {
            Lane::Short => &mut self.short,
            Lane::Middle => &mut self.middle,
            Lane::Long => &mut self.long,
            Lane::Slow => &mut self.slow,
        }
    }

    fn slow_turn(&mut self) -> First {
        self.most_left = !self.most_left;
        if self.most_left { First::Fewest } else { First::Most }
    }

    /// How many wait for a scan to begin.
    pub(super) fn len(&self) -> usize {
        let lanes = [&self.short, &self.middle, &self.long, &self.slow];
        let lanes = lanes.map(|scans| scans.waiting.all.len());
        lanes.into_iter().fold(self.early.all.len(), usize::saturating_add)
    }

    /// Forgets about callers that are gone.
    pub(super) fn tidy(&mut self) {
        self.early.tidy();
        for scans in [&mut self.short, &mut self.middle, &mut self.long, &mut self.slow] {
            scans.waiting.tidy();
        }
    }

    /// Whether something was found that the driver has not taken.
    pub(super) fn are_done(&self) -> bool {
        !self.scanned.is_empty()
    }
}

impl<A: Around> Driver<A> {
    /// Scans the blocks that a channel has missed, if there are any, in the next scan of its lane.
    pub(super) fn rescan(&mut self, mut watching: Watching) {
        let Some(to) = self.engine.tip() else {
            // Without a tip nobody knows which blocks will come by themselves.
            return self.rescans.early.push(watching);
        };
        let lane = match watching.history.left(to) {
            0 => {
                watching.history.end(to);
                return self.rescans.scanned.push_back((watching, Ok(())));
            }
            _ if watching.slow => Lane::Slow,
            left if left <= SHORT => Lane::Short,
            left if left <= MIDDLE => Lane::Middle,
            _ => Lane::Long,
        };
        self.rescans.of(lane).waiting.push(watching);
    }

    /// There is a tip by now.
    pub(super) fn rescan_early(&mut self) {
        for watching in self.rescans.early.take() {
            self.rescan(watching);
        }
    }

    /// Begins a scan in each lane where somebody waits and none is under way.
    pub(super) fn begin_scans(&mut self) {
        let Some(to) = self.engine.tip() else { return };
        for lane in [Lane::Short, Lane::Middle, Lane::Long, Lane::Slow] {
            let scans = self.rescans.of(lane);
            if !scans.under_way && !scans.waiting.all.is_empty() {
                let members = scans.waiting.take();
                self.begin_scan(lane, members, to);
            }
        }
    }

    fn begin_scan(&mut self, lane: Lane, members: Vec<Watching>, to: BlockRef) {
        self.rescans.of(lane).under_way = !members.is_empty();
        if members.is_empty() {
            return;
        }
        let first = match lane {
            Lane::Short | Lane::Middle | Lane::Long => First::Most,
            Lane::Slow => self.rescans.slow_turn(),
        };
        let (ports, settings) = (self.ports.clone(), self.settings);
        let job = Job::Rescan(lane, members.iter().map(|member| member.id).collect());
        self.workers.spawn(job, async move {
            let (done, rest) =
                Scan::of(members, lane, first).run(&ports.source, to, &settings).await;
            Outcome::Scanned { lane, done, rest }
        });
    }

    /// A scan has come to an end for some, or has gone on for long. The others go on with those who came meanwhile, each
    /// in the lane of what is left to it.
    pub(super) async fn on_scanned(&mut self, lane: Lane, done: Vec<Scanned>, rest: Vec<Watching>) {
        self.rescans.of(lane).under_way = false;
        self.rescans.scanned.extend(done);
        for watching in rest.into_iter().filter(Watching::is_wanted) {
            self.rescan(watching);
        }
        self.take_scanned().await;
    }

    /// The scan of these panicked.
    pub(super) fn on_scan_panicked(&mut self, lane: Lane, ids: Vec<ChannelId>) {
        self.rescans.of(lane).under_way = false;
        for id in ids {
            self.on_not_scanned(id, "the scan panicked");
        }
    }

    /// Takes what was found, of some channels at once.
    pub(super) async fn take_scanned(&mut self) {
        for _ in 0..AT_ONCE {
            let Some((watching, result)) = self.rescans.scanned.pop_front() else { return };
            self.on_rescanned(watching, result).await;
            if self.end.is_near() {
                return;
            }
        }
    }
}
