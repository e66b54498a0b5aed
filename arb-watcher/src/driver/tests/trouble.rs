//! One channel in trouble: told when it lasts, withdrawn when it is over, and no matter to others.
use super::support::*;
use crate::{Arbiter, Delivery};
use arb_core::arbitrator::{Alert, Notice, NoticeKey, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use std::time::Duration;
use tokio::time::Instant;

async fn alerts(arbiter: &Arbiter, channel: &Channel) -> Vec<Alert> {
    arbiter.report(channel.id()).await.expect("running").expect("watched").alerts
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_keeps_failing_is_told_until_it_signs() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let world = World::default();
        let (ill, well) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
        let arbiter = world.watching(&ill).await;
        arbiter.watch_channel(well.facts.clone()).await.expect("sound facts");
        world.signer.is(ill.id(), mood);
        for channel in [&ill, &well] {
            fail(&arbiter, channel.id()).await;
        }
        let mut notices = arbiter.notices().await.expect("running");
        arbiter.idle().await.expect("running");
        world.pass(&arbiter, 1).await;
        assert_eq!(alerts(&arbiter, &ill).await, [], "{mood:?}: twice is an accident");
        world.pass(&arbiter, 1).await;
        assert_eq!(alerts(&arbiter, &ill).await, [Alert::SignerFailing], "{mood:?}");
        assert_eq!(alerts(&arbiter, &well).await, []);
        let told = (ill.id(), Notice::Alert(Alert::SignerFailing));
        assert!(drain(&mut notices).await.contains(&told));
        world.pass(&arbiter, 1).await;
        assert!(drain(&mut notices).await.contains(&told), "repeated");
        // Acknowledged, it is not repeated as long as it goes on.
        let key = NoticeKey::Alert(Alert::SignerFailing);
        arbiter.acknowledge(ill.id(), key).await.expect("watched");
        world.pass(&arbiter, 2).await;
        assert!(!drain(&mut notices).await.contains(&told));
        assert!(world.net.txids().contains(&well.local_tx().compute_txid()));

        world.signer.is(ill.id(), Mood::Well);
        world.pass(&arbiter, 1).await;
        assert!(world.net.txids().contains(&ill.local_tx().compute_txid()), "{mood:?}");
        assert_eq!(alerts(&arbiter, &ill).await, []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_signer_that_is_no_longer_asked_fails_no_more() {
    let (world, ill) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&ill).await;
    world.signer.is(ill.id(), Mood::Fails);
    fail(&arbiter, ill.id()).await;
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 3).await;
    assert_eq!(alerts(&arbiter, &ill).await, [Alert::SignerFailing]);
    // The peer closes: everything of ours comes home without a signature.
    world.chain.mine(vec![ill.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(alerts(&arbiter, &ill).await, []);
    let mut notices = arbiter.notices().await.expect("running");
    world.pass(&arbiter, 1).await;
    let told = (ill.id(), Notice::Alert(Alert::SignerFailing));
    assert!(!drain(&mut notices).await.contains(&told));
}

#[tokio::test(start_paused = true)]
async fn damaged_penalty_data_is_told_and_read_again() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    world.log.damage_ended(0, true);
    let of = || arbiter.subscribe(channel.id(), "a", Delivery::Detached);
    let mut events = of().await.expect("watched");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let unreadable = Alert::PenaltyDataUnreadable(number(0));
    assert!(alerts(&arbiter, &channel).await.contains(&unreadable));
    let complete = |told: Option<crate::Delivered>| told.and_then(|t| t.detail).map(|d| d.complete);
    assert_eq!(complete(events.try_next()), Some(false), "its HTLCs are not known");
    world.pass(&arbiter, 1).await;
    assert!(!world.net.txids().is_empty(), "what needs no penalty data is punished all the same");
    world.log.damage_ended(0, false);
    world.pass(&arbiter, 1).await;
    assert!(!alerts(&arbiter, &channel).await.contains(&unreadable));
    let mut again = of().await.expect("watched");
    arbiter.idle().await.expect("running");
    assert_eq!(complete(again.try_next()), Some(true), "they are");
}

/// An HTLC that is not known yet is ours, and the records that say how to take it stay, however long it lasts.
#[tokio::test(start_paused = true)]
async fn a_breach_whose_penalty_data_cannot_be_read_is_not_forgotten() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.add(received(0));
    channel.next_remote(1, &[received(0)]);
    channel.revoke(0);
    let breach = channel.remote_tx(1, &[received(0)]);
    let arbiter = world.watching(&channel).await;
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("sound updates");
    world.log.damage_ended(0, true);
    world.chain.mine(vec![breach.clone()]);
    arbiter.idle().await.expect("running");
    let penalties: Vec<_> = world.net.sent().into_iter().flatten().collect();
    assert_eq!(penalties.len(), 1, "what is known is punished");
    world.chain.mine(penalties);
    world.pass(&arbiter, 150).await;
    let report = arbiter.report(channel.id()).await.expect("running").expect("not forgotten");
    assert_eq!(report.phase, Phase::Closed(FundingSpend::RevokedCommitment(number(1))));
    assert!(report.alerts.contains(&Alert::PenaltyDataUnreadable(number(1))));
    world.net.sent();
    world.log.damage_ended(0, false);
    world.pass(&arbiter, 1).await;
    let penalty = world.net.sent().into_iter().flatten().next().expect("a penalty");
    assert_eq!(penalty.input[0].previous_output.txid, breach.compute_txid());
    world.chain.mine(vec![penalty]);
    world.pass(&arbiter, 101).await;
    assert_eq!(arbiter.report(channel.id()).await, Ok(None), "then it is");
}

/// However many signers never answer: the others are asked.
#[tokio::test(start_paused = true)]
async fn signers_that_never_answer_hold_nobody_up_however_many_they_are() {
    let world = World::default();
    let channels: Vec<Channel> = (1..=161).map(|id| Channel::new(id, StaticRemotekey)).collect();
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let Some((well, stuck)) = channels.split_last() else { panic!("there are some") };
    for channel in stuck {
        world.signer.is(channel.id(), Mood::Hangs);
        fail(&arbiter, channel.id()).await;
    }
    let since = Instant::now();
    let handed_over = arbiter.fail_channel(well.id()).await.expect("current");
    assert_eq!(handed_over.compute_txid(), well.local_tx().compute_txid());
    assert!(since.elapsed() <= Duration::from_secs(15), "{:?}", since.elapsed());
}
