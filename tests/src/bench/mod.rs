//! Benchmarks whose results are ratios: our cost against the cost of something that everybody
//! pays, measured in turn within one run.
mod arbitrated;
mod bare;
mod block;
mod channels;
mod claims;
mod fees;
mod ldk;
mod ldk_node;
mod measure;
mod memory;
mod node;
mod penalty;
mod report;
mod start;
mod store;
mod storm;
pub(crate) mod synthetic;
mod told;
mod update;
mod whole;

use std::ops::RangeInclusive;
use std::path::Path;
use std::process::ExitCode;

use arb_core::facts::UpdateError;
use arb_core::facts::secrets::SecretError;
use arb_store::StoreError;
use indicatif::{ProgressBar, ProgressStyle};

pub use crate::market::Weather;
use crate::peer::PeerError;
use report::{Failure, Row};

/// Why a benchmark gave no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// There is no benchmark of this name.
    #[error("there is no benchmark `{0}`; there are: {names}", names = names().join(", "))]
    Unknown(String),
    /// A channel could not be set up.
    #[error("a channel could not be set up: {0}")]
    Peer(#[from] PeerError),
    /// A channel's facts do not hold.
    #[error("a channel's facts do not hold: {0}")]
    Facts(#[from] UpdateError),
    /// A channel's revealed secrets do not hold.
    #[error("a channel's secrets do not hold: {0}")]
    Secrets(#[from] SecretError),
    /// The generated block cannot be read back.
    #[error("the generated block cannot be read back: {0}")]
    Block(#[from] bitcoin::consensus::encode::Error),
    /// The engine did something else than what is to be measured.
    #[error("the engine did not do what is measured: {0}")]
    Engine(String),
    /// The library that is compared with did something else than what is to be measured.
    #[error("lightning did not do what is measured: {0}")]
    Ldk(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// LMDB, without our store, failed.
    #[error("LMDB: {0}")]
    Lmdb(#[from] heed::Error),
    /// A file has no place for the table.
    #[error("{} has no place for the table: two lines mark it in the README", .0.display())]
    NoTable(std::path::PathBuf),
    /// The table of one benchmark is asked for, and it is not to be run.
    #[error("the README's table, seeds and markets are those of `fees`")]
    NotFees,
    /// A file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The memory of this process cannot be read.
    #[error("/proc/self/status does not say how much memory is in use")]
    NoMemoryFigure,
    /// The results cannot be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

struct Bench {
    name: &'static str,
    run: fn(&ProgressBar) -> Result<Vec<Row>, BenchError>,
}

/// Memory comes first: what others leave behind would be counted in.
const BENCHES: [Bench; 10] = [
    Bench { name: "memory", run: memory::run },
    Bench { name: "block", run: block::run },
    Bench { name: "store", run: store::run },
    Bench { name: "start", run: start::run },
    Bench { name: "update", run: update::run },
    Bench { name: "storm", run: storm::run },
    Bench { name: "penalty", run: penalty::run },
    Bench { name: "claims", run: claims::run },
    Bench { name: "ldk", run: ldk_node::run },
    Bench { name: FEES, run: fees::run },
];

/// What the README's table is from.
const FEES: &str = "fees";

/// The names of all benchmarks.
#[must_use]
pub fn names() -> Vec<&'static str> {
    BENCHES.iter().map(|bench| bench.name).collect()
}

/// What is run, and how it is told.
#[derive(Clone, Debug, Default)]
pub struct Chosen<'a> {
    /// One benchmark; all without it.
    pub name: Option<&'a str>,
    /// One JSON object instead of the table.
    pub json: bool,
    /// The file that the table of `fees` is put into.
    pub readme: Option<&'a Path>,
    /// The seeds of `fees`, instead of its own.
    pub seeds: Option<RangeInclusive<u64>>,
    /// The kinds of market of `fees`; all if there are none.
    pub markets: &'a [Weather],
}

/// Runs one benchmark, or all, and prints a table, or JSON. The exit code tells whether every goal
/// was met and every benchmark ran to its end: one that does not takes nothing from the others.
///
/// # Errors
/// There is no such benchmark, or the result cannot be written.
pub fn run(
    Chosen { name, json, readme, seeds, markets }: &Chosen<'_>,
) -> Result<ExitCode, BenchError> {
    let wanted = |bench: &&Bench| name.is_none_or(|name| name == bench.name);
    let chosen: Vec<&Bench> = BENCHES.iter().filter(wanted).collect();
    if chosen.is_empty() {
        return Err(BenchError::Unknown(name.unwrap_or_default().to_owned()));
    }
    let of_fees = readme.is_some() || seeds.is_some() || !markets.is_empty();
    if of_fees && !chosen.iter().any(|bench| bench.name == FEES) {
        return Err(BenchError::NotFees);
    }
    if cfg!(debug_assertions) {
        eprintln!("not compiled with --release: the figures say little");
    }
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    for bench in chosen {
        // Drawn on a terminal only.
        let progress = ProgressBar::new_spinner().with_prefix(bench.name);
        progress.set_style(ProgressStyle::default_spinner());
        let measured = match readme {
            Some(file) if bench.name == FEES => fees::run_for(file, &progress),
            None if bench.name == FEES => Ok(fees::run_with(seeds.as_ref(), markets, &progress)),
            _ => (bench.run)(&progress),
        };
        progress.finish_and_clear();
        match measured {
            Ok(measured) => rows.extend(measured),
            Err(error) => failures.push(Failure { bench: bench.name, error: error.to_string() }),
        }
    }
    if *json {
        println!("{}", report::json(&rows, &failures)?);
    } else {
        print!("{}", report::table(&rows));
    }
    for Failure { bench, error } in &failures {
        eprintln!("{bench}: {error}");
    }
    let met = rows.iter().all(|row| row.goal.is_none_or(|goal| goal.is_met(row.ratio)));
    Ok(if met && failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever it quoted would be wrong tomorrow: it names the command that prints.
    #[test]
    fn the_readme_quotes_no_figure() {
        let readme = include_str!("../../../README.md");
        let units =
            ["ns", "us", "µs", "ms", "s", "seconds", "B", "bytes", "KB", "MB", "x", "times", "%"];
        let words: Vec<&str> = readme.split_whitespace().collect();
        let number = |word: &str| word.trim_end_matches('%').parse::<f64>().is_ok();
        let quotes = |pair: &&[&str]| {
            let unit = pair[1].trim_end_matches(['.', ',', ';', ')']);
            number(pair[0]) && (pair[0].ends_with('%') || units.contains(&unit))
        };
        let found: Vec<&[&str]> = words.windows(2).filter(quotes).collect();
        assert!(found.is_empty(), "{found:?}");
        assert!(quotes(&["1.3", "times,"].as_slice()) && quotes(&["5%", "of"].as_slice()));
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_known_ones_are_told() {
        let chosen = Chosen { name: Some("blok"), ..Chosen::default() };
        let refused = run(&chosen).err().map(|error| error.to_string());
        let expected = "there is no benchmark `blok`; there are: memory, block, store, start, update, storm, penalty, \
                        claims, ldk, fees";
        assert_eq!(refused.as_deref(), Some(expected));
    }
}
