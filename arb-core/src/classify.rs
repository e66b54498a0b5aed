//! What a spend of a funding output is. Computed from the logged transaction and the facts, never
//! stored: a secret or a script that arrives later changes the verdict.
use crate::arbitrator::{ChannelArbitrator, CloseKind};
use crate::facts::{ChannelFacts, FundingCandidate, HtlcRecord};
use crate::format::{
    Commitment, CommitmentKeys, CommitmentOutput, ObscuringFactor, commitment, number, scripts,
};
use crate::ids::{HtlcId, PerCommitmentSecret, Side};
use crate::ports::ScriptOwner;
use crate::units::CommitmentNumber;
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{OutPoint, Script, ScriptBuf, Sequence, Transaction, TxOut, Txid};

/// What spent the funding output (BOLT 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FundingSpend {
    /// A mutual close.
    MutualClose,
    /// Our current commitment.
    LocalCommitment(CommitmentNumber),
    /// A commitment of ours that we revoked.
    OutdatedLocalCommitment(CommitmentNumber),
    /// A commitment of ours that is newer than our facts, as the signer's point shows.
    NewerLocalCommitment(CommitmentNumber),
    /// The peer's current or next commitment.
    RemoteCommitment(CommitmentNumber),
    /// A commitment that the peer revoked.
    RevokedCommitment(CommitmentNumber),
    /// A commitment of the peer that is newer than our facts.
    FutureCommitment(CommitmentNumber),
    /// Another funding candidate: the channel goes on.
    Splice(Txid),
    /// Nothing that we can explain.
    Unknown,
}

impl FundingSpend {
    /// As subscribers are told.
    #[must_use]
    pub const fn kind(self) -> CloseKind {
        match self {
            Self::MutualClose => CloseKind::Mutual,
            Self::LocalCommitment(n) | Self::NewerLocalCommitment(n) => CloseKind::Local(n),
            Self::OutdatedLocalCommitment(n) => CloseKind::Outdated(n),
            Self::RemoteCommitment(n) => CloseKind::Remote(n),
            Self::RevokedCommitment(n) => CloseKind::Revoked(n),
            Self::FutureCommitment(n) => CloseKind::Future(n),
            Self::Splice(txid) => CloseKind::Splice(txid),
            Self::Unknown => CloseKind::Unknown,
        }
    }
}

/// A spend with what is needed to read its outputs.
#[derive(Clone, Debug)]
pub(crate) enum Classified {
    /// A live commitment, rebuilt: every output is known.
    Live { spend: FundingSpend, owner: Side, point: PublicKey, commitment: Box<Commitment> },
    /// A revoked commitment of the peer.
    Revoked { number: CommitmentNumber, secret: PerCommitmentSecret, point: PublicKey },
    /// Anything else: only scripts can tell what is ours.
    Other(FundingSpend),
}

impl Classified {
    pub(crate) const fn spend(&self) -> FundingSpend {
        match self {
            Self::Live { spend, .. } | Self::Other(spend) => *spend,
            Self::Revoked { number, .. } => FundingSpend::RevokedCommitment(*number),
        }
    }
}

/// Classifies `tx`, which spends `candidate`'s funding output.
pub(crate) fn classify(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    candidate: &FundingCandidate,
    tx: &Transaction,
    secp: &Secp256k1<All>,
) -> Classified {
    let factor = ObscuringFactor::of(facts);
    let shaped = number::commitment_number_of(tx, factor);
    if let Some(number) = shaped
        && let Some(live) = live_commitment(facts, candidate, tx, number, secp)
    {
        return live;
    }
    if let Some(other) = splice_of(facts, candidate, tx) {
        return Classified::Other(FundingSpend::Splice(other));
    }
    match shaped {
        Some(number) => by_scripts(facts, state, candidate, tx, number, secp),
        // What is shaped like a commitment is none, whatever the node says of it.
        None if state.agreed_closes.contains(&tx.compute_txid())
            || is_mutual_close(facts, state, tx) =>
        {
            Classified::Other(FundingSpend::MutualClose)
        }
        None => Classified::Other(FundingSpend::Unknown),
    }
}

/// The anchor by which we can pay for `tx`, if that is a live commitment of the peer for this candidate.
pub(crate) fn remote_anchor<'a>(
    facts: &'a ChannelFacts,
    state: &ChannelArbitrator,
    tx: &Transaction,
) -> Option<(&'a FundingCandidate, CommitmentOutput)> {
    let spends = |c: &&FundingCandidate| tx.input.iter().any(|i| i.previous_output == c.funding);
    let candidate = facts.candidates.iter().find(spends)?;
    let secp = Secp256k1::new();
    match classify(facts, state, candidate, tx, &secp) {
        Classified::Live { owner: Side::Remote, commitment, .. } => {
            let anchor = commitment.our_anchor()?.clone();
            Some((candidate, anchor))
        }
        Classified::Live { .. } | Classified::Revoked { .. } | Classified::Other(_) => None,
    }
}

/// The splice that `tx` is: it makes the funding output of another candidate.
pub(crate) fn splice_of(
    facts: &ChannelFacts,
    spent: &FundingCandidate,
    tx: &Transaction,
) -> Option<Txid> {
    facts.candidates.iter().nth(1)?;
    let txid = tx.compute_txid();
    let creates = |other: &FundingCandidate| {
        other.funding != spent.funding
            && other.funding.txid == txid
            && usize::try_from(other.funding.vout).is_ok_and(|vout| vout < tx.output.len())
    };
    facts.candidates.iter().any(creates).then_some(txid)
}

fn live_commitment(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    tx: &Transaction,
    number: CommitmentNumber,
    secp: &Secp256k1<All>,
) -> Option<Classified> {
    let txid = tx.compute_txid();
    let same = |commitment: &Commitment| commitment.transaction.compute_txid() == txid;
    let local = || {
        let local = facts.unrevoked_local(candidate).filter(|local| local.number == number)?;
        let built = commitment::local_commitment(facts, candidate, local, secp).ok();
        let commitment = built.filter(same)?;
        let spend = FundingSpend::LocalCommitment(number);
        let commitment = Box::new(commitment);
        Some(Classified::Live { spend, owner: Side::Local, point: local.point, commitment })
    };
    let remote = || {
        let mut remotes = facts.unrevoked_remotes(candidate).filter(|r| r.number == number);
        remotes.find_map(|remote| {
            let built = commitment::remote_commitment(facts, candidate, remote, secp).ok();
            let commitment = built.filter(same)?;
            let spend = FundingSpend::RemoteCommitment(number);
            let commitment = Box::new(commitment);
            Some(Classified::Live { spend, owner: Side::Remote, point: remote.point, commitment })
        })
    };
    // To rebuild a commitment is most of the work, and the likelier one is the first.
    let to_us = scripts::to_remote(candidate.format, &facts.local.keys.payment).script_pubkey;
    if tx.output.iter().any(|output| output.script_pubkey == to_us) {
        remote().or_else(local)
    } else {
        local().or_else(remote)
    }
}

/// Commitment-shaped, but none that is live: revoked, outdated or future, told apart by scripts.
/// The number alone proves nothing, since both parties' commitments carry the same numbers.
fn by_scripts(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    candidate: &FundingCandidate,
    tx: &Transaction,
    number: CommitmentNumber,
    secp: &Secp256k1<All>,
) -> Classified {
    let pays = |script: &Script| tx.output.iter().any(|o| o.script_pubkey.as_script() == script);
    let to_us =
        pays(&scripts::to_remote(candidate.format, &facts.local.keys.payment).script_pubkey);
    let to_peer =
        pays(&scripts::to_remote(candidate.format, &facts.remote.keys.payment).script_pubkey);
    // A former candidate's own numbers stand still: the current one's say what is revoked.
    let current = &facts.candidates.current;
    if number < current.remote.number
        && let Some((secret, point)) = revoked_point(facts, number, secp)
    {
        // Told without deriving keys, which is most of the work.
        if to_us {
            return Classified::Revoked { number, secret, point };
        }
        let keys = CommitmentKeys::new(facts, &candidate.keys, Side::Remote, point, secp).ok();
        let pays_owner = || {
            let script = |keys| scripts::to_local(keys, facts.remote.delay).script_pubkey;
            keys.as_ref().map(script).is_some_and(|script| pays(&script))
        };
        // Both balances may be trimmed: then the HTLCs that were live in it decide.
        let pays_htlc = || {
            keys.as_ref().is_some_and(|keys| {
                let contained = |(id, record): &(HtlcId, HtlcRecord)| {
                    let htlc = &record.htlc;
                    let format = candidate.format;
                    record.in_remote(number)
                        && pays(
                            &scripts::htlc(format, keys, *id, &htlc.hash, htlc.expiry).to_p2wsh(),
                        )
                };
                let live = facts.htlcs.iter().map(|(id, record)| (*id, *record));
                let ended = state.revoked_htlcs.get(&number).map(Vec::as_slice);
                let ended = ended.unwrap_or_default();
                live.chain(ended.iter().copied()).any(|htlc| contained(&htlc))
            })
        };
        if pays_owner() || (!to_peer && pays_htlc()) {
            return Classified::Revoked { number, secret, point };
        }
    }
    if number < current.local.number && !to_us {
        return Classified::Other(FundingSpend::OutdatedLocalCommitment(number));
    }
    let is_ours = || {
        let point = *state.points.get(&number)?;
        let keys = CommitmentKeys::new(facts, &candidate.keys, Side::Local, point, secp).ok()?;
        Some(pays(&scripts::to_local(&keys, facts.local.delay).script_pubkey))
    };
    if !to_us && is_ours() == Some(true) {
        return Classified::Other(FundingSpend::NewerLocalCommitment(number));
    }
    let newest = current.remote_next.as_ref().map_or(current.remote.number, |r| r.number);
    if number > newest && (to_us || !to_peer) {
        return Classified::Other(FundingSpend::FutureCommitment(number));
    }
    Classified::Other(FundingSpend::Unknown)
}

/// The revealed secret of a remote commitment, and its point.
pub(crate) fn revoked_point(
    facts: &ChannelFacts,
    number: CommitmentNumber,
    secp: &Secp256k1<All>,
) -> Option<(PerCommitmentSecret, PublicKey)> {
    let secret = facts.secrets.get(number)?;
    let key = SecretKey::from_slice(&secret.0).ok()?;
    Some((secret, PublicKey::from_secret_key(secp, &key)))
}

/// Whether this is the txid of something that can be no mutual close: a live commitment of either
/// side, one that was handed out, the funding transaction of a candidate, or a confirmed spend of a
/// funding output that is explained otherwise.
#[must_use]
pub fn is_no_mutual_close(facts: &ChannelFacts, state: &ChannelArbitrator, txid: Txid) -> bool {
    let secp = Secp256k1::new();
    let is_live = |candidate: &FundingCandidate| {
        let same = |built: Commitment| built.transaction.compute_txid() == txid;
        let local = commitment::local_commitment(facts, candidate, &candidate.local, &secp);
        let remotes = core::iter::once(&candidate.remote).chain(candidate.remote_next.as_ref());
        let mut remotes =
            remotes.map(|remote| commitment::remote_commitment(facts, candidate, remote, &secp));
        candidate.funding.txid == txid
            || local.is_ok_and(same)
            || remotes.any(|remote| remote.is_ok_and(same))
    };
    let is_explained = |candidate: &FundingCandidate| {
        let spend = state.spender(&candidate.funding).map(|(tx, _)| &tx.value);
        spend.filter(|tx| tx.compute_txid() == txid).is_some_and(|tx| {
            match classify(facts, state, candidate, tx, &secp).spend() {
                FundingSpend::MutualClose => false,
                // Commitment-shaped, it is somebody's commitment, even if nobody knows whose.
                FundingSpend::Unknown => {
                    number::commitment_number_of(tx, ObscuringFactor::of(facts)).is_some()
                }
                FundingSpend::LocalCommitment(_)
                | FundingSpend::OutdatedLocalCommitment(_)
                | FundingSpend::NewerLocalCommitment(_)
                | FundingSpend::RemoteCommitment(_)
                | FundingSpend::RevokedCommitment(_)
                | FundingSpend::FutureCommitment(_)
                | FundingSpend::Splice(_) => true,
            }
        })
    };
    state.acts().ours(txid).is_some()
        || facts.candidates.iter().any(|candidate| is_live(candidate) || is_explained(candidate))
}

/// Most outputs of a transaction that is asked about as a mutual close: BOLT 2 has two.
const CLOSING_OUTPUTS: usize = 16;

/// Whether a transaction may be a mutual close by its shape (BOLT 2): one input, with sequence
/// 0xFFFFFFFF (legacy) or 0xFFFFFFFD (simple close), and outputs.
#[must_use]
pub fn is_closing_shaped(tx: &Transaction) -> bool {
    let [input] = tx.input.as_slice() else { return false };
    let closing = [Sequence::MAX, Sequence::ENABLE_RBF_NO_LOCKTIME].contains(&input.sequence);
    closing && !tx.output.is_empty()
}

/// A mutual close: of that shape, and every output agreed, ours, or an OP_RETURN.
fn is_mutual_close(facts: &ChannelFacts, state: &ChannelArbitrator, tx: &Transaction) -> bool {
    let agreed = |output: &TxOut| is_agreed(facts, state, &output.script_pubkey);
    is_closing_shaped(tx) && tx.output.iter().all(agreed)
}

fn is_agreed(facts: &ChannelFacts, state: &ChannelArbitrator, script: &Script) -> bool {
    is_ours(facts, state, script)
        || facts.shutdown.remote.as_deref() == Some(script)
        || script.is_op_return()
}

/// Whether a script is ours: agreed for a mutual close, the destination of our claims, or the
/// node's as it said when it was asked.
pub(crate) fn is_ours(facts: &ChannelFacts, state: &ChannelArbitrator, script: &Script) -> bool {
    facts.shutdown.local.as_deref() == Some(script)
        || facts.destination.as_script() == script
        || state.owner_of(script) == Some(ScriptOwner::Node)
}

/// The scripts that a transaction pays, if it may be a mutual close, and of which nobody knows
/// whose they are.
#[must_use]
pub fn open_scripts(
    facts: &ChannelFacts,
    state: &ChannelArbitrator,
    tx: &Transaction,
) -> Vec<ScriptBuf> {
    if !is_closing_shaped(tx) || tx.output.len() > CLOSING_OUTPUTS {
        return Vec::new();
    }
    let scripts = tx.output.iter().map(|output| &output.script_pubkey);
    let open =
        |script: &&ScriptBuf| !is_agreed(facts, state, script) && state.owner_of(script).is_none();
    scripts.filter(open).cloned().collect()
}

/// The funding outputs of all candidates.
pub(crate) fn fundings(facts: &ChannelFacts) -> impl Iterator<Item = OutPoint> {
    facts.candidates.iter().map(|candidate| candidate.funding)
}
