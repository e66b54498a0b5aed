//! Commands of the handle.
use super::Driver;
use super::work::Stored;
use crate::command::{Command, CommandError, Reply};
use arb_core::arbitrator::{FailReason, Input, NoticeKey};
use arb_core::engine::EngineInput;
use arb_core::facts::{Standing, Update, UpdateError, Updated};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, Write};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::report::ChannelReport;
use std::sync::Arc;

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    pub(super) async fn on_command(&mut self, command: Command) {
        match command {
            Command::Watch { facts, reply } => self.watch(facts, reply),
            Command::Update { id, updates, reply } => self.update(id, &updates, reply).await,
            Command::Fail { id, reply } => {
                let answer = self.fail(id).await;
                Self::reply(reply, answer);
            }
            Command::Preimage { id, preimage, source, reply } => {
                let input = Input::Preimage { preimage, source };
                let answer = self.input_for(id, input).await;
                Self::reply(reply, answer);
            }
            Command::Bump { id, outpoint, feerate, reply } => {
                let input = Input::Bump { outpoint, sat_per_kwu: feerate.to_sat_per_kwu() };
                let answer = self.input_for(id, input).await;
                Self::reply(reply, answer);
            }
            Command::Acknowledge { id, key, reply } => {
                let answer = self.acknowledge(id, key).await;
                Self::reply(reply, answer);
            }
            Command::Notices { reply } => Self::reply(reply, Ok(self.notices.listen())),
            Command::Subscribe { id, name, delivery, reply } => {
                let answer = self.subscribe(id, name, delivery).await;
                Self::reply(reply, answer);
            }
            Command::Delivered { id, name, next, reply } => {
                let answer = self.delivered(id, &name, next).await;
                Self::reply(reply, answer);
            }
            Command::Unsubscribe { id, name, reply } => {
                let answer = self.unsubscribe(id, &name).await;
                Self::reply(reply, answer);
            }
            Command::Report { id, reply } => Self::reply(reply, Ok(self.report(id))),
            Command::Idle { reply } => {
                self.chain.rung();
                self.idlers.push(reply);
            }
        }
    }

    async fn input_for(&mut self, id: ChannelId, input: Input) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        self.try_step(vec![EngineInput::Channel { slot, input: Box::new(input) }]).await
    }

    async fn fail(&mut self, id: ChannelId) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        let facts = self.facts_of(slot)?;
        if facts.standing == Standing::Outdated {
            return Err(CommandError::Outdated(id));
        }
        if self.engine.active(slot).is_some_and(|active| active.picture.is_some()) {
            return Err(CommandError::Closed(id));
        }
        self.input_for(id, Input::Fail(FailReason::Requested)).await
    }

    async fn acknowledge(&mut self, id: ChannelId, key: NoticeKey) -> Result<(), CommandError> {
        // An alarm of the driver is no part of the log: it comes again after a restart.
        if !self.notices.is_alarm(id, key) {
            self.input_for(id, Input::NoticeAcknowledged(key)).await?;
        }
        self.notices.acknowledged(id, key);
        Ok(())
    }

    fn report(&self, id: ChannelId) -> Option<Box<ChannelReport>> {
        let slot = self.engine.slot(&id)?;
        let now = self.engine.now();
        let report = match self.engine.active(slot) {
            Some(active) => ChannelReport::of(&active.facts, &active.state, &now),
            None => ChannelReport::quiet(&*self.facts_of(slot).ok()?, &now),
        };
        Some(Box::new(report))
    }

    /// Verifies updates and makes the facts durable. A quiet channel's do not pass through the
    /// engine: they go to the writer at once, many in flight.
    async fn update(&mut self, id: ChannelId, updates: &[Update], reply: Reply<()>) {
        let Some(slot) = self.engine.slot(&id) else {
            return Self::reply(reply, Err(CommandError::UnknownChannel(id)));
        };
        let updated = match self.verified(slot, updates) {
            Ok(updated) => updated,
            Err(error) => return Self::reply(reply, Err(error)),
        };
        if self.engine.active(slot).is_some() {
            let updated = Box::new(updated);
            let stored = self.try_step(vec![EngineInput::Facts { slot, updated }]).await;
            return Self::reply(reply, stored);
        }
        self.store_facts(slot, updated, reply);
    }

    fn verified(&self, slot: Slot, updates: &[Update]) -> Result<Updated, CommandError> {
        let facts = self.facts_of(slot)?;
        let fenced = self
            .engine
            .active(slot)
            .is_some_and(|active| active.state.is_failing() || active.picture.is_some());
        let mut all = Updated { facts: (*facts).clone(), ended: Vec::new() };
        for update in updates {
            let local = matches!(update, Update::LocalCommitment { .. });
            let one = all.facts.updated(update, &self.secp).map_err(CommandError::Facts)?;
            // Of any candidate: what was handed out may be the node's next to revoke.
            if fenced && local && one.facts.candidates != all.facts.candidates {
                return Err(CommandError::Facts(UpdateError::Fenced));
            }
            all.facts = one.facts;
            all.ended.extend(one.ended);
        }
        all.facts.standing = self.outdated.standing(slot, &all.facts);
        Ok(all)
    }

    fn store_facts(&mut self, slot: Slot, updated: Updated, reply: Reply<()>) {
        let facts = Arc::new(updated.facts);
        let write = Write::Facts { slot, facts: Box::new((*facts).clone()) };
        let (number, ended) = self.on_the_way.begin(slot, facts, updated.ended, reply);
        let mut writes = vec![write];
        if !ended.is_empty() {
            writes.push(Write::EndedHtlcs { slot, htlcs: ended });
        }
        let batch = self.direct_batch(writes);
        let appended = self.hand_over(batch);
        self.appends.spawn((slot, number), async move {
            appended.await.map(|_| ()).map_err(|error| error.to_string())
        });
    }

    /// An append of facts has ended: watches and due height follow, or whoever waits is told why.
    pub(super) fn on_stored(&mut self, stored: Stored) {
        let Stored { slot, number, result } = stored;
        match result {
            Ok(()) => {
                let facts = self.on_the_way.stored(slot, number);
                // The channel may have been set aside or forgotten meanwhile.
                if let Some(facts) = facts
                    && self.engine.slot(&facts.id) == Some(slot)
                {
                    self.engine.quiet_facts_replaced(slot, &facts);
                    if !self.outdated.covers(slot, &facts) && facts.standing == Standing::Current {
                        self.notices.up_to_date(facts.id);
                    }
                }
            }
            Err(why) => {
                tracing::error!(slot = slot.0, why, "facts are not stored");
                self.on_the_way.failed(slot, number, &why);
            }
        }
    }
}
