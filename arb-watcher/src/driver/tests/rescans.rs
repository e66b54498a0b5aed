//! Rescans: many channels in one, and none that waits for another's past.
use super::super::lanes::Lane;
use super::super::rescan::Watching;
use super::super::scan::{First, Scan};
use super::support::*;
use crate::{Arbiter, CommandError, Settings};
use arb_core::arbitrator::{BlockView, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Amount, OutPoint, Transaction};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const CLOSED: Phase = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));

async fn phase(arbiter: &Arbiter, channel: &Channel) -> Phase {
    arbiter.report(channel.id()).await.expect("running").expect("watched").phase
}

/// Three channels that have closed in one block. The first blocks are no part of the past of the second, and still more
/// of them none of the third's.
async fn three_closed(world: &World) -> (Arbiter, [Channel; 3]) {
    let mut channels = [1, 2, 3].map(|id| Channel::new(id, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(5);
    world.chain.mine(channels.each_ref().map(|channel| channel.remote_tx(0, &[])).to_vec());
    world.chain.mine_many(5);
    arbiter.idle().await.expect("running");
    channels[1].facts.birth.0 += 2;
    channels[2].facts.birth.0 += 4;
    (arbiter, channels)
}

/// Watches a channel in a task of its own.
fn watching(arbiter: &Arbiter, channel: &Channel) -> JoinHandle<Result<(), CommandError>> {
    let (arbiter, facts) = (arbiter.clone(), channel.facts.clone());
    tokio::spawn(async move { arbiter.watch_channel(facts).await })
}

/// A past that cannot be had is one channel's matter: those whose past is scanned with it, and can be had, are watched.
#[tokio::test(start_paused = true)]
async fn a_past_that_cannot_be_had_fails_nobody_elses() {
    for mood in ["pruned", "hangs", "moves"] {
        let world = World::default();
        let (arbiter, channels) = three_closed(&world).await;
        let lowest = world.chain.best()[1];
        match mood {
            "pruned" => drop(world.chain.prune(lowest)),
            "moves" => world.chain.before(lowest, |chain| {
                chain.undo(1);
                chain.mine_many(2);
            }),
            _ => {
                world.chain.slow(Duration::from_secs(70));
                world.chain.before(lowest, |_| {});
            }
        }
        let watch = |channel: &Channel| arbiter.watch_channel(channel.facts.clone());
        let [one, two, three] = &channels;
        let (first, second, third) = tokio::join!(watch(one), watch(two), watch(three));
        let is_refused = matches!(first, Err(CommandError::NotScanned(_)));
        assert_eq!(is_refused, mood == "pruned", "{mood}: {first:?}");
        assert_eq!((second, third), (Ok(()), Ok(())), "{mood}");
        for channel in channels.iter().skip(usize::from(is_refused)) {
            assert_eq!(phase(&arbiter, channel).await, CLOSED, "{mood}");
        }
    }
}

async fn others_are_watched(arbiter: &Arbiter, others: [&Channel; 2], seconds: u64) {
    for channel in others {
        let watched = arbiter.watch_channel(channel.facts.clone());
        let watched = timeout(Duration::from_secs(seconds), watched);
        assert_eq!(watched.await, Ok(Ok(())));
        assert_eq!(phase(arbiter, channel).await, CLOSED);
    }
}

/// Nor does anybody else wait for one that the source neither gives nor refuses.
#[tokio::test(start_paused = true)]
async fn a_block_that_hangs_holds_up_who_needs_it_alone() {
    let world = World::default();
    let (arbiter, [held, two, three]) = three_closed(&world).await;
    let broken = world.chain.best()[2];
    world.chain.breaks(broken, Mood::Hangs);
    let waits = watching(&arbiter, &held);
    // Its scan has begun.
    sleep(Duration::from_secs(1)).await;
    others_are_watched(&arbiter, [&two, &three], 10).await;
    // However often it is tried again.
    for id in 4..10 {
        sleep(Duration::from_secs(20)).await;
        let mut other = Channel::new(id, StaticRemotekey);
        other.facts.birth.0 += 4;
        let watched = arbiter.watch_channel(other.facts.clone());
        assert_eq!(timeout(Duration::from_secs(1), watched).await, Ok(Ok(())), "{id}");
    }
    assert!(!waits.is_finished());
    world.chain.mends(broken);
    let watched = timeout(Duration::from_secs(180), waits).await;
    assert_eq!(watched.expect("in time").expect("no panic"), Ok(()));
    assert_eq!(phase(&arbiter, &held).await, CLOSED);
}

/// A source that is slow for every block is read to the end all the same.
#[tokio::test(start_paused = true)]
async fn a_source_that_takes_long_for_each_block_is_read_to_the_end() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.chain.mine_many(9);
    arbiter.idle().await.expect("running");
    world.chain.answers_one_in(Duration::from_secs(8));
    let watched = arbiter.watch_channel(channel.facts.clone());
    // Two questions each, and what the first of them was given up after.
    let watched = timeout(Duration::from_secs(10 * 2 * 8 + 300), watched).await;
    assert_eq!(watched, Ok(Ok(())));
    assert_eq!(phase(&arbiter, &channel).await, CLOSED);
}

/// Nor does a short past wait for a long one there, and the long one goes on meanwhile.
#[tokio::test(start_paused = true)]
async fn a_source_that_takes_long_for_each_block_gives_a_short_past_before_the_end_of_a_long_one() {
    let world = World::default();
    let (old, mut new) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(300);
    world.chain.mine(vec![old.remote_tx(0, &[]), new.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.chain.answers_one_in(Duration::from_secs(8));
    let began = tokio::time::Instant::now();
    let old_waits = watching(&arbiter, &old);
    sleep(Duration::from_secs(600)).await;
    new.facts.birth.0 += 297;
    let watched = timeout(Duration::from_secs(300), arbiter.watch_channel(new.facts.clone())).await;
    assert_eq!(watched, Ok(Ok(())));
    assert_eq!(phase(&arbiter, &new).await, CLOSED);
    assert!(!old_waits.is_finished());
    // However many come.
    let many = (3..23).map(|id| {
        let mut other = Channel::new(id, StaticRemotekey);
        other.facts.birth.0 += 299 - u32::from(id) * 4;
        watching(&arbiter, &other)
    });
    for other in many.collect::<Vec<_>>() {
        assert_eq!(other.await.expect("no panic"), Ok(()));
    }
    assert_eq!(old_waits.await.expect("no panic"), Ok(()));
    assert_eq!(phase(&arbiter, &old).await, CLOSED);
    // Two questions each, and looks at the tip between them.
    let longest = Duration::from_secs(2 * 301 * 2 * 8 * 3 / 2);
    assert!(began.elapsed() < longest, "{:?}", began.elapsed());
}

/// A block that the source never gives holds up whoever must read it, and nobody else.
#[tokio::test(start_paused = true)]
async fn a_block_that_cannot_be_read_holds_up_who_needs_it_alone() {
    let world = World::default();
    let (arbiter, [held, two, three]) = three_closed(&world).await;
    let broken = world.chain.best()[2];
    world.chain.breaks(broken, Mood::Fails);
    let waits = watching(&arbiter, &held);
    others_are_watched(&arbiter, [&two, &three], 60).await;
    assert!(!waits.is_finished());
    world.chain.mends(broken);
    let watched = timeout(Duration::from_secs(120), waits).await;
    assert_eq!(watched.expect("in time").expect("no panic"), Ok(()));
    assert_eq!(phase(&arbiter, &held).await, CLOSED);
}

/// A channel that is younger than the chain is long now: what was found above is in no chain any more.
#[test]
fn what_was_found_in_blocks_that_are_gone_counts_for_nothing() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let mut watching = Watching::healed(&channel.facts, None);
    let birth = channel.facts.birth;
    let block = |height| BlockRef { height, hash: world.chain.tip_now().hash };
    let at = block(BlockHeight(birth.0 + 1));
    let transactions = vec![channel.remote_tx(0, &[])];
    watching.history.views.push(BlockView { at, transactions });
    watching.history.to = Some(at);
    watching.history.end(block(birth));
    assert_eq!(watching.history.to, Some(block(birth)));
    assert!(watching.history.views.is_empty());
}

/// A short past does not wait for a long one.
#[tokio::test(start_paused = true)]
async fn a_new_channel_does_not_wait_for_the_past_of_an_old_one() {
    let world = World::default();
    let (old, mut new) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.start().await;
    world.chain.mine_many(1_000);
    arbiter.idle().await.expect("running");
    world.chain.answers_one_in(Duration::from_secs(1));
    let watching = watching(&arbiter, &old);
    sleep(Duration::from_secs(60)).await;
    new.facts.birth = world.chain.best()[997].height;
    let watched = timeout(Duration::from_secs(60), arbiter.watch_channel(new.facts.clone())).await;
    assert_eq!(watched, Ok(Ok(())));
    assert!(!watching.is_finished());
    assert_eq!(watching.await.expect("no panic"), Ok(()));
}

/// What is done with the money once it has left the channel is nothing to look at, however far it goes.
#[tokio::test(start_paused = true)]
async fn a_rescan_follows_a_close_as_far_as_it_matters() {
    for in_one_block in [true, false] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let mut all = vec![channel.remote_tx(0, &[])];
        for value in 0..100 {
            let from = OutPoint { txid: all[all.len() - 1].compute_txid(), vout: 0 };
            let to = channel.facts.destination.clone();
            all.push(spend(from, Amount::from_sat(1_000 - value), to));
        }
        // The commitment, what spends it, and what spends that, which may be a second stage.
        let expected = all.iter().take(3).map(Transaction::compute_txid).collect::<Vec<_>>();
        if in_one_block {
            world.chain.mine(all);
        } else {
            for tx in all {
                world.chain.mine(vec![tx]);
            }
        }
        let scan = Scan::of(vec![Watching::healed(&channel.facts, None)], Lane::Short, First::Most);
        let tip = world.chain.tip_now();
        let (done, rest) = scan.run(&world.chain, tip, &Settings::default()).await;
        assert!(rest.is_empty());
        let [(scanned, Ok(()))] = &done[..] else { panic!("{done:?}") };
        let found = scanned.history.views.iter().flat_map(|view| &view.transactions);
        let found = found.map(Transaction::compute_txid).collect::<Vec<_>>();
        assert_eq!(found, expected, "{in_one_block}");
        assert_eq!(scanned.history.to, Some(tip));
    }
}
