//! The scheduler: which transactions to sign, publish or replace for the claims that are open.
//! A pure function of claims, of what was handed out, of the tip and of the estimates.
use crate::arbitrator::{Acts, Refusal};
use crate::claim::build::{Draft, Parent, SMALLEST_OUTPUT};
use crate::claim::fee::{self, Hurry, Price};
use crate::claim::group::{self, Group, Standing};
use crate::claim::past::{Out, Part, Past};
use crate::claim::trough::Troughs;
use crate::claim::{Claim, Deadline, Extensible, SpendPath};
use crate::format::rules::TRUC;
use crate::ids::ChannelId;
use crate::policy::Joining;
use crate::ports::{FeeEstimates, Package, Stake};
use crate::units::{self, BlockHeight, Tx};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Txid, Weight};
use close::CloseBudget;

/// Most that is paid for a commitment without anything at risk, at first, where it pays us more
/// than twice that.
pub(crate) const ANCHOR_BUDGET: Amount = Amount::from_sat(10_000);

/// How many times as large as ours another's child on a commitment of version 3 can be (1,000 vB, BIP 431): a
/// replacement must pay all that it paid.
const LARGEST_RIVAL: u64 = 5;

/// One step towards confirmed claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fund and sign this draft.
    Sign(Box<Draft>),
    /// Hand these transactions to the network, parents first. All are in the log.
    Publish(Package),
}

/// Identity of a step: one of each is under way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKey {
    /// Signing for the claims of which this output's is the first.
    Sign(OutPoint),
    /// Publishing what ends in this transaction.
    Publish(Txid),
}

impl Step {
    /// Identity of the step.
    #[must_use]
    pub fn key(&self) -> Option<StepKey> {
        match self {
            Self::Sign(draft) => Some(StepKey::Sign(draft.claim.outpoint)),
            Self::Publish(package) => {
                package.transactions.last().map(|tx| StepKey::Publish(tx.compute_txid()))
            }
        }
    }
}

/// The steps for the open claims of one channel.
#[must_use]
pub fn plan(
    claims: &[Claim],
    acts: &Acts,
    tip: BlockHeight,
    estimates: &FeeEstimates,
) -> Vec<Step> {
    let steps = plan_together(&[Part { claims, acts, joining: Joining::Never }], tip, estimates);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// The steps for the open claims of these channels, each with the channel of its first claim. They
/// do not depend on the order of the channels. No output may be claimed by two of them.
#[must_use]
pub fn plan_together(
    parts: &[Part<'_>],
    tip: BlockHeight,
    estimates: &FeeEstimates,
) -> Vec<(ChannelId, Step)> {
    let past = Past::of(parts);
    let planner = Planner::new(parts, &past, tip, estimates);
    let mut steps = Vec::new();
    for claim in planner.open().filter(|claim| !is_free(claim)) {
        let own = planner.sign(claim).map(sign).into_iter().chain(planner.publish(claim));
        steps.extend(own.map(|step| (claim.channel, step)));
    }
    for group in group::form(planner.open().filter(|c| is_free(c)), &past, tip) {
        planner.group(&group, &mut steps);
    }
    for (_, step) in &mut steps {
        if let Step::Sign(draft) = step {
            let is_doubted = past.is_set_aside(&draft.claim) || past.is_refused(&draft.claim);
            draft.last = draft.wants_coins() && is_doubted;
        }
    }
    steps
}

/// The claims that stand first in a transaction that is live or wanted: coins are reserved for
/// these. What the network would refuse keeps none.
#[must_use]
pub fn leads(
    parts: &[Part<'_>],
    tip: BlockHeight,
    estimates: &FeeEstimates,
) -> BTreeSet<(ChannelId, OutPoint)> {
    let past = Past::of(parts);
    let planner = Planner::new(parts, &past, tip, estimates);
    let id = |claim: &Claim| (claim.channel, claim.outpoint);
    let keeps = |claim: &&Claim| !past.is_set_aside(claim) && !past.is_refused(claim);
    let is_made =
        |claim: &&Claim| planner.current(claim).is_some() || planner.sign(claim).is_some();
    let alone = planner.open().filter(|claim| !is_free(claim)).filter(is_made);
    let mut leads: BTreeSet<_> = alone.filter(|claim| !past.is_refused(claim)).map(id).collect();
    for group in group::form(planner.open().filter(|c| is_free(c)), &past, tip) {
        let parts = match group.standing {
            // What nothing is made for needs none.
            Standing::New => {
                let mut parts = planner.worth_it_now(&group.claims);
                parts.retain(|part| planner.draft(part, Over::Nothing).is_some());
                parts
            }
            Standing::Live(..) | Standing::Apart(..) | Standing::Anew(_) => vec![group.claims],
        };
        let firsts = parts.iter().filter_map(|part| part.first());
        leads.extend(firsts.copied().filter(keeps).map(id));
    }
    leads
}

/// The transactions for these claims of one channel if everything costs `feerate` and none was made yet, each with the
/// most that it may cost. What would cost more than it brings is by itself.
pub(crate) fn at_feerate(
    claims: &[Claim],
    tip: BlockHeight,
    feerate: FeeRate,
) -> Vec<(Draft, Amount)> {
    let nothing = Acts::default();
    let parts = [Part { claims, acts: &nothing, joining: Joining::Never }];
    let past = Past::of(&parts);
    let estimates =
        FeeEstimates { targets: Vec::new(), floor: feerate, troughs: Troughs::default() };
    let planner = Planner::new(&parts, &past, tip, &estimates);
    let alone = claims.iter().filter(|claim| !is_free(claim)).map(|claim| vec![claim]);
    let groups = group::form(claims.iter().filter(|claim| is_free(claim)), &past, tip);
    let parted = groups.iter().flat_map(|group| planner.worth_it(&group.claims, |_| Some(feerate)));
    let drafts = alone.chain(parted).filter_map(|claims| draft_of(&claims));
    let budgeted = drafts.map(|draft| {
        let budget = planner.budget(&draft);
        (draft, budget)
    });
    budgeted.collect()
}

/// Whether the claim's transaction is ours to shape: inputs may be added to it.
fn is_free(claim: &Claim) -> bool {
    match &claim.path {
        SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } => false,
        SpendPath::SecondStage(stage) => stage.extensible == Extensible::Yes,
        SpendPath::Single(_) => true,
    }
}

fn sign(draft: Draft) -> Step {
    Step::Sign(Box::new(draft))
}

fn publish<'a>(transactions: impl IntoIterator<Item = &'a Tx>, claims: &[&Claim]) -> Step {
    let transactions = transactions.into_iter().map(|tx| tx.transaction().clone()).collect();
    let stakes = claims.iter().map(|claim| Stake {
        channel: claim.channel,
        outpoint: claim.outpoint,
        deadline: claim.needed_by(),
    });
    Step::Publish(Package { transactions, stakes: stakes.collect() })
}

/// What the transaction of a draft takes the place of.
#[derive(Clone, Copy)]
enum Over<'a> {
    /// Nothing.
    Nothing,
    /// A transaction for the same claims.
    Same(&'a Out<'a>),
    /// A transaction that also makes others.
    More(&'a Out<'a>),
    /// A transaction for these claims and others that is in no mempool: it pays too little for any.
    Absent(&'a Out<'a>),
    /// A transaction for the same claims, of which a coin seems to be gone: the mempool has none.
    Unfunded(&'a Out<'a>),
}

/// Why there is no draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Undrafted {
    /// Nothing is to be done for now: the price has not moved enough, or is more than all of it brings.
    Waits,
    /// Its claims bring less than it costs to take the place of what is there.
    CannotPay,
}

struct Planner<'a> {
    claims: Vec<&'a Claim>,
    past: &'a Past<'a>,
    tip: BlockHeight,
    estimates: &'a FeeEstimates,
}

impl<'a> Planner<'a> {
    fn new(
        parts: &[Part<'a>],
        past: &'a Past<'a>,
        tip: BlockHeight,
        estimates: &'a FeeEstimates,
    ) -> Self {
        Self { claims: parts.iter().flat_map(|part| part.claims).collect(), past, tip, estimates }
    }

    fn open(&self) -> impl Iterator<Item = &'a Claim> {
        self.claims.iter().copied().filter(|claim| claim.open_at <= self.tip)
    }

    /// The newest transaction of ours for this claim.
    fn current(&self, claim: &Claim) -> Option<&Out<'a>> {
        let newest = self.past.claims_of(claim.outpoint).next_back();
        newest.filter(|out| out.handed_out.kind == claim.kind())
    }

    fn publish(&self, claim: &Claim) -> Option<Step> {
        let out = self.current(claim)?;
        let (txid, out) = (out.txid, out.handed_out);
        match &claim.path {
            SpendPath::LocalCommitment(_) => {
                let anchor = self.anchor_of(claim, txid);
                let child = anchor.and_then(|anchor| self.current(anchor));
                // Without fee it is relayed with its child only, which is signed in a moment.
                let awaits = |anchor: &Claim| {
                    anchor.path.version() == TRUC
                        && out.at == self.tip
                        && self.sign(anchor).is_some()
                };
                if child.is_none() && anchor.is_some_and(awaits) {
                    return None;
                }
                let is_held = anchor.is_some_and(|anchor| self.holds(anchor));
                if is_held && out.transaction.transaction().version == TRUC {
                    return None;
                }
                let child = child.filter(|_| !is_held).map(|out| &out.handed_out.transaction);
                let package = core::iter::once(&out.transaction).chain(child);
                Some(publish(package, &[claim]))
            }
            // Our own commitment goes out with its child. The peer's is in the mempool, or the child
            // is refused: to bring it back is not for us.
            SpendPath::Anchor { parent, .. } => {
                self.past.seen(claim, *parent).filter(|_| !self.holds(claim))?;
                Some(publish([&out.transaction], &[claim]))
            }
            SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                Some(publish([&out.transaction], &[claim]))
            }
        }
    }

    /// Whether an anchor's child waits for the one that is to take its place.
    fn holds(&self, anchor: &Claim) -> bool {
        let held = |out: &Out<'_>| self.sign(anchor).is_some_and(|next| self.is_held(out, &next));
        self.current(anchor).is_some_and(held)
    }

    fn anchor_of(&self, commitment: &Claim, txid: Txid) -> Option<&'a Claim> {
        self.claims.iter().copied().find(|claim| match &claim.path {
            SpendPath::Anchor { parent, .. } => {
                *parent == txid && claim.channel == commitment.channel
            }
            SpendPath::LocalCommitment(_) | SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                false
            }
        })
    }

    /// A transaction of a claim that stands alone.
    fn sign(&self, claim: &Claim) -> Option<Draft> {
        match &claim.path {
            SpendPath::Anchor { parent, ours, lost, .. } => {
                self.anchor(claim, (*parent, *ours), lost)
            }
            // It cannot be changed: signed once, unless wrongly.
            SpendPath::LocalCommitment(_) | SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                let anew = |out: &Out<'_>| self.past.is_missigned(out, self.tip);
                self.current(claim).is_none_or(anew).then(|| Draft::new(claim.clone()))
            }
        }
    }

    /// The steps of one group.
    fn group(&self, group: &Group<'_>, steps: &mut Vec<(ChannelId, Step)>) {
        let claims = group.claims.as_slice();
        let Some(first) = claims.first() else { return };
        let signed = |draft: Draft| (draft.claim.channel, sign(draft));
        let publish =
            |out: &Out<'_>| (first.channel, publish([&out.handed_out.transaction], claims));
        let replaced = |out: &Out<'_>, heir: Option<Draft>| {
            let is_held = heir.as_ref().is_some_and(|next| self.is_held(out, next));
            heir.map(signed).into_iter().chain((!is_held).then(|| publish(out)))
        };
        match &group.standing {
            Standing::New => {
                let parts = self.worth_it_now(claims);
                let drafts = parts.iter().filter_map(|part| self.draft(part, Over::Nothing));
                steps.extend(drafts.map(signed));
            }
            Standing::Live(out, parts) => {
                let next = self.next(out, claims);
                let heir = match parts.len() {
                    0 | 1 => next,
                    _ => next.and_then(|_| self.heir(out, parts)),
                };
                steps.extend(replaced(out, heir));
            }
            Standing::Anew(out) => {
                // A coin may come back, and then it goes out at once.
                let over = self.anew(out).unwrap_or(Over::Same(out));
                steps.extend(self.draft(claims, over).map(signed));
                steps.push(publish(out));
            }
            Standing::Apart(out, parts) => {
                let whole = || self.as_it_was(out, claims).filter(Draft::fits);
                let heir = self.heir(out, parts).or_else(whole);
                steps.extend(replaced(out, heir));
            }
        }
    }

    /// What takes the place of a transaction that the network would not have. For one that was signed
    /// wrongly nothing was paid.
    fn anew<'o>(&self, out: &'o Out<'o>) -> Option<Over<'o>> {
        let unfunded = self.past.is_unfunded(out, self.tip).then_some(Over::Unfunded(out));
        unfunded.or_else(|| self.past.is_missigned(out, self.tip).then_some(Over::Nothing))
    }

    fn draft(&self, claims: &[&Claim], over: Over<'_>) -> Option<Draft> {
        self.try_draft(claims, over).ok()
    }

    fn try_draft(&self, claims: &[&Claim], over: Over<'_>) -> Result<Draft, Undrafted> {
        let draft = draft_of(claims).ok_or(Undrafted::Waits)?;
        let budget = self.budget(&draft);
        self.priced(draft, CloseBudget::of(budget), over)
    }

    /// Most that a transaction may cost: what all of its claims may, and the equal part of each no more than what the
    /// operator said of it.
    fn budget(&self, draft: &Draft) -> Amount {
        let count = u64::try_from(draft.claims().count()).unwrap_or(u64::MAX);
        let of_all = |each: Amount| each.checked_mul(count).unwrap_or(Amount::MAX_MONEY);
        let least = draft.claims().filter_map(|claim| self.past.budget(claim)).min();
        self.pooled(draft).min(least.map_or(Amount::MAX_MONEY, of_all))
    }

    /// What all claims of a transaction may cost together. What the wallet pays may cost more
    /// than it brings, if the operator said so: its loss costs elsewhere.
    fn pooled(&self, draft: &Draft) -> Amount {
        let value = units::total(draft.claims().map(|claim| claim.output.value));
        let spendable = value.checked_sub(SMALLEST_OUTPUT).unwrap_or(Amount::ZERO);
        let all = units::total(draft.claims().map(|claim| self.most(claim)));
        let asked = draft.claims().any(|claim| self.past.budget(claim).is_some());
        if asked && draft.wants_coins() {
            return all;
        }
        self.once_swept(draft, all.min(spendable), value)
    }

    fn price(&self, draft: &Draft, weight: Weight, budget: Amount) -> Price<'_> {
        let pressed = self.pressed(draft, budget);
        let hurries = pressed.iter().map(|(hurry, _)| *hurry);
        let nearest = hurries.min_by_key(|hurry| hurry.left().unwrap_or(u32::MAX));
        Price {
            hurry: nearest.unwrap_or_else(|| self.hurry(draft)),
            weight,
            budget,
            pressed,
            for_deadlines: self.all_for_deadlines(draft, budget),
            poorest: group::poorest(draft),
            estimates: self.estimates,
            asked: self.asked_steps(draft, budget),
            paid: self.paid(draft),
        }
    }

    /// Whether it is a race with the peer.
    fn is_raced(&self, claim: &Claim) -> bool {
        match claim.deadline {
            Some(Deadline::By(by) | Deadline::Penalty { by, .. }) => by <= self.tip,
            Some(Deadline::Race(_)) => true,
            None => false,
        }
    }

    /// Blocks for which the first of the claims could have been made; an anchor's, since it was
    /// first spent.
    fn waited(&self, draft: &Draft) -> u32 {
        let first =
            |claim: &Claim| self.past.claims_of(claim.outpoint).next().map(|out| out.handed_out.at);
        let since = |claim: &Claim| match &claim.path {
            SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } => first(claim),
            SpendPath::SecondStage(_) | SpendPath::Single(_) => Some(claim.open_at),
        };
        draft.claims().filter_map(since).min().unwrap_or(self.tip).until(self.tip).0
    }

    /// The highest feerate that was paid for any of the claims, in whatever company: a group that
    /// is formed anew goes on from there. What the network found invalid was never paid, nor what was offered to nobody by
    /// a deadline that is past. What an anchor pays is told with its parent.
    fn paid(&self, draft: &Draft) -> Option<FeeRate> {
        if draft.parent.is_some() {
            return None;
        }
        let outs = draft.claims().flat_map(|claim| self.past.claims_of(claim.outpoint));
        let kind = draft.claim.kind();
        let valid = |out: &&Out<'_>| {
            out.handed_out.kind == kind
                && out.refusal(self.tip) != Some(Refusal::Invalid)
                && !self.is_nowhere(out, draft)
        };
        let outs = outs.filter(valid).map(|out| out.handed_out);
        outs.filter_map(|out| fee::feerate_of(out.fee, out.transaction.weight())).max()
    }

    /// A draft at today's price, if nothing was done yet or the price has moved enough.
    fn priced(
        &self,
        mut draft: Draft,
        most: CloseBudget,
        over: Over<'_>,
    ) -> Result<Draft, Undrafted> {
        let parent = draft.parent.unwrap_or_default();
        let own = draft.weight();
        let weight = own.checked_add(parent.weight).ok_or(Undrafted::Waits)?;
        let whole = units::plus(most.budget, parent.fee);
        let price = self.price(&draft, weight, whole);
        let mut feerate = price.feerate().ok_or(Undrafted::Waits)?;
        let (before_coins, budget) = (most.budget, most.at(feerate));
        let enough = fee::feerate_of(parent.fee, parent.weight);
        if matches!(over, Over::Nothing) && enough.is_some_and(|enough| enough >= feerate) {
            return Err(Undrafted::Waits);
        }
        draft.least = match over {
            // A child must be worth relaying by itself, whatever its parent pays.
            Over::Nothing => fee::relay_fee(self.estimates.floor, own),
            Over::Same(current) if self.is_nowhere(current, &draft) => {
                let before = paid_by(current, &parent).ok_or(Undrafted::Waits)?.to_sat_per_kwu();
                if before.abs_diff(feerate.to_sat_per_kwu()) < before.div_ceil(20) {
                    return Err(Undrafted::Waits);
                }
                fee::relay_fee(self.estimates.floor, own)
            }
            Over::Same(current) => {
                feerate = self
                    .replacing(current, &draft, price.hurry, feerate)
                    .ok_or(Undrafted::Waits)?;
                let current = current.handed_out;
                fee::replacement_fee(current.fee, current.transaction.weight().max(own))
            }
            Over::More(current)
                if current.refusal(self.tip) == Some(Refusal::Fee)
                    || self.is_nowhere(current, &draft) =>
            {
                fee::relay_fee(self.estimates.floor, own)
            }
            Over::More(current) => fee::replacement_fee(current.handed_out.fee, own),
            Over::Absent(current) => {
                feerate = self
                    .replacing(current, &draft, price.hurry, feerate)
                    .ok_or(Undrafted::Waits)?;
                fee::relay_fee(self.estimates.floor, own)
            }
            Over::Unfunded(current) => {
                feerate = feerate.max(paid_by(current, &parent).ok_or(Undrafted::Waits)?);
                fee::relay_fee(self.estimates.floor, own)
            }
        };
        draft.fee = fee::fee_of(feerate, weight).checked_sub(parent.fee).unwrap_or(Amount::ZERO);
        if let Over::Absent(current) | Over::More(current) = over
            && current.refusal(self.tip) == Some(Refusal::Fee)
        {
            let over_older = self.over_older(&draft, own).filter(|fee| *fee <= budget);
            draft.fee = draft.fee.max(over_older.unwrap_or(Amount::ZERO));
        }
        // Against whatever it was refused for, coins pay no more than what is asked for.
        draft.feerate = if budget > before_coins { feerate.min(most.rate) } else { feerate };
        draft.budget = budget;
        draft.divisible = matches!(over, Over::Nothing);
        draft.thrifty = price.asked.is_empty() && price.hurry.has_time();
        draft.floor = self.estimates.floor;
        // The last step up is whatever is left of the budget.
        draft.fee = draft.fee.min(before_coins);
        if draft.least <= budget { Ok(draft) } else { Err(Undrafted::CannotPay) }
    }

    /// The feerate of a replacement: never below what was paid. `None` if it is not worth one: not even
    /// a twentieth more, or, with a deadline, not what its relay costs more; and neither refused, nor near its
    /// deadline or the last stretch before that, nor asked for.
    fn replacing(
        &self,
        out: &Out<'_>,
        draft: &Draft,
        hurry: Hurry,
        feerate: FeeRate,
    ) -> Option<FeeRate> {
        let parent = draft.parent.unwrap_or_default();
        let now = paid_by(out, &parent)?.to_sat_per_kwu();
        let quarter_more = now.saturating_add(now.div_ceil(4));
        if out.refusal(self.tip) == Some(Refusal::Fee) {
            let enough = self.enough_for_another(draft, hurry).map(FeeRate::to_sat_per_kwu);
            let bid = quarter_more.min(enough.unwrap_or(u64::MAX));
            let bid = feerate.max(FeeRate::from_sat_per_kwu(bid));
            return (bid.to_sat_per_kwu() > now).then_some(bid);
        }
        // The peer may be in the next block: who is outbid in a race bids again at once.
        let raced = draft.parent.is_none()
            && draft.claims().all(|claim| claim.due().is_some() && self.is_raced(claim));
        if raced && out.is_outbid() {
            let half_more = now.saturating_add(now.div_ceil(2));
            return Some(feerate.max(FeeRate::from_sat_per_kwu(half_more)));
        }
        let wanted = feerate.to_sat_per_kwu();
        let asked = self.asked(draft).is_some();
        let relay = hurry.left().map_or(0, |_| fee::RELAY.to_sat_per_kwu());
        let more = now.saturating_add(now.div_ceil(20).max(relay));
        let any = hurry.is_close() || hurry.is_at_last_stretch() || asked;
        let enough = wanted >= more || (wanted > now && any);
        enough.then_some(feerate)
    }

    /// Above which feerate a child is not raised against another's on the same commitment, of which nothing
    /// is known but that ours was refused: what pays so much is mined at once, and then the commitment is paid for
    /// by somebody else. A child that pays little for its size can force no more upon us. `None`: the budget alone
    /// is the bound, as near a deadline, and where nothing but the waiting is to be ended.
    fn enough_for_another(&self, draft: &Draft, hurry: Hurry) -> Option<FeeRate> {
        let far = matches!(hurry, Hurry::Left(_) | Hurry::Raced) && !hurry.is_close();
        let at_once = self.estimates.within(1).max(self.estimates.floor).to_sat_per_kwu();
        let enough = at_once.saturating_mul(LARGEST_RIVAL);
        (draft.parent.is_some() && far).then_some(FeeRate::from_sat_per_kwu(enough))
    }

    /// The feerates that the operator asked for, ascending, with what the claims bring that are to pay so much.
    fn asked_steps(&self, draft: &Draft, budget: Amount) -> Vec<(FeeRate, Amount)> {
        if draft.others.is_empty() {
            return self.asked(draft).map(|asked| (asked, budget)).into_iter().collect();
        }
        let each = |claim| Some((self.past.asked(claim)?, self.most(claim)));
        let steps: BTreeMap<FeeRate, Amount> = draft
            .claims()
            .filter_map(each)
            .map(|(asked, _)| {
                let as_much = draft.claims().filter_map(each).filter(|(rate, _)| *rate >= asked);
                (asked, units::total(as_much.map(|(_, brings)| brings)))
            })
            .collect();
        steps.into_iter().collect()
    }

    /// The feerate that the operator asked for.
    fn asked(&self, draft: &Draft) -> Option<FeeRate> {
        draft.claims().filter_map(|claim| self.past.asked(claim)).max()
    }
}

/// The feerate that a transaction of ours pays together with its parent.
fn paid_by(out: &Out<'_>, parent: &Parent) -> Option<FeeRate> {
    let out = out.handed_out;
    let weight = out.transaction.weight().checked_add(parent.weight)?;
    fee::feerate_of(out.fee.checked_add(parent.fee)?, weight)
}

fn half(amount: Amount) -> Amount {
    Amount::from_sat(amount.to_sat() >> 1)
}

/// A draft of claims that share a transaction; `None` of none.
fn draft_of(claims: &[&Claim]) -> Option<Draft> {
    let (first, others) = claims.split_first()?;
    let mut draft = Draft::new((*first).clone());
    draft.others = others.iter().map(|claim| (*claim).clone()).collect();
    Some(draft)
}

mod close;
mod parting;
mod pressed;
#[cfg(test)]
mod tests;
