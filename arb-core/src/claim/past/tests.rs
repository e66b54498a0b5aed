//! Logs laid side by side: each transaction once, in an order that none of them contradicts.
use super::*;
use crate::arbitrator::TxKind;
use alloc::vec;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Transaction, absolute::LockTime};
use proptest::prelude::*;

fn outpoint(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::all_zeros(), vout }
}

/// Transaction `number` as it stands in the log of a channel with these claims.
fn out(number: u32, at: u32, claims: &[u32], others: &[u32]) -> HandedOut {
    HandedOut {
        kind: TxKind::Sweep,
        transaction: Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(number),
            input: vec![],
            output: vec![],
        }
        .into(),
        claims: claims.iter().copied().map(outpoint).collect(),
        others: others.iter().copied().map(outpoint).collect(),
        coins: vec![],
        fee: Amount::from_sat(1),
        at: BlockHeight(at),
    }
}

fn numbers(logs: &[Vec<HandedOut>]) -> Vec<u32> {
    let acts: Vec<Acts> =
        logs.iter().map(|log| Acts { handed_out: log.clone(), ..Acts::default() }).collect();
    let parts: Vec<Part<'_>> =
        acts.iter().map(|acts| Part { claims: &[], acts, joining: Joining::Never }).collect();
    let number = |out: &Out<'_>| out.handed_out.transaction.lock_time.to_consensus_u32();
    Past::of(&parts).outs().iter().map(number).collect()
}

#[test]
fn what_two_logs_have_is_there_once_and_in_order() {
    // Channel b made 1 by itself; then both made 2 together; then a made 3, at the same tip.
    let a = vec![out(2, 7, &[0], &[1]), out(3, 7, &[0], &[])];
    let b = vec![out(1, 7, &[1], &[]), out(2, 7, &[1], &[0])];
    assert_eq!(numbers(&[a.clone(), b.clone()]), [1, 2, 3]);
    assert_eq!(numbers(&[b, a]), [1, 2, 3]);
}

#[test]
fn logs_that_contradict_each_other_lose_nothing() {
    let a = vec![out(1, 7, &[0], &[1]), out(2, 7, &[0], &[1])];
    let b = vec![out(2, 7, &[1], &[0]), out(1, 7, &[1], &[0])];
    let mut found = numbers(&[a, b]);
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
}

#[test]
fn the_last_word_of_the_network_counts() {
    let shared = |claim, other| vec![out(1, 7, &[claim], &[other])];
    let mut acts =
        [shared(0, 1), shared(1, 0)].map(|handed_out| Acts { handed_out, ..Acts::default() });
    let txid = acts[0].handed_out[0].txid();
    let refused = |why, last| Rejections { why, last: BlockHeight(last) };
    acts[0].rejected.insert(txid, refused(Refusal::Fee, 8));
    acts[1].rejected.insert(txid, refused(Refusal::Conflict, 9));
    let parts = [0, 1].map(|at| Part { claims: &[], acts: &acts[at], joining: Joining::Never });
    let past = Past::of(&parts);
    assert_eq!(
        past.ours(txid).and_then(|out| out.refusal(BlockHeight(10))),
        Some(Refusal::Conflict)
    );
    assert_eq!(past.claims_of(outpoint(1)).count(), 1);
}

proptest! {
    /// Transactions are made one after another, each by some of four channels.
    #[test]
    fn the_order_is_that_of_every_log(
        made in prop::collection::vec((prop::collection::btree_set(0usize..4, 1..4), 0u32..3), 0..12),
    ) {
        let mut logs: Vec<Vec<HandedOut>> = vec![vec![]; 4];
        let mut height = 0;
        for (number, (channels, later)) in (1u32..).zip(&made) {
            height += later;
            for channel in channels {
                logs[*channel].push(out(number, height, &[], &[]));
            }
        }
        let order = numbers(&logs);
        prop_assert_eq!(order.len(), made.len());
        for log in &logs {
            let own = log.iter().map(|out| out.transaction.lock_time.to_consensus_u32());
            let places = own.map(|number| order.iter().position(|n| *n == number));
            prop_assert!(places.collect::<Vec<_>>().windows(2).all(|two| two[0] < two[1]));
        }
        let mut turned = logs;
        turned.reverse();
        prop_assert_eq!(numbers(&turned), order);
    }
}
