//! Signals: the latest counts; the link is known until the next start, the names for good.
use super::super::*;
use super::support::*;
use crate::arbitrator::{Input, Notice};
use crate::facts::update::tests::world::{World, offered, terms};
use crate::facts::{ChannelNames, Link, Signals, Update};
use crate::format::CommitmentFormat;
use crate::ids::{Preimage, ShortChannelId};
use std::vec;

fn signals(id: u64, link: Link) -> Update {
    Update::Signals(Signals { names: names(id), link })
}

fn names(id: u64) -> ChannelNames {
    let aliases = vec![ShortChannelId(7)];
    ChannelNames { short_channel_id: Some(ShortChannelId(id)), aliases }
}

#[test]
fn the_latest_signals_are_in_the_report() {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    assert_eq!(watched.report().link, None);
    watched.update(&[signals(1, Link::Up), signals(2, Link::Down)]);
    assert_eq!(watched.report().link, Some(Link::Down));
    watched.update(&[signals(2, Link::Up)]);
    let report = watched.report();
    assert_eq!((report.link, report.names), (Some(Link::Up), names(2)));
    // What says nothing of the link leaves it as it was.
    watched.update(&[watched.world.local_update(1, &[])]);
    assert_eq!(watched.report().link, Some(Link::Up));
}

#[test]
fn only_names_are_stored() {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    watched.update(&[signals(1, Link::Up)]);
    let updated = watched.verify(&[signals(1, Link::Down)]).expect("sound");
    assert!(!updated.writes());
    let transition = watched.stage(&[facts(updated)]);
    assert_eq!(transition.batch().writes, []);
    let updated = watched.verify(&[signals(2, Link::Down)]).expect("sound");
    assert!(updated.writes());
    watched.step(&[facts(updated)]);
    assert_eq!(watched.report().link, Some(Link::Down));
    watched.step(&[EngineInput::Forget { slot: SLOT }]);
    assert_eq!(watched.engine.now(SLOT, &watched.world.facts).link, None);
}

#[test]
fn upstream_notices_name_the_channel() {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(offered(0));
    world.accept_remote(1, &[offered(0)]);
    let mut watched = Watched::new(world);
    watched.update(&[signals(3, Link::Down)]);
    let preimage = Preimage([0; 32]);
    assert_eq!(preimage.hash(), terms(offered(0)).hash);
    let source = crate::arbitrator::PreimageSource::Downstream(offered(0));
    watched.step(&[channel(Input::Preimage { preimage, source })]);
    let tasks = watched.engine.tasks(SLOT);
    let told = tasks.into_values().find_map(|task| match task {
        Task::Notify(Notice::Upstream { names, .. }) => Some(names),
        _ => None,
    });
    assert_eq!(told, Some(names(3)));
}
