//! A running arbiter beside an LDK node: its facts, its blocks, its signatures and its feerates come
//! from LDK alone.
use super::sink::Nobody;
use super::{Kept, Kind, LateKeys, Link, MemoryKv, Net, Node, Payment, ToArbiter};
use crate::chain::{Reject, Selection};
use arb_core::ids::ChannelId;
use arb_core::log::ChangeLog;
use arb_core::memory::MemoryLog;
use arb_core::ports::{Broadcast, Package, Verdict};
use arb_node_adapter::{
    Adoption, ArbiterCoins, ArbiterEgress, FactSink, FromLdkFees, GatedPersist, HeldFor,
    ListenSource, ManagerFence, Mode, Recorder, WriteAll, beside_ldk, bootstrap,
};
use arb_watcher::memory::MemoryCoins;
use arb_watcher::{Arbiter, Ports, Settings};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, OutPoint, Transaction, TxIn, TxOut, Txid};
use lightning::chain::Listen;
use lightning::ln::chan_utils::shared_anchor_script_pubkey;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::ser::Writeable;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const ANCHOR: Amount = Amount::from_sat(330);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the arbiter hands out, until the test submits it.
#[derive(Clone, Debug, Default)]
pub struct Sent(Arc<Mutex<Vec<Package>>>);

impl Sent {
    /// Takes what was handed out since the last time.
    pub fn take(&self) -> Vec<Package> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Broadcast for Sent {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        let accepted = |tx: &Transaction| (tx.compute_txid(), Verdict::Accepted);
        let verdicts = package.transactions.iter().map(accepted).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(package);
        Ok(verdicts)
    }
}

/// Anything that goes wrong beside a node.
pub type Failed = Box<dyn std::error::Error>;

/// What recorders write to.
pub type Records = Arc<dyn WriteAll + Send + Sync>;

/// How long LDK waited for each update that came alone.
type Receipts = Arc<Mutex<Vec<Duration>>>;

/// A recorder at work.
type AtWork = Rc<RefCell<Recorder<Records>>>;

/// Two nodes with a channel, and an arbiter beside the first node.
pub struct Beside {
    /// The nodes.
    pub net: Net,
    /// Their channel.
    pub link: Link,
    /// The arbiter.
    pub arbiter: Arbiter,
    /// Whether its signers are away: they give an error to everything, which means later.
    pub signers_away: Arc<AtomicBool>,
    sent: Sent,
    coins: MemoryCoins,
    /// The peer's monitors.
    kept: Arc<Kept>,
    /// What the recorder and LDK's monitors are written to, unless it was given.
    store: Arc<MemoryKv>,
    receipts: Receipts,
    recorder: AtWork,
    /// Whether a channel may be held: otherwise that is a failure.
    may_hold: Rc<Cell<bool>>,
    /// Every transaction that the arbiter handed out.
    pub ours: BTreeMap<Txid, Transaction>,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").field("link", &self.link).finish_non_exhaustive()
    }
}

/// What happens to a channel before an arbiter is there.
pub type Past<'a> = &'a mut dyn FnMut(&mut Net, &Link) -> Result<(), Failed>;

/// Has all that the first node's LDK writes recorded from now on.
fn record<S: FactSink + 'static>(
    net: &mut Net,
    recorder: AtWork,
    sink: S,
    receipts: Receipts,
    may_hold: Rc<Cell<bool>>,
) {
    net.when_quiet(Box::new(move |nodes| {
        let node = &nodes[0];
        let before = node.taps.backlog();
        let completed = |channel: ChannelId, update| {
            let done = node.monitors.channel_monitor_updated(LdkChannelId(channel.0), update);
            assert!(done.is_ok(), "LDK knows the channel");
        };
        let mut recorder = recorder.borrow_mut();
        let started = Instant::now();
        let drained =
            block_in_place(|| Handle::current().block_on(recorder.drain(&sink, completed)));
        assert_eq!(drained, Ok(()));
        if before == 1 {
            receipts.lock().unwrap_or_else(PoisonError::into_inner).push(started.elapsed());
        }
        if !may_hold.get() {
            assert_eq!(recorder.held().next(), None);
        }
        let is_stuck = recorder.set_aside().next().is_some() && node.taps.backlog() == before;
        before > 0 && !is_stuck
    }));
}

/// The dust limit of LDK's nodes.
const DUST: Amount = Amount::from_sat(354);

/// A channel of this node, from its monitor, with this word on the peer's dust limit.
fn adoption(node: &Node, link: &Link, dust: Amount) -> Result<Adoption, Failed> {
    let monitor = node.monitors.get_monitor(link.id).map_err(|()| "no monitor")?;
    let channels = node.manager.list_channels();
    let details = channels.iter().find(|details| details.channel_id == link.id);
    let details = details.ok_or("no such channel")?;
    Ok(bootstrap(&monitor, &monitor.encode(), &*node.keys, details, dust)?)
}

fn hand_back(node: &Node, recorder: &AtWork, link: &Link) -> Result<(), Failed> {
    let completed = |channel: ChannelId, update| {
        let done = node.monitors.channel_monitor_updated(LdkChannelId(channel.0), update);
        assert!(done.is_ok(), "LDK knows the channel");
    };
    let (id, fence) = (ChannelId(link.id.0), ManagerFence(node.manager.clone()));
    recorder.borrow_mut().hand_back(id, &node.egress, &fence, completed)?;
    Ok(())
}

impl Beside {
    /// A fresh channel.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn new(kind: Kind, mode: Mode) -> Result<Self, Failed> {
        Self::on(MemoryLog::new(), kind, mode).await
    }

    /// A fresh channel, and an arbiter on this log.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn on<L>(log: L, kind: Kind, mode: Mode) -> Result<Self, Failed>
    where
        L: ChangeLog + Send + 'static,
    {
        let store = Arc::new(MemoryKv::default());
        Self::with(log, (store.clone(), store), kind, mode, None).await
    }

    /// A fresh channel, and one of the first node with a third one that is handed back to LDK at once.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn with_neighbour(kind: Kind, mode: Mode) -> Result<(Self, Link), Failed> {
        let mut world = Self::new(kind, mode).await?;
        let far = world.net.open(0, 2, CAPACITY, 400_000_000)?;
        hand_back(&world.net.nodes[0], &world.recorder, &far)?;
        world.settle().await?;
        Ok((world, far))
    }

    /// From now on it is no failure that a channel is held.
    pub fn may_hold(&self) {
        self.may_hold.set(true);
    }

    /// What channels are held for.
    pub fn held(&self) -> Vec<HeldFor> {
        self.recorder.borrow().held().map(|held| held.why.clone()).collect()
    }

    /// A fresh channel, an arbiter on this log, and a recorder that writes there.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn storing<L>(
        log: L,
        records: Records,
        kind: Kind,
        mode: Mode,
    ) -> Result<Self, Failed>
    where
        L: ChangeLog + Send + 'static,
    {
        Self::with(log, (Arc::default(), records), kind, mode, None).await
    }

    /// A channel with a past, which LDK alone had so far: it is adopted from LDK's monitor.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn adopting(kind: Kind, mode: Mode, past: Past<'_>) -> Result<Self, Failed> {
        Self::adopting_at(DUST, kind, mode, past).await
    }

    /// The same, with this word on the peer's dust limit.
    ///
    /// # Errors
    /// LDK or the arbiter refuses.
    pub async fn adopting_at(
        dust: Amount,
        kind: Kind,
        mode: Mode,
        past: Past<'_>,
    ) -> Result<Self, Failed> {
        let store = Arc::new(MemoryKv::default());
        let past = Some((past, dust));
        Self::with(MemoryLog::new(), (store.clone(), store), kind, mode, past).await
    }

    async fn with<L>(
        log: L,
        (store, records): (Arc<MemoryKv>, Records),
        kind: Kind,
        mode: Mode,
        past: Option<(Past<'_>, Amount)>,
    ) -> Result<Self, Failed>
    where
        L: ChangeLog + Send + 'static,
    {
        let kept = Arc::new(Kept::default());
        let (made, peers) = (Cell::new(0), kept.clone());
        let mut net = Net::with(3, kind, &move |taps| match made.replace(made.get() + 1) {
            0 => Arc::new(GatedPersist::new(taps.clone())),
            1 => peers.clone(),
            _ => Arc::new(Kept::default()),
        });
        let key = SecretKey::from_slice(&[42; 32])?;
        let coins = MemoryCoins::new(key, &[]);
        let script = arb_core::ports::CoinSource::change_script(&coins).await?;
        for _ in 0..8 {
            let outpoint = net.chain.fund(script.clone(), Amount::from_sat(100_000))?;
            let output = net.chain.prevout(&outpoint).ok_or("no coin")?.clone();
            coins.add(outpoint, output);
        }
        let source = ListenSource::new([]);
        let shown = source.clone();
        net.also_show(Box::new(move |block, height| {
            shown.block_connected(block, height);
            shown.round_complete();
        }));
        net.show(net.chain.height() - 8);

        let node = &net.nodes[0];
        let egress = node.egress.clone();
        egress.set(mode);
        let receipts = Receipts::default();
        let recorder = Recorder::open(node.taps.clone(), records, &[])?;
        let sent = Sent::default();
        let keys = LateKeys { keys: node.keys.clone(), away: Arc::default() };
        let signers_away = keys.away.clone();
        let ports = Ports {
            source,
            broadcast: ArbiterEgress::new(sent.clone(), egress.clone())
                .telling(recorder.fence(ManagerFence(node.manager.clone()))),
            fees: FromLdkFees(node.fees.clone()),
            signer: recorder.signer(Arc::new(keys)),
            coins: ArbiterCoins::new(coins.clone(), egress.clone()),
            scripts: arb_watcher::ScriptsPort::default(),
        };
        let (policy, retry) = (beside_ldk(), Duration::from_millis(5));
        let settings = Settings { policy, retry, ..Settings::default() };
        let arbiter = Arbiter::start(log, ports, settings, Vec::new()).await?;
        tokio::time::timeout(PATIENCE, arbiter.idle()).await??;
        let sink = ToArbiter(arbiter.clone(), egress.clone());
        let (recorder, may_hold) = (Rc::new(RefCell::new(recorder)), Rc::new(Cell::new(false)));
        let (at_work, held) = (recorder.clone(), may_hold.clone());
        let link = match past {
            None => {
                record(&mut net, at_work, sink, receipts.clone(), held);
                net.open(0, 1, CAPACITY, 400_000_000)?
            }
            Some((past, dust)) => {
                let taps = net.nodes[0].taps.clone();
                let alone: Records = Arc::new(MemoryKv::default());
                let alone = Rc::new(RefCell::new(Recorder::open(taps, alone, &[])?));
                record(&mut net, alone, Nobody, Receipts::default(), held.clone());
                let link = net.open(0, 1, CAPACITY, 400_000_000)?;
                past(&mut net, &link)?;
                let adoptions = vec![adoption(&net.nodes[0], &link, dust)?];
                let refused = block_in_place(|| {
                    Handle::current()
                        .block_on(recorder.borrow_mut().adopt(adoptions, &sink, &egress))
                });
                assert_eq!(refused, []);
                record(&mut net, at_work, sink, receipts.clone(), held);
                link
            }
        };
        let ours = BTreeMap::new();
        Ok(Self {
            net,
            link,
            arbiter,
            signers_away,
            sent,
            coins,
            kept,
            store,
            receipts,
            recorder,
            may_hold,
            ours,
        })
    }

    /// Channels that are left to LDK alone.
    pub fn left(&self) -> Vec<ChannelId> {
        self.recorder.borrow().left_to_ldk().map(|(channel, _)| *channel).collect()
    }

    /// Channels that are recorded.
    pub fn recorded_channels(&self) -> Vec<ChannelId> {
        self.recorder.borrow().numbers().iter().map(|numbers| numbers.id).collect()
    }

    /// Channels that were handed back to LDK.
    pub fn handed_back(&self) -> Vec<ChannelId> {
        self.recorder.borrow().handed_back()
    }

    /// Hands the channel back to LDK.
    ///
    /// # Errors
    /// Not now.
    pub fn hand_back(&self) -> Result<(), Failed> {
        hand_back(&self.net.nodes[0], &self.recorder, &self.link)
    }

    /// The wallet that both use.
    pub fn coins(&self) -> MemoryCoins {
        self.coins.clone()
    }

    /// How long LDK waited for each update since it was asked last, of those that came alone.
    pub fn take_receipts(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.receipts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes that the recorder has written beside the arbiter: LDK's monitors and its own records.
    pub fn recorded(&self) -> u64 {
        self.store.written()
    }

    /// Bytes that the peer's LDK has written: its updates, and the whole monitors.
    pub fn peer_written(&self) -> [u64; 2] {
        self.kept.written()
    }

    /// The commitment that the peer's monitor would broadcast.
    ///
    /// # Errors
    /// LDK cannot read its monitor.
    pub fn peer_commitment(&self, monitor: &[u8]) -> Result<Transaction, Failed> {
        self.net.nodes[1].commitment_in(monitor)?.ok_or_else(|| "no commitment".into())
    }

    /// Our commitment as LDK would publish it now.
    ///
    /// # Errors
    /// There is none.
    pub fn our_commitment(&self) -> Result<Transaction, Failed> {
        let node = &self.net.nodes[0];
        let monitor = node.monitors.get_monitor(self.link.id).map_err(|()| "no monitor")?.encode();
        node.commitment_in(&monitor)?.ok_or_else(|| "no commitment".into())
    }

    /// The peer's monitor as it was written last.
    ///
    /// # Errors
    /// There is none.
    pub fn peer_monitor(&self) -> Result<Vec<u8>, Failed> {
        Ok(self.kept.monitors().into_values().next().ok_or("no monitor")?)
    }

    /// Until the arbiter has nothing to do at this tip; all that it hands out must be accepted.
    ///
    /// # Errors
    /// The arbiter does not come to an end, or the mempool refuses.
    pub async fn settle(&mut self) -> Result<(), Failed> {
        let id = ChannelId(self.link.id.0);
        loop {
            tokio::time::timeout(PATIENCE, self.arbiter.idle()).await??;
            let packages = self.sent.take();
            if packages.is_empty() {
                let report = self.arbiter.report(id).await?;
                match report {
                    Some(report) if report.tip.0 != self.net.chain.height() => {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        continue;
                    }
                    _ => return Ok(()),
                }
            }
            for package in packages {
                self.submit(package.transactions)?;
            }
        }
    }

    fn submit(&mut self, package: Vec<Transaction>) -> Result<(), Failed> {
        for tx in &package {
            self.ours.insert(tx.compute_txid(), tx.clone());
        }
        let chain = &mut self.net.chain;
        let known = |tx: &Transaction| {
            let txid = tx.compute_txid();
            chain.in_mempool(&txid) || chain.tx_height(&txid).is_some()
        };
        // LDK may tell the arbiter of a close before the arbiter has the block with it: our commitment
        // is then too late, which is no matter.
        let is_late = |tx: &Transaction| {
            let is_commitment = tx.input.iter().all(|input| input.sequence.0 >> 24 == 0x80);
            let spent = |input: &TxIn| chain.confirmed_spender(&input.previous_output).is_some();
            is_commitment && !known(tx) && tx.input.iter().any(spent)
        };
        if package.iter().any(is_late) {
            return Ok(());
        }
        let package: Vec<Transaction> = package.into_iter().filter(|tx| !known(tx)).collect();
        match package.as_slice() {
            [] => {}
            [tx] => match chain.submit(tx.clone()) {
                // Its child is still to be signed, and brings it along.
                Err(Reject::MinRelayFeeNotMet { fee: Amount::ZERO, .. }) => {}
                Err(why) => return Err(format!("refused: {why:?}: {tx:?}").into()),
                Ok(_) => {}
            },
            all => {
                let report = chain.submit_package(all);
                for tx in all {
                    assert!(chain.in_mempool(&tx.compute_txid()), "refused: {report:?}");
                }
            }
        }
        Ok(())
    }

    /// Mines blocks from the mempool.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub async fn mine(&mut self, blocks: u32) -> Result<(), Failed> {
        for _ in 0..blocks {
            self.net.chain.mine(&Selection::All);
            self.shown().await?;
        }
        Ok(())
    }

    /// Mines exactly these transactions.
    ///
    /// # Errors
    /// As [`Self::settle`].
    pub async fn mine_these(&mut self, transactions: &[Transaction]) -> Result<(), Failed> {
        self.net.chain.mine_transactions(transactions)?;
        self.shown().await
    }

    async fn shown(&mut self) -> Result<(), Failed> {
        let height = self.net.chain.height();
        for tx in &self.net.chain.block_at(height).ok_or("no block")?.txdata {
            for input in &tx.input {
                self.coins.remove(&input.previous_output);
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                self.coins.add(OutPoint { txid, vout }, output.clone());
            }
        }
        self.net.show(height);
        self.net.pump();
        self.settle().await
    }

    /// Hands what LDK's node wants broadcast to the mempool, and gives it. LDK publishes again what
    /// a block spends already: that is refused, and no matter.
    pub fn broadcast_of_ldk(&mut self) -> Vec<Transaction> {
        let all = self.net.nodes[0].outbox.take().concat();
        for tx in &all {
            let txid = tx.compute_txid();
            let chain = &mut self.net.chain;
            if !chain.in_mempool(&txid) && chain.tx_height(&txid).is_none() {
                let _refused = chain.submit(tx.clone());
            }
        }
        all
    }

    /// Outputs of these transactions, anchors left out, that the arbiter has spent in a block.
    pub fn spent(&self, of: &BTreeSet<Txid>) -> BTreeSet<OutPoint> {
        let confirmed = self
            .ours
            .iter()
            .filter(|(txid, _)| self.net.chain.tx_height(txid).is_some())
            .flat_map(|(_, tx)| tx.input.iter().map(|input| input.previous_output));
        confirmed
            .filter(|outpoint| of.contains(&outpoint.txid))
            .filter(|o| self.net.chain.prevout(o).is_some_and(|output| !is_anchor(output)))
            .collect()
    }

    /// Our commitment is in a block, and the arbiter has spent all of it: `to_local`, both HTLCs, and
    /// the second stages after their delay.
    pub fn all_claimed_from_local(&self) {
        let commitment: BTreeSet<Txid> = self
            .ours
            .iter()
            .filter(|(_, tx)| tx.lock_time.to_consensus_u32() >> 24 == 0x20)
            .map(|(txid, _)| *txid)
            .collect();
        assert_eq!(commitment.len(), 1);
        let first = self.spent(&commitment);
        assert_eq!(first.len(), 3, "to_local and two HTLCs: {first:?}");
        let stages: BTreeSet<Txid> = self
            .ours
            .iter()
            .filter(|(txid, tx)| {
                let spends_htlc = tx.input.iter().any(|i| first.contains(&i.previous_output));
                spends_htlc && !self.spent(&[**txid].into()).is_empty()
            })
            .map(|(txid, _)| *txid)
            .collect();
        assert_eq!(stages.len(), 2, "both second stages are spent after their delay");
    }
}

fn is_anchor(output: &TxOut) -> bool {
    output.value == ANCHOR || output.script_pubkey == shared_anchor_script_pubkey()
}

/// An HTLC in each direction, offered and received.
///
/// # Errors
/// LDK or the arbiter refuses.
pub async fn started(kind: Kind, mode: Mode) -> Result<(Beside, Payment, Payment), Failed> {
    let mut world = Beside::new(kind, mode).await?;
    let link = world.link;
    let offered = world.net.send(0, &[link], 20_000_000, "offered")?;
    let received = world.net.send(1, &[link], 30_000_000, "received")?;
    Ok((world, offered, received))
}

/// Two HTLCs, the preimage of the received one known, the connection lost.
///
/// # Errors
/// LDK or the arbiter refuses.
pub async fn cut_off(kind: Kind, mode: Mode) -> Result<Beside, Failed> {
    let (mut world, _, received) = started(kind, mode).await?;
    world.net.cut(0, 1);
    world.net.claim(&received);
    Ok(world)
}
