//! The writer thread: takes batches from a queue, commits those that wait together, grows the
//! map, deals with a full disk, and deletes what was forgotten when nothing else is to be done.
use crate::StoreError;
use crate::apply::{Applier, Asked, Cleaning, Prepared, clean};
use crate::layout::Databases;
use crate::receipt::{self, Sender};
use crate::space::Space;
use crate::store::Store;
use arb_core::log::Durable;
use heed::RwTxn;
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// Most batches in one transaction.
const LARGEST_GROUP: usize = 256;
/// While more batches are expected: how long to wait for the next one, and for all of them. The
/// first is little beside a commit, which those that come too late would need another one of. The
/// second is as long as the last commit took, within these limits: nobody waits for others longer
/// than for the disk.
const NEXT_OF_GROUP: Duration = Duration::from_micros(100);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// Most records that one step of cleaning up deletes.
const CLEANING_STEP: usize = 2048;
/// While the disk is full, how often to look whether it still is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The way to the writer: what is asked for together is one message, and wakes it once.
pub(crate) type Requests = mpsc::Sender<Vec<Request>>;

/// What the writer is asked for.
pub(crate) enum Request {
    /// Append a batch, and give a receipt.
    Append(Asked, Sender),
    /// What the store may occupy from now on; answered when it is in force.
    Quota(Option<u64>, mpsc::Sender<()>),
    /// Make the map so large that as much as it holds can be written before it must grow; answered when it
    /// is, or cannot be.
    Room(mpsc::Sender<()>),
    /// End the thread. Everything asked for before is done first.
    Stop,
}

/// A batch that waits for its receipt.
struct Pending {
    batch: Prepared,
    receipt: Sender,
}

impl Pending {
    /// `None`: it is refused.
    fn new(asked: Asked, receipt: Sender) -> Option<Self> {
        match Prepared::new(asked) {
            Ok(batch) => Some(Self { batch, receipt }),
            Err(refused) => {
                receipt.send(Err(refused.into()));
                None
            }
        }
    }

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
    queue: Queue,
    cleaning: Cleaning,
}

impl Writer {
    pub(crate) fn new(store: Arc<Store>, space: Space, requests: Receiver<Vec<Request>>) -> Self {
        // A previous run may have left something to clean up.
        let cleaning = Cleaning::Goes;
        Self { store, space, queue: Queue::new(requests), cleaning }
    }

    pub(crate) fn run(mut self) {
        loop {
            if self.queue.waiting.is_empty() {
                self.wait();
            }
            match self.queue.waiting.pop_front() {
                Some(Request::Append(asked, receipt)) => {
                    let Some(first) = Pending::new(asked, receipt) else { continue };
                    self.space.refresh(&self.store);
                    let mut group = vec![first];
                    if self.space.emergency() {
                        // What will be refused must not be put in: they come together first.
                        let waiting = || self.queue.next_of_group(1, Instant::now());
                        group.extend(std::iter::from_fn(waiting).take(LARGEST_GROUP));
                    }
                    self.commit(group);
                }
                Some(Request::Quota(quota, done)) => {
                    self.space.set_quota(&self.store, quota);
                    let _ = done.send(());
                }
                Some(Request::Room(done)) => {
                    make_room(&self.store, &self.space);
                    let _ = done.send(());
                }
                Some(Request::Stop) => return,
                None => {}
            }
        }
    }

    /// Waits for the next requests; none after something else was done meanwhile.
    fn wait(&mut self) {
        let requests = if self.cleaning == Cleaning::Goes {
            match self.queue.requests.try_recv() {
                Ok(requests) => requests,
                Err(TryRecvError::Disconnected) => vec![Request::Stop],
                Err(TryRecvError::Empty) => return self.clean(),
            }
        } else if self.space.emergency() {
            match self.queue.requests.recv_timeout(LOOK_AGAIN) {
                Ok(requests) => requests,
                Err(RecvTimeoutError::Disconnected) => vec![Request::Stop],
                Err(RecvTimeoutError::Timeout) => return self.space.refresh(&self.store),
            }
        } else {
            self.queue.requests.recv().unwrap_or_else(|_| vec![Request::Stop])
        };
        self.queue.waiting.extend(requests);
    }

    /// Commits a group, and answers each batch of it. One that cannot be put in is refused alone; what
    /// is wrong with the whole transaction is wrong for all. Unless space has run out, batches that come
    /// with it are put into the transaction as they come, while the next ones are still prepared.
    fn commit(&mut self, mut group: Vec<Pending>) {
        let begun = Instant::now();
        loop {
            let emergency = self.space.emergency();
            if emergency {
                group = refuse_facts(group);
            }
            if group.is_empty() {
                return;
            }
            let mut complete = emergency.then_some(begun);
            let mut guilty = None;
            let queue = &mut self.queue;
            let written = write(&self.store, &self.space, |tables, txn| {
                let mut applier = Applier::begin(tables, txn)?;
                let mut outcomes = Vec::with_capacity(group.len());
                guilty = None;
                loop {
                    for pending in &group[outcomes.len()..] {
                        guilty = Some(outcomes.len());
                        outcomes.push(applier.batch(&pending.batch)?);
                    }
                    guilty = None;
                    if complete.is_none() {
                        group.extend(queue.next_of_group(group.len(), begun));
                    }
                    if outcomes.len() == group.len() {
                        break;
                    }
                }
                complete.get_or_insert_with(Instant::now);
                applier.end()?;
                Ok(outcomes)
            });
            match written {
                Ok(outcomes) => {
                    let took = complete.unwrap_or(begun).elapsed();
                    self.store.gauges.count(group.len() as u64);
                    self.cleaning = Cleaning::Goes;
                    self.queue.committed(group.len(), took);
                    let answers = group.into_iter().zip(outcomes).map(|(pending, outcome)| {
                        let durable = Durable::assert_durable(pending.batch.id);
                        (pending.receipt, outcome.map(|()| durable).map_err(Into::into))
                    });
                    return receipt::send_all(answers);
                }
                Err(Failure::NoRoom) if !emergency => self.space.exhausted(&self.store),
                // What does not fit together may fit one by one.
                Err(Failure::NoRoom) if group.len() > 1 => {
                    return group.into_iter().for_each(|pending| self.commit(vec![pending]));
                }
                Err(Failure::NoRoom) => {
                    return group.into_iter().for_each(|pending| pending.refuse(StoreError::Full));
                }
                Err(Failure::Other(error)) => match guilty {
                    // The others are not to blame: they go into a transaction without it.
                    Some(at) => group.remove(at).refuse(error),
                    None => {
                        return group.into_iter().for_each(|pending| pending.refuse(error.clone()));
                    }
                },
            }
        }
    }

    /// Deletes a piece of what was forgotten. Failing, it waits for the next commit.
    fn clean(&mut self) {
        let cleaned =
            write(&self.store, &self.space, |tables, txn| clean(tables, txn, CLEANING_STEP));
        self.cleaning = cleaned.unwrap_or(Cleaning::Done);
    }
}

/// What was asked for and is not done yet.
struct Queue {
    requests: Receiver<Vec<Request>>,
    /// Taken from the channel, in order.
    waiting: VecDeque<Request>,
    /// How many batches are likely to come together: as many as were answered together, whose
    /// owners may now come with the next one, and those that came meanwhile.
    expected: usize,
    /// How long the last commit took, from its last batch on.
    last_commit: Duration,
}

impl Queue {
    const fn new(requests: Receiver<Vec<Request>>) -> Self {
        Self { requests, waiting: VecDeque::new(), expected: 1, last_commit: Duration::ZERO }
    }

    /// The next batch of a group that was begun at `begun`: one that is there, or, while fewer
    /// have come than are expected, one that comes soon.
    fn next_of_group(&mut self, have: usize, begun: Instant) -> Option<Pending> {
        if have >= LARGEST_GROUP {
            return None;
        }
        loop {
            if self.waiting.is_empty() {
                let next = self.requests.try_recv().ok().or_else(|| {
                    let longest = self.last_commit.clamp(SHORTEST_WAIT, LONGEST_WAIT);
                    let patient = have < self.expected && begun.elapsed() < longest;
                    patient.then(|| self.soon()).flatten()
                });
                self.waiting.extend(next.into_iter().flatten());
            }
            match self.waiting.pop_front()? {
                Request::Append(asked, receipt) => {
                    let pending = Pending::new(asked, receipt);
                    if pending.is_some() {
                        return pending;
                    }
                }
                other => {
                    self.waiting.push_front(other);
                    return None;
                }
            }
        }
    }

    /// What is asked for within a moment. To sleep and be woken would take as long as most moments.
    fn soon(&self) -> Option<Vec<Request>> {
        let until = Instant::now() + NEXT_OF_GROUP;
        loop {
            // Whoever gave way may have been away until after that moment, and those who ran meanwhile have asked.
            let over = Instant::now() >= until;
            match self.requests.try_recv() {
                Ok(requests) => return Some(requests),
                Err(TryRecvError::Empty) if !over => std::thread::yield_now(),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// A group is about to be answered.
    fn committed(&mut self, batches: usize, took: Duration) {
        self.waiting.extend(self.requests.try_iter().flatten());
        self.expected = batches + self.waiting.len();
        self.last_commit = took;
    }
}

/// Writes in one transaction, as often as the map must grow for it.
fn write<T>(
    store: &Store,
    space: &Space,
    mut work: impl FnMut(&Databases, &mut RwTxn<'_>) -> Result<T, StoreError>,
) -> Result<T, Failure> {
    loop {
        match attempt(store, &mut work) {
            Ok(Some(done)) => return Ok(done),
            Ok(None) => grow(store, space)?,
            Err(error) if is_no_room(store, space, &error) => return Err(Failure::NoRoom),
            Err(error) => return Err(Failure::Other(error)),
        }
    }
}

/// One attempt; `None` if the map is full. The transaction is over in any case.
fn attempt<T>(
    store: &Store,
    work: &mut impl FnMut(&Databases, &mut RwTxn<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut attempt = || {
        let mut txn = store.env.write_txn()?;
        let done = work(&store.tables, &mut txn)?;
        txn.commit()?;
        Ok(done)
    };
    match attempt() {
        Ok(done) => Ok(Some(done)),
        Err(StoreError::Lmdb(failure)) if failure.map_full => Ok(None),
        Err(error) => Err(error),
    }
}

fn grow(store: &Store, space: &Space) -> Result<(), Failure> {
    let (now, largest) = (store.map_size(), space.largest_map());
    if largest <= now {
        return Err(Failure::NoRoom);
    }
    store.resize(now.saturating_mul(2).min(largest)).map_err(|error| {
        if is_no_room(store, space, &error) { Failure::NoRoom } else { Failure::Other(error) }
    })
}

/// As far as it is allowed: a map that stays as it is must grow later.
fn make_room(store: &Store, space: &Space) {
    let wanted = store.used().saturating_mul(2).min(space.largest_map());
    if store.map_size() < wanted {
        let _ = store.resize(wanted);
    }
}

fn is_no_room(store: &Store, space: &Space, error: &StoreError) -> bool {
    let StoreError::Io { error, .. } = error else { return false };
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => true,
        // LMDB reports a write that was cut short as an I/O error of no kind.
        _ => space.disk_is_full(store),
    }
}

/// Refuses batches that write facts only, and keeps the others.
fn refuse_facts(group: Vec<Pending>) -> Vec<Pending> {
    let (facts, others): (Vec<_>, Vec<_>) =
        group.into_iter().partition(|pending| pending.batch.facts_only);
    facts.into_iter().for_each(|pending| pending.refuse(StoreError::Full));
    others
}
