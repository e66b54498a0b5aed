//! Which claims of a group go into a transaction, and which of them pay for it where one is taken apart.
use super::{CloseBudget, Over, Planner, Undrafted, draft_of};
use crate::arbitrator::Refusal;
use crate::claim::Claim;
use crate::claim::build::Draft;
use crate::claim::fee;
use crate::claim::group;
use crate::claim::past::Out;
use crate::ids::ChannelId;
use crate::units;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Weight};
use core::cmp::Reverse;

/// In whose name a transaction for these claims has its coins.
fn lead_of(claims: &[&Claim]) -> Option<(ChannelId, OutPoint)> {
    claims.first().map(|claim| (claim.channel, claim.outpoint))
}

impl Planner<'_> {
    /// Whatever takes one of a transaction's inputs must pay for all that it pushes out of the mempool. The
    /// most valuable part does, of those that nothing stands in the way of, or, where it cannot, the fewest of the most
    /// valuable that together can; the others follow when it is in the log.
    pub(super) fn heir(&self, out: &Out<'_>, parts: &[Vec<&Claim>]) -> Option<Draft> {
        let worth = |part: &&Vec<&Claim>| {
            let value = units::total(part.iter().map(|claim| claim.output.value));
            Reverse((part.iter().all(|claim| self.past.is_joined(claim)), value))
        };
        let all = parts.len();
        let lead = parts.iter().flatten().map(|claim| (claim.channel, claim.outpoint));
        let lead = lead.min_by_key(|(_, outpoint)| *outpoint);
        let mut parts: Vec<&Vec<&Claim>> = parts.iter().collect();
        parts.sort_by_key(worth);
        let first = parts.first()?.first()?;
        // What does not go into one transaction with the most valuable cannot help it.
        let goes = |claim: &&Claim| group::key(claim, self.past) == group::key(first, self.past);
        parts.retain(|part| part.first().is_some_and(goes));
        let mut count = 1;
        // All of them together are what is there already.
        while count <= parts.len() && (count < all || all == 1) {
            let mut claims: Vec<&Claim> =
                parts.iter().take(count).copied().flatten().copied().collect();
            claims.sort_by_key(|claim| claim.outpoint);
            if let Some(mut draft) = self.draft(&claims, Over::More(out)).filter(Draft::fits) {
                // What it pushes out needs its coins no more.
                draft.coins_as = lead.unwrap_or(draft.coins_as);
                return Some(draft);
            }
            count = count.saturating_mul(2);
        }
        None
    }

    /// What it takes to replace what may be in a mempool: the newest that was made of each of a draft's claims, and not
    /// refused.
    pub(super) fn over_older(&self, draft: &Draft, weight: Weight) -> Option<Amount> {
        let older = draft.claims().filter_map(|claim| {
            let mut outs = self.past.claims_of(claim.outpoint).rev();
            outs.find(|out| out.refusal(self.tip).is_none() && !self.is_nowhere(out, draft))
        });
        older.map(|out| fee::replacement_fee(out.handed_out.fee, weight)).max()
    }

    /// All claims of a transaction again, at a better price, where none of its parts can pay for taking it apart: what is to go
    /// elsewhere does not hold up the others, and goes where it went.
    pub(super) fn as_it_was(&self, out: &Out<'_>, claims: &[&Claim]) -> Option<Draft> {
        let mut draft = draft_of(claims)?;
        if let [output] = out.handed_out.transaction.output.as_slice()
            && !draft.wants_coins()
        {
            for claim in core::iter::once(&mut draft.claim).chain(&mut draft.others) {
                claim.destination = output.script_pubkey.clone();
            }
        }
        let budget = self.budget(&draft);
        self.priced(draft, CloseBudget::of(budget), Over::Same(out)).ok()
    }

    /// A new group, and each claim by itself that costs the group more than it brings today.
    pub(super) fn worth_it_now<'c>(&self, claims: &[&'c Claim]) -> Vec<Vec<&'c Claim>> {
        self.worth_it(claims, |draft| self.todays(draft))
    }

    /// The same at another price.
    pub(super) fn worth_it<'c>(
        &self,
        claims: &[&'c Claim],
        price: impl Fn(&Draft) -> Option<FeeRate>,
    ) -> Vec<Vec<&'c Claim>> {
        let (worth, poor) = self.parted(claims, price);
        let mut parts: Vec<Vec<&Claim>> = poor.into_iter().map(|claim| vec![claim]).collect();
        if !worth.is_empty() {
            parts.push(worth);
        }
        // Nothing is made for what only comes along.
        parts.retain(|part| part.iter().any(|claim| claim.value_at_risk > Amount::ZERO));
        parts
    }

    /// What takes the place of a transaction for these claims, if its price has moved enough: one for all of them, or,
    /// where some cost more than they bring by now, one without these.
    pub(super) fn next(&self, out: &Out<'_>, claims: &[&Claim]) -> Option<Draft> {
        let (worth, poor) = self.parted(claims, |draft| self.todays(draft));
        if worth.is_empty() || poor.is_empty() {
            return self.draft(claims, Over::Same(out));
        }
        let is_absent = out.refusal(self.tip) == Some(Refusal::Fee);
        let over = if is_absent { Over::Absent(out) } else { Over::Same(out) };
        match self.try_draft(&worth, over) {
            Ok(mut without) => {
                without.coins_as = lead_of(claims)?;
                Some(without)
            }
            // For the sake of those nothing is raised.
            Err(Undrafted::Waits) => None,
            // All of them together can.
            Err(Undrafted::CannotPay) => self.draft(claims, Over::Same(out)),
        }
    }

    /// What a draft without coins would pay today.
    fn todays(&self, draft: &Draft) -> Option<FeeRate> {
        self.price(draft, draft.weight(), self.pooled(draft)).feerate()
    }

    /// Claims that bring more than they cost at such a price for all of these, and those that do not. Where the
    /// operator has said what one may cost, its equal part is what it costs.
    fn parted<'c>(
        &self,
        claims: &[&'c Claim],
        price: impl Fn(&Draft) -> Option<FeeRate>,
    ) -> (Vec<&'c Claim>, Vec<&'c Claim>) {
        let (mut worth, mut poor) = (claims.to_vec(), Vec::new());
        // Each that leaves makes it dearer for those that stay.
        while let Some(draft) = draft_of(&worth) {
            let (stay, leave) = self.parted_at_once(price(&draft), draft.weight(), &worth);
            worth = stay;
            if leave.is_empty() {
                break;
            }
            poor.extend(leave);
        }
        (worth, poor)
    }

    fn parted_at_once<'c>(
        &self,
        rate: Option<FeeRate>,
        weight: Weight,
        claims: &[&'c Claim],
    ) -> (Vec<&'c Claim>, Vec<&'c Claim>) {
        let count = u64::try_from(claims.len()).unwrap_or(u64::MAX);
        let part = |all: Amount| all.to_sat().checked_div(count).map(Amount::from_sat);
        let by = |rate: FeeRate| -> (Vec<&'c Claim>, Vec<&'c Claim>) {
            let each = part(fee::fee_of(rate, weight));
            let pays = |claim: &&&Claim| match self.past.budget(claim) {
                Some(_) => each.is_some_and(|each| self.most(claim) >= each),
                None => self.brings(claim) > fee::fee_of(rate, group::marginal_weight(claim)),
            };
            claims.iter().partition(pays)
        };
        let Some(rate) = rate else {
            // What all of them cannot pay some may; and what none can, all together sooner than each by itself.
            let some = by(self.estimates.within(fee::PATIENT).max(self.estimates.floor));
            return if some.0.is_empty() { by(self.estimates.floor) } else { some };
        };
        by(rate)
    }
}
