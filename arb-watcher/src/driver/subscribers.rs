//! Named subscriptions: what each has acknowledged is in the store, what each was sent is not. Of one that waits for
//! nothing and has acknowledged nothing, nothing is there once nobody reads it: it ends with its guard.
use crate::mailbox::{Inbox, Outbox, Readers, mailbox};
use crate::subscription::{Closing, Delivered, WAITING, WAITING_OF_ALL};
use arb_core::engine::Active;
use arb_core::ids::Slot;
use arb_core::log::{SubscriberState, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Subscribers {
    /// Of one channel each.
    of: BTreeMap<Slot, BTreeMap<String, Subscriber>>,
    /// Of all channels.
    to_all: BTreeMap<String, ToAll>,
    /// Channels with events that somebody who listens may not have been sent.
    pub(super) news: BTreeSet<Slot>,
    /// Channels with events that somebody had no room for: they wait until there is room, or news.
    pub(super) late: BTreeSet<Slot>,
    /// Number of the first event of a channel whose log is not its first one, if nobody has heard of another one with
    /// that number since the start: a reader may still acknowledge what the lost log told.
    first: BTreeMap<Slot, u64>,
    /// Number of the next event of a channel that was set aside.
    ends: BTreeMap<Slot, u64>,
    /// Events that the outbox of a subscription to all may hold.
    unread: usize,
    pub(super) readers: Arc<Readers>,
    /// Whose reader has which number. It may have been superseded by now.
    reading: BTreeMap<u64, Whose>,
    /// Those that perhaps nobody reads any more, and of which there is perhaps nothing to remember.
    unheld: BTreeSet<Whose>,
    /// The same, to be looked at once another reader is gone.
    unheld_later: BTreeSet<Whose>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    One(Slot, String),
    All(String),
}

/// What the store is to hold of a subscription to one channel.
pub(super) fn kept(state: SubscriberState) -> Option<SubscriberState> {
    (state.acknowledged || state.next > 0).then_some(state)
}

struct Subscriber {
    state: SubscriberState,
    /// Whether it is in the store.
    stored: bool,
    sent: u64,
    outbox: Option<Outbox<Delivered>>,
}

#[derive(Default)]
struct ToAll {
    acknowledged: bool,
    /// Whether its name is in the store.
    stored: bool,
    /// First event of a channel that is not acknowledged yet; 0 of those that are not here.
    next: BTreeMap<Slot, u64>,
    /// As [`Self::next`], not sent yet.
    sent: BTreeMap<Slot, u64>,
    /// Events that there was no room for, by channel, and how many there are.
    late: BTreeMap<Slot, u64>,
    late_in_all: u64,
    outbox: Option<Outbox<Delivered>>,
}

impl ToAll {
    fn next(&self, slot: Slot) -> u64 {
        self.next.get(&slot).copied().unwrap_or(0)
    }

    fn set_late(&mut self, slot: Slot, late: u64) {
        let before = self.late.remove(&slot).unwrap_or(0);
        if late > 0 {
            self.late.insert(slot, late);
        }
        self.late_in_all = self.late_in_all.saturating_sub(before).saturating_add(late);
        if let Some(outbox) = &self.outbox {
            outbox.set_late(self.late_in_all);
        }
    }

    fn state(&self, slot: Slot) -> SubscriberState {
        SubscriberState { next: self.next(slot), acknowledged: self.acknowledged }
    }

    /// What is to be stored of its name.
    fn kept(&self) -> Option<bool> {
        let is_kept = self.acknowledged || self.next.values().any(|next| *next > 0);
        is_kept.then_some(self.acknowledged)
    }
}

/// Whether events that there is no room for may be sent later.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// They may: the log holds them.
    Now,
    /// They may not: the channel is about to be forgotten.
    Last,
}

/// The events of one channel, and what is delivered with them.
pub(super) struct News<'a> {
    pub(super) active: &'a Active,
    pub(super) detail: Option<Arc<Closing>>,
    /// Number of the first event.
    pub(super) first: u64,
}

impl<'a> News<'a> {
    pub(super) fn detail(active: &Active) -> Option<Arc<Closing>> {
        let picture = active.picture.as_ref()?;
        let (tx, _) = active.state.spender(&picture.funding)?;
        Some(Arc::new(Closing {
            transaction: tx.value.transaction().clone(),
            picture: picture.clone(),
            complete: picture.unread.is_none(),
        }))
    }

    fn count(&self) -> u64 {
        count(self.active.state.acts().events.len())
    }

    /// Sends from `sent` on, as far as there is room. Gives the first that was not sent.
    fn send(&self, outbox: &Outbox<Delivered>, mut sent: u64, most: usize) -> u64 {
        let first = usize::try_from(sent).unwrap_or(usize::MAX);
        for event in self.active.state.acts().events.iter().skip(first) {
            let delivered = Delivered {
                channel: self.active.facts.id,
                number: self.first.saturating_add(sent),
                event: *event,
                detail: self.detail.clone(),
            };
            if !outbox.put(delivered, most) {
                break;
            }
            sent = sent.saturating_add(1);
        }
        sent
    }
}

pub(super) fn count(events: usize) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

impl Subscribers {
    /// Those of all channels, from the store: they must be known before those of one.
    pub(super) fn to_all(stored: Vec<(String, bool)>, unread: usize) -> Self {
        let unheld = stored.iter().map(|(name, _)| Whose::All(name.clone())).collect();
        let subscriber =
            |(name, acknowledged)| (name, ToAll { acknowledged, stored: true, ..ToAll::default() });
        let to_all = stored.into_iter().map(subscriber).collect();
        Self { to_all, unread, unheld, ..Self::default() }
    }

    pub(super) fn restore(&mut self, slot: Slot, name: String, state: SubscriberState) {
        if let Some(to_all) = self.to_all.get_mut(&name) {
            to_all.next.insert(slot, state.next);
            return;
        }
        if kept(state).is_none() {
            self.unheld.insert(Whose::One(slot, name.clone()));
        }
        let subscriber = Subscriber { state, stored: true, sent: state.next, outbox: None };
        self.of.entry(slot).or_default().insert(name, subscriber);
    }

    /// Somebody reads what is sent to one channel's subscriber from now on.
    pub(super) fn open(
        &mut self,
        slot: Slot,
        name: &str,
        state: SubscriberState,
    ) -> Inbox<Delivered> {
        let (outbox, inbox) = mailbox(&self.readers);
        self.reading.insert(outbox.number(), Whose::One(slot, name.to_owned()));
        let stored = kept(state).is_some();
        let subscriber = Subscriber { state, stored, sent: state.next, outbox: Some(outbox) };
        self.of.entry(slot).or_default().insert(name.to_owned(), subscriber);
        self.has_news(slot);
        inbox
    }

    /// The same of all channels, of which these have events.
    pub(super) fn open_all(
        &mut self,
        name: &str,
        slots: impl Iterator<Item = Slot>,
    ) -> Inbox<Delivered> {
        let (outbox, inbox) = mailbox(&self.readers);
        self.reading.insert(outbox.number(), Whose::All(name.to_owned()));
        let to_all = self.to_all.entry(name.to_owned()).or_default();
        to_all.outbox = Some(outbox);
        to_all.sent.clear();
        to_all.late.clear();
        to_all.late_in_all = 0;
        self.news.extend(slots);
        inbox
    }

    /// As [`Self::restore`], for one that could not be read at start-up.
    pub(super) fn restore_missing(&mut self, slot: Slot, name: String, state: SubscriberState) {
        let is_missing = match self.to_all.get(&name) {
            Some(to_all) => !to_all.next.contains_key(&slot),
            None => self.get(slot, &name).is_none(),
        };
        if is_missing {
            self.restore(slot, name, state);
        }
    }

    /// The channel may have new events.
    pub(super) fn has_news(&mut self, slot: Slot) {
        if !self.to_all.is_empty() || self.of.contains_key(&slot) {
            self.news.insert(slot);
        }
    }

    /// Readers that were late have room again. Much may be late, and who reads slowly makes room for one event
    /// at a time: only those readers are looked at, and only as many channels as there is room for.
    pub(super) fn room(&mut self) {
        let most_of_all = WAITING_OF_ALL.min(self.unread);
        for number in self.readers.with_room() {
            match self.reading.get(&number) {
                Some(Whose::One(slot, _)) => self.news.extend(self.late.get(slot)),
                Some(Whose::All(name)) => {
                    let Some(to_all) = self.to_all.get(name) else { continue };
                    let room = to_all.outbox.as_ref().map_or(0, |outbox| outbox.room(most_of_all));
                    // Of each, one event waits at least.
                    self.news.extend(to_all.late.keys().take(room));
                }
                None => {}
            }
        }
    }

    /// Number of the first event of a channel.
    pub(super) fn first(&self, slot: Slot) -> u64 {
        self.first.get(&slot).copied().unwrap_or(0)
    }

    /// Nothing of a channel, which has so many events, is sent for now. When it is back, that is news.
    pub(super) fn set_aside(&mut self, slot: Slot, events: u64) {
        self.ends.insert(slot, self.first(slot).saturating_add(events));
        self.send_nothing(slot);
    }

    fn send_nothing(&mut self, slot: Slot) {
        self.news.remove(&slot);
        self.late.remove(&slot);
        for to_all in self.to_all.values_mut() {
            to_all.set_late(slot, 0);
        }
    }

    /// Readers that are gone are forgotten.
    pub(super) fn tidy(&mut self) {
        self.unheld.append(&mut self.unheld_later);
        for number in self.readers.ended() {
            let Some(whose) = self.reading.remove(&number) else { continue };
            let outbox = match &whose {
                Whose::One(slot, name) => {
                    let of = self.of.get_mut(slot).and_then(|of| of.get_mut(name));
                    of.map(|subscriber| &mut subscriber.outbox)
                }
                Whose::All(name) => self.to_all.get_mut(name).map(|to_all| &mut to_all.outbox),
            };
            // A later reader of the same name may have come.
            if outbox.and_then(|outbox| outbox.take_if(|o| o.number() == number)).is_some() {
                self.unheld.insert(whose);
            }
        }
    }

    /// Those that nobody reads and of which there is nothing to remember, and what ends them in the store. While
    /// channels are set aside (`aside`), nobody knows what is stored of them.
    pub(super) fn over(&mut self, aside: bool) -> (Vec<Whose>, Vec<Write>) {
        let (mut over, mut writes) = (Vec::new(), Vec::new());
        for whose in std::mem::take(&mut self.unheld) {
            match &whose {
                Whose::One(slot, name) => {
                    let one = self.get(*slot, name);
                    let is_over =
                        |one: &&Subscriber| one.outbox.is_none() && kept(one.state).is_none();
                    let Some(one) = one.filter(is_over) else { continue };
                    writes.extend(one.stored.then(|| ended(*slot, name)));
                }
                Whose::All(name) => {
                    let to_all = self.to_all.get(name);
                    let is_over = |all: &&ToAll| all.outbox.is_none() && all.kept().is_none();
                    let Some(to_all) = to_all.filter(is_over) else { continue };
                    if to_all.stored && aside {
                        self.unheld_later.insert(whose);
                        continue;
                    }
                    if to_all.stored {
                        writes.extend(to_all.next.keys().map(|slot| ended(*slot, name)));
                        writes.push(name_of_all(name, None));
                    }
                }
            }
            over.push(whose);
        }
        (over, writes)
    }

    /// They could not be ended in the store: that is tried again once another reader is gone.
    pub(super) fn not_over(&mut self, over: Vec<Whose>) {
        self.unheld_later.extend(over);
    }

    pub(super) fn end(&mut self, whose: &Whose) {
        match whose {
            Whose::One(slot, name) => self.end_one(*slot, name),
            Whose::All(name) => drop(self.to_all.remove(name)),
        }
    }

    pub(super) fn end_one(&mut self, slot: Slot, name: &str) {
        if let Some(of) = self.of.get_mut(&slot) {
            of.remove(name);
            if of.is_empty() {
                self.of.remove(&slot);
            }
        }
    }

    fn get(&self, slot: Slot, name: &str) -> Option<&Subscriber> {
        self.of.get(&slot)?.get(name)
    }

    /// What is known of a subscriber to one channel, and whether it is in the store.
    pub(super) fn one(&self, slot: Slot, name: &str) -> Option<(SubscriberState, bool)> {
        self.get(slot, name).map(|one| (one.state, one.stored))
    }

    /// Whether one to all channels waits for acknowledgements; and the same, if it is in the store.
    pub(super) fn all(&self, name: &str) -> Option<(bool, Option<bool>)> {
        let to_all = self.to_all.get(name)?;
        Some((to_all.acknowledged, to_all.stored.then_some(to_all.acknowledged)))
    }

    /// What the store is to hold of the name of one to all channels that waits for acknowledgements, or does not.
    pub(super) fn kept_of_all(&self, name: &str, acknowledged: bool) -> Option<bool> {
        let known =
            self.to_all.get(name).is_some_and(|to_all| to_all.next.values().any(|n| *n > 0));
        (acknowledged || known).then_some(acknowledged)
    }

    /// This is in the store of the name of one to all channels.
    pub(super) fn stored_of_all(&mut self, name: &str, acknowledged: bool, stored: bool) {
        let to_all = self.to_all.entry(name.to_owned()).or_default();
        (to_all.acknowledged, to_all.stored) = (acknowledged, stored);
        if to_all.outbox.is_none() {
            self.unheld.insert(Whose::All(name.to_owned()));
        }
    }

    pub(super) fn is_of_one(&self, name: &str) -> bool {
        self.of.values().any(|of| of.contains_key(name))
    }

    /// Channels of which one to all has acknowledged anything.
    pub(super) fn slots_of_all(&self, name: &str) -> Vec<Slot> {
        let to_all = self.to_all.get(name);
        to_all.into_iter().flat_map(|to_all| to_all.next.keys().copied()).collect()
    }

    /// What is known of a subscriber, to one channel or to all.
    pub(super) fn state(&self, slot: Slot, name: &str) -> Option<SubscriberState> {
        let to_all = || self.to_all.get(name).map(|to_all| to_all.state(slot));
        self.get(slot, name).map(|subscriber| subscriber.state).or_else(to_all)
    }

    /// What is to be stored when a subscriber has acknowledged something.
    pub(super) fn acknowledging(
        &self,
        slot: Slot,
        name: &str,
        state: SubscriberState,
    ) -> Vec<Write> {
        let first =
            self.get(slot, name).is_none() && self.all(name).is_some_and(|all| all.1.is_none());
        let name_first = first.then(|| name_of_all(name, Some(state.acknowledged)));
        let write = Write::Subscriber { slot, name: name.to_owned(), state: Some(state) };
        name_first.into_iter().chain([write]).collect()
    }

    /// It is stored.
    pub(super) fn acknowledged(&mut self, slot: Slot, name: &str, state: SubscriberState) {
        if let Some(subscriber) = self.of.get_mut(&slot).and_then(|of| of.get_mut(name)) {
            (subscriber.state, subscriber.stored) = (state, true);
        } else if let Some(to_all) = self.to_all.get_mut(name) {
            to_all.next.insert(slot, state.next);
            to_all.stored = true;
        }
    }

    /// Whether forgetting a channel with this many events waits for somebody.
    pub(super) fn awaits(&self, slot: Slot, events: u64) -> bool {
        let of_slot = self.of.get(&slot).into_iter().flat_map(BTreeMap::values);
        let of_all = self.to_all.values().map(|to_all| to_all.state(slot));
        let mut all = of_slot.map(|subscriber| subscriber.state).chain(of_all);
        all.any(|state| state.acknowledged && state.next < events)
    }

    /// Sends the events of one channel. True if somebody had no room for all of them. The last time, what
    /// there is no room for is lost: a subscription to all ends with it, so that it has no gap.
    pub(super) fn send(&mut self, slot: Slot, news: &News<'_>, how: Sending) -> bool {
        let (most, most_of_all) = match how {
            Sending::Now => (WAITING, WAITING_OF_ALL.min(self.unread)),
            Sending::Last => (usize::MAX, self.unread),
        };
        let mut is_late = false;
        for subscriber in self.of.get_mut(&slot).into_iter().flat_map(BTreeMap::values_mut) {
            let Some(outbox) = &subscriber.outbox else { continue };
            subscriber.sent = news.send(outbox, subscriber.sent, most);
            let late = news.count().saturating_sub(subscriber.sent);
            outbox.set_late(late);
            is_late |= late > 0;
        }
        for (name, to_all) in &mut self.to_all {
            let next = to_all.next(slot);
            let Some(outbox) = &to_all.outbox else { continue };
            let sent = to_all.sent.entry(slot).or_insert(next);
            *sent = news.send(outbox, *sent, most_of_all);
            let late = news.count().saturating_sub(*sent);
            to_all.set_late(slot, late);
            is_late |= late > 0;
            if late > 0 && how == Sending::Last {
                tracing::warn!(
                    name,
                    "a subscription to all channels has left too much unread, and ends"
                );
                to_all.outbox = None;
                self.unheld.insert(Whose::All(name.clone()));
            }
        }
        is_late
    }

    /// The events of a channel are others from now on: nobody was sent any of them.
    pub(super) fn told_nothing(&mut self, slot: Slot) {
        self.first.extend(self.ends.remove(&slot).map(|first| (slot, first)));
        for (name, subscriber) in self.of.get_mut(&slot).into_iter().flatten() {
            (subscriber.state.next, subscriber.sent) = (0, 0);
            subscriber.stored = kept(subscriber.state).is_some();
            self.unheld.insert(Whose::One(slot, name.clone()));
        }
        self.forget_positions(slot);
    }

    /// What is to be stored when that is so.
    pub(super) fn told_anew(&self, slot: Slot, name: String, state: SubscriberState) -> Write {
        let is_one = !self.to_all.contains_key(&name);
        let state = kept(SubscriberState { next: 0, ..state }).filter(|_| is_one);
        Write::Subscriber { slot, name, state }
    }

    pub(super) fn remove_slot(&mut self, slot: Slot) {
        self.send_nothing(slot);
        self.first.remove(&slot);
        self.ends.remove(&slot);
        self.of.remove(&slot);
        self.forget_positions(slot);
    }

    fn forget_positions(&mut self, slot: Slot) {
        for (name, to_all) in &mut self.to_all {
            to_all.sent.remove(&slot);
            if to_all.next.remove(&slot).is_some() && to_all.outbox.is_none() {
                self.unheld.insert(Whose::All(name.clone()));
            }
        }
    }
}

/// What ends a subscription to one channel in the store, or the position in it of one to all.
pub(super) fn ended(slot: Slot, name: &str) -> Write {
    Write::Subscriber { slot, name: name.to_owned(), state: None }
}

/// What the store is to hold of the name of a subscription to all channels.
pub(super) fn name_of_all(name: &str, acknowledged: Option<bool>) -> Write {
    Write::SubscriberToAll { name: name.to_owned(), acknowledged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::arbitrator::ChannelEvent;
    use arb_core::ids::ChannelId;

    #[test]
    fn as_many_channels_are_looked_at_as_there_is_room_for() {
        let mut all = Subscribers::to_all(vec![("all".to_owned(), false)], 4);
        let event = |number| Delivered {
            channel: ChannelId([1; 32]),
            number,
            event: ChannelEvent::Resolved,
            detail: None,
        };
        let inbox = all.open_all("all", std::iter::empty());
        let to_all = all.to_all.get_mut("all").expect("its name");
        let outbox = to_all.outbox.as_ref().expect("its reader");
        assert!((0..4).all(|number| outbox.put(event(number), 4)));
        (0..1_000).for_each(|slot| to_all.set_late(Slot(slot), 1));
        // One of its own that has room, and one that is late.
        let state = SubscriberState { next: 0, acknowledged: false };
        let of_one = all.open(Slot(700), "one", state);
        let of_two = all.open(Slot(800), "one", state);
        let two = all.get(Slot(800), "one").and_then(|two| two.outbox.as_ref());
        let two = two.expect("its reader");
        assert!((0..64).all(|number| two.put(event(number), WAITING)));
        two.set_late(1);
        all.news.clear();
        all.late.extend((0..1_000).map(Slot));
        let mut looked_at = || {
            all.room();
            std::mem::take(&mut all.news)
        };
        assert_eq!(looked_at(), BTreeSet::new(), "no room");
        assert!(inbox.try_next().is_some());
        assert_eq!(looked_at(), BTreeSet::from([Slot(0)]));
        assert!(inbox.try_next().is_some() && of_two.try_next().is_some());
        assert_eq!(looked_at(), BTreeSet::from([Slot(0), Slot(1), Slot(800)]));
        drop((inbox, of_one, of_two));
        all.tidy();
        assert!(all.reading.is_empty(), "readers that are gone are forgotten");
        let (over, writes) = all.over(false);
        assert_eq!((over.len(), writes), (3, vec![name_of_all("all", None)]));
        over.iter().for_each(|whose| all.end(whose));
        assert!(all.of.is_empty() && all.to_all.is_empty());
    }

    /// The one that superseded it reads on.
    #[test]
    fn the_end_of_a_reader_that_was_superseded_ends_nobody_else() {
        let mut all = Subscribers::default();
        let state = SubscriberState { next: 0, acknowledged: false };
        let (first, second) = (all.open(Slot(1), "one", state), all.open(Slot(1), "one", state));
        let (of_all, later) =
            (all.open_all("all", std::iter::empty()), all.open_all("all", std::iter::empty()));
        drop((first, of_all));
        all.tidy();
        assert_eq!(all.over(false), (vec![], vec![]));
        drop((second, later));
        all.tidy();
        let all_of_them = vec![Whose::One(Slot(1), "one".to_owned()), Whose::All("all".to_owned())];
        assert_eq!(all.over(false), (all_of_them, vec![]));
    }

    /// Of channels that are set aside nobody knows what is stored of it.
    #[test]
    fn a_stored_name_stays_while_channels_are_set_aside() {
        let mut all = Subscribers::to_all(vec![("all".to_owned(), false)], 4);
        assert_eq!(all.over(true), (vec![], vec![]));
        assert_eq!(all.over(false), (vec![], vec![]), "not before another reader is gone");
        all.tidy();
        let over = all.over(false);
        assert_eq!(over, (vec![Whose::All("all".to_owned())], vec![name_of_all("all", None)]));
    }
}
