//! Facts: what LDK knows of a channel, told to the arbiter before LDK goes on.
//!
//! LDK states commitments without HTLC ids, and its updates are private to it. Three decorators
//! see what is needed ([`TappedSigners`], [`TappedMessages`], [`GatedPersist`]); the [`Recorder`]
//! translates it, and gives the arbiter a signer ([`LdkSigner`]). How HTLCs get their identity is told in `docs/adr/0005-ldk-htlc-identity.md`.
mod book;
mod bootstrap;
mod bytes;
mod held;
mod messages;
mod monitor;
mod opening;
mod persist;
mod record;
mod recorder;
mod shelf;
mod sign;
mod signers;
mod sink;
mod taps;
mod translate;
mod update;

pub use bootstrap::{Adoption, Unadopted, bootstrap};
pub use held::{Held, HeldFor, LeftFor};
pub use messages::TappedMessages;
pub use persist::GatedPersist;
pub use recorder::{Recorder, Waiting};
pub(in crate::ldk02) use shelf::Shelf;
pub use shelf::{CHANNELS, HANDED_BACK, HANDED_OVER, NAMESPACE, TOLD};
pub use sign::{LdkSigner, SignError, SpendsOwn};
pub use signers::{TappedSigner, TappedSigners};
pub use sink::{FactSink, Refusal};
pub use taps::Taps;
pub use translate::Untranslated;
