//! Faults of the ports, and what passed through the broadcaster.
use arb_core::claim::trough::Troughs;
use arb_core::ports::{FeeEstimates, Verdict};
use bitcoin::{FeeRate, Transaction, Txid};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the broadcaster saw of one of our transactions.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The transaction.
    pub transaction: Transaction,
    /// Whether the mempool or a block ever had it.
    pub was_in: bool,
    /// The last verdict.
    pub verdict: Verdict,
}

/// Switches for the ports, the estimator's answer, and the broadcaster's memory.
#[derive(Debug)]
pub struct Faults {
    broadcaster_off: AtomicBool,
    estimates: Mutex<FeeEstimates>,
    seen: Mutex<BTreeMap<Txid, Seen>>,
}

/// Every target gets the same answer; one entry serves them all.
fn flat(estimate: FeeRate, floor: FeeRate) -> FeeEstimates {
    FeeEstimates { targets: vec![(1, estimate)], floor, troughs: Troughs::default() }
}

impl Default for Faults {
    /// The estimator at 10 sat/vB, the floor at 1 sat/vB, everything works.
    fn default() -> Self {
        let [ten, one] = [10, 1].map(FeeRate::from_sat_per_vb_u32);
        Self {
            broadcaster_off: AtomicBool::new(false),
            estimates: Mutex::new(flat(ten, one)),
            seen: Mutex::default(),
        }
    }
}

impl Faults {
    /// The broadcaster answers with errors from now on, or works again.
    pub fn set_broadcaster(&self, works: bool) {
        self.broadcaster_off.store(!works, Ordering::SeqCst);
    }

    /// Whether the broadcaster works.
    pub fn broadcaster_works(&self) -> bool {
        !self.broadcaster_off.load(Ordering::SeqCst)
    }

    /// What the estimator says from now on.
    pub fn set_feerate(&self, estimate: FeeRate, floor: Option<FeeRate>) {
        let mut estimates = lock(&self.estimates);
        let floor = floor.unwrap_or(estimates.floor);
        *estimates = flat(estimate, floor);
    }

    /// What the estimator says.
    pub fn estimates(&self) -> FeeEstimates {
        lock(&self.estimates).clone()
    }

    /// Remembers what became of a transaction that the arbiter handed over.
    pub fn remember(&self, transaction: &Transaction, verdict: &Verdict) {
        let mut seen = lock(&self.seen);
        let entry = seen.entry(transaction.compute_txid()).or_insert_with(|| Seen {
            transaction: transaction.clone(),
            was_in: false,
            verdict: verdict.clone(),
        });
        entry.was_in |= verdict.is_in();
        entry.verdict = verdict.clone();
    }

    /// Forgets what the arbiter handed over.
    pub fn forget(&self) {
        lock(&self.seen).clear();
    }

    /// Whether the arbiter ever handed over this transaction.
    pub fn is_ours(&self, txid: &Txid) -> bool {
        lock(&self.seen).contains_key(txid)
    }

    /// Everything that the arbiter handed over.
    pub fn seen(&self) -> BTreeMap<Txid, Seen> {
        lock(&self.seen).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
