//! Embedded chain, hostile peer, scenario runner: what the workspace is tested with.
pub mod bench;
pub mod chain;
pub mod peer;
pub mod regtest;
pub mod scenario;
