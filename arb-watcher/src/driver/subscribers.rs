//! Named subscriptions: what each has acknowledged is in the store, what each was sent is not.
use super::Driver;
use super::durable::Patience;
use crate::command::{CommandError, Reply};
use crate::subscription::{ChainEventSubscription, Delivered, Delivery, WAITING};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, SubscriberState, Write};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

#[derive(Default)]
pub(super) struct Subscribers {
    of: BTreeMap<(Slot, String), Subscriber>,
}

struct Subscriber {
    state: SubscriberState,
    sent: u64,
    sender: Option<mpsc::Sender<Delivered>>,
}

impl Subscribers {
    pub(super) fn restore(&mut self, slot: Slot, name: String, state: SubscriberState) {
        let subscriber = Subscriber { state, sent: state.next, sender: None };
        self.of.insert((slot, name), subscriber);
    }

    /// As [`Self::restore`], for one that could not be read at start-up.
    pub(super) fn restore_missing(&mut self, slot: Slot, name: String, state: SubscriberState) {
        let subscriber = || Subscriber { state, sent: state.next, sender: None };
        self.of.entry((slot, name)).or_insert_with(subscriber);
    }

    fn of_slot(&mut self, slot: Slot) -> impl Iterator<Item = &mut Subscriber> {
        self.of.iter_mut().filter(move |((of, _), _)| *of == slot).map(|(_, s)| s)
    }

    /// Whether forgetting a channel with this many events waits for somebody.
    fn awaits(&mut self, slot: Slot, events: u64) -> bool {
        self.of_slot(slot).any(|s| s.state.acknowledged && s.state.next < events)
    }

    fn remove_slot(&mut self, slot: Slot) {
        self.of.retain(|(of, _), _| *of != slot);
    }
}

fn count(events: usize) -> u64 {
    u64::try_from(events).unwrap_or(u64::MAX)
}

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    /// Sends what subscribers have not been sent yet. One that does not keep up gets the rest
    /// later; nobody waits for it.
    pub(super) fn deliver_events(&mut self) {
        for ((slot, _), subscriber) in &mut self.subscribers.of {
            let Some(active) = self.engine.active(*slot) else { continue };
            let Some(sender) = &subscriber.sender else { continue };
            let events = &active.state.acts().events;
            while let Some(event) =
                usize::try_from(subscriber.sent).ok().and_then(|i| events.get(i))
            {
                let delivered = Delivered { number: subscriber.sent, event: *event };
                if sender.try_send(delivered).is_err() {
                    break;
                }
                subscriber.sent = subscriber.sent.saturating_add(1);
            }
        }
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
            return reply.send(Err(CommandError::UnknownChannel(id)));
        };
        let key = (slot, name.clone());
        let known = self.subscribers.of.get(&key).map(|s| s.state);
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
        let (sender, receiver) = mpsc::channel(WAITING);
        let subscriber = Subscriber { state, sent: next, sender: Some(sender) };
        self.subscribers.of.insert(key, subscriber);
        let commands = self.commands.clone();
        reply.send(Ok(ChainEventSubscription { id, name, receiver, commands }));
    }

    pub(super) async fn delivered(
        &mut self,
        id: ChannelId,
        name: &str,
        next: u64,
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        let key = (slot, name.to_owned());
        let Some(known) = self.subscribers.of.get(&key).map(|s| s.state) else {
            return Err(CommandError::UnknownChannel(id));
        };
        // Nobody can acknowledge what was not there to be sent.
        let events = self.engine.active(slot).map_or(0, |a| count(a.state.acts().events.len()));
        let next = next.min(events);
        if next > known.next {
            let state = SubscriberState { next, ..known };
            self.store_subscriber(slot, name, Some(state)).await?;
            if let Some(subscriber) = self.subscribers.of.get_mut(&key) {
                subscriber.state = state;
            }
        }
        self.tasks.forget_again(slot);
        Ok(())
    }

    pub(super) async fn unsubscribe(
        &mut self,
        id: ChannelId,
        name: &str,
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        self.store_subscriber(slot, name, None).await?;
        self.subscribers.of.remove(&(slot, name.to_owned()));
        self.tasks.forget_again(slot);
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
        self.append(batch, Patience::Once).await.map(|_| ())
    }

    /// Deletes a resolved channel, unless somebody must acknowledge first.
    pub(super) async fn forget(&mut self, slot: Slot) {
        let Some(active) = self.engine.active(slot) else { return };
        let events = count(active.state.acts().events.len());
        if self.subscribers.awaits(slot, events) {
            return;
        }
        let id = active.facts.id;
        tracing::info!(channel = %id, "forgotten");
        self.deliver_events();
        let forgotten = self.step(vec![arb_core::engine::EngineInput::Forget { slot }]).await;
        if forgotten.is_ok() {
            self.subscribers.remove_slot(slot);
            self.outdated.0.remove(&slot);
            self.troubles.forgotten(slot);
            self.notices.forgotten(id);
        }
    }
}
