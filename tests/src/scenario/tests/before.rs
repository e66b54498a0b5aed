//! Statements before the story.

use bitcoin::{Amount, FeeRate};

use super::super::ast::{ChannelName, Coins, Format, Joining, MilliSat, Policy, Side};
use super::*;

#[test]
fn the_defaults_are_those_of_the_page() {
    let scenario = accept("channel a");
    let written = accept(
        "channel a format=anchors capacity=1_000_000sat local=500_000sat opener=local \
         local_delay=144 remote_delay=144 dust=354sat remote_dust=354sat feerate=253sat/kw\n\
         wallet coins=10x100_000sat\n\
         policy act_depth=3 offered_grace=2 fulfil_margin=18 upstream_margin=3 forget_depth=100 \
         joining=never",
    );
    assert_eq!(scenario, written);
    let channel = &scenario.channels[0];
    assert_eq!(scenario.channel(&ChannelName("a".into())), Some(channel));
    assert_eq!((channel.format, channel.opener), (Format::Anchors, Side::Local));
    assert_eq!(channel.capacity, Amount::from_sat(1_000_000));
    assert_eq!(channel.local, MilliSat(500_000_000));
    assert_eq!((channel.local_delay, channel.remote_delay), (144, 144));
    assert_eq!((channel.dust, channel.remote_dust), (Amount::from_sat(354), Amount::from_sat(354)));
    assert_eq!(channel.feerate, FeeRate::from_sat_per_kwu(253));
    assert_eq!(scenario.wallet.coins, [Coins { count: 10, value: Amount::from_sat(100_000) }]);
    let policy = Policy {
        act_depth: 3,
        offered_grace: 2,
        fulfil_margin: 18,
        upstream_margin: 3,
        forget_depth: 100,
        joining: Joining::Never,
    };
    assert_eq!(scenario.policy, policy);
}

#[test]
fn channels_may_be_joined() {
    assert_eq!(accept("policy joining=allowed").policy.joining, Joining::Allowed);
}

#[test]
fn every_value_of_a_channel() {
    let scenario = accept(
        "channel c1 feerate=12sat/vB format=static_remotekey capacity=2_000sat local=1500msat \
         opener=remote local_delay=1 remote_delay=2016 dust=546sat remote_dust=600sat\n\
         channel c2 format=zero_fee\nchannel c3 format=taproot node=ldk",
    );
    let [c1, c2, c3] = &scenario.channels[..] else { panic!() };
    assert_eq!((c1.line, c2.line, c3.line), (1, 2, 3));
    assert_eq!((c1.format, c1.opener), (Format::StaticRemotekey, Side::Remote));
    assert_eq!(c1.feerate, FeeRate::from_sat_per_kwu(3_000));
    assert_eq!(c1.local, MilliSat(1_500));
    assert_eq!((c1.local_delay, c1.remote_delay), (1, 2_016));
    assert_eq!((c1.dust, c1.remote_dust), (Amount::from_sat(546), Amount::from_sat(600)));
    assert_eq!((c2.format, c3.format), (Format::ZeroFee, Format::Taproot));
    assert_eq!(c3.node.as_deref(), Some("ldk"));
}

#[test]
fn channels_that_are_refused() {
    let wrong = [
        ("channel", "a channel name", "the end of the line"),
        ("channel ours", "not taken", "ours"),
        ("channel a.b", "a channel name of letters", "a.b"),
        ("channel a format=p2sh", "static_remotekey, anchors, zero_fee or taproot", "p2sh"),
        ("channel a capacity=1_000_000", "an amount like", "1_000_000"),
        ("channel a capacity=1500msat", "whole satoshis", "1500msat"),
        ("channel a capacity=_1sat", "an amount like", "_1sat"),
        ("channel a capacity=1_sat", "an amount like", "1_sat"),
        ("channel a capacity=-1sat", "an amount like", "-1sat"),
        ("channel a capacity=1.5sat", "an amount like", "1.5sat"),
        ("channel a capacity=99999999999999999999sat", "an amount like", "99999999999999999999sat"),
        ("channel a local=1_000_001sat", "at most the capacity", "1000001000 msat"),
        ("channel a opener=us", "local or remote", "us"),
        ("channel a local_delay=70000", "a delay, a whole number", "70000"),
        ("channel a feerate=5", "a feerate like", "5"),
        ("channel a feerate=5sat/vb", "a feerate like", "5sat/vb"),
        ("channel a feerate=99999999999999999sat/vB", "a feerate like", "99999999999999999sat/vB"),
        ("channel a size=3", "no more than format= capacity=", "size=3"),
        ("channel a b", "no more than", "b"),
        ("channel a\nchannel a", "not taken", "a"),
    ];
    for (text, expected, found) in wrong {
        let error = refuse(text);
        assert!(error.expected.contains(expected), "{text}: {error}");
        assert_eq!((error.found.as_str(), error.line), (found, text.lines().count()), "{text}");
    }
}

#[test]
fn wallet_and_policy() {
    let scenario =
        accept("wallet coins=0x1sat,3x5_000sat\npolicy forget_depth=10\npolicy act_depth=1");
    let coins = |count, sat| Coins { count, value: Amount::from_sat(sat) };
    assert_eq!(scenario.wallet.coins, [coins(0, 1), coins(3, 5_000)]);
    assert_eq!((scenario.policy.act_depth, scenario.policy.forget_depth), (1, 10));
    assert_eq!(scenario.policy.upstream_margin, 3);
    let wrong = [
        ("wallet coins=5", "coins like 10x100_000sat"),
        ("wallet coins=2x1500msat", "coins like"),
        ("wallet coins=2x5sat,", "coins like"),
        ("wallet purse=1", "no more than coins="),
        ("wallet coins=1x5sat\nwallet coins=1x5sat", "coins= once in a file"),
        ("policy act_depth=+3", "a number of blocks"),
        ("policy depth=3", "no more than act_depth="),
        ("policy act_depth=3\npolicy act_depth=3", "act_depth= once in a file"),
    ];
    for (text, expected) in wrong {
        let error = refuse(text);
        assert!(error.expected.contains(expected), "{text}: {error}");
    }
}

#[test]
fn ids_gather() {
    let scenario = accept("bolt LL2 LL3a\nincident lnd-9422\nbolt V9z\nincident attack-7");
    assert_eq!(scenario.bolt, ["LL2", "LL3a", "V9z"]);
    assert_eq!(scenario.incidents, ["lnd-9422", "attack-7"]);
    assert_eq!(refuse("bolt").expected, "a requirement id");
    assert_eq!(refuse("incident # none").expected, "an incident id");
    assert_eq!(refuse("bolt a=b").found, "a=b");
}

#[test]
fn they_come_before_the_story() {
    for text in ["bolt LL2", "incident lnd-1", "channel c", "wallet", "policy act_depth=2"] {
        let error = refuse(&format!("channel a\nmine\n{text}"));
        assert_eq!(error.line, 3);
        assert!(error.expected.contains("before the first statement of the story"), "{error}");
    }
}
