//! A run that is watched, and what became of each channel.
use super::Failed;
use super::crash::CrashPlan;
use super::rerun::{ChainKind, backend, runtime};
use super::story::Runner;
use super::trace::Trace;
use crate::scenario::Scenario;
use crate::scenario::ast::{ArbiterStep, ChannelName, Format, Step};
use crate::world::World;
use arb_core::arbitrator::CloseKind;
use arb_core::report::ClosingCost;
use arb_watcher::Reserve;
use bitcoin::{Amount, FeeRate};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What became of a channel.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its name in the story.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// What spent its funding output.
    pub close: Option<CloseKind>,
    /// Outputs that were told apart, second stage included.
    pub outputs: usize,
    /// Value that reached us, before fees.
    pub claimed: Amount,
    /// What that cost.
    pub fees: Amount,
    /// Blocks from the close until the last output was irrevocably resolved; `None`: not yet.
    pub blocks: Option<u32>,
    /// Satoshis of the funding output that nobody can say the place of.
    pub unaccounted: i64,
    /// What was foreseen when the channel was about to be failed.
    pub foreseen: Option<Foreseen>,
}

/// What the arbiter says beforehand of a close.
#[derive(Clone, Debug)]
pub struct Foreseen {
    /// The dry run at 10 sat/vB.
    pub cost: ClosingCost,
    /// The same at 40 sat/vB.
    pub dearer: ClosingCost,
    /// What the wallet is said to need for all channels at 10 sat/vB.
    pub reserve: Reserve,
    /// The same at 40 sat/vB.
    pub dearer_reserve: Reserve,
}

/// Runs a story once. `watch` is told before each statement: its number, how many there are, and
/// its text.
///
/// # Errors
/// The line that did not come out as it says, and why.
pub fn run_watched(
    scenario: &Scenario,
    chain: ChainKind,
    watch: &dyn Fn(usize, usize, &str),
) -> Result<Vec<Summary>, (usize, Failed)> {
    runtime().map_err(|failed| (0, failed))?.block_on(watched(scenario, chain, watch))
}

async fn watched(
    scenario: &Scenario,
    chain: ChainKind,
    watch: &dyn Fn(usize, usize, &str),
) -> Result<Vec<Summary>, (usize, Failed)> {
    let start = |failed| (0, failed);
    let backend = backend(chain).await.map_err(start)?;
    let plan = Arc::new(CrashPlan::count());
    let mut runner = Runner::begin(scenario, World::new(backend), plan, Trace::new(false))
        .await
        .map_err(start)?;
    let all = scenario.story.len();
    let mut foreseen = BTreeMap::new();
    for (at, statement) in scenario.story.iter().enumerate() {
        watch(at, all, &statement.text);
        if let Step::Arbiter(ArbiterStep::Fail(name)) = &statement.step {
            let seen = runner.foresee(name).await;
            if let Some(seen) = seen.map_err(|failed| (statement.line, failed))? {
                foreseen.insert(name.clone(), seen);
            }
        }
        runner.statement(at).await.map_err(|failed| (statement.line, failed))?;
    }
    let last = scenario.story.last().map_or(0, |statement| statement.line);
    let mut summaries = Vec::new();
    for channel in &scenario.channels {
        let summary = runner.summary(&channel.name, channel.format).await;
        let mut summary = summary.map_err(|failed| (last, failed))?;
        summary.foreseen = foreseen.remove(&channel.name);
        summaries.push(summary);
    }
    runner.closing_checks().await.map_err(|failed| (last, failed))?;
    Ok(summaries)
}

impl Runner<'_> {
    /// What failing the channel would cost, and what the wallet needs.
    async fn foresee(&mut self, name: &ChannelName) -> Result<Option<Foreseen>, Failed> {
        let [rate, dear] = [10, 40].map(FeeRate::from_sat_per_vb_u32);
        let cost = self.cost(name, rate).await?;
        let dearer = self.cost(name, dear).await?;
        let reserve = self.command(|arbiter| async move { arbiter.reserve(rate).await }).await?;
        let dearer_reserve =
            self.command(|arbiter| async move { arbiter.reserve(dear).await }).await?;
        let both = cost.zip(dearer);
        Ok(both.map(|(cost, dearer)| Foreseen { cost, dearer, reserve, dearer_reserve }))
    }

    pub(super) async fn cost(
        &mut self,
        name: &ChannelName,
        rate: FeeRate,
    ) -> Result<Option<ClosingCost>, Failed> {
        let id = self.chan(name)?.id;
        self.command(|arbiter| async move { arbiter.closing_cost(id, rate).await }).await
    }

    async fn summary(&mut self, name: &ChannelName, format: Format) -> Result<Summary, Failed> {
        let close = self.close(name).await?.filter(|close| !close.splice);
        let closed_at = close.and_then(|close| close.height);
        let value = self.value(name).await?;
        let depth = self.policy().forget_depth.0;
        let chan = self.chan(name)?;
        let capacity = signed(self.on_chain_peer(name)?.params().capacity);
        let report = chan.report.as_ref();
        let outputs = report.map(|report| report.outputs.as_slice()).unwrap_or_default();
        let spends = outputs.iter().filter_map(|output| output.spent_at).map(|height| height.0);
        let blocks = closed_at.filter(|_| chan.forgotten).map(|closed| {
            let last = spends.max().unwrap_or(closed).max(closed);
            last - closed + depth
        });
        // Of what is unspent, only our anchor on the peer's commitment may be left behind.
        let unaccounted = value.map_or(capacity, |value| {
            let anchor = Amount::from_sat(330).min(value.pending);
            capacity - signed(value.total()) + signed(value.lost) + signed(value.pending - anchor)
        });
        Ok(Summary {
            name: name.0.clone(),
            format,
            close: report.and_then(|report| report.close),
            outputs: outputs.len(),
            claimed: report.map_or(Amount::ZERO, |report| report.received),
            fees: report.map_or(Amount::ZERO, |report| report.fees),
            blocks,
            unaccounted,
            foreseen: None,
        })
    }
}

fn signed(amount: Amount) -> i64 {
    i64::try_from(amount.to_sat()).unwrap_or(i64::MAX)
}
