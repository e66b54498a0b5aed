//! A channel that the arbiter sets aside for a while: LDK waits with it, and with no other.
use super::fence::held;
use super::{Failed, Rig, id, three};
use arb_core::ids::ChannelId;
use arb_node_adapter::{Egress, Mode, Refusal, SILENCE};
use arb_tests::ldk::{Kind, Link};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

const HEIGHT: u32 = 900_000;

fn set_aside(rig: &Rig, link: &Link, is_aside: bool) -> Result<(), Failed> {
    let sink = rig.sink(1);
    let mut told = sink.told.lock().map_err(|_| "poisoned")?;
    if is_aside {
        told.aside.insert(id(link));
    } else {
        told.aside.remove(&id(link));
    }
    Ok(())
}

fn aside(rig: &Rig) -> Vec<ChannelId> {
    rig.desks.borrow()[1].recorder.set_aside().map(|(channel, _)| *channel).collect()
}

/// Whether something waits to be recorded that the recorder has not looked at.
fn is_woken(rig: &Rig) -> bool {
    let mut waiting = pin!(rig.net.nodes[1].taps.waiting());
    waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

/// One after the other, and both at once.
#[test]
fn ldk_waits_with_one_channel_and_goes_on_with_the_others() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    for round in 0..3 {
        set_aside(&rig, &near, true)?;
        let payment = rig.net.start(0, &[near], 5_000_000, &format!("waits {round}"), 1)?;
        rig.net.pump();
        for name in ["goes on", "and on"] {
            let other = rig.net.send(1, &[far], 6_000_000, &format!("{name} {round}"))?;
            rig.net.claim(&other);
        }
        rig.check(&far)?;
        assert!(rig.net.arrived(&payment).is_err());
        assert_eq!((held(&rig, 1), aside(&rig)), (vec![], vec![id(&near)]));
        assert!(rig.net.nodes[1].taps.backlog() > 0 && !is_woken(&rig));
        set_aside(&rig, &near, false)?;
        rig.net.pump();
        rig.net.arrived(&payment)?;
        rig.net.claim(&payment);
        assert_eq!(aside(&rig), []);
        assert_eq!(rig.net.nodes[1].taps.backlog(), 0);
        rig.check(&near)?;
    }
    Ok(())
}

/// An HTLC is forwarded from one to the other, whichever is set aside.
#[test]
fn a_forwarded_payment_waits_for_either_channel() -> Result<(), Failed> {
    for of_far in [false, true] {
        let (mut rig, near, far) = three(Kind::Anchors)?;
        let of = if of_far { far } else { near };
        set_aside(&rig, &of, true)?;
        let payment = rig.net.start(0, &[near, far], 5_000_000, "waits", 2)?;
        rig.net.pump();
        assert!(rig.net.arrived(&payment).is_err());
        set_aside(&rig, &of, false)?;
        rig.net.pump();
        rig.net.arrived(&payment)?;
        rig.check(&near)?;
        rig.check(&far)?;
        set_aside(&rig, &of, true)?;
        rig.net.nodes[2].manager.claim_funds(payment.preimage);
        rig.net.pump();
        set_aside(&rig, &of, false)?;
        rig.net.pump();
        assert_eq!(held(&rig, 1), []);
        assert!(rig.facts(1, &near)?.htlcs.is_empty() && rig.facts(1, &far)?.htlcs.is_empty());
    }
    Ok(())
}

/// An arbiter that only observes is not waited for for ever, and one that acts is.
#[test]
fn an_observer_that_has_set_it_aside_is_not_waited_for_for_ever() -> Result<(), Failed> {
    for mode in [Mode::Observe, Mode::Own] {
        let (mut rig, near, far) = three(Kind::Anchors)?;
        let egress = Arc::new(Egress::new(mode));
        rig.sink(1).told.lock().map_err(|_| "poisoned")?.egress = Some(egress.clone());
        egress.best_height(HEIGHT);
        set_aside(&rig, &near, true)?;
        let payment = rig.net.start(0, &[near], 5_000_000, "waits", 1)?;
        rig.net.pump();
        for height in HEIGHT..HEIGHT + SILENCE {
            egress.best_height(height);
            // The arbiter takes what is another channel's.
            let other = rig.net.send(1, &[far], 6_000_000, &format!("{height}"))?;
            rig.net.claim(&other);
            assert!(rig.net.arrived(&payment).is_err(), "{height}");
        }
        egress.best_height(HEIGHT + SILENCE);
        rig.net.pump();
        let goes = mode == Mode::Observe;
        assert_eq!(rig.net.arrived(&payment).is_ok(), goes);
        let back = rig.desks.borrow()[1].recorder.handed_back();
        assert_eq!(back, if goes { vec![id(&near)] } else { vec![] });
        assert_eq!(egress.is_left(id(&near)), goes);
        assert_eq!(held(&rig, 1), []);
    }
    Ok(())
}

/// A moment costs no channel, however often there is one.
#[test]
fn an_observer_keeps_what_it_sets_aside_for_a_moment() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let egress = Arc::new(Egress::new(Mode::Observe));
    rig.sink(1).told.lock().map_err(|_| "poisoned")?.egress = Some(egress.clone());
    for round in 1..4 {
        egress.best_height(HEIGHT + round * (SILENCE - 1));
        set_aside(&rig, &near, true)?;
        let payment = rig.net.start(0, &[near], 5_000_000, &format!("{round}"), 1)?;
        rig.net.pump();
        set_aside(&rig, &near, false)?;
        rig.net.pump();
        rig.net.arrived(&payment)?;
        rig.net.claim(&payment);
    }
    assert_eq!(rig.desks.borrow()[1].recorder.handed_back(), []);
    rig.check(&near)
}

/// Whether the peer is there, and its script for a mutual close: LDK waits for none of it.
#[test]
fn what_ldk_does_not_wait_for_holds_no_channel() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    let no = Some(Refusal::Refused("no".to_owned()));
    let answer = |rig: &Rig, answer| -> Result<(), Failed> {
        rig.sink(1).told.lock().map_err(|_| "poisoned")?.answer = answer;
        Ok(())
    };
    answer(&rig, no)?;
    rig.net.cut(0, 1);
    rig.net.pump();
    rig.net.reconnect(0, 1);
    answer(&rig, None)?;
    assert_eq!(held(&rig, 1), []);
    assert_eq!(rig.net.nodes[1].taps.backlog(), 0);
    let payment = rig.net.send(0, &[near], 5_000_000, "after")?;
    rig.net.claim(&payment);
    rig.check(&near)
}

/// Nothing of a job that is to be told later is lost where the recorder is opened again.
#[test]
fn what_waits_is_told_by_the_next_recorder() -> Result<(), Failed> {
    let (mut rig, near, _) = three(Kind::Anchors)?;
    set_aside(&rig, &near, true)?;
    let payment = rig.net.start(0, &[near], 5_000_000, "waits", 1)?;
    rig.net.pump();
    rig.restart_recorder(1)?;
    rig.net.pump();
    assert!(rig.net.arrived(&payment).is_err());
    set_aside(&rig, &near, false)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.check(&near)
}
