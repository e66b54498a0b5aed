//! Manual intervention: what it does, and what it refuses because money would be lost.
use super::support::*;
use crate::{Arbiter, BumpGoal, BumpTarget, CommandError};
use arb_core::arbitrator::{Change, CloseKind, PreimageSource};
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::picture::Role;
use arb_core::units::BlockHeight;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf};
use std::time::Duration;
use tokio::time::timeout;

async fn close(arbiter: &Arbiter, channel: &Channel) -> Option<CloseKind> {
    arbiter.report(channel.id()).await.expect("running").expect("watched").close
}

#[tokio::test(start_paused = true)]
async fn failing_is_not_answered_before_the_network_has_the_commitment() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (mut arbiter, id) = (world.watching(&channel).await, channel.id());
    world.net.is(Mood::Hangs);
    // Nor after a restart, when it has been in the log for long.
    for _ in 0..2 {
        let asked = timeout(Duration::from_secs(5), arbiter.fail_channel(id)).await;
        asked.expect_err("nobody has it");
        let in_log = |change: &Change| matches!(change, Change::HandedOut(_));
        assert!(world.log.stored_changes(0).iter().any(in_log));
        arbiter.shutdown().await;
        arbiter = world.restart(&[&channel]).await;
    }
    world.net.is(Mood::Well);
    let asked = timeout(Duration::from_secs(600), arbiter.fail_channel(id)).await;
    let commitment = asked.expect("in time").expect("current facts");
    // Handed over by each arbiter, and twice in vain.
    assert_eq!(world.net.txids(), [commitment.compute_txid(); 3]);
}

#[tokio::test(start_paused = true)]
async fn failing_gives_the_transaction_once_it_is_on_its_way_and_again() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    world.signer.is(id, Mood::Fails);
    for _ in 0..3 {
        let asked = timeout(Duration::from_secs(1), arbiter.fail_channel(id)).await;
        asked.expect_err("no signer, and a caller that gives up changes nothing");
        world.pass(&arbiter, 1).await;
    }
    assert_eq!(world.net.txids(), []);
    let asked = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.fail_channel(id).await }
    });
    world.signer.is(id, Mood::Well);
    world.pass(&arbiter, 1).await;
    let commitment = asked.await.expect("no panic").expect("current facts");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
    assert_eq!(commitment.compute_txid(), channel.local_tx().compute_txid());
    assert_eq!(arbiter.fail_channel(id).await, Ok(commitment.clone()), "at once");
    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    assert_eq!(arbiter.fail_channel(id).await, Ok(commitment.clone()), "after a restart");
    world.chain.mine(vec![commitment.clone()]);
    arbiter.idle().await.expect("running");
    assert_eq!(arbiter.fail_channel(id).await, Ok(commitment), "after its confirmation");
}

#[tokio::test(start_paused = true)]
async fn failing_what_another_closes_meanwhile_is_refused() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    world.signer.is(id, Mood::Fails);
    let asked = tokio::spawn({
        let arbiter = arbiter.clone();
        async move { arbiter.fail_channel(id).await }
    });
    arbiter.idle().await.expect("running");
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(asked.await.expect("no panic"), Err(CommandError::Closed(id)));
}

#[tokio::test(start_paused = true)]
async fn failing_what_is_about_to_close_mutually_is_noted_and_waits() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let close = channel.mutual_tx();
    world.chain.enter_mempool(close.clone());
    arbiter.idle().await.expect("running");
    let asked = timeout(Duration::from_secs(1), arbiter.fail_channel(id)).await;
    assert_eq!(asked.expect("at once"), Err(CommandError::ClosesMutually(id)));
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), []);
    // The mempool loses it: what was asked for is done.
    world.chain.leave_mempool(close.compute_txid());
    arbiter.idle().await.expect("running");
    assert_eq!(world.net.txids(), [channel.local_tx().compute_txid()]);
    let commitment = arbiter.fail_channel(id).await.expect("it is on its way");
    assert_eq!(commitment.compute_txid(), channel.local_tx().compute_txid());
}

#[tokio::test(start_paused = true)]
async fn the_nodes_word_makes_a_close_mutual_across_a_restart() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    // It pays a script that nobody agreed on here.
    let script = bitcoin::ScriptBuf::from_bytes(vec![0x51]);
    let other =
        super::support::channel::spend(channel.funding(), Amount::from_sat(999_000), script);
    for commitment in [channel.local_tx(), channel.remote_tx(0, &[])] {
        let txid = commitment.compute_txid();
        let refused = arbiter.channel_closed_cooperatively(id, txid).await;
        assert_eq!(refused, Err(CommandError::NotMutual(txid)));
    }
    world.chain.mine(vec![other.clone()]);
    arbiter.idle().await.expect("running");
    assert_eq!(close(&arbiter, &channel).await, Some(CloseKind::Unknown));
    arbiter.channel_closed_cooperatively(id, other.compute_txid()).await.expect("it may be");
    assert_eq!(close(&arbiter, &channel).await, Some(CloseKind::Mutual));
    arbiter.kill();
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    assert_eq!(close(&arbiter, &channel).await, Some(CloseKind::Mutual));
}

#[tokio::test(start_paused = true)]
async fn a_breach_is_no_mutual_close_whatever_was_said_of_it() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let breach = channel.remote_tx(0, &[]);
    arbiter.channel_closed_cooperatively(id, breach.compute_txid()).await.expect("not known yet");
    world.chain.mine(vec![breach.clone()]);
    arbiter.idle().await.expect("running");
    assert_eq!(close(&arbiter, &channel).await, Some(CloseKind::Revoked(number(0))));
    let penalty = world.net.sent()[0][0].compute_txid();
    for txid in [breach.compute_txid(), penalty] {
        let refused = arbiter.channel_closed_cooperatively(id, txid).await;
        assert_eq!(refused, Err(CommandError::NotMutual(txid)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_splice_is_no_mutual_close() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let to = ScriptBuf::from_bytes(vec![0x51]);
    let tx = super::support::channel::spend(channel.funding(), Amount::from_sat(1_000_000), to);
    arbiter.update_channel(id, vec![channel.splice(&tx)]).await.expect("sound");
    let refused = arbiter.channel_closed_cooperatively(id, tx.compute_txid()).await;
    assert_eq!(refused, Err(CommandError::NotMutual(tx.compute_txid())));
}

#[tokio::test(start_paused = true)]
async fn a_preimage_is_for_the_htlc_that_it_is_said_to_be_for() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let updates = vec![channel.add(received(0)), channel.add(offered(1))];
    arbiter.update_channel(id, updates).await.expect("sound");
    let unfit = [
        (2, PreimageSource::Node),
        (0, PreimageSource::Downstream(offered(1))),
        (0, PreimageSource::Downstream(offered(0))),
        (1, PreimageSource::Linked(received(0))),
    ];
    for (of, source) in unfit {
        let told = arbiter.preimage(id, preimage(of), source).await;
        assert_eq!(told, Err(CommandError::UnknownHash(preimage(of).hash())), "{source:?}");
    }
    assert_eq!(world.log.stored_changes(0), [], "nothing was learned");
    let fit = [(0, PreimageSource::Node), (1, PreimageSource::Downstream(offered(1)))];
    for (of, source) in fit {
        arbiter.preimage(id, preimage(of), source).await.expect("it fits");
    }
    assert_ne!(world.log.stored_changes(0), []);
}

/// The peer's commitment: our balance can be claimed now, the HTLC only once it has expired.
#[tokio::test(start_paused = true)]
async fn a_bump_of_a_channel_means_what_can_be_claimed_now() {
    let (world, mut channel) = (World::default(), Channel::new(1, Anchors));
    channel.add(offered(0));
    channel.next_remote(1, &[offered(0)]);
    channel.revoke(0);
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    world.chain.mine(vec![channel.remote_tx(1, &[offered(0)])]);
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 1).await;
    let feerate = FeeRate::from_sat_per_kwu(5_000);
    let bump = arbiter.bump(BumpTarget::Channel(id), BumpGoal::FeeRate(feerate));
    bump.await.expect("something is to be claimed");
    let report = arbiter.report(id).await.expect("running").expect("watched");
    let balance = report.outputs.iter().find(|output| output.role == Role::ToRemote);
    let balance = balance.map(|output| output.outpoint);
    let bumped: Vec<Option<OutPoint>> = world
        .log
        .stored_changes(0)
        .iter()
        .filter_map(|change| match change {
            Change::BumpRequested { outpoint, .. } => Some(*outpoint),
            _ => None,
        })
        .collect();
    assert!(balance.is_some());
    assert_eq!(bumped, [balance]);
}

#[tokio::test(start_paused = true)]
async fn bumps_and_preimages_that_fit_nothing_are_refused() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let hash = preimage(0).hash();
    let told = arbiter.preimage(id, preimage(0), PreimageSource::Node).await;
    assert_eq!(told, Err(CommandError::UnknownHash(hash)));

    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let first = world.net.sent();
    let claimed = first[0][0].input[0].previous_output;
    let target = BumpTarget::Output(id, claimed);
    let foreign = OutPoint { vout: 77, ..claimed };
    let low = FeeRate::from_sat_per_kwu(10);
    let tip = world.chain.tip_now().height;
    let bump = |target, goal| arbiter.bump(target, goal);
    assert_eq!(
        bump(BumpTarget::Output(id, foreign), BumpGoal::FeeRate(FeeRate::BROADCAST_MIN)).await,
        Err(CommandError::NothingToClaim(foreign))
    );
    let below = CommandError::BelowFloor { asked: low, floor: FeeRate::BROADCAST_MIN };
    assert_eq!(bump(target, BumpGoal::FeeRate(low)).await, Err(below));
    let past = CommandError::PastDeadline { asked: tip, tip };
    assert_eq!(bump(target, BumpGoal::Deadline(tip)).await, Err(past));
    let (own, asked) = (BlockHeight(tip.0 + 143), BlockHeight(tip.0 + 144));
    let later = CommandError::LaterDeadline { asked, own };
    assert_eq!(bump(target, BumpGoal::Deadline(asked)).await, Err(later));
    // An earlier one is the deadline from now on, and the price that of a claim that is late.
    let soon = BlockHeight(tip.0 + 1);
    bump(target, BumpGoal::Deadline(soon)).await.expect("earlier");
    assert_eq!(deadlines(&arbiter, &channel).await, [Some(soon)]);
    arbiter.idle().await.expect("running");
    let second = world.net.sent();
    assert!(!second.is_empty() && second != first);
}

#[tokio::test(start_paused = true)]
async fn a_bump_that_could_do_nothing_is_refused() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let goals = [
        BumpGoal::FeeRate(FeeRate::from_sat_per_kwu(5_000)),
        BumpGoal::Deadline(BlockHeight(world.chain.tip_now().height.0 + 50)),
    ];
    // It is open; then its commitment, whose fee both sides have signed, is on its way.
    for failing in [false, true] {
        if failing {
            fail(&arbiter, id).await;
        }
        for goal in goals.clone() {
            let refused = arbiter.bump(BumpTarget::Channel(id), goal).await;
            assert_eq!(refused, Err(CommandError::NothingToBump(id)));
        }
    }
    let funding = channel.facts.candidates.current.funding;
    let refused = arbiter.bump(BumpTarget::Output(id, funding), goals[0].clone()).await;
    assert_eq!(refused, Err(CommandError::FeeIsFixed(funding)));
}

async fn deadlines(arbiter: &Arbiter, channel: &Channel) -> Vec<Option<BlockHeight>> {
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    report
        .outputs
        .iter()
        .filter(|output| output.unconfirmed.is_some())
        .map(|o| o.deadline)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_deadline_means_what_opens_before_it() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let (arbiter, id) = (world.watching(&channel).await, channel.id());
    let at = world.chain.mine(vec![channel.local_tx()]).height;
    arbiter.idle().await.expect("running");
    let delay = channel.facts.local.delay.0;
    let opens = BlockHeight(at.0 + delay - 1);
    for asked in [BlockHeight(at.0 + 1), opens] {
        let target = BumpTarget::Channel(id);
        let refused = arbiter.bump(target, BumpGoal::Deadline(asked)).await;
        assert_eq!(refused, Err(CommandError::OpensLater { asked, opens }));
    }
    let asked = BlockHeight(opens.0 + 200);
    let goal = BumpGoal::Deadline(asked);
    arbiter.bump(BumpTarget::Channel(id), goal).await.expect("it opens earlier");
    world.pass(&arbiter, delay).await;
    assert_eq!(deadlines(&arbiter, &channel).await, [Some(asked)]);
}

#[tokio::test(start_paused = true)]
async fn failing_with_what_turns_out_outdated_is_refused() {
    for (mood, answered) in [(Mood::Fails, false), (Mood::Well, true)] {
        let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let (arbiter, id) = (world.watching(&channel).await, channel.id());
        world.signer.is(id, mood);
        let asked = tokio::spawn({
            let arbiter = arbiter.clone();
            async move { arbiter.fail_channel(id).await }
        });
        arbiter.idle().await.expect("running");
        arbiter.state_numbers(numbers(id, 7, 0)).await.expect("watched");
        let answer = asked.await.expect("no panic");
        assert_eq!(answer.is_ok(), answered, "{answer:?}");
        assert_eq!(arbiter.fail_channel(id).await, Err(CommandError::Outdated(id)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_claimed_goes_where_the_operator_says() {
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.next_remote(1, &[]);
    channel.revoke(0);
    let world = World::default();
    let arbiter = world.watching(&channel).await;
    let target = BumpTarget::Channel(channel.id());
    let script = ScriptBuf::from_bytes([&[0, 20][..], &[7; 20]].concat());
    let goal = BumpGoal::Destination(script.clone());
    arbiter.bump(target, goal).await.expect("a script of an address");
    // What anybody may spend, what nobody can, and what is not relayed.
    let program = |version: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("short");
        ScriptBuf::from_bytes([&[version, length][..], bytes].concat())
    };
    let odd = [
        ScriptBuf::from_bytes(vec![0x51]),
        program(0x51, &[0x4e, 0x73]),
        program(0x52, &[7; 32]),
        program(0x51, &[0xff; 32]),
        program(0x00, &[7; 25]),
        ScriptBuf::new_op_return([7; 20]),
        ScriptBuf::new(),
    ];
    for odd in odd {
        let refused = arbiter.bump(target, BumpGoal::Destination(odd.clone())).await;
        assert_eq!(refused, Err(CommandError::NoDestination(odd)));
    }
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    assert!(!sent.is_empty());
    assert!(sent.iter().flatten().all(|tx| tx.output[0].script_pubkey == script));
}
