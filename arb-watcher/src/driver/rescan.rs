//! Watching: a channel's past, from its birth to the tip, is scanned before it is taken on. The
//! tip may move or be reorganised meanwhile.
use super::durable::{Patience, Unreadable, set_aside};
use super::on_the_way::Records;
use super::panics::{Panicked, caught_of};
use super::scan::History;
use super::{Around, Driver};
use crate::abandon::Sought;
use crate::command::{CommandError, Reply};
use crate::receipt::Receipt;
use arb_core::arbitrator::{Alert, BlockView, ChannelArbitrator};
use arb_core::engine::{EngineInput, Updated};
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, Write};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::OutPoint;
use std::sync::Arc;
use tokio::time::Instant;

/// Funding outputs that are to be watched, and how far their past is known.
#[derive(Debug)]
pub(super) struct Watching {
    pub(super) id: ChannelId,
    pub(super) history: History,
    origin: Origin,
    /// The last scan got nowhere: wait before the next.
    pub(super) stuck: bool,
    /// The source has failed to give its next block: until when it waits, and for which time.
    pub(super) failed: Option<(Instant, u32)>,
    /// The source takes long to give its next block: it waits apart from the others.
    pub(super) slow: bool,
}

/// Why the past is scanned.
#[derive(Debug)]
enum Origin {
    /// The node asked for the channel to be watched.
    Asked(Box<ChannelFacts>, Reply<()>),
    /// The node told of further funding candidates.
    Candidates(Vec<Update>, Records, Reply<Receipt>),
    /// The node says that the channel can never be funded.
    Abandoned(Reply<()>),
    /// It was set aside, and can be read again.
    Healed,
}

impl Watching {
    fn new(
        id: ChannelId,
        birth: BlockHeight,
        fundings: impl IntoIterator<Item = OutPoint>,
        origin: Origin,
    ) -> Self {
        let history = History::new(birth, fundings.into_iter().collect());
        Self { id, history, origin, stuck: false, failed: None, slow: false }
    }

    /// All funding outputs of a channel.
    fn of(facts: &ChannelFacts, origin: Origin) -> Self {
        let fundings = facts.candidates.iter().map(|candidate| candidate.funding);
        Self::new(facts.id, facts.birth, fundings, origin)
    }

    /// A channel that was set aside, and the last block that it has seen; `None`: not known.
    pub(super) fn healed(facts: &ChannelFacts, since: Option<BlockRef>) -> Self {
        let mut watching = Self::of(facts, Origin::Healed);
        watching.history.to = since;
        watching
    }

    /// Whether somebody still waits for it.
    pub(super) fn is_wanted(&self) -> bool {
        match &self.origin {
            Origin::Asked(_, reply) | Origin::Abandoned(reply) => !reply.is_closed(),
            Origin::Candidates(_, _, reply) => !reply.is_closed(),
            Origin::Healed => true,
        }
    }
}

impl<A: Around> Driver<A> {
    /// Verifies facts and scans from the channel's birth before they are taken on.
    pub(super) fn watch(&mut self, mut facts: Box<ChannelFacts>, reply: Reply<()>) {
        if let Some(slot) = self.engine.slot(&facts.id) {
            match self.readable(slot) {
                Ok(known) => {
                    if facts.destination.is_empty() {
                        facts.destination.clone_from(&known.destination);
                    }
                    return match Self::is_same(&known, &facts) {
                        Ok(()) => self.on_the_way.watched(slot, reply),
                        Err(other) => reply.send(Err(other)),
                    };
                }
                Err(error @ Unreadable::Medium(_)) => return reply.send(Err(error.into())),
                // Set aside just now: these facts take the place of the damaged ones.
                Err(Unreadable::Channel(_)) => {}
            }
        }
        if facts.destination.is_empty() {
            let why = "the facts name none".to_owned();
            return reply.send(Err(CommandError::DestinationMissing { id: facts.id, why }));
        }
        // Nobody watches it yet: a panic is the answer.
        match caught_of(Slot(self.next_slot), || facts.verify(&self.secp)) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return reply.send(Err(CommandError::Facts(error))),
            Err(Panicked { what, .. }) => {
                return reply.send(Err(CommandError::Panicked(facts.id, what)));
            }
        }
        let watched = facts.clone();
        self.rescan(Watching::of(&watched, Origin::Asked(facts, reply)));
    }

    /// Scans from the birth of new funding candidates before the updates that add them are taken.
    pub(super) fn scan_candidates(
        &mut self,
        (updates, records): (Vec<Update>, Records),
        updated: &Updated,
        reply: Reply<Receipt>,
    ) {
        let births = updates.iter().filter_map(|update| match update {
            Update::CandidateAdded { birth, .. } => Some(*birth),
            _ => None,
        });
        let facts = updated.facts();
        let birth = births.min().unwrap_or(facts.birth);
        let origin = Origin::Candidates(updates, records, reply);
        self.rescan(Watching::new(facts.id, birth, updated.new_fundings(), origin));
    }

    /// Scans from a channel's birth for what keeps its funding transactions from confirming.
    pub(super) fn scan_for_double_spend(
        &mut self,
        facts: &ChannelFacts,
        sought: Sought,
        reply: Reply<()>,
    ) {
        let mut watching = Watching::of(facts, Origin::Abandoned(reply));
        watching.history.sought = Some(sought);
        self.rescan(watching);
    }

    /// Whether these facts are watched already.
    fn is_same(known: &ChannelFacts, facts: &ChannelFacts) -> Result<(), CommandError> {
        if known == facts { Ok(()) } else { Err(CommandError::AlreadyWatched(facts.id)) }
    }

    pub(super) async fn on_rescanned(
        &mut self,
        mut watching: Watching,
        result: Result<(), String>,
    ) {
        if let Err(why) = result {
            return match watching.origin {
                Origin::Asked(_, reply) | Origin::Abandoned(reply) => {
                    reply.send(Err(CommandError::NotScanned(why)));
                }
                Origin::Candidates(_, _, reply) => reply.send(Err(CommandError::NotScanned(why))),
                Origin::Healed => self.on_not_scanned(watching.id, &why),
            };
        }
        if watching.history.to == self.engine.tip() {
            let Watching { id, history, origin, .. } = watching;
            match origin {
                Origin::Asked(facts, reply) => self.register(facts, history.views, reply).await,
                Origin::Candidates(updates, records, reply) => {
                    let taken = self.take_candidates(id, (&updates, records), history.views).await;
                    self.chain.look_again();
                    reply.send(taken);
                }
                Origin::Abandoned(reply) => {
                    let sought = history.sought.as_ref();
                    reply.send(self.abandon_by(id, sought, &history.views).await);
                }
                Origin::Healed => self.return_to_service(id, history.views).await,
            }
            return self.tell_late_again().await;
        }
        // The tip moved meanwhile: go on from there, or from the birth after a reorganisation.
        let stands = watching.history.to.is_none_or(|to| self.engine.blocks().any(|b| *b == to));
        if !stands {
            watching.history.start_over();
        }
        watching.stuck |= !stands;
        self.rescan(watching);
    }

    /// Takes updates that add funding candidates, as they are to be judged now, and what the
    /// rescan found, in one append.
    async fn take_candidates(
        &mut self,
        id: ChannelId,
        (updates, records): (&[Update], Records),
        history: Vec<BlockView>,
    ) -> Result<Receipt, CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let updated = self.verified(slot, updates)?;
        self.take_facts(slot, (updated, records), history).await
    }

    /// Takes a channel on: facts and what its rescan found, in one append.
    async fn register(
        &mut self,
        facts: Box<ChannelFacts>,
        history: Vec<BlockView>,
        reply: Reply<()>,
    ) {
        if self.engine.slot(&facts.id).is_some() {
            // Watched twice at once: the first one won.
            return self.watch(facts, reply);
        }
        let id = facts.id;
        let watched = match self.quarantine.slot(&id) {
            Some(slot) => match self.recalled_for_good(slot).await {
                Ok(state) => {
                    self.judge_aside(&facts, true);
                    self.recall_subscribers(slot);
                    self.take_back(slot, facts, state, history).await
                }
                Err(refused) => Err(refused),
            },
            None => {
                let slot = Slot(self.next_slot);
                let watched = self.try_step(vec![EngineInput::Watch { slot, facts, history }]);
                let watched = watched.await;
                self.next_slot = self.next_slot.saturating_add(u32::from(watched.is_ok()));
                watched.and_then(|()| self.is_held(id, slot))
            }
        };
        if watched.is_ok() && self.quarantine.slot(&id).is_some() {
            self.quarantine.remove(&id);
            self.notices.over(id, Alert::Quarantined);
        }
        self.chain.look_again();
        reply.send(watched);
    }

    /// What the log remembers of a channel that was set aside still holds, if it can be read:
    /// above all which commitment was handed out. A log that cannot is empty from here on: what is added to it
    /// would be lost with it at the next start. Its events are counted from 0 again, and nobody has acknowledged
    /// any of them.
    async fn recalled_for_good(&mut self, slot: Slot) -> Result<ChannelArbitrator, CommandError> {
        match self.log.changes(slot) {
            Ok(Ok(changes)) => caught_of(slot, || ChannelArbitrator::replay(&changes))
                .map_err(|panicked| CommandError::NotStored(panicked.why())),
            Ok(Err(damaged)) => {
                tracing::error!(slot = slot.0, %damaged, "its log is lost");
                // Until it is back, a start must not take it for a channel that has seen every block.
                self.quarantine.mark(slot, true);
                // If it does not return now, it must be scanned as a whole later.
                self.quarantine.nothing_seen(slot);
                let marks = self.quarantine.marks();
                let mut writes: Vec<Write> = marks.iter().map(set_aside).collect();
                writes.push(Write::LogReplaced { slot, changes: Vec::new() });
                writes.extend(self.positions_lost(slot)?);
                let batch = self.direct_batch(writes);
                let _ = self.append(batch, Patience::Once).await?;
                self.quarantine.marked(&marks);
                self.subscribers.told_nothing(slot);
                Ok(ChannelArbitrator::default())
            }
            Err(error) => Err(CommandError::NotStored(error.to_string())),
        }
    }

    /// Takes a channel back that was set aside. An error: it stays aside.
    pub(super) async fn take_back(
        &mut self,
        slot: Slot,
        facts: Box<ChannelFacts>,
        state: ChannelArbitrator,
        history: Vec<BlockView>,
    ) -> Result<(), CommandError> {
        let id = facts.id;
        self.restore(slot, Arc::new((*facts).clone()), state).map_err(CommandError::NotStored)?;
        self.quarantine.mark(slot, false);
        let watched = self.try_step(vec![EngineInput::Watch { slot, facts, history }]).await;
        if watched.is_err() {
            self.quarantine.mark(slot, true);
            let _ = self.engine.quarantine(slot);
        }
        watched.and_then(|()| self.is_held(id, slot))
    }

    /// What is durable may be set aside at once, if the engine panics over what is desired of it.
    fn is_held(&self, id: ChannelId, slot: Slot) -> Result<(), CommandError> {
        if self.engine.slot(&id) == Some(slot) { Ok(()) } else { Err(self.unknown(id)) }
    }
}
