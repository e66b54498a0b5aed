//! `arb scenario`: a line for each file, a last line that counts, and a status.
use crate::ldk::Delivery;
use crate::runner::{
    ChainKind, Compared, Failed, Options, Outcome, Verdict, run as run_once, run_crashing,
    run_everywhere, unplayable,
};
use crate::scenario::{ParseError, Scenario, ast, parse, unsupported};
use crate::world::Shown;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Arguments of `arb scenario`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The chain to run on.
    #[arg(long, value_enum, default_value_t = Chain::Embedded)]
    chain: Chain,
    /// The node implementation on both sides of every channel, as if each said `node=`.
    #[arg(long, value_enum)]
    node: Option<Implementation>,
    /// Who publishes at the beginning, beside LDK nodes.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// How our LDK node is shown blocks.
    #[arg(long, value_enum, default_value_t)]
    delivery: Delivery,
    /// How the arbiter is shown blocks.
    #[arg(long, value_enum, default_value_t)]
    shown: Shown,
    /// Print every statement, block, notice, report change and transaction.
    #[arg(long)]
    trace: bool,
    /// Run each file again for each store write and each effect, with a crash there.
    #[arg(long)]
    crash_everywhere: bool,
    /// Crashes of a file at most, spread evenly over its points; a real Bitcoin Core has twelve at most.
    #[arg(long, value_name = "CRASHES", requires = "crash_everywhere")]
    at_most: Option<usize>,
    /// Run each file once, with a crash at this point, as `--crash-everywhere` names it.
    #[arg(long, value_name = "POINT", conflicts_with = "crash_everywhere")]
    crash_at: Option<usize>,
    /// Files that are run at once.
    #[arg(long, default_value_t = 4)]
    jobs: usize,
    /// Print a line of JSON for each file instead.
    #[arg(long)]
    json: bool,
    /// Scenario files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// A node implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Implementation {
    /// LDK.
    Ldk,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// LDK.
    Observe,
    /// LDK, and the arbiter what LDK leaves undone.
    Guard,
    /// The arbiter.
    Own,
}

impl Mode {
    const fn of_the_language(self) -> ast::Mode {
        match self {
            Self::Observe => ast::Mode::Observe,
            Self::Guard => ast::Mode::Guard,
            Self::Own => ast::Mode::Own,
        }
    }
}

/// A chain to run on.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Chain {
    /// In memory.
    Embedded,
    /// A real Bitcoin Core on regtest.
    Bitcoind,
}

impl Chain {
    /// As the runner names it.
    pub(super) const fn kind(self) -> ChainKind {
        match self {
            Self::Embedded => ChainKind::Embedded,
            Self::Bitcoind => ChainKind::Bitcoind,
        }
    }
}

/// What a file came to.
enum Report {
    Ran(Outcome),
    NotParsed(ParseError),
}

/// Reads a file, and refuses what belongs to later work, and channels that cannot be.
///
/// # Errors
/// The first line that the language does not allow, or that is not supported yet.
pub fn read(path: &Path) -> Result<Scenario, ParseError> {
    read_for(path, None)
}

/// As [`read`], with every channel one of these nodes.
///
/// # Errors
/// As [`read`]; the first line that such nodes cannot do is one that is not supported.
pub fn read_for(path: &Path, node: Option<Implementation>) -> Result<Scenario, ParseError> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ParseError {
        file: file.clone(),
        line: 0,
        expected: "a readable file".to_owned(),
        found: error.to_string(),
    })?;
    let scenario = parse(&file, &text)?;
    let scenario = match node {
        Some(Implementation::Ldk) => scenario.with_ldk(),
        None => scenario,
    };
    match unsupported(&scenario).or_else(|| unplayable(&scenario)) {
        Some(error) => Err(error),
        None => Ok(scenario),
    }
}

/// Prints a line. Whoever reads no further is not told any more; the exit status still says it.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs the files.
pub fn run(arguments: &Arguments) -> ExitCode {
    let (mut passed, mut failed, mut unparsed) = (0, 0, 0);
    in_parallel(arguments, |path, report| {
        match report {
            Report::Ran(Outcome { verdict: Verdict::Passed, .. }) => passed += 1,
            Report::Ran(_) => failed += 1,
            Report::NotParsed(_) => unparsed += 1,
        }
        let file = path.display().to_string();
        say(&if arguments.json { as_json(&file, report) } else { as_text(&file, report) });
    });
    let failures = failed + unparsed;
    if arguments.json {
        say(&serde_json::json!({ "passed": passed, "failed": failures }).to_string());
    } else {
        say(&format!("{passed} passed, {failures} failed"));
    }
    match (unparsed, failed) {
        (0, 0) => ExitCode::SUCCESS,
        (0, _) => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

/// Runs several files at once, and tells of them in the order in which they were named. A trace, and
/// a file that is run again and again on threads of its own, come one after the other.
fn in_parallel(arguments: &Arguments, mut tell: impl FnMut(&Path, &Report)) {
    let alone = arguments.trace || arguments.crash_everywhere;
    let jobs = if alone { 1 } else { arguments.jobs.max(1) };
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(arguments.files.len()) {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                while let Some((at, path)) = {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    arguments.files.get(at).map(|path| (at, path))
                } {
                    // Whoever listens is in this scope.
                    let _ = sender.send((at, one(path, arguments)));
                }
            });
        }
        drop(sender);
        let mut early: BTreeMap<usize, Report> = BTreeMap::new();
        let mut due = 0;
        for (at, report) in receiver {
            early.insert(at, report);
            while let Some(report) = early.remove(&due) {
                if let Some(path) = arguments.files.get(due) {
                    tell(path, &report);
                }
                due += 1;
            }
        }
    });
}

fn one(path: &Path, arguments: &Arguments) -> Report {
    let scenario = match read_for(path, arguments.node) {
        Ok(scenario) => scenario,
        Err(error) => return Report::NotParsed(error),
    };
    let mode = arguments.mode.filter(|_| scenario.is_of_ldk()).map(Mode::of_the_language);
    let options = Options {
        chain: arguments.chain.kind(),
        trace: arguments.trace,
        mode,
        delivery: arguments.delivery,
        shown: arguments.shown,
    };
    if let Some(point) = arguments.crash_at {
        let outcome = run_crashing(&scenario, options, point);
        return Report::Ran(outcome.unwrap_or_else(|| no_such(point)));
    }
    if !arguments.crash_everywhere {
        return Report::Ran(run_once(&scenario, options));
    }
    let bar = bar(&path.display().to_string());
    let progress = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let outcome =
        run_everywhere(&scenario, options, arguments.at_most.unwrap_or(usize::MAX), &progress);
    bar.finish_and_clear();
    Report::Ran(outcome)
}

fn no_such(point: usize) -> Outcome {
    let expected = format!("a point {point} to crash at");
    let failed = Failed { expected, found: "the story to pass fewer".to_owned() };
    let verdict = Verdict::Failed { line: 0, failed, crash: None };
    Outcome { verdict, runs: 1, compared: Compared::default() }
}

/// A bar on a terminal, nothing elsewhere.
fn bar(file: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0).with_message(file.to_owned());
    match ProgressStyle::with_template("{msg} {pos}/{len} crashes") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn as_text(file: &str, report: &Report) -> String {
    match report {
        Report::Ran(Outcome { verdict: Verdict::Passed, .. }) => format!("ok {file}"),
        Report::Ran(Outcome { verdict: Verdict::Failed { line, failed, crash }, .. }) => {
            let crash = crash.as_ref().map(|crash| format!(" (crash {crash})"));
            let crash = crash.unwrap_or_default();
            format!(
                "FAILED {file}:{line}: expected {}, found {}{crash}",
                failed.expected, failed.found
            )
        }
        Report::NotParsed(error) => format!("FAILED {error}"),
    }
}

fn as_json(file: &str, report: &Report) -> String {
    let value = match report {
        Report::Ran(Outcome { verdict: Verdict::Passed, runs, .. }) => {
            serde_json::json!({ "file": file, "ok": true, "runs": runs })
        }
        Report::Ran(Outcome { verdict: Verdict::Failed { line, failed, crash }, runs, .. }) => {
            serde_json::json!({
                "file": file, "ok": false, "runs": runs, "line": line,
                "expected": failed.expected, "found": failed.found, "crash": crash,
            })
        }
        Report::NotParsed(error) => serde_json::json!({
            "file": file, "ok": false, "parsed": false, "line": error.line,
            "expected": error.expected, "found": error.found,
        }),
    };
    value.to_string()
}
