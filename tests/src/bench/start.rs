//! `start`: from an open store to an arbiter that is ready, against reading the same entries in
//! sequence into a bare map; and what the arbiter that is ready holds in memory.
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog, Write};
use arb_store::{LmdbLog, StoreConfig};
use arb_watcher::memory::{MemoryChain, MemoryCoins, MemoryFees, MemoryNetwork, MemorySigner};
use arb_watcher::{Arbiter, ChannelNumbers, Ports, Settings};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::SecretKey;
use bitcoin::{OutPoint, Txid};
use hashbrown::HashMap;
use indicatif::ProgressBar;
use tokio::runtime::{Builder, Runtime};

use super::BenchError;
use super::bare::Bare;
use super::channels::{self, Quiet};
use super::measure::{interleaved, timed};
use super::memory::{LIMIT, anonymous_memory};
use super::report::{Goal, Row, Unit};
use super::store::{beside_this_program, wait};

const SEED: u64 = 17;
const CHANNELS: [(u32, usize); 2] = [(100_000, 15), (MOST, 7)];
const MOST: u32 = 1_000_000;
const GOAL: Goal = Goal::Below(1.5);

/// Channels that are written in one batch.
const IN_BATCH: u32 = 5_000;

/// Where the id and the funding output stand in an index entry (`docs/format.md`).
const ID: std::ops::Range<usize> = 3..35;
const FUNDING: std::ops::Range<usize> = 37..73;

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for (count, pairs) in CHANNELS {
        let folder = tempfile::tempdir_in(beside_this_program()?)?;
        progress.set_message(format!("start: {count} channels are written"));
        let numbers = fill(folder.path(), count)?;
        progress.set_message(format!("start: {count} channels"));
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut memory = 0.0;
        let measured = interleaved(
            pairs,
            &mut || {
                let (time, bytes) = start(&runtime, folder.path(), &numbers)?;
                memory = bytes / f64::from(count);
                Ok(time)
            },
            &mut || read_into_map(folder.path(), count),
        )?;
        let name = format!("start: {count} channels / read into a bare map");
        rows.push(Row::of(name, measured, Some(GOAL)));
        if count < MOST {
            let shuffled = shuffled(&numbers);
            let measured = interleaved(
                pairs,
                &mut || start(&runtime, folder.path(), &shuffled).map(|(time, _)| time),
                &mut || read_into_map(folder.path(), count),
            )?;
            let name = format!("start: {count} channels, stated in no order / the same");
            rows.push(Row::of(name, measured, None));
        }
        // With fewer channels, what the allocator keeps of the start itself outweighs them.
        if count == MOST {
            rows.push(Row {
                name: format!("start: memory a channel, {count} quiet / limit"),
                ours: memory,
                other: LIMIT,
                unit: Unit::Bytes,
                ratio: memory / LIMIT,
                goal: Some(Goal::Below(1.0)),
            });
        }
    }
    Ok(rows)
}

/// A store with quiet channels. Gives what their node would state of them.
pub(super) fn fill(folder: &Path, count: u32) -> Result<Vec<ChannelNumbers>, BenchError> {
    let mut log = LmdbLog::open(folder, StoreConfig::default())?;
    let mut quiet = Quiet::new(SEED)?;
    let mut numbers = Vec::new();
    let mut writes = vec![Write::BlockConnected(channels::block_ref(channels::TIP))];
    for slot in 0..count {
        let facts = quiet.facts(slot);
        let current = &facts.candidates.current;
        let (local, remote) = (current.local.number, current.remote.number);
        numbers.push(ChannelNumbers { id: facts.id, local, remote });
        writes.push(Write::Facts { slot: Slot(slot), facts: Arc::new(facts) });
        if writes.len() as u32 >= IN_BATCH || slot + 1 == count {
            let batch = Batch { id: BatchId(u64::from(slot)), writes: std::mem::take(&mut writes) };
            let _receipt = wait(log.append(batch))?;
        }
    }
    Ok(numbers)
}

/// In an order that has nothing to do with that of the slots, as from a node's hash table.
fn shuffled(numbers: &[ChannelNumbers]) -> Vec<ChannelNumbers> {
    let mut shuffled = numbers.to_vec();
    shuffled.sort_unstable_by_key(|numbers| numbers.id);
    shuffled
}

/// Starts an arbiter on the store; the time that it takes, and the memory in use afterwards.
fn start(
    runtime: &Runtime,
    folder: &Path,
    numbers: &[ChannelNumbers],
) -> Result<(Duration, f64), BenchError> {
    let log = LmdbLog::open(folder, StoreConfig::default())?;
    let wallet = SecretKey::from_slice(&[7; 32]);
    let wallet = wallet.map_err(|error| BenchError::Engine(error.to_string()))?;
    let ports = Ports {
        source: MemoryChain::new(),
        broadcast: MemoryNetwork::new(),
        fees: MemoryFees::default(),
        signer: MemorySigner::new(),
        coins: MemoryCoins::new(wallet, &[]),
        scripts: arb_watcher::ScriptsPort::default(),
    };
    let before = anonymous_memory()?;
    let stated = numbers.to_vec();
    let (time, started) =
        timed(|| runtime.block_on(Arbiter::start(log, ports, Settings::default(), stated)));
    let arbiter = started.map_err(|error| BenchError::Engine(error.to_string()))?;
    let bytes = anonymous_memory()?.saturating_sub(before) as f64;
    // No channel may have been set aside or found outdated: then each would cost more.
    let known = numbers.last().map_or(ChannelId([0; 32]), |numbers| numbers.id);
    let report = runtime.block_on(async {
        let report = arbiter.report(known).await;
        arbiter.shutdown().await;
        report
    });
    match report {
        Ok(Some(report)) if report.alerts.is_empty() => Ok((time, bytes)),
        other => Err(BenchError::Engine(format!("the last channel: {other:?}"))),
    }
}

/// The same entries, from the same file, into a map that is as large as it will be.
fn read_into_map(folder: &Path, count: u32) -> Result<Duration, BenchError> {
    let bare = Bare::open(folder, ["channels"], None)?;
    let (time, map) = timed(|| {
        let mut map: HashMap<OutPoint, [u8; 32]> = HashMap::with_capacity(count as usize);
        bare.each(|entry| {
            if let Some((funding, id)) = funding_and_id(entry) {
                map.insert(funding, id);
            }
        })
        .map(|()| map)
    });
    bare.close();
    if map?.len() == count as usize {
        Ok(time)
    } else {
        Err(BenchError::Engine("entries are missing".to_owned()))
    }
}

fn funding_and_id(entry: &[u8]) -> Option<(OutPoint, [u8; 32])> {
    let id = entry.get(ID)?.try_into().ok()?;
    let (txid, vout) = entry.get(FUNDING)?.split_first_chunk::<32>()?;
    let vout = u32::from_be_bytes(vout.try_into().ok()?);
    Some((OutPoint { txid: Txid::from_byte_array(*txid), vout }, id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::codec::Record;
    use arb_core::facts::ChannelEntry;

    #[test]
    fn the_bare_reader_finds_what_the_store_writes() -> Result<(), BenchError> {
        let facts = Quiet::new(SEED)?.facts(0);
        let expected = (facts.candidates.current.funding, facts.id.0);
        assert_eq!(funding_and_id(&ChannelEntry::of(&facts).encode()), Some(expected));
        Ok(())
    }

    #[test]
    fn both_find_every_channel() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let numbers = fill(folder.path(), 300)?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        for _ in 0..2 {
            start(&runtime, folder.path(), &numbers)?;
            read_into_map(folder.path(), 300)?;
        }
        assert!(read_into_map(folder.path(), 301).is_err());
        Ok(())
    }
}
