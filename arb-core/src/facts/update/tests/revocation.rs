//! Revocations: secrets fit their points and one another, and promote every candidate.
use super::world::{World, funding_outpoint, number, remote_secret, revocation};
use crate::facts::secrets::SecretError;
use crate::facts::{SecretStore, Update, UpdateError};
use crate::format::CommitmentFormat;
use crate::format::keys::per_commitment_point;
use crate::ids::PerCommitmentSecret;

#[test]
fn a_revocation_promotes_the_next_commitment() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.accept_remote(1, &[]);
    assert_eq!(world.accept_revocation(0), []);
    let current = &world.facts.candidates.current;
    assert_eq!((current.remote.number, &current.remote_next), (number(1), &None));
    assert_eq!(world.facts.secrets.get(number(0)), Some(remote_secret(number(0))));
}

#[test]
fn the_same_again_changes_nothing() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.accept_remote(1, &[]);
    world.accept_revocation(0);
    world.accept_unchanged(&revocation(0));
    let wrong = Update::RemoteRevoked { number: number(0), secret: remote_secret(number(5)) };
    let expected = UpdateError::UnexpectedRemoteNumber { stated: number(0), expected: number(1) };
    assert_eq!(world.refuse(&wrong), expected);
}

#[test]
fn only_the_current_commitment_is_revoked() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.accept_remote(1, &[]);
    let expected = UpdateError::UnexpectedRemoteNumber { stated: number(1), expected: number(0) };
    assert_eq!(world.refuse(&revocation(1)), expected);
}

#[test]
fn nothing_is_revoked_without_a_next_commitment_in_every_candidate() {
    let world = World::new(CommitmentFormat::Anchors);
    let missing = UpdateError::NoNextCommitment(funding_outpoint(0));
    assert_eq!(world.refuse(&revocation(0)), missing);

    let mut world = world.with_splice();
    world.accept_remote(1, &[]);
    let missing = UpdateError::NoNextCommitment(funding_outpoint(1));
    assert_eq!(world.refuse(&revocation(0)), missing);
    let commitment = world.remote(1, &[]);
    world.accept(&Update::RemoteCommitment { funding: funding_outpoint(1), commitment });
    world.accept_revocation(0);
    for candidate in world.facts.candidates.iter() {
        assert_eq!((candidate.remote.number, &candidate.remote_next), (number(1), &None));
    }
}

#[test]
fn a_secret_belongs_to_the_point() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.accept_remote(1, &[]);
    let no_key = PerCommitmentSecret([0; 32]);
    for secret in [remote_secret(number(1)), no_key] {
        let update = Update::RemoteRevoked { number: number(0), secret };
        assert_eq!(world.refuse(&update), UpdateError::SecretMismatch);
        // Whoever leaves the verifying to the arbiter takes it.
        assert!(world.facts.updated_unverified(&update).is_ok());
    }
}

#[test]
fn secrets_come_from_one_seed() {
    let mut world = World::new(CommitmentFormat::Anchors);
    // The secret of commitment 0 is of another seed; that of commitment 1 reveals it.
    let foreign = PerCommitmentSecret([0x77; 32]);
    let point = per_commitment_point(&world.secp, &foreign).expect("a point");
    world.facts.candidates.current.remote.point = point;
    world.accept_remote(1, &[]);
    world.accept(&Update::RemoteRevoked { number: number(0), secret: foreign });
    world.accept_remote(2, &[]);
    let refused = UpdateError::Secret(SecretError::Inconsistent);
    assert_eq!(world.refuse(&revocation(1)), refused);
}

#[test]
fn many_revocations_are_stored() {
    let mut world = World::new(CommitmentFormat::StaticRemotekey);
    for at in 0..40 {
        world.accept_remote(at + 1, &[]);
        world.accept_revocation(at);
    }
    for at in 0..40 {
        assert_eq!(world.facts.secrets.get(number(at)), Some(remote_secret(number(at))));
    }
}

#[test]
fn a_channel_registered_late_begins_its_secrets_there() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.facts.candidates.current.remote = world.remote(5, &[]);
    assert_eq!(world.facts.verify(&world.secp), Ok(()));
    world.accept_remote(6, &[]);
    world.accept_revocation(5);
    assert_ne!(world.facts.secrets, SecretStore::default());
}
