//! Statements about the arbiter.

use bitcoin::{Amount, FeeRate};

use super::super::ast::{
    AboveTip, ArbiterStep, BumpTarget, ChannelName, DeliveryMode, HashName, HtlcRef, Mode,
    OutputRef, PortState, SubscriberName, Whose,
};
use super::*;

#[track_caller]
fn arbiter(text: &str) -> ArbiterStep {
    match step(text) {
        Step::Arbiter(arbiter) => arbiter,
        other => panic!("{other:?}"),
    }
}

fn a() -> ChannelName {
    ChannelName("a".into())
}

#[test]
fn fail_and_preimage() {
    assert_eq!(arbiter("fail a"), ArbiterStep::Fail(a()));
    assert_eq!(arbiter("preimage H"), ArbiterStep::Preimage(HashName("H".into())));
    assert_eq!(arbiter("preimage a.h2"), ArbiterStep::Preimage(HashName("H".into())));
    refused("fail c", "a declared channel", "c");
    refused("preimage", "a hash name", "the end of the line");
    refused("preimage K", "a hash that an HTLC carries", "K");
    refused("preimage a.h9", "a hash that an HTLC carries", "a.h9");
    // A preimage may be known before the HTLC comes.
    let early = steps("preimage K\nreceive a h9 amount=1sat expiry=+4 hash=K");
    assert_eq!(early[0], Step::Arbiter(ArbiterStep::Preimage(HashName("K".into()))));
}

#[test]
fn subscriptions() {
    let subscribe = |name: &str, delivery| ArbiterStep::Subscribe {
        channel: a(),
        subscriber: SubscriberName(name.into()),
        delivery,
    };
    assert_eq!(arbiter("subscribe a s2"), subscribe("s2", DeliveryMode::Detached));
    let acknowledged = subscribe("s2", DeliveryMode::Acknowledged);
    assert_eq!(arbiter("subscribe a s2 acknowledged"), acknowledged);
    let s1 = || SubscriberName("s1".into());
    assert_eq!(arbiter("acknowledge s1"), ArbiterStep::Acknowledge(s1()));
    assert_eq!(arbiter("unsubscribe s1"), ArbiterStep::Unsubscribe(s1()));
    assert_eq!(steps("unsubscribe s1\nsubscribe a s1").len(), 2);
    refused("subscribe c s2", "a declared channel", "c");
    refused("subscribe a", "a subscriber name", "the end of the line");
    refused("subscribe a s1", "not taken", "s1");
    refused("subscribe a b", "not taken", "b");
    refused("subscribe a s2 detached", "acknowledged", "detached");
    refused("acknowledge s2", "a subscriber", "s2");
    refused("unsubscribe s1\nacknowledge s1", "a subscriber", "s1");
    refused("unsubscribe s2", "a subscriber", "s2");
}

#[test]
fn bump() {
    let feerate = FeeRate::from_sat_per_vb_u32(30);
    let target = BumpTarget::Channel(a());
    assert_eq!(arbiter("bump a feerate=30sat/vB"), ArbiterStep::Bump { target, feerate });
    let output = OutputRef::Htlc(HtlcRef { channel: a(), htlc: "h1".into() });
    let target = BumpTarget::Output(output);
    assert_eq!(arbiter("bump a.h1 feerate=30sat/vB"), ArbiterStep::Bump { target, feerate });
    let (target, budget) = (BumpTarget::Channel(a()), Amount::from_sat(5_000));
    assert_eq!(arbiter("bump a budget=5_000sat"), ArbiterStep::Budget { target, budget });
    refused("bump a budget=1sat feerate=2sat/vB", "", "feerate=2sat/vB");
    let (target, deadline) = (BumpTarget::Channel(a()), AboveTip(30));
    assert_eq!(arbiter("bump a deadline=+30"), ArbiterStep::Deadline { target, deadline });
    refused("bump a deadline=30", "a height above the tip", "30");
    assert_eq!(arbiter("bump a to=aside"), ArbiterStep::SendAside(BumpTarget::Channel(a())));
    refused("bump a to=home", "aside", "home");
    refused("bump", "a channel, or an output", "the end of the line");
    refused("bump a", "feerate=", "the end of the line");
    refused("bump c feerate=30sat/vB", "a declared channel", "c");
    refused("bump a.h9 feerate=30sat/vB", "a declared output", "a.h9");
}

#[test]
fn stops_and_faults() {
    let (works, fails) = (PortState::Works, PortState::Fails);
    let said = [
        ("restart", ArbiterStep::Restart),
        ("kill", ArbiterStep::Kill),
        ("offline 7", ArbiterStep::Offline(7)),
        ("signer off", ArbiterStep::Signer(fails)),
        ("signer on", ArbiterStep::Signer(works)),
        ("broadcaster off", ArbiterStep::Broadcaster { state: fails, whose: Whose::Everybody }),
        ("broadcaster on only=ldk", ArbiterStep::Broadcaster { state: works, whose: Whose::Ldk }),
        ("mode own", ArbiterStep::Mode(Mode::Own)),
        ("mode guard", ArbiterStep::Mode(Mode::Guard)),
        ("mode observe", ArbiterStep::Mode(Mode::Observe)),
        ("disk full", ArbiterStep::Disk(fails)),
        ("disk ok", ArbiterStep::Disk(works)),
    ];
    for (text, expected) in said {
        assert_eq!(arbiter(text), expected, "{text}");
    }
    refused("kill -9", "the end of the line", "-9");
    refused("offline", "a number of blocks", "the end of the line");
    refused("offline 0", "a number of blocks", "0");
    refused("signer", "on or off", "the end of the line");
    refused("signer full", "off or on", "full");
    refused("broadcaster ok", "off or on", "ok");
    refused("disk off", "full or ok", "off");
}
