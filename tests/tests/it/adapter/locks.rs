//! While our disk does not answer, LDK waits for nothing but receipts: no lock is held across a write.
use super::Failed;
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, Slot};
use arb_core::log::{Batch, ChangeLog, Damaged, Durable, StoredChannel};
use arb_core::memory::{MemoryLog, Refused};
use arb_core::units::{BlockRef, CommitmentNumber};
use arb_node_adapter::{
    ArbiterCoins, ArbiterEgress, BroadcastQueue, FromLdkBroadcaster, FromLdkFees, GatedPersist,
    KvWrite, ListenSource, Mode, Recorder, Taps, WriteAll,
};
use arb_tests::chain::Selection;
use arb_tests::ldk::{Kept, Kind, Link, MemoryKv, Monitors, Net, Payment, ToArbiter};
use arb_watcher::memory::MemoryCoins;
use arb_watcher::{Arbiter, Ports, Settings};
use bitcoin::Amount;
use bitcoin::secp256k1::SecretKey;
use lightning::chain::Listen;
use lightning::io;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::KVStoreSync;
use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const CAPACITY: Amount = Amount::from_sat(1_000_000);
/// Longer than anything takes that does not wait for the disk.
const PATIENCE: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// A disk. While it is stuck, nothing becomes durable that is written.
#[derive(Clone, Debug, Default)]
struct Disk {
    stuck: Arc<AtomicBool>,
    /// Writes that wait.
    waiting: Arc<AtomicUsize>,
}

impl Disk {
    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::SeqCst)
    }

    fn stick(&self) {
        self.stuck.store(true, Ordering::SeqCst);
    }

    fn answer(&self) {
        self.stuck.store(false, Ordering::SeqCst);
    }

    fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.is_stuck() {
            thread::sleep(MOMENT);
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    async fn waited(self) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while self.is_stuck() {
            tokio::time::sleep(MOMENT).await;
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Until something is being written.
    fn is_asked(&self) {
        let since = Instant::now();
        while self.waiting.load(Ordering::SeqCst) == 0 {
            assert!(since.elapsed() < PATIENCE, "nothing is written");
            thread::sleep(MOMENT);
        }
    }
}

/// The arbiter's log on a disk.
struct Log(MemoryLog, Disk);

impl ChangeLog for Log {
    type Error = Refused;
    type Append = Pin<Box<dyn Future<Output = Result<Durable, Refused>> + Send>>;

    fn append(&mut self, batch: Batch) -> Self::Append {
        let (append, disk) = (self.0.append(batch), self.1.clone());
        Box::pin(async move {
            disk.waited().await;
            append.await
        })
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), Refused> {
        self.0.each_channel(each)
    }

    fn channel_count(&self) -> Result<u64, Refused> {
        self.0.channel_count()
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, Refused> {
        self.0.channel(slot)
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, Refused> {
        self.0.facts(slot)
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, Refused> {
        self.0.changes(slot)
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, Refused> {
        self.0.ended_htlcs(slot, number)
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, Refused> {
        self.0.subscribers_to_all()
    }

    fn next_slot(&self) -> Result<Slot, Refused> {
        self.0.next_slot()
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, Refused> {
        self.0.blocks()
    }
}

/// The node's store on a disk.
struct Store(MemoryKv, Disk);

impl KVStoreSync for Store {
    fn read(&self, first: &str, second: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        self.0.read(first, second, key)
    }

    fn write(&self, first: &str, second: &str, key: &str, buf: Vec<u8>) -> Result<(), io::Error> {
        self.1.wait();
        self.0.write(first, second, key, buf)
    }

    fn remove(&self, first: &str, second: &str, key: &str, lazy: bool) -> Result<(), io::Error> {
        self.1.wait();
        self.0.remove(first, second, key, lazy)
    }

    fn list(&self, first: &str, second: &str) -> Result<Vec<String>, io::Error> {
        self.0.list(first, second)
    }
}

impl WriteAll for Store {
    fn write_all(&self, writes: Vec<KvWrite>) -> AsyncResult<'static, (), io::Error> {
        let (written, disk) = (self.0.write_all(writes), self.1.clone());
        Box::pin(async move {
            disk.waited().await;
            written.await
        })
    }
}

/// Which disk is stuck.
#[derive(Clone, Copy, Debug)]
enum Stuck {
    Log,
    Store,
}

/// What is being written when it is.
#[derive(Clone, Copy, Debug)]
enum Writes {
    Payment,
    NewChannel,
    Close,
}

/// The arbiter and the recorder of the first node, on a thread of their own.
fn at_work(
    net: &Net,
    source: ListenSource,
    (log, store): (Log, Store),
    done: Arc<AtomicUsize>,
) -> Result<thread::JoinHandle<()>, Failed> {
    let node = &net.nodes[0];
    let (taps, monitors, keys) = (node.taps.clone(), node.monitors.clone(), node.keys.clone());
    let (fees, egress) = (node.fees.clone(), node.egress.clone());
    let coins = MemoryCoins::new(SecretKey::from_slice(&[42; 32])?, &[]);
    Ok(thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async move {
            let mut recorder =
                Recorder::open(taps.clone(), Arc::new(store), &[]).expect("an empty store");
            let sender = FromLdkBroadcaster(Arc::new(BroadcastQueue::new()));
            let ports = Ports {
                source,
                broadcast: ArbiterEgress::new(sender, egress.clone()),
                fees: FromLdkFees(fees),
                signer: recorder.signer(keys),
                coins: ArbiterCoins::new(coins, egress.clone()),
                scripts: arb_watcher::ScriptsPort::default(),
            };
            let settings = Settings { retry: Duration::from_millis(5), ..Settings::default() };
            let arbiter =
                Arbiter::start(log, ports, settings, Vec::new()).await.expect("an empty log");
            let sink = ToArbiter(arbiter, egress);
            loop {
                taps.waiting().await;
                let completed = |id: ChannelId, update| {
                    let id = LdkChannelId(id.0);
                    monitors.channel_monitor_updated(id, update).expect("a channel of LDK's");
                    done.fetch_add(1, Ordering::SeqCst);
                };
                recorder.drain(&sink, completed).await.expect("nothing fails");
            }
        });
    }))
}

/// A node with two channels beside an arbiter.
struct World {
    net: Net,
    near: Link,
    far: Link,
    received: Payment,
    log: Disk,
    store: Disk,
}

/// Until everything is recorded, unless that cannot be. Whether LDK may go on with anything since the last time: the
/// recorder may have been done before it was asked.
fn recorded(taps: &Taps, disks: &[Disk; 2], done: &AtomicUsize, before: &Cell<usize>) -> bool {
    let since = Instant::now();
    while taps.backlog() > 0 && !disks.iter().any(Disk::is_stuck) {
        assert!(since.elapsed() < PATIENCE, "the recorder goes on");
        thread::sleep(MOMENT);
    }
    let done = done.load(Ordering::SeqCst);
    before.replace(done) != done
}

impl World {
    fn new() -> Result<Self, Failed> {
        let made = Cell::new(0);
        let mut net =
            Net::with(3, Kind::Anchors, &move |taps| match made.replace(made.get() + 1) {
                0 => Arc::new(GatedPersist::new(taps.clone())),
                _ => Arc::new(Kept::default()),
            });
        net.nodes[0].egress.set(Mode::Own);
        let source = ListenSource::new([]);
        let shown = source.clone();
        net.also_show(Box::new(move |block, height| {
            shown.block_connected(block, height);
            shown.round_complete();
        }));
        net.show(net.chain.height());
        let (log, store) = (Disk::default(), Disk::default());
        let (on_log, on_store) = (Log(MemoryLog::new(), log.clone()), store.clone());
        let stores = (on_log, Store(MemoryKv::default(), on_store));
        let (done, before) = (Arc::new(AtomicUsize::new(0)), Cell::new(0));
        at_work(&net, source, stores, done.clone())?;
        let (taps, disks) = (net.nodes[0].taps.clone(), [log.clone(), store.clone()]);
        net.when_quiet(Box::new(move |_| recorded(&taps, &disks, &done, &before)));
        let near = net.open(0, 1, CAPACITY, 400_000_000)?;
        let far = net.open(0, 2, CAPACITY, 400_000_000)?;
        let received = net.send(1, &[near], 30_000_000, "received")?;
        Ok(Self { net, near, far, received, log, store })
    }

    fn monitors(&self) -> Arc<Monitors> {
        self.net.nodes[0].monitors.clone()
    }

    /// Updates of a channel that LDK waits for.
    fn pending(&self, link: &Link) -> usize {
        let pending = self.monitors().list_pending_monitor_updates();
        pending.get(&link.id).map_or(0, Vec::len)
    }
}

/// Says what is done next, to whoever watches the time.
struct Steps(Sender<&'static str>);

impl Steps {
    fn step<T>(&self, name: &'static str, act: impl FnOnce() -> T) -> Result<T, Failed> {
        self.0.send(name)?;
        Ok(act())
    }
}

fn goes_on(stuck: Stuck, writes: Writes, steps: &Steps) -> Result<(), Failed> {
    let mut world = steps.step("channels are opened", World::new)??;
    let (near, far) = (world.near, world.far);
    let disk = match stuck {
        Stuck::Log => world.log.clone(),
        Stuck::Store => world.store.clone(),
    };
    disk.stick();
    let first = steps.step("something is written", || match writes {
        Writes::Payment => {
            let payment = world.net.start(0, &[near], 5_000_000, "first", 1)?;
            world.net.pump();
            Ok::<_, Failed>(Some(payment))
        }
        Writes::NewChannel => {
            let _waits = world.net.propose(0, 1, CAPACITY, 0);
            Ok(None)
        }
        Writes::Close => {
            world.net.force_close(0, &near)?;
            Ok(None)
        }
    })??;
    disk.is_asked();

    let node = &world.net.nodes[0];
    steps.step("channels are listed", || {
        assert!(node.manager.list_channels().iter().any(|of| of.channel_id == far.id));
    })?;
    steps.step("balances", || {
        assert!(!world.monitors().get_claimable_balances(&[]).is_empty());
    })?;
    steps.step("a payment of another channel, out", || {
        world.net.start(0, &[far], 6_000_000, "other", 1)?;
        world.net.pump();
        assert!(world.pending(&far) > 0, "LDK has made the update");
        Ok::<_, Failed>(())
    })??;
    steps.step("a payment of another channel, in", || {
        world.net.start(2, &[far], 7_000_000, "another", 1)?;
        world.net.pump();
        Ok::<_, Failed>(())
    })??;
    steps.step("a preimage", || {
        world.net.nodes[0].manager.claim_funds(world.received.preimage);
        world.net.pump();
    })?;
    steps.step("blocks", || {
        for _ in 0..3 {
            let before = world.net.chain.height();
            world.net.chain.mine(&Selection::All);
            world.net.show(before + 1);
            world.net.pump();
        }
        let height = world.net.chain.height();
        assert_eq!(world.net.nodes[0].manager.current_best_block().height, height);
    })?;
    steps.step("a peer that goes and comes", || {
        world.net.cut(0, 2);
        world.net.reconnect(0, 2);
    })?;
    steps.step("timers", || {
        let node = &world.net.nodes[0];
        node.manager.timer_tick_occurred();
        node.monitors.rebroadcast_pending_claims();
        node.collect_events();
    })?;
    steps.step("another channel", || {
        let _waits = world.net.propose(0, 2, CAPACITY, 0);
    })?;
    steps.step("modes", || {
        world.net.nodes[0].egress.set(Mode::Observe);
        world.net.nodes[0].egress.set(Mode::Own);
    })?;
    assert!(disk.is_stuck() && world.pending(&far) > 0, "nothing has its receipt");

    disk.answer();
    steps.step("all goes on", || {
        world.net.pump();
        assert_eq!((world.pending(&near), world.pending(&far)), (0, 0));
        let payment = first.map(|payment| world.net.arrived(&payment));
        assert!(payment.is_none_or(|arrived| arrived.is_ok()));
        let more = world.net.send(0, &[far], 8_000_000, "more")?;
        world.net.claim(&more);
        Ok::<_, Failed>(())
    })??;
    Ok(())
}

/// Each step within its time.
fn watched(told: &Receiver<&'static str>, story: &str) {
    let mut last = "it begins";
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(step) => last = step,
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => panic!("{story}: {last}: it waits for the disk"),
        }
    }
}

fn nothing_waits(stuck: Stuck, writes: Writes) {
    let (steps, told) = channel();
    let result = Arc::new(Mutex::new(None));
    let ended = Arc::clone(&result);
    let work = thread::spawn(move || {
        let done = goes_on(stuck, writes, &Steps(steps)).map_err(|why| why.to_string());
        *ended.lock().expect("nobody else") = Some(done);
    });
    watched(&told, &format!("{stuck:?} {writes:?}"));
    assert!(work.join().is_ok());
    assert_eq!(*result.lock().expect("nobody else"), Some(Ok(())));
}

#[test]
fn while_the_arbiters_log_does_not_answer() {
    for writes in [Writes::Payment, Writes::NewChannel, Writes::Close] {
        nothing_waits(Stuck::Log, writes);
    }
}

#[test]
fn while_the_nodes_store_does_not_answer() {
    for writes in [Writes::Payment, Writes::NewChannel, Writes::Close] {
        nothing_waits(Stuck::Store, writes);
    }
}
