//! Blocks, funding, mining and queries.

use std::time::Instant;

use bitcoin::Target;
use bitcoin::params::Params;

use super::super::{ChainError, EmbeddedChain, Selection};
use super::{chain_with, open, out, pay, random_outpoint, sat, spend};

#[test]
fn blocks_are_valid_and_linked() {
    let (mut chain, coins) = chain_with(2);
    chain.submit(pay(&coins[..1], 1000)).unwrap();
    chain.mine(&Selection::All);
    let (height, tip) = chain.tip();
    assert!(height > 100);
    for h in 1..=height {
        let block = chain.block_at(h).unwrap();
        let hash = block.header.validate_pow(Target::MAX_ATTAINABLE_REGTEST).unwrap();
        assert_eq!(Some(hash), chain.hash_at(h));
        assert_eq!(Some(block.header.prev_blockhash), chain.hash_at(h - 1));
        assert!(block.check_merkle_root());
        assert!(block.check_witness_commitment());
        if h > 16 {
            assert_eq!(block.bip34_block_height(), Ok(u64::from(h)));
        }
        assert_eq!(block.header.bits, Params::REGTEST.max_attainable_target.to_compact_lossy());
    }
    assert_eq!(chain.hash_at(height), Some(tip));
    assert_eq!(chain.hash_at(height + 1), None);
    assert_eq!(chain.block(&tip).unwrap().block_hash(), tip);
}

#[test]
fn fund_makes_confirmed_outputs() {
    let mut chain = EmbeddedChain::new();
    let first = chain.fund(open(), sat(5_000_000_001)).unwrap();
    assert_eq!(chain.utxo(&first).unwrap().value, sat(5_000_000_001));
    let height = chain.height();
    assert_eq!(chain.tx_height(&first.txid), Some(height));
    chain.fund(open(), sat(1)).unwrap();
    assert_eq!(chain.height(), height + 1);
    assert!(matches!(
        chain.fund(open(), sat(2_100_000_000_000_001)),
        Err(ChainError::FaucetDry(_))
    ));
}

#[test]
fn two_chains_with_one_story_are_equal() {
    let (mut a, coins) = chain_with(3);
    let (mut b, _) = chain_with(3);
    for chain in [&mut a, &mut b] {
        for coin in &coins {
            chain.submit(pay(&[*coin], 1000)).unwrap();
        }
        chain.mine(&Selection::All);
    }
    assert_eq!(a.tip(), b.tip());
}

#[test]
fn queries_follow_a_spend() {
    let (mut chain, coins) = chain_with(1);
    let tx = pay(&coins, 1000);
    let (txid, spent) = (tx.compute_txid(), coins[0].0);
    let before = chain.sequence();
    let accepted = chain.submit(tx.clone()).unwrap();
    assert!(chain.sequence() > before);
    assert_eq!((accepted.txid, accepted.fee), (txid, sat(1000)));
    assert_eq!(accepted.vsize, tx.vsize() as u64);
    assert!(chain.in_mempool(&txid));
    assert_eq!(chain.mempool_spender(&spent), Some(&tx));
    assert_eq!(chain.mempool_fee(&txid), Some(sat(1000)));
    let feerate = chain.mempool_feerate(&txid).unwrap().to_sat_per_kwu();
    assert_eq!(feerate, 1_000_000 / tx.weight().to_wu());
    assert!(chain.utxo(&spent).is_some());
    assert!(chain.confirmed_spender(&spent).is_none());
    assert_eq!(chain.prevout(&out(&tx, 0).0), Some(&tx.output[0]));

    let before = chain.sequence();
    let hash = chain.mine(&Selection::All);
    assert!(chain.sequence() > before);
    assert!(!chain.in_mempool(&txid));
    assert_eq!(chain.mempool().count(), 0);
    assert_eq!(chain.confirmed_spender(&spent), Some(&tx));
    assert_eq!(chain.utxo(&spent), None);
    assert_eq!(chain.prevout(&spent).unwrap().value, sat(100_000));
    assert_eq!(chain.tx_height(&txid), Some(chain.height()));
    assert_eq!(chain.confirmed_tx(&txid), Some(&tx));
    let block = chain.block(&hash).unwrap();
    assert_eq!(block.txdata[1], tx);
    // The coinbase collects the fee.
    assert_eq!(block.txdata[0].output[0].value, sat(5_000_001_000));
    assert_eq!(chain.prevout(&random_outpoint(9)), None);
}

#[test]
fn selections_leave_out_what_they_say() {
    let (mut chain, coins) = chain_with(2);
    let parent = pay(&coins[..1], 1000);
    let child = pay(&[out(&parent, 0)], 1000);
    let other = pay(&coins[1..], 1000);
    for tx in [&parent, &child, &other] {
        chain.submit(tx.clone()).unwrap();
    }
    chain.mine(&Selection::Empty);
    assert_eq!(chain.mempool().count(), 3);
    let parent_id = parent.compute_txid();
    chain.mine(&Selection::Without(&|tx| tx.compute_txid() == parent_id));
    let left: Vec<_> = chain.mempool().map(|tx| tx.compute_txid()).collect();
    assert_eq!(left, [parent_id, child.compute_txid()]);
    assert!(chain.tx_height(&other.compute_txid()).is_some());
    chain.mine(&Selection::All);
    assert_eq!(chain.block_at(chain.height()).unwrap().txdata[1..], [parent, child]);
}

#[test]
fn a_child_pays_its_parent_into_the_full_block() {
    let (mut chain, coins) = chain_with(3);
    // Without fee a chunk is not mined, however empty the block.
    chain.set_floor(super::per_vb(0));
    let free = pay(&coins[..1], 0);
    chain.submit(free.clone()).unwrap();
    chain.mine(&Selection::All);
    assert!(chain.in_mempool(&free.compute_txid()));
    let child = pay(&[out(&free, 0)], 5000);
    chain.submit(child.clone()).unwrap();
    let rich = pay(&coins[1..2], 9000);
    let middle = pay(&coins[2..], 1000);
    chain.submit(middle.clone()).unwrap();
    chain.submit(rich.clone()).unwrap();
    chain.mine(&Selection::All);
    let order = &chain.block_at(chain.height()).unwrap().txdata[1..];
    assert_eq!(order, [rich, free, child, middle]);
}

#[test]
fn a_block_takes_only_its_weight() {
    let mut chain = EmbeddedChain::new();
    let coins = chain.fund_many(&vec![(open(), sat(1_000_000)); 12]).unwrap();
    for outpoint in coins {
        // 2,300 outputs of 43 bytes: close to 400,000 weight units.
        let mut tx = spend(&[(outpoint, 1_000_000)], &vec![330; 2300]);
        tx.output[0].value = sat(100_000);
        chain.submit(tx).unwrap();
    }
    let total: u64 = chain.mempool().map(|tx| tx.weight().to_wu()).sum();
    assert!(total > 4_000_000);
    let hash = chain.mine(&Selection::All);
    let block = chain.block(&hash).unwrap();
    assert!(block.weight().to_wu() <= 4_000_000);
    assert_eq!(block.txdata.len(), 11);
    assert_eq!(chain.mempool().count(), 2);
}

#[test]
fn a_block_by_hand_evicts_what_conflicts() {
    let (mut chain, coins) = chain_with(1);
    let ours = pay(&coins, 1000);
    let child = pay(&[out(&ours, 0)], 1000);
    chain.submit(ours.clone()).unwrap();
    chain.submit(child).unwrap();
    let theirs = pay(&coins, 1);
    chain.mine_transactions(std::slice::from_ref(&theirs)).unwrap();
    assert_eq!(chain.mempool().count(), 0);
    assert_eq!(chain.confirmed_spender(&coins[0].0), Some(&theirs));
    let again = chain.mine_transactions(&[ours]).unwrap_err();
    assert!(again.to_string().ends_with("bad-txns-inputs-missingorspent"), "{again}");
}

#[test]
fn a_block_by_hand_is_judged_by_consensus() {
    let (mut chain, coins) = chain_with(2);
    let refusal = |chain: &mut EmbeddedChain, tx| match chain.mine_transactions(&[tx]) {
        Err(ChainError::Block { reject, .. }) => reject.to_string(),
        other => format!("{other:?}"),
    };
    let mut unsigned = pay(&coins[..1], 0);
    unsigned.input[0].witness.clear();
    assert_eq!(refusal(&mut chain, unsigned), "block-script-verify-flag-failed (unknown error)");
    assert_eq!(refusal(&mut chain, spend(&coins[..1], &[100_001])), "bad-txns-in-belowout");
    let mut early = pay(&coins[..1], 0);
    early.lock_time = bitcoin::absolute::LockTime::from_consensus(chain.height() + 1);
    assert_eq!(refusal(&mut chain, early), "bad-txns-nonfinal");
    let young = chain.block_at(chain.height()).unwrap().txdata[0].clone();
    let premature = pay(&[out(&young, 0)], 0);
    assert_eq!(refusal(&mut chain, premature), "bad-txns-premature-spend-of-coinbase");
    let parent = pay(&coins[1..], 0);
    let child = pay(&[out(&parent, 0)], 0);
    chain.mine_transactions(&[parent, child.clone()]).unwrap();
    assert_eq!(chain.tx_height(&child.compute_txid()), Some(chain.height()));
}

#[test]
fn empty_blocks_are_cheap() {
    let (mut chain, _) = chain_with(1);
    let start = Instant::now();
    chain.mine_empty(2000);
    let each = start.elapsed() / 2000;
    println!("an empty block takes {each:?}");
    let start = Instant::now();
    let copy = chain.clone();
    println!("a clone at height {} takes {:?}", copy.height(), start.elapsed());
    // Generous: builds without optimisation on busy machines run this too.
    assert!(each.as_micros() < 2000, "{each:?}");
}
