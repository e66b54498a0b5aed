//! Which of a wallet's coins pay: for wallets that leave that to us.
use crate::units;
use alloc::vec::Vec;
use bitcoin::Amount;
use core::cmp::Reverse;

/// The fewest coins that bring `amount` beyond their own inputs, but no more than `most` of them: the largest ones, if they
/// do not bring it. Of several sets that do, one
/// with coins for which `is_own` is true, which are reserved for the claim already; and else the smallest that are enough: large ones are left for
/// whoever needs them.
///
/// `coins` are what is offered, each with what it brings.
///
/// ```
/// use arb_core::claim::coins::fewest;
/// use bitcoin::Amount;
///
/// let sat = Amount::from_sat;
/// let wallet = [("large", sat(90_000)), ("small", sat(4_000)), ("middle", sat(20_000))];
/// assert_eq!(fewest(wallet, sat(3_000), 9, |_| false), ["small"]);
/// assert_eq!(fewest(wallet, sat(93_000), 9, |_| false), ["small", "large"]);
/// assert_eq!(fewest(wallet, sat(93_000), 1, |_| false), ["large"]);
/// assert_eq!(fewest(wallet, sat(3_000), 9, |coin| *coin == "middle"), ["middle"]);
/// ```
pub fn fewest<T>(
    coins: impl IntoIterator<Item = (T, Amount)>,
    amount: Amount,
    most: usize,
    is_own: impl Fn(&T) -> bool,
) -> Vec<T> {
    let mut rest: Vec<(T, Amount)> =
        coins.into_iter().filter(|(_, brings)| *brings > Amount::ZERO).collect();
    rest.sort_by_key(|(_, brings)| Reverse(*brings));
    let largest = |rest: &[(T, Amount)], count: usize| {
        units::total(rest.iter().take(count).map(|(_, brings)| *brings))
    };
    let mut all = Amount::ZERO;
    let before = rest.iter().take_while(|(_, brings)| {
        let is_missing = all < amount;
        all = units::plus(all, *brings);
        is_missing
    });
    let mut left = before.count();
    if left > most || largest(&rest, left) < amount {
        return rest.into_iter().take(most).map(|(coin, _)| coin).collect();
    }
    let (mut missing, mut chosen) = (amount, Vec::new());
    while left > 0 {
        left = left.saturating_sub(1);
        // With one of the largest, or one that is enough beside them.
        let least = missing.checked_sub(largest(&rest, left)).unwrap_or(Amount::ZERO);
        let fits = |(at, (_, brings)): &(usize, &(T, Amount))| *at < left || *brings >= least;
        let own = rest.iter().enumerate().filter(fits).filter(|(_, (coin, _))| is_own(coin)).last();
        let next = own.or_else(|| rest.iter().enumerate().filter(fits).last());
        let Some(at) = next.map(|(at, _)| at) else { break };
        let (coin, brings) = rest.remove(at);
        missing = missing.checked_sub(brings).unwrap_or(Amount::ZERO);
        chosen.push(coin);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_fewer_are_enough_and_the_last_is_the_smallest(
            brings in prop::collection::vec(0u64..1_000, 0..12),
            own in prop::collection::vec(any::<bool>(), 12),
            amount in 0u64..4_000,
            most in 0usize..6,
        ) {
            let sat = Amount::from_sat;
            let coins = || brings.iter().copied().map(sat).enumerate();
            let sum = |all: &[usize]| all.iter().map(|at| brings[*at]).sum::<u64>();
            let chosen = fewest(coins(), sat(amount), usize::MAX, |_| false);
            let of_use = brings.iter().filter(|brings| **brings > 0).count();
            prop_assert!(sum(&chosen) >= amount || chosen.len() == of_use);
            let mut largest = brings.clone();
            largest.sort_unstable_by_key(|brings| Reverse(*brings));
            let fewer = chosen.len().saturating_sub(1);
            prop_assert!(chosen.is_empty() || largest[..fewer].iter().sum::<u64>() < amount);
            if sum(&chosen) >= amount {
                // No smaller one would do instead of any of them.
                for one in &chosen {
                    let needed = amount.saturating_sub(sum(&chosen) - brings[*one]);
                    let mut unused = (0..brings.len()).filter(|at| !chosen.contains(at));
                    prop_assert!(unused.all(|at| brings[at] < needed.max(1) || brings[at] >= brings[*one]));
                }
            }
            // With room for some only it is these, or the largest.
            let some = fewest(coins(), sat(amount), most, |_| false);
            if chosen.len() <= most {
                prop_assert_eq!(&some, &chosen);
            } else {
                prop_assert_eq!(some.len(), most);
                prop_assert_eq!(sum(&some), largest[..most].iter().sum::<u64>());
            }
            // What the claim has already is taken where it makes them no more.
            let again = fewest(coins(), sat(amount), usize::MAX, |at| own[*at]);
            prop_assert_eq!(again.len(), chosen.len());
            prop_assert!(sum(&again) >= amount || again.len() == of_use);
            let is_one_enough = |at: usize| own[at] && brings[at] >= amount;
            if again.len() == 1 && (0..brings.len()).any(is_one_enough) {
                prop_assert!(own[again[0]]);
            }
        }
    }
}
