//! Measuring: what the driver's metrics are made of. Gauges over channels are computed over those
//! with anything to remember, once a block; quiet ones are a number.
use super::{Around, Driver};
use crate::metrics as names;
use arb_core::arbitrator::{ChannelArbitrator, TxKind};
use arb_core::claim::build::is_wallet_paid;
use arb_core::engine::Task;
use arb_core::ids::Slot;
use arb_core::report::PhaseCounts;
use arb_core::units::BlockHeight;
use bitcoin::Transaction;
use metrics::{counter, gauge, histogram};
use std::collections::BTreeMap;
use std::time::Duration;

/// Values at risk by the blocks that are left: up to one of these, or more, or without a deadline.
const DUE: [(u32, &str); 4] = [(0, "past"), (6, "6"), (36, "36"), (144, "144")];
const LATER: &str = "later";
const NEVER: &str = "none";

/// Numbers of satoshis and channels are far below 2^53.
#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
const fn float(number: u64) -> f64 {
    number as f64
}

fn count(number: usize) -> f64 {
    float(u64::try_from(number).unwrap_or(u64::MAX))
}

fn bucket(tip: BlockHeight, deadline: Option<BlockHeight>) -> &'static str {
    let Some(deadline) = deadline else { return NEVER };
    let left = tip.until(deadline).0;
    DUE.iter().find(|(most, _)| left <= *most).map_or(LATER, |(_, name)| name)
}

/// What a transaction of ours is called in a metric.
const fn kind(kind: TxKind) -> &'static str {
    match kind {
        TxKind::Commitment => "commitment",
        TxKind::Anchor => "anchor",
        TxKind::HtlcTimeout => "htlc_timeout",
        TxKind::HtlcSuccess => "htlc_success",
        TxKind::Claim => "claim",
        TxKind::Sweep => "sweep",
        TxKind::Penalty => "penalty",
    }
}

/// Who pays the fee of a transaction of ours.
fn payer(kind: TxKind) -> &'static str {
    if is_wallet_paid(kind) { "wallet" } else { "output" }
}

/// What a task is called in metrics and spans.
pub(super) const fn task(task: &Task) -> &'static str {
    match task {
        Task::Sign(_) => "sign",
        Task::Publish(_) => "publish",
        Task::LoadRevokedHtlcs(_) => "load_revoked_htlcs",
        Task::JudgeScripts(_) => "judge_scripts",
        Task::AskPoint(_) => "ask_point",
        Task::Notify(_) => "notify",
        Task::Forget => "forget",
    }
}

pub(super) fn appended(took: Duration, durable: bool) {
    histogram!(names::APPEND_SECONDS).record(took.as_secs_f64());
    if !durable {
        counter!(names::APPEND_FAILURES).increment(1);
    }
}

pub(super) fn reorganised(from: BlockHeight, to: BlockHeight) {
    histogram!(names::REORG_DEPTH).record(f64::from(to.until(from).0));
}

pub(super) fn handed_out(of: TxKind) {
    counter!(names::CLAIMS, "kind" => kind(of)).increment(1);
}

pub(super) fn failed(task: &'static str) {
    counter!(names::TASK_FAILURES, "task" => task).increment(1);
}

/// What fees of transactions of ours that a block holds fall to this channel. A reorganisation takes nothing back: what is
/// confirmed again counts again.
pub(super) fn confirmed(state: &ChannelArbitrator, transactions: &[Transaction]) {
    for tx in transactions {
        let ours = state.acts().ours(tx.compute_txid());
        // A commitment's own fee was never part of an output.
        if let Some(out) = ours.filter(|out| out.kind != TxKind::Commitment) {
            counter!(names::FEES_PAID, "payer" => payer(out.kind))
                .increment(out.own_fee().to_sat());
        }
    }
}

impl<A: Around> Driver<A> {
    /// What changes with anything that happens, and is known without counting.
    pub(super) fn measure(&self) {
        gauge!(names::TASKS_RUNNING).set(count(self.tasks.under_way()));
        gauge!(names::NOTICES_WAITING).set(count(self.notices.waiting()));
        gauge!(names::QUARANTINED).set(count(self.quarantine.len()));
        gauge!(names::SUBSCRIPTIONS).set(count(self.subscribers.readers.count()));
        gauge!(names::EPOCHS).set(count(self.epochs.count()));
        let alarms = self.alarms.now();
        let raised = [
            ("chain", alarms.chain.is_some()),
            ("store", alarms.store.is_some()),
            ("source", alarms.source.is_some()),
        ];
        for (of, raised) in raised {
            gauge!(names::ALARMS, "of" => of).set(if raised { 1.0 } else { 0.0 });
        }
    }

    /// What changes with the tip, over the channels with anything to remember.
    pub(super) fn measure_channels(&mut self, source: BlockHeight) {
        let tip = self.engine.height();
        gauge!(names::BLOCK_HEIGHT).set(f64::from(tip.0));
        gauge!(names::BLOCK_LAG).set(f64::from(tip.until(source).0));
        let (phases, at_risk) = self.of_each(|driver, at| {
            let engine = &driver.engine;
            let quiet = engine.len().saturating_sub(engine.active_len());
            let mut phases = PhaseCounts { open: quiet, ..PhaseCounts::default() };
            let names = DUE.iter().map(|(_, name)| *name).chain([LATER, NEVER]);
            let mut at_risk: BTreeMap<&str, u64> = names.map(|name| (name, 0)).collect();
            for (slot, active) in engine.actives() {
                at(Some(slot));
                let now = engine.now(slot, &active.facts);
                phases.count(&active.phase(&now));
                for (deadline, value) in active.at_risk(&now.policy) {
                    let sum = at_risk.entry(bucket(tip, deadline)).or_default();
                    *sum = sum.saturating_add(value.to_sat());
                }
            }
            at(None);
            (phases, at_risk)
        });
        let PhaseCounts { open, failing, closed, resolved } = phases;
        let all =
            [("open", open), ("failing", failing), ("closed", closed), ("resolved", resolved)];
        for (phase, channels) in all {
            gauge!(names::CHANNELS, "phase" => phase).set(count(channels));
        }
        for (due, value) in at_risk {
            gauge!(names::VALUE_AT_RISK, "due" => due).set(float(value));
        }
    }

    /// A span for what is done for one channel.
    pub(super) fn channel_span(&self, slot: Slot, of: &Task) -> tracing::Span {
        let id = self.engine.active(slot).map(|active| active.facts.id);
        let channel = id.map(tracing::field::display);
        tracing::info_span!("channel", channel, slot = slot.0, task = task(of))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::metrics::values;
    use super::*;
    use std::collections::BTreeSet;

    /// The kind of transaction after this one.
    const fn after(kind: TxKind) -> Option<TxKind> {
        match kind {
            TxKind::Commitment => Some(TxKind::Anchor),
            TxKind::Anchor => Some(TxKind::HtlcTimeout),
            TxKind::HtlcTimeout => Some(TxKind::HtlcSuccess),
            TxKind::HtlcSuccess => Some(TxKind::Claim),
            TxKind::Claim => Some(TxKind::Sweep),
            TxKind::Sweep => Some(TxKind::Penalty),
            TxKind::Penalty => None,
        }
    }

    #[test]
    fn transactions_and_who_pays_for_them_are_called_as_on_the_page() {
        let all = || std::iter::successors(Some(TxKind::Commitment), |kind| after(*kind));
        let kinds: BTreeSet<String> = all().map(|of| kind(of).to_owned()).collect();
        assert_eq!(kinds, values(names::CLAIMS));
        let payers: BTreeSet<String> = all().skip(1).map(|of| payer(of).to_owned()).collect();
        assert_eq!(payers, values(names::FEES_PAID));
    }

    #[test]
    fn value_at_risk_is_put_where_its_deadline_is() {
        let tip = BlockHeight(100);
        let of = |deadline| bucket(tip, Some(BlockHeight(deadline)));
        assert_eq!([of(50), of(100), of(101), of(106)], ["past", "past", "6", "6"]);
        assert_eq!([of(107), of(136), of(137), of(244)], ["36", "36", "144", "144"]);
        assert_eq!((of(245), bucket(tip, None)), ("later", "none"));
    }
}
