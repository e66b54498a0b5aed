//! Every open claim is in exactly one group, whatever the order and the past.
use super::*;
use crate::arbitrator::{Acts, HandedOut, Refusal, Rejections};
use crate::claim::{Deadline, Extensible, Part, SecondStage, SigningKey, SingleSpend, Unlock};
use crate::ids::{HtlcId, Side};
use crate::policy::Joining;
use alloc::boxed::Box;
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::transaction::Version;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid};
use proptest::prelude::*;

const TIP: BlockHeight = BlockHeight(1_000);

fn outpoint(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout }
}

/// Where claims go.
fn home() -> ScriptBuf {
    ScriptBuf::from_bytes([0x51].to_vec())
}

fn input(vout: u32) -> TxIn {
    TxIn { previous_output: outpoint(vout), ..TxIn::default() }
}

fn by(kind: TxKind, by: BlockHeight) -> Deadline {
    if kind == TxKind::Penalty {
        Deadline::Penalty { by, second_stage: None }
    } else {
        Deadline::By(by)
    }
}

fn claim(vout: u32, path: SpendPath, left: Option<u32>) -> Claim {
    let kind = match &path {
        SpendPath::Single(single) => single.kind,
        SpendPath::LocalCommitment(_) | SpendPath::Anchor { .. } | SpendPath::SecondStage(_) => {
            TxKind::HtlcTimeout
        }
    };
    let script = home();
    Claim {
        channel: ChannelId([0; 32]),
        outpoint: outpoint(vout),
        output: TxOut { value: Amount::from_sat(10_000), script_pubkey: script.clone() },
        path,
        open_at: BlockHeight(900),
        deadline: left.map(|left| by(kind, BlockHeight(TIP.0 + left))),
        value_at_risk: Amount::from_sat(10_000),
        destination: script,
    }
}

fn single(vout: u32, kind: TxKind, lock_time: u32, left: Option<u32>) -> Claim {
    let path = SpendPath::Single(Box::new(SingleSpend {
        kind,
        htlc: None,
        script: Some(ScriptBuf::from_bytes([0; 100].to_vec())),
        unlock: Unlock::Nothing,
        key: SigningKey::Payment,
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        lock_time: LockTime::from_consensus(lock_time),
        version: bitcoin::transaction::Version::TWO,
    }));
    claim(vout, path, left)
}

fn timeout(vout: u32, lock_time: u32, left: Option<u32>) -> Claim {
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: vec![input(vout)],
        output: vec![TxOut { value: Amount::from_sat(10_000), script_pubkey: ScriptBuf::new() }],
    };
    let remote_signature = Signature::from_compact(&[1; 64]).expect("in range");
    let path = SpendPath::SecondStage(Box::new(SecondStage {
        htlc: HtlcId { offerer: Side::Local, id: u64::from(vout) },
        transaction,
        script: ScriptBuf::from_bytes([0; 130].to_vec()),
        key: SigningKey::Payment,
        remote_signature,
        extensible: Extensible::Yes,
        preimage: None,
    }));
    claim(vout, path, left)
}

fn out(kind: TxKind, vouts: &[u32], coins: &[u32]) -> HandedOut {
    let input = |vout: &u32| input(*vout);
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vouts.iter().chain(coins).map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(9_000), script_pubkey: home() }],
    };
    HandedOut {
        kind,
        transaction: transaction.into(),
        claims: vouts.iter().copied().map(outpoint).collect(),
        others: vec![],
        coins: coins.iter().copied().map(outpoint).collect(),
        fee: Amount::from_sat(1_000),
        at: BlockHeight(950),
    }
}

fn past<'a>(claims: &'a [Claim], acts: &'a Acts) -> Past<'a> {
    Past::of(&[Part { claims, acts, joining: Joining::Never }])
}

fn acts(handed_out: &[HandedOut]) -> Acts {
    Acts { handed_out: handed_out.to_vec(), ..Acts::default() }
}

/// The groups as outputs, and what was done about each.
fn formed(claims: &[Claim], acts: &Acts) -> Vec<(Vec<u32>, &'static str)> {
    let told = |standing: &Standing<'_>| match standing {
        Standing::New => "new",
        Standing::Live(..) => "live",
        Standing::Apart(..) => "apart",
        Standing::Anew(_) => "anew",
    };
    let vouts = |group: &Group<'_>| group.claims.iter().map(|c| c.outpoint.vout).collect();
    let past = past(claims, acts);
    form(claims, &past, TIP).iter().map(|group| (vouts(group), told(&group.standing))).collect()
}

#[test]
fn what_is_alike_goes_together() {
    let claims = [
        single(0, TxKind::Penalty, 0, Some(144)),
        single(1, TxKind::Penalty, 0, Some(90)),
        single(2, TxKind::Sweep, 0, None),
        single(3, TxKind::Claim, 0, Some(40)),
        single(4, TxKind::Claim, 0, Some(52)),
        single(5, TxKind::Claim, 0, Some(53)),
        single(6, TxKind::Claim, 0, None),
        single(7, TxKind::Claim, 990, Some(40)),
        single(8, TxKind::Claim, 995, Some(40)),
        timeout(9, 990, None),
        timeout(10, 990, None),
        timeout(11, 991, None),
        single(12, TxKind::Sweep, 0, None),
    ];
    let groups: Vec<Vec<u32>> =
        formed(&claims, &Acts::default()).into_iter().map(|(vouts, _)| vouts).collect();
    let expected: [&[u32]; 9] =
        [&[0, 1], &[2, 12], &[3, 4], &[5], &[6], &[7], &[8], &[9, 10], &[11]];
    assert_eq!(groups, expected);
}

#[test]
fn versions_do_not_mix() {
    let claims = [Version::TWO, TRUC, Version::TWO, TRUC].into_iter().zip(0..);
    let claims: Vec<Claim> = claims
        .map(|(version, vout)| {
            let mut claim = single(vout, TxKind::Penalty, 0, Some(144));
            if let SpendPath::Single(single) = &mut claim.path {
                single.version = version;
            }
            claim
        })
        .collect();
    let apart = [(vec![0, 2], "new"), (vec![1, 3], "new")];
    assert_eq!(formed(&claims, &Acts::default()), apart);
}

#[test]
fn penalties_part_when_the_security_delay_is_reached() {
    let near = [
        single(0, TxKind::Penalty, 0, Some(PENALTY_APART)),
        single(1, TxKind::Penalty, 0, Some(PENALTY_APART)),
        single(2, TxKind::Penalty, 0, Some(PENALTY_APART + 1)),
        single(3, TxKind::Penalty, 0, Some(PENALTY_APART + 1)),
    ];
    let new = |vouts: &[u32]| (vouts.to_vec(), "new");
    assert_eq!(formed(&near, &Acts::default()), [new(&[0]), new(&[1]), new(&[2, 3])]);
    // What is in one transaction by then is taken apart, by way of a first one.
    let all = acts(&[out(TxKind::Penalty, &[0, 1, 2, 3], &[])]);
    assert_eq!(formed(&near, &all), [(vec![0, 1, 2, 3], "apart")]);
    let first = acts(&[out(TxKind::Penalty, &[0, 1, 2, 3], &[]), out(TxKind::Penalty, &[1], &[])]);
    // From then on each goes by itself: those that went together again would be taken apart again.
    let expected = [new(&[0]), (vec![1], "live"), new(&[2]), new(&[3])];
    assert_eq!(formed(&near, &first), expected);
}

#[test]
fn htlcs_of_the_peers_commitment_part_where_one_may_be_pinned() {
    let claims = |kind, unlock: &Unlock, left: [u32; 3]| -> Vec<Claim> {
        let claims = left.into_iter().zip(0..).map(|(left, vout)| {
            let mut claim = single(vout, kind, 0, Some(left));
            if let SpendPath::Single(single) = &mut claim.path {
                single.unlock = unlock.clone();
            }
            claim
        });
        claims.collect()
    };
    let together = vec![(vec![0, 1, 2], "new")];
    let apart = vec![(vec![0], "new"), (vec![1], "new"), (vec![2], "new")];
    let formed = |claims: &[Claim]| formed(claims, &Acts::default());
    // By timeout: the peer can take it by its preimage whenever it wants.
    assert_eq!(formed(&claims(TxKind::Claim, &Unlock::Empty, [PINNED + 1; 3])), together);
    assert_eq!(formed(&claims(TxKind::Claim, &Unlock::Empty, [PINNED; 3])), apart);
    // By preimage: the peer can take it from the deadline on.
    let preimage = Unlock::Preimage(crate::ids::Preimage([7; 32]));
    assert_eq!(formed(&claims(TxKind::Claim, &preimage, [1; 3])), together);
    assert_eq!(formed(&claims(TxKind::Claim, &preimage, [0; 3])), apart);
    // Nobody else can take what is swept, whenever the operator wants it.
    assert_eq!(formed(&claims(TxKind::Sweep, &Unlock::Empty, [0; 3])), together);
    // What is in one transaction is taken apart.
    let log = acts(&[out(TxKind::Claim, &[0, 1, 2], &[])]);
    let near = claims(TxKind::Claim, &Unlock::Empty, [PINNED; 3]);
    assert_eq!(self::formed(&near, &log), [(vec![0, 1, 2], "apart")]);
}

#[test]
fn what_is_to_go_elsewhere_is_made_anew() {
    let mut two = [0, 1].map(|vout| single(vout, TxKind::Claim, 0, None));
    let log = acts(&[out(TxKind::Claim, &[0, 1], &[])]);
    assert_eq!(formed(&two, &log), [(vec![0, 1], "live")]);
    for claim in &mut two {
        claim.destination = ScriptBuf::from_bytes([0x52].to_vec());
    }
    assert_eq!(formed(&two, &log), [(vec![0, 1], "apart")]);
}

#[test]
fn a_transaction_holds_its_claims_until_one_of_them_is_lost() {
    let three = [0, 1, 2].map(|vout| single(vout, TxKind::Claim, 0, None));
    let past = acts(&[out(TxKind::Claim, &[0, 1], &[])]);
    assert_eq!(formed(&three, &past), [(vec![0, 1], "live"), (vec![2], "new")]);
    // Output 1 is spent by somebody else: what is left is formed anew, in the same block.
    let two = [three[0].clone(), three[2].clone()];
    assert_eq!(formed(&two, &past), [(vec![0, 2], "new")]);
    // And back again.
    assert_eq!(formed(&three, &past), [(vec![0, 1], "live"), (vec![2], "new")]);
    // The newest one that is possible counts.
    let past = acts(&[out(TxKind::Claim, &[0, 2], &[]), out(TxKind::Claim, &[0, 1, 2], &[])]);
    assert_eq!(formed(&two, &past), [(vec![0, 2], "live")]);
    assert_eq!(formed(&three, &past), [(vec![0, 1, 2], "live")]);
    // One that lost its coin to a newer one is in no mempool.
    let past = acts(&[out(TxKind::Claim, &[0, 1], &[9]), out(TxKind::Claim, &[2], &[9])]);
    assert_eq!(formed(&three, &past), [(vec![0, 1], "new"), (vec![2], "live")]);
}

#[test]
fn what_is_refused_together_is_tried_apart() {
    let three = [0, 1, 2].map(|vout| single(vout, TxKind::Claim, 0, None));
    let together = out(TxKind::Claim, &[0, 1, 2], &[]);
    let txid = together.transaction.compute_txid();
    let refused = |why, last| {
        let mut acts = acts(core::slice::from_ref(&together));
        acts.rejected.insert(txid, Rejections { why, last });
        acts
    };
    let before = BlockHeight(TIP.0 - 1);
    let apart = [(vec![0, 1], "new"), (vec![2], "new")];
    assert_eq!(formed(&three, &refused(Refusal::Conflict, before)), apart);
    assert_eq!(formed(&three, &refused(Refusal::Invalid, TIP)), apart);
    // The good half holds; the bad one is cut again.
    let mut past = refused(Refusal::Invalid, TIP);
    past.handed_out.extend([out(TxKind::Claim, &[0, 1], &[]), out(TxKind::Claim, &[2], &[])]);
    assert_eq!(formed(&three, &past), [(vec![0, 1], "live"), (vec![2], "live")]);
    let half = out(TxKind::Claim, &[0, 1], &[]).transaction.compute_txid();
    past.rejected.insert(half, Rejections { why: Refusal::Invalid, last: TIP });
    assert_eq!(formed(&three, &past), [(vec![0], "new"), (vec![1], "new"), (vec![2], "live")]);
    let live = [(vec![0, 1, 2], "live")];
    assert_eq!(formed(&three, &refused(Refusal::Fee, before)), live);
    assert_eq!(formed(&three, &refused(Refusal::Conflict, TIP)), live, "not in the same block");
}

#[test]
fn what_another_spends_unconfirmed_is_claimed_by_itself() {
    let three = [0, 1, 2].map(|vout| single(vout, TxKind::Claim, 0, None));
    let mut past = acts(&[out(TxKind::Claim, &[0, 1, 2], &[])]);
    past.contested.insert(outpoint(1));
    assert_eq!(formed(&three, &past), [(vec![0, 2], "new"), (vec![1], "new")]);
    past.handed_out.extend([out(TxKind::Claim, &[0, 2], &[]), out(TxKind::Claim, &[1], &[])]);
    assert_eq!(formed(&three, &past), [(vec![0, 2], "live"), (vec![1], "live")]);
}

#[test]
fn a_transaction_is_never_too_heavy() {
    let of_version = |version| {
        move |vout| {
            let mut claim = single(vout, TxKind::Penalty, 0, Some(144));
            if let SpendPath::Single(single) = &mut claim.path {
                single.version = version;
            }
            claim
        }
    };
    for (version, most, room) in [(Version::TWO, 400_000, 25_000), (TRUC, 40_000, 10_000)] {
        let claims: Vec<Claim> = (0..2_500).map(of_version(version)).collect();
        let nothing = Acts::default();
        let past = past(&claims, &nothing);
        let groups = form(&claims, &past, TIP);
        assert_eq!(groups.iter().map(|group| group.claims.len()).sum::<usize>(), 2_500);
        let weight = |group: &Group<'_>| -> u64 {
            group.claims.iter().map(|claim| marginal_weight(claim).to_wu()).sum()
        };
        let weights: Vec<u64> = groups.iter().map(weight).collect();
        assert!(weights.iter().all(|weight| *weight <= most), "{weights:?}");
        // As few as there can be: the last one alone is not full.
        let full = weights.iter().filter(|weight| **weight + room >= most).count();
        assert_eq!(full, weights.len() - 1, "{weights:?}");
        assert!(full >= 1);
    }
}

#[test]
fn channels_are_joined_only_where_they_may_and_go_together() {
    let of = |channel: u8, mut claim: Claim| {
        claim.channel = ChannelId([channel; 32]);
        claim
    };
    let mut elsewhere = of(4, single(3, TxKind::Sweep, 0, None));
    elsewhere.destination = ScriptBuf::from_bytes([0x52].to_vec());
    let claims = [
        of(1, single(0, TxKind::Sweep, 0, None)),
        of(2, single(1, TxKind::Sweep, 0, None)),
        of(2, single(2, TxKind::Claim, 0, None)),
        elsewhere,
        of(1, timeout(4, 990, Some(30))),
        of(3, timeout(5, 990, Some(40))),
        of(3, timeout(6, 991, Some(40))),
    ];
    let nothing = Acts::default();
    let formed_but = |joining, alone: &[u8]| {
        let mut parts = Vec::new();
        for claim in &claims {
            let is_alone = alone.iter().any(|channel| ChannelId([*channel; 32]) == claim.channel);
            let joining = if is_alone { Joining::Never } else { joining };
            parts.push(Part { claims: core::slice::from_ref(claim), acts: &nothing, joining });
        }
        let past = Past::of(&parts);
        let vouts = |group: &Group<'_>| group.claims.iter().map(|c| c.outpoint.vout).collect();
        form(&claims, &past, TIP).iter().map(vouts).collect::<Vec<Vec<u32>>>()
    };
    let formed = |joining| formed_but(joining, &[]);
    let never: [&[u32]; 7] = [&[0], &[1], &[2], &[3], &[4], &[5], &[6]];
    assert_eq!(formed(Joining::Never), never);
    let allowed: [&[u32]; 5] = [&[0, 1], &[2], &[3], &[4, 5], &[6]];
    assert_eq!(formed(Joining::Allowed), allowed);
    // One channel by itself, for whatever reason.
    let alone: [&[u32]; 6] = [&[0], &[1], &[2], &[3], &[4, 5], &[6]];
    assert_eq!(formed_but(Joining::Allowed, &[2]), alone);
}

#[test]
fn what_was_made_with_others_is_replaced_without_them_once_they_stand_alone() {
    let of = |channel: u8, vout| {
        let claim = single(vout, TxKind::Penalty, 0, Some(100));
        Claim { channel: ChannelId([channel; 32]), ..claim }
    };
    let claims = [[of(1, 0), of(1, 1)], [of(2, 2), of(2, 3)]];
    let log = acts(&[out(TxKind::Penalty, &[0, 1, 2, 3], &[])]);
    let parts = |joining: [Joining; 2], log: &Acts| -> Vec<Vec<u32>> {
        let part = |at: usize| Part { claims: &claims[at], acts: log, joining: joining[at] };
        let parts = [part(0), part(1)];
        let past = Past::of(&parts);
        let groups = form(claims.iter().flatten(), &past, TIP);
        let vouts = |part: &Vec<&Claim>| part.iter().map(|c| c.outpoint.vout).collect();
        groups
            .iter()
            .flat_map(|group| match &group.standing {
                Standing::Live(_, parts) => parts.iter().map(vouts).collect::<Vec<_>>(),
                _ => vec![vouts(&group.claims)],
            })
            .collect()
    };
    let whole: &[&[u32]] = &[&[0, 1, 2, 3]];
    let apart: &[&[u32]] = &[&[2, 3], &[0, 1]];
    assert_eq!(parts([Joining::Allowed; 2], &log), whole);
    assert_eq!(parts([Joining::Never, Joining::Allowed], &log), apart);
}

fn any_claim(vout: u32) -> impl Strategy<Value = Claim> {
    let left = || prop::option::of(0u32..200);
    let kind = prop_oneof![Just(TxKind::Penalty), Just(TxKind::Sweep), Just(TxKind::Claim)];
    prop_oneof![
        (kind, prop_oneof![Just(0u32), Just(990)], left())
            .prop_map(move |(kind, lock, left)| single(vout, kind, lock, left)),
        (prop_oneof![Just(990u32), Just(991)], left())
            .prop_map(move |(lock, left)| timeout(vout, lock, left)),
    ]
}

prop_compose! {
    fn any_claims()(
        claims in (0u32..12).prop_flat_map(|count| (0..count).map(any_claim).collect::<Vec<_>>()),
    ) -> Vec<Claim> {
        claims
    }
}

prop_compose! {
    /// Anything that may have been handed out, of these claims and of others that are spent by now.
    fn any_out()(
        kind in prop_oneof![
            Just(TxKind::Penalty), Just(TxKind::Sweep), Just(TxKind::Claim), Just(TxKind::HtlcTimeout)
        ],
        vouts in prop::collection::btree_set(0u32..14, 1..5),
        coins in prop::collection::vec(50u32..53, 0..2),
    ) -> HandedOut {
        out(kind, &vouts.into_iter().collect::<Vec<_>>(), &coins)
    }
}

proptest! {
    #[test]
    fn every_claim_is_in_exactly_one_group_whatever_the_order(
        claims in any_claims(),
        outs in prop::collection::vec((any_out(), prop::option::of(0u8..3)), 0..6),
        contested in prop::collection::btree_set(0u32..12, 0..3),
        turn in 0usize..12,
    ) {
        let mut past = acts(&outs.iter().map(|(out, _)| out.clone()).collect::<Vec<_>>());
        past.contested = contested.into_iter().map(outpoint).collect();
        for (out, refused) in &outs {
            let why = match refused {
                Some(0) => Refusal::Fee,
                Some(1) => Refusal::Conflict,
                Some(_) => Refusal::Invalid,
                None => continue,
            };
            let rejections = Rejections { why, last: BlockHeight(999) };
            past.rejected.insert(out.txid(), rejections);
        }
        let read = super::tests::past(&claims, &past);
        let groups = form(&claims, &read, TIP);
        let mut grouped: Vec<OutPoint> =
            groups.iter().flat_map(|g| g.claims.iter().map(|c| c.outpoint)).collect();
        grouped.sort_unstable();
        let given: Vec<OutPoint> = claims.iter().map(|claim| claim.outpoint).collect();
        prop_assert_eq!(grouped, given);
        for group in &groups {
            prop_assert!(group.claims.windows(2).all(|two| two[0].outpoint < two[1].outpoint));
            let apart = group.claims.iter().any(|c| past.contested.contains(&c.outpoint));
            prop_assert!(!apart || group.claims.len() == 1);
            if let Standing::New = group.standing {
                prop_assert!(group.claims.windows(2).all(|two| key(two[0], &read) == key(two[1], &read)));
            }
        }
        let mut turned = claims.clone();
        turned.rotate_left(turn.min(claims.len()));
        turned.reverse();
        prop_assert_eq!(formed(&turned, &past), formed(&claims, &past));
    }
}

/// The same claims and the same past, told by the logs of three channels.
fn told_by_three(claims: &[Claim], past: &Acts) -> (Vec<Vec<Claim>>, Vec<Acts>) {
    let of = |outpoint: &OutPoint| (outpoint.vout % 3) as u8;
    let id = |channel| ChannelId([channel; 32]);
    let own = |channel| {
        let own = claims.iter().filter(|claim| of(&claim.outpoint) == channel);
        own.map(|claim| Claim { channel: id(channel), ..claim.clone() }).collect()
    };
    let log = |channel| {
        let mut log = Acts { contested: past.contested.clone(), ..Acts::default() };
        for out in &past.handed_out {
            let (claims, others): (Vec<_>, Vec<_>) =
                out.claims.iter().partition(|outpoint| of(outpoint) == channel);
            if !claims.is_empty() {
                log.rejected.extend(past.rejected.get(&out.txid()).map(|why| (out.txid(), *why)));
                log.handed_out.push(HandedOut { claims, others, ..out.clone() });
            }
        }
        log
    };
    (0..3).map(|channel| (own(channel), log(channel))).unzip()
}

proptest! {
    /// What happens to one channel's output re-forms the groups of all of them.
    #[test]
    fn several_channels_are_grouped_as_one_would_be(
        claims in any_claims(),
        outs in prop::collection::vec((any_out(), prop::option::of(0u8..3)), 0..6),
        contested in prop::collection::btree_set(0u32..12, 0..3),
    ) {
        let mut past = acts(&outs.iter().map(|(out, _)| out.clone()).collect::<Vec<_>>());
        past.contested = contested.into_iter().map(outpoint).collect();
        for (out, refused) in &outs {
            if let Some(refused) = refused {
                let why = [Refusal::Fee, Refusal::Conflict, Refusal::Invalid][usize::from(*refused)];
                let rejections = Rejections { why, last: BlockHeight(999) };
                past.rejected.insert(out.txid(), rejections);
            }
        }
        let (claims_of, logs) = told_by_three(&claims, &past);
        let part = |at: usize, joining| Part { claims: &claims_of[at], acts: &logs[at], joining };
        let told = |order: [usize; 3], joining| {
            let parts = order.map(|at| part(at, joining));
            let past = Past::of(&parts);
            let all = parts.iter().flat_map(|part| part.claims);
            let vouts = |group: &Group<'_>| -> Vec<u32> {
                group.claims.iter().map(|claim| claim.outpoint.vout).collect()
            };
            form(all, &past, TIP).iter().map(vouts).collect::<Vec<_>>()
        };
        for joining in [Joining::Allowed, Joining::Never] {
            let groups = told([0, 1, 2], joining);
            let mut grouped: Vec<u32> = groups.iter().flatten().copied().collect();
            grouped.sort_unstable();
            let given: Vec<u32> = claims.iter().map(|claim| claim.outpoint.vout).collect();
            prop_assert_eq!(grouped, given);
            prop_assert_eq!(told([2, 0, 1], joining), groups);
        }
        let one: Vec<Vec<u32>> = formed(&claims, &past).into_iter().map(|(vouts, _)| vouts).collect();
        if past.handed_out.is_empty() {
            prop_assert_eq!(told([0, 1, 2], Joining::Allowed), one);
        }
    }
}
