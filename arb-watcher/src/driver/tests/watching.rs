//! Watching: rescans from birth, whatever the chain does meanwhile; twice; quarantine.
use super::support::channel::spend;
use super::support::*;
use crate::{BumpGoal, BumpTarget, CommandError, Delivery};
use arb_core::arbitrator::{Alert, Change, ChannelEvent, Notice, NoticeKey, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;
use bitcoin::{Amount, OutPoint};
use std::time::Duration;
use tokio::time::{sleep, timeout};

async fn phase(arbiter: &crate::Arbiter, channel: &Channel) -> Phase {
    arbiter.report(channel.id()).await.expect("running").expect("watched").phase
}

const CLOSED: Phase =
    Phase::Closed(FundingSpend::RemoteCommitment(arb_core::units::CommitmentNumber(0)));

#[tokio::test(start_paused = true)]
async fn a_watch_before_the_first_tip_scans_from_birth() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(5);
    let arbiter = world.start().await;
    // The driver has not asked for the tip yet.
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);

    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.chain.is(Mood::Fails);
    let arbiter = world.start().await;
    let (watcher, facts) = (arbiter.clone(), channel.facts.clone());
    let watching = tokio::spawn(async move { watcher.watch_channel(facts).await });
    sleep(Duration::from_secs(60)).await;
    assert!(!watching.is_finished());
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(5);
    world.chain.is(Mood::Well);
    watching.await.expect("no panic").expect("sound facts");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
}

// incident eclair-3092
// incident electrum-10785
#[tokio::test(start_paused = true)]
async fn a_late_watch_finds_a_close_and_what_follows_it() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    let close = channel.remote_tx(0, &[]);
    let output = OutPoint { txid: close.compute_txid(), vout: 0 };
    let child = spend(output, Amount::from_sat(1000), channel.facts.destination.clone());
    world.chain.mine_many(3);
    world.chain.mine(vec![close, child.clone()]);
    world.chain.mine_many(3);
    world.chain.prune(world.chain.best()[0]);
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
    assert_eq!(world.chain.tip_now(), world.log.tip().expect("a cursor"));
}

#[tokio::test(start_paused = true)]
async fn the_tip_moves_during_a_rescan() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(5);
    arbiter.idle().await.expect("running");
    let close = channel.remote_tx(0, &[]);
    world.chain.before(world.chain.best()[2], move |chain| {
        chain.mine_many(2);
        chain.mine(vec![close]);
        chain.mine_many(2);
    });
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_during_a_rescan_leaves_nothing_stale() {
    // Where the hook strikes, and how many blocks it takes away: below, at and above the close.
    let cases = [(1, 5), (2, 4), (3, 4), (4, 4), (5, 5), (5, 1)];
    // The engine is at the new tip before the rescan, or after it.
    for ((at, undone), slow) in cases.into_iter().flat_map(|case| [(case, 0), (case, 1)]) {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.start().await;
        world.chain.mine_many(2);
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        world.chain.mine_many(2);
        arbiter.idle().await.expect("running");
        world.chain.slow(Duration::from_secs(slow));
        world.chain.before(world.chain.best()[at], move |chain| {
            chain.undo(undone);
            chain.mine_many(u32::try_from(undone).expect("few") + 1);
        });
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
        arbiter.idle().await.expect("running");
        let expected = if undone == 1 { CLOSED } else { Phase::Open };
        assert_eq!(phase(&arbiter, &channel).await, expected, "block {at}, {undone} undone");
        assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_chain_during_a_rescan_is_waited_out() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(5);
    arbiter.idle().await.expect("running");
    world.chain.before(world.chain.best()[2], |chain| chain.undo(2));
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()));
}

#[tokio::test(start_paused = true)]
async fn source_errors_during_a_rescan_are_waited_out() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(2);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.chain.before(world.chain.best()[2], |chain| chain.is(Mood::Fails));
    let (watcher, facts) = (arbiter.clone(), channel.facts.clone());
    let watching = tokio::spawn(async move { watcher.watch_channel(facts).await });
    sleep(Duration::from_secs(60)).await;
    assert!(!watching.is_finished());
    world.chain.is(Mood::Well);
    watching.await.expect("no panic").expect("sound facts");
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
}

// incident teos-209
#[tokio::test(start_paused = true)]
async fn a_channel_whose_past_cannot_be_had_is_not_watched() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(3);
    arbiter.idle().await.expect("running");
    world.chain.prune(world.chain.best()[2]);
    let refused = arbiter.watch_channel(channel.facts.clone()).await;
    assert!(matches!(refused, Err(CommandError::NotScanned(_))), "{refused:?}");
    assert_eq!(arbiter.report(channel.id()).await, Ok(None));
}

/// The same, of a source that was begun above the channel's birth: waiting would be for ever.
#[tokio::test(start_paused = true)]
async fn a_channel_that_is_older_than_the_source_is_not_watched() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(5);
    arbiter.idle().await.expect("running");
    world.chain.begins_at(world.chain.best()[3]);
    let refused = timeout(Duration::from_secs(3600), arbiter.watch_channel(channel.facts.clone()));
    let refused = refused.await.expect("an answer");
    assert!(matches!(refused, Err(CommandError::NotScanned(_))), "{refused:?}");
    assert_eq!(arbiter.report(channel.id()).await, Ok(None));
}

#[tokio::test(start_paused = true)]
async fn watching_again_changes_nothing_and_other_facts_are_refused() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    // Two at once, both scanning.
    let facts = || channel.facts.clone();
    let (first, second) =
        tokio::join!(arbiter.watch_channel(facts()), arbiter.watch_channel(facts()));
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(arbiter.watch_channel(channel.facts.clone()).await, Ok(()));
    assert_eq!(world.log.stored_facts(1), None, "one slot");

    let before = channel.facts.clone();
    channel.add(offered(0));
    let refused = arbiter.watch_channel(channel.facts.clone()).await;
    assert_eq!(refused, Err(CommandError::AlreadyWatched(channel.id())));
    assert_eq!(world.log.stored_facts(0), Some(before));
}

/// Whoever is watched after a restart takes nobody's place.
#[tokio::test(start_paused = true)]
async fn channels_that_come_after_a_restart_have_places_of_their_own() {
    let world = World::default();
    let [one, two, three] = [1, 2, 3].map(|id| Channel::new(id, StaticRemotekey));
    let arbiter = world.watching(&one).await;
    arbiter.watch_channel(two.facts.clone()).await.expect("sound facts");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&one, &two]).await;
    arbiter.watch_channel(three.facts.clone()).await.expect("sound facts");
    for (slot, channel) in (0..).zip([&one, &two, &three]) {
        assert_eq!(world.log.stored_facts(slot).as_ref(), Some(&channel.facts));
    }
    world.chain.mine([&one, &two, &three].map(|channel| channel.remote_tx(0, &[])).to_vec());
    arbiter.idle().await.expect("running");
    for channel in [&one, &two, &three] {
        assert_eq!(phase(&arbiter, channel).await, CLOSED);
    }
}

#[tokio::test(start_paused = true)]
async fn facts_that_do_not_hold_together_are_not_watched() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    let sound = channel.facts.clone();
    // Not what the peer has signed.
    channel.facts.candidates.current.local.local_balance.0 -= 1_000_000;
    channel.facts.candidates.current.local.remote_balance.0 += 1_000_000;
    let refused = arbiter.watch_channel(channel.facts.clone()).await;
    assert!(matches!(refused, Err(CommandError::Facts(_))), "{refused:?}");
    assert_eq!(arbiter.report(channel.id()).await, Ok(None));
    assert_eq!(arbiter.watch_channel(sound).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_cannot_be_stored_is_refused() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    world.log.refuse(true);
    let refused = arbiter.watch_channel(channel.facts.clone()).await;
    assert!(matches!(refused, Err(CommandError::NotStored(_))), "{refused:?}");
    assert_eq!(arbiter.report(channel.id()).await, Ok(None));
    world.log.refuse(false);
    arbiter.watch_channel(channel.facts.clone()).await.expect("room again");
    assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_damaged_facts_is_set_aside_and_healed_by_watching_it_again() {
    let world = World::default();
    let (broken, sound) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
    fail(&arbiter, broken.id()).await;
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.net.sent();

    world.log.damage_facts(0);
    let arbiter = world.restart(&[&broken, &sound]).await;
    world.chain.mine(vec![sound.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &sound).await, CLOSED);
    assert!(is_set_aside(&arbiter, broken.id()).await);
    let refused = arbiter.update_channel(broken.id(), vec![]).await;
    assert!(matches!(refused, Err(CommandError::SetAside { .. })), "{refused:?}");
    assert_eq!(world.net.txids(), []);

    let mut newer = Channel::new(1, StaticRemotekey);
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &broken).await, Phase::Failing);
    assert_eq!(world.net.txids(), [broken.local_tx().compute_txid()]);
    // What was handed out is not forgotten: the fence stands.
    let update = newer.next_local(1, &[]);
    let fenced = CommandError::Facts(arb_core::facts::UpdateError::Fenced);
    assert_eq!(arbiter.update_channel(broken.id(), vec![update]).await, Err(fenced));

    arbiter.shutdown().await;
    let arbiter = world.restart(&[&broken, &sound]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &broken).await, Phase::Failing);
}

fn is_aside(answer: Result<(), CommandError>, of: ChannelId) {
    assert!(matches!(answer, Err(CommandError::SetAside { id, .. }) if id == of), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn damaged_facts_of_a_quiet_channel_are_found_when_something_touches_it() {
    let touches = ["watch", "fail", "update", "report", "block", "deadline", "budget", "notice"];
    for touch in touches {
        let (world, mut broken) = (World::default(), Channel::new(1, StaticRemotekey));
        let sound = Channel::new(2, StaticRemotekey);
        broken.add(offered(0));
        broken.next_local(1, &[offered(0)]);
        let arbiter = world.watching(&broken).await;
        arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
        arbiter.shutdown().await;
        world.log.damage_facts(0);
        let arbiter = world.restart(&[&broken, &sound]).await;
        let mut notices = arbiter.notices().await.expect("running");
        arbiter.idle().await.expect("running");
        assert_eq!(drain(&mut notices).await, [], "{touch}: nobody looked at it yet");
        let id = broken.id();
        match touch {
            "fail" => assert!(arbiter.fail_channel(id).await.is_err()),
            "update" => assert!(arbiter.update_channel(id, vec![]).await.is_err()),
            // They ask for no facts before they are staged.
            "budget" => {
                let goal = BumpGoal::Budget(Amount::from_sat(1_000));
                is_aside(arbiter.bump(BumpTarget::Channel(id), goal).await, id);
            }
            "notice" => is_aside(arbiter.acknowledge(id, NoticeKey::Failing).await, id),
            "report" => assert!(is_set_aside(&arbiter, id).await),
            "block" => drop(world.chain.mine(vec![broken.remote_tx(0, &[])])),
            "deadline" => world.chain.mine_many(405),
            _ => arbiter.watch_channel(broken.facts.clone()).await.expect("these are sound"),
        }
        arbiter.idle().await.expect("running");
        if touch != "watch" {
            let told = drain(&mut notices).await;
            let quarantined = (id, Notice::Alert(Alert::Quarantined));
            assert!(told.contains(&quarantined), "{touch}: {told:?}");
            arbiter.watch_channel(broken.facts.clone()).await.expect("these are sound");
        }
        arbiter.idle().await.expect("running");
        let expected = match touch {
            "block" => CLOSED,
            "deadline" => Phase::Failing,
            _ => Phase::Open,
        };
        assert_eq!(phase(&arbiter, &broken).await, expected, "{touch}");
        assert_eq!(phase(&arbiter, &sound).await, Phase::Open, "{touch}");
        assert_eq!(world.log.stored_facts(0), Some(broken.facts.clone()), "{touch}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_entry_sets_its_channel_aside() {
    let world = World::default();
    let (broken, sound) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
    arbiter.shutdown().await;
    world.log.damage_entry(0);
    let arbiter = world.restart(&[&broken, &sound]).await;
    assert!(is_set_aside(&arbiter, broken.id()).await);
    assert_eq!(phase(&arbiter, &sound).await, Phase::Open);
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&broken, &sound]).await;
    assert_eq!(phase(&arbiter, &broken).await, Phase::Open);
}

#[tokio::test(start_paused = true)]
async fn evidence_that_went_stale_while_a_channel_was_set_aside_is_dropped() {
    let (world, broken) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    world.chain.mine(vec![broken.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.log.damage_facts(0);
    let arbiter = world.restart(&[&broken]).await;
    arbiter.idle().await.expect("running");
    world.chain.undo(1);
    world.chain.mine_many(2);
    arbiter.idle().await.expect("running");
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    assert_eq!(phase(&arbiter, &broken).await, Phase::Open);
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&broken]).await;
    assert_eq!(phase(&arbiter, &broken).await, Phase::Open);
}

#[tokio::test(start_paused = true)]
async fn a_channel_with_a_damaged_log_is_healed_for_good() {
    let (world, broken) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    world.chain.mine(vec![broken.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    world.log.damage_changes(0);
    let arbiter = world.restart(&[&broken]).await;
    assert!(is_set_aside(&arbiter, broken.id()).await);
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    assert_eq!(phase(&arbiter, &broken).await, CLOSED);
    arbiter.shutdown().await;
    // What it has learned since is not lost with what was damaged.
    let arbiter = world.restart(&[&broken]).await;
    assert!(!is_set_aside(&arbiter, broken.id()).await);
    assert_eq!(phase(&arbiter, &broken).await, CLOSED);
}

/// After a restart a log that took the place of a lost one counts its events from 0: what was acknowledged of the old ones hides none of the new ones,
/// and the records wait for those.
#[tokio::test(start_paused = true)]
async fn what_a_lost_log_had_told_hides_nothing_of_what_the_new_one_tells() {
    let (world, broken) = (World::default(), Channel::new(1, StaticRemotekey));
    let (id, close, told) = (broken.id(), broken.remote_tx(0, &[]), Delivery::Acknowledged);
    let arbiter = world.watching(&broken).await;
    let mut one = arbiter.subscribe(id, "a", told).await.expect("watched");
    let mut to_all = arbiter.subscribe_all("all", told).await.expect("a new name");
    world.chain.mine(vec![close.clone()]);
    arbiter.idle().await.expect("running");
    world.chain.undo(1);
    world.pass(&arbiter, 1).await;
    world.chain.mine(vec![close]);
    arbiter.idle().await.expect("running");
    assert_eq!(std::iter::from_fn(|| one.try_next()).count(), 3);
    assert_eq!(std::iter::from_fn(|| to_all.try_next()).count(), 3);
    one.acknowledge(2).await.expect("stored");
    to_all.acknowledge(id, 2).await.expect("stored");
    arbiter.shutdown().await;

    world.log.damage_changes(0);
    let arbiter = world.restart(&[&broken]).await;
    assert!(is_set_aside(&arbiter, id).await);
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    // Nor does another start know better.
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&broken]).await;
    world.pass(&arbiter, 120).await;
    assert!(world.log.stored_facts(0).is_some(), "nobody has acknowledged what it tells now");
    let mut one = arbiter.subscribe(id, "a", told).await.expect("watched");
    let mut to_all = arbiter.subscribe_all("all", told).await.expect("its name");
    arbiter.idle().await.expect("running");
    let of_one: Vec<_> =
        std::iter::from_fn(|| one.try_next()).map(|d| (d.number, d.event)).collect();
    let of_all: Vec<_> =
        std::iter::from_fn(|| to_all.try_next()).map(|d| (d.number, d.event)).collect();
    assert_eq!(of_one, of_all);
    assert!(of_one.iter().map(|(number, _)| *number).eq(0..of_one.len() as u64), "{of_one:?}");
    let last = *of_one.last().expect("events");
    assert_eq!(last.1, ChannelEvent::Resolved);
    one.acknowledge(last.0).await.expect("stored");
    world.pass(&arbiter, 1).await;
    assert!(world.log.stored_facts(0).is_some(), "for the other one");
    to_all.acknowledge(id, last.0).await.expect("stored");
    world.pass(&arbiter, 1).await;
    assert_eq!(world.log.stored_facts(0), None);
}

/// If it is not known which blocks the arbiter has seen, every channel is scanned from its birth: a close may have
/// been in one that it has not. If the newest one is not known, what was seen above is seen again.
#[tokio::test(start_paused = true)]
async fn a_cursor_that_cannot_be_read_hides_no_close() {
    for (lost, stale) in [(usize::MAX, false), (1, false), (1, true), (2, true)] {
        let world = World::default();
        let (before, meanwhile) =
            (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
        let arbiter = world.watching(&before).await;
        arbiter.watch_channel(meanwhile.facts.clone()).await.expect("sound facts");
        world.chain.mine_many(2);
        world.chain.mine(vec![before.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        arbiter.shutdown().await;
        if stale {
            world.chain.undo(1);
            world.chain.mine_many(1);
        }
        world.chain.mine(vec![meanwhile.remote_tx(0, &[])]);
        world.chain.mine_many(3);
        world.log.lose_blocks(lost);
        for _ in 0..2 {
            let arbiter = world.restart(&[&before, &meanwhile]).await;
            sleep(Duration::from_secs(600)).await;
            arbiter.idle().await.expect("running");
            let expected = if stale { Phase::Open } else { CLOSED };
            assert_eq!(phase(&arbiter, &before).await, expected, "{lost}, {stale}");
            assert_eq!(phase(&arbiter, &meanwhile).await, CLOSED, "{lost}, {stale}");
            arbiter.shutdown().await;
            world.log.heal();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn facts_that_are_damaged_while_running_set_one_channel_aside() {
    let world = World::default();
    let (broken, sound) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&broken).await;
    arbiter.watch_channel(sound.facts.clone()).await.expect("sound facts");
    let mut notices = arbiter.notices().await.expect("running");
    world.log.damage_facts(0);
    world.chain.mine(vec![broken.remote_tx(0, &[]), sound.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &sound).await, CLOSED);
    assert!(is_set_aside(&arbiter, broken.id()).await);
    assert_eq!(drain(&mut notices).await[0].0, broken.id());
    arbiter.watch_channel(broken.facts.clone()).await.expect("sound facts");
    assert_eq!(phase(&arbiter, &broken).await, CLOSED);
    let spent = |change: &&Change| matches!(change, Change::Spent(_));
    assert_eq!(world.log.stored_changes(0).iter().filter(spent).count(), 1);
}

// incident lnd-4697
// incident ldk-4544
// incident ldk-744
// incident cln-8668
// incident ldk-1528
#[tokio::test(start_paused = true)]
async fn blocks_and_starts_cost_quiet_channels_neither_a_read_nor_a_write() {
    let world = World::default();
    let channels: Vec<Channel> = (1..=40).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let counts = || {
        let log = &world.log;
        (
            world.chain.blocks_read(),
            world.chain.mempool_looks(),
            log.channel_reads(),
            log.channel_writes(),
        )
    };
    let (blocks, looks, reads, writes) = counts();
    world.pass(&arbiter, 50).await;
    let after = counts();
    assert_eq!(after.0 - blocks, 50, "each block is read once");
    assert_eq!(
        (after.2, after.3),
        (reads, writes),
        "of what lies quiet nothing is read or written"
    );
    assert!(after.1 - looks <= 2 * 50, "the mempool is asked for all of them at once");

    arbiter.shutdown().await;
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    arbiter.idle().await.expect("running");
    assert_eq!(
        (counts().0, counts().3),
        (after.0, writes),
        "a start reads no block, writes nothing"
    );

    // What is touched is read and written, alone.
    world.chain.mine(vec![channels[7].remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(counts().0, after.0 + 1);
    assert_eq!(counts().3, writes + 1);
    assert_eq!(phase(&arbiter, &channels[7]).await, CLOSED);
}

/// What punishes lies in the store, however much there is of it: a start reads none of it, and a breach what concerns
/// it.
// incident lnd-7121
// incident teos-190
#[tokio::test(start_paused = true)]
async fn penalty_data_is_read_when_it_is_needed() {
    let world = World::default();
    let mut channels: Vec<Channel> = (1..=40).map(|id| Channel::new(id, StaticRemotekey)).collect();
    for channel in &mut channels {
        for number in 0..10 {
            channel.next_remote(number + 1, &[]);
            channel.revoke(number);
        }
    }
    let all: Vec<&Channel> = channels.iter().collect();
    let arbiter = world.start().await;
    arbiter.idle().await.expect("running");
    for channel in &all {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    arbiter.shutdown().await;
    let before = world.log.record_reads();
    let arbiter = world.restart(&all).await;
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 3).await;
    assert_eq!(world.log.record_reads(), before, "a start and blocks read nothing of a channel");

    let breach = channels[7].remote_tx(4, &[]);
    let txid = breach.compute_txid();
    world.chain.mine(vec![breach]);
    arbiter.idle().await.expect("running");
    let punished = world.net.sent().into_iter().flatten();
    let punished = punished.filter(|tx| tx.input.iter().any(|i| i.previous_output.txid == txid));
    assert_eq!(punished.count(), 1);
    let reads = world.log.record_reads() - before;
    assert!((1..=3).contains(&reads), "facts, log and penalty data of one channel: {reads} reads");
}
