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
    let built = "format=static_remotekey or format=anchors";
    assert_eq!(
        later("channel a format=zero_fee"),
        format!("t.scn:1: expected {built}, found format=zero_fee, which is not supported yet")
    );
    assert_eq!(
        later("channel a\nchannel b format=taproot"),
        format!("t.scn:2: expected {built}, found format=taproot, which is not supported yet")
    );
    assert_eq!(
        later("channel a node=ldk"),
        "t.scn:1: expected no node=, found node=ldk, which is not supported yet"
    );
}

#[test]
fn everything_else_is_supported() {
    assert_eq!(unsupported(&accept(STAGE)), None);
    let text = format!("{STAGE}shutdown a\nexpect a close=splice\nsigner off\nmark\nkill");
    assert_eq!(unsupported(&accept(&text)), None);
}
