//! Replacements: BIP 125 as Core 31 applies it, with the feerate diagram as the judge.

use super::super::Case;
use super::super::draft::{Coin, Draft, Fee, fee, out};
use super::{Deck, to_replace};

/// One by one.
pub(super) fn one(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    // Whether it signals makes no difference.
    let sequence = deck.one_of(&[0xffff_ffff, 0xffff_fffd]);
    let rate = deck.good_rate();
    let first = deck.make(&Draft::of(&coins[..1], rate).sequence(sequence));
    case.submit(&first);
    let mut price = fee(&first, &coins[..1]);
    for _ in 0..=deck.below(2) {
        let more = if deck.chance(40) { 2 } else { 1 };
        let outputs = 1 + deck.below(4);
        let above = to_replace(deck, price);
        let padding = deck.one_of(&[0, 0, 0, 300, 2000]);
        let next = Draft::of(&coins[..more], above).outputs(outputs).padding(padding);
        let next = deck.make(&next);
        price = price.max(fee(&next, &coins[..more]));
        case.submit(&next);
    }
    case
}

/// A transaction with descendants, some of which pay more than it.
pub(super) fn family(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    let rate = deck.good_rate();
    let parent = deck.make(&Draft::of(&coins[..1], rate).outputs(3));
    let mut total = fee(&parent, &coins[..1]);
    case.submit(&parent);
    let mut tips: Vec<Coin> = (0..3).map(|vout| out(&parent, vout)).collect();
    for _ in 0..=deck.below(4) {
        let place = deck.below(tips.len());
        let tip = tips.remove(place);
        let rate = deck.good_rate();
        let padding = deck.one_of(&[0, 500]);
        let child = deck.make(&Draft::of(&[tip], rate).padding(padding));
        total += fee(&child, &[tip]);
        tips.push(out(&child, 0));
        case.submit(&child);
    }
    let above = to_replace(deck, total);
    let rival = match deck.below(4) {
        0 => Draft::of(&coins, above),
        1 => Draft::of(&coins[..1], above).padding(1500),
        // It spends what it replaces, or a descendant of that.
        2 => Draft::of(&[coins[0], tips[0]], above),
        _ => Draft::of(&coins[..1], above),
    };
    let rival = deck.make(&rival);
    case.submit(&rival);
    if deck.chance(50) {
        case.submit(&deck.pay(&[out(&rival, 0)], Fee::rate(1000)));
    }
    case.submit_after(&parent);
    case
}

/// Several at once, each with its fee.
pub(super) fn several(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let count = 2 + deck.below(4);
    let coins = deck.coins(count + 1);
    let mut total = 0;
    for coin in &coins[..count] {
        let rate = deck.good_rate();
        let padding = deck.one_of(&[0, 400]);
        let tx = deck.make(&Draft::of(&[*coin], rate).padding(padding));
        total += fee(&tx, &[*coin]);
        case.submit(&tx);
    }
    let above = to_replace(deck, total);
    let upto = if deck.chance(50) { count } else { count + 1 };
    case.submit(&deck.pay(&coins[..upto], above));
    case
}

/// A replacement within a cluster: what stays behind counts for the diagram.
pub(super) fn graph(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(4);
    // Two low parents, a child of both, and a sibling.
    let low = Fee { base: 0, rate: 1000, more: 0 };
    let left = deck.make(&Draft::of(&coins[..1], low).outputs(2));
    let right_rate = deck.good_rate();
    let right = deck.make(&Draft::of(&coins[1..2], right_rate).outputs(2));
    let joint = [out(&left, 0), out(&right, 0), coins[2]];
    let joint_rate = deck.good_rate();
    let child = deck.pay(&joint, joint_rate);
    case.submit(&left).submit(&right).submit(&child);
    if deck.chance(60) {
        let rate = deck.good_rate();
        case.submit(&deck.pay(&[out(&left, 1)], rate));
    }
    let base = fee(&child, &joint);
    let above = to_replace(deck, base);
    let inputs: Vec<Coin> = match deck.below(5) {
        0 => vec![coins[2]],
        1 => vec![coins[2], out(&left, 0)],
        2 => vec![coins[2], coins[3]],
        3 => vec![coins[2], out(&right, 1)],
        _ => vec![out(&right, 0), coins[3]],
    };
    let padding = deck.one_of(&[0, 0, 250, 2500]);
    let rival = deck.make(&Draft::of(&inputs, above).padding(padding));
    case.submit(&rival);
    if deck.chance(40) {
        let above = to_replace(deck, fee(&rival, &inputs));
        case.submit(&deck.pay(&inputs, above));
    }
    case
}

/// As many clusters at once as may be replaced, and one more.
pub(super) fn many(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(101);
    for coin in &coins {
        case.submit(&deck.pay(&[*coin], Fee::rate(1000)));
    }
    case.submit(&deck.pay(&coins, Fee::exactly(50_000)));
    case.submit(&deck.pay(&coins[1..], Fee::exactly(50_000)));
    case
}
