//! The scheduler: which transactions to sign, publish or replace for the claims that are open.
//!
//! One transaction a claim for now. What it decides on is data: claims, what was handed out, the
//! tip and the estimates.
use crate::arbitrator::{Acts, HandedOut, TxKind};
use crate::claim::Extensible;
use crate::claim::build::{Draft, Parent, SMALLEST_OUTPUT};
use crate::claim::fee::{self, Hurry, Price};
use crate::claim::{Claim, SpendPath};
use crate::ports::FeeEstimates;
use crate::units::BlockHeight;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};

/// Most that is paid for a commitment without anything at risk by a deadline.
const ANCHOR_BUDGET: Amount = Amount::from_sat(10_000);

/// Blocks before a deadline from which any higher price is worth a replacement.
const NEAR: u32 = 6;

/// One step towards confirmed claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Fund and sign this draft.
    Sign(Box<Draft>),
    /// Hand these transactions to the network, parents first. All are in the log.
    Publish(Vec<Transaction>),
}

/// Identity of a step: one of each is under way at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StepKey {
    /// Signing for this output.
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
            Self::Publish(package) => package.last().map(|tx| StepKey::Publish(tx.compute_txid())),
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
    let planner = Planner { claims, acts, tip, estimates };
    let mut steps = Vec::new();
    for claim in claims.iter().filter(|claim| claim.open_at <= tip) {
        steps.extend(planner.sign(claim).map(|draft| Step::Sign(Box::new(draft))));
        steps.extend(planner.publish(claim));
    }
    steps
}

struct Planner<'a> {
    claims: &'a [Claim],
    acts: &'a Acts,
    tip: BlockHeight,
    estimates: &'a FeeEstimates,
}

impl Planner<'_> {
    /// The newest transaction of ours for this claim.
    fn current(&self, claim: &Claim) -> Option<&HandedOut> {
        self.acts.claims_of(claim.outpoint).next_back().filter(|out| out.kind == claim.kind())
    }

    fn publish(&self, claim: &Claim) -> Option<Step> {
        let out = self.current(claim)?;
        match &claim.path {
            SpendPath::LocalCommitment(_) => {
                let child = self.anchor_of(claim).and_then(|anchor| self.current(anchor));
                let child = child.map(|out| out.transaction.clone());
                let package = core::iter::once(out.transaction.clone()).chain(child);
                Some(Step::Publish(package.collect()))
            }
            SpendPath::Anchor { .. } => None,
            SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                Some(Step::Publish(Vec::from([out.transaction.clone()])))
            }
        }
    }

    fn anchor_of(&self, commitment: &Claim) -> Option<&Claim> {
        self.claims.iter().find(|claim| match &claim.path {
            SpendPath::Anchor { .. } => claim.channel == commitment.channel,
            SpendPath::LocalCommitment(_) | SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                false
            }
        })
    }

    fn sign(&self, claim: &Claim) -> Option<Draft> {
        match &claim.path {
            SpendPath::LocalCommitment(_) => self.fixed(claim),
            SpendPath::SecondStage(stage) if stage.extensible == Extensible::No => {
                self.fixed(claim)
            }
            SpendPath::Anchor { parent, .. } => self.anchor(claim, *parent),
            SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                let draft = Draft::new(claim.clone());
                self.priced(draft, budget(claim, self.waited(claim)))
            }
        }
    }

    /// A transaction that cannot be changed: signed once.
    fn fixed(&self, claim: &Claim) -> Option<Draft> {
        self.current(claim).is_none().then(|| Draft::new(claim.clone()))
    }

    /// The child that pays for our commitment, if the commitment's own feerate is too low.
    fn anchor(&self, claim: &Claim, parent: Txid) -> Option<Draft> {
        let parent = self.acts.ours(parent)?;
        let of = |child: &Draft| child.weight().checked_add(parent.transaction.weight());
        let mut draft = Draft::new(claim.clone());
        draft.parent = Some(Parent { fee: parent.fee, weight: parent.transaction.weight() });
        let weight = of(&draft)?;
        let enough = fee::feerate_of(parent.fee, parent.transaction.weight())?;
        let budget = claim.value_at_risk.max(ANCHOR_BUDGET);
        let wanted = self.price(claim, weight, budget.checked_add(parent.fee)?).feerate()?;
        if self.current(claim).is_none() && enough >= wanted {
            return None;
        }
        self.priced(draft, budget)
    }

    fn price(&self, claim: &Claim, weight: bitcoin::Weight, budget: Amount) -> Price<'_> {
        let waited = self.waited(claim);
        let hurry = claim.deadline.map(|deadline| Hurry::Left(self.tip.until(deadline).0));
        Price {
            hurry: hurry.unwrap_or(Hurry::Waited(waited)),
            weight,
            budget,
            estimates: self.estimates,
            asked: self.asked(claim),
            paid: None,
        }
    }

    /// Blocks for which a claim could have been made; an anchor's, since it was first spent.
    fn waited(&self, claim: &Claim) -> u32 {
        let first = || self.acts.claims_of(claim.outpoint).next().map(|out| out.at);
        let since = match &claim.path {
            SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } => first(),
            SpendPath::SecondStage(_) | SpendPath::Single(_) => Some(claim.open_at),
        };
        since.unwrap_or(self.tip).until(self.tip).0
    }

    /// A draft at today's price, if there is none yet or the price has moved enough.
    fn priced(&self, mut draft: Draft, budget: Amount) -> Option<Draft> {
        let parent = draft.parent.unwrap_or_default();
        let weight = draft.weight().checked_add(parent.weight)?;
        let whole = budget.checked_add(parent.fee)?;
        let mut feerate = self.price(&draft.claim, weight, whole).feerate()?;
        if let Some(current) = self.current(&draft.claim) {
            feerate = self.replacing(current, &draft, feerate)?;
            draft.least = fee::replacement_fee(current.fee, current.transaction.weight());
        } else {
            // A child must be worth relaying by itself, whatever its parent pays.
            draft.least = fee::fee_of(self.estimates.floor, draft.weight());
        }
        draft.fee = fee::fee_of(feerate, weight).checked_sub(parent.fee).unwrap_or(Amount::ZERO);
        draft.feerate = feerate;
        draft.budget = budget;
        // The last step up is whatever is left of the budget.
        draft.fee = draft.fee.min(budget);
        (draft.least <= budget).then_some(draft)
    }

    /// The feerate of a replacement: never below what was paid. `None` if it is not worth one: less
    /// than a quarter more, and neither refused, nor near its deadline, nor asked for.
    fn replacing(&self, current: &HandedOut, draft: &Draft, feerate: FeeRate) -> Option<FeeRate> {
        let parent = draft.parent.unwrap_or_default();
        let paid = current.fee.checked_add(parent.fee)?;
        let weight = current.transaction.weight().checked_add(parent.weight)?;
        let now = fee::feerate_of(paid, weight)?.to_sat_per_kwu();
        let quarter_more = now.saturating_add(now.div_ceil(4));
        let txid = current.transaction.compute_txid();
        if self.acts.rejected.get(&txid).is_some_and(|rejected| rejected.last < self.tip) {
            return Some(feerate.max(FeeRate::from_sat_per_kwu(quarter_more)));
        }
        let wanted = feerate.to_sat_per_kwu();
        let near = draft.claim.deadline.is_some_and(|d| self.tip.until(d).0 <= NEAR);
        let asked = self.asked(&draft.claim).is_some();
        let enough = wanted >= quarter_more || (wanted > now && (near || asked));
        enough.then_some(feerate)
    }

    /// The feerate that the operator asked for.
    fn asked(&self, claim: &Claim) -> Option<FeeRate> {
        let bumps = &self.acts.bumps;
        let asked = bumps.get(&Some(claim.outpoint)).or_else(|| bumps.get(&None)).copied();
        asked.map(FeeRate::from_sat_per_kwu)
    }
}

/// Most that a claim may cost: what it brings. What nobody else can take is patient: a share of it.
fn budget(claim: &Claim, waited: u32) -> Amount {
    let value = claim.output.value;
    let spendable = value.checked_sub(SMALLEST_OUTPUT).unwrap_or(Amount::ZERO);
    match claim.kind() {
        TxKind::Sweep => fee::patient_share(value, waited).min(spendable),
        TxKind::Commitment
        | TxKind::Anchor
        | TxKind::HtlcTimeout
        | TxKind::HtlcSuccess
        | TxKind::Claim
        | TxKind::Penalty => spendable,
    }
}
