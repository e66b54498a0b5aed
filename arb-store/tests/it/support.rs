//! What the tests need around a store: an executor, a folder, raw access to the data file.
use arb_core::log::{Batch, BatchId, ChangeLog, Durable, Write};
use arb_store::{LmdbLog, StoreConfig, StoreError};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, EnvOpenOptions, RwTxn};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

pub(crate) fn batch(id: u64, writes: impl Into<Vec<Write>>) -> Batch {
    Batch { id: BatchId(id), writes: writes.into() }
}

pub(crate) fn append(
    log: &mut LmdbLog,
    writes: impl Into<Vec<Write>>,
) -> Result<Durable, StoreError> {
    wait(log.append(batch(1, writes)))
}

/// Appends what must succeed.
pub(crate) fn put(log: &mut LmdbLog, writes: impl Into<Vec<Write>>) {
    assert_eq!(append(log, writes).expect("a receipt").batch(), BatchId(1));
}

/// A small store, so that growing and filling it takes little.
pub(crate) fn small() -> StoreConfig {
    StoreConfig {
        initial_map: 256 << 10,
        max_map: 64 << 20,
        reserve: 512 << 10,
        low: 1 << 20,
        critical: 64 << 10,
        quota: None,
    }
}

pub(crate) fn open(folder: &Path) -> LmdbLog {
    LmdbLog::open(folder, small()).expect("the store opens")
}

/// Opens one database of a closed store directly, as another program would.
pub(crate) fn raw<T>(
    folder: &Path,
    name: &str,
    work: impl FnOnce(Database<'static, Bytes, Bytes>, &mut RwTxn<'_>) -> T,
) -> T {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(32);
    // SAFETY: the store is closed, and nothing else has the file open.
    #[allow(unsafe_code)]
    let env = unsafe { options.open(folder) }.expect("the environment opens");
    let txn = env.write_txn().expect("a transaction");
    let database = env
        .create_databases_and_commit(txn, |opener, txn| {
            opener.create_database(txn, Some(name)).map(CommitOrAbort::<_, ()>::Commit)
        })
        .expect("the database opens")
        .unwrap_commit();
    let mut txn = env.write_txn().expect("a transaction");
    let done = work(database, &mut txn);
    txn.commit().expect("a commit");
    env.prepare_for_closing().wait();
    done
}
