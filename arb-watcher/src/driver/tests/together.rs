//! Commands that come one after the other share an append, and each has its own answer.
use super::support::*;
use crate::{Arbiter, CommandError, Delivery, Receipt};
use arb_core::arbitrator::{Change, NoticeKey, PreimageSource};
use arb_core::facts::Update;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use futures_util::future::join_all;

/// So many channels that are watched, with these ids.
async fn watched(world: &World, count: u8) -> (Arbiter, Vec<Channel>) {
    let channels: Vec<Channel> = (1..=count).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let arbiter = world.watching(&channels[0]).await;
    for channel in &channels[1..] {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    (arbiter, channels)
}

/// A received HTLC and its preimage.
fn learned(channel: &mut Channel, htlc: u64) -> Vec<Update> {
    let source = PreimageSource::Node;
    vec![channel.add(received(htlc)), Update::Preimage { preimage: preimage(htlc), source }]
}

fn knows(world: &World, slot: u32, htlc: u64) -> bool {
    let (preimage, source) = (preimage(htlc), PreimageSource::Node);
    world.log.stored_changes(slot).contains(&Change::PreimageLearned { preimage, source })
}

#[tokio::test(start_paused = true)]
async fn updates_that_bring_preimages_share_appends() {
    let world = World::default();
    let (arbiter, mut channels) = watched(&world, 40).await;
    // The second time they are active, and the third time nothing is learned.
    for htlc in 0..3 {
        let before = world.log.appends();
        let updates = channels.iter_mut().map(|channel| {
            let updates = match htlc {
                2 => vec![channel.add(received(2))],
                htlc => learned(channel, htlc),
            };
            (channel.id(), updates, Receipt::of(&channel.facts))
        });
        let updates: Vec<_> = updates.collect();
        let tell = |(id, updates, receipt)| {
            let arbiter = &arbiter;
            async move { assert_eq!(arbiter.update_channel(id, updates).await, Ok(receipt)) }
        };
        join_all(updates.into_iter().map(tell)).await;
        let appends = world.log.appends() - before;
        assert!(appends <= 20, "{appends} appends for 40 updates");
        for (slot, channel) in (0..).zip(&channels) {
            assert_eq!(world.log.stored_facts(slot).as_ref(), Some(&channel.facts));
            assert!(htlc == 2 || knows(&world, slot, htlc));
        }
    }
}

/// The second rests on the first, and both on what is durable.
#[tokio::test(start_paused = true)]
async fn updates_of_one_channel_are_taken_in_their_order() {
    let world = World::default();
    let (arbiter, mut channels) = watched(&world, 1).await;
    let channel = &mut channels[0];
    let id = channel.id();
    let all: Vec<_> = (0..5).map(|htlc| learned(channel, htlc)).collect();
    let answers = join_all(all.into_iter().map(|updates| arbiter.update_channel(id, updates)));
    assert!(answers.await.iter().all(Result::is_ok));
    assert_eq!(world.log.stored_facts(0).as_ref(), Some(&channel.facts));
    let told = arbiter.preimage(id, preimage(7), PreimageSource::Node);
    let added = channel.add(received(7));
    let (added, told) = tokio::join!(arbiter.update_channel(id, vec![added]), told);
    assert_eq!((added.is_ok(), told), (true, Ok(())), "it is for the HTLC that came before");
    assert!(knows(&world, 0, 7));
}

/// Whoever is refused takes nobody along, and the others still share an append: here facts turn out to be damaged.
#[tokio::test(start_paused = true)]
async fn what_some_are_refused_for_touches_no_other() {
    let world = World::default();
    let (arbiter, channels) = watched(&world, 60).await;
    arbiter.shutdown().await;
    let arbiter = world.restart(&channels.iter().collect::<Vec<_>>()).await;
    arbiter.idle().await.expect("running");
    let is_damaged = |slot: u32| slot % 4 == 1;
    (0..60).filter(|slot| is_damaged(*slot)).for_each(|slot| world.log.damage_facts(slot));
    let (appends, reads) = (world.log.appends(), world.log.record_reads());
    let acknowledge = |channel: &Channel| arbiter.acknowledge(channel.id(), NoticeKey::Failing);
    let answers = join_all(channels.iter().map(acknowledge)).await;
    let appends = world.log.appends() - appends;
    assert!(appends <= 20, "{appends} appends for 45 acknowledgements");
    let reads = world.log.record_reads() - reads;
    assert!(reads <= 240, "facts are read {reads} times");
    let acknowledged = Change::NoticeAcknowledged(NoticeKey::Failing);
    for (slot, answer) in (0..).zip(answers) {
        if is_damaged(slot) {
            assert!(matches!(answer, Err(CommandError::SetAside { .. })), "{slot}: {answer:?}");
        } else {
            assert_eq!(answer, Ok(()), "{slot}");
            assert!(world.log.stored_changes(slot).contains(&acknowledged), "{slot}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_refuses_all_of_them() {
    let world = World::default();
    let (arbiter, mut channels) = watched(&world, 3).await;
    world.log.refuse(true);
    let before: Vec<_> = channels.iter().map(|channel| channel.facts.clone()).collect();
    let updates: Vec<_> = channels.iter_mut().map(|one| (one.id(), learned(one, 0))).collect();
    let tell = || updates.clone().into_iter().map(|(id, all)| arbiter.update_channel(id, all));
    for answer in join_all(tell()).await {
        assert!(matches!(answer, Err(CommandError::NotStored(_))), "{answer:?}");
    }
    assert_eq!(world.log.refused(), 1, "they were asked for together");
    for (slot, facts) in (0..).zip(before) {
        assert_eq!(world.log.stored_facts(slot), Some(facts));
        assert!(!knows(&world, slot, 0));
    }
    world.log.refuse(false);
    assert!(join_all(tell()).await.iter().all(Result::is_ok));
    assert!((0..3).all(|slot| knows(&world, slot, 0)));
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_share_appends() {
    let world = World::default();
    let (arbiter, channels) = watched(&world, 20).await;
    let events = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("stored");
    world.chain.mine(channels.iter().map(|channel| channel.remote_tx(0, &[])).collect());
    arbiter.idle().await.expect("running");
    let before = world.log.appends();
    let acknowledge = |channel: &Channel| events.acknowledge(channel.id(), 0);
    let all = channels.iter().map(acknowledge);
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let acknowledge = |channel: &Channel| arbiter.acknowledge(channel.id(), NoticeKey::Failing);
    let all = channels.iter().map(acknowledge);
    assert!(join_all(all).await.iter().all(Result::is_ok));
    let appends = world.log.appends() - before;
    assert!(appends <= 20, "{appends} appends for 40 acknowledgements");
}

/// What was acknowledged later is not taken back by who is told of it at the same time.
#[tokio::test(start_paused = true)]
async fn a_subscriber_may_acknowledge_several_events_at_once() {
    let world = World::default();
    let (arbiter, channels) = watched(&world, 3).await;
    let events = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("stored");
    let ones =
        join_all(channels.iter().map(|c| arbiter.subscribe(c.id(), "one", Delivery::Detached)));
    let ones: Vec<_> = ones.await.into_iter().map(|one| one.expect("watched")).collect();
    let closes = || channels.iter().map(|channel| channel.remote_tx(0, &[])).collect();
    // Closed, reorganised out, and closed again.
    world.chain.mine(closes());
    arbiter.idle().await.expect("running");
    world.chain.undo(1);
    world.pass(&arbiter, 1).await;
    world.chain.mine(closes());
    arbiter.idle().await.expect("running");
    let before = world.log.appends();
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
    for ((channel, one), order) in channels.iter().zip(&ones).zip(orders) {
        let acknowledge = |number| events.acknowledge(channel.id(), number);
        let answers = join_all(order.map(acknowledge)).await;
        assert_eq!(answers, [Ok(()), Ok(()), Ok(())]);
        let answers = join_all(order[1..].iter().map(|number| one.acknowledge(*number))).await;
        assert_eq!(answers, [Ok(()), Ok(())]);
    }
    let appends = world.log.appends() - before;
    assert!(appends <= 9, "{appends} appends for 15 acknowledgements");
    let numbers: Vec<_> = channels.iter().map(stated).collect();
    arbiter.shutdown().await;
    let arbiter = world.start_with(crate::Settings::default(), numbers).await;
    let mut events = arbiter.subscribe_all("all", Delivery::Acknowledged).await.expect("stored");
    for (channel, left) in channels.iter().zip([vec![], vec![2], vec![]]) {
        let one = arbiter.subscribe(channel.id(), "one", Delivery::Detached).await;
        let mut one = one.expect("watched");
        arbiter.idle().await.expect("running");
        let again = std::iter::from_fn(|| one.try_next()).map(|delivered| delivered.number);
        assert_eq!(again.collect::<Vec<_>>(), left);
    }
    assert!(events.try_next().is_none(), "no event comes again");
}
