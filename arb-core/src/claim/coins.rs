//! Which of a wallet's coins pay: for wallets that leave that to us.
use alloc::vec::Vec;
use bitcoin::Amount;
use core::cmp::Reverse;

/// The fewest coins that bring `amount` beyond their own inputs, all of them if they do not; of several such sets, one
/// that takes no coin which others need more: the last is the smallest that is enough. Those for which `is_own` is true are reserved for
/// the claim already, and come first.
///
/// `coins` are what is offered, each with what it brings.
///
/// ```
/// use arb_core::claim::coins::fewest;
/// use bitcoin::Amount;
///
/// let sat = Amount::from_sat;
/// let wallet = [("large", sat(90_000)), ("small", sat(4_000)), ("middle", sat(20_000))];
/// assert_eq!(fewest(wallet, sat(3_000), |_| false), ["small"]);
/// assert_eq!(fewest(wallet, sat(93_000), |_| false), ["large", "small"]);
/// assert_eq!(fewest(wallet, sat(3_000), |coin| *coin == "middle"), ["middle"]);
/// ```
pub fn fewest<T>(
    coins: impl IntoIterator<Item = (T, Amount)>,
    amount: Amount,
    is_own: impl Fn(&T) -> bool,
) -> Vec<T> {
    let (own, mut others): (Vec<_>, Vec<_>) = coins
        .into_iter()
        .filter(|(_, brings)| *brings > Amount::ZERO)
        .partition(|(c, _)| is_own(c));
    let mut missing = amount;
    let mut chosen = Vec::new();
    let mut take = |(coin, brings): (T, Amount), missing: &mut Amount| {
        *missing = missing.checked_sub(brings).unwrap_or(Amount::ZERO);
        chosen.push(coin);
    };
    let mut own = own;
    own.sort_by_key(|(_, brings)| Reverse(*brings));
    let mut own = own.into_iter();
    while missing > Amount::ZERO
        && let Some(coin) = own.next()
    {
        take(coin, &mut missing);
    }
    // Largest first, and the first that is enough from the other end.
    others.sort_by_key(|(_, brings)| Reverse(*brings));
    while missing > Amount::ZERO && !others.is_empty() {
        let enough = others.iter().rposition(|(_, brings)| *brings >= missing);
        take(others.remove(enough.unwrap_or(0)), &mut missing);
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
        ) {
            let sat = Amount::from_sat;
            let coins = || brings.iter().copied().map(sat).enumerate();
            let sum = |all: &[usize]| all.iter().map(|at| brings[*at]).sum::<u64>();
            let chosen = fewest(coins(), sat(amount), |_| false);
            let of_use = brings.iter().filter(|brings| **brings > 0).count();
            prop_assert!(sum(&chosen) >= amount || chosen.len() == of_use);
            let mut largest = brings.clone();
            largest.sort_unstable_by_key(|brings| Reverse(*brings));
            let fewer = chosen.len().saturating_sub(1);
            prop_assert!(chosen.is_empty() || largest[..fewer].iter().sum::<u64>() < amount);
            if let Some((last, before)) = chosen.split_last()
                && sum(&chosen) >= amount
            {
                let left = amount - sum(before);
                let unused = (0..brings.len()).filter(|at| !chosen.contains(at));
                prop_assert!(unused.into_iter().all(|at| brings[at] < left || brings[at] >= brings[*last]));
            }
            // What the claim has already comes first.
            let chosen = fewest(coins(), sat(amount), |at| own[*at]);
            let of_others = chosen.iter().position(|at| !own[*at]).unwrap_or(chosen.len());
            prop_assert!(chosen[of_others..].iter().all(|at| !own[*at]));
            if of_others < chosen.len() {
                let all_own = (0..brings.len()).filter(|at| own[*at] && brings[*at] > 0).count();
                prop_assert_eq!(of_others, all_own);
            }
        }
    }
}
