//! Weights: the expected ones of BOLT 3 Appendix A, by which commitment fees are computed, and
//! upper bounds of the witnesses that we make.
use crate::claim::{AnchorLock, SingleSpend, SpendPath, Unlock};
use crate::format::CommitmentFormat;
use crate::format::rules::HtlcDirection;
use bitcoin::{Amount, ScriptBuf, Weight};

/// Weight units of a byte outside the witness.
const WU_PER_BYTE: u64 = 4;

/// Expected weight of a commitment transaction without HTLC outputs and without anchors.
const COMMITMENT_BASE: u64 = 724;
/// Expected weight of a commitment transaction without HTLC outputs, with two keyed anchors.
const COMMITMENT_BASE_ANCHORS: u64 = 1124;
/// Expected weight of a commitment transaction without HTLC outputs, with a shared anchor: `4 * 13`
/// more than without.
const COMMITMENT_BASE_ZERO_FEE: u64 = COMMITMENT_BASE + 13 * WU_PER_BYTE;
/// What a coin of the wallet adds to a transaction: a P2WPKH input, signed.
pub const COIN: Weight = Weight::from_wu(272);
/// Weight of an HTLC output of a commitment transaction.
pub const HTLC_OUTPUT: Weight = P2WSH_OUTPUT;
/// Expected weight of an HTLC-timeout transaction without the CSV of anchors.
const HTLC_TIMEOUT: u64 = 663;
/// Expected weight of an HTLC-timeout transaction, with anchors.
const HTLC_TIMEOUT_ANCHORS: u64 = 666;
/// Expected weight of an HTLC-success transaction without the CSV of anchors.
const HTLC_SUCCESS: u64 = 703;
/// Expected weight of an HTLC-success transaction, with anchors.
const HTLC_SUCCESS_ANCHORS: u64 = 706;

/// Largest weight of a standard transaction.
pub const MAX_STANDARD: Weight = Weight::from_wu(400_000);
/// Largest weight of a transaction of version 3 (BIP 431): 10,000 vB.
pub const MAX_TRUC: Weight = Weight::from_wu(10_000 * WU_PER_BYTE);
/// Largest weight of one that spends an unconfirmed one: 1,000 vB.
pub const MAX_TRUC_CHILD: Weight = Weight::from_wu(1_000 * WU_PER_BYTE);
/// Largest weight of a transaction and its unconfirmed parents together: what Bitcoin Core takes as a package, and as a
/// cluster, 101,000 vB.
pub const MAX_PACKAGE: Weight = Weight::from_wu(101_000 * WU_PER_BYTE);
/// Smallest dust limit that a party may set (BOLT 2): that of an unknown segwit version.
pub const MIN_DUST_LIMIT: Amount = Amount::from_sat(354);

/// Length of a DER signature with low S, at most: both numbers, of 33 and 32 bytes, with their
/// tags and lengths.
const DER_SIGNATURE: u64 = 71;
/// Length of a signature element: the DER signature and its sighash byte.
pub const SIGNATURE: u64 = DER_SIGNATURE + 1;
/// Length of a compressed public key.
pub const PUBLIC_KEY: u64 = 33;
/// Length of a payment preimage.
pub const PREIMAGE: u64 = 32;
/// Length of the script `2 <key> <key> 2 OP_CHECKMULTISIG`.
pub const FUNDING_SCRIPT: u64 = 71;

/// Segwit marker and flag of a transaction.
pub const SEGWIT_HEADER: Weight = Weight::from_wu(2);
/// Version, lock time and one-byte counts of inputs and outputs.
pub const TRANSACTION_BASE: Weight = Weight::from_wu(10 * WU_PER_BYTE);
/// An input without witness: outpoint, empty script, sequence.
pub const INPUT_BASE: Weight = Weight::from_wu(41 * WU_PER_BYTE);
/// A P2WSH or P2TR output.
pub const P2WSH_OUTPUT: Weight = Weight::from_wu(43 * WU_PER_BYTE);
/// A P2WPKH output.
pub const P2WPKH_OUTPUT: Weight = Weight::from_wu(31 * WU_PER_BYTE);

/// A transaction with a single output, P2WPKH, and no inputs yet.
pub const WITH_ONE_OUTPUT: Weight =
    Weight::from_wu(TRANSACTION_BASE.to_wu() + SEGWIT_HEADER.to_wu() + P2WPKH_OUTPUT.to_wu());

/// Expected weight of a commitment transaction with this many HTLC outputs (BOLT 3 Appendix A).
#[must_use]
pub fn expected_commitment(format: CommitmentFormat, htlc_outputs: usize) -> Weight {
    let base = match format {
        CommitmentFormat::StaticRemotekey => COMMITMENT_BASE,
        CommitmentFormat::Anchors => COMMITMENT_BASE_ANCHORS,
        CommitmentFormat::ZeroFee => COMMITMENT_BASE_ZERO_FEE,
    };
    let count = u64::try_from(htlc_outputs).unwrap_or(u64::MAX);
    Weight::from_wu(HTLC_OUTPUT.to_wu().saturating_mul(count).saturating_add(base))
}

/// Expected weight of an HTLC transaction (BOLT 3 Appendix A).
#[must_use]
pub const fn expected_htlc(format: CommitmentFormat, direction: HtlcDirection) -> Weight {
    Weight::from_wu(match (format, direction) {
        (CommitmentFormat::Anchors, HtlcDirection::Offered) => HTLC_TIMEOUT_ANCHORS,
        (CommitmentFormat::Anchors, HtlcDirection::Received) => HTLC_SUCCESS_ANCHORS,
        (_, HtlcDirection::Offered) => HTLC_TIMEOUT,
        (_, HtlcDirection::Received) => HTLC_SUCCESS,
    })
}

/// Weight of a witness whose elements have these lengths.
#[must_use]
pub fn witness(elements: &[u64]) -> Weight {
    let count = u64::try_from(elements.len()).unwrap_or(u64::MAX);
    let bytes = elements
        .iter()
        .map(|length| compact_size(*length).saturating_add(*length))
        .fold(compact_size(count), u64::saturating_add);
    Weight::from_wu(bytes)
}

/// Length of a number in Bitcoin's variable-length form.
const fn compact_size(number: u64) -> u64 {
    match number {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Witness of a spend of the funding output.
#[must_use]
pub fn funding_witness() -> Weight {
    witness(&[0, SIGNATURE, SIGNATURE, FUNDING_SCRIPT])
}

fn length(script: &ScriptBuf) -> u64 {
    u64::try_from(script.len()).unwrap_or(u64::MAX)
}

impl SpendPath {
    /// Weight of the witness of this spend, an upper bound: signatures have low S and any R.
    #[must_use]
    pub fn witness_weight(&self) -> Weight {
        match self {
            Self::LocalCommitment(_) => funding_witness(),
            Self::Anchor { lock: AnchorLock::Keyed { script, .. }, .. } => {
                witness(&[SIGNATURE, length(script)])
            }
            Self::Anchor { lock: AnchorLock::Shared, .. } => witness(&[]),
            Self::SecondStage(stage) => {
                let preimage = if stage.preimage.is_some() { PREIMAGE } else { 0 };
                witness(&[0, SIGNATURE, SIGNATURE, preimage, length(&stage.script)])
            }
            Self::Single(single) => single.witness_weight(),
        }
    }
}

impl SingleSpend {
    /// Weight of the witness of this spend, an upper bound: signatures have low S and any R.
    #[must_use]
    pub fn witness_weight(&self) -> Weight {
        let unlock = match &self.unlock {
            Unlock::Nothing => None,
            Unlock::Empty => Some(0),
            Unlock::One => Some(1),
            Unlock::RevocationKey(_) | Unlock::PublicKey(_) => Some(PUBLIC_KEY),
            Unlock::Preimage(_) => Some(PREIMAGE),
        };
        let script = self.script.as_ref().map(length);
        match (unlock, script) {
            (None, None) => witness(&[SIGNATURE]),
            (Some(element), None) | (None, Some(element)) => witness(&[SIGNATURE, element]),
            (Some(unlock), Some(script)) => witness(&[SIGNATURE, unlock, script]),
        }
    }
}

#[cfg(test)]
mod tests;
