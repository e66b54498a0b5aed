//! Statements of the off-chain history, and the rules of names.

use bitcoin::{Amount, FeeRate};

use super::super::ast::{
    AboveTip, ArbiterStep, ChannelName, HashName, HtlcRef, MilliSat, Offer, Receive, ReceivedRole,
    SpliceConfirmation, Stage,
};
use super::*;

fn channel(name: &str) -> ChannelName {
    ChannelName(name.into())
}

fn htlc(channel_name: &str, name: &str) -> HtlcRef {
    HtlcRef { channel: channel(channel_name), htlc: name.into() }
}

fn hash(name: &str) -> HashName {
    HashName(name.into())
}

#[track_caller]
fn offers(scenario: &Scenario) -> Vec<&Offer> {
    scenario
        .story
        .iter()
        .filter_map(|statement| match &statement.step {
            Step::History(History::Offer(offer)) => Some(offer),
            _ => None,
        })
        .collect()
}

#[track_caller]
fn receives(scenario: &Scenario) -> Vec<&Receive> {
    scenario
        .story
        .iter()
        .filter_map(|statement| match &statement.step {
            Step::History(History::Receive(receive)) => Some(receive),
            _ => None,
        })
        .collect()
}

#[test]
fn offer_and_receive() {
    let offer = Offer {
        htlc: htlc("a", "h9"),
        amount: MilliSat(50_000_000),
        expiry: AboveTip(40),
        hash: hash("a.h9"),
        upstream: None,
        stage: Stage::Committed,
    };
    assert_eq!(history("offer a h9 amount=50_000sat expiry=+40"), History::Offer(offer.clone()));
    assert_eq!(
        history("offer a h9 amount=50_000sat expiry=+40 hash=a.h9"),
        History::Offer(offer.clone())
    );
    assert_eq!(
        history("offer a h9 amount=50_000sat expiry=+40 hash=K stage=next"),
        History::Offer(Offer { hash: hash("K"), stage: Stage::Next, ..offer })
    );
    let receive = Receive {
        htlc: htlc("b", "h9"),
        amount: MilliSat(1_500),
        expiry: AboveTip(0),
        hash: hash("H"),
        role: ReceivedRole::Final,
        stage: Stage::Committed,
    };
    assert_eq!(
        history("receive b h9 amount=1500msat expiry=+0 hash=H"),
        History::Receive(receive.clone())
    );
    assert_eq!(
        history("receive b h9 amount=1500msat expiry=+0 hash=a.h2 stage=next"),
        History::Receive(Receive {
            role: ReceivedRole::Uncommitted,
            stage: Stage::Next,
            ..receive
        })
    );
}

#[test]
fn offers_and_receives_that_are_refused() {
    refused("offer c h9 amount=1sat expiry=+4", "a declared channel", "c");
    refused("offer a", "an HTLC name", "the end of the line");
    refused("offer a h1 amount=1sat expiry=+4", "not taken in a", "h1");
    refused("receive a h1 amount=1sat expiry=+4", "not taken in a", "h1");
    refused("settle a h1\noffer a h1 amount=1sat expiry=+4", "not taken in a", "h1");
    refused("offer a remote amount=1sat expiry=+4", "not taken in a", "remote");
    refused("offer a a.h9 amount=1sat expiry=+4", "an HTLC name", "a.h9");
    refused("offer a h9 amount=1 expiry=+4", "an amount", "1");
    refused("offer a h9 amount=1sat expiry=4", "a height above the tip", "4");
    refused("offer a h9 amount=1sat expiry=+4 stage=current", "next", "current");
    refused("offer a h9 amount=1sat expiry=+4 hash=b.h9", "a declared HTLC", "b.h9");
    refused("offer a h9 amount=1sat expiry=+4 hash=a,b", "a hash name", "a,b");
    refused("receive a h9 amount=1sat expiry=+4 upstream=b.in", "no more than", "upstream=b.in");
    refused("receive a h9 amount=1sat expiry=+4 stage=later", "next", "later");
}

#[test]
fn upstream_names_a_live_received_htlc_that_nobody_forwards() {
    let more = "receive b in2 amount=1sat expiry=+4\n";
    for bad in ["b.in", "b.in3", "a.h1", "in", "c.in"] {
        refused(&format!("{more}offer a h9 amount=1sat expiry=+4 upstream={bad}"), "HTLC", bad);
    }
    let text = format!("{more}cancel b in2\noffer a h9 amount=1sat expiry=+4 upstream=b.in2");
    refused(&text, "live", "b.in2");
    let staged = "receive b in2 amount=1sat expiry=+4 stage=next\n";
    let text = format!("{staged}offer a h9 amount=1sat expiry=+4 upstream=b.in2");
    refused(&text, "irrevocably committed", "b.in2");
    let scenario = accept(STAGE);
    assert_eq!(offers(&scenario)[0].upstream, Some(htlc("b", "in")));
    let role = ReceivedRole::Forwarded { outgoing: htlc("a", "h1") };
    assert_eq!(receives(&scenario)[0].role, role);
    assert_eq!(receives(&scenario)[1].role, ReceivedRole::Final);
}

#[test]
fn a_forwarded_payment_has_one_preimage() {
    let told = |scenario: &Scenario| match &scenario.story.last().map(|s| s.step.clone()) {
        Some(Step::Arbiter(ArbiterStep::Preimage(hash))) => hash.clone(),
        other => panic!("{other:?}"),
    };
    // Named by neither: the incoming HTLC's name stands for it, and both HTLCs mean it.
    let scenario = accept(&format!("{STAGE}preimage a.h1"));
    assert_eq!(offers(&scenario)[0].hash, hash("b.in"));
    assert_eq!(told(&scenario), hash("b.in"));
    // Named where it is forwarded.
    let text = "channel a\nchannel b\nreceive b in amount=2sat expiry=+9\n\
                offer a h1 amount=1sat expiry=+4 hash=K upstream=b.in\npreimage b.in";
    let scenario = accept(text);
    assert_eq!(receives(&scenario)[0].hash, hash("K"));
    assert_eq!(offers(&scenario)[0].hash, hash("K"));
    assert_eq!(told(&scenario), hash("K"));
    // Named on both sides.
    let text = "channel a\nchannel b\nreceive b in amount=2sat expiry=+9 hash=K\n\
                offer a h1 amount=1sat expiry=+4 hash=K upstream=b.in\npreimage K";
    assert_eq!(told(&accept(text)), hash("K"));
    let text = text.replace("h1 amount=1sat expiry=+4 hash=K", "h1 amount=1sat expiry=+4 hash=L");
    let error = refuse(&text);
    assert_eq!((error.line, error.expected.as_str()), (4, "hash=K, as upstream"));
}

#[test]
fn settle_and_cancel() {
    assert_eq!(history("settle a h1"), History::Settle(htlc("a", "h1")));
    assert_eq!(history("cancel a h2"), History::Cancel(htlc("a", "h2")));
    refused("settle a h9", "the name of a live HTLC of a", "h9");
    refused("settle a", "an HTLC name", "the end of the line");
    refused("cancel b h1", "the name of a live HTLC of b", "h1");
    refused("settle a h1\ncancel a h1", "the name of a live HTLC of a", "h1");
}

#[test]
fn updates_and_fees() {
    assert_eq!(history("update a n=100"), History::Update { channel: channel("a"), count: 100 });
    let feerate = FeeRate::from_sat_per_vb_u32(10);
    let update_fee = History::UpdateFee { channel: channel("a"), feerate };
    assert_eq!(history("update_fee a 10sat/vB"), update_fee);
    refused("update a", "n=", "the end of the line");
    refused("update a n=x", "a number of commitments", "x");
    refused("update a n=281_474_976_710_656", "fewer than 2^48", "281474976710656 more");
    refused("update_fee a", "a feerate", "the end of the line");
    refused("update_fee a 10", "a feerate like", "10");
}

#[test]
fn splice_shutdown_and_data_loss() {
    let splice = |confirm| History::Splice {
        channel: channel("a"),
        capacity: Amount::from_sat(1_500_000),
        confirm,
    };
    let confirms = splice(SpliceConfirmation::Confirms);
    assert_eq!(history("splice a capacity=1_500_000sat"), confirms);
    assert_eq!(history("splice a capacity=1_500_000sat confirm=yes"), confirms);
    let stays = splice(SpliceConfirmation::StaysUnconfirmed);
    assert_eq!(history("splice a confirm=no capacity=1_500_000sat"), stays);
    refused("splice a", "capacity=", "the end of the line");
    refused("splice a capacity=1sat confirm=maybe", "yes or no", "maybe");
    assert_eq!(history("shutdown a"), History::Shutdown(channel("a")));
    refused("shutdown", "a channel", "the end of the line");
    let forget = History::ForgetSince { channel: channel("a"), number: 1 };
    assert_eq!(history("forget-since a #1"), forget);
    refused("forget-since a", "a commitment number", "the end of the line");
    refused("forget-since a 1", "a commitment number like #5", "1");
    // `offer` and `receive` brought channel a to #2.
    refused("forget-since a #3", "a commitment number up to #2", "#3");
}

#[test]
fn nothing_but_staged_statements_may_follow_a_staged_one() {
    let staged = "offer a h8 amount=1sat expiry=+4 stage=next\n\
                  receive a h9 amount=1sat expiry=+4 stage=next\n";
    assert_eq!(steps(staged).len(), 2);
    for text in [
        "offer a h7 amount=1sat expiry=+4",
        "receive a h7 amount=1sat expiry=+4",
        "settle a h1",
        "cancel a h2",
        "update a n=1",
        "update_fee a 10sat/vB",
        "splice a capacity=1sat",
        "shutdown a",
        "forget-since a #0",
    ] {
        let found = "another history statement";
        refused(&format!("{staged}{text}"), "no more history of a after stage=next", found);
    }
    // Another channel's history goes on.
    assert_eq!(steps(&format!("{staged}update b n=1\nshutdown b")).len(), 4);
}

#[test]
fn commitment_numbers_count_up_by_one() {
    let text = "channel a\noffer a h1 amount=1sat expiry=+4\nreceive a h2 amount=1sat expiry=+4\n\
                settle a h1\ncancel a h2\nupdate_fee a 1sat/vB\nupdate a n=100\nshutdown a\n";
    accept(&format!("{text}publish a remote #105"));
    let error = refuse(&format!("{text}publish a remote #106"));
    assert_eq!(error.expected, "a commitment number up to #105");
    let next = "offer a h3 amount=1sat expiry=+4 stage=next\n\
                offer a h4 amount=1sat expiry=+4 stage=next\n";
    accept(&format!("{text}{next}publish a remote #106"));
    refuse(&format!("{text}{next}publish a remote #107"));
}
