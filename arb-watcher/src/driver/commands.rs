//! Commands of the handle.
use super::durable::Unreadable;
use super::gathered::{Gathered, TOGETHER};
use super::on_the_way::Records;
use super::work::{NotStored, Stored};
use super::{Around, Driver, measure};
use crate::command::{Command, CommandError, Counts, Envelope, Reply};
use crate::ended::Ended;
use crate::epochs::Epochs;
use crate::notices::NoticeStream;
use crate::receipt::Receipt;
use arb_core::arbitrator::{Alert, BlockView, Input, NoticeKey};
use arb_core::engine::{EngineInput, Updated};
use arb_core::facts::{ChannelNumbers, Standing, Update};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ByteRecord, ChangeLog, Health, Remedy, Write};
use arb_core::memory::check_record_name;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// So many appends are asked for at once: the store prepares them while the driver verifies the next ones.
const AT_ONCE: usize = 8;

/// How long commands are taken one after the other before the driver looks at what else there is.
const LONGEST_TURN: Duration = Duration::from_millis(1);

impl<A: Around> Driver<A> {
    /// Takes what has come by now, as far as it is soon done: other things than commands wait meanwhile.
    pub(super) async fn on_commands(&mut self, first: Envelope) {
        let begun = Instant::now();
        let mut gathered = Gathered::default();
        let mut next = Some(first);
        while let Some(envelope) = next {
            self.on_command(envelope, &mut gathered).await;
            // Where space has run out, what waits for it must not hold up, or come along with, what does not.
            let is_scarce = self.log.health() == Health::Emergency;
            if gathered.len() >= TOGETHER || is_scarce {
                self.take_gathered(&mut gathered).await;
            }
            if self.unsent.len() >= AT_ONCE {
                self.append_facts();
            }
            let may_go_on = !self.end.is_near() && self.takes_commands();
            let goes_on = may_go_on && begun.elapsed() < LONGEST_TURN;
            next = if goes_on { self.queue.try_recv().ok() } else { None };
        }
        self.take_gathered(&mut gathered).await;
        self.append_facts();
    }

    /// Those of some kinds share an append with those before and after them. Any other comes after what they have brought.
    async fn on_command(&mut self, envelope: Envelope, gathered: &mut Gathered) {
        let Envelope { command, answer } = envelope;
        if !command.shares_append() {
            self.take_gathered(gathered).await;
        }
        match command {
            Command::Update { id, updates, records } => {
                let records = records.into_iter().map(Arc::new).collect();
                self.update(id, (updates, records), gathered, Reply::new(answer)).await;
            }
            Command::Preimage { id, preimage, source } => {
                self.before(id, gathered).await;
                let reply = Reply::new(answer);
                match self.wanted(id, preimage, source) {
                    Ok(slot) => {
                        gathered.input(slot, id, Input::Preimage { preimage, source }, reply);
                    }
                    Err(error) => reply.send(Err(error)),
                }
            }
            Command::Acknowledge { id, key } => {
                self.acknowledge((id, key), gathered, Reply::new(answer));
            }
            Command::AcknowledgeEvents { id, name, number } => {
                let next = number.saturating_add(1);
                self.delivered((id, name), next, gathered, Reply::new(answer));
            }
            Command::Watch(facts) => self.watch(facts, Reply::new(answer)),
            Command::StateNumbers(numbers) => {
                Reply::new(answer).send(self.restate(numbers));
            }
            Command::Fail(id) => self.fail(id, Reply::new(answer)).await,
            Command::Bump { target, goal } => {
                Reply::new(answer).send(self.bump(target, goal).await);
            }
            Command::ClosedCooperatively { id, txid } => {
                Reply::new(answer).send(self.closed_cooperatively(id, txid).await);
            }
            Command::Abandon { id, why } => self.abandon(id, why, Reply::new(answer)).await,
            Command::Notices => self.open_notices(Reply::new(answer)),
            Command::Subscribe { id, name, delivery } => {
                self.subscribe(id, name, delivery, Reply::new(answer)).await;
            }
            Command::SubscribeAll { name, delivery } => {
                self.subscribe_all(name, delivery, Reply::new(answer)).await;
            }
            Command::UnsubscribeAll { name } => {
                Reply::new(answer).send(self.unsubscribe_all(&name).await);
            }
            Command::Unsubscribe { id, name } => {
                Reply::new(answer).send(self.unsubscribe(id, &name).await);
            }
            Command::Report(id) => Reply::new(answer).send(self.report(id)),
            Command::ClosingCost { id, feerate } => {
                Reply::new(answer).send(self.closing_cost(id, feerate));
            }
            Command::Reserve { feerate, from } => {
                Reply::new(answer).send(Ok(self.reserve(feerate, from)));
            }
            Command::Epochs => self.open_epochs(Reply::new(answer)),
            Command::Counts => Reply::new(answer).send(Ok(self.counts())),
            Command::ReportPage { after } => {
                Reply::new(answer).send(Ok(Box::new(self.report_page(after))));
            }
            Command::Idle => self.idle(Reply::new(answer)),
        }
    }

    /// What was gathered of a channel comes before what is verified of it next.
    async fn before(&mut self, id: ChannelId, gathered: &mut Gathered) {
        if self.engine.slot(&id).is_some_and(|slot| gathered.holds(slot)) {
            self.take_gathered(gathered).await;
        }
    }

    /// Answered once nothing is under way, from a new look at everything on.
    pub(super) fn idle(&mut self, reply: Reply<()>) {
        self.chain.look_at_all();
        let (begun, _) = self.chain.mempool.rounds();
        self.idlers.push(begun, reply);
    }

    fn open_notices(&mut self, reply: Reply<NoticeStream>) {
        if !reply.is_closed() {
            reply.send(Ok(self.notices.listen()));
        }
    }

    fn open_epochs(&mut self, reply: Reply<Epochs>) {
        if !reply.is_closed() {
            reply.send(Ok(self.epochs.open(self.engine.tip(), self.engine.position())));
        }
    }

    fn counts(&mut self) -> Counts {
        self.tidy();
        Counts {
            epochs: self.epochs.count(),
            subscriptions: self.subscribers.readers.count(),
            notices: self.notices.readers.count(),
            workers: self.workers.len(),
            appends: self.appends.len(),
            waiting: [self.idlers.len(), self.rescans.len(), self.failing.len()].iter().sum(),
        }
    }

    /// Forgets about readers and callers that are gone.
    pub(super) fn tidy(&mut self) {
        self.notices.tidy();
        self.subscribers.tidy();
        self.failing.tidy();
        self.idlers.tidy();
        self.rescans.tidy();
    }

    pub(super) async fn input_for(
        &mut self,
        id: ChannelId,
        input: Input,
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        self.try_step(vec![EngineInput::Channel { slot, input: Box::new(input) }]).await
    }

    fn restate(&mut self, numbers: ChannelNumbers) -> Result<(), CommandError> {
        let id = numbers.id;
        let Some(slot) = self.engine.slot(&id) else { return self.state_aside(numbers) };
        let facts = match self.readable(slot) {
            Err(Unreadable::Channel(_)) => return self.state_aside(numbers),
            facts => facts?,
        };
        self.state_numbers(slot, &facts, Some(numbers));
        if self.engine.standing(slot, &facts) == Standing::Current {
            self.notices.over(id, Alert::OutdatedFacts);
        }
        self.renew(slot);
        Ok(())
    }

    fn acknowledge(
        &mut self,
        (id, key): (ChannelId, NoticeKey),
        gathered: &mut Gathered,
        reply: Reply<()>,
    ) {
        // An alarm of the driver is no part of the log: it comes again after a restart.
        if self.notices.is_alarm(id, key) {
            self.notices.acknowledged(id, key);
            return reply.send(Ok(()));
        }
        match self.engine.slot(&id) {
            Some(slot) => gathered.acknowledge(slot, (id, key), reply),
            None => reply.send(Err(self.unknown(id))),
        }
    }

    /// Verifies updates and makes the facts durable. A quiet channel's do not pass through the
    /// engine: they go to the writer at once, many in flight. Others share an append.
    async fn update(
        &mut self,
        id: ChannelId,
        (updates, records): (Vec<Update>, Records),
        gathered: &mut Gathered,
        reply: Reply<Receipt>,
    ) {
        self.before(id, gathered).await;
        let Some(slot) = self.engine.slot(&id) else {
            return reply.send(Err(self.unknown(id)));
        };
        // Together with what must be stored, a record that cannot be would keep it from that.
        let named = |record: &Arc<ByteRecord>| check_record_name(&record.folder, &record.name);
        if let Err(refused) = records.iter().try_for_each(named) {
            return reply.send(Err(CommandError::NotStored(refused.to_string())));
        }
        let updated = match self.verified(slot, &updates) {
            Ok(updated) => updated,
            Err(error) => return reply.send(Err(error)),
        };
        if updated.new_fundings().next().is_some() {
            return self.scan_candidates((updates, records), &updated, reply);
        }
        let learns = !updated.preimages().is_empty();
        let writes = updated.writes() || learns || !records.is_empty();
        if !writes && self.on_the_way.newest(slot).is_none() {
            self.engine.quiet_facts_replaced(slot, &updated);
            return reply.send(Ok(Receipt::of(updated.facts())));
        }
        if self.engine.active(slot).is_some() || updated.moves_candidates() || learns {
            return gathered.update(slot, (updated, records), reply);
        }
        self.store_facts(slot, (updated, records), reply);
    }

    pub(super) fn verified(
        &mut self,
        slot: Slot,
        updates: &[Update],
    ) -> Result<Updated, CommandError> {
        let facts = self.facts_in_use(slot)?;
        let verified = self.of_channel(slot, |driver| {
            driver.engine.verify_updates(slot, &facts, updates, &driver.secp)
        })?;
        verified.map_err(CommandError::Facts)
    }

    /// Hands verified updates to the engine, with what the past holds of new candidates. The node's records
    /// are in the same append.
    pub(super) async fn take_facts(
        &mut self,
        slot: Slot,
        (updated, records): (Updated, Records),
        history: Vec<BlockView>,
    ) -> Result<Receipt, CommandError> {
        let facts = updated.facts().clone();
        let receipt = Receipt::of(&facts);
        let updated = Box::new(updated);
        let input = vec![EngineInput::Facts { slot, updated, history }];
        self.try_step_with(input, (slot, records)).await?;
        if self.engine.active(slot).is_none() {
            self.recent.keep(slot, facts);
        }
        Ok(receipt)
    }

    fn store_facts(&mut self, slot: Slot, updated: (Updated, Records), reply: Reply<Receipt>) {
        let (number, (all, records)) = self.on_the_way.begin(slot, updated, reply);
        let facts = all.facts().clone();
        let mut writes = vec![Write::Facts { slot, facts }];
        if !all.ended().is_empty() {
            writes.push(Write::EndedHtlcs { slot, htlcs: all.ended().to_vec() });
        }
        writes.extend(records.into_iter().map(Write::Bytes));
        let batch = self.direct_batch(writes);
        self.unsent.push(((slot, number), batch));
    }

    /// Asks the store for the facts that wait for it: before anything that came later.
    pub(super) fn append_facts(&mut self) {
        if self.unsent.is_empty() {
            return;
        }
        let since = Instant::now();
        let (of, batches): (Vec<_>, _) = self.unsent.drain(..).unzip();
        let mut appends = self.log.append_all(batches).into_iter();
        for (slot, number) in of {
            let Some(append) = appends.next() else {
                let why = "the store gave no receipt".to_owned();
                let result = Err(NotStored { why, remedy: Remedy::Reopen });
                // Nothing is durable by that.
                let _ = self.on_stored(Stored { slot, number, result });
                continue;
            };
            self.appends.start((slot, number), async move {
                let appended = append.await;
                measure::appended(since.elapsed(), appended.is_ok());
                let failed = |error: <A::Log as ChangeLog>::Error| NotStored {
                    why: error.to_string(),
                    remedy: A::Log::remedy(&error),
                };
                appended.map(|_| ()).map_err(failed)
            });
        }
    }

    /// What the store answered by now: a commit answers many appends. Whoever waits is told first, and may go on
    /// where it waits for this task.
    pub(super) async fn on_all_stored(&mut self, first: Stored) {
        let mut durable = Vec::new();
        let mut next = Some(first);
        while let Some(stored) = next {
            durable.extend(self.on_stored(stored));
            next = self.appends.ready();
        }
        self.look_at_store();
        tokio::task::yield_now().await;
        for (slot, updated) in durable {
            self.facts_stored(slot, &updated);
        }
    }

    /// An append of facts has ended: whoever waits is told. Gives what is durable by it.
    pub(super) fn on_stored(&mut self, stored: Stored) -> Option<(Slot, Updated)> {
        let Stored { slot, number, result } = stored;
        match result {
            Ok(()) => Some((slot, self.on_the_way.stored(slot, number)?)),
            Err(NotStored { why, remedy }) => {
                tracing::error!(slot = slot.0, why, "facts are not stored");
                if remedy == Remedy::Reopen {
                    self.end.must(Ended::Store(why.clone()));
                }
                self.on_the_way.failed(slot, number, &why);
                None
            }
        }
    }

    /// Facts of a channel are durable: watches and due height follow.
    fn facts_stored(&mut self, slot: Slot, updated: &Updated) {
        let facts = updated.facts();
        // The channel may have been set aside or forgotten meanwhile.
        if self.engine.slot(&facts.id) != Some(slot) {
            return;
        }
        self.engine.quiet_facts_replaced(slot, updated);
        if self.engine.active(slot).is_none() {
            self.recent.keep(slot, facts.clone());
        }
        if self.engine.standing(slot, facts) == Standing::Current {
            self.notices.over(facts.id, Alert::OutdatedFacts);
        }
    }
}
