//! The handle as a service: room in the queue, a node's own layers, callers that give up.
use super::support::*;
use crate::{Answer, Arbiter, Command, CommandError, Delivery, Settings};
use arb_core::arbitrator::Notice;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;
use arb_core::log::ChangeLog;
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tower::load_shed::error::Overloaded;
use tower::timeout::error::Elapsed;
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// An arbiter whose queue has room for this many commands, and a channel that it watches.
async fn narrow(world: &World, queue: usize) -> (Arbiter, Channel) {
    let channel = Channel::new(1, StaticRemotekey);
    let settings = Settings { queue, ..Settings::default() };
    let arbiter = world.start_with(settings, vec![]).await;
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    (arbiter, channel)
}

#[tokio::test(start_paused = true)]
async fn room_is_reserved_by_each_handle_for_itself() {
    let world = World::default();
    let (mut first, _) = narrow(&world, 1).await;
    first.ready().await.expect("running");
    first.ready().await.expect("it is ready still");
    let mut clone = first.clone();
    assert!(timeout(SECOND, clone.ready()).await.is_err(), "a clone has reserved nothing");
    // Without room, a call is refused and does not wait.
    let refused = clone.clone().call(Command::Idle).await;
    assert_eq!(refused.expect_err("no room"), CommandError::Busy);
    // What was reserved is used once, or given back.
    let answer = first.call(Command::Idle).await.expect("room");
    assert!(matches!(answer, Answer::Done));
    timeout(SECOND, clone.ready()).await.expect("in time").expect("running");
    assert!(timeout(SECOND, first.ready()).await.is_err());
    drop(clone);
    timeout(SECOND, first.ready()).await.expect("in time").expect("running");
    drop(first);
    world.gone().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_of_an_arbiter_that_has_stopped_says_so() {
    let world = World::default();
    let (arbiter, _) = narrow(&world, 1).await;
    let mut ready = arbiter.clone();
    ready.ready().await.expect("running");
    arbiter.shutdown().await;
    assert_eq!(ready.call(Command::Idle).await.expect_err("stopped"), CommandError::Stopped);
    assert_eq!(ready.ready().await.expect_err("stopped"), CommandError::Stopped);
    assert_eq!(ready.call(Command::Idle).await.expect_err("stopped"), CommandError::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_nodes_own_layers_work_around_it() {
    let world = World::default();
    let (arbiter, channel) = narrow(&world, 1).await;
    let gate = world.log.hold();
    let mut impatient = ServiceBuilder::new().timeout(SECOND).service(arbiter.clone());
    let fail = Command::Fail(channel.id());
    let late = impatient.ready().await.expect("running").call(fail).await;
    assert!(late.expect_err("the store hangs").is::<Elapsed>());

    // The driver waits for its store, and one command for the driver.
    let mut waiting = arbiter.clone();
    let report = waiting.ready().await.expect("room").call(Command::Report(channel.id()));
    let mut shedding = ServiceBuilder::new().load_shed().service(arbiter.clone());
    let shed = shedding.ready().await.expect("always").call(Command::Idle).await;
    assert!(shed.expect_err("no room").is::<Overloaded>());
    // It stands in the queue for room, and would keep it.
    drop(shedding);

    gate.pass();
    let Ok(Answer::Report(Some(report))) = report.await else { panic!("no report") };
    assert_eq!(report.phase, arb_core::arbitrator::Phase::Failing, "it was done all the same");

    let mut measured = ServiceBuilder::new().rate_limit(2, 10 * SECOND).service(arbiter);
    let since = Instant::now();
    for _ in 0..4 {
        measured.ready().await.expect("running").call(Command::Idle).await.expect("running");
    }
    assert_eq!(since.elapsed(), 10 * SECOND);
}

fn names(world: &World) -> usize {
    let channels = world.log.channels().expect("readable");
    channels.iter().map(|channel| channel.subscribers.len()).sum()
}

// incident ldk-4598
#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_nothing_behind() {
    let world = World::default();
    let (arbiter, channel) = narrow(&world, 4).await;
    let id = channel.id();
    // While the driver waits for its store, callers wait, in the queue and for room in it.
    let gate = world.log.hold();
    let failing = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.fail_channel(id).await }
    });
    sleep(SECOND).await;
    for name in 0..10 {
        let name = name.to_string();
        let subscribing = arbiter.subscribe(id, &name, Delivery::Acknowledged);
        timeout(SECOND, subscribing).await.expect_err("no answer");
        timeout(SECOND, arbiter.notices()).await.expect_err("no answer");
    }
    gate.pass();
    failing.await.expect("no panic").expect("current facts");
    arbiter.idle().await.expect("running");
    assert_eq!(names(&world), 0);

    // The append of the subscription itself is what takes too long.
    let gate = world.log.hold();
    let subscribing = arbiter.subscribe(id, "late", Delivery::Acknowledged);
    timeout(SECOND, subscribing).await.expect_err("no answer");
    gate.pass();
    arbiter.idle().await.expect("running");
    assert_eq!(names(&world), 0);

    // Room in the queue is there as before.
    let mut handles: Vec<_> = (0..4).map(|_| arbiter.clone()).collect();
    for handle in &mut handles {
        timeout(SECOND, handle.ready()).await.expect("room").expect("running");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_who_give_up_while_the_source_is_down_are_forgotten() {
    let world = World::default();
    world.chain.is(Mood::Fails);
    let arbiter = world.start().await;
    let channel = Channel::new(1, StaticRemotekey);
    for _ in 0..10 {
        let watching = arbiter.watch_channel(channel.facts.clone());
        timeout(SECOND, watching).await.expect_err("no tip to scan to");
        timeout(SECOND, arbiter.idle()).await.expect_err("no tip");
    }
    world.chain.is(Mood::Well);
    arbiter.idle().await.expect("running");
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts));
    assert_eq!(world.log.stored_facts(1), None);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_finishes_the_running_append_and_nothing_else() {
    let world = World::default();
    let (arbiter, channel) = narrow(&world, 4).await;
    let id = channel.id();
    let gate = world.log.hold();
    let ask = |command: Command| {
        let arbiter = arbiter.clone();
        tokio::spawn(async move { arbiter.oneshot(command).await.map(drop) })
    };
    let failing = ask(Command::Fail(id));
    sleep(SECOND).await;
    let name = "never".to_owned();
    let behind = ask(Command::Subscribe { id, name, delivery: Delivery::Acknowledged });
    sleep(SECOND).await;
    let ending = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.shutdown().await }
    });
    sleep(100 * SECOND).await;
    assert!(!ending.is_finished(), "the append runs");
    gate.pass();
    ending.await.expect("no panic");
    assert_eq!(failing.await.expect("no panic"), Err(CommandError::Stopped), "nothing was sent");
    assert_eq!(behind.await.expect("no panic"), Err(CommandError::Stopped));
    world.gone().await;
    assert_eq!(world.net.txids(), [], "what follows from it waits for the next start");
    assert_eq!(names(&world), 0);
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
}

#[tokio::test(start_paused = true)]
async fn a_kill_waits_for_no_store() {
    let world = World::default();
    let (arbiter, channel) = narrow(&world, 4).await;
    let _gate = world.log.hold();
    let failing = tokio::spawn({
        let (arbiter, id) = (arbiter.clone(), channel.id());
        async move { arbiter.fail_channel(id).await.map(drop) }
    });
    sleep(SECOND).await;
    let since = Instant::now();
    arbiter.kill();
    arbiter.shutdown().await;
    assert_eq!(failing.await.expect("no panic"), Err(CommandError::Stopped));
    assert!(since.elapsed() < SECOND);
    world.gone().await;
    // What was not durable was not answered, and nothing of it was done.
    assert_eq!(world.net.txids(), []);
    let arbiter = world.restart(&[&channel]).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
}

/// All of them are streams, and end with the arbiter.
#[tokio::test(start_paused = true)]
async fn streams_end_with_the_arbiter() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let one = arbiter.subscribe(channel.id(), "one", Delivery::Detached).await.expect("known");
    let all = arbiter.subscribe_all("all", Delivery::Detached).await.expect("stored");
    let notices = arbiter.notices().await.expect("running");
    fail(&arbiter, channel.id()).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    let (one, all): (Vec<_>, Vec<_>) = (one.collect().await, all.collect().await);
    assert!(!one.is_empty() && one.len() == all.len(), "{one:?} {all:?}");
    let told: Vec<(ChannelId, Notice)> = notices.collect().await;
    assert!(told.iter().any(|(_, notice)| matches!(notice, Notice::Failing(_))), "{told:?}");
}

/// A channel that is watched is a value, and no task.
#[tokio::test(start_paused = true)]
async fn channels_are_no_tasks() {
    let world = World::default();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for id in 1..=40 {
        let channel = Channel::new(id, StaticRemotekey);
        arbiter.watch_channel(channel.facts).await.expect("sound facts");
    }
    arbiter.idle().await.expect("running");
    assert_eq!(tasks(), before);
}

#[tokio::test(start_paused = true)]
async fn a_start_goes_through_the_channels_once() {
    let world = World::default();
    let channels: Vec<Channel> = (1..=10).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    fail(&arbiter, channels[3].id()).await;
    arbiter.shutdown().await;
    world.log.damage_entry(5);
    let before = world.log.passes();
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.passes() - before, 1);
}
