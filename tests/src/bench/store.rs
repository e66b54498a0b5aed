//! `store`: a durable append, against a record of that size appended to a plain file and synced.
//! Both run on the disk that holds this program.
use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use arb_core::codec::Record;
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::{Batch, BatchId, ChangeLog, Write};
use arb_store::{LmdbLog, StoreConfig};
use indicatif::ProgressBar;

use super::BenchError;
use super::channels::Quiet;
use super::measure::{interleaved, timed};
use super::report::{Goal, Row};

const SEED: u64 = 11;
const PAIRS: usize = 101;
const IN_FLIGHT: usize = 64;

/// A tree commits two things one after the other, its pages and then its root: two syncs, and
/// little besides.
const GOAL_ONE: Goal = Goal::Below(3.0);

/// The first append goes alone, the others together behind it.
const GOAL_MANY: Goal = Goal::Below(0.2);

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("store");
    let folder = tempfile::tempdir_in(beside_this_program()?)?;
    let mut quiet = Quiet::new(SEED)?;
    let facts: Vec<ChannelFacts> = (1..=IN_FLIGHT as u32).map(|slot| quiet.facts(slot)).collect();
    let record = facts[0].encode();
    let mut log = Log::open(&folder.path().join("ours"), facts)?;
    let mut file = File::create(folder.path().join("file"))?;
    let one = interleaved(PAIRS, &mut || timed_result(|| log.append(1)), &mut || {
        timed_result(|| sync(&mut file, &record))
    })?;
    let many = interleaved(PAIRS, &mut || timed_result(|| log.append(IN_FLIGHT)), &mut || {
        timed_result(|| (0..IN_FLIGHT).try_for_each(|_| sync(&mut file, &record)))
    })?;
    Ok(vec![
        Row::of("store: 1 append / 1 append to a file, synced", one, Some(GOAL_ONE)),
        Row::of("store: 64 appends in flight / 64 to a file, synced", many, Some(GOAL_MANY)),
    ])
}

pub(super) fn timed_result(
    work: impl FnOnce() -> Result<(), BenchError>,
) -> Result<std::time::Duration, BenchError> {
    let (time, done) = timed(work);
    done.map(|()| time)
}

/// A temporary folder of the system may lie in memory, where nothing needs to be synced.
pub(super) fn beside_this_program() -> Result<PathBuf, BenchError> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new(".")).to_owned())
}

fn sync(file: &mut File, record: &[u8]) -> Result<(), BenchError> {
    file.write_all(record)?;
    file.sync_data()?;
    Ok(())
}

/// Our store, with facts to append.
struct Log {
    log: LmdbLog,
    facts: Vec<ChannelFacts>,
    next: u64,
}

impl Log {
    fn open(folder: &Path, facts: Vec<ChannelFacts>) -> Result<Self, BenchError> {
        let log = LmdbLog::open(folder, StoreConfig::default())?;
        let mut log = Self { log, facts, next: 0 };
        let all = log.facts.len();
        log.append(all)?;
        Ok(log)
    }

    /// Facts of this many channels, a batch each; returns when all are durable.
    fn append(&mut self, count: usize) -> Result<(), BenchError> {
        let mut under_way = Vec::with_capacity(count);
        for (slot, facts) in (0..).map(Slot).zip(&self.facts).take(count) {
            self.next += 1;
            let writes = vec![Write::Facts { slot, facts: Arc::new(facts.clone()) }];
            under_way.push(self.log.append(Batch { id: BatchId(self.next), writes }));
        }
        for append in under_way {
            let _receipt = wait(append)?;
        }
        Ok(())
    }
}

/// Waits for a future on this thread.
pub(super) fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
