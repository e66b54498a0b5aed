//! Groups: which claims share a transaction. Derived from what is open and what was handed out,
//! stored nowhere.
//!
//! Claims may share one if they are of one kind (so what another can take as well is never
//! together with what is ours alone, but for penalties, BOLT 5 V9a), need the same `nLockTime`, and
//! their deadlines are close to each other. A transaction that was handed out holds its claims
//! together for as long as it is possible, whatever else becomes due: taking it apart or adding to
//! it would have to pay for it a second time.
use crate::arbitrator::{Acts, HandedOut, Refusal, TxKind};
use crate::claim::{Claim, SpendPath};
use crate::format::weights;
use crate::ids::ChannelId;
use crate::units::BlockHeight;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::{OutPoint, Weight};

/// Blocks before its deadline from which each penalty is made by itself: one that is pinned or
/// raced does not hold up the others (BOLT 5 V9b).
pub(super) const SECURITY_DELAY: u32 = 18;
/// Deadlines that are no further apart share a transaction, in blocks.
const COMPATIBLE: u32 = 12;
/// Largest weight of a transaction of several claims; what is left up to the largest standard one
/// is for coins and change.
const LARGEST: Weight = Weight::from_wu(380_000);

/// Claims that share a transaction, ascending by outpoint, at least one.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) claims: Vec<&'a Claim>,
    pub(super) standing: Standing<'a>,
}

/// What was done about a group.
#[derive(Clone, Copy, Debug)]
pub(super) enum Standing<'a> {
    /// Nothing that still counts.
    New,
    /// This transaction of ours takes all of it, and nothing else.
    Live(&'a HandedOut),
    /// The same, and each of its claims is to be made by itself.
    Splitting(&'a HandedOut),
}

/// What claims of one transaction have in common: channel, kind, `nLockTime`.
type Key = (ChannelId, TxKind, u32);

/// A half of the claims of a transaction that was refused: its number, and which half.
type Half = (usize, bool);

/// The groups of `open`, which are claims of outputs that nobody has spent, each in exactly one.
/// They depend on neither the order of `open` nor on anything but what is given.
pub(super) fn form<'a>(
    open: impl IntoIterator<Item = &'a Claim>,
    acts: &'a Acts,
    tip: BlockHeight,
) -> Vec<Group<'a>> {
    let contested = |claim: &Claim| acts.contested.contains(&claim.outpoint);
    let mut rest: BTreeMap<OutPoint, &Claim> =
        open.into_iter().map(|claim| (claim.outpoint, claim)).collect();
    let mut groups = Vec::new();
    let mut halves: Vec<(&Claim, Option<Half>)> = Vec::new();
    let mut coins = BTreeSet::new();
    // The newest first: it has replaced what it shares an input with.
    for (number, out) in acts.handed_out.iter().enumerate().rev() {
        let Some(claims) = members(out, &rest) else { continue };
        if out.coins.iter().any(|coin| coins.contains(coin)) {
            continue;
        }
        let several = claims.len() > 1;
        if several && claims.iter().any(|claim| contested(claim)) {
            // The other's spend has pushed it out of the mempool.
            continue;
        }
        for claim in &claims {
            rest.remove(&claim.outpoint);
        }
        if several && is_suspect(out, acts, tip) {
            // One of its inputs is bad, and nobody knows which: half of them each are tried.
            let middle = claims.len().div_ceil(2);
            let half = |(at, claim)| (claim, Some((number, at < middle)));
            halves.extend(claims.into_iter().enumerate().map(half));
            continue;
        }
        coins.extend(out.coins.iter().copied());
        let split = several && claims.iter().any(|claim| is_pressed(claim, tip));
        let standing = if split { Standing::Splitting(out) } else { Standing::Live(out) };
        groups.push(Group { claims, standing });
    }
    let mut together: BTreeMap<(Key, Option<Half>), Vec<&Claim>> = BTreeMap::new();
    for (claim, half) in rest.into_values().map(|claim| (claim, None)).chain(halves) {
        if contested(claim) || is_pressed(claim, tip) {
            groups.push(Group { claims: vec![claim], standing: Standing::New });
        } else {
            together.entry((key(claim), half)).or_default().push(claim);
        }
    }
    for claims in together.into_values().flat_map(batches) {
        groups.push(Group { claims, standing: Standing::New });
    }
    groups.sort_by_key(|group| group.claims.first().map(|claim| claim.outpoint));
    groups
}

/// The claims that a transaction of ours makes, if every one of them is still to be made and was
/// not taken over by a newer transaction.
fn members<'a>(out: &HandedOut, rest: &BTreeMap<OutPoint, &'a Claim>) -> Option<Vec<&'a Claim>> {
    let claim = |outpoint| rest.get(outpoint).copied().filter(|claim| claim.kind() == out.kind);
    let mut claims: Vec<&Claim> = out.claims.iter().map(claim).collect::<Option<_>>()?;
    claims.sort_by_key(|claim| claim.outpoint);
    (!claims.is_empty()).then_some(claims)
}

/// Whether the network refused it for another reason than its fee. What it conflicts with may be
/// seen in a moment, in the mempool or in a block, so a conflict counts from the next tip on.
fn is_suspect(out: &HandedOut, acts: &Acts, tip: BlockHeight) -> bool {
    let refused = acts.rejected.get(&out.transaction.compute_txid());
    refused.is_some_and(|refused| match refused.why {
        Refusal::Fee => false,
        Refusal::Conflict => refused.last < tip,
        Refusal::Invalid => true,
    })
}

/// Whether a penalty is so near its deadline that it is made by itself.
fn is_pressed(claim: &Claim, tip: BlockHeight) -> bool {
    let near = claim.deadline.is_some_and(|deadline| tip.until(deadline).0 <= SECURITY_DELAY);
    near && claim.kind() == TxKind::Penalty
}

fn key(claim: &Claim) -> Key {
    let lock_time = match &claim.path {
        SpendPath::LocalCommitment(presigned) => presigned.transaction.lock_time,
        SpendPath::SecondStage(stage) => stage.transaction.lock_time,
        SpendPath::Single(single) => single.lock_time,
        SpendPath::Anchor { .. } => bitcoin::absolute::LockTime::ZERO,
    };
    (claim.channel, claim.kind(), lock_time.to_consensus_u32())
}

/// Claims with one key, cut where deadlines are too far apart or the transaction would be too
/// heavy. Penalties hurry together: the most urgent decides.
fn batches(mut claims: Vec<&Claim>) -> Vec<Vec<&Claim>> {
    let apart = |claim: &Claim| claim.deadline.filter(|_| claim.kind() != TxKind::Penalty);
    claims.sort_by_key(|claim| (apart(claim), claim.outpoint));
    let mut batches: Vec<Vec<&Claim>> = Vec::new();
    let mut weight = Weight::ZERO;
    for claim in claims {
        let own = marginal_weight(claim);
        let with = weight.checked_add(own).unwrap_or(Weight::MAX);
        let fits = |first: &Claim| match (apart(first), apart(claim)) {
            (None, None) => true,
            (Some(first), Some(deadline)) => first.until(deadline).0 <= COMPATIBLE,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match batches.last_mut() {
            Some(batch) if with <= LARGEST && batch.first().is_some_and(|first| fits(first)) => {
                batch.push(claim);
                weight = with;
            }
            _ => {
                batches.push(vec![claim]);
                weight = own;
            }
        }
    }
    for batch in &mut batches {
        batch.sort_by_key(|claim| claim.outpoint);
    }
    batches
}

/// What a claim adds to a transaction that is there for others.
pub(super) fn marginal_weight(claim: &Claim) -> Weight {
    let input = weights::INPUT_BASE.checked_add(claim.path.witness_weight());
    let paired = match &claim.path {
        SpendPath::SecondStage(_) => weights::P2WSH_OUTPUT,
        SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::Single(_) => {
            Weight::ZERO
        }
    };
    input.and_then(|input| input.checked_add(paired)).unwrap_or(Weight::MAX)
}

#[cfg(test)]
mod tests;
