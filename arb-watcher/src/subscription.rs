//! Subscriptions to a channel's events: in order, and at least once as [`Delivery`] says.
use crate::command::{Command, CommandError, Envelope};
use crate::mailbox::Inbox;
use crate::queue::Sender;
use arb_core::arbitrator::{ChannelEvent, CloseKind, TxKind};
use arb_core::claim::{SingleSpend, SpendPath};
use arb_core::ids::ChannelId;
use arb_core::picture::{Output, Picture, Way};
use arb_core::units::{BlockHeight, CommitmentNumber};
use bitcoin::Transaction;
use futures_core::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events that a slow subscriber may have waiting; the others wait in the log.
pub(crate) const WAITING: usize = 64;

/// As [`WAITING`], of a subscriber to all channels.
pub(crate) const WAITING_OF_ALL: usize = 1024;

/// Whether the channel's records wait for the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nobody is waited for, and whoever reads slowly loses nothing as long as what waits for it has room. Events that were
    /// not acknowledged come again after a restart as long as the channel has records: a hundred blocks from the last
    /// confirmation on. What of a forgotten channel was not read by then waits in the subscription alone, and ends with it
    /// and with the process. A subscription to all channels ends when more than
    /// [`Settings::unread_events`](crate::Settings::unread_events) wait there: what its reader
    /// has had until then has no gap, [`AllChannelsSubscription::lag`], which is not 0 then, says that more did not come, and
    /// subscribing again brings what still has records. Whoever must miss nothing however long it does not read, takes [`Self::Acknowledged`]: no store
    /// holds for ever what nobody reads, unless somebody is waited for.
    /// Of one that has acknowledged nothing, nothing is left when it is dropped, its name included.
    Detached,
    /// The records are not cleaned up before the last event is acknowledged, whatever happens to the
    /// process: every event comes at least once. A subscriber that is gone for good must be ended by
    /// [`crate::Arbiter::unsubscribe`] or [`crate::Arbiter::unsubscribe_all`], or its channels stay for ever.
    Acknowledged,
}

/// An event with its number within the channel. After a restart, events that were not
/// acknowledged come again with the same number. A channel whose log was lost, and which the node has brought back,
/// tells what its log holds now, whatever was acknowledged before: with numbers that no event of it has had since
/// the start, and after a restart from number 0 on.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The channel.
    pub channel: ChannelId,
    /// Number within the channel, from 0, each one more than the one before.
    pub number: u64,
    /// The event.
    pub event: ChannelEvent,
    /// How the channel closed, as it was known when the event was delivered, which may be later
    /// than the event; `None` while no funding output is spent but by a splice.
    pub detail: Option<Arc<Closing>>,
}

/// How a channel closed: enough to act on it without the arbiter.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The transaction that spends the funding output.
    pub transaction: Transaction,
    /// What it is, its block, and every output: value, script and role, who spent it, and how we
    /// may: witness script, what unlocks it, the key by its BOLT 3 derivation, from which height
    /// and by which deadline. Secrets and preimages are in it, and in no `Debug` output.
    pub picture: Arc<Picture>,
    /// Whether every output was known. The HTLCs of a revoked commitment are not while its penalty
    /// data cannot be read; a later event has them.
    pub complete: bool,
}

impl Closing {
    /// Number of the commitment, if it is one.
    #[must_use]
    pub fn commitment(&self) -> Option<CommitmentNumber> {
        match self.picture.spend.kind() {
            CloseKind::Local(number)
            | CloseKind::Outdated(number)
            | CloseKind::Remote(number)
            | CloseKind::Revoked(number)
            | CloseKind::Future(number) => Some(number),
            CloseKind::Mutual | CloseKind::Splice(_) | CloseKind::Unknown => None,
        }
    }

    /// Unspent outputs of a breach, each with the spend that brings it to justice, and its deadline:
    /// from there on the peer may take it.
    pub fn penalties(&self) -> impl Iterator<Item = (&Output, &SingleSpend, Option<BlockHeight>)> {
        let unspent = self.picture.outputs.iter().filter(|output| output.spent.is_none());
        unspent.filter_map(|output| match &output.way {
            Way::Spend { path: SpendPath::Single(single), deadline, .. }
                if single.kind == TxKind::Penalty =>
            {
                Some((output, &**single, *deadline))
            }
            _ => None,
        })
    }
}

/// A named subscription to one channel. Dropping it, in whatever way, ends it. What it has acknowledged is remembered
/// under its name as long as the channel has records, and so is a name whose delivery is [`Delivery::Acknowledged`];
/// [`crate::Arbiter::unsubscribe`] forgets both at once.
///
/// No block and no other channel waits for it: what it is slow to take waits in the log, and once the
/// channel is forgotten, which [`Delivery`] decides about, here.
///
/// ```
/// use arb_core::arbitrator::{ChannelEvent, CloseKind};
/// use arb_core::ids::ChannelId;
/// use arb_watcher::{Arbiter, CommandError, Delivery};
///
/// async fn follow(arbiter: Arbiter, channel: ChannelId) -> Result<(), CommandError> {
///     let mut events = arbiter.subscribe(channel, "ledger", Delivery::Acknowledged).await?;
///     while let Some(delivered) = events.next().await {
///         match (delivered.event, &delivered.detail) {
///             (ChannelEvent::Closed(CloseKind::Revoked(number)), Some(detail)) => {
///                 println!("breach: revoked commitment {}", number.0);
///                 for (output, spend, deadline) in detail.penalties() {
///                     println!("{} of {}: {spend:?} by {deadline:?}", output.outpoint, output.output.value);
///                 }
///             }
///             (ChannelEvent::Output { outpoint, progress }, _) => println!("{outpoint}: {progress:?}"),
///             (event, _) => println!("{event:?}"),
///         }
///         events.acknowledge(delivered.number).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct ChainEventSubscription {
    pub(crate) id: ChannelId,
    pub(crate) name: String,
    pub(crate) events: Inbox<Delivered>,
    /// Weak: a subscription does not keep the driver running.
    pub(crate) commands: mpsc::WeakSender<Envelope>,
}

impl ChainEventSubscription {
    /// The next event; `None` once the driver has ended, the channel is forgotten, or another of
    /// the same name was opened. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Delivered> {
        self.events.next().await
    }

    /// An event that is there already; `None` if none is.
    pub fn try_next(&mut self) -> Option<Delivered> {
        self.events.try_next()
    }

    /// How many events wait behind the 64 that there is room for, because this subscriber is slow: it lags if
    /// there are any.
    ///
    /// ```
    /// use arb_watcher::ChainEventSubscription;
    ///
    /// /// The next event, with a word if this reader is too slow.
    /// async fn next(events: &mut ChainEventSubscription) -> Option<arb_watcher::Delivered> {
    ///     match events.lag() {
    ///         0 => {}
    ///         late => eprintln!("{late} events wait"),
    ///     }
    ///     events.next().await
    /// }
    /// ```
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.events.late(WAITING)
    }

    /// Acknowledges every event up to and including `number`, durably. Once the channel is forgotten nothing is
    /// written, and that is no error.
    ///
    /// # Errors
    /// The driver has ended, the channel is set aside, or the store refused the write.
    pub async fn acknowledge(&self, number: u64) -> Result<(), CommandError> {
        acknowledge(&self.commands, self.id, &self.name, number).await
    }
}

async fn acknowledge(
    commands: &mpsc::WeakSender<Envelope>,
    id: ChannelId,
    name: &str,
    number: u64,
) -> Result<(), CommandError> {
    let commands = commands.upgrade().ok_or(CommandError::Stopped)?;
    let command = Command::AcknowledgeEvents { id, name: name.to_owned(), number };
    Sender::new(commands).ask(command).await.map(drop)
}

/// A named subscription to all channels, those that are watched later included: in order for each
/// channel, and at least once as [`Delivery`] says. Otherwise as [`ChainEventSubscription`]; the name and what it
/// acknowledged stay until [`crate::Arbiter::unsubscribe_all`].
///
/// ```
/// use arb_core::memory::MemoryLog;
/// use arb_watcher::{Arbiter, Delivery};
#[doc = include_str!("../doc/start.md")]
/// let mut events = arbiter.subscribe_all("ledger", Delivery::Acknowledged).await?;
/// while let Some(delivered) = events.try_next() {
///     events.acknowledge(delivered.channel, delivered.number).await?;
/// }
/// arbiter.unsubscribe_all("ledger").await?;
/// assert!(events.next().await.is_none());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AllChannelsSubscription {
    pub(crate) name: String,
    pub(crate) events: Inbox<Delivered>,
    /// Weak: a subscription does not keep the driver running.
    pub(crate) commands: mpsc::WeakSender<Envelope>,
}

impl AllChannelsSubscription {
    /// The next event; `None` once the driver has ended, another of the same name was opened, or too much
    /// of forgotten channels was left unread: then [`Self::lag`] is not 0, and what it counts did not come. Nothing
    /// is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Delivered> {
        self.events.next().await
    }

    /// An event that is there already; `None` if none is.
    pub fn try_next(&mut self) -> Option<Delivered> {
        self.events.try_next()
    }

    /// How many events wait behind the 1,024 that there is room for, because this subscriber is slow: it lags if
    /// there are any.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Delivery};
    #[doc = include_str!("../doc/start.md")]
    /// let events = arbiter.subscribe_all("ledger", Delivery::Detached).await?;
    /// assert_eq!(events.lag(), 0); // nothing waits for room
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.events.late(WAITING_OF_ALL)
    }

    /// Acknowledges every event of a channel up to and including `number`, durably. Of a channel that is forgotten
    /// nothing is written, and that is no error.
    ///
    /// # Errors
    /// The driver has ended, the channel is set aside, or the store refused the write.
    pub async fn acknowledge(&self, channel: ChannelId, number: u64) -> Result<(), CommandError> {
        acknowledge(&self.commands, channel, &self.name, number).await
    }
}

impl Stream for AllChannelsSubscription {
    type Item = Delivered;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next(cx)
    }
}

impl Stream for ChainEventSubscription {
    type Item = Delivered;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_next(cx)
    }
}
