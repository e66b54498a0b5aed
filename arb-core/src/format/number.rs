//! The obscured commitment number in `nLockTime` and `nSequence` (BOLT 3 "Commitment
//! Transaction").
use crate::facts::ChannelFacts;
use crate::units::CommitmentNumber;
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Sequence, Transaction, absolute::LockTime};

/// Upper 8 bits of `nLockTime`.
const LOCK_TIME_MARK: u32 = 0x2000_0000;
/// Upper 8 bits of `nSequence`.
const SEQUENCE_MARK: u32 = 0x8000_0000;
/// The 8 bits that hold a mark.
const MARK_MASK: u32 = 0xff00_0000;
/// The 24 bits that hold half of the number.
const HALF_MASK: u64 = 0x00ff_ffff;
/// Bits in half of the number.
const HALF_BITS: u32 = 24;

/// What commitment numbers are XORed with: 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObscuringFactor(u64);

impl ObscuringFactor {
    /// Lower 48 bits of `SHA256(opener's payment_basepoint || other's payment_basepoint)`.
    #[must_use]
    pub fn new(opener_payment: &PublicKey, other_payment: &PublicKey) -> Self {
        let mut engine = sha256::Hash::engine();
        engine.input(&opener_payment.serialize());
        engine.input(&other_payment.serialize());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let lower = hash.iter().skip(26).fold(0u64, |acc, byte| (acc << 8) | u64::from(*byte));
        Self(lower)
    }

    /// The factor of a channel: the same for all its commitments.
    #[must_use]
    pub fn of(facts: &ChannelFacts) -> Self {
        let opener = facts.party(facts.opener);
        let other = facts.party(facts.opener.other());
        Self::new(&opener.keys.payment, &other.keys.payment)
    }

    /// The factor as a number below 2^48.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// `nLockTime` and `nSequence` of commitment `number`; its lower 48 bits count.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub fn obscure(self, number: CommitmentNumber) -> (LockTime, Sequence) {
        let obscured = self.0 ^ number.0;
        let lower = (obscured & HALF_MASK) as u32;
        let upper = ((obscured >> HALF_BITS) & HALF_MASK) as u32;
        let lock_time = LockTime::from_consensus(LOCK_TIME_MARK | lower);
        (lock_time, Sequence::from_consensus(SEQUENCE_MARK | upper))
    }
}

/// The number of a commitment-shaped transaction: exactly one input, `nSequence` 0x80…,
/// `nLockTime` 0x20…. `None` for any other shape. A shape proves nothing: anybody who knows the
/// factor can make one, so the scripts decide whose it is.
#[must_use]
pub fn commitment_number_of(
    transaction: &Transaction,
    factor: ObscuringFactor,
) -> Option<CommitmentNumber> {
    let (sequence, lock_time) = marked(transaction)?;
    let upper = u64::from(sequence) & HALF_MASK;
    let lower = u64::from(lock_time) & HALF_MASK;
    Some(CommitmentNumber(((upper << HALF_BITS) | lower) ^ factor.0))
}

/// Whether a transaction has the shape of a commitment, whatever its number.
#[must_use]
pub fn is_commitment_shaped(transaction: &Transaction) -> bool {
    marked(transaction).is_some()
}

/// `nSequence` of the only input and `nLockTime`, if both have a commitment's mark.
fn marked(transaction: &Transaction) -> Option<(u32, u32)> {
    let [input] = transaction.input.as_slice() else { return None };
    let sequence = input.sequence.to_consensus_u32();
    let lock_time = transaction.lock_time.to_consensus_u32();
    let marked = sequence & MARK_MASK == SEQUENCE_MARK && lock_time & MARK_MASK == LOCK_TIME_MARK;
    marked.then_some((sequence, lock_time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::transaction::Version;
    use bitcoin::{OutPoint, ScriptBuf, TxIn, Witness};
    use std::vec;

    const FACTOR: ObscuringFactor = ObscuringFactor(0x2bb0_3852_1914);

    fn transaction(number: CommitmentNumber) -> Transaction {
        let (lock_time, sequence) = FACTOR.obscure(number);
        let input = TxIn {
            previous_output: OutPoint::null(),
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        };
        Transaction { version: Version::TWO, lock_time, input: vec![input], output: vec![] }
    }

    #[test]
    fn obscured_numbers_are_read_back() {
        for number in [0, 1, 42, 0xff_ffff, 0x100_0000, CommitmentNumber::MAX.0] {
            let number = CommitmentNumber(number);
            assert_eq!(commitment_number_of(&transaction(number), FACTOR), Some(number));
        }
    }

    #[test]
    fn other_shapes_have_no_number() {
        let good = transaction(CommitmentNumber(42));
        let mut two_inputs = good.clone();
        two_inputs.input.push(good.input[0].clone());
        let mut no_inputs = good.clone();
        no_inputs.input.clear();
        let mut final_sequence = good.clone();
        final_sequence.input[0].sequence = Sequence::MAX;
        let mut no_lock_time = good.clone();
        no_lock_time.lock_time = LockTime::ZERO;
        for bad in [two_inputs, no_inputs, final_sequence, no_lock_time] {
            assert_eq!(commitment_number_of(&bad, FACTOR), None, "{bad:?}");
        }
    }
}
