//! Integration tests of the store.
mod bytes;
mod crash;
mod damage;
mod format;
mod model;
mod penalty;
mod samples;
mod space;
mod store;
mod support;
