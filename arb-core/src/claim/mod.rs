//! Claims: which output is to be spent, by which path, from when, until when; and the scheduler
//! that turns them into transactions to fund, sign, publish and replace.
pub mod build;
pub mod coins;
pub mod fee;
mod group;
mod past;
pub mod plan;
pub mod trough;

pub use past::Part;

use crate::arbitrator::TxKind;
use crate::format::rules::TRUC;
use crate::format::weights;
use crate::ids::{ChannelId, HtlcId, PerCommitmentSecret, Preimage};
use crate::units::BlockHeight;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxOut, Txid, Weight, absolute::LockTime,
};

/// An output to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The channel.
    pub channel: ChannelId,
    /// The output.
    pub outpoint: OutPoint,
    /// Its value and script.
    pub output: TxOut,
    /// How it is spent.
    pub path: SpendPath,
    /// Lowest tip at which a spend is accepted into the next block.
    pub open_at: BlockHeight,
    /// Why it cannot wait for ever, if it cannot.
    pub deadline: Option<Deadline>,
    /// What is lost if the deadline is missed.
    pub value_at_risk: Amount,
    /// Where the value goes.
    pub destination: ScriptBuf,
}

/// Why a claim cannot wait for ever. Heights are those of the last block in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Later another takes the output or an HTLC is lost upstream; or the operator wants it by then.
    By(BlockHeight),
    /// The node was told upstream what becomes of the HTLC: the height, if there was one, is of no use
    /// any more, and all that is left is a race with the peer.
    Race(Option<BlockHeight>),
    /// The cheater's delay is over.
    Penalty {
        /// When that is.
        by: BlockHeight,
        /// The expiry of an HTLC that the cheater offered: from then on it can take the output to its
        /// second stage, where we can still punish it.
        second_stage: Option<BlockHeight>,
    },
}

impl Deadline {
    /// The height by which a spend must be confirmed.
    #[must_use]
    pub const fn height(self) -> Option<BlockHeight> {
        match self {
            Self::By(by) | Self::Penalty { by, .. } => Some(by),
            Self::Race(by) => by,
        }
    }

    /// An earlier height that the operator asked for; whatever was told upstream, that is meant.
    #[must_use]
    pub(crate) fn hurried(own: Option<Self>, asked: Option<BlockHeight>) -> Option<Self> {
        match (own, asked) {
            (own, None) => own,
            (own, Some(asked)) if own.and_then(Self::height) == Some(asked) => own,
            (Some(Self::Penalty { second_stage, .. }), Some(by)) => {
                Some(Self::Penalty { by, second_stage })
            }
            (Some(Self::By(_) | Self::Race(_)) | None, Some(by)) => Some(Self::By(by)),
        }
    }
}

/// How an output is spent, with everything that the spend needs but the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpendPath {
    /// The funding output, by our commitment transaction.
    LocalCommitment(Box<Presigned>),
    /// An anchor on a commitment that is not confirmed, ours or the peer's: pays for its parent.
    Anchor {
        /// What opens it.
        lock: AnchorLock,
        /// The commitment.
        parent: Txid,
        /// What it is worth to us: our balance in it, and the value at risk.
        ours: Amount,
        /// Of the value at risk, what is lost if the commitment is not confirmed by a height: every such height, with all
        /// that is lost by then, lowest first.
        lost: Vec<(BlockHeight, Amount)>,
    },
    /// HTLC-timeout or HTLC-success transaction on our commitment.
    SecondStage(Box<SecondStage>),
    /// One signature and what the script wants besides it.
    Single(Box<SingleSpend>),
}

/// What opens an anchor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnchorLock {
    /// A signature by our funding key.
    Keyed {
        /// Script of the anchor.
        script: ScriptBuf,
        /// Our funding key for it.
        key: SigningKey,
    },
    /// Nothing: it is for everybody, on a transaction of version 3.
    Shared,
}

impl SpendPath {
    /// The signature of ours that it needs: by which key, over which witness script.
    #[must_use]
    pub fn wants_signature(&self) -> Option<(SigningKey, Option<&ScriptBuf>)> {
        match self {
            Self::LocalCommitment(presigned) => Some((presigned.key, Some(&presigned.script))),
            Self::Anchor { lock: AnchorLock::Keyed { script, key }, .. } => {
                Some((*key, Some(script)))
            }
            Self::Anchor { lock: AnchorLock::Shared, .. } => None,
            Self::SecondStage(stage) => Some((stage.key, Some(&stage.script))),
            Self::Single(single) => Some((single.key, single.script.as_ref())),
        }
    }

    /// The preimage that it shows, if it takes an HTLC by one.
    #[must_use]
    pub fn preimage(&self) -> Option<Preimage> {
        match self {
            Self::SecondStage(stage) => stage.preimage,
            Self::Single(single) => match single.unlock {
                Unlock::Preimage(preimage) => Some(preimage),
                Unlock::Nothing
                | Unlock::Empty
                | Unlock::One
                | Unlock::RevocationKey(_)
                | Unlock::PublicKey(_) => None,
            },
            Self::LocalCommitment(_) | Self::Anchor { .. } => None,
        }
    }

    /// Version of the transaction that takes this path. An unconfirmed parent passes its own on (BIP 431).
    #[must_use]
    pub fn version(&self) -> Version {
        match self {
            Self::LocalCommitment(presigned) => presigned.transaction.version,
            Self::SecondStage(stage) => stage.transaction.version,
            Self::Anchor { lock: AnchorLock::Shared, .. } => TRUC,
            Self::Anchor { lock: AnchorLock::Keyed { .. }, .. } => Version::TWO,
            Self::Single(single) => single.version,
        }
    }

    /// Largest weight of that transaction that is relayed.
    #[must_use]
    pub fn max_weight(&self) -> Weight {
        match self {
            Self::Anchor { lock: AnchorLock::Shared, .. } => weights::MAX_TRUC_CHILD,
            Self::Anchor { lock: AnchorLock::Keyed { .. }, .. }
            | Self::LocalCommitment(_)
            | Self::SecondStage(_)
            | Self::Single(_) => {
                if self.version() == TRUC {
                    weights::MAX_TRUC
                } else {
                    weights::MAX_STANDARD
                }
            }
        }
    }

    /// Whether what its transaction pays is ours to choose; else both sides have signed it.
    #[must_use]
    pub fn is_priced_by_us(&self) -> bool {
        match self {
            Self::LocalCommitment(_) => false,
            Self::SecondStage(stage) => stage.extensible == Extensible::Yes,
            Self::Anchor { .. } | Self::Single(_) => true,
        }
    }
}

/// Our commitment transaction, unsigned by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presigned {
    /// The transaction without witness.
    pub transaction: Transaction,
    /// The funding script.
    pub script: ScriptBuf,
    /// Key of ours.
    pub key: SigningKey,
    /// Our funding public key: decides the order of the signatures.
    pub local_funding: PublicKey,
    /// The peer's funding public key.
    pub remote_funding: PublicKey,
    /// The peer's signature.
    pub remote_signature: ecdsa::Signature,
    /// Our anchor on it, if the format has one.
    pub anchor: Option<u32>,
}

/// A second-stage transaction of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecondStage {
    /// The HTLC.
    pub htlc: HtlcId,
    /// The transaction without witness, as the peer signed it.
    pub transaction: Transaction,
    /// Script of the HTLC output.
    pub script: ScriptBuf,
    /// Key of ours.
    pub key: SigningKey,
    /// The peer's signature.
    pub remote_signature: ecdsa::Signature,
    /// Whether the peer's signature lets inputs and outputs be added (SIGHASH_SINGLE with
    /// ANYONECANPAY), so that wallet coins pay the fee.
    pub extensible: Extensible,
    /// The preimage; `None` for a timeout.
    pub preimage: Option<Preimage>,
}

/// Whether a second-stage transaction can be extended by inputs and outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extensible {
    /// It can.
    Yes,
    /// It is final as the peer signed it.
    No,
}

/// A spend by one signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SingleSpend {
    /// What the transaction is.
    pub kind: TxKind,
    /// The HTLC, if the output is one's.
    pub htlc: Option<HtlcId>,
    /// Witness script; `None` for a P2WPKH output.
    pub script: Option<ScriptBuf>,
    /// Witness elements between the signature and the script.
    pub unlock: Unlock,
    /// Key of ours.
    pub key: SigningKey,
    /// `nSequence` of the input.
    pub sequence: Sequence,
    /// `nLockTime` that the path needs.
    pub lock_time: LockTime,
    /// Version of the transaction: a penalty has that of what it punishes, and so its limits (BOLT 5 V9z).
    pub version: Version,
}

/// What a script wants besides the signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unlock {
    /// Nothing.
    Nothing,
    /// An empty element: the delayed or timeout branch.
    Empty,
    /// A one: the revocation branch of `to_local`.
    One,
    /// The revocation public key: the revocation branch of an HTLC.
    RevocationKey(PublicKey),
    /// A public key: P2WPKH.
    PublicKey(PublicKey),
    /// The preimage.
    Preimage(Preimage),
}

/// Which key signs, as derived by BOLT 3. The signer holds the basepoint secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningKey {
    /// The funding key with this public key: candidates may have different ones.
    Funding(PublicKey),
    /// Payment basepoint, untweaked.
    Payment,
    /// Delayed payment key for this per-commitment point.
    DelayedPayment(PublicKey),
    /// HTLC key for this per-commitment point.
    Htlc(PublicKey),
    /// Revocation key for this revealed secret.
    Revocation(PerCommitmentSecret),
}

impl Claim {
    /// Height by which a spend must be confirmed, if there is one.
    #[must_use]
    pub fn due(&self) -> Option<BlockHeight> {
        self.deadline.and_then(Deadline::height)
    }

    /// Height by which a spend is needed: [`Self::due`], or, of a race in which every block counts, when it began.
    #[must_use]
    pub fn needed_by(&self) -> Option<BlockHeight> {
        match self.deadline {
            Some(Deadline::Race(None)) => Some(self.open_at),
            _ => self.due(),
        }
    }

    /// What the claiming transaction is.
    #[must_use]
    pub fn kind(&self) -> TxKind {
        match &self.path {
            SpendPath::LocalCommitment(_) => TxKind::Commitment,
            SpendPath::Anchor { .. } => TxKind::Anchor,
            SpendPath::SecondStage(stage) if stage.preimage.is_some() => TxKind::HtlcSuccess,
            SpendPath::SecondStage(_) => TxKind::HtlcTimeout,
            SpendPath::Single(single) => single.kind,
        }
    }
}
