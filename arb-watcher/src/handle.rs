//! `Arbiter`: the handle that the node holds. Cheap to clone, and a `tower` service.
mod reports;
mod streams;

use crate::abandon::Unfunded;
use crate::alarms::{Alarms, Board};
use crate::bump::{BumpGoal, BumpTarget};
use crate::command::{Answer, Command, CommandError};
use crate::driver::{Chosen, Driver, End, Seams, StartError};
use crate::ended::{Ended, LastWord};
use crate::queue::{Answering, Sender};
use crate::receipt::Receipt;
use crate::scripts::ScriptsPort;
use crate::settings::{ChannelNumbers, Ports, Settings};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::log::{ByteRecord, ChangeLog, Home};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use bitcoin::{Transaction, Txid};
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
    last_word: watch::Receiver<Option<Ended>>,
    scripts: ScriptsPort,
    home: Option<Home>,
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
        let (said, last_word) = LastWord::new();
        let weak = commands.downgrade();
        let seams =
            Seams { queue, commands: weak, end: End::new(asked), alarms: board, last_word: said };
        let (scripts, home) = (ports.scripts.clone(), log.home());
        let driver =
            Driver::<Chosen<L, S, B, F, K, C>>::open(log, ports, settings, &numbers, seams).await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        let commands = Sender::new(commands);
        Ok(Self { commands, task, end, alarms, last_word, scripts, home })
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

    /// Applies updates in order, all or none. The receipt says what is durable by then: the node may send its
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
    ///         Ok(receipt) => println!("{id}: those before {} are revoked", receipt.remote.0),
    ///         Err(CommandError::Facts(UpdateError::SecretMismatch)) => {
    ///             println!("{id}: the peer lies about commitment {}", number.0);
    ///             arbiter.fail_channel(id).await?;
    ///         }
    ///         Err(other) => return Err(other),
    ///     }
    ///     Ok(())
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
    ) -> Result<Receipt, CommandError> {
        self.update_channel_with(id, updates, Vec::new()).await
    }

    /// The same, and writes records of the node's own with the updates, in one append: all of it is durable
    /// when it returns, and nothing of it counts if there is an error.
    ///
    /// They are found in the log's own [`ByteStore`](arb_core::ports::ByteStore): see [`Arbiter::home`].
    ///
    /// ```
    /// use arb_core::facts::Update;
    /// use arb_core::ids::ChannelId;
    /// use arb_core::log::ByteRecord;
    /// use arb_core::ports::ByteStore;
    /// use arb_watcher::{Arbiter, CommandError};
    ///
    /// /// What the node keeps of a channel, in one commit with the facts if that is possible.
    /// async fn keep<B: ByteStore>(
    ///     (arbiter, store): (&Arbiter, &B),
    ///     (id, updates): (ChannelId, Vec<Update>),
    ///     (name, bytes): (String, Vec<u8>),
    /// ) -> Result<(), Box<dyn std::error::Error>> {
    ///     let folder = "channels".to_owned();
    ///     if store.home().is_some() && store.home() == arbiter.home() {
    ///         let record = ByteRecord { folder, name, bytes };
    ///         arbiter.update_channel_with(id, updates, vec![record]).await?;
    ///         return Ok(());
    ///     }
    ///     arbiter.update_channel(id, updates).await?;
    ///     Ok(store.put(&folder, &name, bytes).await?)
    /// }
    /// ```
    ///
    /// # Errors
    /// As for [`Arbiter::update_channel`]; or a record may not be named so.
    pub async fn update_channel_with(
        &self,
        id: ChannelId,
        updates: Vec<Update>,
        records: Vec<ByteRecord>,
    ) -> Result<Receipt, CommandError> {
        match self.ask(Command::Update { id, updates, records }).await? {
            Answer::Stored(receipt) => Ok(receipt),
            _ => Err(CommandError::Stopped),
        }
    }

    /// Where the log keeps what it is given, if a byte store may be there too.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    #[doc = include_str!("../doc/start.md")]
    /// // Nobody reads bytes of a log in memory.
    /// assert_eq!(arbiter.home(), None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub const fn home(&self) -> Option<Home> {
        self.home
    }

    /// States what the node knows of a channel by now: facts that are older are outdated from now
    /// on, as when the peer proves that it is further (BOLT 2 data loss), until updates reach these
    /// numbers. Of a channel that is set aside it counts once it returns. Not stored: at the next start it is to
    /// be stated again.
    ///
    /// ```
    /// use arb_core::ids::ChannelId;
    /// use arb_core::units::CommitmentNumber;
    /// use arb_watcher::{Arbiter, ChannelNumbers, CommandError};
    ///
    /// /// `channel_reestablish` has proven that the peer has seen our commitment `local`: ours is older.
    /// async fn we_lost_data(arbiter: &Arbiter, id: ChannelId, local: u64, remote: u64) -> Result<(), CommandError> {
    ///     let (local, remote) = (CommitmentNumber(local), CommitmentNumber(remote));
    ///     arbiter.state_numbers(ChannelNumbers { id, local, remote }).await?;
    ///     // From now on it is the peer who must close.
    ///     assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::Outdated(id)));
    ///     Ok(())
    /// }
    /// ```
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

    /// Resolves once the engine is at the source's tip, has looked at the mempool since this call,
    /// and nothing is under way. What has failed may wait for the end of its pause, or the next block.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    #[doc = include_str!("../doc/start.md")]
    /// arbiter.idle().await?;
    /// assert_eq!(arbiter.counts().await?.workers, 0);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The driver has ended.
    pub async fn idle(&self) -> Result<(), CommandError> {
        self.do_it(Command::Idle).await
    }

    /// What is wrong for all channels at once, with the chain or the store, now and whenever that
    /// changes.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Alarms, Arbiter};
    #[doc = include_str!("../doc/start.md")]
    /// let mut alarms = arbiter.alarms();
    /// assert_eq!(*alarms.borrow_and_update(), Alarms::default());
    /// arbiter.shutdown().await;
    /// assert!(alarms.changed().await.is_err()); // nobody raises any more
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn alarms(&self) -> watch::Receiver<Alarms> {
        self.alarms.clone()
    }

    /// Ends the driver: running appends are finished, nothing else. Returns when the driver is
    /// gone, and with it the store; after [`Self::kill`] as well. A port that is in the middle of an answer goes
    /// when it comes to a pause.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, CommandError};
    #[doc = include_str!("../doc/start.md")]
    /// let other = arbiter.clone();
    /// arbiter.shutdown().await;
    /// assert_eq!(other.idle().await, Err(CommandError::Stopped));
    /// # Ok(()) }
    /// ```
    pub async fn shutdown(&self) {
        self.end.send_replace(true);
        self.commands.closed().await;
    }

    /// Ends the driver at once, wherever it is. Always safe.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Ended};
    #[doc = include_str!("../doc/start.md")]
    /// arbiter.kill();
    /// assert_eq!(arbiter.ended().await, Ended::Killed);
    /// # Ok(()) }
    /// ```
    pub fn kill(&self) {
        self.task.abort();
    }

    /// Resolves once the driver has ended, whatever ended it, with the reason. A node that has this
    /// awaited by a task of its own knows that nobody watches its channels any more.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::{Arbiter, Ended};
    #[doc = include_str!("../doc/start.md")]
    /// let watched = arbiter.clone();
    /// let guard = tokio::spawn(async move {
    ///     match watched.ended().await {
    ///         Ended::Asked | Ended::Killed => {}
    ///         // Start it again, or end the node: nobody watches its channels.
    ///         why => eprintln!("the arbiter has ended: {why}"),
    ///     }
    /// });
    /// arbiter.shutdown().await;
    /// assert_eq!(arbiter.ended().await, Ended::Asked);
    /// guard.await?;
    /// # Ok(()) }
    /// ```
    pub async fn ended(&self) -> Ended {
        let mut said = self.last_word.clone();
        let why = said.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        // It says a word in any case.
        why.unwrap_or(Ended::Killed)
    }

    /// Whether the driver has ended.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    #[doc = include_str!("../doc/start.md")]
    /// assert!(!arbiter.is_stopped());
    /// arbiter.shutdown().await;
    /// assert!(arbiter.is_stopped());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.task.is_finished()
    }
}
