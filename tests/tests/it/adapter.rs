//! The LDK adapter: every way in which LDK delivers chain data leads to the same engine; a late
//! transaction; feerates and broadcasts both ways; whole blocks as the driver's source; LDK nodes and
//! their facts.
mod delivery;
mod driver;
mod facts;
mod nodes;
mod ports;
mod source;
mod styles;
mod world;

/// Anything that goes wrong in a test.
pub(super) type Failed = Box<dyn std::error::Error>;
