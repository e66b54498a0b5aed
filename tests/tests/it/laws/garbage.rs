//! Whatever spends a watched output, deciding is total: no panic, and replay agrees.
use arb_core::arbitrator::Position;
use arb_core::engine::EngineInput;
use arb_core::policy::Policy;
use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use proptest::prelude::*;

use super::chain::label;
use super::story::{self, Op, Story};
use super::world::{SLOT, World, connect, restart, step};

/// An element of a witness.
#[derive(Clone, Debug)]
enum Element {
    Bytes(Vec<u8>),
    Preimage(u8),
    /// The script of a watched output, as far as a claim of ours names it.
    Script(u8),
}

/// A transaction that spends what is watched.
#[derive(Clone, Debug)]
struct Garbage {
    inputs: Vec<(u8, Vec<Element>, u32)>,
    outputs: Vec<(u8, Vec<u8>, u64)>,
    lock_time: u32,
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        Just(Element::Bytes(Vec::new())),
        Just(Element::Bytes(vec![1])),
        any::<[u8; 32]>().prop_map(|bytes| Element::Bytes(bytes.to_vec())),
        any::<[u8; 33]>().prop_map(|bytes| Element::Bytes(bytes.to_vec())),
        prop::collection::vec(any::<u8>(), 0..90).prop_map(Element::Bytes),
        // An annex.
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|mut bytes| {
            bytes.insert(0, 0x50);
            Element::Bytes(bytes)
        }),
        (0u8..3).prop_map(Element::Preimage),
        any::<u8>().prop_map(Element::Script),
    ]
}

fn garbage() -> impl Strategy<Value = Garbage> {
    let input = (any::<u8>(), prop::collection::vec(element(), 0..6), any::<u32>());
    let script = prop::collection::vec(any::<u8>(), 0..40);
    let output = (any::<u8>(), script, 0u64..2_100_000_000_000_000);
    (prop::collection::vec(input, 1..4), prop::collection::vec(output, 0..4), any::<u32>())
        .prop_map(|(inputs, outputs, lock_time)| Garbage { inputs, outputs, lock_time })
}

impl Garbage {
    fn transaction(&self, watched: &[OutPoint], scripts: &[ScriptBuf]) -> Transaction {
        let script = |n: u8| scripts.get(n as usize % scripts.len().max(1)).cloned();
        let bytes = |element: &Element| match element {
            Element::Bytes(bytes) => bytes.clone(),
            Element::Preimage(n) => label(3, u64::from(*n)).to_vec(),
            Element::Script(n) => script(*n).unwrap_or_default().to_bytes(),
        };
        let input = |(of, witness, sequence): &(u8, Vec<Element>, u32)| TxIn {
            previous_output: watched[*of as usize % watched.len()],
            script_sig: ScriptBuf::new(),
            sequence: Sequence(*sequence),
            witness: Witness::from_slice(&witness.iter().map(bytes).collect::<Vec<_>>()),
        };
        let output = |(of, odd, value): &(u8, Vec<u8>, u64)| TxOut {
            value: Amount::from_sat(*value),
            script_pubkey: match script(*of).filter(|_| of % 2 == 0) {
                Some(script) => script.to_p2wsh(),
                None => ScriptBuf::from_bytes(odd.clone()),
            },
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(self.lock_time),
            input: self.inputs.iter().map(input).collect(),
            output: self.outputs.iter().map(output).collect(),
        }
    }
}

/// Watched outputs in an order that does not change, and witness scripts of our claims.
fn targets(world: &World) -> (Vec<OutPoint>, Vec<ScriptBuf>) {
    let watched: Vec<OutPoint> = world.engine.watched().into_iter().collect();
    let picture = world.active().and_then(|active| {
        let picture = active.picture.as_ref()?;
        Some(active.state.claims(&active.facts, picture, &Policy::default()))
    });
    let scripts = picture.unwrap_or_default().into_iter().filter_map(|claim| match claim.path {
        arb_core::claim::SpendPath::Single(single) => single.script,
        arb_core::claim::SpendPath::SecondStage(stage) => Some(stage.script),
        _ => None,
    });
    (watched, scripts.collect())
}

fn live_through(story: &Story, ops: &[Op], garbage: &[Garbage]) -> Result<(), TestCaseError> {
    let mut world = World::new(story);
    for op in ops {
        world.apply(*op, &mut |_, _| {});
    }
    for garbage in garbage {
        let (watched, scripts) = targets(&world);
        let mined = world.chain.mine(vec![garbage.transaction(&watched, &scripts)]);
        connect(&mut world.engine, &mut world.log, &mined, Position::AtTip);
        world.work(true);
        let mut resumed = restart(&world.log);
        let mut log = world.log.clone();
        step(&mut resumed, &mut log, &[EngineInput::ReachedTip]);
        prop_assert_eq!(resumed.tasks(SLOT), world.engine.tasks(SLOT));
    }
    let (fork_point, _) = world.chain.disconnect(usize::MAX);
    step(&mut world.engine, &mut world.log, &[EngineInput::Disconnected { fork_point }]);
    let open = world.active().is_none_or(|active| active.picture.is_none());
    prop_assert!(open, "nothing is spent on the first block");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_survived(
        story in story::story(),
        ops in prop::collection::vec(story::op(), 0..4),
        garbage in prop::collection::vec(garbage(), 1..6),
    ) {
        live_through(&story, &ops, &garbage)?;
    }
}
