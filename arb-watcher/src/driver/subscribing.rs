//! Commands about named subscriptions, and what is sent to them. What is to be there after a restart is in the store
//! before it is promised.
use super::durable::Patience;
use super::gathered::Gathered;
use super::subscribers::{News, Sending, Whose, count, ended, kept, name_of_all};
use super::{Around, Driver};
use crate::command::{Answer, CommandError, Reply};
use crate::subscription::{AllChannelsSubscription, ChainEventSubscription, Delivery};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, SubscriberState, Write};
use arb_core::memory::check_names;
use std::collections::BTreeSet;

/// What became of a subscription that is in the store as it is to be.
enum Opened {
    Yes,
    /// Its caller has given up: the store is as before.
    GivenUp,
    /// The same, and the store did not take that back.
    LeftBehind,
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
        self.subscribers.awaits(slot, self.events_of(slot))
    }

    /// How many events a channel has had.
    pub(super) fn events_of(&self, slot: Slot) -> u64 {
        self.engine.active(slot).map_or(0, |active| count(active.state.acts().events.len()))
    }

    /// Sends the events of one channel. True if somebody had no room for all of them.
    pub(super) fn send_events(&mut self, slot: Slot, how: Sending) -> bool {
        let detail =
            self.of_channel(slot, |driver| driver.engine.active(slot).and_then(News::detail));
        let (Ok(detail), Some(active)) = (detail, self.engine.active(slot)) else { return false };
        self.subscribers.late.remove(&slot);
        let first = self.subscribers.first(slot);
        self.subscribers.send(slot, &News { active, detail, first }, how)
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
        if self.subscribers.all(&name).is_some() {
            return reply.send(Err(CommandError::NameTaken(name)));
        }
        let known = self.subscribers.one(slot, &name);
        let acknowledged = delivery == Delivery::Acknowledged;
        let next = known.map_or(0, |(state, _)| state.next);
        let state = SubscriberState { next, acknowledged };
        let before = known.filter(|(_, stored)| *stored).map(|(state, _)| state);
        let write = |state| Write::Subscriber { slot, name: name.clone(), state };
        let stored = self.store_subscription(write, kept(state), before, &reply).await;
        match stored {
            Err(error) => return reply.send(Err(error)),
            Ok(Opened::Yes) => {}
            Ok(Opened::GivenUp) => return,
            Ok(Opened::LeftBehind) => {
                return match kept(state) {
                    Some(state) => self.subscribers.restore(slot, name, state),
                    None => self.subscribers.end_one(slot, &name),
                };
            }
        }
        let events = self.subscribers.open(slot, &name, state);
        // Nothing waits for it any more, perhaps.
        self.tasks.forget_again(slot);
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
        if self.subscribers.is_of_one(&name) {
            return reply.send(Err(CommandError::NameTaken(name)));
        }
        let acknowledged = delivery == Delivery::Acknowledged;
        let known = self.subscribers.all(&name);
        let waited = known.is_some_and(|(waits, _)| waits);
        let before = known.and_then(|(_, stored)| stored);
        let kept = self.subscribers.kept_of_all(&name, acknowledged);
        let write = |acknowledged| name_of_all(&name, acknowledged);
        let stored = self.store_subscription(write, kept, before, &reply).await;
        match stored {
            Err(error) => return reply.send(Err(error)),
            Ok(Opened::GivenUp) => return,
            Ok(Opened::Yes | Opened::LeftBehind) => {}
        }
        self.subscribers.stored_of_all(&name, acknowledged, kept.is_some());
        if matches!(stored, Ok(Opened::LeftBehind)) {
            return;
        }
        let slots = self.engine.actives().map(|(slot, _)| slot);
        let events = self.subscribers.open_all(&name, slots);
        if waited && !acknowledged {
            self.forget_all_again();
        }
        let commands = self.commands.clone();
        reply.send(Ok(AllChannelsSubscription { name, events, commands }));
    }

    /// Has the store hold `kept` of a subscription in the place of what it held before; nothing, if its caller gives up
    /// meanwhile.
    async fn store_subscription<T: Copy + PartialEq, R: Into<Answer>>(
        &mut self,
        write: impl Fn(Option<T>) -> Write,
        kept: Option<T>,
        before: Option<T>,
        reply: &Reply<R>,
    ) -> Result<Opened, CommandError> {
        // A name that no store takes is refused now, and not when something is acknowledged.
        check_names(&[write(kept)])
            .map_err(|refused| CommandError::NotStored(refused.to_string()))?;
        if kept != before {
            self.store(vec![write(kept)]).await?;
        }
        if !reply.is_closed() {
            return Ok(Opened::Yes);
        }
        let is_as_before = kept == before || self.store(vec![write(before)]).await.is_ok();
        Ok(if is_as_before { Opened::GivenUp } else { Opened::LeftBehind })
    }

    /// A subscriber has acknowledged what comes before `next`. That is stored with what else is gathered.
    pub(super) fn delivered(
        &mut self,
        (id, name): (ChannelId, String),
        next: u64,
        gathered: &mut Gathered,
        reply: Reply<()>,
    ) {
        let Some(slot) = self.engine.slot(&id) else {
            // What is left of a forgotten channel is in the mailbox alone: there is nothing to write.
            return match self.unknown(id) {
                CommandError::UnknownChannel(_) => reply.send(Ok(())),
                aside => reply.send(Err(aside)),
            };
        };
        let Some(known) = self.subscribers.state(slot, &name) else {
            return reply.send(Err(CommandError::UnknownChannel(id)));
        };
        // Nobody can acknowledge what was not there to be sent; nor with the events of a log that is lost those of the
        // one that took its place.
        let next = next.saturating_sub(self.subscribers.first(slot)).min(self.events_of(slot));
        if next > known.next {
            let state = SubscriberState { next, ..known };
            return gathered.events((slot, id), name, state, reply);
        }
        self.tasks.forget_again(slot);
        reply.send(Ok(()));
    }

    pub(super) async fn unsubscribe(
        &mut self,
        id: ChannelId,
        name: &str,
    ) -> Result<(), CommandError> {
        if self.subscribers.all(name).is_some() {
            return Err(CommandError::NameTaken(name.to_owned()));
        }
        // A subscription to a channel that is forgotten has ended; whoever asks again after a crash
        // cannot know.
        let slot = self.engine.slot(&id).or_else(|| self.quarantine.slot(&id));
        let Some(slot) = slot else { return Ok(()) };
        self.store(vec![ended(slot, name)]).await?;
        self.subscribers.end_one(slot, name);
        self.tasks.forget_again(slot);
        Ok(())
    }

    pub(super) async fn unsubscribe_all(&mut self, name: &str) -> Result<(), CommandError> {
        if self.subscribers.all(name).is_none() {
            return Ok(());
        }
        // What is stored of a channel that was set aside is not known here.
        let aside = self.quarantine.slots();
        let slots: BTreeSet<Slot> =
            self.subscribers.slots_of_all(name).into_iter().chain(aside).collect();
        let mut writes: Vec<Write> = slots.into_iter().map(|slot| ended(slot, name)).collect();
        writes.push(name_of_all(name, None));
        self.store(writes).await?;
        self.subscribers.end(&Whose::All(name.to_owned()));
        self.forget_all_again();
        Ok(())
    }

    /// No channel waits for somebody any more.
    fn forget_all_again(&mut self) {
        for (slot, _) in self.engine.actives() {
            self.tasks.forget_again(slot);
        }
    }

    /// Subscriptions that have ended with their guards, and of which there is nothing to remember, are gone.
    pub(super) async fn end_subscriptions(&mut self) {
        let (over, writes) = self.subscribers.over(self.quarantine.len() > 0);
        if !writes.is_empty() && self.store(writes).await.is_err() {
            return self.subscribers.not_over(over);
        }
        over.iter().for_each(|whose| self.subscribers.end(whose));
    }

    pub(super) async fn store(&mut self, writes: Vec<Write>) -> Result<(), CommandError> {
        let batch = self.direct_batch(writes);
        self.append(batch, Patience::Once).await.map(drop)
    }

    /// What is to be stored of those who have acknowledged events of a channel whose log is lost: the new ones have
    /// the numbers of the old ones.
    pub(super) fn positions_lost(&self, slot: Slot) -> Result<Vec<Write>, CommandError> {
        let channel = self.log.channel(slot);
        let channel = channel.map_err(|error| CommandError::NotStored(error.to_string()))?;
        let stored = channel.into_iter().flat_map(|channel| channel.subscribers);
        Ok(stored.map(|(name, state)| self.subscribers.told_anew(slot, name, state)).collect())
    }

    /// Deletes a resolved channel, unless somebody must acknowledge first.
    pub(super) async fn forget(&mut self, slot: Slot) {
        let Some(active) = self.engine.active(slot) else { return };
        if self.awaits_subscribers(slot) || self.engine.keeps_for_others(slot) {
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
