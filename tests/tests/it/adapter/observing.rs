//! An arbiter that observes holds no update of LDK's and closes no channel, and may own channels later.
use super::Failed;
use arb_core::arbitrator::Phase;
use arb_core::ids::ChannelId;
use arb_node_adapter::{HeldFor, Mode};
use arb_tests::ldk::{Beside, Kind};
use std::sync::atomic::Ordering;

const AMOUNT_MSAT: u64 = 20_000_000;

/// The peer comes back two blocks after an HTLC has expired, which LDK allows.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_peer_is_ldks_to_judge() -> Result<(), Failed> {
    let mut world = Beside::new(Kind::Anchors, Mode::Observe).await?;
    let (link, id) = (world.link, ChannelId(world.link.id.0));
    world.net.send(0, &[link], AMOUNT_MSAT, "offered")?;
    let channels = world.net.nodes[0].manager.list_channels();
    let expiry = channels[0].pending_outbound_htlcs[0].cltv_expiry;
    world.net.cut(0, 1);
    while world.net.chain.height() < expiry + 2 {
        world.mine(1).await?;
    }
    let report = world.arbiter.report(id).await?.ok_or("no report")?;
    assert_eq!(report.phase, Phase::Open);
    world.net.reconnect(0, 1);
    world.mine(6).await?;
    let channels = world.net.nodes[0].manager.list_channels();
    assert_eq!(channels.len(), 1, "nobody closes it");
    assert!(channels[0].pending_outbound_htlcs.is_empty());
    assert_eq!(world.left(), [], "the arbiter has it still");
    world.arbiter.shutdown().await;
    Ok(())
}

/// LDK goes on with it, and the arbiter publishes nothing of it any more.
async fn is_ldks(world: &mut Beside) -> Result<(), Failed> {
    let (link, id) = (world.link, ChannelId(world.link.id.0));
    assert_eq!(world.held(), []);
    assert_eq!((world.left(), world.handed_back()), (vec![id], vec![id]));
    world.net.nodes[0].egress.set(Mode::Own);
    for name in ["one", "two"] {
        let payment = world.net.send(1, &[link], AMOUNT_MSAT, name)?;
        world.net.claim(&payment);
        world.mine(3).await?;
    }
    assert!(world.ours.is_empty(), "{:?}", world.ours);
    assert_eq!(world.net.nodes[0].manager.list_channels().len(), 1);
    Ok(())
}

/// What would be held goes on with LDK alone, and stays so when the arbiter owns channels.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_holds_nothing() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut world = Beside::new(kind, Mode::Observe).await?;
        let (link, id) = (world.link, ChannelId(world.link.id.0));
        tokio::select! {
            biased;
            _ = world.arbiter.fail_channel(id) => {}
            report = world.arbiter.report(id) => drop(report?),
        }
        let payment = world.net.send(1, &[link], AMOUNT_MSAT, "passes")?;
        world.net.claim(&payment);
        is_ldks(&mut world).await?;
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// What was held when the arbiter owned channels, and nothing of which is out, goes on as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_held_goes_on_when_the_arbiter_only_observes() -> Result<(), Failed> {
    let mut world = Beside::new(Kind::Anchors, Mode::Own).await?;
    let (link, id) = (world.link, ChannelId(world.link.id.0));
    world.may_hold();
    world.signers_away.store(true, Ordering::SeqCst);
    tokio::select! {
        biased;
        _ = world.arbiter.fail_channel(id) => {}
        report = world.arbiter.report(id) => drop(report?),
    }
    let late = world.net.start(1, &[link], AMOUNT_MSAT, "late", 1)?;
    world.net.pump();
    assert_eq!(world.held(), [HeldFor::Fenced]);
    world.net.nodes[0].egress.set(Mode::Observe);
    world.signers_away.store(false, Ordering::SeqCst);
    world.mine(1).await?;
    world.net.pump();
    world.net.arrived(&late)?;
    world.net.claim(&late);
    is_ldks(&mut world).await?;
    world.arbiter.shutdown().await;
    Ok(())
}
