//! Absolute and relative locks: when a transaction may be in the next block.

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Sequence, Transaction};

use super::ledger::Ledger;

/// BIP68's flag bits and the granularity of its time locks, 512 seconds.
const DISABLE_FLAG: u32 = 1 << 31;
const TYPE_FLAG: u32 = 1 << 22;
const VALUE_MASK: u32 = 0xffff;
const GRANULARITY: u32 = 9;

/// True if the absolute lock allows the block after the tip (BIP113).
pub(super) fn is_final(ledger: &Ledger, tx: &Transaction) -> bool {
    let open = match tx.lock_time {
        LockTime::Blocks(height) => height.to_consensus_u32() <= ledger.height(),
        LockTime::Seconds(time) => {
            time.to_consensus_u32() < ledger.median_time_past(ledger.height())
        }
    };
    open || tx.input.iter().all(|input| input.sequence == Sequence::MAX)
}

/// True if every relative lock allows the block after the tip (BIP68); `heights` are those of
/// the outputs spent, tip + 1 for unconfirmed ones.
pub(super) fn sequence_locks_open(ledger: &Ledger, tx: &Transaction, heights: &[u32]) -> bool {
    // Core compares the version as an unsigned number.
    if (tx.version.0 as u32) < Version::TWO.0 as u32 {
        return true;
    }
    tx.input
        .iter()
        .zip(heights)
        .all(|(input, height)| input_lock_open(ledger, input.sequence.to_consensus_u32(), *height))
}

fn input_lock_open(ledger: &Ledger, sequence: u32, height: u32) -> bool {
    if sequence & DISABLE_FLAG != 0 {
        return true;
    }
    let value = sequence & VALUE_MASK;
    if sequence & TYPE_FLAG == 0 {
        return height.saturating_add(value) <= ledger.height().saturating_add(1);
    }
    let from = u64::from(ledger.median_time_past(height.saturating_sub(1)));
    let until = from + (u64::from(value) << GRANULARITY);
    until <= u64::from(ledger.median_time_past(ledger.height()))
}
