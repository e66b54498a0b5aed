//! Idleness, the end, and what comes after it.
use super::support::*;
use crate::{CommandError, Delivery};
use arb_core::arbitrator::{ChannelEvent, CloseKind, Phase};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[tokio::test(start_paused = true)]
async fn idle_means_that_everything_is_done() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let looks = world.chain.mempool_looks();
    arbiter.idle().await.expect("running");
    assert!(world.chain.mempool_looks() > looks, "the mempool was asked since the call");

    world.chain.mine_many(50);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));

    // A worker that does not come back holds it up.
    world.net.is(Mood::Hangs);
    fail(&arbiter, channel.id()).await;
    assert!(timeout(Duration::from_secs(30), arbiter.idle()).await.is_err());
    timeout(Duration::from_secs(60), arbiter.idle()).await.expect("it has failed").expect("runs");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);

    // So does a source that fails.
    world.chain.is(Mood::Fails);
    assert!(timeout(Duration::from_secs(600), arbiter.idle()).await.is_err());
    world.chain.is(Mood::Well);
    arbiter.idle().await.expect("running");
}

// incident lnd-7848
// incident lnd-8149
#[tokio::test(start_paused = true)]
async fn after_a_shutdown_nothing_is_left() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let before = world.chain.holders();
    let arbiter = world.watching(&channel).await;
    assert!(world.chain.holders() > before);
    arbiter.shutdown().await;
    world.gone().await;
    assert_eq!(world.chain.holders(), before);
    assert!(arbiter.is_stopped());
    assert_eq!(arbiter.idle().await, Err(CommandError::Stopped));
    assert_eq!(arbiter.fail_channel(channel.id()).await, Err(CommandError::Stopped));
    arbiter.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_every_handle_ends_it_and_leaks_nothing() {
    for hang in [false, true] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let before = world.chain.holders();
        let arbiter = world.watching(&channel).await;
        let mut notices = arbiter.notices().await.expect("running");
        // Streams keep nothing running.
        let subscribed = arbiter.subscribe(channel.id(), "a", Delivery::Detached).await;
        let mut subscription = subscribed.expect("watched");
        let other = arbiter.clone();
        if hang {
            world.chain.is(Mood::Hangs);
            world.net.is(Mood::Hangs);
            fail(&arbiter, channel.id()).await;
            sleep(Duration::from_secs(1)).await;
            drain(&mut notices).await;
        }
        drop(arbiter);
        sleep(Duration::from_secs(1)).await;
        assert!(!other.is_stopped());
        drop(other);
        world.gone().await;
        assert_eq!(world.chain.holders(), before);
        assert_eq!(notices.next().await, None);
        assert!(subscription.next().await.is_none());
        assert_eq!(subscription.acknowledge(0).await, Err(CommandError::Stopped));
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_is_made_good_by_the_next_start() {
    for moment in 0..60 {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let before = world.chain.holders();
        let arbiter = world.watching(&channel).await;
        fail(&arbiter, channel.id()).await;
        for _ in 0..moment {
            tokio::task::yield_now().await;
        }
        arbiter.kill();
        arbiter.shutdown().await;
        assert!(arbiter.is_stopped());
        world.gone().await;
        assert_eq!(world.chain.holders(), before);
        world.net.sent();

        let arbiter = world.restart(&[&channel]).await;
        arbiter.idle().await.expect("running");
        let commitment = channel.local_tx().compute_txid();
        assert_eq!(world.net.txids(), [commitment], "killed after {moment} steps");
        world.chain.mine(vec![channel.local_tx()]);
        world.pass(&arbiter, 5).await;
        // Our output is delayed by 6 blocks.
        let sweeps = world.net.sent();
        assert!(sweeps.iter().any(|tx| tx[0].input[0].previous_output.txid == commitment));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_commands_holds_no_block_up() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    // More than the queue holds: it is never empty.
    let flood: Vec<_> = (0..600)
        .map(|_| {
            let (arbiter, id) = (arbiter.clone(), channel.id());
            tokio::spawn(async move { while arbiter.report(id).await.is_ok() {} })
        })
        .collect();
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(5);
    for _ in 0..20_000 {
        if world.log.tip() == Some(world.chain.tip_now()) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    arbiter.shutdown().await;
    for reader in flood {
        reader.await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolved_channel_is_forgotten_for_good() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let subscribed = arbiter.subscribe(channel.id(), "a", Delivery::Detached).await;
    let mut subscription = subscribed.expect("watched");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.pass(&arbiter, 98).await;
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert!(matches!(report.phase, Phase::Closed(_)));
    world.pass(&arbiter, 1).await;
    assert_eq!(arbiter.report(channel.id()).await, Ok(None));
    assert_eq!(world.log.stored_facts(0), None);
    let closed = ChannelEvent::Closed(CloseKind::Remote(number(0)));
    assert_eq!(subscription.next().await.map(|d| d.event), Some(closed));
    let home = subscription.next().await.map(|d| d.event);
    assert!(home.is_some_and(|event| event.is_progress()), "{home:?}");
    assert_eq!(subscription.next().await.map(|d| d.event), Some(ChannelEvent::Resolved));
    assert!(subscription.next().await.is_none());
    // A new channel gets a new slot.
    let other = Channel::new(2, StaticRemotekey);
    arbiter.watch_channel(other.facts.clone()).await.expect("sound facts");
    assert_eq!(world.log.stored_facts(1), Some(other.facts));
}
