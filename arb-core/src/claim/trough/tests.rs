//! Whoever waits for a trough waits for one that came before, and for no longer than there is time.
use super::*;
use alloc::vec;
use proptest::prelude::*;

const fn rate(sat_per_kwu: u64) -> FeeRate {
    FeeRate::from_sat_per_kwu(sat_per_kwu)
}

/// Three days that are dear for 72 blocks and cheap for 72, and `late` blocks of a fourth.
fn waves(late: usize) -> Vec<FeeRate> {
    let at = |at: usize| if (at / 72).is_multiple_of(2) { rate(8_000) } else { rate(2_000) };
    (0..3 * DAY + late).map(at).collect()
}

fn within(past: &[FeeRate], blocks: u32) -> u64 {
    Troughs::of(past).within(blocks).expect("a past").to_sat_per_kwu()
}

#[test]
fn a_steady_price_is_expected_to_stay() {
    for blocks in [0, 1, 70, 144, u32::MAX] {
        assert_eq!(within(&[rate(5_000); Troughs::PAST], blocks), 5_000 * 94 / 100);
    }
}

#[test]
fn the_trough_of_a_day_is_waited_for_if_it_comes_in_time() {
    // The dear half of a day begins: its first blocks, as averages of seven have it, are half as dear.
    let (soon, later) = (within(&waves(10), 40), within(&waves(10), 80));
    assert!(soon > 7_000 && later < 2_000, "{soon}, {later}");
    // The cheap half ends in ten blocks: what can wait a little longer bids what is enough now.
    let (now, waiting) = (within(&waves(134), 1), within(&waves(134), 60));
    assert_eq!((now, waiting), (1_880, 1_880));
}

#[test]
fn what_differs_from_the_days_before_is_expected_to_pass() {
    let mut past = vec![rate(5_000); 3 * DAY];
    past.extend([rate(10_000); PRESENT]);
    let table = [1, 6, 24, 144].map(|blocks| within(&past, blocks));
    assert!(table.is_sorted_by(|sooner, later| sooner > later), "{table:?}");
    assert!(table[0] > 8_000 && table[3] < 5_000, "{table:?}");
}

#[test]
fn a_short_past_says_nothing() {
    for length in [0, 1, 2 * DAY - 1] {
        assert_eq!(Troughs::of(&vec![rate(5_000); length]).within(10), None, "{length} blocks");
    }
    assert!(Troughs::of(&[rate(5_000); 2 * DAY]).within(10).is_some());
    // Older blocks are not looked at.
    let mut past = vec![rate(900_000); 10];
    past.extend(waves(0));
    assert_eq!(Troughs::of(&past), Troughs::of(&waves(0)));
}

#[test]
fn extremes_do_not_overflow() {
    assert_eq!(within(&[FeeRate::ZERO; Troughs::PAST], 10), 0);
    let most = within(&[FeeRate::MAX; Troughs::PAST], 10);
    assert_eq!(most, u64::from(u32::MAX) * 94 / 100);
}

proptest! {
    #[test]
    fn who_can_wait_longer_bids_no_more(
        past in prop::collection::vec((0u64..200_000).prop_map(rate), 2 * DAY..4 * DAY), blocks in 0u32..300,
    ) {
        let troughs = Troughs::of(&past);
        prop_assert!(troughs.within(blocks + 1) <= troughs.within(blocks));
    }
}
