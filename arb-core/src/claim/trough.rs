//! What block space is likely to cost in the next hours, as the days before had it. Estimates for targets are made
//! of the last hours or days as a whole, and do not tell whether a claim's blocks end in the trough of a day or at
//! its top; feerates of past blocks do.
//!
//! Each of the coming blocks is expected to take what the blocks at its place in the days before took, and as much
//! more or less as the newest blocks do now, of which a tenth is forgotten with each block.
use alloc::vec::Vec;
use bitcoin::FeeRate;

/// Blocks of a day.
const DAY: usize = 144;
/// Days that are looked at, at most.
const DAYS: usize = 3;
/// Days without which nothing is said.
const LEAST_DAYS: usize = 2;
/// Blocks before and after one of an earlier day that are taken together with it.
const AROUND: usize = 3;
/// The newest blocks, which say how the present differs from the days before.
const PRESENT: usize = 8;
/// What remains of that difference with each block, in thousandths.
const REMAINS: u128 = 900;
/// What is bid of the lowest feerate that is expected, in hundredths: single blocks take less.
const BELOW: u128 = 94;

/// Feerates that blocks are likely to take, made of those of past blocks. Without a past they say nothing.
///
/// ```
/// use arb_core::claim::trough::Troughs;
/// use bitcoin::FeeRate;
///
/// let rates = [30, 10].map(FeeRate::from_sat_per_vb_u32);
/// let past: Vec<FeeRate> = (0..Troughs::PAST).map(|at| rates[at / 72 % 2]).collect();
/// let troughs = Troughs::of(&past);
/// // The night is half a day away.
/// assert!(troughs.within(36) > Some(FeeRate::from_sat_per_vb_u32(15)));
/// assert!(troughs.within(100) < Some(FeeRate::from_sat_per_vb_u32(10)));
/// assert_eq!(Troughs::default().within(100), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troughs {
    /// For each number of blocks, up to a day, the feerate to bid.
    lows: Vec<FeeRate>,
}

impl Troughs {
    /// As many past blocks as are looked at, the newest of them.
    pub const PAST: usize = DAY * DAYS;

    /// From the feerates at which past blocks had room, the newest last; it says nothing if these are less
    /// than two days.
    #[must_use]
    pub fn of(past: &[FeeRate]) -> Self {
        let past = past.get(past.len().saturating_sub(Self::PAST)..).unwrap_or_default();
        if past.len() < DAY.saturating_mul(LEAST_DAYS) {
            return Self::default();
        }
        let days = Days::of(past);
        let from = past.len().saturating_sub(PRESENT);
        let now = days.sum(from, past.len());
        let usual = (from..past.len()).map(|at| days.usual(at)).fold(0, u128::saturating_add);
        let (mut lows, mut low, mut remains) = (Vec::with_capacity(DAY), u128::MAX, 1_000);
        for at in (past.len()..).take(DAY) {
            remains = thousandths(remains, REMAINS);
            let gone = 1_000_u128.saturating_sub(remains);
            let level = now.saturating_mul(remains).saturating_add(usual.saturating_mul(gone));
            let expected = days.usual(at).saturating_mul(level);
            let expected = expected.checked_div(usual.saturating_mul(1_000)).unwrap_or(0);
            low = low.min(expected);
            let bid = low.saturating_mul(BELOW).checked_div(100).unwrap_or(0);
            lows.push(FeeRate::from_sat_per_kwu(u64::try_from(bid).unwrap_or(u64::MAX)));
        }
        Self { lows }
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

/// Sums of past feerates, in satoshis per 1000 weight units: up to each block, the block left out.
struct Days {
    sums: Vec<u128>,
}

impl Days {
    fn of(past: &[FeeRate]) -> Self {
        let mut sums = Vec::with_capacity(past.len().saturating_add(1));
        let mut sum = 0_u128;
        sums.push(sum);
        for rate in past {
            // Whatever a source says: no product below overflows.
            let rate = rate.to_sat_per_kwu().min(u32::MAX.into());
            sum = sum.saturating_add(rate.into());
            sums.push(sum);
        }
        Self { sums }
    }

    fn len(&self) -> usize {
        self.sums.len().saturating_sub(1)
    }

    /// Of the blocks from one to another, which is left out.
    fn sum(&self, from: usize, to: usize) -> u128 {
        let until = |at: usize| self.sums.get(at).copied().unwrap_or_default();
        until(to).saturating_sub(until(from))
    }

    /// What the blocks around this one's place in the days before took, on average. It may be one of the coming day.
    fn usual(&self, at: usize) -> u128 {
        let (mut sum, mut count) = (0_u128, 0_usize);
        let mut day = at.checked_sub(DAY);
        while let Some(middle) = day {
            let from = middle.saturating_sub(AROUND);
            let to = middle.saturating_add(AROUND).saturating_add(1).min(self.len());
            sum = sum.saturating_add(self.sum(from, to));
            count = count.saturating_add(to.saturating_sub(from));
            day = middle.checked_sub(DAY);
        }
        u128::try_from(count).ok().and_then(|count| sum.checked_div(count)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
