//! Tests of the driver, with ports that do as they are told.
mod all_channels;
mod chain;
mod claims;
mod epochs;
mod facts;
mod life;
mod mocks;
mod notices;
mod quarantine;
mod service;
mod start;
mod store;
mod subscribers;
mod support;
mod trouble;
mod watching;
