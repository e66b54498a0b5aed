//! Interleaved pairs: A, B, B, A, A, B, …; the ratio is the median of the pairs' ratios, so that
//! what slows the machine down for a while slows both.
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::BenchError;

/// What a series of pairs gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pairs {
    /// Median of the first, in nanoseconds.
    pub(super) ours: f64,
    /// Median of the second, in nanoseconds.
    pub(super) other: f64,
    /// Median of the ratios of the pairs.
    pub(super) ratio: f64,
}

/// One measurement: prepares what it needs, and gives the time of what is measured alone.
pub(super) type Measured<'a> = &'a mut dyn FnMut() -> Result<Duration, BenchError>;

/// Measures `count` pairs, after one that is not counted.
///
/// # Errors
/// That of the first measurement that fails.
pub(super) fn interleaved(
    count: usize,
    ours: Measured<'_>,
    other: Measured<'_>,
) -> Result<Pairs, BenchError> {
    let mut ours = || ours().map(|time| [time]);
    let mut other = || other().map(|time| [time]);
    let [pairs] = interleaved_all(count, &mut ours, &mut other)?;
    Ok(pairs)
}

/// As [`Measured`], for several things that are measured at once.
pub(super) type MeasuredAll<'a, const N: usize> =
    &'a mut dyn FnMut() -> Result<[Duration; N], BenchError>;

/// As [`interleaved`], for several things that are measured at once.
///
/// # Errors
/// That of the first measurement that fails.
pub(super) fn interleaved_all<const N: usize>(
    count: usize,
    ours: MeasuredAll<'_, N>,
    other: MeasuredAll<'_, N>,
) -> Result<[Pairs; N], BenchError> {
    ours()?;
    other()?;
    let mut pairs = Vec::with_capacity(count);
    for at in 0..count {
        pairs.push(if at % 2 == 0 {
            let ours = ours()?;
            (ours, other()?)
        } else {
            let other = other()?;
            (ours()?, other)
        });
    }
    let one = |of: usize| {
        let pairs =
            pairs.iter().map(|(ours, other)| (nanoseconds(ours[of]), nanoseconds(other[of])));
        let pairs: Vec<(f64, f64)> = pairs.collect();
        Pairs {
            ours: median(pairs.iter().map(|(ours, _)| *ours)),
            other: median(pairs.iter().map(|(_, other)| *other)),
            ratio: median(pairs.iter().map(|(ours, other)| ours / other)),
        }
    };
    Ok(std::array::from_fn(one))
}

/// The time that `work` takes. What it gives is dropped afterwards.
pub(super) fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = black_box(work());
    (start.elapsed(), done)
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The middle one; the lower of the two middle ones of an even number. Zero of nothing.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or_default()
}

/// Empties the processor's caches: reads more than any of them holds.
pub(super) struct Eviction(Vec<u64>);

impl Eviction {
    const BYTES: usize = 128 << 20;
    const WORDS_IN_LINE: usize = 8;

    pub(super) fn new() -> Self {
        Self((0..(Self::BYTES / 8) as u64).collect())
    }

    pub(super) fn evict(&self) {
        let lines = black_box(&self.0).iter().step_by(Self::WORDS_IN_LINE);
        black_box(lines.fold(0, |sum: u64, word| sum.wrapping_add(*word)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_does_not_see_outliers() {
        assert_eq!(median([3.0, 1.0, 900.0].into_iter()), 3.0);
        assert_eq!(median([4.0, 2.0].into_iter()), 2.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn the_ratio_is_that_of_pairs() -> Result<(), BenchError> {
        // A machine that becomes ten times slower: each pair still says one half.
        let mut ours = (0u64..=10).map(|n| n * 100);
        let mut other = (0u64..=10).map(|n| n * 200);
        let pairs = interleaved(
            10,
            &mut || Ok(Duration::from_nanos(ours.next().unwrap_or_default())),
            &mut || Ok(Duration::from_nanos(other.next().unwrap_or_default())),
        )?;
        assert!((pairs.ratio - 0.5).abs() < 1e-6);
        assert!((pairs.ours - 500.0).abs() < 1e-3 && (pairs.other - 1000.0).abs() < 1e-3);
        Ok(())
    }

    #[test]
    fn the_error_of_a_measurement_is_handed_on() {
        let failed = interleaved(3, &mut || Err(BenchError::NoMemoryFigure), &mut || {
            Ok(Duration::from_nanos(1))
        });
        assert!(matches!(failed, Err(BenchError::NoMemoryFigure)));
    }
}
