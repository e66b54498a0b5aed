//! Why chain data cannot be followed.
use arb_core::log::Damaged;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::BlockHash;
use core::fmt;

/// What was delivered does not connect to what is known. The delivery is left out; nothing is
/// decided by height until the chain client delivers from a block that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotConnected {
    /// A whole block neither extends the tip nor a remembered block: blocks between are missing.
    Gap {
        /// The tip that is known.
        tip: BlockRef,
        /// The block that was delivered.
        found: BlockRef,
    },
    /// Blocks were disconnected down to a block that is not in the chain that was followed.
    UnknownFork {
        /// The tip that is known.
        tip: BlockRef,
        /// Height of the fork point.
        height: BlockHeight,
        /// Its hash.
        hash: BlockHash,
    },
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { tip, found } => write!(
                f,
                "block {} at height {} does not connect to {} at height {}",
                found.hash, found.height.0, tip.hash, tip.height.0
            ),
            Self::UnknownFork { tip, height, hash } => write!(
                f,
                "fork point {hash} at height {} is not below {} at height {}",
                height.0, tip.hash, tip.height.0
            ),
        }
    }
}

impl core::error::Error for NotConnected {}

/// Why a round was not settled to its end. What was not applied is kept; call again.
#[derive(Debug)]
#[non_exhaustive]
pub enum FeedError<E> {
    /// Chain data does not connect: start the chain client again at
    /// [`best_block`](super::best_block).
    NotConnected(NotConnected),
    /// The change log failed: nothing was lost, the delivery is applied by the next call.
    Log(E),
    /// The change log answered with another batch's receipt.
    WrongReceipt,
}

impl<E: fmt::Display> fmt::Display for FeedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(why) => why.fmt(f),
            Self::Log(error) => write!(f, "change log: {error}"),
            Self::WrongReceipt => write!(f, "the change log answered with another batch's receipt"),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for FeedError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::NotConnected(why) => Some(why),
            Self::Log(error) => Some(error),
            Self::WrongReceipt => None,
        }
    }
}

/// Facts that should be there and are not.
pub(crate) fn missing_facts() -> Damaged {
    Damaged { what: "no facts are stored".to_owned() }
}
