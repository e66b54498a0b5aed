//! Channels that were open before the arbiter was there, from LDK's serialised monitor.
mod changed;
mod half;
mod spliced;

use super::rig::Rig;
use super::{CAPACITY, Failed, id, three};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, ChannelNumbers, Htlc, HtlcLink, HtlcRecord, ShutdownScripts};
use arb_core::ids::{HtlcId, HtlcRef, Preimage, Side};
use arb_core::units::{BlockHeight, CommitmentNumber};
use arb_node_adapter::{Adoption, Egress, Mode, Recorder, Refusal, Unadopted, bootstrap};
use arb_tests::ldk::{Beside, Kind, Link, MemoryKv, Net};
use bitcoin::{Amount, Transaction};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::ln::channel_state::ChannelDetails;
use lightning::sign::SignerProvider;
use lightning::util::ser::Writeable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// LDK's dust limit, for both are LDK.
const DUST: Amount = Amount::from_sat(354);

fn bytes(rig: &Rig, node: usize, link: &Link) -> Result<Vec<u8>, Failed> {
    let monitor = rig.net.nodes[node].monitors.get_monitor(link.id);
    Ok(monitor.map_err(|()| "no monitor")?.encode())
}

fn read(rig: &Rig, node: usize, link: &Link, bytes: &[u8]) -> Result<Adoption, Unadopted> {
    let monitor = rig.net.nodes[node].monitors.get_monitor(link.id).expect("a monitor");
    read_both(rig, node, link, &monitor, bytes)
}

fn read_both(
    rig: &Rig,
    node: usize,
    link: &Link,
    monitor: &ChannelMonitor<impl lightning::sign::ecdsa::EcdsaChannelSigner>,
    bytes: &[u8],
) -> Result<Adoption, Unadopted> {
    let node = &rig.net.nodes[node];
    let channels = node.manager.list_channels();
    let details = channels.iter().find(|details| details.channel_id == link.id);
    bootstrap(monitor, bytes, &*node.keys, details.expect("the channel"), DUST)
}

/// What a recorder knows that saw the channel's beginning, but for the height at which it did, and for
/// our script of a mutual close, which LDK had fixed by then.
fn known(rig: &Rig, node: usize, link: &Link, birth: BlockHeight) -> Result<ChannelFacts, Failed> {
    let script = rig.net.nodes[node].keys.get_shutdown_scriptpubkey().map_err(|()| "no script")?;
    let shutdown = ShutdownScripts { local: Some(script.into_inner()), remote: None };
    Ok(ChannelFacts { birth, shutdown, ..rig.facts(node, link)? })
}

/// Facts but for what no monitor says: ids of offered HTLCs, and since which commitment of the peer's
/// an HTLC is there.
fn shape(mut facts: ChannelFacts) -> (ChannelFacts, Vec<(Side, Option<u64>, Htlc)>) {
    let current = &mut facts.candidates.current;
    assert_eq!(current.local.htlcs, current.remote.htlcs);
    let all: Vec<HtlcId> = facts.htlcs.keys().copied().collect();
    assert_eq!(std::mem::take(&mut current.local.htlcs), all);
    current.remote.htlcs.clear();
    let known = |(id, record): (HtlcId, HtlcRecord)| {
        assert!(record.remote_from.is_some() && record.remote_until.is_none());
        (id.offerer, (id.offerer == Side::Remote).then_some(id.id), record.htlc)
    };
    let mut htlcs: Vec<_> = std::mem::take(&mut facts.htlcs).into_iter().map(known).collect();
    htlcs.sort_by_key(|(side, id, htlc)| (*side, *id, htlc.amount, htlc.hash, htlc.expiry));
    (facts, htlcs)
}

type Counted = BTreeMap<(Side, u64, u32, [u8; 32]), usize>;

fn counted<'a>(htlcs: impl IntoIterator<Item = (&'a HtlcId, &'a Htlc)>) -> Counted {
    let mut counted = Counted::new();
    for (id, htlc) in htlcs {
        let terms = (id.offerer, htlc.amount.0, htlc.expiry.0.0, htlc.hash.0);
        *counted.entry(terms).or_default() += 1;
    }
    counted
}

fn opened(kind: Kind, push: u64) -> Result<(Rig, Link), Failed> {
    let mut rig = Rig::new(2, kind)?;
    let link = rig.net.open(0, 1, CAPACITY, push)?;
    rig.net.mine(3)?;
    Ok((rig, link))
}

/// Payments that were taken and failed, both ways, one in two equal parts; at the end some are pending.
fn with_payments(net: &mut Net, link: &Link) -> Result<(), Failed> {
    for round in 0..3 {
        for payer in [0, 1] {
            let taken = net.send(payer, &[*link], 20_000_000, &format!("taken {round} {payer}"))?;
            let failed =
                net.send(payer, &[*link], 7_654_321, &format!("failed {round} {payer}"))?;
            net.claim(&taken);
            net.fail(&failed);
        }
    }
    let parts = net.start(0, &[*link], 9_000_000, "two parts", 2)?;
    net.pump();
    net.arrived(&parts)?;
    net.claim(&parts);
    // Too small for an output.
    let dust = net.send(1, &[*link], 100_000, "trimmed")?;
    net.claim(&dust);
    Ok(())
}

fn and_pending(net: &mut Net, link: &Link) -> Result<(), Failed> {
    with_payments(net, link)?;
    for payer in [0, 1] {
        net.send(payer, &[*link], 31_000_000, &format!("pending {payer}"))?;
        net.send(payer, &[*link], 150_000, &format!("pending and trimmed {payer}"))?;
        let twins = net.start(payer, &[*link], 11_000_000, &format!("pending twins {payer}"), 2)?;
        net.pump();
        net.arrived(&twins)?;
    }
    Ok(())
}

fn paid(kind: Kind, pending: bool) -> Result<(Rig, Link), Failed> {
    let (mut rig, link) = opened(kind, 400_000_000)?;
    if pending {
        and_pending(&mut rig.net, &link)?
    } else {
        with_payments(&mut rig.net, &link)?
    };
    rig.check(&link)?;
    Ok((rig, link))
}

#[test]
fn a_channel_at_rest_is_read_as_it_was_recorded() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        for push in [400_000_000, 0] {
            let (rig, link) = opened(kind, push)?;
            for node in 0..2 {
                let adoption = read(&rig, node, &link, &bytes(&rig, node, &link)?)?;
                let birth = BlockHeight(rig.net.chain.height());
                assert_eq!(*adoption.facts(), known(&rig, node, &link, birth)?, "{kind:?} {push}");
            }
        }
    }
    Ok(())
}

/// With a past and with HTLCs that are pending: what is read is what was recorded live.
#[test]
fn a_channel_with_payments_is_read_as_it_was_recorded() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        for pending in [false, true] {
            let (rig, link) = paid(kind, pending)?;
            for node in 0..2 {
                let adoption = read(&rig, node, &link, &bytes(&rig, node, &link)?)?;
                let birth = BlockHeight(rig.net.chain.height());
                let live = shape(known(&rig, node, &link, birth)?);
                assert_eq!(shape(adoption.facts().clone()), live, "{kind:?} {pending} {node}");
                assert_eq!(live.1.len(), if pending { 8 } else { 0 });
            }
        }
    }
    Ok(())
}

/// Penalty data: every HTLC that had an output, as often as it was there at once, and none that never was.
#[test]
fn what_was_revoked_is_known_as_it_was_recorded() -> Result<(), Failed> {
    let (rig, link) = paid(Kind::Anchors, true)?;
    for node in 0..2 {
        let adoption = read(&rig, node, &link, &bytes(&rig, node, &link)?)?;
        let sink = rig.sink(node);
        let told = sink.told.lock().map_err(|_| "poisoned")?;
        let ended = &told.ended[&id(&link)];
        let mut recorded = counted(ended.iter().map(|(id, record)| (id, &record.htlc)));
        let trimmed = |amount: u64| amount < 354_000;
        recorded.retain(|(_, amount, ..), _| !trimmed(*amount));
        let read = counted(adoption.ended().iter().map(|(id, record)| (id, &record.htlc)));
        assert_eq!(read, recorded);
        assert_eq!(read.values().filter(|count| **count == 2).count(), 1, "the two parts");
        let current = adoption.facts().candidates.current.remote.number;
        for (of, record) in adoption.ended() {
            assert!(!adoption.facts().htlcs.contains_key(of));
            let whole = (Some(CommitmentNumber(0)), Some(current));
            assert_eq!((record.remote_from, record.remote_until), whole);
        }
    }
    Ok(())
}

/// A forwarded payment is pending: the two HTLCs are linked when both channels are adopted, in whatever
/// order, and one alone is LDK's to resolve upstream.
#[test]
fn forwards_are_linked_when_they_are_adopted() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let payment = rig.net.send(0, &[near, far], 20_000_000, "forwarded")?;
    let both = [&near, &far];
    let live: Vec<_> = both.iter().map(|link| rig.facts(1, link)).collect::<Result<_, _>>()?;
    let adoptions = both
        .iter()
        .map(|link| Ok(read(&rig, 1, link, &bytes(&rig, 1, link)?)?))
        .collect::<Result<Vec<_>, Failed>>()?;
    let (taps, sink) = (rig.net.nodes[1].taps.clone(), rig.sink(1));
    let fresh = |rig: &Rig| -> Result<(), Failed> {
        let mut desks = rig.desks.borrow_mut();
        desks[1].store = Arc::new(MemoryKv::default());
        desks[1].recorder = Recorder::open(taps.clone(), desks[1].store.clone(), &[])?;
        sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        Ok(())
    };
    let adopt = |rig: &Rig, which: &[usize]| {
        let chosen = which.iter().map(|at| adoptions[*at].clone()).collect();
        super::rig::at_once(rig.desks.borrow_mut()[1].recorder.adopt(
            chosen,
            &*sink,
            &Egress::default(),
        ))
    };
    // The far one alone: of the incoming HTLC no more is known than when it expires.
    fresh(&rig)?;
    assert_eq!(adopt(&rig, &[1]), []);
    let alone = rig.facts(1, &far)?.htlcs[&super::OFFERED].htlc;
    let HtlcLink::ForwardOf { incoming, expiry, .. } = alone.link else {
        return Err(format!("{:?}", alone.link).into());
    };
    assert_eq!(incoming, HtlcRef { channel: id(&near), htlc: super::RECEIVED });
    assert_eq!(expiry, live[0].htlcs[&super::RECEIVED].htlc.expiry);
    for parts in [vec![vec![0, 1]], vec![vec![1, 0]], vec![vec![0], vec![1]]] {
        fresh(&rig)?;
        for part in &parts {
            assert_eq!(adopt(&rig, part), [], "{parts:?}");
        }
        for (link, live) in both.iter().zip(&live) {
            let htlcs = |facts: &ChannelFacts| {
                facts.htlcs.iter().map(|(id, record)| (*id, record.htlc)).collect::<Vec<_>>()
            };
            assert_eq!(htlcs(&rig.facts(1, link)?), htlcs(live), "{parts:?}");
        }
    }
    let outgoing = HtlcRef { channel: id(&far), htlc: super::OFFERED };
    let linked = rig.facts(1, &near)?.htlcs[&super::RECEIVED].htlc.link;
    assert_eq!(linked, HtlcLink::ForwardedTo { outgoing });
    // The recorder goes on: the preimage comes from downstream, and both HTLCs end.
    rig.net.claim(&payment);
    rig.check(&near)?;
    rig.check(&far)?;
    assert!(rig.facts(1, &near)?.htlcs.is_empty() && rig.facts(1, &far)?.htlcs.is_empty());
    Ok(())
}

/// The peer publishes what it had revoked before the arbiter was there: two HTLCs of each direction, one
/// pair of them equal. All of it is punished, with LDK's signers.
async fn punished(kind: Kind) -> Result<(), Failed> {
    let mut commitment: Option<Transaction> = None;
    let mut past = |net: &mut Net, link: &Link| {
        with_payments(net, link)?;
        let there = net.send(0, &[*link], 25_000_000, "there")?;
        let back = net.send(1, &[*link], 26_000_000, "back")?;
        let twins = net.start(1, &[*link], 27_000_000, "twins", 2)?;
        net.pump();
        net.arrived(&twins)?;
        let bytes = {
            let monitor = net.nodes[1].monitors.get_monitor(link.id);
            monitor.map_err(|()| "no monitor")?.encode()
        };
        commitment = net.nodes[1].commitment_in(&bytes)?;
        net.claim(&there);
        net.claim(&twins);
        net.fail(&back);
        with_payments_after(net, link)
    };
    let mut world = Beside::adopting(kind, Mode::Own, &mut past).await?;
    let revoked = commitment.ok_or("no commitment")?;
    world.mine_these(std::slice::from_ref(&revoked)).await?;
    world.mine(6).await?;
    let spent = world.spent(&[revoked.compute_txid()].into());
    let to_remote = usize::from(kind == Kind::Anchors);
    assert_eq!(spent.len(), 5 + to_remote, "to_local, four HTLCs: {spent:?} of {revoked:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

fn with_payments_after(net: &mut Net, link: &Link) -> Result<(), Failed> {
    let more = net.send(0, &[*link], 28_000_000, "after")?;
    net.claim(&more);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_is_punished_with_static_remotekey() -> Result<(), Failed> {
    punished(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_is_punished_with_anchors() -> Result<(), Failed> {
    punished(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_is_punished_with_zero_fee() -> Result<(), Failed> {
    punished(Kind::ZeroFee).await
}

/// HTLCs that were pending when the arbiter came are claimed by preimage and timeout.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_pending_before_is_claimed() -> Result<(), Failed> {
    let mut received = None;
    let mut past = |net: &mut Net, link: &Link| {
        with_payments(net, link)?;
        net.send(0, &[*link], 20_000_000, "offered")?;
        received = Some(net.send(1, &[*link], 30_000_000, "received")?);
        Ok(())
    };
    let mut world = Beside::adopting(Kind::Anchors, Mode::Own, &mut past).await?;
    world.net.cut(0, 1);
    world.net.claim(&received.ok_or("no payment")?);
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    world.mine(100).await?;
    let spent = world.spent(&[commitment.compute_txid()].into());
    assert_eq!(spent.len(), 3, "balance, preimage, timeout: {spent:?} of {commitment:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// LDK had taken a payment, and its peer was away before it heard of it: the preimage comes with the
/// channel, and claims the HTLC when the peer closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_that_was_known_before_claims() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        let mut past = |net: &mut Net, link: &Link| {
            let taken = net.send(1, &[*link], 30_000_000, "taken")?;
            net.send(1, &[*link], 30_000_000, "not taken")?;
            net.cut(0, 1);
            net.claim(&taken);
            Ok(())
        };
        let mut world = Beside::adopting(kind, Mode::Own, &mut past).await?;
        let commitment = world.peer_commitment(&world.peer_monitor()?)?;
        world.mine_these(std::slice::from_ref(&commitment)).await?;
        world.mine(5).await?;
        let spent = world.spent(&[commitment.compute_txid()].into());
        let balance = usize::from(kind == Kind::Anchors);
        assert_eq!(spent.len(), 1 + balance, "by its preimage: {spent:?} of {commitment:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// Whom a preimage serves that LDK knew before: what we take is ours by id, what came from downstream
/// is the forwarded one's.
#[test]
fn preimages_that_were_known_before_are_told() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let forwarded = rig.net.send(0, &[near, far], 20_000_000, "forwarded")?;
    let taken = rig.net.send(0, &[near], 21_000_000, "taken")?;
    rig.net.cut(0, 1);
    rig.net.claim(&forwarded);
    rig.net.claim(&taken);
    let adoption = read(&rig, 1, &near, &bytes(&rig, 1, &near)?)?;
    let taken_id = HtlcId { offerer: Side::Remote, id: 1 };
    assert_eq!(adoption.facts().htlcs[&taken_id].htlc.link, HtlcLink::Final);
    assert_ne!(adoption.facts().htlcs[&super::RECEIVED].htlc.link, HtlcLink::Uncommitted);
    let (taps, sink) = (rig.net.nodes[1].taps.clone(), rig.sink(1));
    {
        let mut desks = rig.desks.borrow_mut();
        desks[1].store = Arc::new(MemoryKv::default());
        desks[1].recorder = Recorder::open(taps, desks[1].store.clone(), &[])?;
        let mut told = sink.told.lock().map_err(|_| "poisoned")?;
        told.facts.clear();
        told.preimages.clear();
    }
    {
        let mut desks = rig.desks.borrow_mut();
        let egress = Egress::default();
        let adopted = desks[1].recorder.adopt(vec![adoption], &*sink, &egress);
        assert_eq!(super::rig::at_once(adopted), []);
    }
    {
        let told = sink.told.lock().map_err(|_| "poisoned")?;
        let expected = [
            (id(&near), Preimage(forwarded.preimage.0), PreimageSource::Linked(super::RECEIVED)),
            (id(&near), Preimage(taken.preimage.0), PreimageSource::Node),
        ];
        assert_eq!(told.preimages.len(), 2);
        assert!(expected.iter().all(|of| told.preimages.contains(of)));
    }
    rig.net.reconnect(0, 1);
    assert!(rig.facts(1, &near)?.htlcs.is_empty());
    Ok(())
}

/// The node stops after every number of writes while a channel is adopted, and blocks go by before it
/// starts again: the arbiter is told the same, and the channel goes on.
#[test]
fn an_adoption_that_stops_anywhere_is_repeated() -> Result<(), Failed> {
    let mut stopped = 0;
    for writes in 0.. {
        let (mut rig, link) = paid(Kind::Anchors, true)?;
        let (taps, sink) = (rig.net.nodes[0].taps.clone(), rig.sink(0));
        let store = Arc::new(MemoryKv::default());
        let fresh = |rig: &Rig| -> Result<(), Failed> {
            let mut desks = rig.desks.borrow_mut();
            desks[0].store = store.clone();
            desks[0].recorder = Recorder::open(taps.clone(), store.clone(), &[])?;
            Ok(())
        };
        sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        fresh(&rig)?;
        let adopt = |rig: &Rig| -> Result<_, Failed> {
            let adoption = read(rig, 0, &link, &bytes(rig, 0, &link)?)?;
            let mut desks = rig.desks.borrow_mut();
            Ok(super::rig::at_once(desks[0].recorder.adopt(
                vec![adoption],
                &*sink,
                &Egress::default(),
            )))
        };
        store.fail_after(Some(writes));
        let refused = adopt(&rig)?;
        store.fail_after(None);
        let done = refused.is_empty();
        assert!(
            refused.iter().all(|(of, why)| *of == id(&link) && matches!(why, Refusal::Later(_)))
        );
        stopped += usize::from(!done);
        fresh(&rig)?;
        let chain = &mut rig.net.chain;
        let height = chain.height();
        chain.mine_empty(3);
        rig.net.show(height + 1);
        assert_eq!(adopt(&rig)?, [], "after {writes} writes");
        assert_eq!(rig.facts(0, &link)?.htlcs.len(), 8);
        goes_on(&mut rig, &link)?;
        if done {
            break;
        }
    }
    assert!(stopped > 3, "{stopped} stops");
    Ok(())
}

/// The recorder's record is there, and the arbiter's store is older: the channel is adopted again.
#[test]
fn a_record_without_a_watched_channel_is_adopted_again() -> Result<(), Failed> {
    let (mut rig, link) = paid(Kind::Anchors, true)?;
    let sink = rig.sink(0);
    sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
    rig.restart_recorder(0)?;
    let adoption = read(&rig, 0, &link, &bytes(&rig, 0, &link)?)?;
    {
        let mut desks = rig.desks.borrow_mut();
        let egress = Egress::default();
        let adopted = desks[0].recorder.adopt(vec![adoption], &*sink, &egress);
        assert_eq!(super::rig::at_once(adopted), []);
    }
    assert_eq!(rig.facts(0, &link)?.htlcs.len(), 8);
    goes_on(&mut rig, &link)
}

/// One more payment, of which the sink hears as well: it verifies every commitment.
fn goes_on(rig: &mut Rig, link: &Link) -> Result<(), Failed> {
    let number = |rig: &Rig| -> Result<u64, Failed> {
        Ok(rig.facts(0, link)?.candidates.current.local.number.0)
    };
    let before = number(rig)?;
    let more = rig.net.send(0, &[*link], 5_000_000, "more")?;
    rig.net.claim(&more);
    assert_eq!(super::fence::held(rig, 0), []);
    assert!(number(rig)? > before);
    assert_eq!(rig.facts(0, link)?.htlcs.len(), 8);
    Ok(())
}

/// LDK went on alone after the arbiter was told of the channel: it is refused, and the arbiter hears
/// the true numbers, so that it publishes no commitment that is outdated.
#[test]
fn a_channel_that_went_on_alone_is_refused() -> Result<(), Failed> {
    let (mut rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let taps = rig.net.nodes[0].taps.clone();
    let before = rig.facts(0, &link)?;
    let more = rig.net.send(0, &[link], 5_000_000, "more")?;
    rig.net.claim(&more);
    let sink = rig.sink(0);
    sink.told.lock().map_err(|_| "poisoned")?.facts.insert(id(&link), before.clone());
    let adoption = read(&rig, 0, &link, &bytes(&rig, 0, &link)?)?;
    let current = &adoption.facts().candidates.current;
    let (local, remote) = (current.local.number, current.remote.number);
    let mut desks = rig.desks.borrow_mut();
    desks[0].store = Arc::new(MemoryKv::default());
    desks[0].recorder = Recorder::open(taps, desks[0].store.clone(), &[])?;
    let refused =
        super::rig::at_once(desks[0].recorder.adopt(vec![adoption], &*sink, &Egress::default()));
    assert!(matches!(&refused[..], [(of, Refusal::Refused(_))] if *of == id(&link)), "{refused:?}");
    let told = sink.told.lock().map_err(|_| "poisoned")?;
    assert_eq!(told.numbers[&id(&link)], ChannelNumbers { id: id(&link), local, remote });
    assert!(local > before.candidates.current.local.number);
    Ok(())
}

/// Another recorder and another sink take the channel over, and payments go on both ways.
#[test]
fn an_adopted_channel_goes_on() -> Result<(), Failed> {
    let (mut rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let adoption = read(&rig, 0, &link, &bytes(&rig, 0, &link)?)?;
    {
        let mut desks = rig.desks.borrow_mut();
        let (desk, taps) = (&mut desks[0], rig.net.nodes[0].taps.clone());
        desk.store = Arc::new(MemoryKv::default());
        desk.recorder = Recorder::open(taps, desk.store.clone(), &[])?;
        desk.sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        let sink = desk.sink.clone();
        for _ in 0..2 {
            let egress = Egress::default();
            let adopted = desk.recorder.adopt(vec![adoption.clone()], &*sink, &egress);
            assert_eq!(super::rig::at_once(adopted), []);
        }
    }
    let there = rig.net.send(0, &[link], 20_000_000, "there")?;
    let back = rig.net.send(1, &[link], 30_000_000, "back")?;
    rig.check(&link)?;
    rig.net.claim(&there);
    rig.net.claim(&back);
    rig.check(&link)?;
    assert!(rig.facts(0, &link)?.htlcs.is_empty());
    Ok(())
}

#[test]
fn what_cannot_be_adopted_is_named() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let why = |rig: &Rig, link: &Link| -> Result<Option<Unadopted>, Failed> {
        Ok(read(rig, 1, link, &bytes(rig, 1, link)?).err())
    };
    assert_eq!(why(&rig, &near)?, None);
    let payment = rig.net.send(0, &[near], 20_000_000, "pending")?;
    assert_eq!(why(&rig, &near)?, None);
    // The preimage is known, and the peer does not hear of it.
    rig.net.cut(0, 1);
    rig.net.claim(&payment);
    assert_eq!(why(&rig, &near)?, None);
    rig.net.reconnect(0, 1);
    assert_eq!(why(&rig, &near)?, None);
    // One side has signed, the other has not answered.
    rig.net.start(1, &[near], 5_000_000, "half", 1)?;
    rig.net.pump_one(1);
    assert_eq!(why(&rig, &near)?, Some(Unadopted::NotSettled));
    rig.net.pump();
    // Another peer's dust limit.
    let told = |rig: &Rig, of: &Link, details: &ChannelDetails, dust| -> Result<_, Failed> {
        let node = &rig.net.nodes[1];
        let monitor = node.monitors.get_monitor(of.id).map_err(|()| "no monitor")?;
        Ok(bootstrap(&monitor, &monitor.encode(), &*node.keys, details, dust).err())
    };
    let channels = rig.net.nodes[1].manager.list_channels();
    let of = |link: &Link| channels.iter().find(|details| details.channel_id == link.id);
    let (of_near, of_far) = (of(&near).ok_or("no channel")?, of(&far).ok_or("no channel")?);
    assert_eq!(told(&rig, &near, of_near, DUST)?, None);
    assert_eq!(told(&rig, &near, of_near, Amount::from_sat(6_000))?, Some(Unadopted::NotSettled));
    // Another channel's word, and one that does not list the HTLC.
    assert!(matches!(told(&rig, &near, of_far, DUST)?, Some(Unadopted::Contradiction(_))));
    let _received = rig.net.send(0, &[near], 6_000_000, "unlisted")?;
    assert_eq!(told(&rig, &near, of_near, DUST)?, Some(Unadopted::Htlcs));
    // Another channel's bytes.
    let other = bytes(&rig, 1, &near)?;
    assert!(matches!(read(&rig, 1, &far, &other), Err(Unadopted::Contradiction(_))));
    let other = bytes(&rig, 2, &far)?;
    assert!(matches!(read(&rig, 1, &far, &other), Err(Unadopted::Contradiction(_))));
    rig.net.force_close(1, &far)?;
    assert_eq!(told(&rig, &far, of_far, DUST)?, Some(Unadopted::Closing));
    assert_eq!(id(&far).0, far.id.0);
    Ok(())
}
