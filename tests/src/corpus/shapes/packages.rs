//! Packages: a child with its parents.

use bitcoin::Transaction;

use super::super::Case;
use super::super::draft::{Coin, Draft, Fee, Lock, fee, nowhere, out, spend};
use super::{Deck, to_replace};

/// One parent, one child, at every combination of fees; again, and with a parent that is in.
pub(super) fn pair(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    let version = deck.one_of(&[2, 2, 3]);
    let low = deck.rate();
    let parent = deck.make(&Draft::of(&coins[..1], low).version(version).outputs(2));
    let inputs: &[Coin] = &[out(&parent, 0), coins[1]];
    let inputs = if deck.chance(50) { inputs } else { &inputs[..1] };
    // At the edge of what both need.
    let due = (parent.vsize() as u64).saturating_sub(fee(&parent, &coins[..1]));
    let more = deck.one_of(&[-150, -1, 0, 0, 1, 500]);
    let child = Draft::of(inputs, Fee { base: due, rate: 1000, more }).version(version);
    let child = deck.make(&child);
    match deck.below(6) {
        0 => {
            case.submit(&parent);
        }
        1 => {
            case.submit(&parent).submit(&child);
        }
        2 => {
            case.submit(&child);
        }
        _ => {}
    }
    case.package(&[&parent, &child]);
    if deck.chance(30) {
        case.package(&[&parent, &child]);
    }
    if deck.chance(40) {
        // Another child beside the parent.
        let above = to_replace(deck, fee(&child, inputs));
        let better = deck.make(&Draft::of(inputs, above).version(version));
        case.package(&[&parent, &better]);
    }
    if deck.chance(30) {
        case.package_after(&[&parent, &child]);
        let late = deck.make(&Draft::of(&[out(&parent, 1)], Fee::rate(1000)).version(version));
        case.package_after(&[&parent, &late]);
    }
    case
}

/// Forms that are refused, and some that are not.
pub(super) fn form(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(3);
    let low = Fee::rate(deck.one_of(&[100, 1000]));
    let parent = deck.make(&Draft::of(&coins[..1], low).outputs(2));
    let child = deck.pay(&[out(&parent, 0)], Fee::rate(4000));
    let stranger = deck.pay(&coins[1..2], Fee::rate(2000));
    match deck.below(11) {
        0 => case.package(&[&child, &parent]),
        1 => case.package(&[&parent, &stranger]),
        2 => case.package(&[&parent, &parent, &child]),
        3 => case.package(&[&parent]),
        4 => case.package(&[&stranger]),
        5 => {
            let rival = deck.pay(&[coins[0], out(&parent, 1)], Fee::rate(4000));
            case.package(&[&parent, &rival])
        }
        6 => {
            // Two parents of which one spends the other.
            let middle = deck.make(&Draft::of(&[out(&parent, 0)], low));
            let last = deck.pay(&[out(&parent, 1), out(&middle, 0)], Fee::rate(5000));
            case.package(&[&parent, &middle, &last]).package(&[&parent, &middle])
        }
        7 => {
            let large = deck.make(&Draft::of(&coins[1..2], Fee::rate(1000)).padding(60_000));
            let inputs = [out(&parent, 0), out(&large, 0), coins[2]];
            let second = deck.make(&Draft::of(&inputs, Fee::rate(1000)).padding(45_000));
            case.package(&[&parent, &large, &second])
        }
        8 => {
            let twin = deck.pay(&coins[..1], Fee::rate(3000));
            let last = deck.pay(&[out(&parent, 0), out(&twin, 0)], Fee::rate(5000));
            case.package(&[&parent, &twin, &last])
        }
        9 => {
            let mut bad = child.clone();
            bad.input[0].witness.clear();
            case.package(&[&parent, &bad]).package(&[&parent, &child]).package(&[&parent, &bad])
        }
        _ => {
            let strange = nowhere(deck.random.bytes32());
            let lost = deck.pay(&[out(&parent, 0), strange], Fee::rate(4000));
            case.package(&[&parent, &lost])
        }
    };
    case
}

/// Several parents with one child.
pub(super) fn parents(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let count = deck.one_of(&[2, 2, 3, 4, 24, 25]);
    let coins = deck.coins(count + 1);
    let parents: Vec<Transaction> = coins[..count]
        .iter()
        .map(|coin| {
            let rate = deck.rate();
            deck.pay(&[*coin], rate)
        })
        .collect();
    let mut inputs: Vec<Coin> = parents.iter().map(|parent| out(parent, 0)).collect();
    if deck.chance(50) {
        inputs.push(coins[count]);
    }
    let low: u64 = parents
        .iter()
        .zip(&coins)
        .map(|(parent, coin)| (parent.vsize() as u64).saturating_sub(fee(parent, &[*coin])))
        .sum();
    let more = deck.one_of(&[-1, 0, 1, 1000]);
    let child = deck.pay(&inputs, Fee { base: low, rate: 1000, more });
    if deck.chance(40) {
        let place = deck.below(count);
        case.submit(&parents[place]);
    }
    let mut all: Vec<&Transaction> = parents.iter().collect();
    if deck.chance(20) {
        all.remove(0);
    }
    all.push(&child);
    case.package(&all);
    case.package_after(&all);
    case
}

/// Packages that replace: by the parent, by the child, by both.
pub(super) fn replace(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(4);
    let version = deck.one_of(&[2, 2, 3]);
    let rate = deck.good_rate();
    let padding = deck.one_of(&[0, 0, 600]);
    let old = Draft::of(&coins[..1], rate).version(version).outputs(2).padding(padding);
    let old = deck.make(&old);
    let rate = deck.good_rate();
    let old_child = deck.make(&Draft::of(&[out(&old, 0)], rate).version(version));
    case.submit(&old);
    let mut replaced = fee(&old, &coins[..1]);
    if deck.chance(50) {
        case.submit(&old_child);
        replaced += fee(&old_child, &[out(&old, 0)]);
    }
    let other = deck.make(&Draft::of(&coins[1..2], Fee::rate(1000)).version(version));
    let inputs = match deck.below(4) {
        // With an ancestor in the mempool.
        0 => {
            case.submit(&other);
            vec![coins[0], out(&other, 0)]
        }
        1 => vec![coins[0], coins[2]],
        _ => vec![coins[0]],
    };
    let low = deck.rate();
    let parent = deck.make(&Draft::of(&inputs, low).version(version).outputs(2));
    let mut child_inputs = vec![out(&parent, 0)];
    match deck.below(4) {
        // The child displaces something, too.
        0 => {
            let rival = deck.make(&Draft::of(&coins[3..], Fee::rate(1000)).version(version));
            case.submit(&rival);
            replaced += fee(&rival, &coins[3..]);
            child_inputs.push(coins[3]);
        }
        1 => child_inputs.push(coins[3]),
        _ => {}
    }
    let due = (replaced + parent.vsize() as u64).saturating_sub(fee(&parent, &inputs));
    let more = deck.one_of(&[-300, -1, 0, 1, 2000, 8000]);
    let price = Fee { base: due, rate: 1000, more };
    let child = deck.make(&Draft::of(&child_inputs, price).version(version));
    case.package(&[&parent, &child]);
    if deck.chance(30) {
        let above = to_replace(deck, fee(&child, &child_inputs));
        let better = deck.make(&Draft::of(&child_inputs, above).version(version));
        case.package(&[&parent, &better]);
    }
    if deck.chance(30) {
        case.package_after(&[&old, &old_child]).package_after(&[&parent, &child]);
    }
    case
}

/// Ephemeral dust: an anchor of little value on a parent without fee.
pub(super) fn dust(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(3);
    let version = deck.one_of(&[2, 3, 3]);
    let value = deck.one_of(&[0, 1, 239, 240]);
    let lock = deck.one_of(&[Lock::Anchor, Lock::Anchor, Lock::Open]);
    let own = deck.one_of(&[0, 0, 0, 200, 1]);
    let mut parent = Draft::of(&coins[..1], Fee::exactly(own)).version(version);
    for _ in 0..=deck.below(8) / 7 {
        parent = parent.with(deck.maker.output(lock, value));
    }
    let parent = deck.make(&parent);
    let anchor = spend(&parent, 1, lock);
    let inputs = match deck.below(4) {
        0 => vec![out(&parent, 0)],
        1 => vec![out(&parent, 0), anchor],
        _ => vec![anchor, coins[1]],
    };
    let due = parent.vsize() as u64;
    let more = deck.one_of(&[-1, 0, 500]);
    let child =
        deck.make(&Draft::of(&inputs, Fee { base: due, rate: 1000, more }).version(version));
    case.submit(&parent).package(&[&parent, &child]);
    let above = to_replace(deck, fee(&child, &inputs));
    let again = match deck.below(3) {
        // It leaves the dust, or takes it with another coin.
        0 => vec![out(&parent, 0)],
        1 => vec![anchor, coins[2]],
        _ => vec![out(&parent, 0), coins[2]],
    };
    let again = deck.make(&Draft::of(&again, above).version(version));
    if deck.chance(50) {
        case.submit(&again);
    } else {
        case.package(&[&parent, &again]);
    }
    case.package_after(&[&parent, &child]);
    case
}
