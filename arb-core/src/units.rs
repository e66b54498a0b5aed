//! Units: heights, block counts, milli-satoshis, commitment numbers. Every quantity has its type. And a
//! transaction with its id, and what a block says.
use bitcoin::{Amount, BlockHash, Transaction, Txid};
use core::ops::Deref;

/// A height of the most-work chain, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHeight(pub u32);

/// A number of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockDelta(pub u32);

impl BlockHeight {
    /// The height `delta` blocks above, capped at the largest height: a deadline out of reach
    /// stays out of reach.
    #[must_use]
    pub const fn plus(self, delta: BlockDelta) -> Self {
        Self(self.0.saturating_add(delta.0))
    }

    /// The height `delta` blocks below, not below the genesis block.
    #[must_use]
    pub const fn minus(self, delta: BlockDelta) -> Self {
        Self(self.0.saturating_sub(delta.0))
    }

    /// Blocks from here up to `later`; zero if `later` is not later.
    #[must_use]
    pub const fn until(self, later: Self) -> BlockDelta {
        BlockDelta(later.0.saturating_sub(self.0))
    }
}

/// `a` and `b` together, capped at all the bitcoin that there can be.
#[must_use]
pub fn plus(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).unwrap_or(Amount::MAX_MONEY)
}

/// All of these amounts together, capped in the same way.
#[must_use]
pub fn total(amounts: impl IntoIterator<Item = Amount>) -> Amount {
    amounts.into_iter().fold(Amount::ZERO, plus)
}

/// `cltv_expiry` of an HTLC (BOLT 2), a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CltvExpiry(pub BlockHeight);

/// A block of the chain by height and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Height of the block.
    pub height: BlockHeight,
    /// Hash of the block.
    pub hash: BlockHash,
}

/// A transaction and its id. The id is asked for wherever a transaction is looked for, and computed once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tx {
    transaction: Transaction,
    txid: Txid,
}

impl Tx {
    /// The transaction's id.
    #[must_use]
    pub const fn txid(&self) -> Txid {
        self.txid
    }

    /// The transaction.
    #[must_use]
    pub const fn transaction(&self) -> &Transaction {
        &self.transaction
    }
}

impl From<Transaction> for Tx {
    fn from(transaction: Transaction) -> Self {
        let txid = transaction.compute_txid();
        Self { transaction, txid }
    }
}

impl Deref for Tx {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

/// Something that the chain says, and the block that makes it true: the only way in which
/// knowledge of the chain is held, because a reorganisation may take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed<T> {
    /// The block that says so.
    pub at: BlockRef,
    /// What it says.
    pub value: T,
}

impl<T> Confirmed<T> {
    /// Confirmations at `tip`, counting the containing block (BOLT 5 "depth"); zero if the block
    /// lies above the tip.
    pub const fn depth(&self, tip: BlockHeight) -> BlockDelta {
        BlockDelta(tip.0.saturating_add(1).saturating_sub(self.at.height.0))
    }
}

/// An amount in milli-satoshis, as off-chain balances and HTLCs are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliSat(pub u64);

impl MilliSat {
    /// A whole number of satoshis.
    #[must_use]
    pub fn from_amount(amount: Amount) -> Self {
        Self(amount.to_sat().saturating_mul(1000))
    }

    /// Whole satoshis, rounded down: every output of a commitment transaction is (BOLT 3).
    #[must_use]
    #[allow(clippy::arithmetic_side_effects, reason = "division by a constant")]
    pub const fn floor(self) -> Amount {
        Amount::from_sat(self.0 / 1000)
    }

    /// The sum, capped.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; `None` if it would be negative.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(rest) => Some(Self(rest)),
            None => None,
        }
    }
}

/// A commitment feerate in satoshis per 1000 weight units (BOLT 2 `feerate_per_kw`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeeratePerKw(pub u32);

/// Number of a commitment transaction, counting up from 0 (BOLT 3); at most 2^48 - 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitmentNumber(pub u64);

impl CommitmentNumber {
    /// The largest number that fits into the obscured 48 bits.
    pub const MAX: Self = Self((1 << 48) - 1);

    /// The number after this one; `None` past [`Self::MAX`].
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        if self.0 < Self::MAX.0 { Some(Self(self.0.saturating_add(1))) } else { None }
    }

    /// The number before this one; `None` below 0.
    #[must_use]
    pub const fn previous(self) -> Option<Self> {
        match self.0.checked_sub(1) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }
}
