//! A change log in memory, for simulators and tests; and the rules that every change log keeps.
use crate::arbitrator::Change;
use crate::facts::{ChannelEntry, ChannelFacts, HtlcRecord};
use crate::ids::{ChannelId, HtlcId, Slot};
use crate::log::{
    Batch, ByteRecord, ChangeLog, Damaged, Durable, Remedy, StoredChannel, SubscriberState, Write,
};
use crate::units::{BlockDelta, BlockHeight, BlockRef, CommitmentNumber};
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::{Ready, ready};

/// Blocks below the cursor that a change log keeps.
pub const KEPT_BLOCKS: BlockDelta = BlockDelta(288);

/// Longest name of a subscriber, in bytes.
pub const LONGEST_NAME: usize = 255;

/// Longest name of a record of the node's own, in bytes: its folder, a zero between them, and the name.
pub const LONGEST_RECORD_NAME: usize = 500;

/// Why a change log refuses a batch, whatever its medium. Repeating the batch is useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The slot belongs to another channel: register under another one.
    SlotTaken(Slot),
    /// The slot belonged to a channel that was forgotten, and is never used again.
    SlotForgotten(Slot),
    /// No channel was ever registered under this slot: write its facts first.
    UnknownSlot(Slot),
    /// A subscriber's name has more than [`LONGEST_NAME`] bytes.
    NameTooLong,
    /// The name of a record of the node's own is empty, too long, or has a zero in it.
    BadRecordName,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SlotTaken(slot) => write!(f, "slot {} belongs to another channel", slot.0),
            Self::SlotForgotten(slot) => write!(f, "slot {} was forgotten", slot.0),
            Self::UnknownSlot(slot) => write!(f, "no channel was registered as slot {}", slot.0),
            Self::NameTooLong => write!(f, "a name has more than {LONGEST_NAME} bytes"),
            Self::BadRecordName => {
                f.write_str("a folder or name is empty, too long, or has a zero")
            }
        }
    }
}

impl core::error::Error for Refused {}

/// What a slot stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing yet.
    Free,
    /// This channel.
    Taken(ChannelId),
    /// A channel that was forgotten.
    Forgotten,
}

/// What a write does to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotUse {
    /// Writes facts of this channel.
    Facts(Slot, ChannelId),
    /// Writes anything else. Dropped if the slot was forgotten: there is nothing to add to.
    Other(Slot),
    /// Forgets the channel, if there is one.
    Forget(Slot),
}

impl SlotUse {
    /// What `write` does to a slot; `None` if it concerns no slot.
    #[must_use]
    pub fn of(write: &Write) -> Option<Self> {
        match write {
            Write::Facts { slot, facts } => Some(Self::Facts(*slot, facts.id)),
            Write::EndedHtlcs { slot, .. }
            | Write::Changes { slot, .. }
            | Write::LogReplaced { slot, .. }
            | Write::Subscriber { slot, .. }
            | Write::SetAside { slot, .. } => Some(Self::Other(*slot)),
            Write::Forget { slot } => Some(Self::Forget(*slot)),
            Write::BlockConnected(_)
            | Write::Disconnected { .. }
            | Write::SubscriberToAll { .. }
            | Write::Bytes(_) => None,
        }
    }
}

/// Checks the slots that a batch uses, in order, before anything of it is written.
///
/// # Errors
/// The batch must be refused.
pub fn check_slots(
    uses: impl IntoIterator<Item = SlotUse>,
    mut state: impl FnMut(Slot) -> SlotState,
) -> Result<(), Refused> {
    let mut seen = BTreeMap::new();
    for slot_use in uses {
        let (SlotUse::Facts(slot, _) | SlotUse::Other(slot) | SlotUse::Forget(slot)) = slot_use;
        let now = seen.entry(slot).or_insert_with(|| state(slot));
        *now = match (slot_use, *now) {
            (SlotUse::Facts(_, id), SlotState::Free) => SlotState::Taken(id),
            (SlotUse::Facts(_, id), SlotState::Taken(owner)) if id == owner => *now,
            (SlotUse::Facts(..), SlotState::Taken(_)) => return Err(Refused::SlotTaken(slot)),
            (SlotUse::Facts(..), SlotState::Forgotten) => {
                return Err(Refused::SlotForgotten(slot));
            }
            (SlotUse::Other(_), SlotState::Free) => return Err(Refused::UnknownSlot(slot)),
            (SlotUse::Forget(_), SlotState::Taken(_)) => SlotState::Forgotten,
            (SlotUse::Other(_) | SlotUse::Forget(_), same) => same,
        };
    }
    Ok(())
}

/// Whether every subscriber's name is short enough, and every record of the node's own may be named so.
///
/// # Errors
/// One is not.
pub fn check_names(writes: &[Write]) -> Result<(), Refused> {
    writes.iter().try_for_each(|write| match write {
        Write::Subscriber { name, .. } | Write::SubscriberToAll { name, .. }
            if name.len() > LONGEST_NAME =>
        {
            Err(Refused::NameTooLong)
        }
        Write::Bytes(record) => check_record_name(&record.folder, &record.name),
        Write::Subscriber { .. }
        | Write::SubscriberToAll { .. }
        | Write::Facts { .. }
        | Write::EndedHtlcs { .. }
        | Write::Changes { .. }
        | Write::LogReplaced { .. }
        | Write::BlockConnected(_)
        | Write::Disconnected { .. }
        | Write::SetAside { .. }
        | Write::Forget { .. } => Ok(()),
    })
}

/// Whether a record of the node's own may be named so: without a zero, not empty, and with its folder at
/// most [`LONGEST_RECORD_NAME`] bytes long.
///
/// # Errors
/// It may not.
pub fn check_record_name(folder: &str, name: &str) -> Result<(), Refused> {
    let length = folder.len().saturating_add(name.len());
    let fits = length < LONGEST_RECORD_NAME;
    let has_zero = [folder, name].iter().any(|part| part.contains('\0'));
    if fits && !has_zero && !name.is_empty() { Ok(()) } else { Err(Refused::BadRecordName) }
}

/// A change log in memory. A clone is a snapshot: what a restart would find.
#[derive(Clone, Debug, Default)]
pub struct MemoryLog {
    channels: BTreeMap<Slot, Records>,
    next_slot: u32,
    blocks: BTreeMap<BlockHeight, BlockRef>,
    to_all: BTreeMap<String, bool>,
    bytes: BTreeMap<(String, String), Arc<ByteRecord>>,
}

#[derive(Clone, Debug)]
struct Records {
    facts: Arc<ChannelFacts>,
    ended: BTreeMap<HtlcId, HtlcRecord>,
    changes: Vec<Change>,
    subscribers: BTreeMap<String, SubscriberState>,
    aside: bool,
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The record of the node's own under this name, as [`Write::Bytes`] left it.
    #[must_use]
    pub fn record(&self, folder: &str, name: &str) -> Option<&[u8]> {
        let record = self.bytes.get(&(folder.to_owned(), name.to_owned()))?;
        Some(&record.bytes)
    }

    fn state(&self, slot: Slot) -> SlotState {
        match self.channels.get(&slot) {
            Some(records) => SlotState::Taken(records.facts.id),
            None if slot.0 < self.next_slot => SlotState::Forgotten,
            None => SlotState::Free,
        }
    }

    fn write(&mut self, batch: Batch) -> Result<Durable, Refused> {
        check_names(&batch.writes)?;
        check_slots(batch.writes.iter().filter_map(SlotUse::of), |slot| self.state(slot))?;
        batch.writes.into_iter().for_each(|write| self.apply(write));
        Ok(Durable::assert_durable(batch.id))
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Facts { slot, facts } => self.put_facts(slot, facts),
            Write::EndedHtlcs { slot, htlcs } => {
                self.with(slot, |records| records.ended.extend(htlcs));
            }
            Write::Changes { slot, changes } => {
                self.with(slot, |records| records.changes.extend(changes));
            }
            Write::LogReplaced { slot, changes } => {
                self.with(slot, |records| records.changes = changes);
            }
            Write::BlockConnected(block) => {
                self.move_cursor(block);
                let lowest = block.height.plus(BlockDelta(1)).minus(KEPT_BLOCKS);
                self.blocks.retain(|height, _| *height >= lowest);
            }
            Write::Disconnected { fork_point } => self.move_cursor(fork_point),
            Write::Subscriber { slot, name, state } => self.with(slot, |records| {
                match state {
                    Some(state) => records.subscribers.insert(name, state),
                    None => records.subscribers.remove(&name),
                };
            }),
            Write::SubscriberToAll { name, acknowledged } => {
                match acknowledged {
                    Some(acknowledged) => self.to_all.insert(name, acknowledged),
                    None => self.to_all.remove(&name),
                };
            }
            Write::SetAside { slot, aside } => self.with(slot, |records| records.aside = aside),
            Write::Forget { slot } => {
                self.channels.remove(&slot);
            }
            Write::Bytes(record) => {
                self.bytes.insert((record.folder.clone(), record.name.clone()), record);
            }
        }
    }

    fn put_facts(&mut self, slot: Slot, facts: Arc<ChannelFacts>) {
        self.next_slot = self.next_slot.max(slot.0.saturating_add(1));
        if let Some(records) = self.channels.get_mut(&slot) {
            records.facts = facts;
            return;
        }
        let records = Records {
            facts,
            ended: BTreeMap::new(),
            changes: Vec::new(),
            subscribers: BTreeMap::new(),
            aside: false,
        };
        self.channels.insert(slot, records);
    }

    fn with(&mut self, slot: Slot, change: impl FnOnce(&mut Records)) {
        if let Some(records) = self.channels.get_mut(&slot) {
            change(records);
        }
    }

    /// The cursor is at `block`: nothing above it is kept.
    fn move_cursor(&mut self, block: BlockRef) {
        self.blocks.retain(|height, _| *height < block.height);
        self.blocks.insert(block.height, block);
    }
}

impl Records {
    fn stored(&self, slot: Slot) -> StoredChannel {
        StoredChannel {
            slot,
            id: self.facts.id,
            entry: Ok(ChannelEntry::of(&self.facts)),
            subscribers: self.subscribers.iter().map(|(n, s)| (n.clone(), *s)).collect(),
            has_changes: !self.changes.is_empty(),
            aside: self.aside,
        }
    }
}

/// Nothing in memory fails to be read.
type Readable<T> = Result<T, Refused>;

impl ChangeLog for MemoryLog {
    type Error = Refused;
    type Append = Ready<Result<Durable, Refused>>;

    fn remedy(_: &Refused) -> Remedy {
        Remedy::Refused
    }

    fn subscribers_to_all(&self) -> Readable<Vec<(String, bool)>> {
        Ok(self.to_all.iter().map(|(name, acknowledged)| (name.clone(), *acknowledged)).collect())
    }

    fn next_slot(&self) -> Readable<Slot> {
        Ok(Slot(self.next_slot))
    }

    fn append(&mut self, batch: Batch) -> Self::Append {
        ready(self.write(batch))
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Readable<()> {
        self.channels.iter().map(|(slot, records)| records.stored(*slot)).for_each(each);
        Ok(())
    }

    fn channel_count(&self) -> Readable<u64> {
        Ok(u64::try_from(self.channels.len()).unwrap_or(u64::MAX))
    }

    fn channel(&self, slot: Slot) -> Readable<Option<StoredChannel>> {
        Ok(self.channels.get(&slot).map(|records| records.stored(slot)))
    }

    fn facts(&self, slot: Slot) -> Readable<Option<Result<Box<ChannelFacts>, Damaged>>> {
        Ok(self.channels.get(&slot).map(|records| Ok(Box::new((*records.facts).clone()))))
    }

    fn changes(&self, slot: Slot) -> Readable<Result<Vec<Change>, Damaged>> {
        Ok(Ok(self.channels.get(&slot).map(|records| records.changes.clone()).unwrap_or_default()))
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Readable<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>> {
        let Some(records) = self.channels.get(&slot) else { return Ok(Ok(Vec::new())) };
        let live = records.ended.iter().filter(|(_, record)| record.in_remote(number));
        Ok(Ok(live.map(|(id, record)| (*id, *record)).collect()))
    }

    fn blocks(&self) -> Readable<Vec<BlockRef>> {
        Ok(self.blocks.values().copied().collect())
    }
}
