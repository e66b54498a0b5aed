//! The fee policies of other implementations, as their sources of 2026 have them: when they claim
//! together, what they start at, when they raise it, and where they stop.
use super::foresight::TRANSACTION;
use super::load::{Load, Output, Role};
use super::world::{Bid, Policy, View};
use arb_core::ports::FeeEstimates;
use std::collections::{BTreeMap, BTreeSet};

/// Smallest output that is relayed.
const DUST: u64 = 354;

/// An estimate in satoshis per 1000 weight units, as the node gives it, whatever that says of other targets; on
/// a straight line between two targets.
fn within(estimates: &FeeEstimates, blocks: u32) -> f64 {
    let points = estimates.targets.iter();
    let points = points.map(|(target, rate)| (f64::from(*target), rate.to_sat_per_kwu() as f64));
    let points: Vec<(f64, f64)> = points.collect();
    let blocks = f64::from(blocks);
    let before = points.iter().rev().find(|(target, _)| *target <= blocks);
    let after = points.iter().find(|(target, _)| *target > blocks);
    let rate = match (before, after) {
        (Some((from, near)), Some((to, far))) => {
            near + (far - near) * (blocks - from) / (to - from)
        }
        (Some((_, rate)), None) | (None, Some((_, rate))) => *rate,
        (None, None) => 0.0,
    };
    rate.max(estimates.floor.to_sat_per_kwu() as f64)
}

fn output(load: &Load, at: usize) -> &Output {
    &load.outputs[at]
}

fn value(load: &Load, inputs: &[usize]) -> u64 {
    inputs.iter().map(|at| output(load, *at).value).sum()
}

fn weight(load: &Load, inputs: &[usize]) -> u64 {
    TRANSACTION + inputs.iter().map(|at| output(load, *at).role.input_weight()).sum::<u64>()
}

/// A bid at this feerate; `None` if nothing that is relayed would remain.
fn bid(load: &Load, inputs: &[usize], rate: f64) -> Option<Bid> {
    let weight = weight(load, inputs);
    let fee = (rate * weight as f64 / 1_000.0).ceil() as u64;
    (fee.saturating_add(DUST) <= value(load, inputs)).then(|| Bid {
        inputs: inputs.to_vec(),
        weight,
        fee,
    })
}

/// The open outputs that are alike.
fn grouped<K: Ord>(view: &View<'_>, key: impl Fn(&Output) -> Option<K>) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for at in view.open {
        if let Some(key) = key(output(view.load, *at)) {
            groups.entry(key).or_default().push(*at);
        }
    }
    groups.into_values().collect()
}

/// LDK: packages by lock time and by whether they can be pinned; a quarter more each 15, 3 or 1
/// blocks, revoked HTLCs each 15 whatever is left; starts at no more than half of the value.
#[derive(Default)]
pub(super) struct Ldk {
    packages: Vec<LdkPackage>,
}

struct LdkPackage {
    inputs: Vec<usize>,
    rate: f64,
    fee: u64,
    due: usize,
}

impl Ldk {
    const URGENT: u32 = 6;
    const SWEEP: u32 = 12;
    const PINNABLE_WITHIN: usize = 12;

    fn is_pinnable(output: &Output, tip: usize) -> bool {
        output.role == Role::PenaltyHtlc
            || Self::deadline(output).is_some_and(|last| last <= tip + Self::PINNABLE_WITHIN)
    }

    /// A timeout is thought to have 48 blocks.
    fn deadline(output: &Output) -> Option<usize> {
        let timeout = (output.role == Role::Timeout).then_some(output.open + 48);
        timeout.or(output.deadline)
    }

    fn form(&mut self, view: &View<'_>) {
        let known: BTreeSet<usize> =
            self.packages.iter().flat_map(|package| &package.inputs).copied().collect();
        let fresh: BTreeSet<usize> = view.open.difference(&known).copied().collect();
        let groups = grouped(&View { open: &fresh, ..*view }, |output| {
            let key = (output.channel, output.lock_time, Self::is_pinnable(output, view.tip));
            (output.role != Role::Sweep).then_some(key)
        });
        let package = |inputs| LdkPackage { inputs, rate: 0.0, fee: 0, due: view.tip };
        self.packages.extend(groups.into_iter().map(package));
    }
}

impl LdkPackage {
    fn price(&mut self, view: &View<'_>) {
        let estimate = within(view.estimates, Ldk::URGENT);
        let weight = weight(view.load, &self.inputs);
        let fee = if self.fee == 0 {
            let half = value(view.load, &self.inputs) / 2;
            ((estimate * weight as f64 / 1_000.0).ceil() as u64).min(half)
        } else {
            let rate = estimate.max(self.rate * 1.25);
            let rated = (rate * weight as f64 / 1_000.0).ceil() as u64;
            rated.max(self.fee + (253 * weight).div_ceil(1_000))
        };
        let rate = fee as f64 * 1_000.0 / weight as f64;
        if rate >= 253.0 && fee.saturating_add(DUST) <= value(view.load, &self.inputs) {
            (self.fee, self.rate) = (fee, rate);
        }
        let outputs = || self.inputs.iter().map(|at| output(view.load, *at));
        let left =
            outputs().filter_map(Ldk::deadline).min().map(|last| last.saturating_sub(view.tip));
        let revoked_htlcs = outputs().all(|output| output.role == Role::PenaltyHtlc);
        self.due = view.tip
            + match left {
                Some(..=3) if !revoked_htlcs => 1,
                Some(4..=15) if !revoked_htlcs => 3,
                _ => 15,
            };
    }
}

impl Policy for Ldk {
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid> {
        for package in &mut self.packages {
            let before = package.inputs.len();
            package.inputs.retain(|at| view.open.contains(at));
            if package.inputs.len() < before {
                package.due = view.tip;
            }
        }
        self.packages.retain(|package| !package.inputs.is_empty());
        self.form(view);
        for package in self.packages.iter_mut().filter(|package| package.due <= view.tip) {
            package.price(view);
        }
        let priced = self.packages.iter().filter(|package| package.fee > 0);
        let bids = priced.map(|package| Bid {
            inputs: package.inputs.clone(),
            weight: weight(view.load, &package.inputs),
            fee: package.fee,
        });
        // Its sweeper takes all that is spendable at once, at each block anew.
        let sweeps = grouped(view, |output| (output.role == Role::Sweep).then_some(()));
        let rate = within(view.estimates, Self::SWEEP);
        let sweeps = sweeps.iter().filter_map(|inputs| bid(view.load, inputs, rate));
        bids.chain(sweeps).collect()
    }

    fn watches_mempool(&self) -> bool {
        // It rebroadcasts on a timer of 30 seconds.
        true
    }
}

/// lnd: sets by deadline and lock time; a straight line from the estimate to half of the value;
/// justice at the estimate for two blocks, for good, split after four blocks.
#[derive(Default)]
pub(super) struct Lnd {
    lines: BTreeMap<Vec<usize>, Line>,
    justice: BTreeMap<Vec<usize>, f64>,
}

#[derive(Clone, Copy)]
struct Line {
    from: usize,
    start: f64,
    now: f64,
}

impl Lnd {
    const NO_DEADLINE: usize = 1_008;
    const HIGHEST: f64 = 250_000.0;
    const MOST_INPUTS: usize = 100;
    const SPLIT_AFTER: usize = 4;

    fn set(&mut self, view: &View<'_>, inputs: &[usize]) -> Option<Bid> {
        let load = view.load;
        let last = inputs.iter().filter_map(|at| output(load, *at).deadline).min();
        let opened = inputs.iter().map(|at| output(load, *at).open).min()?;
        let last = last.unwrap_or(opened + Self::NO_DEADLINE);
        let budget = value(load, inputs) as f64 / 2.0;
        let most = (budget * 1_000.0 / weight(load, inputs) as f64).min(Self::HIGHEST);
        let shares = |(known, _): &(&Vec<usize>, &Line)| known.iter().any(|at| inputs.contains(at));
        let paid = self.lines.iter().filter(shares).map(|(_, line)| line.now).fold(0.0, f64::max);
        let line = self.lines.entry(inputs.to_vec()).or_insert_with(|| {
            let left = u32::try_from(last.saturating_sub(view.tip)).unwrap_or(u32::MAX).max(1);
            let start = if paid > 0.0 { paid } else { within(view.estimates, left) };
            Line { from: view.tip, start, now: start }
        });
        let width = last.saturating_sub(line.from).saturating_sub(1);
        let done = (view.tip - line.from) as f64 / width.max(1) as f64;
        let done = if width == 0 { 1.0 } else { done.min(1.0) };
        line.now = line.start.min(most) + (most - line.start.min(most)) * done;
        bid(load, inputs, line.now)
    }
}

impl Policy for Lnd {
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid> {
        let sets = grouped(view, |output| {
            (!output.role.is_penalty()).then_some((output.deadline, output.lock_time))
        });
        let sets = sets.iter().flat_map(|set| set.chunks(Self::MOST_INPUTS));
        let mut bids: Vec<Bid> = sets.filter_map(|set| self.set(view, set)).collect();
        let all = grouped(view, |output| output.role.is_penalty().then_some(output.channel));
        for inputs in all {
            let estimate = within(view.estimates, 2);
            let rate = *self.justice.entry(inputs.clone()).or_insert(estimate);
            bids.extend(bid(view.load, &inputs, rate));
            let opened = inputs.iter().map(|at| output(view.load, *at).open).min();
            if opened.is_some_and(|opened| view.tip >= opened + Self::SPLIT_AFTER) {
                let is_htlc = |at: &usize| output(view.load, *at).role == Role::PenaltyHtlc;
                let (htlcs, balance): (Vec<usize>, Vec<usize>) =
                    inputs.into_iter().partition(is_htlc);
                let variants = [balance, htlcs];
                let variants = variants.iter().filter(|inputs| !inputs.is_empty());
                bids.extend(variants.filter_map(|inputs| bid(view.load, inputs, rate)));
            }
        }
        bids
    }

    fn watches_mempool(&self) -> bool {
        false
    }
}

/// Core Lightning: a transaction for each output, at the estimate for the blocks that are left.
pub(super) struct CoreLightning;

impl CoreLightning {
    const SWEEP: usize = 300;

    fn deadline(output: &Output) -> usize {
        match (output.role, output.deadline) {
            (Role::Success, Some(last)) => last.saturating_sub(1),
            (Role::Timeout, Some(last)) => last.saturating_sub(6),
            (_, Some(last)) => last,
            (_, None) => output.open + Self::SWEEP,
        }
    }

    fn rate(estimates: &FeeEstimates, left: usize) -> f64 {
        let floor = estimates.floor.to_sat_per_kwu() as f64;
        let points = [(2, 2), (6, 6), (12, 12), (100, 144)];
        match left {
            0 => within(estimates, 1),
            101.. => floor,
            _ => {
                let at =
                    |(blocks, target): (usize, u32)| (blocks as f64, within(estimates, target));
                let above = points.iter().position(|(blocks, _)| left <= *blocks);
                match above {
                    None | Some(0) => within(estimates, 2),
                    Some(above) => {
                        let ((x0, y0), (x1, y1)) = (at(points[above - 1]), at(points[above]));
                        y0 + (y1 - y0) * (left as f64 - x0) / (x1 - x0)
                    }
                }
            }
        }
    }
}

impl Policy for CoreLightning {
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid> {
        let bids = view.open.iter().filter_map(|at| {
            let output = output(view.load, *at);
            // What cannot pay is given what it can.
            let most = output.value.saturating_sub(DUST) as f64 * 1_000.0
                / weight(view.load, &[*at]) as f64;
            let left = Self::deadline(output).saturating_sub(view.tip);
            bid(view.load, &[*at], Self::rate(view.estimates, left).min(most.floor()))
        });
        bids.collect()
    }

    fn watches_mempool(&self) -> bool {
        // It rebroadcasts on a timer of 30 to 60 seconds.
        true
    }
}

/// eclair: a transaction for each output; steps by the blocks that are left, a fifth more at a
/// time; penalties and sweeps at one price, for good.
#[derive(Default)]
pub(super) struct Eclair {
    paid: BTreeMap<usize, f64>,
}

impl Eclair {
    /// 10 sat/vB.
    const DEAREST_SWEEP: f64 = 2_500.0;

    fn rate(&self, view: &View<'_>, at: usize) -> f64 {
        let output = output(view.load, at);
        let estimate = |blocks| within(view.estimates, blocks);
        let paid = self.paid.get(&at).copied();
        // The target of an HTLC is its own expiry: a timeout is late from the start.
        let target = match output.role {
            Role::PenaltyBalance | Role::PenaltyHtlc => return paid.unwrap_or(estimate(2)),
            Role::Sweep => return paid.unwrap_or(estimate(12).min(Self::DEAREST_SWEEP)),
            Role::Timeout => output.open,
            Role::Success => output.deadline.unwrap_or(output.open),
        };
        let left = target.saturating_sub(view.tip);
        let now = match left {
            36.. => estimate(1_008),
            12..36 => estimate(12),
            2..12 => estimate(2),
            _ => estimate(1),
        };
        let most = (output.value as f64 * 1_000.0 / weight(view.load, &[at]) as f64)
            .min(estimate(1) * 1.25);
        let wanted = match paid {
            None => now,
            Some(paid) if left <= 6 => now.max(paid * 1.2),
            Some(paid) if now >= paid * 1.2 => now,
            Some(paid) => paid,
        };
        wanted.min(most).max(paid.unwrap_or_default())
    }
}

impl Policy for Eclair {
    fn bids(&mut self, view: &View<'_>) -> Vec<Bid> {
        let mut bids = Vec::new();
        for at in view.open {
            let rate = self.rate(view, *at);
            if let Some(bid) = bid(view.load, &[*at], rate) {
                self.paid.insert(*at, rate);
                bids.push(bid);
            }
        }
        bids
    }

    fn watches_mempool(&self) -> bool {
        false
    }
}
