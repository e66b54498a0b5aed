//! Reports: for every satoshi that is not home yet, where it is, why, what it waits for, and what
//! it has cost. Computed from facts, evidence and tip.
use crate::arbitrator::phase::{OutputState, Phase};
use crate::arbitrator::{
    Alert, ChannelArbitrator, ChannelEvent, CloseKind, Effect, HandedOut, Notice, Now, TxKind,
    UpstreamVerdict,
};
use crate::claim::fee;
use crate::facts::ChannelFacts;
use crate::height::{Due, Reason};
use crate::ids::{ChannelId, HtlcId, Side};
use crate::picture::{Output, Picture, Role, Way};
use crate::units::BlockHeight;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Txid, Weight};

/// Everything about one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelReport {
    /// The channel.
    pub id: ChannelId,
    /// The tip that the report is made at.
    pub tip: BlockHeight,
    /// Where it stands.
    pub phase: Phase,
    /// How the funding output was spent, if a block says so.
    pub close: Option<CloseKind>,
    /// Outputs of the closing transaction and of second-stage transactions.
    pub outputs: Vec<OutputReport>,
    /// What the node was told upstream.
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
    /// Every transaction of ours that was handed out, oldest first.
    pub transactions: Vec<TransactionReport>,
    /// What happens next by height alone.
    pub next: Option<Due>,
}

/// One output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputReport {
    /// The output.
    pub outpoint: OutPoint,
    /// What it is.
    pub role: Role,
    /// Its value.
    pub amount: Amount,
    /// Its state.
    pub state: OutputState,
    /// Why it is pending, and the height at which something happens; `None`: nothing is awaited.
    pub waits: Option<Due>,
    /// By when a claim must be confirmed.
    pub deadline: Option<BlockHeight>,
    /// Who spent it.
    pub spent_by: Option<Side>,
    /// The confirmed spend.
    pub spender: Option<Txid>,
    /// Height of the confirmed spend.
    pub spent_at: Option<BlockHeight>,
    /// Its share of the fees of our confirmed transactions that claim it.
    pub fees: Amount,
    /// Our newest unconfirmed claim of it.
    pub unconfirmed: Option<Txid>,
    /// Its feerate.
    pub feerate: Option<FeeRate>,
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
    /// What it weighs.
    pub weight: Weight,
    /// Number of channel outputs that it spends.
    pub inputs: usize,
    /// The channel outputs that it spends. Whatever shares one of them with a later transaction
    /// of ours was replaced by it.
    pub claims: Vec<OutPoint>,
    /// Block that holds it, as far as the channel's evidence says.
    pub confirmed: Option<BlockHeight>,
}

impl ChannelReport {
    /// Value that reached us minus fees, in satoshis; negative if fees ate it up.
    #[must_use]
    pub fn recovered(&self) -> i64 {
        let signed = |amount: Amount| i64::try_from(amount.to_sat()).unwrap_or(i64::MAX);
        signed(self.received).saturating_sub(signed(self.fees))
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
        let desired = state.alerts(facts, picture);
        let transactions = transactions(state);
        let confirmed = transactions
            .iter()
            .filter(|tx| tx.confirmed.is_some() && tx.kind != TxKind::Commitment);
        let fees = confirmed.map(|tx| tx.fee).fold(Amount::ZERO, plus);
        Self {
            id: facts.id,
            tip: now.tip,
            phase: state.phase_of(picture, now.tip, &now.policy),
            close: picture.map(|p| p.spend.kind()),
            outputs: outputs.iter().map(|o| output(state, o, now)).collect(),
            upstream: state.acts().upstream.iter().map(|(id, v)| (*id, *v)).collect(),
            events: state.acts().events.clone(),
            alerts: desired,
            received: outputs
                .iter()
                .filter(|o| reached_us(o))
                .map(|o| o.output.value)
                .fold(Amount::ZERO, plus),
            fees,
            transactions,
            next: state.next_due(facts, picture, now),
        }
    }

    /// A report of a channel that is open and quiet.
    #[must_use]
    pub fn quiet(facts: &ChannelFacts, now: &Now) -> Self {
        Self::by(facts, &ChannelArbitrator::default(), None, now)
    }
}

fn plus(a: Amount, b: Amount) -> Amount {
    a.checked_add(b).unwrap_or(Amount::MAX_MONEY)
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

fn output(state: &ChannelArbitrator, output: &Output, now: &Now) -> OutputReport {
    let ours = || state.acts().claims_of(output.outpoint);
    let confirmed = |txid: Txid| state.confirmed_at(txid);
    let paid = ours().filter(|out| confirmed(out.transaction.compute_txid()).is_some());
    let fees = paid.map(|out| share(out, output.outpoint)).fold(Amount::ZERO, plus);
    let newest = ours().next_back().filter(|_| output.spent.is_none());
    OutputReport {
        outpoint: output.outpoint,
        role: output.role,
        amount: output.output.value,
        state: output.state(now.tip, &now.policy),
        waits: waits(output, now),
        deadline: match &output.way {
            Way::Spend { deadline, .. } => *deadline,
            Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => None,
        },
        spent_by: output.spent.map(|spent| spent.by),
        spender: output.spent.map(|spent| spent.txid),
        spent_at: output.spent.map(|spent| spent.at.height),
        fees,
        unconfirmed: newest.map(|out| out.transaction.compute_txid()),
        feerate: newest.and_then(|out| fee::feerate_of(out.fee, out.transaction.weight())),
    }
}

/// What one of the claims of a transaction bears of its fee: an equal part, the first one the rest.
fn share(out: &HandedOut, claim: OutPoint) -> Amount {
    let count = u64::try_from(out.claims.len()).unwrap_or(u64::MAX).max(1);
    let part = out.fee.to_sat().checked_div(count).unwrap_or(0);
    let rest = out.fee.to_sat().checked_rem(count).unwrap_or(0);
    let first = out.claims.first() == Some(&claim);
    Amount::from_sat(part.saturating_add(if first { rest } else { 0 }))
}

fn waits(output: &Output, now: &Now) -> Option<Due> {
    let here = |reason| Due { tip: now.tip, until: now.tip, reason };
    if let Some(depth) = output.irrevocable_at(now.tip, &now.policy) {
        return (!depth.is_open(now.tip)).then_some(depth);
    }
    match &output.way {
        Way::Spend { due, .. } if !due.is_open(now.tip) => Some(*due),
        Way::Spend { .. } if output.is_uneconomic() => Some(here(Reason::Uneconomic)),
        Way::Spend { .. } => Some(here(Reason::Confirmation)),
        Way::NeedsPreimage { expiry } => {
            Some(Due { tip: *expiry, until: *expiry, reason: Reason::Preimage })
        }
        Way::Theirs | Way::Home | Way::Nothing | Way::Lost => None,
    }
}

fn transactions(state: &ChannelArbitrator) -> Vec<TransactionReport> {
    let report = |out: &HandedOut| {
        let txid = out.transaction.compute_txid();
        TransactionReport {
            txid,
            kind: out.kind,
            fee: out.fee,
            weight: out.transaction.weight(),
            inputs: out.claims.len(),
            claims: out.claims.clone(),
            confirmed: state.confirmed_at(txid),
        }
    };
    state.acts().handed_out.iter().map(report).collect()
}

impl ChannelArbitrator {
    /// Height of the block that holds this transaction, as far as the evidence says.
    #[must_use]
    pub fn confirmed_at(&self, txid: Txid) -> Option<BlockHeight> {
        let found = self.chain.iter().find(|tx| tx.value.compute_txid() == txid);
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
                Effect::Claim(_) | Effect::LoadRevokedHtlcs(_) | Effect::Forget => None,
            })
            .collect()
    }
}
