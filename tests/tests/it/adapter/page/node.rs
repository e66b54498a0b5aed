//! An LDK node with an open channel takes the page, opens another one, and is killed and started again; its channels are closed, and
//! all comes home.
use super::{Bumps, Events, Sink, Store, Sweeper, adoption, beside, look, looked, on_event, run};
use crate::adapter::Failed;
use arb_core::claim::trough::PastBlock;
use arb_core::ids::ChannelId;
use arb_core::ports::{BlockFees, BlockSource, CoinSource, SeesMempool};
use arb_core::units::{BlockHeight, BlockRef};
use arb_node_adapter::{FromLdkWallet, LdkCoins, ListenSource, Mode, SyncWallet, Taps, Witness};
use arb_tests::chain::Selection;
use arb_tests::ldk::{
    ChannelKeys, Kept, Kind, Link, Net, Node, Outbox, Pieces, Quiet, Restart, Sent, Wallet,
};
use arb_watcher::Arbiter;
use arb_watcher::memory::MemoryCoins;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, Block, BlockHash, OutPoint, Transaction, Txid};
use lightning::chain::Listen;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::events::{ClosureReason, Event};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::sign::{KeysManager, OutputSpender, SpendableOutputDescriptor};
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE as MONITORS,
    CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE as MONITORS_SECOND, KVStoreSync,
};
use lightning::util::ser::Writeable;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, block_in_place};

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const PATIENCE: Duration = Duration::from_secs(30);

/// What is not completed after that is held.
const A_MOMENT: Duration = Duration::from_millis(500);

/// A Bitcoin Core that knows of nothing but what is asked for.
#[derive(Clone)]
struct Core;

impl SeesMempool for Core {}

impl BlockSource for Core {
    type Error = Infallible;

    async fn tip(&self) -> Result<BlockRef, Infallible> {
        Ok(BlockRef { height: BlockHeight(0), hash: BlockHash::all_zeros() })
    }

    async fn hash_at(&self, _: BlockHeight) -> Result<Option<BlockHash>, Infallible> {
        Ok(None)
    }

    async fn block(&self, _: BlockHash) -> Result<Option<Block>, Infallible> {
        Ok(None)
    }

    async fn mempool_spenders(&self, _: Vec<OutPoint>) -> Result<Vec<Transaction>, Infallible> {
        Ok(Vec::new())
    }

    async fn changed(&self) {
        pending().await
    }
}

impl BlockFees for Core {
    async fn past_block(&self, _: BlockHash) -> Result<Option<PastBlock>, Infallible> {
        Ok(None)
    }
}

/// The node's sweeper, which is durable.
#[derive(Clone, Default)]
struct Tracked(Arc<Mutex<Vec<SpendableOutputDescriptor>>>);

impl Sweeper for Tracked {
    fn track(&self, outputs: Vec<SpendableOutputDescriptor>) -> Result<(), ()> {
        self.0.lock().map_err(drop)?.extend(outputs);
        Ok(())
    }
}

/// What outlives the node.
struct Home {
    folder: tempfile::TempDir,
    coins: MemoryCoins,
    tracked: Tracked,
    sent: Sent,
    /// What the arbiter handed out.
    ours: BTreeSet<Txid>,
    /// Outputs that LDK told of.
    told: BTreeSet<OutPoint>,
    closed: BTreeMap<LdkChannelId, ClosureReason>,
    starts: u64,
}

impl Home {
    async fn new(net: &mut Net) -> Result<Self, Failed> {
        let coins = MemoryCoins::new(SecretKey::from_slice(&[42; 32])?, &[]);
        let script = coins.change_script().await?;
        let before = net.chain.height();
        for _ in 0..8 {
            let outpoint = net.chain.fund(script.clone(), Amount::from_sat(100_000))?;
            let output = net.chain.prevout(&outpoint).ok_or("no coin")?.clone();
            coins.add(outpoint, output);
        }
        net.show(before + 1);
        Ok(Self {
            folder: tempfile::tempdir()?,
            coins,
            tracked: Tracked::default(),
            sent: Sent::default(),
            ours: BTreeSet::new(),
            told: BTreeSet::new(),
            closed: BTreeMap::new(),
            starts: 1,
        })
    }
}

/// The node from a start to its end.
struct Life {
    arbiter: Arbiter,
    sink: Sink,
    events: Events,
    bumps: Bumps<Outbox, SyncWallet<Arc<Wallet>>, Quiet>,
    coins: Arc<LdkCoins<super::Wallet<SyncWallet<Arc<Wallet>>>>>,
    witness: Witness,
    store: Store,
    running: JoinHandle<Result<(), String>>,
    /// Events that are to be handled again.
    waiting: Vec<Event>,
}

/// LDK waits for what is queued, and then to be told that it is recorded, which comes a moment later, or never for what is held.
fn waits(taps: Arc<Taps>) -> impl Fn(&[Node]) -> bool {
    move |nodes| {
        let all = || {
            let updates = nodes[0].monitors.list_pending_monitor_updates();
            let updates = updates.into_iter().filter(|(_, of)| !of.is_empty());
            (taps.backlog(), updates.collect::<BTreeMap<_, _>>())
        };
        let before = all();
        let (mut last, mut since) = (before.clone(), Instant::now());
        block_in_place(|| {
            while last.0 > 0 || (!last.1.is_empty() && since.elapsed() < A_MOMENT) {
                assert!(since.elapsed() < PATIENCE, "nothing is recorded");
                std::thread::sleep(Duration::from_millis(1));
                let now = all();
                if now != last {
                    (last, since) = (now, Instant::now());
                }
            }
        });
        last != before
    }
}

impl Life {
    /// The node starts as the page has it, with these monitors of another store if there are any.
    async fn start(
        net: &mut Net,
        home: &mut Home,
        manager: &[u8],
        moved: BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, Failed> {
        home.starts += 1;
        let keys = Arc::new(KeysManager::new(&[1; 32], home.starts, 1, true));
        let outbox = Arc::new(Outbox::default());
        // What the life before had of the store may be let go of a moment after it has ended.
        let since = Instant::now();
        let made = loop {
            match beside(home.folder.path(), keys.clone(), outbox.clone()) {
                Ok(made) => break made,
                Err(why) if since.elapsed() > PATIENCE => return Err(why),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        for (name, monitor) in moved {
            made.store.write(MONITORS, MONITORS_SECOND, &name, monitor)?;
        }
        let (store, egress, taps) = (made.store.clone(), made.egress.clone(), made.taps.clone());
        egress.set(Mode::Own);
        let blocks: BTreeMap<u32, Block> = (net.chain.height() - 20..=net.chain.height())
            .filter_map(|height| Some((height, Block::clone(net.chain.block_at(height)?))))
            .collect();
        let restart = Restart {
            seed: 1,
            config: Kind::Anchors.config(),
            manager,
            store: &store,
            blocks: &blocks,
            forks: &BTreeMap::new(),
        };
        let mut node = restart.start_with(Pieces {
            taps: taps.clone(),
            keys: keys.clone(),
            signers: made.signers.clone(),
            outbox,
            egress: egress.clone(),
            broadcaster: made.broadcaster.clone(),
            persist: made.persist.clone(),
        })?;
        let (messages, _listener) = made.around(node.manager.clone(), node.monitors.clone());
        node.messages = messages;
        egress.best_height(net.chain.height());

        let mut open_before = Vec::new();
        for details in node.manager.list_channels() {
            let monitor = node.monitors.get_monitor(details.channel_id).map_err(|()| "none")?;
            open_before.extend(adoption(&monitor, &details, &keys));
        }
        let (manager, monitors) = (node.manager.clone(), node.monitors.clone());
        let completed = move |channel: ChannelId, update| {
            let done = monitors.channel_monitor_updated(LdkChannelId(channel.0), update);
            assert!(done.is_ok(), "LDK knows the channel");
        };
        let wallet = FromLdkWallet::new(Arc::new(SyncWallet(Arc::new(Wallet(home.coins.clone())))));
        let (shows, shown) = oneshot::channel();
        let (starts, started) = oneshot::channel();
        let of_node = (manager, node.fees.clone(), wallet.clone());
        let ports = (home.sent.clone(), Core);
        let (signers, broadcaster) = (made.signers.clone(), made.broadcaster.clone());
        // On a thread of its own, for the compiler does not see that `run` is `Send`.
        let running = tokio::task::spawn_blocking(move || {
            let shows = |source: ListenSource| drop(shows.send(source));
            let told = (shows, |arbiter: Arbiter| drop(starts.send(arbiter)));
            let running = run(made, keys, of_node, ports, open_before, told, completed);
            Handle::current().block_on(running).map_err(|why| why.to_string())
        });
        let source = tokio::time::timeout(PATIENCE, shown).await??;
        for (height, block) in &blocks {
            source.block_connected(block, *height);
        }
        source.round_complete();
        let arbiter = tokio::time::timeout(PATIENCE, started).await??;
        net.also_show(Box::new(move |block, height| {
            source.block_connected(block, height);
            source.round_complete();
        }));
        net.replace(0, node);
        net.when_quiet(Box::new(waits(taps)));
        let coins = Arc::new(LdkCoins::beside(wallet, egress.clone()));
        let bumps = Bumps::new(broadcaster, coins.clone(), signers, Arc::new(Quiet));
        let sink = Sink(arbiter.clone(), egress.clone());
        let events = Events::new(store.clone(), sink.clone(), sink.clone(), egress);
        let witness = Witness::open(&*store)?;
        let waiting = Vec::new();
        Ok(Self { arbiter, sink, events, bumps, coins, witness, store, running, waiting })
    }

    /// The node ends where it stands.
    async fn end(self) -> Result<(), Failed> {
        self.arbiter.shutdown().await;
        Ok(tokio::time::timeout(PATIENCE, self.running).await???)
    }

    /// LDK's events, in order; of what is not handled LDK tells again.
    async fn hears(&mut self, net: &Net, home: &mut Home) {
        let node = &net.nodes[0];
        node.monitors.rebroadcast_pending_claims();
        node.collect_events();
        let taken = |event: &Event| match event {
            Event::SpendableOutputs { .. }
            | Event::BumpTransaction(_)
            | Event::ChannelClosed { .. }
            | Event::DiscardFunding { .. } => Some(event.clone()),
            _ => None,
        };
        let mut all = std::mem::take(&mut self.waiting);
        all.extend(std::iter::from_fn(|| node.take_event(taken)));
        for event in all {
            match &event {
                Event::SpendableOutputs { outputs, .. } => home.told.extend(outputs.iter().map(at)),
                Event::ChannelClosed { channel_id, reason, .. } => {
                    home.closed.insert(*channel_id, reason.clone());
                }
                _ => {}
            }
            let (bumps, tracked) = (&self.bumps, &home.tracked);
            let handled = on_event(&self.events, bumps, &self.arbiter, tracked, &event).await;
            if handled.is_err() {
                self.waiting.push(event);
            }
        }
    }

    /// Until the arbiter has nothing to do at this tip.
    async fn settle(&self, net: &mut Net, home: &mut Home) -> Result<(), Failed> {
        let since = Instant::now();
        loop {
            tokio::time::timeout(PATIENCE, self.arbiter.idle()).await??;
            let packages = home.sent.take();
            let is_done = packages.is_empty();
            for package in packages {
                home.ours.extend(package.transactions.iter().map(Transaction::compute_txid));
                // What the mempool has, or knows a spender of, it refuses, and that is no matter.
                match package.transactions.as_slice() {
                    [tx] => drop(net.chain.submit(tx.clone())),
                    all => drop(net.chain.submit_package(all)),
                }
            }
            let mut is_behind = false;
            for channel in net.nodes[0].monitors.list_monitors() {
                let report = self.arbiter.report(ChannelId(channel.0)).await?;
                is_behind |= report.is_some_and(|report| report.tip.0 < net.chain.height());
            }
            if is_done && !is_behind {
                return Ok(());
            }
            assert!(since.elapsed() < PATIENCE, "the arbiter does not come to an end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The node's sweeper claims what it has.
    fn sweeps(&self, net: &mut Net, home: &Home) -> Result<(), Failed> {
        let script = bitcoin::ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros());
        let rate = bitcoin::FeeRate::BROADCAST_MIN.to_sat_per_kwu().try_into()?;
        for output in home.tracked.0.lock().map_err(|_| "poisoned")?.iter() {
            if net.chain.confirmed_spender(&at(output)).is_some() {
                continue;
            }
            let secp = bitcoin::secp256k1::Secp256k1::new();
            let keys = &net.nodes[0].keys;
            let (all, to) = (&[output], script.clone());
            let tx = keys.spend_spendable_outputs(all, Vec::new(), to, rate, None, &secp);
            // Another one may be there already, or the output be of a block that has gone.
            drop(net.chain.submit(tx.map_err(|()| "it cannot be swept")?));
        }
        Ok(())
    }

    /// One block, and what the page does about it.
    async fn block(&mut self, net: &mut Net, home: &mut Home) -> Result<(), Failed> {
        self.hears(net, home).await;
        self.settle(net, home).await?;
        self.sweeps(net, home)?;
        net.broadcast();
        net.chain.mine(&Selection::All);
        let height = net.chain.height();
        for tx in &net.chain.block_at(height).ok_or("no block")?.txdata {
            tx.input.iter().for_each(|input| home.coins.remove(&input.previous_output));
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                home.coins.add(OutPoint { txid, vout }, output.clone());
            }
        }
        net.show(height);
        net.pump();
        self.coins.best_height(height).await.map_err(|_| "no coins")?;
        self.settle(net, home).await?;
        self.hears(net, home).await;
        let monitors = &net.nodes[0].monitors;
        for channel in monitors.list_monitors() {
            let monitor = monitors.get_monitor(channel).map_err(|()| "no monitor")?;
            look_at(&mut self.witness, &monitor, &self.sink).await?;
        }
        looked(&mut self.witness, &self.store, &self.events, &home.tracked).await?;
        let alerts: Vec<_> = self.witness.alerts().collect();
        assert!(alerts.is_empty(), "{height}: {alerts:?}");
        Ok(())
    }
}

async fn look_at(
    witness: &mut Witness,
    monitor: &ChannelMonitor<ChannelKeys>,
    Sink(arbiter, egress): &Sink,
) -> Result<(), Failed> {
    look(witness, monitor, arbiter, egress).await
}

fn at(output: &SpendableOutputDescriptor) -> OutPoint {
    output.spendable_outpoint().into_bitcoin_outpoint()
}

fn pays(net: &mut Net, link: &Link) -> Result<(), Failed> {
    for payer in [0, 1] {
        let payment =
            net.send(payer, &[*link], 20_000_000, &format!("paid {payer} {}", link.id))?;
        net.claim(&payment);
    }
    Ok(())
}

/// LDK alone has a channel; the node takes the page, adopts it and opens another one. It is killed with an HTLC in each direction, starts
/// again from its channel manager or from an older one, and once more while the claims are in flight.
async fn afternoon(is_stale: bool) -> Result<(), Failed> {
    let kept = Arc::new(Kept::default());
    let (made, first) = (Cell::new(0), kept.clone());
    let mut net = Net::with(2, Kind::Anchors, &move |_| match made.replace(made.get() + 1) {
        0 => first.clone(),
        _ => Arc::new(Kept::default()),
    });
    let near = net.open(0, 1, CAPACITY, 400_000_000)?;
    pays(&mut net, &near)?;
    let mut home = Home::new(&mut net).await?;
    let manager = net.nodes[0].manager.encode();
    let mut life = Life::start(&mut net, &mut home, &manager, kept.monitors()).await?;
    net.pump();
    let watched = |life: &Life, link: &Link| {
        let (arbiter, id) = (life.arbiter.clone(), ChannelId(link.id.0));
        async move { arbiter.report(id).await }
    };
    assert!(watched(&life, &near).await?.is_some(), "it is adopted");
    let far = net.open(0, 1, CAPACITY, 400_000_000)?;
    life.block(&mut net, &mut home).await?;
    for link in [near, far] {
        pays(&mut net, &link)?;
        assert!(watched(&life, &link).await?.is_some());
    }
    let before = net.nodes[0].manager.encode();
    let _offered = net.send(0, &[far], 20_000_000, "offered")?;
    let received = net.send(1, &[far], 30_000_000, "received")?;
    net.cut(0, 1);
    net.claim(&received);
    let manager = if is_stale { before } else { net.nodes[0].manager.encode() };
    life.end().await?;

    let mut life = Life::start(&mut net, &mut home, &manager, BTreeMap::new()).await?;
    net.pump();
    if !is_stale {
        net.force_close(0, &far)?;
    }
    net.force_close(0, &near)?;
    for blocks in 0..300 {
        life.block(&mut net, &mut home).await?;
        if blocks == 40 {
            let manager = net.nodes[0].manager.encode();
            life.end().await?;
            life = Life::start(&mut net, &mut home, &manager, BTreeMap::new()).await?;
        }
    }
    let is_outdated = matches!(home.closed[&far.id], ClosureReason::OutdatedChannelManager);
    assert_eq!(is_outdated, is_stale, "{:?}", home.closed);
    for link in [&near, &far] {
        let monitor = net.nodes[0].monitors.get_monitor(link.id).map_err(|()| "no monitor")?;
        let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
        let commitment = net.chain.confirmed_spender(&funding).ok_or("it is open")?.compute_txid();
        assert!(home.ours.contains(&commitment), "the arbiter closes it");
    }
    assert_eq!(net.nodes[0].monitors.get_claimable_balances(&[]), []);
    assert!(life.waiting.is_empty() && !home.told.is_empty());
    for outpoint in &home.told {
        assert!(net.chain.confirmed_spender(outpoint).is_some(), "{outpoint} is nobody's");
    }
    assert_eq!(life.events.for_node().await?, []);
    assert_eq!(life.events.kept()?, []);
    let failed = |event: &Event| matches!(event, Event::PaymentFailed { .. }).then_some(());
    assert!(net.nodes[0].take_event(failed).is_some(), "what was offered has timed out");
    life.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_what_the_page_says() -> Result<(), Failed> {
    afternoon(false).await
}

/// LDK answers a channel manager that is older than its monitors with a close: by their newest commitment, as the arbiter's is.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_an_older_manager_gets_its_money_home() -> Result<(), Failed> {
    afternoon(true).await
}
