//! Commitment transactions of BOLT 3, rebuilt from what both parties know.
use crate::facts::{ChannelFacts, FundingCandidate, Htlc, LocalCommitment, RemoteCommitment};
use crate::format::rules::{AnchorRule, HtlcDirection};
use crate::format::{
    CommitmentFormat, CommitmentKeys, DerivationError, ObscuringFactor, scripts, weights,
};
use crate::ids::{HtlcId, Side};
use crate::units::{self, BlockDelta, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Verification};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Weight, Witness};
use core::fmt;

/// Everything that a commitment transaction is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentSpec {
    /// Format.
    pub format: CommitmentFormat,
    /// Who opened the channel, and so pays.
    pub opener: Side,
    /// The funding output.
    pub funding: OutPoint,
    /// Its value.
    pub capacity: Amount,
    /// What the number is obscured with.
    pub factor: ObscuringFactor,
    /// Number.
    pub number: CommitmentNumber,
    /// Keys, and whose commitment it is.
    pub keys: CommitmentKeys,
    /// Blocks that the owner waits for its delayed outputs.
    pub delay: BlockDelta,
    /// The owner's dust limit.
    pub dust_limit: Amount,
    /// Feerate.
    pub feerate: FeeratePerKw,
    /// Our balance, before fees and anchors, without HTLCs.
    pub local_balance: MilliSat,
    /// The peer's balance, before fees and anchors, without HTLCs.
    pub remote_balance: MilliSat,
    /// The HTLCs that it contains.
    pub htlcs: Vec<(HtlcId, Htlc)>,
}

/// A commitment transaction and what its outputs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commitment {
    /// What it was built from.
    pub spec: CommitmentSpec,
    /// The transaction, without witness.
    pub transaction: Transaction,
    /// Its outputs, in their order in the transaction.
    pub outputs: Vec<CommitmentOutput>,
    /// HTLCs that have no output, in the order of the statement.
    pub trimmed: Vec<HtlcId>,
    /// What it pays in fees: base fee, trimmed outputs and roundings.
    pub fee: Amount,
}

/// An output of a commitment transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentOutput {
    /// Its index.
    pub vout: u32,
    /// What it is.
    pub kind: OutputKind,
    /// Its value and script.
    pub output: TxOut,
    /// Witness script; `None` for a P2WPKH output and a shared anchor.
    pub script: Option<ScriptBuf>,
    /// `cltv_expiry` of an HTLC.
    pub expiry: Option<CltvExpiry>,
}

/// What an output of a commitment transaction is. `ToLocal` and `ToRemote` are BOLT 3's, seen from
/// the owner of the commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputKind {
    /// Pays the owner, after the delay.
    ToLocal,
    /// Pays the other party.
    ToRemote,
    /// The anchor locked to this side's funding key.
    Anchor(Side),
    /// The anchor that anybody may spend.
    SharedAnchor,
    /// An HTLC.
    Htlc(HtlcId),
}

/// Why a commitment cannot be built: what was stated contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The facts hold no such HTLC: state its terms first.
    UnknownHtlc(HtlcId),
    /// The HTLC is listed twice.
    DuplicateHtlc(HtlcId),
    /// Balances and HTLCs do not add up to the capacity.
    BalanceMismatch {
        /// What they add up to.
        stated: MilliSat,
        /// What they should add up to.
        capacity: MilliSat,
    },
    /// The outputs are worth more than the funding output: the opener cannot pay for the anchors.
    Overspent,
    /// The format has no feerate, and one is stated.
    Feerate(FeeratePerKw),
    /// The number does not fit into 48 bits.
    NumberOutOfRange(CommitmentNumber),
    /// A key of the commitment does not exist.
    NoSuchKey,
}

impl From<DerivationError> for BuildError {
    fn from(_: DerivationError) -> Self {
        Self::NoSuchKey
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownHtlc(id) => write!(f, "no terms are known for {id:?}"),
            Self::DuplicateHtlc(id) => write!(f, "{id:?} is listed twice"),
            Self::BalanceMismatch { stated, capacity } => write!(
                f,
                "balances and HTLCs add up to {} msat, the capacity is {} msat",
                stated.0, capacity.0
            ),
            Self::Overspent => f.write_str("the outputs are worth more than the funding output"),
            Self::Feerate(feerate) => {
                write!(f, "zero-fee commitments have feerate 0, not {} sat/kw", feerate.0)
            }
            Self::NumberOutOfRange(number) => write!(f, "no commitment has number {}", number.0),
            Self::NoSuchKey => f.write_str("a key of the commitment does not exist"),
        }
    }
}

impl core::error::Error for BuildError {}

/// Our commitment transaction.
///
/// # Errors
/// The statement contradicts itself or the facts.
pub fn local_commitment<C: Verification>(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    commitment: &LocalCommitment,
    secp: &Secp256k1<C>,
) -> Result<Commitment, BuildError> {
    let statement = Statement {
        owner: Side::Local,
        number: commitment.number,
        point: commitment.point,
        feerate: commitment.feerate,
        local_balance: commitment.local_balance,
        remote_balance: commitment.remote_balance,
        htlcs: &commitment.htlcs,
    };
    build(statement.spec(facts, candidate, secp)?)
}

/// The peer's commitment transaction.
///
/// # Errors
/// The statement contradicts itself or the facts.
pub fn remote_commitment<C: Verification>(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    commitment: &RemoteCommitment,
    secp: &Secp256k1<C>,
) -> Result<Commitment, BuildError> {
    let statement = Statement {
        owner: Side::Remote,
        number: commitment.number,
        point: commitment.point,
        feerate: commitment.feerate,
        local_balance: commitment.local_balance,
        remote_balance: commitment.remote_balance,
        htlcs: &commitment.htlcs,
    };
    build(statement.spec(facts, candidate, secp)?)
}

/// What a local and a remote commitment state alike.
struct Statement<'a> {
    owner: Side,
    number: CommitmentNumber,
    point: PublicKey,
    feerate: FeeratePerKw,
    local_balance: MilliSat,
    remote_balance: MilliSat,
    htlcs: &'a [HtlcId],
}

impl Statement<'_> {
    fn spec<C: Verification>(
        &self,
        facts: &ChannelFacts,
        candidate: &FundingCandidate,
        secp: &Secp256k1<C>,
    ) -> Result<CommitmentSpec, BuildError> {
        let party = facts.party(self.owner);
        let terms = |id: &HtlcId| match facts.htlcs.get(id) {
            Some(record) => Ok((*id, record.htlc)),
            None => Err(BuildError::UnknownHtlc(*id)),
        };
        Ok(CommitmentSpec {
            format: candidate.format,
            opener: facts.opener,
            funding: candidate.funding,
            capacity: candidate.capacity,
            factor: ObscuringFactor::of(facts),
            number: self.number,
            keys: CommitmentKeys::new(facts, &candidate.keys, self.owner, self.point, secp)?,
            delay: party.delay,
            dust_limit: party.dust_limit,
            feerate: self.feerate,
            local_balance: self.local_balance,
            remote_balance: self.remote_balance,
            htlcs: self.htlcs.iter().map(terms).collect::<Result<_, _>>()?,
        })
    }
}

/// Builds a commitment transaction (BOLT 3 "Commitment Transaction Construction").
///
/// # Errors
/// The specification contradicts itself.
pub fn build(spec: CommitmentSpec) -> Result<Commitment, BuildError> {
    spec.check()?;
    let (trimmed, kept): (Vec<_>, Vec<_>) =
        spec.htlcs.iter().partition(|(id, htlc)| spec.trims(*id, htlc));
    let trimmed: Vec<HtlcId> = trimmed.into_iter().map(|(id, _)| id).collect();

    let mut outputs: Vec<_> = kept.iter().map(|(id, htlc)| spec.htlc_output(*id, htlc)).collect();
    outputs.extend(spec.main_outputs(kept.len()));
    let left = spec.left_of(&outputs)?;
    outputs.extend(spec.shared_anchor(left));
    // BOLT 3 "Transaction Output Ordering"; ties of equal HTLCs, interchangeable, by their id.
    outputs.sort_by(|a, b| {
        let left = (a.output.value, &a.output.script_pubkey, a.expiry, a.kind);
        left.cmp(&(b.output.value, &b.output.script_pubkey, b.expiry, b.kind))
    });
    for (vout, output) in (0..).zip(&mut outputs) {
        output.vout = vout;
    }

    let fee = spec.left_of(&outputs)?;
    let transaction = spec.transaction(&outputs);
    Ok(Commitment { spec, transaction, outputs, trimmed, fee })
}

impl CommitmentSpec {
    /// Whose commitment it is.
    #[must_use]
    pub const fn owner(&self) -> Side {
        self.keys.owner
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.number > CommitmentNumber::MAX {
            return Err(BuildError::NumberOutOfRange(self.number));
        }
        if self.format == CommitmentFormat::ZeroFee && self.feerate != FeeratePerKw(0) {
            return Err(BuildError::Feerate(self.feerate));
        }
        let mut seen = BTreeSet::new();
        if let Some((id, _)) = self.htlcs.iter().find(|(id, _)| !seen.insert(*id)) {
            return Err(BuildError::DuplicateHtlc(*id));
        }
        let balances = self.local_balance.plus(self.remote_balance);
        let stated = self.htlcs.iter().fold(balances, |sum, (_, htlc)| sum.plus(htlc.amount));
        let capacity = MilliSat::from_amount(self.capacity);
        if stated != capacity {
            return Err(BuildError::BalanceMismatch { stated, capacity });
        }
        Ok(())
    }

    fn trims(&self, id: HtlcId, htlc: &Htlc) -> bool {
        let direction = HtlcDirection::on(self.owner(), id);
        self.format.trims(htlc.amount.floor(), direction, self.feerate, self.dust_limit)
    }

    fn htlc_output(&self, id: HtlcId, htlc: &Htlc) -> CommitmentOutput {
        let script = scripts::htlc(self.format, &self.keys, id, &htlc.hash, htlc.expiry);
        CommitmentOutput {
            vout: 0,
            kind: OutputKind::Htlc(id),
            output: TxOut { value: htlc.amount.floor(), script_pubkey: script.to_p2wsh() },
            script: Some(script),
            expiry: Some(htlc.expiry),
        }
    }

    /// Whole satoshis of (owner, other party), rounded down, after the opener paid the base fee
    /// and the anchors; all that it has if that is not enough.
    fn main_amounts(&self, untrimmed: usize) -> (Amount, Amount) {
        let after_costs = |side: Side| {
            let balance = match side {
                Side::Local => self.local_balance,
                Side::Remote => self.remote_balance,
            };
            let costs = if side == self.opener {
                let fee = self.format.commitment_fee(self.feerate, untrimmed);
                units::plus(fee, self.format.anchors().cost())
            } else {
                Amount::ZERO
            };
            balance.floor().checked_sub(costs).unwrap_or(Amount::ZERO)
        };
        (after_costs(self.owner()), after_costs(self.owner().other()))
    }

    /// `to_local`, `to_remote` and keyed anchors.
    fn main_outputs(&self, untrimmed: usize) -> Vec<CommitmentOutput> {
        let (to_local, to_remote) = self.main_amounts(untrimmed);
        let mut outputs = Vec::new();
        let mut push = |kind, value, script_pubkey, script| {
            let output = TxOut { value, script_pubkey };
            outputs.push(CommitmentOutput { vout: 0, kind, output, script, expiry: None });
        };
        let has_to_local = to_local >= self.dust_limit;
        if has_to_local {
            let script = scripts::to_local(&self.keys, self.delay);
            push(OutputKind::ToLocal, to_local, script.script_pubkey, script.witness_script);
        }
        let has_to_remote = to_remote >= self.dust_limit;
        if has_to_remote {
            let script = scripts::to_remote(self.format, &self.keys.other_payment);
            push(OutputKind::ToRemote, to_remote, script.script_pubkey, script.witness_script);
        }
        match self.format.anchors() {
            AnchorRule::Absent | AnchorRule::Shared(_) => {}
            AnchorRule::Keyed(value) => {
                let sides = [(self.owner(), has_to_local), (self.owner().other(), has_to_remote)];
                for (side, has_main_output) in sides {
                    if has_main_output || untrimmed > 0 {
                        let script = scripts::anchor(&self.keys.funding(side));
                        push(OutputKind::Anchor(side), value, script.to_p2wsh(), Some(script));
                    }
                }
            }
        }
        outputs
    }

    /// What the funding output is worth beyond these.
    fn left_of(&self, outputs: &[CommitmentOutput]) -> Result<Amount, BuildError> {
        let mut values = outputs.iter().map(|output| output.output.value);
        let spent = values.try_fold(Amount::ZERO, Amount::checked_add);
        spent.and_then(|spent| self.capacity.checked_sub(spent)).ok_or(BuildError::Overspent)
    }

    /// The shared anchor, which takes what no other output does, up to its dust limit: below it, the
    /// transaction pays no fee at all, as relay policy wants of dust (BOLT 3 "`shared_anchor` Output").
    fn shared_anchor(&self, left: Amount) -> Option<CommitmentOutput> {
        let AnchorRule::Shared(most) = self.format.anchors() else { return None };
        Some(CommitmentOutput {
            vout: 0,
            kind: OutputKind::SharedAnchor,
            output: TxOut { value: left.min(most), script_pubkey: scripts::shared_anchor() },
            script: None,
            expiry: None,
        })
    }

    fn transaction(&self, outputs: &[CommitmentOutput]) -> Transaction {
        let (lock_time, sequence) = self.factor.obscure(self.number);
        let input = TxIn {
            previous_output: self.funding,
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        };
        Transaction {
            version: self.format.version(),
            lock_time,
            input: alloc::vec![input],
            output: outputs.iter().map(|output| output.output.clone()).collect(),
        }
    }
}

impl Commitment {
    /// Witness script of the funding output.
    #[must_use]
    pub fn funding_script(&self) -> ScriptBuf {
        scripts::funding(&self.spec.keys.owner_funding, &self.spec.keys.other_funding)
    }

    /// The funding output.
    #[must_use]
    pub fn funding_output(&self) -> TxOut {
        let script_pubkey = self.funding_script().to_p2wsh();
        TxOut { value: self.spec.capacity, script_pubkey }
    }

    /// Weight of the transaction once both parties have signed, an upper bound.
    #[must_use]
    pub fn signed_weight(&self) -> Weight {
        let witness =
            weights::SEGWIT_HEADER.to_wu().saturating_add(weights::funding_witness().to_wu());
        Weight::from_wu(self.transaction.weight().to_wu().saturating_add(witness))
    }

    /// The output that is this.
    #[must_use]
    pub fn output(&self, kind: OutputKind) -> Option<&CommitmentOutput> {
        self.outputs.iter().find(|output| output.kind == kind)
    }

    /// The anchor by which we can pay for it: our own, or that for everybody.
    #[must_use]
    pub fn our_anchor(&self) -> Option<&CommitmentOutput> {
        self.output(OutputKind::Anchor(Side::Local))
            .or_else(|| self.output(OutputKind::SharedAnchor))
    }

    /// The outpoint of the output that is this.
    #[must_use]
    pub fn outpoint(&self, kind: OutputKind) -> Option<OutPoint> {
        let output = self.output(kind)?;
        Some(OutPoint { txid: self.transaction.compute_txid(), vout: output.vout })
    }
}
