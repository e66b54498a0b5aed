//! Our own commitments: signatures, balances, counts, numbers.
use super::world::{CAPACITY, World, funding_outpoint, number, offered, received, terms};
use crate::facts::update::verify::check_transaction;
use crate::facts::{LocalCommitment, Update, UpdateError};
use crate::format::{
    BuildError, CommitmentFormat, CommitmentKeys, CommitmentSpec, ObscuringFactor, build,
};
use crate::ids::{HtlcId, Side};
use crate::units::{CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::Amount;
use bitcoin::secp256k1::ecdsa;
use bitcoin::sighash::EcdsaSighashType;
use std::vec::Vec;

const FORMATS: [CommitmentFormat; 3] =
    [CommitmentFormat::StaticRemotekey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee];

fn update(commitment: LocalCommitment) -> Update {
    Update::LocalCommitment { funding: funding_outpoint(0), commitment }
}

fn world_with_htlcs(format: CommitmentFormat) -> World {
    let mut world = World::new(format);
    for id in [offered(0), offered(1), received(0)] {
        world.add(id);
    }
    world
}

const HTLCS: [HtlcId; 3] = [
    HtlcId { offerer: Side::Local, id: 0 },
    HtlcId { offerer: Side::Local, id: 1 },
    HtlcId { offerer: Side::Remote, id: 0 },
];

/// The same signature with high S.
fn high_s(signature: &ecdsa::Signature) -> ecdsa::Signature {
    let order = bitcoin::secp256k1::constants::CURVE_ORDER;
    let mut bytes = signature.serialize_compact();
    let mut borrow = 0i16;
    for (at, digit) in order.iter().enumerate().rev() {
        let difference = i16::from(*digit) - i16::from(bytes[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        bytes[32 + at] = u8::try_from(difference.rem_euclid(256)).expect("a byte");
    }
    ecdsa::Signature::from_compact(&bytes).expect("a signature")
}

#[test]
fn signed_commitments_are_accepted() {
    for format in FORMATS {
        let mut world = world_with_htlcs(format);
        assert_eq!(world.accept_local(1, &HTLCS), []);
        let local = &world.facts.candidates.current.local;
        assert_eq!(local, &world.local(1, &HTLCS));
        assert_eq!(local.htlc_signatures.len(), 3);
    }
}

#[test]
fn the_same_again_changes_nothing_and_another_is_refused() {
    let mut world = world_with_htlcs(CommitmentFormat::Anchors);
    world.accept_local(1, &HTLCS);
    world.accept_unchanged(&world.local_update(1, &HTLCS));
    let other = world.refuse(&world.local_update(1, &HTLCS[..2]));
    assert_eq!(other, UpdateError::CommitmentConflict(number(1)));
}

#[test]
fn numbers_grow_and_may_be_left_out() {
    let mut world = world_with_htlcs(CommitmentFormat::Anchors);
    world.accept_local(7, &HTLCS);
    let old = world.refuse(&world.local_update(6, &HTLCS));
    assert_eq!(old, UpdateError::LocalNumberTooOld { stated: number(6), current: number(7) });
    let mut past = world.local(8, &[]);
    past.number = CommitmentNumber(1 << 48);
    let expected = BuildError::NumberOutOfRange(past.number);
    assert_eq!(world.refuse(&update(past)), UpdateError::Commitment(expected));
}

#[test]
fn a_wrong_or_high_s_commitment_signature_is_refused() {
    for format in FORMATS {
        let world = world_with_htlcs(format);
        let good = world.local(1, &HTLCS);
        let mut wrong = good.clone();
        wrong.signature = world.local(2, &HTLCS).signature;
        assert_eq!(world.refuse(&update(wrong)), UpdateError::CommitmentSignature);
        let mut high = good.clone();
        high.signature = high_s(&good.signature);
        let mut lowered = high.signature;
        lowered.normalize_s();
        assert_eq!(lowered, good.signature, "the same signature but for its S");
        assert_eq!(world.refuse(&update(high)), UpdateError::CommitmentSignature);
    }
}

// incident cve-2020-26895
#[test]
fn a_wrong_or_high_s_htlc_signature_is_refused() {
    for format in FORMATS {
        let world = world_with_htlcs(format);
        let good = world.local(1, &HTLCS);
        // Output order: by value, so received 0 or offered 0 first, offered 1 last.
        let last = UpdateError::HtlcSignature(offered(1));
        let mut wrong = good.clone();
        wrong.htlc_signatures[2] = good.htlc_signatures[1];
        assert_eq!(world.refuse(&update(wrong)), last);
        let mut high = good.clone();
        high.htlc_signatures[2] = high_s(&good.htlc_signatures[2]);
        assert_eq!(world.refuse(&update(high)), last);
    }
}

#[test]
fn an_htlc_signature_of_another_sighash_type_is_refused() {
    let single = EcdsaSighashType::SinglePlusAnyoneCanPay;
    for (format, other) in [
        (CommitmentFormat::Anchors, EcdsaSighashType::All),
        (CommitmentFormat::ZeroFee, EcdsaSighashType::All),
        (CommitmentFormat::StaticRemotekey, single),
    ] {
        let world = world_with_htlcs(format);
        let mut commitment = world.local(1, &[offered(0)]);
        world.sign_as(0, &mut commitment, other);
        let refused = UpdateError::HtlcSignature(offered(0));
        assert_eq!(world.refuse(&update(commitment)), refused);
    }
}

#[test]
fn htlc_signatures_are_counted() {
    let world = world_with_htlcs(CommitmentFormat::Anchors);
    let mut missing = world.local(1, &HTLCS);
    missing.htlc_signatures.pop();
    let expected = UpdateError::HtlcSignatureCount { expected: 3, stated: 2 };
    assert_eq!(world.refuse(&update(missing)), expected);
    let mut surplus = world.local(1, &HTLCS);
    surplus.htlc_signatures.push(surplus.signature);
    let expected = UpdateError::HtlcSignatureCount { expected: 3, stated: 4 };
    assert_eq!(world.refuse(&update(surplus)), expected);
}

#[test]
fn a_trimmed_htlc_has_no_signature() {
    for (format, kept) in [(CommitmentFormat::StaticRemotekey, 0), (CommitmentFormat::Anchors, 3)] {
        let mut world = world_with_htlcs(format);
        let mut commitment = world.local(1, &HTLCS);
        // HTLC transactions at this feerate cost more than any of the HTLCs is worth.
        commitment.feerate = FeeratePerKw(20_000);
        let commitment = world.signed(0, commitment);
        assert_eq!(commitment.htlc_signatures.len(), kept);
        assert_eq!(world.accept(&update(commitment)), []);
    }
}

#[test]
fn the_peer_may_sign_the_same_anew() {
    let mut world = world_with_htlcs(CommitmentFormat::Anchors);
    let first = world.signed(0, world.local(1, &HTLCS));
    world.accept(&update(first.clone()));
    let anew = world.signed_anew(&first);
    assert_ne!(anew.signature, first.signature);
    world.accept_unchanged(&update(anew.clone()));
    let mut wrong = anew;
    wrong.htlc_signatures.swap(0, 1);
    assert!(matches!(world.refuse(&update(wrong)), UpdateError::HtlcSignature(_)));
    let foreign = world.signed(0, world.local(2, &HTLCS)).signature;
    let wrong = LocalCommitment { signature: foreign, ..first.clone() };
    assert_eq!(world.refuse(&update(wrong)), UpdateError::CommitmentSignature);
    // It is the same in nothing but its number.
    let other = world.signed(0, world.local(1, &HTLCS[..2]));
    assert_eq!(world.refuse(&update(other)), UpdateError::CommitmentConflict(number(1)));
}

#[test]
fn balances_add_up_to_the_capacity() {
    let world = world_with_htlcs(CommitmentFormat::Anchors);
    for (change, stated) in [(1, 1_000_000_001), (-1, 999_999_999)] {
        let mut commitment = world.local(1, &HTLCS);
        let balance = commitment.remote_balance.0.checked_add_signed(change);
        commitment.remote_balance = MilliSat(balance.expect("positive"));
        let expected = BuildError::BalanceMismatch {
            stated: MilliSat(stated),
            capacity: MilliSat::from_amount(CAPACITY),
        };
        assert_eq!(world.refuse(&update(commitment)), UpdateError::Commitment(expected));
    }
}

#[test]
fn an_opener_that_cannot_pay_for_anchors_is_refused() {
    let world = world_with_htlcs(CommitmentFormat::Anchors);
    let mut commitment = world.local(1, &[offered(0)]);
    commitment.local_balance = MilliSat(0);
    commitment.remote_balance =
        MilliSat::from_amount(CAPACITY).checked_sub(terms(offered(0)).amount).expect("positive");
    let expected = UpdateError::Commitment(BuildError::Overspent);
    assert_eq!(world.refuse(&update(commitment)), expected);
}

#[test]
fn htlcs_are_known_and_listed_once() {
    let world = world_with_htlcs(CommitmentFormat::Anchors);
    let unknown = world.refuse(&world.local_update(1, &[offered(9)]));
    assert_eq!(unknown, UpdateError::UnknownHtlc(offered(9)));
    let twice = world.refuse(&world.local_update(1, &[offered(0), offered(0)]));
    assert_eq!(twice, UpdateError::Commitment(BuildError::DuplicateHtlc(offered(0))));
}

#[test]
fn at_most_483_htlcs_in_each_direction() {
    check_at_most(483, CommitmentFormat::Anchors);
}

// bolt B14
#[test]
fn at_most_114_htlcs_in_each_direction_without_fees() {
    check_at_most(114, CommitmentFormat::ZeroFee);
}

fn check_at_most(most: usize, format: CommitmentFormat) {
    let more = most + 1;
    for (id, offerer) in [(offered as fn(u64) -> HtlcId, Side::Local), (received, Side::Remote)] {
        let mut world = World::new(format);
        let ids: Vec<HtlcId> = (0..=484).map(id).collect();
        // Many HTLCs do not fit into the balances unless they are small, and so trimmed.
        let small = MilliSat(500_000);
        for id in &ids {
            let mut htlc = terms(*id);
            htlc.amount = small;
            let record = crate::facts::HtlcRecord { htlc, remote_from: None, remote_until: None };
            world.facts.htlcs.insert(*id, record);
        }
        let stated = |count: usize| {
            let mut commitment = world.local(1, &[]);
            commitment.htlcs = ids[..count].to_vec();
            let taken = MilliSat(small.0 * u64::try_from(count).expect("small"));
            let balance = match offerer {
                Side::Local => &mut commitment.local_balance,
                Side::Remote => &mut commitment.remote_balance,
            };
            *balance = balance.checked_sub(taken).expect("positive");
            update(world.signed(0, commitment))
        };
        let expected = UpdateError::TooManyHtlcs { offerer, count: more };
        assert_eq!(world.refuse(&stated(more)), expected);
        assert!(world.facts.updated(&stated(most), &world.secp).is_ok());
    }
}

// bolt B14
#[test]
fn commitments_without_fees_have_no_feerate() {
    let world = world_with_htlcs(CommitmentFormat::ZeroFee);
    let mut commitment = world.local(1, &HTLCS);
    commitment.feerate = FeeratePerKw(253);
    let expected = UpdateError::Commitment(BuildError::Feerate(FeeratePerKw(253)));
    assert_eq!(world.refuse(&update(commitment)), expected);
}

#[test]
fn a_full_commitment_without_fees_is_relayed() {
    let mut world = World::new(CommitmentFormat::ZeroFee);
    // Large enough for 228 outputs, and for their amounts to stand in the balances.
    let ids: Vec<HtlcId> = (0..114).flat_map(|id| [offered(id), received(id)]).collect();
    let small = MilliSat(1_000_000);
    for id in &ids {
        let htlc = crate::facts::Htlc { amount: small, ..terms(*id) };
        let record = crate::facts::HtlcRecord { htlc, remote_from: None, remote_until: None };
        world.facts.htlcs.insert(*id, record);
    }
    let mut commitment = world.local(1, &[]);
    commitment.htlcs = ids;
    for balance in [&mut commitment.local_balance, &mut commitment.remote_balance] {
        *balance = balance.checked_sub(MilliSat(114 * small.0)).expect("positive");
    }
    let commitment = world.signed(0, commitment);
    assert_eq!(commitment.htlc_signatures.len(), 228);
    assert!(world.facts.updated(&update(commitment), &world.secp).is_ok());
}

#[test]
fn a_commitment_without_outputs_is_refused() {
    let mut world = World::new(CommitmentFormat::StaticRemotekey);
    world.facts.candidates.current.capacity = Amount::from_sat(1_000);
    let mut commitment = world.local(1, &[]);
    commitment.local_balance = MilliSat(500_000);
    commitment.remote_balance = MilliSat(500_000);
    let commitment = world.signed(0, commitment);
    assert_eq!(world.refuse(&update(commitment)), UpdateError::NoOutputs);
}

#[test]
fn a_commitment_is_light_enough_to_be_relayed() {
    let world = World::new(CommitmentFormat::Anchors);
    let facts = &world.facts;
    let built = |count: u64| {
        let htlcs: Vec<_> = (0..count).map(|id| (offered(id), terms(offered(id)))).collect();
        let sum = htlcs.iter().fold(MilliSat(1_000_000_000), |sum, (_, h)| sum.plus(h.amount));
        let capacity = Amount::from_sat(sum.0 / 1000);
        let point = facts.candidates.current.local.point;
        let funding = &facts.candidates.current.keys;
        build(CommitmentSpec {
            format: CommitmentFormat::Anchors,
            opener: Side::Local,
            funding: funding_outpoint(0),
            capacity,
            factor: ObscuringFactor::of(facts),
            number: number(1),
            keys: CommitmentKeys::new(facts, funding, Side::Local, point, &world.secp)
                .expect("keys"),
            delay: facts.local.delay,
            dust_limit: facts.local.dust_limit,
            feerate: FeeratePerKw(0),
            local_balance: MilliSat(500_000_000),
            remote_balance: MilliSat(500_000_000),
            htlcs,
        })
        .expect("a commitment")
    };
    // Without HTLCs 1,122, counted in three bytes; 172 for each.
    assert_eq!(check_transaction(&built(2319)), Ok(()));
    let heavy = built(2320);
    let weight = heavy.signed_weight();
    assert!(weight.to_wu() > 400_000);
    assert_eq!(check_transaction(&heavy), Err(UpdateError::TooHeavy(weight)));
}

#[test]
fn a_candidate_is_found_by_its_funding_output() {
    let mut world = world_with_htlcs(CommitmentFormat::Anchors).with_splice();
    let mut commitment = world.local(1, &HTLCS);
    let unknown =
        Update::LocalCommitment { funding: funding_outpoint(2), commitment: commitment.clone() };
    assert_eq!(world.refuse(&unknown), UpdateError::UnknownFunding);
    // What is signed for one candidate does not do for the other.
    let funding = funding_outpoint(1);
    let foreign = Update::LocalCommitment { funding, commitment: commitment.clone() };
    assert_eq!(world.refuse(&foreign), UpdateError::CommitmentSignature);
    commitment = world.signed(1, commitment);
    world.accept(&Update::LocalCommitment { funding, commitment });
    assert_eq!(world.facts.candidates.current.local.number, number(0));
    assert_eq!(world.facts.candidates.others[0].local.number, number(1));
}
