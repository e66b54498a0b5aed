//! Lines, words, comments, keyed arguments, messages.

use super::super::ast::{CloseKind, PublishedSpend};
use super::*;

#[test]
fn an_error_says_file_line_expected_found() {
    let error = refuse("channel a\n\n  # a comment\nmine  many  # blocks\n");
    let text = "t.scn:4: expected a number of blocks, a whole number of at least 1, found many";
    assert_eq!(error.to_string(), text);
}

#[test]
fn empty_lines_comments_tabs_and_carriage_returns() {
    let scenario = accept("\u{feff}# head\r\n\r\nchannel\ta # ours\r\n\tmine\t3\t#three\r\n");
    assert_eq!(scenario.file, "t.scn");
    assert_eq!(scenario.channels.len(), 1);
    let [statement] = scenario.story.as_slice() else { panic!("{scenario:?}") };
    assert_eq!((statement.line, statement.text.as_str()), (4, "mine 3"));
    assert_eq!(accept("").story, []);
}

#[test]
fn a_number_sign_starts_a_comment_except_before_a_commitment_number() {
    let spend = |text: &str| match on_chain(text) {
        OnChain::Publish { spend, .. } => spend,
        other => panic!("{other:?}"),
    };
    assert_eq!(spend("publish a remote #1"), PublishedSpend::RemoteNumber(1));
    assert_eq!(spend("publish a remote #1 # revoked"), PublishedSpend::RemoteNumber(1));
    assert_eq!(spend("publish a remote # 1"), PublishedSpend::Remote);
    assert_eq!(spend("publish a remote #1st"), PublishedSpend::Remote);
    assert_eq!(spend("publish a local #1"), PublishedSpend::Local);
    assert_eq!(on_chain("mine 2#two blocks"), on_chain("mine 2"));
    let [Expectation::Channel { check, .. }] = &expectations("expect a close=local#12#x")[..]
    else {
        panic!();
    };
    assert_eq!(*check, super::super::ast::ChannelCheck::Close(CloseKind::Local(12)));
    refused("mine 2#3", "a number of blocks", "2#3");
    refused("expect a close=local#12#3", "local#n", "local#12#3");
}

#[test]
fn arguments_come_in_any_order() {
    let usual = history("offer a h9 amount=1_000sat expiry=+7 hash=K");
    assert_eq!(history("offer expiry=+7 a hash=K h9 amount=1000sat"), usual);
    assert_eq!(on_chain("reorg drop=a.local 3"), on_chain("reorg 3 drop=a.local"));
    assert_eq!(on_chain("mine empty 3"), on_chain("mine 3 empty"));
}

#[test]
fn unknown_double_and_missing_keys_are_refused() {
    refused("mine 3 with=ours", "no more than without=", "with=ours");
    refused("fail a now", "the end of the line", "now");
    refused("restart a", "the end of the line", "a");
    refused("mark x=1", "the end of the line", "x=1");
    refused("offer a h9 amount=1sat amount=1sat", "amount= once", "amount=1sat again");
    refused("offer a h9 expiry=+4", "amount=", "expiry=+4");
    refused("offer a h9 amt=1sat expiry=+4", "amount=", "amt=1sat");
    refused("offer a h9 amount=1sat hash=H", "expiry=", "hash=H");
    refused("offer a h9 amount>=1sat expiry=+4", "amount=", "amount>=1sat");
    refused("explode a", "a statement of the language", "explode");
    refused("fail", "a channel", "the end of the line");
    refused("fail now=yes", "a channel", "now=yes");
}

/// Words that make many lines almost right.
const WORDS: &[&str] = &[
    "channel",
    "offer",
    "receive",
    "settle",
    "publish",
    "peer",
    "claims",
    "mine",
    "reorg",
    "expect",
    "a",
    "b",
    "h1",
    "a.h1",
    "a.h1.second",
    "in",
    "b.in",
    "s1",
    "ours",
    "remote",
    "next",
    "#1",
    "#",
    "é#1",
    "amount=1sat",
    "expiry=+4",
    "upstream=b.in",
    "hash=a.h1",
    "stage=next",
    "drop=a.h1,",
    "close=remote#1",
    "events=,",
    "count>=",
    "=",
    ">=",
    "n=18446744073709551615",
    "2_",
    "+1",
    "feerate=18446744073709551615sat/vB",
    "18446744073709551615sat",
    "preimage",
    "forget-since",
];

proptest::proptest! {
    /// No text makes the parser panic, and an error names a line of the text.
    #[test]
    fn any_text_gets_an_answer(
        words in proptest::collection::vec(proptest::sample::select(WORDS), 0..8),
        noise in ".{0,20}",
    ) {
        for last in [words.join(" "), format!("{} {noise}", words.join(" ")), noise] {
            let text = format!("{STAGE}{last}");
            if let Err(error) = parse("t.scn", &text) {
                proptest::prop_assert!((1..=text.lines().count()).contains(&error.line));
            }
        }
    }
}
