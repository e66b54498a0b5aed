//! Quarantine: a channel whose records cannot be read, or over which the engine panics, is set aside,
//! and all others go on. Its records are read again after ever longer waits, since a medium may heal;
//! once they can be read, it returns with a scan of the blocks that it missed.
use super::panics::caught_of;
use super::rescan::Watching;
use super::{Around, Driver};
use crate::CommandError;
use crate::settings::ChannelNumbers;
use arb_core::arbitrator::{Alert, BlockView, ChannelArbitrator};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, SubscriberState};
use arb_core::units::BlockRef;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait between two readings of records that cannot be read.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Channels that are read again in one step: the others are as soon as the driver comes by.
const AT_ONCE: usize = 16;

/// Channels that are set aside.
#[derive(Default)]
pub(super) struct Quarantine {
    of: BTreeMap<ChannelId, Aside>,
    /// The same by slot.
    slots: BTreeMap<Slot, ChannelId>,
    /// Those whose records are to be read again, by when.
    due: BTreeSet<(Instant, ChannelId)>,
    /// Channels whose mark in the store is to be set or taken away with the next batch: no block that a
    /// channel does not see is durable before its mark, so no start takes it for one that saw every block.
    marks: BTreeMap<Slot, bool>,
}

/// One channel that is set aside.
pub(super) struct Aside {
    slot: Slot,
    /// What the node stated of it, as long as its facts were not held against that.
    stated: Stated,
    /// The last block that it has seen, if that is known and nothing else can be the case.
    since: Option<BlockRef>,
    /// Why it was set aside, or could not return.
    why: String,
    failures: u32,
    /// When its records are read again; `None` while it is on its way back.
    again: Option<Instant>,
}

/// Whether the facts of a channel were held against what the node states.
#[derive(Clone, Copy)]
pub(super) enum Stated {
    /// They were, when they could still be read.
    Judged,
    /// They were not: this is what the node stated.
    Not(Option<ChannelNumbers>),
}

/// What a channel that was set aside has in the store, all of it sound.
struct Sound {
    facts: Box<ChannelFacts>,
    subscribers: Vec<(String, SubscriberState)>,
    state: ChannelArbitrator,
}

impl Quarantine {
    pub(super) fn slot(&self, id: &ChannelId) -> Option<Slot> {
        self.of.get(id).map(|aside| aside.slot)
    }

    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> {
        self.slots.keys().copied()
    }

    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.slots.contains_key(&slot)
    }

    /// One that was about to return is where it was.
    fn insert(&mut self, id: ChannelId, new: Aside) {
        if let Entry::Vacant(entry) = self.of.entry(id) {
            self.slots.insert(new.slot, id);
            entry.insert(new);
        }
    }

    /// The marks that are not in the store yet.
    pub(super) fn marks(&self) -> Vec<(Slot, bool)> {
        self.marks.iter().map(|(slot, aside)| (*slot, *aside)).collect()
    }

    /// The channel is marked from the next batch on, or no longer.
    pub(super) fn mark(&mut self, slot: Slot, aside: bool) {
        self.marks.insert(slot, aside);
    }

    /// What the channel has seen is lost with its log.
    pub(super) fn nothing_seen(&mut self, slot: Slot) {
        let of_slot = self.slots.get(&slot).and_then(|id| self.of.get_mut(id));
        of_slot.into_iter().for_each(|aside| aside.since = None);
    }

    /// These are in the store.
    pub(super) fn marked(&mut self, marks: &[(Slot, bool)]) {
        for (slot, aside) in marks {
            if self.marks.get(slot) == Some(aside) {
                self.marks.remove(slot);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ChannelId> {
        self.of.keys().copied()
    }

    /// What the node states of a channel. False: it is not set aside.
    fn state(&mut self, numbers: ChannelNumbers) -> bool {
        let aside = self.of.get_mut(&numbers.id);
        aside.map(|aside| aside.stated = Stated::Not(Some(numbers))).is_some()
    }

    pub(super) fn remove(&mut self, id: &ChannelId) {
        self.read_at(id, None);
        if let Some(aside) = self.of.remove(id) {
            self.slots.remove(&aside.slot);
        }
    }

    /// When the next channel is to be read again; `None` if none is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    fn due_at(&self, now: Instant) -> Vec<ChannelId> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| *id).take(AT_ONCE).collect()
    }

    /// Its records are read again at that time, or not for now.
    fn read_at(&mut self, id: &ChannelId, again: Option<Instant>) {
        let Some(aside) = self.of.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut aside.again, again) {
            self.due.remove(&(before, *id));
        }
        self.due.extend(again.map(|at| (at, *id)));
    }

    /// It did not work: once more, after a wait that doubles with each failure.
    pub(super) fn failed(&mut self, id: &ChannelId, why: &str, first: Duration) {
        let Some(aside) = self.of.get_mut(id) else { return };
        why.clone_into(&mut aside.why);
        let factor = 1u32.checked_shl(aside.failures).unwrap_or(u32::MAX);
        let wait = first.saturating_mul(factor).min(LONGEST_WAIT);
        aside.failures = aside.failures.saturating_add(1).min(u32::BITS);
        self.read_at(id, Some(Instant::now() + wait));
    }
}

impl<A: Around> Driver<A> {
    /// Why nothing can be done for a channel that the engine does not hold.
    pub(super) fn unknown(&self, id: ChannelId) -> CommandError {
        let Some(aside) = self.quarantine.of.get(&id) else {
            return CommandError::UnknownChannel(id);
        };
        let again = aside.again.map(|at| at.saturating_duration_since(Instant::now()));
        CommandError::SetAside { id, why: aside.why.clone(), again }
    }

    /// Sets a watched channel aside: one that cannot be read, or over which the engine panics, does not
    /// stop the others. Whoever the engine holds has seen every block up to the tip.
    pub(super) fn set_aside(&mut self, slot: Slot, why: &str) {
        let events = self.events_of(slot);
        if let Some(id) = self.engine.quarantine(slot) {
            // Nothing more is done for it. Its coins stay where they are.
            self.tasks.desire(slot, BTreeMap::new());
            self.failing.stir(slot);
            self.subscribers.set_aside(slot, events);
            self.put_aside(slot, id, Stated::Judged, self.engine.tip(), why);
        }
    }

    /// What the node states of a channel that is set aside counts when it returns.
    pub(super) fn state_aside(&mut self, numbers: ChannelNumbers) -> Result<(), CommandError> {
        if self.quarantine.state(numbers) { Ok(()) } else { Err(self.unknown(numbers.id)) }
    }

    /// Holds the facts that a channel returns with against what the node stated and nobody has judged yet.
    /// Facts that the node gives itself (`of_node`) are not outdated only because it stated nothing before.
    pub(super) fn judge_aside(&mut self, facts: &ChannelFacts, of_node: bool) {
        let Some(aside) = self.quarantine.of.get(&facts.id) else { return };
        match aside.stated {
            Stated::Judged => {}
            Stated::Not(None) if of_node => {}
            Stated::Not(stated) => self.state_numbers(aside.slot, facts, stated),
        }
    }

    /// Sets a channel aside that the engine does not hold.
    pub(super) fn put_aside(
        &mut self,
        slot: Slot,
        id: ChannelId,
        stated: Stated,
        since: Option<BlockRef>,
        why: &str,
    ) {
        tracing::error!(channel = %id, slot = slot.0, why, "channel set aside");
        self.recent.drop(slot);
        self.engine.set_aside(id);
        let new = Aside { slot, stated, since, why: String::new(), failures: 0, again: None };
        self.quarantine.insert(id, new);
        self.quarantine.failed(&id, why, self.settings.retry);
        self.quarantine.mark(slot, true);
        self.notices.alarm(id, Alert::Quarantined);
    }

    /// Reads the records of channels whose wait is over. What can be read is scanned for from the
    /// last block that it has seen, or its birth.
    pub(super) fn read_again(&mut self) {
        for id in self.quarantine.due_at(Instant::now()) {
            let Some(aside) = self.quarantine.of.get(&id) else { continue };
            let (slot, since) = (aside.slot, aside.since);
            match self.sound(slot) {
                Ok(sound) => {
                    self.quarantine.read_at(&id, None);
                    tracing::info!(channel = %id, slot = slot.0, "readable again");
                    // Evidence must be found again as a whole, from the birth on.
                    let bare = sound.state.confirmed().next().is_none();
                    self.rescan(Watching::healed(&sound.facts, since.filter(|_| bare)));
                }
                Err(why) => {
                    tracing::warn!(channel = %id, slot = slot.0, why, "still unreadable");
                    self.quarantine.failed(&id, &why, self.settings.retry);
                }
            }
        }
    }

    /// Everything that the store has of a channel; an error if any of it cannot be read.
    fn sound(&self, slot: Slot) -> Result<Sound, String> {
        // What is stored is about to be older than what the node has a receipt for.
        if self.on_the_way.newest(slot).is_some() {
            return Err("its newest facts are on their way to the store".to_owned());
        }
        let channel = self.log.channel(slot).map_err(|error| error.to_string())?;
        let channel = channel.ok_or_else(|| "no such channel is stored".to_owned())?;
        channel.entry.map_err(|damaged| damaged.to_string())?;
        let facts = self.log.facts(slot).map_err(|error| error.to_string())?;
        let facts = facts.ok_or_else(|| "no facts are stored".to_owned())?;
        let facts = facts.map_err(|damaged| damaged.to_string())?;
        let changes = self.log.changes(slot).map_err(|error| error.to_string())?;
        let changes = changes.map_err(|damaged| damaged.to_string())?;
        let state = caught_of(slot, || ChannelArbitrator::replay(&changes));
        let state = state.map_err(|panicked| panicked.why())?;
        Ok(Sound { facts, subscribers: channel.subscribers, state })
    }

    /// The blocks that it missed cannot be had, for now: it stays aside. So does a channel whose
    /// scan panicked.
    pub(super) fn on_not_scanned(&mut self, id: ChannelId, why: &str) {
        tracing::warn!(channel = %id, why, "not scanned");
        self.quarantine.failed(&id, why, self.settings.retry);
    }

    /// A channel whose records can be read again, and whose missed blocks are scanned, returns.
    pub(super) async fn return_to_service(&mut self, id: ChannelId, history: Vec<BlockView>) {
        let Some(aside) = self.quarantine.of.get(&id) else { return };
        let slot = aside.slot;
        // What was read before the scan may have become unreadable meanwhile.
        let sound = match self.sound(slot) {
            Ok(sound) => sound,
            Err(why) => {
                tracing::warn!(channel = %id, slot = slot.0, why, "unreadable again");
                return self.quarantine.failed(&id, &why, self.settings.retry);
            }
        };
        let facts = sound.facts;
        self.judge_aside(&facts, false);
        if let Err(error) = self.take_back(slot, facts, sound.state, history).await {
            tracing::warn!(channel = %id, slot = slot.0, %error, "not taken back");
            let why = match error {
                CommandError::SetAside { why, .. } => why,
                error => error.to_string(),
            };
            return self.quarantine.failed(&id, &why, self.settings.retry);
        }
        self.restore_subscribers(slot, sound.subscribers);
        tracing::info!(channel = %id, slot = slot.0, "channel back in service");
        self.quarantine.remove(&id);
        self.notices.over(id, Alert::Quarantined);
        self.chain.look_again();
    }

    fn restore_subscribers(&mut self, slot: Slot, stored: Vec<(String, SubscriberState)>) {
        for (name, state) in stored {
            self.subscribers.restore_missing(slot, name, state);
        }
    }

    /// The subscribers of a channel that the node brings back itself, as far as they can be read: its records must
    /// not go before those are told.
    pub(super) fn recall_subscribers(&mut self, slot: Slot) {
        match self.log.channel(slot) {
            Ok(Some(channel)) => self.restore_subscribers(slot, channel.subscribers),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(slot = slot.0, %error, "its subscribers cannot be read");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::units::BlockHeight;
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;

    fn block() -> BlockRef {
        BlockRef { height: BlockHeight(7), hash: BlockHash::all_zeros() }
    }

    /// A lost cursor sets all channels aside. What is asked of one of them costs the same, however many there are:
    /// with a look at all others each, this takes minutes.
    #[test]
    fn what_one_channel_is_asked_does_not_depend_on_how_many_are_set_aside() {
        const CHANNELS: u32 = 100_000;
        let id = |slot: u32| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&slot.to_le_bytes());
            ChannelId(id)
        };
        let begun = std::time::Instant::now();
        let (mut all, block) = (Quarantine::default(), block());
        for slot in (0..CHANNELS).map(Slot) {
            let (stated, why) = (Stated::Judged, String::new());
            let since = Some(block);
            all.insert(id(slot.0), Aside { slot, stated, since, why, failures: 0, again: None });
            all.mark(slot, true);
        }
        let marks = all.marks();
        assert_eq!((all.len(), marks.len(), all.slots().count()), (100_000, 100_000, 100_000));
        // What changed meanwhile is not in the store.
        all.mark(Slot(7), false);
        all.marked(&marks);
        assert_eq!(all.marks(), [(Slot(7), false)]);
        for slot in (0..CHANNELS).map(Slot) {
            assert!(all.holds(slot));
            all.nothing_seen(slot);
            all.remove(&id(slot.0));
            assert!(!all.holds(slot));
        }
        assert_eq!((all.len(), all.slots().count()), (0, 0));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn the_block_that_a_channel_has_seen_is_forgotten_with_its_log() {
        let (mut all, block) = (Quarantine::default(), block());
        for (slot, id) in [(1, [1; 32]), (2, [2; 32])] {
            let (slot, stated, why) = (Slot(slot), Stated::Judged, String::new());
            let since = Some(block);
            all.insert(ChannelId(id), Aside { slot, stated, since, why, failures: 0, again: None });
        }
        all.nothing_seen(Slot(2));
        let since = |id| all.of.get(&ChannelId(id)).and_then(|aside| aside.since);
        assert_eq!((since([1; 32]), since([2; 32])), (Some(block), None));
    }
}
