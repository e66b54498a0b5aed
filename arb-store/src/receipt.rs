//! Receipts on their way: a one-shot cell between the writer thread and a future.
use crate::StoreError;
use arb_core::log::Durable;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

type Outcome = Result<Durable, StoreError>;

#[derive(Debug, Default)]
struct Cell {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// Resolves when the batch is on stable storage. Dropping it does not take the batch back.
#[derive(Debug)]
#[must_use = "the receipt comes through this future"]
pub struct Append {
    cell: Arc<Mutex<Cell>>,
}

/// The writer's end. Dropped without an outcome, it reports that the store is closed.
#[derive(Debug)]
pub(crate) struct Sender {
    cell: Arc<Mutex<Cell>>,
}

/// A receipt to come, and the writer's end of it.
pub(crate) fn channel() -> (Sender, Append) {
    let cell = Arc::new(Mutex::new(Cell::default()));
    (Sender { cell: cell.clone() }, Append { cell })
}

fn lock(cell: &Mutex<Cell>) -> MutexGuard<'_, Cell> {
    cell.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives all their outcomes before anybody is woken: who waits for several is woken once.
pub(crate) fn send_all(answers: impl Iterator<Item = (Sender, Outcome)>) {
    let wakers = answers.map(|(sender, outcome)| sender.put(outcome)).collect::<Vec<_>>();
    wakers.into_iter().flatten().for_each(Waker::wake);
}

impl Sender {
    pub(crate) fn send(self, outcome: Outcome) {
        self.put(outcome).into_iter().for_each(Waker::wake);
    }

    /// Gives the outcome. Who is to be woken now.
    #[must_use]
    fn put(&self, outcome: Outcome) -> Option<Waker> {
        let mut cell = lock(&self.cell);
        cell.outcome = Some(outcome);
        cell.waker.take()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // After `send` the future may have taken the outcome and will not ask again.
        if lock(&self.cell).outcome.is_none() {
            self.put(Err(StoreError::Closed)).into_iter().for_each(Waker::wake);
        }
    }
}

impl Future for Append {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut cell = lock(&self.cell);
        match cell.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                cell.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
