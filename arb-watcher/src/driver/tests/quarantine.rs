//! Channels that are set aside are read again, and return by themselves.
use super::support::*;
use crate::{Arbiter, CommandError, Delivery, Settings};
use arb_core::arbitrator::{Alert, Change, ChannelEvent, Notice, Phase};
use arb_core::classify::FundingSpend;
use arb_core::facts::UpdateError;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const CLOSED: Phase = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));
const QUARANTINED: Notice = Notice::Alert(Alert::Quarantined);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// `None`: it is set aside.
async fn phase(arbiter: &Arbiter, channel: &Channel) -> Option<Phase> {
    match arbiter.report(channel.id()).await {
        Ok(report) => Some(report.expect("watched").phase),
        Err(CommandError::SetAside { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn with_id(channels: &[Channel], id: u8) -> &Channel {
    channels.iter().find(|channel| channel.id() == ChannelId([id; 32])).expect("that channel")
}

/// A store with channels of these ids, each failed and handed out, and each in a slot of its own.
async fn stored(world: &World, ids: &[u8]) -> Vec<Channel> {
    let channels: Vec<Channel> = ids.iter().map(|id| Channel::new(*id, StaticRemotekey)).collect();
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
        fail(&arbiter, channel.id()).await;
    }
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.net.sent();
    channels
}

#[tokio::test(start_paused = true)]
async fn a_channel_returns_with_the_blocks_that_it_missed_and_no_others() {
    let world = World::default();
    let (broken, sound) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
    world.chain.mine_many(5);
    arbiter.idle().await.expect("running");
    let before = world.chain.best();
    let mut notices = arbiter.notices().await.expect("running");
    world.log.damage_facts(0);
    world.chain.mine(vec![broken.remote_tx(0, &[]), sound.remote_tx(0, &[])]);
    world.chain.mine_many(3);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &broken).await, None);
    assert_eq!(phase(&arbiter, &sound).await, Some(CLOSED));
    assert!(drain(&mut notices).await.contains(&(broken.id(), QUARANTINED)));
    // The source has lost what lies below.
    for block in before {
        world.chain.prune(block);
    }
    world.log.heal();
    sleep(HOUR).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &broken).await, Some(CLOSED));
    let spent = |change: &&Change| matches!(change, Change::Spent(_));
    assert_eq!(world.log.stored_changes(0).iter().filter(spent).count(), 1);
    drain(&mut notices).await;
    world.pass(&arbiter, 1).await;
    assert!(!drain(&mut notices).await.contains(&(broken.id(), QUARANTINED)), "it is over");
    // And it is watched like any other.
    world.chain.undo(5);
    world.chain.mine_many(7);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &broken).await, Some(Phase::Open));
}

// incident lnd-7985 lnd-7984
#[tokio::test(start_paused = true)]
async fn a_start_goes_on_with_several_damaged_channels_and_each_returns_by_itself() {
    let world = World::default();
    let channels = stored(&world, &[1, 2, 3, 4]).await;
    world.log.damage_facts(0);
    world.log.damage_changes(1);
    world.log.damage_facts(3);
    world.log.damage_changes(3);
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    arbiter.idle().await.expect("running");
    let sound = with_id(&channels, 3);
    assert_eq!(world.net.txids(), [sound.local_tx().compute_txid()], "the sound one goes on");
    for broken in [1, 2, 4].map(|id| with_id(&channels, id)) {
        assert_eq!(phase(&arbiter, broken).await, None);
        match arbiter.fail_channel(broken.id()).await {
            Err(CommandError::SetAside { id, why, again }) => {
                assert_eq!(id, broken.id());
                assert!(why.contains("a flipped bit"), "{why}");
                // It was read at the start, and is read again within half a second.
                assert!(again.is_some_and(|again| again <= Settings::default().retry), "{again:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    world.chain.mine(vec![with_id(&channels, 4).remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.log.heal();
    sleep(HOUR).await;
    arbiter.idle().await.expect("running");
    for back in [1, 2].map(|id| with_id(&channels, id)) {
        assert_eq!(phase(&arbiter, back).await, Some(Phase::Failing));
        // What was handed out is not forgotten: the fence stands.
        let update = Channel::new(back.id().0[0], StaticRemotekey).next_local(1, &[]);
        let fenced = Err(CommandError::Facts(UpdateError::Fenced));
        assert_eq!(arbiter.update_channel(back.id(), vec![update]).await, fenced);
    }
    assert_eq!(phase(&arbiter, with_id(&channels, 4)).await, Some(CLOSED), "while it was away");
    let sent = world.net.txids();
    for back in [1, 2].map(|id| with_id(&channels, id)) {
        assert!(sent.contains(&back.local_tx().compute_txid()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_returns_is_held_against_what_the_node_stated() {
    let world = World::default();
    let channels = stored(&world, &[1, 2]).await;
    let (behind, unstated) = (&channels[0], &channels[1]);
    world.log.damage_facts(0);
    world.log.damage_facts(1);
    let stated = vec![numbers(behind.id(), 7, 0)];
    let arbiter = world.start_with(Settings::default(), stated).await;
    world.log.heal();
    sleep(HOUR).await;
    world.pass(&arbiter, 2).await;
    for outdated in [behind, unstated] {
        let report = arbiter.report(outdated.id()).await.expect("running").expect("back");
        assert!(report.alerts.contains(&Alert::OutdatedFacts), "{report:?}");
        let refused = Err(CommandError::Outdated(outdated.id()));
        assert_eq!(arbiter.fail_channel(outdated.id()).await, refused);
    }
    assert_eq!(world.net.txids(), [], "nothing outdated is broadcast");
}

/// What the peer proves while a channel is set aside is not lost.
#[tokio::test(start_paused = true)]
async fn what_the_node_states_of_a_channel_that_is_set_aside_counts_when_it_returns() {
    let world = World::default();
    let channels = stored(&world, &[1]).await;
    let id = channels[0].id();
    world.log.damage_facts(0);
    let arbiter = world.restart(&[&channels[0]]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channels[0]).await, None);
    assert_eq!(arbiter.state_numbers(numbers(id, 7, 0)).await, Ok(()));
    world.log.heal();
    sleep(HOUR).await;
    world.pass(&arbiter, 2).await;
    let report = arbiter.report(id).await.expect("running").expect("back");
    assert!(report.alerts.contains(&Alert::OutdatedFacts), "{report:?}");
    assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::Outdated(id)));
    assert_eq!(world.net.txids(), [], "nothing outdated is broadcast");
    let nobody = ChannelId([9; 32]);
    let unknown = Err(CommandError::UnknownChannel(nobody));
    assert_eq!(arbiter.state_numbers(numbers(nobody, 7, 0)).await, unknown);
}

/// The same of facts that turn out to be damaged when the node states the numbers.
#[tokio::test(start_paused = true)]
async fn numbers_that_find_damaged_facts_are_not_lost() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    world.log.damage_facts(0);
    assert_eq!(arbiter.state_numbers(numbers(channel.id(), 7, 0)).await, Ok(()));
    assert_eq!(phase(&arbiter, &channel).await, None);
    world.log.heal();
    sleep(HOUR).await;
    arbiter.idle().await.expect("running");
    let outdated = Err(CommandError::Outdated(channel.id()));
    assert_eq!(arbiter.fail_channel(channel.id()).await, outdated);
}

/// Facts that the node brings itself are held against what it stated before.
#[tokio::test(start_paused = true)]
async fn facts_that_take_the_place_of_damaged_ones_may_be_outdated() {
    for (stated, outdated) in [(Some(7), true), (Some(0), false), (None, false)] {
        let world = World::default();
        let channels = stored(&world, &[1]).await;
        let id = channels[0].id();
        world.log.damage_entry(0);
        let stated = stated.map(|local| numbers(id, local, 0));
        let arbiter = world.start_with(Settings::default(), stated.into_iter().collect()).await;
        assert_eq!(arbiter.watch_channel(channels[0].facts.clone()).await, Ok(()));
        world.pass(&arbiter, 2).await;
        let failed = arbiter.fail_channel(id).await.map(drop);
        let expected = if outdated { Err(CommandError::Outdated(id)) } else { Ok(()) };
        assert_eq!(failed, expected, "{stated:?}");
        assert_eq!(world.net.txids().is_empty(), outdated, "{stated:?}");
    }
}

/// Whoever must acknowledge before the records go is still waited for, however the channel comes back.
#[tokio::test(start_paused = true)]
async fn subscribers_that_could_not_be_read_are_waited_for_again() {
    for by_the_node in [false, true] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        let id = channel.id();
        let of = |arbiter: Arbiter| async move {
            arbiter.subscribe(id, "a", Delivery::Acknowledged).await.expect("watched")
        };
        drop(of(arbiter.clone()).await);
        arbiter.shutdown().await;
        world.log.damage_subscribers(0);
        let arbiter = world.restart(&[&channel]).await;
        arbiter.idle().await.expect("running");
        assert_eq!(phase(&arbiter, &channel).await, None);
        world.log.heal();
        if by_the_node {
            assert_eq!(arbiter.watch_channel(channel.facts.clone()).await, Ok(()));
        } else {
            sleep(HOUR).await;
        }
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        world.pass(&arbiter, 120).await;
        let resolved = Some(Phase::Resolved(FundingSpend::RemoteCommitment(number(0))));
        assert_eq!(phase(&arbiter, &channel).await, resolved, "its records wait, {by_the_node}");
        let mut events = of(arbiter.clone()).await;
        let mut last = None;
        while let Some(event) = events.try_next() {
            last = Some((event.number, event.event));
        }
        let (number, event) = last.expect("events");
        assert_eq!(event, ChannelEvent::Resolved);
        events.acknowledge(number).await.expect("known");
        world.pass(&arbiter, 1).await;
        assert_eq!(arbiter.report(channel.id()).await, Ok(None), "{by_the_node}");
    }
}

/// A store with 200 channels, one of which is closed in the 20th of 50 blocks, and that knows none of these any more.
async fn without_a_cursor(world: &World) -> Vec<Channel> {
    let channels: Vec<Channel> = (1..=200).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    world.chain.mine_many(20);
    world.chain.mine(vec![channels[7].remote_tx(0, &[])]);
    world.chain.mine_many(29);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.log.lose_blocks(usize::MAX);
    channels
}

/// However many channels have missed a block, it is read for all of them.
#[tokio::test(start_paused = true)]
async fn what_many_channels_have_missed_is_read_once_for_all() {
    let world = World::default();
    let channels = without_a_cursor(&world).await;
    let before = world.chain.blocks_read();
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    sleep(Duration::from_secs(600)).await;
    arbiter.idle().await.expect("running");
    for (at, channel) in channels.iter().enumerate() {
        let expected = if at == 7 { CLOSED } else { Phase::Open };
        assert_eq!(phase(&arbiter, channel).await, Some(expected), "{at}");
    }
    let reads = world.chain.blocks_read() - before;
    // Those that are read again while a scan runs are in the next one.
    assert!((50..=150).contains(&reads), "50 blocks for 200 channels: {reads} reads");
}

/// Nor does the chain wait for them, where the source answers one question at a time.
#[tokio::test(start_paused = true)]
async fn blocks_do_not_wait_for_rescans() {
    let world = World::default();
    let channels = without_a_cursor(&world).await;
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    // It has begun at the tip, and not read the channels again.
    sleep(Duration::from_millis(100)).await;
    world.chain.answers_one_in(Duration::from_secs(1));
    sleep(Duration::from_secs(30)).await;
    assert_eq!(phase(&arbiter, &channels[7]).await, None, "it is scanned for");
    let at = world.chain.mine(vec![]);
    let taken = async {
        while world.log.tip() != Some(at) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(15), taken).await.expect("a few questions among others");
    sleep(HOUR).await;
    assert_eq!(phase(&arbiter, &channels[7]).await, Some(CLOSED));
    assert_eq!(phase(&arbiter, &channels[8]).await, Some(Phase::Open));
}

#[tokio::test(start_paused = true)]
async fn records_that_stay_unreadable_are_read_ever_more_seldom() {
    let world = World::default();
    stored(&world, &[1]).await;
    world.log.damage_facts(0);
    let arbiter = world.start().await;
    sleep(Duration::from_secs(20)).await;
    let soon = world.log.channel_reads();
    assert!((4..=7).contains(&soon), "{soon} readings in 20 seconds");
    sleep(24 * HOUR).await;
    let reads = world.log.channel_reads() - soon;
    assert!((24..=36).contains(&reads), "{reads} readings in a day");
    assert!(!arbiter.is_stopped());
}

#[tokio::test(start_paused = true)]
async fn a_past_that_cannot_be_had_is_asked_for_again() {
    for mood in [Mood::Fails, Mood::Panics] {
        let world = World::default();
        let channels = stored(&world, &[1]).await;
        let pruned = world.chain.mine(vec![channels[0].remote_tx(0, &[])]);
        let arbiter = world.restart(&[&channels[0]]).await;
        arbiter.idle().await.expect("running");
        arbiter.shutdown().await;
        world.log.damage_facts(0);
        let arbiter = world.restart(&[&channels[0]]).await;
        arbiter.idle().await.expect("running");
        world.log.heal();
        world.chain.is(mood);
        sleep(HOUR).await;
        assert_eq!(phase(&arbiter, &channels[0]).await, None, "{mood:?}");
        world.chain.is(Mood::Well);
        sleep(2 * HOUR).await;
        arbiter.idle().await.expect("running");
        assert_eq!(phase(&arbiter, &channels[0]).await, Some(CLOSED), "{mood:?}");
        assert_eq!(world.chain.tip_now(), pruned);
    }
}

#[tokio::test(start_paused = true)]
async fn the_node_may_state_a_channel_that_is_about_to_return() {
    let world = World::default();
    let channels = stored(&world, &[1]).await;
    world.log.damage_facts(0);
    let arbiter = world.restart(&[&channels[0]]).await;
    world.log.heal();
    world.chain.is(Mood::Hangs);
    // The scan of the return is under way, and a second one behind it.
    sleep(Duration::from_secs(2)).await;
    let watching = tokio::spawn({
        let (arbiter, facts) = (arbiter.clone(), channels[0].facts.clone());
        async move { arbiter.watch_channel(facts).await }
    });
    sleep(Duration::from_secs(1)).await;
    world.chain.is(Mood::Well);
    assert_eq!(watching.await.expect("no panic"), Ok(()));
    sleep(HOUR).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channels[0]).await, Some(Phase::Failing));
    let failing = |change: &&Change| matches!(change, Change::FailRequested { .. });
    assert_eq!(world.log.stored_changes(0).iter().filter(failing).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_channel_that_is_set_aside_says_so() {
    let world = World::default();
    let channels = stored(&world, &[1]).await;
    let id = channels[0].id();
    let arbiter = world.restart(&[&channels[0]]).await;
    arbiter.idle().await.expect("running");
    let mut notices = arbiter.notices().await.expect("running");
    let told = drain(&mut notices).await;
    let failing = told.iter().find(|(_, notice)| matches!(notice, Notice::Failing(_)));
    let key = failing.expect("it fails").1.key();
    arbiter.shutdown().await;
    world.log.damage_facts(0);
    let arbiter = world.restart(&[&channels[0]]).await;
    arbiter.idle().await.expect("running");
    // It waits longer each time, and says for how long.
    sleep(HOUR).await;
    let waits = |answer| match answer {
        Err(CommandError::SetAside { again, .. }) => again.expect("it waits"),
        other => panic!("{other:?}"),
    };
    let early = waits(arbiter.acknowledge(id, key).await);
    assert!(early > Duration::from_secs(1), "{early:?}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(waits(arbiter.report(id).await.map(drop)), early - Duration::from_secs(1));
    world.log.heal();
    sleep(2 * HOUR).await;
    arbiter.idle().await.expect("running");
    assert_eq!(arbiter.acknowledge(id, key).await, Ok(()), "it is back");
}

/// A start that can read it again does not take it for one that has seen every block.
#[tokio::test(start_paused = true)]
async fn blocks_that_a_channel_missed_are_not_forgotten_with_a_restart() {
    let world = World::default();
    let (broken, sound) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
    world.log.damage_facts(0);
    world.chain.mine(vec![broken.remote_tx(0, &[]), sound.remote_tx(0, &[])]);
    world.pass(&arbiter, 1).await;
    arbiter.kill();
    arbiter.shutdown().await;
    world.log.heal();
    for _ in 0..2 {
        let arbiter = world.restart(&[&broken, &sound]).await;
        sleep(Duration::from_secs(10)).await;
        arbiter.idle().await.expect("running");
        for channel in [&broken, &sound] {
            assert_eq!(phase(&arbiter, channel).await, Some(CLOSED));
        }
        // Then it is one like any other.
        let mut notices = arbiter.notices().await.expect("running");
        assert!(!drain(&mut notices).await.contains(&(broken.id(), QUARANTINED)));
        arbiter.kill();
        arbiter.shutdown().await;
    }
    let arbiter = world.restart(&[&broken, &sound]).await;
    assert_eq!(phase(&arbiter, &broken).await, Some(CLOSED), "at once");
    world.pass(&arbiter, 105).await;
    assert_eq!(arbiter.report(broken.id()).await, Ok(None), "and it is forgotten");
}
