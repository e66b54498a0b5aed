//! Channels that are LDK's alone.
use super::{Egress, GRACE, Mode};
use crate::ldk02::lock;
use arb_core::ids::ChannelId;
use bitcoin::OutPoint;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::sign::ecdsa::EcdsaChannelSigner;

impl Egress {
    /// Leaves a channel to LDK alone from now on: the arbiter publishes nothing for it, in no mode,
    /// and LDK's own passes after [`GRACE`] blocks at the latest, at once if [`lets_pass`](Self::lets_pass) is called. Not stored: see
    /// [`Recorder::hand_back`](crate::Recorder::hand_back), which is the way to do it.
    ///
    /// Spendable outputs that LDK has told of and that were acknowledged as the arbiter's ([`Handled::Arbiter`]) are the
    /// node's from now on, and LDK does not tell of them again: [`LdkEvents::for_node`] gives those that are not spent.
    ///
    /// Returns whether our commitment of the channel may be on its way, or on its way to be.
    ///
    /// [`Handled::Arbiter`]: crate::Handled::Arbiter
    /// [`LdkEvents::for_node`]: crate::LdkEvents::for_node
    pub fn hand_back(&self, channel: ChannelId) -> bool {
        let mut state = lock(&self.state);
        state.leave(channel);
        state.closing.contains(&channel)
    }

    /// Whether a channel that the arbiter would hold goes on with LDK instead, for the arbiter only observes. If so, it
    /// is LDK's alone from here on, as by [`hand_back`](Self::hand_back), whatever the mode is later: a commitment of
    /// ours that LDK revokes is never published. Not if our commitment of it may be on its way, from when the mode was
    /// another. For [`FactSink::lets_go`](crate::FactSink::lets_go).
    #[must_use]
    pub fn lets_go(&self, channel: ChannelId) -> bool {
        let mut state = lock(&self.state);
        let goes = state.mode == Mode::Observe && !state.closing.contains(&channel);
        if goes {
            state.leave(channel);
        }
        goes
    }

    /// Whether LDK was told, since the start, to close the channel because the arbiter was about to
    /// publish our commitment.
    #[must_use]
    pub fn was_told(&self, channel: &ChannelId) -> bool {
        lock(&self.state).told.contains(channel)
    }

    /// Whether the channel is LDK's alone.
    #[must_use]
    pub fn is_left(&self, channel: ChannelId) -> bool {
        lock(&self.state).handed_back.contains(&channel)
    }

    /// What LDK publishes for a channel that is its own alone passes from here on, and is not held back for [`GRACE`] blocks:
    /// that which spends an output that its monitor watches now. To be called for each monitor at the start and after
    /// each block; it changes nothing for other channels.
    pub fn lets_pass<S: EcdsaChannelSigner>(&self, monitor: &ChannelMonitor<S>) {
        if !self.is_left(ChannelId(monitor.channel_id().0)) {
            return;
        }
        let watched = monitor.get_outputs_to_watch();
        let mut state = lock(&self.state);
        let long_ago = state.height.saturating_sub(GRACE);
        for (txid, outputs) in watched {
            for (vout, _) in outputs {
                state.wanted.insert(OutPoint { txid, vout }, long_ago);
            }
        }
    }
}
