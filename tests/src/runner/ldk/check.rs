//! What LDK and the model, and LDK and the arbiter, must agree upon.
use super::{Runner, US};
use crate::peer::Side;
use crate::runner::Failed;
use crate::scenario::ast::{ChannelName, HtlcRef};
use crate::world::htlc_id;
use arb_core::arbitrator::{Phase, UpstreamVerdict};
use bitcoin::Transaction;
use lightning::chain::channelmonitor::Balance;
use lightning::events::Event;
use lightning::util::persist::KVStoreSync;

/// What LDK says became of a payment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent,
    Failed,
}

impl Outcome {
    /// The payment's number, and what became of it.
    pub(super) fn of(event: &Event) -> Option<(u64, Self)> {
        let (id, outcome) = match event {
            Event::PaymentSent { payment_id: Some(id), .. } => (id, Self::Sent),
            Event::PaymentFailed { payment_id, .. } => (payment_id, Self::Failed),
            _ => return None,
        };
        let mut number = [0; 8];
        number.copy_from_slice(&id.0[24..]);
        Some((u64::from_be_bytes(number), outcome))
    }
}

impl Runner<'_> {
    /// Both monitors hold the commitments that the model has.
    pub(super) fn check_commitments(&self, name: &ChannelName) -> Result<(), Failed> {
        let nodes = self.nodes()?;
        let ends = nodes.ends(name)?;
        let model = &self.chan(name)?.peer;
        let ours = (nodes.store)
            .list("monitors", "")
            .map_err(|error| Failed::new("our monitors", error))?
            .into_iter()
            .map(|key| nodes.store.read("monitors", "", &key))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failed::new("our monitors", error))?;
        let theirs: Vec<_> = nodes.kept[ends.peer - 1].monitors().into_values().collect();
        let remote = match model.remote_next_number() {
            Some(_) => model.remote_next()?,
            None => model.remote_current()?,
        };
        let expected = [(US, ours, model.local_commitment()?), (ends.peer, theirs, remote)];
        for (at, monitors, expected) in expected {
            let mut found = Vec::new();
            for monitor in &monitors {
                let tx = nodes.nodes[at].commitment_in(monitor).map_err(super::ldk_failed)?;
                found.extend(tx.map(|tx: Transaction| tx.compute_txid()));
            }
            if !found.contains(&expected.txid()) {
                let what = format!("commitment #{} of {:?}", expected.number, expected.owner);
                let found = format!("node {at} of LDK has another: {found:?}");
                return Err(Failed::new(format!("{what}, {}", expected.txid()), found));
            }
        }
        Ok(())
    }

    /// LDK's balances say what the reports say, but for a moment.
    pub(in crate::runner) fn compare_balances(&mut self) -> Result<(), Failed> {
        let height = self.world.height();
        let Some(nodes) = &mut self.ldk else { return Ok(()) };
        for (name, ends) in &nodes.channels {
            let Some(chan) = self.channels.get(name).filter(|chan| !chan.forgotten) else {
                continue;
            };
            let monitor = nodes.nodes[US].monitors.get_monitor(ends.id);
            if let (Ok(monitor), Some(report)) = (monitor, &chan.report)
                && monitor.current_best_block().height == height
                && report.tip.0 == height
            {
                nodes.witness.look(&*monitor, report);
            }
        }
        match nodes.witness.alerts().next() {
            None => Ok(()),
            Some((channel, standing)) => {
                let since = standing.since.0;
                let found = format!("{:?} since {since} of {channel}", standing.differences);
                Err(Failed::new("LDK's balances to be those of the report", found))
            }
        }
    }

    /// LDK says of a payment of ours what became of it off-chain. The arbiter owes nothing for what has
    /// left every commitment: LDK heard of it from the peer.
    pub(super) fn check_outcome(&self, htlc: &HtlcRef, outcome: Outcome) -> Result<(), Failed> {
        let nodes = self.nodes()?;
        let said = nodes.outcomes.get(htlc);
        if nodes.payments.values().any(|own| own == htlc) && said != Some(&outcome) {
            return Err(Failed::new(
                format!("LDK to say {outcome:?} of {htlc}"),
                format!("{said:?}"),
            ));
        }
        Ok(())
    }

    /// LDK's events say of each payment of ours what the arbiter told, and it waits for nothing
    /// more once everything is resolved.
    pub(in crate::runner) fn check_ldk(&self) -> Result<(), Failed> {
        let Some(nodes) = &self.ldk else { return Ok(()) };
        for htlc in nodes.payments.values() {
            let chan = self.chan(&htlc.channel)?;
            let Ok(known) = chan.peer.htlc(&htlc.htlc) else { continue };
            debug_assert_eq!(known.htlc.offerer, Side::Local);
            let told = self.node.told.upstream.get(&(chan.id, htlc_id(known.htlc)));
            let outcome = nodes.outcomes.get(htlc);
            let agrees = match (told, outcome) {
                (Some(UpstreamVerdict::Failed), Some(outcome)) => *outcome == Outcome::Failed,
                (Some(UpstreamVerdict::Fulfilled), Some(outcome)) => *outcome == Outcome::Sent,
                // LDK waits for more confirmations than the arbiter.
                (Some(_), None) => !self.is_resolved(htlc)?,
                (None, _) => true,
            };
            if !agrees {
                let expected = format!("LDK to say of {htlc} that it is {told:?}");
                return Err(Failed::new(expected, format!("{outcome:?}")));
            }
        }
        let mut all = true;
        for chan in self.channels.values() {
            all &= chan.forgotten;
        }
        let mut balances = nodes.nodes[US].monitors.get_claimable_balances(&[]);
        // LDK waits for ever for a peer that leaves its expired HTLC; the arbiter does not.
        let depth = self.policy().forget_depth.0;
        let height = self.world.height();
        balances.retain(|balance| match balance {
            Balance::MaybePreimageClaimableHTLC { expiry_height, .. } => {
                expiry_height.saturating_add(depth) > height
            }
            _ => true,
        });
        if all && !balances.is_empty() {
            return Err(Failed::new("no balance that LDK waits for", format!("{balances:?}")));
        }
        Ok(())
    }

    fn is_resolved(&self, htlc: &HtlcRef) -> Result<bool, Failed> {
        let chan = self.chan(&htlc.channel)?;
        let phase = chan.report.as_ref().map(|report| report.phase);
        Ok(chan.forgotten || matches!(phase, Some(Phase::Resolved(_))))
    }
}
