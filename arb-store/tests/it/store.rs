//! What a store promises on a good day: it keeps what it gave receipts for, in order.
use crate::samples::{block, bump, bumps, facts, handed_out, htlc, long_change, offered, register};
use crate::support::{append, batch, open, put, raw, wait};
use arb_core::facts::ChannelEntry;
use arb_core::ids::Slot;
use arb_core::log::{Batch, BatchId, ChangeLog, Durable, SubscriberState, Write};
use arb_core::memory::Refused;
use arb_core::units::CommitmentNumber;
use arb_store::{LmdbLog, StoreConfig, StoreError};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const SLOT: Slot = Slot(0);

fn subscriber(name: &str, next: u64) -> Write {
    let state = Some(SubscriberState { next, acknowledged: true });
    Write::Subscriber { slot: SLOT, name: name.to_owned(), state }
}

#[test]
fn everything_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let identity = log.identity();
    assert_eq!(log.channels().unwrap(), []);
    assert_eq!(log.blocks().unwrap(), []);
    put(&mut log, [register(0), bumps(0, [1, 2]), Write::BlockConnected(block(100))]);
    let ended = vec![(offered(7), htlc(3, Some(9))), (offered(8), htlc(8, Some(20)))];
    put(&mut log, [Write::EndedHtlcs { slot: SLOT, htlcs: ended }, subscriber("s1", 3)]);
    put(&mut log, [Write::Changes { slot: SLOT, changes: vec![handed_out()] }]);
    put(&mut log, [subscriber("s2", 0), register(1), Write::BlockConnected(block(101))]);
    put(&mut log, [Write::Subscriber { slot: SLOT, name: "s2".to_owned(), state: None }]);
    for _ in 0..2 {
        assert_eq!(log.identity(), identity);
        let channels = log.channels().unwrap();
        assert_eq!(
            channels.iter().map(|c| (c.slot, c.id)).collect::<Vec<_>>(),
            [(SLOT, facts(1).id), (Slot(1), facts(2).id)]
        );
        assert_eq!(channels[0].entry, Ok(ChannelEntry::of(&facts(1))));
        assert_eq!(log.channel_count().unwrap(), 2);
        assert_eq!(log.facts(SLOT).unwrap(), Some(Ok(Box::new(facts(1)))));
        let state = SubscriberState { next: 3, acknowledged: true };
        assert_eq!(channels[0].subscribers, [("s1".to_owned(), state)]);
        assert_eq!(channels.iter().map(|c| c.has_changes).collect::<Vec<_>>(), [true, false]);
        assert_eq!(log.facts(Slot(1)).unwrap(), Some(Ok(Box::new(facts(2)))));
        assert_eq!(log.facts(Slot(2)).unwrap(), None);
        assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![bump(1), bump(2), handed_out()]));
        let at = |number| log.ended_htlcs(SLOT, CommitmentNumber(number)).unwrap().unwrap();
        assert_eq!(at(2), []);
        assert_eq!(at(3), [(offered(7), htlc(3, Some(9)))]);
        assert_eq!(at(8).len(), 2);
        assert_eq!(at(9), [(offered(8), htlc(8, Some(20)))]);
        assert_eq!(log.blocks().unwrap(), [block(100), block(101)]);
        assert_eq!(log.next_slot().unwrap(), Slot(2));
        drop(log);
        log = open(folder.path());
    }
}

#[test]
fn subscriptions_to_all_channels_belong_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let to_all =
        |name: &str, acknowledged| Write::SubscriberToAll { name: name.to_owned(), acknowledged };
    // Before there is any channel, and apart from one of the same name.
    put(&mut log, [to_all("s1", Some(true)), to_all("s2", Some(false)), to_all("s3", Some(true))]);
    put(&mut log, [register(0), subscriber("s1", 3), to_all("s3", None)]);
    put(&mut log, [to_all("s2", Some(true))]);
    for _ in 0..2 {
        let all = log.subscribers_to_all().unwrap();
        assert_eq!(all, [("s1".to_owned(), true), ("s2".to_owned(), true)]);
        let state = SubscriberState { next: 3, acknowledged: true };
        assert_eq!(log.channels().unwrap()[0].subscribers, [("s1".to_owned(), state)]);
        assert_eq!(log.next_slot().unwrap(), Slot(1), "no channel has their slot");
        drop(log);
        log = open(folder.path());
    }
    put(&mut log, [Write::Forget { slot: SLOT }]);
    assert_eq!(log.subscribers_to_all().unwrap().len(), 2);
    let long = wait(log.append(batch(9, [to_all(&"x".repeat(256), Some(true))])));
    assert!(matches!(long, Err(StoreError::Refused(Refused::NameTooLong))), "{long:?}");
}

#[test]
fn the_cursor_moves_both_ways_and_old_blocks_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, (0..400).map(|height| Write::BlockConnected(block(height))).collect::<Vec<_>>());
    let blocks = log.blocks().unwrap();
    assert_eq!(blocks, (112..400).map(block).collect::<Vec<_>>());
    put(&mut log, [Write::Disconnected { fork_point: block(390) }]);
    assert_eq!(log.blocks().unwrap().last(), Some(&block(390)));
    put(&mut log, [Write::BlockConnected(block(391))]);
    assert_eq!(log.blocks().unwrap(), (112..392).map(block).collect::<Vec<_>>());
    // Deeper than what is kept: the fork point is what is known.
    put(&mut log, [Write::Disconnected { fork_point: block(50) }]);
    assert_eq!(log.blocks().unwrap(), [block(50)]);
}

#[test]
fn a_refused_batch_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    let mut other = facts(9);
    other.birth = block(5).height;
    let taken = [bumps(0, [1]), Write::Facts { slot: SLOT, facts: Arc::new(other) }];
    let unknown = [Write::BlockConnected(block(1)), bumps(3, [1])];
    let long = [bumps(0, [1]), subscriber(&"n".repeat(256), 0)];
    for (writes, expected) in [
        (Vec::from(taken), Refused::SlotTaken(SLOT)),
        (Vec::from(unknown), Refused::UnknownSlot(Slot(3))),
        (Vec::from(long), Refused::NameTooLong),
    ] {
        match append(&mut log, writes) {
            Err(StoreError::Refused(refused)) => assert_eq!(refused, expected),
            other => panic!("expected {expected:?}, found {other:?}"),
        }
    }
    assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![]));
    assert_eq!(log.blocks().unwrap(), []);
    put(&mut log, [subscriber(&"n".repeat(255), 0)]);
    assert_eq!(log.channels().unwrap()[0].subscribers[0].0.len(), 255);
}

#[test]
fn batches_that_are_asked_for_together_are_each_answered_for_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let writes = [vec![register(0)], vec![bumps(3, [1])], vec![bumps(0, [1])], vec![bumps(0, [2])]];
    let batches = (1..).map(BatchId).zip(writes).map(|(id, writes)| Batch { id, writes });
    let answers: Vec<_> = log.append_all(batches.collect()).into_iter().map(wait).collect();
    assert_eq!(answers.len(), 4);
    for (number, answer) in (1..).zip(&answers) {
        match answer {
            Ok(receipt) => assert_eq!(*receipt, Durable::assert_durable(BatchId(number))),
            Err(StoreError::Refused(refused)) => {
                assert_eq!((number, *refused), (2, Refused::UnknownSlot(Slot(3))));
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(answers[1].is_err());
    assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![bump(1), bump(2)]), "in order");
}

#[test]
fn a_log_is_replaced_whole_with_what_is_appended_around_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let replaced = |feerates: &[u64]| Write::LogReplaced {
        slot: SLOT,
        changes: feerates.iter().copied().map(bump).collect(),
    };
    put(&mut log, [register(0), register(1), bumps(0, [1, 2, 3]), bumps(1, [5])]);
    put(&mut log, [bumps(0, [4]), replaced(&[3, 4]), bumps(0, [6])]);
    for _ in 0..2 {
        assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![bump(3), bump(4), bump(6)]));
        assert_eq!(log.changes(Slot(1)).unwrap(), Ok(vec![bump(5)]), "another's");
        drop(log);
        log = open(folder.path());
    }
    put(&mut log, [replaced(&[])]);
    assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![]));
    assert!(!log.channel(SLOT).unwrap().unwrap().has_changes, "it is quiet at the next start");
    let unknown = append(&mut log, [Write::LogReplaced { slot: Slot(7), changes: vec![] }]);
    assert!(matches!(unknown, Err(StoreError::Refused(Refused::UnknownSlot(Slot(7))))));
}

// incident lnd-10780
// incident eclair-2702
#[test]
fn a_forgotten_channel_is_gone_and_its_slot_is_never_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0), register(1), bumps(0, [1]), bumps(1, [5]), subscriber("s", 0)]);
    put(&mut log, [Write::SetAside { slot: SLOT, aside: true }]);
    for chunk in 0..10 {
        let htlcs = (0..500).map(|id| (offered(chunk * 500 + id), htlc(1, Some(2)))).collect();
        put(&mut log, [Write::EndedHtlcs { slot: SLOT, htlcs }]);
    }
    // What follows in the same batch has nothing left to be added to.
    put(&mut log, [Write::Forget { slot: SLOT }, bumps(0, [2]), subscriber("t", 1)]);
    put(&mut log, [Write::SetAside { slot: SLOT, aside: true }]);
    let check = |log: &mut LmdbLog| {
        assert_eq!(log.channels().unwrap().len(), 1);
        assert_eq!(log.facts(SLOT).unwrap(), None);
        assert_eq!(log.changes(SLOT).unwrap(), Ok(vec![]));
        assert_eq!(log.ended_htlcs(SLOT, CommitmentNumber(1)).unwrap(), Ok(vec![]));
        assert_eq!(log.changes(Slot(1)).unwrap(), Ok(vec![bump(5)]));
        let again = append(log, [register(0)]);
        assert!(matches!(again, Err(StoreError::Refused(Refused::SlotForgotten(SLOT)))));
        put(log, [Write::Forget { slot: SLOT }]);
    };
    check(&mut log);
    drop(log);
    // The deleting goes on after a restart, until nothing is left.
    let left = |name: &str| {
        raw(folder.path(), name, |table, txn| table.prefix_iter(txn, &[0; 4]).unwrap().count())
    };
    for _ in 0..100 {
        let mut log = open(folder.path());
        check(&mut log);
        std::thread::sleep(Duration::from_millis(20));
        drop(log);
        if left("gone") == 0 {
            break;
        }
    }
    for name in ["gone", "penalty", "log", "subs", "facts", "channels", "aside"] {
        assert_eq!(left(name), 0, "{name}");
    }
    let mut log = open(folder.path());
    put(&mut log, [Write::Forget { slot: Slot(1) }]);
    assert_eq!(log.next_slot().unwrap(), Slot(2));
}

// incident lnd-9867 lnd-9242 lnd-8049 lnd-6646
#[test]
fn appends_that_wait_are_committed_together_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    let before = log.statistics();
    let waiting: Vec<_> = (0..64).map(|i| log.append(batch(i, [bumps(0, [i])]))).collect();
    for (i, append) in waiting.into_iter().enumerate() {
        assert_eq!(wait(append).unwrap().batch(), BatchId(i as u64));
    }
    let after = log.statistics();
    assert_eq!(after.batches - before.batches, 64);
    assert!(after.commits - before.commits <= 16, "{before:?} {after:?}");
    assert_eq!(log.changes(SLOT).unwrap(), Ok((0..64).map(bump).collect()));
}

#[test]
fn a_bad_batch_does_not_hurt_those_committed_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    let waiting: Vec<_> = (0..40)
        .map(|i| log.append(batch(i, [bumps(if i % 2 == 0 { 0 } else { 7 }, [i])])))
        .collect();
    for (i, append) in waiting.into_iter().enumerate() {
        assert_eq!(wait(append).is_ok(), i % 2 == 0, "batch {i}");
    }
    assert_eq!(log.changes(SLOT).unwrap(), Ok((0..40).step_by(2).map(bump).collect()));
}

#[test]
fn dropping_the_log_finishes_what_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    let control = log.control();
    let waiting: Vec<_> = (0..30).map(|i| log.append(batch(i, [bumps(0, [i])]))).collect();
    drop(log);
    waiting.into_iter().for_each(|append| drop(wait(append).unwrap()));
    assert!(matches!(control.set_quota(None), Err(StoreError::Closed)));
    assert_eq!(open(folder.path()).changes(SLOT).unwrap().unwrap().len(), 30);
}

#[test]
fn the_map_grows_while_channels_are_registered() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    let register = |slot: u32| {
        let mut facts = facts(1);
        facts.id.0[..4].copy_from_slice(&slot.to_be_bytes());
        Write::Facts { slot: Slot(slot), facts: Arc::new(facts) }
    };
    put(&mut log, (0..1_000).map(register).collect::<Vec<_>>());
    (1_000..1_500).for_each(|slot| put(&mut log, [register(slot)]));
    assert_eq!(log.channel_count().unwrap(), 1_500);
    assert_eq!(log.next_slot().unwrap(), Slot(1_500));
}

#[test]
fn the_map_grows_under_readers() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = open(folder.path());
    put(&mut log, [register(0)]);
    let change = |i| Write::Changes { slot: SLOT, changes: vec![long_change(i, 20_000)] };
    let waiting: Vec<_> = (0..200).map(|i| log.append(batch(i, [change(i)]))).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut seen = 0;
                while seen < 200 {
                    let changes = log.changes(SLOT).unwrap().unwrap();
                    assert!(changes.len() >= seen, "a change was lost");
                    seen = changes.len();
                }
            });
        }
    });
    waiting.into_iter().for_each(|append| drop(wait(append).unwrap()));
    drop(log);
    let changes = open(folder.path()).changes(SLOT).unwrap().unwrap();
    assert_eq!(changes, (0..200).map(|i| long_change(i, 20_000)).collect::<Vec<_>>());
}

#[test]
fn one_process_has_the_store() {
    const FOLDER: &str = "ARB_STORE_SECOND_PROCESS";
    if let Ok(folder) = std::env::var(FOLDER) {
        let second = LmdbLog::open(folder, StoreConfig::default());
        assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let second = LmdbLog::open(folder.path(), StoreConfig::default());
    assert!(matches!(second, Err(StoreError::InUse { .. })), "{second:?}");
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::one_process_has_the_store"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    assert!(process.status.success(), "{}", String::from_utf8_lossy(&process.stdout));
    drop(log);
    drop(open(folder.path()));
}

#[test]
fn a_backup_holds_what_was_durable_when_it_was_made() {
    let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let copy = target.path().join("not/there/yet");
    let mut log = open(folder.path());
    let control = log.control();
    put(&mut log, [register(0), bumps(0, [1, 2])]);
    control.back_up(&copy).unwrap();
    put(&mut log, [bumps(0, [3])]);

    let refused = control.back_up(&copy);
    assert!(matches!(refused, Err(StoreError::InTheWay { .. })), "{refused:?}");
    let (identity, now) = (log.identity(), log.changes(SLOT).unwrap());
    drop(log);
    assert!(matches!(control.back_up(target.path().join("late")), Err(StoreError::Closed)));
    assert!(!target.path().join("late").exists());

    // Either goes on by itself, however often it is opened.
    for more in [4, 5] {
        let mut copied = open(&copy);
        assert_eq!(copied.identity(), identity);
        assert_eq!(
            copied.facts(SLOT).unwrap().unwrap().unwrap(),
            open(folder.path()).facts(SLOT).unwrap().unwrap().unwrap()
        );
        put(&mut copied, [bumps(0, [more])]);
    }
    assert_eq!(open(&copy).changes(SLOT).unwrap(), Ok([1, 2, 4, 5].map(bump).to_vec()));
    assert_eq!(open(folder.path()).changes(SLOT).unwrap(), now);
    assert_eq!(now, Ok([1, 2, 3].map(bump).to_vec()));
}
