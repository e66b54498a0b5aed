//! The price of a claim: a pure function of blocks left, budget, estimates and what was paid.
use crate::ports::FeeEstimates;
use bitcoin::{Amount, FeeRate, Weight};

/// Blocks before the deadline from which the price rises above the estimate.
const RISE_OVER: u32 = 18;
/// Target for what has no deadline, in blocks.
pub(crate) const PATIENT: u32 = 144;

/// What a price depends on.
#[derive(Clone, Debug)]
pub struct Price<'a> {
    /// Blocks until the deadline; `None`: there is none.
    pub blocks_left: Option<u32>,
    /// Weight that the fee pays for, parents included.
    pub weight: Weight,
    /// Most that may be paid.
    pub budget: Amount,
    /// Feerates as data.
    pub estimates: &'a FeeEstimates,
    /// Feerate that the operator asked for.
    pub wanted: Option<FeeRate>,
}

impl Price<'_> {
    /// The feerate to pay: the estimate for the blocks that are left, rising to the whole budget
    /// at the deadline, never above it. `None` while the budget does not cover the mempool's
    /// floor, or (without a deadline) the estimate.
    #[must_use]
    pub fn feerate(&self) -> Option<FeeRate> {
        let most = feerate_of(self.budget, self.weight)?;
        if most < self.estimates.floor {
            return None;
        }
        if let Some(wanted) = self.wanted {
            return Some(wanted.max(self.estimates.floor).min(most));
        }
        match self.blocks_left {
            None => Some(self.estimates.within(PATIENT)).filter(|estimate| *estimate <= most),
            Some(left) => Some(self.rising(left, most)),
        }
    }

    fn rising(&self, left: u32, most: FeeRate) -> FeeRate {
        let estimate = self.estimates.within(left.max(1)).min(most);
        let (low, high) = (estimate.to_sat_per_kwu(), most.to_sat_per_kwu());
        let gone = u64::from(RISE_OVER.saturating_sub(left.min(RISE_OVER)));
        let rise = high.saturating_sub(low).saturating_mul(gone);
        let share = rise.checked_div(u64::from(RISE_OVER)).unwrap_or(0);
        FeeRate::from_sat_per_kwu(low.saturating_add(share))
    }
}

/// The feerate at which `fee` pays for `weight`, rounded down; `None` for no weight.
#[must_use]
pub fn feerate_of(fee: Amount, weight: Weight) -> Option<FeeRate> {
    let per_kwu = fee.to_sat().checked_mul(1000)?.checked_div(weight.to_wu())?;
    Some(FeeRate::from_sat_per_kwu(per_kwu))
}

/// The fee of `weight` at `feerate`, rounded up and capped.
#[must_use]
pub fn fee_of(feerate: FeeRate, weight: Weight) -> Amount {
    let milli = feerate.to_sat_per_kwu().saturating_mul(weight.to_wu());
    Amount::from_sat(milli.div_ceil(1000))
}

/// The smallest fee of a replacement (BIP 125 rule 4): what was paid, and 1 sat/vB of its own
/// size more.
#[must_use]
pub fn replacement_fee(paid: Amount, weight: Weight) -> Amount {
    let own = fee_of(FeeRate::from_sat_per_kwu(250), weight);
    paid.checked_add(own).unwrap_or(Amount::MAX_MONEY)
}

#[cfg(test)]
mod tests;
