//! Commands that come one after the other and each want an append: they share one, and each has its own answer. What one of
//! them is refused for touches no other.
use super::on_the_way::Records;
use super::{Around, Driver};
use crate::command::{CommandError, Reply};
use crate::receipt::Receipt;
use arb_core::arbitrator::{Input, NoticeKey};
use arb_core::engine::{EngineInput, Updated};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{SubscriberState, Write};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most that share an append.
pub(super) const TOGETHER: usize = 256;

/// What was taken and is not durable yet.
#[derive(Default)]
pub(super) struct Gathered {
    all: Vec<One>,
    /// Channels that it is about.
    slots: BTreeSet<Slot>,
    /// Acknowledged events, which do not pass through the engine.
    events: BTreeMap<(Slot, String), Events>,
}

/// What one command wants.
struct One {
    slot: Slot,
    id: ChannelId,
    input: EngineInput,
    records: Records,
    reply: Wants,
}

/// Who asked, and what follows once it is durable.
enum Wants {
    Receipt(Arc<ChannelFacts>, Reply<Receipt>),
    Acknowledged(NoticeKey, Reply<()>),
    Done(Reply<()>),
}

impl Wants {
    fn refuse(self, why: CommandError) {
        match self {
            Self::Receipt(_, reply) => reply.send(Err(why)),
            Self::Acknowledged(_, reply) | Self::Done(reply) => reply.send(Err(why)),
        }
    }
}

/// What a subscriber has acknowledged, as often as it has.
struct Events {
    id: ChannelId,
    state: SubscriberState,
    replies: Vec<Reply<()>>,
}

impl Gathered {
    pub(super) fn len(&self) -> usize {
        self.all.len().saturating_add(self.events.len())
    }

    /// Whether anything of a channel is among it: what is verified next must see that first.
    pub(super) fn holds(&self, slot: Slot) -> bool {
        self.slots.contains(&slot)
    }

    fn push(&mut self, slot: Slot, id: ChannelId, input: EngineInput, reply: Wants) {
        self.slots.insert(slot);
        self.all.push(One { slot, id, input, records: Records::new(), reply });
    }

    /// Verified updates of a channel of which nothing else is among it.
    pub(super) fn update(
        &mut self,
        slot: Slot,
        (updated, records): (Updated, Records),
        reply: Reply<Receipt>,
    ) {
        let facts = updated.facts().clone();
        let (id, updated) = (facts.id, Box::new(updated));
        let input = EngineInput::Facts { slot, updated, history: Vec::new() };
        self.push(slot, id, input, Wants::Receipt(facts, reply));
        self.all.last_mut().into_iter().for_each(|one| one.records.clone_from(&records));
    }

    pub(super) fn acknowledge(
        &mut self,
        slot: Slot,
        (id, key): (ChannelId, NoticeKey),
        reply: Reply<()>,
    ) {
        let input = Box::new(Input::NoticeAcknowledged(key));
        let input = EngineInput::Channel { slot, input };
        self.push(slot, id, input, Wants::Acknowledged(key, reply));
    }

    pub(super) fn input(&mut self, slot: Slot, id: ChannelId, input: Input, reply: Reply<()>) {
        let input = EngineInput::Channel { slot, input: Box::new(input) };
        self.push(slot, id, input, Wants::Done(reply));
    }

    /// A subscriber has acknowledged so much: what it acknowledged before, it has not taken back.
    pub(super) fn events(
        &mut self,
        (slot, id): (Slot, ChannelId),
        name: String,
        state: SubscriberState,
        reply: Reply<()>,
    ) {
        let events = Events { id, state, replies: Vec::new() };
        let events = self.events.entry((slot, name)).or_insert(events);
        events.state.next = events.state.next.max(state.next);
        events.replies.push(reply);
    }
}

impl<A: Around> Driver<A> {
    /// Makes durable what was gathered, and answers.
    pub(super) async fn take_gathered(&mut self, gathered: &mut Gathered) {
        let Gathered { all, events, .. } = std::mem::take(gathered);
        self.take_together(all).await;
        self.take_events(events).await;
    }

    /// Takes all of them in one append. Where a channel is set aside by that, be it one that none of them is about, the others are none
    /// the worse for it: they are taken without it.
    async fn take_together(&mut self, mut all: Vec<One>) {
        loop {
            all = self.held(all);
            let aside = self.quarantine.len();
            match self.try_gathered(&all).await {
                Ok(refused) => return self.answer_all(all, &refused),
                Err(why)
                    if self.quarantine.len() > aside || !all.iter().all(|one| self.holds(one)) =>
                {
                    tracing::debug!(%why, "commands are taken without some");
                }
                Err(why) => {
                    return all.into_iter().for_each(|one| one.reply.refuse(why.clone()));
                }
            }
        }
    }

    fn holds(&self, one: &One) -> bool {
        self.engine.slot(&one.id) == Some(one.slot)
    }

    /// Those whose channel is still here. It may have been set aside since they were taken.
    fn held(&self, all: Vec<One>) -> Vec<One> {
        let (held, gone): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| self.holds(one));
        gone.into_iter().for_each(|one| one.reply.refuse(self.unknown(one.id)));
        held
    }

    async fn try_gathered(
        &mut self,
        all: &[One],
    ) -> Result<BTreeMap<Slot, CommandError>, CommandError> {
        if all.is_empty() {
            return Ok(BTreeMap::new());
        }
        let inputs = all.iter().map(|one| one.input.clone()).collect();
        let with = all.iter().map(|one| (one.slot, one.records.clone())).collect();
        let refused = self.try_together(inputs, with).await?;
        Ok(refused.into_iter().map(|(slot, why)| (slot, CommandError::Facts(why))).collect())
    }

    fn answer_all(&mut self, all: Vec<One>, refused: &BTreeMap<Slot, CommandError>) {
        for One { slot, id, reply, .. } in all {
            match reply {
                Wants::Receipt(facts, reply) => {
                    if let Some(why) = refused.get(&slot) {
                        reply.send(Err(why.clone()));
                        continue;
                    }
                    let receipt = Receipt::of(&facts);
                    if self.engine.slot(&id) == Some(slot) && self.engine.active(slot).is_none() {
                        self.recent.keep(slot, facts);
                    }
                    reply.send(Ok(receipt));
                }
                Wants::Acknowledged(key, reply) => {
                    self.notices.acknowledged(id, key);
                    reply.send(Ok(()));
                }
                Wants::Done(reply) => reply.send(Ok(())),
            }
        }
    }

    async fn take_events(&mut self, events: BTreeMap<(Slot, String), Events>) {
        let (mut taken, mut writes): (Vec<_>, Vec<Write>) = (Vec::new(), Vec::new());
        for ((slot, name), Events { id, state, replies }) in events {
            // Its channel, or it itself, may be gone since.
            if self.engine.slot(&id) == Some(slot) && self.subscribers.state(slot, &name).is_some()
            {
                writes.extend(self.subscribers.acknowledging(slot, &name, state));
                taken.push((slot, name, state, replies));
            } else {
                replies.into_iter().for_each(|reply| reply.send(Err(self.unknown(id))));
            }
        }
        if taken.is_empty() {
            return;
        }
        let stored = self.store(writes).await;
        for (slot, name, state, replies) in taken {
            if stored.is_ok() {
                self.subscribers.acknowledged(slot, &name, state);
                self.tasks.forget_again(slot);
            }
            replies.into_iter().for_each(|reply| reply.send(stored.clone()));
        }
    }
}
