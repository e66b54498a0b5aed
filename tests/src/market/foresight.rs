//! Somebody who knows the future: each output is claimed in the cheapest block of its window, with
//! all the others that may share its transaction there. No policy can do better.
use super::Outcome;
use super::load::{Load, Role};
use super::weather::{ELASTICITY, Market};
use std::collections::BTreeMap;

/// Version, lock time, counts, one output, marker and flag.
pub(super) const TRANSACTION: u64 = 10 * 4 + 31 * 4 + 2;

/// Which outputs may share a transaction as far as the rules of pinning go: what another can spend is apart from
/// what is ours alone, and a lock time belongs to a whole transaction.
type Together = (Role, u32);

pub(super) struct Foresight {
    /// The block in which each output is claimed, and at which feerate.
    claimed: Vec<Option<(usize, f64)>>,
}

impl Foresight {
    pub(super) fn of(market: &Market, load: &Load) -> Self {
        let mut room = Room { market, taken: BTreeMap::new() };
        let mut order: Vec<usize> = (0..load.outputs.len()).collect();
        // Whoever has the shortest window chooses first.
        let window = |at: &usize| {
            let output = &load.outputs[*at];
            output.deadline.unwrap_or(load.end) - output.open
        };
        order.sort_by_key(|at| (window(at), *at));
        let mut claimed = vec![None; load.outputs.len()];
        for at in order {
            let output = &load.outputs[at];
            let weight = output.role.input_weight() as f64;
            let last = output.deadline.unwrap_or(load.end).min(load.end);
            let price = |height: usize| room.price(height, weight);
            let blocks =
                (output.open + 1..=last).filter_map(|height| Some((height, price(height)?)));
            let best = blocks.min_by(|a, b| a.1.total_cmp(&b.1));
            let affordable =
                best.filter(|(_, rate)| rate * weight <= output.value as f64 * 1_000.0);
            if let Some((height, _)) = affordable {
                room.take(height, weight);
            }
            claimed[at] = affordable;
        }
        Self { claimed }
    }

    /// Whether an output is worth its price at some time.
    pub(super) fn claims(&self, at: usize) -> bool {
        self.claimed.get(at).is_some_and(Option::is_some)
    }

    pub(super) fn outcome(&self, load: &Load) -> Outcome {
        let mut outcome = Outcome { outputs: load.outputs.len() as u64, ..Outcome::default() };
        let mut transactions: BTreeMap<(usize, Together), f64> = BTreeMap::new();
        for (output, claimed) in load.outputs.iter().zip(&self.claimed) {
            let Some((height, rate)) = *claimed else {
                outcome.lost += output.value;
                outcome.missed += u64::from(output.deadline.is_some());
                continue;
            };
            let weight = output.role.input_weight();
            outcome.weight += weight;
            outcome.fees += fee(rate, weight);
            transactions.insert((height, (output.role, output.lock_time)), rate);
        }
        for rate in transactions.into_values() {
            outcome.weight += TRANSACTION;
            outcome.fees += fee(rate, TRANSACTION);
        }
        outcome
    }
}

fn fee(rate: f64, weight: u64) -> u64 {
    (rate * weight as f64 / 1_000.0).ceil() as u64
}

/// What is left of each block.
struct Room<'a> {
    market: &'a Market,
    taken: BTreeMap<usize, f64>,
}

impl Room<'_> {
    /// What so much more weight costs in a block; `None` if it has no room at all.
    fn price(&self, height: usize, weight: f64) -> Option<f64> {
        if self.market.censored.contains(&height) {
            return None;
        }
        let clears = self.market.clears.get(height)?;
        let taken = self.taken.get(&height).copied().unwrap_or_default() + weight;
        let over = (taken / self.market.room - 1.0 / 40.0).max(0.0);
        // The demand of others falls with the price: see `Market::room_at`.
        (over < 1.0).then(|| clears * (1.0 - over).powf(-1.0 / ELASTICITY))
    }

    fn take(&mut self, height: usize, weight: f64) {
        *self.taken.entry(height).or_default() += weight;
    }
}
