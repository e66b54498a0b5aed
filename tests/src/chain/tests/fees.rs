//! The floor, replacement, and clusters.

use super::super::{EmbeddedChain, Reject, Selection};
use super::{Coin, chain_with, open, out, pay, per_vb, reason, sat, spend};

#[test]
fn the_floor_is_exact() {
    let (mut chain, coins) = chain_with(2);
    let vsize = pay(&coins[..1], 0).vsize() as u64;
    assert_eq!(reason(chain.submit(pay(&coins[..1], vsize - 1))), "min relay fee not met");
    chain.submit(pay(&coins[..1], vsize)).unwrap();
    chain.set_floor(per_vb(3));
    assert_eq!(chain.floor(), per_vb(3));
    let low = chain.submit(pay(&coins[1..], 3 * vsize - 1)).unwrap_err();
    let (fee, needed) = (sat(3 * vsize - 1), sat(3 * vsize));
    assert_eq!(low, Reject::MinRelayFeeNotMet { fee, needed });
    chain.submit(pay(&coins[1..], 3 * vsize)).unwrap();
}

#[test]
fn a_raised_floor_evicts_by_chunk() {
    let (mut chain, coins) = chain_with(2);
    let vsize = pay(&coins[..1], 0).vsize() as u64;
    let poor = pay(&coins[..1], vsize);
    let parent = pay(&coins[1..], vsize);
    let child = pay(&[out(&parent, 0)], 9 * vsize);
    for tx in [&poor, &parent, &child] {
        chain.submit(tx.clone()).unwrap();
    }
    let before = chain.sequence();
    chain.set_floor(per_vb(5));
    assert!(chain.sequence() > before);
    assert!(!chain.in_mempool(&poor.compute_txid()));
    assert!(chain.in_mempool(&parent.compute_txid()));
    assert!(chain.in_mempool(&child.compute_txid()));
}

#[test]
fn a_replacement_pays_what_it_replaces_and_its_own_size() {
    let (mut chain, coins) = chain_with(1);
    let first = pay(&coins, 1000);
    let vsize = first.vsize() as u64;
    chain.submit(first.clone()).unwrap();
    assert_eq!(reason(chain.submit(pay(&coins, 999))), "insufficient fee");
    assert_eq!(reason(chain.submit(pay(&coins, 1000 + vsize - 1))), "insufficient fee");
    let second = pay(&coins, 1000 + vsize);
    let accepted = chain.submit(second.clone()).unwrap();
    assert_eq!(accepted.replaced, [first.compute_txid()]);
    assert_eq!(chain.mempool().count(), 1);
    assert!(chain.in_mempool(&second.compute_txid()));
}

#[test]
fn a_replacement_pays_for_descendants_too() {
    let (mut chain, coins) = chain_with(1);
    let first = pay(&coins, 1000);
    let child = pay(&[out(&first, 0)], 2000);
    chain.submit(first.clone()).unwrap();
    chain.submit(child.clone()).unwrap();
    let vsize = first.vsize() as u64;
    assert_eq!(reason(chain.test_accept(&pay(&coins, 3000 + vsize - 1))), "insufficient fee");
    let mut replaced = chain.submit(pay(&coins, 3000 + vsize)).unwrap().replaced;
    replaced.sort();
    let mut expected = [first.compute_txid(), child.compute_txid()];
    expected.sort();
    assert_eq!(replaced, expected);
    assert_eq!(chain.mempool().count(), 1);
}

#[test]
fn a_replacement_needs_no_signal() {
    let (mut chain, coins) = chain_with(1);
    let mut first = pay(&coins, 1000);
    first.input[0].sequence = bitcoin::Sequence::MAX;
    chain.submit(first).unwrap();
    chain.submit(pay(&coins, 2000)).unwrap();
}

#[test]
fn a_replacement_improves_the_diagram() {
    let (mut chain, coins) = chain_with(1);
    let first = pay(&coins, 1000);
    chain.submit(first).unwrap();
    // More fee in all, but at a lower feerate.
    let heavy = spend(&coins, &[400; 100]);
    let fee = 100_000 - 400 * 100;
    assert!(fee > 1000 + heavy.vsize() as u64);
    let (mut poor, mut rich) = (heavy.clone(), heavy);
    let vsize = poor.vsize() as u64;
    poor.output[0].value += sat(fee - 1000 - vsize);
    assert_eq!(reason(chain.submit(poor)), "replacement-failed");
    // At a feerate above the first's it passes.
    rich.output[0].value += sat(fee - 11 * vsize);
    chain.submit(rich).unwrap();
}

#[test]
fn a_replacement_may_not_spend_what_it_replaces() {
    let (mut chain, coins) = chain_with(2);
    let first = pay(&coins[..1], 1000);
    chain.submit(first.clone()).unwrap();
    let both = pay(&[coins[0], out(&first, 0)], 20_000);
    assert_eq!(reason(chain.submit(both)), "bad-txns-spends-conflicting-tx");
}

#[test]
fn a_replacement_touches_at_most_a_hundred_clusters() {
    let mut chain = EmbeddedChain::new();
    let outpoints = chain.fund_many(&vec![(open(), sat(10_000)); 101]).unwrap();
    let coins: Vec<Coin> = outpoints.into_iter().map(|outpoint| (outpoint, 10_000)).collect();
    for coin in &coins {
        chain.submit(pay(&[*coin], 200)).unwrap();
    }
    let all = pay(&coins, 500_000);
    assert_eq!(reason(chain.submit(all)), "too many potential replacements");
    chain.submit(pay(&coins[1..], 500_000)).unwrap();
    assert_eq!(chain.mempool().count(), 2);
}

#[test]
fn clusters_hold_64_transactions() {
    let (mut chain, coins) = chain_with(2);
    let fan = spend(&coins[..1], &[1000; 64]);
    chain.submit(fan.clone()).unwrap();
    for vout in 0..63 {
        chain.submit(pay(&[out(&fan, vout)], 500)).unwrap();
    }
    let extra = pay(&[out(&fan, 63)], 500);
    assert_eq!(reason(chain.submit(extra.clone())), "too-large-cluster");
    // Replacing within the full cluster is no growth.
    chain.submit(pay(&[out(&fan, 0)], 650)).unwrap();
    chain.mine(&Selection::All);
    chain.submit(extra).unwrap();
}

#[test]
fn clusters_hold_101_kvb() {
    let mut chain = EmbeddedChain::new();
    let coin = (chain.fund(open(), sat(10_000_000)).unwrap(), 10_000_000);
    let mut values = vec![330; 1160];
    values.push(9_000_000);
    let parent = spend(&[coin], &values);
    chain.submit(parent.clone()).unwrap();
    let mut child = spend(&[out(&parent, 1160)], &vec![330; 1190]);
    child.output[0].value = sat(8_000_000);
    assert!(parent.vsize() + child.vsize() > 101_000);
    assert_eq!(reason(chain.submit(child.clone())), "too-large-cluster");
    while parent.vsize() + child.vsize() > 101_000 {
        child.output.pop();
    }
    chain.submit(child).unwrap();
}

#[test]
fn a_cheaper_increment_is_possible() {
    let (mut chain, coins) = chain_with(1);
    chain.submit(pay(&coins, 1000)).unwrap();
    let second = pay(&coins, 1020);
    assert_eq!(reason(chain.test_accept(&second)), "insufficient fee");
    chain.set_incremental_relay_feerate(bitcoin::FeeRate::from_sat_per_kwu(25));
    chain.submit(second).unwrap();
}
