//! Tests of the driver, with ports that do as they are told.
mod chain;
mod claims;
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
