//! The set of watchers against plain maps, whatever is put in and taken out.
use super::*;
use bitcoin::Txid;
use bitcoin::hashes::Hash;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap as Map;

fn outpoint(byte: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: u32::from(byte % 2) }
}

#[derive(Clone, Debug)]
enum Step {
    Put(ChainWatcher, Vec<OutPoint>),
    Remove(Slot),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || (0..40_u32).prop_map(|slot| Slot(slot * 3));
    // Now and then two channels have an outpoint in common.
    let outpoints = || (0..60_u8).prop_map(outpoint);
    let due = prop::option::of((0..9_u32).prop_map(BlockHeight));
    let put = (slot(), outpoints(), due, vec(outpoints(), 0..4), 0..2_u8);
    prop_oneof![
        3 => put.prop_map(|(slot, funding, due, further, id)| {
            let id = ChannelId([slot.0 as u8 + id; 32]);
            Step::Put(ChainWatcher { slot, id, funding, due }, further)
        }),
        1 => slot().prop_map(Step::Remove),
    ]
}

fn agree(watchers: &Watchers, model: &Map<Slot, (ChainWatcher, BTreeSet<OutPoint>)>) {
    assert_eq!(watchers.len(), model.len());
    for slot in (0..125).map(Slot) {
        let expected = model.get(&slot);
        assert_eq!(watchers.get(slot), expected.map(|(watcher, _)| watcher));
        let watched: BTreeSet<OutPoint> = watchers.watched_by(slot).collect();
        assert_eq!(watched, expected.map(|(_, all)| all.clone()).unwrap_or_default());
    }
    for (slot, (watcher, _)) in model {
        assert_eq!(watchers.slot_of(&watcher.id), Some(*slot));
    }
    for outpoint in (0..70).map(outpoint) {
        let found: Vec<Slot> = watchers.watching(outpoint).into_iter().collect();
        let of = |(slot, (_, all)): (&Slot, &(_, BTreeSet<OutPoint>))| {
            all.contains(&outpoint).then_some(*slot)
        };
        assert_eq!(found, model.iter().filter_map(of).collect::<Vec<_>>(), "{outpoint}");
    }
    for tip in (0..10).map(BlockHeight) {
        let found: BTreeSet<Slot> = watchers.due_at(tip).collect();
        let due = model.values().filter(|(w, _)| w.due.is_some_and(|due| due <= tip));
        assert_eq!(found, due.map(|(watcher, _)| watcher.slot).collect());
    }
    let all: BTreeSet<OutPoint> = model.values().flat_map(|(_, all)| all).copied().collect();
    assert_eq!(watchers.watched(), all);
    let (mut sliced, mut next) = (BTreeSet::new(), Some(0));
    while let Some(from) = next {
        let (slice, after) = watchers.slice(from, 7);
        assert!(slice.len() <= 7 * 5);
        sliced.extend(slice);
        next = after;
    }
    assert_eq!(sliced, all);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_set_is_what_was_put_in_and_not_taken_out(steps in vec(step(), 1..120)) {
        let mut watchers = Watchers::default();
        let mut model = Map::new();
        for step in steps {
            match step {
                Step::Put(watcher, further) => {
                    watchers.put(watcher, further.clone());
                    let all = further.into_iter().chain([watcher.funding]).collect();
                    model.insert(watcher.slot, (watcher, all));
                }
                Step::Remove(slot) => {
                    let expected = model.remove(&slot).map(|(watcher, _)| watcher);
                    assert_eq!(watchers.remove(slot), expected);
                }
            }
        }
        agree(&watchers, &model);
    }
}

#[test]
fn room_that_was_made_changes_nothing() {
    let (mut one, mut other) = (Watchers::default(), Watchers::default());
    one.reserve(1_000);
    for number in 0..1_000_u32 {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let funding = OutPoint { txid: Txid::from_byte_array(bytes), vout: 0 };
        let due = Some(BlockHeight(number % 7));
        let watcher = ChainWatcher { slot: Slot(number), id: ChannelId(bytes), funding, due };
        one.put(watcher, []);
        other.put(watcher, []);
        other.reserve(usize::from(number == 500) * 5_000);
    }
    for watcher in one.iter() {
        assert_eq!(other.slot_of(&watcher.id), Some(watcher.slot));
        assert_eq!(other.watching(watcher.funding), BTreeSet::from([watcher.slot]));
        assert_eq!(other.get(watcher.slot), Some(watcher));
    }
    assert_eq!(other.len(), 1_000);
}

#[test]
fn an_outpoint_that_only_looks_like_a_watched_one_is_nobodys() {
    let mut watchers = Watchers::default();
    let put = |watchers: &mut Watchers, slot: u8, further: &[u8]| {
        let (funding, id) = (outpoint(slot), ChannelId([slot; 32]));
        let watcher = ChainWatcher { slot: Slot(slot.into()), id, funding, due: None };
        watchers.put(watcher, further.iter().copied().map(outpoint));
    };
    put(&mut watchers, 1, &[11]);
    put(&mut watchers, 2, &[]);
    // As if the hashes of another outpoint of channel 1 and of one of channel 2 were the same.
    let hash = |mark: &Mark| Mark::hash(mark.half);
    for (like, slot) in [(11, 1), (11, 2), (2, 1)] {
        let mark = Mark { half: watchers.half_of(&outpoint(like)), slot: Slot(slot) };
        watchers.watched.insert_unique(hash(&mark), mark, hash);
    }
    assert_eq!(watchers.watching(outpoint(11)), BTreeSet::from([Slot(1)]));
    assert_eq!(watchers.watching(outpoint(2)), BTreeSet::from([Slot(2)]));
    put(&mut watchers, 1, &[]);
    assert_eq!(watchers.watching(outpoint(11)), BTreeSet::new());
    assert_eq!(watchers.watching(outpoint(1)), BTreeSet::from([Slot(1)]));
}
