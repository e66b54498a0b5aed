//! The index of everything watched, and the scan of a block against it.
use crate::arbitrator::ChannelArbitrator;
use crate::classify;
use crate::engine::{Active, ChainArbitrator, ChainWatcher};
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
            let mut slots = BTreeSet::new();
            for input in &tx.input {
                let outpoint = &input.previous_output;
                if self.watchers.may_watch(outpoint) {
                    slots.append(&mut self.watchers.watching(*outpoint));
                }
                if !suspects.is_empty() {
                    slots.extend(suspects.get(&outpoint.txid).into_iter().flatten());
                }
            }
            if slots.is_empty() {
                continue;
            }
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
        self.watchers.due_at(height).collect()
    }

    pub(super) fn insert_quiet(&mut self, slot: Slot, facts: &ChannelFacts) {
        self.aside.remove(&facts.id);
        self.active.remove(&slot);
        self.alone.remove(&slot);
        let due = self.quiet_due(slot, facts);
        self.watchers.put(watcher(slot, facts, due), classify::fundings(facts));
    }

    fn quiet_due(&self, slot: Slot, facts: &ChannelFacts) -> Option<BlockHeight> {
        let now = self.now(slot, facts);
        ChannelArbitrator::default().next_due(facts, None, &now).map(|due| due.tip)
    }

    pub(super) fn insert_active(&mut self, slot: Slot, active: Active) {
        self.aside.remove(&active.facts.id);
        let outputs = active.picture.iter().flat_map(|picture| Picture::watched(picture));
        let watched = classify::fundings(&active.facts).chain(outputs);
        self.watchers.put(watcher(slot, &active.facts, None), watched);
        self.active.insert(slot, active);
    }

    /// Gives what was kept of it; `None` if there is no such channel.
    pub(super) fn remove_channel(&mut self, slot: Slot) -> Option<ChainWatcher> {
        self.active.remove(&slot);
        self.alone.remove(&slot);
        self.mutual_closes.remove(&slot);
        self.watchers.remove(slot)
    }
}

fn watcher(slot: Slot, facts: &ChannelFacts, due: Option<BlockHeight>) -> ChainWatcher {
    ChainWatcher { slot, id: facts.id, funding: facts.candidates.current.funding, due }
}
