//! Expectations: what the arbiter reports, held against what the chain says.
use super::Failed;
use super::command::script_aside;
use super::story::Runner;
use crate::peer::Side;
use crate::scenario::ast::{
    AlertExpectation, ChannelCheck, ChannelName, CloseKind, ClosingCheck, Compare, EventKind,
    Expectation, History, MilliSat, OutputCheck, OutputRef, OutputState, OwnCheck, PhaseName,
    Statement, Step, SubscriberName, TransactionKind, UpstreamNotice,
};
use crate::world::htlc_id;
use arb_core::arbitrator::{
    Alert, ChannelEvent, CloseKind as CoreClose, OutputState as CoreState, Phase, TxKind,
    UpstreamVerdict,
};
use arb_core::height::Reason;
use arb_core::report::{ChannelReport, ClosingCost, OutputReport, TransactionReport};
use bitcoin::{Amount, OutPoint};
use std::collections::BTreeSet;
use std::fmt::Debug;

impl Runner<'_> {
    pub(super) async fn expect(&mut self, expectation: &Expectation) -> Result<(), Failed> {
        match expectation {
            Expectation::Channel { channel, check } => self.expect_channel(channel, check).await,
            Expectation::Output { output, check } => match check {
                OutputCheck::State(state) => self.expect_state(output, *state).await,
                OutputCheck::Upstream(notice) => self.expect_upstream(output, *notice),
                OutputCheck::Feerate(rate) => self.expect_feerate(output, rate).await,
                OutputCheck::Aside(expected) => self.expect_aside(output, *expected).await,
                OutputCheck::Waits(reason) => {
                    let due = self.reported(output).await?.waits;
                    let found = due.map_or("none", |due| reason_name(due.reason));
                    if found == reason {
                        return Ok(());
                    }
                    Err(Failed::new(format!("waits={reason}"), found))
                }
                OutputCheck::SetAside(expected) => {
                    let found = self.reported(output).await?.set_aside.is_some();
                    equal("set_aside=", expected, &found)
                }
            },
            Expectation::Ours { kind, check } => self.expect_ours(*kind, check),
            Expectation::Reserve(amount) => {
                let rate = self.world.faults.estimates().within(1);
                let reserve = self.command(|arbiter| async move { arbiter.reserve(rate).await });
                sats("reserve", amount, reserve.await?.total())
            }
            Expectation::Events { subscriber, events } => self.expect_events(subscriber, events),
            Expectation::Alert(alert) => self.expect_alert(*alert),
        }
    }

    /// What the report says of an output.
    async fn reported(&mut self, output: &OutputRef) -> Result<&OutputReport, Failed> {
        let none = || Failed::new(format!("{output} in the report"), "no such output");
        let outpoint = self.outpoint(output).await?.ok_or_else(none)?;
        let report = self.report(output.channel())?;
        report.outputs.iter().find(|known| known.outpoint == outpoint).ok_or_else(none)
    }

    fn report(&self, name: &ChannelName) -> Result<&ChannelReport, Failed> {
        let report = self.chan(name)?.report.as_ref();
        report.ok_or_else(|| Failed::new(format!("a report of channel {name}"), "none"))
    }

    async fn expect_channel(
        &mut self,
        name: &ChannelName,
        check: &ChannelCheck,
    ) -> Result<(), Failed> {
        match check {
            ChannelCheck::Phase(phase) => {
                let found = self.phase(name)?;
                equal("phase=", phase, &found)
            }
            ChannelCheck::Close(close) => self.expect_close(name, *close).await,
            ChannelCheck::Recovered(amount) => {
                let sat = self.report(name)?.recovered();
                let want = i64::try_from(amount.value.0 / 1000).unwrap_or(i64::MAX);
                let compare = Compare { op: amount.op, value: want };
                number("recovered", &compare, &sat, "sat")
            }
            ChannelCheck::Fees(amount) => sats("fees", amount, self.report(name)?.fees),
            ChannelCheck::Waits(reason) => {
                let found = self.report(name)?.next.map(|due| reason_name(due.reason));
                let found = found.unwrap_or("none").to_owned();
                if found == *reason {
                    return Ok(());
                }
                Err(Failed::new(format!("waits={reason}"), found))
            }
            ChannelCheck::Until(until) => {
                let due = self.report(name)?.next;
                let due = due.ok_or_else(|| {
                    Failed::new(format!("until{}+{}", until.op, until.value.0), "nothing awaited")
                })?;
                let above = due.until.0.saturating_sub(self.world.height());
                let compare = Compare { op: until.op, value: until.value.0 };
                number("until", &compare, &above, " blocks above the tip")
            }
            ChannelCheck::Closing(check) => {
                let rate = self.world.faults.estimates().within(1);
                let none =
                    || Failed::new("what closing would cost", "nothing that could be closed");
                let cost = self.cost(name, rate).await?.ok_or_else(none)?;
                self.expect_closing(check, &cost)
            }
        }
    }

    fn expect_closing(&self, check: &ClosingCheck, cost: &ClosingCost) -> Result<(), Failed> {
        match check {
            ClosingCheck::Transactions(count) => {
                let found = u64::try_from(cost.transactions.len()).unwrap_or(u64::MAX);
                number("closing_transactions", count, &found, "")
            }
            ClosingCheck::Fees(amount) => sats("closing_fees", amount, cost.fees),
            ClosingCheck::Weight(weight) => {
                number("closing_weight", weight, &cost.weight.to_wu(), " weight units")
            }
            ClosingCheck::Left(amount) => sats("closing_left", amount, cost.left),
            ClosingCheck::Home(home) => {
                let at = cost.home_at.ok_or_else(|| {
                    let expected = format!("closing_home{}+{}", home.op, home.value.0);
                    Failed::new(expected, "nothing comes home")
                })?;
                let above = at.0.saturating_sub(self.world.height());
                let compare = Compare { op: home.op, value: home.value.0 };
                number("closing_home", &compare, &above, " blocks above the tip")
            }
        }
    }

    fn phase(&self, name: &ChannelName) -> Result<PhaseName, Failed> {
        if self.chan(name)?.forgotten {
            return Ok(PhaseName::Forgotten);
        }
        Ok(match self.report(name)?.phase {
            Phase::Open => PhaseName::Open,
            Phase::Failing => PhaseName::Failing,
            Phase::Closed(_) => PhaseName::Closed,
            Phase::Resolved(_) => PhaseName::Resolved,
        })
    }

    async fn expect_close(&mut self, name: &ChannelName, close: CloseKind) -> Result<(), Failed> {
        let reported = match self.report(name)?.close {
            None => CloseKind::None,
            Some(CoreClose::Mutual) => CloseKind::Mutual,
            Some(CoreClose::Local(n)) => CloseKind::Local(n.0),
            Some(CoreClose::Outdated(n)) => CloseKind::Outdated(n.0),
            Some(CoreClose::Remote(n)) => CloseKind::Remote(n.0),
            Some(CoreClose::Revoked(n)) => CloseKind::Revoked(n.0),
            Some(CoreClose::Future(n)) => CloseKind::Future(n.0),
            Some(CoreClose::Splice(_)) => CloseKind::Splice,
            Some(CoreClose::Unknown) => CloseKind::Unknown,
        };
        equal("close=", &close, &reported)?;
        // The peer knows whose transaction it is, whatever the arbiter thinks of it.
        let on_chain = self.confirmed_close(name).await?;
        let owner = on_chain.as_ref().and_then(|on_chain| on_chain.commitment.as_ref());
        let owner = owner.map(|commitment| (commitment.owner, commitment.number));
        let expected = match close {
            CloseKind::Local(n) | CloseKind::Outdated(n) => Some((Side::Local, n)),
            CloseKind::Remote(n) | CloseKind::Revoked(n) | CloseKind::Future(n) => {
                Some((Side::Remote, n))
            }
            CloseKind::Mutual | CloseKind::Splice | CloseKind::Unknown | CloseKind::None => None,
        };
        if owner != expected || on_chain.is_some() != (close != CloseKind::None) {
            let found = format!("on chain: {owner:?}");
            let close = as_written(&close);
            return Err(Failed::new(format!("close={close}, as reported"), found));
        }
        Ok(())
    }

    async fn expect_state(
        &mut self,
        output: &OutputRef,
        expected: OutputState,
    ) -> Result<(), Failed> {
        let outpoint = self.outpoint(output).await?;
        let found = self.state(output, outpoint)?;
        if found != expected {
            let expected = format!("state={}", as_written(&expected));
            return Err(Failed::new(expected, as_written(&found)));
        }
        let Some(outpoint) = outpoint else { return Ok(()) };
        // A report must not claim more than a block holds.
        let spender = self.world.ledger.spender(&outpoint).map(|(_, tx)| tx.compute_txid());
        let ours = spender.map(|txid| self.is_ours(&txid));
        let holds = match found {
            OutputState::Unresolved | OutputState::Claiming => ours.is_none(),
            OutputState::Claimed => ours == Some(true),
            OutputState::PeerClaimed => ours == Some(false),
            OutputState::Resolved | OutputState::Irrevocable => true,
        };
        if holds {
            return Ok(());
        }
        let by = match ours {
            None => "nobody",
            Some(true) => "us",
            Some(false) => "the peer",
        };
        Err(Failed::new(
            format!("state={}, as reported", as_written(&found)),
            format!("on chain: spent by {by}"),
        ))
    }

    fn state(&self, output: &OutputRef, outpoint: Option<OutPoint>) -> Result<OutputState, Failed> {
        let name = output.channel();
        let forgotten = self.chan(name)?.forgotten;
        let report = self.report(name)?;
        let Some(outpoint) = outpoint else {
            // Without an output there is nothing to spend, once a commitment is chosen.
            let closed = report.close.is_some();
            return Ok(if closed { OutputState::Resolved } else { OutputState::Unresolved });
        };
        let known = report.outputs.iter().find(|known| known.outpoint == outpoint);
        let state = match known.map(|known| known.state) {
            None if report.close.is_none() => OutputState::Unresolved,
            // What a second stage of the peer's made is the peer's, unless its commitment was revoked: then it is reported.
            None if matches!(output, OutputRef::SecondStage(_)) => OutputState::Resolved,
            None => return Err(Failed::new(format!("{output} in the report"), "no such output")),
            Some(CoreState::Unresolved) => OutputState::Unresolved,
            Some(CoreState::Claiming) => OutputState::Claiming,
            Some(CoreState::Claimed) => OutputState::Claimed,
            Some(CoreState::PeerClaimed) => OutputState::PeerClaimed,
            Some(CoreState::Resolved) => OutputState::Resolved,
            Some(CoreState::Irrevocable) => OutputState::Irrevocable,
        };
        // After the channel was forgotten the last report goes on to count.
        let deep = known
            .and_then(|known| known.waits)
            .is_some_and(|due| due.reason == Reason::Depth && due.tip.0 <= self.world.height());
        Ok(if forgotten && deep { OutputState::Irrevocable } else { state })
    }

    fn expect_upstream(&self, output: &OutputRef, expected: UpstreamNotice) -> Result<(), Failed> {
        let OutputRef::Htlc(htlc) = output else {
            return Err(Failed::new("upstream= of an HTLC", output));
        };
        // Of what was received, what the node was told of the one that forwards it.
        let story = self.scenario.story.iter().take(self.at);
        let forwards = |statement: &Statement| match &statement.step {
            Step::History(History::Offer(offer)) if offer.upstream.as_ref() == Some(htlc) => {
                Some(offer.htlc.clone())
            }
            _ => None,
        };
        let told_of = story.filter_map(forwards).next_back().unwrap_or_else(|| htlc.clone());
        let chan = self.chan(&told_of.channel)?;
        let (channel, id) = (chan.id, htlc_id(chan.peer.htlc(&told_of.htlc)?.htlc));
        let found = match self.node.told.upstream.get(&(channel, id)) {
            None => UpstreamNotice::None,
            Some(UpstreamVerdict::Failed) => UpstreamNotice::Failed,
            Some(UpstreamVerdict::Fulfilled) => UpstreamNotice::Fulfilled,
        };
        equal("upstream=", &expected, &found)
    }

    async fn expect_feerate(
        &mut self,
        output: &OutputRef,
        expected: &Compare<bitcoin::FeeRate>,
    ) -> Result<(), Failed> {
        let tx = match self.outpoint(output).await? {
            Some(outpoint) => self.world.backend.mempool_spender(&outpoint).await?,
            None => None,
        };
        let ours = tx.filter(|tx| self.is_ours(&tx.compute_txid()));
        let ours =
            ours.ok_or_else(|| Failed::new("our unconfirmed spend of that output", "none"))?;
        let rate = self.world.feerate(&ours).await?;
        let rate = rate.ok_or_else(|| Failed::new("a spend whose inputs are known", "none"))?;
        let compare = Compare { op: expected.op, value: expected.value.to_sat_per_kwu() };
        number("feerate", &compare, &rate.to_sat_per_kwu(), "sat/kw")
    }

    async fn expect_aside(&mut self, output: &OutputRef, expected: bool) -> Result<(), Failed> {
        let none = || Failed::new("our spend of that output", "none");
        let outpoint = self.outpoint(output).await?.ok_or_else(none)?;
        let confirmed = self.world.ledger.spender(&outpoint).map(|(_, tx)| tx.clone());
        let tx = match confirmed {
            Some(tx) => Some(tx),
            None => self.world.backend.mempool_spender(&outpoint).await?,
        };
        let tx = tx.filter(|tx| self.is_ours(&tx.compute_txid())).ok_or_else(none)?;
        let aside = script_aside();
        let found = tx.output.iter().any(|output| output.script_pubkey == aside);
        let place = |aside| if aside { "aside" } else { "channel" };
        equal("to=", &place(expected), &place(found))
    }

    /// Our transactions that the network took, by channel, oldest first. One that several channels
    /// share is there for each of them.
    pub(super) fn our_transactions(&self) -> Vec<Vec<TransactionReport>> {
        let seen = self.world.faults.seen();
        let reports = self.channels.values().filter_map(|chan| chan.report.as_ref());
        let taken = |tx: &&TransactionReport| seen.get(&tx.txid).is_some_and(|seen| seen.was_in);
        reports.map(|report| report.transactions.iter().filter(taken).cloned().collect()).collect()
    }

    fn expect_ours(&self, kind: Option<TransactionKind>, check: &OwnCheck) -> Result<(), Failed> {
        let wanted = kind.map(|kind| match kind {
            TransactionKind::Commitment => TxKind::Commitment,
            TransactionKind::Anchor => TxKind::Anchor,
            TransactionKind::HtlcTimeout => TxKind::HtlcTimeout,
            TransactionKind::HtlcSuccess => TxKind::HtlcSuccess,
            TransactionKind::Claim => TxKind::Claim,
            TransactionKind::Sweep => TxKind::Sweep,
            TransactionKind::Penalty => TxKind::Penalty,
        });
        let mut by_channel = self.our_transactions();
        for ours in &mut by_channel {
            ours.retain(|tx| !self.marked.contains(&tx.txid));
            ours.retain(|tx| wanted.is_none_or(|wanted| wanted == tx.kind));
        }
        let ours: Vec<&TransactionReport> = by_channel.iter().flatten().collect();
        match check {
            OwnCheck::Count(count) => number("count", count, &(distinct(&by_channel) as u64), ""),
            OwnCheck::MaxInputs(inputs) => {
                let most = ours.iter().map(|tx| tx.inputs as u64).max().unwrap_or(0);
                number("max_inputs", inputs, &most, "")
            }
            OwnCheck::MaxWeight(weight) => {
                let most = ours.iter().map(|tx| tx.weight.to_wu()).max().unwrap_or(0);
                number("max_weight", weight, &most, "")
            }
        }
    }

    fn expect_events(&self, name: &SubscriberName, expected: &[EventKind]) -> Result<(), Failed> {
        let subscriber = self.node.subscribers.get(name);
        let subscriber = subscriber.ok_or_else(|| Failed::new("a subscriber", name))?;
        let found: Vec<EventKind> = subscriber.events.values().filter_map(event_kind).collect();
        if found == expected {
            return Ok(());
        }
        Err(Failed::new(format!("events={}", as_written(&expected)), as_written(&found)))
    }

    fn expect_alert(&self, expected: AlertExpectation) -> Result<(), Failed> {
        let alerts: Vec<Alert> = self.node.told.alerts.iter().map(|(_, alert)| *alert).collect();
        let unknown = alerts.iter().any(|alert| matches!(alert, Alert::UnknownSpend(_)));
        let holds = match expected {
            AlertExpectation::UnknownSpend => unknown,
            AlertExpectation::None => alerts.is_empty(),
        };
        if holds {
            return Ok(());
        }
        let kind = |alert: &Alert| {
            let all = format!("{alert:?}");
            all.split(['(', ' ']).next().map(str::to_owned).unwrap_or_default()
        };
        let kinds: Vec<String> = alerts.iter().map(kind).collect();
        let kinds = kinds.join(",");
        Err(Failed::new(
            format!("alert={}", as_written(&expected)),
            as_written(&format_args!("{kinds}")),
        ))
    }
}

/// How many of these there are, a transaction and what replaced it being one.
fn distinct(by_channel: &[Vec<TransactionReport>]) -> usize {
    let (mut all, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    for ours in by_channel {
        let mut later: BTreeSet<OutPoint> = BTreeSet::new();
        for tx in ours.iter().rev() {
            all.insert(tx.txid);
            if tx.claims.iter().any(|claim| later.contains(claim)) {
                replaced.insert(tx.txid);
            }
            later.extend(tx.claims.iter().copied());
        }
    }
    all.difference(&replaced).count()
}

/// An event as `events=` names it; `None` for what it leaves out.
fn event_kind(event: &ChannelEvent) -> Option<EventKind> {
    Some(match event {
        ChannelEvent::Output { .. } => return None,
        ChannelEvent::EarlyMutual => EventKind::EarlyMutual,
        ChannelEvent::Reorged => EventKind::Reorged,
        ChannelEvent::Resolved => EventKind::Resolved,
        ChannelEvent::Closed(kind) => match kind {
            CoreClose::Mutual => EventKind::Mutual,
            // Subscribers are told of the commitment, and alerts say that it is outdated.
            CoreClose::Local(n) | CoreClose::Outdated(n) => EventKind::Local(n.0),
            CoreClose::Remote(n) => EventKind::Remote(n.0),
            CoreClose::Revoked(n) => EventKind::Revoked(n.0),
            CoreClose::Future(n) => EventKind::Future(n.0),
            CoreClose::Splice(_) => EventKind::Splice,
            CoreClose::Unknown => EventKind::Unknown,
        },
    })
}

/// A reason as `waits=` names it.
pub(super) const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Csv => "csv",
        Reason::Cltv => "cltv",
        Reason::Depth => "depth",
        Reason::Deadline => "deadline",
        Reason::Confirmation => "confirmation",
        Reason::Preimage => "preimage",
        Reason::Uneconomic => "uneconomic",
    }
}

/// A value as a scenario writes it: `peer_claimed`, `remote#3`, `early_mutual,mutual`; an empty list is `none`.
pub(super) fn as_written(value: &impl Debug) -> String {
    let mut written = String::new();
    for char in format!("{value:?}").chars() {
        match char {
            '(' => written.push('#'),
            ')' | '[' | ']' | ' ' => {}
            upper if upper.is_uppercase() => {
                if written.ends_with(char::is_alphanumeric) {
                    written.push('_');
                }
                written.extend(upper.to_lowercase());
            }
            other => written.push(other),
        }
    }
    if written.is_empty() { "none".to_owned() } else { written }
}

fn equal<T: PartialEq + Debug>(what: &str, expected: &T, found: &T) -> Result<(), Failed> {
    if expected == found {
        return Ok(());
    }
    let text = |value: &T| format!("{what}{}", as_written(value));
    Err(Failed::new(text(expected), text(found)))
}

fn sats(what: &str, expected: &Compare<MilliSat>, found: Amount) -> Result<(), Failed> {
    let compare = Compare { op: expected.op, value: expected.value.0 / 1000 };
    number(what, &compare, &found.to_sat(), "sat")
}

fn number<T: PartialOrd + std::fmt::Display>(
    what: &str,
    expected: &Compare<T>,
    found: &T,
    unit: &str,
) -> Result<(), Failed> {
    if expected.holds(found) {
        return Ok(());
    }
    Err(Failed::new(format!("{what}{expected}{unit}"), format!("{found}{unit}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_can_be_written_into_a_story() {
        let written = [
            as_written(&OutputState::PeerClaimed),
            as_written(&CloseKind::Remote(3)),
            as_written(&[EventKind::EarlyMutual, EventKind::Mutual, EventKind::Revoked(0)]),
            as_written(&Vec::<EventKind>::new()),
            as_written(&AlertExpectation::UnknownSpend),
        ];
        let expected =
            ["peer_claimed", "remote#3", "early_mutual,mutual,revoked#0", "none", "unknown_spend"];
        assert_eq!(written, expected);
    }
}
