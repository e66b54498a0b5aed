//! Facts of channels that are in use. Reading them for each update would cost as much as verifying it: every
//! public key is checked to be a point.
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::{Batch, Write};
use lru::LruCache;
use std::sync::Arc;

/// So many HTLCs take as much memory as the rest of a channel's facts.
pub(super) const HTLCS: usize = 16;

/// Facts as they are in the store, of the channels that were updated last.
pub(super) struct Recent {
    of: LruCache<Slot, Arc<ChannelFacts>>,
    /// What all of them take, and may take, in [`HTLCS`]ths of the facts of a channel without HTLCs.
    pub(super) size: usize,
    most: usize,
}

impl Recent {
    /// Of so many channels without HTLCs at most.
    pub(super) fn new(channels: usize) -> Self {
        Self { of: LruCache::unbounded(), size: 0, most: channels.saturating_mul(HTLCS) }
    }

    /// These facts of a channel are durable, and its newest.
    pub(super) fn keep(&mut self, slot: Slot, facts: Arc<ChannelFacts>) {
        self.drop(slot);
        self.size = self.size.saturating_add(size_of_facts(&facts));
        self.of.push(slot, facts);
        while self.size > self.most
            && let Some((_, oldest)) = self.of.pop_lru()
        {
            self.size = self.size.saturating_sub(size_of_facts(&oldest));
        }
    }

    pub(super) fn get(&mut self, slot: Slot) -> Option<Arc<ChannelFacts>> {
        self.of.get(&slot).cloned()
    }

    /// The same, without counting as a use.
    pub(super) fn peek(&self, slot: Slot) -> Option<Arc<ChannelFacts>> {
        self.of.peek(&slot).cloned()
    }

    /// Nothing is known of a channel's facts.
    pub(super) fn drop(&mut self, slot: Slot) {
        if let Some(facts) = self.of.pop(&slot) {
            self.size = self.size.saturating_sub(size_of_facts(&facts));
        }
    }

    /// The store is about to be given this: facts in it are other ones soon, or perhaps.
    pub(super) fn outdated_by(&mut self, batch: &Batch) {
        for write in &batch.writes {
            if let Write::Facts { slot, .. } | Write::Forget { slot } = write {
                self.drop(*slot);
            }
        }
    }
}

fn size_of_facts(facts: &ChannelFacts) -> usize {
    facts.htlcs.len().saturating_add(HTLCS)
}
