//! What a channel that is set aside is to be told is kept for it.
use super::super::*;
use super::support::*;
use crate::arbitrator::{Input, PreimageSource};
use crate::facts::update::tests::world::{World, offered, received, terms};
use crate::facts::{Htlc, HtlcLink, Update};
use crate::format::CommitmentFormat;
use crate::ids::{HtlcRef, Preimage};
use crate::log::Durable;
use crate::units::CltvExpiry;
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;

const INCOMING: Slot = Slot(1);
const INCOMING_ID: ChannelId = ChannelId([4; 32]);
const PREIMAGE: Preimage = Preimage([0; 32]);

/// Another channel, with the incoming HTLC.
fn incoming() -> World {
    let mut world = World::new(CommitmentFormat::Anchors);
    world.add(received(0));
    world.facts.id = INCOMING_ID;
    world.facts.candidates.current.funding.vout = 7;
    world
}

/// A channel with an offered HTLC that forwards the other's.
fn forwarding() -> Watched {
    let mut watched = Watched::new(World::new(CommitmentFormat::Anchors));
    let incoming = HtlcRef { channel: INCOMING_ID, htlc: received(0) };
    let expiry = CltvExpiry(BlockHeight(600));
    let link = HtlcLink::ForwardOf { incoming, expiry, amount: terms(received(0)).amount };
    watched
        .update(&[Update::HtlcAdded { id: offered(0), htlc: Htlc { link, ..terms(offered(0)) } }]);
    commit(&mut watched, 1, &[offered(0)]);
    watched
}

fn reveal(watched: &mut Watched) {
    let source = PreimageSource::Downstream(offered(0));
    watched.step(&[channel(Input::Preimage { preimage: PREIMAGE, source })]);
}

fn back(world: &World) -> EngineInput {
    let facts = Box::new(world.facts.clone());
    EngineInput::Watch { slot: INCOMING, facts, history: Vec::new() }
}

fn knows(engine: &ChainArbitrator) -> bool {
    let active = engine.active(INCOMING);
    active.is_some_and(|a| a.state.knows(&PREIMAGE, PreimageSource::Linked(received(0))))
}

#[test]
fn a_preimage_is_kept_for_an_incoming_channel_that_is_set_aside() {
    for at_the_start in [false, true] {
        let (mut watched, incoming) = (forwarding(), incoming());
        if at_the_start {
            watched.engine.set_aside(INCOMING_ID);
        } else {
            watched.step(&[back(&incoming)]);
            assert_eq!(watched.engine.quarantine(INCOMING), Some(INCOMING_ID));
        }
        reveal(&mut watched);
        commit(&mut watched, 2, &[]);
        assert!(watched.engine.keeps_for_others(SLOT), "the HTLC has left");
        assert_eq!(watched.step(&[back(&incoming)]), []);
        assert!(knows(&watched.engine), "{at_the_start}");
        // Then it is as moot as any other.
        assert!(!watched.engine.keeps_for_others(SLOT));
        commit(&mut watched, 3, &[]);
        assert!(watched.engine.active(SLOT).is_none() && watched.log.is_empty());
    }
}

/// The one that keeps it is set aside as well, and comes back last.
#[test]
fn what_is_kept_is_handed_over_by_whoever_comes_back_last() {
    let (mut watched, incoming) = (forwarding(), incoming());
    watched.engine.set_aside(INCOMING_ID);
    reveal(&mut watched);
    commit(&mut watched, 2, &[]);
    let keeper = watched.engine.active(SLOT).cloned().expect("it keeps a preimage");
    watched.engine.quarantine(SLOT);
    watched.log.clear();
    assert_eq!(watched.step(&[back(&incoming)]), []);
    assert!(!knows(&watched.engine));
    watched.engine.restore(SLOT, keeper.facts.clone(), keeper.state);
    let facts = Box::new((*keeper.facts).clone());
    let again = EngineInput::Watch { slot: SLOT, facts, history: Vec::new() };
    let loaded = Loaded::from([(INCOMING, Arc::new(incoming.facts.clone()))]);
    let staged = watched.engine.stage(&[again], &loaded, &mut |_| ()).expect("facts are loaded");
    let receipt = Durable::assert_durable(staged.id());
    watched.engine.commit(staged, receipt).expect("its own receipt");
    assert!(knows(&watched.engine));
}

/// Nobody waits for a channel that was never known.
#[test]
fn nothing_is_kept_for_a_channel_that_is_not_known() {
    let mut watched = forwarding();
    reveal(&mut watched);
    commit(&mut watched, 2, &[]);
    assert!(watched.engine.active(SLOT).is_none() && watched.log.is_empty());
}

/// It is known before what the missed blocks hold is judged, and is no news where the HTLC has ended.
#[test]
fn only_what_is_wanted_is_handed_over() {
    let (mut watched, mut incoming) = (forwarding(), incoming());
    watched.engine.set_aside(INCOMING_ID);
    reveal(&mut watched);
    commit(&mut watched, 2, &[]);
    incoming.facts.htlcs.clear();
    assert_eq!(watched.step(&[back(&incoming)]), []);
    assert!(watched.engine.active(INCOMING).is_none());
}
