//! `ChainArbitrator`: all channels, one cursor, no I/O.
//!
//! Of a quiet channel only its [`ChainWatcher`] is in memory; a channel that is failing, closing or
//! has anything to remember is [`Active`] as well, with its facts. State moves by `stage` (pure) and `commit`
//! (with the receipt of the store) only.
mod commit;
mod fence;
mod index;
mod mutual;
mod restore;
mod stage;
mod standing;
mod tasks;
mod together;
mod watchers;

use crate::arbitrator::{ChannelArbitrator, Now, Phase, Position, TxKind};
use crate::claim::Deadline;
use crate::claim::trough::Troughs;
use crate::facts::{ChannelFacts, ChannelNumbers, Link};
use crate::ids::{ChannelId, Slot};
use crate::log::BatchId;
use crate::picture::{Picture, Way};
use crate::policy::Policy;
use crate::ports::FeeEstimates;
use crate::units::{BlockHeight, BlockRef};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Txid};
pub use commit::{Released, WrongReceipt};
use core::ops::Bound;
pub use fence::Updated;
pub use index::Scan;
pub use restore::QuietChannels;
pub use stage::{EngineInput, NeedFacts, Transition};
pub use tasks::{CoinsInUse, Task, TaskKey};
pub use watchers::ChainWatcher;
use watchers::Watchers;

/// Blocks below the tip that are remembered, so that a reorganisation finds its fork point.
pub const REMEMBERED_BLOCKS: usize = 288;

/// Facts of quiet channels that an input touches, loaded by the shell.
pub type Loaded = BTreeMap<Slot, Arc<ChannelFacts>>;

/// The arbiter of all channels.
#[derive(Debug)]
pub struct ChainArbitrator {
    policy: Policy,
    /// Every channel, and everything watched.
    watchers: Watchers,
    /// Apart, so that a block costs nothing for the quiet ones.
    active: BTreeMap<Slot, Active>,
    /// The last blocks, lowest first; the last one is the tip.
    blocks: VecDeque<BlockRef>,
    position: Position,
    estimates: FeeEstimates,
    /// The plan of all channels, where they may share transactions; `None`: not made yet.
    together: Option<together::Together>,
    /// Channels whose claims share no transactions with those of others for now.
    alone: BTreeSet<Slot>,
    /// Channels of which the mempool holds an agreed mutual close, and since which tip.
    mutual_closes: BTreeMap<Slot, BlockHeight>,
    /// Channels whose facts were older than the node's when it stated its numbers, and these;
    /// `None`: it did not know the channel.
    outdated: BTreeMap<Slot, Option<ChannelNumbers>>,
    /// What the node said of its peers since it started.
    links: BTreeMap<Slot, Link>,
    /// Channels that are known and not held here, for now: what they are to be told is kept for them.
    aside: BTreeSet<ChannelId>,
    next_batch: u64,
}

/// A channel with anything to remember.
#[derive(Clone, Debug)]
pub struct Active {
    /// Its facts.
    pub facts: Arc<ChannelFacts>,
    /// Its evidence.
    pub state: ChannelArbitrator,
    /// The picture of the two.
    pub picture: Option<Arc<Picture>>,
}

impl Active {
    fn new(facts: Arc<ChannelFacts>, state: ChannelArbitrator) -> Self {
        let picture = Picture::of(&facts, &state).map(Arc::new);
        Self { facts, state, picture }
    }

    /// Where the channel stands.
    #[must_use]
    pub fn phase(&self, now: &Now) -> Phase {
        self.state.phase_of(self.picture.as_deref(), now.tip, &now.policy)
    }

    /// What is lost unless a claim of ours confirms, each with the height by which it must.
    pub fn at_risk(&self, policy: &Policy) -> impl Iterator<Item = (Option<BlockHeight>, Amount)> {
        let failing = self.picture.is_none() && self.state.is_failing();
        let closing = failing.then(|| self.state.stake(&self.facts, policy));
        let closing = closing.map(|stake| (stake.deadline.and_then(Deadline::height), stake.value));
        let outputs = self.picture.iter().flat_map(|picture| &picture.outputs);
        let unspent = outputs.filter(|output| output.spent.is_none());
        let claimed = unspent.filter_map(|output| match &output.way {
            Way::Spend { .. } => {
                let deadline = self.state.deadline_in(&self.facts, output, policy);
                Some((deadline, output.output.value))
            }
            Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => None,
        });
        closing.into_iter().chain(claimed)
    }
}

impl ChainArbitrator {
    /// An arbiter without channels, whose cursor stands at the last of `blocks` (lowest first).
    #[must_use]
    pub fn new(policy: Policy, blocks: Vec<BlockRef>) -> Self {
        Self {
            policy,
            watchers: Watchers::default(),
            active: BTreeMap::new(),
            blocks: blocks.into(),
            position: Position::CatchingUp,
            estimates: FeeEstimates {
                targets: Vec::new(),
                floor: FeeRate::BROADCAST_MIN,
                troughs: Troughs::default(),
            },
            together: None,
            alone: BTreeSet::new(),
            mutual_closes: BTreeMap::new(),
            outdated: BTreeMap::new(),
            links: BTreeMap::new(),
            aside: BTreeSet::new(),
            next_batch: 0,
        }
    }

    /// Puts a stored channel back, at start-up: facts, and everything that its log says.
    pub fn restore(&mut self, slot: Slot, facts: Arc<ChannelFacts>, state: ChannelArbitrator) {
        self.forget_plan();
        if state.is_quiet() {
            self.insert_quiet(slot, &facts);
        } else {
            self.insert_active(slot, Active::new(facts, state));
        }
    }

    /// Sets the cursor of a new store to the last of `blocks` (lowest first); the others are where
    /// a reorganisation may fork. Does nothing once there is a cursor.
    pub fn begin_at(&mut self, blocks: impl IntoIterator<Item = BlockRef>) {
        if self.blocks.is_empty() {
            self.blocks.extend(blocks);
        }
    }

    /// The tip that was connected last; `None` in a new store.
    #[must_use]
    pub fn tip(&self) -> Option<BlockRef> {
        self.blocks.back().copied()
    }

    /// Height of the tip; 0 in a new store.
    #[must_use]
    pub fn height(&self) -> BlockHeight {
        self.tip().map_or(BlockHeight(0), |tip| tip.height)
    }

    /// The remembered blocks, highest first: candidates for a fork point.
    pub fn blocks(&self) -> impl Iterator<Item = &BlockRef> {
        self.blocks.iter().rev()
    }

    /// Settings.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Whether the source had more blocks when the last one was connected.
    #[must_use]
    pub const fn position(&self) -> Position {
        self.position
    }

    /// The feerates in use.
    #[must_use]
    pub const fn estimates(&self) -> &FeeEstimates {
        &self.estimates
    }

    /// Replaces the feerates in use. They are data, not state: nothing is logged.
    pub fn set_estimates(&mut self, estimates: FeeEstimates) {
        self.estimates = estimates;
        self.forget_plan();
    }

    /// The slot of a channel.
    #[must_use]
    pub fn slot(&self, id: &ChannelId) -> Option<Slot> {
        self.watchers.slot_of(id)
    }

    /// What watches for a channel, quiet or active.
    #[must_use]
    pub fn watcher(&self, slot: Slot) -> Option<&ChainWatcher> {
        self.watchers.get(slot)
    }

    /// Every channel, by slot. Looks at all of them.
    #[must_use]
    pub fn channels(&self) -> BTreeMap<Slot, ChannelId> {
        self.watchers.iter().map(|watcher| (watcher.slot, watcher.id)).collect()
    }

    /// Number of channels, quiet ones included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.watchers.len()
    }

    /// Whether there is no channel.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.watchers.len() == 0
    }

    /// Every channel with anything to remember, by slot.
    pub fn actives(&self) -> impl Iterator<Item = (Slot, &Active)> {
        self.active.iter().map(|(slot, active)| (*slot, active))
    }

    /// A channel with anything to remember; `None` if it is quiet or unknown.
    #[must_use]
    pub fn active(&self, slot: Slot) -> Option<&Active> {
        self.active.get(&slot)
    }

    /// Channels with anything to remember whose slot is above `after`, by slot.
    pub fn active_after(&self, after: Option<Slot>) -> impl Iterator<Item = (Slot, &Active)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.active.range((from, Bound::Unbounded)).map(|(slot, active)| (*slot, active))
    }

    /// Number of channels with anything to remember.
    #[must_use]
    pub fn active_len(&self) -> usize {
        self.active.len()
    }

    /// Every confirmed transaction that a channel's evidence rests on, and its block.
    pub fn confirmed(&self) -> impl Iterator<Item = (Slot, Txid, BlockRef)> {
        self.active.iter().flat_map(|(slot, active)| {
            active.state.confirmed().map(move |(txid, at)| (*slot, txid, at))
        })
    }

    /// Outpoints of active channels whose spends in the mempool are of interest.
    pub fn watched_by_active(&self) -> impl Iterator<Item = OutPoint> {
        self.active.keys().flat_map(|slot| self.watchers.watched_by(*slot))
    }

    /// Anchors that a child of ours spends, or was to spend, on commitments without a block: nobody watches
    /// them, but a child that the mempool has lost is to be known.
    pub fn anchors_on_their_way(&self) -> impl Iterator<Item = OutPoint> {
        let open = self.active.values().filter(|active| active.picture.is_none());
        let children = open.flat_map(|active| active.state.acts().of_kind(TxKind::Anchor));
        let anchors: BTreeSet<OutPoint> =
            children.flat_map(|child| child.claims.iter().copied()).collect();
        anchors.into_iter()
    }

    /// Some channels, for a shell that goes through all of them a slice at a time: those in
    /// `channels` places from `from` on. A channel that changes its place meanwhile may be missed.
    #[must_use]
    pub fn slice(&self, from: usize, channels: usize) -> Vec<Slot> {
        self.watchers.iter().skip(from).take(channels).map(|watcher| watcher.slot).collect()
    }

    /// What some channels watch, for a shell that asks about all of them a slice at a time: the
    /// channels in `channels` places from `from` on, and where the next slice begins; `None` after
    /// the last. A channel that changes its place meanwhile may be missed, until the next round.
    #[must_use]
    pub fn watched_slice(
        &self,
        from: usize,
        channels: usize,
    ) -> (BTreeSet<OutPoint>, Option<usize>) {
        self.watchers.slice(from, channels)
    }

    /// Every watched outpoint, sorted. Looks at all channels.
    #[must_use]
    pub fn watched(&self) -> BTreeSet<OutPoint> {
        self.watchers.watched()
    }

    /// The channels that watch `outpoint`: none or one, unless the node told of several with the
    /// same funding output.
    pub fn watching(&self, outpoint: OutPoint) -> impl Iterator<Item = Slot> {
        self.watchers.watching(outpoint).into_iter()
    }

    fn take_batch_id(&self) -> BatchId {
        BatchId(self.next_batch)
    }
}

#[cfg(test)]
mod tests;
