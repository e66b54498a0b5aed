//! Claims that spoil a transaction for others are found by asking, before anything is logged.
use super::support::channel::{offered, terms};
use super::support::*;
use crate::{BumpGoal, BumpTarget};
use arb_core::arbitrator::Change;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::HtlcId;
use arb_core::ports::Verdict;
use arb_core::report::ChannelReport;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut};
use std::time::Duration;

/// A revoked commitment with seven HTLCs in a block, and the outpoints of these.
async fn punishing(world: &World, spoilt: &[usize]) -> (crate::Arbiter, Channel, Vec<OutPoint>) {
    let (arbiter, channel, _, outpoints) = punishing_of(world, spoilt).await;
    (arbiter, channel, outpoints)
}

/// The same, with the commitment.
async fn punishing_of(
    world: &World,
    spoilt: &[usize],
) -> (crate::Arbiter, Channel, Transaction, Vec<OutPoint>) {
    let htlcs: Vec<HtlcId> = (0..7).map(offered).collect();
    let mut channel = Channel::new(1, StaticRemotekey);
    for id in &htlcs {
        channel.add(*id);
    }
    channel.next_remote(1, &htlcs);
    channel.revoke(0);
    let arbiter = world.watching(&channel).await;
    let revoked = channel.remote_tx(1, &htlcs);
    let updates = vec![channel.next_remote(2, &[]), channel.revoke(1)];
    arbiter.update_channel(channel.id(), updates).await.expect("stored");
    let txid = revoked.compute_txid();
    let outpoint = |id: &HtlcId| {
        let value = terms(*id).amount.floor();
        let vout = revoked.output.iter().position(|output| output.value == value);
        OutPoint { txid, vout: vout.expect("it is there") as u32 }
    };
    let outpoints: Vec<OutPoint> = htlcs.iter().map(outpoint).collect();
    for at in spoilt {
        world.net.refuses(outpoints[*at], Verdict::Refused("bad-witness-nonstandard".to_owned()));
    }
    world.chain.mine(vec![revoked.clone()]);
    arbiter.idle().await.expect("running");
    (arbiter, channel, revoked, outpoints)
}

fn inputs(tx: &Transaction) -> Vec<OutPoint> {
    tx.input.iter().map(|input| input.previous_output).collect()
}

// incident lnd-7390
#[tokio::test(start_paused = true)]
async fn what_spoils_a_transaction_is_set_aside_in_the_same_block_and_tried_again() {
    let world = World::default();
    let (arbiter, channel, htlcs) = punishing(&world, &[2, 5]).await;
    let bad = [htlcs[2], htlcs[5]];
    let mut sent: Vec<Vec<OutPoint>> =
        world.net.sent().iter().map(|package| inputs(&package[0])).collect();
    sent.sort_by_key(Vec::len);
    // The others, the balance among them, in one transaction; each bad one by itself.
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 6]);
    assert!(!bad.iter().any(|outpoint| sent[2].contains(outpoint)));
    let changes = world.log.stored_changes(0);
    let set_aside: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::SetAside { outpoint, why } => Some((*outpoint, why.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(set_aside.len(), 2);
    assert!(
        set_aside
            .iter()
            .all(|(outpoint, why)| { bad.contains(outpoint) && *why == "bad-witness-nonstandard" })
    );
    let together =
        |change: &&Change| matches!(change, Change::HandedOut(out) if out.claims.len() > 6);
    assert_eq!(changes.iter().filter(together).count(), 0, "it was never handed out");
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    let told = report.outputs.iter().filter(|output| output.set_aside.is_some());
    assert_eq!(told.count(), 2);
    // It may be accepted later.
    world.pass(&arbiter, 1).await;
    let sent = world.net.sent();
    assert!(bad.iter().all(|bad| sent.iter().any(|package| inputs(&package[0]) == [*bad])));
    // When it is, it is like the others: the mark is gone, in the log and in the report, and after a restart.
    world.net.accepts(bad[0]);
    world.pass(&arbiter, 1).await;
    let marks = |report: ChannelReport| -> Vec<OutPoint> {
        let marked = report.outputs.into_iter().filter(|output| output.set_aside.is_some());
        marked.map(|output| output.outpoint).collect()
    };
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(marks(report), [bad[1]]);
    world.pass(&arbiter, 3).await;
    let accepted = |change: &&Change| matches!(change, Change::Accepted { .. });
    assert_eq!(world.log.stored_changes(0).iter().filter(accepted).count(), 1, "it is said once");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    assert_eq!(marks(report), [bad[1]]);
}

#[tokio::test(start_paused = true)]
async fn where_all_are_refused_none_is_to_blame() {
    let world = World::default();
    world.net.refuses_all(Verdict::Refused("scriptpubkey".to_owned()));
    punishing(&world, &[]).await;
    let set_aside = |change: &Change| matches!(change, Change::SetAside { .. });
    assert!(!world.log.stored_changes(0).iter().any(set_aside));
    assert!(!world.net.sent().is_empty());
}

/// The operator sends the value of one output of a transaction elsewhere: it goes there by itself, and
/// the others stay together.
#[tokio::test(start_paused = true)]
async fn an_output_that_is_sent_elsewhere_leaves_its_transaction() {
    let world = World::default();
    let (arbiter, channel, htlcs) = punishing(&world, &[]).await;
    let all = world.net.sent();
    assert_eq!(all.iter().map(|package| package[0].input.len()).collect::<Vec<_>>(), [8]);
    let script = ScriptBuf::from_bytes([&[0, 20][..], &[9; 20]].concat());
    let target = BumpTarget::Output(channel.id(), htlcs[3]);
    arbiter.bump(target, BumpGoal::Destination(script.clone())).await.expect("of an address");
    arbiter.idle().await.expect("running");
    world.pass(&arbiter, 1).await;
    let sent = world.net.sent();
    let newest = |outpoint: OutPoint| {
        let mut all = sent.iter().flatten().filter(|tx| inputs(tx).contains(&outpoint));
        all.next_back().expect("claimed")
    };
    assert_eq!(inputs(newest(htlcs[3])), [htlcs[3]]);
    assert_eq!(newest(htlcs[3]).output[0].script_pubkey, script);
    assert_eq!(newest(htlcs[0]).input.len(), 7);
    // Their price follows the market again.
    world.fees.are(5_000);
    world.pass(&arbiter, 1).await;
    let lens: Vec<usize> = world.net.sent().iter().map(|package| package[0].input.len()).collect();
    assert!(lens.contains(&7) && lens.contains(&1), "{lens:?}");
}

// Bitcoin Core takes nothing that spends an input of the old transaction but what pays for all of it, and
// workers hand them over in no order.
#[tokio::test(start_paused = true)]
async fn what_is_taken_apart_goes_out_again_behind_what_pays_for_the_whole() {
    let ms = Duration::from_millis;
    // On the way there and back: of what pays for the whole, and of the others.
    let delays = [
        ([ms(10), ms(0)], [ms(0), ms(0)]),
        ([ms(10), ms(20)], [ms(5), ms(10)]),
        ([ms(10), ms(0)], [ms(5), ms(10)]),
    ];
    for (heir, others) in delays {
        let world = World::default();
        let (arbiter, channel, htlcs) = punishing(&world, &[]).await;
        let batch = world.net.sent().concat().into_iter().max_by_key(|tx| tx.input.len());
        let batch = batch.expect("penalties");
        assert!(htlcs.iter().all(|output| inputs(&batch).contains(output)));
        // The most valuable part pays for the whole: the cheater's balance.
        let (outputs, balance): (Vec<_>, Vec<_>) =
            inputs(&batch).into_iter().partition(|output| htlcs.contains(output));
        let first = balance[0];
        world.net.delays(first, heir[0], heir[1]);
        for output in &outputs {
            world.net.takes_after(*output, first);
            world.net.delays(*output, others[0], others[1]);
        }
        // The penalties are made one by one, 18 blocks before the cheater's delay ends.
        let mut sent = Vec::new();
        for _ in 0..144 {
            world.pass(&arbiter, 1).await;
            sent = world.net.sent().concat();
            if sent.iter().any(|tx| tx.input.len() == 1) {
                break;
            }
        }
        let tries = |output: &OutPoint| {
            sent.iter().filter(|tx| tx.input.len() == 1 && inputs(tx) == [*output]).count()
        };
        assert_eq!(tries(&first), 1);
        assert!(outputs.iter().any(|output| tries(output) == 2), "{heir:?} {others:?}");
        for output in &outputs {
            assert!(world.net.took(*output) && tries(output) <= 2, "{heir:?} {others:?}");
        }
        let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
        assert_eq!(report.alerts, [], "{heir:?} {others:?}");
    }
}

/// The cheater takes two HTLCs to second stages in one transaction, behind an output of its own, so that none stands
/// at the place of its input: they are punished in the block in which they appear, and what is left too.
#[tokio::test(start_paused = true)]
async fn second_stages_of_the_cheater_are_found_wherever_they_stand() {
    let world = World::default();
    let (arbiter, _, revoked, htlcs) = punishing_of(&world, &[]).await;
    world.net.sent();
    let txid = revoked.compute_txid();
    let is_balance = |(vout, output): &(u32, &TxOut)| {
        output.script_pubkey.is_p2wsh() && !htlcs.contains(&OutPoint { txid, vout: *vout })
    };
    let (at, balance) = (0..).zip(&revoked.output).find(is_balance).expect("the cheater has one");
    let input = |at: usize| TxIn { previous_output: htlcs[at], ..TxIn::default() };
    let output = |script: &ScriptBuf| {
        let value = Amount::from_sat(9_000);
        TxOut { value, script_pubkey: script.clone() }
    };
    let elsewhere = ScriptBuf::from_bytes([&[0, 20][..], &[9; 20]].concat());
    let delayed = &balance.script_pubkey;
    let taken = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(1), input(4)],
        output: vec![output(&elsewhere), output(delayed), output(delayed)],
    };
    world.chain.mine(vec![taken.clone()]);
    arbiter.idle().await.expect("running");
    let sent = world.net.sent();
    let mut spent: Vec<OutPoint> = sent.iter().flat_map(|package| inputs(&package[0])).collect();
    spent.sort_unstable();
    let second = |vout| OutPoint { txid: taken.compute_txid(), vout };
    let left = htlcs.iter().enumerate().filter(|(at, _)| ![1, 4].contains(at));
    let left = left.map(|(_, outpoint)| *outpoint);
    let mut expected: Vec<OutPoint> =
        left.chain([OutPoint { txid, vout: at }, second(1), second(2)]).collect();
    expected.sort_unstable();
    assert_eq!(spent, expected);
}
