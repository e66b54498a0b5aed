//! The scenarios of the project once more, with LDK nodes as the parties.
use arb_tests::cli::scenario::{Implementation, read_for};
use arb_tests::runner::{Compared, Failed, Options, Outcome, Verdict, run, run_everywhere};
use arb_tests::scenario::ast::Mode;
use arb_tests::scenario::parse;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// What went wrong, of all files. `one` says it of one.
fn failures(paths: &[PathBuf], one: impl Fn(&Path) -> Option<String> + Sync) -> Vec<String> {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::SeqCst)) {
            let failure = one(path).map(|failure| format!("{}: {failure}", path.display()));
            failures.lock().unwrap_or_else(PoisonError::into_inner).extend(failure);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn outcome(path: &Path, node: Option<Implementation>, options: Options) -> Option<String> {
    match read_for(path, node) {
        Err(error) => Some(error.to_string()),
        Ok(scenario) => {
            let Outcome { verdict, compared, .. } = run(&scenario, options);
            match verdict {
                Verdict::Passed if node == Some(Implementation::Ldk) && name(path) != UNSEEN => {
                    let found = format!("nothing was compared with LDK: {compared:?}");
                    (!is_compared(compared)).then_some(found)
                }
                Verdict::Passed => None,
                Verdict::Failed { line, failed: Failed { expected, found }, .. } => {
                    Some(format!("line {line}: expected {expected}, found {found}"))
                }
            }
        }
    }
}

/// Its channels are closed, resolved and forgotten while nobody looks.
const UNSEEN: &str = "offline_whole_life";

/// LDK was asked of the open channels, and of those that are closed.
const fn is_compared(compared: Compared) -> bool {
    compared.htlcs > 0 && (compared.closed == 0 || compared.balances > 0)
}

const DEPTH: &str = "LDK fails an HTLC upstream at a depth of 6, and the story settles before";
const EXPIRY: &str = "LDK takes no payment that expires in fewer than 42 blocks";

/// Stories that LDK nodes can follow, and end otherwise: why, and with which words.
const OTHERWISE: [(&str, &str, &str); 12] = [
    (
        "deadline_fulfil",
        "LDK closes 36 blocks before an HTLC expires whose preimage it knows",
        "expected phase=open, found phase=closed",
    ),
    ("kill_at_every_stage", DEPTH, "expected b.in to be failed by LDK"),
    ("local_offered_timeout", DEPTH, "expected b.in to be failed by LDK"),
    (
        "low_fees_are_waited_for_not_for_ever",
        "LDK wants more for its reserve than we have",
        "larger than channel amount minus reserve",
    ),
    (
        "mutual_close_after_the_request",
        "LDK agrees upon no mutual close of what it has closed",
        "Channel unavailable",
    ),
    ("revoked_htlc_success_race", EXPIRY, "a.h1 to expire at least 42 blocks after the tip"),
    (
        "revoked_twins_second_stages_together",
        EXPIRY,
        "a.h1 to expire at least 42 blocks after the tip",
    ),
    ("splice_reorged_revoked_close", EXPIRY, "a.h1 to expire at least 42 blocks after the tip"),
    ("splice_unconfirmed_htlcs_on_both", EXPIRY, "a.h1 to expire at least 42 blocks after the tip"),
    (
        "twin_received",
        "LDK fails a second payment of the same hash",
        "expected state=claiming, found unresolved",
    ),
    ("zero_fee_local_offered_timeout", DEPTH, "expected b.in to be failed by LDK"),
    (
        "waits_uneconomic_claim",
        "LDK, which may publish what the arbiter leaves, takes it at once",
        "expected waits=uneconomic, found none",
    ),
];

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The same stories with two LDK nodes, or three, as the parties; the arbiter publishes.
#[test]
fn every_scenario_that_ldk_can_follow_comes_out_the_same() {
    let ldk = Some(Implementation::Ldk);
    let mut paths = files();
    paths.retain(|path| read_for(path, ldk).is_ok() && !name(path).starts_with("ldk_"));
    assert!(paths.len() >= 60, "{} stories", paths.len());
    for (otherwise, ..) in OTHERWISE {
        assert!(paths.iter().any(|path| name(path) == otherwise), "{otherwise}");
    }
    let failures = failures(&paths, |path| {
        let failure = outcome(path, ldk, Options::default());
        match (OTHERWISE.iter().find(|(otherwise, ..)| *otherwise == name(path)), failure) {
            (None, failure) => failure,
            (Some((_, _, words)), Some(failure)) if failure.contains(words) => None,
            (Some((_, why, _)), Some(failure)) => Some(format!("{failure}, and not since {why}")),
            (Some((_, why, _)), None) => Some(format!("it ends as it says, although {why}")),
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Stories that say nothing of the arbiter's own transactions, while LDK publishes.
const OBSERVED: [&str; 22] = [
    "catch_up_past_other_blocks",
    "forwarded_both_time_out",
    "local_offered_dust",
    "local_offered_peer_preimage",
    "local_received_expires",
    "mutual_close",
    "offline_deadline",
    "offline_preimage",
    "offline_remote_close",
    "remote_next_preimage",
    "remote_offered_peer_preimage",
    "remote_offered_timeout",
    "remote_offered_timeout_static_remotekey",
    "remote_received_success_static_remotekey",
    "reorg_after_upstream_failed",
    "reorg_loses_one_claim",
    "reorg_loses_preimage_spend",
    "reorg_loses_timeout",
    "restart_sends_nothing_twice",
    "twin_offered",
    "uneconomic_htlc",
    "unknown_spend",
];

fn observed(mode: Mode) {
    let mut paths = files();
    paths.retain(|path| OBSERVED.contains(&name(path).as_str()));
    assert_eq!(paths.len(), OBSERVED.len());
    let options = Options { mode: Some(mode), ..Options::default() };
    let failures = failures(&paths, |path| outcome(path, Some(Implementation::Ldk), options));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn what_ldk_publishes_is_told_as_if_it_were_ours() {
    observed(Mode::Observe);
}

#[test]
fn what_a_guard_stands_by_is_told_as_if_it_were_ours() {
    observed(Mode::Guard);
}

/// A payment that is forwarded, one that is fulfilled and one that is failed; then a close.
const CRASHES: &str = "
channel a node=ldk
channel b node=ldk format=static_remotekey opener=remote
receive b in amount=52_000sat expiry=+120
offer a h1 amount=50_000sat expiry=+60 upstream=b.in
receive a h2 amount=40_000sat expiry=+60
settle a h2
offer a h3 amount=30_000sat expiry=+60
cancel a h3
offer a h4 amount=20_000sat expiry=+60
settle a h4
publish a remote #2
mine 2
expect a close=revoked#2
expect b phase=open
";

/// A splice with HTLCs on both funding outputs, until it is locked; then a close.
const SPLICE_CRASHES: &str = "
channel a node=ldk
offer a h1 amount=50_000sat expiry=+60
splice a capacity=1_500_000sat
receive a h2 amount=40_000sat expiry=+90
mine 6
settle a h1
publish a remote #1
mine 2
expect a close=revoked#1
expect a.h1 state=claimed
";

/// The node dies at every write of the arbiter's store, before and after it, and so between the
/// arbiter's receipt and LDK's own record: both start again from what they wrote, and agree.
#[test]
fn a_node_that_dies_at_every_write_agrees_with_its_arbiter() {
    dies_everywhere(CRASHES);
}

/// The same while a channel is spliced: when the splice is signed, confirmed and locked.
#[test]
fn a_node_that_dies_at_every_write_of_a_splice_agrees_with_its_arbiter() {
    dies_everywhere(SPLICE_CRASHES);
}

fn dies_everywhere(story: &str) {
    let scenario = parse("crashes", story).expect("a story");
    let outcome = run_everywhere(&scenario, Options::default(), usize::MAX, &|_, _| {});
    assert_eq!(outcome.verdict, Verdict::Passed);
    // An update is one write, whatever comes with it.
    assert!(outcome.runs > 30, "{} runs", outcome.runs);
}
