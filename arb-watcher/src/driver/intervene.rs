//! Manual intervention: failing, bumping, telling a preimage or a mutual close. What would lose money
//! is refused, with the reason.
use super::{Around, Driver};
use crate::bump::{BumpGoal, BumpTarget};
use crate::command::{CommandError, Reply};
use arb_core::arbitrator::{FailReason, Input, PreimageSource, TxKind};
use arb_core::claim::Claim;
use arb_core::classify;
use arb_core::engine::{Active, EngineInput};
use arb_core::facts::Standing;
use arb_core::format::scripts;
use arb_core::ids::{ChannelId, Preimage, Slot};
use arb_core::units::BlockHeight;
use bitcoin::{Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};

/// Who waits for a commitment to be on its way, and which commitments are.
#[derive(Default)]
pub(super) struct Failing {
    waiting: BTreeMap<Slot, Vec<Waiting>>,
    /// Channels that somebody waits for, and that something has happened to.
    stirred: BTreeSet<Slot>,
    /// The last commitment of each channel that the broadcaster has answered for in this run.
    handed_over: BTreeMap<Slot, Txid>,
}

struct Waiting {
    id: ChannelId,
    reply: Reply<Box<Transaction>>,
}

impl Failing {
    pub(super) fn len(&self) -> usize {
        self.waiting.values().map(Vec::len).sum()
    }

    /// Forgets callers that are gone.
    pub(super) fn tidy(&mut self) {
        self.waiting.retain(|_, waiting| {
            waiting.retain(|one| !one.reply.is_closed());
            !waiting.is_empty()
        });
    }

    fn push(&mut self, slot: Slot, waiting: Waiting) {
        let of = self.waiting.entry(slot).or_default();
        of.retain(|one| !one.reply.is_closed());
        of.push(waiting);
        self.stirred.insert(slot);
    }

    /// Something has happened to a channel: whoever waits for it may be answered.
    pub(super) fn stir(&mut self, slot: Slot) {
        if self.waiting.contains_key(&slot) {
            self.stirred.insert(slot);
        }
    }

    /// Something has happened to all.
    pub(super) fn stir_all(&mut self) {
        self.tidy();
        self.stirred.extend(self.waiting.keys());
    }

    /// Those who may be answered.
    fn take_stirred(&mut self) -> Vec<(Slot, Waiting)> {
        let stirred = std::mem::take(&mut self.stirred);
        let of =
            |slot| self.waiting.remove(&slot).into_iter().flatten().map(move |one| (slot, one));
        stirred.into_iter().flat_map(of).collect()
    }

    pub(super) fn forgotten(&mut self, slot: Slot) {
        self.handed_over.remove(&slot);
        self.stir(slot);
    }
}

/// A commitment of ours that was handed out: of several candidates, there is one for each.
fn commitment(active: &Active, txid: Txid) -> Option<&Transaction> {
    let ours = active.state.acts().ours(txid)?;
    (ours.kind == TxKind::Commitment).then_some(&ours.transaction)
}

impl<A: Around> Driver<A> {
    /// Fails a channel; answered once its commitment is in the log and was handed to the network.
    pub(super) async fn fail(&mut self, id: ChannelId, reply: Reply<Box<Transaction>>) {
        let slot = match self.start_failing(id).await {
            Ok(slot) => slot,
            Err(why) => return reply.send(Err(why)),
        };
        self.failing.push(slot, Waiting { id, reply });
        self.answer_failing();
    }

    async fn start_failing(&mut self, id: ChannelId) -> Result<Slot, CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        match self.failed(id, slot) {
            // What is wanted is noted all the same: the mutual close may not confirm.
            None | Some(Err(CommandError::ClosesMutually(_))) => {}
            Some(known) => return known.map(|_| slot),
        }
        let facts = self.readable(slot)?;
        if self.engine.standing(slot, &facts) == Standing::Outdated {
            return Err(CommandError::Outdated(id));
        }
        self.input_for(id, Input::Fail(FailReason::Requested)).await?;
        Ok(slot)
    }

    /// What asking to fail the channel has come to; `None` while the commitment is not on its way.
    fn failed(&self, id: ChannelId, slot: Slot) -> Option<Result<Transaction, CommandError>> {
        if self.engine.slot(&id) != Some(slot) {
            return Some(Err(self.unknown(id)));
        }
        let active = self.engine.active(slot)?;
        if let Some(close) = &active.picture {
            let ours = commitment(active, close.txid).cloned();
            return Some(ours.ok_or(CommandError::Closed(id)));
        }
        // The node may have learned meanwhile that its facts are older than it thought.
        if self.engine.standing(slot, &active.facts) == Standing::Outdated {
            return Some(Err(CommandError::Outdated(id)));
        }
        if self.engine.is_held_back(slot) {
            return Some(Err(CommandError::ClosesMutually(id)));
        }
        let sent = self.failing.handed_over.get(&slot)?;
        commitment(active, *sent).cloned().map(Ok)
    }

    /// The broadcaster has answered for these transactions of a channel.
    pub(super) fn handed_over(&mut self, slot: Slot, txids: impl IntoIterator<Item = Txid>) {
        let Some(active) = self.engine.active(slot) else { return };
        let sent = txids.into_iter().find(|txid| commitment(active, *txid).is_some());
        self.failing.handed_over.extend(sent.map(|txid| (slot, txid)));
        self.failing.stir(slot);
    }

    pub(super) fn answer_failing(&mut self) {
        for (slot, waiting) in self.failing.take_stirred() {
            match self.failed(waiting.id, slot) {
                Some(answer) => waiting.reply.send(answer.map(Box::new)),
                None if waiting.reply.is_closed() => {}
                None => self.failing.waiting.entry(slot).or_default().push(waiting),
            }
        }
    }

    /// Tells a preimage to a channel that has an HTLC for it.
    pub(super) fn wanted(
        &mut self,
        id: ChannelId,
        preimage: Preimage,
        source: PreimageSource,
    ) -> Result<Slot, CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let (facts, hash) = (self.readable(slot)?, preimage.hash());
        if !source.is_wanted(hash, &facts) {
            return Err(CommandError::UnknownHash(hash));
        }
        Ok(slot)
    }

    /// Takes the node's word that a transaction is an agreed mutual close.
    pub(super) async fn closed_cooperatively(
        &mut self,
        id: ChannelId,
        txid: Txid,
    ) -> Result<(), CommandError> {
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let facts = self.readable(slot)?;
        let no_mutual_close = self.of_channel(slot, |driver| {
            let state = driver.engine.active(slot).map(|active| active.state.clone());
            classify::is_no_mutual_close(&facts, &state.unwrap_or_default(), txid)
        })?;
        if no_mutual_close {
            return Err(CommandError::NotMutual(txid));
        }
        self.input_for(id, Input::MutualCloseAgreed(txid)).await
    }

    pub(super) async fn bump(
        &mut self,
        target: BumpTarget,
        goal: BumpGoal,
    ) -> Result<(), CommandError> {
        let (id, outpoint) = (target.channel(), target.outpoint());
        let slot = self.engine.slot(&id).ok_or_else(|| self.unknown(id))?;
        let claims = self.of_channel(slot, |driver| {
            driver.engine.active(slot).map_or_else(Vec::new, |active| {
                let now = driver.engine.now(slot, &active.facts);
                active.state.own_claims(&active.facts, active.picture.as_deref(), &now)
            })
        })?;
        let concerned = |claim: &&Claim| outpoint.is_none_or(|of| of == claim.outpoint);
        let (ours, fixed): (Vec<&Claim>, Vec<&Claim>) =
            claims.iter().filter(concerned).partition(|claim| claim.path.is_priced_by_us());
        let hurries = matches!(goal, BumpGoal::FeeRate(_) | BumpGoal::Deadline(_));
        match outpoint {
            Some(outpoint) if ours.is_empty() && fixed.is_empty() => {
                return Err(CommandError::NothingToClaim(outpoint));
            }
            Some(outpoint) if ours.is_empty() && hurries => {
                return Err(CommandError::FeeIsFixed(outpoint));
            }
            None if ours.is_empty() && hurries => return Err(CommandError::NothingToBump(id)),
            Some(_) | None => {}
        }
        // What can be claimed now, or later if nothing can. What opens afterwards pays its own price.
        let tip = self.engine.height();
        let some_open = ours.iter().any(|claim| claim.open_at <= tip);
        let meant: Vec<&Claim> =
            ours.into_iter().filter(|claim| claim.open_at <= tip || !some_open).collect();
        let inputs: Vec<Input> = match goal {
            BumpGoal::FeeRate(feerate) => {
                let floor = self.engine.estimates().floor;
                if feerate < floor {
                    return Err(CommandError::BelowFloor { asked: feerate, floor });
                }
                let sat_per_kwu = feerate.to_sat_per_kwu();
                let bump =
                    |claim: &Claim| Input::Bump { outpoint: Some(claim.outpoint), sat_per_kwu };
                meant.into_iter().map(bump).collect()
            }
            BumpGoal::Deadline(deadline) => {
                self.check_deadline(deadline, &meant)?;
                let hurry =
                    |claim: &Claim| Input::Hurry { outpoint: Some(claim.outpoint), deadline };
                meant.into_iter().map(hurry).collect()
            }
            BumpGoal::Budget(budget) => vec![Input::Budget { outpoint, budget }],
            BumpGoal::Destination(script) => {
                if !scripts::is_wallet_script(&script) {
                    return Err(CommandError::NoDestination(script));
                }
                vec![Input::Destination { outpoint, script }]
            }
        };
        let input = |input| EngineInput::Channel { slot, input: Box::new(input) };
        self.try_step(inputs.into_iter().map(input).collect()).await
    }

    /// A deadline is to come, not before what it is for, and earlier than one that is there.
    fn check_deadline(&self, asked: BlockHeight, claims: &[&Claim]) -> Result<(), CommandError> {
        let tip = self.engine.height();
        if asked <= tip {
            return Err(CommandError::PastDeadline { asked, tip });
        }
        let opens = claims.iter().map(|claim| claim.open_at).min();
        if let Some(opens) = opens.filter(|opens| *opens >= asked) {
            return Err(CommandError::OpensLater { asked, opens });
        }
        match claims.iter().filter_map(|claim| claim.due()).min() {
            Some(own) if asked > own => Err(CommandError::LaterDeadline { asked, own }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    /// However many wait, what happens to one channel makes the driver look at those who wait for it alone.
    #[test]
    fn only_who_waits_for_a_channel_that_something_happened_to_is_looked_at() {
        let mut failing = Failing::default();
        let mut callers = Vec::new();
        for n in (0..1_000).map(Slot) {
            let (answer, caller) = oneshot::channel();
            failing.push(n, Waiting { id: ChannelId([1; 32]), reply: Reply::new(answer) });
            callers.push(caller);
        }
        for (slot, one) in failing.take_stirred() {
            failing.waiting.entry(slot).or_default().push(one);
        }
        assert_eq!((failing.take_stirred().len(), failing.len()), (0, 1_000));
        failing.stir(Slot(7));
        failing.stir(Slot(1_007));
        let slots: Vec<Slot> = failing.take_stirred().iter().map(|(slot, _)| *slot).collect();
        assert_eq!(slots, [Slot(7)]);
        callers.truncate(10);
        failing.stir_all();
        assert_eq!(failing.take_stirred().len(), 9, "who is gone is forgotten");
        assert_eq!(failing.len(), 0);
    }
}
