//! Disconnected blocks: what returns, what does not.

use bitcoin::Sequence;
use bitcoin::absolute::LockTime;

use super::super::{ChainError, Selection};
use super::{chain_with, out, pay, reason};

#[test]
fn transactions_return_and_are_mined_again() {
    let (mut chain, coins) = chain_with(2);
    let parent = pay(&coins[..1], 1000);
    let child = pay(&[out(&parent, 0)], 1000);
    chain.submit(parent.clone()).unwrap();
    chain.mine(&Selection::All);
    chain.submit(child.clone()).unwrap();
    chain.mine(&Selection::All);
    let (height, old) = chain.tip();
    let before = chain.sequence();
    let gone = chain.disconnect(2, &|_| false).unwrap();
    assert!(chain.sequence() > before);
    assert_eq!(gone.first(), Some(&old));
    assert_eq!(chain.height(), height - 2);
    let queue: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(queue, [parent.compute_txid(), child.compute_txid()]);
    assert_eq!(chain.tx_height(&parent.compute_txid()), None);
    assert!(chain.utxo(&coins[0].0).is_some());
    assert!(chain.confirmed_spender(&coins[0].0).is_none());
    for _ in 0..3 {
        chain.mine(&Selection::All);
    }
    assert_eq!(chain.tx_height(&child.compute_txid()), Some(height - 1));
    assert_ne!(chain.hash_at(height), Some(old));
    assert!(!chain.is_active(&old));
    // Stale blocks stay, and lead back to the fork.
    let stale = chain.block(&old).unwrap().header.prev_blockhash;
    assert_eq!(chain.block_height(&stale), Some(height - 1));
    let fork = chain.block(&stale).unwrap().header.prev_blockhash;
    assert_eq!(chain.hash_at(height - 2), Some(fork));
    assert!(chain.is_active(&fork));
}

#[test]
fn empty_branches_differ_too() {
    let (mut chain, _) = chain_with(1);
    chain.mine_empty(3);
    let old: Vec<_> = (0..=chain.height()).filter_map(|h| chain.hash_at(h)).collect();
    chain.disconnect(3, &|_| false).unwrap();
    chain.mine_empty(3);
    let new: Vec<_> = (0..=chain.height()).filter_map(|h| chain.hash_at(h)).collect();
    let same = old.iter().zip(&new).filter(|(a, b)| a == b).count();
    assert_eq!(same, old.len() - 3);
}

#[test]
fn dropped_ones_take_their_descendants_along() {
    let (mut chain, coins) = chain_with(2);
    let parent = pay(&coins[..1], 1000);
    let child = pay(&[out(&parent, 0)], 1000);
    let waiting = pay(&[out(&child, 0)], 1000);
    let other = pay(&coins[1..], 1000);
    for tx in [&parent, &child, &other] {
        chain.submit(tx.clone()).unwrap();
    }
    chain.mine(&Selection::All);
    chain.submit(waiting.clone()).unwrap();
    let dropped = parent.compute_txid();
    chain.disconnect(1, &|tx| tx.compute_txid() == dropped).unwrap();
    let left: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(left, [other.compute_txid()]);
    // It may come again.
    chain.submit(parent).unwrap();
}

#[test]
fn an_unconfirmed_descendant_of_what_returns_stays() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 1000);
    let child = pay(&[out(&parent, 0)], 1000);
    chain.submit(parent.clone()).unwrap();
    chain.mine(&Selection::All);
    chain.submit(child.clone()).unwrap();
    chain.disconnect(1, &|_| false).unwrap();
    let queue: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(queue, [parent.compute_txid(), child.compute_txid()]);
}

#[test]
fn locks_are_checked_again() {
    let (mut chain, coins) = chain_with(3);
    let height = chain.height();
    chain.mine_empty(2);
    let mut relative = pay(&coins[..1], 1000);
    relative.input[0].sequence = Sequence::from_height(3);
    let mut absolute = pay(&coins[1..2], 1000);
    absolute.lock_time = LockTime::from_consensus(height + 2);
    let mut open = pay(&coins[2..], 1000);
    open.lock_time = LockTime::from_consensus(height + 1);
    for tx in [&relative, &absolute, &open] {
        chain.submit(tx.clone()).unwrap();
    }
    chain.disconnect(1, &|_| false).unwrap();
    let left: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(left, [open.compute_txid()]);
    assert_eq!(reason(chain.submit(relative)), "non-BIP68-final");
    assert_eq!(reason(chain.submit(absolute)), "non-final");
}

#[test]
fn a_relative_lock_on_what_returns_closes() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 1000);
    chain.submit(parent.clone()).unwrap();
    chain.mine(&Selection::All);
    let mut child = pay(&[out(&parent, 0)], 1000);
    child.input[0].sequence = Sequence::from_height(1);
    chain.submit(child).unwrap();
    chain.disconnect(1, &|_| false).unwrap();
    let left: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(left, [parent.compute_txid()]);
}

#[test]
fn spends_of_vanished_coinbases_go() {
    let (mut chain, _) = chain_with(1);
    let height = chain.height();
    chain.mine_empty(99);
    let coinbase = chain.block_at(height).unwrap().txdata[0].clone();
    chain.submit(pay(&[out(&coinbase, 0)], 1000)).unwrap();
    chain.disconnect(1, &|_| false).unwrap();
    assert_eq!(chain.mempool().count(), 0);
    chain.disconnect(99, &|_| false).unwrap();
    assert_eq!(chain.utxo(&out(&coinbase, 0).0), None);
}

#[test]
fn what_returns_is_below_no_floor() {
    let (mut chain, coins) = chain_with(2);
    chain.mine_transactions(&[pay(&coins[..1], 1)]).unwrap();
    chain.disconnect(1, &|_| false).unwrap();
    assert_eq!(chain.mempool().count(), 1);
}

#[test]
fn a_clone_goes_its_own_way() {
    let (mut chain, coins) = chain_with(1);
    let snapshot = chain.clone();
    chain.submit(pay(&coins, 1000)).unwrap();
    chain.mine(&Selection::All);
    assert_eq!(snapshot.height() + 1, chain.height());
    assert!(snapshot.utxo(&coins[0].0).is_some());
}

#[test]
fn genesis_stays() {
    let (mut chain, _) = chain_with(1);
    let height = chain.height();
    let refused = chain.disconnect(height + 1, &|_| false);
    assert_eq!(refused, Err(ChainError::DisconnectPastGenesis { blocks: height + 1, height }));
    assert_eq!(chain.height(), height);
    chain.disconnect(height, &|_| false).unwrap();
    assert_eq!(chain.height(), 0);
}
