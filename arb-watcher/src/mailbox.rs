//! Mailboxes: what the driver puts in never waits for who takes it out, and each end notices when
//! the other is gone.
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// The readers of one kind of mailbox.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    open: AtomicUsize,
    /// Rung when a reader that was late has room again.
    pub(crate) room: Notify,
    /// Rung when a reader is gone.
    pub(crate) gone: Notify,
}

impl Readers {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// A new mailbox.
pub(crate) fn mailbox<T>(readers: &Arc<Readers>) -> (Outbox<T>, Inbox<T>) {
    readers.open.fetch_add(1, Ordering::SeqCst);
    let state = State { waiting: VecDeque::new(), waker: None, late: 0, end: End::None };
    let shared = Arc::new(Mutex::new(state));
    (Outbox(shared.clone()), Inbox { shared, readers: readers.clone() })
}

struct State<T> {
    waiting: VecDeque<T>,
    waker: Option<Waker>,
    /// What waits elsewhere because there was no room here.
    late: u64,
    end: End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    /// Nothing more comes.
    Writer,
    /// Nobody reads.
    Reader,
}

/// What is done under the lock cannot panic half way.
fn lock<T>(shared: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end that writes.
pub(crate) struct Outbox<T>(Arc<Mutex<State<T>>>);

impl<T> Outbox<T> {
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.0).end == End::Reader
    }

    /// Puts something in if fewer than `most` wait. False: there is no room, and the room that the
    /// reader makes from now on rings.
    pub(crate) fn put(&self, item: T, most: usize) -> bool {
        let waker = {
            let mut state = lock(&self.0);
            if state.waiting.len() >= most {
                state.late = state.late.max(1);
                return false;
            }
            if state.end == End::None {
                state.waiting.push_back(item);
            }
            state.waker.take()
        };
        wake(waker);
        true
    }

    /// How much waits elsewhere because there was no room here.
    pub(crate) fn set_late(&self, late: u64) {
        lock(&self.0).late = late;
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.0);
            if state.end == End::None {
                state.end = End::Writer;
            }
            state.waker.take()
        };
        wake(waker);
    }
}

/// Outside of the lock: a waker may do anything.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &lock(&self.0).waiting.len()).finish()
    }
}

/// The end that reads. Dropping it gives up whatever is in the mailbox.
pub(crate) struct Inbox<T> {
    shared: Arc<Mutex<State<T>>>,
    readers: Arc<Readers>,
}

impl<T> Inbox<T> {
    /// What came first; `None` once nothing more comes.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.shared);
        if let Some(item) = state.waiting.pop_front() {
            let room = state.late > 0;
            drop(state);
            self.room(room);
            return Poll::Ready(Some(item));
        }
        if state.end == End::Writer {
            return Poll::Ready(None);
        }
        let before = state.waker.replace(cx.waker().clone());
        drop(state);
        drop(before);
        Poll::Pending
    }

    pub(crate) async fn next(&self) -> Option<T> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// What is there already; `None` if nothing is.
    pub(crate) fn try_next(&self) -> Option<T> {
        let mut state = lock(&self.shared);
        let item = state.waiting.pop_front();
        let room = item.is_some() && state.late > 0;
        drop(state);
        self.room(room);
        item
    }

    /// How much waits, here or elsewhere, beyond the first `room`.
    pub(crate) fn late(&self, room: usize) -> u64 {
        let state = lock(&self.shared);
        let here = u64::try_from(state.waiting.len().saturating_sub(room)).unwrap_or(u64::MAX);
        state.late.saturating_add(here)
    }

    fn room(&self, room: bool) {
        if room {
            self.readers.room.notify_one();
        }
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = lock(&self.shared);
            state.end = End::Reader;
            state.waker = None;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.readers.open.fetch_sub(1, Ordering::SeqCst);
        self.readers.gone.notify_one();
    }
}

impl<T> fmt::Debug for Inbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared);
        let (waiting, late) = (state.waiting.len(), state.late);
        drop(state);
        f.debug_struct("Inbox").field("waiting", &waiting).field("late", &late).finish()
    }
}
