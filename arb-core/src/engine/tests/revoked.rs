//! What is told of a revoked commitment before penalty data is at hand.
use super::support::*;
use crate::arbitrator::Phase;
use crate::arbitrator::{Alert, UpstreamVerdict};
use crate::arbitrator::{ChannelEvent, CloseKind, Input};
use crate::classify::FundingSpend;
use crate::facts::Update;
use crate::facts::update::tests::world::offered;
use crate::facts::update::tests::world::{World, number, received, revocation, terms};
use crate::format::{CommitmentFormat, remote_commitment};
use std::vec;

/// Both balances are trimmed: without its HTLCs it cannot be told from an outdated one of ours, since both have
/// the same number.
#[test]
fn whose_a_commitment_of_htlcs_alone_was_is_told_once_they_are_known() {
    for (is_known, kind) in [(true, CloseKind::Revoked as fn(_) -> _), (false, CloseKind::Outdated)]
    {
        let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
        let htlc = received(0);
        add(&mut watched, &[htlc]);
        commit(&mut watched, 1, &[htlc]);
        let world = &watched.world;
        let (stated, candidate) = (world.remote(1, &[htlc]), &world.facts.candidates.current);
        let built = remote_commitment(&world.facts, candidate, &stated, &world.secp);
        let mut revoked = built.expect("builds").transaction;
        revoked.output.retain(|output| output.value == terms(htlc).amount.floor());
        assert_eq!(revoked.output.len(), 1);
        watched.update(&[watched.world.remote_update(2, &[])]);
        let left = [watched.world.local_update(2, &[]), revocation(1)];
        let ended = watched.verify(&left).expect("accepted").ended().to_vec();
        watched.update(&left);
        assert_eq!((ended.len(), watched.world.facts.htlcs.len()), (1, 0), "penalty data by now");

        watched.mine(vec![revoked]);
        let report = watched.report();
        let outdated = FundingSpend::OutdatedLocalCommitment(number(1));
        assert_eq!((report.phase, report.events), (Phase::Closed(outdated), vec![]));
        let htlcs = if is_known { ended } else { vec![] };
        watched.step(&[channel(Input::RevokedHtlcsLoaded { number: number(1), htlcs })]);
        assert_eq!(watched.report().events, [ChannelEvent::Closed(kind(number(1)))]);
    }
}

/// The same where the peer's numbers have run ahead of ours: then it cannot be an outdated one of ours, and without
/// its HTLCs it looks like nothing at all.
#[test]
fn a_commitment_of_htlcs_alone_is_found_however_far_ahead_the_peer_is() {
    for is_known in [true, false] {
        let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
        let htlc = received(0);
        add(&mut watched, &[htlc]);
        commit(&mut watched, 1, &[htlc]);
        for at in 2..=3 {
            watched.update(&[watched.world.remote_update(at, &[htlc]), revocation(at - 1)]);
        }
        let world = &watched.world;
        let (stated, candidate) = (world.remote(3, &[htlc]), &world.facts.candidates.current);
        let built = remote_commitment(&world.facts, candidate, &stated, &world.secp);
        let mut revoked = built.expect("builds").transaction;
        revoked.output.retain(|output| output.value == terms(htlc).amount.floor());
        let txid = revoked.compute_txid();
        watched.update(&[watched.world.remote_update(4, &[])]);
        let left = [watched.world.local_update(2, &[]), revocation(3)];
        let ended = watched.verify(&left).expect("accepted").ended().to_vec();
        watched.update(&left);
        assert_eq!(ended.len(), 1);

        watched.mine(vec![revoked]);
        let report = watched.report();
        assert_eq!((report.events, report.alerts), (vec![], vec![]), "not judged yet");
        let htlcs = if is_known { ended } else { vec![] };
        watched.step(&[channel(Input::RevokedHtlcsLoaded { number: number(3), htlcs })]);
        if !is_known {
            let report = watched.report();
            assert_eq!((report.events, report.alerts), (vec![], vec![]), "it may be ours");
            let point = watched.world.facts.candidates.current.local.point;
            watched.step(&[channel(Input::PointLearned { number: number(3), point })]);
        }
        let report = watched.report();
        let (kind, alerts) = match is_known {
            true => (CloseKind::Revoked(number(3)), vec![]),
            false => (CloseKind::Unknown, vec![Alert::UnknownSpend(txid)]),
        };
        assert_eq!((report.events, report.alerts), (vec![ChannelEvent::Closed(kind)], alerts));
    }
}

/// What our facts do not say to be committed may be in a commitment that is newer than they are.
#[test]
fn what_a_newer_commitment_may_contain_is_not_failed_upstream_at_once() {
    for (newer, told) in [(true, None), (false, Some(UpstreamVerdict::Failed))] {
        let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
        let htlc = offered(0);
        watched.update(&[Update::HtlcAdded { id: htlc, htlc: terms(htlc) }]);
        let world = &watched.world;
        let candidate = &world.facts.candidates.current;
        let stated = if newer { world.remote(1, &[htlc]) } else { candidate.remote.clone() };
        let built = remote_commitment(&world.facts, candidate, &stated, &world.secp);
        watched.mine(vec![built.expect("builds").transaction]);
        let spend = match newer {
            true => FundingSpend::FutureCommitment(number(1)),
            false => FundingSpend::RemoteCommitment(number(0)),
        };
        assert_eq!(watched.report().phase, Phase::Closed(spend));
        for _ in 0..10 {
            watched.mine(vec![]);
        }
        let active = watched.engine.active(SLOT).expect("closed");
        assert_eq!(active.state.acts().told(htlc, &terms(htlc)), told);
    }
}
