//! What block space is likely to cost in the next hours, as the days before had it. Estimates for targets are made
//! of the last hours or days as a whole, and do not tell whether a claim's blocks end in the trough of a day or at
//! its top; feerates of past blocks do.
//!
//! Each of the coming blocks is expected to take what the blocks at its hour of the days before took, and as much
//! more or less as the newest blocks do now, of which a part is forgotten with each block. Hours are told by the
//! times in the blocks' headers: a day of few blocks is a day all the same.
use alloc::vec::Vec;
use bitcoin::FeeRate;
use core::ops::Range;

/// Seconds of a day, and between two blocks on average.
const DAY: u64 = 24 * 60 * 60;
const BLOCK: u64 = 10 * 60;
/// Blocks of a day on average.
const BLOCKS: usize = 144;
/// Days that are looked at, at most.
const DAYS: usize = 3;
/// Days without which nothing is said.
const LEAST_DAYS: u64 = 2;
/// Seconds before and after an hour of an earlier day whose blocks are taken together. A header's time may be two
/// hours off, and mostly is some minutes.
const AROUND: u64 = 100 * 60;
/// The newest blocks, which say how the present differs from the days before.
const PRESENT: usize = 8;
/// What remains of that difference with each block, in thousandths.
const REMAINS: u128 = 930;
/// What is bid of the lowest feerate that is expected, in hundredths: single blocks take less.
const BELOW: u128 = 92;

/// What a past block took, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastBlock {
    /// The time in its header, in seconds since 1970.
    pub time: u32,
    /// The feerate from which it had room for a transaction; zero if it was not full.
    pub feerate: FeeRate,
}

/// Feerates that blocks are likely to take, made of those of past blocks. Without a past they say nothing.
///
/// ```
/// use arb_core::claim::trough::{PastBlock, Troughs};
/// use bitcoin::FeeRate;
///
/// let rates = [30, 10].map(FeeRate::from_sat_per_vb_u32);
/// let block = |at: usize| PastBlock { time: 600 * at as u32, feerate: rates[(at + 36) / 72 % 2] };
/// let past: Vec<PastBlock> = (0..Troughs::PAST).map(block).collect();
/// let troughs = Troughs::of(&past);
/// // It is noon: the night is six hours away.
/// assert!(troughs.within(20) > Some(FeeRate::from_sat_per_vb_u32(15)));
/// assert!(troughs.within(100) < Some(FeeRate::from_sat_per_vb_u32(10)));
/// assert_eq!(Troughs::default().within(100), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troughs {
    /// For each number of blocks, up to a day's, the feerate to bid.
    lows: Vec<FeeRate>,
}

impl Troughs {
    /// As many past blocks as are looked at, the newest of them.
    pub const PAST: usize = BLOCKS * DAYS;

    /// From what past blocks took, the newest last; it says nothing if these are of less than two days.
    #[must_use]
    pub fn of(past: &[PastBlock]) -> Self {
        let past = past.get(past.len().saturating_sub(Self::PAST)..).unwrap_or_default();
        let days = Days::of(past);
        let Some((first, last)) =
            days.span().filter(|(first, last)| last.saturating_sub(*first) >= DAY * LEAST_DAYS)
        else {
            return Self::default();
        };
        let newest = days.times.len().saturating_sub(PRESENT)..days.times.len();
        let now = days.sum(newest.clone());
        let times = days.times.get(newest).unwrap_or_default();
        let usual = times.iter().map(|at| days.usual(first, *at)).fold(0, u128::saturating_add);
        let (mut lows, mut low, mut remains) = (Vec::with_capacity(BLOCKS), u128::MAX, 1_000);
        let coming = (1..).map(|block: u64| last.saturating_add(BLOCK.saturating_mul(block)));
        for at in coming.take(BLOCKS) {
            remains = thousandths(remains, REMAINS);
            let gone = 1_000_u128.saturating_sub(remains);
            let level = now.saturating_mul(remains).saturating_add(usual.saturating_mul(gone));
            let of_hour = days.usual(first, at);
            let expected = of_hour.saturating_mul(level);
            // If nothing was full at these hours, nothing says how much dearer it is now.
            let expected = expected.checked_div(usual.saturating_mul(1_000)).unwrap_or(of_hour);
            low = low.min(expected);
            let bid = low.saturating_mul(BELOW).checked_div(100).unwrap_or(0);
            lows.push(FeeRate::from_sat_per_kwu(u64::try_from(bid).unwrap_or(u64::MAX)));
        }
        Self { lows }
    }

    /// What the next block is expected to take; `None`: nothing is known.
    pub(super) fn next(&self) -> Option<FeeRate> {
        let bid = u128::from(self.lows.first()?.to_sat_per_kwu());
        let expected = bid.saturating_mul(100).checked_div(BELOW).unwrap_or(0);
        Some(FeeRate::from_sat_per_kwu(u64::try_from(expected).unwrap_or(u64::MAX)))
    }

    /// The feerate to bid by whoever can wait so many blocks, up to a day; `None`: nothing is known. Whoever can wait longer bids no more.
    #[must_use]
    pub fn within(&self, blocks: u32) -> Option<FeeRate> {
        let last = self.lows.len().checked_sub(1)?;
        let at = usize::try_from(blocks).unwrap_or(last).saturating_sub(1).min(last);
        self.lows.get(at).copied()
    }
}

/// So many thousandths.
fn thousandths(of: u128, part: u128) -> u128 {
    of.saturating_mul(part).checked_div(1_000).unwrap_or(0)
}

/// Past blocks by time, and sums of their feerates, in satoshis per 1000 weight units: up to each block, the
/// block left out.
struct Days {
    times: Vec<u64>,
    sums: Vec<u128>,
}

impl Days {
    fn of(past: &[PastBlock]) -> Self {
        let mut past = past.to_vec();
        // A block may be a little older than the one before it.
        past.sort_by_key(|block| block.time);
        let mut sums = Vec::with_capacity(past.len().saturating_add(1));
        let mut sum = 0_u128;
        sums.push(sum);
        for block in &past {
            // Whatever a source says: no product above overflows.
            let rate = block.feerate.to_sat_per_kwu().min(u32::MAX.into());
            sum = sum.saturating_add(rate.into());
            sums.push(sum);
        }
        Self { times: past.iter().map(|block| block.time.into()).collect(), sums }
    }

    /// The times of the first block and of the last.
    fn span(&self) -> Option<(u64, u64)> {
        Some((*self.times.first()?, *self.times.last()?))
    }

    /// Of so many blocks.
    fn sum(&self, of: Range<usize>) -> u128 {
        let until = |at: usize| self.sums.get(at).copied().unwrap_or_default();
        until(of.end).saturating_sub(until(of.start))
    }

    /// What the blocks around this hour of the days before took, on average; if there were none, what all did. The
    /// hour may be one of the coming day.
    fn usual(&self, first: u64, at: u64) -> u128 {
        let (mut sum, mut count) = (0_u128, 0_usize);
        let mut day = at.checked_sub(DAY);
        while let Some(middle) = day.filter(|middle| middle.saturating_add(AROUND) >= first) {
            let from = self.times.partition_point(|time| time.saturating_add(AROUND) < middle);
            let to = self.times.partition_point(|time| *time <= middle.saturating_add(AROUND));
            sum = sum.saturating_add(self.sum(from..to));
            count = count.saturating_add(to.saturating_sub(from));
            day = middle.checked_sub(DAY);
        }
        let mean = |sum: u128, count: usize| {
            u128::try_from(count).ok().and_then(|count| sum.checked_div(count))
        };
        let all = self.times.len();
        mean(sum, count).or_else(|| mean(self.sum(0..all), all)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
