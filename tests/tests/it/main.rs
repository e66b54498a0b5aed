//! Integration tests of the workspace.
mod adapter;
mod bitcoind;
mod isolation;
mod laws;
mod scenarios;
