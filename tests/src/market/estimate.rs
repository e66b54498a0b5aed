//! Estimates from the past, as a node's estimator makes them: for each target, the feerate that
//! nine of ten who started in the recent past needed to be in a block in time. Beside them what past blocks took, as Core's
//! statistics of a block say it; of the policies ours alone looks at that.
use super::weather::{ELASTICITY, FLOOR};
use arb_core::claim::trough::{PastBlock, Troughs};
use arb_core::ports::FeeEstimates;
use bitcoin::FeeRate;

/// Targets, in blocks.
const TARGETS: [u16; 10] = [1, 2, 3, 6, 12, 24, 36, 72, 144, 1008];
/// No target looks further back.
const LONGEST: usize = 432;
/// 1 sat/vB, in satoshis per 1000 weight units.
const ONE: f64 = 250.0;

/// The estimates of somebody who has seen these clearing prices at these times, the newest last.
pub(super) fn estimates(seen: &[f64], times: &[u32]) -> FeeEstimates {
    let rate = |target: u16| {
        let target = usize::from(target).min(144);
        let back = (4 * target).clamp(24, LONGEST).min(seen.len());
        let window = seen.get(seen.len() - back..).unwrap_or_default();
        let mut needed: Vec<f64> = window
            .windows(target.min(back))
            .map(|blocks| blocks.iter().copied().fold(f64::INFINITY, f64::min))
            .collect();
        needed.sort_by(f64::total_cmp);
        let at = (needed.len() * 9 / 10).min(needed.len().saturating_sub(1));
        needed.get(at).copied().unwrap_or(FLOOR)
    };
    let targets = TARGETS.map(|target| (target, feerate(rate(target))));
    let blocks = times.iter().zip(seen).skip(seen.len().saturating_sub(Troughs::PAST));
    let past =
        blocks.map(|(time, clears)| PastBlock { time: *time, feerate: cheapest_tenth(*clears) });
    let past: Vec<PastBlock> = past.collect();
    FeeEstimates { targets: targets.to_vec(), floor: feerate(FLOOR), troughs: Troughs::of(&past) }
}

/// What Core says of a block: the feerate below which the cheapest tenth of its weight is, in whole sat/vB. The half
/// that is missing on average is added, as our source of blocks does.
fn cheapest_tenth(clears: f64) -> FeeRate {
    let tenth = clears * 0.9_f64.powf(-1.0 / ELASTICITY);
    feerate(((tenth / ONE).floor() + 0.5) * ONE)
}

fn feerate(rate: f64) -> FeeRate {
    FeeRate::from_sat_per_kwu(rate.ceil() as u64)
}
