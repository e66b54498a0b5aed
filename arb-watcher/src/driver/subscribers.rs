//! Named subscriptions: what each has acknowledged is in the store, what each was sent is not.
use super::durable::Patience;
use super::{Around, Driver};
use crate::command::{CommandError, Reply};
use crate::mailbox::{Outbox, Readers, mailbox};
use crate::subscription::{
    AllChannelsSubscription, ChainEventSubscription, Closing, Delivered, Delivery, WAITING,
    WAITING_OF_ALL,
};
use arb_core::engine::Active;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, SubscriberState, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Default)]
pub(super) struct Subscribers {
    /// Of one channel each.
    of: BTreeMap<Slot, BTreeMap<String, Subscriber>>,
    /// Of all channels.
    to_all: BTreeMap<String, ToAll>,
    /// Channels with events that somebody who listens may not have been sent.
    news: BTreeSet<Slot>,
    /// Channels with events that somebody had no room for: they wait until there is room, or news.
    late: BTreeSet<Slot>,
    /// Events that the outbox of a subscription to all may hold.
    unread: usize,
    pub(super) readers: Arc<Readers>,
}

struct Subscriber {
    state: SubscriberState,
    sent: u64,
    outbox: Option<Outbox<Delivered>>,
}

#[derive(Default)]
struct ToAll {
    acknowledged: bool,
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
struct News<'a> {
    active: &'a Active,
    detail: Option<Arc<Closing>>,
}

impl<'a> News<'a> {
    fn detail(active: &Active) -> Option<Arc<Closing>> {
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
                number: sent,
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

fn count(events: usize) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

impl Subscribers {
    /// Those of all channels, from the store: they must be known before those of one.
    pub(super) fn to_all(stored: Vec<(String, bool)>, unread: usize) -> Self {
        let subscriber = |(name, acknowledged)| (name, ToAll { acknowledged, ..ToAll::default() });
        Self { to_all: stored.into_iter().map(subscriber).collect(), unread, ..Self::default() }
    }

    pub(super) fn restore(&mut self, slot: Slot, name: String, state: SubscriberState) {
        if let Some(to_all) = self.to_all.get_mut(&name) {
            to_all.next.insert(slot, state.next);
            return;
        }
        let subscriber = Subscriber { state, sent: state.next, outbox: None };
        self.of.entry(slot).or_default().insert(name, subscriber);
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
    /// at a time: only as many channels are looked at as there is room for.
    pub(super) fn room(&mut self) {
        let most_of_all = WAITING_OF_ALL.min(self.unread);
        for to_all in self.to_all.values() {
            let room = to_all.outbox.as_ref().map_or(0, |outbox| outbox.room(most_of_all));
            // Of each, one event waits at least.
            self.news.extend(to_all.late.keys().take(room));
        }
        let has_room = |slot: &&Slot| {
            let of_slot = self.of.get(*slot).into_iter().flat_map(BTreeMap::values);
            of_slot.filter_map(|one| one.outbox.as_ref()).any(|outbox| outbox.room(WAITING) > 0)
        };
        self.news.extend(self.late.iter().filter(has_room));
    }

    /// Nothing of a channel is sent for now. When it is back, that is news.
    pub(super) fn set_aside(&mut self, slot: Slot) {
        self.news.remove(&slot);
        self.late.remove(&slot);
        for to_all in self.to_all.values_mut() {
            to_all.set_late(slot, 0);
        }
    }

    /// Readers that are gone are forgotten; their names are not.
    pub(super) fn tidy(&mut self) {
        for subscriber in self.of.values_mut().flat_map(BTreeMap::values_mut) {
            subscriber.outbox.take_if(|outbox| outbox.is_gone());
        }
        for to_all in self.to_all.values_mut() {
            to_all.outbox.take_if(|outbox| outbox.is_gone());
        }
    }

    fn get(&self, slot: Slot, name: &str) -> Option<&Subscriber> {
        self.of.get(&slot)?.get(name)
    }

    /// What is stored of a subscriber, to one channel or to all.
    fn state(&self, slot: Slot, name: &str) -> Option<SubscriberState> {
        let to_all = || self.to_all.get(name).map(|to_all| to_all.state(slot));
        self.get(slot, name).map(|subscriber| subscriber.state).or_else(to_all)
    }

    fn acknowledged(&mut self, slot: Slot, name: &str, state: SubscriberState) {
        if let Some(subscriber) = self.of.get_mut(&slot).and_then(|of| of.get_mut(name)) {
            subscriber.state = state;
        } else if let Some(to_all) = self.to_all.get_mut(name) {
            to_all.next.insert(slot, state.next);
        }
    }

    /// Whether forgetting a channel with this many events waits for somebody.
    fn awaits(&self, slot: Slot, events: u64) -> bool {
        let of_slot = self.of.get(&slot).into_iter().flat_map(BTreeMap::values);
        let of_all = self.to_all.values().map(|to_all| to_all.state(slot));
        let mut all = of_slot.map(|subscriber| subscriber.state).chain(of_all);
        all.any(|state| state.acknowledged && state.next < events)
    }

    /// Sends the events of one channel. True if somebody had no room for all of them. The last time, what
    /// there is no room for is lost: a subscription to all ends with it, so that it has no gap.
    fn send(&mut self, slot: Slot, news: &News<'_>, how: Sending) -> bool {
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
            }
        }
        is_late
    }

    /// The events of a channel are others from now on: nobody was sent any of them.
    pub(super) fn told_nothing(&mut self, slot: Slot) {
        for subscriber in self.of.get_mut(&slot).into_iter().flat_map(BTreeMap::values_mut) {
            (subscriber.state.next, subscriber.sent) = (0, 0);
        }
        for to_all in self.to_all.values_mut() {
            to_all.next.remove(&slot);
            to_all.sent.remove(&slot);
        }
    }

    fn remove_slot(&mut self, slot: Slot) {
        self.set_aside(slot);
        self.of.remove(&slot);
        for to_all in self.to_all.values_mut() {
            to_all.next.remove(&slot);
            to_all.sent.remove(&slot);
        }
    }
}

impl<A: Around> Driver<A> {
    /// Sends what subscribers have not been sent yet. One that does not keep up gets the rest
    /// later; nobody waits for it.
    pub(super) fn deliver_events(&mut self) {
        for slot in std::mem::take(&mut self.subscribers.news) {
            if self.send_events(slot, Sending::Now) {
                self.subscribers.late.insert(slot);
            }
        }
    }

    /// Whether forgetting a channel waits for an acknowledgement of its events.
    pub(super) fn awaits_subscribers(&self, slot: Slot) -> bool {
        let events = self.engine.active(slot).map_or(0, |a| count(a.state.acts().events.len()));
        self.subscribers.awaits(slot, events)
    }

    /// Sends the events of one channel. True if somebody had no room for all of them.
    pub(super) fn send_events(&mut self, slot: Slot, how: Sending) -> bool {
        let detail =
            self.of_channel(slot, |driver| driver.engine.active(slot).and_then(News::detail));
        let (Ok(detail), Some(active)) = (detail, self.engine.active(slot)) else { return false };
        self.subscribers.late.remove(&slot);
        self.subscribers.send(slot, &News { active, detail }, how)
    }

    /// Opens a subscription. One whose caller has given up leaves nothing behind that was not there
    /// before.
    pub(super) async fn subscribe(
        &mut self,
        id: ChannelId,
        name: String,
        delivery: Delivery,
        reply: Reply<ChainEventSubscription>,
    ) {
        if reply.is_closed() {
            return;
        }
        let Some(slot) = self.engine.slot(&id) else {
            return reply.send(Err(self.unknown(id)));
        };
        if self.subscribers.to_all.contains_key(&name) {
            return reply.send(Err(CommandError::NameTaken(name)));
        }
        let known = self.subscribers.get(slot, &name).map(|s| s.state);
        let acknowledged = delivery == Delivery::Acknowledged;
        let next = known.map_or(0, |state| state.next);
        let state = SubscriberState { next, acknowledged };
        if known != Some(state)
            && let Err(error) = self.store_subscriber(slot, &name, Some(state)).await
        {
            return reply.send(Err(error));
        }
        if reply.is_closed() {
            if known != Some(state) && self.store_subscriber(slot, &name, known).await.is_err() {
                self.subscribers.restore(slot, name, state);
            }
            return;
        }
        let (outbox, events) = mailbox(&self.subscribers.readers);
        let subscriber = Subscriber { state, sent: next, outbox: Some(outbox) };
        self.subscribers.of.entry(slot).or_default().insert(name.clone(), subscriber);
        self.subscribers.has_news(slot);
        let commands = self.commands.clone();
        reply.send(Ok(ChainEventSubscription { id, name, events, commands }));
    }

    /// As [`Self::subscribe`], to all channels.
    pub(super) async fn subscribe_all(
        &mut self,
        name: String,
        delivery: Delivery,
        reply: Reply<AllChannelsSubscription>,
    ) {
        if reply.is_closed() {
            return;
        }
        if self.subscribers.of.values().any(|of| of.contains_key(&name)) {
            return reply.send(Err(CommandError::NameTaken(name)));
        }
        let known = self.subscribers.to_all.get(&name).map(|to_all| to_all.acknowledged);
        let acknowledged = delivery == Delivery::Acknowledged;
        if known != Some(acknowledged)
            && let Err(error) = self.store_to_all(&name, Some(acknowledged)).await
        {
            return reply.send(Err(error));
        }
        let given_up = reply.is_closed();
        if given_up
            && (known == Some(acknowledged) || self.store_to_all(&name, known).await.is_ok())
        {
            return;
        }
        let to_all = self.subscribers.to_all.entry(name.clone()).or_default();
        to_all.acknowledged = acknowledged;
        if given_up {
            return;
        }
        let (outbox, events) = mailbox(&self.subscribers.readers);
        to_all.outbox = Some(outbox);
        to_all.sent.clear();
        to_all.late.clear();
        to_all.late_in_all = 0;
        self.subscribers.news.extend(self.engine.actives().map(|(slot, _)| slot));
        let commands = self.commands.clone();
        reply.send(Ok(AllChannelsSubscription { name, events, commands }));
    }

    pub(super) async fn delivered(
        &mut self,
        id: ChannelId,
        name: &str,
        next: u64,
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let Some(known) = self.subscribers.state(slot, name) else {
            return Err(CommandError::UnknownChannel(id));
        };
        // Nobody can acknowledge what was not there to be sent.
        let events = self.engine.active(slot).map_or(0, |a| count(a.state.acts().events.len()));
        let next = next.min(events);
        if next > known.next {
            let state = SubscriberState { next, ..known };
            self.store_subscriber(slot, name, Some(state)).await?;
            self.subscribers.acknowledged(slot, name, state);
        }
        self.tasks.forget_again(slot);
        Ok(())
    }

    pub(super) async fn unsubscribe(
        &mut self,
        id: ChannelId,
        name: &str,
    ) -> Result<(), CommandError> {
        if self.subscribers.to_all.contains_key(name) {
            return Err(CommandError::NameTaken(name.to_owned()));
        }
        // A subscription to a channel that is forgotten has ended; whoever asks again after a crash
        // cannot know.
        let slot = self.engine.slot(&id).or_else(|| self.quarantine.slot(&id));
        let Some(slot) = slot else { return Ok(()) };
        self.store_subscriber(slot, name, None).await?;
        if let Some(of) = self.subscribers.of.get_mut(&slot) {
            of.remove(name);
            if of.is_empty() {
                self.subscribers.of.remove(&slot);
            }
        }
        self.tasks.forget_again(slot);
        Ok(())
    }

    pub(super) async fn unsubscribe_all(&mut self, name: &str) -> Result<(), CommandError> {
        let Some(to_all) = self.subscribers.to_all.get(name) else { return Ok(()) };
        // What is stored of a channel that was set aside is not known here.
        let aside = self.quarantine.slots();
        let slots: BTreeSet<Slot> = to_all.next.keys().copied().chain(aside).collect();
        let mut writes: Vec<Write> = slots.into_iter().map(|slot| ended(slot, name)).collect();
        writes.push(Write::SubscriberToAll { name: name.to_owned(), acknowledged: None });
        let batch = self.direct_batch(writes);
        self.append(batch, Patience::Once).await.map(drop)?;
        self.subscribers.to_all.remove(name);
        for (slot, _) in self.engine.actives() {
            self.tasks.forget_again(slot);
        }
        Ok(())
    }

    async fn store_subscriber(
        &mut self,
        slot: Slot,
        name: &str,
        state: Option<SubscriberState>,
    ) -> Result<(), CommandError> {
        let write = Write::Subscriber { slot, name: name.to_owned(), state };
        let batch = self.direct_batch(vec![write]);
        self.append(batch, Patience::Once).await.map(drop)
    }

    async fn store_to_all(
        &mut self,
        name: &str,
        acknowledged: Option<bool>,
    ) -> Result<(), CommandError> {
        let write = Write::SubscriberToAll { name: name.to_owned(), acknowledged };
        let batch = self.direct_batch(vec![write]);
        self.append(batch, Patience::Once).await.map(drop)
    }

    /// What is to be stored of those who have acknowledged events of a channel whose log is lost: the new ones have
    /// the numbers of the old ones.
    pub(super) fn positions_lost(&self, slot: Slot) -> Result<Vec<Write>, CommandError> {
        let channel = self.log.channel(slot);
        let channel = channel.map_err(|error| CommandError::NotStored(error.to_string()))?;
        let stored = channel.into_iter().flat_map(|channel| channel.subscribers);
        let anew = stored.map(|(name, state)| {
            let state = Some(SubscriberState { next: 0, ..state });
            Write::Subscriber { slot, name, state }
        });
        Ok(anew.collect())
    }

    /// Deletes a resolved channel, unless somebody must acknowledge first.
    pub(super) async fn forget(&mut self, slot: Slot) {
        let Some(active) = self.engine.active(slot) else { return };
        if self.awaits_subscribers(slot) {
            return;
        }
        let id = active.facts.id;
        tracing::info!(channel = %id, "forgotten");
        // The log will not be there to hold it for those who are slow: they hold it themselves.
        self.send_events(slot, Sending::Last);
        if self.engine.active(slot).is_none() {
            // It was set aside by that.
            return;
        }
        let forgotten = self.step(vec![arb_core::engine::EngineInput::Forget { slot }]).await;
        if forgotten.is_ok() {
            self.is_forgotten(slot, id);
        }
    }

    /// The records of a channel are gone: so is what is remembered of it here.
    pub(super) fn is_forgotten(&mut self, slot: Slot, id: ChannelId) {
        self.subscribers.remove_slot(slot);
        self.failing.forgotten(slot);
        self.troubles.forgotten(slot);
        self.notices.forgotten(id);
    }
}

fn ended(slot: Slot, name: &str) -> Write {
    Write::Subscriber { slot, name: name.to_owned(), state: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::arbitrator::ChannelEvent;

    #[test]
    fn as_many_channels_are_looked_at_as_there_is_room_for() {
        let mut all = Subscribers::to_all(vec![("all".to_owned(), false)], 4);
        let (outbox, inbox) = mailbox(&all.readers);
        let event = |number| Delivered {
            channel: ChannelId([1; 32]),
            number,
            event: ChannelEvent::Resolved,
            detail: None,
        };
        assert!((0..4).all(|number| outbox.put(event(number), 4)));
        let to_all = all.to_all.get_mut("all").expect("its name");
        to_all.outbox = Some(outbox);
        (0..1_000).for_each(|slot| to_all.set_late(Slot(slot), 1));
        // One of its own that has room, and one that is late.
        let (one, of_one) = mailbox(&all.readers);
        let (two, of_two) = mailbox(&all.readers);
        assert!((0..64).all(|number| two.put(event(number), WAITING)));
        two.set_late(1);
        let state = SubscriberState { next: 0, acknowledged: false };
        for (slot, outbox) in [(700, one), (800, two)] {
            let subscriber = Subscriber { state, sent: 0, outbox: Some(outbox) };
            all.of.entry(Slot(slot)).or_default().insert("one".to_owned(), subscriber);
        }
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
        let mut of_slots = all.of.values().flat_map(BTreeMap::values);
        assert!(of_slots.all(|one| one.outbox.is_none()), "readers that are gone are forgotten");
        assert!(all.to_all.values().all(|to_all| to_all.outbox.is_none()));
    }
}
