//! Bad days: shortened files, newer formats, flipped bytes.
use crate::samples::{block, bump, bumps, facts, htlc, offered, register};
use crate::support::{append, batch, open, put, raw, small, wait};
use arb_core::codec::Record;
use arb_core::facts::ChannelEntry;
use arb_core::ids::Slot;
use arb_core::log::{BatchId, ChangeLog, StoredChannel, SubscriberState, Write};
use arb_core::ports::ByteStore;
use arb_core::units::CommitmentNumber;
use arb_store::{LmdbLog, StoreError};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    for slot in 0..3 {
        let htlcs = vec![(offered(1), htlc(0, Some(5)))];
        let state = Some(SubscriberState { next: 1, acknowledged: false });
        put(
            &mut log,
            [
                register(slot),
                bumps(slot, [1, 2, 3]),
                Write::EndedHtlcs { slot: Slot(slot), htlcs },
                Write::Subscriber { slot: Slot(slot), name: "s".to_owned(), state },
                Write::BlockConnected(block(slot)),
            ],
        );
    }
    folder
}

fn refused(folder: &Path) -> StoreError {
    LmdbLog::open(folder, small()).expect_err("the store must be refused")
}

#[test]
fn a_shortened_data_file_is_refused() {
    let folder = filled();
    let data = folder.path().join("data.mdb");
    let whole = fs::read(&data).unwrap();
    for length in [whole.len() - 1, whole.len() / 2, 40_960, 8_192, 8_191, 4_096, 100, 0] {
        File::options().write(true).open(&data).unwrap().set_len(length as u64).unwrap();
        let error = refused(folder.path());
        assert!(matches!(error, StoreError::Shortened { .. }), "{length}: {error}");
        assert_eq!(fs::read(&data).unwrap(), whole[..length], "{length}: nothing is changed");
        fs::write(&data, &whole).unwrap();
    }
    fs::remove_file(&data).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, StoreError::Shortened { .. }), "{error}");
    assert!(!data.exists());
    fs::write(&data, &whole).unwrap();
    assert_eq!(open(folder.path()).channels().unwrap().len(), 3);
}

#[test]
fn a_foreign_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data.mdb");
    fs::write(&data, vec![b'x'; 20_000]).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
    assert_eq!(fs::read(&data).unwrap(), vec![b'x'; 20_000]);
    // An LMDB environment of another program.
    fs::remove_file(&data).unwrap();
    raw(folder.path(), "theirs", |table, txn| table.put(txn, b"k", b"v").unwrap());
    File::options().write(true).open(&data).unwrap().set_len(4 << 20).unwrap();
    let error = refused(folder.path());
    assert!(matches!(error, StoreError::NotAStore { .. }), "{error}");
}

/// Changes the record that says what the store is, with a sound checksum.
fn change_meta(folder: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    raw(folder, "meta", |table, txn| {
        let value = table.get(txn, b"format").unwrap().unwrap().to_vec();
        let mut bytes = value[..value.len() - 4].to_vec();
        change(&mut bytes);
        let sum = crc32c::crc32c(&[b"format", &bytes[..]].concat());
        bytes.extend(sum.to_be_bytes());
        table.put(txn, b"format", &bytes).unwrap();
    });
}

#[test]
fn a_newer_format_or_feature_is_refused_untouched() {
    let folder = filled();
    let data = folder.path().join("data.mdb");
    let check = |expected: &str| {
        let before = fs::read(&data).unwrap();
        let error = refused(folder.path()).to_string();
        assert!(error.contains(expected), "{error}");
        assert!(fs::read(&data).unwrap() == before, "the data file was changed");
    };
    change_meta(folder.path(), |bytes| bytes[1] = 3);
    check("format 3");
    // A newer format may have any shape behind its number.
    change_meta(folder.path(), |bytes| bytes.truncate(2));
    check("format 3");
    change_meta(folder.path(), |bytes| *bytes = vec![0, 2, 0, 0, 0, 0, 0, 0, 0, 4]);
    check("features 0x4");
    change_meta(folder.path(), |bytes| bytes.truncate(5));
    check("damaged");
    change_meta(folder.path(), |bytes| *bytes = [&[0, 2][..], &[0; 8], &[7; 16]].concat());
    assert_eq!(open(folder.path()).identity(), [7; 16]);
}

/// Flips one bit of the value that stands at `key`.
fn flip(folder: &Path, table: &str, key: &[u8], at: usize) {
    raw(folder, table, |table, txn| {
        let mut value = table.get(txn, key).unwrap().expect("a value").to_vec();
        let at = at % value.len();
        value[at] ^= 4;
        table.put(txn, key, &value).unwrap();
    });
}

#[test]
fn damaged_facts_hurt_their_channel_only() {
    let folder = filled();
    let key = [0, 0, 0, 1];
    let undamaged = raw(folder.path(), "facts", |t, txn| t.get(txn, &key).unwrap().unwrap().len());
    for at in [0, 1, 40, undamaged - 1] {
        flip(folder.path(), "facts", &key, at);
        let log = open(folder.path());
        // Nobody reads facts to list the channels.
        let channels = log.channels().unwrap();
        assert!(channels.iter().all(|channel| channel.entry.is_ok()));
        assert_eq!(channels[1].id, facts(2).id);
        assert!(log.facts(Slot(0)).unwrap().unwrap().is_ok());
        assert!(log.facts(Slot(1)).unwrap().unwrap().is_err());
        assert_eq!(log.facts(Slot(2)).unwrap(), Some(Ok(Box::new(facts(3)))));
        assert_eq!(log.changes(Slot(1)).unwrap(), Ok(vec![bump(1), bump(2), bump(3)]));
        drop(log);
        flip(folder.path(), "facts", &key, at);
    }
    // The bytes are kept, and new facts end the quarantine.
    flip(folder.path(), "facts", &key, 9);
    let mut log = open(folder.path());
    put(&mut log, [bumps(1, [4])]);
    assert!(log.facts(Slot(1)).unwrap().unwrap().is_err());
    put(&mut log, [register(1)]);
    assert_eq!(log.facts(Slot(1)).unwrap(), Some(Ok(Box::new(facts(2)))));
}

#[test]
fn a_sound_value_under_another_key_is_damage() {
    let folder = filled();
    raw(folder.path(), "facts", |table, txn| {
        let other = table.get(txn, &[0, 0, 0, 0]).unwrap().unwrap().to_vec();
        table.put(txn, &[0, 0, 0, 1], &other).unwrap();
    });
    let log = open(folder.path());
    assert!(log.facts(Slot(1)).unwrap().unwrap().is_err());
    assert!(log.facts(Slot(0)).unwrap().unwrap().is_ok());
}

#[test]
fn a_damaged_or_missing_change_is_seen() {
    let folder = filled();
    let key = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    flip(folder.path(), "log", &key, 3);
    let log = open(folder.path());
    let damage = log.changes(Slot(1)).unwrap().unwrap_err();
    assert!(damage.what.contains("checksum"), "{damage}");
    assert!(damage.what.contains("000000010000000000000001"), "{damage}");
    assert_eq!(log.changes(Slot(0)).unwrap().unwrap().len(), 3);
    drop(log);
    raw(folder.path(), "log", |table, txn| assert!(table.delete(txn, &key).unwrap()));
    let log = open(folder.path());
    let damage = log.changes(Slot(1)).unwrap().unwrap_err();
    assert!(damage.what.contains("missing"), "{damage}");
}

#[test]
fn damaged_penalty_data_and_subscribers_are_seen() {
    let folder = filled();
    let key = [0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    let bytes = raw(folder.path(), "penalty", |t, txn| t.get(txn, &key).unwrap().unwrap().to_vec());
    for at in 0..bytes.len() {
        flip(folder.path(), "penalty", &key, at);
        let mut log = open(folder.path());
        assert!(log.ended_htlcs(Slot(1), CommitmentNumber(2)).unwrap().is_err(), "{at}");
        assert_eq!(log.ended_htlcs(Slot(0), CommitmentNumber(2)).unwrap().unwrap().len(), 1);
        // What is told later does not touch the bytes.
        let htlcs = vec![(offered(at as u64), htlc(0, Some(5)))];
        put(&mut log, [Write::EndedHtlcs { slot: Slot(1), htlcs }]);
        drop(log);
        flip(folder.path(), "penalty", &key, at);
    }
    let whole = raw(folder.path(), "penalty", |t, txn| t.get(txn, &key).unwrap().unwrap().to_vec());
    assert_eq!(whole, bytes);
    let log = open(folder.path());
    let ended = log.ended_htlcs(Slot(1), CommitmentNumber(2)).unwrap().unwrap();
    assert_eq!(ended.len(), bytes.len());
    drop(log);
    flip(folder.path(), "subs", &[0, 0, 0, 0, b's'], 5);
    // A subscriber is no part of its channel: it gets all again, and is waited for.
    let channels = open(folder.path()).channels().unwrap();
    assert_eq!(sound(&channels), [true, true, true]);
    let again = SubscriberState { next: 0, acknowledged: true };
    assert_eq!(channels[0].subscribers, [("s".to_owned(), again)]);
}

fn sound(channels: &[StoredChannel]) -> Vec<bool> {
    channels.iter().map(|channel| channel.entry.is_ok()).collect()
}

#[test]
fn a_damaged_index_entry_hurts_its_channel_only() {
    let folder = filled();
    let key = [0, 0, 0, 2];
    let length = raw(folder.path(), "channels", |t, txn| t.get(txn, &key).unwrap().unwrap().len());
    for at in 0..length {
        flip(folder.path(), "channels", &key, at);
        let log = open(folder.path());
        let channels = log.channels().unwrap();
        assert_eq!(sound(&channels), [true, true, false], "{at}");
        // The facts know whose the slot is.
        let ids: Vec<_> = channels.iter().map(|channel| channel.id).collect();
        assert_eq!(ids, [facts(1).id, facts(2).id, facts(3).id], "{at}");
        assert!(log.facts(Slot(2)).unwrap().unwrap().is_err());
        assert_eq!(log.changes(Slot(2)).unwrap(), Ok(vec![bump(1), bump(2), bump(3)]));
        drop(log);
        flip(folder.path(), "channels", &key, at);
    }
    // Facts of another channel are refused, those of this one make it whole.
    flip(folder.path(), "channels", &key, 7);
    let mut log = open(folder.path());
    let other = Write::Facts { slot: Slot(2), facts: Arc::new(facts(9)) };
    assert!(matches!(append(&mut log, [other]), Err(StoreError::Refused(_))));
    put(&mut log, [register(2)]);
    assert_eq!(sound(&log.channels().unwrap()), [true; 3]);
    assert_eq!(log.facts(Slot(2)).unwrap(), Some(Ok(Box::new(facts(3)))));
    drop(log);
    // With both records damaged the id is as good as it can be read.
    flip(folder.path(), "channels", &key, length - 1);
    flip(folder.path(), "facts", &key, 9);
    let channels = open(folder.path()).channels().unwrap();
    assert_eq!(sound(&channels), [true, true, false]);
    assert_eq!(channels[2].id, facts(3).id);
}

/// An entry that says less than the facts would let a deadline pass.
#[test]
fn an_entry_that_does_not_belong_to_the_facts_is_damage() {
    let folder = filled();
    let key = [0, 0, 0, 1];
    let mut older = facts(2);
    older.candidates.current.local.number = CommitmentNumber(7);
    let mut entry = ChannelEntry::of(&older).encode();
    let sum = crc32c::crc32c(&[&key[..], &entry[..]].concat());
    entry.extend(sum.to_be_bytes());
    raw(folder.path(), "channels", |table, txn| table.put(txn, &key, &entry).unwrap());
    let log = open(folder.path());
    let damage = log.facts(Slot(1)).unwrap().unwrap().unwrap_err();
    assert!(damage.what.contains("index"), "{damage}");
    assert!(log.facts(Slot(0)).unwrap().unwrap().is_ok());
}

#[test]
fn below_a_damaged_block_nothing_is_known() {
    let folder = filled();
    flip(folder.path(), "chain", &[0, 0, 0, 1], 9);
    assert_eq!(open(folder.path()).blocks().unwrap(), [block(2)]);
}

/// Or the channels would begin anew at the tip, and never see what is in between.
#[test]
fn where_the_newest_block_is_damaged_those_before_it_count() {
    let folder = filled();
    flip(folder.path(), "chain", &[0, 0, 0, 2], 9);
    assert_eq!(open(folder.path()).blocks().unwrap(), [block(0), block(1)]);
    flip(folder.path(), "chain", &[0, 0, 0, 1], 9);
    assert_eq!(open(folder.path()).blocks().unwrap(), [block(0)]);
}

/// Spoils every page of LMDB's that holds this key: whoever comes to one is told that it is damaged.
fn spoil_pages(folder: &Path, key: &[u8]) {
    let data = folder.join("data.mdb");
    let mut bytes = fs::read(&data).unwrap();
    let holds = |page: &&mut [u8]| page.windows(key.len()).any(|window| window == key);
    let pages: Vec<_> = bytes.chunks_mut(4096).filter(holds).collect();
    assert!(!pages.is_empty());
    for page in pages {
        // What kind of page it is, behind its number.
        page[10..12].fill(0);
    }
    fs::write(&data, &bytes).unwrap();
}

#[test]
fn a_batch_that_comes_to_a_damaged_page_does_not_hurt_those_committed_with_it() {
    let folder = filled();
    // The first chunk of penalty data of slot 1.
    spoil_pages(folder.path(), &[0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut log = open(folder.path());
    let guilty = |at: u64| at % 10 == 5;
    let appends: Vec<_> = (0..40u64)
        .map(|at| {
            let htlcs = vec![(offered(at), htlc(0, Some(5)))];
            log.append(batch(
                at,
                if guilty(at) {
                    vec![Write::EndedHtlcs { slot: Slot(1), htlcs }]
                } else {
                    vec![bumps(0, [at])]
                },
            ))
        })
        .collect();
    for (at, append) in (0..).zip(appends) {
        match wait(append) {
            Ok(receipt) => assert_eq!((receipt.batch(), guilty(at)), (BatchId(at), false)),
            Err(StoreError::Lmdb(failure)) => assert!(guilty(at), "{at}: {failure}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    let expected = [1, 2, 3].into_iter().chain((0..40).filter(|at| !guilty(*at)));
    assert_eq!(log.changes(Slot(0)).unwrap().unwrap(), expected.map(bump).collect::<Vec<_>>());
    let statistics = log.statistics();
    assert!(statistics.commits < 20, "they came together: {statistics:?}");
}

/// Its records are sound again, but blocks have passed: a mark that cannot be read must not be lost.
#[test]
fn a_damaged_mark_is_a_mark() {
    let folder = filled();
    let mut log = open(folder.path());
    put(&mut log, [Write::SetAside { slot: Slot(1), aside: true }]);
    drop(log);
    raw(folder.path(), "aside", |table, txn| table.put(txn, &[0, 0, 0, 1], b"x").unwrap());
    let mut log = open(folder.path());
    let aside = |log: &LmdbLog| log.channels().unwrap().iter().map(|c| c.aside).collect::<Vec<_>>();
    assert_eq!(aside(&log), [false, true, false]);
    assert!(log.channel(Slot(1)).unwrap().is_some_and(|channel| channel.aside));
    put(&mut log, [Write::SetAside { slot: Slot(1), aside: false }]);
    assert_eq!(aside(&log), [false; 3]);
}

/// The first stores had neither bytes of others nor marks.
#[test]
fn databases_that_came_later_are_added() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["channels", "facts", "penalty", "log", "chain", "subs", "gone"] {
        raw(folder.path(), name, |_, _| ());
    }
    raw(folder.path(), "meta", |table, txn| {
        let meta = [&2_u16.to_be_bytes()[..], &[0; 8], &[7; 16]].concat();
        let sum = crc32c::crc32c(&[b"format", &meta[..]].concat());
        table.put(txn, b"format", &[&meta[..], &sum.to_be_bytes()].concat()).unwrap();
    });
    let data = folder.path().join("data.mdb");
    File::options().write(true).open(&data).unwrap().set_len(4 << 20).unwrap();
    for aside in [true, false] {
        let mut log = open(folder.path());
        assert_eq!(log.identity(), [7; 16]);
        put(&mut log, [register(0), Write::SetAside { slot: Slot(0), aside }]);
        wait(log.bytes().put("folder", "name", vec![1])).unwrap();
        assert_eq!(log.channels().unwrap()[0].aside, aside);
    }
}
