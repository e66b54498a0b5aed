//! Subscriptions to a channel's events: at least once, in order, across restarts.
use crate::command::{Command, CommandError, Envelope};
use crate::queue::Sender;
use arb_core::arbitrator::ChannelEvent;
use arb_core::ids::ChannelId;
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Events that a slow subscriber may have waiting; the others wait in the log.
pub(crate) const WAITING: usize = 64;

/// Whether the channel's records wait for the subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Nobody is waited for.
    Detached,
    /// The records are not cleaned up before the last event is acknowledged.
    Acknowledged,
}

/// An event with its number within the channel. After a restart, events that were not
/// acknowledged come again with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Number, from 0.
    pub number: u64,
    /// The event.
    pub event: ChannelEvent,
}

/// A named subscription to one channel. Dropping it ends the delivery; the name and what it
/// acknowledged stay until [`crate::Arbiter::unsubscribe`].
#[derive(Debug)]
pub struct ChainEventSubscription {
    pub(crate) id: ChannelId,
    pub(crate) name: String,
    pub(crate) receiver: mpsc::Receiver<Delivered>,
    /// Weak: a subscription does not keep the driver running.
    pub(crate) commands: mpsc::WeakSender<Envelope>,
}

impl ChainEventSubscription {
    /// The next event; `None` once the driver has ended or the channel is forgotten.
    pub async fn next(&mut self) -> Option<Delivered> {
        self.receiver.recv().await
    }

    /// An event that is there already; `None` if none is.
    pub fn try_next(&mut self) -> Option<Delivered> {
        self.receiver.try_recv().ok()
    }

    /// Acknowledges every event up to and including `number`, durably.
    ///
    /// # Errors
    /// The driver has ended, or the store refused the write.
    pub async fn acknowledge(&self, number: u64) -> Result<(), CommandError> {
        let commands = self.commands.upgrade().ok_or(CommandError::Stopped)?;
        let (id, name) = (self.id, self.name.clone());
        let command = Command::AcknowledgeEvents { id, name, number };
        Sender::new(commands).ask(command).await.map(drop)
    }
}

impl Stream for ChainEventSubscription {
    type Item = Delivered;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(cx)
    }
}
