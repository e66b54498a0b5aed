//! Kill -9 of a process that appends: every receipt that it had is kept, nothing is torn.
use crate::samples::{block, bump, bumps, register};
use crate::support::{batch, open, wait};
use arb_core::ids::Slot;
use arb_core::log::{ChangeLog, Write};
use arb_store::LmdbLog;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Set for the process that is to be killed: the folder of its store.
const FOLDER: &str = "ARB_STORE_CRASH_FOLDER";
const IN_FLIGHT: usize = 5;
const SLOT: Slot = Slot(0);

/// Batch `number`: it registers the channel if it is the first, and moves the cursor.
fn step(number: u64) -> Vec<Write> {
    let mut writes = vec![register(0)];
    writes.push(bumps(0, [number]));
    writes.push(Write::BlockConnected(block(number as u32)));
    writes
}

/// Number of changes in the store, all of which must be there, with the cursor that belongs to
/// them.
fn check(log: &LmdbLog) -> u64 {
    let changes = log.changes(SLOT).unwrap().expect("no damage");
    let count = changes.len() as u64;
    assert_eq!(changes, (0..count).map(bump).collect::<Vec<_>>());
    let cursor = count.checked_sub(1).map(|last| block(last as u32));
    assert_eq!(log.blocks().unwrap().last().copied(), cursor);
    assert_eq!(log.channels().unwrap().len(), usize::from(count > 0));
    count
}

/// Appends until it is killed, and reports every receipt.
fn append_for_ever(folder: &Path) -> ! {
    let mut log = open(folder);
    let mut waiting = VecDeque::new();
    let mut errors = std::io::stderr();
    for number in check(&log).. {
        waiting.push_back((number, log.append(batch(number, step(number)))));
        if waiting.len() == IN_FLIGHT {
            let (number, append) = waiting.pop_front().expect("a batch in flight");
            assert_eq!(wait(append).expect("a receipt").batch().0, number);
            writeln!(errors, "{number}").expect("the pipe is open");
        }
    }
    unreachable!("killed before the numbers end")
}

/// The next number that the process reports; what else it says is why it failed.
fn receipt(lines: &mut impl Iterator<Item = std::io::Result<String>>) -> u64 {
    let line = lines.next().expect("a line").unwrap();
    line.parse().unwrap_or_else(|_| {
        let rest: Vec<_> = lines.map_while(Result::ok).collect();
        panic!("the process failed: {line}\n{}", rest.join("\n"))
    })
}

fn spawn(test: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn every_receipt_survives_a_kill() {
    if let Ok(folder) = std::env::var(FOLDER) {
        append_for_ever(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..20_u64 {
        let mut child = spawn("crash::every_receipt_survives_a_kill", folder.path());
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut last: Option<u64> = None;
        for _ in 0..=(round * 7 % 40) {
            last = Some(receipt(&mut lines));
        }
        std::thread::sleep(Duration::from_micros(round % 5 * 400));
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between the last look and its death; the last line may be cut.
        for line in lines.map_while(Result::ok) {
            last = line.parse().ok().filter(|number| Some(*number) > last).or(last);
        }
        let received = last.expect("a receipt") + 1;
        let count = check(&open(folder.path()));
        assert!(count >= received, "round {round}: {received} receipts, {count} changes");
        assert!(count >= before && received > before, "round {round}: nothing was appended");
        before = count;
    }
}

#[test]
fn a_store_whose_creation_was_killed_opens() {
    if let Ok(folder) = std::env::var(FOLDER) {
        append_for_ever(Path::new(&folder));
    }
    for round in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = spawn("crash::a_store_whose_creation_was_killed_opens", folder.path());
        std::thread::sleep(Duration::from_micros(round * 500));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut log = open(folder.path());
        let number = check(&log);
        assert!(wait(log.append(batch(number, step(number)))).is_ok());
        assert_eq!(check(&log), number + 1);
    }
}
