//! What must not grow: memory, tasks, the store's file. Samples over the run, and the verdict.
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes of memory that no file backs.
    pub(super) memory: u64,
    /// Tasks of the runtime that have not ended.
    pub(super) tasks: u64,
    /// Bytes of the store's data file that are on disk.
    pub(super) store: u64,
}

impl Sample {
    /// Looks now.
    ///
    /// # Errors
    /// The system does not say.
    pub(super) fn take(data: &Path) -> std::io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let memory = anonymous(&status).ok_or_else(|| std::io::Error::other("no RssAnon"))?;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() as u64;
        // In blocks of 512 bytes, whatever the file system's are: holes do not count.
        let store = std::fs::metadata(data)?.blocks() * 512;
        Ok(Self { memory, tasks, store })
    }
}

fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// One figure: the median of the middle third of the run, and that of the last third.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// Median of the middle third.
    pub middle: u64,
    /// Median of the last third.
    pub last: u64,
    /// What the last may be at most.
    pub limit: u64,
    /// Whether it is no more.
    pub flat: bool,
}

/// By how much a figure may differ: a part of it, and something on top for what is small.
#[derive(Clone, Copy, Debug)]
struct Tolerance {
    percent: u64,
    more: u64,
}

/// In the third minute and later the medians were within 4 per cent of each other, in the first, while the number of living
/// channels still rises, within 8. What is left of a forgotten channel is seen if it is more than some 20 kilobytes in a run
/// of a minute, and 4 in one of ten.
const MEMORY: Tolerance = Tolerance { percent: 10, more: 128 << 10 };
/// Workers and appends that are under way when the sample is taken.
const TASKS: Tolerance = Tolerance { percent: 0, more: 4 };
/// Free pages that a later write could not use yet, and that none had to.
const STORE: Tolerance = Tolerance { percent: 10, more: 128 << 10 };

impl Figure {
    fn of(samples: &[Sample], figure: fn(&Sample) -> u64, tolerance: Tolerance) -> Self {
        let third = samples.len() / 3;
        let part = |from: usize, to: usize| {
            let part = samples.get(from..to).unwrap_or_default();
            median(part.iter().map(figure).collect())
        };
        let (middle, last) = (part(third, 2 * third), part(2 * third, samples.len()));
        let limit = middle + middle * tolerance.percent / 100 + tolerance.more;
        Self { middle, last, limit, flat: last <= limit }
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// The three figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Bytes of memory that no file backs (RssAnon).
    pub memory: Figure,
    /// Tasks of the runtime.
    pub tasks: Figure,
    /// Bytes of the store's data file that are on disk.
    pub store: Figure,
}

impl Figures {
    pub(super) fn of(samples: &[Sample]) -> Self {
        Self {
            memory: Figure::of(samples, |sample| sample.memory, MEMORY),
            tasks: Figure::of(samples, |sample| sample.tasks, TASKS),
            store: Figure::of(samples, |sample| sample.store, STORE),
        }
    }

    /// Whether nothing grew.
    #[must_use]
    pub const fn are_flat(&self) -> bool {
        self.memory.flat && self.tasks.flat && self.store.flat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..300).map(|n| Sample { memory: memory(n), tasks: 3, store: 1 << 20 }).collect()
    }

    #[test]
    fn what_stays_is_flat_however_it_begins() {
        let warm_up = |n: u64| if n < 60 { n << 20 } else { 60 << 20 };
        assert!(Figures::of(&samples(warm_up)).are_flat());
        // Peaks are no growth.
        let peaks = |n: u64| if n.is_multiple_of(5) { 900 << 20 } else { 60 << 20 };
        assert!(Figures::of(&samples(peaks)).are_flat());
    }

    #[test]
    fn what_grows_is_not_flat() {
        // By a seventh from one third to the next.
        let growing = |n: u64| (6 << 20) + n * 11_000;
        let figures = Figures::of(&samples(growing));
        assert!(!figures.memory.flat && figures.tasks.flat && figures.store.flat);
        let mut leaking = samples(|_| 0);
        for (n, sample) in leaking.iter_mut().enumerate() {
            sample.tasks = n as u64 / 10;
        }
        assert!(!Figures::of(&leaking).tasks.flat);
        let mut swelling = samples(|_| 0);
        for (n, sample) in swelling.iter_mut().enumerate() {
            sample.store = (n as u64) << 14;
        }
        assert!(!Figures::of(&swelling).store.flat);
    }

    #[test]
    fn the_system_is_asked() -> std::io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), vec![1; 100_000])?;
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let sample = runtime.block_on(async {
            let _task = tokio::spawn(std::future::pending::<()>());
            Sample::take(file.path())
        })?;
        assert!(sample.memory > 0 && sample.tasks == 1 && sample.store >= 100_000, "{sample:?}");
        Ok(())
    }
}
