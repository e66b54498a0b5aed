//! Signing and publishing: failures hold up their own claim only, and are tried again.
use super::support::channel::{spend, terms};
use super::support::*;
use crate::{Arbiter, BumpGoal, BumpTarget, Settings};
use arb_core::arbitrator::{Alert, Change, PreimageSource};
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::policy::{Joining, Policy};
use arb_core::ports::Verdict;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, Txid};
use std::time::Duration;
use tokio::time::{Instant, sleep};

fn txid(channel: &Channel) -> Txid {
    channel.local_tx().compute_txid()
}

/// An arbiter that watches these channels.
async fn watching(world: &World, settings: Settings, channels: &[&Channel]) -> Arbiter {
    let arbiter = world.start_with(settings, vec![]).await;
    for channel in channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    arbiter.idle().await.expect("running");
    arbiter
}

/// A channel whose peer has revoked its commitment 0, with that commitment in a block.
async fn punishing(world: &World) -> (Arbiter, Channel) {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    (arbiter, channel)
}

// incident lnd-7390
#[tokio::test(start_paused = true)]
async fn a_signer_in_trouble_holds_up_its_own_claim_only() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let world = World::default();
        let (ill, well) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
        let arbiter = watching(&world, Settings::default(), &[&ill, &well]).await;
        world.signer.is(ill.id(), mood);
        let since = Instant::now();
        fail(&arbiter, ill.id()).await;
        fail(&arbiter, well.id()).await;
        while !world.net.txids().contains(&txid(&well)) {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(since.elapsed() < Duration::from_secs(1), "{mood:?}");
        arbiter.idle().await.expect("running");
        world.signer.is(ill.id(), Mood::Well);
        arbiter.idle().await.expect("running");
        assert_eq!(world.net.txids(), [], "not before a pause, or the next block");
        sleep(Duration::from_secs(6)).await;
        arbiter.idle().await.expect("running");
        let sent = world.net.txids();
        assert!(sent.contains(&txid(&ill)), "{mood:?}");
    }
}

/// Two revoked commitments in one block, whose penalties may share a transaction; the signer of one
/// channel is in trouble.
async fn joined_with_one_in_trouble(mood: Mood) -> (World, Arbiter, [Channel; 2], Txid) {
    let policy = Policy { joining: Joining::Allowed, ..Policy::default() };
    let settings = Settings { policy, ..Settings::default() };
    let world = World::default();
    let mut channels = [1, 2].map(|n| Channel::new(n, StaticRemotekey));
    for channel in &mut channels {
        channel.next_remote(1, &[]);
        channel.revoke(0);
    }
    let arbiter = watching(&world, settings, &[&channels[0], &channels[1]]).await;
    let breaches = [0, 1].map(|at: usize| channels[at].remote_tx(0, &[]));
    let well = breaches[1].compute_txid();
    world.signer.is(channels[0].id(), mood);
    world.chain.mine(breaches.to_vec());
    (world, arbiter, channels, well)
}

/// Inputs of each transaction that was sent and spends an output of this one.
fn spends_of(world: &World, txid: Txid) -> Vec<usize> {
    let ours = |input: &bitcoin::TxIn| input.previous_output.txid == txid;
    let sent = world.net.sent().into_iter().flatten();
    sent.filter(|tx| tx.input.iter().any(ours)).map(|tx| tx.input.len()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_signer_in_trouble_holds_up_no_claim_of_others_that_it_is_joined_with() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let (world, arbiter, channels, well) = joined_with_one_in_trouble(mood).await;
        arbiter.idle().await.expect("running");
        let alone = spends_of(&world, well);
        assert!(
            !alone.is_empty() && alone.iter().all(|inputs| *inputs <= 2),
            "{mood:?}: {alone:?}"
        );
        // It is told of the channel whose it is.
        world.pass(&arbiter, 3).await;
        for (channel, told) in [(&channels[0], true), (&channels[1], false)] {
            let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
            assert_eq!(report.alerts.contains(&Alert::SignerFailing), told, "{mood:?}");
        }
        world.signer.is(channels[0].id(), Mood::Well);
        let ill = channels[0].remote_tx(0, &[]).compute_txid();
        world.pass(&arbiter, 1).await;
        assert!(!spends_of(&world, ill).is_empty(), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_joined_transaction_is_replaced_without_whom_the_signer_fails_for() {
    let (world, arbiter, channels, well) = joined_with_one_in_trouble(Mood::Well).await;
    arbiter.idle().await.expect("running");
    let together = spends_of(&world, well);
    assert_eq!(together.len(), 1, "one for both");
    world.signer.is(channels[0].id(), Mood::Fails);
    world.fees.are(5_000);
    world.pass(&arbiter, 1).await;
    let replaced = spends_of(&world, well);
    assert!(replaced.iter().any(|inputs| *inputs < together[0]), "{together:?}, then {replaced:?}");
}

// A signer that fails for everybody parts nobody, unless it lasts.
#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_for_everybody_parts_them_only_if_it_lasts() {
    for (blocks, transactions) in [(1, 1), (5, 2)] {
        let (world, arbiter, channels, _) = joined_with_one_in_trouble(Mood::Fails).await;
        world.signer.is(channels[1].id(), Mood::Fails);
        arbiter.idle().await.expect("running");
        world.pass(&arbiter, blocks).await;
        assert_eq!(world.net.sent().len(), 0);
        for channel in &channels {
            world.signer.is(channel.id(), Mood::Well);
        }
        world.pass(&arbiter, 1).await;
        assert_eq!(world.net.sent().len(), transactions, "after {blocks} blocks");
    }
}

// Whichever of them comes first in the transaction.
#[tokio::test(start_paused = true)]
async fn a_signer_that_fails_for_everybody_is_alerted_of_each_in_the_same_block() {
    let (world, arbiter, channels, _) = joined_with_one_in_trouble(Mood::Fails).await;
    world.signer.is(channels[1].id(), Mood::Fails);
    arbiter.idle().await.expect("running");
    for (block, failing) in [(1, false), (2, false), (3, true), (4, true)] {
        for channel in &channels {
            let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
            assert_eq!(report.alerts.contains(&Alert::SignerFailing), failing, "block {block}");
        }
        world.pass(&arbiter, 1).await;
    }
    for channel in &channels {
        world.signer.is(channel.id(), Mood::Well);
    }
    world.pass(&arbiter, 1).await;
    for channel in &channels {
        let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
        assert!(!report.alerts.contains(&Alert::SignerFailing));
    }
}

#[tokio::test(start_paused = true)]
async fn a_broadcaster_in_trouble_is_asked_again_at_the_next_block() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let arbiter = world.watching(&channel).await;
        world.net.is(mood);
        fail(&arbiter, channel.id()).await;
        arbiter.idle().await.expect("running");
        assert_eq!(world.net.txids(), [txid(&channel)], "{mood:?}");
        world.net.is(Mood::Well);
        arbiter.idle().await.expect("running");
        assert_eq!(world.net.txids(), []);
        world.pass(&arbiter, 1).await;
        assert_eq!(world.net.txids(), [txid(&channel)], "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_tasks_than_workers_are_all_done() {
    let world = World::default();
    let channels: Vec<_> = (1..=20).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let settings = Settings { workers: 1, ..Settings::default() };
    let arbiter = watching(&world, settings, &channels.iter().collect::<Vec<_>>()).await;
    // One that hangs holds the only worker up for as long as the patience lasts.
    world.signer.is(channels[0].id(), Mood::Hangs);
    for channel in &channels {
        fail(&arbiter, channel.id()).await;
    }
    let since = Instant::now();
    arbiter.idle().await.expect("running");
    let sent = world.net.txids();
    assert!(channels[1..].iter().all(|channel| sent.contains(&txid(channel))));
    assert!(since.elapsed() <= settings.patience + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_fee_that_is_too_low_leads_to_a_replacement_at_the_next_block() {
    let world = World::default();
    world.net.answer(Verdict::FeeTooLow("insufficient fee".to_owned()));
    let (arbiter, _) = punishing(&world).await;
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    assert_eq!(sent.len(), 1, "nothing is gained by trying again at the same tip");
    let first = &sent[0][0];
    world.pass(&arbiter, 1).await;
    let sent = world.net.sent();
    let second = &sent.last().expect("a replacement")[0];
    assert_eq!(first.input[0].previous_output, second.input[0].previous_output);
    assert!(second.output[0].value < first.output[0].value, "it pays more");
    assert_ne!(first.compute_txid(), second.compute_txid());
    // Accepted: published again with every block, as it is.
    world.pass(&arbiter, 1).await;
    assert_eq!(world.net.txids(), [second.compute_txid()]);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_is_tried_at_once_when_it_changes() {
    let world = World::default();
    let (arbiter, channel) = punishing(&world).await;
    arbiter.idle().await.expect("running");
    let first = world.net.txids();
    let high = FeeRate::from_sat_per_kwu(5000);
    let target = BumpTarget::Channel(channel.id());
    arbiter.bump(target, BumpGoal::FeeRate(high)).await.expect("watched");
    arbiter.idle().await.expect("running");
    let second = world.net.txids();
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_ne!(first, second);
}

#[tokio::test(start_paused = true)]
async fn another_block_at_the_same_height_is_another_chance() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.pass(&arbiter, 1).await;
    fail(&arbiter, channel.id()).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [txid(&channel)]);
    world.chain.undo(1);
    world.pass(&arbiter, 1).await;
    assert_eq!(world.net.txids(), [txid(&channel)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_it_is_in_the_log() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let gates = [world.log.hold(), world.log.hold()];
    let failing = tokio::spawn({
        let (arbiter, id) = (arbiter.clone(), channel.id());
        async move { arbiter.fail_channel(id).await }
    });
    let handed_out = |change: &Change| matches!(change, Change::HandedOut(_));
    for gate in gates {
        sleep(Duration::from_secs(1)).await;
        assert!(!world.log.stored_changes(0).iter().any(handed_out));
        assert_eq!(world.net.txids(), []);
        gate.pass();
    }
    failing.await.expect("no panic").expect("current facts");
    arbiter.idle().await.expect("running");
    assert!(world.log.stored_changes(0).iter().any(handed_out));
    assert_eq!(world.net.txids(), [txid(&channel)]);
}

#[tokio::test(start_paused = true)]
async fn penalty_data_is_loaded_and_used_without_another_block() {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_remote(1, &[offered(0)]);
    channel.revoke(0);
    let world = World::default();
    let arbiter = world.watching(&channel).await;
    let revoked = channel.remote_tx(1, &[offered(0)]);
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    let outputs = revoked.output.len();
    world.chain.mine(vec![revoked]);
    arbiter.idle().await.expect("running");
    // Everything but our own to_remote, which is a plain address, in one transaction.
    let sent = world.net.sent();
    let [penalty] = sent.as_slice() else { panic!("{} packages", sent.len()) };
    assert_eq!(penalty.iter().map(|tx| tx.input.len()).collect::<Vec<_>>(), [outputs - 1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_signed_for_claims_that_are_no_more_is_dropped() {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_remote(1, &[offered(0)]);
    channel.revoke(0);
    let world = World::default();
    let arbiter = world.watching(&channel).await;
    let revoked = channel.remote_tx(1, &[offered(0)]);
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    world.signer.is(channel.id(), Mood::Slow);
    world.chain.mine(vec![revoked.clone()]);
    sleep(Duration::from_millis(500)).await;
    // While the penalty for both is being signed, somebody takes the HTLC.
    let value = terms(offered(0)).amount.floor();
    let vout = revoked.output.iter().position(|output| output.value == value).expect("it is there");
    let htlc = OutPoint { txid: revoked.compute_txid(), vout: vout as u32 };
    world.chain.mine(vec![spend(htlc, value, ScriptBuf::new())]);
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    let [penalty] = sent.as_slice() else { panic!("{} packages", sent.len()) };
    let inputs: Vec<_> = penalty[0].input.iter().map(|input| input.previous_output).collect();
    assert_eq!(inputs.len(), 1);
    assert_ne!(inputs, [htlc]);
    let handed_out = |change: &&Change| matches!(change, Change::HandedOut(_));
    assert_eq!(world.log.stored_changes(0).iter().filter(handed_out).count(), 1, "unseen");
}

#[tokio::test(start_paused = true)]
async fn what_vanishes_from_the_mempool_goes_out_again_at_once() {
    let world = World::default();
    let (arbiter, _) = punishing(&world).await;
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    let [penalty] = sent.as_slice() else { panic!("{} packages", sent.len()) };
    let txid = penalty[0].compute_txid();
    world.chain.enter_mempool(penalty[0].clone());
    sleep(Duration::from_secs(1)).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [], "it is there");
    world.chain.leave_mempool(txid);
    sleep(Duration::from_secs(1)).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [txid]);
    // Once: what the mempool does not hold after all waits for the next block.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.net.txids(), []);
}

#[tokio::test(start_paused = true)]
async fn everything_goes_out_again_when_the_source_is_back() {
    let world = World::default();
    let (arbiter, _) = punishing(&world).await;
    arbiter.idle().await.expect("running");
    let first = world.net.txids();
    assert_eq!(first.len(), 1);
    world.chain.is(Mood::Fails);
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.net.txids(), []);
    world.chain.is(Mood::Well);
    sleep(Duration::from_secs(3_600)).await;
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), first, "once, and without a block");
}

fn inputs(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|input| input.previous_output).collect()
}

/// Our balance and our anchor on the peer's commitment are on their way together, and it is 20
/// blocks old. Gives the commitment and the anchor.
async fn with_an_anchor_for_all(world: &World) -> (Arbiter, Transaction, OutPoint) {
    world.fees.are(253);
    let channel = Channel::new(1, Anchors);
    let arbiter = world.watching(&channel).await;
    let close = channel.remote_tx(0, &[]);
    world.chain.mine(vec![close.clone()]);
    arbiter.idle().await.expect("running");
    let sweep = world.net.sent().into_iter().flatten().last().expect("a sweep");
    assert_eq!(sweep.input.len(), 2, "balance and anchor");
    world.pass(&arbiter, 20).await;
    world.net.sent();
    let is_anchor = |i: &OutPoint| close.output[i.vout as usize].value == Amount::from_sat(330);
    let anchor = inputs(&sweep).into_iter().find(is_anchor).expect("an anchor");
    (arbiter, close, anchor)
}

/// What is offered for the balance from now on, and whether it goes without the anchor.
async fn bids(
    world: &World,
    arbiter: &Arbiter,
    close: &Transaction,
    anchor: OutPoint,
) -> (u64, bool) {
    let (mut most, mut alone) = (0, false);
    for _ in 0..60 {
        world.pass(arbiter, 1).await;
        for tx in world.net.sent().into_iter().flatten() {
            let inputs = inputs(&tx);
            let spent = inputs.iter().map(|i| close.output[i.vout as usize].value.to_sat());
            let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
            most = most.max(spent.sum::<u64>() - paid);
            alone |= !inputs.contains(&anchor);
        }
    }
    (most, alone)
}

#[tokio::test(start_paused = true)]
async fn nobody_holds_our_balance_back_by_way_of_our_anchor() {
    let outbid = || Verdict::FeeTooLow("insufficient fee, rejecting replacement".to_owned());
    // Another takes the anchor, and pays a lot.
    let world = World::default();
    let (arbiter, close, anchor) = with_an_anchor_for_all(&world).await;
    let foreign = ScriptBuf::from_bytes(vec![0x51]);
    world.chain.enter_mempool(spend(anchor, Amount::from_sat(330), foreign));
    world.net.refuses(anchor, outbid());
    let (most, alone) = bids(&world, &arbiter, &close, anchor).await;
    assert!(alone && most < 2_000, "{alone} {most}");

    // The mempool cannot be seen: only the refusal says so.
    let world = World::default();
    let (arbiter, close, anchor) = with_an_anchor_for_all(&world).await;
    world.net.refuses(anchor, outbid());
    let (most, alone) = bids(&world, &arbiter, &close, anchor).await;
    assert!(alone && most < 2_000, "{alone} {most}");
}

#[tokio::test(start_paused = true)]
async fn a_budget_without_limits_is_one() {
    for budget in [Amount::MAX_MONEY, Amount::from_sat(18_446_744_073_709_552), Amount::MAX] {
        let world = World::default();
        let mut channel = Channel::new(1, Anchors);
        channel.add(received(0));
        channel.next_local(1, &[received(0)]);
        channel.next_remote(1, &[received(0)]);
        channel.revoke(0);
        let arbiter = world.watching(&channel).await;
        arbiter.preimage(channel.id(), preimage(0), PreimageSource::Node).await.expect("known");
        let target = BumpTarget::Channel(channel.id());
        arbiter.bump(target, BumpGoal::Budget(budget)).await.expect("taken");
        world.fees.are(2_000);
        let commitment = channel.local_tx();
        let txid = commitment.compute_txid();
        fail(&arbiter, channel.id()).await;
        arbiter.idle().await.expect("running");
        assert!(world.net.sent().iter().any(|package| package.len() > 1), "no child: {budget}");
        world.chain.mine(vec![commitment]);
        world.pass(&arbiter, 3).await;
        let sent = world.net.sent();
        let claims = |tx: &Transaction| inputs(tx).iter().any(|input| input.txid == txid);
        assert!(sent.iter().flatten().any(claims), "no claim: {budget}");
    }
}
