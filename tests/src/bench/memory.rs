//! `memory`: what the engine holds in memory for a quiet channel, against a limit, against a bare map
//! from the funding output to the channel's id, which whoever watches channels must have at least,
//! and against a monitor of `lightning`'s.
use std::collections::HashMap;
use std::hint::black_box;

use bitcoin::OutPoint;
use indicatif::ProgressBar;

use super::channels::{self, Quiet};
use super::report::{Goal, Row, Unit};
use super::{BenchError, ldk};

const SEED: u64 = 7;
const CHANNELS: u32 = 1_000_000;

/// `lightning`'s monitors: they weigh so much that a few say it.
const MONITORS: u32 = 2_000;

/// Most bytes for a quiet channel.
pub(super) const LIMIT: f64 = 150.0;

/// Slot, id, due height and the way from id to slot come on top of the bare map.
const GOAL: Goal = Goal::Below(2.0);

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("memory: engine");
    let mut quiet = Quiet::new(SEED)?;
    let (ours, engine) = per_channel(CHANNELS, || {
        let mut engine = channels::engine();
        quiet.fill(&mut engine, CHANNELS);
        engine
    })?;
    progress.set_message("memory: bare map");
    let mut quiet = Quiet::new(SEED)?;
    let (other, map) = per_channel(CHANNELS, || {
        let mut map: HashMap<OutPoint, [u8; 32]> = HashMap::new();
        for slot in 0..CHANNELS {
            let facts = quiet.facts(slot);
            map.insert(facts.candidates.current.funding, facts.id.0);
        }
        map
    })?;
    if engine.len() != map.len() {
        return Err(BenchError::Engine("channels are missing".to_owned()));
    }
    progress.set_message("memory: monitors");
    let model = ldk::Model::open_channel()?;
    let (monitor, monitors) = per_channel(MONITORS, || model.load(MONITORS))?;
    if monitors?.len() != MONITORS as usize {
        return Err(BenchError::Ldk("monitors are missing".to_owned()));
    }
    let row = |against: &str, other: f64, goal| Row {
        name: format!("memory: quiet channel of {CHANNELS} / {against}"),
        ours,
        other,
        unit: Unit::Bytes,
        ratio: ours / other,
        goal,
    };
    Ok(vec![
        row("limit", LIMIT, Some(Goal::Below(1.0))),
        row("bare map", other, Some(GOAL)),
        row("LDK monitor of a channel that is open and idle", monitor, None),
    ])
}

/// What the process holds more of once `build` is done, for each of so many channels.
fn per_channel<T>(count: u32, build: impl FnOnce() -> T) -> Result<(f64, T), BenchError> {
    let before = anonymous_memory()?;
    let built = black_box(build());
    let after = anonymous_memory()?;
    Ok((after.saturating_sub(before) as f64 / f64::from(count), built))
}

/// Bytes of memory that no file backs: what is mapped from files is not counted.
pub(super) fn anonymous_memory() -> Result<u64, BenchError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    anonymous_in(&status).ok_or(BenchError::NoMemoryFigure)
}

fn anonymous_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figure_is_read_from_the_status_of_the_process() {
        let status = "VmRSS:\t    9000 kB\nRssAnon:\t    1204 kB\nRssFile:\t  7796 kB\n";
        assert_eq!(anonymous_in(status), Some(1204 * 1024));
        assert_eq!(anonymous_in("VmRSS:\t    9000 kB\n"), None);
        assert_eq!(anonymous_in("RssAnon:\t many\n"), None);
    }

    /// Other tests come and go in this process: they use less.
    #[test]
    fn memory_that_is_used_is_counted() -> Result<(), BenchError> {
        let (bytes, _held) = per_channel(1_000_000, || vec![1u8; 128 << 20])?;
        assert!(bytes > 100.0, "{bytes}");
        Ok(())
    }
}
