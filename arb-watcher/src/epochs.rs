//! Epochs: blocks as the arbiter has digested them, for whoever needs them.
use arb_core::arbitrator::Position;
use arb_core::units::BlockRef;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{self, Receiver, Sender};

/// Epochs that are kept for those who are slow: more than the blocks of any reorganisation.
const KEPT: usize = 512;

/// A move of the arbiter's tip, durable in its store by the time that it is told.
///
/// ```
/// use arb_watcher::{Epoch, Epochs};
///
/// /// Follows the heights of the tip. Who was too slow goes on with the newest one.
/// async fn follow(mut epochs: Epochs) {
///     while let Some(epoch) = epochs.next().await {
///         match epoch {
///             Epoch::Connected { block, .. } => println!("{}", block.height.0),
///             Epoch::Disconnected { block } => println!("back from {}", block.height.0),
///             Epoch::ReachedTip { .. } => println!("that is all for now"),
///             Epoch::Missed { epochs } => println!("{epochs} left out"),
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// A block is the tip now. The first one that a holder gets is the tip of that moment.
    Connected {
        /// The block.
        block: BlockRef,
        /// Whether it is the source's tip, or more blocks are known to come.
        position: Position,
    },
    /// The source has no block above this one, which was told of as one with more to come.
    ReachedTip {
        /// The block.
        block: BlockRef,
    },
    /// A block, the tip until now, is no longer in the chain. The one below is the tip, until
    /// blocks of the other branch are connected.
    Disconnected {
        /// The block.
        block: BlockRef,
    },
    /// The holder was too slow. The next epoch is the newest one.
    Missed {
        /// How many epochs are left out here.
        epochs: u64,
    },
}

/// The epochs from a moment on. Nobody waits for who holds it, and dropping it, in whatever way,
/// ends it.
///
/// ```
/// use arb_core::memory::MemoryLog;
/// use arb_core::arbitrator::Position;
/// use arb_watcher::{Arbiter, Epoch};
#[doc = include_str!("../doc/start.md")]
/// arbiter.idle().await?;
/// let mut epochs = arbiter.epochs().await?;
/// let Some(Epoch::Connected { block, position }) = epochs.next().await else { panic!() };
/// assert_eq!((block.height.0, position), (0, Position::AtTip));
/// drop(epochs);
/// assert_eq!(arbiter.counts().await?.epochs, 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Epochs {
    receiver: Receiver<Epoch>,
    newest: Option<Epoch>,
}

impl Epochs {
    /// The next epoch; `None` once the driver has ended. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<Epoch> {
        if let Some(newest) = self.newest.take() {
            return Some(newest);
        }
        match self.receiver.recv().await {
            Ok(epoch) => Some(epoch),
            Err(RecvError::Lagged(missed)) => Some(self.skip(missed)),
            Err(RecvError::Closed) => None,
        }
    }

    /// An epoch that is there already; `None` if none is.
    pub fn try_next(&mut self) -> Option<Epoch> {
        if let Some(newest) = self.newest.take() {
            return Some(newest);
        }
        match self.receiver.try_recv() {
            Ok(epoch) => Some(epoch),
            Err(TryRecvError::Lagged(missed)) => Some(self.skip(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    /// Leaves out all but the newest.
    fn skip(&mut self, mut missed: u64) -> Epoch {
        loop {
            match self.receiver.try_recv() {
                Ok(epoch) => missed += u64::from(self.newest.replace(epoch).is_some()),
                Err(TryRecvError::Lagged(more)) => missed += more,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        Epoch::Missed { epochs: missed }
    }
}

/// The driver's end.
#[derive(Debug)]
pub(crate) struct EpochHub(Sender<Epoch>);

impl Default for EpochHub {
    fn default() -> Self {
        Self(broadcast::channel(KEPT).0)
    }
}

impl EpochHub {
    /// The epochs from now on, the present one first.
    pub(crate) fn open(&self, tip: Option<BlockRef>, position: Position) -> Epochs {
        let newest = tip.map(|block| Epoch::Connected { block, position });
        Epochs { receiver: self.0.subscribe(), newest }
    }

    pub(crate) fn tell(&self, epoch: Epoch) {
        // An error: nobody listens.
        let _ = self.0.send(epoch);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.receiver_count()
    }
}
