//! Every rule of updates and of registration, accepted and refused.
mod candidates;
mod htlcs;
mod local;
mod registration;
mod remote;
mod revocation;
mod withdrawn;
pub(crate) mod world;
