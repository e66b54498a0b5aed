//! What belongs to later work parses, and is refused by name.

use super::super::unsupported;
use super::*;

#[track_caller]
fn later(text: &str) -> String {
    let refused = unsupported(&accept(text));
    refused.map_or_else(|| panic!("supported: {text}"), |error| error.to_string())
}

#[test]
fn refused_by_name() {
    let built = "format=static_remotekey, format=anchors or format=zero_fee";
    assert_eq!(
        later("channel a\nchannel b format=taproot"),
        format!("t.scn:2: expected {built}, found format=taproot, which is not supported yet")
    );
    assert_eq!(
        later("channel a node=lnd"),
        "t.scn:1: expected node=ldk or no node=, found node=lnd, which is not supported yet"
    );
}

#[test]
fn a_channel_that_cannot_be_is_refused_at_its_line() {
    let text = accept("channel a\nchannel b dust=100sat\npublish a local");
    let refused = crate::runner::unplayable(&text).expect("too low a dust limit");
    assert_eq!((refused.file.as_str(), refused.line), ("t.scn", 2), "{refused}");
    assert_eq!(crate::runner::unplayable(&accept(STAGE)), None);
}

#[test]
fn everything_else_is_supported() {
    assert_eq!(unsupported(&accept(STAGE)), None);
    let text = format!("{STAGE}shutdown a\nexpect a close=splice\nsigner off\nmark\nkill");
    assert_eq!(unsupported(&accept(&text)), None);
}

/// Each file is one that LDK nodes cannot follow, and the line says what they could.
#[test]
fn what_ldk_nodes_cannot_do_is_refused() {
    let cases = [
        (
            "channel a node=ldk\nchannel b",
            "t.scn:2: expected node=ldk at every channel, or at none, found b without",
        ),
        (
            "channel a node=ldk dust=500sat",
            "t.scn:1: expected dust=354sat with node=ldk, found dust=500sat",
        ),
        (
            "channel a node=ldk remote_delay=10",
            "t.scn:1: expected remote_delay= from 144 to 2016 with node=ldk, found remote_delay=10",
        ),
        (
            "channel a node=ldk\nupdate a n=2",
            "t.scn:2: expected no update, for LDK signs no commitment without a change, with node=ldk, found update a n=2",
        ),
        (
            "channel a node=ldk\nsplice a capacity=900_000sat",
            "t.scn:2: expected no splice that takes something out, for LDK takes its fee from there, \
             with node=ldk, found splice a capacity=900_000sat",
        ),
        (
            "channel a node=ldk\nsplice a capacity=1_500_000sat\nmine 5\nsplice a capacity=2_000_000sat",
            "t.scn:4: expected no second splice before the first has 6 blocks with node=ldk, \
             found splice a capacity=2_000_000sat",
        ),
        (
            "channel a node=ldk\nsplice a capacity=1_500_000sat\n\
             offer a h2 amount=9_000sat expiry=+60 stage=next",
            "t.scn:2: expected no splice and stage=next of one channel with node=ldk, \
             found splice a capacity=1_500_000sat",
        ),
        (
            "channel a node=ldk\nreceive a h1 amount=9_000sat expiry=+41",
            "t.scn:2: expected expiry= of at least +42 with node=ldk, \
             found receive a h1 amount=9_000sat expiry=+41",
        ),
        (
            "channel a node=ldk\noffer a h1 amount=9_000sat expiry=+60 hash=H\npreimage H",
            "t.scn:3: expected preimage of a payment that the node received, with node=ldk, \
             found preimage H",
        ),
        (
            "channel a\nmode own",
            "t.scn:2: expected node=ldk, where there is mode own, found no LDK node",
        ),
        (
            "channel a\nbroadcaster off only=ldk",
            "t.scn:2: expected node=ldk, where there is broadcaster off only=ldk, found no LDK node",
        ),
    ];
    for (text, refused) in cases {
        assert_eq!(later(text), refused);
    }
}

#[test]
fn what_ldk_nodes_can_do_is_not() {
    let text = "channel a node=ldk\nchannel b node=ldk format=static_remotekey opener=remote\n\
                receive b in amount=52_000sat expiry=+90\n\
                offer a h1 amount=50_000sat expiry=+40 upstream=b.in\n\
                offer a h2 amount=9_000sat expiry=+60 stage=next\nmode observe\nmode own";
    assert_eq!(unsupported(&accept(text)), None);
    let text = "channel a node=ldk\nsplice a capacity=1_500_000sat\nmine 6\n\
                splice a capacity=2_000_000sat confirm=no";
    assert_eq!(unsupported(&accept(text)), None);
    let scenario = accept("channel a\nupdate a n=1");
    assert_eq!(unsupported(&scenario), None);
    assert!(unsupported(&scenario.with_ldk()).is_some());
}
