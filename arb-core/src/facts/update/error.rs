//! Why facts or an update of them are refused, and what the caller should do then.
use crate::facts::secrets::SecretError;
use crate::format::{BuildError, DerivationError};
use crate::ids::{HtlcId, Side};
use crate::units::CommitmentNumber;
use bitcoin::{OutPoint, Weight};
use core::fmt;

/// Why facts or an update of them are refused. The facts stay as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpdateError {
    /// No candidate has this funding output. State it by `CandidateAdded` first.
    UnknownFunding,
    /// No such HTLC. State it by `HtlcAdded` first.
    UnknownHtlc(HtlcId),
    /// A committed HTLC is known with other terms. The statement is wrong: correct it.
    HtlcConflict(HtlcId),
    /// The HTLC had left the remote commitments: it cannot come back. Use a fresh id.
    HtlcEnded(HtlcId),
    /// The interval of remote commitments contradicts the commitments, or the HTLC is in no live
    /// commitment although it was in one. Register with corrected facts.
    HtlcInterval(HtlcId),
    /// The link is not one for HTLCs of this offerer, or another is settled already. Correct the
    /// statement.
    LinkConflict(HtlcId),
    /// The expiry is no block height (BOLT 2: below 500,000,000). Fail the channel if the peer
    /// offered it.
    ExpiryOutOfRange(HtlcId),
    /// More HTLCs of this offerer than a commitment may contain. Fail the channel if the peer
    /// caused it.
    TooManyHtlcs {
        /// Who offered them.
        offerer: Side,
        /// How many are stated.
        count: usize,
    },
    /// The commitment contradicts itself. Correct the statement.
    Commitment(BuildError),
    /// Our commitment is older than the current one. Nothing is to be done if this is a late
    /// repetition; otherwise the node is behind its own past and must not go on.
    LocalNumberTooOld {
        /// The number stated.
        stated: CommitmentNumber,
        /// The current one.
        current: CommitmentNumber,
    },
    /// The number is known with another content. A commitment is stated once: correct the
    /// statement, and do not sign or revoke anything by it.
    CommitmentConflict(CommitmentNumber),
    /// Remote commitments and their revocations come one after the other. State what is missing
    /// first.
    UnexpectedRemoteNumber {
        /// The number stated.
        stated: CommitmentNumber,
        /// The number that can be stated now.
        expected: CommitmentNumber,
    },
    /// The peer revokes its current commitment, but this candidate has no next one. State the
    /// next one first.
    NoNextCommitment(OutPoint),
    /// This candidate is listed twice, is known with another content, or disagrees with another in
    /// the number, point or HTLCs of a commitment. Correct the statement.
    CandidateConflict(OutPoint),
    /// This candidate lacks a commitment that another has. State new commitments for every
    /// candidate at once.
    CandidateBehind(OutPoint),
    /// Another candidate was locked: this one's commitments stay as they are, and it becomes the
    /// current one no more once the other went on. State the commitments of the current one.
    CandidateReplaced(OutPoint),
    /// This candidate may still matter: it is the current one, or spent or made by a transaction in
    /// a block, or a commitment of it was handed out. Keep it.
    CandidateNeeded(OutPoint),
    /// The commitment is too heavy to be relayed. Fail the channel if the peer caused it.
    TooHeavy(Weight),
    /// Every output of the commitment is trimmed: it is no valid transaction. Fail the channel
    /// if the peer caused it.
    NoOutputs,
    /// The peer's signature of our commitment is wrong, or its S is high. Fail the channel, and do
    /// not revoke the commitment before (BOLT 2).
    CommitmentSignature,
    /// There is not one signature for each HTLC output. Fail the channel, and do not revoke the
    /// commitment before (BOLT 2).
    HtlcSignatureCount {
        /// HTLC outputs.
        expected: usize,
        /// Signatures stated.
        stated: usize,
    },
    /// The peer's signature of this HTLC's transaction is wrong, of another sighash type, or its S
    /// is high. Fail the channel, and do not revoke the commitment before (BOLT 2).
    HtlcSignature(HtlcId),
    /// The secret does not belong to the revoked commitment's point. Fail the channel (BOLT 2).
    SecretMismatch,
    /// The secret does not fit those before it. Fail the channel (BOLT 2).
    Secret(SecretError),
    /// The stored secrets end elsewhere than just before the current remote commitment. Register
    /// with the secrets of every revoked commitment, or with none.
    SecretsIncomplete {
        /// The commitment whose secret would be next.
        next: CommitmentNumber,
    },
    /// This party's dust limit is below 354 satoshis (BOLT 2): its commitment may not be relayed.
    /// Do not open such a channel.
    DustLimit(Side),
    /// This party's delay is above 65535 blocks: no relative lock time says it. Correct the
    /// statement.
    Delay(Side),
    /// A local commitment was handed out for broadcast, or the funding output is spent: no newer
    /// one is accepted. Do not revoke the commitment before; preimages are still accepted.
    Fenced,
    /// The facts changed after the update was verified. Verify it again.
    Overtaken,
}

impl From<BuildError> for UpdateError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::UnknownHtlc(id) => Self::UnknownHtlc(id),
            BuildError::DuplicateHtlc(_)
            | BuildError::BalanceMismatch { .. }
            | BuildError::Overspent
            | BuildError::Feerate(_)
            | BuildError::NumberOutOfRange(_)
            | BuildError::NoSuchKey => Self::Commitment(error),
        }
    }
}

impl From<DerivationError> for UpdateError {
    fn from(error: DerivationError) -> Self {
        Self::Commitment(BuildError::from(error))
    }
}

impl From<SecretError> for UpdateError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFunding => f.write_str("no candidate has this funding output"),
            Self::UnknownHtlc(id) => write!(f, "{id:?} is not known"),
            Self::HtlcConflict(id) => write!(f, "{id:?} is known with other terms"),
            Self::HtlcEnded(id) => write!(f, "{id:?} had left the remote commitments"),
            Self::HtlcInterval(id) => {
                write!(f, "the interval of {id:?} contradicts the commitments")
            }
            Self::LinkConflict(id) => write!(f, "{id:?} cannot have this link"),
            Self::ExpiryOutOfRange(id) => write!(f, "the expiry of {id:?} is no block height"),
            Self::TooManyHtlcs { offerer, count } => {
                write!(f, "{count} HTLCs offered by {offerer:?} in one commitment")
            }
            Self::Commitment(error) => fmt::Display::fmt(error, f),
            Self::LocalNumberTooOld { stated, current } => write!(
                f,
                "local commitment {} is older than the current one, {}",
                stated.0, current.0
            ),
            Self::CommitmentConflict(number) => {
                write!(f, "commitment {} is known with another content", number.0)
            }
            Self::UnexpectedRemoteNumber { stated, expected } => {
                write!(f, "remote commitment {} instead of {}", stated.0, expected.0)
            }
            Self::NoNextCommitment(funding) => {
                write!(f, "no next remote commitment spends {funding}")
            }
            Self::CandidateConflict(funding) => {
                write!(f, "candidate {funding} disagrees with another")
            }
            Self::CandidateBehind(funding) => {
                write!(f, "candidate {funding} lacks a commitment that another has")
            }
            Self::CandidateReplaced(funding) => {
                write!(f, "another candidate was locked instead of {funding}")
            }
            Self::CandidateNeeded(funding) => write!(f, "candidate {funding} may still matter"),
            Self::TooHeavy(weight) => write!(f, "the commitment weighs {weight}"),
            Self::NoOutputs => f.write_str("the commitment has no output"),
            Self::CommitmentSignature => f.write_str("the commitment's signature is wrong"),
            Self::HtlcSignatureCount { expected, stated } => {
                write!(f, "{stated} HTLC signatures for {expected} HTLC outputs")
            }
            Self::HtlcSignature(id) => write!(f, "the HTLC signature of {id:?} is wrong"),
            Self::SecretMismatch => f.write_str("the secret is not that of the point"),
            Self::Secret(error) => fmt::Display::fmt(error, f),
            Self::SecretsIncomplete { next } => {
                write!(f, "the secrets end before commitment {}", next.0)
            }
            Self::DustLimit(side) => write!(f, "the dust limit of {side:?} is too low"),
            Self::Delay(side) => write!(f, "the delay of {side:?} is too long"),
            Self::Fenced => {
                f.write_str("a local commitment was handed out, or the funding output is spent")
            }
            Self::Overtaken => f.write_str("the facts changed since the update was verified"),
        }
    }
}

impl core::error::Error for UpdateError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        if let Self::Commitment(error) = self {
            return Some(error);
        }
        if let Self::Secret(error) = self { Some(error) } else { None }
    }
}
