//! `Arbiter`: the handle that the node holds. Cheap to clone, and a `tower` service.
use crate::abandon::Unfunded;
use crate::alarms::{Alarms, Board};
use crate::bump::{BumpGoal, BumpTarget};
use crate::command::{Answer, Command, CommandError, Counts, Reserve};
use crate::driver::{Driver, End, Seams, StartError};
use crate::epochs::Epochs;
use crate::notices::NoticeStream;
use crate::queue::{Answering, Sender};
use crate::scripts::ScriptsPort;
use crate::settings::{ChannelNumbers, Ports, Settings};
use crate::subscription::{AllChannelsSubscription, ChainEventSubscription, Delivery};
use arb_core::arbitrator::{NoticeKey, PreimageSource};
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::report::{AllReports, ChannelReport, ClosingCost};
use bitcoin::{FeeRate, Transaction, Txid};
use std::task::{Context, Poll};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tower::Service;

/// The handle of a running arbiter. Once every clone is dropped, the driver ends.
///
/// ```
/// use arb_core::memory::MemoryLog;
/// use arb_watcher::Arbiter;
#[doc = include_str!("../doc/start.md")]
/// arbiter.idle().await?;
/// arbiter.shutdown().await;
/// # Ok(()) }
/// ```
///
/// It is also a [`tower::Service`] of [`Command`]: a node puts its own layers around it. A command
/// whose caller has given up is carried out or not, as if it had been asked for a moment earlier or
/// later, and leaves nothing behind: ask again.
///
/// ```
/// use arb_core::memory::MemoryLog;
/// use arb_watcher::{Answer, Arbiter, Command};
/// use std::time::Duration;
/// use tower::{Service, ServiceBuilder, ServiceExt};
#[doc = include_str!("../doc/start.md")]
/// let mut service = ServiceBuilder::new()
///     .load_shed()
///     .rate_limit(1000, Duration::from_secs(1))
///     .timeout(Duration::from_secs(30))
///     .service(arbiter);
/// let answer = service.ready().await?.call(Command::Idle).await?;
/// assert!(matches!(answer, Answer::Done));
/// # Ok(()) }
/// ```
///
/// [`Service::poll_ready`] reserves room in the queue for one command of this very handle, first
/// come, first served, until it is called or dropped: a handle that was polled and is neither holds
/// one of [`Settings::queue`] places. A clone has reserved nothing, so clone for each command. The
/// methods of the handle reserve for themselves.
#[derive(Clone, Debug)]
pub struct Arbiter {
    commands: Sender,
    task: AbortHandle,
    /// Also tells the driver, when the last one is dropped, that nobody is left.
    end: watch::Sender<bool>,
    alarms: watch::Receiver<Alarms>,
    scripts: ScriptsPort,
}

impl Service<Command> for Arbiter {
    type Response = Answer;
    type Error = CommandError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CommandError>> {
        self.commands.poll_ready(cx)
    }

    fn call(&mut self, command: Command) -> Answering {
        self.commands.send(command)
    }
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
        crate::metrics::describe();
        let (commands, queue) = mpsc::channel(settings.queue.max(1));
        let (end, asked) = watch::channel(false);
        let (board, alarms) = Board::new();
        let weak = commands.downgrade();
        let seams = Seams { queue, commands: weak, end: End::new(asked), alarms: board };
        let scripts = ports.scripts.clone();
        let driver = Driver::open(log, ports, settings, &numbers, seams).await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        Ok(Self { commands: Sender::new(commands), task, end, alarms, scripts })
    }

    async fn ask(&self, command: Command) -> Result<Answer, CommandError> {
        self.commands.clone().ask(command).await
    }

    async fn do_it(&self, command: Command) -> Result<(), CommandError> {
        self.ask(command).await.map(drop)
    }

    /// Watches a channel from now on; blocks since its birth are scanned first. Durable when it
    /// returns. Doing it again with the same facts changes nothing; for a channel whose records
    /// were unreadable, it replaces them.
    ///
    /// ```
    /// use arb_core::facts::ChannelFacts;
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// /// Before its funding transaction is broadcast.
    /// async fn opened(arbiter: &Arbiter, facts: ChannelFacts) -> Result<(), CommandError> {
    ///     let id = facts.id;
    ///     match arbiter.watch_channel(facts).await {
    ///         Err(CommandError::AlreadyWatched(_)) => {
    ///             let report = arbiter.report(id).await?;
    ///             println!("{id} is at {:?}", report.map(|report| report.phase));
    ///             Ok(())
    ///         }
    ///         answer => answer,
    ///     }
    /// }
    /// ```
    ///
    /// Facts without a destination get one from the port for that ([`ScriptsPort::paying_to`]), and
    /// keep it; asked again without one, they are those stored.
    ///
    /// # Errors
    /// The facts do not hold together, or differ from those stored; or they name no destination, and
    /// the port hands out none.
    pub async fn watch_channel(&self, facts: ChannelFacts) -> Result<(), CommandError> {
        let id = facts.id;
        if !facts.destination.is_empty() {
            return self.do_it(Command::Watch(Box::new(facts))).await;
        }
        match self.do_it(Command::Watch(Box::new(facts.clone()))).await {
            Err(CommandError::DestinationMissing { .. }) => {}
            answer => return answer,
        }
        let refused = |why| CommandError::DestinationMissing { id, why };
        let destination = self.scripts.issue(id).await.map_err(refused)?;
        self.do_it(Command::Watch(Box::new(ChannelFacts { destination, ..facts }))).await
    }

    /// Applies updates in order, all or none. Durable when it returns: the node may then send its
    /// own `revoke_and_ack`.
    ///
    /// ```
    /// use arb_core::facts::{ChannelNames, Link, Signals, Update, UpdateError};
    /// use arb_core::ids::{ChannelId, PerCommitmentSecret};
    /// use arb_core::units::CommitmentNumber;
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// /// The peer has revoked, and we know it to be connected.
    /// async fn revoked(
    ///     arbiter: &Arbiter,
    ///     id: ChannelId,
    ///     (number, secret): (CommitmentNumber, PerCommitmentSecret),
    ///     names: ChannelNames,
    /// ) -> Result<(), CommandError> {
    ///     let revoked = Update::RemoteRevoked { number, secret };
    ///     let signals = Update::Signals(Signals { names, link: Link::Up });
    ///     match arbiter.update_channel(id, vec![revoked, signals]).await {
    ///         Err(CommandError::Facts(UpdateError::SecretMismatch)) => {
    ///             println!("{id}: the peer lies about commitment {}", number.0);
    ///             arbiter.fail_channel(id).await.map(drop)
    ///         }
    ///         answer => answer,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// An update does not fit, or is out of order; or it is a new local commitment after one was
    /// handed out.
    pub async fn update_channel(
        &self,
        id: ChannelId,
        updates: Vec<Update>,
    ) -> Result<(), CommandError> {
        self.do_it(Command::Update { id, updates }).await
    }

    /// States what the node knows of a channel by now: facts that are older are outdated from now
    /// on, as when the peer proves that it is further (BOLT 2 data loss), until updates reach these
    /// numbers. Not stored: at the next start it is to be stated again.
    ///
    /// # Errors
    /// No such channel.
    pub async fn state_numbers(&self, numbers: ChannelNumbers) -> Result<(), CommandError> {
        self.do_it(Command::StateNumbers(numbers)).await
    }

    /// Fails a channel: a unilateral close. Gives our commitment transaction once it is in the log
    /// and the broadcaster has answered for it, whatever the network says of it: the arbiter goes on
    /// bumping and publishing. That may take until the source's tip is reached or a signer is back.
    ///
    /// Once the intent is durable a caller that gives up changes nothing, and asking again gives the
    /// same transaction, after a restart and after its confirmation as well.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// async fn give_up(arbiter: &Arbiter, id: ChannelId) -> Result<(), CommandError> {
    ///     match arbiter.fail_channel(id).await {
    ///         Ok(commitment) => println!("on its way: {}", commitment.compute_txid()),
    ///         Err(CommandError::Closed(_)) => println!("somebody was faster"),
    ///         Err(CommandError::Outdated(_)) => println!("only the peer can close it"),
    ///         Err(error) => return Err(error),
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The facts are outdated, or the funding output is spent by something else.
    pub async fn fail_channel(&self, id: ChannelId) -> Result<Transaction, CommandError> {
        match self.ask(Command::Fail(id)).await? {
            Answer::Commitment(commitment) => Ok(*commitment),
            _ => Err(CommandError::Stopped),
        }
    }

    /// The node says that this transaction is a mutual close that both sides agreed on: if it
    /// spends the funding output, that is what it is, whatever its scripts. Durable when it returns.
    ///
    /// # Errors
    /// It is known to be something else: a live commitment, one that was handed out, a splice, or
    /// a confirmed spend that is explained otherwise. A revoked commitment is told by its shape when
    /// it comes, whatever was said here.
    ///
    /// ```
    /// # use arb_core::ids::ChannelId;
    /// # use arb_watcher::{Arbiter, CommandError};
    /// # async fn closed(arbiter: &Arbiter, id: ChannelId, close: bitcoin::Transaction) -> Result<(), CommandError> {
    /// // Both have signed it, and it pays where this node has never heard of.
    /// arbiter.channel_closed_cooperatively(id, close.compute_txid()).await
    /// # }
    /// ```
    pub async fn channel_closed_cooperatively(
        &self,
        id: ChannelId,
        txid: Txid,
    ) -> Result<(), CommandError> {
        self.do_it(Command::ClosedCooperatively { id, txid }).await
    }

    /// Tells a preimage. Its source decides which HTLCs it serves. Durable when it returns.
    ///
    /// ```
    /// use arb_core::arbitrator::PreimageSource;
    /// use arb_core::ids::{ChannelId, Preimage};
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// /// A payment to this node, which it accepts. That its HTLC is gone already is no trouble.
    /// async fn accept(arbiter: &Arbiter, id: ChannelId, preimage: Preimage) -> Result<(), CommandError> {
    ///     match arbiter.preimage(id, preimage, PreimageSource::Node).await {
    ///         Err(CommandError::UnknownHash(_)) => Ok(()),
    ///         answer => answer,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// No HTLC of the channel has its hash, or not the one that the source names.
    pub async fn preimage(
        &self,
        id: ChannelId,
        preimage: Preimage,
        source: PreimageSource,
    ) -> Result<(), CommandError> {
        self.do_it(Command::Preimage { id, preimage, source }).await
    }

    /// Manual fee control of a claim, or of all claims of a channel.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_core::units::BlockHeight;
    /// use arb_watcher::{Arbiter, BumpGoal, BumpTarget, CommandError};
    ///
    /// /// As soon as possible, at 20 sat/vB; if that is refused, within 6 blocks of `tip`.
    /// async fn hurry(arbiter: &Arbiter, id: ChannelId, tip: u32) -> Result<(), CommandError> {
    ///     let feerate = bitcoin::FeeRate::from_sat_per_vb_unchecked(20);
    ///     let target = BumpTarget::Channel(id);
    ///     match arbiter.bump(target, BumpGoal::FeeRate(feerate)).await {
    ///         Err(CommandError::BelowFloor { .. }) => {
    ///             arbiter.bump(target, BumpGoal::Deadline(BlockHeight(tip + 6))).await
    ///         }
    ///         answer => answer,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The output is none that is to be claimed, or its fee is fixed; the channel has nothing whose
    /// fee could be raised; the feerate is below the mempool's floor; the
    /// deadline is past, before the claim opens, or later than the claim's own.
    pub async fn bump(&self, target: BumpTarget, goal: BumpGoal) -> Result<(), CommandError> {
        self.do_it(Command::Bump { target, goal }).await
    }

    /// Watches a channel no more that was never funded, and deletes its records: a node that opens
    /// channels, or lets others open them, would gather such channels without end.
    ///
    /// The arbiter does not take the node's word for it. That the funding transaction can never
    /// confirm is looked for in the blocks since the channel's birth, which may take a while.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{AbandonError, Arbiter, CommandError, Unfunded};
    ///
    /// /// Whether it is gone; `false`: try again some blocks later.
    /// async fn give_up(
    ///     arbiter: &Arbiter,
    ///     id: ChannelId,
    ///     funding: bitcoin::Transaction,
    /// ) -> Result<bool, CommandError> {
    ///     match arbiter.abandon_channel(id, Unfunded::DoubleSpent(vec![funding])).await {
    ///         Ok(()) => Ok(true),
    ///         Err(CommandError::NotAbandoned(_, AbandonError::TooShallow(_))) => Ok(false),
    ///         Err(error) => Err(error),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`CommandError::NotAbandoned`] if anything of it may be ours, with the reason; the blocks
    /// cannot be had; the store refused the write.
    pub async fn abandon_channel(&self, id: ChannelId, why: Unfunded) -> Result<(), CommandError> {
        self.do_it(Command::Abandon { id, why }).await
    }

    /// Acknowledges a notice: it is not repeated.
    ///
    /// # Errors
    /// No such channel.
    pub async fn acknowledge(&self, id: ChannelId, key: NoticeKey) -> Result<(), CommandError> {
        self.do_it(Command::Acknowledge { id, key }).await
    }

    /// Notices to the node, outstanding ones first.
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
    /// # Errors
    /// No such channel.
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
    /// # Errors
    /// The name is too long, or that of a subscription to one channel.
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
    /// # Errors
    /// The store refused the write.
    pub async fn unsubscribe_all(&self, name: &str) -> Result<(), CommandError> {
        self.do_it(Command::UnsubscribeAll { name: name.to_owned() }).await
    }

    /// Ends a named subscription for good: nobody waits for it any more. That there is none is no
    /// error, nor that the channel is forgotten, or was never watched.
    ///
    /// # Errors
    /// The store refused the write, or the name is that of a subscription to all channels.
    pub async fn unsubscribe(&self, id: ChannelId, name: &str) -> Result<(), CommandError> {
        let name = name.to_owned();
        self.do_it(Command::Unsubscribe { id, name }).await
    }

    /// Everything about a channel; `None` if it is not watched, or forgotten.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn report(&self, id: ChannelId) -> Result<Option<ChannelReport>, CommandError> {
        match self.ask(Command::Report(id)).await? {
            Answer::Report(report) => Ok(report.map(|report| *report)),
            _ => Err(CommandError::Stopped),
        }
    }

    /// A dry run: what closing the channel now would cost if every transaction paid `feerate`, in
    /// which transactions, and when the last satoshi would be home; of a closed channel, what the
    /// rest costs. Nothing is done. `None`: we have no commitment that may be broadcast.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_watcher::{Arbiter, CommandError};
    /// use bitcoin::FeeRate;
    ///
    /// async fn compare(arbiter: &Arbiter, id: ChannelId) -> Result<(), CommandError> {
    ///     for rate in [1, 10, 100].map(FeeRate::from_sat_per_vb_unchecked) {
    ///         if let Some(cost) = arbiter.closing_cost(id, rate).await? {
    ///             println!("at {rate}: {} in fees, home at {:?}", cost.fees, cost.home_at);
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// No such channel, or its records cannot be read.
    pub async fn closing_cost(
        &self,
        id: ChannelId,
        feerate: FeeRate,
    ) -> Result<Option<ClosingCost>, CommandError> {
        match self.ask(Command::ClosingCost { id, feerate }).await? {
            Answer::ClosingCost(cost) => Ok(cost.map(|cost| *cost)),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What the wallet must have to defend all channels if every transaction paid `feerate`: an upper
    /// bound, in which nothing is shared between channels or HTLCs. Reads the facts of every channel, a
    /// few at a time; blocks and commands are taken meanwhile.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn reserve(&self, feerate: FeeRate) -> Result<Reserve, CommandError> {
        let mut all = Reserve::default();
        loop {
            let from = all.channels;
            let Answer::Reserve(page) = self.ask(Command::Reserve { feerate, from }).await? else {
                return Err(CommandError::Stopped);
            };
            if page.channels == 0 {
                return Ok(all);
            }
            all = all.and(page);
        }
    }

    /// Blocks as the arbiter digests them, the present tip first.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn epochs(&self) -> Result<Epochs, CommandError> {
        match self.ask(Command::Epochs).await? {
            Answer::Epochs(epochs) => Ok(epochs),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What is open and under way.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn counts(&self) -> Result<Counts, CommandError> {
        match self.ask(Command::Counts).await? {
            Answer::Counts(counts) => Ok(counts),
            _ => Err(CommandError::Stopped),
        }
    }

    /// What there is to report of all channels: counts by phase, and everything about each channel
    /// that is not open and quiet. Quiet ones are counted only, so that their number costs nothing;
    /// the others are asked for in pages, and blocks and commands are taken between two.
    ///
    /// ```
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// async fn print_what_is_pending(arbiter: &Arbiter) -> Result<(), CommandError> {
    ///     let all = arbiter.report_all().await?;
    ///     println!("{:?}, {} set aside", all.phases, all.quarantined.len());
    ///     for output in all.channels.iter().flat_map(|channel| &channel.outputs) {
    ///         println!("{}: {} is {:?}", output.outpoint, output.amount, output.state);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn report_all(&self) -> Result<AllReports, CommandError> {
        let (mut all, mut after) = (AllReports::default(), None);
        loop {
            let Answer::ReportPage(page) = self.ask(Command::ReportPage { after }).await? else {
                return Err(CommandError::Stopped);
            };
            after = page.next;
            all.take(*page);
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Resolves once the engine is at the source's tip, has looked at the mempool since this call,
    /// and nothing is under way. What has failed may wait for the end of its pause, or the next block.
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn idle(&self) -> Result<(), CommandError> {
        self.do_it(Command::Idle).await
    }

    /// What is wrong for all channels at once, with the chain or the store, now and whenever that
    /// changes.
    #[must_use]
    pub fn alarms(&self) -> watch::Receiver<Alarms> {
        self.alarms.clone()
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
