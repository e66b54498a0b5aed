//! Commands as plain data, their answers, and why they are refused.
use crate::abandon::{AbandonError, Unfunded};
use crate::bump::{BumpGoal, BumpTarget};
use crate::epochs::Epochs;
use crate::notices::NoticeStream;
use crate::receipt::Receipt;
use crate::subscription::{AllChannelsSubscription, ChainEventSubscription, Delivery};
use arb_core::arbitrator::NoticeKey;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, ChannelNumbers, Update, UpdateError};
use arb_core::ids::{ChannelId, PaymentHash, Preimage, Slot};
use arb_core::log::ByteRecord;
use arb_core::report::{ChannelReport, ClosingCost, ReportPage};
use arb_core::units::{self, BlockHeight};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, Txid};
use std::marker::PhantomData;
use std::time::Duration;
use tokio::sync::oneshot;

/// What can be asked of a running arbiter, as plain data: the request of [`crate::Arbiter`] as a
/// [`tower::Service`]. Each has a method of the same meaning, which says more about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// [`crate::Arbiter::watch_channel`]. Answered by [`Answer::Done`].
    Watch(Box<ChannelFacts>),
    /// [`crate::Arbiter::update_channel_with`]. Answered by [`Answer::Stored`].
    Update {
        /// The channel.
        id: ChannelId,
        /// The updates, in order.
        updates: Vec<Update>,
        /// What the node wants to be written with them.
        records: Vec<ByteRecord>,
    },
    /// [`crate::Arbiter::state_numbers`]. Answered by [`Answer::Done`].
    StateNumbers(ChannelNumbers),
    /// [`crate::Arbiter::fail_channel`]. Answered by [`Answer::Commitment`].
    Fail(ChannelId),
    /// [`crate::Arbiter::preimage`]. Answered by [`Answer::Done`].
    Preimage {
        /// The channel.
        id: ChannelId,
        /// The preimage.
        preimage: Preimage,
        /// Where it came from.
        source: PreimageSource,
    },
    /// [`crate::Arbiter::bump`]. Answered by [`Answer::Done`].
    Bump {
        /// What.
        target: BumpTarget,
        /// To what end.
        goal: BumpGoal,
    },
    /// [`crate::Arbiter::channel_closed_cooperatively`]. Answered by [`Answer::Done`].
    ClosedCooperatively {
        /// The channel.
        id: ChannelId,
        /// The closing transaction.
        txid: Txid,
    },
    /// [`crate::Arbiter::abandon_channel`]. Answered by [`Answer::Done`].
    Abandon {
        /// The channel.
        id: ChannelId,
        /// Why nothing is lost.
        why: Unfunded,
    },
    /// [`crate::Arbiter::acknowledge`]. Answered by [`Answer::Done`].
    Acknowledge {
        /// The channel.
        id: ChannelId,
        /// The notice.
        key: NoticeKey,
    },
    /// [`crate::Arbiter::notices`]. Answered by [`Answer::Notices`].
    Notices,
    /// [`crate::Arbiter::subscribe`]. Answered by [`Answer::Subscription`].
    Subscribe {
        /// The channel.
        id: ChannelId,
        /// Name of the subscription.
        name: String,
        /// Whether the channel's records wait for it.
        delivery: Delivery,
    },
    /// [`crate::Arbiter::subscribe_all`]. Answered by [`Answer::AllChannels`].
    SubscribeAll {
        /// Name of the subscription.
        name: String,
        /// Whether the channels' records wait for it.
        delivery: Delivery,
    },
    /// [`crate::Arbiter::unsubscribe_all`]. Answered by [`Answer::Done`].
    UnsubscribeAll {
        /// Name of the subscription.
        name: String,
    },
    /// [`ChainEventSubscription::acknowledge`]. Answered by [`Answer::Done`].
    AcknowledgeEvents {
        /// The channel.
        id: ChannelId,
        /// Name of the subscription.
        name: String,
        /// Number of the last event that needs no repetition.
        number: u64,
    },
    /// [`crate::Arbiter::unsubscribe`]. Answered by [`Answer::Done`].
    Unsubscribe {
        /// The channel.
        id: ChannelId,
        /// Name of the subscription.
        name: String,
    },
    /// [`crate::Arbiter::report`]. Answered by [`Answer::Report`].
    Report(ChannelId),
    /// [`crate::Arbiter::closing_cost`]. Answered by [`Answer::ClosingCost`].
    ClosingCost {
        /// The channel.
        id: ChannelId,
        /// The feerate of every transaction.
        feerate: FeeRate,
    },
    /// A part of [`crate::Arbiter::reserve`]. Answered by [`Answer::Reserve`].
    Reserve {
        /// The feerate of every transaction.
        feerate: FeeRate,
        /// Channels that were counted before.
        from: usize,
    },
    /// A part of [`crate::Arbiter::report_all`]. Answered by [`Answer::ReportPage`].
    ReportPage {
        /// What the page before said to go on from; `None`: the first page.
        after: Option<Slot>,
    },
    /// [`crate::Arbiter::epochs`]. Answered by [`Answer::Epochs`].
    Epochs,
    /// [`crate::Arbiter::counts`]. Answered by [`Answer::Counts`].
    Counts,
    /// [`crate::Arbiter::idle`]. Answered by [`Answer::Done`].
    Idle,
}

impl Command {
    /// Whether it shares an append with those of its kind before and after it.
    pub(crate) const fn shares_append(&self) -> bool {
        matches!(
            self,
            Self::Update { .. }
                | Self::Preimage { .. }
                | Self::Acknowledge { .. }
                | Self::AcknowledgeEvents { .. }
        )
    }
}

/// What a command is answered by.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// It is done, and durable.
    Done,
    /// What is durable of a channel's facts.
    Stored(Receipt),
    /// Our commitment transaction: in the log, and handed to the network.
    Commitment(Box<Transaction>),
    /// Notices from now on.
    Notices(NoticeStream),
    /// Events from now on.
    Subscription(ChainEventSubscription),
    /// Events of all channels from now on.
    AllChannels(AllChannelsSubscription),
    /// A report; `None` if the channel is not watched, or forgotten.
    Report(Option<Box<ChannelReport>>),
    /// What closing would cost; `None` if the channel cannot be closed by us.
    ClosingCost(Option<Box<ClosingCost>>),
    /// What the wallet needs for some channels; none: all are counted.
    Reserve(Reserve),
    /// Reports of some channels, and where to go on.
    ReportPage(Box<ReportPage>),
    /// Epochs from now on.
    Epochs(Epochs),
    /// What is open and under way.
    Counts(Counts),
}

/// What is open and under way at a moment. What its holder has dropped, or has ended with, is not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open epochs.
    pub epochs: usize,
    /// Open subscriptions.
    pub subscriptions: usize,
    /// Open streams of notices.
    pub notices: usize,
    /// Workers: looks at the source, rescans, signatures, broadcasts.
    pub workers: usize,
    /// Appends of facts.
    pub appends: usize,
    /// Callers that wait: for the arbiter to be idle, for a first tip, or for a commitment to be on
    /// its way.
    pub waiting: usize,
}

/// What the wallet must have to defend channels, at one feerate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Channels that were looked at. Nothing is needed for one whose records cannot be read.
    pub channels: usize,
    /// For those that are open or failing: the child of our commitment, and every HTLC by itself.
    pub open: Amount,
    /// For what closed channels still have to claim.
    pub closed: Amount,
}

impl Reserve {
    /// All that is needed.
    #[must_use]
    pub fn total(&self) -> Amount {
        units::plus(self.open, self.closed)
    }

    /// With what other channels need.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            channels: self.channels.saturating_add(other.channels),
            open: units::plus(self.open, other.open),
            closed: units::plus(self.closed, other.closed),
        }
    }
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The driver has ended, and [`crate::Arbiter::ended`] says why: start it again.
    #[error("the arbiter has stopped")]
    Stopped,
    /// The queue is full, and the service was called without having been polled until it was
    /// ready: do that first.
    #[error("the queue of commands is full")]
    Busy,
    /// The script is none that an address of a segwit wallet stands for: anybody or nobody could spend it, or it
    /// would not be relayed.
    #[error("{0} is no script of an address")]
    NoDestination(ScriptBuf),
    /// No such channel: it was never watched, or is forgotten.
    #[error("channel {0} is not watched")]
    UnknownChannel(ChannelId),
    /// The channel is set aside: its records cannot be read, or the arbiter has panicked over it. Nothing
    /// is done for it until it can be read again, which is tried after ever longer waits;
    /// [`crate::Arbiter::watch_channel`] replaces its records.
    #[error("channel {id} is set aside: {why}")]
    SetAside {
        /// The channel.
        id: ChannelId,
        /// Why it was set aside, or could not return.
        why: String,
        /// After how long it is tried again; `None`: just now.
        again: Option<Duration>,
    },
    /// The arbiter has panicked over a channel that it does not watch, with these words: a bug. Nothing
    /// changed.
    #[error("the arbiter has panicked over channel {0}: {1}")]
    Panicked(ChannelId, String),
    /// The name belongs to a subscription of the other kind, to one channel or to all: end that one
    /// or take another name.
    #[error("the name {0} belongs to a subscription of another kind")]
    NameTaken(String),
    /// The channel is watched with other facts: update it instead.
    #[error("channel {0} is watched already, with other facts")]
    AlreadyWatched(ChannelId),
    /// The facts name no destination, and no script could be had.
    #[error("channel {id} has no destination: {why}")]
    DestinationMissing {
        /// The channel.
        id: ChannelId,
        /// Why there is no script.
        why: String,
    },
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
    /// An agreed mutual close is in the mempool, and no HTLC is at stake: our commitment waits for it
    /// (BOLT 5 F4), and goes out if the mempool loses it, or after
    /// [`arb_core::policy::Policy::mutual_patience`]. That the channel is to be failed is noted.
    #[error("channel {0} is closed by an agreed mutual close that waits for its block")]
    ClosesMutually(ChannelId),
    /// Something of the channel may be ours: it stays watched.
    #[error("channel {0} is not abandoned: {1}")]
    NotAbandoned(ChannelId, AbandonError),
    /// No HTLC of the channel has this payment hash, or not the one that was named.
    #[error("no HTLC has the payment hash {0:?}")]
    UnknownHash(PaymentHash),
    /// The transaction is known to be something else: a commitment of either side or a splice.
    #[error("transaction {0} is no mutual close")]
    NotMutual(Txid),
    /// Nothing of the channel that is ours to claim, now or later: the output is another's, spent,
    /// or needs no claim.
    #[error("output {0} is not to be claimed")]
    NothingToClaim(OutPoint),
    /// What spends the output was signed by both sides, its fee as well: nobody can raise it.
    #[error("the fee for output {0} cannot be raised")]
    FeeIsFixed(OutPoint),
    /// Nothing of the channel is on its way, or to be claimed later, whose fee is ours to choose: it
    /// is open, resolved, or closes by a commitment without anchors.
    #[error("channel {0} has nothing whose fee could be raised")]
    NothingToBump(ChannelId),
    /// The feerate is below the mempool's floor: nothing would be relayed.
    #[error("the feerate of {asked} sat/kwu is below the floor of {floor} sat/kwu")]
    BelowFloor {
        /// What was asked for.
        asked: FeeRate,
        /// The floor.
        floor: FeeRate,
    },
    /// The claim must be confirmed earlier than that in any case.
    #[error("the deadline {} is later than the claim's own, {}", asked.0, own.0)]
    LaterDeadline {
        /// What was asked for.
        asked: BlockHeight,
        /// The claim's own, or the earliest of the channel's.
        own: BlockHeight,
    },
    /// No block that is still to come is that low.
    #[error("the deadline {} is not above the tip, {}", asked.0, tip.0)]
    PastDeadline {
        /// What was asked for.
        asked: BlockHeight,
        /// The tip.
        tip: BlockHeight,
    },
    /// Nothing of what was named can be claimed before the block after that.
    #[error("the deadline {} is not above {}, where the first claim opens", asked.0, opens.0)]
    OpensLater {
        /// What was asked for.
        asked: BlockHeight,
        /// The tip from which on the first of the claims can be made.
        opens: BlockHeight,
    },
    /// The blocks since the channel's birth cannot be had: it is not watched.
    #[error("not scanned: {0}")]
    NotScanned(String),
    /// The store refused the write: nothing changed. Make room and try again.
    #[error("not stored: {0}")]
    NotStored(String),
}

/// A command on its way to the driver, and where its answer goes.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Result<Answer, CommandError>>,
}

/// Where the answer to a command goes, and what kind of answer it is. Whoever asked may be gone:
/// that is its business.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    answer: oneshot::Sender<Result<Answer, CommandError>>,
    kind: PhantomData<fn(T)>,
}

impl<T: Into<Answer>> Reply<T> {
    pub(crate) const fn new(answer: oneshot::Sender<Result<Answer, CommandError>>) -> Self {
        Self { answer, kind: PhantomData }
    }

    /// Answers. What nobody waits for any more is dropped.
    pub(crate) fn send(self, answer: Result<T, CommandError>) {
        let _ = self.answer.send(answer.map(Into::into));
    }

    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.answer.is_closed()
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::Done
    }
}

impl From<Receipt> for Answer {
    fn from(receipt: Receipt) -> Self {
        Self::Stored(receipt)
    }
}

impl From<Box<Transaction>> for Answer {
    fn from(commitment: Box<Transaction>) -> Self {
        Self::Commitment(commitment)
    }
}

impl From<NoticeStream> for Answer {
    fn from(stream: NoticeStream) -> Self {
        Self::Notices(stream)
    }
}

impl From<ChainEventSubscription> for Answer {
    fn from(subscription: ChainEventSubscription) -> Self {
        Self::Subscription(subscription)
    }
}

impl From<AllChannelsSubscription> for Answer {
    fn from(subscription: AllChannelsSubscription) -> Self {
        Self::AllChannels(subscription)
    }
}

impl From<Epochs> for Answer {
    fn from(epochs: Epochs) -> Self {
        Self::Epochs(epochs)
    }
}

impl From<Counts> for Answer {
    fn from(counts: Counts) -> Self {
        Self::Counts(counts)
    }
}

impl From<Option<Box<ChannelReport>>> for Answer {
    fn from(report: Option<Box<ChannelReport>>) -> Self {
        Self::Report(report)
    }
}

impl From<Option<Box<ClosingCost>>> for Answer {
    fn from(cost: Option<Box<ClosingCost>>) -> Self {
        Self::ClosingCost(cost)
    }
}

impl From<Reserve> for Answer {
    fn from(reserve: Reserve) -> Self {
        Self::Reserve(reserve)
    }
}

impl From<Box<ReportPage>> for Answer {
    fn from(page: Box<ReportPage>) -> Self {
        Self::ReportPage(page)
    }
}
