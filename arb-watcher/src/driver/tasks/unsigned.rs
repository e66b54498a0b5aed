//! Claims for which the signer failed when it was last asked. A claim may be in a transaction of any channel, and one
//! that nobody wants signed any more is forgotten; only those are looked at that something happened to.
use arb_core::engine::{Task, TaskKey};
use arb_core::ids::Slot;
use arb_core::units::BlockRef;
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How long a claim has not been signed.
pub(super) struct Unsigned {
    /// Blocks at which the signer failed, in a row.
    pub(super) blocks: u32,
    /// The last of them.
    last: Option<BlockRef>,
}

/// All of them.
#[derive(Default)]
pub(super) struct UnsignedClaims {
    /// By the channel whose they are.
    of: BTreeMap<Slot, BTreeMap<OutPoint, Unsigned>>,
    /// The same, the other way round.
    whose: HashMap<OutPoint, Slot>,
    /// In how many transactions that are to be signed a claim is.
    wanted: HashMap<OutPoint, usize>,
    /// Claims that perhaps nobody wants signed any more.
    doubtful: BTreeSet<OutPoint>,
    /// Channels of which something has changed here.
    changed: BTreeSet<Slot>,
}

fn claims(tasks: &BTreeMap<TaskKey, Task>) -> impl Iterator<Item = OutPoint> {
    let drafts = tasks.values().filter_map(|task| match task {
        Task::Sign(draft) => Some(draft),
        _ => None,
    });
    drafts.flat_map(|draft| draft.claims().map(|claim| claim.outpoint))
}

impl UnsignedClaims {
    /// What is desired of a channel takes the place of what was.
    pub(super) fn desire(
        &mut self,
        before: &BTreeMap<TaskKey, Task>,
        after: &BTreeMap<TaskKey, Task>,
    ) {
        for claim in claims(after) {
            let wanted = self.wanted.entry(claim).or_default();
            *wanted = wanted.saturating_add(1);
        }
        for claim in claims(before) {
            let Some(wanted) = self.wanted.get_mut(&claim) else { continue };
            *wanted = wanted.saturating_sub(1);
            if *wanted == 0 {
                self.wanted.remove(&claim);
                if self.whose.contains_key(&claim) {
                    self.doubtful.insert(claim);
                }
            }
        }
    }

    pub(super) fn of(&self, slot: Slot) -> Option<&BTreeMap<OutPoint, Unsigned>> {
        self.of.get(&slot)
    }

    /// The signer did not sign for a claim of a channel, at this tip.
    pub(super) fn failed(&mut self, slot: Slot, claim: OutPoint, tip: Option<BlockRef>) {
        let of_channel = self.of.entry(slot).or_default();
        let unsigned = of_channel.entry(claim).or_insert(Unsigned { blocks: 0, last: None });
        if unsigned.blocks == 0 || unsigned.last != tip {
            unsigned.blocks = unsigned.blocks.saturating_add(1);
            unsigned.last = tip;
        }
        self.whose.insert(claim, slot);
        self.doubtful.insert(claim);
        self.changed.insert(slot);
    }

    /// The signer signed for it, or nobody wants that any more.
    pub(super) fn remove(&mut self, claim: OutPoint) {
        let Some(slot) = self.whose.remove(&claim) else { return };
        if let Some(of_channel) = self.of.get_mut(&slot) {
            of_channel.remove(&claim);
            if of_channel.is_empty() {
                self.of.remove(&slot);
            }
        }
        self.changed.insert(slot);
    }

    /// Nothing is known of claims that nobody wants signed any more. Gives how many were looked at.
    pub(super) fn forget(&mut self) -> usize {
        let doubtful = std::mem::take(&mut self.doubtful);
        let looked_at = doubtful.len();
        for claim in doubtful {
            if !self.wanted.contains_key(&claim) {
                self.remove(claim);
            }
        }
        looked_at
    }

    /// Channels of which something has changed since this was asked last.
    pub(super) fn changed(&mut self) -> BTreeSet<Slot> {
        std::mem::take(&mut self.changed)
    }

    /// Whether the signer has failed for a claim of a channel at so many blocks in a row.
    pub(super) fn lasts(&self, slot: Slot, blocks: u32) -> bool {
        let mut of_channel = self.of.get(&slot).into_iter().flat_map(BTreeMap::values);
        of_channel.any(|unsigned| unsigned.blocks >= blocks)
    }
}
