//! Feerates both ways: LDK's estimator as our fee source, our estimates as LDK's estimator.
use super::lock;
use arb_core::claim::trough::Troughs;
use arb_core::ports::{FeeEstimates, FeeSource};
use bitcoin::FeeRate;
use core::convert::Infallible;
use core::future::{Future, ready};
use core::ops::Deref;
use lightning::chain::chaininterface::{
    ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator,
};
use std::sync::Mutex;

/// LDK wants its upper bound for the peer's feerates above what an honest peer may estimate: this
/// much above our own, in satoshis per 1000 weight units.
pub const MAXIMUM_MARGIN: u32 = 2_500;

/// What LDK advises to take off the least feerate of a peer without anchors, because estimators
/// round up to whole satoshis per vbyte.
const ROUNDING: u32 = 250;

/// LDK's targets that say something of confirmation times, most urgent first.
const TIMED: [ConfirmationTarget; 4] = [
    ConfirmationTarget::UrgentOnChainSweep,
    ConfirmationTarget::NonAnchorChannelFee,
    ConfirmationTarget::OutputSpendingFee,
    ConfirmationTarget::ChannelCloseMinimum,
];

/// Blocks within which a transaction at this target's feerate is meant to confirm.
#[must_use]
pub const fn horizon(target: ConfirmationTarget) -> u16 {
    match target {
        ConfirmationTarget::MaximumFeeEstimate => 1,
        ConfirmationTarget::UrgentOnChainSweep => 6,
        ConfirmationTarget::NonAnchorChannelFee => 12,
        ConfirmationTarget::OutputSpendingFee => 72,
        ConfirmationTarget::ChannelCloseMinimum
        | ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => 144,
        ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
        | ConfirmationTarget::AnchorChannelFee => 1008,
    }
}

/// An LDK estimator as our fee source.
///
/// Its feerates for sweeps, closes and commitments are the estimates, at their [`horizon`]; a later
/// target never costs more than an earlier one. The floor is what it expects of the mempool (its
/// least feerate of anchor channels). Nothing is below LDK's own floor.
#[derive(Clone, Debug)]
pub struct FromLdkFees<F>(pub F);

impl<F> FeeSource for FromLdkFees<F>
where
    F: Deref<Target: FeeEstimator> + Send + Sync + 'static,
{
    type Error = Infallible;

    fn estimates(&self) -> impl Future<Output = Result<FeeEstimates, Infallible>> + Send {
        let rate = |target| {
            let estimate = self.0.get_est_sat_per_1000_weight(target);
            FeeRate::from_sat_per_kwu(u64::from(estimate.max(FEERATE_FLOOR_SATS_PER_KW)))
        };
        let floor = rate(ConfirmationTarget::MinAllowedAnchorChannelRemoteFee);
        let mut targets: Vec<(u16, FeeRate)> = Vec::new();
        let mut least = floor;
        for target in TIMED.into_iter().rev() {
            least = least.max(rate(target));
            targets.push((horizon(target), least));
        }
        targets.reverse();
        ready(Ok(FeeEstimates { targets, floor, troughs: Troughs::default() }))
    }
}

/// Our estimates as an LDK estimator: set them whenever there are new ones.
#[derive(Debug)]
pub struct LdkFees {
    estimates: Mutex<FeeEstimates>,
}

impl LdkFees {
    /// An estimator that answers from these.
    #[must_use]
    pub const fn new(estimates: FeeEstimates) -> Self {
        Self { estimates: Mutex::new(estimates) }
    }

    /// Replaces the estimates.
    pub fn set(&self, estimates: FeeEstimates) {
        *lock(&self.estimates) = estimates;
    }
}

impl FeeEstimator for LdkFees {
    fn get_est_sat_per_1000_weight(&self, confirmation_target: ConfirmationTarget) -> u32 {
        let estimates = lock(&self.estimates);
        let within = in_ldk(estimates.within(u32::from(horizon(confirmation_target))));
        let rate = match confirmation_target {
            ConfirmationTarget::MaximumFeeEstimate => within.saturating_add(MAXIMUM_MARGIN),
            ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee => {
                within.saturating_sub(ROUNDING)
            }
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee => in_ldk(estimates.floor),
            ConfirmationTarget::UrgentOnChainSweep
            | ConfirmationTarget::AnchorChannelFee
            | ConfirmationTarget::NonAnchorChannelFee
            | ConfirmationTarget::ChannelCloseMinimum
            | ConfirmationTarget::OutputSpendingFee => within,
        };
        rate.max(FEERATE_FLOOR_SATS_PER_KW)
    }
}

fn in_ldk(rate: FeeRate) -> u32 {
    u32::try_from(rate.to_sat_per_kwu()).unwrap_or(u32::MAX)
}
