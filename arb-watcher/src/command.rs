//! Commands of the handle, and why they are refused.
use crate::notices::NoticeStream;
use crate::subscription::{ChainEventSubscription, Delivery};
use arb_core::arbitrator::NoticeKey;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, Update, UpdateError};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::report::ChannelReport;
use bitcoin::{FeeRate, OutPoint};
use tokio::sync::oneshot;

/// Where a command's answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The driver has ended: start it again.
    #[error("the arbiter has stopped")]
    Stopped,
    /// No such channel: it was never watched, or is forgotten.
    #[error("channel {0} is not watched")]
    UnknownChannel(ChannelId),
    /// The channel is watched with other facts: update it instead.
    #[error("channel {0} is watched already, with other facts")]
    AlreadyWatched(ChannelId),
    /// The facts do not hold together: nothing was stored.
    #[error("refused: {0}")]
    Facts(UpdateError),
    /// The facts are known to be outdated: publishing this commitment would lose the channel's
    /// funds to a penalty.
    #[error("the facts of channel {0} are outdated: its commitment must not be broadcast")]
    Outdated(ChannelId),
    /// The funding output is spent already.
    #[error("channel {0} is closed already")]
    Closed(ChannelId),
    /// The blocks since the channel's birth cannot be had: it is not watched.
    #[error("not scanned: {0}")]
    NotScanned(String),
    /// The store refused the write: nothing changed. Make room and try again.
    #[error("not stored: {0}")]
    NotStored(String),
}

#[derive(Debug)]
pub(crate) enum Command {
    Watch {
        facts: Box<ChannelFacts>,
        reply: Reply<()>,
    },
    Update {
        id: ChannelId,
        updates: Vec<Update>,
        reply: Reply<()>,
    },
    Fail {
        id: ChannelId,
        reply: Reply<()>,
    },
    Preimage {
        id: ChannelId,
        preimage: Preimage,
        source: PreimageSource,
        reply: Reply<()>,
    },
    Bump {
        id: ChannelId,
        outpoint: Option<OutPoint>,
        feerate: FeeRate,
        reply: Reply<()>,
    },
    Acknowledge {
        id: ChannelId,
        key: NoticeKey,
        reply: Reply<()>,
    },
    Notices {
        reply: Reply<NoticeStream>,
    },
    Subscribe {
        id: ChannelId,
        name: String,
        delivery: Delivery,
        reply: Reply<ChainEventSubscription>,
    },
    Delivered {
        id: ChannelId,
        name: String,
        next: u64,
        reply: Reply<()>,
    },
    Unsubscribe {
        id: ChannelId,
        name: String,
        reply: Reply<()>,
    },
    Report {
        id: ChannelId,
        reply: Reply<Option<Box<ChannelReport>>>,
    },
    Idle {
        reply: Reply<()>,
    },
}
