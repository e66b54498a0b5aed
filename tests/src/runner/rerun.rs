//! Runs of a file: once, or once for each point at which it may crash.
use super::Failed;
use super::crash::CrashPlan;
use super::story::Runner;
use super::trace::Trace;
use crate::ldk::Delivery;
use crate::scenario::Scenario;
use crate::scenario::ast::Mode;
use crate::world::{Backend, Shown, World};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The chain that a scenario runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChainKind {
    /// In memory.
    #[default]
    Embedded,
    /// A real Bitcoin Core, which the environment names.
    Bitcoind,
}

/// How scenarios are run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// On which chain.
    pub chain: ChainKind,
    /// Whether everything is printed.
    pub trace: bool,
    /// Who publishes when the story begins, beside LDK nodes; the arbiter, if nothing is said.
    pub mode: Option<Mode>,
    /// How our LDK node is shown blocks.
    pub delivery: Delivery,
    /// How the arbiter is.
    pub shown: Shown,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything was as the file says.
    Passed,
    /// Something was not.
    Failed {
        /// The line; 0 where the file had not begun.
        line: usize,
        /// What was wrong.
        failed: Failed,
        /// Where the run had crashed before, if it had.
        crash: Option<String>,
    },
}

/// What the runs of a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first failure, or none.
    pub verdict: Verdict,
    /// How many times it ran.
    pub runs: usize,
    /// What was compared with LDK, in the first run if it passed.
    pub compared: Compared,
}

/// How often LDK and the arbiter were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// HTLCs and balance of a channel that LDK has open, with the facts.
    pub htlcs: usize,
    /// Balances of a channel that is closed, with the report.
    pub balances: usize,
    /// Channels that are closed in a block at the end.
    pub closed: usize,
}

/// Points at which a run on a real node is crashed, spread evenly.
const SAMPLED: usize = 12;
/// Runs that go on at once: one waits for its store more than it computes.
const THREADS: usize = 8;
/// As [`THREADS`], where each has a real node of its own.
const NODES: usize = 2;

pub(super) async fn backend(chain: ChainKind) -> Result<Backend, Failed> {
    match chain {
        ChainKind::Embedded => Ok(Backend::embedded()),
        ChainKind::Bitcoind => Ok(Backend::bitcoind().await?),
    }
}

async fn story(
    scenario: &Scenario,
    options: Options,
    plan: Arc<CrashPlan>,
) -> Result<Compared, (usize, Failed)> {
    let trace = Trace::new(options.trace);
    let backend = backend(options.chain).await.map_err(|failed| (0, failed))?;
    let mut world = World::new(backend);
    world.shown = options.shown;
    let begun = Runner::begin(scenario, world, plan, trace).await;
    let mut runner = begun.map_err(|failed| (0, failed))?;
    runner.set_delivery(options.delivery);
    if let Some(mode) = options.mode {
        runner.set_mode(mode).map_err(|failed| (0, failed))?;
    }
    for (at, statement) in scenario.story.iter().enumerate() {
        runner.statement(at).await.map_err(|failed| (statement.line, failed))?;
    }
    let last = scenario.story.last().map_or(0, |statement| statement.line);
    runner.closing_checks().await.map_err(|failed| (last, failed))?;
    Ok(runner.compared())
}

/// One thread, so that nothing depends on which of two is faster.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failed::new("a runtime", error))
}

fn one_run(scenario: &Scenario, options: Options, plan: &Arc<CrashPlan>) -> (Verdict, Compared) {
    let told = match runtime() {
        Ok(runtime) => runtime.block_on(story(scenario, options, Arc::clone(plan))),
        Err(failed) => Err((0, failed)),
    };
    match told {
        Ok(compared) => (Verdict::Passed, compared),
        Err((line, failed)) => {
            let named = |name: String| match plan.crashes_at() {
                Some(point) => format!("{name}, point {point}"),
                None => name,
            };
            let crash = plan.name().map(named);
            (Verdict::Failed { line, failed, crash }, Compared::default())
        }
    }
}

/// Runs a scenario once.
pub fn run(scenario: &Scenario, options: Options) -> Outcome {
    let plan = Arc::new(CrashPlan::count());
    let (verdict, compared) = one_run(scenario, options, &plan);
    Outcome { verdict, runs: 1, compared }
}

/// Runs a scenario once, with a crash at one point, counted from 0; `None`: it has no such point.
pub fn run_crashing(scenario: &Scenario, options: Options, point: usize) -> Option<Outcome> {
    let plan = Arc::new(CrashPlan::at(point));
    let (verdict, compared) = one_run(scenario, options, &plan);
    let crashed = plan.name().is_some() || verdict != Verdict::Passed;
    crashed.then_some(Outcome { verdict, runs: 1, compared })
}

/// Runs a scenario once, and then once more for each point that it passed, with a crash there; where it
/// passed more than `most`, for so many of them, spread evenly.
/// `progress` is called with the runs that are done and all that there are.
pub fn run_everywhere(
    scenario: &Scenario,
    options: Options,
    most: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Outcome {
    let plan = Arc::new(CrashPlan::count());
    let (verdict, compared) = one_run(scenario, options, &plan);
    let passed = plan.passed();
    let (most, threads) = match options.chain {
        ChainKind::Embedded => (most, THREADS),
        ChainKind::Bitcoind => (most.min(SAMPLED), NODES),
    };
    let crashes = passed.min(most);
    let points: Vec<usize> = (0..crashes).map(|at| at * passed / crashes).collect();
    if verdict != Verdict::Passed {
        return Outcome { verdict, runs: 1, compared };
    }
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    // The failure of the earliest point counts, whichever thread found its own first.
    let first: Mutex<Option<(usize, Verdict)>> = Mutex::new(None);
    let failed_before = |point: usize| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner);
        first.as_ref().is_some_and(|(failed, _)| *failed < point)
    };
    let work = || {
        while let Some(point) = points.get(next.fetch_add(1, Ordering::SeqCst)).copied() {
            if failed_before(point) {
                return;
            }
            let plan = Arc::new(CrashPlan::at(point));
            let (verdict, _) = one_run(scenario, options, &plan);
            progress(done.fetch_add(1, Ordering::SeqCst) + 1, points.len());
            if verdict != Verdict::Passed && !failed_before(point) {
                let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
                *first = Some((point, verdict));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let runs = 1 + done.load(Ordering::SeqCst);
    let first = first.into_inner().unwrap_or_else(PoisonError::into_inner);
    Outcome { verdict: first.map_or(Verdict::Passed, |(_, verdict)| verdict), runs, compared }
}
