//! Everything included: facts loaded, the transition appended and synced. How that depends on the number of channels,
//! what it costs beside the block's txids, and beside `lightning`'s `ChainMonitor`; with the index warm and cold.
use std::path::Path;

use indicatif::ProgressBar;

use super::shell::Shell;
use super::{Blocks, Case, Cold, connect, prepare, prepared_txids};
use crate::bench::measure::{Eviction, Pairs, interleaved, timed};
use crate::bench::report::{Goal, Row};
use crate::bench::whole::Whole;
use crate::bench::{BenchError, ldk};

/// One index for all channels, against one pass a monitor: everything included, disk and all.
const GOAL_LDK: Goal = Goal::Below(0.01);
/// Ten to a thousand times the channels: more of the index is out of the processor's caches, and the
/// trees on disk are a level higher, but nothing is done a channel.
const GOAL_FLAT: Goal = Goal::Below(2.0);

/// How much is measured.
pub(super) struct Extent<'a> {
    /// Numbers of quiet channels, ascending: the first is what the others are compared with.
    pub(super) channels: &'a [u32],
    /// Number of `lightning`'s monitors.
    pub(super) monitors: u32,
    /// Pairs with a warm index, with a cold one, and with `lightning`.
    pub(super) pairs: [usize; 3],
}

/// The rows of all numbers of channels; their stores are in `folder`.
pub(super) fn run(
    progress: &ProgressBar,
    blocks: &Blocks,
    extent: &Extent<'_>,
    folder: &Path,
) -> Result<Vec<Row>, BenchError> {
    let Some((least, more)) = extent.channels.split_first() else { return Ok(Vec::new()) };
    let fill = |count: u32| {
        progress.set_message(format!("block: store of {count}"));
        Shell::with_store(count, &blocks.closing, &folder.join(count.to_string()))
    };
    let mut monitors = ldk::Model::open_channel()?.load(extent.monitors)?;
    let mut of_least = Filled { count: *least, shell: fill(*least)? };
    let eviction = Eviction::new();
    let mut rows = Vec::new();
    let whole = (*least, folder, Some(GOAL_LDK));
    of_whole(progress, blocks, extent, whole, &mut monitors, &mut rows)?;
    of_least.beside_others(blocks, extent, (&eviction, &mut monitors), &mut rows)?;
    for count in more {
        let whole = (*count, folder, None);
        of_whole(progress, blocks, extent, whole, &mut monitors, &mut rows)?;
        let mut of_more = Filled { count: *count, shell: fill(*count)? };
        progress.set_message(format!("block: everything of {count}"));
        of_more.beside(&mut of_least, blocks, extent, &eviction, &mut rows)?;
        of_more.beside_others(blocks, extent, (&eviction, &mut monitors), &mut rows)?;
    }
    Ok(rows)
}

/// An arbiter with its driver, from a block's delivery until it is durable, against monitors.
fn of_whole(
    progress: &ProgressBar,
    blocks: &Blocks,
    extent: &Extent<'_>,
    (count, folder, goal): (u32, &Path, Option<Goal>),
    monitors: &mut ldk::Monitors,
    rows: &mut Vec<Row>,
) -> Result<(), BenchError> {
    progress.set_message(format!("block: arbiter of {count}"));
    let mut whole = Whole::new(&folder.join(format!("whole {count}")), count)?;
    let (mut next, quiet) = (blocks.quiet.block.clone(), &blocks.quiet.block);
    let [.., pairs] = extent.pairs;
    let measured = interleaved(pairs, &mut || whole.connect(&mut next, |_| ()), &mut || {
        Ok(timed(|| monitors.connect(quiet)).0)
    })?;
    whole.stop();
    let name =
        format!("block: arbiter of {count}, driver and all / {} LDK monitors", extent.monitors);
    rows.push(Row::of(name, measured, goal));
    Ok(())
}

/// The arbiter of so many quiet channels, with its store.
struct Filled {
    count: u32,
    shell: Shell,
}

impl Filled {
    fn connect(&mut self, case: &Case, cold: Cold<'_>) -> Result<std::time::Duration, BenchError> {
        prepare(&case.block, cold);
        connect(&mut self.shell, case)
    }

    /// Against the same with fewer channels.
    fn beside(
        &mut self,
        least: &mut Self,
        blocks: &Blocks,
        extent: &Extent<'_>,
        eviction: &Eviction,
        rows: &mut Vec<Row>,
    ) -> Result<(), BenchError> {
        let [warm, cold, _] = extent.pairs;
        let sizes = format!("of {} / of {}", self.count, least.count);
        for (what, case, cold, pairs) in [
            ("no channel closes", &blocks.quiet, None, warm),
            ("no channel closes, cold", &blocks.quiet, Some(eviction), cold),
            ("2 channels close", &blocks.few, None, warm),
        ] {
            let measured = interleaved(pairs, &mut || self.connect(case, cold), &mut || {
                least.connect(case, cold)
            })?;
            let name = format!("block: scan, load, stage, append, fsync, commit, {what}, {sizes}");
            rows.push(Row::of(name, measured, Some(GOAL_FLAT)));
        }
        Ok(())
    }

    /// Against the block's txids, and against monitors.
    fn beside_others(
        &mut self,
        blocks: &Blocks,
        extent: &Extent<'_>,
        (eviction, monitors): (&Eviction, &mut ldk::Monitors),
        rows: &mut Vec<Row>,
    ) -> Result<(), BenchError> {
        let [warm, cold, against_ldk] = extent.pairs;
        let (count, quiet) = (self.count, &blocks.quiet);
        for (cold, pairs, what) in [(None, warm, ""), (Some(eviction), cold, ", cold")] {
            let measured: Pairs =
                interleaved(pairs, &mut || self.connect(quiet, cold), &mut || {
                    Ok(prepared_txids(&quiet.block, cold))
                })?;
            let name = format!("block: everything, {count} channels{what} / txids{what}");
            rows.push(Row::of(name, measured, None));
        }
        let pairs = [(None, against_ldk, ""), (Some(eviction), against_ldk.div_ceil(3), ", cold")];
        for (cold, pairs, what) in pairs {
            let measured = interleaved(pairs, &mut || self.connect(quiet, cold), &mut || {
                prepare(&quiet.block, cold);
                Ok(timed(|| monitors.connect(&quiet.block)).0)
            })?;
            let of = extent.monitors;
            let name =
                format!("block: everything, {count} channels{what} / {of} LDK monitors{what}");
            rows.push(Row::of(name, measured, Some(GOAL_LDK)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_channels_is_measured_warm_and_cold() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let extent = Extent { channels: &[10, 20, 40], monitors: 2, pairs: [1, 1, 1] };
        let rows = run(&ProgressBar::hidden(), &Blocks::new()?, &extent, folder.path())?;
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        let count = |part: &str| names.iter().filter(|name| name.contains(part)).count();
        for channels in ["10", "20", "40"] {
            for what in ["", ", cold"] {
                for other in ["txids", "2 LDK monitors"] {
                    let name = format!("everything, {channels} channels{what} / {other}{what}");
                    assert_eq!(count(&name), 1, "{name}: {names:?}");
                }
            }
        }
        for sizes in ["of 20 / of 10", "of 40 / of 10"] {
            for what in ["no channel closes", "no channel closes, cold", "2 channels close"] {
                assert_eq!(count(&format!("{what}, {sizes}")), 1, "{what}, {sizes}: {names:?}");
            }
        }
        for channels in ["10", "20", "40"] {
            assert_eq!(count(&format!("arbiter of {channels}, driver and all")), 1, "{names:?}");
        }
        assert_eq!(names.len(), 21);
        assert!(rows.iter().all(|row| row.ours > 0.0 && row.other > 0.0 && row.ratio > 0.0));
        Ok(())
    }
}
