//! A store that refuses, or cannot be read, for a while.
use super::support::*;
use crate::{Alarms, Arbiter, CommandError, Ended, Receipt, Settings, StartError, StoreAlarm};
use arb_core::arbitrator::Phase;
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::log::{Health, Remedy};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const CLOSED: Phase =
    Phase::Closed(FundingSpend::RemoteCommitment(arb_core::units::CommitmentNumber(0)));

async fn phase(arbiter: &Arbiter, channel: &Channel) -> Phase {
    arbiter.report(channel.id()).await.expect("running").expect("watched").phase
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_holds_a_block_until_there_is_room() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let before = world.log.tip();
    world.log.refuse(true);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(1);
    sleep(Duration::from_secs(10)).await;
    assert!(world.log.refused() > 10, "it is tried again and again");
    assert_eq!(arbiter.alarms().borrow().store, Some(StoreAlarm::Refuses));
    assert_eq!(world.log.tip(), before);
    world.log.refuse(false);
    arbiter.idle().await.expect("running");
    assert_eq!(arbiter.alarms().borrow().store, None);
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
    arbiter.shutdown().await;
    assert_eq!(phase(&world.restart(&[&channel]).await, &channel).await, CLOSED);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_does_not_hold_the_end_up() {
    for drop_it in [false, true] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let before = world.log.tip();
        world.log.refuse(true);
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        sleep(Duration::from_secs(10)).await;
        // A command that waits behind the append.
        let asking = tokio::spawn({
            let arbiter = arbiter.clone();
            async move { arbiter.idle().await }
        });
        sleep(Duration::from_secs(1)).await;
        if drop_it {
            asking.abort();
            let _ = asking.await;
            drop(arbiter);
            timeout(Duration::from_secs(5), world.gone()).await.expect("it ends");
        } else {
            timeout(Duration::from_secs(5), arbiter.shutdown()).await.expect("it ends");
            assert_eq!(asking.await.expect("no panic"), Err(CommandError::Stopped));
        }
        // What was not durable did not happen, and happens at the next start.
        world.log.refuse(false);
        assert_eq!(world.log.tip(), before);
        let arbiter = world.restart(&[&channel]).await;
        arbiter.idle().await.expect("running");
        assert_eq!(phase(&arbiter, &channel).await, CLOSED);
    }
}

#[tokio::test(start_paused = true)]
async fn commands_are_refused_and_not_held_up() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.log.refuse(true);
    let since = Instant::now();
    let refused = arbiter.fail_channel(channel.id()).await;
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "{refused:?}");
    let name = "x".repeat(300);
    world.log.refuse(false);
    let refused = arbiter.subscribe(channel.id(), &name, crate::Delivery::Detached).await;
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "too long a name");
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), []);
    arbiter.fail_channel(channel.id()).await.expect("room again");
    assert_eq!(phase(&arbiter, &channel).await, Phase::Failing);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_while_a_block_waits_for_room_is_told_so() {
    let (world, mut closing) = (World::default(), Channel::new(1, StaticRemotekey));
    let mut other = Channel::new(2, StaticRemotekey);
    let arbiter = world.watching(&closing).await;
    arbiter.watch_channel(other.facts.clone()).await.expect("watched");
    let before = other.facts.clone();
    // Facts that are asked for before the block, and answered after it was found.
    let gates = [world.log.hold(), world.log.hold()];
    let early = [&mut closing, &mut other].map(|channel| {
        let (arbiter, id, update) = (arbiter.clone(), channel.id(), channel.add(offered(0)));
        tokio::spawn(async move { arbiter.update_channel(id, vec![update]).await })
    });
    sleep(Duration::from_millis(1)).await;
    world.log.refuse(true);
    world.chain.mine(vec![closing.remote_tx(0, &[])]);
    sleep(Duration::from_secs(1)).await;
    gates.into_iter().for_each(|gate| gate.refuse());
    let [of_closing, of_other] = early;
    let soon = Duration::from_secs(1);
    let refused = timeout(soon, of_other).await.expect("it is answered").expect("no panic");
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "{refused:?}");
    let refused = timeout(soon, arbiter.report(closing.id())).await.expect("it is answered");
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "{refused:?}");
    let failed = timeout(soon, arbiter.fail_channel(other.id())).await.expect("it is answered");
    assert!(matches!(failed, Err(CommandError::NotStored(_))), "{failed:?}");
    assert!(!of_closing.is_finished(), "the block has its facts with it");
    world.log.refuse(false);
    arbiter.idle().await.expect("running");
    let receipt = of_closing.await.expect("no panic").expect("stored with the block");
    assert_eq!(receipt, Receipt::of(&closing.facts));
    assert_eq!(world.log.stored_facts(0), Some(closing.facts.clone()));
    assert_eq!(world.log.stored_facts(1), Some(before), "what is refused leaves nothing");
    assert_eq!(phase(&arbiter, &closing).await, CLOSED);
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_cannot_be_read_sets_no_channel_aside() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.log.unreadable(true);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    sleep(Duration::from_secs(10)).await;
    world.log.unreadable(false);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
    arbiter.shutdown().await;

    world.log.unreadable(true);
    let started = Arbiter::start(world.log.clone(), world.ports(), Settings::default(), vec![]);
    assert!(matches!(started.await, Err(StartError::Store(_))));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_append_that_is_under_way() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gate = world.log.hold();
    let update = channel.add(offered(0));
    let updating = tokio::spawn({
        let (arbiter, id) = (arbiter.clone(), channel.id());
        async move { arbiter.update_channel(id, vec![update]).await }
    });
    sleep(Duration::from_secs(1)).await;
    let ending = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.shutdown().await }
    });
    sleep(Duration::from_secs(10)).await;
    assert!(!ending.is_finished());
    gate.pass();
    ending.await.expect("no panic");
    let receipt = updating.await.expect("no panic").expect("it is durable, and said so");
    assert_eq!(receipt, Receipt::of(&channel.facts));
    assert_eq!(world.log.stored_facts(0), Some(channel.facts));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_is_an_alarm_before_it_is_full() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut alarms = arbiter.alarms();
    assert_eq!(*alarms.borrow_and_update(), Alarms::default());
    // Told by the next block, by an update of facts, and withdrawn by either.
    world.log.is(Health::Low);
    world.pass(&arbiter, 1).await;
    assert!(alarms.has_changed().expect("running"));
    assert_eq!(alarms.borrow_and_update().store, Some(StoreAlarm::Low));
    world.pass(&arbiter, 3).await;
    assert!(!alarms.has_changed().expect("running"), "told once");
    world.log.is(Health::Emergency);
    let update = channel.add(offered(0));
    arbiter.update_channel(channel.id(), vec![update]).await.expect("stored");
    assert_eq!(alarms.borrow_and_update().store, Some(StoreAlarm::Emergency));
    // A refused update is no more than what the log says of itself.
    world.log.refuse(true);
    let update = channel.add(offered(1));
    arbiter.update_channel(channel.id(), vec![update]).await.expect_err("refused");
    assert_eq!(alarms.borrow_and_update().store, Some(StoreAlarm::Emergency));
    world.log.refuse(false);
    world.log.is(Health::Ok);
    world.pass(&arbiter, 1).await;
    assert_eq!(*alarms.borrow_and_update(), Alarms::default());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_nearly_full_is_told_at_the_start() {
    let world = World::default();
    world.log.is(Health::Low);
    let arbiter = world.start().await;
    assert_eq!(arbiter.alarms().borrow().store, Some(StoreAlarm::Low));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_nothing_more_ends_the_arbiter_which_says_so() {
    let lost = Ended::Store("the log is lost".to_owned());
    for remedy in [Remedy::Reopen, Remedy::Refused] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let before = world.log.tip();
        world.log.fails(remedy);
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        assert_eq!(timeout(Duration::from_secs(5), arbiter.ended()).await.as_ref(), Ok(&lost));
        assert_eq!(world.log.refused(), 1, "repeating it is useless");
        assert_eq!(arbiter.idle().await, Err(CommandError::Stopped));
        assert!(arbiter.is_stopped());
        assert_eq!(world.log.tip(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_finds_the_store_lost_is_told_and_ends_the_arbiter() {
    let lost = Ended::Store("the log is lost".to_owned());
    for facts in [false, true] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        world.log.fails(Remedy::Reopen);
        let refused = if facts {
            let update = channel.add(offered(0));
            arbiter.update_channel(channel.id(), vec![update]).await.map(drop)
        } else {
            arbiter.fail_channel(channel.id()).await.map(drop)
        };
        assert_eq!(refused, Err(CommandError::NotStored("the log is lost".to_owned())));
        assert_eq!(timeout(Duration::from_secs(5), arbiter.ended()).await.as_ref(), Ok(&lost));
    }
    // What is refused by itself is the command's own trouble.
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.log.fails(Remedy::Refused);
    let refused = arbiter.fail_channel(channel.id()).await;
    assert_eq!(refused, Err(CommandError::NotStored("the log is lost".to_owned())));
    assert!(!arbiter.is_stopped());
}
