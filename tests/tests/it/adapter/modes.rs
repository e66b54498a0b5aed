//! Who publishes: LDK or the arbiter. Either way the other one sees the channel resolved.
use super::Failed;
use arb_core::arbitrator::CloseKind;
use arb_core::ids::{ChannelId, Side};
use arb_core::picture::Role;
use arb_node_adapter::{HeldFor, Mode};
use arb_tests::ldk::{Beside, Kind, cut_off};
use bitcoin::{Transaction, Txid};
use lightning::chain::channelmonitor::Balance;
use lightning::events::Event;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub(super) fn paid_and_failed(world: &Beside) {
    let node = &world.net.nodes[0];
    node.collect_events();
    let failed = |event: &Event| matches!(event, Event::PaymentFailed { .. }).then_some(());
    assert_eq!(node.take_event(failed), Some(()), "the offered HTLC timed out");
    let claimed = |event: &Event| matches!(event, Event::PaymentClaimed { .. }).then_some(());
    assert_eq!(node.take_event(claimed), Some(()), "the received HTLC was taken");
}

/// LDK closes, the arbiter publishes everything, and LDK's events and balances follow.
async fn own(kind: Kind) -> Result<(), Failed> {
    let mut world = cut_off(kind, Mode::Own).await?;
    let link = world.link;
    world.net.force_close(0, &link)?;
    world.settle().await?;
    for _ in 0..261 {
        assert_eq!(world.broadcast_of_ldk(), [], "LDK publishes nothing");
        world.mine(1).await?;
    }
    world.all_claimed_from_local();
    paid_and_failed(&world);
    let node = &world.net.nodes[0];
    let spendable = |event: &Event| matches!(event, Event::SpendableOutputs { .. }).then_some(());
    assert_eq!(node.take_event(spendable), Some(()));
    assert_eq!(node.monitors.get_claimable_balances(&[]), []);
    world.arbiter.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arbiter_publishes_with_static_remotekey() -> Result<(), Failed> {
    own(Kind::StaticRemotekey).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arbiter_publishes_with_anchors() -> Result<(), Failed> {
    own(Kind::Anchors).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_arbiter_publishes_with_zero_fee() -> Result<(), Failed> {
    own(Kind::ZeroFee).await
}

/// LDK closes and claims; the arbiter sees all of it and publishes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_arbiter_observes() -> Result<(), Failed> {
    let mut world = cut_off(Kind::StaticRemotekey, Mode::Observe).await?;
    let (link, id) = (world.link, ChannelId(world.link.id.0));
    world.net.force_close(0, &link)?;
    let mut theirs: BTreeSet<Txid> = BTreeSet::new();
    for _ in 0..120 {
        theirs.extend(world.broadcast_of_ldk().iter().map(Transaction::compute_txid));
        world.mine(1).await?;
    }
    assert!(world.ours.is_empty(), "the arbiter publishes nothing");
    paid_and_failed(&world);
    let report = world.arbiter.report(id).await?.ok_or("no report")?;
    assert!(matches!(report.close, Some(CloseKind::Local(_))), "{:?}", report.close);
    let htlcs: Vec<_> =
        report.outputs.iter().filter(|output| matches!(output.role, Role::Htlc(_))).collect();
    assert_eq!(htlcs.len(), 2);
    for htlc in htlcs {
        let spender = world.net.chain.confirmed_spender(&htlc.outpoint).ok_or("unspent")?;
        assert!(theirs.contains(&spender.compute_txid()), "LDK spends {:?}", htlc.role);
        assert_eq!(htlc.spent_by, Some(Side::Local), "{htlc:?}");
    }
    world.arbiter.shutdown().await;
    Ok(())
}

/// The mode changes while claims are pending: from the next block on the arbiter publishes.
#[tokio::test(flavor = "multi_thread")]
async fn the_mode_changes_at_run_time() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Observe).await?;
    let commitment = world.peer_commitment(&world.peer_monitor()?)?;
    world.mine_these(std::slice::from_ref(&commitment)).await?;
    world.mine(5).await?;
    assert!(world.ours.is_empty());
    world.net.nodes[0].egress.set(Mode::Own);
    world.mine(2).await?;
    let spent = world.spent(&[commitment.compute_txid()].into());
    assert_eq!(spent.len(), 2, "our balance and the received HTLC: {spent:?}");
    world.arbiter.shutdown().await;
    Ok(())
}

/// The arbiter starts the close: LDK has no such channel any more when it is published, and its
/// events and balances follow.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_of_the_arbiter_is_ldks_as_well() -> Result<(), Failed> {
    let mut world = cut_off(Kind::Anchors, Mode::Own).await?;
    world.arbiter.fail_channel(ChannelId(world.link.id.0)).await?;
    assert!(world.net.nodes[0].manager.list_channels().is_empty());
    world.net.pump();
    world.settle().await?;
    for _ in 0..261 {
        assert_eq!(world.broadcast_of_ldk(), [], "LDK publishes nothing");
        world.mine(1).await?;
    }
    world.all_claimed_from_local();
    paid_and_failed(&world);
    let node = &world.net.nodes[0];
    let closed = |event: &Event| matches!(event, Event::ChannelClosed { .. }).then_some(());
    assert_eq!(node.take_event(closed), Some(()));
    assert_eq!(node.monitors.get_claimable_balances(&[]), []);
    world.arbiter.shutdown().await;
    Ok(())
}

/// The arbiter has decided to fail the channel, and our commitment cannot go out yet. What the peer says
/// meanwhile leads to no newer commitment of ours: what goes out then is not revoked.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_arbiter_fails_a_channel_ldk_revokes_nothing() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let mut world = Beside::new(kind, Mode::Own).await?;
        let (link, id) = (world.link, ChannelId(world.link.id.0));
        world.may_hold();
        world.signers_away.store(true, Ordering::SeqCst);
        // Until the intent is durable; commands keep their order.
        tokio::select! {
            biased;
            _ = world.arbiter.fail_channel(id) => {}
            report = world.arbiter.report(id) => drop(report?),
        }
        let late = world.net.start(1, &[link], 30_000_000, "late", 1)?;
        world.net.pump();
        assert_eq!(world.held(), [HeldFor::Fenced]);
        assert!(world.net.arrived(&late).is_err());
        assert_eq!(world.net.nodes[0].manager.list_channels().len(), 1, "nothing is out yet");
        assert!(world.ours.is_empty());
        world.signers_away.store(false, Ordering::SeqCst);
        world.mine(2).await?;
        // What a signer did not sign is asked for again a moment later.
        for _ in 0..10 {
            let report = world.arbiter.report(id).await?.ok_or("no report")?;
            if report.close.is_some() && world.held().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            world.mine(1).await?;
        }
        assert!(world.net.nodes[0].manager.list_channels().is_empty());
        assert_eq!(world.held(), []);
        let close = world.arbiter.report(id).await?.ok_or("no report")?.close;
        assert!(matches!(close, Some(CloseKind::Local(number)) if number.0 == 0), "{close:?}");
        // For the peer it is what we may publish.
        let balances = world.net.nodes[1].monitors.get_claimable_balances(&[]);
        let punishes =
            |of: &Balance| matches!(of, Balance::CounterpartyRevokedOutputClaimable { .. });
        assert!(!balances.is_empty() && !balances.iter().any(punishes), "{balances:?}");
        world.arbiter.shutdown().await;
    }
    Ok(())
}
