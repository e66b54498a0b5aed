//! A full disk: facts wait, all else goes through on the emergency space.
use crate::samples::{block, bump, bumps, long_change, register};
use crate::support::{append, open, put, small, wait};
use arb_core::ids::Slot;
use arb_core::log::{ChangeLog, Write};
use arb_core::ports::ByteStore;
use arb_store::{Health, LmdbLog, StoreConfig, StoreError};
use std::fs;
use std::path::Path;

const SLOT: Slot = Slot(0);

fn reserve(folder: &Path) -> u64 {
    fs::metadata(folder.join("reserve")).map_or(0, |metadata| metadata.len())
}

fn long(number: u64) -> Write {
    Write::Changes { slot: SLOT, changes: vec![long_change(number, 20_000)] }
}

#[test]
fn on_a_full_disk_facts_wait_and_the_rest_goes_through() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let control = log.control();
    put(&mut log, [register(0), bumps(0, [1])]);
    assert_eq!(log.health(), Health::Ok);
    assert_eq!(reserve(folder.path()), small().reserve);

    control.set_quota(Some(0)).unwrap();
    assert_eq!(log.health(), Health::Emergency);
    assert_eq!(reserve(folder.path()), 0, "the emergency space is given up");
    assert!(matches!(append(&mut log, [register(1)]), Err(StoreError::Full)));
    put(&mut log, [bumps(0, [2]), Write::BlockConnected(block(1))]);
    put(&mut log, [register(0), bumps(0, [3])]);

    // The emergency space ends too; then nothing is left behind by what does not fit.
    let mut stored = 0;
    let refused = loop {
        match append(&mut log, [long(stored)]) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "the quota does not hold");
    };
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert!(stored >= 10, "{stored} transactions fit into the emergency space");
    assert!(matches!(append(&mut log, [long(stored)]), Err(StoreError::Full)));

    control.set_quota(None).unwrap();
    assert_eq!(log.health(), Health::Ok);
    assert_eq!(reserve(folder.path()), small().reserve, "the emergency space is back");
    put(&mut log, [register(1)]);
    put(&mut log, [long(stored)]);
    drop(log);
    let mut expected = vec![bump(1), bump(2), bump(3)];
    expected.extend((0..=stored).map(|number| long_change(number, 20_000)));
    assert_eq!(open(folder.path()).changes(SLOT).unwrap(), Ok(expected));
}

/// The node's own records are refused, but for those without which nothing could be published.
#[test]
fn on_a_full_disk_a_record_may_use_the_emergency_space() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let bytes = log.bytes();
    log.control().set_quota(Some(0)).unwrap();
    assert_eq!(log.health(), Health::Emergency);
    assert!(matches!(wait(bytes.put("a", "one", vec![1])), Err(StoreError::Full)));
    wait(bytes.put_reserved("a", "two", vec![2])).unwrap();
    assert_eq!(bytes.names("a").unwrap(), ["two"]);
    drop((log, bytes));
    assert_eq!(open(folder.path()).bytes().get("a", "two").unwrap(), Some(vec![2]));
}

#[test]
fn the_alarm_comes_before_the_emergency() {
    let folder = tempfile::tempdir().unwrap();
    let quota = Some(4 << 20);
    let mut log = LmdbLog::open(folder.path(), StoreConfig { quota, ..small() }).unwrap();
    put(&mut log, [register(0)]);
    let mut seen = vec![log.health()];
    for number in 0..400 {
        match append(&mut log, [long(number)]) {
            Ok(_) if seen.last() != Some(&log.health()) => seen.push(log.health()),
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error, StoreError::Full), "{error}");
                break;
            }
        }
    }
    assert_eq!(seen, [Health::Ok, Health::Low, Health::Emergency]);
    let size = fs::metadata(folder.path().join("data.mdb")).unwrap().len();
    assert!(size <= 4 << 20, "{size} bytes are more than the quota");
}

#[test]
fn a_map_that_may_not_grow_is_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { max_map: 1 << 20, critical: 128 << 10, ..small() };
    let mut log = LmdbLog::open(folder.path(), config).unwrap();
    put(&mut log, [register(0)]);
    let full = (0..400).find_map(|number| append(&mut log, [long(number)]).err());
    assert!(matches!(full, Some(StoreError::Full)), "{full:?}");
    assert_eq!(log.health(), Health::Emergency);
    assert!(matches!(append(&mut log, [register(1)]), Err(StoreError::Full)));
}

#[test]
fn an_emergency_outlives_a_restart_and_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    log.control().set_quota(Some(0)).unwrap();
    drop(log);
    assert_eq!(reserve(folder.path()), 0);
    let full = StoreConfig { quota: Some(0), ..small() };
    let mut log = LmdbLog::open(folder.path(), full).unwrap();
    assert_eq!(log.health(), Health::Emergency);
    assert!(matches!(append(&mut log, [register(1)]), Err(StoreError::Full)));
    drop(log);
    let mut log = open(folder.path());
    assert_eq!(log.health(), Health::Ok);
    assert_eq!(reserve(folder.path()), small().reserve);
    put(&mut log, [register(1)]);
}

/// A quota takes back what the map had grown by; a copy must open all the same.
#[test]
fn a_backup_of_a_store_that_was_made_smaller_opens() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    for number in 0..70 {
        put(&mut log, [long(number)]);
    }
    let control = log.control();
    let before = log.changes(SLOT).unwrap();
    for quota in (16..=40).map(|eighths| eighths << 17) {
        control.set_quota(Some(quota)).unwrap();
        let target = tempfile::tempdir().unwrap();
        control.back_up(target.path()).unwrap();
        let copy = LmdbLog::open(target.path(), small());
        let copy = copy.unwrap_or_else(|error| panic!("{quota}: {error}"));
        assert_eq!(copy.changes(SLOT).unwrap(), before, "{quota}");
    }
}
