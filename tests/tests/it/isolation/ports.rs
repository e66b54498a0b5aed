//! A signer that never answers for one channel, and a log in which one channel cannot be read.
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, Slot};
use arb_core::log::{Batch, ChangeLog, Damaged, Durable, Health, Remedy, StoredChannel, Write};
use arb_core::ports::{PointRequest, SignRequest, Signer};
use arb_core::units::{BlockRef, CommitmentNumber};
use arb_watcher::memory::{MemorySigner, SignError};
use bitcoin::secp256k1::{PublicKey, ecdsa};
use std::future::Future;
use std::panic::resume_unwind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A signer that never answers for one channel.
#[derive(Clone)]
pub(super) struct OneSilent {
    pub(super) inner: MemorySigner,
    pub(super) silent: ChannelId,
    waiting: Arc<AtomicUsize>,
}

/// A call that is not answered; counted as long as somebody waits.
struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl OneSilent {
    pub(super) fn new(inner: MemorySigner, silent: ChannelId) -> Self {
        Self { inner, silent, waiting: Arc::default() }
    }

    /// Calls that wait for an answer.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl Signer for OneSilent {
    type Error = SignError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, SignError> {
        if request.channel == self.silent {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            let _waiting = Waiting(self.waiting.clone());
            return std::future::pending().await;
        }
        self.inner.sign(request).await
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, SignError> {
        self.inner.point(request).await
    }
}

/// What the test sees of the log, and does to it.
#[derive(Clone, Default)]
pub(super) struct Hold {
    blocks: Arc<Mutex<Option<BlockRef>>>,
    damaged: Arc<AtomicBool>,
}

impl Hold {
    /// The block that became durable last.
    pub(super) fn last_block(&self) -> Option<BlockRef> {
        *self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The records of the poisoned channel cannot be read from now on.
    pub(super) fn damage(&self) {
        self.damaged.store(true, Ordering::SeqCst);
    }
}

/// A log in which the records of one slot cannot be read once they are damaged.
pub(super) struct OneUnreadable<L> {
    pub(super) inner: L,
    pub(super) poisoned: Slot,
    pub(super) hold: Hold,
}

impl<L> OneUnreadable<L> {
    fn check(&self, slot: Slot) -> Result<(), Damaged> {
        if slot == self.poisoned && self.hold.damaged.load(Ordering::SeqCst) {
            return Err(Damaged { what: "checksum".to_owned() });
        }
        Ok(())
    }
}

impl<L: ChangeLog> ChangeLog for OneUnreadable<L> {
    type Error = L::Error;
    type Append = Pin<Box<dyn Future<Output = Result<Durable, L::Error>> + Send>>;

    fn remedy(error: &L::Error) -> Remedy {
        L::remedy(error)
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn append(&mut self, batch: Batch) -> Self::Append {
        let mut last = self.hold.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        for write in &batch.writes {
            match write {
                Write::BlockConnected(at) | Write::Disconnected { fork_point: at } => {
                    *last = Some(*at);
                }
                _ => {}
            }
        }
        drop(last);
        let (append, runtime) = (self.inner.append(batch), tokio::runtime::Handle::current());
        // A clock that is paused stands still as long as this thread waits: a disk takes its time.
        let append = tokio::task::spawn_blocking(move || runtime.block_on(append));
        Box::pin(
            async move { append.await.unwrap_or_else(|error| resume_unwind(error.into_panic())) },
        )
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), L::Error> {
        self.inner.each_channel(each)
    }

    fn channel_count(&self) -> Result<u64, L::Error> {
        self.inner.channel_count()
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, L::Error> {
        let stored = self.inner.channel(slot)?;
        Ok(stored.map(|stored| match self.check(slot) {
            Ok(()) => stored,
            Err(damaged) => StoredChannel { entry: Err(damaged), ..stored },
        }))
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, L::Error> {
        match self.check(slot) {
            Ok(()) => self.inner.facts(slot),
            Err(damaged) => Ok(Some(Err(damaged))),
        }
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, L::Error> {
        match self.check(slot) {
            Ok(()) => self.inner.changes(slot),
            Err(damaged) => Ok(Err(damaged)),
        }
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, L::Error> {
        match self.check(slot) {
            Ok(()) => self.inner.ended_htlcs(slot, number),
            Err(damaged) => Ok(Err(damaged)),
        }
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, L::Error> {
        self.inner.subscribers_to_all()
    }

    fn next_slot(&self) -> Result<Slot, L::Error> {
        self.inner.next_slot()
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, L::Error> {
        self.inner.blocks()
    }
}
