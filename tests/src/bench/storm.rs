//! `storm`: two thousand channels with five HTLCs each are closed in one block by commitments that
//! were revoked, five blocks in a row. From each block to durable, and to the last signature of its
//! claims; through the driver, with its store on this disk.
use std::time::Duration;

use bitcoin::Transaction;
use indicatif::ProgressBar;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::BenchError;
use super::measure::{interleaved_all, median};
use super::node::{Node, Took};
use super::report::{Goal, Row};
use super::store::beside_this_program;
use super::synthetic::Random;
use super::told::{Revoked, Told};

const SEED: u64 = 23;
const BLOCKS: usize = 5;
const MANY: usize = 2_000;
const FEW: usize = 200;
const HTLCS: usize = 5;
const SATOSHIS: u64 = 20_000;
const PAIRS: usize = 3;
/// Blocks that close one channel: the median of them is what one channel costs.
const SINGLES: usize = 15;

/// Ten thousand channels at once cost no more than each by itself: the block is read and synced
/// once for all.
const GOAL_SINGLE: Goal = Goal::Below(1.0);
/// Ten times the channels, at most ten times the time, and a little for caches.
const GOAL_LINEAR: Goal = Goal::Below(1.25);

/// What a number of blocks took together: until each was durable, and until its last signature.
type Sums = [Duration; 2];

struct Storm {
    model: Revoked,
    channels: Vec<Told>,
    runtime: Runtime,
}

impl Storm {
    fn new() -> Result<Self, BenchError> {
        let mut model = Revoked::with_htlcs(HTLCS, SATOSHIS)?;
        let mut random = Random::new("storm", SEED);
        let channels =
            (0..BLOCKS * MANY).map(|_| model.at(random.outpoint())).collect::<Result<_, _>>()?;
        Ok(Self { model, channels, runtime: runtime()? })
    }

    /// What each of so many blocks took that close so many channels each. Every channel must have
    /// led to as many signatures as every other.
    fn blow(&self, blocks: usize, closes: usize) -> Result<Vec<Took>, BenchError> {
        let channels = self.channels.get(..blocks * closes).unwrap_or_default();
        let folder = folder()?;
        let took = self.runtime.block_on(async {
            let node = Node::start(folder.path(), &self.model, channels).await?;
            let mut took = Vec::new();
            for part in channels.chunks(closes) {
                let spends: Vec<Transaction> = part.iter().map(|told| told.close.clone()).collect();
                took.push(node.connect(&spends).await?);
            }
            node.stop().await;
            Ok::<_, BenchError>(took)
        })?;
        // The commitment's own outputs at least: both balances and the HTLCs.
        if let Some(short) = took.iter().find(|took| took.signatures < closes * (HTLCS + 1)) {
            return Err(BenchError::Engine(format!("{} signatures only", short.signatures)));
        }
        Ok(took)
    }

    /// All blocks together.
    fn together(&self, closes: usize) -> Result<Sums, BenchError> {
        let took = self.blow(BLOCKS, closes)?;
        Ok([took.iter().map(|t| t.durable).sum(), took.iter().map(|t| t.signed).sum()])
    }

    /// What as many channels as there are would cost, each in a block of its own.
    fn one_by_one(&self) -> Result<Sums, BenchError> {
        let took = self.blow(SINGLES, 1)?;
        let times = |of: fn(&Took) -> Duration| {
            let single = median(took.iter().map(|took| of(took).as_secs_f64()));
            Duration::from_secs_f64(single * (BLOCKS * MANY) as f64)
        };
        Ok([times(|took| took.durable), times(|took| took.signed)])
    }
}

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("storm: channels");
    let storm = Storm::new()?;
    progress.set_message("storm: against single closes and a tenth of them");
    let mut ours = || {
        let [durable, signed] = storm.together(MANY)?;
        Ok([durable, signed, durable, signed])
    };
    let mut others = || {
        let [durable, signed] = storm.one_by_one()?;
        let [durable_of_few, signed_of_few] =
            storm.together(FEW)?.map(|sum| sum * (MANY / FEW) as u32);
        Ok([durable, signed, durable_of_few, signed_of_few])
    };
    let [durable, signed, durable_of_few, signed_of_few] =
        interleaved_all(PAIRS, &mut ours, &mut others)?;
    let (single, linear) = ([durable, signed], [durable_of_few, signed_of_few]);
    let until = ["durable", "the last signature"];
    let mut rows = Vec::new();
    for (what, pairs) in until.into_iter().zip(single) {
        let name =
            format!("storm: {BLOCKS} blocks of {MANY} closes to {what} / {} x one", BLOCKS * MANY);
        rows.push(Row::of(name, pairs, Some(GOAL_SINGLE)));
    }
    for (what, pairs) in until.into_iter().zip(linear) {
        let name = format!("storm: {BLOCKS} blocks of {MANY} closes to {what} / 10 x of {FEW}");
        rows.push(Row::of(name, pairs, Some(GOAL_LINEAR)));
    }
    Ok(rows)
}

/// As a node runs it.
pub(super) fn runtime() -> Result<Runtime, BenchError> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Where a store lies that is measured.
pub(super) fn folder() -> Result<TempDir, BenchError> {
    Ok(tempfile::tempdir_in(beside_this_program()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_of_a_storm_is_claimed() -> Result<(), BenchError> {
        let mut model = Revoked::with_htlcs(HTLCS, SATOSHIS)?;
        let mut random = Random::new("storm", SEED);
        let channels = (0..6).map(|_| model.at(random.outpoint())).collect::<Result<_, _>>()?;
        let storm = Storm { model, channels, runtime: runtime()? };
        let one = storm.blow(1, 1)?;
        let more = storm.blow(2, 3)?;
        assert_eq!(one.len(), 1);
        // Each output is signed for once: five HTLCs, to_local, to_remote, our anchor.
        assert_eq!(one[0].signatures, HTLCS + 3);
        assert!(more.iter().all(|took| took.signatures >= 3 * (HTLCS + 3)), "{more:?}");
        assert!(more.iter().all(|took| took.durable <= took.signed));
        Ok(())
    }
}
