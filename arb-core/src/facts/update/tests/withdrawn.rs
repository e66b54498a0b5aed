//! The peer's next commitment, stated and never signed: another may take its place.
use super::world::{World, number, offered, received, terms, world};
use crate::facts::{Update, UpdateError};
use crate::format::CommitmentFormat;
use crate::ids::HtlcId;
use std::vec::Vec;

fn withdrawn(at: u64) -> Update {
    Update::RemoteWithdrawn { number: number(at) }
}

#[test]
fn the_next_commitment_goes_with_the_htlcs_that_it_alone_contains() {
    for format in
        [CommitmentFormat::StaticRemotekey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee]
    {
        let mut world = world(format);
        // One is in our commitment, and the peer's next would be its first with it.
        world.add(received(1));
        world.accept_local(2, &[offered(0), received(0), received(1)]);
        let before = world.facts.clone();
        world.add(offered(1));
        // One comes, one leaves, and one stays.
        world.accept_remote(2, &[offered(0), offered(1), received(1)]);
        assert_ne!(world.facts, before);
        assert_eq!(world.accept(&withdrawn(2)), []);
        assert_eq!(world.facts, before);
        world.accept_unchanged(&withdrawn(2));

        // Another one of the same number, in which the id has other terms.
        let mut other = terms(offered(1));
        other.expiry.0.0 += 1;
        world.accept(&Update::HtlcAdded { id: offered(1), htlc: other });
        world.accept_remote(2, &[offered(0), offered(1), received(0)]);
        world.accept_revocation(1);
        assert_eq!(world.facts.candidates.current.remote.number, number(2));
    }
}

#[test]
fn what_the_peer_may_have_is_not_withdrawn() {
    let mut world = world(CommitmentFormat::Anchors);
    let unexpected = |stated, expected| UpdateError::UnexpectedRemoteNumber {
        stated: number(stated),
        expected: number(expected),
    };
    for stated in [0, 1] {
        assert_eq!(world.refuse(&withdrawn(stated)), unexpected(stated, 2));
    }
    // Of what comes later nothing is known.
    for later in [2, 3, 1_000] {
        world.accept_unchanged(&withdrawn(later));
    }
    world.accept_remote(2, &[]);
    world.accept_unchanged(&withdrawn(3));
    assert_eq!(world.refuse(&withdrawn(1)), unexpected(1, 2));
    world.accept_revocation(1);
    assert_eq!(world.refuse(&withdrawn(2)), unexpected(2, 3));
}

/// Nothing of it is penalty data: no such commitment was ever the peer's.
#[test]
fn nothing_ends_with_it() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_remote(1, &[offered(0)]);
    assert_eq!(world.accept(&withdrawn(1)), []);
    assert!(world.facts.htlcs.is_empty());
    world.accept_remote(1, &[]);
    assert_eq!(world.accept_revocation(0), [] as [HtlcId; 0]);
}

#[test]
fn it_goes_in_every_candidate() {
    let mut world = World::new(CommitmentFormat::Anchors).with_splice();
    let before = world.facts.clone();
    world.add(offered(0));
    let fundings: Vec<_> = world.facts.candidates.moving().map(|of| of.funding).collect();
    for funding in &fundings {
        let commitment = world.remote(1, &[offered(0)]);
        world.accept(&Update::RemoteCommitment { funding: *funding, commitment });
    }
    world.accept(&withdrawn(1));
    assert_eq!(world.facts, before);
}
