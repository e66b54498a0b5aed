//! The price rises as the deadline nears, never falls, and never goes above the budget.
use super::*;
use crate::claim::trough::{PastBlock, Troughs};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

prop_compose! {
    /// Any data, even where a longer target costs more.
    fn market()(
        rates in prop::collection::vec(0u64..200_000, 0..5),
        floor in 0u64..5_000,
        past in prop::collection::vec(0u64..200_000, 0..5),
    ) -> FeeEstimates {
        let targets = [2u16, 6, 12, 144].into_iter().zip(rates);
        let targets = targets.map(|(target, rate)| (target, FeeRate::from_sat_per_kwu(rate)));
        // Less than two days of blocks are no past.
        let past = past.into_iter().flat_map(|rate| [FeeRate::from_sat_per_kwu(rate); 100]);
        let troughs = troughs(past);
        FeeEstimates { targets: targets.collect(), floor: FeeRate::from_sat_per_kwu(floor), troughs }
    }
}

fn hurry() -> impl Strategy<Value = Hurry> {
    prop_oneof![
        (0u32..300).prop_map(Hurry::Left),
        (0u32..300).prop_map(|left| Hurry::Penalty(left, 18)),
        Just(Hurry::Raced),
        (0u32..300).prop_map(Hurry::Commitment),
        (0u32..3_000).prop_map(Hurry::Waited),
    ]
}

fn rate() -> impl Strategy<Value = Option<FeeRate>> {
    prop::option::of((0u64..1_000_000).prop_map(FeeRate::from_sat_per_kwu))
}

fn price(hurry: Hurry, weight: u64, budget: u64, estimates: &FeeEstimates) -> Price<'_> {
    let (weight, budget) = (Weight::from_wu(weight), Amount::from_sat(budget));
    let poorest = FeeRate::MAX;
    let pressed = Vec::from([(hurry, budget)]);
    let (for_deadlines, asked, paid) = (budget, Vec::new(), None);
    Price { hurry, weight, budget, pressed, for_deadlines, poorest, estimates, asked, paid }
}

/// sat/vB at 2, 6, 12 and 144 blocks, floor 1.
fn market_of(rates: [u32; 4]) -> FeeEstimates {
    let targets = [2u16, 6, 12, 144].into_iter().zip(rates.map(FeeRate::from_sat_per_vb_u32));
    FeeEstimates {
        targets: targets.collect(),
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    }
}

const MAX_BUDGET: u64 = 2_100_000_000_000_000;

proptest! {
    #[test]
    fn what_has_no_deadline_never_pays_more_than_the_market(
        waited in 0u32..3_000,
        weight in 400u64..100_000,
        budget in 0u64..MAX_BUDGET,
        market in market(),
    ) {
        let rate = price(Hurry::Commitment(waited), weight, budget, &market).feerate();
        prop_assume!(!market.targets.is_empty());
        // Past blocks may say twice what the estimates do.
        let most = part(market.within(1), HIGH).max(market.floor).max(RELAY);
        prop_assert!(rate <= Some(most), "{rate:?} of {most}");
    }

    #[test]
    fn whoever_hurries_more_pays_no_less(
        market in market(), weight in 1u64..400_000, budget in 0..MAX_BUDGET,
        left in 0u32..300, waited in 0u32..3_000, asked in rate(), paid in rate(),
    ) {
        let at = |hurry| {
            let asked = asked.map(|asked| (asked, Amount::from_sat(budget))).into_iter().collect();
            Price { asked, paid, ..price(hurry, weight, budget, &market) }.feerate()
        };
        let (now, before) = (at(Hurry::Left(left)), at(Hurry::Left(left + 1)));
        prop_assert_eq!(now.is_some(), before.is_some());
        prop_assert!(now >= before, "{:?} after {:?}", now, before);
        prop_assert!(at(Hurry::Waited(waited + 1)) >= at(Hurry::Waited(waited)));
    }

    #[test]
    fn the_price_stays_between_what_was_paid_and_the_budget(
        market in market(), weight in 1u64..400_000, budget in 0..MAX_BUDGET,
        hurry in hurry(), asked in rate(), paid in rate(),
    ) {
        let steps = asked.map(|asked| (asked, Amount::from_sat(budget))).into_iter().collect();
        let price = Price { asked: steps, paid, ..price(hurry, weight, budget, &market) };
        let most = feerate_of(price.budget, price.weight).expect("a weight");
        match price.feerate() {
            Some(rate) => {
                prop_assert!(rate >= market.floor);
                prop_assert!(fee_of(rate, price.weight) <= price.budget);
                prop_assert!(rate >= paid.unwrap_or(FeeRate::ZERO).min(most));
                prop_assert!(rate >= asked.unwrap_or(FeeRate::ZERO).min(most));
            }
            None => {
                let waits = match hurry {
                    Hurry::Waited(waited) => price.unhurried(waited) > most,
                    _ => false,
                };
                prop_assert!(most < market.floor || waits);
            }
        }
    }

    #[test]
    fn at_the_deadline_the_whole_budget_is_paid(
        market in market(), weight in 1u64..400_000, budget in 0..MAX_BUDGET,
    ) {
        let most = feerate_of(Amount::from_sat(budget), Weight::from_wu(weight)).expect("weight");
        let rate = price(Hurry::Left(0), weight, budget, &market).feerate();
        prop_assert_eq!(rate, (most >= market.floor).then_some(most));
        // The block that is mined next is the last one in time.
        prop_assert_eq!(price(Hurry::Left(1), weight, budget, &market).feerate(), rate);
    }

    #[test]
    fn above_the_estimates_it_grows_by_one_factor_in_the_last_stretch(
        market in market(), weight in 1u64..400_000, budget in 0..MAX_BUDGET, left in 1u32..40,
    ) {
        let at = |left| price(Hurry::Left(left), weight, budget, &market).feerate();
        let (Some(before), Some(now)) = (at(left), at(left - 1)) else { return Ok(()) };
        let (before, now) = (before.to_sat_per_kwu(), now.to_sat_per_kwu());
        // 34 times a hundredth, each on top of the last, and what it is more than the estimate.
        // The past is not believed beyond twice the estimates, where there are any.
        let trough = market.troughs.within(1).filter(|_| market.targets.is_empty());
        let known = market.within(1).max(RELAY).max(trough.unwrap_or(FeeRate::ZERO));
        let estimate = known.to_sat_per_kwu() * 3;
        if left > BAD_LUCK {
            prop_assert!(now <= estimate, "{now} before the last stretch");
        }
        let most = feerate_of(Amount::from_sat(budget), Weight::from_wu(weight)).expect("weight");
        // (5/3)^11 is 275.
        if most.to_sat_per_kwu() <= market.within(1).max(RELAY).to_sat_per_kwu() * 275 {
            prop_assert!(now <= (before / 3 * 5 + 6).max(estimate), "{now} after {before}");
        }
    }

    #[test]
    fn who_may_wait_longer_pays_no_more(market in market(), blocks in 0u32..2_000) {
        prop_assert!(market.within(blocks + 1) <= market.within(blocks));
    }

    /// Claims of one transaction with several deadlines: up to the last block in time for each, all that is lost with it or
    /// before it may be paid, and for the sake of all of them no more than that, beyond what the market asks of who has time.
    #[test]
    fn each_deadline_has_what_is_lost_by_it_and_no_more(
        market in market(), weight in 1u64..400_000,
        steps in prop::collection::btree_map(1u32..200, 0u64..5_000_000, 1..5),
        rest in 0u64..5_000_000, passed in 0u32..200, part_for_deadlines in 0u64..=2,
    ) {
        let all = steps.values().sum::<u64>();
        let budget = Amount::from_sat(all + rest);
        let for_deadlines = Amount::from_sat((all + rest) * part_for_deadlines / 2);
        // As the blocks come: what is nearer has come first.
        let mut paid = None;
        for passed in 0..=passed {
            let mut lost = Amount::ZERO;
            let left = steps.iter().map(|(left, own)| (left.checked_sub(passed), own));
            let pressed: Vec<(Hurry, Amount)> = left
                .filter_map(|(left, own)| {
                    lost += Amount::from_sat(*own);
                    Some((Hurry::Left(left.filter(|left| *left > 0)?), lost))
                })
                .collect();
            let Some(&(hurry, nearest)) = pressed.first() else { break };
            let of_all = price(hurry, weight, budget.to_sat(), &market);
            let price = Price { pressed, for_deadlines, paid, ..of_all };
            let rate = price.feerate();
            prop_assert!(rate >= paid, "{rate:?} after {paid:?}");
            let Some(rate) = rate else { break };
            prop_assert!(fee_of(rate, price.weight) <= budget);
            if hurry == Hurry::Left(1) {
                let least = feerate_of(nearest.min(for_deadlines).min(budget), price.weight);
                prop_assert!(Some(rate) >= least, "{rate} of {least:?} in the last block");
            }
            let calm = price.bid(hurry.calm(), budget, 0).unwrap_or(market.floor).max(paid.unwrap_or(FeeRate::ZERO));
            let most = price.pressed.iter().map(|(_, lost)| *lost).fold(fee_of(calm, price.weight), |a, b| a + b);
            prop_assert!(fee_of(rate, price.weight) <= most.max(fee_of(market.floor, price.weight)));
            paid = Some(rate);
        }
    }

    // incident ldk-3457
    #[test]
    fn a_replacement_pays_for_itself(paid in 0u64..1_000_000, weight in 1u64..400_000) {
        let least = replacement_fee(Amount::from_sat(paid), Weight::from_wu(weight)).to_sat();
        // BIP 125 rule 4: 1 sat/vB of its own size.
        prop_assert!(least >= paid + weight.div_ceil(4));
        prop_assert!(least <= paid + weight.div_ceil(4) + 1);
    }
}

#[test]
fn prices_of_an_htlc_as_its_deadline_nears() {
    let market = market_of([20, 15, 12, 5]);
    // (blocks left, sat/vB for 50,000 sat, for 1 BTC), with 200 vB.
    let table = [
        (144, 5, 5),
        (100, 5, 5),
        (40, 11, 11),
        (24, 14, 14),
        (18, 16, 16),
        (12, 24, 24),
        (10, 25, 125),
        (6, 26, 4_993),
        (5, 32, 12_545),
        (4, 54, 31_522),
        (3, 90, 79_202),
        (2, 150, 199_000),
        (1, 250, 500_000),
        (0, 250, 500_000),
    ];
    let in_vb = |left, budget| {
        let rate =
            price(Hurry::Left(left), 800, budget, &market).feerate().expect("it is worth it");
        rate.to_sat_per_kwu() * 4 / 1000
    };
    let found = table.map(|(left, ..)| (left, in_vb(left, 50_000), in_vb(left, 100_000_000)));
    assert_eq!(found, table);
}

#[test]
fn what_hurries_is_priced_as_if_so_many_blocks_were_left() {
    let table = [
        (Hurry::Left(7), Some(7), false),
        (Hurry::Left(6), Some(6), true),
        // Before they are taken apart, 18 blocks before the deadline; what bad luck may need lies behind that.
        (Hurry::Penalty(100, 18), Some(94), false),
        (Hurry::Penalty(19, 18), Some(13), false),
        (Hurry::Penalty(18, 18), Some(18), false),
        (Hurry::Penalty(6, 18), Some(6), true),
        (Hurry::Raced, Some(14), false),
        (Hurry::Commitment(0), Some(144), false),
        (Hurry::Commitment(1_000), Some(14), false),
        (Hurry::Waited(1_000), None, false),
    ];
    for (hurry, left, is_close) in table {
        assert_eq!((hurry.left(), hurry.is_close()), (left, is_close), "{hurry:?}");
    }
}

#[test]
fn only_the_market_takes_more_than_what_may_be_paid_for_a_deadline() {
    let rates = |rate: u32, left| {
        let market = market_of([rate; 4]);
        let all = price(Hurry::Left(left), 800, 50_000, &market);
        let half = Amount::from_sat(25_000);
        let pressed = Vec::from([(all.hurry, half)]);
        let half = Price { pressed, for_deadlines: half, ..all.clone() };
        [all, half].map(|price| price.feerate().map(|rate| rate.to_sat_per_kwu() / 250))
    };
    // 200 vB: 250 sat/vB are all, 125 are what a deadline may cost.
    assert_eq!(rates(20, 1), [Some(250), Some(125)]);
    assert_eq!(rates(200, 1), [Some(250), Some(200)]);
    assert_eq!(rates(20, 100), [Some(20), Some(20)]);
}

#[test]
fn between_two_targets_an_estimate_is_on_the_line() {
    let market = market_of([20, 15, 12, 5]);
    let table =
        [(0, 5_000), (2, 5_000), (4, 4_375), (6, 3_750), (9, 3_375), (144, 1_250), (2_000, 1_250)];
    for (blocks, expected) in table {
        let rate = market.within(blocks);
        assert_eq!(rate, FeeRate::from_sat_per_kwu(expected), "within {blocks} blocks");
    }
    let nothing = FeeEstimates {
        targets: Vec::new(),
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    };
    assert_eq!(nothing.within(6), FeeRate::BROADCAST_MIN);
    // What is enough for two blocks is enough for six, whatever was needed the day before.
    let falling = market_of([20, 30, 25, 5]);
    assert_eq!(falling.within(6), FeeRate::from_sat_per_vb_u32(20));
    assert_eq!(falling.within(12), FeeRate::from_sat_per_vb_u32(20));
    assert_eq!(falling.within(144), FeeRate::from_sat_per_vb_u32(5));
}

#[test]
fn who_waits_for_days_takes_shorter_targets() {
    let market = market_of([20, 15, 12, 5]);
    // In satoshis per 1000 weight units.
    let table = [
        (0, 1_250),
        (143, 1_250),
        (287, 1_250),
        (288, 2_205),
        (576, 2_682),
        (864, 2_921),
        (1_152, 3_375),
        (1_440, 3_750),
        (2_000, 3_750),
    ];
    for (waited, expected) in table {
        let rate = price(Hurry::Waited(waited), 600, 100_000, &market).feerate();
        assert_eq!(rate, Some(FeeRate::from_sat_per_kwu(expected)), "after {waited} blocks");
    }
    // What that estimate would eat up waits a day for a better one, and then offers what it can.
    let offers =
        [(0, None), (143, None), (144, Some(2)), (288, Some(4)), (432, Some(8)), (3_000, Some(8))];
    for (waited, expected) in offers {
        let rate = price(Hurry::Waited(waited), 600, 1_200, &market_of([90, 80, 60, 50])).feerate();
        let expected = expected.map(FeeRate::from_sat_per_vb_u32);
        assert_eq!(rate, expected, "after {waited} blocks");
    }
    assert_eq!(price(Hurry::Waited(3_000), 600, 149, &market).feerate(), None);
    // Whoever asks does not wait.
    let three = FeeRate::from_sat_per_vb_u32(3);
    let asked = vec![(three, Amount::from_sat(600))];
    let rate = Price { asked, ..price(Hurry::Waited(0), 600, 600, &market) }.feerate();
    assert_eq!(rate, Some(three));
}

/// What one of several claims is to pay the others do not pay for it.
#[test]
fn who_is_asked_to_pay_more_pays_for_that() {
    let market = market_of([10, 10, 10, 10]);
    let three_hundred = FeeRate::from_sat_per_vb_u32(300);
    let bid =
        |asked| Price { asked, ..price(Hurry::Left(100), 4_000, 1_000_000, &market) }.feerate();
    let before = bid(Vec::new()).expect("a price");
    let fee = fee_of(before, Weight::from_wu(4_000));
    let after = bid(vec![(three_hundred, Amount::from_sat(20_000))]).expect("a price");
    assert_eq!(fee_of(after, Weight::from_wu(4_000)), fee + Amount::from_sat(20_000));
    assert_eq!(bid(vec![(three_hundred, Amount::from_sat(1_000_000))]), Some(three_hundred));
}

#[test]
fn what_a_rise_could_price_out_does_not_wait() {
    let market = market_of([20, 15, 12, 11]);
    let rate = |budget| price(Hurry::Left(100), 800, budget, &market).feerate();
    // 200 vB: 319 sat/vB is less than sixteen times what the next block costs, 320 is not.
    assert_eq!(rate(63_800), Some(FeeRate::from_sat_per_vb_u32(20)));
    assert!(rate(64_000) < Some(FeeRate::from_sat_per_vb_u32(13)));
    // A rise that is there already passes more often than not.
    let high = market_of([20, 15, 12, 5]);
    let rate = price(Hurry::Left(100), 800, 63_800, &high).feerate();
    assert!(rate < Some(FeeRate::from_sat_per_vb_u32(6)));
}

#[test]
fn extremes_do_not_overflow() {
    let rate = FeeRate::from_sat_per_kwu(u64::MAX);
    let market =
        FeeEstimates { targets: [(2, rate)].to_vec(), floor: rate, troughs: Troughs::default() };
    assert_eq!(price(Hurry::Left(0), u64::MAX, u64::MAX, &market).feerate(), None);
    assert_eq!(price(Hurry::Waited(u32::MAX), 0, 0, &market).feerate(), None);
    assert_eq!(approach(rate, FeeRate::ZERO, u32::MAX), FeeRate::ZERO);
    assert_eq!(
        fee_of(FeeRate::from_sat_per_kwu(u64::MAX), Weight::MAX),
        Amount::from_sat(u64::MAX.div_ceil(1000))
    );
    assert_eq!(replacement_fee(Amount::MAX, Weight::MAX), Amount::MAX_MONEY);
}

/// From what blocks took that came every ten minutes.
fn troughs(rates: impl IntoIterator<Item = FeeRate>) -> Troughs {
    let blocks = (0..).step_by(600).zip(rates);
    Troughs::of(&blocks.map(|(time, feerate)| PastBlock { time, feerate }).collect::<Vec<_>>())
}

/// Three days with a dear and a cheap half, of which the last one is at its dearest.
fn at_the_top_of_a_day(dear: u32, cheap: u32) -> FeeEstimates {
    let rates = [dear, cheap].map(FeeRate::from_sat_per_vb_u32);
    let past = (0..3 * 144).map(|at| rates[(at + 36) / 72 % 2]);
    FeeEstimates { troughs: troughs(past), ..market_of([dear; 4]) }
}

#[test]
fn what_can_wait_waits_for_the_trough_that_came_before() {
    let market = at_the_top_of_a_day(20, 10);
    let in_vb = |left, budget, market: &FeeEstimates| {
        let rate = price(Hurry::Left(left), 800, budget, market).feerate().expect("it is worth it");
        rate.to_sat_per_kwu().div_ceil(250)
    };
    let table = [(144, 10), (100, 10), (40, 18), (24, 21), (18, 22)];
    let found = table.map(|(left, _)| (left, in_vb(left, 10_000_000, &market)));
    assert_eq!(found, table);
    // What a rise could price out by itself waits a few hours only, and what could not pay much more than the next
    // block costs goes by the estimates, as if there were no past.
    let with = |poorest: u32, budget, market: &FeeEstimates| {
        let all = price(Hurry::Left(130), 800, budget, market);
        let poorest = FeeRate::from_sat_per_vb_u32(poorest);
        Price { poorest, ..all }.feerate().expect("it is worth it").to_sat_per_kwu().div_ceil(250)
    };
    let flat = market_of([20; 4]);
    assert_eq!(with(240, 10_000_000, &market), 10);
    assert_eq!(with(239, 10_000_000, &market), 15);
    assert_eq!(with(239, 127_800, &market), with(239, 127_800, &flat));
    // What the days before say is not believed beyond twice the estimates.
    let dear =
        FeeEstimates { troughs: at_the_top_of_a_day(900, 800).troughs, ..market_of([20; 4]) };
    assert_eq!(in_vb(100, 10_000_000, &dear), 40);
    // The last stretch does not know of a past.
    for left in 0..=12 {
        let without = FeeEstimates { troughs: Troughs::default(), ..market.clone() };
        let (with, without) = (in_vb(left, 10_000_000, &market), in_vb(left, 10_000_000, &without));
        assert!(with >= without.min(20) && with <= without, "{left}: {with}, {without}");
    }
}

#[test]
fn the_last_stretch_begins_no_lower_than_what_was_waited_for() {
    // The past is dearer than what the estimates say, or there are none.
    let troughs = troughs([FeeRate::from_sat_per_vb_u32(100); 3 * 144]);
    for targets in [market_of([60, 50, 40, 30]).targets, Vec::new()] {
        let market = FeeEstimates { targets, floor: FeeRate::ZERO, troughs: troughs.clone() };
        let at = |left| price(Hurry::Left(left), 800, 10_000_000_000, &market).feerate();
        for left in 0..60 {
            assert!(at(left) >= at(left + 1), "{:?} after {:?}", at(left), at(left + 1));
        }
    }
}

#[test]
fn what_has_no_deadline_bids_a_little_less_than_the_trough() {
    let market = at_the_top_of_a_day(20, 10);
    let rate = |waited| {
        let rate = price(Hurry::Waited(waited), 600, 100_000, &market).feerate();
        rate.expect("it is worth it").to_sat_per_kwu()
    };
    assert!((2_050..2_250).contains(&rate(0)), "{}", rate(0));
    // Whoever has waited for days takes the cheapest of fewer blocks.
    assert!(rate(2_000) > 4_000, "{}", rate(2_000));
}

/// An answer that cannot be is an error of its source: nobody far from a deadline pays all that a claim brings for it.
#[test]
fn what_no_block_has_taken_is_not_believed() {
    let absurd = market_of([1_000_000; 4]);
    let rate = |left, market: &FeeEstimates| {
        let rate = price(Hurry::Left(left), 800, 100_000_000, market).feerate();
        rate.expect("it is worth it").to_sat_per_vb_ceil()
    };
    for left in [13, 40, 144] {
        let believed = rate(left, &absurd);
        assert!((2_500..4_000).contains(&believed), "{left}: {believed}");
        // The past says what a price of tomorrow may be.
        let past = FeeEstimates { troughs: at_the_top_of_a_day(20, 10).troughs, ..absurd.clone() };
        assert!(rate(left, &past) < 1_000, "{left}: {}", rate(left, &past));
    }
    // What is believed is a bound of the market, not of what the last block in time is worth.
    assert!(rate(1, &absurd) > 100_000, "{}", rate(1, &absurd));
    // A rise as they come is believed at once, whatever the past.
    let rise = FeeEstimates { troughs: at_the_top_of_a_day(20, 10).troughs, ..market_of([300; 4]) };
    assert_eq!(rise.within(1), FeeRate::from_sat_per_vb_u32(300));
}
