//! The standing of channels: what the node stated at start-up, held against the facts.
use crate::arbitrator::Now;
use crate::engine::ChainArbitrator;
use crate::facts::{ChannelEntry, ChannelFacts, ChannelNumbers, Standing};
use crate::ids::Slot;
use crate::units::CommitmentNumber;

impl ChainArbitrator {
    /// Takes what the node states of a channel whose facts have this entry; `None`: it does not
    /// know the channel. To be called for every channel of the store before anything is broadcast,
    /// and whenever the node learns that its facts are older than it thought. Until the facts reach
    /// the numbers stated, the channel is outdated. Nothing of it is stored.
    pub fn state_numbers(
        &mut self,
        slot: Slot,
        entry: &ChannelEntry,
        stated: Option<ChannelNumbers>,
    ) -> Standing {
        self.forget_plan();
        if stated.is_none_or(|stated| stated.is_newer(entry.local, entry.remote)) {
            self.outdated.insert(slot, stated);
        } else {
            self.outdated.remove(&slot);
        }
        self.standing_at(slot, entry.local, entry.remote)
    }

    /// Whether these facts of a channel are the newest, by what the node stated.
    #[must_use]
    pub fn standing(&self, slot: Slot, facts: &ChannelFacts) -> Standing {
        let current = &facts.candidates.current;
        self.standing_at(slot, current.local.number, current.remote.number)
    }

    fn standing_at(
        &self,
        slot: Slot,
        local: CommitmentNumber,
        remote: CommitmentNumber,
    ) -> Standing {
        match self.outdated.get(&slot) {
            Some(stated) if stated.is_none_or(|stated| stated.is_newer(local, remote)) => {
                Standing::Outdated
            }
            Some(_) | None => Standing::Current,
        }
    }

    /// Tip, settings and standing, as deciding about a channel with these facts needs them.
    #[must_use]
    pub fn now(&self, slot: Slot, facts: &ChannelFacts) -> Now {
        Now {
            tip: self.height(),
            position: self.position,
            policy: self.policy,
            standing: self.standing(slot, facts),
            link: self.links.get(&slot).copied(),
            floor: self.estimates.floor,
            mutual_close: self.mutual_closes.get(&slot).copied(),
        }
    }
}
