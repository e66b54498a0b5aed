//! Bytes under names, beside the change log in one environment.
use crate::samples::{bumps, register};
use crate::support::{append, batch, open, put, raw, wait};
use arb_core::ids::Slot;
use arb_core::log::{BatchId, ByteRecord, ChangeLog, Write};
use arb_core::memory::Refused;
use arb_core::ports::ByteStore;
use arb_store::{LONGEST_KEY, LmdbBytes, StoreError};
use std::fs::File;
use std::sync::Arc;

fn write(bytes: &LmdbBytes, folder: &str, name: &str, value: &[u8]) {
    wait(bytes.put(folder, name, value.to_vec())).expect("written");
}

#[test]
fn bytes_are_there_until_they_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let bytes = log.bytes();
    assert_eq!(bytes.get("a", "one").unwrap(), None);
    write(&bytes, "a", "one", b"1");
    write(&bytes, "a", "two", &[]);
    write(&bytes, "a/b", "one", b"other");
    write(&bytes, "", "one", b"top");
    put(&mut log, [register(0)]);
    drop((log, bytes));

    let log = open(folder.path());
    let bytes = log.bytes();
    assert_eq!(bytes.get("a", "one").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(bytes.get("a", "two").unwrap().as_deref(), Some(&[][..]));
    assert_eq!(bytes.get("a/b", "one").unwrap().as_deref(), Some(&b"other"[..]));
    assert_eq!(bytes.names("a").unwrap(), ["one", "two"]);
    assert_eq!(bytes.names("").unwrap(), ["one"]);
    assert!(bytes.names("b").unwrap().is_empty());
    assert!(log.channel(Slot(0)).unwrap().is_some(), "the arbiter's own is beside them");
    wait(bytes.delete("a", "one")).unwrap();
    wait(bytes.delete("a", "one")).unwrap();
    assert_eq!(bytes.get("a", "one").unwrap(), None);
    assert_eq!(bytes.names("a").unwrap(), ["two"]);
}

/// Writes hold the order in which they were asked for, whatever is awaited first.
#[test]
fn the_last_write_stays() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = log.bytes();
    let writes: Vec<_> = (0..100u8).map(|n| bytes.put("f", "n", vec![n])).collect();
    for write in writes.into_iter().rev() {
        wait(write).unwrap();
    }
    assert_eq!(bytes.get("f", "n").unwrap(), Some(vec![99]));
}

fn record(name: &str, bytes: &[u8]) -> Write {
    let (folder, name) = ("f".to_owned(), name.to_owned());
    Write::Bytes(Arc::new(ByteRecord { folder, name, bytes: bytes.to_vec() }))
}

/// What comes with facts is written with them, in the order of all writes, or not at all.
#[test]
fn bytes_come_with_facts() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let bytes = log.bytes();
    assert!(log.home().is_some() && log.home() == bytes.home());
    let elsewhere = tempfile::tempdir().unwrap();
    assert_ne!(open(elsewhere.path()).home(), log.home());
    let before = bytes.put("f", "n", b"before".to_vec());
    let with_facts = log.append(batch(1, [register(0), record("n", b"with them")]));
    let after = bytes.put("f", "other", b"after".to_vec());
    wait(after).unwrap();
    assert_eq!(bytes.get("f", "n").unwrap().as_deref(), Some(&b"with them"[..]));
    wait(before).unwrap();
    assert_eq!(wait(with_facts).unwrap().batch(), BatchId(1));
    // Slot 1 was never registered.
    let refused = append(&mut log, [record("n", b"refused"), bumps(1, [2])]);
    assert!(matches!(refused, Err(StoreError::Refused(Refused::UnknownSlot(Slot(1))))));
    for name in ["", "a\0b", &"n".repeat(LONGEST_KEY)] {
        let refused = append(&mut log, [register(2), record(name, b"refused")]);
        assert!(matches!(refused, Err(StoreError::Refused(Refused::BadRecordName))), "{name:?}");
    }
    drop((log, bytes));
    let log = open(folder.path());
    assert_eq!(log.bytes().get("f", "n").unwrap().as_deref(), Some(&b"with them"[..]));
    assert!(log.channel(Slot(0)).unwrap().is_some() && log.channel(Slot(2)).unwrap().is_none());
}

#[test]
fn large_values_make_the_map_grow() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = log.bytes();
    let large = vec![7; 3 << 20];
    for name in ["a", "b", "c"] {
        write(&bytes, "large", name, &large);
    }
    assert_eq!(bytes.get("large", "b").unwrap(), Some(large));
}

#[test]
fn names_that_could_be_mistaken_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = log.bytes();
    let long = "x".repeat(LONGEST_KEY);
    for (of, name) in [("a\0b", "c"), ("a", "b\0c"), ("a", ""), ("a", &*long), (&*long, "c")] {
        assert!(matches!(wait(bytes.put(of, name, vec![])), Err(StoreError::BadName)));
        assert!(matches!(wait(bytes.delete(of, name)), Err(StoreError::BadName)));
        assert!(matches!(bytes.get(of, name), Err(StoreError::BadName)));
    }
    let longest = "x".repeat(LONGEST_KEY - 2);
    write(&bytes, "a", &longest, b"fits");
    assert_eq!(bytes.get("a", &longest).unwrap().as_deref(), Some(&b"fits"[..]));
}

#[test]
fn damage_is_told_and_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    write(&log.bytes(), "a", "hurt", b"value");
    write(&log.bytes(), "a", "well", b"value");
    drop(log);
    raw(folder.path(), "bytes", |table, txn| {
        let mut value = table.get(txn, b"a\0hurt").unwrap().unwrap().to_vec();
        value[0] ^= 1;
        table.put(txn, b"a\0hurt", &value).unwrap();
    });
    let log = open(folder.path());
    assert!(matches!(log.bytes().get("a", "hurt"), Err(StoreError::Damaged(_))));
    assert!(log.bytes().get("a", "well").unwrap().is_some());
    assert_eq!(log.bytes().names("a").unwrap(), ["hurt", "well"]);
}

#[test]
fn nothing_is_written_after_the_log_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = log.bytes();
    write(&bytes, "a", "b", b"c");
    drop(log);
    assert!(matches!(wait(bytes.put("a", "b", vec![])), Err(StoreError::Closed)));
    assert_eq!(bytes.get("a", "b").unwrap().as_deref(), Some(&b"c"[..]));
}

/// A store that was created before there were bytes gets them when it is opened, and keeps all else.
#[test]
fn an_older_store_gets_them() {
    let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = open(new.path());
    put(&mut log, [register(0)]);
    drop(log);
    for name in ["meta", "channels", "facts", "penalty", "log", "chain", "subs", "gone"] {
        let entries: Vec<(Vec<u8>, Vec<u8>)> = raw(new.path(), name, |table, txn| {
            let entries = table.iter(txn).unwrap().map(Result::unwrap);
            entries.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
        });
        raw(old.path(), name, |table, txn| {
            for (key, value) in &entries {
                table.put(txn, key, value).unwrap();
            }
        });
    }
    std::fs::copy(new.path().join("arb.lock"), old.path().join("arb.lock")).unwrap();
    // As large as the map that LMDB takes of itself.
    let data = File::options().write(true).open(old.path().join("data.mdb")).unwrap();
    data.set_len(1 << 20).unwrap();

    for _ in 0..2 {
        let log = open(old.path());
        assert!(log.channel(Slot(0)).unwrap().is_some());
        write(&log.bytes(), "a", "b", b"c");
        assert_eq!(log.bytes().get("a", "b").unwrap().as_deref(), Some(&b"c"[..]));
    }
}
