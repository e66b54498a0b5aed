//! Persist before effect: inputs are staged, appended, and only then committed.
use super::on_the_way::Records;
use super::panics::slot_of;
use super::work::Stored;
use super::{Around, Driver, measure};
use crate::alarms::StoreAlarm;
use crate::command::{Command, CommandError, Envelope, Reply};
use crate::ended::Ended;
use arb_core::engine::{EngineInput, Loaded, NeedFacts, Transition};
use arb_core::facts::{ChannelFacts, UpdateError};
use arb_core::ids::Slot;
use arb_core::log::{Batch, BatchId, ChangeLog, Durable, Remedy, Write};
use std::collections::BTreeSet;
use std::future::ready;
use std::pin::pin;
use std::sync::Arc;

/// Batches that do not pass through the engine are numbered from here, so that no receipt of one
/// kind can serve the other.
const DIRECT_BATCHES: u64 = 1 << 63;

/// What to do if the store refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// Repeat until it is durable, or the driver is to end: what happened outside happened. Where
    /// repeating is useless the driver ends.
    UntilDurable,
    /// Nothing happened: whoever asked is told.
    Once,
}

/// Why facts cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// This channel's records are damaged.
    #[error("{0}")]
    Channel(String),
    /// The medium cannot be read now.
    #[error("{0}")]
    Medium(String),
}

impl From<Unreadable> for CommandError {
    fn from(why: Unreadable) -> Self {
        Self::NotStored(why.to_string())
    }
}

/// The mark of a channel that is set aside, or is no longer.
pub(super) const fn set_aside(&(slot, aside): &(Slot, bool)) -> Write {
    Write::SetAside { slot, aside }
}

/// One that asked for something, or nobody, is told of the first refusal.
fn first(taken: Result<Vec<(Slot, UpdateError)>, CommandError>) -> Result<(), CommandError> {
    match taken?.first() {
        Some((_, why)) => Err(CommandError::Facts(*why)),
        None => Ok(()),
    }
}

impl<A: Around> Driver<A> {
    /// Takes what happened outside. An error: the driver is to end, and it is as if nothing had
    /// happened.
    pub(super) async fn step(&mut self, inputs: Vec<EngineInput>) -> Result<(), CommandError> {
        first(self.take(inputs, Vec::new(), Patience::UntilDurable).await)
    }

    /// Takes what a command asks for. An error: nothing changed.
    pub(super) async fn try_step(&mut self, inputs: Vec<EngineInput>) -> Result<(), CommandError> {
        first(self.take(inputs, Vec::new(), Patience::Once).await)
    }

    /// The same, and writes records of the node's own with it, unless facts of the channel that they came with are
    /// refused. Gives the channels whose facts are.
    pub(super) async fn try_together(
        &mut self,
        inputs: Vec<EngineInput>,
        records: Vec<(Slot, Records)>,
    ) -> Result<Vec<(Slot, UpdateError)>, CommandError> {
        self.take(inputs, records, Patience::Once).await
    }

    /// As [`Self::try_together`], for one channel.
    pub(super) async fn try_step_with(
        &mut self,
        inputs: Vec<EngineInput>,
        records: (Slot, Records),
    ) -> Result<(), CommandError> {
        first(self.try_together(inputs, vec![records]).await)
    }

    /// Stages inputs, makes them durable, commits them. Facts of quiet channels are loaded as the
    /// engine asks for them; a channel whose facts cannot be read is set aside.
    async fn take(
        &mut self,
        mut inputs: Vec<EngineInput>,
        told_with: Vec<(Slot, Records)>,
        patience: Patience,
    ) -> Result<Vec<(Slot, UpdateError)>, CommandError> {
        let mut loaded = Loaded::new();
        let mut on_the_way: Vec<(Slot, Records)> = Vec::new();
        let transition = loop {
            let staged = match self.stage(&mut inputs, &loaded) {
                Ok(staged) => staged,
                Err(error) if patience == Patience::Once => return Err(error),
                // What happened outside happened for the others all the same.
                Err(_) => None,
            };
            match staged {
                // A channel was set aside: the others are staged again.
                None => {}
                Some(Ok(transition)) => break transition,
                Some(Err(NeedFacts(slots))) => {
                    // Decisions must not become durable before the facts that they rest on.
                    let newer: Vec<_> = self.on_the_way.of(&slots).collect();
                    let newer = newer.into_iter().map(|(slot, (updated, records))| {
                        on_the_way.push((slot, records));
                        let updated = Box::new(updated);
                        EngineInput::Facts { slot, updated, history: Vec::new() }
                    });
                    inputs.splice(0..0, newer);
                    let asked: BTreeSet<Slot> = inputs.iter().filter_map(slot_of).collect();
                    self.load(slots, &mut loaded, (patience, &asked)).await?;
                }
            }
        };
        let refused = transition.refused().to_vec();
        // Of a channel that was set aside nothing goes into the batch.
        on_the_way.retain(|(slot, _)| self.engine.watcher(*slot).is_some());
        let mut records: Records =
            on_the_way.iter().flat_map(|(_, records)| records.iter().cloned()).collect();
        let is_refused = |of: Slot| refused.iter().any(|(slot, _)| *slot == of);
        let told_with = told_with.into_iter().filter(|(slot, _)| !is_refused(*slot));
        records.extend(told_with.flat_map(|(_, records)| records));
        let concerned = self.make_durable(transition, records, patience).await?;
        for (slot, _) in on_the_way {
            self.on_the_way.superseded(slot);
        }
        self.release(concerned);
        for (slot, why) in &refused {
            tracing::info!(slot = slot.0, %why, "facts refused");
        }
        Ok(refused)
    }

    async fn make_durable(
        &mut self,
        mut transition: Transition,
        records: Records,
        patience: Patience,
    ) -> Result<BTreeSet<Slot>, CommandError> {
        if records.is_empty() {
            transition = match self.engine.commit_empty(transition) {
                Ok(concerned) => return Ok(concerned),
                Err(transition) => *transition,
            };
        }
        let mut batch = transition.batch().clone();
        let marks = self.quarantine.marks();
        batch.writes.extend(marks.iter().map(set_aside));
        batch.writes.extend(records.into_iter().map(Write::Bytes));
        let receipt = self.append(batch, patience).await?;
        self.quarantine.marked(&marks);
        self.engine.commit(transition, receipt).map_err(|wrong| {
            // Cannot happen with a store that keeps the contract of `ChangeLog`.
            let why = format!("it answered with another batch's receipt: {wrong}");
            self.end.must(Ended::Store(why.clone()));
            CommandError::NotStored(why)
        })
    }

    /// Appends: nothing may happen before it is durable.
    pub(super) async fn append(
        &mut self,
        batch: Batch,
        patience: Patience,
    ) -> Result<Durable, CommandError> {
        self.append_facts();
        self.recent.outdated_by(&batch);
        loop {
            let since = std::time::Instant::now();
            let appended = self.log.append(batch.clone()).await;
            measure::appended(since.elapsed(), appended.is_ok());
            let error = match appended {
                Ok(receipt) => {
                    self.look_at_store();
                    return Ok(receipt);
                }
                Err(error) => error,
            };
            tracing::error!(%error, batch = batch.id.0, "the store refuses an append");
            let why = error.to_string();
            match (A::Log::remedy(&error), patience) {
                // Repeating it is useless, and nothing may happen without it.
                (Remedy::Reopen, _) | (Remedy::Refused, Patience::UntilDurable) => {
                    self.end.must(Ended::Store(why.clone()));
                    return Err(CommandError::NotStored(why));
                }
                (Remedy::Wait | Remedy::Refused, Patience::Once) => {
                    self.look_at_store();
                    return Err(CommandError::NotStored(why));
                }
                (Remedy::Wait, Patience::UntilDurable) => {
                    self.alarms.store(Some(StoreAlarm::Refuses));
                    let carried = batch.writes.iter().filter_map(|write| match write {
                        Write::Facts { slot, .. } => Some(*slot),
                        _ => None,
                    });
                    self.pause(&why, &carried.collect()).await?;
                }
            }
        }
    }

    /// How the store is off for space, after an append: the alarm comes before the disk is full.
    pub(super) fn look_at_store(&self) {
        self.alarms.store(StoreAlarm::of(self.log.health()));
    }

    /// Waits before something is repeated; an error if the driver is to end. Whoever asks for something meanwhile, or
    /// waits for facts that are refused as well, is told why it is not done, and may go on without; but for facts of channels that
    /// what is repeated carries with it.
    async fn pause(&mut self, why: &str, carried: &BTreeSet<Slot>) -> Result<(), CommandError> {
        let mut over = pin!(tokio::time::sleep(self.settings.retry));
        let mut later = Vec::new();
        let ended = loop {
            tokio::select! {
                () = self.end.come() => break Err(CommandError::Stopped),
                () = over.as_mut() => break Ok(()),
                Some(envelope) = self.queue.recv() => self.refuse(envelope, why),
                Some(stored) = self.appends.next() => {
                    // What follows from it must wait for what is being repeated.
                    if stored.result.is_ok() || carried.contains(&stored.slot) {
                        later.push(stored);
                    } else {
                        drop(self.on_stored(stored));
                    }
                }
            }
            if self.end.is_near() {
                break Err(CommandError::Stopped);
            }
        };
        for Stored { slot, number, result } in later {
            self.appends.start((slot, number), ready(result));
        }
        ended
    }

    /// Nothing is done: the store is asked for something else, and refuses it.
    fn refuse(&mut self, envelope: Envelope, why: &str) {
        let Envelope { command, answer } = envelope;
        if let Command::Idle = command {
            return self.idle(Reply::new(answer));
        }
        let refused = format!("the arbiter waits for its store: {why}");
        let _ = answer.send(Err(CommandError::NotStored(refused)));
    }

    /// Facts of these channels. All whose facts are damaged are set aside; an error: they cannot be had now, or
    /// a command is about one of those, who is told so.
    async fn load(
        &mut self,
        slots: BTreeSet<Slot>,
        loaded: &mut Loaded,
        (patience, asked): (Patience, &BTreeSet<Slot>),
    ) -> Result<(), CommandError> {
        let mut refused = None;
        for slot in slots {
            loop {
                match self.facts_of(slot) {
                    Ok(facts) => {
                        loaded.insert(slot, facts);
                    }
                    Err(Unreadable::Channel(why)) => {
                        let id = self.id_of(slot);
                        self.set_aside(slot, &why);
                        if let (Patience::Once, Some(id)) = (patience, id)
                            && asked.contains(&slot)
                        {
                            refused.get_or_insert_with(|| self.unknown(id));
                        }
                    }
                    Err(Unreadable::Medium(why)) => {
                        tracing::error!(slot = slot.0, why, "the store cannot be read");
                        if patience == Patience::Once {
                            return Err(CommandError::NotStored(why));
                        }
                        self.alarms.store(Some(StoreAlarm::Refuses));
                        self.pause(&why, asked).await?;
                        continue;
                    }
                }
                break;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The newest facts of a channel.
    pub(super) fn facts_of(&self, slot: Slot) -> Result<Arc<ChannelFacts>, Unreadable> {
        if let Some(active) = self.engine.active(slot) {
            return Ok(active.facts.clone());
        }
        let newest = self.on_the_way.newest(slot).cloned();
        match newest.or_else(|| self.recent.peek(slot)) {
            Some(facts) => Ok(facts),
            None => self.stored_facts(slot),
        }
    }

    /// The same, of a channel that is in use: they stay in memory.
    pub(super) fn facts_in_use(&mut self, slot: Slot) -> Result<Arc<ChannelFacts>, Unreadable> {
        if let Some(facts) =
            self.recent.get(slot).filter(|_| self.on_the_way.newest(slot).is_none())
        {
            return Ok(facts);
        }
        let facts = self.readable(slot)?;
        let is_stored =
            self.engine.active(slot).is_none() && self.on_the_way.newest(slot).is_none();
        if is_stored {
            self.recent.keep(slot, facts.clone());
        }
        Ok(facts)
    }

    /// The newest facts of a channel that a command names. If they are damaged, which nobody may
    /// have noticed so far, the channel is set aside.
    pub(super) fn readable(&mut self, slot: Slot) -> Result<Arc<ChannelFacts>, Unreadable> {
        let facts = self.facts_of(slot);
        if let Err(Unreadable::Channel(why)) = &facts {
            self.set_aside(slot, why);
        }
        facts
    }

    fn stored_facts(&self, slot: Slot) -> Result<Arc<ChannelFacts>, Unreadable> {
        match self.log.facts(slot) {
            Ok(Some(Ok(facts))) => Ok(Arc::from(facts)),
            Ok(Some(Err(damaged))) => Err(Unreadable::Channel(damaged.to_string())),
            Ok(None) => Err(Unreadable::Channel("no facts are stored".to_owned())),
            // What a pause does not mend is this channel's damage alone, as far as anybody knows.
            Err(error) if A::Log::remedy(&error) != Remedy::Wait => {
                Err(Unreadable::Channel(error.to_string()))
            }
            Err(error) => Err(Unreadable::Medium(error.to_string())),
        }
    }

    /// A batch that does not pass through the engine.
    pub(super) fn direct_batch(&mut self, writes: Vec<Write>) -> Batch {
        let id = BatchId(DIRECT_BATCHES | self.next_direct);
        self.next_direct = self.next_direct.wrapping_add(1);
        Batch { id, writes }
    }
}
