//! What the node states at start-up, and what that forbids.
use super::support::*;
use crate::{CommandError, Settings};
use arb_core::arbitrator::{Alert, Change, Notice, NoticeKey};
use arb_core::format::CommitmentFormat::StaticRemotekey;

const OUTDATED: Notice = Notice::Alert(Alert::OutdatedFacts);

/// A world whose store has a channel with local commitment 1, an HTLC in it, and remote 0.
async fn stored() -> (World, Channel) {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_local(1, &[offered(0)]);
    let world = World::default();
    world.watching(&channel).await.shutdown().await;
    (world, channel)
}

fn fails(change: &Change) -> bool {
    matches!(change, Change::FailRequested { .. })
}

// incident ldk-4286 ldk-451
#[tokio::test(start_paused = true)]
async fn outdated_facts_lead_to_no_broadcast() {
    let id = Channel::new(1, StaticRemotekey).id();
    for stated in [vec![], vec![numbers(id, 2, 0)], vec![numbers(id, 1, 1)]] {
        let (world, channel) = stored().await;
        let arbiter = world.start_with(Settings::default(), stated.clone()).await;
        let mut notices = arbiter.notices().await.expect("running");
        let refused = Err(CommandError::Outdated(id));
        assert_eq!(arbiter.fail_channel(id).await, refused, "{stated:?}");
        assert_eq!(arbiter.watch_channel(channel.facts.clone()).await, Ok(()), "the same facts");
        // Past the deadline of the HTLC.
        world.chain.mine_many(405);
        arbiter.idle().await.expect("running");
        world.pass(&arbiter, 2).await;
        assert_eq!(world.net.txids(), []);
        assert!(!world.log.stored_changes(0).iter().any(fails));
        assert!(drain(&mut notices).await.contains(&(id, OUTDATED)));
        // An update that touches other things changes nothing about it.
        let mut other = Channel::new(1, StaticRemotekey);
        other.facts = channel.facts.clone();
        let update = other.add(offered(1));
        arbiter.update_channel(id, vec![update]).await.expect("stored");
        assert_eq!(arbiter.fail_channel(id).await, refused, "{stated:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn current_facts_are_published_by_the_deadline() {
    let (world, channel) = stored().await;
    let arbiter = world.start_with(Settings::default(), vec![numbers(channel.id(), 1, 0)]).await;
    let mut notices = arbiter.notices().await.expect("running");
    world.chain.mine_many(405);
    arbiter.idle().await.expect("running");
    assert!(world.net.txids().contains(&channel.local_tx().compute_txid()));
    assert!(!drain(&mut notices).await.contains(&(channel.id(), OUTDATED)));
}

#[tokio::test(start_paused = true)]
async fn an_outdated_channel_that_was_failing_publishes_nothing() {
    let (world, channel) = stored().await;
    let arbiter = world.restart(&[&channel]).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.net.sent();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 3).await;
    assert_eq!(world.net.txids(), []);
    // And nothing of that is remembered.
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
}

#[tokio::test(start_paused = true)]
async fn the_updates_that_were_missing_make_facts_current() {
    let (world, mut channel) = stored().await;
    let id = channel.id();
    let arbiter = world.start_with(Settings::default(), vec![numbers(id, 2, 1)]).await;
    let update = channel.next_local(2, &[offered(0)]);
    arbiter.update_channel(id, vec![update]).await.expect("stored");
    assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::Outdated(id)));
    let updates = vec![channel.next_remote(1, &[]), channel.revoke(0)];
    arbiter.update_channel(id, updates).await.expect("stored");
    let mut notices = arbiter.notices().await.expect("running");
    assert_eq!(drain(&mut notices).await, []);
    fail(&arbiter, id).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
}

/// The peer proves, when it reconnects, that it is further than our facts (BOLT 2 data loss).
#[tokio::test(start_paused = true)]
async fn what_the_peer_proves_stops_a_broadcast_at_once() {
    let (world, channel) = stored().await;
    let id = channel.id();
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.fail_channel(id).await.expect("current facts");
    arbiter.idle().await.expect("running");
    assert_ne!(world.net.txids(), []);
    world.net.sent();
    arbiter.state_numbers(numbers(id, 2, 0)).await.expect("watched");
    world.pass(&arbiter, 3).await;
    assert_eq!(world.net.txids(), []);
    assert!(drain(&mut notices).await.contains(&(id, OUTDATED)));
    assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::Outdated(id)));
    // It was a mistake.
    arbiter.state_numbers(numbers(id, 1, 0)).await.expect("watched");
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
}

#[tokio::test(start_paused = true)]
async fn the_alarm_is_repeated_until_it_is_acknowledged() {
    let (world, channel) = stored().await;
    let arbiter = world.start().await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.idle().await.expect("running");
    assert_eq!(drain(&mut notices).await, [(channel.id(), OUTDATED)]);
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, [(channel.id(), OUTDATED)]);
    let key = NoticeKey::Alert(Alert::OutdatedFacts);
    arbiter.acknowledge(channel.id(), key).await.expect("watched");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, []);
    arbiter.shutdown().await;
    let mut notices = world.start().await.notices().await.expect("running");
    assert_eq!(drain(&mut notices).await, [(channel.id(), OUTDATED)], "a new start, a new alarm");
}

#[tokio::test(start_paused = true)]
async fn what_was_stated_by_mistake_is_no_alarm_any_more() {
    let (world, channel) = stored().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.state_numbers(numbers(channel.id(), 2, 0)).await.expect("watched");
    assert_eq!(drain(&mut notices).await, [(channel.id(), OUTDATED)]);
    arbiter.state_numbers(numbers(channel.id(), 1, 0)).await.expect("watched");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, []);
}
