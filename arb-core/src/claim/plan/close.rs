//! What it may cost to have a commitment confirmed.
use super::{ANCHOR_BUDGET, Over, Planner, half};
use crate::claim::build::Draft;
use crate::claim::fee::{self, Hurry};
use crate::claim::{Claim, Deadline};
use crate::units::BlockHeight;
use bitcoin::{Amount, FeeRate, Txid, Weight};

/// What a transaction may cost, the child of a commitment above all.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseBudget {
    /// Before its coins are known.
    pub(super) budget: Amount,
    /// With them, as long as no more than `rate` is to be paid: what a deadline adds stays within the other.
    pub(super) with_coins: Amount,
    /// What the network or the operator asks for.
    pub(super) rate: FeeRate,
}

impl CloseBudget {
    /// The same whatever its coins.
    pub(super) fn of(budget: Amount) -> Self {
        Self { budget, with_coins: budget, rate: FeeRate::ZERO }
    }

    /// What it is if so much is to be paid.
    pub(super) fn at(&self, feerate: FeeRate) -> Amount {
        if feerate <= self.rate { self.with_coins } else { self.budget }
    }

    pub(super) fn at_least(self, amount: Amount) -> Self {
        let Self { budget, with_coins, rate } = self;
        Self { budget: budget.max(amount), with_coins: with_coins.max(amount), rate }
    }
}

impl Planner<'_> {
    /// The child that pays for a commitment, if the commitment's own feerate is too low. `lost`: by each
    /// deadline of its own, whatever the operator wants.
    pub(super) fn anchor(
        &self,
        claim: &Claim,
        (commitment, ours): (Txid, Amount),
        lost: &[(BlockHeight, Amount)],
    ) -> Option<Draft> {
        let parent = self.past.parent(claim, commitment)?;
        let mut draft = Draft::new(claim.clone());
        draft.parent = Some(parent);
        // The other half is for the HTLC transactions; and little is paid to save little. The peer's commitment, which pays
        // for itself, is hurried for what its deadline puts at risk, not for our balance.
        let is_due = !lost.is_empty() || matches!(claim.deadline, Some(Deadline::Race(_)));
        let is_hurried = is_due && self.past.ours(commitment).is_none();
        let idle = if is_hurried { Amount::ZERO } else { ANCHOR_BUDGET.min(half(ours)) };
        let risk = half(claim.value_at_risk).max(idle);
        let close = match self.past.budget(claim) {
            Some(budget) => CloseBudget::of(budget),
            None => self.close_budget(&draft, commitment, ours).at_least(risk),
        };
        // Without its parent no child is accepted, whatever its coins.
        let stands = self.past.ours(commitment).is_none_or(|parent| !parent.is_suspect(self.tip));
        let over = |current| {
            let anew = self.anew(current).filter(|_| stands);
            anew.unwrap_or(Over::Same(current))
        };
        self.priced(draft, close, self.current(claim).map_or(Over::Nothing, over)).ok()
    }

    /// What the child of a commitment may cost, whatever is at risk. A commitment does not wait for
    /// ever: what the network asks for, as far as that is within a share of what is ours, which grows
    /// to a half in a day. And what the operator asks for, up to all that is ours in it.
    pub(super) fn close_budget(
        &self,
        draft: &Draft,
        commitment: Txid,
        ours: Amount,
    ) -> CloseBudget {
        let (own, parent) = (draft.weight(), draft.parent.unwrap_or_default());
        let weight = own.checked_add(parent.weight).unwrap_or(Weight::MAX);
        let child = |rate| {
            let whole = fee::fee_of(rate, weight).checked_sub(parent.fee).unwrap_or(Amount::ZERO);
            // By itself it must be worth relaying, too.
            whole.max(fee::relay_fee(self.estimates.floor, own))
        };
        let handed_out = self.past.ours(commitment).map(|out| out.handed_out);
        let since = handed_out.map(|out| out.at.until(self.tip).0);
        let waited = since.unwrap_or_else(|| self.waited(draft)).min(fee::PATIENT);
        let half = ours.to_sat() >> 1;
        let grown = half.saturating_mul(waited.into()).checked_div(fee::PATIENT.into());
        let left = Hurry::Commitment(waited).left().unwrap_or(fee::PATIENT);
        let market = self.estimates.within(left).max(self.estimates.floor);
        let asked = self.asked(draft);
        let grown = Amount::from_sat(grown.unwrap_or(0));
        let close =
            CloseBudget { budget: child(market).min(grown), with_coins: grown, rate: market };
        match asked {
            None => close,
            Some(asked) => CloseBudget {
                budget: close.budget.max(child(asked).min(ours)),
                with_coins: grown.max(ours),
                rate: market.max(asked),
            },
        }
    }
}
