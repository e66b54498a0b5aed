//! Commands of the handle.
use super::work::{History, Outcome};
use super::{Driver, FreshFacts};
use crate::command::{Command, CommandError, Reply};
use arb_core::arbitrator::{BlockView, FailReason, Input, NoticeKey};
use arb_core::engine::EngineInput;
use arb_core::facts::{ChannelFacts, Standing, Update, Updated};
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
            Command::Shutdown { reply } => self.ending = Some(reply),
        }
    }

    async fn input_for(&mut self, id: ChannelId, input: Input) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        self.channel_input(slot, input).await;
        Ok(())
    }

    async fn fail(&mut self, id: ChannelId) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or(CommandError::UnknownChannel(id))?;
        let facts = self.facts_of(slot).map_err(CommandError::NotStored)?;
        if facts.standing == Standing::Outdated {
            return Err(CommandError::Outdated(id));
        }
        if self.engine.active(slot).is_some_and(|active| active.picture.is_some()) {
            return Err(CommandError::Closed(id));
        }
        self.channel_input(slot, Input::Fail(FailReason::Requested)).await;
        Ok(())
    }

    async fn acknowledge(&mut self, id: ChannelId, key: NoticeKey) -> Result<(), CommandError> {
        self.notices.acknowledged(id, key);
        if self.quarantined.contains_key(&id) {
            return Ok(());
        }
        self.input_for(id, Input::NoticeAcknowledged(key)).await
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

    /// Verifies facts and scans from the channel's birth before they are taken on.
    fn watch(&mut self, facts: Box<ChannelFacts>, reply: Reply<()>) {
        if let Some(slot) = self.engine.slot(&facts.id) {
            let same = self.facts_of(slot).is_ok_and(|known| *known == *facts);
            let refused = CommandError::AlreadyWatched(facts.id);
            return Self::reply(reply, if same { Ok(()) } else { Err(refused) });
        }
        if let Err(error) = facts.verify(&self.secp) {
            return Self::reply(reply, Err(CommandError::Facts(error)));
        }
        let history = History::new(&facts);
        self.rescan(facts, history, reply);
    }

    /// Takes a channel on: facts and what its rescan found, in one append.
    pub(super) async fn register(
        &mut self,
        facts: Box<ChannelFacts>,
        history: Vec<BlockView>,
        reply: Reply<()>,
    ) {
        if self.engine.slot(&facts.id).is_some() {
            // Watched twice at once: the first one won.
            return self.watch(facts, reply);
        }
        let slot = match self.quarantined.remove(&facts.id) {
            Some(slot) => slot,
            None => {
                let slot = Slot(self.next_slot);
                self.next_slot = self.next_slot.saturating_add(1);
                slot
            }
        };
        self.step(vec![EngineInput::Watch { slot, facts, history }]).await;
        Self::reply(reply, Ok(()));
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
            self.step(vec![EngineInput::Facts { slot, updated }]).await;
            return Self::reply(reply, Ok(()));
        }
        self.store_facts(slot, updated, reply);
    }

    fn verified(&self, slot: Slot, updates: &[Update]) -> Result<Updated, CommandError> {
        let facts = self.facts_of(slot).map_err(CommandError::NotStored)?;
        let fenced = self
            .engine
            .active(slot)
            .is_some_and(|active| active.state.is_failing() || active.picture.is_some());
        let mut all = Updated { facts: (*facts).clone(), ended: Vec::new() };
        for update in updates {
            let local = matches!(update, Update::LocalCommitment { .. });
            let before = all.facts.candidates.current.local.number;
            let one = all.facts.updated(update, &self.secp).map_err(CommandError::Facts)?;
            let newer = one.facts.candidates.current.local.number > before;
            if fenced && local && newer {
                return Err(CommandError::Facts(arb_core::facts::UpdateError::Fenced));
            }
            all.facts = one.facts;
            all.ended.extend(one.ended);
        }
        Ok(all)
    }

    fn store_facts(&mut self, slot: Slot, updated: Updated, reply: Reply<()>) {
        let facts = Arc::new(updated.facts);
        let mut writes = vec![Write::Facts { slot, facts: Box::new((*facts).clone()) }];
        if !updated.ended.is_empty() {
            writes.push(Write::EndedHtlcs { slot, htlcs: updated.ended });
        }
        let batch = self.direct_batch(writes);
        let appended = self.log.append(batch);
        let fresh = self
            .fresh_facts
            .entry(slot)
            .or_insert_with(|| FreshFacts { facts: facts.clone(), appends: 0 });
        fresh.facts = facts.clone();
        fresh.appends = fresh.appends.saturating_add(1);
        self.workers.spawn(async move {
            let result = appended.await.map(|_| ()).map_err(|error| error.to_string());
            Outcome::Stored { slot, facts, result, reply }
        });
    }

    /// An append of facts has ended: watches and due height follow; a failed one takes the facts
    /// that were built on it back.
    pub(super) fn on_stored(
        &mut self,
        slot: Slot,
        facts: &ChannelFacts,
        result: Result<(), String>,
        reply: Reply<()>,
    ) {
        if let Some(fresh) = self.fresh_facts.get_mut(&slot) {
            fresh.appends = fresh.appends.saturating_sub(1);
            if fresh.appends == 0 || result.is_err() {
                self.fresh_facts.remove(&slot);
            }
        }
        if result.is_ok() {
            self.engine.quiet_facts_replaced(slot, facts);
        }
        Self::reply(reply, result.map_err(CommandError::NotStored));
    }
}
