//! Whether facts are the newest that exist. Never stored: the node says it at start-up.
use crate::ids::ChannelId;
use crate::units::CommitmentNumber;

/// Whether the facts of a channel are the newest that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They are, for all that we know.
    Current,
    /// They are known to be older than the node's or the peer's: no local commitment may be
    /// broadcast (BOLT 5 F5, BOLT 2 data loss).
    Outdated,
}

/// What the node knows of a channel: stored facts that are older are outdated, and so are those of
/// a channel that the node does not state at start-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelNumbers {
    /// The channel.
    pub id: ChannelId,
    /// Number of the node's current local commitment, or of a newer one that the peer has proved.
    pub local: CommitmentNumber,
    /// Number of the peer's current commitment.
    pub remote: CommitmentNumber,
}

impl ChannelNumbers {
    /// Whether the node is further than facts whose current commitments have these numbers.
    #[must_use]
    pub fn is_newer(&self, local: CommitmentNumber, remote: CommitmentNumber) -> bool {
        local < self.local || remote < self.remote
    }
}
