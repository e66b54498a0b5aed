//! Version 3 (BIP 431): one parent, one child, and their sizes.

use bitcoin::Transaction;

use super::super::Case;
use super::super::draft::{Coin, Draft, Fee, fee, out};
use super::{Deck, to_replace};

fn truc(deck: &Deck, coins: &[Coin], fee: Fee, padding: usize) -> Transaction {
    deck.make(&Draft::of(coins, fee).version(3).outputs(2).padding(padding))
}

pub(super) fn pair(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(2);
    let padding = if deck.chance(30) { 9_750 + deck.below(150) } else { 0 };
    let rate = deck.good_rate();
    let mut parent = Draft::of(&coins[..1], rate).version(3).outputs(2).padding(padding);
    if deck.chance(15) {
        parent.version = 2;
    }
    let parent = deck.make(&parent);
    let padding = if deck.chance(40) { 750 + deck.below(150) } else { 0 };
    let version = deck.one_of(&[3, 3, 3, 2, 1]);
    let inputs: &[Coin] = &[out(&parent, 0), coins[1]];
    let inputs = if deck.chance(50) { inputs } else { &inputs[..1] };
    let rate = deck.rate();
    let child = deck.make(&Draft::of(inputs, rate).version(version).padding(padding));
    if deck.chance(30) {
        case.package(&[&parent, &child]);
    } else {
        case.submit(&parent).submit(&child);
    }
    let version = deck.one_of(&[2, 3]);
    let grandchild = Draft::of(&[out(&child, 0)], Fee::rate(2000)).version(version);
    let grandchild = deck.make(&grandchild);
    case.submit(&grandchild);
    case.submit_after(&grandchild);
    case
}

/// A second child evicts the first, if it pays.
pub(super) fn sibling(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(3);
    let rate = deck.good_rate();
    let parent = truc(deck, &coins[..1], rate, 0);
    let first_inputs = [out(&parent, 0), coins[1]];
    let rate = deck.good_rate();
    let first = truc(deck, &first_inputs, rate, 0);
    case.submit(&parent).submit(&first);
    let above = to_replace(deck, fee(&first, &first_inputs));
    let inputs = match deck.below(4) {
        0 => vec![out(&parent, 1), coins[2]],
        // A conflict and a sibling at once.
        1 => vec![out(&parent, 1), coins[1]],
        2 => vec![out(&parent, 0), out(&parent, 1)],
        _ => vec![out(&parent, 1)],
    };
    let padding = deck.one_of(&[0, 0, 100, 1_000]);
    let second = truc(deck, &inputs, above, padding);
    if deck.chance(40) {
        case.package(&[&parent, &second]);
    } else {
        case.submit(&second);
    }
    if deck.chance(30) {
        // The second's fee is what the third has to beat.
        let above = to_replace(deck, fee(&second, &inputs));
        let third = truc(deck, &[out(&parent, 0)], above, 0);
        case.submit(&third);
    }
    case
}

/// More relatives than there may be.
pub(super) fn family(deck: &mut Deck) -> Case {
    let mut case = Case::default();
    let coins = deck.coins(3);
    let rate = deck.good_rate();
    let left = truc(deck, &coins[..1], rate, 0);
    let right = truc(deck, &coins[1..2], rate, 0);
    case.submit(&left);
    match deck.below(4) {
        0 => {
            case.submit(&right);
            case.submit(&truc(deck, &[out(&left, 0), out(&right, 0)], Fee::rate(3000), 0));
        }
        1 => {
            // A parent that has a child gets another parent.
            let child = truc(deck, &[out(&left, 0)], Fee::rate(1000), 0);
            case.submit(&child).submit(&right);
            let above = to_replace(deck, fee(&child, &[out(&left, 0)]));
            case.submit(&truc(deck, &[out(&left, 0), out(&right, 0)], above, 0));
        }
        2 => {
            // Beside a transaction of another version.
            let other = deck.make(&Draft::of(&coins[2..], Fee::rate(1000)).outputs(2));
            case.submit(&other);
            let version = deck.one_of(&[2, 3]);
            let inputs = [out(&left, 0), out(&other, 0)];
            case.submit(&deck.make(&Draft::of(&inputs, Fee::rate(1000)).version(version)));
            let lone = deck.make(&Draft::of(&[out(&other, 1)], Fee::rate(1000)).version(3));
            case.submit(&lone);
            case.submit_after(&lone);
        }
        _ => {
            let child = truc(deck, &[out(&left, 0)], Fee::rate(1000), 0);
            let grandchild = truc(deck, &[out(&child, 0)], Fee::rate(1000), 0);
            let all = [&left, &child, &grandchild];
            case.package(&all).package(&all[1..]);
            case.submit_after(&grandchild).package_after(&[&child, &grandchild]);
        }
    }
    case
}
