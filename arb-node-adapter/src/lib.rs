//! LDK interfaces for arb-core: chain data and facts in, signatures by LDK's signers, broadcasts and
//! feerates both ways.
//!
//! What depends on LDK's version has a folder of its own, and the newest one is re-exported here.
#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::wildcard_enum_match_arm
    )
)]

pub mod ldk02;

pub use ldk02::*;
