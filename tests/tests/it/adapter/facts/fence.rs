//! The fence and the way out: what LDK may do while the arbiter fails a channel, and how a channel
//! goes back to LDK alone.
use super::rig::Rig;
use super::{CAPACITY, Failed, id, three};
use arb_node_adapter::{Egress, HeldFor, Mode, Refusal};
use arb_tests::ldk::{Kind, Link};
use lightning::ln::types::ChannelId as LdkChannelId;

fn fence(rig: &Rig, node: usize) -> Result<(), Failed> {
    rig.sink(node).told.lock().map_err(|_| "poisoned")?.fenced = true;
    Ok(())
}

pub(super) fn held(rig: &Rig, node: usize) -> Vec<HeldFor> {
    rig.desks.borrow()[node].recorder.held().map(|held| held.why.clone()).collect()
}

/// Updates that LDK waits for.
fn pending(rig: &Rig, node: usize, link: &Link) -> usize {
    let all = rig.net.nodes[node].monitors.list_pending_monitor_updates();
    all.get(&link.id).map_or(0, Vec::len)
}

/// Both sides commit to something new at once: of what reaches us the new commitment of ours is
/// refused, and the secret that follows is told.
fn crossing() -> Result<(Rig, Link), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    fence(&rig, 0)?;
    rig.net.start(0, &[link], 20_000_000, "ours", 1)?;
    rig.net.start(1, &[link], 30_000_000, "theirs", 1)?;
    rig.net.pump();
    Ok((rig, link))
}

#[test]
fn behind_the_fence_ldk_revokes_nothing_and_all_else_is_told() -> Result<(), Failed> {
    let (rig, link) = crossing()?;
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    let ours = rig.facts(0, &link)?.candidates.current;
    assert_eq!(ours.local.number.0, 0, "the commitment that the arbiter may publish");
    assert_eq!(ours.remote.number.0, 1);
    assert_eq!(rig.facts(0, &link)?.secrets.last().map(|number| number.0), Some(0));
    // The peer has our new commitment and not the secret of the old one.
    let theirs = rig.facts(1, &link)?;
    assert_eq!(theirs.candidates.current.remote.number.0, 0);
    assert_eq!(theirs.candidates.current.remote_next.map(|next| next.number.0), Some(1));
    assert!(pending(&rig, 0, &link) > 0);
    Ok(())
}

/// LDK closes the channel: nothing can be revoked any more, and LDK's own events must not wait.
#[test]
fn when_ldk_has_closed_it_goes_on() -> Result<(), Failed> {
    let (mut rig, link) = crossing()?;
    rig.net.force_close(0, &link)?;
    rig.net.pump();
    assert_eq!(held(&rig, 0), []);
    assert_eq!(pending(&rig, 0, &link), 0);
    assert_eq!(rig.sink(0).told.lock().map_err(|_| "poisoned")?.closed, [id(&link)]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    rig.restart_node(0)?;
    rig.net.pump();
    assert!(rig.net.nodes[0].manager.list_channels().is_empty());
    Ok(())
}

/// The node stops behind the fence: LDK says the same updates again, and is refused again.
#[test]
fn the_fence_stands_after_a_restart() -> Result<(), Failed> {
    let (mut rig, link) = crossing()?;
    rig.restart_node(0)?;
    rig.net.pump();
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0, "nothing is revoked");
    rig.net.force_close(0, &link)?;
    rig.net.pump();
    assert_eq!(pending(&rig, 0, &link), 0);
    Ok(())
}

/// A channel that the arbiter refuses stands still, until it is handed back: then LDK goes on
/// alone, now and after a restart.
#[test]
fn a_channel_goes_back_to_ldk() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let no = Some(Refusal::Refused("no".to_owned()));
    rig.sink(1).told.lock().map_err(|_| "poisoned")?.answer = no;
    let payment = rig.net.start(0, &[near], 5_000_000, "held", 1)?;
    rig.net.pump();
    assert!(rig.net.arrived(&payment).is_err());
    assert_eq!(held(&rig, 1).len(), 1);
    hand_back(&rig, 1, &near)?;
    rig.net.pump();
    rig.net.arrived(&payment)?;
    rig.net.claim(&payment);
    assert_eq!(held(&rig, 1), []);
    let left =
        |rig: &Rig| rig.desks.borrow()[1].recorder.left_to_ldk().copied().collect::<Vec<_>>();
    assert_eq!(left(&rig), [id(&near)]);

    rig.restart_node(1)?;
    rig.net.pump();
    assert_eq!(rig.desks.borrow()[1].recorder.handed_back(), [id(&near)]);
    let payment = rig.net.send(0, &[near], 6_000_000, "alone")?;
    rig.net.claim(&payment);
    assert_eq!(left(&rig), [id(&near)]);
    // The other channel is the arbiter's still, which takes nothing.
    rig.net.start(1, &[far], 5_000_000, "never", 1)?;
    rig.net.pump();
    assert_eq!(held(&rig, 1).len(), 1);
    Ok(())
}

/// A channel that the arbiter is failing is handed back only as far as nothing can be revoked.
#[test]
fn the_fence_stands_when_a_channel_is_handed_back() -> Result<(), Failed> {
    let (rig, link) = crossing()?;
    hand_back(&rig, 0, &link)?;
    rig.net.pump();
    assert_eq!(held(&rig, 0), [HeldFor::Fenced]);
    assert_eq!(rig.facts(1, &link)?.candidates.current.remote.number.0, 0);
    rig.net.force_close(0, &link)?;
    rig.net.pump();
    assert_eq!((held(&rig, 0).len(), pending(&rig, 0, &link)), (0, 0));
    Ok(())
}

pub(super) fn hand_back(rig: &Rig, node: usize, link: &Link) -> Result<(), Failed> {
    let monitors = rig.net.nodes[node].monitors.clone();
    let completed = |channel: arb_core::ids::ChannelId, update| {
        assert!(monitors.channel_monitor_updated(LdkChannelId(channel.0), update).is_ok());
    };
    let egress = Egress::new(Mode::Own);
    rig.desks.borrow_mut()[node].recorder.hand_back(id(link), &egress, completed)?;
    Ok(())
}
