//! Reports for machines: field names that stay, amounts in satoshis, heights as numbers, ids and
//! hashes as hex. Written by hand, so that a renamed field of a struct changes nothing here.
mod names;
#[cfg(test)]
mod tests;

use crate::arbitrator::{Alert, ChannelEvent, CloseKind, FailReason, Phase, UpstreamVerdict};
use crate::height::Due;
use crate::ids::{ChannelId, HtlcId};
use crate::picture::Role;
use crate::report::{
    AllReports, ChannelReport, ClosingCost, ClosingReport, OutputReport, PhaseCounts,
    PlannedTransaction, Rival, TransactionReport,
};
use crate::units::BlockHeight;
use bitcoin::{Amount, FeeRate, OutPoint};
use serde::ser::{Serialize, SerializeSeq, SerializeStruct, Serializer};

/// Something that prints itself as text.
struct Text<T>(T);

impl<T: core::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A list whose elements are made while it is written.
struct List<'a, T, F>(&'a [T], F);

impl<'a, T, U: Serialize, F: Fn(&'a T) -> U> Serialize for List<'a, T, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for element in self.0 {
            list.serialize_element(&(self.1)(element))?;
        }
        list.end()
    }
}

/// What is named, with the one thing that comes with it.
struct Named<T> {
    kind: &'static str,
    with: Option<(&'static str, T)>,
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = if self.with.is_some() { 2 } else { 1 };
        let mut named = serializer.serialize_struct("Named", fields)?;
        named.serialize_field("kind", self.kind)?;
        if let Some((name, value)) = &self.with {
            named.serialize_field(name, value)?;
        }
        named.end()
    }
}

fn sat(amount: Amount) -> u64 {
    amount.to_sat()
}

fn height(height: Option<BlockHeight>) -> Option<u32> {
    height.map(|height| height.0)
}

fn per_kwu(feerate: Option<FeeRate>) -> Option<u64> {
    feerate.map(FeeRate::to_sat_per_kwu)
}

struct Htlc(HtlcId);

impl Serialize for Htlc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut htlc = serializer.serialize_struct("Htlc", 2)?;
        htlc.serialize_field("offerer", names::side(self.0.offerer))?;
        htlc.serialize_field("id", &self.0.id)?;
        htlc.end()
    }
}

struct When(Due);

impl Serialize for When {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut due = serializer.serialize_struct("Due", 3)?;
        due.serialize_field("reason", names::reason(self.0.reason))?;
        due.serialize_field("height", &self.0.until.0)?;
        due.serialize_field("tip", &self.0.tip.0)?;
        due.end()
    }
}

struct Told(HtlcId, UpstreamVerdict);

impl Serialize for Told {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut told = serializer.serialize_struct("Upstream", 2)?;
        told.serialize_field("htlc", &Htlc(self.0))?;
        told.serialize_field("verdict", names::verdict(self.1))?;
        told.end()
    }
}

struct Close(CloseKind);

impl Serialize for Close {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (kind, number) = match self.0 {
            CloseKind::Splice(txid) => {
                let with = Some(("txid", Text(txid)));
                return Named { kind: "splice", with }.serialize(serializer);
            }
            CloseKind::Mutual => ("mutual", None),
            CloseKind::Local(n) => ("local", Some(n)),
            CloseKind::Outdated(n) => ("outdated", Some(n)),
            CloseKind::Remote(n) => ("remote", Some(n)),
            CloseKind::Revoked(n) => ("revoked", Some(n)),
            CloseKind::Future(n) => ("future", Some(n)),
            CloseKind::Unknown => ("unknown", None),
        };
        let with = number.map(|number| ("commitment", number.0));
        Named { kind, with }.serialize(serializer)
    }
}

struct Event(ChannelEvent);

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            ChannelEvent::EarlyMutual => bare("early_mutual").serialize(serializer),
            ChannelEvent::Closed(kind) => {
                Named { kind: "closed", with: Some(("close", Close(kind))) }.serialize(serializer)
            }
            ChannelEvent::Reorged => bare("reorged").serialize(serializer),
            ChannelEvent::Resolved => bare("resolved").serialize(serializer),
            ChannelEvent::Output { outpoint, progress } => {
                let mut event = serializer.serialize_struct("Output", 3)?;
                event.serialize_field("kind", "output")?;
                event.serialize_field("outpoint", &Text(outpoint))?;
                event.serialize_field("progress", names::progress(progress))?;
                event.end()
            }
        }
    }
}

struct Warned(Alert);

impl Serialize for Warned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let txid = |kind, txid| Named { kind, with: Some(("txid", Text(txid))) };
        match self.0 {
            Alert::UnknownSpend(spend) => txid("unknown_spend", spend).serialize(serializer),
            Alert::DataLoss(spend) => txid("data_loss", spend).serialize(serializer),
            Alert::OutdatedLocalCommitment(spend) => {
                txid("outdated_local_commitment", spend).serialize(serializer)
            }
            Alert::OutputLost(outpoint) => {
                let with = Some(("outpoint", Text(outpoint)));
                Named { kind: "output_lost", with }.serialize(serializer)
            }
            Alert::PreimageAfterFail(htlc) => {
                let with = Some(("htlc", Htlc(htlc)));
                Named { kind: "preimage_after_fail", with }.serialize(serializer)
            }
            Alert::PenaltyDataUnreadable(number) => {
                let with = Some(("commitment", number.0));
                Named { kind: "penalty_data_unreadable", with }.serialize(serializer)
            }
            Alert::OutdatedFacts => bare("outdated_facts").serialize(serializer),
            Alert::Quarantined => bare("quarantined").serialize(serializer),
            Alert::SignerFailing => bare("signer_failing").serialize(serializer),
        }
    }
}

const fn bare(kind: &'static str) -> Named<u64> {
    Named { kind, with: None }
}

struct What(Role);

impl Serialize for What {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let of = |kind, side| Named { kind, with: Some(("side", names::side(side))) };
        let htlc = |kind, id: Option<HtlcId>| Named { kind, with: id.map(|id| ("htlc", Htlc(id))) };
        match self.0 {
            Role::ToLocal => bare("to_local").serialize(serializer),
            Role::ToRemote => bare("to_remote").serialize(serializer),
            Role::Anchor(side) => of("anchor", side).serialize(serializer),
            Role::SharedAnchor => bare("shared_anchor").serialize(serializer),
            Role::Htlc(id) => htlc("htlc", Some(id)).serialize(serializer),
            Role::SecondStage(id) => htlc("second_stage", id).serialize(serializer),
            Role::Paid(side) => of("paid", side).serialize(serializer),
            Role::Unidentified => bare("unidentified").serialize(serializer),
        }
    }
}

impl Serialize for ChannelReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("ChannelReport", 21)?;
        report.serialize_field("channel", &Text(self.id))?;
        report.serialize_field("short_channel_id", &self.names.short_channel_id.map(Text))?;
        report.serialize_field("aliases", &List(&self.names.aliases, |id: &_| Text(*id)))?;
        report.serialize_field("link", &self.link.map(names::link))?;
        report.serialize_field("tip", &self.tip.0)?;
        report.serialize_field("phase", phase(self.phase))?;
        report.serialize_field("close", &self.close.map(Close))?;
        report.serialize_field("capacity", &sat(self.capacity))?;
        report.serialize_field("balance", &sat(self.balance))?;
        report.serialize_field("received", &sat(self.received))?;
        report.serialize_field("fees", &sat(self.fees))?;
        report.serialize_field("deducted_fees", &sat(self.deducted_fees))?;
        report.serialize_field("pending_fees", &sat(self.pending_fees))?;
        report.serialize_field("recovered", &self.recovered())?;
        report.serialize_field("next", &self.next.map(When))?;
        report.serialize_field("closing", &self.closing)?;
        report.serialize_field("outputs", &self.outputs)?;
        report.serialize_field("transactions", &self.transactions)?;
        report.serialize_field(
            "upstream",
            &List(&self.upstream, |told: &(_, _)| Told(told.0, told.1)),
        )?;
        report
            .serialize_field("events", &List(&self.events, |event: &ChannelEvent| Event(*event)))?;
        report.serialize_field("alerts", &List(&self.alerts, |alert: &Alert| Warned(*alert)))?;
        report.end()
    }
}

const fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Open => "open",
        Phase::Failing => "failing",
        Phase::Closed(_) => "closed",
        Phase::Resolved(_) => "resolved",
    }
}

impl Serialize for ClosingReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (reason, htlc) = match self.reason {
            FailReason::Requested => ("requested", None),
            FailReason::OfferedDeadline(id) => ("offered_deadline", Some(id)),
            FailReason::FulfilDeadline(id) => ("fulfil_deadline", Some(id)),
        };
        let reason = Named { kind: reason, with: htlc.map(|id| ("htlc", Htlc(id))) };
        let mut closing = serializer.serialize_struct("ClosingReport", 12)?;
        closing.serialize_field("number", &self.number.0)?;
        closing.serialize_field("reason", &reason)?;
        closing.serialize_field("commitment", &self.commitment.map(Text))?;
        closing.serialize_field("fee", &sat(self.fee))?;
        closing.serialize_field("feerate_per_kwu", &per_kwu(self.feerate))?;
        closing.serialize_field("child", &self.child.map(Text))?;
        closing.serialize_field("child_fee", &sat(self.child_fee))?;
        closing.serialize_field("bumps", &self.bumps)?;
        closing.serialize_field("package_feerate_per_kwu", &per_kwu(self.package_feerate))?;
        closing.serialize_field("payer", &self.payer.map(names::payer))?;
        closing.serialize_field("deadline", &height(self.deadline))?;
        closing.serialize_field("value_at_risk", &sat(self.value_at_risk))?;
        closing.end()
    }
}

impl Serialize for OutputReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut output = serializer.serialize_struct("OutputReport", 19)?;
        output.serialize_field("outpoint", &Text(self.outpoint))?;
        output.serialize_field("role", &What(self.role))?;
        output.serialize_field("amount", &sat(self.amount))?;
        output.serialize_field("state", names::state(self.state))?;
        output.serialize_field("waits", &self.waits.map(When))?;
        output.serialize_field("deadline", &height(self.deadline))?;
        output.serialize_field("rival", &self.rival)?;
        output.serialize_field("payer", &self.payer.map(names::payer))?;
        output.serialize_field("withheld", &self.withheld)?;
        output.serialize_field("spent_by", &self.spent_by.map(names::side))?;
        output.serialize_field("spender", &self.spender.map(Text))?;
        output.serialize_field("spent_at", &height(self.spent_at))?;
        output.serialize_field("fees", &sat(self.fees))?;
        output.serialize_field("pending_fee", &self.pending_fee.map(sat))?;
        output.serialize_field("bumps", &self.bumps)?;
        output.serialize_field("set_aside", &self.set_aside)?;
        output.serialize_field("unconfirmed", &self.unconfirmed.map(Text))?;
        output.serialize_field("feerate_per_kwu", &per_kwu(self.feerate))?;
        output.serialize_field("package_feerate_per_kwu", &per_kwu(self.package_feerate))?;
        output.end()
    }
}

impl Serialize for Rival {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rival = serializer.serialize_struct("Rival", 2)?;
        rival.serialize_field("who", names::taker(self.who))?;
        rival.serialize_field("from", &When(self.from))?;
        rival.end()
    }
}

impl Serialize for TransactionReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tx = serializer.serialize_struct("TransactionReport", 8)?;
        tx.serialize_field("txid", &Text(self.txid))?;
        tx.serialize_field("kind", names::transaction(self.kind))?;
        tx.serialize_field("fee", &sat(self.fee))?;
        tx.serialize_field("own_fee", &sat(self.own_fee))?;
        tx.serialize_field("weight", &self.weight.to_wu())?;
        tx.serialize_field("inputs", &self.inputs)?;
        tx.serialize_field("claims", &List(&self.claims, |claim: &OutPoint| Text(*claim)))?;
        tx.serialize_field("confirmed", &height(self.confirmed))?;
        tx.end()
    }
}

impl Serialize for PhaseCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut counts = serializer.serialize_struct("PhaseCounts", 4)?;
        counts.serialize_field("open", &self.open)?;
        counts.serialize_field("failing", &self.failing)?;
        counts.serialize_field("closed", &self.closed)?;
        counts.serialize_field("resolved", &self.resolved)?;
        counts.end()
    }
}

impl Serialize for AllReports {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_struct("AllReports", 4)?;
        all.serialize_field("tip", &self.tip.0)?;
        all.serialize_field("phases", &self.phases)?;
        all.serialize_field("quarantined", &List(&self.quarantined, |id: &ChannelId| Text(*id)))?;
        all.serialize_field("channels", &self.channels)?;
        all.end()
    }
}

impl Serialize for ClosingCost {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut cost = serializer.serialize_struct("ClosingCost", 9)?;
        cost.serialize_field("feerate_per_kwu", &self.feerate.to_sat_per_kwu())?;
        cost.serialize_field("transactions", &self.transactions)?;
        cost.serialize_field("fees", &sat(self.fees))?;
        cost.serialize_field("wallet", &sat(self.wallet))?;
        cost.serialize_field("weight", &self.weight.to_wu())?;
        cost.serialize_field("value", &sat(self.value))?;
        cost.serialize_field("left", &sat(self.left))?;
        cost.serialize_field("uncertain", &sat(self.uncertain))?;
        cost.serialize_field("home_at", &height(self.home_at))?;
        cost.end()
    }
}

impl Serialize for PlannedTransaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tx = serializer.serialize_struct("PlannedTransaction", 6)?;
        tx.serialize_field("kind", names::transaction(self.kind))?;
        tx.serialize_field("inputs", &self.inputs)?;
        tx.serialize_field("weight", &self.weight.to_wu())?;
        tx.serialize_field("fee", &sat(self.fee))?;
        tx.serialize_field("payer", names::payer(self.payer))?;
        tx.serialize_field("at", &self.at.0)?;
        tx.end()
    }
}
