//! Outputs that LDK calls spendable: each of them is seen to by the arbiter, or left to the node.
use super::{Nodes, Runner, US};
use crate::ldk::ToArbiter;
use crate::runner::Failed;
use arb_core::arbitrator::Phase;
use arb_core::ids::ChannelId;
use arb_node_adapter::{Handled, LdkEvents, Mode};
use bitcoin::{Amount, OutPoint};
use lightning::events::Event;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is below this may not be worth its claim.
pub(super) const WORTH_IT: Amount = Amount::from_sat(2_000);

/// LDK's `SpendableOutputs` events.
#[derive(Debug, Default)]
pub(super) struct Spendable {
    /// Those that are not acknowledged yet.
    waiting: Vec<Event>,
    /// Outputs of which the node was told that they are the arbiter's.
    of_arbiter: BTreeMap<OutPoint, ChannelId>,
}

impl Spendable {
    pub(super) fn told(&mut self, event: Event) {
        self.waiting.push(event);
    }
}

fn outpoints(event: &Event) -> Vec<(OutPoint, ChannelId)> {
    let Event::SpendableOutputs { outputs, channel_id: Some(id) } = event else {
        return Vec::new();
    };
    let outpoints = outputs.iter().map(|of| of.spendable_outpoint().into_bitcoin_outpoint());
    outpoints.map(|outpoint| (outpoint, ChannelId(id.0))).collect()
}

impl Runner<'_> {
    /// Hands LDK's `SpendableOutputs` events to the arbiter, and sweeps what it leaves to a node whose LDK publishes.
    /// True if any was acknowledged.
    pub(super) async fn see_to_outputs(&mut self) -> Result<bool, Failed> {
        let waiting = std::mem::take(&mut self.nodes_mut()?.spendable.waiting);
        let (mut any, mut later) = (false, Vec::new());
        for event in waiting {
            if !self.node.is_running() {
                later.push(event);
                continue;
            }
            let plan = Arc::clone(&self.node.plan);
            let nodes = self.nodes()?;
            let egress = nodes.nodes[US].egress.clone();
            let arbiter = || Ok::<_, Failed>(ToArbiter(self.node.arbiter()?, egress.clone()));
            let events =
                LdkEvents::new(nodes.store.clone(), arbiter()?, arbiter()?, egress.clone());
            let handled = tokio::select! {
                biased;
                () = plan.crashed() => None,
                handled = events.handle(&event) => Some(handled),
            };
            match handled {
                None => {
                    self.recover().await?;
                    later.push(event);
                }
                Some(Err(_replay)) => later.push(event),
                Some(Ok(handled)) => {
                    any = true;
                    self.nodes_mut()?.acknowledged(&event, handled);
                }
            }
        }
        self.nodes_mut()?.spendable.waiting.extend(later);
        Ok(any)
    }

    /// What was said to be the arbiter's is spent by now, where it is not so small that nobody takes it, and the
    /// channel is resolved.
    pub(super) fn check_spendable(&self, nodes: &Nodes) -> Result<(), Failed> {
        let ledger = &self.world.ledger;
        for (outpoint, channel) in &nodes.spendable.of_arbiter {
            // A reorganisation may have taken it away.
            let Some(output) = ledger.output(outpoint) else { continue };
            let resolved = self.channels.values().filter(|chan| chan.id == *channel).all(|chan| {
                let phase = chan.report.as_ref().map(|report| report.phase);
                chan.forgotten || matches!(phase, Some(Phase::Resolved(_)))
            });
            let is_worth_it = output.value >= WORTH_IT;
            if resolved && is_worth_it && ledger.spender(outpoint).is_none() {
                let expected = format!("{outpoint}, which LDK tells of, to be spent");
                return Err(Failed::new(expected, format!("{output:?}, left to nobody")));
            }
        }
        Ok(())
    }
}

impl Nodes {
    fn acknowledged(&mut self, event: &Event, handled: Handled) {
        let node = &self.nodes[US];
        match handled {
            Handled::Arbiter => self.spendable.of_arbiter.extend(outpoints(event)),
            _ if node.egress.mode() == Mode::Own => {}
            _ => self.hands.handle(node, event),
        }
    }
}
