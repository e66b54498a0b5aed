//! Storage of revealed per-commitment secrets in 49 slots (BOLT 3 "Efficient Per-commitment Secret
//! Storage").
use crate::ids::PerCommitmentSecret;
use crate::units::CommitmentNumber;
use alloc::collections::BTreeMap;
use bitcoin::hashes::{Hash, sha256};
use core::fmt;

/// Bits of an index, and the bucket of index 0, the seed itself.
const INDEX_BITS: u32 = 48;

/// Index of a secret: 2^48 - 1 for commitment 0, counting down (BOLT 3 "Per-commitment Secret
/// Requirements").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretIndex(u64);

impl SecretIndex {
    /// The index from its number; `None` above 2^48 - 1.
    #[must_use]
    pub const fn new(index: u64) -> Option<Self> {
        if index <= CommitmentNumber::MAX.0 { Some(Self(index)) } else { None }
    }

    /// The index of commitment `number`; `None` past the last number.
    #[must_use]
    pub const fn of(number: CommitmentNumber) -> Option<Self> {
        match CommitmentNumber::MAX.0.checked_sub(number.0) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The commitment that the secret with this index belongs to.
    #[must_use]
    pub const fn number(self) -> CommitmentNumber {
        CommitmentNumber(CommitmentNumber::MAX.0.saturating_sub(self.0))
    }

    /// The index as a number.
    #[must_use]
    pub const fn to_u64(self) -> u64 {
        self.0
    }

    /// The bucket that holds the secret: the index's trailing zeros.
    fn bucket(self) -> u32 {
        self.0.trailing_zeros().min(INDEX_BITS)
    }

    /// Whether the secret with this index gives the one with index `other`: `other` has the same
    /// bits above this index's trailing zeros.
    fn covers(self, other: Self) -> bool {
        (other.0 ^ self.0) >> self.bucket() == 0
    }
}

/// The secret at `index`, from one whose index agrees with it in all bits from `bits` up: flips
/// and hashes for every lower bit that is set. A seed gives every secret, with `bits` 48.
fn derive(base: PerCommitmentSecret, bits: u32, index: SecretIndex) -> PerCommitmentSecret {
    (0..bits.min(INDEX_BITS)).rev().fold(base, |secret, bit| {
        if (index.0 >> bit) & 1 == 1 { hash_flipped(secret, bit) } else { secret }
    })
}

fn hash_flipped(secret: PerCommitmentSecret, bit: u32) -> PerCommitmentSecret {
    let mut bytes = secret.0;
    let position = usize::try_from(bit >> 3).unwrap_or(usize::MAX);
    if let Some(byte) = bytes.get_mut(position) {
        *byte ^= 1 << (bit & 7);
    }
    PerCommitmentSecret(sha256::Hash::hash(&bytes).to_byte_array())
}

/// The secret of commitment `number` of the party that holds this seed (BOLT 3
/// `generate_from_seed`); `None` past the last number.
#[must_use]
pub fn generate_from_seed(
    seed: &[u8; 32],
    number: CommitmentNumber,
) -> Option<PerCommitmentSecret> {
    Some(derive(PerCommitmentSecret(*seed), INDEX_BITS, SecretIndex::of(number)?))
}

/// The secrets that the peer revealed. Holds at most 49 of them and derives the others. The first
/// one may belong to any commitment (the channel was registered late); from then on none is left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretStore {
    /// The newest secret of each bucket.
    buckets: BTreeMap<u32, (SecretIndex, PerCommitmentSecret)>,
}

/// Why a secret is refused. The store stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SecretError {
    /// The number does not fit into 48 bits: the statement is wrong.
    NumberOutOfRange,
    /// Secrets come one after the other: state the missing ones first.
    OutOfOrder {
        /// The commitment whose secret is next.
        expected: CommitmentNumber,
    },
    /// It does not come from the same seed as the others: the peer cheats or the statement is
    /// wrong. Fail the channel.
    Inconsistent,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NumberOutOfRange => f.write_str("no commitment has this number"),
            Self::OutOfOrder { expected } => {
                write!(f, "the secret of commitment {} is next", expected.0)
            }
            Self::Inconsistent => f.write_str("the secret does not fit those before it"),
        }
    }
}

impl core::error::Error for SecretError {}

impl SecretStore {
    /// Adds the secret of commitment `number` (BOLT 3 `insert_secret`). The same secret again
    /// changes nothing.
    ///
    /// # Errors
    /// The secret does not fit those before it, or others are missing between.
    pub fn insert(
        &mut self,
        number: CommitmentNumber,
        secret: PerCommitmentSecret,
    ) -> Result<(), SecretError> {
        let index = SecretIndex::of(number).ok_or(SecretError::NumberOutOfRange)?;
        if let Some(known) = self.get(number) {
            return if known == secret { Ok(()) } else { Err(SecretError::Inconsistent) };
        }
        if let Some(last) = self.last() {
            let expected = last.next().ok_or(SecretError::NumberOutOfRange)?;
            if number != expected {
                return Err(SecretError::OutOfOrder { expected });
            }
        }
        let bucket = index.bucket();
        let fits = |(known, value): &(SecretIndex, PerCommitmentSecret)| {
            derive(secret, bucket, *known) == *value
        };
        if !self.buckets.range(..bucket).all(|(_, slot)| fits(slot)) {
            return Err(SecretError::Inconsistent);
        }
        self.buckets.insert(bucket, (index, secret));
        Ok(())
    }

    /// The secret of commitment `number`, if it was revealed.
    #[must_use]
    pub fn get(&self, number: CommitmentNumber) -> Option<PerCommitmentSecret> {
        let index = SecretIndex::of(number)?;
        let (base, secret) = self.buckets.values().find(|(base, _)| base.covers(index))?;
        Some(derive(*secret, base.bucket(), index))
    }

    /// The newest revoked commitment; `None` if no secret was revealed.
    #[must_use]
    pub fn last(&self) -> Option<CommitmentNumber> {
        self.buckets.values().map(|(index, _)| *index).min().map(SecretIndex::number)
    }

    /// What is stored: (index, secret), by bucket. For [`Self::from_slots`].
    pub fn slots(&self) -> impl Iterator<Item = (SecretIndex, PerCommitmentSecret)> {
        self.buckets.values().copied()
    }

    /// A store from what [`Self::slots`] gave.
    ///
    /// # Errors
    /// The slots are not those of one store: [`SecretError::Inconsistent`].
    pub fn from_slots(
        slots: impl IntoIterator<Item = (SecretIndex, PerCommitmentSecret)>,
    ) -> Result<Self, SecretError> {
        let mut buckets = BTreeMap::new();
        for (index, secret) in slots {
            if buckets.insert(index.bucket(), (index, secret)).is_some() {
                return Err(SecretError::Inconsistent);
            }
        }
        let store = Self { buckets };
        let consistent = store.slots().all(|slot| store.agrees_with(slot));
        if consistent { Ok(store) } else { Err(SecretError::Inconsistent) }
    }

    /// Whether every slot that `base` covers derives from it, and none lies where `base` would
    /// already have been replaced.
    fn agrees_with(&self, (base, secret): (SecretIndex, PerCommitmentSecret)) -> bool {
        let bucket = base.bucket();
        // Two steps of this bucket down stands its next secret.
        let next =
            1u64.checked_shl(bucket.saturating_add(1)).and_then(|step| base.0.checked_sub(step));
        self.slots().all(|(index, value)| {
            let in_time = next.is_none_or(|next| index.0 > next);
            in_time && (!base.covers(index) || derive(secret, bucket, index) == value)
        })
    }
}

#[cfg(test)]
mod tests;
