//! What is told of a revoked commitment before penalty data is at hand.
use super::support::*;
use crate::arbitrator::Phase;
use crate::arbitrator::{ChannelEvent, CloseKind, Input};
use crate::classify::FundingSpend;
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
