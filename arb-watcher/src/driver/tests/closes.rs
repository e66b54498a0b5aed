//! Mutual closes that are known by asking the node whose the scripts are that they pay.
use super::support::channel::spend;
use super::support::*;
use crate::{Arbiter, ChainEventSubscription, CommandError, Delivery, Settings};
use arb_core::arbitrator::{Alert, Change, ChannelEvent, CloseKind, Notice, Phase};
use arb_core::classify::FundingSpend;
use arb_core::facts::{ShutdownScripts, Update};
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::policy::Policy;
use bitcoin::absolute::LockTime;
use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxOut};
use std::time::Duration;
use tokio::time::sleep;

const CLOSED: ChannelEvent = ChannelEvent::Closed(CloseKind::Mutual);
const UNKNOWN: ChannelEvent = ChannelEvent::Closed(CloseKind::Unknown);

/// A script of the wallet that no facts name.
fn wallet() -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x51, 0x20][..], &[0x77; 32]].concat())
}

fn foreign() -> ScriptBuf {
    ScriptBuf::from_bytes([&[0x51, 0x20][..], &[0x66; 32]].concat())
}

/// A close to a script that only the node can judge.
fn close(channel: &Channel) -> Transaction {
    spend(channel.funding(), Amount::from_sat(999_000), wallet())
}

async fn watching(world: &World, channel: &Channel) -> (Arbiter, ChainEventSubscription) {
    let arbiter = world.watching(channel).await;
    let events = arbiter.subscribe(channel.id(), "s", Delivery::Detached).await;
    (arbiter, events.expect("watched"))
}

async fn events(subscription: &mut ChainEventSubscription) -> Vec<ChannelEvent> {
    let mut all = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::ZERO, subscription.next()).await {
        all.push(event.event);
    }
    all
}

async fn standing(arbiter: &Arbiter, channel: &Channel) -> (Phase, Vec<Alert>) {
    arbiter.idle().await.expect("running");
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    (report.phase, report.alerts)
}

const fn closed(spend: FundingSpend) -> Phase {
    Phase::Closed(spend)
}

#[tokio::test(start_paused = true)]
async fn a_close_to_the_wallet_is_mutual_early_in_the_mempool_and_final_at_depth() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    let (arbiter, mut subscription) = watching(&world, &channel).await;
    world.chain.enter_mempool(close(&channel));
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual]);
    world.chain.mine(vec![close(&channel)]);
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, []);
    world.pass(&arbiter, 2).await;
    assert_eq!(events(&mut subscription).await, [CLOSED]);
    world.pass(&arbiter, 3).await;
    assert_eq!(events(&mut subscription).await, [], "never twice");
    assert_eq!(world.scripts.asked(), 1, "the answer is remembered");
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(report.received, Amount::from_sat(999_000), "it is at home");
    assert_eq!(report.alerts, []);
}

/// The answer about one close holds for its channel: commitments of others wait for their own closes as before.
#[tokio::test(start_paused = true)]
async fn an_answer_about_one_close_releases_no_other() {
    let world = World::default();
    world.scripts.own(wallet());
    let (closing, other) = (Channel::new(1, StaticRemotekey), Channel::new(2, StaticRemotekey));
    let arbiter = world.watching(&closing).await;
    arbiter.watch_channel(other.facts.clone()).await.expect("sound facts");
    world.chain.enter_mempool(close(&closing));
    arbiter.idle().await.expect("running");
    let held = Err(CommandError::ClosesMutually(closing.id()));
    assert_eq!(arbiter.fail_channel(closing.id()).await, held);
    world.chain.enter_mempool(close(&other));
    arbiter.idle().await.expect("running");
    assert_eq!(world.scripts.asked(), 2, "an answer each");
    assert_eq!(world.net.txids(), [], "both wait");
    assert_eq!(arbiter.fail_channel(closing.id()).await, held);
}

#[tokio::test(start_paused = true)]
async fn a_close_in_a_block_is_asked_about_and_waits_for_the_answer() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    world.scripts.is(Mood::Hangs);
    let (arbiter, mut subscription) = watching(&world, &channel).await;
    let mut notices = arbiter.notices().await.expect("running");
    world.chain.mine(vec![close(&channel)]);
    // The node does not answer: blocks come and go, nothing is said about the close.
    for _ in 0..3 {
        world.chain.mine(vec![]);
        sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.log.tip(), Some(world.chain.tip_now()), "no block waits for it");
    assert_eq!(events(&mut subscription).await, []);
    assert_eq!(drain(&mut notices).await, []);
    // The answer comes after act depth: the final notice at once, no early one.
    world.scripts.is(Mood::Well);
    world.pass(&arbiter, 1).await;
    let (phase, alerts) = standing(&arbiter, &channel).await;
    assert_eq!((phase, alerts), (closed(FundingSpend::MutualClose), vec![]));
    assert_eq!(events(&mut subscription).await, [CLOSED]);
    world.pass(&arbiter, 10).await;
    assert_eq!(events(&mut subscription).await, []);
    assert_eq!(drain(&mut notices).await, [], "no alert, neither then nor later");
}

#[tokio::test(start_paused = true)]
async fn one_foreign_output_leaves_it_unknown_with_an_alert() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    let (arbiter, mut subscription) = watching(&world, &channel).await;
    let mut tx = close(&channel);
    tx.output.push(TxOut { value: Amount::from_sat(500), script_pubkey: foreign() });
    world.chain.enter_mempool(tx.clone());
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, []);
    let txid = tx.compute_txid();
    world.chain.mine(vec![tx]);
    let (phase, alerts) = standing(&arbiter, &channel).await;
    assert_eq!(phase, closed(FundingSpend::Unknown));
    assert_eq!(alerts, [Alert::UnknownSpend(txid)], "at once: the node has answered");
    assert_eq!(events(&mut subscription).await, [UNKNOWN]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_shaped_like_a_mutual_close_is_not_asked_about() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    let (arbiter, _) = watching(&world, &channel).await;
    let mut tx = close(&channel);
    tx.input[0].sequence = Sequence::ZERO;
    let txid = tx.compute_txid();
    world.chain.mine(vec![tx]);
    let (phase, alerts) = standing(&arbiter, &channel).await;
    assert_eq!((phase, alerts), (closed(FundingSpend::Unknown), vec![Alert::UnknownSpend(txid)]));
    assert_eq!(world.scripts.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_never_answers_is_not_waited_for_beyond_the_patience() {
    for mood in [Mood::Fails, Mood::Hangs, Mood::Panics] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        world.scripts.own(wallet());
        world.scripts.is(mood);
        let (arbiter, mut subscription) = watching(&world, &channel).await;
        let mut notices = arbiter.notices().await.expect("running");
        world.chain.mine(vec![close(&channel)]);
        arbiter.idle().await.expect("running");
        let patience = Policy::default().verdict_patience.0;
        world.pass(&arbiter, patience - 2).await;
        assert_eq!(standing(&arbiter, &channel).await.1, [], "{mood:?}");
        assert_eq!(drain(&mut notices).await, []);
        world.pass(&arbiter, 1).await;
        let unknown = Alert::UnknownSpend(close(&channel).compute_txid());
        assert_eq!(standing(&arbiter, &channel).await.1, [unknown], "{mood:?}");
        assert_eq!(drain(&mut notices).await, [(channel.id(), Notice::Alert(unknown))]);
        assert_eq!(events(&mut subscription).await, [UNKNOWN]);
        // It is asked for all the same, and a late answer takes it back.
        world.scripts.is(Mood::Well);
        world.pass(&arbiter, 1).await;
        assert_eq!(standing(&arbiter, &channel).await.1, [], "{mood:?}");
        assert_eq!(events(&mut subscription).await, [ChannelEvent::Reorged, CLOSED]);
        let mut fresh = arbiter.notices().await.expect("running");
        assert_eq!(drain(&mut fresh).await, [], "whoever listens from now on hears of it no more");
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_survives_a_restart_and_the_question_too() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    world.scripts.is(Mood::Fails);
    let arbiter = world.watching(&channel).await;
    world.chain.mine(vec![close(&channel)]);
    arbiter.idle().await.expect("running");
    arbiter.shutdown().await;
    // The question is still open: it is put again.
    world.scripts.is(Mood::Well);
    let arbiter = world.restart(&[&channel]).await;
    assert_eq!(standing(&arbiter, &channel).await.0, closed(FundingSpend::MutualClose));
    arbiter.shutdown().await;
    // The answer is remembered: it is not.
    let asked = world.scripts.asked();
    world.scripts.is(Mood::Fails);
    let arbiter = world.restart(&[&channel]).await;
    world.pass(&arbiter, 8).await;
    let (phase, alerts) = standing(&arbiter, &channel).await;
    assert_eq!((phase, alerts), (closed(FundingSpend::MutualClose), vec![]));
    assert_eq!(world.scripts.asked(), asked);
    let judged = |change: &&Change| matches!(change, Change::ScriptsJudged(_));
    assert_eq!(world.log.stored_changes(0).iter().filter(judged).count(), 1);
    let mut subscription =
        arbiter.subscribe(channel.id(), "s", Delivery::Detached).await.expect("watched");
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual, CLOSED]);
}

#[tokio::test(start_paused = true)]
async fn a_reorganisation_takes_an_early_close_back_and_the_answer_stays() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    world.scripts.own(wallet());
    let (arbiter, mut subscription) = watching(&world, &channel).await;
    world.chain.mine(vec![close(&channel)]);
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual]);
    world.chain.undo(1);
    world.chain.mine_many(2);
    arbiter.idle().await.expect("running");
    assert_eq!(events(&mut subscription).await, [ChannelEvent::Reorged]);
    assert_eq!(standing(&arbiter, &channel).await.0, Phase::Open);
    world.scripts.is(Mood::Fails);
    world.chain.mine(vec![close(&channel)]);
    world.pass(&arbiter, 2).await;
    assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual, CLOSED]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_question_about_the_mempool_is_put_again() {
    for mood in [Mood::Fails, Mood::Panics] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        world.scripts.own(wallet());
        world.scripts.is(mood);
        let (arbiter, mut subscription) = watching(&world, &channel).await;
        world.chain.enter_mempool(close(&channel));
        arbiter.idle().await.expect("running");
        assert_eq!(events(&mut subscription).await, []);
        assert!(world.scripts.asked() >= 1, "it is asked at each look");
        world.scripts.is(Mood::Well);
        sleep(Settings::default().heartbeat * 2).await;
        arbiter.idle().await.expect("running");
        assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual], "{mood:?}");
    }
}

/// Whoever fills the mempool with transactions of thousands of outputs has the node asked about none.
#[tokio::test(start_paused = true)]
async fn what_pays_more_than_a_mutual_close_may_is_not_asked_about() {
    for (outputs, asked) in [(16, 1), (17, 0)] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        world.scripts.own(wallet());
        let (arbiter, mut subscription) = watching(&world, &channel).await;
        let mut tx = close(&channel);
        tx.output =
            vec![TxOut { value: Amount::from_sat(1_000), script_pubkey: wallet() }; outputs];
        world.chain.enter_mempool(tx.clone());
        arbiter.idle().await.expect("running");
        assert_eq!(world.scripts.asked(), asked);
        world.chain.mine(vec![tx]);
        let unknown = standing(&arbiter, &channel).await.0 == closed(FundingSpend::Unknown);
        assert_eq!((world.scripts.asked(), unknown), (asked, asked == 0));
        assert_eq!(events(&mut subscription).await.contains(&UNKNOWN), unknown);
    }
}

// bolt B13
#[tokio::test(start_paused = true)]
async fn whichever_closing_transaction_confirms_is_the_mutual_close() {
    let nothing = |script: ScriptBuf| TxOut { value: Amount::ZERO, script_pubkey: script };
    let (ours, theirs) = (wallet(), foreign());
    let pays = |value: u64, script: &ScriptBuf| TxOut {
        value: Amount::from_sat(value),
        script_pubkey: script.clone(),
    };
    // Each side pays the fee of its own version, may raise it, and may leave out what is dust or
    // give it away.
    let versions = [
        vec![pays(499_000, &ours), pays(500_000, &theirs)],
        vec![pays(500_000, &ours), pays(499_000, &theirs)],
        vec![pays(500_000, &ours), pays(450_000, &theirs)],
        vec![pays(999_000, &ours)],
        vec![pays(500_000, &theirs)],
        vec![nothing(ScriptBuf::new_op_return([1; 4])), pays(500_000, &theirs)],
    ];
    for (outputs, sequence, lock_time) in versions.iter().flat_map(|outputs| {
        [(Sequence::MAX, 0), (Sequence::ENABLE_RBF_NO_LOCKTIME, 123)]
            .map(|(sequence, lock_time)| (outputs, sequence, lock_time))
    }) {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let (arbiter, mut subscription) = watching(&world, &channel).await;
        let scripts = ShutdownScripts { local: Some(ours.clone()), remote: Some(theirs.clone()) };
        let agreed = arbiter.update_channel(channel.id(), vec![Update::Shutdown(scripts)]).await;
        agreed.expect("running");
        let mut tx = close(&channel);
        tx.input[0].sequence = sequence;
        tx.lock_time = LockTime::from_consensus(lock_time);
        tx.output.clone_from(outputs);
        world.chain.mine(vec![tx]);
        world.pass(&arbiter, 2).await;
        let (phase, alerts) = standing(&arbiter, &channel).await;
        assert_eq!((phase, alerts), (closed(FundingSpend::MutualClose), vec![]), "{outputs:?}");
        assert_eq!(events(&mut subscription).await, [ChannelEvent::EarlyMutual, CLOSED]);
        assert_eq!(world.scripts.asked(), 0, "nobody has to be asked");
    }
}
