//! Drives arb-core on tokio: block sources, publishing, subscriptions.
#![warn(missing_docs)]

pub mod core_rpc;
pub mod memory;
