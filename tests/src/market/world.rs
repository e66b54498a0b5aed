//! Mempool, miners and attackers.
use super::Outcome;
use super::estimate::estimates;
use super::foresight::Foresight;
use super::load::Load;
use super::weather::{Market, PAST};
use arb_core::ports::FeeEstimates;
use std::collections::{BTreeMap, BTreeSet};

/// What an unconfirmed transaction needs to pay for its own relay, in satoshis per 1000 weight units.
pub(super) const INCREMENT: u64 = 250;
/// How often an attacker who watches the mempool is answered between two blocks by somebody who
/// watches it as well.
const ANSWERS: u32 = 10;

/// A transaction of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bid {
    /// The outputs that it spends, ascending.
    pub(super) inputs: Vec<usize>,
    pub(super) weight: u64,
    /// In satoshis.
    pub(super) fee: u64,
}

impl Bid {
    /// In satoshis per 1000 weight units.
    pub(super) fn rate(&self) -> f64 {
        self.fee as f64 * 1_000.0 / self.weight as f64
    }
}

/// What a policy sees after a block.
pub(super) struct View<'a> {
    pub(super) load: &'a Load,
    /// Height of the newest block.
    pub(super) tip: usize,
    /// Outputs that can be claimed in the next block and are not.
    pub(super) open: &'a BTreeSet<usize>,
    pub(super) estimates: &'a FeeEstimates,
    /// Outputs of which the mempool has, or had, a conflicting spend.
    pub(super) contested: &'a BTreeSet<usize>,
}

/// Claims outputs.
pub(super) trait Policy {
    /// The transactions to hand to the network, after a block. What is in the mempool stays there
    /// without being handed over again.
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid>;

    /// The network refused it: its fee is too low, for the mempool or for what it conflicts with.
    fn refused(&mut self, _bid: &Bid, _tip: usize) {}

    /// Whether it notices between blocks that something of its own has vanished.
    fn watches_mempool(&self) -> bool;
}

/// Unconfirmed transactions, no two of which spend the same output, in the order in which they came.
#[derive(Default)]
struct Mempool {
    bids: BTreeMap<u64, Bid>,
    spenders: BTreeMap<usize, u64>,
    next: u64,
}

impl Mempool {
    fn has(&self, bid: &Bid) -> bool {
        let ids = bid.inputs.first().and_then(|input| self.spenders.get(input));
        ids.is_some_and(|id| self.bids.get(id) == Some(bid))
    }

    /// Those that spend one of these outputs.
    fn spenders(&self, inputs: &[usize]) -> BTreeSet<u64> {
        inputs.iter().filter_map(|input| self.spenders.get(input)).copied().collect()
    }

    fn put(&mut self, bid: Bid) {
        self.spenders.extend(bid.inputs.iter().map(|input| (*input, self.next)));
        self.bids.insert(self.next, bid);
        self.next += 1;
    }

    fn take(&mut self, id: u64) -> Option<Bid> {
        let bid = self.bids.remove(&id)?;
        for input in &bid.inputs {
            self.spenders.remove(input);
        }
        Some(bid)
    }
}

pub(super) struct World<'a> {
    market: &'a Market,
    load: &'a Load,
    tip: usize,
    unclaimed: BTreeSet<usize>,
    mempool: Mempool,
    pins: BTreeMap<usize, u64>,
    cycles: BTreeMap<usize, u32>,
    /// Outputs that a spend of the attacker's was seen of.
    cycled: BTreeSet<usize>,
    outcome: Outcome,
}

impl<'a> World<'a> {
    pub(super) fn new(market: &'a Market, load: &'a Load) -> Self {
        let numbered = || load.outputs.iter().enumerate();
        Self {
            market,
            load,
            tip: PAST - 1,
            unclaimed: (0..load.outputs.len()).collect(),
            mempool: Mempool::default(),
            pins: numbered().filter_map(|(at, output)| Some((at, output.pin?))).collect(),
            cycles: numbered().map(|(at, output)| (at, output.cycles)).collect(),
            cycled: BTreeSet::new(),
            outcome: Outcome { outputs: load.outputs.len() as u64, ..Outcome::default() },
        }
    }

    /// Plays the story to its end.
    pub(super) fn play(mut self, policy: &mut dyn Policy, foresight: &Foresight) -> Outcome {
        while self.tip < self.load.end && !self.unclaimed.is_empty() {
            let is_open =
                |at: &usize| self.load.outputs.get(*at).is_some_and(|o| o.open <= self.tip);
            let open: BTreeSet<usize> = self.unclaimed.iter().copied().filter(is_open).collect();
            if !open.is_empty() {
                self.listen(policy, &open);
            }
            self.block(policy.watches_mempool());
            self.expire(foresight);
        }
        for at in core::mem::take(&mut self.unclaimed) {
            self.outcome.lost += self.load.outputs[at].value;
        }
        self.outcome
    }

    fn listen(&mut self, policy: &mut dyn Policy, open: &BTreeSet<usize>) {
        let seen = self.market.clears.get(..=self.tip).unwrap_or_default();
        let times = self.market.times.get(..=self.tip).unwrap_or_default();
        let estimates = estimates(seen, times);
        let contested = self.pins.keys().chain(&self.cycled).copied().collect();
        let view = View {
            load: self.load,
            tip: self.tip,
            open,
            estimates: &estimates,
            contested: &contested,
        };
        for bid in policy.bids(&view) {
            if self.mempool.has(&bid) {
                continue;
            }
            assert!(
                bid.inputs.iter().all(|input| open.contains(input)),
                "a spend of what is not open"
            );
            if !self.accept(&bid) {
                policy.refused(&bid, self.tip);
            }
        }
    }

    /// Core's rules of replacement: it pays for all that it evicts, for its own relay, and at a
    /// better feerate.
    fn accept(&mut self, bid: &Bid) -> bool {
        let evicted = self.mempool.spenders(&bid.inputs);
        let fees = evicted.iter().map(|id| self.mempool.bids[id].fee).sum::<u64>();
        let pins = bid.inputs.iter().filter_map(|input| self.pins.get(input)).sum::<u64>();
        let relay = (bid.weight * INCREMENT).div_ceil(1_000);
        let least = fees + pins + relay;
        if bid.fee < least || evicted.iter().any(|id| self.mempool.bids[id].rate() >= bid.rate()) {
            return false;
        }
        for id in evicted {
            self.mempool.take(id);
        }
        for input in &bid.inputs {
            self.pins.remove(input);
        }
        self.mempool.put(bid.clone());
        true
    }

    /// One block, if the attackers let anything in.
    fn block(&mut self, watches: bool) {
        self.tip += 1;
        self.cycle(watches);
        let mut order: Vec<u64> = self.mempool.bids.keys().copied().collect();
        let rate = |id: &u64| self.mempool.bids[id].rate();
        order.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        let mut filled = 0.0;
        let mut mined = Vec::new();
        for id in order {
            let bid = &self.mempool.bids[&id];
            if filled + bid.weight as f64 <= self.market.room_at(self.tip, bid.rate()) {
                filled += bid.weight as f64;
                mined.push(id);
            }
        }
        for id in mined {
            let Some(bid) = self.mempool.take(id) else { continue };
            self.outcome.fees += bid.fee;
            self.outcome.weight += bid.weight;
            for input in &bid.inputs {
                self.unclaimed.remove(input);
            }
        }
    }

    /// Each eviction costs the attacker something, and each answer makes another one necessary. Who
    /// looks once a block only is evicted at the price of one.
    fn cycle(&mut self, watches: bool) {
        let rounds = if watches { ANSWERS } else { 1 };
        let (cycles, cycled) = (&mut self.cycles, &mut self.cycled);
        let mut stays = |bid: &Bid| {
            for input in &bid.inputs {
                let left = cycles.entry(*input).or_default();
                if *left > 0 {
                    *left = left.saturating_sub(rounds);
                    cycled.insert(*input);
                    return *left == 0 && watches;
                }
            }
            true
        };
        let gone = self.mempool.bids.iter().filter(|(_, bid)| !stays(bid));
        for id in gone.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.mempool.take(id);
        }
    }

    /// What is past its deadline is the other's.
    fn expire(&mut self, foresight: &Foresight) {
        let outputs = &self.load.outputs;
        let is_past = |at: &usize| outputs[*at].deadline.is_some_and(|last| last <= self.tip);
        let past: Vec<usize> = self.unclaimed.iter().copied().filter(is_past).collect();
        for at in past {
            self.unclaimed.remove(&at);
            for id in self.mempool.spenders(&[at]) {
                self.mempool.take(id);
            }
            self.outcome.missed += 1;
            self.outcome.avoidable += u64::from(foresight.claims(at));
            self.outcome.lost += outputs[at].value;
        }
    }
}
