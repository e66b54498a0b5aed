//! An arbiter that takes nothing any more: where it only observes, LDK does not wait for it for ever.
use super::fence::held;
use super::{Failed, Rig, id, three};
use arb_core::ids::ChannelId;
use arb_node_adapter::{Egress, ForceClose, LeftFor, Mode, Refusal, SILENCE};
use arb_tests::ldk::{Kind, Link, Payment};
use std::sync::Arc;

const HEIGHT: u32 = 900_000;

/// Node 1's arbiter takes nothing.
fn stopped(mode: Mode) -> Result<(Rig, [Link; 2], Arc<Egress>), Failed> {
    let (rig, near, far) = three(Kind::Anchors)?;
    let egress = Arc::new(Egress::new(mode));
    egress.best_height(HEIGHT);
    rig.sink(1).told.lock().map_err(|_| "poisoned")?.egress = Some(egress.clone());
    takes(&rig, false)?;
    Ok((rig, [near, far], egress))
}

fn takes(rig: &Rig, takes: bool) -> Result<(), Failed> {
    let later = Refusal::Later("the disk is full".to_owned());
    rig.sink(1).told.lock().map_err(|_| "poisoned")?.answer = (!takes).then_some(later);
    Ok(())
}

/// A payment to node 1 and one from it, each over one channel.
fn pays(rig: &mut Rig, [near, far]: [Link; 2], name: &str) -> Result<[Payment; 2], Failed> {
    let theirs = rig.net.start(0, &[near], 5_000_000, &format!("theirs {name}"), 1)?;
    let ours = rig.net.start(1, &[far], 6_000_000, &format!("ours {name}"), 1)?;
    rig.net.pump();
    Ok([theirs, ours])
}

fn left(rig: &Rig) -> Vec<(ChannelId, LeftFor)> {
    let desks = rig.desks.borrow();
    desks[1].recorder.left_to_ldk().map(|(of, why)| (*of, why.clone())).collect()
}

fn handed_back(rig: &Rig) -> Vec<ChannelId> {
    rig.desks.borrow()[1].recorder.handed_back()
}

fn sorted(links: [Link; 2]) -> Vec<ChannelId> {
    let mut all = links.map(|link| id(&link)).to_vec();
    all.sort_unstable();
    all
}

/// The arbiter is over: LDK goes on at once with all that waits, and for good.
#[test]
fn ldk_goes_on_when_the_arbiter_has_ended() -> Result<(), Failed> {
    for mode in [Mode::Observe, Mode::Own] {
        let (mut rig, links, egress) = stopped(mode)?;
        let payments = pays(&mut rig, links, "once")?;
        assert!(payments.iter().all(|payment| rig.net.arrived(payment).is_err()), "LDK waits");
        assert_eq!(handed_back(&rig), []);
        egress.ended();
        rig.net.pump();
        for payment in &payments {
            rig.net.arrived(payment)?;
            rig.net.claim(payment);
        }
        assert_eq!(held(&rig, 1), []);
        assert_eq!(handed_back(&rig), sorted(links));
        assert_eq!(
            left(&rig),
            sorted(links).into_iter().map(|of| (of, LeftFor::Observed)).collect::<Vec<_>>()
        );
        assert!(
            links.iter().all(|link| egress.is_left(id(link))),
            "nor does anything of it go out"
        );
        assert_eq!(rig.net.nodes[1].taps.backlog(), 0);
        assert_eq!(
            rig.net.nodes[1]
                .monitors
                .list_pending_monitor_updates()
                .values()
                .map(Vec::len)
                .sum::<usize>(),
            0
        );
        // There is an arbiter again, and it has none of them.
        takes(&rig, true)?;
        rig.restart_node(1)?;
        rig.net.pump();
        assert_eq!(handed_back(&rig), sorted(links));
        assert_eq!(rig.desks.borrow()[1].recorder.numbers(), []);
    }
    Ok(())
}

/// What takes nothing for a while may have a full disk: some blocks later LDK goes on.
#[test]
fn ldk_does_not_wait_for_ever_for_an_observer() -> Result<(), Failed> {
    let (mut rig, links, egress) = stopped(Mode::Observe)?;
    let payments = pays(&mut rig, links, "once")?;
    for height in HEIGHT..HEIGHT + SILENCE {
        egress.best_height(height);
        rig.net.pump();
        assert!(rig.net.arrived(&payments[0]).is_err(), "{height}");
    }
    assert_eq!(handed_back(&rig), []);
    egress.best_height(HEIGHT + SILENCE);
    rig.net.pump();
    payments.iter().try_for_each(|payment| rig.net.arrived(payment))?;
    assert_eq!(handed_back(&rig), sorted(links));
    Ok(())
}

/// Whenever it takes something, its time begins anew, and nothing is lost.
#[test]
fn a_short_time_costs_no_channel() -> Result<(), Failed> {
    let (mut rig, links, egress) = stopped(Mode::Observe)?;
    for round in 0..3 {
        takes(&rig, false)?;
        let payments = pays(&mut rig, links, &format!("{round}"))?;
        egress.best_height(HEIGHT + (round + 1) * (SILENCE - 1));
        rig.net.pump();
        assert!(payments.iter().all(|payment| rig.net.arrived(payment).is_err()), "LDK waits");
        takes(&rig, true)?;
        rig.net.pump();
        for payment in &payments {
            rig.net.arrived(payment)?;
            rig.net.claim(payment);
        }
    }
    assert_eq!(handed_back(&rig), []);
    links.iter().try_for_each(|link| rig.check(link))
}

/// Where the arbiter is to act, LDK waits for it.
#[test]
fn whoever_acts_is_waited_for() -> Result<(), Failed> {
    for mode in [Mode::Own, Mode::Guard { before: 18 }] {
        let (mut rig, links, egress) = stopped(mode)?;
        let payments = pays(&mut rig, links, "once")?;
        egress.best_height(HEIGHT + 100);
        rig.net.pump();
        assert!(payments.iter().all(|payment| rig.net.arrived(payment).is_err()), "LDK waits");
        assert_eq!(handed_back(&rig), []);
        takes(&rig, true)?;
        rig.net.pump();
        payments.iter().try_for_each(|payment| rig.net.arrived(payment))?;
        links.iter().try_for_each(|link| rig.check(link))?;
    }
    Ok(())
}

/// LDK, which hears nothing.
struct Deaf;

impl ForceClose for Deaf {
    fn force_close(&self, _: ChannelId) -> Result<(), String> {
        Ok(())
    }
}

/// Our commitment of a channel may be out: LDK must not revoke it, though nobody is there. The others go on.
#[test]
fn what_may_be_out_is_not_revoked() -> Result<(), Failed> {
    let (mut rig, links, egress) = stopped(Mode::Own)?;
    let fence = rig.desks.borrow()[1].recorder.fence(Deaf);
    fence.force_close(id(&links[0]))?;
    let before = rig.facts(0, &links[0])?.candidates.current.remote.number;
    egress.ended();
    let payments = pays(&mut rig, links, "once")?;
    assert!(rig.net.arrived(&payments[0]).is_err());
    rig.net.arrived(&payments[1])?;
    assert_eq!(handed_back(&rig), [id(&links[1])]);
    assert_eq!(held(&rig, 1).len(), 1);
    assert_eq!(rig.facts(0, &links[0])?.candidates.current.remote.number, before, "not revoked");
    // Once LDK has closed it, it goes on.
    rig.net.force_close(1, &links[0])?;
    rig.net.pump();
    assert_eq!(held(&rig, 1), []);
    let pending = rig.net.nodes[1].monitors.list_pending_monitor_updates();
    assert_eq!(pending.values().map(Vec::len).sum::<usize>(), 0);
    Ok(())
}
