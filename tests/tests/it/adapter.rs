//! The LDK adapter: every way in which LDK delivers chain data leads to the same engine; a late
//! transaction; feerates and broadcasts both ways; whole blocks as the driver's source; LDK nodes,
//! their facts and signatures, and who publishes.
mod back;
mod delivery;
mod driver;
mod events;
mod facts;
mod filter;
mod fixtures;
mod guard;
mod held;
mod kv;
mod locks;
mod modes;
mod nodes;
mod observing;
mod page;
mod ports;
mod refused;
mod signing;
mod source;
mod splices;
mod styles;
mod unfunded;
mod unwatched;
mod wallet;
mod witness;
mod world;

/// Anything that goes wrong in a test.
pub(super) type Failed = Box<dyn std::error::Error>;
