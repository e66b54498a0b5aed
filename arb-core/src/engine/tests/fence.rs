//! The fence: no newer local commitment once one may be on its way to the chain, whoever drives.
use super::super::*;
use super::support::*;
use crate::arbitrator::{Change, FailReason, Input};
use crate::facts::update::tests::world::{World, number, revocation};
use crate::facts::{ShutdownScripts, Update, UpdateError};
use crate::format::{CommitmentFormat, remote_commitment};
use crate::log::Write;
use std::boxed::Box;
use std::vec;

fn watched() -> Watched {
    Watched::new(World::new(CommitmentFormat::Anchors))
}

fn fail() -> EngineInput {
    channel(Input::Fail(FailReason::Requested))
}

/// Everything but a newer local commitment is accepted.
fn assert_fenced(watched: &mut Watched) {
    let newer = watched.world.local_update(1, &[]);
    let fenced = Err(UpdateError::Fenced);
    assert_eq!(watched.verify(std::slice::from_ref(&newer)).map(drop), fenced);
    let remote = watched.world.remote_update(1, &[]);
    let others = vec![remote, revocation(0), Update::Shutdown(ShutdownScripts::default())];
    assert_eq!(watched.verify(&[others.clone(), vec![newer]].concat()).map(drop), fenced);
    let same = Update::LocalCommitment {
        funding: watched.world.facts.candidates.current.funding,
        commitment: watched.world.facts.candidates.current.local.clone(),
    };
    watched.update(&[same]);
    watched.update(&others);
}

#[test]
fn a_channel_that_fails_takes_no_newer_commitment() {
    let mut watched = watched();
    watched.update(&[watched.world.local_update(1, &[])]);
    let mut watched = self::watched();
    watched.step(&[fail()]);
    assert_fenced(&mut watched);
}

#[test]
fn a_channel_that_closed_takes_no_newer_commitment() {
    let mut watched = watched();
    let (facts, secp) = (&watched.world.facts, &watched.world.secp);
    let current = &facts.candidates.current;
    let close = remote_commitment(facts, current, &current.remote, secp).expect("builds");
    watched.mine(vec![close.transaction]);
    assert_fenced(&mut watched);
}

/// The node was told that it may go on only if the update is in the log before the failing.
#[test]
fn what_was_verified_before_the_fence_came_is_refused_behind_it() {
    let mut watched = watched();
    let updated = watched.verify(&[watched.world.local_update(1, &[])]).expect("no fence yet");
    let transition = watched.stage(&[fail(), facts(updated.clone())]);
    assert_eq!(transition.refused(), [(SLOT, UpdateError::Fenced)]);
    let is_facts = |write: &Write| matches!(write, Write::Facts { .. });
    assert!(!transition.batch().writes.iter().any(is_facts), "nothing of it is stored");
    assert_eq!(watched.step(&[fail()]), []);
    assert_eq!(watched.step(&[facts(updated)]), [UpdateError::Fenced]);
    let active = watched.engine.active(SLOT).expect("failing");
    assert_eq!(active.facts.candidates.current.local.number, number(0));
    assert_eq!(active.state.fenced_at(), Some(number(0)));
}

#[test]
fn what_comes_before_the_failing_is_what_is_handed_out() {
    let mut watched = watched();
    let updated = watched.verify(&[watched.world.local_update(1, &[])]).expect("no fence yet");
    assert_eq!(watched.step(&[facts(updated), fail()]), []);
    let active = watched.engine.active(SLOT).expect("failing");
    assert_eq!(active.facts.candidates.current.local.number, number(1));
    assert_eq!(active.state.fenced_at(), Some(number(1)));
}

#[test]
fn an_update_of_older_facts_is_no_update_of_newer_ones() {
    let mut watched = watched();
    let one = watched.verify(&[watched.world.local_update(1, &[])]).expect("sound");
    let two = watched.verify(&[watched.world.remote_update(1, &[])]).expect("sound");
    let inputs = [facts(one.clone()), facts(two), facts(one)];
    // The first once more changes nothing.
    assert_eq!(watched.step(&inputs), [UpdateError::Overtaken]);
}

/// It may be what spends the funding output.
#[test]
fn nothing_is_withdrawn_once_the_funding_output_is_spent() {
    let mut watched = watched();
    let withdrawn = Update::RemoteWithdrawn { number: number(1) };
    watched.update(&[watched.world.remote_update(1, &[])]);
    let early = watched.verify(std::slice::from_ref(&withdrawn)).expect("not spent yet");
    let facts = watched.world.facts.clone();
    let current = &facts.candidates.current;
    let next = current.remote_next.as_ref().expect("it was stated");
    let close = remote_commitment(&facts, current, next, &watched.world.secp).expect("builds");
    watched.mine(vec![close.transaction]);
    assert_eq!(watched.step(&[self::facts(early)]), [UpdateError::Overtaken]);
    let late = watched.verify(std::slice::from_ref(&withdrawn)).expect("nothing is changed");
    assert!(!late.writes());
    watched.update(&[withdrawn]);
    assert_eq!(watched.world.facts, facts);
}

#[test]
fn a_channel_with_a_past_is_registered_with_what_was_handed_out() {
    let mut world = World::new(CommitmentFormat::Anchors);
    let older = world.facts.clone();
    world.accept_local(1, &[]);
    let handed_out = world.facts.clone();
    world.accept_local(2, &[]);
    let newer = world.facts.clone();
    let cases = [
        (older, vec![UpdateError::LocalNumberTooOld { stated: number(0), current: number(1) }]),
        (handed_out, vec![]),
        (newer, vec![UpdateError::Fenced]),
    ];
    let (commitment, reason) = (number(1), FailReason::Requested);
    let log = vec![Change::FailRequested { commitment, reason }];
    for (facts, refused) in cases {
        let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
        watched.engine.quarantine(SLOT);
        let state = ChannelArbitrator::replay(&log);
        watched.engine.restore(SLOT, Arc::new(facts.clone()), state);
        watched.log.clone_from(&log);
        let facts = Box::new(facts);
        let watch = EngineInput::Watch { slot: SLOT, facts, history: Vec::new() };
        let stored = watched.stage(std::slice::from_ref(&watch)).batch().writes.len();
        assert_eq!(stored > 0, refused.is_empty());
        assert_eq!(watched.step(&[watch]), refused);
    }
}

#[test]
fn every_candidate_gets_the_new_commitment_at_once() {
    let world = World::new(CommitmentFormat::Anchors).with_splice();
    let splice = world.facts.candidates.others[0].funding;
    let mut watched = Watched::new(world);
    let updates = watched.world.local_updates(1, &[]);
    let behind = Err(UpdateError::CandidateBehind(splice));
    assert_eq!(watched.verify(&updates[..1]).map(drop), behind);
    assert_eq!(watched.verify(&updates[1..]).map(drop), behind);
    watched.update(&updates);
    let remote = watched.world.remote_update(1, &[]);
    assert_eq!(watched.verify(&[remote]).map(drop), behind);
}
