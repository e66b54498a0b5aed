//! Whoever waits for a trough waits for one that came before, and for no longer than there is time.
use super::*;
use alloc::vec;
use proptest::prelude::*;

const START: u32 = 1_700_000_000;

const fn rate(sat_per_kwu: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_kwu)
}

/// Blocks that come every ten minutes.
fn steady(rates: impl IntoIterator<Item = FeeRate>) -> Vec<PastBlock> {
    let times = (START..).step_by(600);
    times.zip(rates).map(|(time, feerate)| PastBlock { time, feerate }).collect()
}

/// Three days that are dear for 72 blocks and cheap for 72, and `late` blocks of a fourth.
fn waves(late: usize) -> Vec<PastBlock> {
    let at = |at: usize| if (at / 72).is_multiple_of(2) { rate(8_000) } else { rate(2_000) };
    steady((0..3 * BLOCKS + late).map(at))
}

fn within(past: &[PastBlock], blocks: u32) -> u64 {
    Troughs::of(past).within(blocks).expect("a past").to_sat_per_kwu()
}

#[test]
fn a_steady_price_is_expected_to_stay() {
    for blocks in [0, 1, 70, 144, u32::MAX] {
        assert_eq!(within(&steady([rate(5_000); Troughs::PAST]), blocks), 5_000 * 92 / 100);
    }
}

#[test]
fn the_trough_of_a_day_is_waited_for_if_it_comes_in_time() {
    // The dear half of a day begins.
    let (soon, later) = (within(&waves(20), 30), within(&waves(20), 70));
    assert!(soon > 7_000 && later < 2_000, "{soon}, {later}");
    // The cheap half ends in ten blocks: what can wait a little longer bids what is enough now.
    let (now, waiting) = (within(&waves(134), 1), within(&waves(134), 60));
    assert!(now <= 2_400 && waiting <= now, "{now}, {waiting}");
}

/// The nights are as far away as the clock says, however many blocks there were.
#[test]
fn hours_are_told_by_the_clock() {
    let rate_at = |time: u32| {
        let of_day = time.wrapping_sub(START) % 86_400;
        if of_day < 43_200 { rate(8_000) } else { rate(2_000) }
    };
    for (every, days) in [(600, 3), (480, 2), (900, 3)] {
        let times = (START..START + days * 86_400 + 6_000).step_by(every);
        let past: Vec<_> = times.map(|time| PastBlock { time, feerate: rate_at(time) }).collect();
        // Some ten hours are left of the dear half.
        let (soon, later) = (within(&past, 40), within(&past, 80));
        assert!(soon > 5_000 && later < 2_000, "a block in {every} seconds: {soon}, {later}");
    }
    // The order of the headers' times is not that of the blocks.
    let mut swapped = waves(20);
    swapped.swap(100, 101);
    swapped.iter_mut().skip(100).step_by(7).for_each(|block| block.time += 700);
    let (soon, later) = (within(&swapped, 30), within(&swapped, 70));
    assert!(soon > 7_000 && later < 2_000, "{soon}, {later}");
}

#[test]
fn what_differs_from_the_days_before_is_expected_to_pass() {
    let mut rates = vec![rate(5_000); 3 * BLOCKS];
    rates.extend([rate(10_000); PRESENT]);
    let past = steady(rates);
    let table = [1, 6, 24, 144].map(|blocks| within(&past, blocks));
    assert!(table.is_sorted_by(|sooner, later| sooner > later), "{table:?}");
    assert!(table[0] > 8_000 && table[3] < 5_100, "{table:?}");
}

#[test]
fn a_short_past_says_nothing() {
    for length in [0, 1, 2 * BLOCKS] {
        let past = steady(vec![rate(5_000); length]);
        assert_eq!(Troughs::of(&past).within(10), None, "{length} blocks");
    }
    assert!(Troughs::of(&steady([rate(5_000); 2 * BLOCKS + 1])).within(10).is_some());
    // Older blocks are not looked at.
    let mut past = vec![PastBlock { time: START - 600, feerate: rate(900_000) }; 10];
    past.extend(waves(0));
    assert_eq!(Troughs::of(&past), Troughs::of(&waves(0)));
}

#[test]
fn where_nothing_was_full_nothing_is_bid() {
    let mut rates = vec![FeeRate::ZERO; 3 * BLOCKS];
    assert_eq!(within(&steady(rates.clone()), 10), 0);
    rates.extend([rate(10_000); PRESENT]);
    assert!(within(&steady(rates), 1) < 10_000);
}

#[test]
fn extremes_do_not_overflow() {
    let most = within(&steady([FeeRate::MAX; Troughs::PAST]), 10);
    assert_eq!(most, u64::from(u32::MAX) * 92 / 100);
    let times = [0, 1, u32::MAX - 1, u32::MAX];
    let past: Vec<_> = times.map(|time| PastBlock { time, feerate: FeeRate::MAX }).into();
    assert!(Troughs::of(&past).within(u32::MAX).is_some());
}

proptest! {
    #[test]
    fn who_can_wait_longer_bids_no_more(
        past in prop::collection::vec((0u32..1_200, (0u64..200_000).prop_map(rate)), 2 * BLOCKS..4 * BLOCKS),
        blocks in 0u32..300,
    ) {
        let mut time = START;
        let block = |(after, feerate)| {
            time += after;
            PastBlock { time, feerate }
        };
        let past: Vec<_> = past.into_iter().map(block).collect();
        let troughs = Troughs::of(&past);
        prop_assert!(troughs.within(blocks + 1) <= troughs.within(blocks));
    }
}
