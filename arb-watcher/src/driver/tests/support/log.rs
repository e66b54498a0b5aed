//! A log in memory that refuses, delays, and is damaged on demand. Clones share it, so that a
//! restart finds what was there.
use arb_core::arbitrator::Change;
use arb_core::facts::{ChannelFacts, HtlcRecord};
use arb_core::ids::{HtlcId, Slot};
use arb_core::log::{Batch, ChangeLog, Damaged, Durable, Health, Remedy, StoredChannel, Write};
use arb_core::memory::MemoryLog;
use arb_core::units::{BlockRef, CommitmentNumber};
use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

#[derive(Clone, Default)]
pub(in super::super) struct Log(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    memory: MemoryLog,
    refuses: bool,
    for_good: Option<Remedy>,
    refused: usize,
    gates: VecDeque<oneshot::Receiver<bool>>,
    held: usize,
    unreadable: bool,
    damaged_entries: BTreeSet<Slot>,
    damaged_facts: BTreeSet<Slot>,
    damaged_changes: BTreeSet<Slot>,
    damaged_ended: BTreeSet<Slot>,
    damaged_subscribers: BTreeSet<Slot>,
    /// Of the cursor, so many of the newest blocks cannot be read.
    lost_blocks: usize,
    health: Health,
    channel_reads: usize,
    record_reads: usize,
    channel_writes: usize,
    order_of_facts: Vec<u32>,
    no_receipts: bool,
    appends: usize,
    passes: usize,
}

/// Why the log fails.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(in super::super) struct Failure {
    what: String,
    remedy: Remedy,
}

/// A failure that passes.
fn failure(what: &str) -> Failure {
    Failure { what: what.to_owned(), remedy: Remedy::Wait }
}

fn refused(refused: arb_core::memory::Refused) -> Failure {
    Failure { what: refused.to_string(), remedy: Remedy::Refused }
}

/// Holds one append up.
pub(in super::super) struct Gate(oneshot::Sender<bool>);

impl Gate {
    pub(in super::super) fn pass(self) {
        self.0.send(true).expect("an append that waits");
    }

    pub(in super::super) fn refuse(self) {
        self.0.send(false).expect("an append that waits");
    }
}

impl Log {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().expect("no panic with the lock")
    }

    /// The next append without a gate waits for this one.
    pub(in super::super) fn hold(&self) -> Gate {
        let (sender, receiver) = oneshot::channel();
        self.inner().gates.push_back(receiver);
        Gate(sender)
    }

    /// How many appends have come to a gate.
    pub(in super::super) fn held(&self) -> usize {
        self.inner().held
    }

    pub(in super::super) fn refuse(&self, refuses: bool) {
        self.inner().refuses = refuses;
    }

    /// Appends fail from now on, and this is to be done about it.
    pub(in super::super) fn fails(&self, remedy: Remedy) {
        self.inner().for_good = Some(remedy);
    }

    /// How many appends were refused.
    pub(in super::super) fn refused(&self) -> usize {
        self.inner().refused
    }

    pub(in super::super) fn unreadable(&self, unreadable: bool) {
        self.inner().unreadable = unreadable;
    }

    pub(in super::super) fn damage_entry(&self, slot: u32) {
        self.inner().damaged_entries.insert(Slot(slot));
    }

    /// No subscriber of a channel can be read.
    pub(in super::super) fn damage_subscribers(&self, slot: u32) {
        self.inner().damaged_subscribers.insert(Slot(slot));
    }

    /// So many of the newest blocks of the cursor cannot be read.
    pub(in super::super) fn lose_blocks(&self, blocks: usize) {
        self.inner().lost_blocks = blocks;
    }

    pub(in super::super) fn damage_facts(&self, slot: u32) {
        self.inner().damaged_facts.insert(Slot(slot));
    }

    pub(in super::super) fn damage_changes(&self, slot: u32) {
        self.inner().damaged_changes.insert(Slot(slot));
    }

    /// Whether the penalty data of a channel is damaged.
    pub(in super::super) fn damage_ended(&self, slot: u32, damaged: bool) {
        let mut inner = self.inner();
        let ended = &mut inner.damaged_ended;
        let _ = if damaged { ended.insert(Slot(slot)) } else { ended.remove(&Slot(slot)) };
    }

    /// The medium is sound again.
    pub(in super::super) fn heal(&self) {
        let mut inner = self.inner();
        inner.damaged_entries.clear();
        inner.damaged_facts.clear();
        inner.damaged_changes.clear();
        inner.damaged_ended.clear();
        inner.damaged_subscribers.clear();
        inner.lost_blocks = 0;
    }

    /// In which order facts of channels were written.
    pub(in super::super) fn order_of_facts(&self) -> Vec<u32> {
        self.inner().order_of_facts.clone()
    }

    pub(in super::super) fn forget_order(&self) {
        self.inner().order_of_facts.clear();
    }

    /// Appends that are asked for together have no receipts from now on.
    pub(in super::super) fn give_no_receipts(&self) {
        self.inner().no_receipts = true;
    }

    /// How many batches were asked for that came to the medium, whatever became of them.
    pub(in super::super) fn appends(&self) -> usize {
        self.inner().appends
    }

    /// How often all channels were gone through.
    pub(in super::super) fn passes(&self) -> usize {
        self.inner().passes
    }

    /// How the log says that it is off for space.
    pub(in super::super) fn is(&self, health: Health) {
        self.inner().health = health;
    }

    /// How often one channel was read.
    pub(in super::super) fn channel_reads(&self) -> usize {
        self.inner().channel_reads
    }

    /// How often facts, a log or penalty data of one channel were read.
    pub(in super::super) fn record_reads(&self) -> usize {
        self.inner().record_reads
    }

    /// How often anything but the chain's cursor was written.
    pub(in super::super) fn channel_writes(&self) -> usize {
        self.inner().channel_writes
    }

    pub(in super::super) fn stored_facts(&self, slot: u32) -> Option<ChannelFacts> {
        let facts = self.inner().memory.facts(Slot(slot)).expect("readable")?;
        Some(*facts.expect("sound"))
    }

    pub(in super::super) fn stored_record(&self, folder: &str, name: &str) -> Option<Vec<u8>> {
        self.inner().memory.record(folder, name).map(<[u8]>::to_vec)
    }

    pub(in super::super) fn stored_changes(&self, slot: u32) -> Vec<Change> {
        self.inner().memory.changes(Slot(slot)).expect("readable").expect("sound")
    }

    pub(in super::super) fn stored_ended(&self, slot: u32, number: u64) -> Vec<HtlcId> {
        let ended = self.inner().memory.ended_htlcs(Slot(slot), CommitmentNumber(number));
        ended.expect("readable").expect("sound").into_iter().map(|(id, _)| id).collect()
    }

    pub(in super::super) fn tip(&self) -> Option<BlockRef> {
        self.inner().memory.blocks().expect("readable").last().copied()
    }

    fn write(&self, batch: Batch, allowed: bool) -> Result<Durable, Failure> {
        let mut inner = self.inner();
        inner.appends += 1;
        if !allowed || inner.refuses {
            inner.refused += 1;
            return Err(failure("no space left"));
        }
        if let Some(remedy) = inner.for_good {
            inner.refused += 1;
            return Err(Failure { what: "the log is lost".to_owned(), remedy });
        }
        for write in &batch.writes {
            if !matches!(write, Write::BlockConnected(_) | Write::Disconnected { .. }) {
                inner.channel_writes += 1;
            }
            if let Write::Facts { slot, .. } = write {
                inner.order_of_facts.push(slot.0);
                inner.damaged_facts.remove(slot);
                inner.damaged_entries.remove(slot);
            }
            if let Write::LogReplaced { slot, .. } = write {
                inner.damaged_changes.remove(slot);
            }
        }
        let appended = inner.memory.append(batch).into_inner();
        appended.map_err(refused)
    }

    fn read<T>(
        &self,
        what: impl FnOnce(&MemoryLog) -> Result<T, arb_core::memory::Refused>,
    ) -> Result<T, Failure> {
        let inner = self.inner();
        if inner.unreadable {
            return Err(failure("input/output error"));
        }
        what(&inner.memory).map_err(refused)
    }
}

impl Log {
    /// What cannot be read of a channel is not given.
    fn damage(&self, channel: &mut StoredChannel) {
        let inner = self.inner();
        if inner.damaged_subscribers.contains(&channel.slot) {
            channel.subscribers.clear();
            channel.entry = Err(damaged());
        }
        if inner.damaged_entries.contains(&channel.slot) {
            channel.entry = Err(damaged());
        }
    }
}

fn damaged() -> Damaged {
    Damaged { what: "a flipped bit".to_owned() }
}

impl ChangeLog for Log {
    type Error = Failure;
    type Append = Pin<Box<dyn Future<Output = Result<Durable, Failure>> + Send>>;

    fn remedy(failure: &Failure) -> Remedy {
        failure.remedy
    }

    fn append(&mut self, batch: Batch) -> Self::Append {
        let gate = self.inner().gates.pop_front();
        self.inner().held += usize::from(gate.is_some());
        let log = self.clone();
        match gate {
            // As the contract says: what is not held up is applied when it is called.
            None => Box::pin(std::future::ready(log.write(batch, true))),
            Some(gate) => Box::pin(async move {
                let allowed = gate.await.map_err(|_| failure("the gate is gone"))?;
                log.write(batch, allowed)
            }),
        }
    }

    fn append_all(&mut self, batches: Vec<Batch>) -> Vec<Self::Append> {
        if self.inner().no_receipts {
            return Vec::new();
        }
        batches.into_iter().map(|batch| self.append(batch)).collect()
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), Failure> {
        self.inner().passes += 1;
        for mut channel in self.read(ChangeLog::channels)? {
            self.damage(&mut channel);
            each(channel);
        }
        Ok(())
    }

    fn channel_count(&self) -> Result<u64, Failure> {
        self.read(ChangeLog::channel_count)
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, Failure> {
        self.inner().channel_reads += 1;
        let mut channel = self.read(|memory| memory.channel(slot))?;
        channel.iter_mut().for_each(|channel| self.damage(channel));
        Ok(channel)
    }

    fn health(&self) -> Health {
        self.inner().health
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, Failure> {
        self.inner().record_reads += 1;
        let broken = self.inner().damaged_facts.contains(&slot);
        let facts = self.read(|memory| memory.facts(slot))?;
        Ok(if broken { Some(Err(damaged())) } else { facts })
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, Failure> {
        self.inner().record_reads += 1;
        let broken = self.inner().damaged_changes.contains(&slot);
        let changes = self.read(|memory| memory.changes(slot))?;
        Ok(if broken { Err(damaged()) } else { changes })
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, Failure> {
        self.inner().record_reads += 1;
        if self.inner().damaged_ended.contains(&slot) {
            return Ok(Err(damaged()));
        }
        self.read(|memory| memory.ended_htlcs(slot, number))
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, Failure> {
        self.read(ChangeLog::subscribers_to_all)
    }

    fn next_slot(&self) -> Result<Slot, Failure> {
        self.read(ChangeLog::next_slot)
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, Failure> {
        let lost = self.inner().lost_blocks;
        let mut blocks = self.read(ChangeLog::blocks)?;
        blocks.truncate(blocks.len().saturating_sub(lost));
        Ok(blocks)
    }
}
