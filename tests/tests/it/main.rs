//! Integration tests of the workspace.
mod bitcoind;
mod scenarios;
