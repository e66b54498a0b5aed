//! Integration tests of the workspace.
mod adapter;
mod bitcoind;
