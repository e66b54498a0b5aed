//! Funding candidates: added, locked, discarded.
use super::world::{World, funding_outpoint, number, offered, received, world};
use crate::facts::{FundingCandidate, FundingKeys, Update, UpdateError};
use crate::format::{BuildError, CommitmentFormat};
use crate::units::BlockHeight;
use bitcoin::Amount;
use std::boxed::Box;

fn added(candidate: &FundingCandidate) -> Update {
    let candidate = Box::new(candidate.clone());
    Update::CandidateAdded { candidate, birth: BlockHeight(7) }
}

fn locked(vout: u32) -> Update {
    Update::CandidateLocked { funding: funding_outpoint(vout) }
}

fn discarded(vout: u32) -> Update {
    Update::CandidateDiscarded { funding: funding_outpoint(vout) }
}

#[test]
fn a_candidate_is_added_once() {
    for format in
        [CommitmentFormat::StaticRemotekey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee]
    {
        let mut world = world(format);
        let splice = world.splice(funding_outpoint(1));
        world.accept(&added(&splice));
        assert_eq!(world.facts.candidates.others, std::slice::from_ref(&splice));
        world.accept_unchanged(&added(&splice));
        world.accept_unchanged(&added(&world.facts.candidates.current.clone()));
        let other = FundingCandidate { capacity: Amount::from_sat(1), ..splice };
        let conflict = UpdateError::CandidateConflict(funding_outpoint(1));
        assert_eq!(world.refuse(&added(&other)), conflict);
    }
}

#[test]
fn every_signature_for_a_candidate_is_checked() {
    let world = world(CommitmentFormat::Anchors);
    let sound = world.splice(funding_outpoint(1));
    let refused = |change: fn(&mut FundingCandidate)| {
        let mut splice = sound.clone();
        change(&mut splice);
        world.refuse(&added(&splice))
    };
    let current = world.facts.candidates.current.local.signature;
    let mut foreign = sound.clone();
    foreign.local.signature = current;
    assert_eq!(world.refuse(&added(&foreign)), UpdateError::CommitmentSignature);
    let htlc = refused(|splice| splice.local.htlc_signatures.swap(0, 1));
    assert!(matches!(htlc, UpdateError::HtlcSignature(_)), "{htlc:?}");
    let capacity = refused(|splice| splice.capacity = Amount::from_sat(999_999));
    assert!(matches!(capacity, UpdateError::Commitment(BuildError::BalanceMismatch { .. })));
    let remote = refused(|splice| splice.remote.local_balance.0 -= 1);
    assert!(matches!(remote, UpdateError::Commitment(BuildError::BalanceMismatch { .. })));
}

#[test]
fn a_candidate_is_of_one_step_with_the_others() {
    let world = world(CommitmentFormat::Anchors);
    let sound = world.splice(funding_outpoint(1));
    let refused = |change: &dyn Fn(&mut FundingCandidate)| {
        let mut splice = sound.clone();
        change(&mut splice);
        world.refuse(&added(&splice))
    };
    let conflict = UpdateError::CandidateConflict(funding_outpoint(1));
    let key = world.facts.remote.keys.htlc;
    assert_eq!(refused(&|splice| splice.local.number = number(2)), conflict);
    assert_eq!(refused(&|splice| splice.local.number = number(0)), conflict);
    assert_eq!(refused(&|splice| splice.remote.number = number(2)), conflict);
    assert_eq!(refused(&|splice| splice.local.point = key), conflict);
    assert_eq!(refused(&|splice| splice.remote.point = key), conflict);
    assert_eq!(refused(&|splice| splice.local.htlcs.truncate(1)), conflict);
    assert_eq!(refused(&|splice| splice.remote.htlcs.truncate(1)), conflict);
    let ahead = refused(&|splice| splice.remote_next = Some(world.remote(2, &[])));
    assert_eq!(ahead, UpdateError::CandidateBehind(funding_outpoint(1)));
}

#[test]
fn the_earliest_birth_counts() {
    let mut world = world(CommitmentFormat::Anchors);
    world.facts.birth = BlockHeight(9);
    let splice = world.splice(funding_outpoint(1));
    world.accept(&added(&splice));
    assert_eq!(world.facts.birth, BlockHeight(7));
    world.facts.birth = BlockHeight(5);
    let second = world.splice(funding_outpoint(2));
    world.accept(&added(&second));
    assert_eq!(world.facts.birth, BlockHeight(5));
}

#[test]
fn a_locked_candidate_goes_on_alone() {
    let mut world = world(CommitmentFormat::Anchors).with_splice();
    assert_eq!(world.refuse(&locked(2)), UpdateError::UnknownFunding);
    let before = world.facts.candidates.current.clone();
    world.accept(&locked(1));
    world.accept_unchanged(&locked(1));
    assert_eq!(world.facts.candidates.current.funding, funding_outpoint(1));
    assert_eq!(world.facts.candidates.former, std::slice::from_ref(&before));
    assert_eq!(world.facts.candidates.others, []);
    // As long as the channel did not go on it may be turned back.
    world.accept(&locked(0));
    world.accept(&locked(1));
    assert_eq!(world.facts.candidates.former, std::slice::from_ref(&before));

    let replaced = UpdateError::CandidateReplaced(funding_outpoint(0));
    let commitment = world.signed(0, world.local(2, &[]));
    let late = Update::LocalCommitment { funding: funding_outpoint(0), commitment };
    assert_eq!(world.refuse(&late), replaced);
    let commitment = world.remote(2, &[]);
    let late = Update::RemoteCommitment { funding: funding_outpoint(0), commitment };
    assert_eq!(world.refuse(&late), replaced);
    let again =
        Update::LocalCommitment { funding: funding_outpoint(0), commitment: before.local.clone() };
    world.accept_unchanged(&again);
    // The peer's revocation needs no next commitment for the former one.
    world.accept_remote(2, &[]);
    world.accept_revocation(1);
    world.accept_local(2, &[]);
    assert_eq!(world.refuse(&locked(0)), replaced);
    assert_eq!(world.facts.candidates.former, [before]);
}

#[test]
fn what_a_former_candidate_holds_is_worth_a_penalty_once_the_channel_went_on() {
    let mut world = world(CommitmentFormat::Anchors).with_splice();
    world.accept(&locked(1));
    let former = world.facts.candidates.former[0].clone();
    assert!(world.facts.is_committed(offered(0)));
    world.accept_remote(2, &[]);
    world.accept_revocation(1);
    assert!(world.facts.unrevoked_remotes(&former).next().is_none());
    assert!(world.facts.unrevoked_local(&former).is_some(), "we have not revoked");
    assert!(world.facts.is_committed(offered(0)));
    let ended = world.accept_local(2, &[]);
    assert_eq!(ended, [offered(0), received(0)], "as if the former one were not there");
    assert!(world.facts.unrevoked_local(&former).is_none());
    assert!(!world.facts.is_committed(offered(0)));
}

#[test]
fn a_candidate_is_discarded_unless_it_is_the_current_one() {
    let mut world = world(CommitmentFormat::Anchors).with_splice();
    let current = UpdateError::CandidateNeeded(funding_outpoint(0));
    assert_eq!(world.refuse(&discarded(0)), current);
    world.accept(&discarded(1));
    assert_eq!(world.facts.candidates.iter().count(), 1);
    world.accept_unchanged(&discarded(1));
    let mut world = world.with_splice();
    world.accept(&locked(1));
    world.accept(&discarded(0));
    assert_eq!(world.facts.candidates.former, []);
}

#[test]
fn a_splice_is_signed_with_the_keys_that_it_brings() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let current = world.facts.candidates.current.clone();
    let splice = world.splice(funding_outpoint(1));
    assert!(splice.keys.local != current.keys.local && splice.keys.remote != current.keys.remote);
    for keys in [
        current.keys,
        FundingKeys { local: splice.keys.local, ..current.keys },
        FundingKeys { remote: splice.keys.remote, ..current.keys },
    ] {
        let other = FundingCandidate { keys, ..splice.clone() };
        assert_eq!(world.refuse(&added(&other)), UpdateError::CommitmentSignature);
    }
    world.accept(&added(&splice));
}
