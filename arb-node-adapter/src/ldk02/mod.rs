//! LDK 0.2.
//!
//! Three ways in for chain data. [`ListenSource`] makes whole blocks a block source for the driver,
//! [`ConfirmSource`] the transactions and tips of a client that filters. [`LdkFeed`] takes every style of delivery, filtered blocks and single transactions too, and
//! moves a [`arb_core::engine::ChainArbitrator`] by them.
//!
//! Who publishes is one value, [`Mode`].
//!
//! Facts come from three decorators and a [`Recorder`]: see [`facts`].
mod block;
mod broadcast;
mod confirm;
mod egress;
mod error;
mod events;
pub mod facts;
mod feed;
mod fees;
mod fence;
mod filter;
mod follow;
mod kv;
mod mempool;
mod news;
mod policy;
mod settle;
mod source;
mod wallet;
mod watch;
mod witness;

pub use broadcast::{BroadcastQueue, FromLdkBroadcaster};
pub use confirm::{ConfirmSource, Headers, RELEVANT_DEPTH, RoundError};
pub use egress::{
    ArbiterCoins, ArbiterEgress, Egress, EgressError, GRACE, GUARD_BEFORE, Mode, MonitorEgress,
    SILENCE,
};
pub use error::{FeedError, NotConnected};
pub use events::{Claims, Handled, Kept, KeptError, Known, LdkEvents, SPENDABLE};
pub use facts::{
    Adoption, FactSink, GatedPersist, Held, HeldFor, LdkSigner, LeftFor, Recorder, Refusal,
    SignError, SpendsOwn, TappedMessages, TappedSigner, TappedSigners, Taps, Unadopted,
    Untranslated, Waiting, bootstrap,
};
pub use feed::{LdkFeed, best_block};
pub use fees::{FromLdkFees, LdkFees, MAXIMUM_MARGIN, horizon};
pub use fence::{ForceClose, ManagerFence, NoFence, RecordedFence};
pub use filter::OutputFilter;
pub use kv::{KvWrite, LdkStore, OneByOne, WriteAll};
pub use mempool::{Mempool, NoMempool};
pub use policy::beside_ldk;
pub use settle::{Round, Settled};
pub use source::{KEPT_BODIES, ListenSource, SourceError};
pub use wallet::{FromLdkWallet, LDK_CLAIM_IDLE, LdkCoins, SyncWallet, WalletError};
pub use watch::register_outputs;
pub use witness::{
    BalanceKind, Closer, Difference, Standing, WITNESS_PATIENCE, Witness, differences,
    differences_after,
};

use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::Header;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A block and the one below it, both named by its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) at: BlockRef,
    /// `None` below the genesis block.
    pub(crate) parent: Option<BlockRef>,
}

impl Link {
    pub(crate) fn of(header: &Header, height: u32) -> Self {
        let below = height.checked_sub(1).map(BlockHeight);
        Self {
            at: BlockRef { height: BlockHeight(height), hash: header.block_hash() },
            parent: below.map(|height| BlockRef { height, hash: header.prev_blockhash }),
        }
    }
}

/// Nothing is left half-done under these locks, so that a panic elsewhere does not spoil them.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
