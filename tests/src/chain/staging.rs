//! What a change would do to the clusters it touches: limits and feerate diagram.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use bitcoin::Txid;

use super::cluster::{chunks, compare_diagrams, components};
use super::mempool::{Entry, Mempool, graph};

const MAX_CLUSTER_COUNT: usize = 64;
/// 101 kvB, in weight.
const MAX_CLUSTER_WEIGHT: u64 = 101_000 * 4;

/// The touched part of the mempool before and after a change.
pub(super) struct Staged<'a> {
    before: Vec<&'a Entry>,
    after: Vec<&'a Entry>,
}

impl<'a> Staged<'a> {
    pub(super) fn new(
        mempool: &'a Mempool,
        additions: &[&'a Entry],
        removals: &BTreeSet<Txid>,
    ) -> Self {
        let parents = additions.iter().flat_map(|entry| mempool.parents(&entry.tx));
        let touched = mempool.clusters(removals.iter().copied().chain(parents));
        let before: Vec<&Entry> = touched.iter().filter_map(|txid| mempool.get(txid)).collect();
        let kept = before.iter().copied().filter(|entry| !removals.contains(&entry.txid));
        let after = kept.chain(additions.iter().copied()).collect();
        Self { before, after }
    }

    pub(super) fn within_limits(&self) -> bool {
        let nodes = graph(&self.after);
        components(&nodes).iter().all(|cluster| {
            let weight: u64 = cluster.iter().map(|&i| nodes[i].size).sum();
            cluster.len() <= MAX_CLUSTER_COUNT && weight <= MAX_CLUSTER_WEIGHT
        })
    }

    /// True if the diagram is nowhere lower and somewhere higher than before.
    pub(super) fn improves_diagram(&self) -> bool {
        let after = chunks(&graph(&self.after));
        let before = chunks(&graph(&self.before));
        compare_diagrams(&after, &before) == Some(Ordering::Greater)
    }
}
