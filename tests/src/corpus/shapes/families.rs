//! Clusters at their limits: 64 transactions, 101 kvB.

use super::super::Case;
use super::super::draft::{Draft, Fee, fee, out};
use super::Deck;

/// A chain of transactions, one longer than a cluster may be.
pub(super) fn chain(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let length = deck.one_of(&[24, 26, 63, 64, 65]);
    let coins = deck.coins(2);
    let mut tip = coins[0];
    for _ in 0..length {
        let tx = deck.pay(&[tip], Fee::rate(1000));
        tip = out(&tx, 0);
        case.submit(&tx);
    }
    // Either end: a replacement of the last is within the limit.
    let last = case.txs.last().cloned();
    if let Some(last) = last {
        let spent = last.input[0].previous_output;
        let before = super::Coin { outpoint: spent, value: tip.value + 111, lock: tip.lock };
        case.submit(&deck.pay(&[before, coins[1]], Fee::exactly(3_000)));
        case.submit_after(&deck.pay(&[tip], Fee::rate(1000)));
    }
    case
}

/// A parent with many children; the last may join two clusters.
pub(super) fn fan(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let width = deck.one_of(&[24, 62, 63, 64]);
    let coins = deck.coins(2);
    let parent = deck.make(&Draft::of(&coins[..1], Fee::rate(1000)).outputs(width + 1));
    case.submit(&parent);
    for vout in 0..width {
        let rate = deck.good_rate();
        case.submit(&deck.pay(&[out(&parent, vout)], rate));
    }
    let other = deck.pay(&coins[1..], Fee::rate(1000));
    case.submit(&other);
    case.submit(&deck.pay(&[out(&parent, width), out(&other, 0)], Fee::rate(1000)));
    if deck.chance(50) {
        let price = fee(&parent, &coins[..1]) + 100 * 8 * width as u64;
        case.submit(&deck.pay(&coins[..1], Fee::exactly(price)));
    }
    case
}

/// Large transactions, together near the limit of a cluster.
pub(super) fn size(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    let first = 30_000 + deck.below(30_000);
    let parent = deck.make(&Draft::of(&coins[..1], Fee::rate(1000)).padding(first).outputs(2));
    case.submit(&parent);
    // Both together, without their data, take some three hundred bytes.
    let room = 101_000 - first - 380;
    let second = room + deck.below(300);
    let inputs = [out(&parent, 0), coins[1]];
    let child = deck.make(&Draft::of(&inputs, Fee::rate(1000)).padding(second));
    if deck.chance(30) {
        case.package(&[&parent, &child]);
    } else {
        case.submit(&child);
    }
    case.submit(&deck.pay(&[out(&parent, 1)], Fee::rate(1000)));
    case
}
