//! The handle, as far as it tells of something again and again: notices, and subscriptions.
use super::Arbiter;
use crate::command::{Answer, Command, CommandError};
use crate::notices::NoticeStream;
use crate::subscription::{AllChannelsSubscription, ChainEventSubscription, Delivery};
use arb_core::arbitrator::NoticeKey;
use arb_core::ids::ChannelId;

impl Arbiter {
    /// Acknowledges a notice: it is not repeated.
    ///
    /// ```
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// /// Tells a person of whatever the node is told.
    /// async fn tell(arbiter: &Arbiter, tell: impl Fn(String)) -> Result<(), CommandError> {
    ///     let mut notices = arbiter.notices().await?;
    ///     while let Some((channel, notice)) = notices.next().await {
    ///         tell(format!("{channel}: {notice:?}"));
    ///         arbiter.acknowledge(channel, notice.key()).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// No such channel; or it is set aside, and the notice comes again when it is back.
    pub async fn acknowledge(&self, id: ChannelId, key: NoticeKey) -> Result<(), CommandError> {
        self.do_it(Command::Acknowledge { id, key }).await
    }

    /// Notices to the node, outstanding ones first.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    #[doc = include_str!("../../doc/start.md")]
    /// let mut notices = arbiter.notices().await?;
    /// assert!(notices.try_next().is_none()); // there is nothing to tell
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn notices(&self) -> Result<NoticeStream, CommandError> {
        match self.ask(Command::Notices).await? {
            Answer::Notices(stream) => Ok(stream),
            _ => Err(CommandError::Stopped),
        }
    }

    /// Opens a named subscription to a channel's events, from the first that it has not
    /// acknowledged.
    ///
    /// ```
    /// use arb_core::arbitrator::{ChannelEvent, CloseKind};
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError, Delivery};
    ///
    /// /// How a channel closes in the end, or `None` if it is forgotten before.
    /// async fn how_it_closes(
    ///     arbiter: &Arbiter,
    ///     id: ChannelId,
    /// ) -> Result<Option<CloseKind>, CommandError> {
    ///     let mut events = arbiter.subscribe(id, "closes", Delivery::Detached).await?;
    ///     let mut how = None;
    ///     while let Some(delivered) = events.next().await {
    ///         match delivered.event {
    ///             ChannelEvent::Closed(CloseKind::Splice(_)) => {} // it goes on
    ///             ChannelEvent::Closed(kind) => how = Some(kind),
    ///             ChannelEvent::Reorged => how = None,
    ///             ChannelEvent::Resolved => break,
    ///             _ => {}
    ///         }
    ///     }
    ///     Ok(how)
    /// }
    /// ```
    ///
    /// # Errors
    /// No such channel; the name has more than 255 bytes, or is that of a subscription to all channels; the store
    /// refused the write.
    pub async fn subscribe(
        &self,
        id: ChannelId,
        name: &str,
        delivery: Delivery,
    ) -> Result<ChainEventSubscription, CommandError> {
        let name = name.to_owned();
        match self.ask(Command::Subscribe { id, name, delivery }).await? {
            Answer::Subscription(subscription) => Ok(subscription),
            _ => Err(CommandError::Stopped),
        }
    }

    /// Opens a named subscription to the events of all channels, those that are watched later
    /// included, of each from the first that it has not acknowledged.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Delivery};
    #[doc = include_str!("../../doc/start.md")]
    /// let mut events = arbiter.subscribe_all("ledger", Delivery::Detached).await?;
    /// assert!(events.try_next().is_none()); // there is no channel
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The name has more than 255 bytes, or is that of a subscription to one channel; the store refused the write.
    pub async fn subscribe_all(
        &self,
        name: &str,
        delivery: Delivery,
    ) -> Result<AllChannelsSubscription, CommandError> {
        let name = name.to_owned();
        match self.ask(Command::SubscribeAll { name, delivery }).await? {
            Answer::AllChannels(subscription) => Ok(subscription),
            _ => Err(CommandError::Stopped),
        }
    }

    /// Ends a named subscription to all channels for good: nobody waits for it any more. That there
    /// is none is no error.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Delivery};
    #[doc = include_str!("../../doc/start.md")]
    /// let mut events = arbiter.subscribe_all("ledger", Delivery::Acknowledged).await?;
    /// arbiter.unsubscribe_all("ledger").await?;
    /// assert!(events.next().await.is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The store refused the write.
    pub async fn unsubscribe_all(&self, name: &str) -> Result<(), CommandError> {
        self.do_it(Command::UnsubscribeAll { name: name.to_owned() }).await
    }

    /// Ends a named subscription for good: nobody waits for it any more. That there is none is no
    /// error, nor that the channel is forgotten, or was never watched.
    ///
    /// ```
    /// use arb_core::arbitrator::ChannelEvent;
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError, Delivery};
    ///
    /// /// Until the channel's end; then its records need not wait for us any more.
    /// async fn until_resolved(arbiter: &Arbiter, id: ChannelId) -> Result<(), CommandError> {
    ///     let mut events = arbiter.subscribe(id, "ledger", Delivery::Acknowledged).await?;
    ///     while let Some(delivered) = events.next().await {
    ///         if delivered.event == ChannelEvent::Resolved {
    ///             break;
    ///         }
    ///     }
    ///     arbiter.unsubscribe(id, "ledger").await
    /// }
    /// ```
    ///
    /// # Errors
    /// The store refused the write, or the name is that of a subscription to all channels.
    pub async fn unsubscribe(&self, id: ChannelId, name: &str) -> Result<(), CommandError> {
        let name = name.to_owned();
        self.do_it(Command::Unsubscribe { id, name }).await
    }
}
