//! The peer's commitments: numbers, candidates, and the intervals of HTLCs.
use super::world::{World, funding_outpoint, number, offered, received};
use crate::facts::{RemoteCommitment, Update, UpdateError};
use crate::format::{BuildError, CommitmentFormat};
use crate::ids::HtlcId;
use crate::units::{CommitmentNumber, MilliSat};

fn interval(world: &World, id: HtlcId) -> (Option<CommitmentNumber>, Option<CommitmentNumber>) {
    let record = world.facts.htlcs.get(&id).expect("a live HTLC");
    (record.remote_from, record.remote_until)
}

fn on(vout: u32, commitment: RemoteCommitment) -> Update {
    Update::RemoteCommitment { funding: funding_outpoint(vout), commitment }
}

#[test]
fn the_next_number_is_one_above_the_current() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let unexpected = |stated, expected| UpdateError::UnexpectedRemoteNumber {
        stated: number(stated),
        expected: number(expected),
    };
    assert_eq!(world.refuse(&world.remote_update(2, &[])), unexpected(2, 1));
    world.accept_remote(1, &[]);
    assert_eq!(world.refuse(&world.remote_update(2, &[])), unexpected(2, 1));
    world.accept_revocation(0);
    world.accept_remote(2, &[]);
    assert_eq!(world.refuse(&world.remote_update(0, &[])), unexpected(0, 2));
}

#[test]
fn the_same_again_changes_nothing_and_another_is_refused() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_remote(1, &[offered(0)]);
    world.accept_unchanged(&world.remote_update(1, &[offered(0)]));
    let other = world.refuse(&world.remote_update(1, &[]));
    assert_eq!(other, UpdateError::CommitmentConflict(number(1)));
    // Told late: it is the current one by now.
    world.accept_revocation(0);
    world.accept_unchanged(&world.remote_update(1, &[offered(0)]));
    let other = world.refuse(&world.remote_update(1, &[]));
    assert_eq!(other, UpdateError::CommitmentConflict(number(1)));
}

#[test]
fn contents_are_checked() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    let unknown = world.refuse(&world.remote_update(1, &[received(3)]));
    assert_eq!(unknown, UpdateError::UnknownHtlc(received(3)));
    let twice = world.refuse(&world.remote_update(1, &[offered(0), offered(0)]));
    assert_eq!(twice, UpdateError::Commitment(BuildError::DuplicateHtlc(offered(0))));
    let mut short = world.remote(1, &[offered(0)]);
    short.local_balance = MilliSat(0);
    let refused = world.refuse(&on(0, short));
    assert!(matches!(refused, UpdateError::Commitment(BuildError::BalanceMismatch { .. })));
    let funding = world.refuse(&on(5, world.remote(1, &[])));
    assert_eq!(funding, UpdateError::UnknownFunding);
}

#[test]
fn an_interval_opens_with_the_first_commitment_that_lists_an_htlc() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.add(received(0));
    assert_eq!(interval(&world, offered(0)), (None, None));
    world.accept_remote(1, &[offered(0)]);
    assert_eq!(interval(&world, offered(0)), (Some(number(1)), None));
    assert_eq!(interval(&world, received(0)), (None, None));
    world.accept_revocation(0);
    world.accept_remote(2, &[offered(0), received(0)]);
    assert_eq!(interval(&world, offered(0)), (Some(number(1)), None));
    assert_eq!(interval(&world, received(0)), (Some(number(2)), None));
}

#[test]
fn an_interval_closes_with_the_first_commitment_that_lists_it_no_more() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_remote(1, &[offered(0)]);
    world.accept_revocation(0);
    world.accept_remote(2, &[]);
    assert_eq!(interval(&world, offered(0)), (Some(number(1)), Some(number(2))));
    assert_eq!(world.accept_revocation(1), [offered(0)], "our commitment never had it");
    world.accept_remote(3, &[]);
    assert!(world.facts.htlcs.is_empty());
}

#[test]
fn an_htlc_that_left_cannot_come_back() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_local(1, &[offered(0)]);
    world.accept_remote(1, &[offered(0)]);
    world.accept_revocation(0);
    world.accept_remote(2, &[]);
    assert_eq!(world.accept_revocation(1), []);
    let back = world.refuse(&world.remote_update(3, &[offered(0)]));
    assert_eq!(back, UpdateError::HtlcEnded(offered(0)));
    world.accept_remote(3, &[]);
}

#[test]
fn an_htlc_ends_with_the_last_live_commitment_that_contains_it() {
    for local_first in [true, false] {
        let mut world = World::new(CommitmentFormat::Anchors);
        world.add(offered(0));
        world.add(offered(1));
        world.accept_remote(1, &[offered(0)]);
        world.accept_revocation(0);
        world.accept_local(1, &[offered(0)]);
        world.accept_remote(2, &[]);
        let ended = if local_first {
            assert_eq!(world.accept_local(2, &[]), []);
            world.accept(&super::world::revocation(1))
        } else {
            assert_eq!(world.accept_revocation(1), []);
            world.accept(&world.local_update(2, &[]))
        };
        let [(id, record)] = ended[..] else { panic!("one HTLC ends") };
        assert_eq!(id, offered(0));
        assert!(record.in_remote(number(1)));
        assert!(!record.in_remote(number(0)) && !record.in_remote(number(2)));
        assert!(world.facts.htlcs.contains_key(&offered(1)), "just added: stays");
        assert_eq!(world.facts.htlcs.len(), 1);
    }
}

#[test]
fn candidates_agree_in_number_point_and_htlcs() {
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    world.add(offered(0));
    world.add(offered(1));
    world.accept_remote(1, &[offered(0), offered(1)]);
    let conflict = UpdateError::CandidateConflict(funding_outpoint(1));
    let fewer = world.remote(1, &[offered(0)]);
    assert_eq!(world.refuse(&on(1, fewer)), conflict);
    let mut other_point = world.remote(1, &[offered(0), offered(1)]);
    other_point.point = world.facts.remote.keys.htlc;
    assert_eq!(world.refuse(&on(1, other_point)), conflict);
    // The order of the statement does not matter.
    let good = world.remote(1, &[offered(1), offered(0)]);
    assert_eq!(world.accept(&on(1, good)), []);
    assert_eq!(interval(&world, offered(1)), (Some(number(1)), None));
}

#[test]
fn an_htlc_lives_as_long_as_any_candidate_contains_it() {
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    world.add(offered(0));
    let accept_both = |world: &mut World, at, htlcs: &[HtlcId]| {
        world.accept_remote(at, htlcs);
        let commitment = world.remote(at, htlcs);
        assert_eq!(world.accept(&on(1, commitment)), []);
    };
    accept_both(&mut world, 1, &[offered(0)]);
    world.accept_revocation(0);
    let local = world.signed(1, world.local(1, &[offered(0)]));
    let splice = funding_outpoint(1);
    world.accept(&Update::LocalCommitment { funding: splice, commitment: local });
    accept_both(&mut world, 2, &[]);
    assert_eq!(world.accept_revocation(1), [], "our commitment on the splice has it");
    let local = world.signed(1, world.local(2, &[]));
    let ended = world.accept(&Update::LocalCommitment { funding: splice, commitment: local });
    assert_eq!(ended.len(), 1);
}
