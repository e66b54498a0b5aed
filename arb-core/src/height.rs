//! The one place where relative locks, expiries and depths become heights.
//!
//! Two heights belong to a lock: the tip from which a spend is accepted into the *next* block,
//! and the height at which the lock is said to be over.
use crate::units::{BlockDelta, BlockHeight, CltvExpiry};
use bitcoin::{Sequence, relative};

/// What a channel or an output waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// A relative lock: the height is that of the first block that may hold the spend.
    Csv,
    /// An HTLC's expiry: the height is the expiry.
    Cltv,
    /// A depth: the height is the tip at which it is reached.
    Depth,
    /// A deadline of BOLT 2: the height is the tip at which it is past.
    Deadline,
    /// Our transaction is in nobody's block yet. No height.
    Confirmation,
    /// A preimage, or the peer. No height.
    Preimage,
    /// The output costs more than it brings at the least feerate that the network relays.
    Uneconomic,
}

/// A height with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Tip at which there is something to do.
    pub tip: BlockHeight,
    /// Height to name to people.
    pub until: BlockHeight,
    /// Why.
    pub reason: Reason,
}

/// `delay` blocks after the block at `confirmed` (BIP 68): the spend may be in block
/// `confirmed + delay`, so it is accepted one block before.
#[must_use]
pub const fn csv(confirmed: BlockHeight, delay: BlockDelta) -> Due {
    let until = confirmed.plus(delay);
    Due { tip: until.minus(BlockDelta(1)), until, reason: Reason::Csv }
}

/// What an input with this `nSequence` waits for, once the block at `confirmed` holds the output.
#[must_use]
pub fn sequence(confirmed: BlockHeight, sequence: Sequence) -> Due {
    match sequence.to_relative_lock_time() {
        Some(relative::LockTime::Blocks(blocks)) if blocks.value() > 0 => {
            csv(confirmed, BlockDelta(u32::from(blocks.value())))
        }
        Some(_) | None => Due { tip: confirmed, until: confirmed, reason: Reason::Confirmation },
    }
}

/// `nLockTime` of an expiry: final in the block after it, so accepted at the tip of that height
/// (BOLT 5: timed out once the latest block's height reaches `cltv_expiry`).
#[must_use]
pub const fn cltv(expiry: CltvExpiry) -> Due {
    Due { tip: expiry.0, until: expiry.0, reason: Reason::Cltv }
}

/// The tip at which the block at `confirmed` is `depth` deep.
#[must_use]
pub const fn depth(confirmed: BlockHeight, depth: BlockDelta) -> Due {
    let tip = confirmed.plus(depth).minus(BlockDelta(1));
    Due { tip, until: tip, reason: Reason::Depth }
}

/// The tip at which a deadline is past.
#[must_use]
pub const fn deadline(tip: BlockHeight) -> Due {
    Due { tip, until: tip, reason: Reason::Deadline }
}

impl Due {
    /// Whether it has come.
    #[must_use]
    pub fn is_open(&self, tip: BlockHeight) -> bool {
        tip >= self.tip
    }

    /// The later of two that must both have come.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if other.tip > self.tip { other } else { self }
    }
}

#[cfg(test)]
mod tests;
