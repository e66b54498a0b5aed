//! `LmdbLog`: the change log that others use, and the handle that controls it from outside.
use crate::apply::{Asked, Prepared};
use crate::backup::back_up;
use crate::layout::next_slot;
use crate::space::{Gauges, Space, Statistics};
use crate::store::Store;
use crate::writer::{Request, Requests, Writer};
use crate::{Append, LmdbBytes, StoreConfig, StoreError, open, read, receipt};
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{HtlcId, Slot};
use arb_core::log::{Batch, ChangeLog, Damaged, Health, Home, Remedy, StoredChannel};
use arb_core::units::{BlockRef, CommitmentNumber};
use std::fmt;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

/// A change log in a folder. Dropping it finishes every append that was asked for, ends the
/// writer thread and unlocks the folder.
pub struct LmdbLog {
    store: Arc<Store>,
    requests: Requests,
    writer: Option<JoinHandle<()>>,
}

impl LmdbLog {
    /// Opens the store in `folder`; creates it if the folder holds none.
    ///
    /// # Errors
    /// The store is in use, newer than this release, shortened, or cannot be read. Nothing has
    /// been changed then.
    pub fn open(folder: impl AsRef<Path>, config: StoreConfig) -> Result<Self, StoreError> {
        let store = Arc::new(open::open(folder.as_ref(), &config)?);
        let (requests, receiver) = mpsc::channel();
        let space = Space::new(&store, &config);
        let writer = Writer::new(store.clone(), space, receiver);
        let thread = std::thread::Builder::new().name("arb-store".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(StoreError::io("writer thread"))?;
        Ok(Self { store, requests, writer: Some(writer) })
    }

    /// A number that no other store has: a copy of a store has the same.
    #[must_use]
    pub fn identity(&self) -> [u8; 16] {
        self.store.identity
    }

    /// How the store is off for space, as the writer last saw it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.store.gauges.health()
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.store.gauges.statistics()
    }

    /// Bytes of the node's own in the same environment.
    #[must_use]
    pub fn bytes(&self) -> LmdbBytes {
        LmdbBytes { store: self.store.clone(), requests: self.requests.clone() }
    }

    /// The writer is woken once. A request that finds no writer drops its receipt, which says so.
    fn ask(&self, requests: Vec<Request>) {
        drop(self.requests.send(requests));
    }

    /// A handle that stays usable after the log has been given away.
    #[must_use]
    pub fn control(&self) -> StoreControl {
        StoreControl {
            gauges: self.store.gauges.clone(),
            requests: self.requests.clone(),
            store: Arc::downgrade(&self.store),
        }
    }
}

/// What the writer is asked for, and the receipt to come.
fn asked(batch: Batch) -> (Request, Append) {
    let (receipt, append) = receipt::channel();
    (Request::Append(Asked::Batch(batch), receipt), append)
}

impl fmt::Debug for LmdbLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LmdbLog").field("folder", &self.store.folder).finish_non_exhaustive()
    }
}

impl Drop for LmdbLog {
    fn drop(&mut self) {
        let _ = self.requests.send(vec![Request::Stop]);
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has dropped the receipts: their futures report it.
            let _ = writer.join();
        }
    }
}

impl ChangeLog for LmdbLog {
    type Error = StoreError;
    type Append = Append;

    fn remedy(error: &StoreError) -> Remedy {
        error.remedy()
    }

    fn next_slot(&self) -> Result<Slot, StoreError> {
        self.store.read(|tables, txn| next_slot(tables, txn).map(Slot))
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, StoreError> {
        self.store.read(|tables, txn| read::subscribers_to_all(tables, txn))
    }

    fn home(&self) -> Option<Home> {
        Some(self.store.home)
    }

    fn append(&mut self, batch: Batch) -> Append {
        let (receipt, append) = receipt::channel();
        match Prepared::new(Asked::Batch(batch)) {
            Ok(batch) => self.ask(vec![Request::Append(Asked::Ready(batch), receipt)]),
            Err(refused) => receipt.send(Err(refused.into())),
        }
        append
    }

    fn append_all(&mut self, batches: Vec<Batch>) -> Vec<Append> {
        let (requests, appends) = batches.into_iter().map(asked).unzip();
        self.ask(requests);
        appends
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), StoreError> {
        self.store.read(|tables, txn| read::channels(tables, txn, each))
    }

    fn channel_count(&self) -> Result<u64, StoreError> {
        self.store.read(|tables, txn| Ok(tables.channels.len(txn)?))
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, StoreError> {
        self.store.read(|tables, txn| read::channel(tables, txn, slot))
    }

    fn health(&self) -> Health {
        self.store.gauges.health()
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, StoreError> {
        self.store.read(|tables, txn| read::facts(tables, txn, slot))
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, StoreError> {
        self.store.read(|tables, txn| read::changes(tables, txn, slot))
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, StoreError> {
        self.store.read(|tables, txn| read::ended_htlcs(tables, txn, slot, number))
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, StoreError> {
        self.store.read(|tables, txn| read::blocks(tables, txn))
    }
}

/// Controls a store from outside: its health, its quota, copies of it. It does not keep the store open.
#[derive(Clone)]
pub struct StoreControl {
    gauges: Arc<Gauges>,
    requests: Requests,
    store: Weak<Store>,
}

impl fmt::Debug for StoreControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreControl").field("gauges", &self.gauges).finish_non_exhaustive()
    }
}

impl StoreControl {
    /// How the store is off for space, as the writer last saw it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.gauges.health()
    }

    /// What the writer has done so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.gauges.statistics()
    }

    /// Limits what the store may occupy, in bytes, emergency space included; `None`: what the
    /// disk has. A limit below what it occupies now counts as exactly that: `Some(0)` makes the
    /// disk full at once, and only the emergency space is left. In force when this returns.
    ///
    /// # Errors
    /// The store is closed.
    pub fn set_quota(&self, quota: Option<u64>) -> Result<(), StoreError> {
        self.ask(|done| Request::Quota(quota, done))
    }

    /// Copies the store, as it is at one moment, into `folder`, which is made if it is not there. Reads, appends
    /// and receipts go on meanwhile; only if the store grows by as much as it occupies before the copy is done
    /// does an append wait for it. Returns when the copy is on stable storage: it takes as long as the disk
    /// needs for the whole file, so call it from a thread that may block. The folder stays locked until it has
    /// returned, even if the log is dropped.
    ///
    /// To use the copy, open its folder with [`LmdbLog::open`]. It knows nothing of what came after it: an
    /// arbiter that starts on it is told by the node's numbers (`ChannelNumbers` of arb-core) which channels have
    /// outdated facts, and publishes no commitment of those. These numbers must be of today: a node that keeps its
    /// own records in this store as well has copied them along, and what it reads there is as old. Of a copy that may
    /// not be the newest, state no channel: all facts are outdated then, until the peers have said how far they are.
    ///
    /// # Errors
    /// The store is closed; the folder holds one already ([`StoreError::InTheWay`]); or the copy cannot be
    /// written, and then nothing is left that could be taken for a store.
    pub fn back_up(&self, folder: impl AsRef<Path>) -> Result<(), StoreError> {
        let store = self.store.upgrade().ok_or(StoreError::Closed)?;
        self.make_room()?;
        back_up(&store, folder.as_ref())
    }

    /// The map of a store that is being copied cannot grow: it is made large enough before.
    pub(crate) fn make_room(&self) -> Result<(), StoreError> {
        self.ask(Request::Room)
    }

    /// Has the writer do something, and waits for it.
    fn ask(&self, request: impl FnOnce(mpsc::Sender<()>) -> Request) -> Result<(), StoreError> {
        let (done, wait) = mpsc::channel();
        self.requests
            .send(vec![request(done)])
            .map_err(|_| StoreError::Closed)
            .and_then(|()| wait.recv().map_err(|_| StoreError::Closed))
    }
}
