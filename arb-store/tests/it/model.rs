//! The store and the log in memory agree, whatever is appended, across restarts.
use crate::samples::{block, bump, facts, htlc, offered};
use crate::support::{batch, open, wait};
use arb_core::ids::Slot;
use arb_core::log::{ByteRecord, ChangeLog, SubscriberState, Write};
use arb_core::memory::MemoryLog;
use arb_core::ports::ByteStore;
use arb_core::units::{BlockHeight, CommitmentNumber};
use arb_store::{LmdbLog, StoreError};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Write>),
    Restart,
}

const FOLDERS: [&str; 2] = ["", "folder"];

fn write() -> impl Strategy<Value = Write> {
    let slot = || (0..4_u32).prop_map(Slot);
    prop_oneof![
        4 => (slot(), 0..5_u8, any::<u32>()).prop_map(|(slot, other, birth)| {
            // Now and then a slot that belongs to another channel.
            let mut facts = facts(if other == 0 { 0 } else { slot.0 as u8 + 1 });
            facts.birth = BlockHeight(birth);
            Write::Facts { slot, facts: Arc::new(facts) }
        }),
        2 => (slot(), vec((0..20_u64, 0..9_u64), 0..4)).prop_map(|(slot, htlcs)| {
            let htlcs = htlcs.into_iter().map(|(id, from)| (offered(id), htlc(from, Some(9))));
            Write::EndedHtlcs { slot, htlcs: htlcs.collect() }
        }),
        // More than one value of the store holds.
        1 => (slot(), 0..50_u64, 30..90_u64, 0..9_u64).prop_map(|(slot, first, count, from)| {
            let htlcs = (first..first + count).map(|id| (offered(id), htlc(from, Some(9))));
            Write::EndedHtlcs { slot, htlcs: htlcs.collect() }
        }),
        3 => (slot(), vec(any::<u64>(), 0..4)).prop_map(|(slot, feerates)| Write::Changes {
            slot,
            changes: feerates.into_iter().map(bump).collect(),
        }),
        1 => (slot(), vec(any::<u64>(), 0..3)).prop_map(|(slot, feerates)| Write::LogReplaced {
            slot,
            changes: feerates.into_iter().map(bump).collect(),
        }),
        2 => (0..600_u32).prop_map(|height| Write::BlockConnected(block(height))),
        1 => (0..600_u32).prop_map(|at| Write::Disconnected { fork_point: block(at) }),
        2 => (slot(), "[a-c]{0,2}", prop::option::of(any::<u64>())).prop_map(
            |(slot, name, next)| Write::Subscriber {
                slot,
                name,
                state: next.map(|next| SubscriberState { next, acknowledged: next % 2 == 0 }),
            }
        ),
        1 => (slot(), any::<bool>()).prop_map(|(slot, aside)| Write::SetAside { slot, aside }),
        1 => slot().prop_map(|slot| Write::Forget { slot }),
        2 => (0..2_usize, "[a-c\0]{0,2}", vec(any::<u8>(), 0..40)).prop_map(|(folder, name, bytes)| {
            let folder = FOLDERS[folder].to_owned();
            Write::Bytes(Arc::new(ByteRecord { folder, name, bytes }))
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![9 => vec(write(), 0..5).prop_map(Step::Append), 1 => Just(Step::Restart)]
}

fn agree(store: &LmdbLog, memory: &MemoryLog) {
    let channels = store.channels().unwrap();
    assert_eq!(channels, memory.channels().unwrap());
    assert_eq!(store.channel_count().unwrap(), channels.len() as u64);
    assert_eq!(memory.channel_count().unwrap(), channels.len() as u64);
    assert_eq!(store.blocks().unwrap(), memory.blocks().unwrap());
    assert_eq!(store.next_slot().unwrap(), memory.next_slot().unwrap());
    let bytes = store.bytes();
    for folder in FOLDERS {
        for name in bytes.names(folder).unwrap() {
            let kept = bytes.get(folder, &name).unwrap();
            assert_eq!(kept.as_deref(), memory.record(folder, &name), "{folder:?} {name:?}");
        }
        let names = ["a", "b", "c"]
            .into_iter()
            .flat_map(|one| ["", "a", "b", "c"].map(|two| format!("{one}{two}")));
        let remembered = names.filter(|name| memory.record(folder, name).is_some()).count();
        assert_eq!(bytes.names(folder).unwrap().len(), remembered);
    }
    for slot in (0..5).map(Slot) {
        assert_eq!(store.facts(slot).unwrap(), memory.facts(slot).unwrap());
        assert_eq!(store.channel(slot).unwrap(), memory.channel(slot).unwrap());
        assert_eq!(store.changes(slot).unwrap(), memory.changes(slot).unwrap());
        let at = CommitmentNumber(6);
        assert_eq!(store.ended_htlcs(slot, at).unwrap(), memory.ended_htlcs(slot, at).unwrap());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn store_and_memory_agree(steps in vec(step(), 1..25)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path());
        let mut memory = MemoryLog::new();
        for (number, step) in (0..).zip(steps) {
            let Step::Append(writes) = step else {
                drop(store);
                store = open(folder.path());
                continue;
            };
            let stored = wait(store.append(batch(number, writes.clone())));
            match (stored, wait(memory.append(batch(number, writes)))) {
                (Ok(one), Ok(other)) => assert_eq!(one, other),
                (Err(StoreError::Refused(one)), Err(other)) => assert_eq!(one, other),
                (one, other) => panic!("{one:?} and {other:?}"),
            }
            agree(&store, &memory);
        }
        drop(store);
        agree(&open(folder.path()), &memory);
    }
}
