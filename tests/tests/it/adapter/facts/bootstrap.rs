//! Channels that were open before the arbiter was there, from LDK's serialised monitor.
use super::rig::Rig;
use super::{CAPACITY, Failed, id, three};
use arb_core::facts::{ChannelFacts, ChannelNames};
use arb_core::units::BlockHeight;
use arb_node_adapter::{Adoption, Recorder, Unadopted, bootstrap};
use arb_tests::ldk::{Kind, Link, MemoryKv};
use bitcoin::Amount;
use lightning::util::ser::Writeable;
use proptest::prelude::*;
use std::sync::Arc;

/// LDK's dust limit, for both are LDK.
const DUST: Amount = Amount::from_sat(354);

fn bytes(rig: &Rig, node: usize, link: &Link) -> Result<Vec<u8>, Failed> {
    let monitor = rig.net.nodes[node].monitors.get_monitor(link.id);
    Ok(monitor.map_err(|()| "no monitor")?.encode())
}

fn read(rig: &Rig, node: usize, link: &Link, bytes: &[u8]) -> Result<Adoption, Unadopted> {
    let node = &rig.net.nodes[node];
    let monitor = node.monitors.get_monitor(link.id).expect("a monitor");
    bootstrap(&monitor, bytes, &*node.keys, DUST)
}

/// What a recorder knows that saw the channel's beginning, but for the height at which it did, and for
/// names, which are told when the peer connects.
fn known(rig: &Rig, node: usize, link: &Link, birth: BlockHeight) -> Result<ChannelFacts, Failed> {
    Ok(ChannelFacts { birth, names: ChannelNames::default(), ..rig.facts(node, link)? })
}

fn opened(kind: Kind, push: u64) -> Result<(Rig, Link), Failed> {
    let mut rig = Rig::new(2, kind)?;
    let link = rig.net.open(0, 1, CAPACITY, push)?;
    rig.net.mine(3)?;
    Ok((rig, link))
}

#[test]
fn a_channel_at_rest_is_read_as_it_was_recorded() -> Result<(), Failed> {
    for kind in [Kind::StaticRemotekey, Kind::Anchors] {
        for push in [400_000_000, 0] {
            let (rig, link) = opened(kind, push)?;
            for node in 0..2 {
                let adoption = read(&rig, node, &link, &bytes(&rig, node, &link)?)?;
                let birth = BlockHeight(rig.net.chain.height());
                assert_eq!(*adoption.facts(), known(&rig, node, &link, birth)?, "{kind:?} {push}");
            }
        }
    }
    Ok(())
}

/// Another recorder and another sink take the channel over, and payments go on both ways.
#[test]
fn an_adopted_channel_goes_on() -> Result<(), Failed> {
    let (mut rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let adoption = read(&rig, 0, &link, &bytes(&rig, 0, &link)?)?;
    {
        let mut desks = rig.desks.borrow_mut();
        let (desk, taps) = (&mut desks[0], rig.net.nodes[0].taps.clone());
        desk.store = Arc::new(MemoryKv::default());
        desk.recorder = Recorder::open(taps, desk.store.clone(), &[])?;
        desk.sink.told.lock().map_err(|_| "poisoned")?.facts.clear();
        let sink = desk.sink.clone();
        super::rig::at_once(desk.recorder.adopt(adoption.clone(), &*sink))?;
        super::rig::at_once(desk.recorder.adopt(adoption, &*sink))?;
    }
    let there = rig.net.send(0, &[link], 20_000_000, "there")?;
    let back = rig.net.send(1, &[link], 30_000_000, "back")?;
    rig.check(&link)?;
    rig.net.claim(&there);
    rig.net.claim(&back);
    rig.check(&link)?;
    assert!(rig.facts(0, &link)?.htlcs.is_empty());
    Ok(())
}

#[test]
fn what_cannot_be_adopted_is_named() -> Result<(), Failed> {
    let (mut rig, near, far) = three(Kind::Anchors)?;
    let why = |rig: &Rig, link: &Link| -> Result<Option<Unadopted>, Failed> {
        Ok(read(rig, 1, link, &bytes(rig, 1, link)?).err())
    };
    assert_eq!(why(&rig, &near)?, None);
    let payment = rig.net.send(0, &[near], 20_000_000, "pending")?;
    assert_eq!(why(&rig, &near)?, Some(Unadopted::Htlcs));
    rig.net.claim(&payment);
    assert_eq!(why(&rig, &near)?, Some(Unadopted::Htlcs), "a revoked commitment has it");
    // Another channel's bytes.
    let other = bytes(&rig, 1, &near)?;
    assert!(matches!(read(&rig, 1, &far, &other), Err(Unadopted::Htlcs)));
    let other = bytes(&rig, 2, &far)?;
    assert!(matches!(read(&rig, 1, &far, &other), Err(Unadopted::Contradiction(_))));
    rig.net.force_close(1, &far)?;
    assert_eq!(why(&rig, &far)?, Some(Unadopted::Closing));
    assert_eq!(id(&far).0, far.id.0);
    Ok(())
}

/// One change of the bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Drop(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            _ if bytes.is_empty() => {}
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Set(at, to) => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Drop(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + count));
            }
            Self::Insert(at, more) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, more.iter().copied());
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        2 => (at(), any::<u8>()).prop_map(|(at, to)| Mutation::Set(at, to)),
        1 => at().prop_map(Mutation::Cut),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Drop(at, count)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(a, m)| Mutation::Insert(a, m)),
    ]
}

/// Bytes that were changed are refused, or the change is in nothing that the facts are made of.
#[test]
fn changed_bytes_never_give_other_facts() -> Result<(), Failed> {
    let (rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let whole = bytes(&rig, 0, &link)?;
    let facts = read(&rig, 0, &link, &whole)?.facts().clone();
    let mut refused = 0;
    // Every byte once.
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        match read(&rig, 0, &link, &changed) {
            Ok(adoption) => assert_eq!(*adoption.facts(), facts, "byte {at}"),
            Err(_) => refused += 1,
        }
    }
    // The rest is what the facts are not made of: what LDK writes twice, or for older versions.
    assert!(refused * 3 > whole.len(), "{refused} of {}", whole.len());
    assert!(read(&rig, 0, &link, &[&whole[..], &[0]].concat()).is_err());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&prop::collection::vec(mutation(), 1..4), |mutations| {
        let mut changed = whole.clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut changed));
        if let Ok(adoption) = read(&rig, 0, &link, &changed) {
            prop_assert_eq!(adoption.facts(), &facts);
        }
        Ok(())
    })?;
    Ok(())
}
