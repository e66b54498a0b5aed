//! Channels that are never funded: the arbiter watches them no more, and nothing is remembered of them.
use super::Failed;
use arb_core::ids::ChannelId;
use arb_node_adapter::{LdkEvents, Mode};
use arb_tests::ldk::{Beside, Kind, MemoryKv, ToArbiter};
use arb_watcher::{AbandonError, CommandError, Unfunded};
use bitcoin::Amount;
use lightning::events::Event;
use std::sync::Arc;

const CAPACITY: Amount = Amount::from_sat(1_000_000);

/// The peer opens a channel, and gives it up before its funding transaction is anywhere.
async fn given_up(mode: Mode, push_msat: u64) -> Result<(Beside, ChannelId), Failed> {
    let mut world = Beside::new(Kind::Anchors, mode).await?;
    let id = world.net.propose(1, 0, CAPACITY, push_msat)?;
    world.net.pump();
    world.settle().await?;
    let channel = ChannelId(id.0);
    assert!(world.arbiter.report(channel).await?.is_some(), "the arbiter watches it");
    let (peer, us) = (&world.net.nodes[1].manager, world.net.nodes[0].id());
    peer.force_close_broadcasting_latest_txn(&id, &us, "no more".to_owned())
        .map_err(|error| format!("{error:?}"))?;
    world.net.pump();
    Ok((world, channel))
}

/// What the node does with LDK's word that a channel is closed.
async fn hears(world: &Beside, channel: ChannelId) -> Result<Result<(), CommandError>, Failed> {
    let node = &world.net.nodes[0];
    let arbiter = || ToArbiter(world.arbiter.clone(), node.egress.clone());
    let store = Arc::<MemoryKv>::default();
    let events = LdkEvents::new(store, arbiter(), arbiter(), node.egress.clone());
    let closed = |event: &Event| match event {
        Event::ChannelClosed { channel_id, .. } if channel_id.0 == channel.0 => Some(event.clone()),
        _ => None,
    };
    let event = node.take_event(closed).ok_or("LDK has not closed it")?;
    events.handle(&event).await.map_err(|_| "not now")?;
    Ok(world.arbiter.abandon_channel(channel, Unfunded::NothingAtStake).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_is_never_funded_is_forgotten() -> Result<(), Failed> {
    for mode in [Mode::Observe, Mode::Own] {
        let (mut world, channel) = given_up(mode, 0).await?;
        assert_eq!(hears(&world, channel).await?, Ok(()));
        let known = world.arbiter.fail_channel(channel).await;
        assert!(matches!(known, Err(CommandError::UnknownChannel(_))), "{known:?}");
        // What an owner publishes of it until then is refused by the network.
        if mode == Mode::Observe {
            world.mine(3).await?;
        }
        // The recorder hears of it with the next word on the peer.
        assert!(world.recorded_channels().contains(&channel));
        world.net.cut(0, 1);
        world.net.reconnect(0, 1);
        assert!(!world.recorded_channels().contains(&channel));
        world.arbiter.shutdown().await;
    }
    Ok(())
}

/// The peer gave us something: the arbiter waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_would_be_worth_something_is_watched_on() -> Result<(), Failed> {
    let (world, channel) = given_up(Mode::Observe, 50_000_000).await?;
    let refused = hears(&world, channel).await?;
    let at_stake = Err(CommandError::NotAbandoned(channel, AbandonError::AtStake));
    assert_eq!(refused, at_stake);
    world.arbiter.shutdown().await;
    Ok(())
}
