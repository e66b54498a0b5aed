//! What the network said at one tip of what was handed to it.
use bitcoin::Txid;
use std::collections::{BTreeSet, HashSet};

/// Which transactions the network took since the tip has moved, and which it found to pay too little.
#[derive(Default)]
pub(super) struct Verdicts {
    accepted: HashSet<Txid>,
    outbid: HashSet<Txid>,
    /// Of these, what was handed over once more.
    bid_again: HashSet<Txid>,
}

impl Verdicts {
    /// It took this one. Gives whether it found others to pay too little.
    pub(super) fn is_accepted(&mut self, txid: Txid) -> bool {
        self.accepted.insert(txid);
        !self.outbid.is_empty()
    }

    /// It found this one to pay too little. Gives whether it took others.
    pub(super) fn is_outbid(&mut self, txid: Txid) -> bool {
        self.outbid.insert(txid);
        !self.accepted.is_empty()
    }

    /// Of transactions that can only be taken after one of them is: those that came too early, once one is.
    /// Each is given once.
    pub(super) fn too_early(&mut self, all: &BTreeSet<Txid>) -> HashSet<Txid> {
        if !all.iter().any(|txid| self.accepted.contains(txid)) {
            return HashSet::new();
        }
        let early = all.iter().filter(|txid| self.outbid.contains(*txid));
        early.copied().filter(|txid| self.bid_again.insert(*txid)).collect()
    }
}
