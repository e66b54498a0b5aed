//! One LDK node: its channel manager, its chain monitor, and what both are given.

use crate::chain::EmbeddedChain;
use arb_core::claim::trough::Troughs;
use arb_core::ports::FeeEstimates;
use arb_node_adapter::{
    Egress, LdkFees, MonitorEgress, TappedMessages, TappedSigner, TappedSigners, Taps,
};
use arb_watcher::memory::MemoryCoins;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, BlockHash, FeeRate, Network, OutPoint, Transaction};
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter, Listen};
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::events::{Event, EventsProvider};
use lightning::ln::channelmanager::{ChainParameters, ChannelManager};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner};
use lightning::util::config::UserConfig;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{ReadableArgs, Writeable};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Hands, LdkError, NoRoutes};

/// Signers of the channels.
pub type Signers = TappedSigners<Arc<KeysManager>>;
/// The signer of one channel.
pub type ChannelKeys = TappedSigner<InMemorySigner>;
/// The persister that a node's chain monitor is given.
pub type StoredMonitors = Arc<dyn Persist<ChannelKeys> + Send + Sync>;
/// Makes a node's persister.
pub type Stored = dyn Fn(&Arc<Taps>) -> StoredMonitors;
/// Monitors of all channels of a node.
pub type Monitors = ChainMonitor<
    ChannelKeys,
    Arc<dyn Filter + Send + Sync>,
    Arc<MonitorEgress<Arc<Outbox>>>,
    Arc<LdkFees>,
    Arc<Quiet>,
    StoredMonitors,
    Arc<KeysManager>,
>;
/// Channels of a node.
pub type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Outbox>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Signers>,
    Arc<LdkFees>,
    Arc<NoRoutes>,
    Arc<NoRoutes>,
    Arc<Quiet>,
>;

/// The channels that a node opens and accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `option_static_remotekey`.
    StaticRemotekey,
    /// `option_anchors`.
    Anchors,
    /// `zero_fee_commitments`, or one of the others where the peer has no such channels.
    ZeroFee,
}

impl Kind {
    /// What its nodes are set to.
    pub fn config(self) -> UserConfig {
        let mut config = UserConfig::default();
        let handshake = &mut config.channel_handshake_config;
        handshake.negotiate_anchors_zero_fee_htlc_tx = self != Self::StaticRemotekey;
        handshake.negotiate_anchor_zero_fee_commitments = self == Self::ZeroFee;
        handshake.announce_for_forwarding = false;
        handshake.minimum_depth = 1;
        handshake.max_inbound_htlc_value_in_flight_percent_of_channel = 100;
        config.channel_handshake_limits.force_announced_channel_preference = false;
        config.manually_accept_inbound_channels = true;
        config.accept_forwards_to_priv_channels = true;
        config.reject_inbound_splices = false;
        config
    }
}

/// Logs nothing.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Logger for Quiet {
    fn log(&self, _: Record) {}
}

/// Packages that LDK wants broadcast, until somebody takes them.
#[derive(Debug, Default)]
pub struct Outbox {
    packages: Mutex<Vec<Vec<Transaction>>>,
}

impl Outbox {
    /// Takes what waits.
    pub fn take(&self) -> Vec<Vec<Transaction>> {
        std::mem::take(&mut *self.packages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BroadcasterInterface for Outbox {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        let package = txs.iter().map(|tx| (*tx).clone()).collect();
        self.packages.lock().unwrap_or_else(PoisonError::into_inner).push(package);
    }
}

/// A persister in memory that is always done at once.
#[derive(Debug, Default)]
pub struct Kept {
    monitors: Mutex<BTreeMap<String, Vec<u8>>>,
    updates: AtomicU64,
    whole: AtomicU64,
}

impl Kept {
    /// The newest monitors, as LDK writes them.
    pub fn monitors(&self) -> BTreeMap<String, Vec<u8>> {
        self.monitors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Bytes of all updates so far, and of the whole monitors that LDK's simpler persister writes for
    /// them.
    pub fn written(&self) -> [u64; 2] {
        [self.updates.load(Ordering::Relaxed), self.whole.load(Ordering::Relaxed)]
    }

    fn keep(&self, name: MonitorName, monitor: &ChannelMonitor<ChannelKeys>) {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = monitor.encode();
        self.whole.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        monitors.insert(name.to_string(), bytes);
    }
}

impl Persist<ChannelKeys> for Kept {
    fn persist_new_channel(
        &self,
        name: MonitorName,
        monitor: &ChannelMonitor<ChannelKeys>,
    ) -> ChannelMonitorUpdateStatus {
        self.keep(name, monitor);
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        name: MonitorName,
        update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<ChannelKeys>,
    ) -> ChannelMonitorUpdateStatus {
        let update = update.map_or(0, Writeable::serialized_length);
        self.updates.fetch_add(update as u64, Ordering::Relaxed);
        self.keep(name, monitor);
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, name: MonitorName) {
        let mut monitors = self.monitors.lock().unwrap_or_else(PoisonError::into_inner);
        monitors.remove(&name.to_string());
    }
}

/// What a node is made with that is not its own affair.
pub struct Pieces {
    /// What the decorators queue.
    pub taps: Arc<Taps>,
    /// The node's keys.
    pub keys: Arc<KeysManager>,
    /// The signer provider of manager and monitors.
    pub signers: Arc<Signers>,
    /// Where the channel manager publishes.
    pub outbox: Arc<Outbox>,
    /// Whether its monitors publish.
    pub egress: Arc<Egress>,
    /// Where the monitors publish.
    pub broadcaster: Arc<MonitorEgress<Arc<Outbox>>>,
    /// The persister of the chain monitor.
    pub persist: StoredMonitors,
}

impl std::fmt::Debug for Pieces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces").field("egress", &self.egress).finish_non_exhaustive()
    }
}

/// What a channel manager is given.
pub(super) struct Parts {
    pub(super) taps: Arc<Taps>,
    pub(super) monitors: Arc<Monitors>,
    pub(super) keys: Arc<KeysManager>,
    pub(super) signers: Arc<Signers>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) egress: Arc<Egress>,
    pub(super) fees: Arc<LdkFees>,
}

impl Parts {
    /// `run` makes the random numbers of each start its own.
    pub(super) fn new(seed: u8, run: u64, stored: &Stored) -> Self {
        let taps = Arc::new(Taps::new());
        let keys = Arc::new(KeysManager::new(&[seed; 32], run, u32::from(seed), true));
        let outbox = Arc::new(Outbox::default());
        let egress = Arc::new(Egress::default().recorded_by(taps.clone()));
        Self::of(Pieces {
            signers: Arc::new(TappedSigners::new(keys.clone(), taps.clone())),
            broadcaster: Arc::new(MonitorEgress::new(outbox.clone(), egress.clone())),
            persist: stored(&taps),
            taps,
            keys,
            outbox,
            egress,
        })
    }

    pub(super) fn of(pieces: Pieces) -> Self {
        let Pieces { taps, keys, signers, outbox, egress, broadcaster, persist } = pieces;
        let floor = FeeRate::BROADCAST_MIN;
        let fees = Arc::new(LdkFees::new(FeeEstimates {
            targets: Vec::new(),
            floor,
            troughs: Troughs::default(),
        }));
        let monitors = Arc::new(ChainMonitor::new(
            None,
            broadcaster,
            Arc::new(Quiet),
            fees.clone(),
            persist,
            keys.clone(),
            keys.get_peer_storage_key(),
        ));
        Self { taps, monitors, keys, signers, outbox, egress, fees }
    }

    pub(super) fn with(self, manager: Manager) -> Node {
        let manager = Arc::new(manager);
        Node {
            messages: TappedMessages::new(manager.clone(), self.taps.clone()),
            manager,
            taps: self.taps,
            monitors: self.monitors,
            keys: self.keys,
            signers: self.signers,
            outbox: self.outbox,
            egress: self.egress,
            fees: self.fees,
            events: Mutex::default(),
        }
    }
}

/// One node.
pub struct Node {
    /// Its channels.
    pub manager: Arc<Manager>,
    /// The manager's messages, watched.
    pub messages: TappedMessages<Arc<Manager>>,
    /// What the decorators have seen.
    pub taps: Arc<Taps>,
    /// Their monitors.
    pub monitors: Arc<Monitors>,
    /// Its keys.
    pub keys: Arc<KeysManager>,
    /// Its signers, watched.
    pub signers: Arc<Signers>,
    /// What it wants broadcast.
    pub outbox: Arc<Outbox>,
    /// Whether its monitors publish.
    pub egress: Arc<Egress>,
    /// Its feerates.
    pub fees: Arc<LdkFees>,
    events: Mutex<Vec<Event>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl Node {
    /// A node without channels at the tip of `chain`. Equal seeds give equal keys.
    pub fn new(seed: u8, kind: Kind, chain: &EmbeddedChain, stored: &Stored) -> Self {
        let (height, hash) = chain.tip();
        Self::begin(seed, kind.config(), BestBlock::new(hash, height), stored)
    }

    /// A node without channels that begins at a block.
    pub fn begin(seed: u8, config: UserConfig, best_block: BestBlock, stored: &Stored) -> Self {
        let parts = Parts::new(seed, 1, stored);
        let params = ChainParameters { network: Network::Regtest, best_block };
        let manager = ChannelManager::new(
            parts.fees.clone(),
            parts.monitors.clone(),
            parts.outbox.clone(),
            Arc::new(NoRoutes),
            Arc::new(NoRoutes),
            Arc::new(Quiet),
            parts.keys.clone(),
            parts.keys.clone(),
            parts.signers.clone(),
            config,
            params,
            1_700_000_000,
        );
        parts.with(manager)
    }

    /// The node's id.
    pub fn id(&self) -> PublicKey {
        self.manager.get_our_node_id()
    }

    /// A block is connected: LDK wants the manager to hear of it first.
    pub fn connect(&self, block: &Block, height: u32) {
        self.egress.best_height(height);
        self.manager.block_connected(block, height);
        self.monitors.block_connected(block, height);
    }

    /// The commitment that this node would broadcast by a monitor as it was written.
    ///
    /// # Errors
    /// LDK cannot read the monitor.
    pub fn commitment_in(&self, monitor: &[u8]) -> Result<Option<Transaction>, LdkError> {
        let monitor = self.read(monitor)?;
        self.closes(&monitor, monitor.get_funding_txo().into_bitcoin_outpoint())
    }

    /// The same of a channel that is spliced, for one of its funding outputs, after the monitor was shown
    /// the blocks that came since.
    ///
    /// # Errors
    /// LDK cannot read the monitor.
    pub fn commitment_of(
        &self,
        monitor: &[u8],
        funding: OutPoint,
        chain: &EmbeddedChain,
    ) -> Result<Option<Transaction>, LdkError> {
        let monitor = self.read(monitor)?;
        self.catch_up(&monitor, &Outbox::default(), chain);
        self.closes(&monitor, funding)
    }

    /// What this node would publish next to the commitment that it had when a monitor was written: transactions
    /// of the second stage, paid for with these coins, of outputs that no block spends. The chain shows the
    /// commitment.
    ///
    /// # Errors
    /// LDK cannot read the monitor.
    pub fn second_stages(
        &self,
        monitor: &[u8],
        chain: &EmbeddedChain,
        coins: MemoryCoins,
    ) -> Result<Vec<Transaction>, LdkError> {
        let monitor = self.read(monitor)?;
        let (quiet, before) = (Arc::new(Quiet), self.outbox.take());
        self.catch_up(&monitor, &*self.outbox, chain);
        let events = Mutex::new(Vec::new());
        let take = |event: Event| {
            events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            Ok(())
        };
        monitor.process_pending_events(&&take, &quiet).map_err(LdkError::refused)?;
        let hands = Hands::new(self, coins);
        for event in events.into_inner().unwrap_or_else(PoisonError::into_inner) {
            hands.handle(self, &event);
        }
        let mut stages = self.outbox.take().concat();
        stages.retain(|tx| {
            let mut inputs = tx.input.iter();
            inputs.all(|input| chain.confirmed_spender(&input.previous_output).is_none())
        });
        for package in before {
            self.outbox.broadcast_transactions(&package.iter().collect::<Vec<_>>());
        }
        Ok(stages)
    }

    /// Shows a monitor the blocks that came since it was written.
    fn catch_up<B: BroadcasterInterface>(
        &self,
        monitor: &ChannelMonitor<ChannelKeys>,
        outbox: &B,
        chain: &EmbeddedChain,
    ) {
        for height in monitor.current_best_block().height + 1..=chain.height() {
            let Some(block) = chain.block_at(height) else { continue };
            let all: Vec<_> = block.txdata.iter().enumerate().collect();
            monitor.block_connected(&block.header, &all, height, outbox, &*self.fees, &&Quiet);
        }
    }

    fn read(&self, monitor: &[u8]) -> Result<ChannelMonitor<ChannelKeys>, LdkError> {
        let args = (&*self.keys, &*self.signers);
        let read = <(BlockHash, ChannelMonitor<ChannelKeys>)>::read(&mut &*monitor, args);
        Ok(read.map_err(LdkError::refused)?.1)
    }

    fn closes(
        &self,
        monitor: &ChannelMonitor<ChannelKeys>,
        funding: OutPoint,
    ) -> Result<Option<Transaction>, LdkError> {
        let spends = |tx: &Transaction| tx.input.iter().any(|i| i.previous_output == funding);
        Ok(self.all_closes(monitor)?.into_iter().find(spends))
    }

    /// Commitments that this node would broadcast by a monitor as it was written.
    ///
    /// # Errors
    /// LDK cannot read the monitor.
    pub fn commitments_in(&self, monitor: &[u8]) -> Result<Vec<Transaction>, LdkError> {
        self.all_closes(&self.read(monitor)?)
    }

    fn all_closes(
        &self,
        monitor: &ChannelMonitor<ChannelKeys>,
    ) -> Result<Vec<Transaction>, LdkError> {
        let (outbox, quiet) = (Arc::new(Outbox::default()), Arc::new(Quiet));
        monitor.broadcast_latest_holder_commitment_txn(&outbox, &self.fees, &quiet);
        let closing = Mutex::new(outbox.take().concat());
        let take = |event: Event| {
            if let Event::BumpTransaction(BumpTransactionEvent::ChannelClose {
                commitment_tx,
                ..
            }) = event
            {
                closing.lock().unwrap_or_else(PoisonError::into_inner).push(commitment_tx);
            }
            Ok(())
        };
        monitor.process_pending_events(&&take, &quiet).map_err(LdkError::refused)?;
        Ok(closing.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes events of manager and monitors into the node's list; true if there were any.
    pub fn collect_events(&self) -> bool {
        let taken = Mutex::new(Vec::new());
        let take = |event: Event| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            Ok(())
        };
        self.manager.process_pending_events(&take);
        self.monitors.process_pending_events(&take);
        let taken = taken.into_inner().unwrap_or_else(PoisonError::into_inner);
        let any = !taken.is_empty();
        self.events.lock().unwrap_or_else(PoisonError::into_inner).extend(taken);
        any
    }

    /// Takes the first event for which `wanted` gives something.
    pub fn take_event<T>(&self, wanted: impl Fn(&Event) -> Option<T>) -> Option<T> {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, found) =
            events.iter().enumerate().find_map(|(at, event)| Some((at, wanted(event)?)))?;
        events.remove(at);
        Some(found)
    }
}
