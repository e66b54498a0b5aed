//! Mailboxes: what the driver puts in never waits for who takes it out, and each end notices when
//! the other is gone.
use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::sync::Notify;

/// The readers of one kind of mailbox, by the number of their mailbox.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    open: AtomicUsize,
    /// Number of the next mailbox.
    next: AtomicU64,
    with_room: Mutex<BTreeSet<u64>>,
    ended: Mutex<Vec<u64>>,
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

    /// Those that were late and have had room since this was asked last.
    pub(crate) fn with_room(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *lock(&self.with_room))
    }

    /// Those that have ended since this was asked last.
    pub(crate) fn ended(&self) -> Vec<u64> {
        std::mem::take(&mut *lock(&self.ended))
    }
}

/// A new mailbox.
pub(crate) fn mailbox<T>(readers: &Arc<Readers>) -> (Outbox<T>, Inbox<T>) {
    readers.open.fetch_add(1, Ordering::SeqCst);
    let number = readers.next.fetch_add(1, Ordering::SeqCst);
    let state = State { waiting: VecDeque::new(), waker: None, late: 0, end: End::None };
    let shared = Arc::new(Mutex::new(state));
    let inbox = Inbox { shared: shared.clone(), readers: readers.clone(), number };
    (Outbox { shared, number }, inbox)
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
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end that writes.
pub(crate) struct Outbox<T> {
    shared: Arc<Mutex<State<T>>>,
    number: u64,
}

impl<T> Outbox<T> {
    /// The number of its reader.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Puts something in if fewer than `most` wait. False: there is no room, and the room that the
    /// reader makes from now on rings.
    pub(crate) fn put(&self, item: T, most: usize) -> bool {
        let waker = {
            let mut state = lock(&self.shared);
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

    /// How much of what waits elsewhere there is room for now, if no more than `most` are to wait here.
    pub(crate) fn room(&self, most: usize) -> usize {
        let state = lock(&self.shared);
        let room = most.saturating_sub(state.waiting.len());
        room.min(usize::try_from(state.late).unwrap_or(usize::MAX))
    }

    /// How much waits elsewhere because there was no room here.
    pub(crate) fn set_late(&self, late: u64) {
        lock(&self.shared).late = late;
    }
}

impl<T> Drop for Outbox<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = lock(&self.shared);
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
        f.debug_struct("Outbox").field("waiting", &lock(&self.shared).waiting.len()).finish()
    }
}

/// The end that reads. Dropping it gives up whatever is in the mailbox.
pub(crate) struct Inbox<T> {
    shared: Arc<Mutex<State<T>>>,
    readers: Arc<Readers>,
    number: u64,
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
            lock(&self.readers.with_room).insert(self.number);
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
        lock(&self.readers.ended).push(self.number);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Weak;
    use std::task::Wake;

    /// An executor that runs the reader where it is woken: in the middle of what the writer does.
    struct AtOnce {
        inbox: Mutex<Option<Inbox<u8>>>,
        read: Mutex<Vec<u8>>,
        own: Weak<Self>,
        /// Gives the mailbox up at this item.
        last: u8,
    }

    impl Wake for AtOnce {
        fn wake(self: Arc<Self>) {
            self.run();
        }
    }

    impl AtOnce {
        fn new(inbox: Inbox<u8>, last: u8) -> Arc<Self> {
            let reader = Arc::new_cyclic(|own| Self {
                inbox: Mutex::new(Some(inbox)),
                read: Mutex::default(),
                own: own.clone(),
                last,
            });
            reader.run();
            reader
        }

        fn run(&self) {
            let waker = self.own.upgrade().map(Waker::from).expect("it runs");
            let mut cx = Context::from_waker(&waker);
            let mut place = self.inbox.lock().expect("one thread");
            while let Some(inbox) = place.as_ref() {
                match inbox.poll_next(&mut cx) {
                    Poll::Ready(Some(item)) => {
                        self.read.lock().expect("one thread").push(item);
                        if item == self.last {
                            *place = None;
                        }
                    }
                    Poll::Ready(None) => *place = None,
                    Poll::Pending => return,
                }
            }
        }

        fn read(&self) -> Vec<u8> {
            self.read.lock().expect("one thread").clone()
        }
    }

    #[test]
    fn a_reader_that_runs_where_it_is_woken_gets_everything_and_may_end() {
        let readers = Arc::default();
        let (outbox, inbox) = mailbox(&readers);
        let reader = AtOnce::new(inbox, 3);
        for item in 0..=9 {
            assert!(outbox.put(item, 1), "it is read at once, and nobody has to read it later");
        }
        assert_eq!(reader.read(), [0, 1, 2, 3]);
        assert_eq!(readers.ended(), [outbox.number()]);
        assert_eq!(readers.count(), 0);
        assert_eq!(lock(&outbox.shared).waiting.len(), 0, "nothing waits for who is gone");

        let (outbox, inbox) = mailbox(&readers);
        let reader = AtOnce::new(inbox, 3);
        drop(outbox);
        assert!(reader.inbox.lock().expect("one thread").is_none(), "it is told of the end");
    }

    #[test]
    fn what_there_is_no_room_for_is_told_and_rings_once_there_is() {
        let readers: Arc<Readers> = Arc::default();
        let (outbox, inbox) = mailbox(&readers);
        let rings = || {
            let mut ring = Box::pin(readers.room.notified());
            ring.as_mut().enable()
        };
        assert!(outbox.put(1, 2) && outbox.put(2, 2));
        assert_eq!(inbox.try_next(), Some(1));
        assert!(!rings(), "nobody was late");
        assert!(outbox.put(3, 2) && !outbox.put(4, 2));
        assert_eq!(inbox.late(2), 1);
        assert_eq!(inbox.try_next(), Some(2));
        assert!(rings());
        assert_eq!(readers.with_room(), BTreeSet::from([outbox.number()]));
        assert!(outbox.put(4, 2));
        outbox.set_late(0);
        assert_eq!(
            (inbox.try_next(), inbox.try_next(), inbox.try_next()),
            (Some(3), Some(4), None)
        );
        assert!(!rings() && readers.with_room().is_empty());
        assert_eq!(inbox.late(2), 0);
        // Nobody has to ask whether a reader is still there.
        drop(inbox);
        assert!(Box::pin(readers.gone.notified()).as_mut().enable());
    }
}
