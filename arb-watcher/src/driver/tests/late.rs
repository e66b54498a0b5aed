//! What a source hears of after the driver has had the block.
use super::support::*;
use crate::{Arbiter, CommandError};
use arb_core::arbitrator::Phase;
use arb_core::classify::FundingSpend;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use std::time::Duration;
use tokio::time::sleep;

const CLOSED: Phase = Phase::Closed(FundingSpend::RemoteCommitment(number(0)));

async fn phase(arbiter: &Arbiter, channel: &Channel) -> Result<Option<Phase>, CommandError> {
    arbiter.report(channel.id()).await.map(|report| report.map(|report| report.phase))
}

/// It is told once, before anything above the block is decided, and again to whoever could not hear it.
#[tokio::test(start_paused = true)]
async fn what_comes_late_is_told_and_again_to_a_channel_that_was_aside() {
    let world = World::default();
    let channels = [1, 2].map(|id| Channel::new(id, StaticRemotekey));
    let arbiter = world.start().await;
    for channel in &channels {
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
    }
    let at = world.chain.mine(vec![]);
    world.chain.mine_many(3);
    arbiter.idle().await.expect("running");
    world.log.damage_facts(0);
    let closes = channels.each_ref().map(|channel| channel.remote_tx(0, &[]));
    world.chain.hears_late(at, closes.to_vec());
    arbiter.idle().await.expect("running");
    assert!(matches!(phase(&arbiter, &channels[0]).await, Err(CommandError::SetAside { .. })));
    assert_eq!(phase(&arbiter, &channels[1]).await, Ok(Some(CLOSED)));
    world.log.heal();
    sleep(Duration::from_secs(3_600)).await;
    arbiter.idle().await.expect("running");
    assert_eq!(phase(&arbiter, &channels[0]).await, Ok(Some(CLOSED)));

    // What is of another chain by then is not told again.
    world.chain.undo(4);
    world.chain.mine_many(6);
    arbiter.idle().await.expect("running");
    for channel in &channels {
        assert_eq!(phase(&arbiter, channel).await, Ok(Some(Phase::Open)));
    }
    let other = Channel::new(3, StaticRemotekey);
    arbiter.watch_channel(other.facts.clone()).await.expect("sound facts");
    arbiter.idle().await.expect("running");
    for channel in &channels {
        assert_eq!(phase(&arbiter, channel).await, Ok(Some(Phase::Open)));
    }
}
