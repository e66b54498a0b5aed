//! `ChainWatcher`: all that is kept in memory of a quiet channel; and the set of them, by channel,
//! by outpoint and by due height.
use crate::ids::{ChannelId, Slot};
use crate::units::BlockHeight;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bitcoin::OutPoint;
use core::hash::BuildHasher;
use hashbrown::hash_table::OccupiedEntry;
use hashbrown::{DefaultHashBuilder, HashTable};
use places::Places;

/// Watches for the spend of one channel's funding output, and for the height at which the channel
/// must be looked at. A value of the engine, not a task; of a quiet channel nothing else is in
/// memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainWatcher {
    /// The channel's key.
    pub slot: Slot,
    /// The channel.
    pub id: ChannelId,
    /// Its current funding output. Other candidates are watched beside it.
    pub funding: OutPoint,
    /// Tip at which the channel must be looked at; `None` while its height does not matter, and
    /// for an active channel, which every block looks at.
    pub due: Option<BlockHeight>,
}

/// The watchers of all channels. No order of a hash table leaves it: lookups give what is asked
/// for, and lists are sorted.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    hasher: DefaultHashBuilder,
    /// Without gaps: the last one takes the place of one that goes.
    all: Vec<ChainWatcher>,
    by_slot: Places,
    /// Places in `all`.
    by_id: HashTable<u32>,
    /// Every outpoint that is watched, once for each channel that does.
    watched: HashTable<Mark>,
    /// What is watched besides the current funding outputs: other candidates, and the outputs of
    /// closed channels.
    further_of: BTreeMap<Slot, BTreeSet<OutPoint>>,
    due: BTreeSet<(BlockHeight, Slot)>,
}

/// An outpoint, as far as a block's inputs are told apart from it: nearly all of them are watched by
/// nobody, and of these all but one of millions are sorted out without a look at the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Half of the outpoint's hash.
    half: u32,
    slot: Slot,
}

impl Mark {
    /// Its place in the table: what the upper bits are used for, the lower ones are not.
    fn hash(half: u32) -> u64 {
        let half = u64::from(half);
        half | half.wrapping_shl(32)
    }
}

impl Watchers {
    /// Makes room for this many more channels in the tables.
    fn reserve(&mut self, channels: usize) {
        let Self { hasher, all, by_id, watched, .. } = self;
        by_id.reserve(channels, |at| hash_at(all, *at, |w| hasher.hash_one(w.id)));
        watched.reserve(channels, |mark| Mark::hash(mark.half));
    }

    pub(super) const fn len(&self) -> usize {
        self.all.len()
    }

    fn at(&self, at: u32) -> Option<&ChainWatcher> {
        self.all.get(usize::try_from(at).ok()?)
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&ChainWatcher> {
        self.at(self.by_slot.get(slot)?)
    }

    pub(super) fn slot_of(&self, id: &ChannelId) -> Option<Slot> {
        let is_it = |at: &u32| self.at(*at).is_some_and(|watcher| watcher.id == *id);
        let at = self.by_id.find(self.hasher.hash_one(id), is_it)?;
        self.at(*at).map(|watcher| watcher.slot)
    }

    /// The places of a channel's watchers; several only if it has several slots.
    pub(super) fn places_of(&self, id: &ChannelId) -> impl Iterator<Item = usize> {
        let places = self.by_id.iter_hash(self.hasher.hash_one(id));
        let is_it = |at: &u32| self.at(*at).is_some_and(|watcher| watcher.id == *id);
        places.copied().filter(is_it).filter_map(|at| usize::try_from(at).ok())
    }

    #[inline]
    fn half_of(&self, outpoint: &OutPoint) -> u32 {
        upper_half(self.hasher.hash_one(outpoint))
    }

    /// Whether there is any use in asking who watches `outpoint`: nobody does if not.
    #[inline]
    pub(super) fn may_watch(&self, outpoint: &OutPoint) -> bool {
        let half = self.half_of(outpoint);
        self.watched.find(Mark::hash(half), |mark| mark.half == half).is_some()
    }

    /// The channels that watch `outpoint`; more than one only if the node told so.
    pub(super) fn watching(&self, outpoint: OutPoint) -> BTreeSet<Slot> {
        let half = self.half_of(&outpoint);
        let marks = self.watched.iter_hash(Mark::hash(half)).filter(|mark| mark.half == half);
        marks.map(|mark| mark.slot).filter(|slot| self.is_watched_by(*slot, &outpoint)).collect()
    }

    fn is_watched_by(&self, slot: Slot, outpoint: &OutPoint) -> bool {
        self.get(slot).is_some_and(|watcher| watcher.funding == *outpoint)
            || self.further_of.get(&slot).is_some_and(|further| further.contains(outpoint))
    }

    fn mark(&mut self, outpoint: &OutPoint, slot: Slot) {
        let half = self.half_of(outpoint);
        let hash = |mark: &Mark| Mark::hash(mark.half);
        self.watched.insert_unique(Mark::hash(half), Mark { half, slot }, hash);
    }

    fn unmark(&mut self, outpoint: &OutPoint, slot: Slot) {
        let mark = Mark { half: self.half_of(outpoint), slot };
        if let Ok(entry) = self.watched.find_entry(Mark::hash(mark.half), |known| *known == mark) {
            entry.remove();
        }
    }

    /// Every channel whose height has come at `tip`.
    pub(super) fn due_at(&self, tip: BlockHeight) -> impl Iterator<Item = Slot> {
        self.due.range(..=(tip, Slot(u32::MAX))).map(|(_, slot)| *slot)
    }

    /// The watcher in this place.
    pub(super) fn at_place(&self, at: usize) -> Option<&ChainWatcher> {
        self.all.get(at)
    }

    /// In no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = &ChainWatcher> {
        self.all.iter()
    }

    /// What a channel watches.
    pub(super) fn watched_by(&self, slot: Slot) -> impl Iterator<Item = OutPoint> {
        let funding = self.get(slot).map(|watcher| watcher.funding);
        funding.into_iter().chain(self.further_of.get(&slot).into_iter().flatten().copied())
    }

    /// What the channels in these places watch, and the first place after them; `None` after the
    /// last. Whoever goes through all places sees each channel that is there all the while, but for
    /// one that takes an earlier place meanwhile.
    pub(super) fn slice(
        &self,
        from: usize,
        channels: usize,
    ) -> (BTreeSet<OutPoint>, Option<usize>) {
        let to = from.saturating_add(channels);
        let of_slice = self.all.iter().skip(from).take(channels);
        let watched = of_slice.flat_map(|watcher| self.watched_by(watcher.slot)).collect();
        (watched, (to < self.all.len()).then_some(to))
    }

    /// Everything that is watched, sorted.
    pub(super) fn watched(&self) -> BTreeSet<OutPoint> {
        let fundings = self.all.iter().map(|watcher| watcher.funding);
        fundings.chain(self.further_of.values().flatten().copied()).collect()
    }

    /// Puts a channel's watcher in, or in place of the one that it had; it watches `outpoints` as
    /// well.
    pub(super) fn put(
        &mut self,
        watcher: ChainWatcher,
        outpoints: impl IntoIterator<Item = OutPoint>,
    ) {
        let of_it = |known: &ChainWatcher| (known.id, known.funding);
        match self.get(watcher.slot).copied() {
            Some(known) if of_it(&known) == of_it(&watcher) => self.set_due(watcher),
            Some(_) => {
                self.take_out(watcher.slot);
                self.put_in(watcher);
            }
            None => self.put_in(watcher),
        }
        let further = outpoints.into_iter().filter(|outpoint| *outpoint != watcher.funding);
        let mut further = further.peekable();
        // Of nearly all channels there is nothing, now as before.
        if further.peek().is_some() || self.further_of.contains_key(&watcher.slot) {
            self.set_further(watcher.slot, further.collect());
        }
    }

    /// Puts the watchers of many channels in, each slot once, or in place of those that they had;
    /// and what some of them watch as well. Gives the place of the first: the others follow.
    pub(super) fn put_all(
        &mut self,
        watchers: Vec<ChainWatcher>,
        further: Vec<(Slot, Vec<OutPoint>)>,
    ) -> usize {
        if !self.all.is_empty() {
            for watcher in &watchers {
                self.remove(watcher.slot);
            }
        }
        let first = self.all.len();
        if first == 0 {
            self.all = watchers;
        } else {
            self.all.extend(watchers);
        }
        self.reserve(self.all.len().saturating_sub(first));
        for from in (first..self.all.len()).step_by(BATCH) {
            self.fill(from);
        }
        for (slot, outpoints) in further {
            let funding = self.get(slot).map(|watcher| watcher.funding);
            let further = outpoints.into_iter().filter(|outpoint| Some(*outpoint) != funding);
            self.set_further(slot, further.collect());
        }
        first
    }

    /// Puts the watchers from this place on into the tables, a batch of them: what is needed for it
    /// is small beside the tables.
    fn fill(&mut self, first: usize) {
        // There are no more channels than slots.
        let Ok(place) = u32::try_from(first) else { return };
        let Self { hasher, all, by_slot, by_id, watched, due, .. } = self;
        let new = || (place..).zip(all.iter().skip(first).take(BATCH));
        by_slot.set_all(place, new().map(|(_, watcher)| watcher.slot));
        let ids = new().map(|(at, watcher)| (hasher.hash_one(watcher.id), at)).collect();
        for (hash, at) in in_order_of(by_id.capacity(), ids) {
            by_id.insert_unique(hash, at, |at| hash_at(all, *at, |w| hasher.hash_one(w.id)));
        }
        let mark = |watcher: &ChainWatcher| {
            let half = upper_half(hasher.hash_one(watcher.funding));
            (Mark::hash(half), Mark { half, slot: watcher.slot })
        };
        let marks = new().map(|(_, watcher)| mark(watcher)).collect();
        for (hash, mark) in in_order_of(watched.capacity(), marks) {
            watched.insert_unique(hash, mark, |mark| Mark::hash(mark.half));
        }
        let dues = new().filter_map(|(_, watcher)| Some((watcher.due?, watcher.slot)));
        due.extend(dues);
    }

    /// Takes a channel out, and all that it watches. Gives what was kept of it.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<ChainWatcher> {
        self.set_further(slot, BTreeSet::new());
        self.take_out(slot)
    }

    fn set_due(&mut self, watcher: ChainWatcher) {
        let place = self.by_slot.get(watcher.slot).and_then(|at| usize::try_from(at).ok());
        let Some(known) = place.and_then(|at| self.all.get_mut(at)) else { return };
        let before = core::mem::replace(&mut known.due, watcher.due);
        if before == watcher.due {
            return;
        }
        if let Some(due) = before {
            self.due.remove(&(due, watcher.slot));
        }
        self.due.extend(watcher.due.map(|due| (due, watcher.slot)));
    }

    fn put_in(&mut self, watcher: ChainWatcher) {
        // There are no more channels than slots.
        let Ok(at) = u32::try_from(self.all.len()) else { return };
        self.all.push(watcher);
        self.mark(&watcher.funding, watcher.slot);
        let Self { hasher, all, by_slot, by_id, due, .. } = self;
        by_slot.set(watcher.slot, at);
        by_id.insert_unique(hasher.hash_one(watcher.id), at, |at| {
            hash_at(all, *at, |w| hasher.hash_one(w.id))
        });
        due.extend(watcher.due.map(|due| (due, watcher.slot)));
    }

    fn take_out(&mut self, slot: Slot) -> Option<ChainWatcher> {
        let place = self.by_slot.get(slot)?;
        let at = usize::try_from(place).ok()?;
        let gone = *self.all.get(at)?;
        let moved = *self.all.last()?;
        self.by_slot.remove(slot);
        if let Some(at) = self.by_id_of(&gone, place) {
            at.remove();
        }
        self.unmark(&gone.funding, slot);
        let last = u32::try_from(self.all.len()).ok()?.checked_sub(1)?;
        self.all.swap_remove(at);
        if place != last {
            self.by_slot.set(moved.slot, place);
            if let Some(mut at) = self.by_id_of(&moved, last) {
                *at.get_mut() = place;
            }
        }
        if let Some(due) = gone.due {
            self.due.remove(&(due, slot));
        }
        Some(gone)
    }

    /// The entry of a watcher in this place.
    fn by_id_of(&mut self, watcher: &ChainWatcher, place: u32) -> Option<OccupiedEntry<'_, u32>> {
        let hash = self.hasher.hash_one(watcher.id);
        self.by_id.find_entry(hash, |at| *at == place).ok()
    }

    fn set_further(&mut self, slot: Slot, outpoints: BTreeSet<OutPoint>) {
        let before = self.further_of.get(&slot);
        if before.is_none() && outpoints.is_empty() || before == Some(&outpoints) {
            return;
        }
        let before = self.further_of.remove(&slot).unwrap_or_default();
        for outpoint in before.difference(&outpoints) {
            self.unmark(outpoint, slot);
        }
        for outpoint in outpoints.difference(&before) {
            self.mark(outpoint, slot);
        }
        if !outpoints.is_empty() {
            self.further_of.insert(slot, outpoints);
        }
    }
}

fn upper_half(hash: u64) -> u32 {
    let [_, _, _, _, half @ ..] = hash.to_le_bytes();
    u32::from_le_bytes(half)
}

/// Channels that are put into the tables at a time.
const BATCH: usize = 1 << 17;
/// Pieces of a table that are filled one after the other: each fits the processor's caches.
const PIECES: usize = 256;

/// Places of a table that the processor's caches hold whole: it is as quick to fill in any order.
const CACHED: usize = 1 << 18;

/// Entries with their hashes, those of one piece of a table with this capacity together. The lower
/// bits of a hash are its place in the table.
fn in_order_of<T: Copy>(capacity: usize, entries: Vec<(u64, T)>) -> Vec<(u64, T)> {
    // A table is full when seven eighths of it are.
    let places = capacity.saturating_add(capacity.div_ceil(7)).next_power_of_two();
    if places <= CACHED {
        return entries;
    }
    let shift = places.ilog2().saturating_sub(PIECES.ilog2());
    let piece_of = |hash: u64| {
        let piece = usize::try_from(hash.checked_shr(shift).unwrap_or(0)).unwrap_or(usize::MAX);
        piece & PIECES.saturating_sub(1)
    };
    let mut ends = [0_usize; PIECES];
    for (hash, _) in &entries {
        if let Some(count) = ends.get_mut(piece_of(*hash)) {
            *count = count.saturating_add(1);
        }
    }
    // From now on the place of the next entry of each piece.
    let mut next = 0_usize;
    for end in &mut ends {
        next = next.saturating_add(core::mem::replace(end, next));
    }
    let mut ordered = entries.clone();
    for entry in entries {
        let Some(next) = ends.get_mut(piece_of(entry.0)) else { continue };
        if let Some(place) = ordered.get_mut(*next) {
            *place = entry;
        }
        *next = next.saturating_add(1);
    }
    ordered
}

fn hash_at(all: &[ChainWatcher], at: u32, hash: impl FnOnce(&ChainWatcher) -> u64) -> u64 {
    usize::try_from(at).ok().and_then(|at| all.get(at)).map_or(0, hash)
}

mod places;
#[cfg(test)]
mod tests;
