//! HTLCs between a channel that the arbiter watches and one that LDK has alone.
use super::fence::hand_back;
use super::{Failed, OFFERED, RECEIVED, id, three};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::HtlcLink;
use arb_core::ids::{HtlcId, HtlcRef, Preimage, Side};
use arb_tests::ldk::{Kind, Link};

type Rig = super::rig::Rig;

fn link_of(rig: &Rig, of: &Link, htlc: HtlcId) -> Result<HtlcLink, Failed> {
    Ok(rig.facts(1, of)?.htlcs.get(&htlc).ok_or("no such HTLC")?.htlc.link)
}

fn preimages(rig: &Rig) -> Result<Vec<PreimageSource>, Failed> {
    let sink = rig.sink(1);
    let told = sink.told.lock().map_err(|_| "poisoned")?;
    Ok(told.preimages.iter().map(|(_, _, source)| *source).collect())
}

/// The outgoing channel is LDK's alone: the preimage that LDK learns there serves the incoming HTLC
/// all the same, and is told before the peer hears of it.
#[test]
fn a_preimage_from_a_channel_that_is_not_watched_serves() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        let (mut rig, near, far) = three(kind)?;
        hand_back(&rig, 1, &far)?;
        let payment = rig.net.send(0, &[near, far], 20_000_000, "elsewhere")?;
        let outgoing = HtlcRef { channel: id(&far), htlc: HtlcId { id: u64::MAX, ..OFFERED } };
        assert_eq!(link_of(&rig, &near, RECEIVED)?, HtlcLink::ForwardedTo { outgoing });
        rig.net.cut(0, 1);
        rig.net.claim(&payment);
        let told = (id(&near), Preimage(payment.preimage.0), PreimageSource::Linked(RECEIVED));
        {
            let sink = rig.sink(1);
            assert_eq!(sink.told.lock().map_err(|_| "poisoned")?.preimages, [told]);
        }
        rig.net.reconnect(0, 1);
        assert!(rig.facts(1, &near)?.htlcs.is_empty());
    }
    Ok(())
}

/// Of two equal HTLCs, both forwarded to a channel that is not watched, each can be claimed.
#[test]
fn twins_that_go_elsewhere_are_both_served() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    hand_back(&rig, 1, &far)?;
    let payment = rig.net.start(0, &[near, far], 20_000_000, "elsewhere", 2)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.net.cut(0, 1);
    rig.net.claim(&payment);
    let second = HtlcId { offerer: Side::Remote, id: 1 };
    let all = preimages(&rig)?;
    for htlc in [RECEIVED, second] {
        assert!(all.contains(&PreimageSource::Linked(htlc)), "{htlc:?}: {all:?}");
    }
    rig.net.reconnect(0, 1);
    assert!(rig.facts(1, &near)?.htlcs.is_empty());
    assert_eq!(super::fence::held(&rig, 1), []);
    Ok(())
}

/// The incoming channel is LDK's alone, which resolves it. By when the outgoing HTLC has to be
/// resolved is known from LDK's own source of it.
#[test]
fn a_forward_from_a_channel_that_is_not_watched_has_its_deadline() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        let (mut rig, near, far) = three(kind)?;
        hand_back(&rig, 1, &near)?;
        let payment = rig.net.send(0, &[near, far], 20_000_000, "from elsewhere")?;
        let channels = rig.net.nodes[1].manager.list_channels();
        let details = channels.iter().find(|details| details.channel_id == near.id);
        let received = &details.ok_or("no channel")?.pending_inbound_htlcs;
        let record = rig.facts(1, &far)?.htlcs[&OFFERED].htlc;
        let HtlcLink::ForwardOf { incoming, expiry, amount } = record.link else {
            return Err(format!("{:?}", record.link).into());
        };
        assert_eq!(incoming, HtlcRef { channel: id(&near), htlc: RECEIVED });
        assert_eq!(received.iter().map(|htlc| htlc.cltv_expiry).collect::<Vec<_>>(), [expiry.0.0]);
        assert_eq!(amount, record.amount);
        rig.net.claim(&payment);
        assert_eq!(preimages(&rig)?, [PreimageSource::Downstream(OFFERED)]);
        assert!(rig.facts(1, &far)?.htlcs.is_empty());
    }
    Ok(())
}
