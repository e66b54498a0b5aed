//! `expect`: what must be true.

use super::Parser;
use crate::scenario::ast::{
    AlertExpectation, ChannelCheck, ChannelName, CloseKind, ClosingCheck, Compare, EventKind,
    Expectation, Op, OutputCheck, OutputRef, OutputState, OwnCheck, PhaseName, SubscriberName,
    TransactionKind, UpstreamNotice,
};
use crate::scenario::error::Wrong;
use crate::scenario::lex::{Args, Keyed};
use crate::scenario::value;

const PHASES: [(&str, PhaseName); 5] = [
    ("open", PhaseName::Open),
    ("failing", PhaseName::Failing),
    ("closed", PhaseName::Closed),
    ("resolved", PhaseName::Resolved),
    ("forgotten", PhaseName::Forgotten),
];
const REASONS: [(&str, &str); 8] = [
    ("csv", "csv"),
    ("cltv", "cltv"),
    ("depth", "depth"),
    ("deadline", "deadline"),
    ("confirmation", "confirmation"),
    ("preimage", "preimage"),
    ("uneconomic", "uneconomic"),
    ("none", "none"),
];

const STATES: [(&str, OutputState); 6] = [
    ("unresolved", OutputState::Unresolved),
    ("claiming", OutputState::Claiming),
    ("claimed", OutputState::Claimed),
    ("peer_claimed", OutputState::PeerClaimed),
    ("resolved", OutputState::Resolved),
    ("irrevocable", OutputState::Irrevocable),
];
const NOTICES: [(&str, UpstreamNotice); 3] = [
    ("failed", UpstreamNotice::Failed),
    ("fulfilled", UpstreamNotice::Fulfilled),
    ("none", UpstreamNotice::None),
];
const KINDS: [(&str, TransactionKind); 7] = [
    ("commitment", TransactionKind::Commitment),
    ("anchor", TransactionKind::Anchor),
    ("htlc_timeout", TransactionKind::HtlcTimeout),
    ("htlc_success", TransactionKind::HtlcSuccess),
    ("claim", TransactionKind::Claim),
    ("sweep", TransactionKind::Sweep),
    ("penalty", TransactionKind::Penalty),
];
const PLACES: [(&str, bool); 2] = [("aside", true), ("channel", false)];
const ANSWERS: [(&str, bool); 2] = [("yes", true), ("no", false)];
const ALERTS: [(&str, AlertExpectation); 2] =
    [("unknown_spend", AlertExpectation::UnknownSpend), ("none", AlertExpectation::None)];

const TARGET: &str = "a channel, an output like a.h1, ours, a subscriber or alert=";

impl Parser {
    pub(super) fn expect(&mut self, args: &mut Args<'_>) -> Result<Vec<Expectation>, Wrong> {
        let Some(target) = args.next_if_any() else {
            let alert = args.optional("alert")?.ok_or_else(|| match args.next_keyed() {
                Some(keyed) => Wrong::new(TARGET, keyed.word),
                None => Wrong::new(TARGET, "the end of the line"),
            })?;
            return Ok(vec![Expectation::Alert(value::choice(alert, &ALERTS)?)]);
        };
        let expectations = if target == "ours" {
            ours(args)?
        } else if target.contains('.') {
            let output = self.names.output(target)?;
            each(args, |keyed| output_check(&output, keyed))?
        } else if let Some(subscriber) = self.names.subscriber(target) {
            each(args, |keyed| events(&subscriber, keyed))?
        } else {
            let channel = self.names.channel(target).map_err(|_| Wrong::new(TARGET, target))?;
            each(args, |keyed| channel_check(&channel, keyed))?
        };
        if expectations.is_empty() {
            let found = args.next_if_any().unwrap_or("the end of the line");
            return Err(Wrong::new(format!("what is expected of {target}"), found));
        }
        Ok(expectations)
    }
}

/// Every keyed argument of the line, in its order.
fn each(
    args: &mut Args<'_>,
    check: impl Fn(Keyed<'_>) -> Result<Expectation, Wrong>,
) -> Result<Vec<Expectation>, Wrong> {
    let mut expectations = Vec::new();
    while let Some(keyed) = args.next_keyed() {
        expectations.push(check(keyed)?);
    }
    Ok(expectations)
}

fn channel_check(channel: &ChannelName, keyed: Keyed<'_>) -> Result<Expectation, Wrong> {
    let check = match keyed.key {
        "phase" => ChannelCheck::Phase(value::choice(word(keyed)?, &PHASES)?),
        "close" => ChannelCheck::Close(close(word(keyed)?)?),
        "recovered" => ChannelCheck::Recovered(value::compare(keyed, value::amount)?),
        "fees" => ChannelCheck::Fees(value::compare(keyed, value::amount)?),
        "waits" => ChannelCheck::Waits(value::choice(word(keyed)?, &REASONS)?.to_owned()),
        "until" => ChannelCheck::Until(value::compare(keyed, value::above_tip)?),
        key if key.starts_with("closing_") => ChannelCheck::Closing(closing(keyed)?),
        _ => {
            let expected = "phase=, close=, recovered=, fees=, waits=, until= or closing_…=";
            return Err(Wrong::new(expected, keyed.word));
        }
    };
    Ok(Expectation::Channel { channel: channel.clone(), check })
}

fn closing(keyed: Keyed<'_>) -> Result<ClosingCheck, Wrong> {
    let number = |what| value::compare(keyed, |text| value::count(what, text));
    Ok(match keyed.key {
        "closing_transactions" => ClosingCheck::Transactions(number("a number of transactions")?),
        "closing_fees" => ClosingCheck::Fees(value::compare(keyed, value::amount)?),
        "closing_weight" => ClosingCheck::Weight(number("a weight")?),
        "closing_left" => ClosingCheck::Left(value::compare(keyed, value::amount)?),
        "closing_home" => ClosingCheck::Home(value::compare(keyed, value::above_tip)?),
        _ => {
            let expected = "closing_transactions=, closing_fees=, closing_weight=, closing_left= or closing_home=";
            return Err(Wrong::new(expected, keyed.word));
        }
    })
}

fn output_check(output: &OutputRef, keyed: Keyed<'_>) -> Result<Expectation, Wrong> {
    let check = match (keyed.key, output) {
        ("state", _) => OutputCheck::State(value::choice(word(keyed)?, &STATES)?),
        ("feerate", _) => OutputCheck::Feerate(value::compare(keyed, value::feerate)?),
        ("upstream", OutputRef::Htlc(_)) => {
            OutputCheck::Upstream(value::choice(word(keyed)?, &NOTICES)?)
        }
        ("waits", _) => OutputCheck::Waits(value::choice(word(keyed)?, &REASONS)?.to_owned()),
        ("to", _) => OutputCheck::Aside(value::choice(word(keyed)?, &PLACES)?),
        ("set_aside", _) => OutputCheck::SetAside(value::choice(word(keyed)?, &ANSWERS)?),
        (_, OutputRef::Htlc(_)) => {
            let expected = "state=, upstream=, feerate=, waits=, set_aside= or to=";
            return Err(Wrong::new(expected, keyed.word));
        }
        _ => return Err(Wrong::new("state=, feerate=, waits=, set_aside= or to=", keyed.word)),
    };
    Ok(Expectation::Output { output: output.clone(), check })
}

fn events(subscriber: &SubscriberName, keyed: Keyed<'_>) -> Result<Expectation, Wrong> {
    if keyed.key != "events" {
        return Err(Wrong::new("events=", keyed.word));
    }
    let events = match word(keyed)? {
        "none" => Vec::new(),
        text => text.split(',').map(event).collect::<Result<_, _>>()?,
    };
    Ok(Expectation::Events { subscriber: subscriber.clone(), events })
}

fn ours(args: &mut Args<'_>) -> Result<Vec<Expectation>, Wrong> {
    let kind = args.optional("kind")?.map(|text| value::choice(text, &KINDS)).transpose()?;
    let mut expectations = each(args, |keyed| {
        let number = |what| value::compare(keyed, |text| value::count(what, text));
        let check = match keyed.key {
            "count" => OwnCheck::Count(number("a number of transactions")?),
            "reserve" => {
                return value::compare(keyed, value::amount).map(Expectation::Reserve);
            }
            "max_inputs" => OwnCheck::MaxInputs(limit(number("a number of inputs")?)),
            "max_weight" => OwnCheck::MaxWeight(limit(number("a weight")?)),
            _ => {
                let expected = "kind=, count=, max_inputs=, max_weight= or reserve=";
                return Err(Wrong::new(expected, keyed.word));
            }
        };
        Ok(Expectation::Ours { kind, check })
    })?;
    if expectations.is_empty() && kind.is_some() {
        // A kind alone says that there is such a transaction.
        let check = OwnCheck::Count(Compare { op: Op::AtLeast, value: 1 });
        expectations.push(Expectation::Ours { kind, check });
    }
    Ok(expectations)
}

/// `max_inputs=3` names a limit: no transaction has more.
fn limit(number: Compare<u64>) -> Compare<u64> {
    match number.op {
        Op::Equal => Compare { op: Op::AtMost, value: number.value },
        Op::AtLeast | Op::AtMost => number,
    }
}

/// The value of an argument that is no number.
fn word<'a>(keyed: Keyed<'a>) -> Result<&'a str, Wrong> {
    match keyed.op {
        Op::Equal => Ok(keyed.value),
        Op::AtLeast | Op::AtMost => Err(Wrong::new(format!("{}=", keyed.key), keyed.word)),
    }
}

/// `remote#5` into its word and its number.
fn numbered(text: &str) -> Option<(&str, u64)> {
    let at = text.find('#')?;
    let (word, number) = text.split_at(at);
    Some((word, value::commitment_number(number).ok()?))
}

fn close(text: &str) -> Result<CloseKind, Wrong> {
    Ok(match (text, numbered(text)) {
        ("mutual", _) => CloseKind::Mutual,
        ("splice", _) => CloseKind::Splice,
        ("unknown", _) => CloseKind::Unknown,
        ("none", _) => CloseKind::None,
        (_, Some(("local", n))) => CloseKind::Local(n),
        (_, Some(("outdated", n))) => CloseKind::Outdated(n),
        (_, Some(("remote", n))) => CloseKind::Remote(n),
        (_, Some(("revoked", n))) => CloseKind::Revoked(n),
        (_, Some(("future", n))) => CloseKind::Future(n),
        _ => {
            let expected = "mutual, local#n, outdated#n, remote#n, revoked#n, future#n, splice, \
                            unknown or none";
            return Err(Wrong::new(expected, text));
        }
    })
}

fn event(text: &str) -> Result<EventKind, Wrong> {
    Ok(match (text, numbered(text)) {
        ("early_mutual", _) => EventKind::EarlyMutual,
        ("mutual", _) => EventKind::Mutual,
        ("splice", _) => EventKind::Splice,
        ("unknown", _) => EventKind::Unknown,
        ("reorged", _) => EventKind::Reorged,
        ("resolved", _) => EventKind::Resolved,
        (_, Some(("local", n))) => EventKind::Local(n),
        (_, Some(("remote", n))) => EventKind::Remote(n),
        (_, Some(("revoked", n))) => EventKind::Revoked(n),
        (_, Some(("future", n))) => EventKind::Future(n),
        _ => {
            let expected = "early_mutual, mutual, local#n, remote#n, revoked#n, future#n, splice, \
                            unknown, reorged or resolved";
            return Err(Wrong::new(expected, text));
        }
    })
}
