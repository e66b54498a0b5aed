//! Subscriptions to all channels, and what is delivered with an event.
use super::support::*;
use crate::{AllChannelsSubscription, Arbiter, CommandError, Delivered, Delivery, Settings};
use arb_core::arbitrator::{ChannelEvent, CloseKind, OutputProgress};
use arb_core::claim::SigningKey;
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::ids::ChannelId;
use arb_core::log::ChangeLog as _;
use arb_core::picture::{Output, Role, Way};
use arb_core::units::{BlockHeight, CommitmentNumber};
use std::time::Duration;
use tokio::time::timeout;

const CLOSED: ChannelEvent = ChannelEvent::Closed(CloseKind::Remote(CommitmentNumber(0)));

async fn subscribe(arbiter: &Arbiter, delivery: Delivery) -> AllChannelsSubscription {
    arbiter.subscribe_all("ledger", delivery).await.expect("stored")
}

fn all(subscription: &mut AllChannelsSubscription) -> Vec<(ChannelId, u64, ChannelEvent)> {
    let next = || subscription.try_next().map(|d| (d.channel, d.number, d.event));
    std::iter::from_fn(next).collect()
}

async fn two(world: &World) -> (Arbiter, Channel, Channel) {
    let (one, two) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&one).await;
    arbiter.watch_channel(two.facts.clone()).await.expect("sound facts");
    (arbiter, one, two)
}

#[tokio::test(start_paused = true)]
async fn every_channel_is_told_of_those_watched_later_included_and_again_after_a_restart() {
    let world = World::default();
    let (arbiter, one, two) = two(&world).await;
    world.chain.mine(vec![one.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let mut events = subscribe(&arbiter, Delivery::Detached).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut events), [(one.id(), 0, CLOSED)], "what happened before as well");
    let later = Channel::new(3, StaticRemotekey);
    arbiter.watch_channel(later.facts.clone()).await.expect("sound facts");
    world.chain.mine(vec![two.remote_tx(0, &[]), later.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut events), [(two.id(), 0, CLOSED), (later.id(), 0, CLOSED)]);
    events.acknowledge(two.id(), 0).await.expect("stored");

    arbiter.kill();
    assert!(events.next().await.is_none());
    let arbiter = world.restart(&[&one, &two, &later]).await;
    let mut events = subscribe(&arbiter, Delivery::Detached).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut events), [(one.id(), 0, CLOSED), (later.id(), 0, CLOSED)]);
    let counts = arbiter.counts().await.expect("running");
    assert_eq!(counts.subscriptions, 1);
}

#[tokio::test(start_paused = true)]
async fn all_channels_are_held_for_an_acknowledgement_across_a_restart() {
    let world = World::default();
    let (arbiter, one, two) = two(&world).await;
    drop(subscribe(&arbiter, Delivery::Acknowledged).await);
    world.chain.mine(vec![one.remote_tx(0, &[]), two.remote_tx(0, &[])]);
    world.chain.mine_many(99);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&one, &two]).await;
    world.pass(&arbiter, 3).await;
    assert!(world.log.stored_facts(0).is_some() && world.log.stored_facts(1).is_some());
    let mut events = subscribe(&arbiter, Delivery::Acknowledged).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut events).len(), 6);
    events.acknowledge(one.id(), 2).await.expect("stored");
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.stored_facts(0), None, "acknowledged");
    assert!(world.log.stored_facts(1).is_some(), "not acknowledged");
    assert_eq!(events.acknowledge(one.id(), 2).await, Ok(()), "it may have been read late");
    arbiter.unsubscribe_all("ledger").await.expect("stored");
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.stored_facts(1), None, "nobody waits any more");
    assert!(events.next().await.is_none());
    arbiter.unsubscribe_all("ledger").await.expect("that there is none is no error");
    assert_eq!(world.log.subscribers_to_all().expect("readable"), [], "nor after a restart");
}

#[tokio::test(start_paused = true)]
async fn a_name_is_of_one_kind() {
    let world = World::default();
    let (arbiter, one, _) = two(&world).await;
    let taken = |name: &str| Some(CommandError::NameTaken(name.to_owned()));
    let _all = subscribe(&arbiter, Delivery::Detached).await;
    let refused = arbiter.subscribe(one.id(), "ledger", Delivery::Detached).await;
    assert_eq!(refused.err(), taken("ledger"));
    assert_eq!(arbiter.unsubscribe(one.id(), "ledger").await.err(), taken("ledger"));
    let _one = arbiter.subscribe(one.id(), "a", Delivery::Detached).await.expect("watched");
    assert_eq!(arbiter.subscribe_all("a", Delivery::Detached).await.err(), taken("a"));
    arbiter.unsubscribe(one.id(), "a").await.expect("stored");
    arbiter.subscribe_all("a", Delivery::Detached).await.expect("free again");
}

#[tokio::test(start_paused = true)]
async fn a_later_reader_of_the_same_name_begins_with_what_was_not_acknowledged() {
    let world = World::default();
    let (arbiter, one, two) = two(&world).await;
    let mut first = subscribe(&arbiter, Delivery::Detached).await;
    world.chain.mine(vec![one.remote_tx(0, &[]), two.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut first), [(one.id(), 0, CLOSED), (two.id(), 0, CLOSED)]);
    first.acknowledge(one.id(), 0).await.expect("stored");
    let mut second = subscribe(&arbiter, Delivery::Detached).await;
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut second), [(two.id(), 0, CLOSED)]);
    assert!(first.next().await.is_none(), "the later one receives");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_subscribes_to_nothing() {
    let world = World::default();
    let (arbiter, one, two) = two(&world).await;
    let gate = world.log.hold();
    let subscribing = arbiter.subscribe_all("late", Delivery::Acknowledged);
    timeout(Duration::from_secs(1), subscribing).await.expect_err("no answer");
    gate.pass();
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.subscribers_to_all().expect("readable"), [], "nor after a restart");
    world.chain.mine(vec![one.remote_tx(0, &[]), two.remote_tx(0, &[])]);
    world.chain.mine_many(99);
    arbiter.idle().await.expect("running");
    assert_eq!(world.log.stored_facts(0), None, "nobody waits");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_to_all_loses_nothing_and_holds_nothing_up() {
    let world = World::default();
    let (arbiter, one, two) = two(&world).await;
    let mut slow = subscribe(&arbiter, Delivery::Detached).await;
    for _ in 0..300 {
        world.chain.mine(vec![one.remote_tx(0, &[]), two.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        world.chain.undo(1);
        world.pass(&arbiter, 1).await;
    }
    assert_eq!(slow.lag(), 2 * 600 - 1024);
    let mut got = Vec::new();
    while let Ok(Some(next)) = timeout(Duration::from_secs(1), slow.next()).await {
        got.push(next);
    }
    assert_eq!(slow.lag(), 0);
    for channel in [&one, &two] {
        let of = got.iter().filter(|d| d.channel == channel.id());
        assert!(of.map(|d| d.number).eq(0..600));
    }
}

/// Nothing of a forgotten channel is anywhere else.
#[tokio::test(start_paused = true)]
async fn a_subscriber_that_never_reads_is_let_go_of_before_it_takes_too_much() {
    let world = World::default();
    let settings = Settings { unread_events: 20, ..Settings::default() };
    let arbiter = world.start_with(settings, vec![]).await;
    let mut dead = subscribe(&arbiter, Delivery::Detached).await;
    let mut slow = arbiter.subscribe_all("slow", Delivery::Detached).await.expect("stored");
    // Three events each: seven channels are one event too many.
    let mut read = 0;
    let channels: Vec<Channel> = (1..=8).map(|id| Channel::new(id, StaticRemotekey)).collect();
    for (at, channel) in channels.iter().enumerate() {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        world.chain.mine_many(99);
        arbiter.idle().await.expect("running");
        assert_eq!(world.log.stored_facts(at as u32), None, "nobody waits for it");
        let expected = if at < 6 { 0 } else { 1 };
        assert_eq!(dead.lag(), expected, "{at}");
        if at % 4 == 3 {
            read += all(&mut slow).len();
        }
    }
    assert_eq!((read, slow.lag()), (24, 0), "whoever reads in time misses nothing");
    let got = all(&mut dead);
    let expected = channels.iter().take(7).flat_map(|c| (0..3).map(move |number| (c.id(), number)));
    assert!(got.iter().map(|(id, number, _)| (*id, *number)).eq(expected.take(20)), "no gap");
    assert!(dead.next().await.is_none(), "it has ended");
    assert_eq!(dead.lag(), 1, "and it is told that something did not come");
    // The name is still there, and what happens from now on comes.
    let mut again = subscribe(&arbiter, Delivery::Detached).await;
    let later = Channel::new(9, StaticRemotekey);
    arbiter.watch_channel(later.facts.clone()).await.expect("sound facts");
    world.chain.mine(vec![later.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(all(&mut again), [(later.id(), 0, CLOSED)]);
}

#[tokio::test(start_paused = true)]
async fn a_breach_comes_with_everything_that_brings_it_to_justice() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.add(received(0));
    channel.next_remote(1, &[received(0)]);
    channel.revoke(0);
    let breach = channel.remote_tx(1, &[received(0)]);
    let arbiter = world.watching(&channel).await;
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("sound updates");
    assert_eq!(world.log.stored_ended(0, 1), [received(0)]);
    let mut events = arbiter.subscribe(channel.id(), "a", Delivery::Detached).await.expect("known");
    world.chain.mine(vec![breach.clone()]);
    arbiter.idle().await.expect("running");
    let Some(Delivered { event, detail: Some(detail), .. }) = events.try_next() else {
        panic!("no detail")
    };
    assert_eq!(event, ChannelEvent::Closed(CloseKind::Revoked(number(1))));
    assert!(detail.complete, "penalty data was loaded before");
    assert_eq!((&detail.transaction, detail.commitment()), (&breach, Some(number(1))));
    assert_eq!(detail.picture.at, world.chain.tip_now());
    let roles: Vec<Role> = detail.penalties().map(|(output, ..)| output.role).collect();
    assert_eq!(roles.len(), 2, "{roles:?}");
    assert!(roles.contains(&Role::ToLocal) && roles.contains(&Role::Htlc(received(0))));
    // The cheater may be in the block after that.
    let by = BlockHeight(detail.picture.at.height.0 + 143);
    for (output, spend, deadline) in detail.penalties() {
        let made = &breach.output[output.outpoint.vout as usize];
        assert_eq!(&output.output, made);
        let script = spend.script.as_ref().expect("a script");
        assert_eq!(script.to_p2wsh(), made.script_pubkey);
        assert!(matches!(spend.key, SigningKey::Revocation(_)));
        assert_eq!(deadline, Some(by));
    }
    // The secret is in it, and in no text.
    let said = format!("{detail:?}");
    assert!(said.contains("PerCommitmentSecret(..)"), "{said}");
    // What is taken needs no spend any more.
    let penalties: Vec<_> = world.net.sent().into_iter().flatten().collect();
    world.chain.mine(penalties);
    arbiter.idle().await.expect("running");
    let detail = events.try_next().and_then(|delivered| delivered.detail).expect("a detail");
    assert_eq!(detail.penalties().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_breach_whose_penalty_data_cannot_be_read_says_so_and_a_sound_close_has_no_penalties() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    let mut events = subscribe(&arbiter, Delivery::Detached).await;
    world.log.damage_ended(0, true);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let detail = events.try_next().and_then(|delivered| delivered.detail).expect("a detail");
    assert!(!detail.complete);
    assert_eq!(detail.penalties().count(), 1, "our part of the rest is known");

    let live = Channel::new(2, Anchors);
    arbiter.watch_channel(live.facts.clone()).await.expect("sound facts");
    world.chain.mine(vec![live.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let delivered = std::iter::from_fn(|| events.try_next()).find(|one| one.channel == live.id());
    let detail = delivered.and_then(|delivered| delivered.detail).expect("a detail");
    let is_ours = |output: &Output| matches!(output.way, Way::Spend { .. });
    assert!(detail.complete && detail.picture.outputs.iter().any(is_ours));
    assert_eq!(detail.penalties().count(), 0, "ours to claim, and no breach");
}

#[tokio::test(start_paused = true)]
async fn outputs_are_told_of_step_by_step_and_back() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    let mut events = arbiter.subscribe(channel.id(), "a", Delivery::Detached).await.expect("known");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let penalty = world.net.sent().pop().and_then(|package| package.into_iter().next());
    let penalty = penalty.expect("a penalty transaction");
    let outpoint = penalty.input[0].previous_output;
    let told = |progress| ChannelEvent::Output { outpoint, progress };
    world.chain.mine(vec![penalty.clone()]);
    arbiter.idle().await.expect("running");
    // The spend is reorganised out, and comes again.
    world.chain.undo(1);
    world.pass(&arbiter, 1).await;
    world.chain.mine(vec![penalty]);
    world.chain.mine_many(98);
    arbiter.idle().await.expect("running");
    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut again = arbiter.subscribe(channel.id(), "a", Delivery::Detached).await.expect("known");
    world.pass(&arbiter, 1).await;
    let next = || again.try_next().map(|delivered| delivered.event);
    let got: Vec<ChannelEvent> = std::iter::from_fn(next).collect();
    let steps = [OutputProgress::Claimed, OutputProgress::Unspent, OutputProgress::Claimed];
    let of_it: Vec<ChannelEvent> = got
        .iter()
        .filter(
            |event| matches!(event, ChannelEvent::Output { outpoint: of, .. } if *of == outpoint),
        )
        .copied()
        .collect();
    assert_eq!(of_it[..3], steps.map(told), "{got:?}");
    assert_eq!(of_it[3..], [told(OutputProgress::Irrevocable)], "{got:?}");
    assert_eq!(got.first(), Some(&ChannelEvent::Closed(CloseKind::Revoked(number(0)))));
    assert_eq!(got.last(), Some(&ChannelEvent::Resolved));
    let before = std::iter::from_fn(|| events.try_next()).count();
    assert!(before >= 3, "the others came before the restart: {before}");
}
