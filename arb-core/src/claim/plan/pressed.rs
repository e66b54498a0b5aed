//! What may be paid for the sake of which deadline. The claims of a transaction may have several, some blocks apart: nobody
//! pays for a deadline by which nothing of his is lost.
use super::{Planner, half};
use crate::arbitrator::TxKind;
use crate::claim::build::Draft;
use crate::claim::fee::{self, Hurry};
use crate::claim::past::Out;
use crate::claim::{Claim, Deadline, SpendPath, group};
use crate::format::weights;
use crate::units::{self, BlockHeight};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::{Amount, Weight};

/// What the output of a second stage adds to the transaction that sweeps it: its input, with a delayed signature.
const SWEPT: Weight = Weight::from_wu(320);

/// Blocks after a deadline for which what was signed up to it, and reached nobody, waits for what is to take its place.
const HELD: u32 = fee::BAD_LUCK;

impl Planner<'_> {
    /// For every deadline of a draft, the nearest first, how near it is, and what is lost with it or before it. `budget` is
    /// what may be paid for all of it.
    pub(super) fn pressed(&self, draft: &Draft, budget: Amount) -> Vec<(Hurry, Amount)> {
        if draft.others.is_empty() {
            let all = self.for_deadlines(&draft.claim, budget);
            let one = || vec![(self.hurry(draft), all)];
            return self.pressed_child(&draft.claim).unwrap_or_else(one);
        }
        let mut steps: BTreeMap<u32, (Hurry, Amount)> = BTreeMap::new();
        for claim in draft.claims() {
            let hurry = self.hurry_of(claim).unwrap_or_else(|| self.idle(draft));
            add(&mut steps, hurry, self.for_deadlines(claim, self.most(claim)));
        }
        added_up(steps)
    }

    /// The child of a commitment pays for several HTLCs. `None`: it has one deadline, its own or the operator's.
    fn pressed_child(&self, claim: &Claim) -> Option<Vec<(Hurry, Amount)>> {
        let SpendPath::Anchor { lost, .. } = &claim.path else { return None };
        let own = lost.first().map(|(by, _)| Deadline::By(*by));
        if own.is_none() || claim.deadline != own || self.past.budget(claim).is_some() {
            return None;
        }
        let (mut steps, mut before) = (BTreeMap::new(), Amount::ZERO);
        for (by, lost) in lost {
            let hurry = self.by(*by);
            // The other half is for the HTLC transactions.
            add(&mut steps, hurry, half(lost.checked_sub(before).unwrap_or(Amount::ZERO)));
            before = *lost;
        }
        Some(added_up(steps))
    }

    /// Most that may be paid for the sake of all deadlines of a draft: each claim has a bound of its own where the operator gave
    /// one of them a budget.
    pub(super) fn all_for_deadlines(&self, draft: &Draft, budget: Amount) -> Amount {
        let given = draft.claims().any(|claim| self.past.budget(claim).is_some());
        if given { budget } else { self.for_deadlines(&draft.claim, budget) }
    }

    /// Most that may be paid for the sake of deadlines, of such a budget. Of what a second stage brings, the other half
    /// may have paid for the commitment; what the operator gave it is all for it.
    fn for_deadlines(&self, claim: &Claim, budget: Amount) -> Amount {
        match claim.kind() {
            _ if self.past.budget(claim).is_some() => budget,
            TxKind::HtlcTimeout | TxKind::HtlcSuccess => half(budget),
            TxKind::Commitment
            | TxKind::Anchor
            | TxKind::Claim
            | TxKind::Sweep
            | TxKind::Penalty => budget,
        }
    }

    /// Whether what a transaction pays does not count for a draft: it was to be in by a deadline that is past, and for all that is
    /// known no mempool ever had it. What was signed since counts, so that the price is lowered once; and so does everything
    /// in the last stretch before another deadline, where it costs too much to be wrong about a mempool that did not answer.
    pub(super) fn is_nowhere(&self, out: &Out<'_>, draft: &Draft) -> bool {
        self.missed(out, draft).is_some()
    }

    /// Whether such a transaction stays where it is for now, because this draft is to take its place: whoever has it by
    /// then would have what it pays. If nothing was signed for a few blocks, it is better than nothing.
    pub(super) fn is_held(&self, out: &Out<'_>, draft: &Draft) -> bool {
        self.missed(out, draft).is_some_and(|by| by.until(self.tip).0 < HELD)
    }

    fn missed(&self, out: &Out<'_>, draft: &Draft) -> Option<BlockHeight> {
        let (ahead, past): (Vec<_>, Vec<_>) =
            draft.claims().flat_map(|claim| self.deadlines(claim)).partition(|by| *by > self.tip);
        let missed = past.into_iter().max().filter(|by| out.handed_out.at <= *by)?;
        let is_calm = |by| self.tip.until(by).0 > fee::BAD_LUCK;
        (out.is_unheard && ahead.into_iter().all(is_calm)).then_some(missed)
    }

    /// The deadlines of a claim: those of a commitment's child are those of all HTLCs on it. That of a race is past.
    fn deadlines(&self, claim: &Claim) -> impl Iterator<Item = BlockHeight> {
        let lost = match &claim.path {
            SpendPath::Anchor { lost, .. } => lost.as_slice(),
            SpendPath::LocalCommitment(_) | SpendPath::SecondStage(_) | SpendPath::Single(_) => &[],
        };
        let own = claim.deadline.map(|deadline| match deadline {
            Deadline::By(by) | Deadline::Penalty { by, .. } => by,
            Deadline::Race(by) => by.map_or(self.tip, |by| by.min(self.tip)),
        });
        lost.iter().map(|(by, _)| *by).chain(own)
    }

    /// How much a draft hurries: as the claim with the least time does.
    pub(super) fn hurry(&self, draft: &Draft) -> Hurry {
        let hurries = draft.claims().filter_map(|claim| self.hurry_of(claim));
        hurries.min_by_key(|hurry| hurry.left()).unwrap_or_else(|| self.idle(draft))
    }

    /// How much a claim hurries, if it has a deadline.
    fn hurry_of(&self, claim: &Claim) -> Option<Hurry> {
        Some(match claim.deadline? {
            Deadline::By(by) => self.by(by),
            Deadline::Race(_) => Hurry::Raced,
            // All of it may be paid, so that the cheater gets nothing.
            Deadline::Penalty { by, .. } if by > self.tip => {
                Hurry::Penalty(self.tip.until(by).0, group::PENALTY_APART)
            }
            // By now the cheater may have it for what the next block costs.
            Deadline::Penalty { .. } => Hurry::Raced,
        })
    }

    fn by(&self, by: BlockHeight) -> Hurry {
        if by > self.tip { Hurry::Left(self.tip.until(by).0) } else { Hurry::Raced }
    }

    /// How much a draft hurries without a deadline.
    fn idle(&self, draft: &Draft) -> Hurry {
        let waited = self.waited(draft);
        match draft.claim.path {
            SpendPath::Anchor { .. } => Hurry::Commitment(waited),
            SpendPath::LocalCommitment(_) | SpendPath::SecondStage(_) | SpendPath::Single(_) => {
                Hurry::Waited(waited)
            }
        }
    }

    /// What a claim may cost: what the operator said of it, but no more than it brings where the wallet does not pay; else
    /// what it brings. What nobody else can take is patient:
    /// half of it, unless the operator asked for a feerate.
    pub(super) fn most(&self, claim: &Claim) -> Amount {
        let own = |budget: Amount| match claim.path {
            SpendPath::Single(_) => budget.min(claim.output.value),
            SpendPath::LocalCommitment(_)
            | SpendPath::Anchor { .. }
            | SpendPath::SecondStage(_) => budget,
        };
        self.past.budget(claim).map(own).unwrap_or_else(|| match claim.kind() {
            TxKind::Sweep if self.past.asked(claim).is_none() => half(claim.output.value),
            TxKind::Sweep
            | TxKind::Commitment
            | TxKind::Anchor
            | TxKind::HtlcTimeout
            | TxKind::HtlcSuccess
            | TxKind::Claim
            | TxKind::Penalty => self.brings(claim),
        })
    }

    /// What a claim brings: of a second stage, what is left once its output is swept, which never takes more than half
    /// of it.
    pub(super) fn brings(&self, claim: &Claim) -> Amount {
        let SpendPath::SecondStage(_) = claim.path else { return claim.output.value };
        let swept = claim.output.value.checked_sub(self.sweep(SWEPT)).unwrap_or(Amount::ZERO);
        swept.max(half(claim.output.value))
    }

    /// What is left of `brings` for fees if all claims of a draft are of `value`: what sweeps second stages has an
    /// output, too.
    pub(super) fn once_swept(&self, draft: &Draft, brings: Amount, value: Amount) -> Amount {
        match draft.claim.path {
            SpendPath::SecondStage(_) => {
                let sweep = self.sweep(weights::WITH_ONE_OUTPUT);
                let left = brings.checked_sub(sweep).unwrap_or(Amount::ZERO);
                left.max(half(value).min(brings))
            }
            SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::Single(_) => {
                brings
            }
        }
    }

    fn sweep(&self, weight: Weight) -> Amount {
        fee::fee_of(self.estimates.within(fee::PATIENT), weight)
    }
}

/// What is lost at a step. Of two that are as near, one with a deadline ahead decides.
fn add(steps: &mut BTreeMap<u32, (Hurry, Amount)>, hurry: Hurry, lost: Amount) {
    let near = hurry.left().unwrap_or(u32::MAX);
    let (kept, all) = steps.entry(near).or_insert((hurry, Amount::ZERO));
    if hurry.has_deadline() {
        *kept = hurry;
    }
    *all = units::plus(*all, lost);
}

/// Steps by how near they are, each with what the nearer ones have.
fn added_up(steps: BTreeMap<u32, (Hurry, Amount)>) -> Vec<(Hurry, Amount)> {
    let mut before = Amount::ZERO;
    let step = |(hurry, own): (Hurry, Amount)| {
        before = units::plus(before, own);
        (hurry, before)
    };
    steps.into_values().map(step).collect()
}
