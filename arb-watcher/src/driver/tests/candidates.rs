//! Funding candidates that are told late: what blocks hold of them is found before the receipt.
use super::support::*;
use crate::CommandError;
use arb_core::arbitrator::{ChannelEvent, CloseKind, Phase};
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use bitcoin::{Amount, ScriptBuf, Transaction};

const REMOTE: Phase = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));

/// A transaction that splices the channel's funding output.
fn splice_tx(channel: &Channel) -> Transaction {
    let to = ScriptBuf::from_bytes(vec![0x51]);
    spend(channel.funding(), Amount::from_sat(1_000_000), to)
}

async fn phase(arbiter: &crate::Arbiter, channel: &Channel) -> Phase {
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    report.phase
}

/// The spliced channel's commitments of the peer, once it is locked.
fn close_of(channel: &mut Channel, tx: &Transaction) -> Transaction {
    let mut spliced = Channel::new(1, StaticRemotekey);
    spliced.facts = channel.facts.clone();
    spliced.lock(tx);
    spliced.remote_tx(0, &[])
}

#[tokio::test(start_paused = true)]
async fn a_spend_that_is_in_a_block_already_is_found() {
    for quiet in [true, false] {
        let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
        let tx = splice_tx(&channel);
        let added = channel.splice(&tx);
        let close = close_of(&mut channel, &tx);
        let arbiter = world.start().await;
        let mut before = Channel::new(1, StaticRemotekey);
        arbiter.watch_channel(before.facts.clone()).await.expect("sound facts");
        if quiet {
            // The splice itself is never seen to spend the old output: only the close is there.
            world.chain.mine(vec![close]);
        } else {
            world.chain.mine(vec![tx]);
            world.chain.mine(vec![close]);
        }
        world.pass(&arbiter, 3).await;
        let unknown = Phase::Closed(FundingSpend::Unknown);
        let seen = if quiet { Phase::Open } else { unknown };
        assert_eq!(phase(&arbiter, &channel).await, seen);
        arbiter.update_channel(channel.id(), vec![added.clone()]).await.expect("sound");
        assert_eq!(phase(&arbiter, &channel).await, REMOTE);
        assert_eq!(world.log.stored_facts(0), Some(channel.facts.clone()));
        // Told again, it changes nothing; and a restart knows it all.
        arbiter.update_channel(channel.id(), vec![added]).await.expect("told again");
        arbiter.shutdown().await;
        let arbiter = world.restart(&[&channel]).await;
        assert_eq!(phase(&arbiter, &channel).await, REMOTE);
        before.facts = channel.facts.clone();
        assert_eq!(arbiter.watch_channel(before.facts).await, Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_that_come_during_the_rescan_are_found_as_well() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let tx = splice_tx(&channel);
    let arbiter = world.watching(&channel).await;
    world.pass(&arbiter, 3).await;
    let added = channel.splice(&tx);
    let close = close_of(&mut channel, &tx);
    let tip = *world.chain.best().last().expect("a tip");
    world.chain.before(tip, move |chain| {
        chain.mine(vec![tx]);
        chain.mine(vec![close]);
    });
    arbiter.update_channel(channel.id(), vec![added]).await.expect("sound");
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, REMOTE);
}

#[tokio::test(start_paused = true)]
async fn a_spliced_channel_goes_on_and_its_new_output_is_watched() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    let tx = splice_tx(&channel);
    let added = channel.splice(&tx);
    arbiter.update_channel(channel.id(), vec![added]).await.expect("sound");
    world.chain.mine(vec![tx.clone()]);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, Phase::Open);
    let locked = channel.lock(&tx);
    let newer = channel.next_local(1, &[]);
    arbiter.update_channel(channel.id(), vec![locked, newer]).await.expect("no fence");
    arbiter.shutdown().await;
    let arbiter = world.restart(&[&channel]).await;
    world.chain.mine(vec![channel.remote_tx(0, &[])]);
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channel).await, REMOTE);
    let report = arbiter.report(channel.id()).await.expect("running").expect("watched");
    let closed = |kind| ChannelEvent::Closed(kind);
    let splice = CloseKind::Splice(tx.compute_txid());
    let told = [closed(splice), closed(CloseKind::Remote(number(0)))];
    assert_eq!(report.events[..2], told);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_whose_blocks_cannot_be_had_is_refused() {
    let (world, mut channel) = (World::default(), Channel::new(1, StaticRemotekey));
    let arbiter = world.watching(&channel).await;
    world.pass(&arbiter, 3).await;
    let before = channel.facts.clone();
    let tx = splice_tx(&channel);
    let added = channel.splice(&tx);
    world.chain.prune(world.chain.best()[1]);
    let answer = arbiter.update_channel(channel.id(), vec![added]).await;
    assert!(matches!(answer, Err(CommandError::NotScanned(_))), "{answer:?}");
    assert_eq!(world.log.stored_facts(0), Some(before));
}
