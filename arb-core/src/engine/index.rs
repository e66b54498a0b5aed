//! The index of everything watched, and the scan of a block against it.
use crate::arbitrator::ChannelArbitrator;
use crate::classify;
use crate::engine::{Active, ChainArbitrator, Quiet};
use crate::facts::ChannelFacts;
use crate::ids::Slot;
use crate::picture::Picture;
use crate::units::BlockHeight;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bitcoin::{Block, Transaction, Txid};
use hashbrown::HashMap;

/// What a block holds for the watched channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Touched channels, and the transactions that touch them, in block order.
    pub touched: BTreeMap<Slot, Vec<Transaction>>,
}

impl ChainArbitrator {
    /// One pass over the inputs of a block, in block order. A transaction that spends a watched
    /// output becomes a suspect, so that its children in the same block are caught by the same
    /// pass. Txids are computed for hits alone.
    #[must_use]
    pub fn scan(&self, block: &Block) -> Scan {
        let mut scan = Scan::default();
        let mut suspects: HashMap<Txid, BTreeSet<Slot>> = HashMap::new();
        for tx in &block.txdata {
            let mut slots: Option<BTreeSet<Slot>> = None;
            for input in &tx.input {
                let outpoint = &input.previous_output;
                if let Some(slot) = self.index.get(outpoint) {
                    slots.get_or_insert_default().insert(*slot);
                }
                if !suspects.is_empty()
                    && let Some(of) = suspects.get(&outpoint.txid)
                {
                    slots.get_or_insert_default().extend(of);
                }
            }
            let Some(slots) = slots else { continue };
            for slot in &slots {
                scan.touched.entry(*slot).or_default().push(tx.clone());
            }
            suspects.insert(tx.compute_txid(), slots);
        }
        scan
    }

    /// Quiet channels that must be looked at once the tip is at `height`.
    #[must_use]
    pub fn due_at(&self, height: BlockHeight) -> BTreeSet<Slot> {
        self.due.range(..=height).flat_map(|(_, slots)| slots).copied().collect()
    }

    pub(super) fn insert_quiet(&mut self, slot: Slot, facts: &ChannelFacts) {
        self.remove_entry(slot);
        self.ids.insert(facts.id, slot);
        for funding in classify::fundings(facts) {
            self.index.insert(funding, slot);
        }
        let due = self.quiet_due(facts);
        if let Some(due) = due {
            self.due.entry(due).or_default().insert(slot);
        }
        self.quiet.insert(slot, Quiet { id: facts.id, due });
    }

    fn quiet_due(&self, facts: &ChannelFacts) -> Option<BlockHeight> {
        ChannelArbitrator::default().next_due(facts, None, &self.now()).map(|due| due.tip)
    }

    pub(super) fn insert_active(&mut self, slot: Slot, mut active: Active) {
        self.remove_entry(slot);
        self.ids.insert(active.facts.id, slot);
        active.watched = classify::fundings(&active.facts).collect();
        active.watched.extend(active.picture.iter().flat_map(|p| Picture::watched(p)));
        for outpoint in &active.watched {
            self.index.insert(*outpoint, slot);
        }
        self.active.insert(slot, active);
    }

    /// Takes a channel's due height, and (if it was active) its watches, out. A quiet channel's
    /// funding outputs stay: whoever removes the channel for good names them.
    fn remove_entry(&mut self, slot: Slot) {
        let due = self.quiet.remove(&slot).and_then(|quiet| quiet.due);
        if let Some(due) = due
            && let Some(slots) = self.due.get_mut(&due)
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.due.remove(&due);
            }
        }
        if let Some(active) = self.active.remove(&slot) {
            for outpoint in &active.watched {
                self.index.remove(outpoint);
            }
        }
    }

    pub(super) fn remove_channel(&mut self, slot: Slot) {
        let quiet = self.quiet.get(&slot).map(|quiet| quiet.id);
        let id = quiet.or_else(|| self.active(slot).map(|active| active.facts.id));
        self.remove_entry(slot);
        self.index.retain(|_, watcher| *watcher != slot);
        if let Some(id) = id {
            self.ids.remove(&id);
        }
    }
}
