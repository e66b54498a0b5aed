//! The fence and the way out: what LDK may do while the arbiter fails a channel, and how a channel
//! goes back to LDK alone.
use super::rig::{Rig, at_once};
use super::{CAPACITY, Failed, id, three};
use arb_core::ids::ChannelId;
use arb_core::ports::{Broadcast, Package, Stake, Verdict};
use arb_core::units::BlockHeight;
use arb_node_adapter::{
    ArbiterEgress, Egress, EgressError, ForceClose, HeldFor, LeftFor, ManagerFence, Mempool, Mode,
    Refusal,
};
use arb_tests::ldk::{Kind, Link, Manager};
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{OutPoint, ScriptBuf, Sequence, Transaction, TxIn, Txid, Witness};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::util::ser::Writeable;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The arbiter takes no newer commitment of ours.
fn fence_off(rig: &Rig, node: usize) -> Result<(), Failed> {
    rig.sink(node).told.lock().map_err(|_| "poisoned")?.fenced = true;
    Ok(())
}

pub(super) fn held(rig: &Rig, node: usize) -> Vec<HeldFor> {
    rig.desks.borrow()[node].recorder.held().map(|held| held.why.clone()).collect()
}

/// Updates that LDK waits for.
fn pending(rig: &Rig, node: usize, link: &Link) -> usize {
    let all = rig.net.nodes[node].monitors.list_pending_monitor_updates();
    all.get(&link.id).map_or(0, Vec::len)
}

/// Both sides commit to something new at once: of what reaches us the new commitment of ours is
/// refused, and the secret that follows is told.
fn crossing() -> Result<(Rig, Link), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    fence_off(&rig, 0)?;
    rig.net.start(0, &[link], 20_000_000, "ours", 1)?;
    rig.net.start(1, &[link], 30_000_000, "theirs", 1)?;
    rig.net.pump();
    Ok((rig, link))
}

#[test]
fn behind_the_fence_ldk_revokes_nothing_and_all_else_is_told() -> Result<(), Failed> {
    let (rig, link) = crossing()?;
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    let ours = rig.facts(0, &link)?.candidates.current;
    assert_eq!(ours.local.number.0, 0, "the commitment that the arbiter may publish");
    assert_eq!(ours.remote.number.0, 1);
    assert_eq!(rig.facts(0, &link)?.secrets.last().map(|number| number.0), Some(0));
    // The peer has our new commitment and not the secret of the old one.
    let theirs = rig.facts(1, &link)?;
    assert_eq!(theirs.candidates.current.remote.number.0, 0);
    assert_eq!(theirs.candidates.current.remote_next.map(|next| next.number.0), Some(1));
    assert!(pending(&rig, 0, &link) > 0);
    Ok(())
}

/// LDK closes the channel: nothing can be revoked any more, and LDK's own events must not wait.
#[test]
fn when_ldk_has_closed_it_goes_on() -> Result<(), Failed> {
    let (mut rig, link) = crossing()?;
    rig.net.force_close(0, &link)?;
    rig.net.pump();
    assert_eq!(held(&rig, 0), []);
    assert_eq!(pending(&rig, 0, &link), 0);
    assert_eq!(rig.sink(0).told.lock().map_err(|_| "poisoned")?.closed, [id(&link)]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    rig.restart_node(0)?;
    rig.net.pump();
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());
    Ok(())
}

/// The node stops behind the fence: LDK says the same updates again, and is refused again.
#[test]
fn the_fence_stands_after_a_restart() -> Result<(), Failed> {
    let (mut rig, link) = crossing()?;
    rig.restart_node(0)?;
    rig.net.pump();
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    rig.net.force_close(0, &link)?;
    rig.net.pump();
    assert_eq!(pending(&rig, 0, &link), 0);
    Ok(())
}

/// A channel that the arbiter refuses stands still, until it is handed back: then LDK goes on
/// alone, now and after a restart.
#[test]
fn a_channel_goes_back_to_ldk() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let no = Some(Refusal::Refused("no".to_owned()));
    rig.sink(1).told.lock().map_err(|_| "poisoned")?.answer = no;
    let payment = rig.net.start(0, &[near], 5_000_000, "held", 1)?;
    rig.net.pump();
    assert!(rig.net.arrived(&payment).is_err());
    assert_eq!(held(&rig, 1).len(), 1);
    hand_back(&rig, 1, &near)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.net.claim(&payment);
    assert_eq!(held(&rig, 1), []);
    let left = |rig: &Rig| -> Vec<_> {
        let desks = rig.desks.borrow();
        desks[1].recorder.left_to_ldk().map(|(of, why)| (*of, why.clone())).collect()
    };
    assert_eq!(left(&rig), [(id(&near), LeftFor::HandedBack)]);

    rig.restart_node(1)?;
    rig.net.pump();
    assert_eq!(rig.desks.borrow()[1].recorder.handed_back(), [id(&near)]);
    let payment = rig.net.send(0, &[near], 6_000_000, "alone")?;
    rig.net.claim(&payment);
    assert_eq!(left(&rig), [(id(&near), LeftFor::HandedBack)]);
    // The other channel is the arbiter's still, which takes nothing.
    rig.net.start(1, &[far], 5_000_000, "never", 1)?;
    rig.net.pump();
    assert_eq!(held(&rig, 1).len(), 1);
    Ok(())
}

/// A channel that the arbiter is failing is handed back only as far as nothing can be revoked: LDK
/// closes it.
#[test]
fn the_fence_stands_when_a_channel_is_handed_back() -> Result<(), Failed> {
    let (rig, link) = crossing()?;
    assert!(hand_back_by(&rig, 0, &link, &Egress::new(Mode::Own), &Deaf).is_err());
    rig.net.pump();
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0);
    hand_back(&rig, 0, &link)?;
    rig.net.pump();
    assert_eq!((held(&rig, 0).len(), pending(&rig, 0, &link)), (0, 0));
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    Ok(())
}

/// LDK cannot be told.
#[derive(Clone)]
struct Deaf;

impl ForceClose for Deaf {
    fn force_close(&self, _: ChannelId) -> Result<(), String> {
        Err("deaf".to_owned())
    }
}

/// What a package with our commitment looks like.
fn our_commitment(rig: &Rig, link: &Link) -> Result<Package, Failed> {
    let funding = rig.facts(0, link)?.candidates.current.funding;
    let input = TxIn {
        previous_output: funding,
        sequence: Sequence(0x8012_3456),
        script_sig: ScriptBuf::new(),
        witness: Witness::new(),
    };
    let tx = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(0x2065_4321),
        input: vec![input],
        output: Vec::new(),
    };
    let stake = Stake { channel: id(link), outpoint: funding, deadline: None };
    Ok(Package { transactions: vec![tx], stakes: vec![stake] })
}

/// How often the network was given something.
#[derive(Clone, Default)]
struct Network(Arc<AtomicUsize>);

impl Broadcast for Network {
    type Error = Infallible;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Infallible> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let accepted = |tx: &Transaction| (tx.compute_txid(), Verdict::Accepted);
        Ok(package.transactions.iter().map(accepted).collect())
    }
}

/// The arbiter decides to fail the channel and publishes our commitment; gives what the network got.
fn publish<F: ForceClose>(rig: &Rig, link: &Link, fence: F) -> Result<usize, Failed> {
    fence_off(rig, 0)?;
    let (network, egress) = (Network::default(), Arc::new(Egress::new(Mode::Own)));
    let fence = rig.desks.borrow()[0].recorder.fence(fence);
    let port = ArbiterEgress::new(network.clone(), egress).telling(fence);
    let _refused = at_once(port.broadcast(our_commitment(rig, link)?));
    Ok(network.0.load(Ordering::SeqCst))
}

fn manager_of(rig: &Rig) -> ManagerFence<Arc<Manager>> {
    ManagerFence(rig.net.nodes[0].manager.clone())
}

/// LDK was told to close, our commitment is out, and the node dies before LDK's close is written: LDK
/// has the channel again. Handed back at once, it revokes nothing.
#[test]
fn a_close_that_ldk_lost_is_not_lost_to_the_way_out() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let before = rig.net.nodes[0].manager.encode();
    assert_eq!(publish(&rig, &link, manager_of(&rig))?, 1);
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());
    rig.restart_from(0, &before)?;
    rig.net.pump();
    assert_eq!(rig.net.nodes[0].manager.list_channels().len(), 1, "LDK has lost its close");
    rig.net.start(1, &[link], 30_000_000, "theirs", 1)?;
    hand_back(&rig, 0, &link)?;
    rig.net.pump();
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());
    assert_eq!((held(&rig, 0), pending(&rig, 0, &link)), (Vec::new(), 0));
    Ok(())
}

/// The node dies, or LDK refuses, between the record and LDK's close: nothing is out, and the record
/// does not stand for the close.
#[test]
fn a_record_is_not_taken_for_ldks_close() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    assert_eq!(publish(&rig, &link, Deaf)?, 0);
    rig.restart_node(0)?;
    rig.net.pump();
    assert_eq!(rig.net.nodes[0].manager.list_channels().len(), 1);
    assert_eq!(publish(&rig, &link, Deaf)?, 0, "LDK is asked again");
    assert_eq!(publish(&rig, &link, manager_of(&rig))?, 1);
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());

    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    assert_eq!(publish(&rig, &link, Deaf)?, 0);
    rig.restart_node(0)?;
    rig.net.pump();
    hand_back(&rig, 0, &link)?;
    rig.net.pump();
    assert!(rig.net.nodes[0].manager.list_channels().is_empty(), "closed by LDK");
    Ok(())
}

/// What cannot be remembered is not done: LDK is not told, and nothing goes out.
#[test]
fn ldk_is_told_nothing_that_is_not_written() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let store = rig.desks.borrow()[0].store.clone();
    store.fail_after(Some(0));
    assert_eq!(publish(&rig, &link, manager_of(&rig))?, 0);
    assert_eq!(rig.net.nodes[0].manager.list_channels().len(), 1);
    store.fail_after(None);
    // So the channel is free to go, after a restart as well.
    rig.restart_node(0)?;
    rig.net.pump();
    hand_back(&rig, 0, &link)?;
    let payment = rig.net.send(1, &[link], 30_000_000, "alone")?;
    rig.net.claim(&payment);
    Ok(())
}

/// Hands the channel back while the guard asks what LDK has in the mempool.
struct Meanwhile(Arc<Egress>, ChannelId);

impl Mempool for Meanwhile {
    async fn spenders(&self, _: Vec<OutPoint>) -> Result<Vec<Transaction>, String> {
        assert!(!self.0.hand_back(self.1), "nothing has begun");
        Ok(Vec::new())
    }
}

/// Either the commitment has begun to go out when a channel is handed back, and LDK closes it; or it
/// does not go out.
#[test]
fn what_is_handed_back_meanwhile_does_not_go_out() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let mut package = our_commitment(&rig, &link)?;
    package.stakes[0].deadline = Some(BlockHeight(1));
    let egress = Arc::new(Egress::new(Mode::Guard { before: 18 }));
    let network = Network::default();
    let mempool = Meanwhile(egress.clone(), id(&link));
    let port = ArbiterEgress::seeing(network.clone(), egress, mempool).telling(manager_of(&rig));
    let refused = at_once(port.broadcast(package));
    assert!(matches!(refused, Err(EgressError::HandedBack)), "{refused:?}");
    assert_eq!(network.0.load(Ordering::SeqCst), 0);
    assert_eq!(rig.net.nodes[0].manager.list_channels().len(), 1);
    Ok(())
}

pub(super) fn hand_back(rig: &Rig, node: usize, link: &Link) -> Result<(), Failed> {
    let fence = ManagerFence(rig.net.nodes[node].manager.clone());
    hand_back_by(rig, node, link, &Egress::new(Mode::Own), &fence)
}

fn hand_back_by<F: ForceClose>(
    rig: &Rig,
    node: usize,
    link: &Link,
    egress: &Egress,
    fence: &F,
) -> Result<(), Failed> {
    let monitors = rig.net.nodes[node].monitors.clone();
    let completed = |channel: ChannelId, update| {
        assert!(monitors.channel_monitor_updated(LdkChannelId(channel.0), update).is_ok());
    };
    rig.desks.borrow_mut()[node].recorder.hand_back(id(link), egress, fence, completed)?;
    Ok(())
}
