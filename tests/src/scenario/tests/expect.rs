//! Expectations.

use bitcoin::FeeRate;

use super::super::ast::{
    AboveTip, AlertExpectation, ChannelCheck, ChannelName, CloseKind, ClosingCheck, Compare,
    EventKind, HtlcRef, MilliSat, Op, OutputCheck, OutputRef, OutputState, OwnCheck, PhaseName,
    SubscriberName, TransactionKind, UpstreamNotice,
};
use super::*;

fn a() -> ChannelName {
    ChannelName("a".into())
}

fn h1() -> HtlcRef {
    HtlcRef { channel: a(), htlc: "h1".into() }
}

#[track_caller]
fn channel_check(text: &str) -> ChannelCheck {
    match &expectations(text)[..] {
        [Expectation::Channel { channel, check }] if *channel == a() => check.clone(),
        other => panic!("{other:?}"),
    }
}

fn is<T>(op: Op, value: T) -> Compare<T> {
    Compare { op, value }
}

fn amount(op: Op, sat: u64) -> Compare<MilliSat> {
    is(op, MilliSat(sat * 1000))
}

#[test]
fn of_a_channel() {
    for (word, phase) in [
        ("open", PhaseName::Open),
        ("failing", PhaseName::Failing),
        ("closed", PhaseName::Closed),
        ("resolved", PhaseName::Resolved),
        ("forgotten", PhaseName::Forgotten),
    ] {
        assert_eq!(channel_check(&format!("expect a phase={word}")), ChannelCheck::Phase(phase));
    }
    for (word, close) in [
        ("mutual", CloseKind::Mutual),
        ("local#0", CloseKind::Local(0)),
        ("outdated#7", CloseKind::Outdated(7)),
        ("remote#5", CloseKind::Remote(5)),
        ("revoked#1_000", CloseKind::Revoked(1_000)),
        ("future#9", CloseKind::Future(9)),
        ("splice", CloseKind::Splice),
        ("unknown", CloseKind::Unknown),
        ("none", CloseKind::None),
    ] {
        assert_eq!(channel_check(&format!("expect a close={word}")), ChannelCheck::Close(close));
    }
    assert_eq!(
        channel_check("expect a recovered>=590_000sat"),
        ChannelCheck::Recovered(amount(Op::AtLeast, 590_000))
    );
    assert_eq!(
        channel_check("expect a fees<=5_000sat"),
        ChannelCheck::Fees(amount(Op::AtMost, 5_000))
    );
    assert_eq!(
        channel_check("expect a recovered=0sat"),
        ChannelCheck::Recovered(amount(Op::Equal, 0))
    );
}

#[test]
fn of_what_closing_would_cost() {
    let closing = |check| ChannelCheck::Closing(check);
    assert_eq!(
        channel_check("expect a closing_transactions=7"),
        closing(ClosingCheck::Transactions(is(Op::Equal, 7)))
    );
    assert_eq!(
        channel_check("expect a closing_fees<=5_000sat"),
        closing(ClosingCheck::Fees(amount(Op::AtMost, 5_000)))
    );
    assert_eq!(
        channel_check("expect a closing_weight>=900"),
        closing(ClosingCheck::Weight(is(Op::AtLeast, 900)))
    );
    assert_eq!(
        channel_check("expect a closing_left=0sat"),
        closing(ClosingCheck::Left(amount(Op::Equal, 0)))
    );
    assert_eq!(
        channel_check("expect a closing_home=+145"),
        closing(ClosingCheck::Home(is(Op::Equal, AboveTip(145))))
    );
    let reserve = Expectation::Reserve(amount(Op::AtLeast, 5_000));
    assert_eq!(expectations("expect ours reserve>=5_000sat"), [reserve]);
    refused("expect a closing_costs=1sat", "closing_fees=", "closing_costs=1sat");
    refused("expect a closing_home=145", "a height above the tip", "145");
    refused("expect ours reserve=5", "an amount like", "5");
}

#[test]
fn several_on_a_line_keep_their_order() {
    let all = expectations("expect a waits=csv until=+120 phase=closed");
    let check = |check| Expectation::Channel { channel: a(), check };
    assert_eq!(
        all,
        [
            check(ChannelCheck::Waits("csv".into())),
            check(ChannelCheck::Until(is(Op::Equal, AboveTip(120)))),
            check(ChannelCheck::Phase(PhaseName::Closed)),
        ]
    );
}

#[test]
fn of_a_channel_refused() {
    refused("expect a", "what is expected of a", "the end of the line");
    refused("expect a closed", "what is expected of a", "closed");
    refused("expect a phase=closed now", "the end of the line", "now");
    refused("expect c phase=open", "a channel, an output", "c");
    refused("expect a phase=shut", "open, failing, closed, resolved or forgotten", "shut");
    refused("expect a phase>=open", "phase=", "phase>=open");
    refused("expect a close=remote", "remote#n", "remote");
    refused("expect a close=mutual#5", "remote#n", "mutual#5");
    refused("expect a close=local#n", "local#n", "local");
    refused("expect a recovered>590_000sat", "what is expected of a", "recovered>590_000sat");
    refused("expect a recovered>=590_000", "an amount like", "590_000");
    refused("expect a waits=lunch", "confirmation, preimage, uneconomic or none", "lunch");
    refused("expect a until=120", "a height above the tip", "120");
    refused("expect a state=claimed", "phase=, close=, recovered=", "state=claimed");
    refused("expect a phase=open phase=open", "phase= once", "phase=open again");
    refused("expect", "a channel, an output", "the end of the line");
    refused("expect phase=open", "a channel, an output", "phase=open");
}

#[test]
fn of_an_output() {
    let check = |output, check| vec![Expectation::Output { output, check }];
    for (word, state) in [
        ("unresolved", OutputState::Unresolved),
        ("claiming", OutputState::Claiming),
        ("claimed", OutputState::Claimed),
        ("peer_claimed", OutputState::PeerClaimed),
        ("resolved", OutputState::Resolved),
        ("irrevocable", OutputState::Irrevocable),
    ] {
        for (name, output) in [
            ("a.h1", OutputRef::Htlc(h1())),
            ("a.h1.second", OutputRef::SecondStage(h1())),
            ("a.to_local", OutputRef::ToLocal(a())),
            ("a.to_remote", OutputRef::ToRemote(a())),
            ("a.anchor", OutputRef::Anchor(a())),
        ] {
            assert_eq!(output.to_string(), name);
            assert_eq!(output.channel(), &a());
            let expected = check(output, OutputCheck::State(state));
            assert_eq!(expectations(&format!("expect {name} state={word}")), expected);
        }
    }
    for (word, notice) in [
        ("failed", UpstreamNotice::Failed),
        ("fulfilled", UpstreamNotice::Fulfilled),
        ("none", UpstreamNotice::None),
    ] {
        let expected = check(OutputRef::Htlc(h1()), OutputCheck::Upstream(notice));
        assert_eq!(expectations(&format!("expect a.h1 upstream={word}")), expected);
    }
    let feerate = is(Op::AtLeast, FeeRate::from_sat_per_vb_u32(40));
    let expected = check(OutputRef::Htlc(h1()), OutputCheck::Feerate(feerate));
    assert_eq!(expectations("expect a.h1 feerate>=40sat/vB"), expected);
    assert_eq!(expectations("expect a.h1 state=claimed upstream=none").len(), 2);
    for (word, aside) in [("aside", true), ("channel", false)] {
        let expected = check(OutputRef::Htlc(h1()), OutputCheck::Aside(aside));
        assert_eq!(expectations(&format!("expect a.h1 to={word}")), expected);
    }
    refused("expect a.h1 to=home", "aside or channel", "home");
    refused("expect a.h1 state=spent", "unresolved, claiming, claimed", "spent");
    refused("expect a.h9 state=claimed", "a declared output", "a.h9");
    refused("expect a.h1.third state=claimed", "a declared output", "a.h1.third");
    refused("expect c.to_local state=claimed", "a declared output", "c.to_local");
    refused(
        "expect a.to_local upstream=none",
        "state=, feerate=, waits=, set_aside= or to=",
        "upstream=none",
    );
    refused(
        "expect a.h1 phase=open",
        "state=, upstream=, feerate=, waits=, set_aside= or to=",
        "phase=open",
    );
    refused("expect a.h1 upstream=told", "failed, fulfilled or none", "told");
}

#[test]
fn of_our_transactions() {
    let ours = |kind, check| Expectation::Ours { kind, check };
    let penalty = Some(TransactionKind::Penalty);
    assert_eq!(
        expectations("expect ours kind=penalty count>=2 max_inputs=1 max_weight<=400_000"),
        [
            ours(penalty, OwnCheck::Count(is(Op::AtLeast, 2))),
            ours(penalty, OwnCheck::MaxInputs(is(Op::AtMost, 1))),
            ours(penalty, OwnCheck::MaxWeight(is(Op::AtMost, 400_000))),
        ]
    );
    let none = OwnCheck::Count(is(Op::Equal, 0));
    assert_eq!(expectations("expect ours count=0"), [ours(None, none)]);
    for (word, kind) in [
        ("commitment", TransactionKind::Commitment),
        ("anchor", TransactionKind::Anchor),
        ("htlc_timeout", TransactionKind::HtlcTimeout),
        ("htlc_success", TransactionKind::HtlcSuccess),
        ("claim", TransactionKind::Claim),
        ("sweep", TransactionKind::Sweep),
        ("penalty", TransactionKind::Penalty),
    ] {
        let some = OwnCheck::Count(is(Op::AtLeast, 1));
        assert_eq!(expectations(&format!("expect ours kind={word}")), [ours(Some(kind), some)]);
    }
    refused("expect ours", "what is expected of ours", "the end of the line");
    refused("expect ours kind=justice", "commitment, anchor, htlc_timeout", "justice");
    refused("expect ours count=two", "a number of transactions", "two");
    refused("expect ours min_inputs=2", "kind=, count=, max_inputs=", "min_inputs=2");
}

#[test]
fn of_subscribers_and_alerts() {
    let events = |events: &[EventKind]| {
        let subscriber = SubscriberName("s1".into());
        vec![Expectation::Events { subscriber, events: events.to_vec() }]
    };
    assert_eq!(expectations("expect s1 events=remote#5"), events(&[EventKind::Remote(5)]));
    assert_eq!(expectations("expect s1 events=none"), events(&[]));
    assert_eq!(
        expectations(
            "expect s1 events=early_mutual,mutual,reorged,local#1,remote#2,revoked#3,future#4,\
             splice,unknown,resolved"
        ),
        events(&[
            EventKind::EarlyMutual,
            EventKind::Mutual,
            EventKind::Reorged,
            EventKind::Local(1),
            EventKind::Remote(2),
            EventKind::Revoked(3),
            EventKind::Future(4),
            EventKind::Splice,
            EventKind::Unknown,
            EventKind::Resolved,
        ])
    );
    assert_eq!(steps("unsubscribe s1\nexpect s1 events=none")[1], Step::Expect(events(&[])));
    let alert = |alert| vec![Expectation::Alert(alert)];
    assert_eq!(expectations("expect alert=none"), alert(AlertExpectation::None));
    assert_eq!(expectations("expect alert=unknown_spend"), alert(AlertExpectation::UnknownSpend));
    refused("expect s1 events=remote", "early_mutual, mutual, local#n", "remote");
    refused("expect s1 events=mutual,,resolved", "early_mutual", "");
    refused("expect s1 phase=open", "events=", "phase=open");
    refused("expect s2 events=mutual", "a channel, an output", "s2");
    refused("expect alert=loud", "unknown_spend or none", "loud");
    refused("expect alert=none phase=open", "no more than alert=", "phase=open");
    refused("expect a alert=none", "phase=, close=", "alert=none");
}

#[test]
fn comparisons_hold() {
    assert!(is(Op::Equal, 3).holds(&3) && !is(Op::Equal, 3).holds(&4));
    assert!(is(Op::AtLeast, 3).holds(&4) && !is(Op::AtLeast, 3).holds(&2));
    assert!(is(Op::AtMost, 3).holds(&3) && !is(Op::AtMost, 3).holds(&4));
    assert_eq!(is(Op::AtLeast, 3).to_string(), ">=3");
}

#[test]
fn a_mark() {
    assert_eq!(step("mark"), Step::Mark);
}
