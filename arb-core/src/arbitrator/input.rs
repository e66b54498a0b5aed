//! Inputs: what reaches a channel's arbitrator from outside.
use crate::arbitrator::{FailReason, HandedOut, NoticeKey, PreimageSource, Refusal};
use crate::facts::HtlcRecord;
use crate::ids::{HtlcId, Preimage};
use crate::ports::ScriptOwner;
use crate::units::{BlockHeight, BlockRef, CommitmentNumber};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, Txid};

/// The part of a block that concerns one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockView {
    /// The block.
    pub at: BlockRef,
    /// Transactions that spend an output of interest, in block order.
    pub transactions: Vec<Transaction>,
}

/// What reaches a channel's arbitrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A block was connected.
    BlockConnected(BlockView),
    /// Every block above this one was disconnected.
    Disconnected {
        /// Last block that stays.
        fork_point: BlockRef,
    },
    /// A preimage was learned.
    Preimage {
        /// The preimage.
        preimage: Preimage,
        /// Where it came from.
        source: PreimageSource,
    },
    /// A transaction that spends an output of interest is in the mempool.
    SeenInMempool(Box<Transaction>),
    /// The channel is to be failed.
    Fail(FailReason),
    /// The facts were replaced.
    FactsUpdated,
    /// Penalty data of a revoked commitment was loaded.
    RevokedHtlcsLoaded {
        /// Number of the revoked remote commitment.
        number: CommitmentNumber,
        /// HTLCs of it that are in no live commitment.
        htlcs: Vec<(HtlcId, HtlcRecord)>,
    },
    /// The node said whose these scripts are.
    ScriptsJudged(Vec<(ScriptBuf, ScriptOwner)>),
    /// The signer said the per-commitment point of a commitment of ours.
    PointLearned {
        /// Number of the local commitment.
        number: CommitmentNumber,
        /// Its point.
        point: PublicKey,
    },
    /// A transaction of ours was signed.
    Signed(Box<HandedOut>),
    /// The network refused a transaction of ours.
    Rejected {
        /// The transaction.
        txid: Txid,
        /// Why.
        why: Refusal,
    },
    /// The network could not be asked to take a transaction of ours, or did not answer, and was not heard to have it before.
    Unheard {
        /// The transaction.
        txid: Txid,
    },
    /// The network has taken a transaction of ours.
    Accepted {
        /// The transaction.
        txid: Txid,
    },
    /// The operator says how much a claim may cost.
    Budget {
        /// The output to claim; `None`: each of the channel.
        outpoint: Option<OutPoint>,
        /// Most that is paid for it.
        budget: Amount,
    },
    /// The operator says where a claim's value goes.
    Destination {
        /// The output to claim; `None`: each of the channel.
        outpoint: Option<OutPoint>,
        /// The script.
        script: ScriptBuf,
    },
    /// The network would refuse any transaction that claims this output, and says why.
    SetAside {
        /// The output.
        outpoint: OutPoint,
        /// What the network says.
        why: String,
    },
    /// The node acknowledged a notice.
    NoticeAcknowledged(NoticeKey),
    /// The operator wants at least this feerate.
    Bump {
        /// The output to claim; `None`: all of the channel.
        outpoint: Option<OutPoint>,
        /// Satoshis per 1000 weight units.
        sat_per_kwu: u64,
    },
    /// The operator wants it confirmed by this height.
    Hurry {
        /// The output to claim; `None`: all of the channel.
        outpoint: Option<OutPoint>,
        /// The height.
        deadline: BlockHeight,
    },
    /// The node says that this transaction is an agreed mutual close.
    MutualCloseAgreed(Txid),
}
