//! `update`: facts at payment speed. A durable append of what an update writes, alone and with 64
//! in flight, against a bare LMDB commit of the same records; and how the file grows over a long
//! history.
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_core::codec::Record as _;
use arb_core::facts::{ChannelEntry, ChannelFacts, HtlcLink, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, Side, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog, Write};
use arb_core::units::CommitmentNumber;
use arb_store::{LmdbLog, StoreConfig};
use bitcoin::secp256k1::Secp256k1;
use indicatif::ProgressBar;

use super::BenchError;
use super::arbitrated::{Arbitrated, Callers, Paying, Told};
use super::bare::{Bare, Record};
use super::channels::{self, Quiet};
use super::measure::{interleaved, timed};
use super::report::{Goal, Row, Unit};
use super::store::{beside_this_program, timed_result, wait};

const SEED: u64 = 13;
const PAIRS: usize = 101;
const IN_FLIGHT: usize = 64;
const GOAL: Goal = Goal::Below(1.5);

/// An HTLC takes four updates: added to either commitment, removed from either.
const UPDATES_OF_HTLC: u64 = 4;
const HISTORY: u64 = 1_000_000;
const LIMIT: f64 = 150.0;

/// Checksum of each stored value.
const CHECKSUM: usize = 4;
/// Bytes of HTLCs in one value, at most (`docs/format.md`).
const LONGEST_CHUNK: usize = 4_076;

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("update: appends");
    let folder = tempfile::tempdir_in(beside_this_program()?)?;
    let mut ours = Ours::open(&folder.path().join("ours"))?;
    let mut bare = BareStore::open(&folder.path().join("bare"))?;
    let one = interleaved(PAIRS, &mut || ours.timed(1), &mut || bare.timed(1))?;
    let many = interleaved(PAIRS, &mut || ours.timed(IN_FLIGHT), &mut || bare.timed(IN_FLIGHT))?;
    let secp = Secp256k1::new();
    let closing = channels::closing(SEED)?;
    let paying = closing.into_iter().find(|closing| !closing.facts.htlcs.is_empty());
    let facts = paying.map(|closing| closing.facts);
    let facts = facts.ok_or_else(|| BenchError::Engine("no facts with HTLCs".to_owned()))?;
    let verify = interleaved(
        PAIRS,
        &mut || {
            let (time, verified) = timed(|| facts.verify(&secp));
            verified?;
            Ok(time)
        },
        &mut || bare.timed(1),
    )?;
    let mut rows = vec![
        Row::of("update: 1 append / 1 bare commit", one, Some(GOAL)),
        Row::of("update: 64 appends in flight / 1 bare commit of them", many, Some(GOAL)),
        Row::of("update: verifying facts with 2 HTLCs / 1 bare commit", verify, None),
    ];
    drop((ours, bare));
    rows.extend(called(folder.path())?);
    progress.set_message(format!("update: {HISTORY} updates"));
    rows.extend(growth(&folder.path().join("history"))?);
    Ok(rows)
}

/// What a node waits for: `update_channel` of an arbiter. Of an HTLC and its preimage there is nothing to verify; new commitments are
/// held against having them verified one after the other and then committed.
fn called(folder: &Path) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for (told, calls, beside, goal) in [
        (Told::Htlc, "of an HTLC", "1 bare commit", Some(GOAL)),
        (Told::Preimage, "of a preimage", "1 bare commit", Some(GOAL)),
        (Told::Commitments, "of commitments", "verified, and 1 bare commit", Some(GOAL)),
    ] {
        let folder = folder.join(calls.replace(' ', "_"));
        let mut ours = Arbitrated::open(&folder.join("arbiter"), IN_FLIGHT as u32)?;
        let names = ["channels", "facts", "log"];
        let bare = Bare::open(&folder.join("of_arbiter"), names, Some(1 << 30))?;
        let secp = Secp256k1::new();
        let mut theirs = Paying::all(IN_FLIGHT as u32)?;
        let mut commit = |channels: Range<usize>| {
            let (mut records, mut verifying) = (Vec::new(), Duration::ZERO);
            for (slot, channel) in
                (0..).zip(theirs.iter_mut()).take(channels.end).skip(channels.start)
            {
                let (of_channel, time) = channel.next_records(told, slot, &secp)?;
                records.extend(of_channel);
                verifying += time;
            }
            let committing = timed_result(|| bare.commit(&records))?;
            Ok::<_, BenchError>(match told {
                Told::Htlc | Told::Preimage => committing,
                Told::Commitments => committing + verifying,
            })
        };
        // The arbiter was told of its channels one by one: their pages lie apart in either file.
        for channel in 0..IN_FLIGHT {
            commit(channel..channel + 1)?;
        }
        for (count, callers, name) in [
            (1, Callers::OneTask, "1 update_channel"),
            (IN_FLIGHT, Callers::OneTask, "64 update_channel in flight"),
            (IN_FLIGHT, Callers::Tasks, "64 update_channel in flight, by a task each,"),
        ] {
            let pairs =
                interleaved(PAIRS, &mut || ours.timed(told, (count, callers)), &mut || {
                    commit(0..count)
                })?;
            rows.push(Row::of(format!("update: {name} {calls} / {beside}"), pairs, goal));
        }
    }
    Ok(rows)
}

/// A long history of many channels, and what it leaves in the file.
fn growth(folder: &Path) -> Result<Vec<Row>, BenchError> {
    let mut ours = Ours::open(folder)?;
    let data = folder.join("data.mdb");
    let mut at = vec![occupied(&data)?];
    for _ in 0..2 {
        for _ in 0..HISTORY / 2 / IN_FLIGHT as u64 {
            ours.append(IN_FLIGHT)?;
        }
        at.push(occupied(&data)?);
    }
    let htlcs = HISTORY as f64 / 2.0 / UPDATES_OF_HTLC as f64;
    let [first, second] = [0, 1].map(|half| (at[half + 1] - at[half]) as f64 / htlcs);
    let mean = f64::midpoint(first, second);
    let row = |name: &str, ours: f64, other: f64, goal| Row {
        name: name.to_owned(),
        ours,
        other,
        unit: Unit::Bytes,
        ratio: ours / other,
        goal: Some(goal),
    };
    Ok(vec![
        row("update: file per HTLC, 1000000 updates / limit", mean, LIMIT, Goal::Below(1.0)),
        row("update: file per HTLC, second half / first half", second, first, Goal::Within(0.1)),
    ])
}

/// Bytes of a file that are on the disk.
pub(super) fn occupied(file: &Path) -> Result<i64, BenchError> {
    let blocks = std::fs::metadata(file)?.blocks();
    i64::try_from(blocks * 512).map_err(|error| BenchError::Engine(error.to_string()))
}

/// A channel with payments, as a node tells of it.
struct Node {
    slot: Slot,
    facts: ChannelFacts,
    updates: u64,
    /// HTLCs that have ended, as they stand in one value of the store, and the number of the value.
    chunk: (u64, Vec<u8>),
}

/// What one update writes.
struct Update {
    slot: Slot,
    facts: ChannelFacts,
    ended: Vec<(HtlcId, HtlcRecord)>,
}

impl Node {
    fn all() -> Result<Vec<Self>, BenchError> {
        let mut quiet = Quiet::new(SEED)?;
        // The slots whose models have HTLCs pending.
        let slots = (0..IN_FLIGHT as u32).map(|at| at * 10);
        let node = |at| Self {
            slot: Slot(at),
            facts: quiet.facts(at),
            updates: 0,
            chunk: (0, Vec::new()),
        };
        Ok(slots.map(node).collect())
    }

    /// The next update: numbers move on; with every fourth an HTLC has left the last commitment.
    fn next(&mut self) -> Update {
        self.updates += 1;
        let current = &mut self.facts.candidates.current;
        if self.updates.is_multiple_of(2) {
            current.local.number = CommitmentNumber(self.updates / 2);
        } else {
            current.remote.number = CommitmentNumber(self.updates / 2);
        }
        let ended =
            if self.updates.is_multiple_of(UPDATES_OF_HTLC) { self.ended() } else { vec![] };
        Update { slot: self.slot, facts: self.facts.clone(), ended }
    }

    /// Forwarded in either direction, in turn.
    fn ended(&self) -> Vec<(HtlcId, HtlcRecord)> {
        let number = self.updates / UPDATES_OF_HTLC;
        let from = self.updates / 2;
        let model = self.facts.htlcs.values().next().copied();
        let other = HtlcRef {
            channel: ChannelId([0x77; 32]),
            htlc: HtlcId { offerer: Side::Remote, id: number },
        };
        let ended = model.map(|mut record| {
            let (expiry, amount) = (record.htlc.expiry, record.htlc.amount);
            let (offerer, link) = if number.is_multiple_of(2) {
                (Side::Local, HtlcLink::ForwardOf { incoming: other, expiry, amount })
            } else {
                (Side::Remote, HtlcLink::ForwardedTo { outgoing: other })
            };
            record.htlc.link = link;
            record.htlc.hash.0[..8].copy_from_slice(&number.to_be_bytes());
            record.remote_from = Some(CommitmentNumber(from));
            record.remote_until = Some(CommitmentNumber(from + 1));
            (HtlcId { offerer, id: number / 2 }, record)
        });
        ended.into_iter().collect()
    }
}

impl Node {
    /// The records of the next update as the store writes them, but for the checksums' values.
    fn next_records(&mut self) -> Vec<Record> {
        let update = self.next();
        let key = update.slot.0.to_be_bytes().to_vec();
        let sealed = |mut bytes: Vec<u8>| {
            bytes.extend([0; CHECKSUM]);
            bytes
        };
        let entry = sealed(ChannelEntry::of(&update.facts).encode());
        let facts = sealed(update.facts.encode());
        let mut records = vec![(0, key.clone(), entry), (1, key.clone(), facts)];
        for (id, record) in &update.ended {
            let (number, chunk) = &mut self.chunk;
            let record = record.encode();
            let length = (record.len() as u16).to_be_bytes();
            let offerer = u8::from(id.offerer == Side::Remote);
            let htlc = [&[offerer][..], &id.id.to_be_bytes(), &length, &record].concat();
            if chunk.len() + htlc.len() > LONGEST_CHUNK {
                *number += 1;
                chunk.clear();
            }
            chunk.extend(htlc);
            let key = [&key[..], &[2], &number.to_be_bytes()].concat();
            records.push((2, key, sealed(chunk.clone())));
        }
        records
    }
}

/// Our store.
struct Ours {
    log: LmdbLog,
    nodes: Vec<Node>,
    next: u64,
}

impl Ours {
    fn open(folder: &Path) -> Result<Self, BenchError> {
        let log = LmdbLog::open(folder, StoreConfig::default())?;
        let mut ours = Self { log, nodes: Node::all()?, next: 0 };
        ours.append(IN_FLIGHT)?;
        Ok(ours)
    }

    /// An update of this many channels, a batch each; returns when all are durable.
    fn append(&mut self, count: usize) -> Result<(), BenchError> {
        let updates: Vec<Update> = self.nodes.iter_mut().take(count).map(Node::next).collect();
        self.store(updates)
    }

    fn timed(&mut self, count: usize) -> Result<std::time::Duration, BenchError> {
        let updates: Vec<Update> = self.nodes.iter_mut().take(count).map(Node::next).collect();
        timed_result(|| self.store(updates))
    }

    fn store(&mut self, updates: Vec<Update>) -> Result<(), BenchError> {
        let mut under_way = Vec::with_capacity(updates.len());
        for Update { slot, facts, ended } in updates {
            self.next += 1;
            let mut writes = vec![Write::Facts { slot, facts: Arc::new(facts) }];
            if !ended.is_empty() {
                writes.push(Write::EndedHtlcs { slot, htlcs: ended });
            }
            under_way.push(self.log.append(Batch { id: BatchId(self.next), writes }));
        }
        for append in under_way {
            let _receipt = wait(append)?;
        }
        Ok(())
    }
}

/// The same records in an environment of their own.
struct BareStore {
    bare: Bare<3>,
    nodes: Vec<Node>,
}

impl BareStore {
    fn open(folder: &Path) -> Result<Self, BenchError> {
        let bare = Bare::open(folder, ["channels", "facts", "penalty"], Some(1 << 30))?;
        let mut store = Self { bare, nodes: Node::all()? };
        store.timed(IN_FLIGHT)?;
        Ok(store)
    }

    /// One commit of what an update of each of this many channels writes.
    fn timed(&mut self, count: usize) -> Result<std::time::Duration, BenchError> {
        let nodes = self.nodes.iter_mut().take(count);
        let records: Vec<Record> = nodes.flat_map(|node| node.next_records()).collect();
        timed_result(|| self.bare.commit(&records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_write_what_an_update_writes() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let mut ours = Ours::open(&folder.path().join("ours"))?;
        let mut bare = BareStore::open(&folder.path().join("bare"))?;
        for count in [1, 3, IN_FLIGHT] {
            ours.timed(count)?;
            bare.timed(count)?;
        }
        // The first channel has had four updates by now: an HTLC has ended.
        let stored = ours.log.facts(Slot(0))?.transpose();
        let stored = stored.map_err(|error| BenchError::Engine(error.to_string()))?;
        assert_eq!(stored.as_deref(), Some(&ours.nodes[0].facts));
        let ended = ours.log.ended_htlcs(Slot(0), CommitmentNumber(2))?;
        let ended = ended.map_err(|error| BenchError::Engine(error.to_string()))?;
        assert_eq!(ended.len(), 1);
        Ok(())
    }
}
