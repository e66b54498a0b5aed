//! What the benchmarks found, for people and for programs.
use std::fmt::Write;

use serde::Serialize;

use super::BenchError;
use super::measure::Pairs;

/// One comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    /// What is compared, with ours first.
    pub(super) name: String,
    /// Our figure.
    pub(super) ours: f64,
    /// What it is compared with.
    pub(super) other: f64,
    /// Unit of both.
    pub(super) unit: Unit,
    /// Ours to the other: the median of the ratios of pairs, not the ratio of the medians.
    pub(super) ratio: f64,
    /// What the ratio should be; absent where the row is there for comparison only.
    pub(super) goal: Option<Goal>,
}

/// A benchmark that did not run to its end.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failure {
    pub(super) bench: &'static str,
    pub(super) error: String,
}

/// The unit of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Nanoseconds,
    Bytes,
    /// A ratio itself.
    Times,
    Satoshis,
    WeightUnits,
    Count,
}

/// What a ratio should be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    /// Below this.
    Below(f64),
    /// At most this.
    AtMost(f64),
    /// At most this far from one: equal code costs the same.
    Within(f64),
    /// Zero.
    None,
}

impl Goal {
    pub(super) fn is_met(self, ratio: f64) -> bool {
        match self {
            Self::Below(limit) => ratio < limit,
            Self::AtMost(limit) => ratio <= limit,
            Self::Within(distance) => (ratio - 1.0).abs() <= distance,
            Self::None => ratio == 0.0,
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Below(limit) => format!("< {limit:.2}"),
            Self::AtMost(limit) => format!("<= {limit:.2}"),
            Self::Within(distance) => format!("1 ± {distance:.2}"),
            Self::None => "none".to_owned(),
        }
    }
}

impl Row {
    /// A row of durations.
    pub(super) fn of(name: impl Into<String>, pairs: Pairs, goal: Option<Goal>) -> Self {
        let Pairs { ours, other, ratio } = pairs;
        Self { name: name.into(), ours, other, unit: Unit::Nanoseconds, ratio, goal }
    }

    fn met(&self) -> Option<bool> {
        self.goal.map(|goal| goal.is_met(self.ratio))
    }
}

/// One object with a list of rows, and one of what failed.
pub(super) fn json(rows: &[Row], failures: &[Failure]) -> Result<String, BenchError> {
    #[derive(Serialize)]
    struct Judged<'a> {
        #[serde(flatten)]
        row: &'a Row,
        met: Option<bool>,
    }
    #[derive(Serialize)]
    struct Report<'a> {
        rows: Vec<Judged<'a>>,
        failures: &'a [Failure],
    }
    let rows = rows.iter().map(|row| Judged { row, met: row.met() }).collect();
    Ok(serde_json::to_string_pretty(&Report { rows, failures })?)
}

/// The table at the end.
pub(super) fn table(rows: &[Row]) -> String {
    let widest = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
    let mut table = String::new();
    let mut line = |cells: [&str; 6]| {
        let [name, ours, other, ratio, goal, met] = cells;
        let text = format!("{name:widest$}  {ours:>10}  {other:>10}  {ratio:>7}  {goal:>8}  {met}");
        // Writing to a string does not fail.
        let _ = writeln!(table, "{}", text.trim_end());
    };
    line(["name (ours / other)", "ours", "other", "ratio", "goal", "met"]);
    for row in rows {
        let met = match row.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "",
        };
        let goal = row.goal.map(Goal::shown).unwrap_or_default();
        let figure = |value| shown(value, row.unit);
        let ratio = format!("{:.3}", row.ratio);
        line([&row.name, &figure(row.ours), &figure(row.other), &ratio, &goal, met]);
    }
    table
}

fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Times => format!("{value:.3} x"),
        Unit::Satoshis if value >= 1e8 => format!("{:.3} BTC", value / 1e8),
        Unit::Satoshis => format!("{value:.0} sat"),
        Unit::WeightUnits => format!("{:.0} kWU", value / 1e3),
        Unit::Count => format!("{value:.0}"),
        Unit::Nanoseconds if value >= 1e6 => format!("{:.2} ms", value / 1e6),
        Unit::Nanoseconds => format!("{:.1} us", value / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> [Row; 2] {
        let pairs = Pairs { ours: 1_500.0, other: 3_000_000.0, ratio: 0.25 };
        let measured = Row::of("scan / txids", pairs, Some(Goal::Below(0.2)));
        let noted = Row {
            name: "memory".to_owned(),
            ours: 7.0,
            other: 7.0,
            unit: Unit::Bytes,
            ratio: 1.0,
            goal: None,
        };
        [measured, noted]
    }

    #[test]
    fn the_table_names_what_is_not_met() {
        let table = table(&rows());
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split_whitespace().collect()).collect();
        let expected = "scan / txids 1.5 us 3.00 ms 0.250 < 0.20 NO";
        assert_eq!(lines[1], expected.split(' ').collect::<Vec<_>>());
        assert_eq!(lines[2], ["memory", "7", "B", "7", "B", "1.000"]);
    }

    #[test]
    fn json_says_the_same() -> Result<(), BenchError> {
        let failures = [Failure { bench: "storm", error: "no room".to_owned() }];
        let report: serde_json::Value = serde_json::from_str(&json(&rows(), &failures)?)?;
        assert_eq!(report["rows"][0]["met"], false);
        assert_eq!(report["rows"][0]["goal"]["below"], 0.2);
        assert_eq!(report["rows"][0]["unit"], "nanoseconds");
        assert_eq!(report["rows"][1]["met"], serde_json::Value::Null);
        assert_eq!(report["failures"][0]["bench"], "storm");
        assert_eq!(report["failures"][0]["error"], "no room");
        Ok(())
    }

    #[test]
    fn equal_code_may_differ_either_way() {
        let goal = Goal::Within(0.02);
        assert!(goal.is_met(0.985) && goal.is_met(1.015));
        assert!(!goal.is_met(0.97) && !goal.is_met(1.03));
    }
}
