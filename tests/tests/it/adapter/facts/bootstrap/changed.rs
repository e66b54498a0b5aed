//! Bytes of a monitor that were changed: by chance, and by LDK itself.
use super::spliced::{DEPTH, splice};
use super::{Failed, Rig, bytes, opened, paid, read, read_both, shape};
use arb_core::facts::{ChannelFacts, SecretStore, ShutdownScripts};
use arb_core::units::BlockHeight;
use arb_node_adapter::Adoption;
use arb_tests::ldk::{Kind, Link};
use bitcoin::BlockHash;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::util::ser::ReadableArgs;
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Bytes that were changed are refused, every one of them.
fn never_other_facts(rig: &Rig, link: &Link, step: usize, cases: u32) -> Result<(), Failed> {
    let whole = bytes(rig, 0, link)?;
    let all = |adoption: Adoption| (adoption.facts().clone(), adoption.ended().to_vec());
    let facts = all(read(rig, 0, link, &whole)?);
    for at in (0..whole.len()).step_by(step) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(read(rig, 0, link, &changed).is_err(), "byte {at}");
    }
    assert!(read(rig, 0, link, &[&whole[..], &[0]].concat()).is_err());
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner.run(&prop::collection::vec(mutation(), 1..4), |mutations| {
        let mut changed = whole.clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut changed));
        match read(rig, 0, link, &changed) {
            Ok(adoption) => {
                prop_assert_eq!(&changed, &whole);
                prop_assert_eq!(&all(adoption), &facts);
            }
            Err(_) => prop_assert_ne!(&changed, &whole),
        }
        Ok(())
    })?;
    Ok(())
}

#[test]
fn changed_bytes_never_give_other_facts() -> Result<(), Failed> {
    for (kind, cases) in [(Kind::StaticRemotekey, 128), (Kind::Anchors, 512), (Kind::ZeroFee, 128)]
    {
        let (rig, link) = opened(kind, 400_000_000)?;
        never_other_facts(&rig, &link, if kind == Kind::Anchors { 2 } else { 11 }, cases)?;
    }
    Ok(())
}

#[test]
fn changed_bytes_of_payments_never_give_other_facts() -> Result<(), Failed> {
    for (kind, cases) in [(Kind::StaticRemotekey, 64), (Kind::Anchors, 256), (Kind::ZeroFee, 64)] {
        let (rig, link) = paid(kind, true)?;
        never_other_facts(&rig, &link, if kind == Kind::Anchors { 13 } else { 41 }, cases)?;
    }
    Ok(())
}

#[test]
fn changed_bytes_of_a_splice_never_give_other_facts() -> Result<(), Failed> {
    let (mut rig, link) = opened(Kind::Anchors, 400_000_000)?;
    let link = splice(&mut rig.net, &link, DEPTH)?;
    never_other_facts(&rig, &link, 7, 256)
}

/// LDK itself has read the changed bytes, so that both forms agree: what the channel may do is the same
/// all the same, for signatures and txids vouch for it. Only LDK's word is there for what the peer has
/// revoked, secrets and terms, for the height at which it is, and for our own script of a mutual close.
fn what_ldk_was_made_to_believe(kind: Kind, first: usize) -> Result<(), Failed> {
    let (rig, link) = paid(kind, true)?;
    let whole = bytes(&rig, 0, &link)?;
    let node = &rig.net.nodes[0];
    let vouched = |facts: &ChannelFacts| {
        let (birth, secrets) = (BlockHeight(0), SecretStore::default());
        let shutdown = ShutdownScripts::default();
        shape(ChannelFacts { birth, secrets, shutdown, ..facts.clone() })
    };
    let facts = vouched(read(&rig, 0, &link, &whole)?.facts());
    let (mut believed, mut adopted) = (0, 0);
    for at in (first..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        // What LDK itself does not survive to write is none that it could have.
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let args = (&*node.keys, &*node.signers);
            let again = <(BlockHash, ChannelMonitor<_>)>::read(&mut &changed[..], args);
            let Ok((_, monitor)) = again else { return None };
            Some(read_both(&rig, 0, &link, &monitor, &changed))
        }));
        let Ok(Some(adoption)) = judged else { continue };
        believed += 1;
        if let Ok(adoption) = adoption {
            assert_eq!(vouched(adoption.facts()), facts, "{kind:?}: byte {at}");
            adopted += 1;
        }
    }
    assert!(believed > 100 && adopted < believed, "{adopted} of {believed}");
    Ok(())
}

#[test]
fn what_ldk_was_made_to_believe_is_no_other_channel() -> Result<(), Failed> {
    // Other bytes of each.
    for (first, kind) in
        [Kind::Anchors, Kind::StaticRemotekey, Kind::ZeroFee].into_iter().enumerate()
    {
        what_ldk_was_made_to_believe(kind, first)?;
    }
    Ok(())
}
