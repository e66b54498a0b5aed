//! Reports: what is pending, why, what it costs, who else can take it; of one channel and of all.
use super::support::*;
use crate::Arbiter;
use arb_core::arbitrator::{Alert, FailReason, OutputState, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::{Anchors, StaticRemotekey};
use arb_core::height::Reason;
use arb_core::ids::{ChannelId, Side};
use arb_core::picture::Role;
use arb_core::report::{ChannelReport, OutputReport, Payer, PhaseCounts, Taker};
use arb_core::units::BlockHeight;
use bitcoin::{Amount, FeeRate, ScriptBuf};

async fn report(arbiter: &Arbiter, channel: &Channel) -> ChannelReport {
    arbiter.idle().await.expect("running");
    arbiter.report(channel.id()).await.expect("running").expect("watched")
}

fn output(report: &ChannelReport, role: Role) -> &OutputReport {
    report.outputs.iter().find(|output| output.role == role).expect("that output")
}

/// Both HTLCs are in our commitment, and the received one's preimage is unknown.
fn with_htlcs() -> Channel {
    let mut channel = Channel::new(1, Anchors);
    for id in [offered(0), received(0)] {
        channel.add(id);
    }
    channel.next_local(1, &[offered(0), received(0)]);
    channel
}

#[tokio::test(start_paused = true)]
async fn a_commitment_on_its_way_is_reported_with_the_child_that_pays_for_it() {
    let (world, channel) = (World::default(), Channel::new(1, Anchors));
    world.fees.are(5_000);
    let arbiter = world.watching(&channel).await;
    let open = report(&arbiter, &channel).await;
    assert_eq!((open.phase, open.closing), (Phase::Open, None));
    let sat = |sat| Amount::from_sat(sat);
    assert_eq!((open.capacity, open.balance), (sat(1_000_000), sat(600_000)));
    fail(&arbiter, channel.id()).await;
    let failing = report(&arbiter, &channel).await;
    let closing = failing.closing.expect("on its way");
    assert_eq!((closing.reason, closing.number), (FailReason::Requested, number(0)));
    assert_eq!(closing.commitment, Some(channel.local_tx().compute_txid()));
    assert_eq!((closing.payer, closing.bumps), (Some(Payer::Wallet), 0));
    let child = closing.child.expect("its feerate is too low by itself");
    assert!(failing.transactions.iter().any(|tx| tx.txid == child));
    let (own, package) = (closing.feerate.expect("a rate"), closing.package_feerate);
    assert!(own < FeeRate::from_sat_per_kwu(300), "{own}");
    assert!(package.is_some_and(|package| package.to_sat_per_kwu() >= 5_000), "{package:?}");
    let both = failing.transactions.iter().map(|tx| (tx.fee.to_sat(), tx.weight.to_wu()));
    let (fee, weight) = both.fold((0, 0), |sum, tx| (sum.0 + tx.0, sum.1 + tx.1));
    assert_eq!(package, Some(FeeRate::from_sat_per_kwu(fee * 1000 / weight)));
    assert_eq!(failing.pending_fees, closing.child_fee);
    assert_eq!(failing.fees, Amount::ZERO);
    let more = FeeRate::from_sat_per_kwu(7_000);
    let target = crate::BumpTarget::Channel(channel.id());
    arbiter.bump(target, crate::BumpGoal::FeeRate(more)).await.expect("watched");
    world.pass(&arbiter, 1).await;
    let bumped = report(&arbiter, &channel).await.closing.expect("on its way");
    assert_eq!(bumped.bumps, 1);
    assert!(bumped.child_fee > closing.child_fee);
    // Without anchors nobody can raise it.
    let bare = Channel::new(2, StaticRemotekey);
    arbiter.watch_channel(bare.facts.clone()).await.expect("sound facts");
    fail(&arbiter, bare.id()).await;
    let closing = report(&arbiter, &bare).await.closing.expect("on its way");
    assert_eq!((closing.payer, closing.child, closing.package_feerate), (None, None, None));
}

#[tokio::test(start_paused = true)]
async fn outputs_of_our_commitment_say_what_they_wait_for_and_who_competes() {
    let (world, channel) = (World::default(), with_htlcs());
    let arbiter = world.watching(&channel).await;
    let at = world.chain.mine(vec![channel.local_tx()]).height.0;
    let closed = report(&arbiter, &channel).await;
    let expiry = BIRTH + 400;

    let to_local = output(&closed, Role::ToLocal);
    assert_eq!(to_local.waits.map(|due| (due.reason, due.until.0)), Some((Reason::Csv, at + 6)));
    assert_eq!((to_local.rival, to_local.payer), (None, Some(Payer::Output)));
    let ours = output(&closed, Role::Htlc(offered(0)));
    assert_eq!(ours.waits.map(|due| (due.reason, due.until.0)), Some((Reason::Cltv, expiry)));
    let rival = ours.rival.expect("the peer may have the preimage");
    assert_eq!((rival.who, rival.from.reason), (Taker::Peer, Reason::Preimage));
    assert_eq!((rival.from.tip.0, ours.payer), (at, Some(Payer::Wallet)));
    let theirs = output(&closed, Role::Htlc(received(0)));
    assert_eq!(theirs.waits.map(|due| due.reason), Some(Reason::Preimage));
    let rival = theirs.rival.expect("the peer takes it back");
    assert_eq!((rival.from.reason, rival.from.tip.0), (Reason::Cltv, expiry));
    assert_eq!(theirs.payer, Some(Payer::Peer));
    let anchor = output(&closed, Role::Anchor(Side::Local)).rival.expect("anybody, later");
    assert_eq!((anchor.who, anchor.from.until.0), (Taker::Anyone, at + 16));

    // The sweep: pending while it waits for a block, spent and paid for once it is in one.
    world.pass(&arbiter, 6).await;
    let closed = report(&arbiter, &channel).await;
    let sweeping = output(&closed, Role::ToLocal);
    assert_eq!(sweeping.state, OutputState::Claiming);
    let txid = sweeping.unconfirmed.expect("handed out");
    let fee = sweeping.pending_fee.expect("a fee");
    // Fees are so low that our anchor goes along.
    let anchor = output(&closed, Role::Anchor(Side::Local));
    assert_eq!(anchor.unconfirmed, Some(txid));
    let both = fee + anchor.pending_fee.expect("its part");
    assert_eq!((sweeping.fees, closed.pending_fees), (Amount::ZERO, both));
    assert_eq!(sweeping.package_feerate, None, "its parent is in a block");
    let sweep = world.net.sent().into_iter().flatten().find(|tx| tx.compute_txid() == txid);
    let sweep = sweep.expect("published");
    let feerate = FeeRate::from_sat_per_kwu(both.to_sat() * 1000 / sweep.weight().to_wu());
    assert_eq!(sweeping.feerate, Some(feerate));
    for reported in &closed.outputs {
        let made = &channel.local_tx().output[reported.outpoint.vout as usize];
        assert_eq!(reported.amount, made.value);
    }
    assert_eq!(closed.received, Amount::ZERO);
    let brought = sweeping.amount + anchor.amount;
    let at = world.chain.mine(vec![sweep]).height;
    let closed = report(&arbiter, &channel).await;
    let swept = output(&closed, Role::ToLocal);
    assert_eq!((swept.spent_at, swept.spent_by), (Some(at), Some(Side::Local)));
    assert_eq!((swept.spender, closed.received), (Some(txid), brought));
    let next = closed.next.expect("the HTLCs are pending");
    assert_eq!((next.reason, next.until.0), (Reason::Cltv, expiry));
    assert_eq!((swept.fees, swept.pending_fee, swept.bumps), (fee, None, 0));
    assert_eq!((closed.fees, closed.pending_fees), (both, Amount::ZERO));
}

#[tokio::test(start_paused = true)]
async fn outputs_of_a_revoked_commitment_name_the_peers_lock() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    channel.add(offered(0));
    channel.next_remote(1, &[offered(0)]);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    let revoked = channel.remote_tx(1, &[offered(0)]);
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    let at = world.chain.mine(vec![revoked]).height.0;
    let closed = report(&arbiter, &channel).await;
    let revoked = FundingSpend::RevokedCommitment(number(1));
    assert_eq!(closed.phase, Phase::Closed(revoked));
    let theirs = output(&closed, Role::ToLocal);
    assert_eq!(theirs.payer, Some(Payer::Output));
    let rival = theirs.rival.expect("after its delay");
    assert_eq!((rival.who, rival.from.until), (Taker::Peer, BlockHeight(at + 144)));
    // A claim that is replaced is counted, and the one that counts is the newest.
    let before = theirs.unconfirmed;
    let target = crate::BumpTarget::Channel(channel.id());
    let more = crate::BumpGoal::FeeRate(FeeRate::from_sat_per_kwu(20_000));
    arbiter.bump(target, more).await.expect("something is to be claimed");
    let raised = report(&arbiter, &channel).await;
    let raised = output(&raised, Role::ToLocal);
    assert_eq!((theirs.bumps, raised.bumps), (0, 1));
    assert!(raised.unconfirmed.is_some() && raised.unconfirmed != before);
    let htlc = output(&closed, Role::Htlc(offered(0))).rival.expect("by its second stage");
    assert_eq!((htlc.from.reason, htlc.from.tip.0), (Reason::Preimage, at));
}

/// What the driver found out by itself stands in the report, in that of all channels too.
#[tokio::test(start_paused = true)]
async fn alerts_are_in_the_report_whoever_raised_them() {
    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.signer.is(channel.id(), Mood::Fails);
    fail(&arbiter, channel.id()).await;
    world.pass(&arbiter, 5).await;
    let failing = report(&arbiter, &channel).await;
    assert_eq!(failing.alerts, [Alert::SignerFailing]);
    let all = arbiter.report_all().await.expect("running");
    assert_eq!(all.channels, [failing]);

    let (world, channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let odd = ScriptBuf::from_bytes(vec![0x51]);
    let spend = super::support::channel::spend(channel.funding(), Amount::from_sat(999_000), odd);
    world.chain.mine(vec![spend.clone()]);
    let closed = report(&arbiter, &channel).await;
    assert_eq!(closed.alerts, [Alert::UnknownSpend(spend.compute_txid())]);
}

#[tokio::test(start_paused = true)]
async fn all_reports_are_those_of_the_channels_that_have_something_to_report() {
    let world = World::default();
    let arbiter = world.start().await;
    // More than a page of them, and as many quiet ones between.
    let channels: Vec<Channel> = (1..=80).map(|id| Channel::new(id, StaticRemotekey)).collect();
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let failing = channels.iter().step_by(2);
    for channel in failing.clone() {
        fail(&arbiter, channel.id()).await;
    }
    arbiter.idle().await.expect("running");
    world.log.damage_facts(1);
    let (lost, closed) = (channels[1].remote_tx(0, &[]), channels[3].remote_tx(0, &[]));
    world.chain.mine(vec![lost, closed]);
    arbiter.idle().await.expect("running");
    let all = arbiter.report_all().await.expect("running");
    let counted = PhaseCounts { open: 38, failing: 40, closed: 1, resolved: 0 };
    assert_eq!(all.phases, counted);
    assert_eq!(all.quarantined, [channels[1].id()]);
    assert_eq!(all.tip, world.chain.tip_now().height);
    let mut expected: Vec<ChannelId> = failing.map(Channel::id).collect();
    expected.push(channels[3].id());
    expected.sort();
    let mut reported: Vec<ChannelId> = all.channels.iter().map(|report| report.id).collect();
    reported.sort();
    assert_eq!(reported, expected);
    for one in &all.channels {
        assert_eq!(arbiter.report(one.id).await.expect("running").as_ref(), Some(one));
    }
}
