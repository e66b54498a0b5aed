//! Settings of the arbiter.
use crate::units::BlockDelta;

/// Depth at which an output is irrevocably resolved (BOLT 5).
pub const IRREVOCABLE: BlockDelta = BlockDelta(100);

/// Settings of the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Depth at which a resolution is acted upon upstream (BOLT 5 "reasonable depth").
    pub act_depth: BlockDelta,
    /// Blocks after its expiry at which an unresolved offered HTLC fails the channel (BOLT 2 "G").
    pub offered_grace: BlockDelta,
    /// Blocks before its expiry at which a received HTLC with known preimage fails the channel
    /// (BOLT 2: 2R + G + S).
    pub fulfil_margin: BlockDelta,
    /// Blocks before the incoming HTLC's expiry at which it is failed back in any case.
    pub upstream_margin: BlockDelta,
    /// Depth of all resolutions at which a channel's records are deleted. Below [`IRREVOCABLE`] the
    /// channel counts as resolved, and is forgotten, although its outputs are not irrevocably.
    pub forget_depth: BlockDelta,
    /// Depth at which a close that nobody has explained is alerted, although the node was not able
    /// to say whose its scripts are.
    pub verdict_patience: BlockDelta,
    /// Blocks for which our commitment is held back while the mempool holds an agreed mutual close
    /// (BOLT 5 F4): what does not confirm for so long pays too little.
    pub mutual_patience: BlockDelta,
    /// Blocks in a row at which the signer must fail for a channel until that is alerted. Where it
    /// fails for all channels that share a transaction, they stay together for as long.
    pub signer_patience: BlockDelta,
    /// Whether claims of different channels share transactions.
    pub joining: Joining,
}

/// Whether claims of different channels share transactions, where that is cheaper. Whoever sees
/// such a transaction knows that the channels have one owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Joining {
    /// Each channel has its own.
    #[default]
    Never,
    /// They do if they go well together: what pays one script, and HTLC transactions.
    Allowed,
}

impl Policy {
    /// Depth of all resolutions at which a channel is resolved.
    #[must_use]
    pub fn resolved_depth(&self) -> BlockDelta {
        self.forget_depth.min(IRREVOCABLE)
    }
}

impl Default for Policy {
    /// BOLT 2's R = 2, G = 2, S = 12; depths as CLN and BOLT 5 have them.
    fn default() -> Self {
        Self {
            act_depth: BlockDelta(3),
            offered_grace: BlockDelta(2),
            fulfil_margin: BlockDelta(18),
            upstream_margin: BlockDelta(3),
            forget_depth: BlockDelta(100),
            verdict_patience: BlockDelta(6),
            mutual_patience: BlockDelta(144),
            signer_patience: BlockDelta(3),
            joining: Joining::Never,
        }
    }
}
