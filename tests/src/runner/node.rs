//! The node around the arbiter: its store, its subscriptions, and what it was told.
use super::Failed;
use super::crash::{CrashPlan, LastReports, Life, MortalBroadcast, MortalLog};
use super::ldk::Beside;
use crate::scenario::ast::SubscriberName;
use crate::world::{Client, Shown, ShownBlocks, UpTo, World, WorldFees};
use arb_core::arbitrator::{Alert, ChannelEvent, Notice, UpstreamResolution, UpstreamVerdict};
use arb_core::ids::{ChannelId, HtlcId};
use arb_core::log::ChangeLog;
use arb_node_adapter::{ArbiterCoins, ArbiterEgress};
use arb_store::{LmdbLog, StoreConfig, StoreControl, StoreError};
use arb_watcher::{
    Arbiter, ChainEventSubscription, ChannelNumbers, CommandError, Delivery, NoticeStream, Ports,
    Settings,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// How long a store may take to be given up by a process that was killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// A subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) channel: ChannelId,
    pub(super) delivery: Delivery,
    stream: Option<ChainEventSubscription>,
    /// It has unsubscribed.
    ended: bool,
    /// What it got: an event that comes again has the same number.
    pub(super) events: BTreeMap<u64, ChannelEvent>,
}

/// What the node was told, over all its lives.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) upstream: BTreeMap<(ChannelId, HtlcId), UpstreamVerdict>,
    /// Of these, what it acknowledged.
    settled: BTreeSet<(ChannelId, HtlcId)>,
    pub(super) alerts: BTreeSet<(ChannelId, Alert)>,
    /// What can never be right, whatever comes.
    pub(super) contradictions: Vec<String>,
}

/// The node.
pub(super) struct Node {
    arbiter: Option<Arbiter>,
    notices: Option<NoticeStream>,
    pub(super) subscribers: BTreeMap<SubscriberName, Subscriber>,
    pub(super) told: Told,
    control: Option<StoreControl>,
    settings: Settings,
    pub(super) plan: Arc<CrashPlan>,
    /// What an LDK node gives the arbiter.
    pub(super) beside: Option<Beside>,
    /// Of the channels that were forgotten.
    pub(super) last_reports: LastReports,
    folders: TempDir,
    /// Stores so far; the last one is in use.
    stores: u32,
}

/// A folder for stores: in memory if the system has a place for that.
fn folder() -> std::io::Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = || tempfile::Builder::new().prefix("arb-scenario-").to_owned();
    if memory.is_dir()
        && let Ok(folder) = builder().tempdir_in(memory)
    {
        return Ok(folder);
    }
    builder().tempdir()
}

impl Node {
    pub(super) fn new(settings: Settings, plan: Arc<CrashPlan>) -> Result<Self, Failed> {
        let folders = folder().map_err(|error| Failed::new("a folder for the store", error))?;
        Ok(Self {
            arbiter: None,
            notices: None,
            subscribers: BTreeMap::new(),
            told: Told::default(),
            control: None,
            settings,
            plan,
            beside: None,
            last_reports: LastReports::default(),
            folders,
            stores: 0,
        })
    }

    /// The handle of the running arbiter.
    pub(super) fn arbiter(&self) -> Result<Arbiter, Failed> {
        self.arbiter.clone().ok_or_else(|| Failed::new("a running arbiter", "none"))
    }

    pub(super) fn is_running(&self) -> bool {
        self.arbiter.is_some()
    }

    fn folder(&self) -> PathBuf {
        self.folders.path().join(self.stores.to_string())
    }

    /// Puts an empty store in the place of the present one.
    pub(super) fn replace_store(&mut self) {
        self.stores += 1;
    }

    /// Opens the store, waiting for a process that was just killed to give it up.
    pub(super) async fn open_store(&self) -> Result<LmdbLog, Failed> {
        let config = StoreConfig {
            initial_map: 1 << 20,
            reserve: 256 << 10,
            low: 0,
            critical: 0,
            ..StoreConfig::default()
        };
        let since = tokio::time::Instant::now();
        loop {
            match LmdbLog::open(self.folder(), config.clone()) {
                Ok(log) => return Ok(log),
                Err(StoreError::InUse { .. }) if since.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                Err(error) => return Err(Failed::new("the store to open", error)),
            }
        }
    }

    /// Starts the arbiter on the present store and opens every subscription again by name.
    pub(super) async fn start(
        &mut self,
        world: &World,
        numbers: Vec<ChannelNumbers>,
    ) -> Result<(), Failed> {
        self.start_at(world, numbers, None).await
    }

    /// As [`Self::start`], with no block above `height`, as if they were still to come.
    pub(super) async fn start_at(
        &mut self,
        world: &World,
        numbers: Vec<ChannelNumbers>,
        height: Option<u32>,
    ) -> Result<(), Failed> {
        let log = self.open_store().await?;
        self.control = Some(log.control());
        // A wallet that was started anew knows of no reservations.
        world.wallet.forget_reservations();
        let life = Life::new(Arc::clone(&self.plan));
        let broadcast = MortalBroadcast {
            inner: world.backend.broadcaster(Arc::clone(&world.faults)),
            life: life.clone(),
        };
        let fees = WorldFees { faults: Arc::clone(&world.faults) };
        let scripts = arb_watcher::ScriptsPort::default();
        let blocks = UpTo { inner: world.backend.blocks(), height };
        let source = match world.shown {
            Shown::Blocks => ShownBlocks::Whole(blocks),
            Shown::Confirm => {
                let remembered = log.blocks().map_err(|error| Failed::new("the store", error))?;
                let last = self.last_reports.clone();
                let fundings = Box::new(move || last.fundings());
                ShownBlocks::Filtered(Arc::new(Client::new(blocks, remembered, fundings)))
            }
        };
        let coins = world.wallet.clone();
        let (policy, last) = (self.settings.policy, self.last_reports.clone());
        let log = MortalLog { inner: log, life, policy, last };
        let started = match self.beside.clone() {
            None => {
                let signer = world.signer.clone();
                let ports = Ports { source, broadcast, fees, signer, coins, scripts };
                Arbiter::start(log, ports, self.settings, numbers).await
            }
            Some(Beside { signer, egress, fence }) => {
                let broadcast =
                    ArbiterEgress::seeing(broadcast, egress.clone(), source.clone()).telling(fence);
                let coins = ArbiterCoins::seeing(coins, egress, source.clone());
                let ports = Ports { source, broadcast, fees, signer, coins, scripts };
                Arbiter::start(log, ports, self.settings, numbers).await
            }
        };
        let arbiter = started.map_err(|error| Failed::new("the arbiter to start", error))?;
        // Whoever gives up waiting for what follows can kill it.
        self.arbiter = Some(arbiter.clone());
        let notices = arbiter.notices().await.map_err(refused)?;
        self.notices = Some(notices);
        let open = self.subscribers.iter_mut().filter(|(_, subscriber)| !subscriber.ended);
        for (name, subscriber) in open {
            let opened = arbiter.subscribe(subscriber.channel, &name.0, subscriber.delivery).await;
            subscriber.stream = match opened {
                Ok(stream) => Some(stream),
                // Forgotten: nothing more is to come.
                Err(CommandError::UnknownChannel(_)) => None,
                Err(error) => return Err(refused(error)),
            };
        }
        Ok(())
    }

    /// A clean stop.
    pub(super) async fn stop(&mut self) {
        let Some(arbiter) = self.let_go() else { return };
        arbiter.shutdown().await;
        ended(&arbiter).await;
    }

    /// No clean stop.
    pub(super) async fn kill(&mut self) {
        let Some(arbiter) = self.let_go() else { return };
        arbiter.kill();
        ended(&arbiter).await;
    }

    fn let_go(&mut self) -> Option<Arbiter> {
        // What reached a subscriber before the end has reached it.
        self.read_events();
        self.notices = None;
        self.control = None;
        for subscriber in self.subscribers.values_mut() {
            subscriber.stream = None;
        }
        self.arbiter.take()
    }

    pub(super) async fn subscribe(
        &mut self,
        name: &SubscriberName,
        channel: ChannelId,
        delivery: Delivery,
    ) -> Result<(), CommandError> {
        let Some(arbiter) = &self.arbiter else { return Err(CommandError::Stopped) };
        let stream = arbiter.subscribe(channel, &name.0, delivery).await?;
        let events = BTreeMap::new();
        let stream = Some(stream);
        let subscriber = Subscriber { channel, delivery, stream, ended: false, events };
        self.subscribers.insert(name.clone(), subscriber);
        Ok(())
    }

    /// Acknowledges everything that a subscriber got so far.
    pub(super) async fn acknowledge(&self, name: &SubscriberName) -> Result<(), CommandError> {
        let Some(subscriber) = self.subscribers.get(name) else { return Ok(()) };
        let last = subscriber.events.keys().next_back();
        match (&subscriber.stream, last) {
            (Some(stream), Some(last)) => stream.acknowledge(*last).await,
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The stream of a subscriber ends; what it got is remembered.
    pub(super) fn close_subscription(&mut self, name: &SubscriberName) {
        if let Some(subscriber) = self.subscribers.get_mut(name) {
            (subscriber.stream, subscriber.ended) = (None, true);
        }
    }

    /// Reads what subscribers got. True if there was something.
    pub(super) fn read_events(&mut self) -> bool {
        let mut read = false;
        for subscriber in self.subscribers.values_mut() {
            let Some(stream) = &mut subscriber.stream else { continue };
            while let Some(delivered) = stream.try_next() {
                read = true;
                let known = subscriber.events.insert(delivered.number, delivered.event);
                if known.is_some_and(|known| known != delivered.event) {
                    let what = format!("event {} came as two different ones", delivered.number);
                    self.told.contradictions.push(what);
                }
            }
        }
        read
    }

    /// A notice that is there already.
    pub(super) async fn notice(&mut self) -> Option<(ChannelId, Notice)> {
        let notices = self.notices.as_mut()?;
        tokio::select! {
            biased;
            notice = notices.next() => notice,
            () = std::future::ready(()) => None,
        }
    }

    pub(super) fn limit_disk(&self, quota: Option<u64>) -> Result<(), Failed> {
        let control = self.control.as_ref().ok_or_else(|| Failed::new("an open store", "none"))?;
        control.set_quota(quota).map_err(|error| Failed::new("the store's control", error))
    }
}

impl Told {
    /// Takes in a notice; the same one may come any number of times. A verdict that was acknowledged stands,
    /// and one that an HTLC is fulfilled.
    pub(super) fn take(&mut self, channel: ChannelId, notice: &Notice) {
        match notice {
            Notice::Upstream { htlc, resolution, hash, .. } => {
                let verdict = resolution.verdict();
                let before = self.upstream.insert((channel, *htlc), verdict);
                let stands = self.settled.contains(&(channel, *htlc))
                    || before == Some(UpstreamVerdict::Fulfilled);
                if stands && before.is_some_and(|before| before != verdict) {
                    let what = format!("{before:?}, then {verdict:?} for HTLC {htlc:?}");
                    self.contradictions.push(what);
                }
                if let UpstreamResolution::Fulfil(preimage) = resolution
                    && preimage.hash() != *hash
                {
                    self.contradictions.push(format!("a wrong preimage for HTLC {htlc:?}"));
                }
            }
            Notice::Alert(alert) => {
                self.alerts.insert((channel, *alert));
            }
            Notice::Failing(_) => {}
        }
    }

    /// A notice was acknowledged, and the arbiter knows.
    pub(super) fn acknowledged(&mut self, channel: ChannelId, notice: &Notice) {
        if let Notice::Upstream { htlc, .. } = notice {
            self.settled.insert((channel, *htlc));
        }
    }
}

/// A refused command, as a failure of its line.
pub(super) fn refused(error: CommandError) -> Failed {
    Failed::new("the arbiter to do it", error)
}

async fn ended(arbiter: &Arbiter) {
    while !arbiter.is_stopped() {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}
