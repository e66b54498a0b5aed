//! The price rises as the deadline nears, and never above the budget.
use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn estimates(fast: u64, steps: &[u64], floor: u64) -> FeeEstimates {
    let mut rate = fast;
    let mut targets = Vec::new();
    for (target, step) in [2u16, 6, 12, 144].into_iter().zip(steps) {
        targets.push((target, FeeRate::from_sat_per_kwu(rate)));
        rate = rate.saturating_sub(*step);
    }
    FeeEstimates { targets, floor: FeeRate::from_sat_per_kwu(floor) }
}

prop_compose! {
    fn market()(
        fast in 0u64..200_000,
        steps in prop::collection::vec(0u64..50_000, 0..5),
        floor in 0u64..5_000,
    ) -> FeeEstimates {
        estimates(fast, &steps, floor)
    }
}

fn price<'a>(
    blocks_left: Option<u32>,
    weight: u64,
    budget: u64,
    estimates: &'a FeeEstimates,
) -> Price<'a> {
    let (weight, budget) = (Weight::from_wu(weight), Amount::from_sat(budget));
    Price { blocks_left, weight, budget, estimates, wanted: None }
}

proptest! {
    #[test]
    fn the_price_rises_towards_the_deadline(
        market in market(), weight in 1u64..400_000, budget in 0u64..2_100_000_000_000_000,
        left in 0u32..300,
    ) {
        let now = price(Some(left), weight, budget, &market).feerate();
        let before = price(Some(left + 1), weight, budget, &market).feerate();
        prop_assert_eq!(now.is_some(), before.is_some());
        prop_assert!(now >= before, "{:?} after {:?}", now, before);
    }

    #[test]
    fn the_price_stays_within_the_budget_and_above_the_floor(
        market in market(), weight in 1u64..400_000, budget in 0u64..2_100_000_000_000_000,
        left in prop::option::of(0u32..300), wanted in prop::option::of(0u64..1_000_000),
    ) {
        let mut price = price(left, weight, budget, &market);
        price.wanted = wanted.map(FeeRate::from_sat_per_kwu);
        match price.feerate() {
            Some(rate) => {
                prop_assert!(rate >= market.floor);
                prop_assert!(fee_of(rate, price.weight) <= price.budget);
            }
            None => {
                let most = feerate_of(price.budget, price.weight).expect("a weight");
                let patient = left.is_none() && wanted.is_none();
                prop_assert!(most < market.floor || (patient && most < market.within(PATIENT)));
            }
        }
    }

    #[test]
    fn at_the_deadline_the_whole_budget_is_paid(
        market in market(), weight in 1u64..400_000, budget in 0u64..2_100_000_000_000_000,
    ) {
        let most = feerate_of(Amount::from_sat(budget), Weight::from_wu(weight)).expect("weight");
        let rate = price(Some(0), weight, budget, &market).feerate();
        prop_assert_eq!(rate, (most >= market.floor).then_some(most));
    }

    #[test]
    fn a_replacement_pays_for_itself(paid in 0u64..1_000_000, weight in 1u64..400_000) {
        let least = replacement_fee(Amount::from_sat(paid), Weight::from_wu(weight)).to_sat();
        // BIP 125 rule 4: 1 sat/vB of its own size.
        prop_assert!(least >= paid + weight.div_ceil(4));
        prop_assert!(least <= paid + weight.div_ceil(4) + 1);
    }
}

#[test]
fn extremes_do_not_overflow() {
    let market = estimates(u64::MAX, &[0], u64::MAX);
    assert_eq!(price(Some(0), u64::MAX, u64::MAX, &market).feerate(), None);
    assert_eq!(price(None, 0, 0, &market).feerate(), None);
    assert_eq!(
        fee_of(FeeRate::from_sat_per_kwu(u64::MAX), Weight::MAX),
        Amount::from_sat(u64::MAX.div_ceil(1000))
    );
    assert_eq!(replacement_fee(Amount::MAX, Weight::MAX), Amount::MAX_MONEY);
}
