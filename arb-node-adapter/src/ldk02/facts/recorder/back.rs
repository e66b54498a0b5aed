//! The way out: a channel that is LDK's alone again.
use super::{LeftFor, Recorder, Waiting};
use crate::ldk02::block::block;
use crate::ldk02::facts::held::HeldFor;
use crate::ldk02::{Egress, ForceClose, RecordedFence, WriteAll};
use arb_core::ids::ChannelId;
use core::ops::Deref;

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// What tells LDK to close a channel, so that it is known after a crash: the record is durable before
    /// `inner` is asked. For [`ArbiterEgress::telling`](crate::ldk02::ArbiterEgress::telling), and for
    /// [`hand_back`](Self::hand_back).
    pub fn fence<F>(&self, inner: F) -> RecordedFence<F, K> {
        RecordedFence::new(inner, self.shelf.clone())
    }

    /// Hands a channel back to LDK alone: the arbiter publishes nothing for it, now and after a
    /// restart, and what LDK's monitors publish passes. It is told nothing more of the channel, signs
    /// nothing, and what it goes on reporting is what it knew. What was held is completed. Outputs that were
    /// acknowledged as the arbiter's and are not spent are the node's from now on: `LdkEvents::for_node` gives them.
    ///
    /// Of a channel that the arbiter is failing, a commitment of ours may be on its way that LDK would
    /// revoke: LDK is told by `fence` to close it, and it is told and held as before until LDK has.
    ///
    /// At each start, before the arbiter's, it is to be called again for all that is
    /// [`handed_back`](Self::handed_back): the egress forgets, and LDK may have lost its close.
    ///
    /// # Errors
    /// The store takes nothing at the moment, or LDK does not close the channel. The egress is handed
    /// back already; call again.
    pub fn hand_back<F: ForceClose>(
        &mut self,
        channel: ChannelId,
        egress: &Egress,
        fence: &F,
        completed: impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        // From here on nothing of the arbiter's goes out that has not begun to.
        let begun = egress.hand_back(channel);
        self.shelf.put_handed_back(channel).map_err(Waiting::Store)?;
        let fenced = self.held.get(&channel).is_some_and(|of| of.held.why == HeldFor::Fenced);
        if fenced || begun || self.shelf.was_told(&channel) {
            return fence.force_close(channel).map_err(Waiting::NotClosed);
        }
        self.let_go(channel, &completed)?;
        if self.shelf.books().contains_key(&channel) {
            block(self.forget(channel))?;
        }
        self.leave(channel, LeftFor::HandedBack);
        Ok(())
    }

    /// Channels that were handed back to LDK, now or before a restart, and those that are to be since their record
    /// cannot be read. One that neither LDK nor the arbiter has any more is forgotten at a start ([`adopt`](Self::adopt)).
    #[must_use]
    pub fn handed_back(&self) -> Vec<ChannelId> {
        self.shelf.handed_back()
    }
}
