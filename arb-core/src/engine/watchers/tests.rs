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
    /// One after the other, each slot once.
    PutAll(Vec<(ChainWatcher, Vec<OutPoint>)>),
    Remove(Slot),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || (0..40_u32).prop_map(|slot| Slot(slot * 3));
    // Now and then two channels have an outpoint in common.
    let outpoints = || (0..60_u8).prop_map(outpoint);
    let due = prop::option::of((0..9_u32).prop_map(BlockHeight));
    let put = (slot(), outpoints(), due, vec(outpoints(), 0..4), 0..2_u8);
    let put = put.prop_map(|(slot, funding, due, further, id)| {
        let id = ChannelId([slot.0 as u8 + id; 32]);
        (ChainWatcher { slot, id, funding, due }, further)
    });
    prop_oneof![
        6 => put.clone().prop_map(|(watcher, further)| Step::Put(watcher, further)),
        1 => vec(put, 0..30).prop_map(|puts| {
            let by_slot: Map<Slot, _> = puts.into_iter().map(|put| (put.0.slot, put)).collect();
            Step::PutAll(by_slot.into_values().collect())
        }),
        2 => slot().prop_map(Step::Remove),
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
                Step::PutAll(puts) => {
                    let all = puts.iter().map(|(watcher, _)| *watcher).collect();
                    let some = puts.iter().filter(|(_, further)| !further.is_empty());
                    let further = some.map(|(watcher, further)| (watcher.slot, further.clone()));
                    let first = watchers.put_all(all, further.collect());
                    for (place, (watcher, further)) in (first..).zip(puts) {
                        assert_eq!(watchers.all[place], watcher);
                        assert!(watchers.places_of(&watcher.id).any(|at| at == place));
                        let all = further.into_iter().chain([watcher.funding]).collect();
                        model.insert(watcher.slot, (watcher, all));
                    }
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
fn many_at_once_are_as_one_by_one() {
    let (mut one, mut other) = (Watchers::default(), Watchers::default());
    let watcher = |number: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let funding = OutPoint { txid: Txid::from_byte_array(bytes), vout: 0 };
        let due = Some(BlockHeight(number % 7));
        ChainWatcher { slot: Slot(number), id: ChannelId(bytes), funding, due }
    };
    let all: Vec<ChainWatcher> = (0..3_000).map(watcher).collect();
    assert_eq!(one.put_all(all[..1_000].to_vec(), Vec::new()), 0);
    assert_eq!(one.put_all(all[1_000..].to_vec(), Vec::new()), 1_000);
    all.iter().for_each(|watcher| other.put(*watcher, []));
    for watchers in [&one, &other] {
        for watcher in &all {
            assert_eq!(watchers.slot_of(&watcher.id), Some(watcher.slot));
            assert_eq!(watchers.watching(watcher.funding), BTreeSet::from([watcher.slot]));
            assert_eq!(watchers.get(watcher.slot), Some(watcher));
        }
        assert_eq!(watchers.len(), 3_000);
        let due = watchers.due_at(BlockHeight(2)).count();
        assert_eq!(due, all.iter().filter(|w| w.due <= Some(BlockHeight(2))).count());
    }
}

#[test]
fn entries_are_put_in_order_and_none_is_lost() {
    let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    for count in [0, 1, 3, 100, 300_000_u64] {
        let entries: Vec<(u64, u64)> = (0..count).map(|n| (hash(n), n)).collect();
        let table: HashTable<u64> = HashTable::with_capacity(entries.len());
        let ordered = in_order_of(table.capacity(), entries.clone());
        let mut sorted = ordered.clone();
        sorted.sort_unstable_by_key(|(_, n)| *n);
        assert_eq!(sorted, entries);
        // 300,000 entries have 2^19 places, 2^11 in a piece.
        let piece = |(hash, _): &(u64, u64)| hash % (1 << 19) / (1 << 11);
        assert!(count < 300_000 || ordered.is_sorted_by_key(piece));
    }
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
