//! The other side of a channel: its off-chain history, its transactions and its claims.
//!
//! Everything here is built with `lightning`'s `chan_utils` and `secp256k1`, never with the
//! arbiter's own crates: it is the independent witness that the arbiter is judged by. One
//! [`Channel`] knows the secrets of both parties, so that it can hand over whatever the node
//! would have been told ([`FactStep`]) and publish whatever the peer could publish.
//!
//! "Local" is always our node and "remote" the peer, except in `to_local` and `to_remote`, which
//! are BOLT 3's names and are seen from the owner of the commitment.

mod channel;
mod claims;
mod closing;
mod commitment;
mod error;
mod facts;
mod history;
mod keys;
mod sign;
mod splice;
mod sweeps;
#[cfg(test)]
mod tests;

pub use channel::{Channel, ChannelParams, Format};
pub use claims::{Bundle, Claim, ClaimFee, PeerCoin, SecondLevel};
pub use closing::ClosingStyle;
pub use commitment::{Commitment, OutputRole};
pub use error::PeerError;
pub use facts::{
    Balances, FactStep, HtlcFacts, HtlcRef, Keep, LocalCommitmentFacts, RemoteCommitmentFacts,
    Removal, Staging,
};
pub use history::{Htlc, NewHtlc, Staged};
pub use keys::{PartyKeys, PartySecrets, Side, payment_hash, preimage_named};
