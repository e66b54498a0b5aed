//! The price of a claim: a pure function of blocks left, budget, estimates and what was paid.
//!
//! With a deadline it is little more than the estimate for twice the blocks that are left, less a few that
//! are kept for bad luck, but no more than the estimate for a fifth of them: a transaction that waits in
//! the mempool is taken when the price falls to it, so it costs nothing to begin low. What could soon
//! be priced out pays for the next blocks at once. From some hours before on it rises slowly above the
//! estimates, which do not know who else waits for room. In the last stretch the price grows by one factor
//! with each block, from what the next block costs to the whole budget for the last block in time. What could be
//! lost is the bound, not the estimate; a straight line to the value of a big output would be absurd after one
//! block, and so would a factor that is the same for all: at the start of the stretch a big output would pay
//! many times what the next block costs.
//!
//! Where feerates of past blocks are known, and a large rise of fees would not price it out, it is what the cheapest
//! of the coming blocks is expected to take instead ([`super::trough`]), until it rises as above.
//!
//! Without a deadline it is the same for a day, or the estimate of somebody who has a day, and, for whoever has waited
//! for two days and more, of somebody who has less and less. While that is more than the budget, better times are
//! waited for, but not for ever: after a day a part of the budget is offered, and more the day after.
use crate::ports::FeeEstimates;
use crate::units;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, Weight};

/// Target for what has no deadline, in blocks. After twice that many blocks without a confirmation
/// the target is half as long, and so on.
pub(crate) const PATIENT: u32 = 144;
/// What it bids of what the cheapest block of a day is expected to take, in hundredths: there will be other days.
const UNHURRIED: u64 = 92;
/// The shortest target that waiting alone leads to.
const PATIENT_AT_LAST: u32 = 6;

/// Blocks before a deadline that are kept for bad luck: blocks that come too late, or miners who
/// leave our transactions out.
pub(super) const BAD_LUCK: u32 = 12;
/// Of the rest, the part within which it should be confirmed, in hundredths.
const NEAR: u64 = 20;
/// What is paid of the estimate for twice the blocks that are left, in hundredths.
const FAR: u64 = 115;
/// Blocks before a deadline from which it rises above the estimates, which do not know of what waits
/// for room besides it.
const RISING: u32 = 34;
/// By how much with each block, in hundredths of what it was.
const RISES: u64 = 101;
/// What hurries should be confirmed within so many blocks.
const AT_ONCE: u32 = 2;
/// What is paid a block earlier in the last stretch, in thousandths, at most.
const STEP: u64 = 600;
/// Blocks before a deadline from which any higher price is worth a replacement.
const CLOSE: u32 = 6;
/// Blocks before a deadline up to which small coins may wait for lower fees.
const TIME: u32 = 18;
/// Blocks before the last stretch in which any higher price is worth one, too.
const BEFORE_LAST: u32 = 3;
/// What is a race with the peer is priced as if so many blocks were left.
const RACED: u32 = BAD_LUCK + 2;

/// Target whose estimate is what is usual, in blocks: a week.
const LONG: u32 = 1_008;
/// What is high, in hundredths of what is usual.
const HIGH: u64 = 200;
/// How far fees may rise before the deadline, in hundredths.
const RISE: u64 = 1_600;
/// How far above what is usual fees may rise without pricing out what waits for a trough, in hundredths.
const RISE_IN_WAITING: u64 = 1_200;
/// What such a rise could price out waits for no trough that is further away, in blocks.
const SHORT_WAIT: u32 = 36;
/// And for none at all if it could not even pay so many hundredths of what the next block costs, with all that is in its transaction.
const RISE_OF_ALL: u64 = 3_200;

/// What a replacement pays for its own relay: 1 sat/vB.
pub(super) const RELAY: FeeRate = FeeRate::from_sat_per_kwu(250);

/// How much a claim hurries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hurry {
    /// Blocks until its deadline; zero: it is past.
    Left(u32),
    /// The same of penalties, which want to be in before they would be taken apart, so many blocks
    /// before their deadline. What is kept for bad luck lies behind that.
    Penalty(u32, u32),
    /// Its deadline is past, or of no use: it is a race with the peer, at the price of the next
    /// blocks, and more only where the peer pays more, since nothing depends on the height any more.
    Raced,
    /// There is no deadline, but it does not wait for better times; blocks since it was made first. It pays what the market
    /// asks, of somebody who hurries more and more, and never more: nothing is lost at any height.
    Commitment(u32),
    /// There is no deadline; blocks since it could be made.
    Waited(u32),
}

impl Hurry {
    /// For how many blocks that are left it is priced, if it is not one that waits.
    pub(super) fn left(self) -> Option<u32> {
        match self {
            Self::Left(left) => Some(left),
            Self::Penalty(left, apart) if left > apart => {
                Some(left.saturating_sub(apart).saturating_add(BAD_LUCK).min(left))
            }
            Self::Penalty(left, _) => Some(left),
            Self::Raced => Some(RACED),
            Self::Commitment(waited) => Some(PATIENT.saturating_sub(waited).max(RACED)),
            Self::Waited(_) => None,
        }
    }

    /// Whether there is a deadline, ahead.
    pub(super) fn has_deadline(self) -> bool {
        match self {
            Self::Left(_) | Self::Penalty(..) => true,
            Self::Raced | Self::Commitment(_) | Self::Waited(_) => false,
        }
    }

    /// Whether there is time for smaller steps, or for larger coins.
    pub(super) fn has_time(self) -> bool {
        self.left().is_none_or(|left| left > TIME)
    }

    /// Whether its deadline is so near that any higher price is worth a replacement.
    pub(super) fn is_close(self) -> bool {
        match self {
            Self::Left(left) | Self::Penalty(left, _) => left <= CLOSE,
            Self::Raced | Self::Commitment(_) | Self::Waited(_) => false,
        }
    }

    /// Whether the last stretch begins in a moment, in which the price grows with each block: what can be had before that
    /// costs little more.
    pub(super) fn is_at_last_stretch(self) -> bool {
        let left = self.left().filter(|_| self.has_deadline());
        left.is_some_and(|left| left > BAD_LUCK && left <= BAD_LUCK.saturating_add(BEFORE_LAST))
    }

    /// Without what a deadline that is near makes of it.
    fn calm(self) -> Self {
        self.left().map_or(self, |left| Self::Left(left.max(RACED)))
    }
}

/// What a price depends on. Claims of one transaction may have several deadlines: for the sake of the nearest, no
/// more is paid than what is lost with it, whatever else is in the transaction and has time.
#[derive(Clone, Debug)]
pub struct Price<'a> {
    /// How much it hurries: as the claim with the least time does.
    pub hurry: Hurry,
    /// Weight that the fee pays for, parents included.
    pub weight: Weight,
    /// Most that may be paid.
    pub budget: Amount,
    /// For each deadline, the nearest first, what is lost with it or before it: so much may be paid for its sake, beyond
    /// what the market and the later ones ask for.
    pub pressed: Vec<(Hurry, Amount)>,
    /// Most that may be paid for the sake of deadlines; above that, what the market asks of somebody who is near none.
    pub for_deadlines: Amount,
    /// The least that one of its claims could pay by itself, if it were taken apart.
    pub poorest: FeeRate,
    /// Feerates as data.
    pub estimates: &'a FeeEstimates,
    /// Feerates that the operator asked for, ascending, each with what may be paid for its sake beyond what else the price
    /// is: what the claims bring that are to pay it.
    pub asked: Vec<(FeeRate, Amount)>,
    /// Highest feerate that was paid for any of it.
    pub paid: Option<FeeRate>,
}

impl Price<'_> {
    /// The feerate to pay: within the budget, and as far as the budget allows neither below the
    /// mempool's floor, nor what the operator asked for, nor what was paid before. `None` while
    /// the budget does not cover the floor: it costs more than it brings; and, without a deadline,
    /// while better times are waited for.
    #[must_use]
    pub fn feerate(&self) -> Option<FeeRate> {
        let most = feerate_of(self.budget, self.weight)?;
        // Where one deadline is that of all, it alone decides.
        let calm = match self.pressed.as_slice() {
            [(_, lost)] if *lost >= self.budget => None,
            _ => self.bid(self.hurry.calm(), self.budget, 0),
        };
        let bid = self.pressed.iter().rev().fold(calm, |bid, &(hurry, lost)| {
            let others = bid.map_or(Amount::ZERO, |bid| fee_of(bid, self.weight));
            let most = units::plus(others, lost);
            let rising = if hurry.has_deadline() { RISING } else { 0 };
            bid.max(self.bid(hurry, most.min(self.for_deadlines).min(self.budget), rising))
        });
        let others = bid.map_or(Amount::ZERO, |bid| fee_of(bid, self.weight));
        let bid = self.asked.iter().fold(bid, |bid, &(asked, brings)| {
            let most = units::plus(others, brings);
            bid.max(feerate_of(most, self.weight).map(|most| most.min(asked)))
        });
        let rate = bid.max(self.paid)?.min(most);
        (rate >= self.estimates.floor).then_some(rate)
    }

    /// What it bids if it hurries so much, with so large a budget, and rising from so many blocks before the deadline.
    fn bid(&self, hurry: Hurry, budget: Amount, rising: u32) -> Option<FeeRate> {
        let most = feerate_of(budget, self.weight)?;
        if most < self.estimates.floor {
            return None;
        }
        let market = match (hurry.left(), hurry) {
            (Some(left), _) => Some(self.near(most, left, rising)),
            (None, Hurry::Waited(waited)) => {
                let estimate = self.unhurried(waited);
                if estimate <= most { Some(estimate) } else { offer(most, waited) }
            }
            (None, _) => None,
        };
        market.map(|rate| rate.min(most))
    }

    /// The price of what has a deadline. It rises with each block that passes.
    fn near(&self, most: FeeRate, left: u32, rising: u32) -> FeeRate {
        let spare = left.saturating_sub(BAD_LUCK);
        let near = self.estimates.within(of(spare, NEAR));
        let far = part(self.estimates.within(spare.saturating_mul(2)), FAR);
        let patient = if spare == 0 { near } else { near.min(far) };
        let trough = self.wait(most, spare.max(1)).and_then(|blocks| self.trough(blocks));
        // In the last stretch nothing is waited for, but no less is paid than a block before.
        let patient = match trough {
            Some(trough) if spare == 0 => near.max(trough),
            Some(trough) => trough,
            None => patient,
        };
        let patient = if self.is_precarious(most) { patient.max(self.at_once()) } else { patient };
        let risen = (left..rising).fold(patient, |rate, _| part(rate, RISES));
        // Where there are no estimates it does not begin at nothing.
        risen.max(approach(most, self.estimates.within(1).max(RELAY), left))
    }

    /// What the next blocks take: the estimate, or less where past blocks tell that the next one is likely to take less.
    fn at_once(&self) -> FeeRate {
        let estimate = self.estimates.within(AT_ONCE);
        self.estimates.troughs.next().map_or(estimate, |next| estimate.min(next))
    }

    /// For how many blocks, of those that are left, a trough is waited for; `None`: for none. A transaction may be taken apart, and then each of its
    /// claims must pay for itself: it waits if the poorest could still do so after a rise of fees.
    fn wait(&self, most: FeeRate, spare: u32) -> Option<u32> {
        if most.min(self.poorest) >= part(self.estimates.within(LONG), RISE_IN_WAITING) {
            return Some(spare);
        }
        let is_rich = most >= part(self.estimates.within(1), RISE_OF_ALL);
        is_rich.then_some(spare.min(SHORT_WAIT))
    }

    /// What is enough for somebody who has waited for so many blocks, and hurries only a little more for it.
    fn unhurried(&self, waited: u32) -> FeeRate {
        let target = patience(waited);
        let trough = self.trough(target).map(|rate| part(rate, UNHURRIED));
        trough.unwrap_or(self.estimates.within(target)).max(self.estimates.floor)
    }

    /// What the cheapest of so many blocks is likely to take, if past blocks tell; where they contradict the
    /// estimates by far, no more than these allow.
    fn trough(&self, blocks: u32) -> Option<FeeRate> {
        let trough = self.estimates.troughs.within(blocks)?;
        let most = match self.estimates.targets.is_empty() {
            true => trough,
            false => part(self.estimates.within(AT_ONCE), HIGH),
        };
        Some(trough.min(most).max(self.estimates.floor))
    }

    /// Whether a rise of fees as they come could make it cost more than it brings. A rise that is
    /// there already is not fled from: it passes more often than not.
    fn is_precarious(&self, most: FeeRate) -> bool {
        let (soon, long) = (self.estimates.within(1), self.estimates.within(LONG));
        let is_high = soon >= part(long, HIGH);
        !is_high && most < part(soon, RISE)
    }
}

/// So many hundredths of some blocks, at least one.
fn of(blocks: u32, hundredths: u64) -> u32 {
    let part = u64::from(blocks).saturating_mul(hundredths).checked_div(100).unwrap_or(0);
    u32::try_from(part).unwrap_or(u32::MAX).max(1)
}

/// So many hundredths of a feerate.
fn part(rate: FeeRate, hundredths: u64) -> FeeRate {
    let part = u128::from(rate.to_sat_per_kwu())
        .saturating_mul(u128::from(hundredths))
        .checked_div(100)
        .unwrap_or(0);
    FeeRate::from_sat_per_kwu(u64::try_from(part).unwrap_or(u64::MAX))
}

/// All of `most` for the last block in time, and for each block before so much less that the last stretch
/// begins at what the next block costs; three fifths of it, where that would be more than this.
fn approach(most: FeeRate, soon: FeeRate, left: u32) -> FeeRate {
    // The largest step that leads back to it.
    let (mut low, mut high) = (0, STEP);
    while low < high {
        let middle = low.saturating_add(high).div_ceil(2);
        if back(most, middle, BAD_LUCK.saturating_sub(1)) <= soon {
            low = middle;
        } else {
            high = middle.saturating_sub(1);
        }
    }
    back(most, low, left.saturating_sub(1))
}

/// A feerate so many blocks before, if with each of them it is so many thousandths.
fn back(most: FeeRate, step: u64, blocks: u32) -> FeeRate {
    let mut rate = most;
    for _ in 0..blocks {
        if rate == FeeRate::ZERO {
            break;
        }
        let before = u128::from(rate.to_sat_per_kwu()).saturating_mul(u128::from(step));
        let before = before.checked_div(1_000).and_then(|before| u64::try_from(before).ok());
        rate = FeeRate::from_sat_per_kwu(before.unwrap_or(0));
    }
    rate
}

/// The target of somebody who has waited for so many blocks.
fn patience(waited: u32) -> u32 {
    let halvings = waited.checked_div(PATIENT.saturating_mul(2)).unwrap_or(0);
    PATIENT.checked_shr(halvings).unwrap_or(0).max(PATIENT_AT_LAST)
}

/// What is offered where even the estimate of the patient is too much: nothing on the first day,
/// then a quarter of the most, half of it, all of it.
fn offer(most: FeeRate, waited: u32) -> Option<FeeRate> {
    let halvings = match waited.checked_div(PATIENT).unwrap_or(0) {
        0 => return None,
        days => 3u32.saturating_sub(days),
    };
    most.to_sat_per_kwu().checked_shr(halvings).map(FeeRate::from_sat_per_kwu)
}

/// The feerate at which `fee` pays for `weight`, rounded down; `None` for no weight.
#[must_use]
pub fn feerate_of(fee: Amount, weight: Weight) -> Option<FeeRate> {
    let milli = u128::from(fee.to_sat()).saturating_mul(1000);
    let per_kwu = milli.checked_div(u128::from(weight.to_wu()))?;
    Some(FeeRate::from_sat_per_kwu(u64::try_from(per_kwu).unwrap_or(u64::MAX)))
}

/// The fee of `weight` at `feerate`, rounded up and capped.
#[must_use]
pub fn fee_of(feerate: FeeRate, weight: Weight) -> Amount {
    let milli = feerate.to_sat_per_kwu().saturating_mul(weight.to_wu());
    Amount::from_sat(milli.div_ceil(1000))
}

/// The least fee of `weight` where `floor` is asked for: relays count whole virtual bytes.
pub(super) fn relay_fee(floor: FeeRate, weight: Weight) -> Amount {
    fee_of(floor, Weight::from_wu(weight.to_wu().div_ceil(4).saturating_mul(4)))
}

/// The smallest fee of a replacement (BIP 125 rule 4): what was paid, and 1 sat/vB of its own
/// size more.
#[must_use]
pub fn replacement_fee(paid: Amount, weight: Weight) -> Amount {
    units::plus(paid, relay_fee(RELAY, weight))
}

#[cfg(test)]
mod tests;
