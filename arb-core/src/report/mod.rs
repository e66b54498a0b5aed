//! Reports: for every satoshi that is not home yet, where it is, why, what it waits for, and what
//! it has cost. Computed from facts, evidence and tip. With the feature `serde` they can be
//! serialised; their field names are stable, and no secret or preimage is in them.
mod all;
mod closing;
mod cost;
#[cfg(feature = "serde")]
mod json;
mod output;
#[cfg(test)]
mod tests;

use crate::arbitrator::phase::Phase;
use crate::arbitrator::{
    Alert, ChannelArbitrator, ChannelEvent, CloseKind, Effect, HandedOut, Notice, Now, TxKind,
    UpstreamDuty, UpstreamVerdict,
};
use crate::facts::{ChannelFacts, ChannelNames, Link};
use crate::height::Due;
use crate::ids::{ChannelId, HtlcId, Side};
use crate::picture::{Output, Picture, Way};
use crate::units::{self, BlockHeight};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bitcoin::{Amount, OutPoint, Txid, Weight};

pub use all::{AllReports, PhaseCounts, ReportPage};
pub use closing::ClosingReport;
pub use cost::{ClosingCost, PlannedTransaction, reserve};
pub use output::{OutputReport, Payer, Rival, Taker};

/// Everything about one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelReport {
    /// The channel.
    pub id: ChannelId,
    /// How the node's other parts name it.
    pub names: ChannelNames,
    /// Whether its peer is connected; `None`: the node has not said so since it started.
    pub link: Option<Link>,
    /// The tip that the report is made at.
    pub tip: BlockHeight,
    /// Where it stands.
    pub phase: Phase,
    /// How the funding output was spent, if a block says so. After a splice the channel goes on.
    pub close: Option<CloseKind>,
    /// Value of the current funding output.
    pub capacity: Amount,
    /// Our balance in our current commitment, HTLCs and fees aside, rounded down.
    pub balance: Amount,
    /// Our commitment on its way, while the channel is to be failed and not closed.
    pub closing: Option<ClosingReport>,
    /// Outputs of the closing transaction and of second-stage transactions.
    pub outputs: Vec<OutputReport>,
    /// What the node was told upstream. While the channel is open, what it was told of an HTLC that has left is
    /// forgotten.
    pub upstream: Vec<(HtlcId, UpstreamVerdict)>,
    /// Events that subscribers get, in order.
    pub events: Vec<ChannelEvent>,
    /// Alerts that stand, acknowledged or not.
    pub alerts: Vec<Alert>,
    /// Value of this channel's outputs that reached us, before fees.
    pub received: Amount,
    /// Fees of our confirmed transactions, wallet-paid ones included. The fee of a commitment
    /// transaction is not among them: it was never part of an output.
    pub fees: Amount,
    /// The part of `fees` that was taken off outputs which `received` counts net of it: second stages
    /// without anchors pay from the HTLC.
    pub deducted_fees: Amount,
    /// What our newest unconfirmed transactions would pay, should they confirm; without the
    /// commitment's own fee, again.
    pub pending_fees: Amount,
    /// Every transaction of ours that was handed out, oldest first.
    pub transactions: Vec<TransactionReport>,
    /// What happens next: at the earliest height at which something happens by itself; where there is
    /// none, what keeps a transaction of ours from its block, at the present tip.
    pub next: Option<Due>,
}

/// A transaction of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionReport {
    /// The transaction.
    pub txid: Txid,
    /// What it is.
    pub kind: TxKind,
    /// What it pays.
    pub fee: Amount,
    /// What of that falls to this channel: all of it, unless it claims from others as well. Then
    /// each claim bears an equal part, and the lowest what does not divide.
    pub own_fee: Amount,
    /// What it weighs.
    pub weight: Weight,
    /// Number of outputs of channels that it spends.
    pub inputs: usize,
    /// The outputs of channels that it spends, first those of this one. Whatever shares one of them with a later transaction
    /// of ours was replaced by it.
    pub claims: Vec<OutPoint>,
    /// Block that holds it, as far as the channel's evidence says.
    pub confirmed: Option<BlockHeight>,
}

impl ChannelReport {
    /// Value that reached us minus fees, each counted once, in satoshis: what the channel's outputs
    /// have changed of what we own. Negative if fees ate it up.
    #[must_use]
    pub fn recovered(&self) -> i64 {
        let signed = |amount: Amount| i64::try_from(amount.to_sat()).unwrap_or(i64::MAX);
        let net = signed(self.received).saturating_sub(signed(self.fees));
        net.saturating_add(signed(self.deducted_fees))
    }

    /// The report of a channel.
    #[must_use]
    pub fn of(facts: &ChannelFacts, state: &ChannelArbitrator, now: &Now) -> Self {
        Self::by(facts, state, Picture::of(facts, state).as_ref(), now)
    }

    pub(crate) fn by(
        facts: &ChannelFacts,
        state: &ChannelArbitrator,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Self {
        let outputs = picture.map(|p| p.outputs.as_slice()).unwrap_or_default();
        let current = &facts.candidates.current;
        let transactions = transactions(state);
        let spliced = || {
            let last = state.splices(facts).last()?;
            Some(CloseKind::Splice(last.value.txid()))
        };
        let confirmed = transactions
            .iter()
            .filter(|tx| tx.confirmed.is_some() && tx.kind != TxKind::Commitment);
        let fees = units::total(confirmed.map(|tx| tx.own_fee));
        let of_output = |o| picture.map(|p| output::output(facts, state, p, o, now));
        let closing = if picture.is_none() { closing::closing(facts, state, now) } else { None };
        let outputs_reported: Vec<OutputReport> = outputs.iter().filter_map(of_output).collect();
        let deducted = outputs.iter().zip(&outputs_reported).filter(|(output, reported)| {
            passes_on(output) && reported.payer == Some(Payer::Output)
        });
        let deducted_fees = units::total(deducted.map(|(_, reported)| reported.fees));
        Self {
            id: facts.id,
            names: facts.names.clone(),
            link: now.link,
            tip: now.tip,
            phase: state.phase_of(picture, now.tip, &now.policy),
            close: picture.map(|p| p.spend.kind()).or_else(spliced),
            capacity: current.capacity,
            balance: current.local.local_balance.floor(),
            pending_fees: pending_fees(&transactions, &outputs_reported, closing.as_ref()),
            closing,
            outputs: outputs_reported,
            upstream: told(facts, state),
            events: state.acts().events.clone(),
            alerts: state.alerts(facts, picture, now),
            received: units::total(
                outputs.iter().filter(|o| reached_us(o)).map(|o| o.output.value),
            ),
            fees,
            deducted_fees,
            transactions,
            next: state.awaits(facts, picture, now),
        }
    }

    /// A report of a channel that is open and quiet.
    #[must_use]
    pub fn quiet(facts: &ChannelFacts, now: &Now) -> Self {
        Self::by(facts, &ChannelArbitrator::default(), None, now)
    }
}

/// What the newest transactions of ours that wait for a block would pay. One that claims several
/// outputs counts once.
fn pending_fees(
    transactions: &[TransactionReport],
    outputs: &[OutputReport],
    closing: Option<&ClosingReport>,
) -> Amount {
    let child = closing.and_then(|closing| closing.child);
    let newest = outputs.iter().filter_map(|output| output.unconfirmed).chain(child);
    let fee_of = |txid| transactions.iter().find(|tx| tx.txid == txid).map(|tx| tx.own_fee);
    let fees: BTreeMap<Txid, Amount> = newest.filter_map(|t| Some((t, fee_of(t)?))).collect();
    units::total(fees.into_values())
}

/// Whether an output's value is with us for good: paid to us directly, or claimed. What a second
/// stage of ours makes is counted when that is spent, not before.
fn reached_us(output: &Output) -> bool {
    match (&output.way, output.spent) {
        (Way::Home, _) => true,
        (_, Some(spent)) if spent.by == Side::Local => !passes_on(output),
        _ => false,
    }
}

/// Whether our spend of the output makes another output of the channel: a second stage of ours.
fn passes_on(output: &Output) -> bool {
    matches!(&output.way, Way::Spend { path: crate::claim::SpendPath::SecondStage(_), .. })
}

/// What the node was told, but for what both parties forgot and whose id another has.
fn told(facts: &ChannelFacts, state: &ChannelArbitrator) -> Vec<(HtlcId, UpstreamVerdict)> {
    let replaced = |duty: &UpstreamDuty| {
        let record = facts.htlcs.get(&duty.htlc);
        record.is_some_and(|record| UpstreamDuty::of(duty.htlc, &record.htlc) != *duty)
    };
    let told = state.acts().upstream.iter().filter(|(duty, _)| !replaced(duty));
    told.map(|(duty, verdict)| (duty.htlc, *verdict)).collect()
}

fn transactions(state: &ChannelArbitrator) -> Vec<TransactionReport> {
    let report = |out: &HandedOut| {
        let txid = out.txid();
        TransactionReport {
            txid,
            kind: out.kind,
            fee: out.fee,
            own_fee: out.own_fee(),
            weight: out.transaction.weight(),
            inputs: out.all_claims().count(),
            claims: out.all_claims().collect(),
            confirmed: state.confirmed_at(txid),
        }
    };
    state.acts().handed_out.iter().map(report).collect()
}

impl ChannelArbitrator {
    /// Height of the block that holds this transaction, as far as the evidence says.
    #[must_use]
    pub fn confirmed_at(&self, txid: Txid) -> Option<BlockHeight> {
        let found = self.chain.iter().find(|tx| tx.value.txid() == txid);
        found.map(|tx| tx.at.height)
    }

    /// Notices that stand and are not acknowledged.
    #[must_use]
    pub fn open_notices(&self, facts: &ChannelFacts, now: &Now) -> Vec<Notice> {
        let desire = self.desired(facts, now);
        desire
            .into_values()
            .filter_map(|effect| match effect {
                Effect::Notify(notice) => Some(notice),
                Effect::Claim(_)
                | Effect::LoadRevokedHtlcs(_)
                | Effect::JudgeScripts(_)
                | Effect::AskPoint(_)
                | Effect::Forget => None,
            })
            .collect()
    }
}
