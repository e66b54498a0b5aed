//! Penalty data: HTLCs in chunks, what they take in the file, and those of format 1.
use crate::samples::{facts, htlc, offered, register};
use crate::support::{open, put, raw};
use arb_core::codec::Record;
use arb_core::ids::{HtlcId, Side, Slot};
use arb_core::log::{ChangeLog, Write};
use arb_core::units::CommitmentNumber;
use std::path::Path;
use std::sync::Arc;

fn ended(slot: u32, htlcs: impl IntoIterator<Item = (HtlcId, u64)>) -> Write {
    let record = |(id, from)| (id, htlc(from, Some(from + 1)));
    Write::EndedHtlcs { slot: Slot(slot), htlcs: htlcs.into_iter().map(record).collect() }
}

/// However the updates of channels mix, an HTLC takes little more than its record.
#[test]
fn pages_are_full() {
    const CHANNELS: u32 = 8;
    const HTLCS: u64 = 160;
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, (0..CHANNELS).map(register).collect::<Vec<_>>());
    for id in 0..HTLCS {
        // Another order each time, in batches of another size.
        let channels = (0..CHANNELS).map(|at| (at * 5 + id as u32) % CHANNELS);
        let writes: Vec<Write> = channels.map(|slot| ended(slot, [(offered(id), id)])).collect();
        let size = if id % 16 == 0 { 3 } else { writes.len() };
        writes.chunks(size).for_each(|some| put(&mut log, some));
    }
    for slot in (0..CHANNELS).map(Slot) {
        for id in (0..HTLCS).step_by(7) {
            let live = log.ended_htlcs(slot, CommitmentNumber(id)).unwrap().unwrap();
            assert_eq!(live, [(offered(id), htlc(id, Some(id + 1)))]);
        }
    }
    drop(log);
    let (longest, pages) = raw(folder.path(), "penalty", |table, txn| {
        let values = table.iter(txn).unwrap().map(|entry| entry.unwrap().1.len());
        let longest = values.max().unwrap();
        let stat = table.stat(txn).unwrap();
        (longest, stat.branch_pages + stat.leaf_pages + stat.overflow_pages)
    });
    assert!((3900..=4080).contains(&longest), "{longest} bytes are not one page");
    let record = htlc(HTLCS, Some(HTLCS + 1)).encode().len();
    let each = pages * 4096 / (CHANNELS as usize * HTLCS as usize);
    assert!(each < record + 60, "{each} bytes for a record of {record}");
}

#[test]
fn many_at_once_and_what_is_told_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let received = |id| HtlcId { offerer: Side::Remote, id };
    put(&mut log, [register(0), ended(0, [])]);
    let both = (0..483).flat_map(|id| [(offered(id), 7), (received(id), 7)]);
    put(&mut log, [ended(0, both)]);
    for _ in 0..2 {
        let live = log.ended_htlcs(Slot(0), CommitmentNumber(7)).unwrap().unwrap();
        assert_eq!(live.len(), 966);
        assert!(live.is_sorted_by_key(|(id, _)| *id));
        drop(log);
        log = open(folder.path());
    }
    // Told again, with other numbers.
    put(&mut log, [ended(0, [(offered(3), 8), (received(3), 7)])]);
    let at = |number| log.ended_htlcs(Slot(0), CommitmentNumber(number)).unwrap().unwrap();
    assert_eq!(at(7).len(), 965);
    assert_eq!(at(8), [(offered(3), htlc(8, Some(9)))]);
}

fn format_of(folder: &Path) -> u8 {
    raw(folder, "meta", |table, txn| table.get(txn, b"format").unwrap().unwrap()[1])
}

/// Stores of format 1 have every HTLC under a key of its own: they are read as they are.
#[test]
fn a_store_of_format_1_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0), register(1)]);
    drop(log);
    raw(folder.path(), "meta", |table, txn| {
        let mut value = table.get(txn, b"format").unwrap().unwrap().to_vec();
        value.truncate(value.len() - 4);
        value[1] = 1;
        let sum = crc32c::crc32c(&[b"format", &value[..]].concat());
        value.extend(sum.to_be_bytes());
        table.put(txn, b"format", &value).unwrap();
    });
    raw(folder.path(), "penalty", |table, txn| {
        for (slot, id) in [(0, 5), (0, 6), (1, 5)] {
            let key = [&[0, 0, 0, slot][..], &[0], &[0; 7], &[id]].concat();
            let mut value = htlc(3, Some(9)).encode();
            let sum = crc32c::crc32c(&[&key[..], &value[..]].concat());
            value.extend(sum.to_be_bytes());
            table.put(txn, &key, &value).unwrap();
        }
    });
    assert_eq!(format_of(folder.path()), 1);
    // Releases that know format 1 alone refuse it from now on.
    drop(open(folder.path()));
    assert_eq!(format_of(folder.path()), 2);
    let mut log = open(folder.path());
    put(&mut log, [ended(0, [(offered(7), 3), (offered(6), 2)])]);
    for _ in 0..2 {
        let live = |slot, number| {
            let live = log.ended_htlcs(Slot(slot), CommitmentNumber(number)).unwrap().unwrap();
            live.iter().map(|(id, _)| id.id).collect::<Vec<_>>()
        };
        assert_eq!(live(0, 3), [5, 7]);
        assert_eq!(live(0, 2), [6]);
        assert_eq!(live(1, 8), [5]);
        drop(log);
        log = open(folder.path());
    }
    // A record of format 1 that was damaged is seen as well.
    drop(log);
    let key = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    raw(folder.path(), "penalty", |table, txn| {
        let mut value = table.get(txn, &key).unwrap().unwrap().to_vec();
        value[7] ^= 4;
        table.put(txn, &key, &value).unwrap();
    });
    assert!(open(folder.path()).ended_htlcs(Slot(1), CommitmentNumber(8)).unwrap().is_err());
}

/// Pages in use of the whole environment.
fn pages(folder: &Path) -> usize {
    ["meta", "channels", "facts", "penalty", "log"]
        .map(|name| {
            raw(folder, name, |table, txn| {
                let stat = table.stat(txn).unwrap();
                stat.branch_pages + stat.leaf_pages + stat.overflow_pages
            })
        })
        .iter()
        .sum()
}

/// A state that ends no HTLC leaves nothing behind, however many there were.
// incident lnd-5938
#[test]
fn states_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = Vec::new();
    for round in 0..2_u64 {
        let mut log = open(folder.path());
        for number in 0..150 {
            let mut facts = facts(1);
            let current = &mut facts.candidates.current;
            current.local.number = CommitmentNumber(round * 150 + number);
            current.remote.number = CommitmentNumber(round * 150 + number);
            put(&mut log, [Write::Facts { slot: Slot(0), facts: Arc::new(facts) }]);
        }
        drop(log);
        at.push((pages(folder.path()), occupied(folder.path())));
    }
    assert_eq!(at[0], at[1]);
}

/// Bytes of the data file that are on the disk.
fn occupied(folder: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(folder.join("data.mdb")).unwrap())
}

/// What one update writes of a channel with all the HTLCs that there can be stays far below what a
/// node could not store at payment speed.
// incident ldk-1670
#[test]
fn an_update_of_a_full_channel_is_bounded() {
    let mut facts = facts(1);
    let ids: Vec<HtlcId> = [Side::Local, Side::Remote]
        .into_iter()
        .flat_map(|offerer| (0..483).map(move |id| HtlcId { offerer, id }))
        .collect();
    facts.htlcs = ids.iter().map(|id| (*id, htlc(41, None))).collect();
    let current = &mut facts.candidates.current;
    let signature = current.local.htlc_signatures[0];
    current.local.htlcs.clone_from(&ids);
    current.local.htlc_signatures = vec![signature; ids.len()];
    current.remote.htlcs.clone_from(&ids);
    current.remote_next.as_mut().unwrap().htlcs.clone_from(&ids);
    let bytes = facts.encode();
    assert!(bytes.len() < 256 << 10, "{} bytes", bytes.len());
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [Write::Facts { slot: Slot(0), facts: Arc::new(facts.clone()) }]);
    drop(log);
    let stored = open(folder.path()).facts(Slot(0)).unwrap();
    assert_eq!(stored, Some(Ok(Box::new(facts))));
}
