//! Integration tests of the workspace.
mod adapter;
mod alarms;
mod bitcoind;
mod corpus;
mod isolation;
mod laws;
mod ldk_random;
mod ldk_stories;
mod reserve;
mod scenarios;
