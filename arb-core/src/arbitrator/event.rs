//! What subscribers of a channel are told.
use crate::units::CommitmentNumber;

/// How the funding output was spent, as told to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloseKind {
    /// By a mutual close.
    Mutual,
    /// By our current commitment.
    Local(CommitmentNumber),
    /// By a commitment of ours that we revoked: the peer may punish it.
    Outdated(CommitmentNumber),
    /// By the peer's current or next commitment.
    Remote(CommitmentNumber),
    /// By a commitment that the peer revoked.
    Revoked(CommitmentNumber),
    /// By a commitment of the peer that we do not know yet: we lost data.
    Future(CommitmentNumber),
    /// By another funding candidate.
    Splice,
    /// By something that we cannot explain.
    Unknown,
}

/// One event of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelEvent {
    /// A mutual close was seen, not yet at act depth.
    EarlyMutual,
    /// The funding output was spent. A mutual close is told at act depth, all others at once.
    Closed(CloseKind),
    /// The spend that was told of was reorganised out.
    Reorged,
    /// Every output is irrevocably resolved.
    Resolved,
}
