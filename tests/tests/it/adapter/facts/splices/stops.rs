//! Nodes that stop anywhere in a splice, and start again from what they wrote.
use super::super::rig::{Keeping, Rig};
use super::super::{CAPACITY, Failed};
use super::{TAKEN, both, fundings};
use arb_tests::ldk::{Kind, Link, Net};

/// After what the second node stops.
#[derive(Clone, Copy, Debug)]
enum After {
    /// So many things that the arbiter has taken: nothing of the last one is recorded.
    Taken(u64),
    /// So many writes of the node's store: records and LDK's monitors.
    Written(u64),
}

/// The part of a splice in which it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Both sign the first commitments of the new funding output, and its transaction.
    Negotiated,
    /// An HTLC comes and one goes, on both funding outputs.
    Meanwhile,
    /// A block holds the transaction, and the nodes are not connected.
    Confirmed,
    /// The nodes tell each other, and go on with one funding output.
    Locked,
}

struct Stopping {
    rig: Rig,
    part: Part,
    after: After,
    /// Whether there was anything left that it stopped before.
    stopped: bool,
}

impl Stopping {
    fn limit(&self, after: Option<After>) -> Result<(), Failed> {
        let (taken, written) = match after {
            None => (None, None),
            Some(After::Taken(most)) => (Some(most), None),
            Some(After::Written(most)) => (None, Some(most)),
        };
        self.rig.sink(1).told.lock().map_err(|_| "poisoned")?.takes = taken;
        self.rig.desks.borrow()[1].store.fail_after(written);
        Ok(())
    }

    /// Does this; in the part in which the node stops, as far as it gets, and it starts again.
    fn during(
        &mut self,
        part: Part,
        act: impl FnOnce(&mut Rig) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        if part != self.part {
            return act(&mut self.rig);
        }
        self.limit(Some(self.after))?;
        act(&mut self.rig)?;
        self.stopped = self.rig.net.nodes[1].taps.backlog() > 0;
        self.limit(None)?;
        self.rig.restart_node(1)?;
        self.rig.net.pump();
        Ok(())
    }
}

/// Signatures that are still asked for.
fn sign(rig: &Rig, link: &Link) -> Result<(), Failed> {
    for node in [0, 1] {
        rig.net.sign_splice(node, link)?;
    }
    rig.net.pump();
    Ok(())
}

/// A splice that one of the nodes asks for, with HTLCs in both directions; true if the second node stopped before
/// anything was done.
fn stops(keeping: Keeping, asks: usize, part: Part, after: After) -> Result<bool, Failed> {
    let mut rig = Rig::with(2, Kind::Anchors, keeping)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let gone = rig.net.send(0, &[link], 20_000_000, "gone")?;
    let stays = rig.net.send(1, &[link], 30_000_000, "stays")?;
    let first = fundings(&rig.facts(1, &link)?);
    let mut all = Stopping { rig, part, after, stopped: false };

    let ask = |rig: &mut Rig| Ok(rig.net.begin_splice(asks, &link, Net::taking(TAKEN))?);
    all.during(Part::Negotiated, ask)?;
    sign(&all.rig, &link)?;
    if both(&all.rig, &link)? == first {
        // It was given up when the connection was lost.
        ask(&mut all.rig)?;
        sign(&all.rig, &link)?;
    }
    let [_, second] = both(&all.rig, &link)?[..] else { return Err("no splice".into()) };

    let mut new = None;
    all.during(Part::Meanwhile, |rig| {
        let payment = rig.net.start(0, &[link], 9_000_000, "new", 1)?;
        rig.net.pump();
        // An event that was handled does not come again.
        let arrived = rig.net.arrived(&payment).is_ok();
        rig.net.claim(&gone);
        new = Some((payment, arrived));
        Ok(())
    })?;
    let (payment, arrived) = new.ok_or("no payment")?;
    assert!(arrived || all.rig.net.arrived(&payment).is_ok());
    assert_eq!(both(&all.rig, &link)?, [first[0], second]);
    assert_eq!(all.rig.facts(1, &link)?.htlcs.len(), 2);

    all.rig.net.cut(0, 1);
    all.during(Part::Confirmed, |rig| Ok(rig.net.mine(1)?))?;
    all.during(Part::Locked, |rig| {
        rig.net.reconnect(0, 1);
        Ok(())
    })?;
    let rig = &mut all.rig;
    assert_eq!(both(rig, &link)?, [second, first[0]], "it is locked");
    let link = rig.net.renamed(&link)?;
    rig.net.claim(&stays);
    let last = rig.net.send(1, &[link], 7_000_000, "last")?;
    rig.net.claim(&last);
    assert_eq!(both(rig, &link)?, [second, first[0]]);
    assert_eq!(rig.facts(1, &link)?.htlcs.len(), 1);
    Ok(all.stopped)
}

/// Every place in which the node can stop in this part; at the last one nothing was left to be done.
fn anywhere(part: Part, least: u64) -> Result<(), Failed> {
    type Way = (Keeping, fn(u64) -> After);
    let ways: [Way; 3] = [
        (Keeping::Apart, After::Taken),
        (Keeping::Apart, After::Written),
        // What is written with facts is taken with them.
        (Keeping::Together, After::Written),
    ];
    for (asks, (keeping, after)) in [0, 1].into_iter().flat_map(|asks| ways.map(|way| (asks, way)))
    {
        let mut places = 0;
        loop {
            let stopped = stops(keeping, asks, part, after(places));
            let place = || format!("{asks} {keeping:?} {part:?} {:?}", after(places));
            if !stopped.map_err(|why| format!("{}: {why}", place()))? {
                break;
            }
            places += 1;
        }
        assert!(places >= least, "{asks} {keeping:?} {part:?} {:?}: {places} places", after(0));
    }
    Ok(())
}

#[test]
fn while_it_is_negotiated() -> Result<(), Failed> {
    anywhere(Part::Negotiated, 1)
}

#[test]
fn while_both_funding_outputs_go_on() -> Result<(), Failed> {
    anywhere(Part::Meanwhile, 5)
}

#[test]
fn when_it_confirms() -> Result<(), Failed> {
    anywhere(Part::Confirmed, 1)
}

#[test]
fn when_it_is_locked() -> Result<(), Failed> {
    anywhere(Part::Locked, 2)
}
