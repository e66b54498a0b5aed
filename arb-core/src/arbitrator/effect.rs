//! Effects: what should be true outside, imperative and plain data.
use crate::arbitrator::FailReason;
use crate::claim::Claim;
use crate::facts::{ChannelNames, Htlc, HtlcLink};
use crate::ids::{HtlcId, HtlcRef, PaymentHash, Preimage};
use crate::units::{CommitmentNumber, MilliSat};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::{OutPoint, ScriptBuf, Txid};

/// Identity of an effect: the same key is the same duty, even when its content has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EffectKey {
    /// Claim this output.
    Claim(OutPoint),
    /// Load this revoked commitment's HTLCs.
    LoadRevokedHtlcs(CommitmentNumber),
    /// Ask whose the scripts are that a close pays.
    JudgeScripts,
    /// Ask for the per-commitment point of this commitment of ours.
    AskPoint(CommitmentNumber),
    /// Tell the node.
    Notify(NoticeKey),
    /// Delete the channel's records.
    Forget,
}

/// What should be true of the outside world. Computed from facts, evidence and tip; never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An output is to be spent; when and at what price is the claim scheduler's.
    Claim(Box<Claim>),
    /// The store is to be asked for the HTLCs of a revoked commitment.
    LoadRevokedHtlcs(CommitmentNumber),
    /// The node is to be asked whose these scripts are.
    JudgeScripts(Vec<ScriptBuf>),
    /// The signer is to be asked for the per-commitment point of this commitment of ours.
    AskPoint(CommitmentNumber),
    /// The node is to be told, until it acknowledges.
    Notify(Notice),
    /// The channel's records are to be deleted.
    Forget,
}

/// Identity of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoticeKey {
    /// What to do upstream of an offered HTLC.
    Upstream(UpstreamDuty),
    /// An alert.
    Alert(Alert),
    /// The arbiter decided to fail the channel.
    Failing,
}

/// What the node is told and acknowledges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// What to do upstream of an offered HTLC.
    Upstream {
        /// The offered HTLC of this channel.
        htlc: HtlcId,
        /// How the node's other parts name this channel.
        names: ChannelNames,
        /// The incoming HTLC that it forwards; `None`: the node's own payment.
        incoming: Option<HtlcRef>,
        /// Its payment hash.
        hash: PaymentHash,
        /// Its amount.
        amount: MilliSat,
        /// What to do.
        resolution: UpstreamResolution,
    },
    /// Something that a person should look at.
    Alert(Alert),
    /// The arbiter fails the channel: the node should send `error` (BOLT 5 G4).
    Failing(FailReason),
}

impl Notice {
    /// Identity of the notice.
    #[must_use]
    pub const fn key(&self) -> NoticeKey {
        match self {
            Self::Upstream { htlc, incoming, hash, .. } => {
                let (htlc, hash, incoming) = (*htlc, *hash, *incoming);
                NoticeKey::Upstream(UpstreamDuty { htlc, hash, incoming })
            }
            Self::Alert(alert) => NoticeKey::Alert(*alert),
            Self::Failing(_) => NoticeKey::Failing,
        }
    }
}

/// What a verdict is about. The id alone does not say: both parties forget an HTLC that no commitment
/// contains when they reconnect, and its id is used again (BOLT 2 "Message Retransmission").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UpstreamDuty {
    /// The offered HTLC.
    pub htlc: HtlcId,
    /// Its payment hash.
    pub hash: PaymentHash,
    /// The incoming HTLC that it forwards; `None`: the node's own payment.
    pub incoming: Option<HtlcRef>,
}

impl UpstreamDuty {
    /// The duty of an offered HTLC with these terms.
    #[must_use]
    pub const fn of(htlc: HtlcId, terms: &Htlc) -> Self {
        let incoming = match terms.link {
            HtlcLink::ForwardOf { incoming, .. } => Some(incoming),
            HtlcLink::OwnPayment
            | HtlcLink::Final
            | HtlcLink::ForwardedTo { .. }
            | HtlcLink::Uncommitted => None,
        };
        Self { htlc, hash: terms.hash, incoming }
    }
}

/// What to do with the incoming side of an offered HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamResolution {
    /// Fulfil it with this preimage.
    Fulfil(Preimage),
    /// Fail it back. Done for good once it is acknowledged: if the preimage turns up before, the same notice
    /// says [`Self::Fulfil`].
    Fail,
}

impl UpstreamResolution {
    /// The verdict without the preimage.
    #[must_use]
    pub const fn verdict(&self) -> UpstreamVerdict {
        match self {
            Self::Fulfil(_) => UpstreamVerdict::Fulfilled,
            Self::Fail => UpstreamVerdict::Failed,
        }
    }
}

/// What the node was told to do upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpstreamVerdict {
    /// Fulfil.
    Fulfilled,
    /// Fail.
    Failed,
}

/// Something that a person should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// The funding output was spent by something unexplained: keys may have leaked (BOLT 5 X1).
    UnknownSpend(Txid),
    /// A commitment that is newer than our facts confirmed, the peer's or our own: HTLCs cannot be salvaged (BOLT 5
    /// R2, R3).
    DataLoss(Txid),
    /// Our own revoked commitment confirmed: the peer may take everything.
    OutdatedLocalCommitment(Txid),
    /// An output that was ours to take was taken by another.
    OutputLost(OutPoint),
    /// A preimage arrived after the node was told to fail the incoming HTLC.
    PreimageAfterFail(HtlcId),
    /// The channel should be failed, but its facts are outdated: nothing is broadcast (BOLT 5 F5).
    OutdatedFacts,
    /// The channel's records cannot be read, or the arbiter panicked over it: it is set aside until that is
    /// over, or the node states it again. Nothing is done for it.
    Quarantined,
    /// The signer has failed for this channel several times in a row.
    SignerFailing,
    /// The penalty data of this revoked commitment, which confirmed, cannot be read: HTLCs of it
    /// may go unpunished.
    PenaltyDataUnreadable(CommitmentNumber),
}
