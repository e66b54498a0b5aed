//! Start-up: quiet channels are gathered from the index of the store and put back together.
use crate::engine::{ChainArbitrator, ChainWatcher};
use crate::facts::{ChannelEntry, ChannelNumbers};
use crate::ids::{ChannelId, Slot};
use crate::policy::Policy;
use crate::units::CommitmentNumber;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::OutPoint;

/// Quiet channels of the store, by their index entries: their facts are loaded when something
/// touches them. Gathered first, for a table that is filled in the order of its own places takes a
/// fraction of the time that it takes in any other.
#[derive(Debug)]
pub struct QuietChannels {
    policy: Policy,
    pub(super) watchers: Vec<ChainWatcher>,
    /// Numbers of the local and the remote commitment of each.
    numbers: Vec<(CommitmentNumber, CommitmentNumber)>,
    /// What some watch besides their current funding output.
    pub(super) others: Vec<(Slot, Vec<OutPoint>)>,
}

impl QuietChannels {
    /// Whether the channel was taken: its slot is above those of all that were added before. In the
    /// order of the index each one's is.
    #[must_use]
    pub fn push(&mut self, slot: Slot, entry: &ChannelEntry) -> bool {
        let ascends = self.watchers.last().is_none_or(|last| last.slot < slot);
        if ascends {
            let due = entry.due(&self.policy);
            let watcher = ChainWatcher { slot, id: entry.id, funding: entry.funding, due };
            self.watchers.push(watcher);
            self.numbers.push((entry.local, entry.remote));
            if !entry.others.is_empty() {
                self.others.push((slot, entry.others.clone()));
            }
        }
        ascends
    }
}

impl ChainArbitrator {
    /// No channels yet, and room for so many.
    #[must_use]
    pub fn quiet_channels(&self, room: usize) -> QuietChannels {
        QuietChannels {
            policy: self.policy,
            watchers: Vec::with_capacity(room),
            numbers: Vec::with_capacity(room),
            others: Vec::new(),
        }
    }

    /// Puts quiet stored channels back, at start-up, and takes what the node states: the last word
    /// of each channel. Gives those that are outdated, by slot, as [`Self::state_numbers`] finds them; a
    /// channel that is not stated is. Of one that has several slots and is stated several times, each
    /// slot takes one of the words.
    pub fn restore_quiet(
        &mut self,
        quiet: QuietChannels,
        stated: &[ChannelNumbers],
    ) -> Vec<(Slot, ChannelId)> {
        self.forget_plan();
        let QuietChannels { watchers, numbers, others, .. } = quiet;
        if !self.active.is_empty() || !self.outdated.is_empty() {
            for watcher in &watchers {
                self.active.remove(&watcher.slot);
                self.outdated.remove(&watcher.slot);
            }
        }
        let first = self.watchers.put_all(watchers, others);
        let mut is_stated = vec![false; numbers.len()];
        let mut newer = BTreeMap::new();
        let mut state = |is_stated: &mut [bool], at: usize, stated: &ChannelNumbers| {
            let (Some(is_stated), Some((local, remote))) = (is_stated.get_mut(at), numbers.get(at))
            else {
                return;
            };
            *is_stated = true;
            if stated.is_newer(*local, *remote) {
                newer.insert(at, *stated);
            } else if !newer.is_empty() {
                newer.remove(&at);
            }
        };
        let watcher = |at: usize| self.watchers.at_place(first.checked_add(at)?);
        // Where the order is that of the slots, as from a node that lists its channels by age, the
        // next place is a good guess. What must be looked up is far away in memory.
        let mut guess = 0_usize;
        for stated in stated {
            let is_new = is_stated.get(guess) == Some(&false);
            if is_new && watcher(guess).is_some_and(|watcher| watcher.id == stated.id) {
                state(&mut is_stated, guess, stated);
            } else {
                for at in self.places_from(first, &stated.id) {
                    state(&mut is_stated, at, stated);
                    guess = at;
                }
            }
            guess = guess.saturating_add(1);
        }
        // Of a channel with several slots, one was guessed perhaps, and the others not looked up.
        let unstated = (0..).zip(&is_stated).filter_map(|(at, is)| (!is).then_some(at));
        let unstated: Vec<usize> = unstated.collect();
        for at in unstated {
            let Some(id) = watcher(at).map(|watcher| watcher.id) else { continue };
            if self.places_from(first, &id).any(|at| is_stated.get(at) == Some(&true)) {
                let stated = stated.iter().rfind(|stated| stated.id == id);
                stated.into_iter().for_each(|stated| state(&mut is_stated, at, stated));
            }
        }
        let is_outdated = |(at, is_stated): &(usize, bool)| !is_stated || newer.contains_key(at);
        let outdated = is_stated.into_iter().enumerate().filter(is_outdated);
        let outdated: Vec<_> = outdated
            .filter_map(|(at, _)| {
                let watcher = self.watchers.at_place(first.checked_add(at)?)?;
                Some((watcher.slot, watcher.id, newer.get(&at).copied()))
            })
            .collect();
        for (slot, _, stated) in &outdated {
            self.outdated.insert(*slot, *stated);
        }
        outdated.into_iter().map(|(slot, id, _)| (slot, id)).collect()
    }

    /// The places of a channel, counted from `first` on.
    fn places_from(&self, first: usize, id: &ChannelId) -> impl Iterator<Item = usize> {
        self.watchers.places_of(id).filter_map(move |place| place.checked_sub(first))
    }
}
