//! The mempool's entries and their graph; it judges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Wtxid};

use super::cluster::Node;

/// An unconfirmed transaction and its measures.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) tx: Arc<Transaction>,
    pub(super) txid: Txid,
    pub(super) wtxid: Wtxid,
    pub(super) fee: Amount,
    /// Virtual size adjusted by signature operations.
    pub(super) vsize: u64,
    /// Weight adjusted by signature operations: the size in clusters and diagrams.
    pub(super) weight: u64,
    /// Place in the order of arrival.
    pub(super) arrival: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Mempool {
    entries: BTreeMap<Txid, Entry>,
    spenders: HashMap<OutPoint, Txid>,
    arrivals: u64,
}

impl Mempool {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.get(txid)
    }

    pub(super) fn contains(&self, txid: &Txid) -> bool {
        self.entries.contains_key(txid)
    }

    /// Entries in txid order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<&Entry> {
        self.entries.get(self.spenders.get(outpoint)?)
    }

    pub(super) fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.entries.get(&outpoint.txid)?.tx.output.get(outpoint.vout as usize)
    }

    pub(super) fn insert(&mut self, mut entry: Entry) {
        entry.arrival = self.arrivals;
        self.arrivals += 1;
        for input in &entry.tx.input {
            self.spenders.insert(input.previous_output, entry.txid);
        }
        self.entries.insert(entry.txid, entry);
    }

    /// Txids in order of arrival.
    pub(super) fn queue(&self) -> Vec<Txid> {
        let mut entries: Vec<&Entry> = self.entries.values().collect();
        entries.sort_by_key(|entry| entry.arrival);
        entries.into_iter().map(|entry| entry.txid).collect()
    }

    /// Moves these to the end of the order of arrival.
    pub(super) fn requeue(&mut self, txids: &[Txid]) {
        for txid in txids {
            if let Some(entry) = self.entries.get_mut(txid) {
                entry.arrival = self.arrivals;
                self.arrivals += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, txid: &Txid) -> Option<Entry> {
        let entry = self.entries.remove(txid)?;
        for input in &entry.tx.input {
            self.spenders.remove(&input.previous_output);
        }
        Some(entry)
    }

    /// The transactions in the mempool that `tx` spends from.
    pub(super) fn parents(&self, tx: &Transaction) -> BTreeSet<Txid> {
        let spent = tx.input.iter().map(|input| input.previous_output.txid);
        spent.filter(|txid| self.contains(txid)).collect()
    }

    /// The transactions in the mempool that spend from `tx`.
    pub(super) fn children(&self, txid: Txid, tx: &Transaction) -> BTreeSet<Txid> {
        (0..tx.output.len() as u32)
            .filter_map(|vout| self.spenders.get(&OutPoint { txid, vout }))
            .copied()
            .collect()
    }

    fn reach(
        &self,
        from: impl IntoIterator<Item = Txid>,
        next: impl Fn(&Entry) -> BTreeSet<Txid>,
    ) -> BTreeSet<Txid> {
        let mut reached = BTreeSet::new();
        let mut queue: Vec<Txid> = from.into_iter().collect();
        while let Some(txid) = queue.pop() {
            if let Some(entry) = self.entries.get(&txid).filter(|_| !reached.contains(&txid)) {
                reached.insert(txid);
                queue.extend(next(entry));
            }
        }
        reached
    }

    /// These and all their descendants.
    pub(super) fn descendants(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.reach(from, |entry| self.children(entry.txid, &entry.tx))
    }

    /// These and all their ancestors.
    pub(super) fn ancestors(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.reach(from, |entry| self.parents(&entry.tx))
    }

    /// The clusters of these.
    pub(super) fn clusters(&self, from: impl IntoIterator<Item = Txid>) -> BTreeSet<Txid> {
        self.reach(from, |entry| {
            let mut neighbours = self.parents(&entry.tx);
            neighbours.extend(self.children(entry.txid, &entry.tx));
            neighbours
        })
    }
}

/// The graph of these entries alone, node by node.
pub(super) fn graph(entries: &[&Entry]) -> Vec<Node> {
    let index: HashMap<Txid, usize> =
        entries.iter().enumerate().map(|(i, entry)| (entry.txid, i)).collect();
    let node = |entry: &&Entry| {
        let spent = entry.tx.input.iter().map(|input| input.previous_output.txid);
        let mut parents: Vec<usize> = spent.filter_map(|txid| index.get(&txid).copied()).collect();
        parents.sort_unstable();
        parents.dedup();
        Node { fee: entry.fee.to_sat(), size: entry.weight, parents }
    };
    entries.iter().map(node).collect()
}
