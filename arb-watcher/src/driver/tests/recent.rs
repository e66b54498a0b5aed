//! Facts of channels that are in use stay in memory, within bounds, and are never other ones than in the store.
use super::support::*;
use crate::driver::recent::{HTLCS, Recent};
use crate::{CommandError, Settings};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::ChannelFacts;
use arb_core::format::CommitmentFormat::StaticRemotekey;
use arb_core::ids::Slot;
use arb_core::log::{Batch, BatchId, Write};
use bitcoin::{Amount, ScriptBuf};
use std::sync::Arc;

fn facts(htlcs: u64) -> Arc<ChannelFacts> {
    let mut channel = Channel::new(1, StaticRemotekey);
    for id in 0..htlcs {
        channel.add(received(id));
    }
    Arc::new(channel.facts)
}

#[test]
fn the_oldest_make_room() {
    let mut recent = Recent::new(3);
    for slot in 0..3 {
        recent.keep(Slot(slot), facts(0));
    }
    recent.get(Slot(0));
    recent.peek(Slot(1));
    recent.keep(Slot(3), facts(0));
    let kept = |recent: &Recent| -> Vec<u32> {
        (0..5).filter(|slot| recent.peek(Slot(*slot)).is_some()).collect()
    };
    assert_eq!(kept(&recent), [0, 2, 3]);
    // One with many HTLCs counts for several.
    recent.keep(Slot(0), facts(16));
    assert_eq!(kept(&recent), [0, 3]);
    recent.keep(Slot(4), facts(33));
    assert!(kept(&recent).is_empty(), "more than all of it");
    assert_eq!(recent.size, 0);
}

#[test]
fn what_is_written_is_not_kept() {
    let mut recent = Recent::new(3);
    for slot in 0..3 {
        recent.keep(Slot(slot), facts(0));
    }
    let writes =
        vec![Write::Facts { slot: Slot(0), facts: facts(0) }, Write::Forget { slot: Slot(2) }];
    recent.outdated_by(&Batch { id: BatchId(1), writes });
    assert!(recent.peek(Slot(0)).is_none() && recent.peek(Slot(2)).is_none());
    assert!(recent.peek(Slot(1)).is_some());
    assert_eq!(recent.size, HTLCS);
}

#[tokio::test]
async fn facts_of_a_channel_in_use_are_read_once() {
    for (busy_channels, most) in [(2, 1), (0, 6)] {
        let world = World::default();
        let mut channel = Channel::new(1, StaticRemotekey);
        let settings = Settings { busy_channels, ..Settings::default() };
        let arbiter = world.start_with(settings, vec![]).await;
        arbiter.watch_channel(channel.facts.clone()).await.expect("sound facts");
        let before = world.log.record_reads();
        for number in 1..=3 {
            let update = channel.next_remote(number, &[]);
            arbiter.update_channel(channel.id(), vec![update]).await.expect("stored");
            let update = channel.revoke(number - 1);
            arbiter.update_channel(channel.id(), vec![update]).await.expect("stored");
            assert_eq!(world.log.stored_facts(0).as_ref(), Some(&channel.facts));
        }
        assert_eq!(world.log.record_reads() - before, most, "{busy_channels}");
    }
}

#[tokio::test]
async fn facts_in_memory_are_those_in_the_store() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let id = channel.id();
    let tell = |update| arbiter.update_channel(id, vec![update]);
    tell(channel.next_remote(1, &[])).await.expect("stored");
    world.log.refuse(true);
    let lost = channel.revoke(0);
    tell(lost.clone()).await.expect_err("refused");
    world.log.refuse(false);
    // As if it had never been told: the next commitment does not follow yet.
    let next = channel.next_remote(2, &[]);
    tell(next.clone()).await.expect_err("out of order");
    for update in [lost, next] {
        tell(update).await.expect("stored");
    }
    assert_eq!(world.log.stored_facts(0).as_ref(), Some(&channel.facts));
}

#[tokio::test]
async fn a_candidate_that_comes_between_two_updates_stays() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let id = channel.id();
    let tx =
        spend(channel.funding(), Amount::from_sat(1_000_000), ScriptBuf::from_bytes(vec![0x51]));
    let updates = [channel.add(offered(0)), channel.splice(&tx), channel.add(offered(1))];
    for update in updates {
        arbiter.update_channel(id, vec![update]).await.expect("stored");
    }
    assert_eq!(world.log.stored_facts(0).as_ref(), Some(&channel.facts));
}

/// A preimage makes a channel remember something, until the HTLC has left it.
#[tokio::test]
async fn a_channel_whose_payments_are_over_is_quiet_again() {
    let world = World::default();
    let mut channel = Channel::new(1, StaticRemotekey);
    let arbiter = world.watching(&channel).await;
    let id = channel.id();
    let before = world.log.record_reads();
    for payment in 0..3 {
        let (htlc, at) = (received(payment), 2 * payment + 1);
        let added = channel.add(htlc);
        let mut updates = vec![added, channel.next_local(at, &[htlc])];
        updates.extend([channel.next_remote(at, &[htlc]), channel.revoke(at - 1)]);
        arbiter.update_channel(id, updates).await.expect("stored");
        let told = arbiter.preimage(id, preimage(payment), PreimageSource::Node);
        told.await.expect("stored");
        assert_eq!(world.log.stored_changes(0).len(), 1);
        let next = vec![channel.next_local(at + 1, &[]), channel.next_remote(at + 1, &[])];
        arbiter.update_channel(id, next).await.expect("stored");
        assert_eq!(world.log.stored_changes(0).len(), 1, "the peer may still publish it");
        arbiter.update_channel(id, vec![channel.revoke(at)]).await.expect("stored");
        assert_eq!(world.log.stored_changes(0), [], "payment {payment}");
        assert_eq!(world.log.stored_facts(0).as_ref(), Some(&channel.facts));
        assert_eq!(world.log.stored_ended(0, at), [htlc]);
    }
    assert_eq!(world.log.record_reads() - before, 1, "its facts stay in memory all the while");
    drop(arbiter);
    let again = world.start().await;
    let told = again.preimage(id, preimage(0), PreimageSource::Node).await;
    assert!(matches!(told, Err(CommandError::UnknownHash(_))), "{told:?}");
}
