//! `Arbiter`: the handle that the node holds. Cheap to clone.
use crate::command::{Command, CommandError, Reply};
use crate::driver::{ChainAlarm, Driver, End, Seams, StartError};
use crate::notices::NoticeStream;
use crate::settings::{ChannelNumbers, Ports, Settings};
use crate::subscription::{ChainEventSubscription, Delivery};
use arb_core::arbitrator::{NoticeKey, PreimageSource};
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::report::ChannelReport;
use bitcoin::{FeeRate, OutPoint};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

/// The handle of a running arbiter. Once every clone is dropped, the driver ends.
#[derive(Clone, Debug)]
pub struct Arbiter {
    commands: mpsc::Sender<Command>,
    task: AbortHandle,
    /// Also tells the driver, when the last one is dropped, that nobody is left.
    end: watch::Sender<bool>,
    alarm: watch::Receiver<Option<ChainAlarm>>,
}

impl Arbiter {
    /// Reads the store and starts the driver on the current tokio runtime. Nothing is broadcast
    /// before the source's tip is reached.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start<L, S, B, F, K, C>(
        log: L,
        ports: Ports<S, B, F, K, C>,
        settings: Settings,
        numbers: Vec<ChannelNumbers>,
    ) -> Result<Self, StartError>
    where
        L: ChangeLog,
        S: BlockSource,
        B: Broadcast,
        F: FeeSource,
        K: Signer,
        C: CoinSource,
    {
        let (commands, queue) = mpsc::channel(settings.queue.max(1));
        let (end, asked) = watch::channel(false);
        let (raise, alarm) = watch::channel(None);
        let weak = commands.downgrade();
        let seams = Seams { queue, commands: weak, end: End::new(asked), alarm: raise };
        let driver = Driver::open(log, ports, settings, &numbers, seams).await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { commands, task, end, alarm })
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| CommandError::Stopped)?;
        answer.await.map_err(|_| CommandError::Stopped)?
    }

    /// Watches a channel from now on; blocks since its birth are scanned first. Durable when it
    /// returns. Doing it again with the same facts changes nothing; for a channel whose records
    /// were unreadable, it replaces them.
    ///
    /// # Errors
    /// The facts do not hold together, or differ from those stored.
    pub async fn watch_channel(&self, facts: ChannelFacts) -> Result<(), CommandError> {
        self.ask(|reply| Command::Watch { facts: Box::new(facts), reply }).await
    }

    /// Applies updates in order, all or none. Durable when it returns: the node may then send its
    /// own `revoke_and_ack`.
    ///
    /// # Errors
    /// An update does not fit; or it is a new local commitment after one was handed out.
    pub async fn update_channel(
        &self,
        id: ChannelId,
        updates: Vec<Update>,
    ) -> Result<(), CommandError> {
        self.ask(|reply| Command::Update { id, updates, reply }).await
    }

    /// Asks for a unilateral close. The intent is durable when it returns.
    ///
    /// # Errors
    /// The facts are outdated, or the funding output is spent already.
    pub async fn fail_channel(&self, id: ChannelId) -> Result<(), CommandError> {
        self.ask(|reply| Command::Fail { id, reply }).await
    }

    /// Tells a preimage. Its source decides which HTLCs it serves.
    ///
    /// # Errors
    /// No such channel.
    pub async fn preimage(
        &self,
        id: ChannelId,
        preimage: Preimage,
        source: PreimageSource,
    ) -> Result<(), CommandError> {
        self.ask(|reply| Command::Preimage { id, preimage, source, reply }).await
    }

    /// Asks for at least this feerate, for the claim of one output or for all of a channel.
    ///
    /// # Errors
    /// No such channel.
    pub async fn bump(
        &self,
        id: ChannelId,
        outpoint: Option<OutPoint>,
        feerate: FeeRate,
    ) -> Result<(), CommandError> {
        self.ask(|reply| Command::Bump { id, outpoint, feerate, reply }).await
    }

    /// Acknowledges a notice: it is not repeated.
    ///
    /// # Errors
    /// No such channel.
    pub async fn acknowledge(&self, id: ChannelId, key: NoticeKey) -> Result<(), CommandError> {
        self.ask(|reply| Command::Acknowledge { id, key, reply }).await
    }

    /// Notices to the node, outstanding ones first.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn notices(&self) -> Result<NoticeStream, CommandError> {
        self.ask(|reply| Command::Notices { reply }).await
    }

    /// Opens a named subscription to a channel's events, from the first that it has not
    /// acknowledged.
    ///
    /// # Errors
    /// No such channel.
    pub async fn subscribe(
        &self,
        id: ChannelId,
        name: &str,
        delivery: Delivery,
    ) -> Result<ChainEventSubscription, CommandError> {
        let name = name.to_owned();
        self.ask(|reply| Command::Subscribe { id, name, delivery, reply }).await
    }

    /// Ends a named subscription for good: nobody waits for it any more.
    ///
    /// # Errors
    /// No such channel.
    pub async fn unsubscribe(&self, id: ChannelId, name: &str) -> Result<(), CommandError> {
        let name = name.to_owned();
        self.ask(|reply| Command::Unsubscribe { id, name, reply }).await
    }

    /// Everything about a channel; `None` if it is not watched, or forgotten.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn report(&self, id: ChannelId) -> Result<Option<ChannelReport>, CommandError> {
        Ok(self.ask(|reply| Command::Report { id, reply }).await?.map(|report| *report))
    }

    /// Resolves once the engine is at the source's tip, has looked at the mempool since this call,
    /// and nothing is under way.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn idle(&self) -> Result<(), CommandError> {
        self.ask(|reply| Command::Idle { reply }).await
    }

    /// Whether something is wrong with the chain as the block source shows it, now and whenever
    /// that changes.
    #[must_use]
    pub fn chain_alarm(&self) -> watch::Receiver<Option<ChainAlarm>> {
        self.alarm.clone()
    }

    /// Ends the driver: running appends are finished, nothing else. Returns when the driver is
    /// gone, and with it the store and the ports; after [`Self::kill`] as well.
    pub async fn shutdown(&self) {
        self.end.send_replace(true);
        self.commands.closed().await;
    }

    /// Ends the driver at once, wherever it is. Always safe.
    pub fn kill(&self) {
        self.task.abort();
    }

    /// Whether the driver has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.task.is_finished()
    }
}
