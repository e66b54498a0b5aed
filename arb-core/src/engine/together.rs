//! What all closing channels together are to sign and publish, where the policy lets them share
//! transactions.
use crate::arbitrator::{Acts, Effect, HandedOut};
use crate::claim::plan::{self, Step};
use crate::claim::{Claim, Part};
use crate::engine::stage::Next;
use crate::engine::{Active, ChainArbitrator};
use crate::ids::Slot;
use crate::policy::Joining;
use crate::units::BlockHeight;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::{OutPoint, Txid};

/// A plan of all channels, by the channel of each transaction's first claim.
#[derive(Debug, Default)]
pub(super) struct Together {
    steps: BTreeMap<Slot, Vec<Step>>,
    leads: BTreeMap<Slot, BTreeSet<OutPoint>>,
}

impl ChainArbitrator {
    /// Every claim of a channel that is to be made now or later.
    pub(super) fn claims_of(&self, slot: Slot, active: &Active) -> Vec<Claim> {
        let now = self.now(slot, &active.facts);
        let desire = active.state.desired_by(&active.facts, active.picture.as_deref(), &now);
        let claims = desire.into_values().filter_map(|effect| match effect {
            Effect::Claim(claim) => Some(*claim),
            Effect::LoadRevokedHtlcs(_)
            | Effect::JudgeScripts(_)
            | Effect::AskPoint(_)
            | Effect::Notify(_)
            | Effect::Forget => None,
        });
        claims.collect()
    }

    /// What is to be signed and published for a channel with these claims.
    pub(super) fn steps_of(&self, slot: Slot, active: &Active, claims: &[Claim]) -> Vec<Step> {
        match (self.policy.joining, &self.together) {
            (Joining::Never, _) => {
                plan::plan(claims, active.state.acts(), self.height(), &self.estimates)
            }
            (Joining::Allowed, Some(kept)) => kept.steps.get(&slot).cloned().unwrap_or_default(),
            (Joining::Allowed, None) => {
                self.plan_together(&mut |_| ()).steps.remove(&slot).unwrap_or_default()
            }
        }
    }

    /// Outputs of a channel whose claims stand first in a transaction.
    pub(super) fn leads_of(&self, slot: Slot, active: &Active) -> BTreeSet<OutPoint> {
        match (self.policy.joining, &self.together) {
            (Joining::Never, _) => {
                let (claims, acts) = (&self.claims_of(slot, active), active.state.acts());
                let part = Part { claims, acts, joining: Joining::Never };
                let leads = plan::leads(&[part], self.height(), &self.estimates);
                leads.into_iter().map(|(_, outpoint)| outpoint).collect()
            }
            (Joining::Allowed, Some(kept)) => kept.leads.get(&slot).cloned().unwrap_or_default(),
            (Joining::Allowed, None) => {
                self.plan_together(&mut |_| ()).leads.remove(&slot).unwrap_or_default()
            }
        }
    }

    /// The channels in whose logs a transaction of ours is, the given one first.
    #[must_use]
    pub fn owners_of(&self, slot: Slot, txid: Txid) -> Vec<Slot> {
        let ours = self.active.get(&slot).and_then(|active| active.state.acts.ours(txid));
        let others = ours.map(|out| out.others.as_slice()).unwrap_or_default();
        let others = others.iter().flat_map(|claim| self.watchers.watching(*claim));
        let others: BTreeSet<Slot> = others.filter(|other| *other != slot).collect();
        core::iter::once(slot).chain(others).collect()
    }

    /// Transactions of ours for claims that stood in one transaction with those of this one. In the mempool it
    /// is in the way of all of them, until one that pays for it is accepted.
    #[must_use]
    pub fn taken_apart_with(&self, slot: Slot, txid: Txid) -> BTreeSet<Txid> {
        let log = |slot: Slot| {
            let acts = self.active.get(&slot).map(|active| active.state.acts());
            acts.into_iter().flat_map(|acts| &acts.handed_out)
        };
        let Some(ours) = log(slot).find(|out| out.txid() == txid) else { return BTreeSet::new() };
        let own: BTreeSet<OutPoint> = ours.all_claims().collect();
        let is_own = |claim| own.contains(&claim);
        let before = log(slot).take_while(|out| out.txid() != txid);
        let wholes =
            before.filter(|out| out.all_claims().any(is_own) && !out.all_claims().all(is_own));
        let mut apart = BTreeSet::new();
        for whole in wholes {
            let left: BTreeSet<OutPoint> =
                whole.all_claims().filter(|claim| !is_own(*claim)).collect();
            let txs = self.owners_of(slot, whole.txid()).into_iter().flat_map(log);
            let txs = txs.filter(|out| out.all_claims().any(|claim| left.contains(&claim)));
            apart.extend(txs.filter(|out| !out.all_claims().any(is_own)).map(HandedOut::txid));
        }
        apart
    }

    /// A channel's claims are made without those of others from now on, even where they may be joined:
    /// what holds them up must not hold up the others. The log knows nothing of it. Gives whether that
    /// is new; then the tasks of all active channels may be.
    pub fn stand_alone(&mut self, slot: Slot) -> bool {
        let joined = self.policy.joining == Joining::Allowed && self.active.contains_key(&slot);
        let is_new = joined && self.alone.insert(slot);
        if is_new {
            self.forget_plan();
        }
        is_new
    }

    /// The opposite, as of the next plan.
    pub fn join_again(&mut self, slot: Slot) {
        self.alone.remove(&slot);
    }

    /// The plan is made anew when it is next asked for.
    pub(super) fn forget_plan(&mut self) {
        self.together = None;
    }

    /// Makes the plan of all channels, if they are planned together and there is none: whoever asks for
    /// the tasks of several channels makes it first. `at` is told of each channel before it is looked at,
    /// and `None` after the last.
    pub fn plan(&mut self, at: &mut dyn FnMut(Option<Slot>)) {
        if self.policy.joining == Joining::Allowed && self.together.is_none() {
            self.together = Some(self.plan_together(at));
        }
    }

    /// Whether the plan of all channels must be made anew once these have changed.
    pub(super) fn stirs_plan(&self, next: &BTreeMap<Slot, Next>) -> bool {
        let joined = self.policy.joining == Joining::Allowed;
        joined && (self.together.is_none() || next.iter().any(|(slot, n)| self.stirs(*slot, n)))
    }

    fn stirs(&self, slot: Slot, next: &Next) -> bool {
        match (self.active.get(&slot), next) {
            (Some(before), Next::Active(after)) => !is_alike(before, after),
            (None, Next::Quiet(_) | Next::Forgotten) => false,
            (None, Next::Active(_)) | (Some(_), Next::Quiet(_) | Next::Forgotten) => true,
        }
    }

    fn plan_together(&self, at: &mut dyn FnMut(Option<Slot>)) -> Together {
        let claims = self.active.iter().map(|(slot, active)| {
            at(Some(*slot));
            let claims = self.claims_of(*slot, active);
            (active.facts.id, *slot, claims, active.state.acts())
        });
        let claims: Vec<_> = claims.filter(|(_, _, claims, _)| !claims.is_empty()).collect();
        at(None);
        let slots: BTreeMap<_, _> = claims.iter().map(|(id, slot, ..)| (*id, *slot)).collect();
        // Who has told of a channel twice has it claimed twice, each by itself.
        let mut taken: BTreeSet<OutPoint> = BTreeSet::new();
        let (mut all, mut alone) = (Vec::new(), Vec::new());
        for (_, slot, claims, acts) in &claims {
            let joined = !self.alone.contains(slot);
            let joining = if joined { self.policy.joining } else { Joining::Never };
            let part = Part { claims, acts, joining };
            if claims.iter().any(|claim| taken.contains(&claim.outpoint)) {
                alone.push(vec![part]);
            } else {
                taken.extend(claims.iter().map(|claim| claim.outpoint));
                all.push(part);
            }
        }
        let (tip, estimates) = (self.height(), &self.estimates);
        let mut together = Together::default();
        for parts in core::iter::once(all).chain(alone) {
            for (channel, step) in plan::plan_together(&parts, tip, estimates) {
                let Some(slot) = slots.get(&channel) else { continue };
                together.steps.entry(*slot).or_default().push(step);
            }
            for (channel, lead) in plan::leads(&parts, tip, estimates) {
                let Some(slot) = slots.get(&channel) else { continue };
                together.leads.entry(*slot).or_default().insert(lead);
            }
        }
        together
    }
}

/// What was handed out last: one that is signed again takes that place.
fn newest(acts: &Acts) -> Option<(Txid, BlockHeight)> {
    acts.handed_out.last().map(|out| (out.txid(), out.at))
}

/// Whether a channel's claims, and what was done about them, are as they were.
fn is_alike(before: &Active, after: &Active) -> bool {
    let same_picture = match (&before.picture, &after.picture) {
        (Some(before), Some(after)) => Arc::ptr_eq(before, after),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    let (one, two) = (&before.state.acts, &after.state.acts);
    // Preimages and intent decide what an unspent funding output stands for.
    same_picture
        && Arc::ptr_eq(&before.facts, &after.facts)
        && before.state.intent == after.state.intent
        && before.state.preimages.len() == after.state.preimages.len()
        && one.handed_out.len() == two.handed_out.len()
        && newest(one) == newest(two)
        && one.rejected == two.rejected
        && one.unheard == two.unheard
        && one.contested == two.contested
        && one.set_aside == two.set_aside
        && one.bumps == two.bumps
        && one.deadlines == two.deadlines
        && one.budgets == two.budgets
        && one.destinations == two.destinations
        && one.seen == two.seen
}
