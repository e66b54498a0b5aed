//! Agreed mutual closes in the mempool: while one is there, our commitment waits (BOLT 5 F4). What the
//! mempool holds is no evidence, and is not logged; since when it held the close is.
use crate::arbitrator::ChannelEvent;
use crate::classify::{self, FundingSpend};
use crate::engine::{Active, ChainArbitrator};
use crate::ids::Slot;
use alloc::collections::BTreeSet;
use bitcoin::Transaction;
use bitcoin::secp256k1::{All, Secp256k1};

impl ChainArbitrator {
    /// The channels that one of these transactions closes mutually.
    #[must_use]
    pub fn closed_mutually_by(&self, mempool: &[Transaction]) -> BTreeSet<Slot> {
        let shaped = mempool.iter().filter(|tx| classify::is_closing_shaped(tx));
        let mut secp = None;
        let mut closed = BTreeSet::new();
        for tx in shaped {
            for slot in tx.input.iter().flat_map(|input| self.watching(input.previous_output)) {
                let secp = secp.get_or_insert_with(Secp256k1::new);
                if self.active(slot).is_some_and(|active| is_mutual(active, tx, secp)) {
                    closed.insert(slot);
                }
            }
        }
        closed
    }

    /// The channels whose last event is that a mutual close was seen: what the mempool held before a
    /// restart, for whoever has not looked yet.
    #[must_use]
    pub fn seen_to_close_mutually(&self) -> BTreeSet<Slot> {
        let early = |active: &Active| {
            let last = active.state.acts().events.last();
            active.picture.is_none() && last == Some(&ChannelEvent::EarlyMutual)
        };
        self.actives().filter(|(_, active)| early(active)).map(|(slot, _)| slot).collect()
    }

    /// The mempool holds agreed mutual closes of these channels, and of no others. Gives those for
    /// which that is new.
    pub fn close_mutually(&mut self, slots: &BTreeSet<Slot>) -> BTreeSet<Slot> {
        let before: BTreeSet<Slot> = self.mutual_closes.keys().copied().collect();
        self.mutual_closes.retain(|slot, _| slots.contains(slot));
        for slot in slots {
            // As the log has it: a restart does not make us wait anew.
            let seen = self.active(*slot).and_then(|active| active.state.acts().mutual_seen);
            let since = seen.unwrap_or(self.height());
            self.mutual_closes.entry(*slot).or_insert(since);
        }
        let changed: BTreeSet<Slot> = before.symmetric_difference(slots).copied().collect();
        if !changed.is_empty() {
            self.forget_plan();
        }
        changed
    }

    /// The channels of which the mempool holds agreed mutual closes, as it was last said.
    pub fn closing_mutually(&self) -> impl Iterator<Item = Slot> {
        self.mutual_closes.keys().copied()
    }

    /// Whether our commitment of a channel is held back for a mutual close.
    #[must_use]
    pub fn is_held_back(&self, slot: Slot) -> bool {
        self.active(slot).is_some_and(|active| {
            let now = self.now(slot, &active.facts);
            active.picture.is_none() && active.state.is_held_back(&active.facts, &now)
        })
    }
}

fn is_mutual(active: &Active, tx: &Transaction, secp: &Secp256k1<All>) -> bool {
    let facts = &active.facts;
    let spends = |outpoint| tx.input.iter().any(|input| input.previous_output == outpoint);
    let mut spent = facts.candidates.iter().filter(|candidate| spends(candidate.funding));
    spent.any(|candidate| {
        let close = classify::classify(facts, &active.state, candidate, tx, secp);
        close.spend() == FundingSpend::MutualClose
    })
}
