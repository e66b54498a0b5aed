//! `block`: what a block costs with many quiet channels. The engine alone against the bare lookups
//! and against computing the block's txids, which whoever looks at a block must do at least; with
//! facts loaded and everything durable against `lightning`'s `ChainMonitor`.
mod durable;
mod shell;

use std::hint::black_box;
use std::time::Duration;

use bitcoin::{Block, OutPoint, Transaction};
use hashbrown::HashMap;
use indicatif::ProgressBar;

use arb_core::ids::Slot;

use super::channels::{self, Closing};
use super::measure::{Eviction, Pairs, interleaved, timed};
use super::report::{Goal, Row, Unit};
use super::store::beside_this_program;
use super::{BenchError, ldk, synthetic};
use durable::Extent;
use shell::{SEED, Shell};

const WARM_PAIRS: usize = 201;
const COLD_PAIRS: usize = 41;
const DURABLE_PAIRS: usize = 101;
const LDK_PAIRS: usize = 31;

/// Numbers of quiet channels.
const CHANNELS: [u32; 4] = [1_000, 10_000, 100_000, MOST];
const MOST: u32 = 1_000_000;
const LEAST: u32 = 1_000;
/// The goals against txids hold for this many.
const USUAL: u32 = 100_000;
/// Numbers of `lightning`'s monitors.
const MONITORS: [u32; 3] = [10, 100, MOST_MONITORS];
const MOST_MONITORS: u32 = 1_000;

/// Channels that close in one block, of so many: most close mutually. Each kind of close together
/// is there for comparison: what costs is to derive the keys of commitments.
const FEW: usize = 2;

/// Equal code, so that the reader can tell what the figures are worth.
const CONTROL: Goal = Goal::Within(0.05);
/// Scan, stage and commit add this much at most to looking every input up.
const GOAL_LOOKUPS: Goal = Goal::Below(1.3);
/// The engine slows down no more than the bare map does, whose parts are as far away.
const GOAL_GROWTH: Goal = Goal::Below(1.3);
/// A block is cheaper than its txids.
const GOAL_TXIDS: Goal = Goal::Below(1.0);

/// What is measured, and the blocks that it is measured with.
struct Blocks {
    closing: Vec<Closing>,
    /// No watched output is spent.
    quiet: Case,
    /// Two channels close.
    few: Case,
    /// One channel closes in each way.
    each_kind: Case,
}

/// A block, and how many channels it closes.
struct Case {
    block: Block,
    closes: usize,
}

impl Blocks {
    fn new() -> Result<Self, BenchError> {
        let closing = channels::closing(SEED)?;
        let spends: Vec<Transaction> = closing.iter().map(|c| c.spend.clone()).collect();
        let case = |closes: usize| {
            let block = synthetic::block(SEED, &spends[..closes])?;
            Ok::<_, BenchError>(Case { block, closes })
        };
        let (quiet, few, each_kind) = (case(0)?, case(FEW)?, case(spends.len())?);
        Ok(Self { closing, quiet, few, each_kind })
    }
}

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let blocks = Blocks::new()?;
    progress.set_message("block: control");
    let quiet = &blocks.quiet.block;
    let control = interleaved(WARM_PAIRS, &mut || Ok(txids(quiet)), &mut || Ok(txids(quiet)))?;
    let mut rows = vec![Row::of("block: txids / txids (control)", control, Some(CONTROL))];
    let mut engines = Vec::new();
    for count in CHANNELS {
        progress.set_message(format!("block: engine of {count}"));
        engines.push(engine_alone(count, &blocks, &mut rows)?);
    }
    progress.set_message("block: growth");
    growth(&mut engines, &blocks.quiet, &mut rows)?;
    drop(engines);
    let extent = Extent {
        channels: &CHANNELS,
        monitors: MOST_MONITORS,
        pairs: [DURABLE_PAIRS, COLD_PAIRS, LDK_PAIRS],
    };
    let folder = tempfile::tempdir_in(beside_this_program()?)?;
    rows.extend(durable::run(progress, &blocks, &extent, folder.path())?);
    against_ldk(progress, &blocks, &mut rows)?;
    Ok(rows)
}

/// An engine, and the bare map of what it watches.
type Engine = (Shell, HashMap<OutPoint, Slot>);

/// The engine alone, against the bare lookups and the txids; caches warm and cold.
fn engine_alone(count: u32, blocks: &Blocks, rows: &mut Vec<Row>) -> Result<Engine, BenchError> {
    let mut shell = Shell::engine_alone(count, &blocks.closing)?;
    let map = shell.bare_map();
    let eviction = Eviction::new();
    let quiet = &blocks.quiet;
    for (cold, pairs, what) in [(None, WARM_PAIRS, ""), (Some(&eviction), COLD_PAIRS, ", cold")] {
        let goal = (count == MOST).then_some(GOAL_LOOKUPS);
        let name = format!("block: engine of {count}{what} / bare lookups{what}");
        let other = &mut |cold: Cold<'_>| lookups(&map, &quiet.block, cold);
        let measured = against(pairs, cold, (&mut shell, quiet), other)?;
        rows.push(Row::of(name, measured, goal));
        let goal = (count == USUAL).then_some(GOAL_TXIDS);
        let name = format!("block: engine of {count}{what} / txids{what}");
        let other = &mut |cold: Cold<'_>| Ok(prepared_txids(&quiet.block, cold));
        let measured = against(pairs, cold, (&mut shell, quiet), other)?;
        rows.push(Row::of(name, measured, goal));
    }
    if count == USUAL {
        let closes = [
            ("2 channels close", &blocks.few, Some(GOAL_TXIDS)),
            ("4 channels close", &blocks.each_kind, None),
        ];
        for (what, case, goal) in closes {
            let name = format!("block: engine of {count}, {what} / txids");
            let other = &mut |_: Cold<'_>| Ok(txids(&case.block));
            let measured = against(WARM_PAIRS, None, (&mut shell, case), other)?;
            rows.push(Row::of(name, measured, goal));
        }
    }
    Ok((shell, map))
}

/// How the time for a block grows from the least to the most channels, in the engine and in the
/// bare map: nothing is done a channel, but what is looked up in leaves the processor's caches.
fn growth(engines: &mut [Engine], quiet: &Case, rows: &mut Vec<Row>) -> Result<(), BenchError> {
    let [(least, least_map), .., (most, most_map)] = engines else {
        return Err(BenchError::Engine("two engines".to_owned()));
    };
    let eviction = Eviction::new();
    for (cold, pairs, what) in [(None, WARM_PAIRS, ""), (Some(&eviction), COLD_PAIRS, ", cold")] {
        let other = &mut |cold: Cold<'_>| {
            prepare(&quiet.block, cold);
            connect(least, quiet)
        };
        let engine = against(pairs, cold, (&mut *most, quiet), other)?;
        let bare = interleaved(pairs, &mut || lookups(most_map, &quiet.block, cold), &mut || {
            lookups(least_map, &quiet.block, cold)
        })?;
        let sizes = format!("of {MOST}{what} / of {LEAST}{what}");
        rows.push(Row::of(format!("block: engine {sizes}"), engine, None));
        rows.push(Row::of(format!("block: bare lookups {sizes}"), bare, None));
        rows.push(Row {
            name: format!("block: growth of the engine{what} / growth of the bare lookups{what}"),
            ours: engine.ratio,
            other: bare.ratio,
            unit: Unit::Times,
            ratio: engine.ratio / bare.ratio,
            goal: Some(GOAL_GROWTH),
        });
    }
    Ok(())
}

/// The engine alone against as many monitors.
fn against_ldk(
    progress: &ProgressBar,
    blocks: &Blocks,
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    let model = ldk::Model::open_channel()?;
    let quiet = &blocks.quiet;
    for count in MONITORS {
        progress.set_message(format!("block: {count} monitors"));
        let mut monitors = model.load(count)?;
        if monitors.len() != count as usize {
            return Err(BenchError::Ldk("monitors are missing".to_owned()));
        }
        let mut shell = Shell::engine_alone(count, &blocks.closing)?;
        let measured = interleaved(LDK_PAIRS, &mut || connect(&mut shell, quiet), &mut || {
            Ok(timed(|| monitors.connect(&quiet.block)).0)
        })?;
        let name = format!("block: engine of {count} / {count} LDK monitors");
        rows.push(Row::of(name, measured, None));
    }
    Ok(())
}

/// What empties the caches before a measurement, if they are to be cold.
type Cold<'a> = Option<&'a Eviction>;

/// Pairs of the engine's work for a block, and something else.
fn against(
    pairs: usize,
    cold: Cold<'_>,
    (shell, case): (&mut Shell, &Case),
    other: &mut dyn FnMut(Cold<'_>) -> Result<Duration, BenchError>,
) -> Result<Pairs, BenchError> {
    interleaved(
        pairs,
        &mut || {
            prepare(&case.block, cold);
            connect(shell, case)
        },
        &mut || other(cold),
    )
}

/// The time that a block takes; the channels that it closes are quiet again afterwards.
fn connect(shell: &mut Shell, case: &Case) -> Result<Duration, BenchError> {
    let (time, concerned) = timed(|| shell.connect(&case.block));
    if concerned? != shell.closing(case.closes) {
        return Err(BenchError::Engine("other channels are concerned".to_owned()));
    }
    shell.reset();
    Ok(time)
}

fn txids(block: &Block) -> Duration {
    timed(|| block.txdata.iter().map(Transaction::compute_txid).map(black_box).count()).0
}

fn prepared_txids(block: &Block, cold: Cold<'_>) -> Duration {
    prepare(block, cold);
    txids(block)
}

/// Looks every input up.
fn lookups(
    map: &HashMap<OutPoint, Slot>,
    block: &Block,
    cold: Cold<'_>,
) -> Result<Duration, BenchError> {
    prepare(block, cold);
    let inputs = block.txdata.iter().flat_map(|tx| &tx.input);
    let (time, hits) = timed(|| inputs.filter_map(|input| map.get(&input.previous_output)).count());
    match hits {
        0 => Ok(time),
        _ => Err(BenchError::Engine("the block is not quiet".to_owned())),
    }
}

/// As if the block had just come from the node: its bytes are in the caches, the index is not.
fn prepare(block: &Block, cold: Cold<'_>) {
    if let Some(eviction) = cold {
        eviction.evict();
        black_box(block.txdata.iter().map(Transaction::compute_wtxid).map(black_box).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::classify::FundingSpend;
    use std::collections::BTreeSet;

    #[test]
    fn the_block_touches_the_closing_channels_and_no_other() -> Result<(), BenchError> {
        let blocks = Blocks::new()?;
        let folder = tempfile::tempdir()?;
        let shells = [
            Shell::engine_alone(100, &blocks.closing)?,
            Shell::with_store(100, &blocks.closing, folder.path())?,
        ];
        for mut shell in shells {
            let expected: BTreeSet<Slot> = (100..104).map(Slot).collect();
            assert_eq!(shell.closing(4), expected);
            assert_eq!(shell.bare_map().len(), 104);
            for _ in 0..2 {
                assert_eq!(shell.connect(&blocks.each_kind.block)?, expected);
                let spend = |slot: &Slot| {
                    let picture = shell.engine.active(*slot)?.picture.as_ref()?;
                    Some(std::mem::discriminant(&picture.spend))
                };
                let number = arb_core::units::CommitmentNumber(0);
                let kinds = [
                    FundingSpend::MutualClose,
                    FundingSpend::RemoteCommitment(number),
                    FundingSpend::LocalCommitment(number),
                    FundingSpend::RevokedCommitment(number),
                ];
                let found: Vec<_> = expected.iter().map(spend).collect();
                assert_eq!(found, kinds.map(|kind| Some(std::mem::discriminant(&kind))));
                shell.reset();
                assert!(shell.engine.active(Slot(100)).is_none());
            }
        }
        Ok(())
    }

    #[test]
    fn the_quiet_block_touches_nothing() -> Result<(), BenchError> {
        let blocks = Blocks::new()?;
        let mut shell = Shell::engine_alone(1_000, &blocks.closing)?;
        assert_eq!(shell.engine.len(), 1_004);
        assert!(shell.connect(&blocks.quiet.block)?.is_empty());
        assert!(lookups(&shell.bare_map(), &blocks.quiet.block, None).is_ok());
        assert!(lookups(&shell.bare_map(), &blocks.few.block, None).is_err());
        Ok(())
    }
}
