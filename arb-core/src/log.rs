//! The change log: what one append holds, and the receipt without which no effect is released.
use crate::arbitrator::Change;
use crate::facts::{ChannelEntry, ChannelFacts, HtlcRecord};
use crate::ids::{ChannelId, HtlcId, Slot};
use crate::units::{BlockRef, CommitmentNumber};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Number of a batch, unique within one run of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub u64);

/// What one append writes: wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Number of the batch, repeated in its receipt.
    pub id: BatchId,
    /// The writes, in order.
    pub writes: Vec<Write>,
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// A channel's facts, new or replacing those stored.
    Facts {
        /// The channel's key.
        slot: Slot,
        /// The facts.
        facts: Arc<ChannelFacts>,
    },
    /// Penalty data of HTLCs that left the last live commitment.
    EndedHtlcs {
        /// The channel's key.
        slot: Slot,
        /// The HTLCs.
        htlcs: Vec<(HtlcId, HtlcRecord)>,
    },
    /// Changes appended to a channel's log.
    Changes {
        /// The channel's key.
        slot: Slot,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// The channel's log is this from now on: of what it said before, the rest is moot.
    LogReplaced {
        /// The channel's key.
        slot: Slot,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// The cursor moves up to this block.
    BlockConnected(BlockRef),
    /// The cursor moves down to this block: every block above is forgotten.
    Disconnected {
        /// Last block that stays.
        fork_point: BlockRef,
    },
    /// A subscriber has acknowledged a channel's events up to, not including, this number.
    Subscriber {
        /// The channel's key.
        slot: Slot,
        /// Name of the subscriber.
        name: String,
        /// What the subscriber has acknowledged; `None` ends the subscription.
        state: Option<SubscriberState>,
    },
    /// A named subscription to all channels, those to come included. What it has acknowledged of a
    /// channel is written as that of a subscriber of the channel.
    SubscriberToAll {
        /// Name of the subscriber.
        name: String,
        /// Whether forgetting a channel waits for its acknowledgement; `None` ends the subscription.
        acknowledged: Option<bool>,
    },
    /// The channel is set aside from here on, and misses blocks; or it has seen them all again.
    SetAside {
        /// The channel's key.
        slot: Slot,
        /// Whether it is.
        aside: bool,
    },
    /// Everything of a channel is deleted.
    Forget {
        /// The channel's key.
        slot: Slot,
    },
    /// A record of the node's own, new or replacing the one that is stored, where the log's
    /// [`ByteStore`](crate::ports::ByteStore) keeps it.
    Bytes(Arc<ByteRecord>),
}

/// Bytes of the node's own under a name, which the arbiter does not look into. Shown without the bytes: they may
/// hold secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct ByteRecord {
    /// Where the name is unique.
    pub folder: String,
    /// What the bytes are found by.
    pub name: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for ByteRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { folder, name, bytes } = self;
        write!(f, "ByteRecord({folder:?}, {name:?}, {} bytes)", bytes.len())
    }
}

/// Where a log and a byte store keep what they are given, if they keep it together: those that have the same
/// home write to one medium, in one order. A home is new whenever a medium is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home(usize);

impl Home {
    /// One that no other medium has as long as this program runs.
    #[allow(clippy::new_without_default, reason = "no two are equal")]
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A named subscription that outlives a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberState {
    /// First event that is not acknowledged yet.
    pub next: u64,
    /// Whether forgetting the channel waits for the acknowledgement.
    pub acknowledged: bool,
}

/// Proof, given by a [`ChangeLog`], that a batch has reached stable storage.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the receipt releases the effects of its batch"]
pub struct Durable {
    batch: BatchId,
}

impl Durable {
    /// For implementations of [`ChangeLog`] only, after the batch is on stable storage.
    pub const fn assert_durable(batch: BatchId) -> Self {
        Self { batch }
    }

    /// The batch that is durable.
    #[must_use]
    pub const fn batch(&self) -> BatchId {
        self.batch
    }
}

/// A channel in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChannel {
    /// Its key.
    pub slot: Slot,
    /// Its id, readable even when its records are not.
    pub id: ChannelId,
    /// What the index holds of it, or why that cannot be read: then the channel is quarantined.
    pub entry: Result<ChannelEntry, Damaged>,
    /// Named subscriptions to it.
    pub subscribers: Vec<(String, SubscriberState)>,
    /// Whether its log holds at least one change.
    pub has_changes: bool,
    /// Whether it was set aside, and may have missed blocks.
    pub aside: bool,
}

/// A record that cannot be understood. Its bytes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// Which record, and what is wrong with it.
    pub what: String,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "damaged record: {}", self.what)
    }
}

impl core::error::Error for Damaged {}

/// How a log is off for space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Enough.
    #[default]
    Ok,
    /// Little is left: a person should free some.
    Low,
    /// The emergency space is in use: facts are refused, all else goes through while it lasts.
    Emergency,
}

/// What to do about an append that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Repeat it a moment later: there is no room, or the medium fails, which may pass or be mended.
    Wait,
    /// Nothing: this batch is refused for good, others are taken.
    Refused,
    /// Open the log anew, or restore it: until then nothing is taken.
    Reopen,
}

/// Durable storage of facts and changes. Appends are applied in the order of their calls; a read
/// sees every append whose receipt has been handed over.
pub trait ChangeLog: Send + 'static {
    /// Why a call failed. An append that failed left nothing behind and may be repeated.
    type Error: core::error::Error + Send + Sync + 'static;
    /// Resolves when the batch is on stable storage.
    type Append: Future<Output = Result<Durable, Self::Error>> + Send + 'static;

    /// What to do about an append that failed so; if the log does not say: repeat it.
    ///
    /// ```
    /// use arb_core::log::{ChangeLog, Remedy};
    /// use arb_core::memory::{MemoryLog, Refused};
    ///
    /// assert_eq!(MemoryLog::remedy(&Refused::NameTooLong), Remedy::Refused);
    /// ```
    #[must_use]
    fn remedy(_: &Self::Error) -> Remedy {
        Remedy::Wait
    }

    /// Where it keeps what is appended. A log without a byte store beside it has no home: the records of
    /// [`Write::Bytes`] are kept all the same, but nobody reads them.
    ///
    /// ```
    /// use arb_core::log::ChangeLog;
    /// use arb_core::memory::MemoryLog;
    ///
    /// assert_eq!(MemoryLog::default().home(), None);
    /// ```
    fn home(&self) -> Option<Home> {
        None
    }

    /// Appends a batch, atomically and durably.
    fn append(&mut self, batch: Batch) -> Self::Append;

    /// Appends batches, in order, each as [`ChangeLog::append`] does: one may fail and the next not.
    /// A log that has somebody to wake for each may wake him once.
    fn append_all(&mut self, batches: Vec<Batch>) -> Vec<Self::Append> {
        batches.into_iter().map(|batch| self.append(batch)).collect()
    }

    /// Hands every channel to `each`, by slot, in one pass over the index. Facts are not read:
    /// those that cannot be are found when they are asked for. `each` must not call the log.
    ///
    /// # Errors
    /// The medium cannot be read. One unreadable channel is a value, not an error.
    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), Self::Error>;

    /// All channels, by slot.
    ///
    /// # Errors
    /// The medium cannot be read. One unreadable channel is a value, not an error.
    fn channels(&self) -> Result<Vec<StoredChannel>, Self::Error> {
        let mut channels = Vec::new();
        self.each_channel(&mut |channel| channels.push(channel))?;
        Ok(channels)
    }

    /// How many channels there are.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn channel_count(&self) -> Result<u64, Self::Error>;

    /// Facts of a channel; `None` if there is no such channel.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, Self::Error>;

    /// Every change of a channel, oldest first.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, Self::Error>;

    /// Penalty data: the ended HTLCs whose interval contains remote commitment `number`.
    ///
    /// # Errors
    /// The medium cannot be read.
    #[allow(clippy::type_complexity, reason = "a list of pairs, or why there is none")]
    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, Self::Error>;

    /// Named subscriptions to all channels, by name, and whether forgetting a channel waits for
    /// the subscriber's acknowledgement.
    ///
    /// # Errors
    /// The medium cannot be read. One whose record cannot be read is held for.
    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, Self::Error>;

    /// The lowest slot that was never used.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn next_slot(&self) -> Result<Slot, Self::Error>;

    /// One channel, as [`Self::channels`] gives it; `None` if there is no such channel.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, Self::Error>;

    /// How the log is off for space, as its last append saw it. A log that cannot fill keeps the
    /// default: enough.
    ///
    /// ```
    /// use arb_core::log::{ChangeLog, Health};
    /// use arb_core::memory::MemoryLog;
    ///
    /// assert_eq!(MemoryLog::default().health(), Health::Ok);
    /// ```
    fn health(&self) -> Health {
        Health::Ok
    }

    /// The last blocks that the cursor passed, lowest first; empty in a new store. At least the
    /// last 144 are kept.
    ///
    /// # Errors
    /// The medium cannot be read.
    fn blocks(&self) -> Result<Vec<BlockRef>, Self::Error>;
}
