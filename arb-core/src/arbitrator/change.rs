//! Changes: the log, past tense. `ChannelArbitrator::apply` is the only reader that matters.
use crate::arbitrator::{ChannelEvent, NoticeKey, UpstreamDuty, UpstreamVerdict};
use crate::facts::{ChannelFacts, HtlcRecord};
use crate::ids::{HtlcId, PaymentHash, Preimage};
use crate::ports::ScriptOwner;
use crate::units::{self, BlockHeight, BlockRef, CommitmentNumber, Confirmed, Tx};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};

/// One entry of a channel's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Intent: the channel is to be failed with this local commitment; no newer one is accepted.
    FailRequested {
        /// Number of the local commitment.
        commitment: CommitmentNumber,
        /// Who or what asked.
        reason: FailReason,
    },
    /// Knowledge: a preimage.
    PreimageLearned {
        /// The preimage.
        preimage: Preimage,
        /// Where it came from, and so whom it serves.
        source: PreimageSource,
    },
    /// Knowledge: penalty data of a revoked commitment, loaded from the store.
    RevokedHtlcsLoaded {
        /// Number of the revoked remote commitment.
        number: CommitmentNumber,
        /// HTLCs that were live in it and have left every live commitment since.
        htlcs: Vec<(HtlcId, HtlcRecord)>,
    },
    /// Knowledge: whose the scripts are that a close pays, as the node said.
    ScriptsJudged(Vec<(ScriptBuf, ScriptOwner)>),
    /// Knowledge: the per-commitment point of a commitment of ours that the facts do not hold, as the signer said.
    PointLearned {
        /// Number of the local commitment.
        number: CommitmentNumber,
        /// Its point.
        point: PublicKey,
    },
    /// Act: a transaction of ours, about to be broadcast. One that is there already was signed anew.
    HandedOut(Box<HandedOut>),
    /// Act: the network refused a transaction of ours.
    Rejected {
        /// The transaction.
        txid: Txid,
        /// Why.
        why: Refusal,
        /// Tip when it was refused.
        at: BlockHeight,
    },
    /// Act: the network took a transaction of ours. Said of what it had refused before or was not heard about, or of what
    /// makes a claim that was set aside: none of that counts any more.
    Accepted {
        /// The transaction.
        txid: Txid,
    },
    /// Act: the network could not be asked to take a transaction of ours, and was never heard to have it.
    Unheard {
        /// The transaction.
        txid: Txid,
    },
    /// Knowledge: somebody else's unconfirmed spend of an output that we claim was seen. From then
    /// on it is claimed by itself.
    Contested(OutPoint),
    /// Knowledge: the network would refuse any transaction that claims this output. From then on it
    /// is claimed by itself, again and again, until one is accepted.
    SetAside {
        /// The output.
        outpoint: OutPoint,
        /// What the network said.
        why: String,
    },
    /// Knowledge: a live commitment of the peer was seen unconfirmed. Our anchor on it can pay for it.
    CommitmentSeen {
        /// The commitment, signed.
        transaction: Box<Tx>,
        /// What it pays.
        fee: Amount,
    },
    /// Knowledge: an agreed mutual close was seen unconfirmed, for the first time or after it was gone. Our
    /// commitment waits from then on ([`crate::policy::Policy::mutual_patience`]).
    MutualCloseSeen {
        /// Tip at that time.
        at: BlockHeight,
    },
    /// Act: the node was told what to do upstream.
    UpstreamTold {
        /// What about.
        duty: UpstreamDuty,
        /// What it was told. Not taken back; but a preimage that turns up before the node has acknowledged
        /// that the HTLC was failed fulfils it.
        verdict: UpstreamVerdict,
    },
    /// Act: a notice was acknowledged and is not repeated.
    NoticeAcknowledged(NoticeKey),
    /// Act: an event was added to what subscribers of the channel receive.
    Announced(ChannelEvent),
    /// Act: the operator asked for at least this feerate.
    BumpRequested {
        /// The output to claim; `None`: all of the channel.
        outpoint: Option<OutPoint>,
        /// Satoshis per 1000 weight units.
        sat_per_kwu: u64,
    },
    /// Act: the operator asked for a claim to be confirmed by this height.
    DeadlineRequested {
        /// The output to claim; `None`: all of the channel.
        outpoint: Option<OutPoint>,
        /// The height.
        deadline: BlockHeight,
    },
    /// Act: the operator said how much a claim may cost.
    BudgetRequested {
        /// The output to claim; `None`: each of the channel.
        outpoint: Option<OutPoint>,
        /// Most that is paid for it.
        budget: Amount,
    },
    /// Act: the operator said where a claim's value goes.
    DestinationRequested {
        /// The output to claim; `None`: each of the channel.
        outpoint: Option<OutPoint>,
        /// The script.
        script: ScriptBuf,
    },
    /// Knowledge: the node says that this transaction is an agreed mutual close.
    MutualCloseAgreed {
        /// The transaction.
        txid: Txid,
    },
    /// Chain evidence: a transaction that spends the funding output, an output of the commitment,
    /// or a second-stage output. The raw transaction: its meaning is computed.
    Spent(Box<Confirmed<Tx>>),
    /// Chain evidence above this block is void.
    Disconnected {
        /// Last block that stays.
        fork_point: BlockRef,
    },
}

/// Who or what asked to fail the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailReason {
    /// The node.
    Requested,
    /// An offered HTLC is past its deadline (BOLT 2 B4).
    OfferedDeadline(HtlcId),
    /// A received HTLC with known preimage nears its expiry (BOLT 2 B5).
    FulfilDeadline(HtlcId),
}

/// Why the network refused a transaction of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its fee is too low: for the mempool's floor, or to replace what is there.
    Fee,
    /// An input is spent by another transaction, or does not exist.
    Conflict,
    /// Something else: a script, or a rule of relay that we do not know. It may be accepted later.
    Invalid,
}

/// Where a preimage came from. Decides whom it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PreimageSource {
    /// The node's own: serves received HTLCs that are final, and upstream duties of offered ones.
    Node,
    /// Learned from this offered HTLC of this channel (on chain, in the mempool or off-chain).
    Downstream(HtlcId),
    /// Learned downstream of this received HTLC of this channel, by the link.
    Linked(HtlcId),
}

impl PreimageSource {
    /// Whether the channel has an HTLC that the preimage of this hash may be for.
    #[must_use]
    pub fn is_wanted(self, hash: PaymentHash, facts: &ChannelFacts) -> bool {
        match self {
            Self::Node => facts.htlcs.values().any(|record| record.htlc.hash == hash),
            Self::Downstream(htlc) | Self::Linked(htlc) => {
                facts.htlcs.get(&htlc).is_some_and(|record| record.htlc.hash == hash)
            }
        }
    }
}

/// A transaction of ours that may be broadcast from now on, with what it was built for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOut {
    /// What it is.
    pub kind: TxKind,
    /// The signed transaction.
    pub transaction: Tx,
    /// Outputs of this channel that it spends.
    pub claims: Vec<OutPoint>,
    /// Outputs of other channels that it spends as well.
    pub others: Vec<OutPoint>,
    /// Wallet coins that it spends.
    pub coins: Vec<OutPoint>,
    /// What it pays in fees.
    pub fee: Amount,
    /// Tip when it was built.
    pub at: BlockHeight,
}

impl HandedOut {
    /// The transaction's id.
    #[must_use]
    pub const fn txid(&self) -> Txid {
        self.transaction.txid()
    }

    /// Outputs of channels that it spends, this channel's and others', in no particular order.
    pub fn all_claims(&self) -> impl Iterator<Item = OutPoint> {
        self.claims.iter().chain(&self.others).copied()
    }

    /// What of its fee falls to one of the outputs that it claims: an equal part, and what does not
    /// divide to the lowest. All parts together are the fee.
    #[must_use]
    pub fn share(&self, of: OutPoint) -> Amount {
        let claims = u64::try_from(self.all_claims().count()).unwrap_or(u64::MAX).max(1);
        let fee = self.fee.to_sat();
        let each = fee.checked_div(claims).unwrap_or(fee);
        let rest = fee.checked_rem(claims).unwrap_or(0);
        let lowest = self.all_claims().min() == Some(of);
        Amount::from_sat(each.saturating_add(if lowest { rest } else { 0 }))
    }

    /// What of its fee falls to this channel.
    #[must_use]
    pub fn own_fee(&self) -> Amount {
        if self.others.is_empty() {
            return self.fee;
        }
        units::total(self.claims.iter().map(|claim| self.share(*claim)))
    }
}

/// What a transaction of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TxKind {
    /// Our commitment transaction.
    Commitment,
    /// Spends our anchor to pay for a commitment.
    Anchor,
    /// HTLC-timeout transaction (second stage).
    HtlcTimeout,
    /// HTLC-success transaction (second stage).
    HtlcSuccess,
    /// Spends an HTLC output of the peer's commitment directly.
    Claim,
    /// Spends `to_local`, `to_remote` or an output of our second stage.
    Sweep,
    /// Punishes a revoked commitment.
    Penalty,
}
