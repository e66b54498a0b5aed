//! LMDB change log and facts store for arb-core: one folder, one process, one writer thread.
//!
//! [`LmdbLog`] implements [`arb_core::log::ChangeLog`]. Batches that wait are committed together;
//! receipts are handed over after the commit has reached stable storage. The layout is described
//! in `docs/format.md`.
#![warn(missing_docs)]

mod apply;
mod backup;
mod bytes;
mod config;
mod error;
mod layout;
mod log;
mod open;
mod penalty;
mod read;
mod receipt;
mod reserve;
mod space;
mod store;
mod writer;

pub use arb_core::log::Health;
pub use bytes::{LONGEST_KEY, LmdbBytes, Written};
pub use config::StoreConfig;
pub use error::{LmdbFailure, StoreError};
pub use log::{LmdbLog, StoreControl};
pub use receipt::Append;
pub use space::Statistics;
