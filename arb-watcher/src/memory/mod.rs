//! Ports that live in memory: a signer with channel secrets, a wallet of P2WPKH coins, a chain, a
//! network and feerates. For tests, simulators and small nodes; clones of a port share its state.
mod chain;
mod coins;
mod signer;
#[cfg(test)]
mod tests;

pub use chain::{MemoryChain, MemoryFees, MemoryNetwork};
pub use coins::{CoinError, MemoryCoins};
pub use signer::{MemorySigner, SignError};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards stays consistent: no call of this module panics half way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
