//! LDK nodes in one process, on the embedded chain: real channel managers, monitors and signers,
//! with messages passed by hand.
//!
//! Nothing happens by itself: messages move in [`Net::pump`], blocks in [`Net::mine`].

mod beside;
mod hands;
mod late;
mod lines;
mod net;
mod node;
mod restart;
mod route;
mod sink;
mod splice;
mod store;
mod style;
mod wallet;

pub use beside::{Beside, Failed, Past, Records, Sent, cut_off, started};
pub use hands::Hands;
pub use late::{LateKeys, LateSigner};
pub use lines::{Lines, Removed};
pub use net::{Link, Net, OnBlock, OnQuiet, Opening, Payment};
pub use node::{
    ChannelKeys, Kept, Kind, Manager, Monitors, Node, Outbox, Pieces, Quiet, Signers, Stored,
    StoredMonitors,
};
pub use restart::Restart;
pub use route::NoRoutes;
pub use sink::{Nobody, ToArbiter};
pub use store::MemoryKv;
pub use style::Delivery;
pub use wallet::Wallet;

/// Why the nodes did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LdkError {
    /// LDK refused a call.
    #[error("LDK refused: {0}")]
    Refused(String),
    /// The embedded chain was misused.
    #[error(transparent)]
    Chain(#[from] crate::chain::ChainError),
    /// Messages did not lead where they should.
    #[error("{0} did not happen")]
    Missing(&'static str),
}

impl LdkError {
    fn refused(error: impl std::fmt::Debug) -> Self {
        Self::Refused(format!("{error:?}"))
    }
}
