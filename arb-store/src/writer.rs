//! The writer thread: takes batches from a queue, commits those that wait together, grows the
//! map, deals with a full disk, and deletes what was forgotten when nothing else is to be done.
use crate::StoreError;
use crate::apply::{Cleaning, Prepared, apply, clean};
use crate::layout::Databases;
use crate::receipt::Sender;
use crate::space::Space;
use crate::store::Store;
use arb_core::log::Durable;
use heed::RwTxn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Most batches in one transaction.
const LARGEST_GROUP: usize = 256;
/// While batches come in groups: how long to wait for the next one of a group, and for all of it.
/// The first is little beside a commit, which those that come too late would need another one of.
/// The second is as long as the last commit took, within these limits: nobody waits for others
/// longer than for the disk.
const NEXT_OF_GROUP: Duration = Duration::from_micros(100);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// Most records that one step of cleaning up deletes.
const CLEANING_STEP: usize = 2048;
/// While the disk is full, how often to look whether it still is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the writer is asked for.
pub(crate) enum Request {
    /// Append a batch.
    Append(Pending),
    /// What the store may occupy from now on; answered when it is in force.
    Quota(Option<u64>, mpsc::Sender<()>),
    /// End the thread. Everything asked for before is done first.
    Stop,
}

/// A batch that waits for its receipt.
pub(crate) struct Pending {
    pub(crate) batch: Prepared,
    pub(crate) receipt: Sender,
}

impl Pending {
    fn refuse(self, error: StoreError) {
        self.receipt.send(Err(error));
    }
}

/// Why a transaction did not reach stable storage.
enum Failure {
    /// There was no room for it.
    NoRoom,
    /// Anything else.
    Other(StoreError),
}

pub(crate) struct Writer {
    store: Arc<Store>,
    space: Space,
    requests: Receiver<Request>,
    /// Taken from the queue while a group was collected, and not part of it.
    next: Option<Request>,
    /// The last group held more than one batch.
    in_groups: bool,
    /// How long the last commit took.
    last_commit: Duration,
    cleaning: Cleaning,
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>, space: Space, requests: Receiver<Request>) -> Self {
        // A previous run may have left something to clean up.
        let (next, in_groups, last_commit) = (None, false, Duration::ZERO);
        let cleaning = Cleaning::Goes;
        Self { store, space, requests, next, in_groups, last_commit, cleaning }
    }

    pub(crate) fn run(mut self) {
        loop {
            match self.next.take().or_else(|| self.wait()) {
                Some(Request::Append(first)) => {
                    let group = self.collect(first);
                    let begun = Instant::now();
                    self.space.refresh(&self.store);
                    self.commit(group);
                    self.last_commit = begun.elapsed();
                }
                Some(Request::Quota(quota, done)) => {
                    self.space.set_quota(&self.store, quota);
                    let _ = done.send(());
                }
                Some(Request::Stop) => return,
                None => {}
            }
        }
    }

    /// The next request; `None` after something else was done meanwhile.
    fn wait(&mut self) -> Option<Request> {
        if self.cleaning == Cleaning::Goes {
            return match self.requests.try_recv() {
                Ok(request) => Some(request),
                Err(TryRecvError::Disconnected) => Some(Request::Stop),
                Err(TryRecvError::Empty) => {
                    self.clean();
                    None
                }
            };
        }
        if !self.space.emergency() {
            return Some(self.requests.recv().unwrap_or(Request::Stop));
        }
        match self.requests.recv_timeout(LOOK_AGAIN) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Disconnected) => Some(Request::Stop),
            Err(RecvTimeoutError::Timeout) => {
                self.space.refresh(&self.store);
                None
            }
        }
    }

    /// A batch and those that wait behind it. One that comes alone, as the last one did, does not
    /// wait for others.
    fn collect(&mut self, first: Pending) -> Vec<Pending> {
        let mut group = vec![first];
        let end = Instant::now() + self.last_commit.clamp(SHORTEST_WAIT, LONGEST_WAIT);
        while group.len() < LARGEST_GROUP {
            let waiting = self.requests.try_recv().ok();
            let next = waiting.or_else(|| {
                let patient = self.in_groups && Instant::now() < end;
                patient.then(|| self.requests.recv_timeout(NEXT_OF_GROUP).ok()).flatten()
            });
            match next {
                Some(Request::Append(pending)) => group.push(pending),
                Some(other) => {
                    self.next = Some(other);
                    break;
                }
                None => break,
            }
        }
        self.in_groups = group.len() > 1;
        group
    }

    /// Commits a group, and answers each batch of it.
    fn commit(&mut self, mut group: Vec<Pending>) {
        loop {
            if self.space.emergency() {
                group = refuse_facts(group);
            }
            if group.is_empty() {
                return;
            }
            let batches = group.iter().map(|pending| &pending.batch);
            match self.write(|tables, txn| apply(tables, txn, batches.clone())) {
                Ok(outcomes) => {
                    self.store.gauges.count(group.len() as u64);
                    self.cleaning = Cleaning::Goes;
                    for (pending, outcome) in group.into_iter().zip(outcomes) {
                        let durable = Durable::assert_durable(pending.batch.id);
                        pending.receipt.send(outcome.map(|()| durable).map_err(Into::into));
                    }
                    return;
                }
                Err(Failure::NoRoom) if !self.space.emergency() => {
                    self.space.exhausted(&self.store);
                }
                // What does not fit together may fit one by one.
                Err(Failure::NoRoom) if group.len() > 1 => {
                    return group.into_iter().for_each(|pending| self.commit(vec![pending]));
                }
                Err(Failure::NoRoom) => {
                    return group.into_iter().for_each(|pending| pending.refuse(StoreError::Full));
                }
                Err(Failure::Other(error)) => {
                    return group.into_iter().for_each(|pending| pending.refuse(error.clone()));
                }
            }
        }
    }

    /// Deletes a piece of what was forgotten. Failing, it waits for the next commit.
    fn clean(&mut self) {
        let cleaned = self.write(|tables, txn| clean(tables, txn, CLEANING_STEP));
        self.cleaning = cleaned.unwrap_or(Cleaning::Done);
    }

    /// Writes in one transaction, as often as the map must grow for it.
    fn write<T>(
        &self,
        work: impl Fn(&Databases, &mut RwTxn<'_>) -> Result<T, StoreError>,
    ) -> Result<T, Failure> {
        loop {
            match self.attempt(&work) {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => self.grow()?,
                Err(error) if self.is_no_room(&error) => return Err(Failure::NoRoom),
                Err(error) => return Err(Failure::Other(error)),
            }
        }
    }

    /// One attempt; `None` if the map is full. The transaction is over in any case.
    fn attempt<T>(
        &self,
        work: impl Fn(&Databases, &mut RwTxn<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let attempt = || {
            let mut txn = self.store.env.write_txn()?;
            let done = work(&self.store.tables, &mut txn)?;
            txn.commit()?;
            Ok(done)
        };
        match attempt() {
            Ok(done) => Ok(Some(done)),
            Err(StoreError::Lmdb(failure)) if failure.map_full => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn grow(&self) -> Result<(), Failure> {
        let (now, largest) = (self.store.map_size(), self.space.largest_map());
        if largest <= now {
            return Err(Failure::NoRoom);
        }
        self.store.resize(now.saturating_mul(2).min(largest)).map_err(|error| {
            if self.is_no_room(&error) { Failure::NoRoom } else { Failure::Other(error) }
        })
    }

    fn is_no_room(&self, error: &StoreError) -> bool {
        let StoreError::Io { error, .. } = error else { return false };
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => true,
            // LMDB reports a write that was cut short as an I/O error of no kind.
            _ => self.space.disk_is_full(&self.store),
        }
    }
}

/// Refuses batches that write facts only, and keeps the others.
fn refuse_facts(group: Vec<Pending>) -> Vec<Pending> {
    let (facts, others): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|pending| pending.batch.facts_only);
    facts.into_iter().for_each(|pending| pending.refuse(StoreError::Full));
    others
}
