//! Groups: which claims share a transaction. Derived from what is open and what was handed out,
//! stored nowhere.
//!
//! Claims may share one if they are of one channel (or of channels that may be joined), of one kind (so what another can take as well is never
//! together with what is ours alone, but for penalties, BOLT 5 V9a), need the same `nLockTime`, and
//! their deadlines are close to each other. A transaction that was handed out holds its claims
//! together for as long as it is possible, whatever else becomes due: taking it apart or adding to
//! it would have to pay for it a second time.
use crate::arbitrator::{Refusal, TxKind};
use crate::claim::build::Draft;
use crate::claim::fee;
use crate::claim::past::{Out, Past};
use crate::claim::{Claim, Deadline, SpendPath};
use crate::format::rules::TRUC;
use crate::format::weights;
use crate::ids::ChannelId;
use crate::units::BlockHeight;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::transaction::Version;
use bitcoin::{FeeRate, OutPoint, Script, Txid, Weight};

/// Blocks before the cheater may take an output from which each penalty is made by itself: one that is pinned or
/// raced does not hold up the others (BOLT 5 V9b).
const SECURITY_DELAY: u32 = 18;
/// The same before its deadline, the last block in time.
pub(super) const PENALTY_APART: u32 = SECURITY_DELAY - 1;
/// The same for an HTLC on the peer's commitment that the peer can take as well: its spend may be where our
/// mempool does not show it, and what stands in one transaction with it waits in vain. Where it merely waits for room it is in a block
/// before that.
const PINNED: u32 = 6;
/// Deadlines that are no further apart share a transaction, in blocks.
const COMPATIBLE: u32 = 12;
/// How many times its own transaction's cost a penalty must bring to go by itself because others do.
const AFFORDS: u64 = 4;
/// Largest weight of a transaction of several claims; what is left up to the largest standard one
/// is for coins and change.
const LARGEST: Weight = Weight::from_wu(380_000);
/// The same for version 3, which is relayed up to 10,000 vB (BIP 431).
const LARGEST_TRUC: Weight = Weight::from_wu(32_000);

/// Claims that share a transaction, ascending by outpoint, at least one.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) claims: Vec<&'a Claim>,
    pub(super) standing: Standing<'a>,
}

/// What was done about a group.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    /// Nothing that still counts.
    New,
    /// This transaction of ours takes all of it, and nothing else. If it is to be replaced, then by
    /// transactions for these; most often for all of it.
    Live(&'a Out<'a>, Vec<Vec<&'a Claim>>),
    /// The same, but it is to be taken apart, into these: its claims do not go into one transaction any
    /// more, since the value of one is to go elsewhere; or each is to be made by itself; or all of it is to go elsewhere.
    Apart(&'a Out<'a>, Vec<Vec<&'a Claim>>),
    /// The same, but the network would not have it: it is made anew, with other coins if one that pays for
    /// it seems to be gone, and with other signatures.
    Anew(&'a Out<'a>),
}

/// What claims of one transaction have in common: kind, `nLockTime`, version, and where it pays to if
/// it has one output for all.
type Form<'a> = (TxKind, u32, Version, Option<&'a Script>);

/// Form, and the channel unless it may be joined with others.
type Key<'a> = (Option<ChannelId>, Form<'a>);

/// A half of the claims of a transaction that was refused: its number, and which half.
type Half = (usize, bool);

/// The groups of `open`, which are claims of outputs that nobody has spent, each in exactly one.
/// They depend on neither the order of `open` nor on anything but what is given.
pub(super) fn form<'a>(
    open: impl IntoIterator<Item = &'a Claim>,
    past: &'a Past<'a>,
    tip: BlockHeight,
) -> Vec<Group<'a>> {
    let apart = |claim: &Claim| past.is_apart(claim);
    let mut rest: BTreeMap<OutPoint, &Claim> =
        open.into_iter().map(|claim| (claim.outpoint, claim)).collect();
    let mut groups = Vec::new();
    let mut halves: Vec<(&Claim, Option<Half>)> = Vec::new();
    let mut coins = BTreeSet::new();
    // The newest first: it has replaced what it shares an input with.
    for (number, out) in past.outs().iter().enumerate().rev() {
        let Some(claims) = members(out, &rest) else { continue };
        if out.handed_out.coins.iter().any(|coin| coins.contains(coin)) {
            continue;
        }
        let several = claims.len() > 1;
        if several && claims.iter().any(|claim| apart(claim)) {
            // The other's spend has pushed it out of the mempool, or it never got there.
            continue;
        }
        let mut parts = parts(&claims, past);
        if parts.len() > 1 && past.is_unfunded(out, tip) {
            // What it is made of anew does not go together any more.
            continue;
        }
        for claim in &claims {
            rest.remove(&claim.outpoint);
        }
        if several && out.is_suspect(tip) {
            // One of its inputs is bad, and nobody knows which: half of them each are tried.
            let middle = claims.len().div_ceil(2);
            let half = |(at, claim)| (claim, Some((number, at < middle)));
            halves.extend(claims.into_iter().enumerate().map(half));
            continue;
        }
        if past.is_unfunded(out, tip) || past.is_missigned(out, tip) {
            groups.push(Group { claims, standing: Standing::Anew(out) });
            continue;
        }
        coins.extend(out.handed_out.coins.iter().copied());
        let forms: BTreeSet<Form<'_>> = claims.iter().map(|claim| form_of(claim)).collect();
        let standing = if forms.len() > 1 || !pays_where_it_should(out, &claims) {
            Standing::Apart(out, parts)
        } else if several && claims.iter().any(|claim| is_pressed(claim, tip)) {
            // The others stay together, but for penalties: each that leaves would raise what all of the rest pay.
            let leaves = |claim: &&Claim| claim.kind() == TxKind::Penalty || is_pressed(claim, tip);
            let (alone, rest): (Vec<_>, Vec<_>) = claims.iter().copied().partition(leaves);
            parts = alone.into_iter().map(|claim| vec![claim]).collect();
            parts.extend(Some(rest).filter(|rest| !rest.is_empty()));
            Standing::Apart(out, parts)
        } else {
            Standing::Live(out, parts)
        };
        groups.push(Group { claims, standing });
    }
    let mut together: BTreeMap<(Key<'_>, Option<Half>), Vec<&Claim>> = BTreeMap::new();
    let scattered = scattered(past, tip);
    let is_scattered = |claim: &Claim| {
        let newest = past.claims_of(claim.outpoint).next_back();
        newest.is_some_and(|out| scattered.contains(&out.txid) && pays_alone(claim, out))
    };
    for (claim, half) in rest.into_values().map(|claim| (claim, None)).chain(halves) {
        let alone = apart(claim) || is_pressed(claim, tip);
        if alone || (half.is_none() && is_scattered(claim)) {
            groups.push(Group { claims: vec![claim], standing: Standing::New });
        } else {
            together.entry((key(claim, past), half)).or_default().push(claim);
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
fn members<'a>(out: &Out<'_>, rest: &BTreeMap<OutPoint, &'a Claim>) -> Option<Vec<&'a Claim>> {
    let kind = out.handed_out.kind;
    let claim = |outpoint| rest.get(&outpoint).copied().filter(|claim| claim.kind() == kind);
    let mut claims: Vec<&Claim> = out.handed_out.all_claims().map(claim).collect::<Option<_>>()?;
    claims.sort_by_key(|claim| claim.outpoint);
    (!claims.is_empty()).then_some(claims)
}

/// Claims of one transaction, by what those of one must have in common.
fn parts<'a>(claims: &[&'a Claim], past: &Past<'_>) -> Vec<Vec<&'a Claim>> {
    let mut parts: BTreeMap<Key<'a>, Vec<&'a Claim>> = BTreeMap::new();
    for claim in claims {
        parts.entry(key(claim, past)).or_default().push(*claim);
    }
    parts.into_values().collect()
}

/// Transactions for several penalties of which one went out by itself, to the same place: all of them do then. If the others
/// went together again, each that leaves them later, when its own deadline is near, would pay for all that are left, and leave them a
/// higher price.
fn scattered(past: &Past<'_>, tip: BlockHeight) -> BTreeSet<Txid> {
    let penalties = || past.outs().iter().filter(|out| out.handed_out.kind == TxKind::Penalty);
    let output = |out: &Out<'_>| {
        out.handed_out.transaction.output.first().map(|output| output.script_pubkey.clone())
    };
    penalties()
        .filter_map(|alone| {
            let mut claims = alone.handed_out.all_claims();
            let (claim, None) = (claims.next()?, claims.next()) else { return None };
            let before = past.claims_of(claim).take_while(|out| out.txid != alone.txid).last()?;
            let is_several = before.handed_out.all_claims().nth(1).is_some();
            let is_bad = before.refusal(tip).is_some_and(|why| why != Refusal::Fee);
            let by_itself = is_several && !is_bad && output(before) == output(alone);
            (by_itself && !past.is_apart_anywhere(claim)).then_some(before.txid)
        })
        .collect()
}

/// Whether a claim brings several times what a transaction of its own costs at the price of this one.
fn pays_alone(claim: &Claim, out: &Out<'_>) -> bool {
    let out = out.handed_out;
    let alone = marginal_weight(claim).checked_add(weights::WITH_ONE_OUTPUT);
    let paid = fee::feerate_of(out.fee, out.transaction.weight());
    paid.zip(alone).is_some_and(|(rate, weight)| {
        let cost = fee::fee_of(rate, weight).to_sat().saturating_mul(AFFORDS);
        cost <= claim.output.value.to_sat()
    })
}

/// Whether a claim is so near its deadline that it is made by itself: a penalty, which the cheater can take to a second
/// stage from an HTLC's expiry on, or an HTLC on the peer's commitment. One that we take by its preimage is the peer's
/// to take from its expiry on, and that is the deadline. Second stages on our own stay together: each would need
/// coins of its own, and what has none is lost as well.
fn is_pressed(claim: &Claim, tip: BlockHeight) -> bool {
    let within = |height: BlockHeight, blocks: u32| tip.until(height).0 <= blocks;
    let near = |height: BlockHeight| within(height, SECURITY_DELAY);
    match claim.deadline {
        Some(Deadline::Penalty { by, second_stage }) => {
            within(by, PENALTY_APART) || second_stage.is_some_and(near)
        }
        Some(Deadline::By(by) | Deadline::Race(Some(by))) if claim.kind() == TxKind::Claim => {
            within(by, if claim.path.preimage().is_some() { 0 } else { PINNED })
        }
        Some(Deadline::By(_) | Deadline::Race(_)) | None => false,
    }
}

/// Whether its output is where the claims are to go by now, if it has one for all of them.
fn pays_where_it_should(out: &Out<'_>, claims: &[&Claim]) -> bool {
    let Some(Some(script)) = claims.first().map(|claim| form_of(claim).3) else { return true };
    out.handed_out.transaction.output.iter().any(|output| output.script_pubkey == *script)
}

pub(super) fn key<'a>(claim: &'a Claim, past: &Past<'_>) -> Key<'a> {
    let channel = Some(claim.channel).filter(|_| !past.is_joined(claim));
    (channel, form_of(claim))
}

fn form_of(claim: &Claim) -> Form<'_> {
    let version = claim.path.version();
    let lock_time = match &claim.path {
        SpendPath::LocalCommitment(presigned) => presigned.transaction.lock_time,
        SpendPath::SecondStage(stage) => stage.transaction.lock_time,
        SpendPath::Single(single) => single.lock_time,
        SpendPath::Anchor { .. } => bitcoin::absolute::LockTime::ZERO,
    };
    let script = match &claim.path {
        SpendPath::Single(_) => Some(claim.destination.as_script()),
        SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::SecondStage(_) => {
            None
        }
    };
    (claim.kind(), lock_time.to_consensus_u32(), version, script)
}

/// Claims with one key, cut where deadlines are too far apart or the transaction would be too
/// heavy. Penalties hurry together: the most urgent decides.
fn batches(mut claims: Vec<&Claim>) -> Vec<Vec<&Claim>> {
    let apart = |claim: &Claim| match claim.deadline? {
        Deadline::By(by) => Some(by),
        Deadline::Race(by) => by,
        Deadline::Penalty { .. } => None,
    };
    claims.sort_by_key(|claim| (apart(claim), claim.outpoint));
    let truc = claims.first().is_some_and(|claim| claim.path.version() == TRUC);
    let largest = if truc { LARGEST_TRUC } else { LARGEST };
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
            Some(batch) if with <= largest && batch.first().is_some_and(|first| fits(first)) => {
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

/// The least that one of the claims of a transaction could pay if it had one of its own; no bound for a single one.
pub(super) fn poorest(draft: &Draft) -> FeeRate {
    let own = |claim: &Claim| {
        fee::feerate_of(
            claim.output.value,
            marginal_weight(claim).checked_add(weights::WITH_ONE_OUTPUT)?,
        )
    };
    let apart = draft.claims().filter(|_| !draft.others.is_empty());
    apart.filter_map(own).min().unwrap_or(FeeRate::MAX)
}

#[cfg(test)]
mod tests;
