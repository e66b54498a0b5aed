//! A preimage is kept for an incoming channel that is set aside.
use super::support::*;
use crate::Arbiter;
use arb_core::arbitrator::{Change, PreimageSource};
use arb_core::facts::Update;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::HtlcRef;
use std::time::Duration;
use tokio::time::sleep;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Both commitments have a new number and these HTLCs from now on.
async fn commit(arbiter: &Arbiter, channel: &mut Channel, at: u64, forwards: bool) {
    let htlcs: &[_] = if forwards { &[offered(0)] } else { &[] };
    let updates = [channel.next_remote(at, htlcs), channel.next_local(at, htlcs)];
    let updates = [updates.to_vec(), vec![channel.revoke(at - 1)]].concat();
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
}

/// An incoming channel, in slot 0 and damaged, and one that forwards its HTLC and knows the preimage.
async fn forwarded(world: &World) -> (Arbiter, Channel, Channel) {
    let mut incoming = Channel::new(1, StaticRemotekey);
    incoming.add(received(0));
    incoming.next_local(1, &[received(0)]);
    incoming.next_remote(1, &[received(0)]);
    incoming.revoke(0);
    let mut outgoing = Channel::new(2, StaticRemotekey);
    let arbiter = world.watching(&incoming).await;
    arbiter.watch_channel(outgoing.facts.clone()).await.expect("sound facts");
    let htlc = HtlcRef { channel: incoming.id(), htlc: received(0) };
    let added = outgoing.forward(offered(0), htlc);
    arbiter.update_channel(outgoing.id(), vec![added]).await.expect("stored");
    commit(&arbiter, &mut outgoing, 1, true).await;
    arbiter.shutdown().await;
    world.log.damage_entry(0);
    let arbiter = world.restart(&[&incoming, &outgoing]).await;
    arbiter.idle().await.expect("running");
    assert!(is_set_aside(&arbiter, incoming.id()).await);
    let source = PreimageSource::Downstream(offered(0));
    let told = vec![Update::Preimage { preimage: preimage(0), source }];
    arbiter.update_channel(outgoing.id(), told).await.expect("stored");
    (arbiter, incoming, outgoing)
}

fn linked(world: &World) -> bool {
    let source = PreimageSource::Linked(received(0));
    world.log.stored_changes(0).contains(&Change::PreimageLearned { preimage: preimage(0), source })
}

#[tokio::test(start_paused = true)]
async fn a_preimage_waits_for_an_incoming_channel_that_is_set_aside() {
    let world = World::default();
    let (arbiter, incoming, mut outgoing) = forwarded(&world).await;
    // The outgoing HTLC leaves, and would be forgotten, in this run or after a kill.
    commit(&arbiter, &mut outgoing, 2, false).await;
    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&incoming, &outgoing]).await;
    commit(&arbiter, &mut outgoing, 3, false).await;
    world.log.heal();
    sleep(HOUR).await;
    assert!(!is_set_aside(&arbiter, incoming.id()).await);
    assert!(linked(&world), "without a block");
    commit(&arbiter, &mut outgoing, 4, false).await;
    assert_eq!(world.log.stored_changes(1), [], "nobody needs it any more");
}

/// The records of a channel that is resolved go once its preimages are handed over.
#[tokio::test(start_paused = true)]
async fn a_resolved_channel_waits_for_an_incoming_one_that_is_set_aside() {
    let world = World::default();
    let (arbiter, _, mut outgoing) = forwarded(&world).await;
    commit(&arbiter, &mut outgoing, 2, false).await;
    world.chain.mine(vec![outgoing.mutual_tx()]);
    world.pass(&arbiter, 120).await;
    assert!(arbiter.report(outgoing.id()).await.expect("running").is_some(), "it is there");
    world.log.heal();
    sleep(HOUR).await;
    assert!(linked(&world));
    world.pass(&arbiter, 2).await;
    assert_eq!(arbiter.report(outgoing.id()).await, Ok(None));
}
