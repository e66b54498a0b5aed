//! Embedded chain, hostile peer, scenario runner: what the workspace is tested with.
pub mod bench;
pub mod chain;
pub mod cli;
pub mod corpus;
pub mod ldk;
mod market;
pub mod peer;
pub mod regtest;
pub mod runner;
pub mod scenario;
pub mod soak;
pub mod world;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
