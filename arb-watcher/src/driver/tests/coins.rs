//! Wallet coins of claims: reserved as long as they may be spent, and no longer.
use super::support::*;
use crate::Arbiter;
use arb_core::format::CommitmentFormat::Anchors;
use bitcoin::{Transaction, Txid};
use std::time::Duration;
use tokio::time::{sleep, timeout};

fn txid(channel: &Channel) -> Txid {
    channel.local_tx().compute_txid()
}

/// Fails a channel with an anchor whose commitment the network's feerates leave behind.
async fn with_coins(world: &World) -> (Arbiter, Channel) {
    let channel = Channel::new(1, Anchors);
    world.fees.are(2000);
    let arbiter = world.watching(&channel).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    (arbiter, channel)
}

#[tokio::test(start_paused = true)]
async fn what_vanishes_of_a_package_brings_back_all_of_it_at_once() {
    let world = World::default();
    let (arbiter, _) = with_coins(&world).await;
    let package = world.net.sent().pop().expect("a package");
    assert_eq!(package.len(), 2);
    for lost in [0, 1] {
        for tx in &package {
            world.chain.enter_mempool(tx.clone());
        }
        sleep(Duration::from_secs(1)).await;
        arbiter.idle().await.expect("running");
        assert_eq!(world.net.sent(), Vec::<Vec<Transaction>>::new(), "it is there");
        // The child, or both.
        for tx in &package[lost..] {
            world.chain.leave_mempool(tx.compute_txid());
        }
        sleep(Duration::from_secs(1)).await;
        arbiter.idle().await.expect("running");
        assert_eq!(world.net.sent(), std::slice::from_ref(&package), "without a block");
        world.chain.leave_mempool(package[0].compute_txid());
        sleep(Duration::from_secs(1)).await;
        arbiter.idle().await.expect("running");
        world.net.sent();
    }
}

/// A child whose coins went back to the wallet is ours again: something else would spend them.
#[tokio::test(start_paused = true)]
async fn coins_of_what_a_reorganisation_brings_back_are_reserved_again() {
    for mood in [Mood::Well, Mood::Fails, Mood::Panics] {
        let world = World::default();
        let (arbiter, channel) = with_coins(&world).await;
        let claims = world.wallet.reserved();
        assert_eq!(claims.len(), 1);
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        assert_eq!(world.wallet.reserved(), [], "the peer's commitment needs no child");
        world.net.sent();
        world.wallet.is(mood);
        world.chain.undo(1);
        world.pass(&arbiter, 2).await;
        world.wallet.is(Mood::Well);
        world.pass(&arbiter, 1).await;
        assert_eq!(world.wallet.reserved(), claims, "{mood:?}");
        let package = world.net.sent().into_iter().flatten().map(|tx| tx.compute_txid());
        assert!(package.collect::<Vec<_>>().contains(&txid(&channel)), "{mood:?}");
        // And they go back when it is over.
        world.chain.mine(vec![channel.remote_tx(0, &[])]);
        arbiter.idle().await.expect("running");
        assert_eq!(world.wallet.reserved(), [], "{mood:?}");
    }
}

/// What the wallet reserves after it was no longer wanted does not stay so.
#[tokio::test(start_paused = true)]
async fn coins_that_a_slow_wallet_selects_too_late_are_released() {
    let (world, channel) = (World::default(), Channel::new(1, Anchors));
    world.fees.are(2000);
    let arbiter = world.watching(&channel).await;
    world.wallet.is(Mood::Slow);
    fail(&arbiter, channel.id()).await;
    sleep(Duration::from_millis(500)).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 1).await;
    assert_eq!(world.wallet.reserved(), []);
}

#[tokio::test(start_paused = true)]
async fn coins_are_reserved_across_a_restart_and_released_when_they_are_not_needed() {
    let world = World::default();
    let (arbiter, channel) = with_coins(&world).await;
    let sent = world.net.sent();
    let [commitment, child] = &sent.last().expect("a package")[..] else {
        panic!("a commitment and its child")
    };
    assert_eq!(commitment.compute_txid(), txid(&channel));
    assert_eq!(child.input.len(), 2);
    let claims = world.wallet.reserved();
    assert_eq!(claims.len(), 1);

    arbiter.shutdown().await;
    world.wallet.forget();
    world.wallet.is(Mood::Fails);
    let arbiter = world.restart(&[&channel]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(world.wallet.reserved(), []);
    world.wallet.is(Mood::Well);
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), claims);

    // The peer's commitment confirms instead; the wallet does not listen at first.
    world.wallet.is(Mood::Fails);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), claims);
    world.wallet.is(Mood::Well);
    world.pass(&arbiter, 1).await;
    assert_eq!(world.wallet.reserved(), []);
}

#[tokio::test(start_paused = true)]
async fn coins_that_are_reserved_late_for_what_has_ended_are_released() {
    let world = World::default();
    let (arbiter, channel) = with_coins(&world).await;
    assert_eq!(world.wallet.reserved().len(), 1);
    arbiter.shutdown().await;
    world.wallet.forget();
    world.wallet.is(Mood::Fails);
    let arbiter = world.restart(&[&channel]).await;
    sleep(Duration::from_millis(10_250)).await;
    // The wallet works again, and before it is asked again the peer's commitment confirms.
    world.wallet.is(Mood::Well);
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    sleep(Duration::from_secs(60)).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), []);
}

#[tokio::test(start_paused = true)]
async fn coins_that_a_block_spends_are_not_offered_again_before_the_wallet_knows() {
    let world = World::default();
    let (arbiter, channel) = with_coins(&world).await;
    let sent = world.net.sent();
    let package = sent.last().expect("a package").clone();
    let claims = world.wallet.reserved();
    assert_eq!(claims.len(), 1);

    // The wallet may hear of the block later than we do, and a restart changes nothing about that.
    world.chain.mine(package);
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), claims);
    arbiter.shutdown().await;
    world.wallet.forget();
    let arbiter = world.restart(&[&channel]).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), claims);

    world.pass(&arbiter, 6).await;
    assert_eq!(world.wallet.reserved(), []);
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_hangs_does_not_hold_a_start_up() {
    let world = World::default();
    let (arbiter, channel) = with_coins(&world).await;
    arbiter.shutdown().await;
    world.net.sent();
    world.wallet.is(Mood::Hangs);
    let started = timeout(Duration::from_secs(1), world.restart(&[&channel])).await;
    let arbiter = started.expect("at once");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.net.sent().len(), 1);
    arbiter.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn coins_of_a_claim_that_was_never_signed_are_released() {
    let world = World::default();
    let channel = Channel::new(1, Anchors);
    world.fees.are(2000);
    let arbiter = world.watching(&channel).await;
    fail(&arbiter, channel.id()).await;
    // The commitment is signed, its anchor is not.
    while world.net.txids().is_empty() {
        tokio::task::yield_now().await;
    }
    world.signer.is(channel.id(), Mood::Fails);
    arbiter.idle().await.expect("running");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(world.wallet.reserved(), []);
}
