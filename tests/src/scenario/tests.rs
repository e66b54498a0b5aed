//! The parser against the page of the language: what each statement accepts and refuses.

use super::ast::{Expectation, History, OnChain, Scenario, Statement, Step};
use super::{ParseError, parse};

mod arbiter;
mod before;
mod chain;
mod expect;
mod files;
mod history;
mod later;
mod lines;

/// Two channels, a forwarded HTLC, an HTLC of each direction, a subscriber.
const STAGE: &str = "\
channel a
channel b format=static_remotekey
receive b in amount=52_000sat expiry=+90
offer a h1 amount=50_000sat expiry=+40 upstream=b.in
receive a h2 amount=30_000sat expiry=+60 hash=H
subscribe a s1 acknowledged
";

#[track_caller]
fn accept(text: &str) -> Scenario {
    match parse("t.scn", text) {
        Ok(scenario) => scenario,
        Err(error) => panic!("refused: {error}"),
    }
}

#[track_caller]
fn refuse(text: &str) -> ParseError {
    match parse("t.scn", text) {
        Ok(scenario) => panic!("accepted: {scenario:?}"),
        Err(error) => error,
    }
}

/// The steps that `text` adds to [`STAGE`].
#[track_caller]
fn steps(text: &str) -> Vec<Step> {
    let story = accept(&format!("{STAGE}{text}")).story;
    let before = STAGE.lines().filter(|line| !line.starts_with("channel")).count();
    story.into_iter().skip(before).map(|Statement { step, .. }| step).collect()
}

#[track_caller]
fn step(text: &str) -> Step {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text}");
    steps.remove(0)
}

#[track_caller]
fn history(text: &str) -> History {
    match step(text) {
        Step::History(history) => history,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn on_chain(text: &str) -> OnChain {
    match step(text) {
        Step::OnChain(on_chain) => on_chain,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn expectations(text: &str) -> Vec<Expectation> {
    match step(text) {
        Step::Expect(expectations) => expectations,
        other => panic!("{other:?}"),
    }
}

/// The last line of `text`, put behind [`STAGE`], is refused with these two phrases.
#[track_caller]
fn refused(text: &str, expected: &str, found: &str) {
    let text = format!("{STAGE}{text}");
    let error = refuse(&text);
    assert_eq!((error.line, error.found.as_str()), (text.lines().count(), found), "{error}");
    assert!(error.expected.contains(expected), "{error}");
}
