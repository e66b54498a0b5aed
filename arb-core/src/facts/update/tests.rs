//! Every rule of updates and of registration, accepted and refused.
mod htlcs;
mod local;
mod registration;
mod remote;
mod revocation;
mod world;
