//! `fees`: our scheduler on a market for block space, against the fee policies of other
//! implementations and against somebody who knows the future. Not measured but counted: the same
//! seeds give the same figures.
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;

use super::BenchError;
use super::report::{Goal, Row, Unit};
use crate::market::{Player, Told, Weather, play};

/// The scheduler's constants were tuned on odd ones only.
const SEEDS: RangeInclusive<u64> = 1..=200;

/// Between these lines of the README stands its table.
const BEGIN: &str =
    "<!-- fees: begin (written by `cargo xtask bench fees --readme README.md`) -->\n";
const END: &str = "<!-- fees: end -->\n";

/// All stories of one kind, added up.
struct Sum {
    weather: Weather,
    all: Told,
    /// Those with seeds that nothing was tuned on.
    untuned: Told,
    /// Seeds with which ours were late though it was avoidable.
    late: Vec<u64>,
}

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    Ok(run_with(None, &[], progress))
}

/// The same with other seeds, or with some kinds of market only.
pub(super) fn run_with(
    seeds: Option<&RangeInclusive<u64>>,
    markets: &[Weather],
    progress: &ProgressBar,
) -> Vec<Row> {
    let markets = if markets.is_empty() { &Weather::ALL } else { markets };
    rows(&tell(seeds, markets, progress))
}

/// The same, and puts the table into this file.
pub(super) fn run_for(readme: &Path, progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let sums = tell(None, &Weather::ALL, progress);
    let text = std::fs::read_to_string(readme)?;
    let (before, _, after) = around_table(&text).ok_or(BenchError::NoTable(readme.to_owned()))?;
    std::fs::write(readme, [before, &table(&sums), after].concat())?;
    Ok(rows(&sums))
}

fn tell(
    seeds: Option<&RangeInclusive<u64>>,
    markets: &[Weather],
    progress: &ProgressBar,
) -> Vec<Sum> {
    let of = |weather: Weather| {
        let seeds = seeds.cloned().unwrap_or(SEEDS);
        let mut sum =
            Sum { weather, all: Told::default(), untuned: Told::default(), late: Vec::new() };
        for (seed, told) in stories(weather, seeds, progress) {
            sum.all = sum.all.and(&told);
            if seed.is_multiple_of(2) || !SEEDS.contains(&seed) {
                sum.untuned = sum.untuned.and(&told);
            }
            if told.players[0].avoidable > 0 {
                sum.late.push(seed);
            }
        }
        sum
    };
    markets.iter().copied().map(of).collect()
}

/// A story of each seed, in their order; several at a time.
fn stories(
    weather: Weather,
    seeds: RangeInclusive<u64>,
    progress: &ProgressBar,
) -> BTreeMap<u64, Told> {
    let last = *seeds.end();
    let (next, told) = (Mutex::new(seeds), Mutex::new(BTreeMap::new()));
    let play_on = || {
        while let Some(seed) = next.lock().unwrap_or_else(PoisonError::into_inner).next() {
            progress.set_message(format!("fees: {}, seed {seed} of {last}", weather.name()));
            progress.tick();
            let story = play(weather, seed);
            told.lock().unwrap_or_else(PoisonError::into_inner).insert(seed, story);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(play_on);
        }
    });
    told.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What stands before the table, the table, and what stands behind it, with the marks.
fn around_table(text: &str) -> Option<(&str, &str, &str)> {
    let begin = text.find(BEGIN)?.checked_add(BEGIN.len())?;
    let (before, rest) = text.split_at_checked(begin)?;
    let (table, after) = rest.split_at_checked(rest.find(END)?)?;
    Some((before, table, after))
}

/// For people: fees and weight as multiples, and ours as a part of everybody else's.
fn table(sums: &[Sum]) -> String {
    let others = Player::ALL.into_iter().skip(1);
    let names = others.map(|player| format!(" {} |", player.name())).collect::<String>();
    let mut table = format!("| market | fees | weight |{names}\n");
    table.push_str(&"|---".repeat(2 + Player::ALL.len()));
    table.push_str("|\n");
    for Sum { weather, all: Told { players: [ours, others @ ..], optimum }, .. } in sums {
        let ratio = |ours: u64, other: u64| ours as f64 / other as f64;
        let fees = ratio(ours.fees, optimum.fees);
        let weight = ratio(ours.weight, optimum.weight);
        // Writing to a string does not fail.
        let _ = write!(table, "| {} | {fees:.2} | {weight:.2} |", weather.name());
        for other in others {
            let (part, late) = (ratio(ours.cost(), other.cost()), grouped(other.avoidable));
            let digits = if part < 0.1 { 3 } else { 2 };
            let _ = write!(table, " {part:.digits$} ({late}) |");
        }
        table.push('\n');
    }
    table
}

/// `1,330`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn rows(sums: &[Sum]) -> Vec<Row> {
    let mut rows = Vec::new();
    for sum in sums {
        judge(sum, &mut rows);
    }
    rows
}

fn judge(Sum { weather, all, untuned, late }: &Sum, rows: &mut Vec<Row>) {
    let Told { players, optimum } = all;
    let name = weather.name();
    let [ours, others @ ..] = players;
    let mut row = |what: String, ours: u64, other: u64, unit: Unit, goal: Option<Goal>| {
        let (ours, other) = (ours as f64, other as f64);
        rows.push(Row {
            name: format!("fees, {name}: {what}"),
            ours,
            other,
            unit,
            ratio: ours / other,
            goal,
        });
    };
    let seeds = late.iter().map(|seed| format!(" {seed}")).collect::<String>();
    let seeds = if late.is_empty() { seeds } else { format!(", seeds{seeds}") };
    row(
        format!("late though it was avoidable / outputs{seeds}"),
        ours.avoidable,
        ours.outputs,
        Unit::Count,
        Some(Goal::None),
    );
    row("fees / foresight".into(), ours.fees, optimum.fees, Unit::Satoshis, dearest(*weather));
    let [of_untuned, ..] = untuned.players;
    let what = "fees / foresight, seeds that nothing was tuned on";
    row(what.into(), of_untuned.fees, untuned.optimum.fees, Unit::Satoshis, None);
    let weight = Goal::AtMost(1.05);
    row("weight / foresight".into(), ours.weight, optimum.weight, Unit::WeightUnits, Some(weight));
    for (player, other) in Player::ALL.into_iter().skip(1).zip(others) {
        let what = format!("fees and losses / {} ({} late)", player.name(), other.avoidable);
        row(what, ours.cost(), other.cost(), Unit::Satoshis, Some(Goal::Below(1.0)));
    }
}

/// The most that our fees should be of those of somebody who knows the future.
const fn dearest(weather: Weather) -> Option<Goal> {
    match weather {
        Weather::Calm | Weather::Wave => Some(Goal::AtMost(1.25)),
        Weather::Spike => Some(Goal::AtMost(2.0)),
        Weather::High
        | Weather::Flood
        | Weather::WholeFlood
        | Weather::Censorship
        | Weather::Cycling
        | Weather::Pinning => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without its figures.
    fn masked(table: &str) -> String {
        let is_figure = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
        let mut masked = String::new();
        for c in table.chars().map(|c| if is_figure(c) { '#' } else { c }) {
            if c != '#' || !masked.ends_with('#') {
                masked.push(c);
            }
        }
        masked
    }

    #[test]
    fn the_readme_has_the_table_as_it_is_written() {
        let readme = include_str!("../../../README.md");
        let (_, found, _) = around_table(readme).expect("the marks");
        let outcome = crate::market::Outcome { fees: 5, weight: 7, ..Default::default() };
        let all = Told { players: [outcome; 5], optimum: outcome };
        let sums = Weather::ALL.map(|weather| Sum { weather, all, untuned: all, late: Vec::new() });
        assert_eq!(masked(found), masked(&table(&sums)));
    }

    /// Figures of a line, by column.
    fn figures(line: &str) -> Vec<f64> {
        let is_mark = |c: char| matches!(c, '|' | '(' | ')' | ' ');
        let words = line.split(is_mark).map(|word| word.replace(',', ""));
        words.filter_map(|word| word.parse().ok()).collect()
    }

    /// The kinds that take the least time, and have the tightest goals, stand for all.
    #[test]
    fn the_readme_has_the_figures_that_are_counted() {
        let readme = include_str!("../../../README.md");
        let (_, found, _) = around_table(readme).expect("the marks");
        let kinds = [Weather::Calm, Weather::Wave];
        let sums = tell(None, &kinds, &ProgressBar::hidden());
        for (weather, counted) in kinds.iter().zip(table(&sums).lines().skip(2)) {
            let name = format!("| {} |", weather.name());
            let line = found.lines().find(|line| line.starts_with(&name)).expect("a line");
            let (found, counted) = (figures(line), figures(counted));
            assert_eq!(found.len(), 2 + 2 * (Player::ALL.len() - 1), "{line}");
            // Another machine may round otherwise.
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 0.011_f64.max(b * 0.05);
            assert!(found.iter().zip(&counted).all(near), "{line}, counted: {counted:?}");
        }
        let missed: Vec<String> = rows(&sums)
            .into_iter()
            .filter(|row| row.goal.is_some_and(|goal| !goal.is_met(row.ratio)))
            .map(|row| row.name)
            .collect();
        assert_eq!(missed, Vec::<String>::new());
    }

    #[test]
    fn figures_are_as_exact_as_they_are_read() {
        let of = |fees, avoidable| crate::market::Outcome {
            fees,
            weight: fees,
            avoidable,
            ..Default::default()
        };
        let players = [of(21, 0), of(42, 0), of(2_100, 999), of(210, 1_000), of(21, 1_234_567)];
        let all = Told { players, optimum: of(20, 0) };
        let written = table(&[Sum { weather: Weather::Wave, all, untuned: all, late: Vec::new() }]);
        let line = written.lines().last();
        let expected = "| daily wave | 1.05 | 1.05 | 0.50 (0) | 0.010 (999) | 0.10 (1,000) | 1.00 (1,234,567) |";
        assert_eq!(line, Some(expected));
    }
}
