//! Following the chain: errors, reorganisations, catching up, alarms.
use super::support::*;
use crate::{ChainAlarm, Epoch, Settings};
use arb_core::arbitrator::{Change, Phase, PreimageSource};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::units::BlockHeight;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

fn fails(change: &Change) -> bool {
    matches!(change, Change::FailRequested { .. })
}

async fn phase(arbiter: &crate::Arbiter, channel: &Channel) -> Phase {
    arbiter.report(channel.id()).await.expect("running").expect("watched").phase
}

/// A mempool that does not answer, or not well, is no matter to blocks, and is asked again.
#[tokio::test(start_paused = true)]
async fn no_block_waits_for_the_mempool() {
    for mood in [Mood::Hangs, Mood::Fails, Mood::Panics] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        arbiter.idle().await.expect("running");
        world.chain.mempool_is(mood);
        let mut epochs = arbiter.epochs().await.expect("running");
        assert!(epochs.next().await.is_some(), "where it stands");
        for _ in 0..20 {
            let at = world.chain.mine(vec![]);
            let told = timeout(Duration::from_secs(1), epochs.next());
            let told = told.await.unwrap_or_else(|_| panic!("{mood:?}: no block"));
            assert!(matches!(told, Some(Epoch::Connected { block, .. }) if block == at));
            sleep(Duration::from_secs(7)).await;
        }
        let looks = world.chain.mempool_looks();
        assert!(looks < 20, "{mood:?}: after ever longer pauses, {looks}");
        world.chain.mempool_is(Mood::Well);
        arbiter.idle().await.expect("running");
        assert!(world.chain.mempool_looks() > looks, "{mood:?}: it is asked again");
    }
}

/// Nor for the rest of a round through the channels of which one slice after the other is asked about.
#[tokio::test(start_paused = true)]
async fn no_block_waits_for_the_next_slice() {
    let world = World::default();
    let channels: Vec<Channel> = (1..=20).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let settings = Settings { mempool_slice: 1, ..Settings::default() };
    let arbiter = world.start_with(settings, Vec::new()).await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    arbiter.idle().await.expect("running");
    let mut epochs = arbiter.epochs().await.expect("running");
    assert!(epochs.next().await.is_some(), "where it stands");
    for _ in 0..5 {
        world.chain.mine(vec![]);
        let told = timeout(Duration::from_millis(100), epochs.next()).await;
        assert!(matches!(told, Ok(Some(Epoch::Connected { .. }))), "{told:?}");
        // In the middle of a round.
        sleep(Duration::from_millis(1_250)).await;
    }
}

/// A source that is slow and well is waited for, however much a new store asks it.
#[tokio::test(start_paused = true)]
async fn a_slow_source_is_begun_with() {
    let world = World::default();
    world.chain.mine_many(200);
    world.chain.names_blocks_in(Duration::from_secs(2));
    let arbiter = world.start().await;
    let idle = timeout(Duration::from_secs(60 * 60), arbiter.idle()).await;
    assert_eq!(idle, Ok(Ok(())));
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
}

#[tokio::test(start_paused = true)]
async fn source_errors_are_retried_ever_more_slowly_and_lose_no_block() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.chain.is(Mood::Fails);
    let spent = world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(2);
    let before = world.chain.looks();
    sleep(Duration::from_secs(10)).await;
    // After 0, 0.5, 1.5, 3.5 and 7.5 seconds.
    assert_eq!(world.chain.looks() - before, 5);
    sleep(Duration::from_secs(3600)).await;
    assert!(world.chain.looks() - before > 60, "the wait is bounded");
    world.chain.is(Mood::Well);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(report.phase, Phase::Closed(FundingSpend::RemoteCommitment(number(0))));
    assert!(world.log.stored_changes(0).iter().any(|change| match change {
        Change::Spent(spend) => spend.at == spent,
        _ => false,
    }));
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_moves_between_two_questions() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let stale = world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.before(stale, |chain| {
        chain.undo(1);
        chain.mine_many(2);
    });
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_of_99_blocks() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.chain.mine_many(50);
    let close = channel.remote_tx(0, &[]);
    world.chain.mine(vec![close.clone()]);
    world.chain.mine_many(98);
    arbiter.idle().await.expect("running");
    let closed = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));
    assert_eq!(phase(&arbiter, &channel).await, closed);

    world.chain.undo(99);
    world.chain.mine_many(100);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);
    world.chain.mine(vec![close]);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, closed);
}

#[tokio::test(start_paused = true)]
async fn a_chain_without_any_remembered_block_raises_an_alarm_and_changes_nothing() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.chain.mine_many(300);
    arbiter.idle().await.expect("running");
    let (good, tip) = (world.chain.best(), world.chain.tip_now());
    let mut alarm = arbiter.alarms();
    assert_eq!(alarm.borrow_and_update().chain, None);

    world.chain.undo(295);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(299);
    alarm.changed().await.expect("running");
    assert_eq!(alarm.borrow_and_update().chain, Some(ChainAlarm::ReorganisedTooDeeply));
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.log.tip(), Some(tip));
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);

    world.chain.return_to(good);
    arbiter.idle().await.expect("running");
    assert_eq!(alarm.borrow_and_update().chain, None);
    assert_eq!(world.log.tip(), Some(tip));
}

/// A source that has thrown away what was not read yet: no channel is seen to, and somebody must hear of it.
#[tokio::test(start_paused = true)]
async fn a_pruned_block_raises_an_alarm_at_once() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    arbiter.shutdown().await;
    let pruned = world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(10);
    let kept = world.chain.prune(pruned).expect("it was there");
    let arbiter = world.restart(&[&channel]).await;
    let mut alarm = arbiter.alarms();
    let missing =
        |alarms: &crate::Alarms| alarms.chain == Some(ChainAlarm::BlockMissing(pruned.hash));
    let raised = timeout(Duration::from_secs(60), alarm.wait_for(missing)).await;
    assert!(raised.is_ok_and(|raised| raised.is_ok()));
    world.chain.has(kept);
    arbiter.idle().await.expect("running");
    assert_eq!(alarm.borrow_and_update().chain, None);
    assert!(matches!(phase(&arbiter, &channel).await, Phase::Closed(_)));
}

/// A channel with an offered HTLC in our commitment alone, so that the peer's fails it back.
fn with_htlc() -> Channel {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_local(1, &[offered(0)]);
    channel
}

/// Checks, before the last block is handed out, that nothing has been decided so far.
fn nothing_before(world: &World, last: arb_core::units::BlockRef) -> Arc<AtomicBool> {
    let checked = Arc::new(AtomicBool::new(false));
    let (flag, log, net) = (checked.clone(), world.log.clone(), world.net.clone());
    world.chain.before(last, move |_| {
        let told = |change: &Change| matches!(change, Change::UpstreamTold { .. });
        assert!(!log.stored_changes(0).iter().any(|change| fails(change) || told(change)));
        assert_eq!(net.txids(), []);
        flag.store(true, Ordering::SeqCst);
    });
    checked
}

#[tokio::test(start_paused = true)]
async fn catching_up_decides_nothing_before_the_tip() {
    let (world, channel) = (World::default(), with_htlc());
    let arbiter = world.watching(&channel).await;
    // Expiry, grace and more.
    world.chain.mine_many(410);
    let checked = nothing_before(&world, world.chain.tip_now());
    arbiter.idle().await.expect("running");
    assert!(checked.load(Ordering::SeqCst));
    assert_eq!(world.log.stored_changes(0).iter().filter(|change| fails(change)).count(), 1);
    assert!(world.net.txids().contains(&channel.local_tx().compute_txid()));
}

#[tokio::test(start_paused = true)]
async fn a_close_in_the_last_block_of_a_catch_up_forestalls_ours() {
    let (world, channel) = (World::default(), with_htlc());
    let arbiter = world.watching(&channel).await;
    world.chain.mine_many(410);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert!(!world.log.stored_changes(0).iter().any(fails));
    assert_eq!(world.net.txids(), []);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_failed_upstream_before_the_tip() {
    let (world, channel) = (World::default(), with_htlc());
    let arbiter = world.watching(&channel).await;
    let mut notices = arbiter.notices().await.expect("running");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(20);
    let checked = nothing_before(&world, world.chain.tip_now());
    arbiter.idle().await.expect("running");
    assert!(checked.load(Ordering::SeqCst));
    assert_eq!(drain(&mut notices).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_decides_nothing_before_the_new_tip() {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(received(0));
    channel.next_local(1, &[received(0)]);
    channel.next_remote(1, &[received(0)]);
    channel.revoke(0);
    let (world, close) = (World::default(), channel.remote_tx(1, &[received(0)]));
    let arbiter = world.watching(&channel).await;
    // The deadline to fulfil is 18 blocks before the expiry.
    world.chain.mine_many(384);
    world.chain.mine(vec![close.clone()]);
    arbiter.idle().await.expect("running");
    let preimage = super::support::preimage(0);
    arbiter.preimage(channel.id(), preimage, PreimageSource::Node).await.expect("watched");
    arbiter.idle().await.expect("running");
    world.net.sent();

    world.chain.undo(1);
    world.chain.mine_many(1);
    world.chain.mine(vec![close]);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert!(!world.log.stored_changes(0).iter().any(fails));
    assert!(!world.net.txids().contains(&channel.local_tx().compute_txid()));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_holds_no_command_up_and_raises_an_alarm() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut alarm = arbiter.alarms();
    let tip = world.chain.tip_now();
    world.chain.is(Mood::Hangs);
    world.chain.mine_many(1);
    tokio::task::yield_now().await;
    let since = Instant::now();
    let update = channel.add(offered(0));
    arbiter.update_channel(channel.id(), vec![update]).await.expect("stored");
    assert_eq!(since.elapsed(), Duration::ZERO);

    alarm.changed().await.expect("running");
    let Some(ChainAlarm::Stalled(stalled)) = alarm.borrow_and_update().chain else {
        panic!("the tip stands still")
    };
    assert_eq!(stalled.tip, tip);
    let after = since.elapsed();
    let limit = Settings::default().stalled_after;
    assert!(after >= limit && after < limit + Duration::from_secs(180), "{after:?}");
    world.chain.is(Mood::Well);
    arbiter.idle().await.expect("running");
    assert_eq!(alarm.borrow_and_update().chain, None);
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
}

// incident eclair-1895
// incident eclair-1910
// incident eclair-3002
#[tokio::test(start_paused = true)]
async fn a_source_that_never_rings_is_asked_all_the_same() {
    let world = World::default();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    // Undoing rings no bell.
    world.chain.mine_many(3);
    arbiter.idle().await.expect("running");
    world.chain.undo(2);
    sleep(Settings::default().heartbeat + Duration::from_secs(1)).await;
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
}

#[tokio::test(start_paused = true)]
async fn blocks_do_not_wait_for_feerates() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        world.fees.is(mood);
        for close in [vec![channel.remote_tx(0, &[])], vec![]] {
            let at = world.chain.mine(close);
            let connected = async {
                while world.log.tip() != Some(at) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            let in_time = timeout(Duration::from_secs(1), connected).await;
            assert!(in_time.is_ok(), "{mood:?}");
            sleep(Duration::from_secs(5)).await;
        }
        world.fees.is(Mood::Well);
        arbiter.idle().await.expect("running");
        assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_mutual_close_is_seen_in_the_mempool_once() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.chain.enter_mempool(channel.mutual_tx());
    for _ in 0..3 {
        arbiter.idle().await.expect("running");
    }
    let changes = world.log.stored_changes(0);
    assert!(
        matches!(changes[..], [Change::MutualCloseSeen { .. }, Change::Announced(_)]),
        "{changes:?}"
    );
}

/// The mempool is asked about one channel at a time.
#[tokio::test(start_paused = true)]
async fn every_channel_has_its_turn_in_the_mempool() {
    let world = World::default();
    let settings = Settings { mempool_slice: 1, ..Settings::default() };
    let arbiter = world.start_with(settings, vec![]).await;
    let channels: Vec<_> = (1..=4).map(|n| Channel::new(n, StaticRemotekey)).collect();
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("watched");
    }
    for (slot, channel) in (0..).zip(&channels) {
        world.chain.enter_mempool(channel.mutual_tx());
        let looks = world.chain.mempool_looks();
        for _ in 0..2 {
            arbiter.idle().await.expect("running");
        }
        assert!(world.chain.mempool_looks() >= looks + 8, "two rounds of four");
        let changes = world.log.stored_changes(slot);
        assert!(
            matches!(changes[..], [Change::MutualCloseSeen { .. }, Change::Announced(_)]),
            "{changes:?}"
        );
    }
}

/// A round through the mempool comes to its end, however often another is asked for meanwhile.
#[tokio::test(start_paused = true)]
async fn a_round_through_the_mempool_is_finished_before_the_next_begins() {
    for watches in [false, true] {
        let world = World::default();
        let settings = Settings { mempool_slice: 1, ..Settings::default() };
        let arbiter = world.start_with(settings, vec![]).await;
        let channels: Vec<_> = (1..=10).map(|n| Channel::new(n, StaticRemotekey)).collect();
        for channel in &channels {
            arbiter.watch_channel(channel.facts.clone()).await.expect("watched");
        }
        arbiter.idle().await.expect("running");
        world.chain.enter_mempool(channels[9].mutual_tx());
        let patient = tokio::spawn({
            let arbiter = arbiter.clone();
            async move { arbiter.idle().await }
        });
        for n in 11..=40 {
            if watches {
                let more = Channel::new(n, StaticRemotekey);
                arbiter.watch_channel(more.facts.clone()).await.expect("watched");
                sleep(Duration::from_secs(1)).await;
            } else {
                // Whoever asks all the time.
                let asked = timeout(Duration::from_secs(1), arbiter.idle()).await;
                sleep(Duration::from_millis(asked.map_or(0, |_| 500))).await;
            }
        }
        let changes = world.log.stored_changes(9);
        let seen = |change: &Change| matches!(change, Change::MutualCloseSeen { .. });
        assert!(changes.iter().any(seen), "{watches}: {changes:?}");
        if !watches {
            assert!(patient.is_finished(), "two rounds at most");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_store_begins_at_the_tip() {
    let world = World::default();
    world.chain.mine_many(10);
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip().map(|tip| tip.height), Some(BlockHeight(BIRTH + 10)));
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_below_the_first_tip() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.chain.mine_many(150);
    let arbiter = world.watching(&channel).await;
    world.chain.undo(99);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(98);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    let closed = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));
    assert_eq!(phase(&arbiter, &channel).await, closed);
    // The same after a restart in between.
    arbiter.shutdown().await;
    world.chain.undo(99);
    world.chain.mine_many(100);
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);
}
