//! LDK nodes as the parties of a story: one is ours, and each channel has a peer of its own.
//!
//! The history is what they agree upon: after each statement both monitors must hold the very
//! commitments that the peer model has at that point. So what happens on chain is told with the
//! model, which has their keys and every state that they ever had.
mod blocks;
mod check;
mod follow;
mod history;
mod open;
mod port;
mod spendable;
mod splice;

pub(super) use open::Proposed;
pub(super) use port::Beside;
use port::Switched;

use super::story::{Chan, Runner};
use super::{Compared, Failed, View, Views};
use crate::ldk::{Delivery, Hands, Kept, Lines, MemoryKv, Node, ToArbiter};
use crate::scenario::ast::{ChannelName, HtlcRef, Mode};
use crate::world::Faults;
use arb_core::ids::ChannelId;
use arb_core::ports::Broadcast;
use arb_node_adapter::{GUARD_BEFORE, Recorder, Waiting};
use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use check::Outcome;
use lightning::chain::BestBlock;
use lightning::events::{Event, HTLCHandlingFailureType};
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::types::payment::PaymentHash;
use spendable::Spendable;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Our node's place; the peers follow in the order of their channels.
const US: usize = 0;

/// A channel, as LDK names it.
#[derive(Clone, Copy, Debug)]
struct Ends {
    peer: usize,
    id: LdkChannelId,
    short_id: u64,
}

/// The nodes, and what stands between ours and the arbiter.
pub(super) struct Nodes {
    nodes: Vec<Node>,
    lines: Lines,
    recorder: Recorder<Arc<MemoryKv>>,
    store: Arc<MemoryKv>,
    /// The peers' monitors, in the order of the peers.
    kept: Vec<Arc<Kept>>,
    hands: Hands,
    channels: BTreeMap<ChannelName, Ends>,
    /// Blocks that each node was shown.
    shown: Vec<Vec<(u32, BlockHash)>>,
    /// Where the chain parts from blocks that it lost.
    forks: BTreeMap<BlockHash, BestBlock>,
    /// Our own payments, by the number of their id.
    payments: BTreeMap<u64, HtlcRef>,
    sent: u64,
    /// HTLCs that LDK holds for us to forward, before and after it is known which they are.
    waiting: Vec<(PaymentHash, InterceptId)>,
    intercepted: BTreeMap<HtlcRef, InterceptId>,
    /// Payments that LDK took.
    claimed: BTreeSet<PaymentHash>,
    /// What LDK says of our own payments.
    outcomes: BTreeMap<HtlcRef, Outcome>,
    /// HTLCs that were settled or failed off-chain.
    ended: BTreeMap<HtlcRef, Outcome>,
    /// How often LDK says that it has forwarded something: on which channel, and how much.
    forwarded: BTreeMap<(LdkChannelId, u64), usize>,
    /// Outgoing channels of which LDK has failed a forward.
    not_forwarded: BTreeSet<LdkChannelId>,
    /// Closing transactions that were agreed upon, until the story publishes them.
    closings: BTreeMap<ChannelName, Transaction>,
    /// Splices that nobody publishes.
    kept_back: BTreeSet<Txid>,
    /// What our node's LDK publishes passes here.
    faults: Arc<Faults>,
    /// How our node is shown blocks.
    delivery: Delivery,
    /// Blocks that our node was shown and that it may lose.
    bodies: BTreeMap<BlockHash, Block>,
    /// The highest block that our node was shown, lost or not.
    highest: u32,
    /// Names of the events that our node's LDK raised.
    said: Vec<String>,
    /// What LDK told of spendable outputs.
    spendable: Spendable,
    /// Comparisons of HTLCs, and of balances.
    compared: [AtomicUsize; 2],
    /// Outputs whose spend LDK has counted as final.
    buried: Mutex<BTreeSet<OutPoint>>,
}

fn ldk_failed(error: impl std::fmt::Debug) -> Failed {
    Failed::new("LDK to do it", format!("{error:?}"))
}

impl Nodes {
    /// What the arbiter is told of the channels' numbers when it starts.
    pub(super) fn numbers(&self) -> BTreeMap<ChannelId, (u64, u64)> {
        let numbers = self.recorder.numbers().into_iter();
        numbers.map(|of| (of.id, (of.local.0, of.remote.0))).collect()
    }

    fn set_mode(&self, mode: Mode) {
        let mode = match mode {
            Mode::Observe => arb_node_adapter::Mode::Observe,
            Mode::Own => arb_node_adapter::Mode::Own,
            Mode::Guard => arb_node_adapter::Mode::Guard { before: GUARD_BEFORE },
        };
        self.nodes[US].egress.set(mode);
    }

    fn mode(&self) -> arb_node_adapter::Mode {
        self.nodes[US].egress.mode()
    }

    fn ends(&self, channel: &ChannelName) -> Result<Ends, Failed> {
        let ends = self.channels.get(channel).copied();
        ends.ok_or_else(|| Failed::new(format!("channel {channel} of LDK"), "none"))
    }

    fn take_closing(&mut self, channel: &ChannelName) -> Option<Transaction> {
        self.closings.remove(channel)
    }

    /// Our node's events: what they mean for the story.
    fn take_events(&mut self) -> bool {
        let node = &self.nodes[US];
        let any = node.collect_events();
        let publishes = node.egress.mode() != arb_node_adapter::Mode::Own;
        let mut events = Vec::new();
        while let Some(event) = node.take_event(|event| Some(event.clone())) {
            if matches!(event, Event::SpendableOutputs { .. }) {
                self.spendable.told(event.clone());
            } else if publishes {
                self.hands.handle(node, &event);
            }
            events.push(event);
        }
        for event in events {
            let said = format!("{event:?}");
            let name = said.split([' ', '{', '(']).next().unwrap_or_default();
            self.said.push(name.to_owned());
            if let Some((number, outcome)) = Outcome::of(&event)
                && let Some(htlc) = self.payments.get(&number)
            {
                self.outcomes.insert(htlc.clone(), outcome);
            }
            match event {
                Event::HTLCIntercepted { intercept_id, payment_hash, .. } => {
                    self.waiting.push((payment_hash, intercept_id));
                }
                Event::PaymentClaimed { payment_hash, .. } => {
                    self.claimed.insert(payment_hash);
                }
                Event::PaymentForwarded {
                    next_channel_id: Some(to),
                    outbound_amount_forwarded_msat: Some(msat),
                    ..
                } => {
                    *self.forwarded.entry((to, msat)).or_default() += 1;
                }
                Event::HTLCHandlingFailed {
                    failure_type: HTLCHandlingFailureType::Forward { channel_id, .. },
                    ..
                } => {
                    self.not_forwarded.insert(channel_id);
                }
                _ => {}
            }
        }
        any
    }
}

impl Runner<'_> {
    pub(super) fn nodes(&self) -> Result<&Nodes, Failed> {
        self.ldk.as_ref().ok_or_else(|| Failed::new("LDK nodes", "none"))
    }

    fn nodes_mut(&mut self) -> Result<&mut Nodes, Failed> {
        self.ldk.as_mut().ok_or_else(|| Failed::new("LDK nodes", "none"))
    }

    /// What passed through the broadcaster of our node's LDK.
    pub(super) fn ldk_faults(&self) -> Option<Arc<Faults>> {
        self.ldk.as_ref().map(|nodes| Arc::clone(&nodes.faults))
    }

    /// Whether a transaction is the arbiter's or our node's LDK's.
    pub(super) fn is_ours(&self, txid: &Txid) -> bool {
        let of_ldk = self.ldk.as_ref().is_some_and(|nodes| nodes.faults.is_ours(txid));
        of_ldk || self.world.faults.is_ours(txid)
    }

    pub(super) fn set_mode(&self, mode: Mode) -> Result<(), Failed> {
        self.nodes()?.set_mode(mode);
        Ok(())
    }

    /// Says how our node is shown blocks from now on.
    pub(super) fn set_delivery(&mut self, delivery: Delivery) {
        if let Some(nodes) = &mut self.ldk {
            nodes.delivery = delivery;
        }
    }

    /// How often LDK and the arbiter were compared.
    pub(super) fn compared(&self) -> Compared {
        let Some(nodes) = &self.ldk else { return Compared::default() };
        let [htlcs, balances] = [0, 1].map(|at: usize| nodes.compared[at].load(Ordering::Relaxed));
        let is_closed =
            |chan: &&Chan| chan.report.as_ref().is_some_and(|report| report.close.is_some());
        let closed = self.channels.values().filter(is_closed).count();
        Compared { htlcs, balances, closed }
    }

    /// Every channel as LDK and as the arbiter see it.
    pub(super) fn views(&self) -> Result<Views, Failed> {
        let nodes = self.nodes()?;
        let view = |(name, ends): (&ChannelName, &Ends)| {
            let monitor = nodes.nodes[US].monitors.get_monitor(ends.id);
            let ldk = monitor.map(|monitor| monitor.get_claimable_balances()).unwrap_or_default();
            let report = self.channels.get(name).and_then(|chan| chan.report.clone());
            View { name: name.0.clone(), ldk, report }
        };
        let channels = nodes.channels.iter().map(view).collect();
        let published = nodes.faults.seen().into_keys().collect();
        let (height, events) = (self.world.height(), nodes.said.clone());
        Ok(Views { height, channels, events, published })
    }

    /// Our node's LDK goes on until it waits for something outside. True if it did anything.
    pub(super) async fn ldk_turn(&mut self) -> Result<bool, Failed> {
        if self.ldk.is_none() {
            return Ok(false);
        }
        let mut any = false;
        loop {
            let mut moved = self.nodes_mut()?.take_events();
            moved |= self.see_to_outputs().await?;
            moved |= self.record().await?;
            moved |= self.publish_of_ldk().await?;
            if !moved {
                return Ok(any);
            }
            any = true;
        }
    }

    /// Tells the arbiter what LDK wrote. True if LDK may go on with anything.
    async fn record(&mut self) -> Result<bool, Failed> {
        if !self.node.is_running() {
            return Ok(false);
        }
        loop {
            let arbiter = self.node.arbiter()?;
            let (plan, full) = (Arc::clone(&self.node.plan), self.disk_is_full);
            let Nodes { nodes, recorder, .. } = self.nodes_mut()?;
            let node = &nodes[US];
            if node.taps.backlog() == 0 {
                return Ok(false);
            }
            let before = node.taps.backlog();
            let completed = |channel: ChannelId, update| {
                let id = LdkChannelId(channel.0);
                let _of_a_channel_that_is_gone = node.monitors.channel_monitor_updated(id, update);
            };
            let sink = ToArbiter(arbiter, node.egress.clone());
            let drained = tokio::select! {
                biased;
                () = plan.crashed() => None,
                drained = recorder.drain(&sink, completed) => Some(drained),
            };
            if let Some(held) = recorder.held().next() {
                return Err(Failed::new("facts that the arbiter takes", held));
            }
            match drained {
                None => self.recover().await?,
                Some(Ok(())) => {
                    let is_set_aside = recorder.set_aside().next().is_some();
                    let backlog = self.nodes()?.nodes[US].taps.backlog();
                    return Ok(!is_set_aside || backlog < before);
                }
                Some(Err(Waiting::Sink(_))) if full => {
                    return Ok(self.nodes()?.nodes[US].taps.backlog() < before);
                }
                Some(Err(waiting)) => return Err(Failed::new("facts to be recorded", waiting)),
            }
        }
    }

    /// Hands LDK's transactions to the network. Not all are news to it, and not all are taken.
    async fn publish_of_ldk(&mut self) -> Result<bool, Failed> {
        let packages = self.nodes()?.nodes[US].outbox.take();
        let faults = Arc::clone(&self.nodes()?.faults);
        let broadcaster = self.world.backend.broadcaster(faults);
        let any = !packages.is_empty();
        let kept_back = self.nodes()?.kept_back.clone();
        let is_kept = |package: &Vec<Transaction>| {
            package.iter().any(|tx| kept_back.contains(&tx.compute_txid()))
        };
        for transactions in packages.into_iter().filter(|package| !is_kept(package)) {
            // Switched off by the story; LDK publishes again with the next block.
            let Ok(verdicts) = broadcaster.broadcast(transactions.into()).await else {
                continue;
            };
            for (txid, verdict) in verdicts {
                self.trace.line(|| format!("     ldk {txid:.8} {verdict:?}"));
            }
        }
        Ok(any)
    }
}
