//! Packages, TRUC and ephemeral dust.

use bitcoin::{Transaction, TxIn, TxOut, transaction};

use super::super::{EmbeddedChain, PackageReject, PackageVerdict, Reject};
use super::{Coin, anchor, chain_with, out, pay, per_vb, reason, sat, spend};

/// Version 3 with this fee; with an anchor of this value as a second output, if any.
fn truc(coins: &[Coin], fee: u64, anchor_value: Option<u64>) -> Transaction {
    let mut tx = pay(coins, fee + anchor_value.unwrap_or(0));
    tx.version = transaction::Version(3);
    let output = |value| TxOut { value: sat(value), script_pubkey: anchor() };
    tx.output.extend(anchor_value.map(output));
    tx
}

/// A version 3 child of a parent's anchor, paid by a coin.
fn anchor_child(parent: &Transaction, coin: Coin, fee: u64) -> Transaction {
    let mut child = truc(&[coin], fee, None);
    child.input.push(TxIn { previous_output: out(parent, 1).0, ..TxIn::default() });
    child
}

fn outcome(chain: &mut EmbeddedChain, package: &[Transaction]) -> String {
    match chain.submit_package(package).outcome {
        Ok(()) => "success".to_owned(),
        Err(reject) => reject.to_string(),
    }
}

#[test]
fn a_child_rescues_its_parent_below_the_floor() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 10);
    let child = pay(&[out(&parent, 0)], 1000);
    assert_eq!(reason(chain.submit(parent.clone())), "min relay fee not met");
    assert_eq!(reason(chain.submit(child.clone())), "bad-txns-inputs-missingorspent");
    let report = chain.submit_package(&[parent.clone(), child.clone()]);
    assert_eq!(report.outcome, Ok(()));
    assert!(report.verdicts.iter().all(|(_, verdict)| verdict.is_in_mempool()));
    assert!(chain.in_mempool(&parent.compute_txid()) && chain.in_mempool(&child.compute_txid()));
    let again = chain.submit_package(&[parent, child]);
    assert_eq!(again.outcome, Ok(()));
    assert!(again.verdicts.iter().all(|(_, v)| *v == PackageVerdict::AlreadyInMempool));
}

#[test]
fn a_child_too_poor_rescues_nothing() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 10);
    let child = pay(&[out(&parent, 0)], 120);
    let report = chain.submit_package(&[parent.clone(), child.clone()]);
    assert_eq!(report.outcome, Err(PackageReject::TransactionFailed));
    for tx in [parent, child] {
        let verdict = report.verdict(&tx.compute_txid()).unwrap();
        let low = matches!(verdict, PackageVerdict::Rejected(Reject::MinRelayFeeNotMet { .. }));
        assert!(low, "{verdict:?}");
    }
    assert_eq!(chain.mempool().count(), 0);
}

#[test]
fn a_good_parent_enters_although_its_child_fails() {
    let (mut chain, coins) = chain_with(1);
    let parent = pay(&coins, 1000);
    let mut child = pay(&[out(&parent, 0)], 1000);
    child.input[0].witness.clear();
    let report = chain.submit_package(&[parent.clone(), child.clone()]);
    assert_eq!(report.outcome, Err(PackageReject::TransactionFailed));
    assert!(report.verdict(&parent.compute_txid()).unwrap().is_in_mempool());
    assert!(!report.verdict(&child.compute_txid()).unwrap().is_in_mempool());
    assert!(chain.in_mempool(&parent.compute_txid()));
}

#[test]
fn packages_have_a_form() {
    let (mut chain, coins) = chain_with(2);
    let parent = pay(&coins[..1], 10);
    let child = pay(&[out(&parent, 0)], 1000);
    let stranger = pay(&coins[1..2], 10);
    let p = || parent.clone();
    let count = "Array must contain between 1 and 25 transactions.";
    assert_eq!(outcome(&mut chain, &[]), count);
    assert_eq!(outcome(&mut chain, &vec![p(); 26]), count);
    let topology =
        "package topology disallowed. not child-with-parents or parents depend on each other.";
    assert_eq!(outcome(&mut chain, &[child.clone(), p()]), topology);
    assert_eq!(outcome(&mut chain, &[p(), stranger, child.clone()]), topology);
    let grandchild = pay(&[out(&child, 0), out(&parent, 0)], 1000);
    assert_eq!(outcome(&mut chain, &[p(), child.clone(), grandchild]), topology);
    assert_eq!(outcome(&mut chain, &[p(), p(), child.clone()]), "package-contains-duplicates");
    let rival = pay(&coins[..1], 20);
    let of_both = pay(&[out(&parent, 0), out(&rival, 0)], 1000);
    assert_eq!(outcome(&mut chain, &[p(), rival, of_both]), "conflict-in-package");
    let mut heavy = spend(&coins[1..2], &[330; 1190]);
    heavy.output[0].value = sat(50_000);
    let heavy_child = spend(&[out(&heavy, 0)], &[330; 1180]);
    assert_eq!(outcome(&mut chain, &[heavy, heavy_child]), "package-too-large");
    assert_eq!(outcome(&mut chain, &[p(), child]), "success");
}

#[test]
fn several_parents_are_rescued_by_one_child() {
    let (mut chain, coins) = chain_with(3);
    let parents: Vec<_> = coins.iter().map(|coin| pay(&[*coin], 0)).collect();
    let outputs: Vec<_> = parents.iter().map(|tx| out(tx, 0)).collect();
    let mut package = parents;
    package.push(pay(&outputs, 1000));
    assert_eq!(outcome(&mut chain, &package), "success");
    assert_eq!(chain.mempool().count(), 4);
}

#[test]
fn a_package_of_two_replaces() {
    let (mut chain, coins) = chain_with(1);
    let old = pay(&coins, 1000);
    chain.submit(old.clone()).unwrap();
    let parent = pay(&coins, 100);
    let poor = pay(&[out(&parent, 0)], 1000);
    let expected = "package RBF failed: insufficient anti-DoS fees";
    assert_eq!(outcome(&mut chain, &[parent.clone(), poor]), expected);
    assert!(chain.in_mempool(&old.compute_txid()));
    let child = pay(&[out(&parent, 0)], 3000);
    let report = chain.submit_package(&[parent.clone(), child.clone()]);
    assert_eq!(report.outcome, Ok(()));
    assert!(!chain.in_mempool(&old.compute_txid()));
    let verdict = report.verdict(&parent.compute_txid()).unwrap();
    let PackageVerdict::Accepted(accepted) = verdict else { panic!("{verdict:?}") };
    assert_eq!(accepted.replaced, [old.compute_txid()]);
}

#[test]
fn a_package_replaces_only_with_a_better_diagram() {
    let (mut chain, coins) = chain_with(1);
    chain.submit(pay(&coins, 3000)).unwrap();
    let parent = pay(&coins, 0);
    let mut heavy = spend(&[out(&parent, 0)], &[400; 100]);
    heavy.output[0].value = sat(100_000 - 99 * 400 - 8000);
    let expected = "package RBF failed: insufficient feerate: does not improve feerate diagram";
    assert_eq!(outcome(&mut chain, &[parent, heavy]), expected);
}

#[test]
fn larger_packages_replace_nothing() {
    let (mut chain, coins) = chain_with(2);
    chain.submit(pay(&coins[..1], 1000)).unwrap();
    let (a, b) = (pay(&coins[..1], 0), pay(&coins[1..], 0));
    let child = pay(&[out(&a, 0), out(&b, 0)], 9000);
    let expected = "package RBF failed: package must be 1-parent-1-child";
    assert_eq!(outcome(&mut chain, &[a, b, child]), expected);
}

#[test]
fn zero_fee_commitment_with_anchor() {
    let (mut chain, coins) = chain_with(2);
    let parent = truc(&coins[..1], 0, Some(0));
    assert_eq!(reason(chain.submit(parent.clone())), "min relay fee not met");
    let child = anchor_child(&parent, coins[1], 1000);
    assert_eq!(outcome(&mut chain, &[parent.clone(), child.clone()]), "success");
    // The anchor must be spent by every child.
    let (mut other, coins) = chain_with(1);
    let parent = truc(&coins, 0, Some(0));
    let avoids = truc(&[out(&parent, 0)], 1000, None);
    let report = other.submit_package(&[parent, avoids.clone()]);
    assert_eq!(report.outcome, Err(PackageReject::UnspentDust));
    let expected = PackageVerdict::Rejected(Reject::MissingEphemeralSpends);
    assert_eq!(report.verdict(&avoids.compute_txid()), Some(&expected));
}

#[test]
fn a_transaction_with_dust_pays_no_fee() {
    let (mut chain, coins) = chain_with(1);
    assert_eq!(reason(chain.submit(truc(&coins, 500, Some(0)))), "dust");
    chain.submit(truc(&coins, 500, Some(240))).unwrap();
}

#[test]
fn a_truc_parent_has_one_child() {
    let (mut chain, coins) = chain_with(2);
    let parent = truc(&coins[..1], 500, Some(240));
    let child = truc(&[out(&parent, 0)], 500, None);
    chain.submit(parent.clone()).unwrap();
    chain.submit(child.clone()).unwrap();
    let grandchild = truc(&[out(&child, 0)], 500, None);
    assert_eq!(reason(chain.submit(grandchild)), "TRUC-violation");
    // A sibling that pays enough evicts the first child although it spends nothing of its own.
    let poor = anchor_child(&parent, coins[1], 300);
    let expected = "insufficient fee (including sibling eviction)";
    assert_eq!(reason(chain.submit(poor)), expected);
    let sibling = anchor_child(&parent, coins[1], 2000);
    assert_eq!(chain.submit(sibling).unwrap().replaced, [child.compute_txid()]);
}

#[test]
fn truc_is_inherited() {
    let (mut chain, coins) = chain_with(2);
    let parent = truc(&coins[..1], 500, None);
    chain.submit(parent.clone()).unwrap();
    assert_eq!(reason(chain.submit(pay(&[out(&parent, 0)], 500))), "TRUC-violation");
    let plain = pay(&coins[1..], 500);
    chain.submit(plain.clone()).unwrap();
    let child = truc(&[out(&plain, 0)], 500, None);
    assert_eq!(reason(chain.submit(child)), "TRUC-violation");
}

#[test]
fn truc_is_inherited_within_packages() {
    let (mut chain, coins) = chain_with(1);
    let parent = truc(&coins, 0, None);
    let child = pay(&[out(&parent, 0)], 1000);
    assert_eq!(outcome(&mut chain, &[parent.clone(), child]), "TRUC-violation");
    let child = truc(&[out(&parent, 0)], 1000, None);
    assert_eq!(outcome(&mut chain, &[parent, child]), "success");
}

#[test]
fn truc_transactions_are_small() {
    let (mut chain, coins) = chain_with(2);
    let mut large = spend(&coins[..1], &[330; 240]);
    large.version = transaction::Version(3);
    assert!(large.vsize() > 10_000);
    assert_eq!(reason(chain.submit(large.clone())), "TRUC-violation");
    large.output.truncate(230);
    chain.submit(large.clone()).unwrap();
    let mut child = spend(&[out(&large, 0), coins[1]], &[400; 25]);
    child.version = transaction::Version(3);
    assert!(child.vsize() > 1000);
    assert_eq!(reason(chain.submit(child.clone())), "TRUC-violation");
    child.output.truncate(15);
    chain.submit(child).unwrap();
}

#[test]
fn a_floor_above_the_package_refuses_it() {
    let (mut chain, coins) = chain_with(1);
    chain.set_floor(per_vb(50));
    let parent = pay(&coins, 0);
    let child = pay(&[out(&parent, 0)], 1000);
    assert_eq!(outcome(&mut chain, &[parent.clone(), child]), "transaction failed");
    let child = pay(&[out(&parent, 0)], 20_000);
    assert_eq!(outcome(&mut chain, &[parent, child]), "success");
}
