//! Channels that were spliced before the arbiter was there, or are being spliced when it comes.
use super::{
    CAPACITY, Failed, Rig, and_pending, bytes, known, opened, read, shape, with_payments,
    with_payments_after,
};
use crate::adapter::facts::rig::at_once;
use arb_core::facts::ChannelFacts;
use arb_core::units::BlockHeight;
use arb_node_adapter::{Adoption, Egress, Mode, Recorder, Unadopted};
use arb_tests::ldk::{Beside, Kind, Link, MemoryKv, Net};
use bitcoin::{Amount, Transaction};
use lightning::util::ser::Writeable;
use std::sync::Arc;

const ADDED: Amount = Amount::from_sat(200_000);
/// Blocks until a funding output counts as there for good.
pub(super) const DEPTH: u32 = 6;

/// Payments before a splice, while it is pending and since it is locked.
pub(super) fn splice(net: &mut Net, link: &Link, depth: u32) -> Result<Link, Failed> {
    with_payments(net, link)?;
    let gone = net.send(1, &[*link], 13_000_000, "over since the splice")?;
    net.splice_in(0, link, ADDED)?;
    let meanwhile = net.send(0, &[*link], 14_000_000, "meanwhile")?;
    net.claim(&gone);
    net.mine(depth)?;
    let link = net.renamed(link)?;
    net.claim(&meanwhile);
    Ok(link)
}

fn why(rig: &Rig, node: usize, link: &Link) -> Result<Option<Unadopted>, Failed> {
    Ok(read(rig, node, link, &bytes(rig, node, link)?).err())
}

/// The present funding output alone counts.
fn alone(mut facts: ChannelFacts) -> ChannelFacts {
    facts.candidates.former.clear();
    facts
}

/// As it was recorded, once no block can bring the funding output from before back.
#[test]
fn it_is_adopted_by_its_present_funding_output() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let (mut rig, link) = opened(kind, 400_000_000)?;
        let link = splice(&mut rig.net, &link, DEPTH - 1)?;
        let more = rig.net.send(0, &[link], 15_000_000, "more")?;
        rig.net.claim(&more);
        assert_eq!(why(&rig, 0, &link)?, Some(Unadopted::Splice), "five blocks");
        rig.net.mine(1)?;
        and_pending(&mut rig.net, &link)?;
        for node in 0..2 {
            let adoption = read(&rig, node, &link, &bytes(&rig, node, &link)?)?;
            let facts = adoption.facts();
            assert_eq!(facts.candidates.current.capacity, CAPACITY + ADDED);
            let recorded = known(&rig, node, &link, BlockHeight(rig.net.chain.height()))?;
            assert_eq!(shape(facts.clone()), shape(alone(recorded)), "{kind:?} {node}");
        }
    }
    Ok(())
}

/// While it is spliced it stays with LDK, which goes on; it is adopted later, and spliced once more.
#[test]
fn until_then_it_is_left_to_ldk() -> Result<(), Failed> {
    let (mut rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let sink = rig.sink(1);
    {
        let taps = rig.net.nodes[1].taps.clone();
        let mut desks = rig.desks.borrow_mut();
        desks[1].store = Arc::new(MemoryKv::default());
        desks[1].recorder = Recorder::open(taps, desks[1].store.clone(), &[])?;
        sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
    }
    rig.net.splice_in(0, &link, ADDED)?;
    assert_eq!(why(&rig, 1, &link)?, Some(Unadopted::Splice), "it is pending");
    let payment = rig.net.send(0, &[link], 14_000_000, "meanwhile")?;
    rig.net.claim(&payment);
    // The peer has not heard of it yet.
    rig.net.cut(0, 1);
    rig.net.mine(DEPTH)?;
    assert_eq!(why(&rig, 1, &link)?, Some(Unadopted::Splice), "it is confirmed, and not locked");
    rig.net.reconnect(0, 1);
    let link = rig.net.renamed(&link)?;
    let payment = rig.net.send(1, &[link], 15_000_000, "locked")?;
    rig.net.claim(&payment);
    assert_eq!(rig.desks.borrow()[1].recorder.left_to_ldk().count(), 1);
    assert!(rig.facts(1, &link).is_err());

    let adoption: Adoption = read(&rig, 1, &link, &bytes(&rig, 1, &link)?)?;
    assert_eq!(
        at_once(rig.desks.borrow_mut()[1].recorder.adopt(
            vec![adoption],
            &*sink,
            &Egress::default()
        )),
        []
    );
    rig.restart_node(1)?;
    rig.net.pump();
    let stated = rig.desks.borrow()[1].recorder.numbers()[0].local;
    assert_eq!(stated, rig.facts(1, &link)?.candidates.current.local.number);
    let payment = rig.net.send(0, &[link], 16_000_000, "adopted")?;
    rig.net.splice_out(1, &link, Amount::from_sat(50_000))?;
    rig.net.claim(&payment);
    rig.net.mine(1)?;
    let link = rig.net.renamed(&link)?;
    let payment = rig.net.send(1, &[link], 17_000_000, "and spliced")?;
    rig.net.claim(&payment);
    let (one, two) = (rig.facts(0, &link)?.candidates, rig.facts(1, &link)?.candidates);
    assert_eq!(one.current.funding, two.current.funding);
    assert_eq!(one.current.local.point, two.current.remote.point);
    assert_eq!(two.former.len(), 1);
    assert_eq!(rig.desks.borrow()[1].recorder.held().count(), 0);
    Ok(())
}

/// What the peer has revoked since the splice is punished, with the keys that the splice brought.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_before_is_punished() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut commitment: Option<Transaction> = None;
        let mut past = |net: &mut Net, link: &Link| {
            let link = splice(net, link, DEPTH)?;
            let there = net.send(0, &[link], 25_000_000, "there")?;
            let back = net.send(1, &[link], 26_000_000, "back")?;
            let bytes = {
                let monitor = net.nodes[1].monitors.get_monitor(link.id);
                monitor.map_err(|()| "no monitor")?.encode()
            };
            commitment = net.nodes[1].commitment_in(&bytes)?;
            net.claim(&there);
            net.fail(&back);
            with_payments_after(net, &link)
        };
        let mut world = Beside::adopting(kind, Mode::Own, &mut past).await?;
        let revoked = commitment.ok_or("no commitment")?;
        world.mine_these(std::slice::from_ref(&revoked)).await?;
        world.mine(6).await?;
        let spent = world.spent(&[revoked.compute_txid()].into());
        let to_remote = usize::from(kind == Kind::Anchors);
        assert_eq!(spent.len(), 3 + to_remote, "to_local, two HTLCs: {spent:?} of {revoked:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// Our own commitment of the new funding output is published and claimed.
#[tokio::test(flavor = "multi_thread")]
async fn our_commitment_is_claimed() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        let mut received = None;
        let mut past = |net: &mut Net, link: &Link| {
            let link = splice(net, link, DEPTH)?;
            net.send(0, &[link], 20_000_000, "offered")?;
            received = Some(net.send(1, &[link], 30_000_000, "received")?);
            Ok(())
        };
        let mut world = Beside::adopting(kind, Mode::Own, &mut past).await?;
        world.net.cut(0, 1);
        world.net.claim(&received.ok_or("no payment")?);
        let link = world.link;
        world.net.force_close(0, &link)?;
        world.settle().await?;
        world.mine(261).await?;
        world.all_claimed_from_local();
        world.arbiter.shutdown().await;
    }
    Ok(())
}
