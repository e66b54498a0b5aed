//! Integration tests of the workspace.
mod bitcoind;
mod laws;
mod scenarios;
