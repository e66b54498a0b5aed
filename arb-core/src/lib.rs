//! On-chain arbitration of Lightning channels, without I/O.
#![no_std]
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
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arbitrator;
pub mod claim;
pub mod classify;
pub mod codec;
pub mod engine;
pub mod facts;
pub mod format;
pub mod height;
pub mod ids;
pub mod log;
pub mod memory;
pub mod picture;
pub mod policy;
pub mod ports;
pub mod report;
pub mod units;
