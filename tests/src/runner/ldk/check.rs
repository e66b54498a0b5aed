//! What LDK and the model, and LDK and the arbiter, must agree upon.
use super::spendable::WORTH_IT;
use super::{Nodes, Runner, US};
use crate::peer::{Commitment, Side};
use crate::runner::Failed;
use crate::runner::story::Chan;
use crate::scenario::ast::{ChannelName, HtlcRef};
use crate::world::htlc_id;
use arb_core::arbitrator::{Phase, UpstreamVerdict};
use arb_core::facts::HtlcRecord;
use arb_core::ids::{ChannelId, HtlcId};
use arb_core::picture::Role;
use arb_core::report::{ChannelReport, OutputReport};
use arb_core::units::{BlockDelta, BlockHeight};
use arb_node_adapter::{BalanceKind, Difference, differences_after};
use bitcoin::{Transaction, Txid};
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, Balance};
use lightning::events::Event;
use lightning::util::persist::KVStoreSync;
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

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

/// What differs by nothing but what LDK has counted as final, whatever a reorganisation took away since: it
/// has no balance for these amounts, each of them once.
fn without_the_final(mut found: Vec<Difference>, amounts: &[u64]) -> Vec<Difference> {
    for amount in amounts {
        let only =
            |of: &Difference| matches!(of, Difference::OnlyArbiter { sat, .. } if sat == amount);
        if let Some(at) = found.iter().position(only) {
            found.remove(at);
        }
    }
    found
}

impl Nodes {
    /// Remembers what LDK counts as final from now on.
    fn note_final(&self, report: &ChannelReport) {
        let burying = BlockDelta(ANTI_REORG_DELAY.saturating_sub(1));
        let is_final =
            |of: &&OutputReport| of.spent_at.is_some_and(|at| at.plus(burying) <= report.tip);
        let mut buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        buried.extend(report.outputs.iter().filter(is_final).map(|of| of.outpoint));
    }

    /// Amounts of the outputs that LDK has counted as spent for good.
    fn finally_spent(&self, chan: &Chan) -> Vec<u64> {
        let buried = self.buried.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = chan.report.iter().flat_map(|report| &report.outputs);
        outputs.filter(|of| buried.contains(&of.outpoint)).map(|of| of.amount.to_sat()).collect()
    }
}

/// What differs by nothing but a preimage that is in the mempool: the arbiter sees it there, and LDK in the
/// block. Until then an incoming HTLC can be taken for the one, and waits for its preimage for the other.
/// `shown` are the amounts of the incoming HTLCs that this is true of, each of them once.
fn without_the_mempool(mut found: Vec<Difference>, shown: &[u64]) -> Vec<Difference> {
    for sat in shown.iter().copied() {
        let known = Difference::OnlyArbiter { kind: BalanceKind::Contentious, sat };
        let unknown = Difference::OnlyLdk { kind: BalanceKind::Preimage, sat };
        let places = [known, unknown].map(|one| found.iter().position(|of| *of == one));
        if let [Some(known), Some(unknown)] = places {
            found.remove(known.max(unknown));
            found.remove(known.min(unknown));
        }
    }
    found
}

impl Runner<'_> {
    /// Both monitors hold the commitments that the model has.
    pub(super) fn check_commitments(&self, name: &ChannelName) -> Result<(), Failed> {
        let nodes = self.nodes()?;
        let ends = nodes.ends(name)?;
        let ours = (nodes.store)
            .list("monitors", "")
            .map_err(|error| Failed::new("our monitors", error))?
            .into_iter()
            .map(|key| nodes.store.read("monitors", "", &key))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Failed::new("our monitors", error))?;
        let theirs: Vec<_> = nodes.kept[ends.peer - 1].monitors().into_values().collect();
        let chan = self.chan(name)?;
        // Of several funding outputs a monitor closes the one that it has seen in a block.
        let (mut local, mut remote) = (Vec::new(), Vec::new());
        for scope in chan.moving() {
            let model = chan.on(scope)?;
            local.push(model.local_commitment()?);
            remote.push(match model.remote_next_number() {
                Some(_) => model.remote_next()?,
                None => model.remote_current()?,
            });
        }
        for (at, monitors, expected) in [(US, ours, local), (ends.peer, theirs, remote)] {
            let mut found = Vec::new();
            for monitor in &monitors {
                let all = nodes.nodes[at].commitments_in(monitor).map_err(super::ldk_failed)?;
                let spends = |tx: &Transaction| {
                    let spent = tx.input.first().map(|input| input.previous_output);
                    chan.fundings().any(|funding| spent == Some(funding))
                };
                found.extend(all.iter().filter(|tx| spends(tx)).map(Transaction::compute_txid));
            }
            let expected: Vec<Txid> = expected.iter().map(Commitment::txid).collect();
            if found.is_empty() || !found.iter().all(|txid| expected.contains(txid)) {
                let found = format!("node {at} of LDK has {found:?}");
                return Err(Failed::new(format!("commitments {expected:?} of {name}"), found));
            }
        }
        Ok(())
    }

    /// While LDK has a channel open, the arbiter's facts are what LDK's channel manager lists: our
    /// balance, and every HTLC, trimmed ones too, under the id that it has on the wire. Between two
    /// commitments of an update both are right, and nothing is compared.
    pub(in crate::runner) fn compare_htlcs(&self) -> Result<(), Failed> {
        let Some(nodes) = &self.ldk else { return Ok(()) };
        let node = &nodes.nodes[US];
        if !self.node.is_running() || node.taps.backlog() > 0 {
            return Ok(());
        }
        let channels = node.manager.list_channels();
        for (name, ends) in &nodes.channels {
            let details = channels.iter().find(|details| details.channel_id == ends.id);
            let facts = self.node.last_reports.facts(&ChannelId(ends.id.0));
            let (Some(details), Some(facts)) = (details, facts) else { continue };
            let current = &facts.candidates.current;
            if current.remote_next.is_some() || self.chan(name)?.peer.remote_next_number().is_some()
            {
                continue;
            }
            let received = details.pending_inbound_htlcs.iter().map(|htlc| {
                let id = HtlcId { offerer: arb_core::ids::Side::Remote, id: htlc.htlc_id };
                (id, (htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash.0))
            });
            let offered = details.pending_outbound_htlcs.iter().map(|htlc| {
                let id = htlc.htlc_id.unwrap_or(u64::MAX);
                let id = HtlcId { offerer: arb_core::ids::Side::Local, id };
                (id, (htlc.amount_msat, htlc.cltv_expiry, htlc.payment_hash.0))
            });
            nodes.compared[0].fetch_add(1, Ordering::Relaxed);
            let theirs: BTreeMap<_, _> = received.chain(offered).collect();
            let terms = |(id, HtlcRecord { htlc, .. }): (&HtlcId, &HtlcRecord)| {
                (*id, (htlc.amount.0, htlc.expiry.0.0, htlc.hash.0))
            };
            let ours: BTreeMap<_, _> = facts.htlcs.iter().map(terms).collect();
            if theirs != ours {
                let expected = format!("the HTLCs of channel {name} that LDK lists: {theirs:?}");
                return Err(Failed::new(expected, format!("{ours:?}")));
            }
            // The opener pays for both anchors.
            let anchors = details
                .channel_type
                .as_ref()
                .is_some_and(|of| details.is_outbound && of.supports_anchors_zero_fee_htlc_tx());
            let reserve = details.unspendable_punishment_reserve.unwrap_or_default() * 1_000
                + if anchors { 660_000 } else { 0 };
            let (msat, spendable) = (current.local.local_balance.0, details.outbound_capacity_msat);
            // Which of the balances that give the same commitment is told makes no difference. While a splice
            // waits, LDK reckons with the reserve of either capacity.
            let waits = self.chan(name)?.moving().len() > 1;
            let above = msat.saturating_sub(reserve);
            if !waits && spendable.abs_diff(above) >= 1_000 {
                let expected = format!("a balance of {spendable} msat above {reserve} msat");
                return Err(Failed::new(expected, format!("{msat} msat of channel {name}")));
            }
        }
        Ok(())
    }

    /// LDK's balances say what the reports say, at every rest.
    pub(in crate::runner) async fn compare_balances(&self) -> Result<(), Failed> {
        let height = self.world.height();
        let Some(nodes) = &self.ldk else { return Ok(()) };
        for (name, ends) in &nodes.channels {
            let Some(chan) = self.channels.get(name).filter(|chan| !chan.forgotten) else {
                continue;
            };
            let (balances, found) = {
                let monitor = nodes.nodes[US].monitors.get_monitor(ends.id);
                let (Ok(monitor), Some(report)) = (monitor, &chan.report) else { continue };
                if monitor.current_best_block().height != height || report.tip.0 != height {
                    continue;
                }
                nodes.note_final(report);
                if report.close.is_some() {
                    nodes.compared[1].fetch_add(1, Ordering::Relaxed);
                }
                let balances = monitor.get_claimable_balances();
                let found = differences_after(BlockHeight(nodes.highest), &balances, report);
                (balances, found)
            };
            if found.is_empty() {
                continue;
            }
            let found = without_the_mempool(found, &self.shown_in_the_mempool(name).await?);
            let found = without_the_final(found, &nodes.finally_spent(chan));
            if !found.is_empty() {
                let found = format!("{found:?} of channel {name} at {height}: {balances:?}");
                return Err(Failed::new("LDK's balances to be those of the report", found));
            }
        }
        Ok(())
    }

    /// Amounts of the incoming HTLCs of a channel whose preimage a transaction of the mempool shows, and none
    /// of a block.
    async fn shown_in_the_mempool(&self, name: &ChannelName) -> Result<Vec<u64>, Failed> {
        let mempool = self.world.backend.mempool().await?;
        let shows = |tx: &Transaction, preimage: &[u8; 32]| {
            tx.input.iter().any(|input| input.witness.iter().any(|item| item == preimage))
        };
        let incoming =
            self.chan(name)?.peer.htlcs().iter().filter(|of| of.htlc.offerer == Side::Remote);
        let shown = incoming.filter(|htlc| {
            mempool.iter().any(|tx| shows(tx, &htlc.preimage))
                && !self.world.ledger.transactions().any(|tx| shows(tx, &htlc.preimage))
        });
        Ok(shown.map(|htlc| htlc.amount_msat / 1_000).collect())
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
                // LDK waits for ever where nobody takes the output.
                (Some(UpstreamVerdict::Failed), None) if self.is_left(htlc)? => true,
                // LDK waits for more confirmations than the arbiter.
                (Some(_), None) => !self.is_resolved(htlc)?,
                // What left every commitment off-chain is nothing to be told.
                (None, Some(_)) => nodes.ended.contains_key(htlc),
                (None, None) => true,
            };
            if !agrees {
                let expected = format!("LDK to say of {htlc} that it is {told:?}");
                return Err(Failed::new(expected, format!("{outcome:?}")));
            }
        }
        self.check_forwards(nodes)?;
        self.check_spendable(nodes)?;
        let mut all = true;
        for chan in self.channels.values() {
            all &= chan.forgotten;
        }
        let mut balances = nodes.nodes[US].monitors.get_claimable_balances(&[]);
        // LDK waits for ever for a peer that leaves its expired HTLC, and for what is not worth its claim; the
        // arbiter does not.
        let depth = self.policy().forget_depth.0;
        let height = self.world.height();
        balances.retain(|balance| match balance {
            Balance::MaybePreimageClaimableHTLC { expiry_height, .. } => {
                expiry_height.saturating_add(depth) > height
            }
            Balance::MaybeTimeoutClaimableHTLC {
                amount_satoshis, claimable_height: over, ..
            }
            | Balance::ContentiousClaimable { amount_satoshis, timeout_height: over, .. } => {
                *amount_satoshis >= WORTH_IT.to_sat() || over.saturating_add(depth) > height
            }
            _ => true,
        });
        if all && !balances.is_empty() {
            return Err(Failed::new("no balance that LDK waits for", format!("{balances:?}")));
        }
        Ok(())
    }

    /// LDK says of each forward what the arbiter told. It names a forward by its channel and amount, and a
    /// failed one by its channel alone: so as many of one amount must be forwarded.
    fn check_forwards(&self, nodes: &Nodes) -> Result<(), Failed> {
        for (name, ends) in &nodes.channels {
            let chan = self.chan(name)?;
            let mut fulfilled: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
            for known in chan.peer.htlcs().iter().filter(|of| of.htlc.offerer == Side::Local) {
                let htlc = HtlcRef { channel: name.clone(), htlc: known.name.clone() };
                if nodes.payments.values().any(|own| *own == htlc) {
                    continue;
                }
                let (certain, possible) = fulfilled.entry(known.amount_msat).or_default();
                if let Some(ended) = nodes.ended.get(&htlc) {
                    *possible += usize::from(*ended == Outcome::Sent);
                    continue;
                }
                match self.node.told.upstream.get(&(chan.id, htlc_id(known.htlc))) {
                    Some(UpstreamVerdict::Fulfilled) => {
                        *certain += usize::from(self.is_resolved(&htlc)?);
                        *possible += 1;
                    }
                    Some(UpstreamVerdict::Failed) => {
                        let failed = nodes.not_forwarded.contains(&ends.id);
                        if !failed && self.is_resolved(&htlc)? && !self.is_left(&htlc)? {
                            let expected = format!("LDK to say of {htlc} that it is failed");
                            return Err(Failed::new(expected, "nothing"));
                        }
                    }
                    None => {}
                }
            }
            for (msat, (certain, possible)) in fulfilled {
                // After a crash LDK may say it again.
                let said = nodes.forwarded.get(&(ends.id, msat)).copied().unwrap_or_default();
                if said < certain || (said > 0 && possible == 0) {
                    let expected = format!("LDK to forward {certain} to {possible} HTLCs");
                    let found = format!("{said} of {msat} msat on channel {name}");
                    return Err(Failed::new(expected, found));
                }
            }
        }
        Ok(())
    }

    /// Whether nobody has taken the output of an HTLC, which is not worth its claim.
    fn is_left(&self, htlc: &HtlcRef) -> Result<bool, Failed> {
        let chan = self.chan(&htlc.channel)?;
        let role = Role::Htlc(htlc_id(chan.peer.htlc(&htlc.htlc)?.htlc));
        let mut outputs = chan.report.iter().flat_map(|report| &report.outputs);
        Ok(outputs.any(|of| {
            let left = self.world.ledger.spender(&of.outpoint).is_none();
            of.role == role && of.amount < WORTH_IT && left
        }))
    }

    fn is_resolved(&self, htlc: &HtlcRef) -> Result<bool, Failed> {
        let chan = self.chan(&htlc.channel)?;
        let phase = chan.report.as_ref().map(|report| report.phase);
        Ok(chan.forgotten || matches!(phase, Some(Phase::Resolved(_))))
    }
}
