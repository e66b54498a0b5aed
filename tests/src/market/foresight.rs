//! Somebody who knows the future: each output is claimed in the cheapest block of its window, with
//! all the others that may share its transaction there.
//!
//! It is bound to what everybody is bound to. Room: whatever is in a block pays what the last of it costs. The rules of
//! replacement: who replaces a conflicting spend pays for that. The policy: nobody said that transactions of several
//! channels may be joined. What costs more than it brings, its own transaction included, is left.
use super::Outcome;
use super::load::{Load, Output, Role};
use super::weather::{ELASTICITY, Market};
use super::world::INCREMENT;
use std::collections::BTreeMap;

/// Version, lock time, counts, one output, marker and flag.
pub(super) const TRANSACTION: u64 = 10 * 4 + 31 * 4 + 2;

/// Which outputs may share a transaction as far as the rules of pinning go: what another can spend is apart from
/// what is ours alone, and a lock time belongs to a whole transaction. What has, or had, another's spend in the mempool is by itself: whoever pins
/// one output would else push out the others' spend with it. Nor are channels joined, if nobody says that they may be.
type Together = (u32, Role, u32, Option<usize>);

fn together(at: usize, output: &Output) -> Together {
    let is_contested = output.pin.is_some() || output.cycles > 0;
    (output.channel, output.role, output.lock_time, is_contested.then_some(at))
}

/// How often every output chooses anew, now that the others have chosen.
const ROUNDS: usize = 3;

pub(super) struct Foresight {
    /// The block in which each output is claimed, and at which feerate.
    claimed: Vec<Option<(usize, f64)>>,
}

impl Foresight {
    pub(super) fn of(market: &Market, load: &Load) -> Self {
        let mut room = Room { market, taken: BTreeMap::new(), shared: BTreeMap::new() };
        let mut order: Vec<usize> = (0..load.outputs.len()).collect();
        // Whoever has the shortest window chooses first.
        let window = |at: &usize| {
            let output = &load.outputs[*at];
            output.deadline.unwrap_or(load.end) - output.open
        };
        order.sort_by_key(|at| (window(at), *at));
        let mut chosen: Vec<Option<usize>> = vec![None; load.outputs.len()];
        for at in order.iter().copied().cycle().take(ROUNDS * order.len()) {
            let output = &load.outputs[at];
            if let Some(height) = chosen[at].take() {
                room.leave(height, at, output);
            }
            let last = output.deadline.unwrap_or(load.end).min(load.end);
            let blocks = (output.open + 1..=last)
                .filter_map(|height| Some((height, room.cost(height, at, output)?)));
            let best = blocks.min_by(|a, b| a.1.total_cmp(&b.1));
            let affordable = best.filter(|(_, cost)| *cost <= output.value as f64 * 1_000.0);
            if let Some((height, _)) = affordable {
                room.take(height, at, output);
            }
            chosen[at] = affordable.map(|(height, _)| height);
        }
        // All that is in a block pays the same.
        let claimed = chosen.into_iter().map(|height| height.and_then(|height| room.at(height)));
        Self { claimed: claimed.collect() }
    }

    /// Whether an output is worth its price at some time.
    pub(super) fn claims(&self, at: usize) -> bool {
        self.claimed.get(at).is_some_and(Option::is_some)
    }

    pub(super) fn outcome(&self, load: &Load) -> Outcome {
        let mut outcome = Outcome { outputs: load.outputs.len() as u64, ..Outcome::default() };
        let mut transactions: BTreeMap<(usize, Together), (f64, u64, u64)> = BTreeMap::new();
        for (at, (output, claimed)) in load.outputs.iter().zip(&self.claimed).enumerate() {
            let Some((height, rate)) = *claimed else {
                outcome.lost += output.value;
                outcome.missed += u64::from(output.deadline.is_some());
                continue;
            };
            let all = transactions.entry((height, together(at, output))).or_insert((
                rate,
                TRANSACTION,
                0,
            ));
            all.1 += output.role.input_weight();
            all.2 += output.pin.unwrap_or_default();
        }
        for (rate, weight, pins) in transactions.into_values() {
            outcome.weight += weight;
            let replacing = if pins > 0 { pins + fee(INCREMENT as f64, weight) } else { 0 };
            outcome.fees += fee(rate, weight).max(replacing);
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
    taken: BTreeMap<usize, u64>,
    /// Outputs of each transaction.
    shared: BTreeMap<(usize, Together), usize>,
}

impl Room<'_> {
    /// What an output adds to a block, with its transaction where it is the first one of that.
    fn weight(&self, height: usize, at: usize, output: &Output) -> u64 {
        let others = self.shared.get(&(height, together(at, output))).copied().unwrap_or_default();
        output.role.input_weight() + if others == 0 { TRANSACTION } else { 0 }
    }

    /// What an output costs more in a block, also by what is there already becoming dearer, times a
    /// thousand; `None` if there is no room.
    fn cost(&self, height: usize, at: usize, output: &Output) -> Option<f64> {
        let before = self.taken.get(&height).copied().unwrap_or_default();
        let after = before + self.weight(height, at, output);
        let cost = |taken: u64| Some(self.price(height, taken)? * taken as f64);
        Some(cost(after)? - cost(before)?)
    }

    /// The feerate that a block costs all of so much weight: the least of which there is room for all of
    /// it.
    fn price(&self, height: usize, taken: u64) -> Option<f64> {
        if self.market.censored.contains(&height) {
            return None;
        }
        let clears = self.market.clears.get(height)?;
        let over = (taken as f64 / self.market.room - 1.0 / 40.0).max(0.0);
        // The demand of others falls with the price: see `Market::room_at`.
        (over < 1.0).then(|| clears * (1.0 - over).powf(-1.0 / ELASTICITY))
    }

    fn at(&self, height: usize) -> Option<(usize, f64)> {
        let taken = self.taken.get(&height).copied().unwrap_or_default();
        Some((height, self.price(height, taken)?))
    }

    fn take(&mut self, height: usize, at: usize, output: &Output) {
        *self.taken.entry(height).or_default() += self.weight(height, at, output);
        *self.shared.entry((height, together(at, output))).or_default() += 1;
    }

    fn leave(&mut self, height: usize, at: usize, output: &Output) {
        let shared = self.shared.entry((height, together(at, output))).or_default();
        *shared = shared.saturating_sub(1);
        let weight = self.weight(height, at, output);
        let taken = self.taken.entry(height).or_default();
        *taken = taken.saturating_sub(weight);
    }
}
