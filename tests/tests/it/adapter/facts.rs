//! Facts from LDK: told whole and verified, HTLCs under their own ids, before LDK goes on.
mod again;
mod aside;
mod bootstrap;
mod elsewhere;
mod fence;
mod gone;
mod openings;
mod rig;
mod signals;
mod splices;
mod stale;
mod together;
mod without;

use super::Failed;
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::HtlcLink;
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, Preimage, Side};
use arb_node_adapter::Refusal;
use arb_tests::ldk::{Kind, Link};
use bitcoin::Amount;
use lightning::events::Event;
use rig::{Keeping, Rig};

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const OFFERED: HtlcId = HtlcId { offerer: Side::Local, id: 0 };
const RECEIVED: HtlcId = HtlcId { offerer: Side::Remote, id: 0 };

fn three(kind: Kind) -> Result<(Rig, Link, Link), Failed> {
    three_with(kind, Keeping::Apart)
}

fn three_with(kind: Kind, keeping: Keeping) -> Result<(Rig, Link, Link), Failed> {
    let mut rig = Rig::with(3, kind, keeping)?;
    let near = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let far = rig.net.open(1, 2, CAPACITY, 0)?;
    rig.check(&near)?;
    rig.check(&far)?;
    Ok((rig, near, far))
}

const fn id(link: &Link) -> ChannelId {
    ChannelId(link.id.0)
}

/// A payment through three nodes: links while it is pending, preimages when it is taken, nothing
/// after it.
fn forwards(kind: Kind) -> Result<(), Failed> {
    let (mut rig, near, far) = three(kind)?;
    let payment = rig.net.send(0, &[near, far], 20_000_000, "paid")?;
    rig.check(&near)?;
    rig.check(&far)?;
    let link = |node, of: &Link, htlc| -> Result<HtlcLink, Failed> {
        let facts = rig.facts(node, of)?;
        Ok(facts.htlcs.get(&htlc).ok_or("no such HTLC")?.htlc.link)
    };
    assert_eq!(link(0, &near, OFFERED)?, HtlcLink::OwnPayment);
    let outgoing = HtlcRef { channel: id(&far), htlc: OFFERED };
    assert_eq!(link(1, &near, RECEIVED)?, HtlcLink::ForwardedTo { outgoing });
    let incoming = HtlcRef { channel: id(&near), htlc: RECEIVED };
    let record = rig.facts(1, &near)?.htlcs[&RECEIVED].htlc;
    let (expiry, amount) = (record.expiry, record.amount);
    assert_eq!(link(1, &far, OFFERED)?, HtlcLink::ForwardOf { incoming, expiry, amount });
    assert_eq!(link(2, &far, RECEIVED)?, HtlcLink::Uncommitted);

    rig.net.claim(&payment);
    let preimage = Preimage(payment.preimage.0);
    let told = |node: usize| -> Result<_, Failed> {
        Ok(rig.sink(node).told.lock().map_err(|_| "poisoned")?.preimages.clone())
    };
    assert_eq!(told(2)?, [(id(&far), preimage, PreimageSource::Node)]);
    assert_eq!(
        told(1)?,
        [
            (id(&near), preimage, PreimageSource::Linked(RECEIVED)),
            (id(&far), preimage, PreimageSource::Downstream(OFFERED)),
        ]
    );
    assert_eq!(told(0)?, [(id(&near), preimage, PreimageSource::Downstream(OFFERED))]);
    rig.check(&near)?;
    rig.check(&far)?;
    for (node, link) in [(0, &near), (1, &near), (1, &far), (2, &far)] {
        let facts = rig.facts(node, link)?;
        assert!(facts.htlcs.is_empty());
        let revoked = facts.candidates.current.remote.number.0.checked_sub(1);
        assert_eq!(facts.secrets.last().map(|number| number.0), revoked, "every secret is told");
        assert!(revoked >= Some(1));
    }
    Ok(())
}

#[test]
fn a_forwarded_payment_with_static_remotekey() -> Result<(), Failed> {
    forwards(Kind::StaticRemotekey)
}

#[test]
fn a_forwarded_payment_with_anchors() -> Result<(), Failed> {
    forwards(Kind::Anchors)
}

#[test]
fn a_forwarded_payment_with_zero_fee() -> Result<(), Failed> {
    forwards(Kind::ZeroFee)
}

/// Two parts of one payment, equal in everything but their ids, claimed together.
#[test]
fn twins_are_two_and_keep_their_links() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let payment = rig.net.start(0, &[near, far], 20_000_000, "twins", 2)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.check(&near)?;
    rig.check(&far)?;
    let facts = rig.facts(1, &near)?;
    let links: Vec<HtlcLink> = facts.htlcs.values().map(|record| record.htlc.link).collect();
    let to = |id_of: u64| {
        let htlc = HtlcId { offerer: Side::Local, id: id_of };
        HtlcLink::ForwardedTo { outgoing: HtlcRef { channel: id(&far), htlc } }
    };
    assert!(links == [to(0), to(1)] || links == [to(1), to(0)], "one each: {links:?}");
    rig.net.claim(&payment);
    rig.check(&near)?;
    rig.check(&far)?;
    assert!(rig.facts(1, &near)?.htlcs.is_empty());
    assert!(rig.facts(1, &far)?.htlcs.is_empty());
    Ok(())
}

/// A second payment of the same hash, amount and expiry: the payee fails it and keeps the first.
/// The one that stays is the first one, at every node.
#[test]
fn of_twins_the_right_one_stays() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let first = rig.net.send(0, &[near, far], 20_000_000, "same")?;
    rig.net.start(0, &[near, far], 20_000_000, "same", 1)?;
    rig.net.pump();
    for (node, link) in [(1, &near), (2, &far)] {
        let most = rig.sink(node).told.lock().map_err(|_| "poisoned")?.most_twins;
        assert_eq!(most, 2, "node {node} had both");
        let facts = rig.facts(node, link)?;
        assert_eq!(facts.htlcs.keys().copied().collect::<Vec<_>>(), [RECEIVED]);
    }
    rig.check(&near)?;
    rig.check(&far)?;
    rig.net.claim(&first);
    rig.check(&near)?;
    assert!(rig.facts(1, &near)?.htlcs.is_empty());
    Ok(())
}

/// HTLCs below the dust limit have no output; the facts have them.
#[test]
fn trimmed_htlcs_are_told() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors, Kind::ZeroFee] {
        let (mut rig, near, far) = three(kind)?;
        let dust = rig.net.send(0, &[near, far], 123_456, "dust")?;
        rig.check(&near)?;
        let facts = rig.facts(1, &near)?;
        assert_eq!(facts.htlcs.len(), 1);
        assert_eq!(facts.candidates.current.local.htlcs, [RECEIVED]);
        assert!(facts.candidates.current.local.htlc_signatures.is_empty());
        rig.net.claim(&dust);
        rig.check(&near)?;
        rig.check(&far)?;
    }
    Ok(())
}

/// As long as the arbiter takes nothing, the peer hears nothing.
#[test]
fn ldk_waits_for_the_receipt() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let before = rig.facts(0, &near)?;
    let sink = rig.sink(1);
    let answer = |answer| -> Result<(), Failed> {
        sink.told.lock().map_err(|_| "poisoned")?.answer = answer;
        Ok(())
    };
    answer(Some(Refusal::Later("the disk is full".to_owned())))?;
    let payment = rig.net.start(0, &[near], 5_000_000, "late", 1)?;
    rig.net.pump();
    assert_eq!(rig.net.nodes[1].taps.backlog(), 1);
    let waiting = rig.facts(0, &near)?;
    assert_eq!(waiting.candidates.current.remote, before.candidates.current.remote);
    assert!(rig.net.arrived(&payment).is_err());
    answer(None)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.check(&near)
}

/// What the arbiter refuses holds this channel, and no other.
#[test]
fn a_refusal_holds_one_channel() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let sink = rig.sink(1);
    let answer = |answer| -> Result<(), Failed> {
        sink.told.lock().map_err(|_| "poisoned")?.answer = answer;
        Ok(())
    };
    answer(Some(Refusal::Refused("no".to_owned())))?;
    let payment = rig.net.start(0, &[near], 5_000_000, "never", 1)?;
    rig.net.pump();
    answer(None)?;
    rig.net.pump();
    assert!(rig.net.arrived(&payment).is_err());
    let desks = rig.desks.borrow();
    let held: Vec<ChannelId> = desks[1].recorder.held().map(|held| held.channel).collect();
    assert_eq!(held, [id(&near)]);
    drop(desks);
    let other = rig.net.send(1, &[far], 5_000_000, "other")?;
    rig.net.claim(&other);
    let sent = |event: &Event| matches!(event, Event::PaymentSent { .. }).then_some(());
    assert_eq!(rig.net.nodes[1].take_event(sent), Some(()));
    Ok(())
}

/// A crash between the arbiter's receipt and the recorder's own record: the same update is
/// translated again, the same way, and told twice.
#[test]
fn being_told_twice_changes_nothing() -> Result<(), Failed> {
    for keeping in [Keeping::Apart, Keeping::Together] {
        told_twice(keeping)?;
    }
    Ok(())
}

fn told_twice(keeping: Keeping) -> Result<(), Failed> {
    let (mut rig, near, far) = three_with(Kind::Anchors, keeping)?;
    for (round, amount) in [(0, 20_000_000), (1, 21_000_000), (2, 123_000)] {
        let name = format!("round {round}");
        let payment = rig.net.start(0, &[near, far], amount, &name, 2)?;
        // Every record of the middle node fails once before it is written.
        crash_everywhere(&rig)?;
        rig.net.arrived(&payment)?;
        rig.check(&near)?;
        rig.check(&far)?;
        rig.net.nodes[2].manager.claim_funds(payment.preimage);
        crash_everywhere(&rig)?;
        rig.check(&near)?;
        rig.check(&far)?;
        assert!(rig.facts(1, &near)?.htlcs.is_empty());
    }
    let sink = rig.sink(1);
    let told = sink.told.lock().map_err(|_| "poisoned")?;
    assert_eq!(told.together > 0, keeping == Keeping::Together);
    Ok(())
}

fn crash_everywhere(rig: &Rig) -> Result<(), Failed> {
    let store = rig.desks.borrow()[1].store.clone();
    let mut crashes = 0;
    loop {
        store.fail_after(Some(0));
        rig.net.pump();
        if rig.net.nodes[1].taps.backlog() == 0 {
            break;
        }
        crashes += 1;
        rig.restart_recorder(1)?;
        // One job, which may take four records: a hash, the incoming channel's, its own and LDK's.
        store.fail_after(Some(4));
        rig.net.pump();
    }
    store.fail_after(None);
    assert!(crashes > 1, "{crashes} crashes");
    Ok(())
}

/// The middle node stops after every number of writes while it forwards two equal HTLCs, and starts
/// again from its disk: LDK says what was not written once more, and the payment goes on.
#[test]
fn a_node_that_stops_anywhere_goes_on() -> Result<(), Failed> {
    for (writes, keeping) in [(24, Keeping::Apart), (12, Keeping::Together)]
        .into_iter()
        .flat_map(|(most, keeping)| (0..most).map(move |writes| (writes, keeping)))
    {
        let (mut rig, near, far) = three_with(Kind::Anchors, keeping)?;
        let store = rig.desks.borrow()[1].store.clone();
        store.fail_after(Some(writes));
        let payment = rig.net.start(0, &[near, far], 20_000_000, "stopped", 2)?;
        rig.net.pump();
        store.fail_after(None);
        rig.restart_node(1)?;
        rig.net.pump();
        rig.net.arrived(&payment)?;
        rig.check(&near)?;
        rig.check(&far)?;
        store.fail_after(Some(writes));
        rig.net.claim(&payment);
        store.fail_after(None);
        rig.restart_node(1)?;
        rig.net.pump();
        rig.check(&near)?;
        rig.check(&far)?;
        assert!(rig.facts(1, &near)?.htlcs.is_empty(), "{keeping:?}, after {writes} writes");
    }
    Ok(())
}

/// A channel that LDK closes is told, and so are the scripts of a mutual close.
#[test]
fn closes_are_told() -> Result<(), Failed> {
    let (rig, near, far) = three(Kind::Anchors)?;
    rig.net.force_close(0, &near)?;
    let told = rig.sink(0);
    assert_eq!(told.told.lock().map_err(|_| "poisoned")?.closed, [id(&near)]);
    let peer = rig.net.nodes[2].id();
    rig.net.nodes[1].manager.close_channel(&far.id, &peer).map_err(|_| "not closed")?;
    rig.net.pump();
    for (node, other) in [(1, 2), (2, 1)] {
        let (here, there) = (rig.facts(node, &far)?.shutdown, rig.facts(other, &far)?.shutdown);
        assert!(here.local.is_some() && here.remote.is_some());
        assert_eq!(here.local, there.remote);
    }
    Ok(())
}
