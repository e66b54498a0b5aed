//! Commitments of ours that the facts do not hold.
use super::support::*;
use crate::arbitrator::{CloseKind, Input};
use crate::facts::update::tests::world::{World, number, offered};
use crate::format::{Commitment, CommitmentFormat, OutputKind, local_commitment, scripts};
use crate::picture::{Output, Role, Way};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, absolute::LockTime};
use std::vec;
use std::vec::Vec;

/// A channel whose facts end at commitment 0, and our commitment 1, which offers an HTLC.
fn newer() -> (Watched, Commitment) {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    let htlc = offered(0);
    add(&mut watched, &[htlc]);
    let world = &watched.world;
    let candidate = &world.facts.candidates.current;
    let built = local_commitment(&world.facts, candidate, &world.local(1, &[htlc]), &world.secp);
    let built = built.expect("builds");
    (watched, built)
}

fn spend(of: OutPoint, to: TxOut) -> Transaction {
    let input = TxIn { previous_output: of, sequence: Sequence::MAX, ..TxIn::default() };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![to],
    }
}

fn ours(watched: &Watched) -> Vec<(Role, bool)> {
    let active = watched.engine.active(SLOT).expect("closed");
    let outputs = &active.picture.as_ref().expect("closed").outputs;
    let open = |output: &&Output| matches!(output.way, Way::Spend { .. });
    outputs.iter().filter(open).map(|output| (output.role, output.spent.is_some())).collect()
}

/// The second stage was made before the data was lost, and its output was spent before the signer said the point.
#[test]
fn spends_of_second_stages_are_seen_before_the_point_is_known() {
    for is_spent in [false, true] {
        let (mut watched, built) = newer();
        let point = built.spec.keys.point;
        watched.mine(vec![built.transaction.clone()]);
        assert!(ours(&watched).is_empty());
        assert_eq!(watched.report().events, [], "it may be ours");
        let htlc = built.outpoint(OutputKind::Htlc(offered(0))).expect("it has an output");
        let delayed = scripts::to_local(&built.spec.keys, built.spec.delay).script_pubkey;
        let value = Amount::from_sat(9_000);
        let stage = spend(htlc, TxOut { value, script_pubkey: delayed });
        let made = OutPoint { txid: stage.compute_txid(), vout: 0 };
        watched.mine(vec![stage]);
        if is_spent {
            let home = TxOut { value, script_pubkey: bitcoin::ScriptBuf::new() };
            watched.mine(vec![spend(made, home)]);
        }
        watched.step(&[channel(Input::PointLearned { number: number(1), point })]);
        assert_eq!(ours(&watched), [(Role::ToLocal, false), (Role::SecondStage(None), is_spent)]);
        assert_eq!(watched.report().close, Some(CloseKind::Local(number(1))));
    }
}

/// A point that explains nothing is asked for again, and the right one is taken.
#[test]
fn a_wrong_point_is_not_the_last_word() {
    let (mut watched, built) = newer();
    let point = built.spec.keys.point;
    watched.mine(vec![built.transaction]);
    let wrong = watched.world.facts.candidates.current.local.point;
    watched.step(&[channel(Input::PointLearned { number: number(1), point: wrong })]);
    assert!(ours(&watched).is_empty());
    assert_eq!(watched.report().close, Some(CloseKind::Unknown));
    let asks = |watched: &Watched| {
        let tasks = watched.engine.tasks(SLOT);
        tasks.into_values().any(|task| matches!(task, crate::engine::Task::AskPoint(_)))
    };
    assert!(asks(&watched));
    watched.step(&[channel(Input::PointLearned { number: number(1), point })]);
    assert_eq!(ours(&watched), [(Role::ToLocal, false)]);
    assert!(!asks(&watched));
}
