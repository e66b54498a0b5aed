//! Facts as a whole, when a channel is registered.
use super::world::{World, funding_outpoint, number, offered, received, terms};
use crate::facts::{ChannelFacts, HtlcLink, HtlcRecord, UpdateError};
use crate::format::{BuildError, CommitmentFormat};
use crate::ids::Side;
use crate::units::{BlockDelta, BlockHeight, CltvExpiry, MilliSat};
use bitcoin::Amount;

/// Both commitments contain an offered and a received HTLC; the peer's next one drops the first.
fn world() -> World {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.add(received(0));
    world.accept_remote(1, &[offered(0), received(0)]);
    world.accept_revocation(0);
    world.accept_local(1, &[offered(0), received(0)]);
    world.accept_remote(2, &[received(0)]);
    world
}

fn refused(change: impl FnOnce(&mut ChannelFacts)) -> UpdateError {
    let mut world = world();
    change(&mut world.facts);
    world.facts.verify(&world.secp).expect_err("refused")
}

#[test]
fn consistent_facts_are_accepted() {
    for format in
        [CommitmentFormat::StaticRemotekey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee]
    {
        let world = World::new(format);
        assert_eq!(world.facts.verify(&world.secp), Ok(()));
        assert_eq!(world.with_splice().facts.candidates.iter().count(), 2);
    }
    let world = world();
    assert_eq!(world.facts.verify(&world.secp), Ok(()));
    let spliced = World::new(CommitmentFormat::Anchors).with_splice();
    assert_eq!(spliced.facts.verify(&spliced.secp), Ok(()));
}

#[test]
fn dust_limits_and_delays_are_in_range() {
    let low = Amount::from_sat(353);
    assert_eq!(refused(|f| f.local.dust_limit = low), UpdateError::DustLimit(Side::Local));
    assert_eq!(refused(|f| f.remote.dust_limit = low), UpdateError::DustLimit(Side::Remote));
    let long = BlockDelta(65_536);
    assert_eq!(refused(|f| f.local.delay = long), UpdateError::Delay(Side::Local));
    assert_eq!(refused(|f| f.remote.delay = long), UpdateError::Delay(Side::Remote));
}

#[test]
fn every_commitment_is_checked() {
    let signature = refused(|f| f.candidates.current.local.number = number(2));
    assert_eq!(signature, UpdateError::CommitmentSignature);
    let remote = refused(|f| f.candidates.current.remote.local_balance = MilliSat(0));
    assert!(matches!(remote, UpdateError::Commitment(BuildError::BalanceMismatch { .. })));
    let next = refused(|f| {
        let next = f.candidates.current.remote_next.as_mut().expect("a next one");
        next.remote_balance = MilliSat(0);
    });
    assert!(matches!(next, UpdateError::Commitment(BuildError::BalanceMismatch { .. })));
    let unknown = refused(|f| {
        f.htlcs.remove(&received(0));
    });
    assert_eq!(unknown, UpdateError::UnknownHtlc(received(0)));
}

#[test]
fn the_next_remote_commitment_follows_the_current() {
    let gap = refused(|f| {
        let next = f.candidates.current.remote_next.as_mut().expect("a next one");
        next.number = number(3);
    });
    let expected = UpdateError::UnexpectedRemoteNumber { stated: number(3), expected: number(2) };
    assert_eq!(gap, expected);
}

#[test]
fn candidates_are_distinct_and_agree() {
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    let splice = UpdateError::CandidateConflict(funding_outpoint(1));
    world.facts.candidates.others[0].remote.number = number(1);
    assert_eq!(world.facts.verify(&world.secp), Err(splice));
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    world.facts.candidates.others[0].local.number = number(1);
    assert_eq!(world.facts.verify(&world.secp), Err(splice));
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    let next = world.remote(1, &[]);
    world.facts.candidates.others[0].remote_next = Some(next);
    let behind = UpdateError::CandidateBehind(funding_outpoint(1));
    assert_eq!(world.facts.verify(&world.secp), Err(behind), "the peer may have one for both");
    let mut world = World::new(CommitmentFormat::Anchors);
    world.facts.candidates.others.push(world.facts.candidates.current.clone());
    let twice = UpdateError::CandidateConflict(funding_outpoint(0));
    assert_eq!(world.facts.verify(&world.secp), Err(twice));
}

#[test]
fn intervals_agree_with_the_commitments() {
    let set = |id, from: Option<u64>, until: Option<u64>| {
        refused(|f| {
            let record = f.htlcs.get_mut(&id).expect("a record");
            record.remote_from = from.map(number);
            record.remote_until = until.map(number);
        })
    };
    let (gone, stays) =
        (UpdateError::HtlcInterval(offered(0)), UpdateError::HtlcInterval(received(0)));
    assert_eq!(set(offered(0), None, None), gone);
    assert_eq!(set(offered(0), Some(2), None), gone);
    assert_eq!(set(offered(0), Some(1), None), gone, "the next one lists it no more");
    assert_eq!(set(offered(0), Some(2), Some(1)), gone);
    assert_eq!(set(offered(0), None, Some(2)), gone);
    assert_eq!(set(received(0), Some(1), Some(2)), stays, "the next one lists it still");
}

#[test]
fn an_interval_may_begin_earlier_than_is_known() {
    let mut world = world();
    let record = world.facts.htlcs.get_mut(&received(0)).expect("a record");
    record.remote_from = Some(number(0));
    assert_eq!(world.facts.verify(&world.secp), Ok(()));
}

#[test]
fn records_are_live_or_just_added() {
    let record = |from| HtlcRecord {
        htlc: terms(offered(7)),
        remote_from: from,
        remote_until: from.map(|_| number(1)),
    };
    let ended = refused(|f| {
        f.htlcs.insert(offered(7), record(Some(number(0))));
    });
    assert_eq!(ended, UpdateError::HtlcInterval(offered(7)));
    let mut world = world();
    world.facts.htlcs.insert(offered(7), record(None));
    assert_eq!(world.facts.verify(&world.secp), Ok(()));
}

#[test]
fn terms_of_records_are_checked() {
    let link = refused(|f| {
        let record = f.htlcs.get_mut(&received(0)).expect("a record");
        record.htlc.link = HtlcLink::OwnPayment;
    });
    assert_eq!(link, UpdateError::LinkConflict(received(0)));
    let expiry = refused(|f| {
        let mut htlc = terms(offered(7));
        htlc.expiry = CltvExpiry(BlockHeight(500_000_000));
        let record = HtlcRecord { htlc, remote_from: None, remote_until: None };
        f.htlcs.insert(offered(7), record);
    });
    assert_eq!(expiry, UpdateError::ExpiryOutOfRange(offered(7)));
}

#[test]
fn secrets_reach_up_to_the_current_remote_commitment() {
    // The peer is at 1, and the secret of 0 is stored.
    let secret = crate::facts::secrets::generate_from_seed(&[5; 32], number(0)).expect("in range");
    let ahead = refused(|f| {
        let mut store = crate::facts::SecretStore::default();
        store.insert(number(1), secret).expect("the first");
        f.secrets = store;
    });
    assert_eq!(ahead, UpdateError::SecretsIncomplete { next: number(2) });
}
