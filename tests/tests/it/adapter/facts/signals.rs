//! Signals: how LDK names a channel, and whether its peer is connected, without the node's doing.
use super::rig::Rig;
use super::{CAPACITY, Failed, id};
use arb_core::facts::{ChannelNames, ChannelNumbers, Link as PeerLink};
use arb_core::ids::ShortChannelId;
use arb_node_adapter::Refusal;
use arb_tests::ldk::{Kind, Link};

/// What LDK's own list of channels says.
fn names_of_ldk(rig: &Rig, node: usize, link: &Link) -> Result<ChannelNames, Failed> {
    let channels = rig.net.nodes[node].manager.list_channels();
    let details = channels.iter().find(|details| details.channel_id == link.id);
    let details = details.ok_or("no such channel")?;
    let mut aliases: Vec<_> =
        [details.outbound_scid_alias, details.inbound_scid_alias].into_iter().flatten().collect();
    aliases.sort_unstable();
    Ok(ChannelNames {
        short_channel_id: details.short_channel_id.map(ShortChannelId),
        aliases: aliases.into_iter().map(ShortChannelId).collect(),
    })
}

fn links(rig: &Rig, node: usize, link: &Link) -> Result<Vec<PeerLink>, Failed> {
    let sink = rig.sink(node);
    let mut told = sink.told.lock().map_err(|_| "poisoned")?;
    Ok(told.links.remove(&id(link)).unwrap_or_default())
}

#[test]
fn both_sides_tell_the_names_and_the_link_of_a_channel() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    for node in [0, 1] {
        let names = rig.facts(node, &link)?.names;
        assert_eq!(names, names_of_ldk(&rig, node, &link)?);
        assert!(names.short_channel_id.is_some(), "the funding output is in a block");
        assert_eq!(names.aliases.len(), 2, "ours and the peer's: {names:?}");
        let told = links(&rig, node, &link)?;
        assert!(!told.is_empty() && told.iter().all(|link| *link == PeerLink::Up), "{told:?}");
    }
    rig.net.cut(0, 1);
    rig.net.pump();
    for node in [0, 1] {
        assert_eq!(links(&rig, node, &link)?, [PeerLink::Down]);
    }
    rig.net.reconnect(0, 1);
    for node in [0, 1] {
        assert_eq!(links(&rig, node, &link)?.last(), Some(&PeerLink::Up));
        assert_eq!(rig.facts(node, &link)?.names, names_of_ldk(&rig, node, &link)?);
    }
    Ok(())
}

/// Names are written with what else is known of the channel, and told again if they changed while the
/// recorder was away.
#[test]
fn names_outlive_a_restart() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::StaticRemotekey)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    rig.net.cut(0, 1);
    rig.net.pump();
    let (names, _) = (rig.facts(0, &link)?.names, links(&rig, 0, &link)?);
    rig.restart_node(0)?;
    rig.net.pump();
    assert_eq!(rig.facts(0, &link)?.names, names);
    assert_eq!(links(&rig, 0, &link)?, [], "nothing is new");
    let stored = ChannelNumbers {
        id: id(&link),
        local: rig.facts(0, &link)?.candidates.current.local.number,
        remote: rig.facts(0, &link)?.candidates.current.remote.number,
    };
    assert_eq!(rig.sink(0).told.lock().map_err(|_| "poisoned")?.numbers[&id(&link)], stored);
    Ok(())
}

/// A peer that comes and goes while the sink takes nothing: the last state counts, and the queue does
/// not grow by each.
#[test]
fn of_many_signals_that_wait_the_last_is_told() -> Result<(), Failed> {
    let mut rig = Rig::new(2, Kind::Anchors)?;
    let link = rig.net.open(0, 1, CAPACITY, 400_000_000)?;
    let _told = links(&rig, 0, &link)?;
    let sink = rig.sink(0);
    sink.told.lock().map_err(|_| "poisoned")?.answer = Some(Refusal::Later("full".to_owned()));
    for _ in 0..20 {
        rig.net.cut(0, 1);
        rig.net.reconnect(0, 1);
    }
    rig.net.cut(0, 1);
    rig.net.pump();
    let backlog = rig.net.nodes[0].taps.backlog();
    assert!(backlog <= 2, "{backlog}");
    sink.told.lock().map_err(|_| "poisoned")?.answer = None;
    rig.net.pump();
    assert_eq!(links(&rig, 0, &link)?.last(), Some(&PeerLink::Down));
    assert_eq!(rig.facts(0, &link)?.names, names_of_ldk(&rig, 0, &link)?);
    Ok(())
}
