//! Batches as bytes, and how they are put into a write transaction.
use crate::StoreError;
use crate::bytes::record_key;
use crate::layout::{
    ALL_CHANNELS, Databases, NEXT_SLOT_KEY, Table, height_key, log_key, next_slot, seal,
    sequence_of, slot_key, subscriber_key,
};
use crate::penalty::{self, Chunk};
use crate::read::owner;
use arb_core::codec::Record;
use arb_core::facts::ChannelEntry;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{Batch, BatchId, SubscriberState, Write};
use arb_core::memory::{KEPT_BLOCKS, Refused, SlotState, SlotUse, check_names, check_slots};
use arb_core::units::{BlockDelta, BlockHeight, BlockRef};
use heed::{RoTxn, RwTxn};
use std::ops::Bound;

/// What is to be written.
pub(crate) enum Asked {
    Batch(Batch),
    /// Bytes that are not the arbiter's, under a key of their own; `None` deletes it. Their receipt is
    /// nobody's.
    Bytes {
        key: Vec<u8>,
        bytes: Option<Vec<u8>>,
        /// They may use the emergency space.
        reserved: bool,
    },
    /// It is encoded already.
    Ready(Prepared),
}

/// A batch as bytes. Whoever asks for one makes it; of several the writer does, and who asks goes on meanwhile.
pub(crate) struct Prepared {
    pub(crate) id: BatchId,
    /// Whether only facts, penalty data and the node's own records are written: what waits when space runs out.
    pub(crate) facts_only: bool,
    operations: Vec<Operation>,
}

enum Operation {
    Facts {
        slot: Slot,
        id: ChannelId,
        entry: Vec<u8>,
        facts: Vec<u8>,
    },
    Ended {
        slot: Slot,
        /// Each as it stands in a chunk.
        htlcs: Vec<Vec<u8>>,
    },
    Changes {
        slot: Slot,
        changes: Vec<Vec<u8>>,
    },
    /// In place of all that the log holds.
    Replaced {
        slot: Slot,
        changes: Vec<Vec<u8>>,
    },
    Connected(BlockRef),
    Disconnected(BlockRef),
    Subscriber {
        slot: Slot,
        name: String,
        state: Option<Vec<u8>>,
    },
    ToAll {
        name: String,
        state: Option<Vec<u8>>,
    },
    SetAside {
        slot: Slot,
        aside: bool,
    },
    Forget {
        slot: Slot,
    },
    /// Under a key of its own; `None` deletes it.
    Bytes {
        key: Vec<u8>,
        bytes: Option<Vec<u8>>,
    },
}

impl Prepared {
    pub(crate) fn new(asked: Asked) -> Result<Self, Refused> {
        let batch = match asked {
            Asked::Batch(batch) => batch,
            Asked::Ready(prepared) => return Ok(prepared),
            Asked::Bytes { key, bytes, reserved } => {
                let (id, facts_only) = (BatchId(0), bytes.is_some() && !reserved);
                return Ok(Self {
                    id,
                    facts_only,
                    operations: vec![Operation::Bytes { key, bytes }],
                });
            }
        };
        check_names(&batch.writes)?;
        let is_facts = |write: &Write| {
            matches!(
                write,
                Write::Facts { .. }
                    | Write::EndedHtlcs { .. }
                    | Write::LogReplaced { .. }
                    | Write::Bytes(_)
            )
        };
        let facts_only = !batch.writes.is_empty() && batch.writes.iter().all(is_facts);
        let operations = batch.writes.into_iter().map(Operation::new).collect();
        Ok(Self { id: batch.id, facts_only, operations })
    }
}

impl Operation {
    fn new(write: Write) -> Self {
        match write {
            Write::Facts { slot, facts } => Self::Facts {
                slot,
                id: facts.id,
                entry: ChannelEntry::of(&facts).encode(),
                facts: facts.encode(),
            },
            Write::EndedHtlcs { slot, htlcs } => {
                let htlcs = htlcs.iter().map(|(id, record)| penalty::item(*id, record));
                Self::Ended { slot, htlcs: htlcs.collect() }
            }
            Write::Changes { slot, changes } => {
                Self::Changes { slot, changes: changes.iter().map(Record::encode).collect() }
            }
            Write::LogReplaced { slot, changes } => {
                Self::Replaced { slot, changes: changes.iter().map(Record::encode).collect() }
            }
            Write::BlockConnected(block) => Self::Connected(block),
            Write::Disconnected { fork_point } => Self::Disconnected(fork_point),
            Write::Subscriber { slot, name, state } => {
                Self::Subscriber { slot, name, state: state.map(|state| state.encode()) }
            }
            Write::SubscriberToAll { name, acknowledged } => {
                let state = |acknowledged| SubscriberState { next: 0, acknowledged }.encode();
                Self::ToAll { name, state: acknowledged.map(state) }
            }
            Write::SetAside { slot, aside } => Self::SetAside { slot, aside },
            Write::Forget { slot } => Self::Forget { slot },
            Write::Bytes(record) => Self::Bytes {
                key: record_key(&record.folder, &record.name),
                bytes: Some(record.bytes.clone()),
            },
        }
    }

    fn slot_use(&self) -> Option<SlotUse> {
        match self {
            Self::Facts { slot, id, .. } => Some(SlotUse::Facts(*slot, *id)),
            Self::Ended { slot, .. }
            | Self::Changes { slot, .. }
            | Self::Replaced { slot, .. }
            | Self::Subscriber { slot, .. }
            | Self::SetAside { slot, .. } => Some(SlotUse::Other(*slot)),
            Self::Forget { slot } => Some(SlotUse::Forget(*slot)),
            Self::Connected(_)
            | Self::Disconnected(_)
            | Self::ToAll { .. }
            | Self::Bytes { .. } => None,
        }
    }
}

/// Puts batches, in order, into one transaction. A batch that is refused leaves nothing in it.
pub(crate) struct Applier<'a, 'txn> {
    tables: &'a Databases,
    txn: &'a mut RwTxn<'txn>,
    next: u32,
    next_before: u32,
}

impl<'a, 'txn> Applier<'a, 'txn> {
    pub(crate) fn begin(
        tables: &'a Databases,
        txn: &'a mut RwTxn<'txn>,
    ) -> Result<Self, StoreError> {
        let next = next_slot(tables, txn)?;
        Ok(Self { tables, txn, next, next_before: next })
    }

    /// To be called once, after the last batch.
    pub(crate) fn end(mut self) -> Result<(), StoreError> {
        if self.next == self.next_before {
            return Ok(());
        }
        let next = self.next.to_be_bytes();
        self.put(self.tables.meta, NEXT_SLOT_KEY, &next)
    }

    /// The outer result: the transaction goes on; the inner one: the batch is in it. A full map
    /// must be told as such: whatever is put after it fails in another way.
    pub(crate) fn batch(&mut self, batch: &Prepared) -> Result<Result<(), Refused>, StoreError> {
        let mut failure = None;
        let uses = batch.operations.iter().filter_map(Operation::slot_use);
        let checked = check_slots(uses, |slot| {
            self.state(slot).unwrap_or_else(|error| {
                failure = Some(error);
                SlotState::Forgotten
            })
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if checked.is_ok() {
            batch.operations.iter().try_for_each(|operation| self.operation(operation))?;
        }
        Ok(checked)
    }

    fn state(&self, slot: Slot) -> Result<SlotState, StoreError> {
        let key = slot_key(slot);
        Ok(match self.tables.channels.get(self.txn, &key)? {
            Some(value) => SlotState::Taken(owner(self.tables, self.txn, &key, value)?),
            None if slot.0 < self.next => SlotState::Forgotten,
            None => SlotState::Free,
        })
    }

    fn operation(&mut self, operation: &Operation) -> Result<(), StoreError> {
        match operation {
            Operation::Facts { slot, entry, facts, .. } => self.facts(*slot, entry, facts),
            Operation::Ended { slot, htlcs } if self.is_taken(*slot)? => self.ended(*slot, htlcs),
            Operation::Changes { slot, changes } if self.is_taken(*slot)? => {
                let first = next_sequence(self.tables.log, self.txn, *slot)?;
                self.changes(*slot, first, changes)
            }
            Operation::Replaced { slot, changes } if self.is_taken(*slot)? => {
                delete_some(self.tables.log, self.txn, *slot, usize::MAX)?;
                self.changes(*slot, 0, changes)
            }
            Operation::Subscriber { slot, name, state } if self.is_taken(*slot)? => {
                self.subscriber(*slot, name, state.as_deref())
            }
            Operation::ToAll { name, state } => {
                self.subscriber(ALL_CHANNELS, name, state.as_deref())
            }
            Operation::SetAside { slot, aside: true } if self.is_taken(*slot)? => {
                self.put(self.tables.aside, &slot_key(*slot), &[])
            }
            Operation::SetAside { slot, aside: false } => {
                Ok(self.tables.aside.delete(self.txn, &slot_key(*slot)).map(drop)?)
            }
            // Nothing can be added to a channel that was forgotten.
            Operation::Ended { .. }
            | Operation::Changes { .. }
            | Operation::Replaced { .. }
            | Operation::Subscriber { .. }
            | Operation::SetAside { .. } => Ok(()),
            Operation::Connected(block) => {
                self.move_cursor(*block)?;
                let lowest = block.height.plus(BlockDelta(1)).minus(KEPT_BLOCKS);
                self.delete_blocks(Bound::Unbounded, Bound::Excluded(lowest))
            }
            Operation::Disconnected(fork_point) => self.move_cursor(*fork_point),
            Operation::Forget { slot } => self.forget(*slot),
            Operation::Bytes { key, bytes: Some(bytes) } => self.put(self.tables.bytes, key, bytes),
            Operation::Bytes { key, bytes: None } => {
                Ok(self.tables.bytes.delete(self.txn, key).map(drop)?)
            }
        }
    }

    fn changes(&mut self, slot: Slot, first: u64, changes: &[Vec<u8>]) -> Result<(), StoreError> {
        (first..).zip(changes).try_for_each(|(sequence, change)| {
            self.put(self.tables.log, &log_key(slot, sequence), change)
        })
    }

    fn subscriber(
        &mut self,
        slot: Slot,
        name: &str,
        state: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let key = subscriber_key(slot, name);
        match state {
            Some(state) => self.put(self.tables.subs, &key, state),
            None => Ok(self.tables.subs.delete(self.txn, &key).map(drop)?),
        }
    }

    fn is_taken(&self, slot: Slot) -> Result<bool, StoreError> {
        Ok(self.tables.channels.get(self.txn, &slot_key(slot))?.is_some())
    }

    fn facts(&mut self, slot: Slot, entry: &[u8], facts: &[u8]) -> Result<(), StoreError> {
        let key = slot_key(slot);
        let sealed = seal(&key, entry);
        let known = self.tables.channels.get(self.txn, &key)?;
        if known.is_none() {
            self.next = self.next.max(slot.0.saturating_add(1));
        }
        // Most updates of facts leave the entry as it is, or move its numbers only.
        if known != Some(&sealed) {
            self.tables.channels.put(self.txn, &key, &sealed)?;
        }
        self.put(self.tables.facts, &key, facts)
    }

    /// HTLCs go to the end of the channel's last chunk, then into new ones.
    fn ended(&mut self, slot: Slot, htlcs: &[Vec<u8>]) -> Result<(), StoreError> {
        let mut chunk = Chunk::last(self.tables.penalty, self.txn, slot)?;
        let mut htlcs = htlcs.iter().peekable();
        while htlcs.peek().is_some() {
            while let Some(htlc) = htlcs.next_if(|htlc| chunk.has_room_for(htlc)) {
                chunk.bytes.extend_from_slice(htlc);
            }
            self.put(self.tables.penalty, &chunk.key(slot), &chunk.bytes)?;
            chunk = chunk.next();
        }
        Ok(())
    }

    /// The channel is gone at once; its long tables are emptied later, piece by piece.
    fn forget(&mut self, slot: Slot) -> Result<(), StoreError> {
        if !self.is_taken(slot)? {
            return Ok(());
        }
        let key = slot_key(slot);
        self.tables.channels.delete(self.txn, &key)?;
        self.tables.facts.delete(self.txn, &key)?;
        self.tables.aside.delete(self.txn, &key)?;
        delete_some(self.tables.subs, self.txn, slot, usize::MAX)?;
        self.put(self.tables.gone, &key, &[])
    }

    /// The cursor is at `block`: nothing above it is kept.
    fn move_cursor(&mut self, block: BlockRef) -> Result<(), StoreError> {
        self.delete_blocks(Bound::Excluded(block.height), Bound::Unbounded)?;
        self.put(self.tables.chain, &height_key(block.height), &block.encode())
    }

    fn delete_blocks(
        &mut self,
        from: Bound<BlockHeight>,
        to: Bound<BlockHeight>,
    ) -> Result<(), StoreError> {
        let (from, to) = (from.map(height_key), to.map(height_key));
        let range = (as_bytes(&from), as_bytes(&to));
        let keys: Vec<Vec<u8>> = self
            .tables
            .chain
            .range(self.txn, &range)?
            .map(|entry| entry.map(|(key, _)| key.to_vec()))
            .collect::<Result<_, _>>()?;
        for key in keys {
            self.tables.chain.delete(self.txn, &key)?;
        }
        Ok(())
    }

    fn put(&mut self, table: Table, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        Ok(table.put(self.txn, key, &seal(key, bytes))?)
    }
}

fn as_bytes(bound: &Bound<[u8; 4]>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(&key[..]),
        Bound::Excluded(key) => Bound::Excluded(&key[..]),
        Bound::Unbounded => Bound::Unbounded,
    }
}

fn next_sequence(log: Table, txn: &RoTxn<'_>, slot: Slot) -> Result<u64, StoreError> {
    let last = log.get_lower_than_or_equal_to(txn, &log_key(slot, u64::MAX))?;
    let of_slot = last.filter(|(key, _)| key.starts_with(&slot_key(slot)));
    Ok(of_slot.and_then(|(key, _)| sequence_of(key)).map_or(0, |last| last.saturating_add(1)))
}

/// Deletes up to `most` records of a slot. How many were deleted.
fn delete_some(
    table: Table,
    txn: &mut RwTxn<'_>,
    slot: Slot,
    most: usize,
) -> Result<usize, StoreError> {
    let keys: Vec<Vec<u8>> = table
        .prefix_iter(txn, &slot_key(slot))?
        .take(most)
        .map(|entry| entry.map(|(key, _)| key.to_vec()))
        .collect::<Result<_, _>>()?;
    for key in &keys {
        table.delete(txn, key)?;
    }
    Ok(keys.len())
}

/// What one step of cleaning up left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cleaning {
    /// There is more to delete.
    Goes,
    /// No forgotten channel has records left.
    Done,
}

/// Deletes up to `most` records of forgotten channels.
pub(crate) fn clean(
    tables: &Databases,
    txn: &mut RwTxn<'_>,
    most: usize,
) -> Result<Cleaning, StoreError> {
    let Some((key, _)) = tables.gone.first(txn)? else { return Ok(Cleaning::Done) };
    let key = key.to_vec();
    let Some(slot) = crate::layout::slot_of(&key) else {
        // No key that this program writes.
        tables.gone.delete(txn, &key)?;
        return Ok(Cleaning::Goes);
    };
    let deleted = delete_some(tables.penalty, txn, slot, most)?;
    let deleted = deleted + delete_some(tables.log, txn, slot, most - deleted)?;
    if deleted < most {
        tables.gone.delete(txn, &key)?;
    }
    Ok(Cleaning::Goes)
}
