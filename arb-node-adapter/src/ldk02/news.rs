//! `News`: wakes whoever waits for something to change.
use core::task::{Context, Poll, Waker};

/// Whether something has changed since that was last asked, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct News {
    is_new: bool,
    wakers: Vec<Waker>,
}

impl News {
    /// Something has changed: who is to be woken, without a lock held. A waker may run anything.
    pub(super) fn tell(&mut self) -> Vec<Waker> {
        self.is_new = true;
        core::mem::take(&mut self.wakers)
    }

    /// Ready if something has changed.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        if core::mem::take(&mut self.is_new) {
            return Poll::Ready(());
        }
        if !self.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            self.wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
