//! Version 3 transactions (BIP431): at most one parent and one child unconfirmed.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Transaction, Txid};

use super::mempool::{Entry, Mempool};
use super::reject::TrucViolation;

const VERSION: i32 = 3;
const MAX_VSIZE: u64 = 10_000;
const MAX_CHILD_VSIZE: u64 = 1_000;
/// Ancestors or descendants, the transaction itself included.
const MAX_FAMILY: usize = 2;

/// A rule broken, and the sibling whose eviction would mend it.
pub(super) struct Broken {
    pub(super) violation: TrucViolation,
    pub(super) sibling: Option<Txid>,
}

impl From<TrucViolation> for Broken {
    fn from(violation: TrucViolation) -> Self {
        Self { violation, sibling: None }
    }
}

fn is_truc(tx: &Transaction) -> bool {
    tx.version.0 == VERSION
}

/// Checks a transaction against its parents in the mempool.
pub(super) fn check_single(
    mempool: &Mempool,
    entry: &Entry,
    parents: &BTreeSet<Txid>,
    conflicts: &BTreeSet<Txid>,
) -> Result<(), Broken> {
    let parent_entries: Vec<&Entry> = parents.iter().filter_map(|txid| mempool.get(txid)).collect();
    for parent in &parent_entries {
        inherits(&entry.tx, &parent.tx)?;
    }
    if !is_truc(&entry.tx) {
        return Ok(());
    }
    if entry.vsize > MAX_VSIZE {
        return Err(TrucViolation::TooBig.into());
    }
    let Some(parent) = parent_entries.first() else { return Ok(()) };
    let ancestors = mempool.ancestors([parent.txid]).len();
    if parent_entries.len() + 1 > MAX_FAMILY || ancestors + 1 > MAX_FAMILY {
        return Err(TrucViolation::TooManyAncestors.into());
    }
    if entry.vsize > MAX_CHILD_VSIZE {
        return Err(TrucViolation::ChildTooBig.into());
    }
    check_siblings(mempool, parent.txid, conflicts)
}

fn inherits(tx: &Transaction, parent: &Transaction) -> Result<(), TrucViolation> {
    match (is_truc(tx), is_truc(parent)) {
        (false, true) => Err(TrucViolation::NonTrucSpendsTruc),
        (true, false) => Err(TrucViolation::TrucSpendsNonTruc),
        (true, true) | (false, false) => Ok(()),
    }
}

fn check_siblings(
    mempool: &Mempool,
    parent: Txid,
    conflicts: &BTreeSet<Txid>,
) -> Result<(), Broken> {
    let mut siblings = mempool.descendants([parent]);
    let family = siblings.len();
    siblings.remove(&parent);
    if family < MAX_FAMILY || !siblings.is_disjoint(conflicts) {
        return Ok(());
    }
    let alone = siblings.first().filter(|sibling| {
        family == MAX_FAMILY && mempool.ancestors([**sibling]).len() == MAX_FAMILY
    });
    Err(Broken { violation: TrucViolation::TooManyDescendants, sibling: alone.copied() })
}

/// Checks one transaction of a package against the package and the mempool.
pub(super) fn check_in_package(
    mempool: &Mempool,
    entry: &Entry,
    parents: &BTreeSet<Txid>,
    package: &[Arc<Transaction>],
) -> Result<(), TrucViolation> {
    let spends = |tx: &Transaction, id: Txid| tx.input.iter().any(|i| i.previous_output.txid == id);
    let near: Vec<(Txid, &Transaction)> = package
        .iter()
        .map(|tx| (tx.compute_txid(), tx.as_ref()))
        .filter(|(txid, _)| spends(&entry.tx, *txid))
        .collect();
    let far: Vec<&Entry> = parents.iter().filter_map(|txid| mempool.get(txid)).collect();
    let above = far.iter().map(|p| p.tx.as_ref()).chain(near.iter().map(|(_, tx)| *tx));
    for parent in above {
        inherits(&entry.tx, parent)?;
    }
    if !is_truc(&entry.tx) {
        return Ok(());
    }
    let higher = far.first().map_or(0, |parent| mempool.ancestors([parent.txid]).len());
    if far.len() + near.len() + 1 > MAX_FAMILY || higher + near.len() + 1 > MAX_FAMILY {
        return Err(TrucViolation::TooManyAncestors);
    }
    let parent = far.first().map(|p| p.txid).or_else(|| near.first().map(|(txid, _)| *txid));
    let Some(parent) = parent else { return Ok(()) };
    if entry.vsize > MAX_CHILD_VSIZE {
        return Err(TrucViolation::ChildTooBig);
    }
    for other in package.iter().filter(|tx| tx.compute_txid() != entry.txid) {
        if spends(other, parent) {
            return Err(TrucViolation::TooManyDescendants);
        }
        if spends(other, entry.txid) {
            return Err(TrucViolation::TooManyAncestors);
        }
    }
    if mempool.descendants([parent]).len() > 1 {
        return Err(TrucViolation::TooManyDescendants);
    }
    Ok(())
}
