//! Subscriptions: at least once, in order, across restarts.
use super::support::*;
use crate::{Arbiter, ChainEventSubscription, CommandError, Delivered, Delivery};
use arb_core::arbitrator::{ChannelEvent, CloseKind, OutputProgress};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog as _, SubscriberState, Write};
use bitcoin::OutPoint;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

const CLOSED: ChannelEvent =
    ChannelEvent::Closed(CloseKind::Remote(arb_core::units::CommitmentNumber(0)));

async fn subscribe(of: &Arbiter, channel: &Channel, how: Delivery) -> ChainEventSubscription {
    of.subscribe(channel.id(), "a", how).await.expect("watched")
}

fn all(subscription: &mut ChainEventSubscription) -> Vec<(u64, ChannelEvent)> {
    let next = || subscription.try_next().map(|Delivered { number, event, .. }| (number, event));
    std::iter::from_fn(next).collect()
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_again_after_a_restart() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut first = subscribe(&arbiter, &channel, Delivery::Detached).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.chain.undo(1);
    world.pass(&arbiter, 1).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let expected = [(0, CLOSED), (1, ChannelEvent::Reorged), (2, CLOSED)];
    assert_eq!(all(&mut first), expected);
    first.acknowledge(0).await.expect("stored");

    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut again = subscribe(&arbiter, &channel, Delivery::Detached).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut again), expected[1..]);
    again.acknowledge(2).await.expect("stored");
    // Of the same name, the later one receives; an older acknowledgement takes nothing back.
    again.acknowledge(0).await.expect("stored");
    let mut other = subscribe(&arbiter, &channel, Delivery::Detached).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut other), []);
    assert!(again.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_close_of_ours_is_told_of_as_ours() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut events = subscribe(&arbiter, &channel, Delivery::Detached).await;
    let commitment = arbiter.fail_channel(channel.id()).await.expect("current facts");
    world.chain.mine(vec![commitment]);
    arbiter.idle().await.expect("running");
    let local = CloseKind::Local(arb_core::units::CommitmentNumber(0));
    assert_eq!(all(&mut events), [(0, ChannelEvent::Closed(local))]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_what_never_came_hides_nothing() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let subscription = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    subscription.acknowledge(u64::MAX).await.expect("stored");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let mut again = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut again), [(0, CLOSED)]);
}

/// Mines until the channel is resolved.
async fn resolve(world: &World, arbiter: &Arbiter, channel: &Channel) {
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(99);
    arbiter.idle().await.expect("running");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_delivery_holds_back_forgetting() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    drop(subscribe(&arbiter, &channel, Delivery::Acknowledged).await);
    resolve(&world, &arbiter, &channel).await;
    world.pass(&arbiter, 5).await;
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    assert!(world.log.stored_facts(0).is_some());

    let mut late = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    arbiter.idle().await.expect("running");
    let home = OutPoint { txid: channel.remote_tx(0, &[]).compute_txid(), vout: 1 };
    let done = ChannelEvent::Output { outpoint: home, progress: OutputProgress::Irrevocable };
    assert_eq!(all(&mut late), [(0, CLOSED), (1, done), (2, ChannelEvent::Resolved)]);
    late.acknowledge(1).await.expect("stored");
    arbiter.idle().await.expect("running");
    assert!(world.log.stored_facts(0).is_some(), "one is left");
    world.net.sent();
    late.acknowledge(2).await.expect("stored");
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.stored_facts(0), None, "at once");
}

/// Nothing waits for a name any more that was to be waited for.
#[tokio::test(start_paused = true)]
async fn a_name_that_becomes_detached_holds_nothing_back() {
    for to_all in [false, true] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let open = async |delivery| match to_all {
            false => drop(arbiter.subscribe(channel.id(), "a", delivery).await.expect("known")),
            true => drop(arbiter.subscribe_all("a", delivery).await.expect("stored")),
        };
        open(Delivery::Acknowledged).await;
        resolve(&world, &arbiter, &channel).await;
        assert!(world.log.stored_facts(0).is_some(), "{to_all}");
        open(Delivery::Detached).await;
        arbiter.idle().await.expect("running");
        assert_eq!(world.log.stored_facts(0), None, "without a block, {to_all}");
    }
}

/// What was not read when the channel was forgotten is read and acknowledged like any other.
#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_forgotten_channel_can_be_acknowledged() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut one = subscribe(&arbiter, &channel, Delivery::Detached).await;
    let mut every = arbiter.subscribe_all("all", Delivery::Detached).await.expect("stored");
    resolve(&world, &arbiter, &channel).await;
    assert_eq!(world.log.stored_facts(0), None);
    let last = all(&mut one).pop().expect("events").0;
    assert_eq!(one.acknowledge(last).await, Ok(()));
    while let Some(delivered) = every.try_next() {
        assert_eq!(every.acknowledge(delivered.channel, delivered.number).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn detached_delivery_and_ended_subscriptions_hold_nothing_back() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let _unread = subscribe(&arbiter, &channel, Delivery::Detached).await;
    resolve(&world, &arbiter, &channel).await;
    assert_eq!(world.log.stored_facts(0), None);

    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let _unread = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    resolve(&world, &arbiter, &channel).await;
    assert!(world.log.stored_facts(0).is_some());
    arbiter.unsubscribe(channel.id(), "a").await.expect("stored");
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.stored_facts(0), None);
    arbiter.unsubscribe(channel.id(), "a").await.expect("that it has ended is no error");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_holds_nothing_up_and_misses_nothing() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut slow = subscribe(&arbiter, &channel, Delivery::Detached).await;
    // Two events a round, more than a subscription holds.
    for _ in 0..50 {
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        world.chain.undo(1);
        world.pass(&arbiter, 1).await;
    }
    let mut numbers = Vec::new();
    while numbers.len() < 100 {
        let delivered = timeout(Duration::from_secs(600), slow.next()).await;
        numbers.push(delivered.expect("in time").expect("running").number);
    }
    assert_eq!(numbers, (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_is_told_that_it_lags_and_gets_the_rest_of_a_forgotten_channel() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let mut slow = subscribe(&arbiter, &channel, Delivery::Detached).await;
    assert_eq!(slow.lag(), 0);
    for _ in 0..50 {
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        world.chain.undo(1);
        world.pass(&arbiter, 1).await;
    }
    assert_eq!(slow.lag(), 100 - 64);
    // Room is used at once, without another block.
    assert_eq!(slow.try_next().map(|delivered| delivered.number), Some(0));
    arbiter.counts().await.expect("running");
    assert_eq!(slow.lag(), 100 - 65);
    resolve(&world, &arbiter, &channel).await;
    assert_eq!(world.log.stored_facts(0), None, "nobody waits for it");
    let got = all(&mut slow);
    let numbers: Vec<u64> = got.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..numbers.len() as u64 + 1).collect::<Vec<_>>());
    assert_eq!(got.last().map(|(_, event)| *event), Some(ChannelEvent::Resolved));
    assert!(slow.next().await.is_none());
    assert_eq!(slow.lag(), 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_a_subscriber_does_in_its_own_handler_holds_nothing_up() {
    let world = World::default();
    let (channel, other) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    arbiter.watch_channel(other.facts.clone()).await.expect("sound facts");
    let (handle, ids) = (arbiter.clone(), (channel.id(), other.id()));
    let mut subscription = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    let handler = tokio::spawn(async move {
        let delivered = subscription.next().await.expect("running");
        handle.subscribe(ids.1, "b", Delivery::Detached).await.expect("watched");
        handle.fail_channel(ids.1).await.expect("current facts");
        let own = handle.fail_channel(ids.0).await;
        assert_eq!(own, Err(CommandError::Closed(ids.0)), "its own channel");
        subscription.acknowledge(delivered.number).await.expect("stored");
        let again = handle.subscribe(ids.0, "a", Delivery::Detached).await.expect("watched");
        assert!(subscription.next().await.is_none(), "another of the same name");
        drop(subscription);
        handle.unsubscribe(ids.0, "a").await.expect("stored");
        drop(again);
        handle.shutdown().await;
    });
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    timeout(Duration::from_secs(10), handler).await.expect("in time").expect("no panic");
    world.gone().await;
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert!(arbiter.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn dead_subscribers_hold_back_neither_blocks_nor_other_channels_nor_the_end() {
    let world = World::default();
    let (channel, other) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    arbiter.watch_channel(other.facts.clone()).await.expect("sound facts");
    let unread = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    let dead = subscribe(&arbiter, &channel, Delivery::Acknowledged).await;
    tokio::spawn(async move { panic!("with {dead:?}") }).await.expect_err("a panic");
    let mut sound = subscribe(&arbiter, &other, Delivery::Detached).await;
    world.chain.mine(vec![channel.remote_tx(0, &[]), other.remote_tx(0, &[])]);
    world.chain.mine_many(99);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    assert!(world.log.stored_facts(0).is_some(), "it must be acknowledged");
    assert_eq!(world.log.stored_facts(1), None);
    assert_eq!(all(&mut sound).last().map(|(_, event)| *event), Some(ChannelEvent::Resolved));
    timeout(Duration::from_secs(1), arbiter.shutdown()).await.expect("at once");
    drop(unread);
}

#[tokio::test(start_paused = true)]
async fn what_is_ended_while_a_channel_is_set_aside_stays_ended() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    drop(subscribe(&arbiter, &channel, Delivery::Acknowledged).await);
    drop(arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("a new name"));
    world.log.damage_facts(0);
    assert!(is_set_aside(&arbiter, channel.id()).await);
    arbiter.unsubscribe(channel.id(), "a").await.expect("stored");
    arbiter.unsubscribe_all("all").await.expect("stored");
    world.log.heal();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    arbiter.idle().await.expect("running");
    resolve(&world, &arbiter, &channel).await;
    world.pass(&arbiter, 5).await;
    assert_eq!(arbiter.report(channel.id()).await.expect("running"), None, "it is forgotten");
}

/// A reader that reads on while the driver writes, or after it, gets everything.
#[tokio::test(start_paused = true)]
async fn a_late_reader_of_all_channels_is_told_as_soon_as_it_has_room() {
    let world = World::default();
    let arbiter = world.start().await;
    let mut all = arbiter.subscribe_all("all", Delivery::Detached).await.expect("a new name");
    let channels: Vec<Channel> = (1..=200).map(|id| Channel::new(id, StaticRemotekey)).collect();
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound");
    }
    let closes = || channels.iter().map(|channel| channel.remote_tx(0, &[])).collect();
    for _ in 0..6 {
        world.chain.mine(closes());
        arbiter.idle().await.expect("running");
        world.chain.undo(1);
        world.pass(&arbiter, 1).await;
    }
    assert!(all.lag() > 0, "more than there is room for");
    let mut of: BTreeMap<ChannelId, u64> = BTreeMap::new();
    // No block comes, and no command.
    let reading = async {
        while let Some(delivered) = all.next().await {
            let next = of.entry(delivered.channel).or_default();
            assert_eq!(delivered.number, *next, "in order, none left out");
            *next += 1;
            if of.len() == 200 && of.values().all(|count| *count >= 12) {
                break;
            }
        }
    };
    timeout(Duration::from_secs(1), reading).await.expect("the rest follows at once");
    assert_eq!(all.lag(), 0);
}

/// What of a forgotten channel nobody has read is gone with the process, unless it was to be acknowledged.
#[tokio::test(start_paused = true)]
async fn what_is_to_be_acknowledged_survives_the_end_and_a_restart_and_the_rest_does_not() {
    for delivery in [Delivery::Acknowledged, Delivery::Detached] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        drop(subscribe(&arbiter, &channel, delivery).await);
        drop(arbiter.subscribe_all("all", delivery).await.expect("a new name"));
        resolve(&world, &arbiter, &channel).await;
        world.pass(&arbiter, 5).await;
        arbiter.kill();
        arbiter.shutdown().await;
        let arbiter = world.restart(&[&channel]).await;
        world.pass(&arbiter, 5).await;
        let mut to_all = arbiter.subscribe_all("all", delivery).await.expect("its name");
        let again = arbiter.subscribe(channel.id(), "a", delivery).await;
        if delivery == Delivery::Detached {
            assert!(again.is_err(), "the channel is forgotten");
            assert!(to_all.try_next().is_none());
            continue;
        }
        arbiter.idle().await.expect("running");
        let mut again = again.expect("its records wait");
        let told = all(&mut again);
        assert_eq!(
            (told[0], told.last().map(|last| last.1)),
            ((0, CLOSED), Some(ChannelEvent::Resolved))
        );
        let last = told.len() as u64 - 1;
        again.acknowledge(last).await.expect("stored");
        world.pass(&arbiter, 1).await;
        assert!(
            arbiter.report(channel.id()).await.expect("running").is_some(),
            "for the other one"
        );
        let of_all: Vec<u64> = std::iter::from_fn(|| to_all.try_next()).map(|d| d.number).collect();
        assert_eq!(of_all, (0..=last).collect::<Vec<_>>());
        to_all.acknowledge(channel.id(), last).await.expect("stored");
        world.pass(&arbiter, 1).await;
        assert_eq!(arbiter.report(channel.id()).await, Ok(None), "now it is forgotten");
    }
}

/// What the store holds of subscriptions: to the first channel, and to all.
fn stored(world: &World) -> (usize, Vec<(String, bool)>) {
    let of_one = world.log.channel(Slot(0)).expect("readable").map(|channel| channel.subscribers);
    (of_one.map_or(0, |all| all.len()), world.log.subscribers_to_all().expect("readable"))
}

#[tokio::test(start_paused = true)]
async fn a_detached_subscription_ends_with_its_guard_unless_it_has_acknowledged_something() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let (id, detached) = (channel.id(), Delivery::Detached);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    for _ in 0..3 {
        // A name is free for the other kind as soon as nobody has it.
        let mut one = arbiter.subscribe(id, "x", detached).await.expect("free");
        assert_eq!(one.next().await.map(|d| d.number), Some(0));
        drop(one);
        arbiter.idle().await.expect("running");
        let mut all = arbiter.subscribe_all("x", detached).await.expect("free");
        assert_eq!(all.next().await.map(|d| d.number), Some(0), "nothing was acknowledged");
        drop(all);
        arbiter.idle().await.expect("running");
        assert_eq!(stored(&world), (0, vec![]));
    }
    // One that waited for acknowledgements, and does not any more.
    drop(arbiter.subscribe(id, "a", Delivery::Acknowledged).await.expect("free"));
    drop(arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("free"));
    arbiter.idle().await.expect("running");
    assert_eq!(stored(&world), (1, vec![("all".to_owned(), true)]));
    let one = arbiter.subscribe(id, "a", detached).await.expect("its name");
    let all = arbiter.subscribe_all("all", detached).await.expect("its name");
    assert_eq!(stored(&world), (0, vec![]));
    one.acknowledge(0).await.expect("stored");
    all.acknowledge(id, 0).await.expect("stored");
    drop((one, all));
    arbiter.idle().await.expect("running");
    let of_all = vec![("all".to_owned(), false)];
    assert_eq!(stored(&world), (2, of_all.clone()));

    // Who comes back goes on where it had acknowledged, and may do so again.
    arbiter.kill();
    arbiter.shutdown().await;
    world.chain.undo(1);
    world.chain.mine_many(2);
    let arbiter = world.restart(&[&channel]).await;
    world.pass(&arbiter, 1).await;
    for _ in 0..2 {
        let mut one = arbiter.subscribe(id, "a", detached).await.expect("its name");
        let mut all = arbiter.subscribe_all("all", detached).await.expect("its name");
        assert_eq!(one.next().await.map(|d| d.number), Some(1));
        assert_eq!(all.next().await.map(|d| d.number), Some(1));
    }
    assert_eq!(stored(&world), (2, of_all));
    // Until there is nothing left to come back to.
    resolve(&world, &arbiter, &channel).await;
    world.pass(&arbiter, 5).await;
    assert_eq!(arbiter.report(id).await, Ok(None), "it is forgotten");
    assert_eq!(stored(&world), (0, vec![]));
}

/// Earlier versions stored every name.
#[tokio::test(start_paused = true)]
async fn stored_names_of_which_there_is_nothing_to_remember_go_at_a_start() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.watching(&channel).await.shutdown().await;
    let one = |name: &str, next, acknowledged| {
        let state = Some(SubscriberState { next, acknowledged });
        Write::Subscriber { slot: Slot(0), name: name.to_owned(), state }
    };
    let all = |name: &str, acknowledged| Write::SubscriberToAll {
        name: name.to_owned(),
        acknowledged: Some(acknowledged),
    };
    let writes = vec![
        one("nothing", 0, false),
        one("waits", 0, true),
        one("has", 1, false),
        all("nothing of all", false),
        one("nothing of all", 0, false),
        all("waits for all", true),
        all("has of all", false),
        one("has of all", 1, false),
    ];
    let _ = world.log.clone().append(Batch { id: BatchId(1 << 62), writes }).await.expect("room");
    let names = |world: &World| {
        let of_one = world.log.channel(Slot(0)).expect("readable").expect("watched").subscribers;
        let of_all = world.log.subscribers_to_all().expect("readable");
        let all = of_one.into_iter().map(|(name, _)| name);
        all.chain(of_all.into_iter().map(|(name, _)| name)).collect::<Vec<_>>()
    };
    world.log.damage_entry(0);
    let arbiter = world.restart(&[&channel]).await;
    assert!(is_set_aside(&arbiter, channel.id()).await);
    let left = ["has", "has of all", "nothing of all", "waits"];
    let of_all = ["has of all", "nothing of all", "waits for all"];
    assert_eq!(names(&world), [&left[..], &of_all].concat(), "of all nobody knows");
    world.log.heal();
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    drop(subscribe(&arbiter, &channel, Delivery::Detached).await);
    arbiter.idle().await.expect("running");
    assert_eq!(names(&world), ["has", "has of all", "waits", "has of all", "waits for all"]);
}
