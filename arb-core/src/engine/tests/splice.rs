//! A splice confirms, the channel goes on; the splice is reorganised out again.
use super::super::*;
use super::support::*;
use crate::arbitrator::{
    ChannelEvent, CloseKind, FailReason, HandedOut, Input, Phase, PreimageSource, Refusal, TxKind,
};
use crate::claim::SpendPath;
use crate::classify::FundingSpend;
use crate::facts::update::tests::world::{
    World, funding_outpoint, number, received, revocation, terms,
};
use crate::facts::{FundingCandidate, Update, UpdateError};
use crate::format::{CommitmentFormat, local_commitment, remote_commitment};
use crate::ids::Preimage;
use crate::report::ChannelReport;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction, TxIn, TxOut};
use std::boxed::Box;
use std::vec;

fn spliced(tx: &Transaction) -> ChannelEvent {
    ChannelEvent::Closed(CloseKind::Splice(tx.compute_txid()))
}

fn closed(kind: CloseKind) -> ChannelEvent {
    ChannelEvent::Closed(kind)
}

/// A transaction that spends the first funding output, and makes another of `value`.
fn splice_tx(value: u64) -> Transaction {
    let input = TxIn {
        previous_output: funding_outpoint(0),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    };
    let value = bitcoin::Amount::from_sat(value);
    let script_pubkey = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    let output = TxOut { value, script_pubkey };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

fn made_by(tx: &Transaction) -> OutPoint {
    OutPoint { txid: tx.compute_txid(), vout: 0 }
}

fn added(world: &World, tx: &Transaction) -> Update {
    let candidate = Box::new(world.splice(made_by(tx)));
    Update::CandidateAdded { candidate, birth: BlockHeight(0) }
}

/// A channel that was told of a splice.
fn splicing() -> (Watched, Transaction) {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    let tx = splice_tx(1);
    watched.update(&[added(&watched.world, &tx)]);
    (watched, tx)
}

fn locked(tx: &Transaction) -> Update {
    Update::CandidateLocked { funding: made_by(tx) }
}

/// Without those of single outputs.
fn channel_events(report: &ChannelReport) -> Vec<ChannelEvent> {
    report.events.iter().filter(|event| !event.is_progress()).copied().collect()
}

fn candidate(watched: &Watched, funding: OutPoint) -> FundingCandidate {
    watched.world.facts.candidates.get(&funding).expect("a candidate").clone()
}

fn local_tx(watched: &Watched, funding: OutPoint) -> Transaction {
    let candidate = candidate(watched, funding);
    let (facts, secp) = (&watched.world.facts, &watched.world.secp);
    local_commitment(facts, &candidate, &candidate.local, secp).expect("builds").transaction
}

fn remote_tx(watched: &Watched, funding: OutPoint, at: u64) -> Transaction {
    let (facts, secp) = (&watched.world.facts, &watched.world.secp);
    let stated = watched.world.remote(at, &[]);
    let candidate = candidate(watched, funding);
    remote_commitment(facts, &candidate, &stated, secp).expect("builds").transaction
}

/// The peer is at 2, and revoked 0 and 1.
fn go_on(watched: &mut Watched) {
    for at in 0..2 {
        let remotes: Vec<Update> = (watched.world.facts.candidates.moving())
            .map(|c| Update::RemoteCommitment {
                funding: c.funding,
                commitment: watched.world.remote(at + 1, &[]),
            })
            .collect();
        let locals = watched.world.local_updates(at + 1, &[]);
        watched.update(&[remotes, vec![revocation(at)], locals].concat());
    }
}

/// The funding output that our commitment would spend.
fn to_publish(watched: &Watched) -> Option<OutPoint> {
    let tasks = watched.engine.tasks(SLOT);
    tasks.into_values().find_map(|task| match task {
        Task::Sign(draft) if matches!(draft.claim.path, SpendPath::LocalCommitment(_)) => {
            Some(draft.claim.outpoint)
        }
        _ => None,
    })
}

#[test]
fn a_candidate_is_watched_until_it_is_discarded() {
    let (mut watched, tx) = splicing();
    assert!(watched.engine.active(SLOT).is_none(), "still quiet");
    let watching = |watched: &Watched, funding| watched.engine.watching(funding).next();
    assert_eq!(watching(&watched, made_by(&tx)), Some(SLOT));
    watched.update(&[Update::CandidateDiscarded { funding: made_by(&tx) }]);
    assert_eq!(watching(&watched, made_by(&tx)), None);
    assert_eq!(watching(&watched, funding_outpoint(0)), Some(SLOT));
}

#[test]
fn after_a_splice_the_channel_goes_on() {
    let (mut watched, tx) = splicing();
    watched.mine(vec![tx.clone()]);
    let report = watched.report();
    assert_eq!(
        (report.phase, report.close),
        (Phase::Open, Some(CloseKind::Splice(tx.compute_txid())))
    );
    assert_eq!((report.events, report.alerts), (vec![spliced(&tx)], vec![]));
    // No fence: the node and the peer go on, before and after they lock it.
    go_on(&mut watched);
    watched.update(&[locked(&tx)]);
    watched.update(&[watched.world.local_update(3, &[])]);
    assert_eq!(watched.report().phase, Phase::Open);
}

/// Each payment leaves something behind; what the blocks hold of the splice stays.
#[test]
fn a_spliced_channel_forgets_payments_and_keeps_the_splice() {
    let (mut watched, tx) = splicing();
    watched.mine(vec![tx.clone()]);
    watched.update(&[locked(&tx)]);
    let before = watched.log.clone();
    let mut longest = 0;
    for payment in 0..20 {
        let id = received(payment);
        watched.update(&[Update::HtlcAdded { id, htlc: terms(id) }]);
        for (at, htlcs) in [(2 * payment + 1, &[id][..]), (2 * payment + 2, &[])] {
            watched.update(&[watched.world.remote_update(at, htlcs)]);
            watched.update(&[watched.world.local_update(at, htlcs), revocation(at - 1)]);
            let preimage = Preimage([u8::try_from(payment).expect("small"); 32]);
            let source = PreimageSource::Node;
            if !htlcs.is_empty() {
                watched.step(&[channel(Input::Preimage { preimage, source })]);
            }
        }
        longest = longest.max(watched.log.len());
    }
    assert!(watched.log.starts_with(&before) && longest <= 2 * before.len() + 2, "{longest}");
    assert_eq!(watched.report().close, Some(CloseKind::Splice(tx.compute_txid())));
    watched.disconnect(1);
    assert_eq!(watched.report().close, None);
}

#[test]
fn a_close_of_the_new_funding_output_is_read_by_its_own_commitments() {
    let new = |tx: &Transaction| made_by(tx);
    type Close = fn(&Watched, OutPoint) -> Transaction;
    let closes: [(Close, FundingSpend); 3] = [
        (|w, funding| local_tx(w, funding), FundingSpend::LocalCommitment(number(2))),
        (|w, funding| remote_tx(w, funding, 2), FundingSpend::RemoteCommitment(number(2))),
        (|w, funding| remote_tx(w, funding, 1), FundingSpend::RevokedCommitment(number(1))),
    ];
    for lock in [true, false] {
        for (close, spend) in closes {
            let (mut watched, tx) = splicing();
            watched.mine(vec![tx.clone()]);
            if lock {
                watched.update(&[locked(&tx)]);
            }
            go_on(&mut watched);
            let close = close(&watched, new(&tx));
            watched.mine(vec![close.clone()]);
            let report = watched.report();
            assert_eq!(report.phase, Phase::Closed(spend), "lock: {lock}");
            assert_eq!(report.close, Some(spend.kind()));
            assert_eq!(channel_events(&report), [spliced(&tx), closed(spend.kind())]);
            assert!(report.outputs.iter().all(|o| o.outpoint.txid == close.compute_txid()));
            assert_eq!(report.outputs.len(), close.output.len());
            // The close alone is reorganised out, then the splice as well.
            watched.disconnect(1);
            let report = watched.report();
            assert_eq!(
                (report.phase, report.close),
                (Phase::Open, Some(CloseKind::Splice(tx.compute_txid())))
            );
            let reorged = ChannelEvent::Reorged;
            let told = [spliced(&tx), closed(spend.kind()), reorged, spliced(&tx)];
            assert_eq!(channel_events(&report), told);
            watched.disconnect(1);
            let report = watched.report();
            assert_eq!((report.phase, report.close), (Phase::Open, None));
            assert_eq!(channel_events(&report), [&told[..], &[reorged]].concat());
        }
    }
}

/// Splice and close are reorganised out together; then the first funding output is closed.
#[test]
fn a_reorganised_splice_brings_the_old_funding_output_back() {
    let old = funding_outpoint(0);
    for (at, spend) in [
        (2, FundingSpend::RemoteCommitment(number(2))),
        (1, FundingSpend::RevokedCommitment(number(1))),
    ] {
        let (mut watched, tx) = splicing();
        go_on(&mut watched);
        watched.mine(vec![tx.clone()]);
        watched.update(&[locked(&tx)]);
        let close = local_tx(&watched, made_by(&tx));
        watched.mine(vec![close]);
        let local = closed(CloseKind::Local(number(2)));
        watched.disconnect(2);
        let told = [spliced(&tx), local, ChannelEvent::Reorged];
        assert_eq!(channel_events(&watched.report()), told);
        let close = remote_tx(&watched, old, at);
        watched.mine(vec![close]);
        assert_eq!(watched.report().phase, Phase::Closed(spend));
        assert_eq!(watched.report().outputs[0].outpoint.txid, {
            remote_tx(&watched, old, at).compute_txid()
        });
    }
}

/// After the splice was locked the peer revoked what it has for the old funding output.
#[test]
fn a_former_commitment_that_was_revoked_meanwhile_is_punished() {
    let (mut watched, tx) = splicing();
    watched.mine(vec![tx.clone()]);
    watched.update(&[locked(&tx)]);
    go_on(&mut watched);
    watched.disconnect(1);
    let former = remote_tx(&watched, funding_outpoint(0), 0);
    watched.mine(vec![former]);
    let revoked = FundingSpend::RevokedCommitment(number(0));
    assert_eq!(watched.report().phase, Phase::Closed(revoked));
    // And ours is outdated: it is not what a failing channel would publish.
    watched.disconnect(1);
    let ours = local_tx(&watched, funding_outpoint(0));
    watched.mine(vec![ours]);
    let outdated = FundingSpend::OutdatedLocalCommitment(number(0));
    assert_eq!(watched.report().phase, Phase::Closed(outdated));
}

#[test]
fn a_failing_channel_publishes_for_the_funding_output_that_is_there() {
    let fail = || channel(Input::Fail(FailReason::Requested));
    let old = funding_outpoint(0);
    let (mut watched, tx) = splicing();
    watched.step(&[fail()]);
    assert_eq!(to_publish(&watched), Some(old), "the splice is nowhere");
    watched.mine(vec![tx.clone()]);
    assert_eq!(to_publish(&watched), Some(made_by(&tx)), "confirmed, although not locked");
    watched.disconnect(1);
    assert_eq!(to_publish(&watched), Some(old));

    // Locked, gone on, and reorganised out: of the old one we revoked everything.
    let (mut watched, tx) = splicing();
    watched.mine(vec![tx.clone()]);
    watched.update(&[locked(&tx)]);
    go_on(&mut watched);
    watched.step(&[fail()]);
    assert_eq!(to_publish(&watched), Some(made_by(&tx)));
    watched.disconnect(1);
    assert_eq!(to_publish(&watched), Some(made_by(&tx)));
}

/// The commitment for this funding output is out, and the network refuses it.
fn refused(watched: &mut Watched, funding: OutPoint, why: Refusal) {
    assert_eq!(to_publish(watched), Some(funding));
    let transaction = local_tx(watched, funding);
    let (txid, at) = (transaction.compute_txid(), watched.engine.height());
    let out = HandedOut {
        kind: TxKind::Commitment,
        transaction: transaction.into(),
        claims: vec![funding],
        others: vec![],
        coins: vec![],
        fee: bitcoin::Amount::from_sat(1_000),
        at,
    };
    watched.step(&[channel(Input::Signed(Box::new(out)))]);
    watched.step(&[channel(Input::Rejected { txid, why })]);
}

/// The funding output whose commitment is desired, signed or not.
fn closing(watched: &Watched) -> Option<OutPoint> {
    let facts = &watched.world.facts;
    let state = &watched.engine.active(SLOT)?.state;
    state.closing_candidate(facts, watched.engine.height()).map(|candidate| candidate.funding)
}

/// A later splice may hold the place of the output that is there, as the first one may.
#[test]
fn the_commitment_of_a_second_splice_goes_out_where_it_stands_in_the_way() {
    let (mut watched, first) = splicing();
    watched.mine(vec![first.clone()]);
    watched.update(&[locked(&first)]);
    let mut second = splice_tx(2);
    second.input[0].previous_output = made_by(&first);
    watched.update(&[added(&watched.world, &second)]);
    watched.step(&[channel(Input::Fail(FailReason::Requested))]);
    refused(&mut watched, made_by(&first), Refusal::Fee);
    assert_eq!(to_publish(&watched), Some(made_by(&second)));
    // Confirmed, it alone counts.
    watched.mine(vec![second.clone()]);
    assert_eq!(to_publish(&watched), Some(made_by(&second)));
}

/// Of what the network refuses since nothing is there to be spent, nothing comes in its turn.
#[test]
fn a_commitment_that_pays_too_little_is_kept_where_the_other_has_nothing_to_spend() {
    let old = funding_outpoint(0);
    let (mut watched, tx) = splicing();
    watched.step(&[channel(Input::Fail(FailReason::Requested))]);
    refused(&mut watched, old, Refusal::Fee);
    refused(&mut watched, made_by(&tx), Refusal::Conflict);
    for _ in 0..4 {
        assert_eq!(closing(&watched), Some(old));
        watched.mine(vec![]);
    }
    // Where both pay too little, either may be the one that can.
    let (mut watched, tx) = splicing();
    watched.step(&[channel(Input::Fail(FailReason::Requested))]);
    refused(&mut watched, old, Refusal::Fee);
    refused(&mut watched, made_by(&tx), Refusal::Fee);
    let mut turns = vec![closing(&watched)];
    watched.mine(vec![]);
    turns.push(closing(&watched));
    turns.sort();
    let mut both = vec![Some(old), Some(made_by(&tx))];
    both.sort();
    assert_eq!(turns, both);
}

#[test]
fn a_splice_that_is_told_late_was_an_unknown_spend() {
    // Within the patience with what nobody has explained yet, and after it.
    for blocks in [0, 6] {
        let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
        let tx = splice_tx(1);
        watched.mine(vec![tx.clone()]);
        (0..blocks).for_each(|_| watched.mine(vec![]));
        let unknown = Phase::Closed(FundingSpend::Unknown);
        assert_eq!(watched.report().phase, unknown);
        watched.update(&[added(&watched.world, &tx)]);
        let report = watched.report();
        let splice = CloseKind::Splice(tx.compute_txid());
        assert_eq!((report.phase, report.close), (Phase::Open, Some(splice)));
        assert_eq!(report.alerts, []);
        let told = [closed(CloseKind::Unknown), ChannelEvent::Reorged, spliced(&tx)];
        let told = if blocks == 0 { &told[2..] } else { &told[..] };
        assert_eq!(channel_events(&report), told);
    }
}

#[test]
fn a_candidate_that_matters_is_not_discarded() {
    let (mut watched, tx) = splicing();
    let needed = |funding| Err(UpdateError::CandidateNeeded(funding));
    let discarded = |funding| [Update::CandidateDiscarded { funding }];
    let early = watched.verify(&discarded(made_by(&tx))).expect("nothing happened");
    watched.mine(vec![tx.clone()]);
    let late = watched.step(&[facts(early)]);
    assert_eq!(late, [UpdateError::CandidateNeeded(made_by(&tx))]);
    assert_eq!(watched.verify(&discarded(made_by(&tx))).map(drop), needed(made_by(&tx)));
    watched.update(&[locked(&tx)]);
    let old = funding_outpoint(0);
    assert_eq!(watched.verify(&discarded(old)).map(drop), needed(old), "it is spent");
}

/// What the chain did before the candidate was told comes with it.
#[test]
fn the_past_of_a_new_candidate_is_staged_with_it() {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    let tx = splice_tx(1);
    watched.mine(vec![tx.clone()]);
    let updated = watched.verify(&[added(&watched.world, &tx)]).expect("sound");
    assert_eq!(updated.new_fundings().collect::<Vec<_>>(), [made_by(&tx)]);
    watched.world.facts = (**updated.facts()).clone();
    let close = remote_tx(&watched, made_by(&tx), 0);
    watched.mine(vec![close.clone()]);
    let at = *watched.engine.blocks().next().expect("a tip");
    let history = vec![crate::arbitrator::BlockView { at, transactions: vec![close] }];
    let updated = Box::new(updated);
    assert_eq!(watched.step(&[EngineInput::Facts { slot: SLOT, updated, history }]), []);
    let remote = FundingSpend::RemoteCommitment(number(0));
    assert_eq!(watched.report().phase, Phase::Closed(remote));
}
