//! Off-chain history: the peer agrees, the arbiter is told.
use super::Failed;
use super::story::{Runner, ToldAt};
use crate::peer::{self, Keep, NewHtlc, Staged, preimage_named};
use crate::scenario::ast::{
    ChannelName, HashName, History, HtlcRef, Offer, Receive, ReceivedRole, Stage, Step,
};
use crate::world::{htlc_id, local_commitment};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{HtlcLink, Update};
use arb_core::ids::{HtlcRef as CoreHtlcRef, Preimage};
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use arb_watcher::CommandError;
use bitcoin::OutPoint;

/// Beyond this many commitments in one statement only the last local one is stated.
const STATED_EACH: u64 = 50;

/// A staged HTLC that waits for the others of its commitment.
pub(super) struct Waiting {
    staged: Staged,
    link: Option<HtlcLink>,
    upstream: Option<HtlcRef>,
}

/// The preimage that a hash name stands for.
pub(super) fn preimage_of(hash: &HashName) -> Preimage {
    Preimage(preimage_named(&hash.0))
}

impl Runner<'_> {
    pub(super) async fn history(&mut self, history: &History) -> Result<(), Failed> {
        match history {
            History::Offer(offer) => self.offer(offer).await,
            History::Receive(receive) => self.receive(receive).await,
            History::Settle(htlc) => {
                self.chan_mut(&htlc.channel)?.peer.settle(&htlc.htlc)?;
                self.serve_upstream(htlc).await?;
                self.tell(&htlc.channel, Keep::Every).await
            }
            History::Cancel(htlc) => {
                self.chan_mut(&htlc.channel)?.peer.cancel(&htlc.htlc)?;
                self.tell(&htlc.channel, Keep::Every).await
            }
            History::Update { channel, count } => {
                self.chan_mut(channel)?.peer.empty_updates(*count)?;
                let keep = if *count > STATED_EACH { Keep::Newest } else { Keep::Every };
                self.tell(channel, keep).await
            }
            History::UpdateFee { channel, feerate } => {
                let feerate = u32::try_from(feerate.to_sat_per_kwu())
                    .map_err(|_| Failed::new("a feerate of 32 bits", feerate))?;
                self.chan_mut(channel)?.peer.update_fee(feerate)?;
                self.tell(channel, Keep::Every).await
            }
            History::Shutdown(channel) => {
                self.chan_mut(channel)?.peer.shutdown()?;
                self.tell(channel, Keep::Every).await
            }
            History::ForgetSince { channel, number } => self.forget_since(channel, *number).await,
            History::Splice { channel, capacity, confirm } => {
                self.splice(channel, *capacity, *confirm).await
            }
        }
    }

    pub(super) fn new_htlc(
        &self,
        htlc: &HtlcRef,
        amount: u64,
        expiry: u32,
        hash: &HashName,
    ) -> NewHtlc {
        NewHtlc {
            name: htlc.htlc.clone(),
            amount_msat: amount,
            cltv_expiry: self.world.height().saturating_add(expiry),
            preimage: preimage_of(hash).0,
        }
    }

    async fn offer(&mut self, offer: &Offer) -> Result<(), Failed> {
        let new = self.new_htlc(&offer.htlc, offer.amount.0, offer.expiry.0, &offer.hash);
        let link = match &offer.upstream {
            None => None,
            Some(upstream) => {
                let chan = self.chan(&upstream.channel)?;
                let incoming = chan.peer.htlc(&upstream.htlc)?;
                Some(HtlcLink::ForwardOf {
                    incoming: CoreHtlcRef { channel: chan.id, htlc: htlc_id(incoming.htlc) },
                    expiry: CltvExpiry(BlockHeight(incoming.cltv_expiry)),
                    amount: MilliSat(incoming.amount_msat),
                })
            }
        };
        let waiting =
            Waiting { staged: Staged::Offer(new), link, upstream: offer.upstream.clone() };
        self.agree(&offer.htlc.channel, waiting, offer.stage).await
    }

    async fn receive(&mut self, receive: &Receive) -> Result<(), Failed> {
        let new = self.new_htlc(&receive.htlc, receive.amount.0, receive.expiry.0, &receive.hash);
        // Whom a forwarded HTLC pays is known when the outgoing one is offered.
        let link = match receive.role {
            ReceivedRole::Final => None,
            ReceivedRole::Forwarded { .. } | ReceivedRole::Uncommitted => {
                Some(HtlcLink::Uncommitted)
            }
        };
        let waiting = Waiting { staged: Staged::Receive(new), link, upstream: None };
        self.agree(&receive.htlc.channel, waiting, receive.stage).await
    }

    async fn agree(
        &mut self,
        name: &ChannelName,
        waiting: Waiting,
        stage: Stage,
    ) -> Result<(), Failed> {
        let more = stage == Stage::Next && self.more_is_staged(name);
        let chan = self.chan_mut(name)?;
        match stage {
            Stage::Committed => {
                let Waiting { staged, link, upstream } = waiting;
                let htlc = match staged {
                    Staged::Offer(new) => chan.peer.offer(new)?,
                    Staged::Receive(new) => chan.peer.receive(new)?,
                };
                chan.links.extend(link.map(|link| (htlc, link)));
                self.tell(name, Keep::Every).await?;
                self.link_upstream(name, htlc, upstream).await?;
            }
            Stage::Next => {
                chan.staged.push(waiting);
                if more {
                    return Ok(());
                }
                let waiting = std::mem::take(&mut chan.staged);
                let batch = waiting.iter().map(|waiting| waiting.staged.clone()).collect();
                let htlcs = chan.peer.stage(batch)?;
                for (htlc, waiting) in htlcs.iter().zip(&waiting) {
                    chan.links.extend(waiting.link.map(|link| (*htlc, link)));
                }
                self.tell(name, Keep::Every).await?;
                for (htlc, waiting) in htlcs.into_iter().zip(waiting) {
                    self.link_upstream(name, htlc, waiting.upstream).await?;
                }
            }
        }
        self.tell_preimages(name).await
    }

    /// Whether the statements that follow at once stage another HTLC of this channel.
    fn more_is_staged(&self, name: &ChannelName) -> bool {
        let rest = self.scenario.story.iter().skip(self.at + 1);
        for statement in rest {
            match &statement.step {
                Step::History(History::Offer(Offer { htlc, stage: Stage::Next, .. }))
                | Step::History(History::Receive(Receive { htlc, stage: Stage::Next, .. }))
                    if htlc.channel == *name =>
                {
                    return true;
                }
                Step::History(_) => {}
                _ => return false,
            }
        }
        false
    }

    /// The incoming HTLC learns which outgoing one forwards it.
    async fn link_upstream(
        &mut self,
        name: &ChannelName,
        outgoing: peer::HtlcRef,
        upstream: Option<HtlcRef>,
    ) -> Result<(), Failed> {
        let Some(upstream) = upstream else { return Ok(()) };
        let outgoing = CoreHtlcRef { channel: self.chan(name)?.id, htlc: htlc_id(outgoing) };
        let chan = self.chan(&upstream.channel)?;
        let id = htlc_id(chan.peer.htlc(&upstream.htlc)?.htlc);
        let update = Update::HtlcLinked { id, link: HtlcLink::ForwardedTo { outgoing } };
        self.send(&upstream.channel, vec![update]).await
    }

    /// The outgoing HTLC was fulfilled off-chain: its preimage serves the incoming one.
    async fn serve_upstream(&mut self, htlc: &HtlcRef) -> Result<(), Failed> {
        let settled = self.chan(&htlc.channel)?.peer.htlc(&htlc.htlc)?.clone();
        let link = self.chan(&htlc.channel)?.links.get(&settled.htlc).copied();
        let Some(HtlcLink::ForwardOf { incoming, .. }) = link else { return Ok(()) };
        let Some((name, chan)) = self.channels.iter().find(|(_, chan)| chan.id == incoming.channel)
        else {
            return Ok(());
        };
        if chan.forgotten {
            return Ok(());
        }
        let served = chan.peer.htlcs().iter().find(|htlc| htlc_id(htlc.htlc) == incoming.htlc);
        let known = served.map(|served| (name.clone(), served.name.clone()));
        let height = self.world.height();
        if let Some(known) = known {
            self.known_since.entry(known).or_insert(height);
        }
        let (id, source) = (incoming.channel, PreimageSource::Linked(incoming.htlc));
        let preimage = Preimage(settled.preimage);
        self.command(|arbiter| async move { arbiter.preimage(id, preimage, source).await }).await
    }

    /// Tells the arbiter what the node has learned since the last time.
    async fn tell(&mut self, name: &ChannelName, keep: Keep) -> Result<(), Failed> {
        let updates = self.chan_mut(name)?.take_updates(keep)?;
        self.send(name, updates).await
    }

    /// Hands updates over, one commitment of the peer at a time, so that each part may be told
    /// again after a crash; a very long history goes in larger parts.
    pub(super) async fn send(
        &mut self,
        name: &ChannelName,
        updates: Vec<Update>,
    ) -> Result<(), Failed> {
        let chan = self.chan_mut(name)?;
        let number = chan.peer.remote_number().max(chan.peer.local_number());
        chan.told.push((number, updates.clone()));
        self.chan_mut(name)?.unsent.extend(parts(updates));
        self.send_on(name).await
    }

    /// Hands over what waits. Facts that a full disk refuses are told again when there is room: the
    /// node does not go on with the peer before.
    pub(super) async fn send_on(&mut self, name: &ChannelName) -> Result<(), Failed> {
        let id = self.chan(name)?.id;
        while let Some(part) = self.chan(name)?.unsent.first().cloned() {
            let sent = self.try_command(|arbiter| {
                let part = part.clone();
                async move { arbiter.update_channel(id, part).await }
            });
            match sent.await? {
                Ok(_) => advance(&mut self.chan_mut(name)?.numbers, &part),
                Err(CommandError::UnknownChannel(_)) if self.chan(name)?.forgotten => {}
                Err(CommandError::NotStored(_)) if self.disk_is_full => return Ok(()),
                Err(error) => return Err(super::node::refused(error)),
            }
            self.chan_mut(name)?.unsent.remove(0);
        }
        Ok(())
    }

    /// The arbiter loses what it was told since commitment `number`; the node does not.
    async fn forget_since(&mut self, name: &ChannelName, number: u64) -> Result<(), Failed> {
        self.node.stop().await;
        self.node.plan.set_paused(true);
        let forgotten = self.older_store(name, number).await;
        self.node.plan.set_paused(false);
        forgotten?;
        self.chan_mut(name)?.lost = true;
        self.store_is_new = true;
        self.start_again().await?;
        let names: Vec<ChannelName> = self.channels.keys().cloned().collect();
        for name in names {
            self.tell_preimages(&name).await?;
        }
        Ok(())
    }

    /// Makes a store with facts of commitment `number`, and leaves it closed. It is as old as the
    /// story, and catches up with the chain afterwards.
    async fn older_store(&mut self, name: &ChannelName, number: u64) -> Result<(), Failed> {
        self.node.replace_store();
        // Until it has its old facts back nobody tells it that they are old.
        self.node.start_at(&self.world, Vec::new(), Some(self.began)).await?;
        self.idle().await?;
        let names: Vec<ChannelName> = self.channels.keys().cloned().collect();
        for known in names {
            let first = self.chan(&known)?.first.clone();
            self.command(|arbiter| {
                let first = first.clone();
                async move { arbiter.watch_channel(first).await }
            })
            .await?;
            if known == *name {
                let told = self.told_until(&known, number)?;
                self.chan_mut(&known)?.told = told;
            }
            let chan = self.chan(&known)?;
            let id = chan.id;
            let updates = chan.told.iter().flat_map(|(_, updates)| updates.clone()).collect();
            for part in parts(updates) {
                self.command(|arbiter| {
                    let part = part.clone();
                    async move { arbiter.update_channel(id, part).await }
                })
                .await?;
            }
        }
        self.idle().await?;
        self.node.stop().await;
        Ok(())
    }

    /// What leads to commitment `until` of both sides, and no further.
    fn told_until(&self, name: &ChannelName, until: u64) -> Result<Vec<ToldAt>, Failed> {
        let chan = self.chan(name)?;
        let mut told = Vec::new();
        for (number, batch) in chan.told.iter().cloned() {
            if number <= until {
                told.push((number, batch));
                continue;
            }
            let kept = |update: &Update| match update {
                Update::RemoteCommitment { commitment, .. } => commitment.number.0 <= until,
                Update::RemoteRevoked { number, .. } => number.0 < until,
                Update::LocalCommitment { commitment, .. } => commitment.number.0 <= until,
                Update::HtlcAdded { .. }
                | Update::HtlcLinked { .. }
                | Update::RemoteWithdrawn { .. }
                | Update::Shutdown(_)
                | Update::CandidateAdded { .. }
                | Update::CandidateLocked { .. }
                | Update::CandidateDiscarded { .. }
                | Update::HtlcsEnded(_)
                | Update::Preimage { .. }
                | Update::Signals(_) => false,
            };
            let before: Vec<Update> =
                told.iter().flat_map(|(_, updates): &ToldAt| updates.clone()).collect();
            let mut updates: Vec<Update> = batch.into_iter().filter(kept).collect();
            // A long history states only its last local commitment.
            for funding in moving(chan.funding, &[before, updates.clone()].concat()) {
                let scope = chan.fundings().position(|known| known == funding).unwrap_or(0);
                let commitment = local_commitment(&chan.on(scope)?.local_facts(until)?);
                updates.push(Update::LocalCommitment { funding, commitment });
            }
            told.push((until, updates));
            break;
        }
        Ok(told)
    }
}

/// The funding outputs whose commitments go on after these updates.
fn moving(first: OutPoint, updates: &[Update]) -> Vec<OutPoint> {
    let mut fundings = vec![first];
    for update in updates {
        match update {
            Update::CandidateAdded { candidate, .. } => fundings.push(candidate.funding),
            Update::CandidateLocked { funding } => fundings = vec![*funding],
            Update::CandidateDiscarded { funding } => fundings.retain(|known| known != funding),
            Update::HtlcAdded { .. }
            | Update::HtlcLinked { .. }
            | Update::RemoteCommitment { .. }
            | Update::RemoteWithdrawn { .. }
            | Update::RemoteRevoked { .. }
            | Update::LocalCommitment { .. }
            | Update::Shutdown(_)
            | Update::HtlcsEnded(_)
            | Update::Preimage { .. }
            | Update::Signals(_) => {}
        }
    }
    fundings
}

/// The numbers that the node has after these updates.
fn advance(numbers: &mut (u64, u64), updates: &[Update]) {
    for update in updates {
        match update {
            Update::LocalCommitment { commitment, .. } => {
                numbers.0 = numbers.0.max(commitment.number.0);
            }
            Update::RemoteRevoked { number, .. } => numbers.1 = numbers.1.max(number.0 + 1),
            Update::HtlcAdded { .. }
            | Update::HtlcLinked { .. }
            | Update::RemoteCommitment { .. }
            | Update::RemoteWithdrawn { .. }
            | Update::Shutdown(_)
            | Update::CandidateAdded { .. }
            | Update::CandidateLocked { .. }
            | Update::CandidateDiscarded { .. }
            | Update::HtlcsEnded(_)
            | Update::Preimage { .. }
            | Update::Signals(_) => {}
        }
    }
}

/// Parts that end with a revocation, or are long.
fn parts(updates: Vec<Update>) -> Vec<Vec<Update>> {
    /// Updates in a part of a long history, and twice as many are a long history.
    const LONG: usize = 1_000;
    let many = updates.len() > 2 * LONG;
    let mut parts = Vec::new();
    let mut part = Vec::new();
    for update in updates {
        let ends = matches!(update, Update::RemoteRevoked { .. });
        part.push(update);
        if (ends && !many) || part.len() >= LONG {
            parts.push(std::mem::take(&mut part));
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}
