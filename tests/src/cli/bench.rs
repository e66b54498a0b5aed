//! `arb bench`: ratios of interleaved pairs, as a table.
use crate::bench::{Chosen, Weather};
use clap::Args;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `arb bench`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// One benchmark; all without it.
    name: Option<String>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Put the table of `fees` into this file, between its marks
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// Play `fees` with these seeds instead of its own, as 201-1200
    #[arg(long, value_name = "FROM-TO", value_parser = seeds, conflicts_with = "readme")]
    seeds: Option<RangeInclusive<u64>>,
    /// Play `fees` in this kind of market only, as "week-long high"; may be said several times
    #[arg(long, value_name = "KIND", value_parser = market, conflicts_with = "readme")]
    market: Vec<Weather>,
}

/// A kind of market by its name in the table.
fn market(written: &str) -> Result<Weather, String> {
    let known = Weather::ALL.into_iter();
    known.clone().find(|weather| weather.name() == written).ok_or_else(|| {
        let names: Vec<&str> = known.map(Weather::name).collect();
        format!("there is no market `{written}`; there are: {}", names.join(", "))
    })
}

/// `201-1200`.
fn seeds(written: &str) -> Result<RangeInclusive<u64>, String> {
    let bounds = written.split_once('-').and_then(|(from, to)| {
        let (from, to) = (from.parse::<u64>().ok()?, to.parse::<u64>().ok()?);
        (from <= to).then_some(from..=to)
    });
    bounds.ok_or_else(|| format!("`{written}` is no range of seeds, as 201-1200 is"))
}

/// Runs the benchmarks.
#[allow(clippy::print_stderr, reason = "the error is for whoever asked")]
pub fn run(arguments: &Arguments) -> ExitCode {
    let chosen = Chosen {
        name: arguments.name.as_deref(),
        json: arguments.json,
        readme: arguments.readme.as_deref(),
        seeds: arguments.seeds.clone(),
        markets: &arguments.market,
    };
    match crate::bench::run(&chosen) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markets_are_named_as_in_the_table() {
        assert_eq!(market("week-long high"), Ok(Weather::High));
        assert!(market("hihg").is_err_and(|error| error.contains("daily wave")));
    }

    #[test]
    fn seeds_are_a_range() {
        assert_eq!(seeds("201-1200"), Ok(201..=1_200));
        assert_eq!(seeds("7-7"), Ok(7..=7));
        for wrong in ["", "7", "9-8", "1-", "-1", "a-b", "1-2-3"] {
            assert!(seeds(wrong).is_err(), "{wrong}");
        }
    }
}
