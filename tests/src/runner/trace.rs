//! `--trace`: every statement, block, notice, report change and transaction, as text.
use super::expect::reason_name;
use crate::scenario::ast::ChannelName;
use crate::world::Faults;
use arb_core::ports::Verdict;
use arb_core::report::{ChannelReport, OutputReport};
use bitcoin::Txid;
use std::collections::BTreeMap;

/// Where a run's trace goes.
#[derive(Debug)]
pub(super) enum Trace {
    Off,
    On {
        /// Verdicts that were printed.
        seen: BTreeMap<Txid, Verdict>,
    },
}

impl Trace {
    pub(super) fn new(on: bool) -> Self {
        if on { Self::On { seen: BTreeMap::new() } } else { Self::Off }
    }

    pub(super) fn line(&self, text: impl FnOnce() -> String) {
        match self {
            Self::Off => {}
            Self::On { .. } => crate::cli::scenario::say(&text()),
        }
    }

    /// Our transactions since the last time, and new verdicts on older ones.
    pub(super) fn transactions(&mut self, faults: &Faults) {
        let Self::On { seen } = self else { return };
        let mut lines = Vec::new();
        for (txid, tx) in faults.seen() {
            if seen.get(&txid) != Some(&tx.verdict) {
                let inputs: Vec<String> = (tx.transaction.input.iter())
                    .map(|i| format!("{:.8}:{}", i.previous_output.txid, i.previous_output.vout))
                    .collect();
                lines.push(format!("     ours {txid:.8} {:?} <- {}", tx.verdict, inputs.join(" ")));
                seen.insert(txid, tx.verdict);
            }
        }
        for line in lines {
            self.line(|| line);
        }
    }

    /// What changed in a channel's report.
    pub(super) fn report(
        &self,
        name: &ChannelName,
        before: Option<&ChannelReport>,
        after: Option<&ChannelReport>,
        forgotten: bool,
    ) {
        let Self::On { .. } = self else { return };
        let Some(after) = after else { return };
        let told = |report: &ChannelReport| {
            (report.phase, report.close, report.upstream.clone(), report.events.clone())
        };
        if before.map(told) != Some(told(after)) {
            self.line(|| {
                format!(
                    "     {name}: {:?} upstream {:?} events {:?}",
                    after.phase, after.upstream, after.events
                )
            });
        }
        for output in &after.outputs {
            let known = before.and_then(|before| {
                before.outputs.iter().find(|known| known.outpoint == output.outpoint)
            });
            let key = |output: &OutputReport| (output.state, output.spent_by, output.role);
            if known.map(key) != Some(key(output)) {
                self.line(|| describe(name, output));
            }
        }
        if forgotten {
            self.line(|| format!("     {name}: forgotten"));
        }
    }
}

fn describe(name: &ChannelName, output: &OutputReport) -> String {
    let waits = output.waits.map(|due| format!(" {}@{}", reason_name(due.reason), due.until.0));
    format!(
        "     {name}: {:.8}:{} {:?} {} {:?}{}",
        output.outpoint.txid,
        output.outpoint.vout,
        output.role,
        output.amount,
        output.state,
        waits.unwrap_or_default()
    )
}
