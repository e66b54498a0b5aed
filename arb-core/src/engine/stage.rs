//! `stage`: what inputs mean for all channels, as one transition. Pure: the engine stays as it is.
use crate::arbitrator::{
    BlockView, Change, ChannelArbitrator, Input, Now, Position, PreimageSource,
};
use crate::engine::fence::{Updated, refused_registration};
use crate::engine::{Active, ChainArbitrator, Loaded};
use crate::facts::{ChannelFacts, HtlcLink, Link, UpdateError};
use crate::ids::{ChannelId, HtlcId, HtlcRef, Preimage, Side, Slot};
use crate::log::{Batch, BatchId, Write};
use crate::units::{BlockHeight, BlockRef};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, Transaction};

/// What reaches the engine.
#[derive(Clone, Debug)]
pub enum EngineInput {
    /// A block was connected on top of the tip.
    Block {
        /// The block.
        at: BlockRef,
        /// What [`ChainArbitrator::scan`] found in it.
        touched: BTreeMap<Slot, Vec<Transaction>>,
        /// Whether it is the source's tip.
        position: Position,
    },
    /// Every block above this one was disconnected.
    Disconnected {
        /// Last block that stays.
        fork_point: BlockRef,
    },
    /// The engine is at the source's tip: what waited for that is decided.
    ReachedTip,
    /// Something for one channel.
    Channel {
        /// The channel.
        slot: Slot,
        /// The input.
        input: Box<Input>,
    },
    /// A new channel, and what a rescan from its birth found.
    Watch {
        /// Its slot.
        slot: Slot,
        /// Its facts, verified. If the channel is there already (restored by
        /// [`ChainArbitrator::restore`]), what is remembered of it stays; facts with another local
        /// commitment than the one that was handed out are refused.
        facts: Box<ChannelFacts>,
        /// Blocks between birth and tip that touch it, lowest first.
        history: Vec<BlockView>,
    },
    /// Verified updates of a channel's facts. Refused if what reached the channel since, in this
    /// stage or before, stands against them.
    Facts {
        /// The channel.
        slot: Slot,
        /// What the updates lead to.
        updated: Box<Updated>,
        /// Blocks between the birth of new funding candidates and the tip that touch these, lowest
        /// first.
        history: Vec<BlockView>,
    },
    /// The channel is resolved and everybody knows: its records go.
    Forget {
        /// The channel.
        slot: Slot,
    },
}

/// Facts of quiet channels that staging needs: load them and stage again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedFacts(pub BTreeSet<Slot>);

/// One append and what it will lead to. Its effects cannot be read: they are those of the
/// engine after [`ChainArbitrator::commit`], which wants the receipt of this very batch.
///
/// The pairs differ in one line each, and only the second of a pair compiles.
///
/// ```compile_fail,E0616
/// fn read(t: &arb_core::engine::Transition) -> usize {
///     t.next.len()
/// }
/// ```
/// ```
/// fn read(t: &arb_core::engine::Transition) -> usize {
///     t.batch().writes.len()
/// }
/// ```
///
/// ```compile_fail,E0061
/// use arb_core::{engine::*, log::Durable};
/// fn release(e: &mut ChainArbitrator, t: Transition, receipt: Durable) -> Option<Released> {
///     e.commit(t).ok().map(|concerned| e.released(concerned))
/// }
/// ```
/// ```
/// use arb_core::{engine::*, log::Durable};
/// fn release(e: &mut ChainArbitrator, t: Transition, receipt: Durable) -> Option<Released> {
///     e.commit(t, receipt).ok().map(|concerned| e.released(concerned))
/// }
/// ```
#[derive(Debug)]
#[must_use = "a transition does nothing until its changes are durable"]
pub struct Transition {
    batch: Batch,
    refused: Vec<(Slot, UpdateError)>,
    pub(super) links: Vec<(Slot, Link)>,
    pub(super) next: BTreeMap<Slot, Next>,
    pub(super) blocks: VecDeque<BlockRef>,
    pub(super) position: Position,
}

/// What becomes of a channel.
#[derive(Debug)]
pub(super) enum Next {
    Quiet(Arc<ChannelFacts>),
    Active(Box<Active>),
    Forgotten,
}

impl Next {
    fn active(&self) -> Option<&Active> {
        match self {
            Self::Active(active) => Some(active),
            Self::Quiet(_) | Self::Forgotten => None,
        }
    }
}

impl Transition {
    /// What must be durable first.
    #[must_use]
    pub const fn batch(&self) -> &Batch {
        &self.batch
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> BatchId {
        self.batch.id
    }

    /// Facts among the inputs that were refused: of them nothing is in the batch.
    #[must_use]
    pub fn refused(&self) -> &[(Slot, UpdateError)] {
        &self.refused
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.writes.is_empty()
    }
}

impl ChainArbitrator {
    /// What `inputs` mean, in order. The engine is as before. `at` is told whose turn it is before a channel is
    /// decided about, and `None` when it is no channel's: a shell that catches a panic knows which channel to go on
    /// without. The engine is as before then, too.
    ///
    /// # Errors
    /// Facts of quiet channels are needed: load them and call again.
    pub fn stage(
        &self,
        inputs: &[EngineInput],
        loaded: &Loaded,
        at: &mut dyn FnMut(Option<Slot>),
    ) -> Result<Transition, NeedFacts> {
        let mut staging = Staging {
            engine: self,
            loaded,
            at,
            blocks: self.blocks.clone(),
            position: self.position,
            next: BTreeMap::new(),
            writes: Vec::new(),
            missing: BTreeSet::new(),
            refused: Vec::new(),
            links: Vec::new(),
        };
        for input in inputs {
            staging.take(input);
        }
        if !staging.missing.is_empty() {
            return Err(NeedFacts(staging.missing));
        }
        Ok(Transition {
            batch: Batch { id: self.take_batch_id(), writes: staging.writes },
            refused: staging.refused,
            links: staging.links,
            next: staging.next,
            blocks: staging.blocks,
            position: staging.position,
        })
    }

    /// A block on top of the tip.
    ///
    /// # Errors
    /// Facts of quiet channels are needed: load them and call again.
    pub fn connect(
        &self,
        at: BlockRef,
        touched: BTreeMap<Slot, Vec<Transaction>>,
        position: Position,
        loaded: &Loaded,
    ) -> Result<Transition, NeedFacts> {
        self.stage(&[EngineInput::Block { at, touched, position }], loaded, &mut |_| ())
    }

    /// Back to `fork_point`.
    ///
    /// # Errors
    /// Facts of quiet channels are needed: load them and call again.
    pub fn disconnect(
        &self,
        fork_point: BlockRef,
        loaded: &Loaded,
    ) -> Result<Transition, NeedFacts> {
        self.stage(&[EngineInput::Disconnected { fork_point }], loaded, &mut |_| ())
    }
}

struct Staging<'a> {
    engine: &'a ChainArbitrator,
    loaded: &'a Loaded,
    at: &'a mut dyn FnMut(Option<Slot>),
    blocks: VecDeque<BlockRef>,
    position: Position,
    next: BTreeMap<Slot, Next>,
    writes: Vec<Write>,
    missing: BTreeSet<Slot>,
    refused: Vec<(Slot, UpdateError)>,
    links: Vec<(Slot, Link)>,
}

impl Staging<'_> {
    fn tip(&self) -> BlockHeight {
        self.blocks.back().map_or(BlockHeight(0), |block| block.height)
    }

    fn now(&self, slot: Slot, facts: &ChannelFacts) -> Now {
        Now { tip: self.tip(), position: self.position, ..self.engine.now(slot, facts) }
    }

    fn take(&mut self, input: &EngineInput) {
        match input {
            EngineInput::Block { at, touched, position } => self.block(*at, touched, *position),
            EngineInput::Disconnected { fork_point } => self.disconnected(*fork_point),
            EngineInput::ReachedTip => {
                self.position = Position::AtTip;
                for slot in self.affected() {
                    self.input(slot, &Input::FactsUpdated);
                }
            }
            EngineInput::Channel { slot, input } => self.input(*slot, input),
            EngineInput::Watch { slot, facts, history } => {
                (self.at)(Some(*slot));
                self.watch(*slot, facts, history);
                (self.at)(None);
            }
            EngineInput::Facts { slot, updated, history } => {
                (self.at)(Some(*slot));
                self.facts(*slot, updated, history);
                (self.at)(None);
            }
            EngineInput::Forget { slot } => {
                self.writes.push(Write::Forget { slot: *slot });
                self.next.insert(*slot, Next::Forgotten);
            }
        }
    }

    /// Channels that a new tip concerns: every active one, and quiet ones whose height has come.
    fn affected(&self) -> BTreeSet<Slot> {
        let engine = self.engine;
        let mut slots: BTreeSet<Slot> = engine.active.keys().copied().collect();
        if self.position == Position::AtTip {
            slots.extend(engine.due_at(self.tip()));
        }
        slots.extend(self.next.keys());
        slots
    }

    fn block(
        &mut self,
        at: BlockRef,
        touched: &BTreeMap<Slot, Vec<Transaction>>,
        position: Position,
    ) {
        self.position = position;
        self.blocks.push_back(at);
        if self.blocks.len() > super::REMEMBERED_BLOCKS {
            self.blocks.pop_front();
        }
        self.writes.push(Write::BlockConnected(at));
        let mut slots = self.affected();
        slots.extend(touched.keys());
        for slot in slots {
            let transactions = touched.get(&slot).cloned().unwrap_or_default();
            self.input(slot, &Input::BlockConnected(BlockView { at, transactions }));
        }
    }

    fn disconnected(&mut self, fork_point: BlockRef) {
        self.blocks.retain(|block| block.height <= fork_point.height);
        // The blocks that take the place of these may hold what would be decided against.
        self.position = Position::CatchingUp;
        self.writes.push(Write::Disconnected { fork_point });
        for slot in self.affected() {
            self.input(slot, &Input::Disconnected { fork_point });
        }
    }

    fn watch(&mut self, slot: Slot, facts: &ChannelFacts, history: &[BlockView]) {
        // A channel that was set aside comes back with what its log remembers.
        let active = self.engine.active.get(&slot);
        let state = active.map(|active| active.state.clone()).unwrap_or_default();
        if let Some(refused) = refused_registration(&state, facts) {
            self.refused.push((slot, refused));
            return;
        }
        let facts = Arc::new(facts.clone());
        self.writes.push(Write::Facts { slot, facts: facts.clone() });
        let stale = !state.is_confirmed_by(history);
        let (id, birth) = (facts.id, facts.birth);
        let owes: Vec<_> = state.owed().collect();
        self.put(slot, Active::new(facts, state));
        (self.at)(None);
        let position = core::mem::replace(&mut self.position, Position::CatchingUp);
        if stale {
            let hash = BlockHash::all_zeros();
            let fork_point = BlockRef { height: birth, hash };
            self.input(slot, &Input::Disconnected { fork_point });
        }
        for (htlc, preimage) in self.owed_to(id) {
            let source = PreimageSource::Linked(htlc);
            if self.channel(slot).is_some_and(|c| source.is_wanted(preimage.hash(), &c.facts)) {
                self.input(slot, &Input::Preimage { preimage, source });
            }
        }
        self.position = position;
        self.hand_over(owes);
        self.past(slot, history);
    }

    /// What a channel learned for HTLCs of others that are here, and that left it before it could tell them.
    fn hand_over(&mut self, owes: Vec<(HtlcRef, Preimage)>) {
        for (incoming, preimage) in owes {
            let source = PreimageSource::Linked(incoming.htlc);
            let Some(slot) = self.engine.slot(&incoming.channel) else { continue };
            if !self.knows(slot, &preimage, source)
                && self.channel(slot).is_some_and(|c| source.is_wanted(preimage.hash(), &c.facts))
            {
                self.input(slot, &Input::Preimage { preimage, source });
            }
        }
    }

    /// What others learned for HTLCs of a channel that was not here, perhaps since these have left them.
    fn owed_to(&self, id: ChannelId) -> BTreeMap<HtlcId, Preimage> {
        let before = self.engine.actives().filter(|(slot, _)| !self.next.contains_key(slot));
        let all =
            self.next.values().filter_map(Next::active).chain(before.map(|(_, active)| active));
        let owed = all.flat_map(|active| active.state.owed());
        let of_it = owed.filter(|(incoming, _)| incoming.channel == id);
        of_it.map(|(incoming, preimage)| (incoming.htlc, preimage)).collect()
    }

    /// Blocks that were connected before the channel, or a candidate of it, was known. One of them
    /// may hold the preimage that decides an HTLC of an earlier one: nothing is judged before all
    /// of it is read.
    fn past(&mut self, slot: Slot, history: &[BlockView]) {
        let position = core::mem::replace(&mut self.position, Position::CatchingUp);
        for view in history {
            self.input(slot, &Input::BlockConnected(view.clone()));
        }
        self.position = position;
        self.input(slot, &Input::FactsUpdated);
    }

    fn facts(&mut self, slot: Slot, updated: &Updated, history: &[BlockView]) {
        let Some(active) = self.channel(slot) else { return };
        if let Some(refused) = updated.refused_by(&active) {
            self.refused.push((slot, refused));
            return;
        }
        self.links.extend(updated.link().map(|link| (slot, link)));
        // An HTLC that leaves with these updates may forward another, of a channel that is served by it.
        self.learn(slot, updated);
        if !updated.writes() {
            return self.past(slot, history);
        }
        (self.at)(Some(slot));
        let Some(mut active) = self.channel(slot) else { return };
        let (facts, ended) = (updated.facts(), updated.ended());
        self.writes.push(Write::Facts { slot, facts: facts.clone() });
        if !ended.is_empty() {
            self.writes.push(Write::EndedHtlcs { slot, htlcs: ended.to_vec() });
        }
        active.facts = facts.clone();
        active.picture = crate::picture::Picture::of(&active.facts, &active.state).map(Arc::new);
        let loaded: Vec<_> = active.state.revoked_htlcs.keys().copied().collect();
        self.put(slot, active);
        (self.at)(None);
        for number in loaded {
            let ended = ended.iter().filter(|(_, record)| record.in_remote(number));
            let htlcs = ended.copied().collect();
            self.input(slot, &Input::RevokedHtlcsLoaded { number, htlcs });
        }
        self.learn(slot, updated);
        self.past(slot, history);
        self.forget_moot(slot);
    }

    /// Those preimages that the facts have an HTLC for by now. Nothing is judged before all is known.
    fn learn(&mut self, slot: Slot, updated: &Updated) {
        let position = core::mem::replace(&mut self.position, Position::CatchingUp);
        for (preimage, source) in updated.preimages() {
            let Some(active) = self.channel(slot) else { break };
            if source.is_wanted(preimage.hash(), &active.facts) {
                self.input(slot, &Input::Preimage { preimage: *preimage, source: *source });
            }
        }
        self.position = position;
    }

    /// HTLCs have left the channel, perhaps: what is remembered of them is moot then, as long as it is open.
    fn forget_moot(&mut self, slot: Slot) {
        let Some(Next::Active(active)) = self.next.get(&slot) else { return };
        if active.picture.is_some() {
            return;
        }
        (self.at)(Some(slot));
        if let Some((state, changes)) = active.state.without_moot(&active.facts, &self.engine.aside)
        {
            let facts = active.facts.clone();
            self.writes.push(Write::LogReplaced { slot, changes });
            self.put(slot, Active::new(facts, state));
        }
        (self.at)(None);
    }

    /// The channel as the inputs so far leave it; notes that its facts are missing.
    fn channel(&mut self, slot: Slot) -> Option<Active> {
        match self.next.get(&slot) {
            Some(Next::Active(active)) => return Some((**active).clone()),
            Some(Next::Quiet(facts)) => {
                return Some(Active::new(facts.clone(), ChannelArbitrator::default()));
            }
            Some(Next::Forgotten) => return None,
            None => {}
        }
        if let Some(active) = self.engine.active.get(&slot) {
            return Some(active.clone());
        }
        self.engine.watcher(slot)?;
        let Some(facts) = self.loaded.get(&slot) else {
            self.missing.insert(slot);
            return None;
        };
        Some(Active::new(facts.clone(), ChannelArbitrator::default()))
    }

    fn put(&mut self, slot: Slot, active: Active) {
        let next = if active.state.is_quiet() {
            Next::Quiet(active.facts)
        } else {
            Next::Active(Box::new(active))
        };
        self.next.insert(slot, next);
    }

    fn input(&mut self, slot: Slot, input: &Input) {
        let mut pending = vec![(slot, input.clone())];
        // A preimage learned on one channel may serve an incoming HTLC on another, and so on.
        while let Some((slot, input)) = pending.pop() {
            (self.at)(Some(slot));
            let Some(mut active) = self.channel(slot) else { continue };
            let now = self.now(slot, &active.facts);
            let decided = active.state.decide_by(&active.facts, active.picture, &input, &now);
            active.state = decided.state;
            active.picture = decided.picture;
            pending.extend(self.links(&active));
            if !decided.changes.is_empty() {
                self.log(slot, decided.changes);
            }
            self.put(slot, active);
        }
        (self.at)(None);
    }

    /// Changes of one channel stand together, in order.
    fn log(&mut self, slot: Slot, mut changes: Vec<Change>) {
        if let Some(Write::Changes { slot: last, changes: logged }) = self.writes.last_mut()
            && *last == slot
        {
            logged.append(&mut changes);
            return;
        }
        self.writes.push(Write::Changes { slot, changes });
    }

    /// Preimages that other channels do not have yet: those learned downstream of HTLCs that
    /// forward theirs.
    fn links(&self, active: &Active) -> Vec<(Slot, Input)> {
        let offered = active.facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Local);
        let linked = offered.filter_map(|(_, record)| {
            let HtlcLink::ForwardOf { incoming, .. } = record.htlc.link else { return None };
            let preimage = active.state.downstream_preimage(record.htlc.hash)?;
            let slot = self.engine.slot(&incoming.channel)?;
            let source = PreimageSource::Linked(incoming.htlc);
            let known = self.knows(slot, &preimage, source);
            (!known).then_some((slot, Input::Preimage { preimage, source }))
        });
        linked.collect()
    }

    fn knows(&self, slot: Slot, preimage: &Preimage, source: PreimageSource) -> bool {
        let state = match self.next.get(&slot) {
            Some(Next::Active(active)) => Some(&active.state),
            Some(Next::Quiet(_)) => None,
            Some(Next::Forgotten) => return true,
            None => match self.engine.active.get(&slot) {
                Some(active) => Some(&active.state),
                None if self.engine.watcher(slot).is_some() => None,
                None => return true,
            },
        };
        state.is_some_and(|state| state.knows(preimage, source))
    }
}
