//! Signatures by LDK's signers for every kind of claim: the driver asks for them, and the embedded
//! chain's consensus code judges them. The facts come from LDK alone.
use super::Failed;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, Update};
use arb_core::ids::{ChannelId, Preimage};
use arb_core::memory::MemoryLog;
use arb_core::ports::{Broadcast, Package, Verdict};
use arb_node_adapter::{FactSink, FromLdkFees, GatedPersist, ListenSource, Recorder, Refusal};
use arb_tests::chain::Selection;
use arb_tests::ldk::{ChannelKeys, Kept, Kind, Link, MemoryKv, Net, Outbox, Quiet};
use arb_watcher::memory::MemoryCoins;
use arb_watcher::{Arbiter, CommandError, Ports, Settings};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, BlockHash, OutPoint, Transaction, Txid};
use lightning::chain::Listen;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::events::Event;
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::ser::ReadableArgs;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const ANCHOR: Amount = Amount::from_sat(330);
const PATIENCE: Duration = Duration::from_secs(30);

/// What the arbiter hands out, until the test submits it.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<Package>>>);

impl Sent {
    fn take(&self) -> Vec<Package> {
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

/// The arbiter behind the recorder.
struct ToArbiter(Arbiter);

fn refusal(error: CommandError) -> Refusal {
    match error {
        CommandError::UnknownChannel(_) => Refusal::NotWatched,
        CommandError::Stopped | CommandError::NotStored(_) | CommandError::NotScanned(_) => {
            Refusal::Later(error.to_string())
        }
        other => Refusal::Refused(other.to_string()),
    }
}

impl FactSink for ToArbiter {
    async fn watch(&self, facts: ChannelFacts) -> Result<(), Refusal> {
        self.0.watch_channel(facts).await.map_err(refusal)
    }

    async fn update(&self, channel: ChannelId, updates: Vec<Update>) -> Result<(), Refusal> {
        self.0.update_channel(channel, updates).await.map_err(refusal)
    }

    async fn preimage(
        &self,
        channel: ChannelId,
        preimage: Preimage,
        source: PreimageSource,
    ) -> Result<(), Refusal> {
        self.0.preimage(channel, preimage, source).await.map_err(refusal)
    }

    async fn closed(&self, _: ChannelId) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Two nodes with a channel, one HTLC in each direction, and an arbiter beside the first node.
struct World {
    net: Net,
    link: Link,
    arbiter: Arbiter,
    sent: Sent,
    coins: MemoryCoins,
    /// The peer's monitors.
    kept: Arc<Kept>,
    /// Every transaction that the arbiter handed out.
    ours: BTreeMap<Txid, Transaction>,
}

impl World {
    async fn new(kind: Kind) -> Result<Self, Failed> {
        let kept = Arc::new(Kept::default());
        let (first, peers) = (Cell::new(true), kept.clone());
        let mut net = Net::with(2, kind, &move |taps| {
            if first.replace(false) {
                Arc::new(GatedPersist::new(Arc::new(Kept::default()), taps.clone()))
            } else {
                peers.clone()
            }
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
        let recorder = Recorder::open(node.taps.clone(), Arc::new(MemoryKv::default()), &[])?;
        let sent = Sent::default();
        let ports = Ports {
            source,
            broadcast: sent.clone(),
            fees: FromLdkFees(node.fees.clone()),
            signer: recorder.signer(node.keys.clone()),
            coins: coins.clone(),
        };
        let settings = Settings { retry: Duration::from_millis(5), ..Settings::default() };
        let arbiter = Arbiter::start(MemoryLog::new(), ports, settings, Vec::new()).await?;
        tokio::time::timeout(PATIENCE, arbiter.idle()).await??;
        let (recorder, sink) = (RefCell::new(recorder), ToArbiter(arbiter.clone()));
        net.when_quiet(Box::new(move |nodes| {
            let node = &nodes[0];
            let before = node.taps.backlog();
            let completed = |channel: ChannelId, update| {
                let done = node.monitors.channel_monitor_updated(LdkChannelId(channel.0), update);
                assert!(done.is_ok(), "LDK knows the channel");
            };
            let mut recorder = recorder.borrow_mut();
            let drained =
                block_in_place(|| Handle::current().block_on(recorder.drain(&sink, completed)));
            assert_eq!(drained, Ok(()));
            assert_eq!(recorder.held().next(), None);
            before > 0
        }));
        let link = net.open(0, 1, CAPACITY, 400_000_000)?;
        Ok(Self { net, link, arbiter, sent, coins, kept, ours: BTreeMap::new() })
    }

    /// The commitment that the peer's monitor would broadcast.
    fn peer_commitment(&self, monitor: &[u8]) -> Result<Transaction, Failed> {
        let peer = &self.net.nodes[1];
        let args = (&*peer.keys, &*peer.signers);
        let (_, monitor) = <(BlockHash, ChannelMonitor<ChannelKeys>)>::read(&mut &*monitor, args)
            .map_err(|_| "unreadable")?;
        let (outbox, quiet) = (Arc::new(Outbox::default()), Arc::new(Quiet));
        monitor.broadcast_latest_holder_commitment_txn(&outbox, &peer.fees, &quiet);
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
        monitor.process_pending_events(&&take, &quiet).map_err(|_| "events")?;
        let closing = closing.into_inner().unwrap_or_else(PoisonError::into_inner);
        let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
        let commitment =
            closing.into_iter().find(|tx| tx.input.iter().any(|i| i.previous_output == funding));
        Ok(commitment.ok_or("no commitment")?)
    }

    fn peer_monitor(&self) -> Result<Vec<u8>, Failed> {
        Ok(self.kept.monitors().into_values().next().ok_or("no monitor")?)
    }

    /// Until the arbiter has nothing to do at this tip; all that it hands out must be accepted.
    async fn settle(&mut self) -> Result<(), Failed> {
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
        let package: Vec<Transaction> = package.into_iter().filter(|tx| !known(tx)).collect();
        match package.as_slice() {
            [] => {}
            [tx] => {
                chain.submit(tx.clone()).map_err(|why| format!("refused: {why:?}: {tx:?}"))?;
            }
            all => {
                let report = chain.submit_package(all);
                for tx in all {
                    assert!(chain.in_mempool(&tx.compute_txid()), "refused: {report:?}");
                }
            }
        }
        Ok(())
    }

    async fn mine(&mut self, blocks: u32) -> Result<(), Failed> {
        for _ in 0..blocks {
            self.net.chain.mine(&Selection::All);
            self.shown().await?;
        }
        Ok(())
    }

    async fn mine_these(&mut self, transactions: &[Transaction]) -> Result<(), Failed> {
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

    /// Outputs of these transactions, anchors left out, that the arbiter has spent in a block.
    fn spent(&self, of: &BTreeSet<Txid>) -> BTreeSet<OutPoint> {
        let confirmed = self
            .ours
            .iter()
            .filter(|(txid, _)| self.net.chain.tx_height(txid).is_some())
            .flat_map(|(_, tx)| tx.input.iter().map(|input| input.previous_output));
        confirmed
            .filter(|outpoint| of.contains(&outpoint.txid))
            .filter(|o| self.net.chain.prevout(o).is_some_and(|output| output.value != ANCHOR))
            .collect()
    }
}

/// Outputs of the peer's commitment that are ours after a delay: without anchors, our balance is
/// paid to us directly and needs no claim.
fn to_remote(kind: Kind) -> usize {
    usize::from(kind == Kind::Anchors)
}

/// The peer broadcasts a revoked commitment: `to_local`, HTLCs of both directions, `to_remote`.
async fn punished(kind: Kind) -> Result<(), Failed> {
    let mut world = World::new(kind).await?;
    let link = world.link;
    let offered = world.net.send(0, &[link], 20_000_000, "offered")?;
    let received = world.net.send(1, &[link], 30_000_000, "received")?;
    let old = world.peer_monitor()?;
    world.net.claim(&offered);
    world.net.claim(&received);
    let revoked = world.peer_commitment(&old)?;
    world.mine_these(std::slice::from_ref(&revoked)).await?;
    world.mine(6).await?;
    let spent = world.spent(&[revoked.compute_txid()].into());
    assert_eq!(spent.len(), 3 + to_remote(kind), "{spent:?} of {revoked:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// Two HTLCs, the preimage of the received one known, the connection lost.
async fn cut_off(kind: Kind) -> Result<World, Failed> {
    let mut world = World::new(kind).await?;
    let link = world.link;
    world.net.send(0, &[link], 20_000_000, "offered")?;
    let received = world.net.send(1, &[link], 30_000_000, "received")?;
    world.net.cut(0, 1);
    world.net.claim(&received);
    Ok(world)
}

/// The peer broadcasts its current commitment: our balance, the preimage, the timeout.
async fn claimed_from_remote(kind: Kind) -> Result<(), Failed> {
    let mut world = cut_off(kind).await?;
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    world.mine(100).await?;
    let spent = world.spent(&[commitment.compute_txid()].into());
    assert_eq!(spent.len(), 2 + to_remote(kind), "{spent:?} of {commitment:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// Our commitment: the commitment itself, its anchor, both second stages, all delayed outputs.
async fn claimed_from_local(kind: Kind) -> Result<(), Failed> {
    let mut world = cut_off(kind).await?;
    world.arbiter.fail_channel(ChannelId(world.link.id.0)).await?;
    world.settle().await?;
    world.mine(1).await?;
    let id = ChannelId(world.link.id.0);
    let close = world.arbiter.report(id).await?.ok_or("no report")?.close;
    assert!(close.is_some(), "our commitment is in a block");
    world.mine(260).await?;
    let commitment: BTreeSet<Txid> = world
        .ours
        .iter()
        .filter(|(_, tx)| tx.lock_time.to_consensus_u32() >> 24 == 0x20)
        .map(|(txid, _)| *txid)
        .collect();
    assert_eq!(commitment.len(), 1);
    let first = world.spent(&commitment);
    assert_eq!(first.len(), 3, "to_local and two HTLCs: {first:?}");
    let stages: BTreeSet<Txid> = world
        .ours
        .iter()
        .filter(|(txid, tx)| {
            let spends_htlc = tx.input.iter().any(|i| first.contains(&i.previous_output));
            spends_htlc && !world.spent(&[**txid].into()).is_empty()
        })
        .map(|(txid, _)| *txid)
        .collect();
    assert_eq!(stages.len(), 2, "both second stages are spent after their delay");
    world.arbiter.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_with_static_remotekey() -> Result<(), Failed> {
    punished(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn penalties_with_anchors() -> Result<(), Failed> {
    punished(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_commitment_with_static_remotekey() -> Result<(), Failed> {
    claimed_from_remote(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_peers_commitment_with_anchors() -> Result<(), Failed> {
    claimed_from_remote(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_with_static_remotekey() -> Result<(), Failed> {
    claimed_from_local(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_with_anchors() -> Result<(), Failed> {
    claimed_from_local(Kind::Anchors).await
}
