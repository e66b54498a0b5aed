//! What can be wrong with a request to the peer.

use bitcoin::{Amount, OutPoint};
use thiserror::Error;

use super::Side;

/// Why the peer did not do what was asked; each names what to correct in the story.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerError {
    #[error("the channel parameter {0} is out of range")]
    BadParameter(&'static str),
    #[error("the channel has no funding outpoint yet")]
    NoFunding,
    #[error("a channel of this format has no update_fee")]
    NoUpdateFee,
    #[error("there is no HTLC named {0}")]
    UnknownHtlc(String),
    #[error("there is already an HTLC named {0}")]
    DuplicateHtlc(String),
    #[error("HTLC {0} is not pending")]
    HtlcNotPending(String),
    #[error("{side:?} has {balance_msat} msat, HTLC {name} needs {amount_msat} msat")]
    InsufficientBalance { side: Side, name: String, balance_msat: u64, amount_msat: u64 },
    #[error("the splice takes out more than the {has_msat} msat that the peer has")]
    SpliceTakesTooMuch { has_msat: u64 },
    #[error("HTLC {name}: {field} is out of range")]
    BadHtlc { name: String, field: &'static str },
    #[error("a staged commitment is pending: no further history")]
    CommitmentStaged,
    #[error("a staged batch holds at least one HTLC")]
    EmptyBatch,
    #[error("the peer has no next commitment")]
    NoNextCommitment,
    #[error("{owner:?} has no commitment number {number}")]
    NoSuchCommitment { owner: Side, number: u64 },
    #[error("HTLC {0} is not in this commitment")]
    HtlcNotInCommitment(String),
    #[error("HTLC {0} was trimmed from this commitment")]
    HtlcTrimmed(String),
    #[error("the commitment has no such output")]
    NoSuchOutput,
    #[error("only {0:?} can make this claim")]
    NotTheOwner(Side),
    #[error("nothing to claim")]
    NothingToClaim,
    #[error("these HTLC transactions cannot share a transaction: {0}")]
    CannotAggregate(&'static str),
    #[error("the fee inputs hold {available}, {needed} are needed")]
    NotEnoughCoins { available: Amount, needed: Amount },
    #[error("the key of coin {0} does not match its script")]
    NotItsCoin(OutPoint),
    #[error("the fee {fee} leaves less than dust of {value}")]
    Uneconomic { value: Amount, fee: Amount },
    #[error("HTLCs are pending: no mutual close")]
    HtlcsPending,
    #[error("our commitment number {0} is not revoked")]
    NotRevoked(u64),
    #[error("an amount overflows")]
    AmountOverflow,
    #[error("a signature hash could not be computed")]
    SignatureHash,
}
