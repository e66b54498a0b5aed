//! Heights and times at which locks open, exactly.

use bitcoin::absolute::LockTime;
use bitcoin::{Sequence, transaction};

use super::super::Selection;
use super::{chain_with, out, pay, reason};

#[test]
fn locktime_opens_when_the_tip_is_as_high() {
    let (mut chain, coins) = chain_with(1);
    let height = chain.height() + 3;
    let mut tx = pay(&coins, 1000);
    tx.lock_time = LockTime::from_consensus(height);
    for _ in 0..3 {
        assert_eq!(reason(chain.submit(tx.clone())), "non-final");
        chain.mine(&Selection::Empty);
    }
    assert_eq!(chain.height(), height);
    chain.submit(tx).unwrap();
}

#[test]
fn locktime_is_ignored_if_every_sequence_is_final() {
    let (mut chain, coins) = chain_with(1);
    let mut tx = pay(&coins, 1000);
    tx.lock_time = LockTime::from_consensus(chain.height() + 50);
    tx.input[0].sequence = Sequence::MAX;
    chain.submit(tx).unwrap();
}

#[test]
fn locktime_in_seconds_compares_with_the_median_time() {
    let (mut chain, coins) = chain_with(1);
    let mut tx = pay(&coins, 1000);
    tx.lock_time = LockTime::from_consensus(chain.median_time_past());
    assert_eq!(reason(chain.submit(tx.clone())), "non-final");
    chain.mine(&Selection::Empty);
    chain.submit(tx).unwrap();
}

#[test]
fn relative_lock_opens_at_confirmation_plus_delay_minus_one() {
    let (mut chain, coins) = chain_with(1);
    let confirmed = chain.tx_height(&coins[0].0.txid).unwrap();
    let mut tx = pay(&coins, 1000);
    tx.input[0].sequence = Sequence::from_height(5);
    while chain.height() < confirmed + 4 {
        assert_eq!(reason(chain.submit(tx.clone())), "non-BIP68-final");
        chain.mine(&Selection::Empty);
    }
    chain.submit(tx).unwrap();
}

#[test]
fn relative_lock_needs_version_two() {
    let (mut chain, coins) = chain_with(1);
    let mut tx = pay(&coins, 1000);
    tx.input[0].sequence = Sequence::from_height(500);
    assert_eq!(reason(chain.test_accept(&tx)), "non-BIP68-final");
    tx.version = transaction::Version::ONE;
    chain.submit(tx).unwrap();
}

#[test]
fn relative_lock_on_unconfirmed_output() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 1000);
    chain.submit(parent.clone()).unwrap();
    let mut child = pay(&[out(&parent, 0)], 1000);
    child.input[0].sequence = Sequence::from_height(1);
    assert_eq!(reason(chain.test_accept(&child)), "non-BIP68-final");
    child.input[0].sequence = Sequence::ZERO;
    chain.submit(child).unwrap();
}

#[test]
fn relative_lock_in_seconds() {
    let (mut chain, coins) = chain_with(1);
    let confirmed = chain.tx_height(&coins[0].0.txid).unwrap();
    let mut tx = pay(&coins, 1000);
    // 2 x 512 seconds, and blocks are 600 seconds apart: two blocks after the one before.
    tx.input[0].sequence = Sequence::from_512_second_intervals(2);
    assert_eq!(reason(chain.submit(tx.clone())), "non-BIP68-final");
    chain.mine(&Selection::Empty);
    assert_eq!(chain.height(), confirmed + 1);
    chain.submit(tx).unwrap();
}

#[test]
fn coinbase_matures_after_a_hundred_blocks() {
    let (mut chain, _) = chain_with(1);
    let height = chain.height();
    let coinbase = chain.block_at(height).unwrap().txdata[0].clone();
    let tx = pay(&[out(&coinbase, 0)], 1000);
    chain.mine_empty(98);
    assert_eq!(reason(chain.test_accept(&tx)), "bad-txns-premature-spend-of-coinbase");
    chain.mine_empty(1);
    assert_eq!(chain.height(), height + 99);
    chain.submit(tx).unwrap();
}
