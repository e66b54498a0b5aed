//! `fees`: our scheduler on a market for block space, against the fee policies of other
//! implementations and against somebody who knows the future. Not measured but counted: the same
//! seeds give the same figures.
use std::ops::RangeInclusive;

use indicatif::ProgressBar;

use super::BenchError;
use super::report::{Goal, Row, Unit};
use crate::market::{Outcome, Player, Weather, play};

/// The scheduler's constants were tuned on odd ones only.
const SEEDS: RangeInclusive<u64> = 1..=200;

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let mut rows = Vec::new();
    for weather in Weather::ALL {
        let mut players = [Outcome::default(); 5];
        let mut optimum = Outcome::default();
        for seed in SEEDS {
            progress.set_message(format!(
                "fees: {}, seed {seed} of {}",
                weather.name(),
                SEEDS.end()
            ));
            progress.tick();
            let told = play(weather, seed);
            optimum = optimum.and(told.optimum);
            for (sum, one) in players.iter_mut().zip(told.players) {
                *sum = sum.and(one);
            }
        }
        judge(weather, &players, optimum, &mut rows);
    }
    Ok(rows)
}

fn judge(weather: Weather, players: &[Outcome; 5], optimum: Outcome, rows: &mut Vec<Row>) {
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
    row(
        "late though it was avoidable / outputs".into(),
        ours.avoidable,
        ours.outputs,
        Unit::Count,
        Some(Goal::None),
    );
    row("fees / foresight".into(), ours.fees, optimum.fees, Unit::Satoshis, dearest(weather));
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
        | Weather::Censorship
        | Weather::Cycling
        | Weather::Pinning => None,
    }
}
