//! What is known of HTLCs that have left an open channel is forgotten, and the channel is quiet again.
use super::support::*;
use crate::arbitrator::{
    Change, FailReason, Input, NoticeKey, PreimageSource, UpstreamDuty, UpstreamVerdict,
};
use crate::facts::update::tests::world::{World, offered, received, revocation, terms};
use crate::facts::{Update, UpdateError};
use crate::format::{CommitmentFormat, remote_commitment};
use crate::ids::{HtlcId, Preimage, Side};
use crate::log::Write;
use std::vec;
use std::vec::Vec;

fn watched() -> Watched {
    Watched::new(World::new(CommitmentFormat::Anchors))
}

/// Its preimage becomes known, downstream or as the node's own.
fn reveal(watched: &mut Watched, id: HtlcId) {
    let preimage = Preimage([u8::try_from(id.id).expect("small"); 32]);
    let source = match id.offerer {
        Side::Local => PreimageSource::Downstream(id),
        Side::Remote => PreimageSource::Node,
    };
    watched.step(&[channel(Input::Preimage { preimage, source })]);
}

fn is_quiet(watched: &Watched) -> bool {
    watched.engine.active(SLOT).is_none()
}

#[test]
fn a_channel_whose_payments_are_over_is_quiet_again() {
    let mut watched = watched();
    for payment in 0..4 {
        let ids = [offered(payment), received(payment)];
        add(&mut watched, &ids);
        commit(&mut watched, 2 * payment + 1, &ids);
        assert!(is_quiet(&watched) && watched.log.is_empty());
        ids.iter().for_each(|id| reveal(&mut watched, *id));
        let duty = UpstreamDuty::of(ids[0], &terms(ids[0]));
        let told = Change::UpstreamTold { duty, verdict: UpstreamVerdict::Fulfilled };
        assert!(watched.log.contains(&told));
        watched.step(&[channel(Input::NoticeAcknowledged(NoticeKey::Upstream(duty)))]);
        assert!(!is_quiet(&watched) && watched.log.len() > 3);
        commit(&mut watched, 2 * payment + 2, &[]);
        assert!(is_quiet(&watched) && watched.log.is_empty(), "payment {payment}");
    }
}

#[test]
fn what_pending_htlcs_need_stays() {
    let mut watched = watched();
    let all: Vec<HtlcId> = (0..12).map(received).collect();
    add(&mut watched, &all);
    commit(&mut watched, 1, &all);
    all.iter().for_each(|id| reveal(&mut watched, *id));
    assert_eq!(watched.log.len(), 12);
    // They leave one by one. As long as no more than half is moot, the log stays as it is.
    for gone in 1..=11 {
        let left = &all[gone..];
        commit(&mut watched, gone as u64 + 1, left);
        let known = |id: &&HtlcId| {
            let state = watched.engine.active(SLOT).map(|active| &active.state);
            state.is_some_and(|state| state.sources(terms(**id).hash).next().is_some())
        };
        assert_eq!(left.iter().filter(known).count(), left.len());
        assert!(watched.log.len() <= 2 * left.len(), "{gone} are gone");
    }
    commit(&mut watched, 13, &[]);
    assert!(is_quiet(&watched));
}

/// Two HTLCs may have one hash, and of an HTLC that both parties forgot another may have the id.
#[test]
fn a_preimage_stays_for_the_other_htlc_of_its_hash() {
    let mut watched = watched();
    let (one, two) = (received(0), received(251));
    assert_eq!(terms(one).hash, terms(two).hash);
    add(&mut watched, &[one, two]);
    commit(&mut watched, 1, &[one, two]);
    reveal(&mut watched, one);
    commit(&mut watched, 2, &[two]);
    assert_eq!(watched.log.len(), 1);
    commit(&mut watched, 3, &[]);
    assert!(is_quiet(&watched));
}

#[test]
fn a_channel_that_fails_keeps_all() {
    let mut watched = watched();
    add(&mut watched, &[received(0)]);
    commit(&mut watched, 1, &[received(0)]);
    watched.update(&[watched.world.local_update(2, &[])]);
    reveal(&mut watched, received(0));
    watched.step(&[channel(Input::Fail(FailReason::Requested))]);
    let before = watched.log.clone();
    watched.update(&[watched.world.remote_update(2, &[]), revocation(1)]);
    assert_eq!(watched.world.facts.htlcs.len(), 0);
    assert_eq!(watched.log, before);
}

#[test]
fn a_channel_that_closed_keeps_all() {
    let mut watched = watched();
    add(&mut watched, &[received(0)]);
    commit(&mut watched, 1, &[received(0)]);
    watched.update(&[watched.world.local_update(2, &[]), watched.world.remote_update(2, &[])]);
    reveal(&mut watched, received(0));
    let (facts, secp) = (&watched.world.facts, &watched.world.secp);
    let current = &facts.candidates.current;
    let close = remote_commitment(facts, current, &current.remote, secp).expect("builds");
    watched.mine(vec![close.transaction]);
    // The secret comes late: by it, the commitment that confirmed is revoked.
    watched.update(&[revocation(1)]);
    assert_eq!(watched.world.facts.htlcs.len(), 0);
    let known = |change: &&Change| matches!(change, Change::PreimageLearned { .. });
    assert_eq!(watched.log.iter().filter(known).count(), 1);
}

#[test]
fn a_preimage_may_come_with_what_it_is_for() {
    let (id, source) = (received(0), PreimageSource::Node);
    let learned = Update::Preimage { preimage: Preimage([0; 32]), source };
    let added = Update::HtlcAdded { id, htlc: terms(id) };
    let mut watched = watched();
    // Nobody wants it.
    let updated = watched.verify(std::slice::from_ref(&learned)).expect("no error");
    assert!(updated.preimages().is_empty() && !updated.writes());
    watched.update(std::slice::from_ref(&learned));
    assert!(is_quiet(&watched));
    // In either order.
    for updates in [[added.clone(), learned.clone()], [learned.clone(), added]] {
        let mut watched = self::watched();
        watched.update(&updates);
        let known = Change::PreimageLearned { preimage: Preimage([0; 32]), source };
        assert_eq!(watched.log, [known]);
        // Told again it is no news.
        watched.update(std::slice::from_ref(&learned));
        assert_eq!(watched.log.len(), 1);
    }
}

/// Facts that were overtaken bring nothing along.
#[test]
fn a_preimage_goes_with_its_updates() {
    let id = received(0);
    let mut watched = watched();
    add(&mut watched, &[id]);
    let source = PreimageSource::Node;
    let learned = Update::Preimage { preimage: Preimage([0; 32]), source };
    let one = watched.verify(&[watched.world.local_update(1, &[id])]).expect("sound");
    let late = watched.verify(&[watched.world.remote_update(1, &[id]), learned]).expect("sound");
    assert_eq!(late.preimages().len(), 1);
    assert_eq!(watched.step(&[facts(one), facts(late)]), [UpdateError::Overtaken]);
    assert_eq!(watched.log, []);
}

/// It may serve the HTLC that this one forwards.
#[test]
fn a_preimage_may_come_with_the_end_of_what_it_is_for() {
    let id = offered(0);
    let mut watched = watched();
    add(&mut watched, &[id]);
    commit(&mut watched, 1, &[id]);
    watched.update(&[watched.world.remote_update(2, &[]), watched.world.local_update(2, &[])]);
    let source = PreimageSource::Downstream(id);
    let learned = Update::Preimage { preimage: Preimage([0; 32]), source };
    let updated = watched.verify(&[revocation(1), learned]).expect("sound");
    assert!(updated.facts().htlcs.is_empty() && updated.preimages().len() == 1);
    let written = watched.stage(&[facts(updated.clone())]);
    let learned = |write: &Write| {
        let Write::Changes { changes, .. } = write else { return false };
        changes.iter().any(|change| matches!(change, Change::PreimageLearned { .. }))
    };
    assert!(written.batch().writes.iter().any(learned));
    assert_eq!(watched.step(&[facts(updated)]), []);
    assert!(is_quiet(&watched) && watched.log.is_empty());
}

#[test]
fn what_is_acknowledged_late_wakes_nobody() {
    let mut watched = watched();
    let duty = UpstreamDuty::of(offered(0), &terms(offered(0)));
    watched.step(&[channel(Input::NoticeAcknowledged(NoticeKey::Upstream(duty)))]);
    assert!(is_quiet(&watched));
}
