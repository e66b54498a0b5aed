//! Integration tests of the workspace.
mod adapter;
mod bitcoind;
mod laws;
mod scenarios;
