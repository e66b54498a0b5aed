//! Updates of facts at payment speed: verified whole before anything is acknowledged.
use crate::facts::ChannelFacts;
use crate::facts::{
    Htlc, HtlcLink, HtlcRecord, LocalCommitment, RemoteCommitment, ShutdownScripts,
};
use crate::ids::{HtlcId, PerCommitmentSecret};
use crate::units::CommitmentNumber;
use alloc::vec::Vec;
use bitcoin::OutPoint;

/// One thing that the node tells of a channel after registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// An HTLC that commitments may from now on contain.
    HtlcAdded {
        /// Its identity.
        id: HtlcId,
        /// Its terms.
        htlc: Htlc,
    },
    /// What an HTLC is linked to has become known.
    HtlcLinked {
        /// The HTLC.
        id: HtlcId,
        /// Its link.
        link: HtlcLink,
    },
    /// A new commitment of ours, with the peer's signatures.
    LocalCommitment {
        /// Funding output that it spends.
        funding: OutPoint,
        /// The commitment.
        commitment: LocalCommitment,
    },
    /// The peer's next commitment, about to be signed by us.
    RemoteCommitment {
        /// Funding output that it spends.
        funding: OutPoint,
        /// The commitment.
        commitment: RemoteCommitment,
    },
    /// The peer revoked its current commitment: the next one takes its place.
    RemoteRevoked {
        /// Number of the revoked commitment.
        number: CommitmentNumber,
        /// Its secret.
        secret: PerCommitmentSecret,
    },
    /// Scripts agreed for a mutual close.
    Shutdown(ShutdownScripts),
}

/// What an accepted update leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The facts from now on.
    pub facts: ChannelFacts,
    /// HTLCs that left the last live commitment: penalty data from now on.
    pub ended: Vec<(HtlcId, HtlcRecord)>,
}

/// Why an update is refused. The facts stay as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// No candidate has this funding output.
    UnknownFunding,
}
