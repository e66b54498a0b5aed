//! What differs between commitment formats, one question a method. A new format is a new arm here
//! and in `weights` and `scripts`.
use crate::claim::Extensible;
use crate::format::CommitmentFormat;
use crate::format::weights;
use crate::ids::{HtlcId, Side};
use crate::units::FeeratePerKw;
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Sequence, Weight};

/// Value of a keyed anchor output (BOLT 3): the dust limit of P2WSH.
pub const ANCHOR_VALUE: Amount = Amount::from_sat(330);
/// Largest value of a shared anchor output (BOLT 3): the dust limit of P2A.
pub const SHARED_ANCHOR_VALUE: Amount = Amount::from_sat(240);

/// Version of transactions that are relayed under the rules of BIP 431.
pub const TRUC: Version = Version(3);

/// HTLCs that a commitment transaction may contain in each direction (BOLT 2
/// `max_accepted_htlcs`).
pub const MAX_HTLCS_PER_DIRECTION: usize = 483;
/// The same for zero-fee commitments, which are relayed up to 10,000 vB only.
pub const MAX_HTLCS_PER_DIRECTION_ZERO_FEE: usize = 114;

/// An HTLC as the owner of a commitment transaction sees it (BOLT 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HtlcDirection {
    /// Offered by the owner: the owner takes it back by an HTLC-timeout transaction.
    Offered,
    /// Received by the owner: the owner takes it by an HTLC-success transaction.
    Received,
}

impl HtlcDirection {
    /// The direction of `htlc` on a commitment transaction of `owner`.
    #[must_use]
    pub fn on(owner: Side, htlc: HtlcId) -> Self {
        if htlc.offerer == owner { Self::Offered } else { Self::Received }
    }
}

/// Which anchor outputs a commitment transaction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnchorRule {
    /// None.
    Absent,
    /// One for each party, of this value, locked to its funding key.
    Keyed(Amount),
    /// One that anybody may spend: what is left of the funding output, at most this value.
    Shared(Amount),
}

impl AnchorRule {
    /// What the opener pays for anchors, whether or not both outputs materialise (BOLT 3 "Fee
    /// Payment").
    #[must_use]
    pub fn cost(self) -> Amount {
        match self {
            // A shared one is made of what is trimmed.
            Self::Absent | Self::Shared(_) => Amount::ZERO,
            Self::Keyed(value) => Amount::from_sat(value.to_sat().saturating_mul(2)),
        }
    }
}

impl CommitmentFormat {
    /// Version of the commitment transaction and of its HTLC transactions.
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::StaticRemotekey | Self::Anchors => Version::TWO,
            Self::ZeroFee => TRUC,
        }
    }

    /// Its anchor outputs.
    #[must_use]
    pub const fn anchors(self) -> AnchorRule {
        match self {
            Self::StaticRemotekey => AnchorRule::Absent,
            Self::Anchors => AnchorRule::Keyed(ANCHOR_VALUE),
            Self::ZeroFee => AnchorRule::Shared(SHARED_ANCHOR_VALUE),
        }
    }

    /// HTLCs that a commitment transaction may contain in each direction (BOLT 2
    /// `max_accepted_htlcs`).
    #[must_use]
    pub const fn max_htlcs_per_direction(self) -> usize {
        match self {
            Self::StaticRemotekey | Self::Anchors => MAX_HTLCS_PER_DIRECTION,
            Self::ZeroFee => MAX_HTLCS_PER_DIRECTION_ZERO_FEE,
        }
    }

    /// Largest weight of a commitment transaction that is relayed.
    #[must_use]
    pub const fn max_weight(self) -> Weight {
        match self {
            Self::StaticRemotekey | Self::Anchors => weights::MAX_STANDARD,
            Self::ZeroFee => weights::MAX_TRUC,
        }
    }

    /// `nSequence` of every spend of an HTLC output but the penalty: HTLC transactions, and the
    /// other party's spends by preimage and after the timeout.
    #[must_use]
    pub fn htlc_sequence(self) -> Sequence {
        match self {
            Self::StaticRemotekey | Self::ZeroFee => Sequence::ZERO,
            Self::Anchors => Sequence::from_height(1),
        }
    }

    /// Sighash type of the peer's signature of an HTLC transaction (BOLT 3, BOLT 5 "Generation of
    /// HTLC Transactions").
    #[must_use]
    pub const fn peer_htlc_sighash(self) -> EcdsaSighashType {
        self.extensible().peer_sighash()
    }

    /// Whether an HTLC transaction can be extended by inputs and outputs.
    #[must_use]
    pub const fn extensible(self) -> Extensible {
        match self {
            Self::StaticRemotekey => Extensible::No,
            Self::Anchors | Self::ZeroFee => Extensible::Yes,
        }
    }

    /// Base fee of a commitment transaction with this many untrimmed HTLCs, rounded down (BOLT 3
    /// "Fee Calculation").
    #[must_use]
    pub fn commitment_fee(self, feerate: FeeratePerKw, untrimmed: usize) -> Amount {
        match self {
            Self::StaticRemotekey | Self::Anchors => {
                fee(feerate, weights::expected_commitment(self, untrimmed))
            }
            Self::ZeroFee => Amount::ZERO,
        }
    }

    /// Fee of an HTLC transaction, rounded down (BOLT 3 "Fee Calculation").
    #[must_use]
    pub fn htlc_fee(self, feerate: FeeratePerKw, direction: HtlcDirection) -> Amount {
        match self {
            Self::StaticRemotekey => fee(feerate, weights::expected_htlc(self, direction)),
            Self::Anchors | Self::ZeroFee => Amount::ZERO,
        }
    }

    /// Whether an HTLC of this amount (whole satoshis, rounded down) has no output (BOLT 3
    /// "Trimmed Outputs").
    #[must_use]
    pub fn trims(
        self,
        amount: Amount,
        direction: HtlcDirection,
        feerate: FeeratePerKw,
        dust_limit: Amount,
    ) -> bool {
        match amount.checked_sub(self.htlc_fee(feerate, direction)) {
            Some(rest) => rest < dust_limit,
            None => true,
        }
    }
}

impl Extensible {
    /// Sighash type of the peer's signature of an HTLC transaction.
    #[must_use]
    pub const fn peer_sighash(self) -> EcdsaSighashType {
        match self {
            Self::Yes => EcdsaSighashType::SinglePlusAnyoneCanPay,
            Self::No => EcdsaSighashType::All,
        }
    }
}

/// Feerate times weight, rounded down to whole satoshis.
#[allow(clippy::arithmetic_side_effects, reason = "division by a constant")]
fn fee(feerate: FeeratePerKw, weight: Weight) -> Amount {
    Amount::from_sat(u64::from(feerate.0).saturating_mul(weight.to_wu()) / 1000)
}
