//! What a node may rely on once its updates are durable.
use arb_core::facts::ChannelFacts;
use arb_core::ids::ChannelId;
use arb_core::units::CommitmentNumber;

/// What is durable of a channel's facts, once [`crate::Arbiter::update_channel`] has returned: its updates, and
/// all that went before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The channel.
    pub channel: ChannelId,
    /// Our current commitment. The node may send its `revoke_and_ack` for those before it.
    pub local: CommitmentNumber,
    /// The peer's current commitment. It has revoked those before it, and what punishes them is durable.
    pub remote: CommitmentNumber,
}

impl Receipt {
    pub(crate) fn of(facts: &ChannelFacts) -> Self {
        let current = &facts.candidates.current;
        Self { channel: facts.id, local: current.local.number, remote: current.remote.number }
    }
}
