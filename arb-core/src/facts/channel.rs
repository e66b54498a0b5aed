//! `ChannelFacts`: keys, parameters, funding candidates, live commitments and HTLCs.
use crate::facts::{HtlcRecord, SecretStore};
use crate::format::CommitmentFormat;
use crate::ids::{ChannelId, HtlcId, ShortChannelId, Side};
use crate::units::{BlockDelta, BlockHeight, CommitmentNumber, FeeratePerKw, MilliSat};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{Amount, OutPoint, ScriptBuf};

/// Everything that the node told us of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Channel id.
    pub id: ChannelId,
    /// Who opened it: pays the commitment fee and anchors, and comes first in the obscuring factor.
    pub opener: Side,
    /// Our keys and parameters.
    pub local: Party,
    /// The peer's keys and parameters.
    pub remote: Party,
    /// The funding outputs that may be spent, current one first.
    pub candidates: Candidates,
    /// Every HTLC that is in a live commitment of any candidate.
    pub htlcs: BTreeMap<HtlcId, HtlcRecord>,
    /// Secrets of the remote commitments that the peer revoked.
    pub secrets: SecretStore,
    /// Scripts agreed for a mutual close.
    pub shutdown: ShutdownScripts,
    /// Where our claims pay ("a convenient address", BOLT 5): a script of the node's wallet, or any
    /// other, such as an external address. The same for two channels shows that they belong together.
    pub destination: ScriptBuf,
    /// No spend of any candidate can be in a block at or below this height.
    pub birth: BlockHeight,
    /// How the node's other parts name the channel.
    pub names: ChannelNames,
}

/// How the node's other parts name a channel: they find it by these, not by its [`ChannelId`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelNames {
    /// The real short channel id, once the funding output has one.
    pub short_channel_id: Option<ShortChannelId>,
    /// Aliases in use (BOLT 2 `channel_ready`).
    pub aliases: Vec<ShortChannelId>,
}

/// One party's keys and parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Basepoints.
    pub keys: ChannelKeys,
    /// Blocks that this party waits for the delayed outputs of *its own* commitment: the *other*
    /// party's `to_self_delay` setting.
    pub delay: BlockDelta,
    /// Dust limit of this party's own commitment.
    pub dust_limit: Amount,
}

/// Basepoints of BOLT 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelKeys {
    /// `revocation_basepoint`.
    pub revocation: PublicKey,
    /// `payment_basepoint`.
    pub payment: PublicKey,
    /// `delayed_payment_basepoint`.
    pub delayed_payment: PublicKey,
    /// `htlc_basepoint`.
    pub htlc: PublicKey,
}

/// The keys of a funding output, `funding_pubkey` of BOLT 2: of `open_channel` and `accept_channel`,
/// or of the splice that makes it (`splice_init`, `splice_ack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingKeys {
    /// Ours.
    pub local: PublicKey,
    /// The peer's.
    pub remote: PublicKey,
}

impl FundingKeys {
    /// The key of this side.
    #[must_use]
    pub const fn of(&self, side: Side) -> PublicKey {
        match side {
            Side::Local => self.local,
            Side::Remote => self.remote,
        }
    }
}

/// The funding outputs that may be spent: the current one, splices and replacements that may
/// confirm instead, and those that another took the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// The current funding output.
    pub current: FundingCandidate,
    /// Others that may confirm instead. Each new commitment is stated for them too.
    pub others: Vec<FundingCandidate>,
    /// Those that were current, or could have been, when another was locked. Their commitments are
    /// as they were then: a reorganisation may bring them back.
    pub former: Vec<FundingCandidate>,
}

impl Candidates {
    /// One candidate: no splice, no replacement.
    #[must_use]
    pub const fn only(current: FundingCandidate) -> Self {
        Self { current, others: Vec::new(), former: Vec::new() }
    }

    /// All candidates, current one first.
    pub fn iter(&self) -> impl Iterator<Item = &FundingCandidate> {
        self.moving().chain(&self.former)
    }

    /// Those whose commitments go on, current one first.
    pub fn moving(&self) -> impl Iterator<Item = &FundingCandidate> {
        core::iter::once(&self.current).chain(&self.others)
    }

    /// The candidate with this funding output.
    #[must_use]
    pub fn get(&self, funding: &OutPoint) -> Option<&FundingCandidate> {
        self.iter().find(|candidate| candidate.funding == *funding)
    }

    /// The candidate with this funding output, if its commitments go on.
    pub(crate) fn moving_mut(&mut self, funding: &OutPoint) -> Option<&mut FundingCandidate> {
        core::iter::once(&mut self.current)
            .chain(&mut self.others)
            .find(|candidate| candidate.funding == *funding)
    }
}

/// A funding output and the live commitments that spend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FundingCandidate {
    /// The funding output.
    pub funding: OutPoint,
    /// The keys that it pays to.
    pub keys: FundingKeys,
    /// Its value.
    pub capacity: Amount,
    /// Format of every commitment that spends it.
    pub format: CommitmentFormat,
    /// Our current commitment.
    pub local: LocalCommitment,
    /// The peer's current commitment.
    pub remote: RemoteCommitment,
    /// The peer's next commitment: signed by us, the one before it not revoked yet.
    pub remote_next: Option<RemoteCommitment>,
}

/// A commitment of ours, with the peer's signatures: all that a broadcast needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalCommitment {
    /// Number.
    pub number: CommitmentNumber,
    /// Our per-commitment point for it.
    pub point: PublicKey,
    /// Feerate of the commitment and (static_remotekey) of its HTLC transactions.
    pub feerate: FeeratePerKw,
    /// Our balance, before fees.
    pub local_balance: MilliSat,
    /// The peer's balance, before fees.
    pub remote_balance: MilliSat,
    /// HTLCs that it contains, trimmed ones too.
    pub htlcs: Vec<HtlcId>,
    /// The peer's signature of the commitment, SIGHASH_ALL.
    pub signature: ecdsa::Signature,
    /// The peer's signatures of the HTLC transactions, in output order.
    pub htlc_signatures: Vec<ecdsa::Signature>,
}

/// A commitment of the peer: all that recognising it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteCommitment {
    /// Number.
    pub number: CommitmentNumber,
    /// The peer's per-commitment point for it.
    pub point: PublicKey,
    /// Feerate of the commitment and (static_remotekey) of its HTLC transactions.
    pub feerate: FeeratePerKw,
    /// Our balance, before fees.
    pub local_balance: MilliSat,
    /// The peer's balance, before fees.
    pub remote_balance: MilliSat,
    /// HTLCs that it contains, trimmed ones too.
    pub htlcs: Vec<HtlcId>,
}

/// Scripts agreed for a mutual close (BOLT 2 `shutdown`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShutdownScripts {
    /// Ours.
    pub local: Option<ScriptBuf>,
    /// The peer's.
    pub remote: Option<ScriptBuf>,
}

impl ChannelFacts {
    /// A candidate's local commitment, unless we revoked it: once another candidate was locked and
    /// went on, what the former ones hold is worth a penalty.
    #[must_use]
    pub fn unrevoked_local<'a>(
        &self,
        candidate: &'a FundingCandidate,
    ) -> Option<&'a LocalCommitment> {
        let newest = self.candidates.moving().map(|moving| moving.local.number).min()?;
        Some(&candidate.local).filter(|local| local.number >= newest)
    }

    /// A candidate's remote commitments that the peer has not revoked.
    pub fn unrevoked_remotes<'a>(
        &self,
        candidate: &'a FundingCandidate,
    ) -> impl Iterator<Item = &'a RemoteCommitment> + use<'a> {
        let current = self.candidates.current.remote.number;
        let remotes = core::iter::once(&candidate.remote).chain(&candidate.remote_next);
        remotes.filter(move |remote| remote.number >= current)
    }

    /// Whether any unrevoked commitment of any candidate contains this HTLC.
    #[must_use]
    pub fn is_committed(&self, id: HtlcId) -> bool {
        self.candidates.iter().any(|candidate| {
            self.unrevoked_local(candidate).is_some_and(|local| local.htlcs.contains(&id))
                || self.unrevoked_remotes(candidate).any(|remote| remote.htlcs.contains(&id))
        })
    }

    /// The party on this side.
    #[must_use]
    pub const fn party(&self, side: Side) -> &Party {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }
}
