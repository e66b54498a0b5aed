//! Notices: repeated with every block until acknowledged, and again after a restart.
use super::support::*;
use crate::Arbiter;
use arb_core::arbitrator::{Alert, FailReason, Notice, NoticeKey, Phase, PreimageSource};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::ChannelId;

const FAILING: Notice = Notice::Failing(FailReason::Requested);

async fn failing(world: &World) -> (Arbiter, ChannelId) {
    let channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    (arbiter, channel.id())
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_repeated_with_every_block_until_it_is_acknowledged() {
    let world = World::default();
    let (arbiter, id) = failing(&world).await;
    let mut notices = arbiter.notices().await.expect("running");
    assert_eq!(drain(&mut notices).await, [(id, FAILING)], "outstanding ones come first");
    arbiter.idle().await.expect("running");
    assert_eq!(drain(&mut notices).await, [], "once a block");
    for _ in 0..3 {
        world.pass(&arbiter, 1).await;
        assert_eq!(drain(&mut notices).await, [(id, FAILING)]);
    }
    let channel = Channel::new(1, StaticRemotekey);
    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.idle().await.expect("running");
    assert_eq!(drain(&mut notices).await, [(id, FAILING)], "again after a restart");

    arbiter.acknowledge(id, NoticeKey::Failing).await.expect("watched");
    world.pass(&arbiter, 2).await;
    assert_eq!(drain(&mut notices).await, []);
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_notice_is_not_repeated_with_every_block_of_a_catch_up() {
    let world = World::default();
    let (arbiter, id) = failing(&world).await;
    arbiter.kill();
    arbiter.shutdown().await;
    for _ in 0..50 {
        world.chain.mine(Vec::new());
    }
    let arbiter = world.restart(&[&Channel::new(1, StaticRemotekey)]).await;
    let mut notices = arbiter.notices().await.expect("running");
    arbiter.idle().await.expect("running");
    let told = drain(&mut notices).await;
    assert!((1..=3).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|notice| *notice == (id, FAILING)));
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_is_not_stored_does_not_count() {
    let world = World::default();
    let (arbiter, id) = failing(&world).await;
    let mut notices = arbiter.notices().await.expect("running");
    drain(&mut notices).await;
    world.log.refuse(true);
    arbiter.acknowledge(id, NoticeKey::Failing).await.expect_err("no room");
    world.log.refuse(false);
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, [(id, FAILING)]);
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_slow_or_dropped_hold_nothing_up() {
    let world = World::default();
    let (arbiter, id) = failing(&world).await;
    let mut slow = arbiter.notices().await.expect("running");
    drop(arbiter.notices().await.expect("running"));
    // More than a stream holds.
    world.pass(&arbiter, 1100).await;
    let mut fresh = arbiter.notices().await.expect("running");
    assert_eq!(drain(&mut fresh).await, [(id, FAILING)]);
    let lag = slow.lag();
    let waiting = drain(&mut slow).await.len();
    assert!((1000..1100).contains(&waiting), "{waiting}");
    assert_eq!(lag, 1, "it is told what there was no room for");
    arbiter.idle().await.expect("running");
    assert_eq!(drain(&mut slow).await, [(id, FAILING)], "it catches up");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut slow).await, [(id, FAILING)]);
    assert_eq!(slow.lag(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_quarantine_is_told_until_it_is_over() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.watching(&channel).await.shutdown().await;
    world.log.damage_entry(0);
    let quarantined = [(channel.id(), Notice::Alert(Alert::Quarantined))];
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    let mut notices = arbiter.notices().await.expect("running");
    assert_eq!(drain(&mut notices).await, quarantined);
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, quarantined);
    arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    world.pass(&arbiter, 1).await;
    assert_eq!(drain(&mut notices).await, []);
    let mut fresh = arbiter.notices().await.expect("running");
    assert_eq!(drain(&mut fresh).await, []);
}

/// What the node has not heard of a channel it would never hear: the channel is kept until it has.
#[tokio::test(start_paused = true)]
async fn a_resolved_channel_is_kept_until_the_node_has_heard_of_it() {
    let world = World::default();
    let (arbiter, id) = failing(&world).await;
    let channel = Channel::new(1, StaticRemotekey);
    // The peer was quicker, and what its commitment pays us is at home.
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    world.pass(&arbiter, 200).await;
    let report = arbiter.report(id).await.expect("running").expect("it is kept");
    assert!(matches!(report.phase, Phase::Resolved(_)), "{:?}", report.phase);
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let mut notices = arbiter.notices().await.expect("running");
    world.pass(&arbiter, 1).await;
    assert!(drain(&mut notices).await.contains(&(id, FAILING)), "and told");
    arbiter.acknowledge(id, NoticeKey::Failing).await.expect("watched");
    world.pass(&arbiter, 1).await;
    assert_eq!(arbiter.report(id).await, Ok(None), "now it is forgotten");
    assert_eq!(world.log.stored_facts(0), None);
}

/// Settled off-chain: whoever listens from then on is not told of it any more.
#[tokio::test(start_paused = true)]
async fn what_was_told_of_an_htlc_that_has_left_is_withdrawn() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let (id, htlc) = (channel.id(), offered(0));
    let updates = vec![
        channel.add(htlc),
        channel.next_local(1, &[htlc]),
        channel.next_remote(1, &[htlc]),
        channel.revoke(0),
    ];
    arbiter.update_channel(id, updates).await.expect("stored");
    let told = arbiter.preimage(id, preimage(0), PreimageSource::Downstream(htlc));
    told.await.expect("stored");
    let mut notices = arbiter.notices().await.expect("running");
    let told = drain(&mut notices).await;
    assert!(matches!(told[..], [(of, Notice::Upstream { .. })] if of == id), "{told:?}");
    let updates = vec![channel.next_local(2, &[]), channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(id, updates).await.expect("stored");
    assert_eq!(world.log.stored_changes(0), []);
    let mut later = arbiter.notices().await.expect("running");
    world.pass(&arbiter, 2).await;
    assert_eq!([drain(&mut later).await, drain(&mut notices).await], [vec![], vec![]]);
    // An acknowledgement that comes late changes nothing.
    arbiter.acknowledge(id, told[0].1.key()).await.expect("watched");
    assert_eq!(world.log.stored_changes(0), []);
}
