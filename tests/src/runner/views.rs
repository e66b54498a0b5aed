//! A run beside LDK nodes, with both views of every channel after each statement.
use super::Failed;
use super::crash::CrashPlan;
use super::rerun::{Options, backend, runtime};
use super::story::Runner;
use super::trace::Trace;
use crate::scenario::Scenario;
use crate::world::World;
use arb_core::report::ChannelReport;
use bitcoin::Txid;
use lightning::chain::channelmonitor::Balance;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A channel as LDK and as the arbiter see it.
#[derive(Clone, Debug)]
pub struct View {
    /// Its name in the story.
    pub name: String,
    /// What LDK's monitor counts.
    pub ldk: Vec<Balance>,
    /// What the arbiter reports: of a forgotten channel what it reported last.
    pub report: Option<ChannelReport>,
}

/// What there is to see after a statement.
#[derive(Clone, Debug, Default)]
pub struct Views {
    /// Height of the tip.
    pub height: u32,
    /// Every channel.
    pub channels: Vec<View>,
    /// Names of the events that our node's LDK has raised so far.
    pub events: Vec<String>,
    /// Transactions that our node's LDK has handed over so far, whatever became of them.
    pub published: BTreeSet<Txid>,
}

/// Runs a story with `node=ldk` once; `watch` is shown the views after each statement. Gives the
/// last ones.
///
/// # Errors
/// The line that did not come out as it says, and why.
pub fn run_with_views(
    scenario: &Scenario,
    options: Options,
    watch: &dyn Fn(&str, &Views),
) -> Result<Views, (usize, Failed)> {
    runtime().map_err(|failed| (0, failed))?.block_on(watched(scenario, options, watch))
}

async fn watched(
    scenario: &Scenario,
    options: Options,
    watch: &dyn Fn(&str, &Views),
) -> Result<Views, (usize, Failed)> {
    let start = |failed| (0, failed);
    let backend = backend(options.chain).await.map_err(start)?;
    let plan = Arc::new(CrashPlan::count());
    let trace = Trace::new(options.trace);
    let mut runner =
        Runner::begin(scenario, World::new(backend), plan, trace).await.map_err(start)?;
    if let Some(mode) = options.mode {
        runner.set_mode(mode).map_err(start)?;
    }
    let mut views = Views::default();
    for (at, statement) in scenario.story.iter().enumerate() {
        let line = |failed| (statement.line, failed);
        runner.statement(at).await.map_err(line)?;
        views = runner.views().map_err(line)?;
        watch(&statement.text, &views);
    }
    let last = scenario.story.last().map_or(0, |statement| statement.line);
    runner.closing_checks().await.map_err(|failed| (last, failed))?;
    Ok(views)
}
