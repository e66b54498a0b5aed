//! A node that stops between the arbiter's receipt and LDK's monitor, and whose channel manager was written before:
//! LDK has forgotten what it was about to say, which no peer has heard, and says something else.
use super::rig::{Keeping, Rig};
use super::{CAPACITY, Failed, fence, id, three_with};
use arb_core::facts::ChannelFacts;
use arb_tests::ldk::{Kind, Link};
use lightning::ln::types::ChannelId;

/// Whether LDK has the channel at this node. One that it has closed is told so, and is not held.
fn is_open(rig: &Rig, node: usize, link: &Link) -> Result<bool, Failed> {
    let is_it = |of: ChannelId| of == link.id;
    let channels = rig.net.nodes[node].manager.list_channels();
    let open = channels.iter().any(|details| is_it(details.channel_id));
    assert_eq!(fence::held(rig, node), []);
    assert_eq!(rig.desks.borrow()[node].recorder.left_to_ldk().count(), 0);
    if !open {
        let sink = rig.sink(node);
        assert!(sink.told.lock().map_err(|_| "poisoned")?.closed.contains(&id(link)));
    }
    Ok(open)
}

fn next(rig: &Rig, link: &Link) -> Result<(ChannelFacts, bool), Failed> {
    let facts = rig.facts(1, link)?;
    let next = facts.candidates.current.remote_next.is_some();
    Ok((facts, next))
}

/// The node's own payment is lost before the peer hears of it, and it pays something else.
#[test]
fn a_manager_that_was_not_written_loses_no_channel() -> Result<(), Failed> {
    for written in [0, 1] {
        let (mut rig, _, far) = three_with(Kind::Anchors, Keeping::Apart)?;
        let before = rig.facts(1, &far)?;
        rig.keep_manager(1);
        let store = rig.desks.borrow()[1].store.clone();
        store.fail_after(Some(written));
        rig.net.start(1, &[far], 20_000_000, "lost", 1)?;
        rig.net.pump();
        let (facts, told) = next(&rig, &far)?;
        assert!(told && facts.htlcs.len() == 1, "the arbiter has it");
        store.fail_after(None);
        rig.restart_stale(1)?;
        rig.net.pump();
        assert!(is_open(&rig, 1, &far)?);
        let other = rig.net.send(1, &[far], 21_000_000, "other")?;
        rig.check(&far)?;
        assert_eq!(rig.facts(1, &far)?.htlcs.len(), 1, "the lost one is gone");
        rig.net.claim(&other);
        rig.check(&far)?;
        let facts = rig.facts(1, &far)?;
        assert!(facts.htlcs.is_empty());
        let current = |of: &ChannelFacts| of.candidates.current.remote.number;
        assert!(current(&facts) > current(&before));
    }
    Ok(())
}

/// What the peer says again is signed anew: the same commitment with other signatures.
#[test]
fn what_the_peer_says_again_is_taken() -> Result<(), Failed> {
    for (written, keeping) in [(0, Keeping::Apart), (1, Keeping::Apart), (0, Keeping::Together)] {
        let (mut rig, near, _) = three_with(Kind::Anchors, keeping)?;
        rig.keep_manager(1);
        let store = rig.desks.borrow()[1].store.clone();
        store.fail_after(Some(written));
        let payment = rig.net.start(0, &[near], 20_000_000, "said twice", 1)?;
        rig.net.pump();
        store.fail_after(None);
        rig.restart_stale(1)?;
        rig.net.pump();
        assert!(is_open(&rig, 1, &near)?);
        rig.net.arrived(&payment)?;
        rig.check(&near)?;
        rig.net.claim(&payment);
        rig.check(&near)?;
    }
    Ok(())
}

/// What was to be forwarded is lost where it was to go, and the peer that it came from has closed meanwhile or
/// fails it: nothing stays of it.
#[test]
fn another_payment_of_a_smaller_amount_takes_its_place() -> Result<(), Failed> {
    let mut rig = Rig::with(2, Kind::StaticRemotekey, Keeping::Apart)?;
    let link = rig.net.open(1, 0, CAPACITY, 400_000_000)?;
    let stays = rig.net.send(0, &[link], 30_000_000, "stays")?;
    rig.keep_manager(1);
    let store = rig.desks.borrow()[1].store.clone();
    // Claimed: the update has a preimage as well.
    store.fail_after(Some(0));
    rig.net.start(1, &[link], 123_456, "dust", 1)?;
    rig.net.pump();
    store.fail_after(None);
    rig.restart_stale(1)?;
    rig.net.pump();
    rig.net.claim(&stays);
    assert!(is_open(&rig, 1, &link)?);
    rig.check(&link)?;
    let other = rig.net.send(1, &[link], 456_000, "other dust")?;
    rig.check(&link)?;
    rig.net.claim(&other);
    rig.check(&link)
}

/// A payment through all three nodes, and one over each channel, while the middle node stops after so many writes in the
/// part that is named, each time with an old manager. `false`: LDK has closed a channel.
fn stops(keeping: Keeping, writes: u64, claiming: bool) -> Result<bool, Failed> {
    let (mut rig, near, far) = three_with(Kind::Anchors, keeping)?;
    let store = rig.desks.borrow()[1].store.clone();
    let both = |rig: &Rig| Ok::<_, Failed>(is_open(rig, 1, &near)? && is_open(rig, 1, &far)?);
    let limit = |rig: &Rig| {
        rig.keep_manager(1);
        store.fail_after(Some(writes));
    };
    if !claiming {
        limit(&rig);
    }
    let payment = rig.net.start(0, &[near, far], 20_000_000, "stopped", 1)?;
    rig.net.pump();
    if !claiming {
        store.fail_after(None);
        rig.restart_stale(1)?;
        rig.net.pump();
        if !both(&rig)? {
            return Ok(false);
        }
    }
    // LDK may have failed what it had not offered yet.
    let arrived = rig.net.arrived(&payment).is_ok();
    assert!(arrived || !claiming);
    if claiming {
        limit(&rig);
    }
    if arrived {
        rig.net.claim(&payment);
    }
    if claiming {
        store.fail_after(None);
        rig.restart_stale(1)?;
        rig.net.pump();
        if !both(&rig)? {
            return Ok(false);
        }
    }
    // What LDK has forgotten stays with the arbiter until LDK says something else of the channel.
    for link in [near, far] {
        let more = rig.net.send(1, &[link], 7_000_000, &format!("more {}", link.id))?;
        rig.check(&link)?;
        rig.net.claim(&more);
        rig.check(&link)?;
        let left = rig.facts(1, &link)?.htlcs;
        assert!(left.is_empty(), "{keeping:?}, after {writes} writes");
    }
    Ok(true)
}

/// The middle node stops after every number of writes while it forwards, and its manager is older each time.
#[test]
fn a_node_with_an_old_manager_that_stops_anywhere_goes_on() -> Result<(), Failed> {
    for claiming in [false, true] {
        let mut went_on = 0;
        for (most, keeping) in [(20, Keeping::Apart), (10, Keeping::Together)] {
            for writes in 0..most {
                went_on += u32::from(stops(keeping, writes, claiming)?);
            }
        }
        assert!(went_on > 10, "{went_on}");
    }
    Ok(())
}
