//! The arbiter, the recorder and LDK remember differently: one of them lost something, or was away.
use super::rig::{Rig, at_once};
use super::{CAPACITY, Failed, fence, id, three};
use arb_core::facts::{ChannelFacts, HtlcLink};
use arb_core::ids::{HtlcId, Preimage, Side};
use arb_node_adapter::facts::{CHANNELS, NAMESPACE};
use arb_node_adapter::{Egress, LeftFor, Recorder, bootstrap};
use arb_tests::ldk::{Kind, Link, MemoryKv};
use bitcoin::Amount;
use lightning::util::persist::KVStoreSync;
use lightning::util::ser::Writeable;
use std::collections::BTreeMap;
use std::sync::Arc;

const DUST: Amount = Amount::from_sat(354);

/// Payments that are over, and some that are pending.
fn used(rig: &mut Rig, link: &Link) -> Result<(), Failed> {
    for payer in [0, 1] {
        let over = rig.net.send(payer, &[*link], 21_000_000, &format!("over {payer}"))?;
        rig.net.claim(&over);
        rig.net.send(payer, &[*link], 31_000_000, &format!("pending {payer}"))?;
    }
    Ok(())
}

fn counted<'a>(ids: impl Iterator<Item = (&'a HtlcId, u64)>) -> BTreeMap<(Side, u64), usize> {
    let mut counted = BTreeMap::new();
    for (id, amount) in ids {
        *counted.entry((id.offerer, amount)).or_default() += 1;
    }
    counted
}

/// The arbiter's log is gone. With the next word of LDK's it is told of the channel again: what is pending,
/// what the peer has revoked, and the preimages.
#[test]
fn an_arbiter_that_lost_its_log_is_told_again() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    used(&mut rig, &near)?;
    rig.net.mine(7)?;
    let taken = rig.net.send(0, &[near], 12_000_000, "taken")?;
    let forwarded = rig.net.send(0, &[near, far], 13_000_000, "forwarded")?;
    // The preimages are known, and the peer does not hear of them.
    rig.net.cut(0, 1);
    rig.net.claim(&taken);
    rig.net.claim(&forwarded);
    let sink = rig.sink(1);
    let facts = rig.facts(1, &near)?;
    let ended = {
        let mut told = sink.told.lock().map_err(|_| "poisoned")?;
        told.facts.clear();
        told.numbers.clear();
        told.preimages.clear();
        std::mem::take(&mut told.ended)
    };
    rig.restart_recorder(1)?;
    // The first word is that the peer is there.
    rig.net.reconnect(0, 1);
    let again: Vec<_> = rig.desks.borrow()[1].recorder.watched_again().copied().collect();
    assert!(again.contains(&id(&near)), "{again:?}");
    rig.check(&near)?;
    // A chain client that starts at LDK's block delivers nothing before it.
    assert!(rig.facts(1, &near)?.birth > facts.birth);
    let told = sink.told.lock().map_err(|_| "poisoned")?;
    let of = |ended: &BTreeMap<_, BTreeMap<HtlcId, arb_core::facts::HtlcRecord>>| {
        let all = ended.get(&id(&near)).into_iter().flatten();
        let all = all.filter(|(_, record)| !facts.htlcs.values().any(|of| of == *record));
        counted(all.map(|(id, record)| (id, record.htlc.amount.0)))
    };
    let (before, after) = (of(&ended), of(&told.ended));
    for (htlc, count) in before {
        assert!(after.get(&htlc) >= Some(&count), "{htlc:?}: {after:?}");
    }
    let preimages = [&taken, &forwarded].map(|payment| Preimage(payment.preimage.0));
    for preimage in preimages {
        let is_told = |(of, known, _): &(_, _, _)| *of == id(&near) && *known == preimage;
        assert!(told.preimages.iter().any(is_told), "{:?}", told.preimages);
    }
    drop(told);
    let more = rig.net.send(0, &[near, far], 5_000_000, "more")?;
    rig.net.claim(&more);
    rig.check(&near)?;
    rig.check(&far)
}

/// A channel that is resolved is not told of again: LDK has no such channel.
#[test]
fn what_is_forgotten_stays_so() -> Result<(), Failed> {
    let (rig, near, _) = three(Kind::Anchors)?;
    rig.net.force_close(1, &near)?;
    let sink = rig.sink(1);
    sink.told.lock().map_err(|_| "poisoned")?.facts.remove(&id(&near));
    let mut rig = rig;
    rig.net.cut(0, 1);
    rig.net.reconnect(0, 1);
    assert!(rig.facts(1, &near).is_err());
    assert_eq!(rig.desks.borrow()[1].recorder.watched_again().count(), 0);
    let known = rig.desks.borrow()[1].recorder.numbers();
    assert!(known.iter().all(|numbers| numbers.id != id(&near)), "its record is gone");
    Ok(())
}

/// LDK goes on for a while, and of what is recorded then nothing is left.
fn alone(rig: &mut Rig, link: &Link) -> Result<ChannelFacts, Failed> {
    let before = rig.facts(1, link)?;
    let copy = Arc::new(rig.desks.borrow()[1].store.copied());
    used(rig, link)?;
    {
        let mut desks = rig.desks.borrow_mut();
        desks[1].store = copy;
        let mut told = desks[1].sink.told.lock().map_err(|_| "poisoned")?;
        told.facts.insert(id(link), before.clone());
    }
    rig.restart_recorder(1)?;
    Ok(before)
}

/// The recorder was away while LDK went on: the arbiter hears so, and LDK has the channel alone.
#[test]
fn a_record_that_is_behind_is_not_believed() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let before = alone(&mut rig, &near)?;
    let more = rig.net.send(0, &[near], 5_000_000, "more")?;
    rig.net.claim(&more);
    assert_eq!(fence::held(&rig, 1), [], "LDK goes on");
    assert_eq!(rig.facts(1, &near)?, before, "nothing is told that does not hold");
    let sink = rig.sink(1);
    let told = sink.told.lock().map_err(|_| "poisoned")?;
    let stated = told.numbers[&id(&near)];
    assert!(stated.local > before.candidates.current.local.number, "{stated:?}");
    let desks = rig.desks.borrow();
    let left: Vec<_> = desks[1].recorder.left_to_ldk().collect();
    assert_eq!(left, [(&id(&near), &LeftFor::Behind)]);
    assert_eq!(desks[1].recorder.numbers(), []);
    assert_eq!(desks[1].recorder.handed_back(), [id(&near)], "for the egress to hear of it");
    drop(desks);
    rig.restart_recorder(1)?;
    assert_eq!(rig.desks.borrow()[1].recorder.handed_back(), [id(&near)], "and after a restart");
    Ok(())
}

/// The same, and the chain goes on: what LDK writes of it is ahead of the record, and does not bring the record up.
#[test]
fn a_view_of_the_chain_brings_no_record_up() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let before = alone(&mut rig, &near)?;
    rig.net.mine(12)?;
    let more = rig.net.send(0, &[near], 5_000_000, "more")?;
    rig.net.claim(&more);
    assert_eq!(fence::held(&rig, 1), [], "LDK goes on");
    assert_eq!(rig.facts(1, &near)?, before, "nothing is told that does not hold");
    let desks = rig.desks.borrow();
    assert_eq!(
        desks[1].recorder.left_to_ldk().collect::<Vec<_>>(),
        [(&id(&near), &LeftFor::Behind)]
    );
    Ok(())
}

/// LDK's monitor refuses an update, and LDK closes; the node starts again after both. It is behind nothing.
#[test]
fn a_refused_update_is_no_update_that_was_missed() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let before = rig.net.send(1, &[near], 5_000_000, "before")?;
    let monitor = {
        let monitor = rig.net.nodes[1].monitors.get_monitor(near.id);
        monitor.map_err(|()| "no monitor")?.encode()
    };
    let commitment = rig.net.nodes[1].commitment_in(&monitor)?.ok_or("no commitment")?;
    rig.net.start(1, &[near], 5_000_000, "late", 1)?;
    rig.net.complete();
    rig.net.chain.mine_transactions(&[commitment])?;
    let last = || -> Result<u64, Failed> {
        let monitor = rig.net.nodes[0].monitors.get_monitor(near.id);
        Ok(monitor.map_err(|()| "no monitor")?.get_latest_update_id())
    };
    let number = last()?;
    rig.net.show_monitors_first(|net| {
        net.pump_one(1);
        net.complete();
    });
    assert_eq!(last()?, number + 1, "one was refused");
    rig.net.pump();
    assert_eq!(last()?, number + 2, "LDK has closed");
    let is_whole = |rig: &Rig| {
        let desks = rig.desks.borrow();
        assert_eq!(desks[0].recorder.left_to_ldk().count(), 0);
        let stated: Vec<_> = desks[0].recorder.numbers();
        assert_eq!(stated.iter().map(|of| of.id).collect::<Vec<_>>(), [id(&near)]);
        assert!(stated[0].local.0 < 10, "{stated:?}");
    };
    is_whole(&rig);
    assert_eq!(rig.sink(0).told.lock().map_err(|_| "poisoned")?.closed, [id(&near)]);
    rig.restart_node(0)?;
    rig.net.pump();
    rig.net.claim(&before);
    is_whole(&rig);
    let told = rig.sink(0);
    let told = told.told.lock().map_err(|_| "poisoned")?;
    let preimage = Preimage(before.preimage.0);
    assert!(told.preimages.iter().any(|(_, known, _)| *known == preimage));
    Ok(())
}

/// LDK's monitor is further than the record: its numbers are what the node states when it starts.
#[test]
fn the_node_states_how_far_ldk_is() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let before = alone(&mut rig, &near)?.candidates.current.local.number;
    let stated = |rig: &Rig| rig.desks.borrow()[1].recorder.numbers()[0].local;
    assert_eq!(stated(&rig), before, "there is no such monitor");
    let monitor = rig.net.nodes[1].monitors.get_monitor(near.id).map_err(|()| "no monitor")?;
    let name = monitor.persistence_key().to_string();
    rig.desks.borrow()[1].store.put_monitor(&name, monitor.encode())?;
    drop(monitor);
    assert!(stated(&rig) > before);
    Ok(())
}

/// The record is older than the monitor, and the arbiter knows nothing: the monitor is the newer, signed by
/// both, and the channel is adopted from it.
#[test]
fn a_record_that_is_behind_is_replaced() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    alone(&mut rig, &near)?;
    let sink = rig.sink(1);
    sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
    let node = &rig.net.nodes[1];
    let adoption = {
        let monitor = node.monitors.get_monitor(near.id).map_err(|()| "no monitor")?;
        let channels = node.manager.list_channels();
        bootstrap(&monitor, &monitor.encode(), &*node.keys, &channels[0], DUST)?
    };
    assert_eq!(
        at_once(rig.desks.borrow_mut()[1].recorder.adopt(
            vec![adoption],
            &*sink,
            &Egress::default()
        )),
        []
    );
    assert_eq!(rig.facts(1, &near)?.htlcs.len(), 2);
    let links = rig.facts(1, &near)?;
    assert!(links.htlcs.values().all(|record| record.htlc.link != HtlcLink::Final));
    let more = rig.net.send(0, &[near], 5_000_000, "more")?;
    rig.net.claim(&more);
    assert_eq!(fence::held(&rig, 1), []);
    assert_eq!(rig.desks.borrow()[1].recorder.left_to_ldk().count(), 0);
    Ok(())
}

/// Nothing is lost when the recorder starts anew with a store of its own.
#[test]
fn a_recorder_without_records_leaves_channels_to_ldk() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    {
        let taps = rig.net.nodes[1].taps.clone();
        let mut desks = rig.desks.borrow_mut();
        desks[1].store = Arc::new(MemoryKv::default());
        desks[1].recorder = Recorder::open(taps, desks[1].store.clone(), &[])?;
    }
    let more = rig.net.send(0, &[near], 5_000_000, "more")?;
    rig.net.claim(&more);
    let desks = rig.desks.borrow();
    let mut left = desks[1].recorder.left_to_ldk();
    assert!(left.any(|left| left == (&id(&near), &LeftFor::Unrecorded)));
    Ok(())
}

/// A record that cannot be read costs its own channel: LDK has it alone, and the node hears of it.
#[test]
fn an_unreadable_record_costs_one_channel() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    rig.desks.borrow()[1].store.write(NAMESPACE, CHANNELS, &id(&near).to_string(), vec![99])?;
    rig.restart_node(1)?;
    rig.net.pump();
    {
        let desks = rig.desks.borrow();
        let recorder = &desks[1].recorder;
        assert_eq!(recorder.unreadable().map(|(of, _)| *of).collect::<Vec<_>>(), [id(&near)]);
        let left: Vec<_> = recorder.left_to_ldk().map(|(of, _)| *of).collect();
        assert_eq!(left, [id(&near)]);
        let mut why = recorder.left_to_ldk().map(|(_, why)| why);
        assert!(why.all(|why| matches!(why, LeftFor::Unreadable(_))));
        assert_eq!(recorder.handed_back(), [id(&near)]);
        let stated = recorder.numbers();
        assert_eq!(stated.iter().map(|of| of.id).collect::<Vec<_>>(), [id(&far)]);
    }
    fence::hand_back(&rig, 1, &near)?;
    for link in [near, far] {
        let link = rig.net.renamed(&link)?;
        let payment = rig.net.send(1, &[link], 5_000_000, &format!("{}", link.id))?;
        rig.net.claim(&payment);
        assert_eq!(fence::held(&rig, 1), []);
    }
    assert!(rig.facts(1, &far)?.candidates.current.local.number.0 > 1, "followed");
    Ok(())
}
