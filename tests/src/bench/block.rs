//! `block`: what the engine costs for a block, against computing the block's txids, which whoever
//! looks at a block must do at least.
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use arb_core::arbitrator::{ChannelArbitrator, Position};
use arb_core::engine::{ChainArbitrator, Loaded, NeedFacts, Released};
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::Durable;
use bitcoin::{Block, Transaction};
use indicatif::ProgressBar;

use super::channels::{self, Closing, Quiet};
use super::measure::{Eviction, Pairs, interleaved, timed};
use super::report::{Goal, Row};
use super::{BenchError, synthetic};

const SEED: u64 = 20_240_501;
const WARM_PAIRS: usize = 201;
const COLD_PAIRS: usize = 41;

/// Goals hold for this many channels; other numbers are there for comparison.
const GOAL_CHANNELS: u32 = 100_000;
const CHANNELS: [u32; 4] = [1_000, 10_000, GOAL_CHANNELS, 1_000_000];

/// Channels that close in one block, of so many: most close mutually. Each kind of close together
/// is there for comparison: what costs is to derive the keys of commitments.
const FEW: usize = 2;

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    let quiet = synthetic::block(SEED, &[])?;
    let closing = channels::closing(SEED)?;
    let spends: Vec<Transaction> = closing.iter().map(|closing| closing.spend.clone()).collect();
    let few = synthetic::block(SEED, &spends[..FEW])?;
    let each_kind = synthetic::block(SEED, &spends)?;
    let eviction = Eviction::new();

    progress.set_message("block: control");
    let control = interleaved(WARM_PAIRS, &mut || Ok(txids(&quiet)), &mut || Ok(txids(&quiet)))?;
    let mut rows = vec![Row::of("block: txids / txids (control)", control, CONTROL)];
    for count in CHANNELS {
        progress.set_message(format!("block: {count} channels"));
        let mut engine = Engine::new(count, &closing)?;
        let goal = (count == GOAL_CHANNELS).then_some(Goal::Below(1.0));
        let name = |what: &str| format!("block: {what}, {count} quiet / txids");
        let pairs = engine.against_txids(&quiet, None)?;
        rows.push(Row::of(name("no channel touched"), pairs, goal));
        if count == GOAL_CHANNELS {
            let pairs = engine.against_txids(&few, None)?;
            rows.push(Row::of(name("2 channels touched"), pairs, goal));
            let pairs = engine.against_txids(&each_kind, None)?;
            rows.push(Row::of(name("4 channels touched"), pairs, None));
        }
        if count >= GOAL_CHANNELS {
            let pairs = engine.against_txids(&quiet, Some(&eviction))?;
            rows.push(Row::of(name("no channel touched, cold"), pairs, goal));
        }
    }
    Ok(rows)
}

/// Equal code, so that the reader can tell what the figures are worth.
const CONTROL: Option<Goal> = Some(Goal::Within(0.05));

fn txids(block: &Block) -> Duration {
    timed(|| block.txdata.iter().map(Transaction::compute_txid).map(black_box).count()).0
}

/// An engine with quiet channels, and what its shell would load for it.
struct Engine {
    engine: ChainArbitrator,
    closing: BTreeMap<Slot, Arc<ChannelFacts>>,
    height: u32,
}

impl Engine {
    fn new(count: u32, closing: &[Closing]) -> Result<Self, BenchError> {
        let mut engine = channels::engine();
        Quiet::new(SEED)?.fill(&mut engine, count);
        let slots = (count..).map(Slot);
        let closing = slots.zip(closing.iter().map(|closing| closing.facts.clone())).collect();
        let mut engine = Self { engine, closing, height: channels::TIP };
        engine.reset();
        Ok(engine)
    }

    /// The channels that blocks touch are quiet again.
    fn reset(&mut self) {
        for (slot, facts) in &self.closing {
            self.engine.restore(*slot, facts.clone(), ChannelArbitrator::default());
        }
    }

    fn against_txids(
        &mut self,
        block: &Block,
        cold: Option<&Eviction>,
    ) -> Result<Pairs, BenchError> {
        let prepare = || {
            if let Some(eviction) = cold {
                eviction.evict();
                read_through(block);
            }
        };
        let expected = self.touched_by(block);
        let count = if cold.is_some() { COLD_PAIRS } else { WARM_PAIRS };
        interleaved(
            count,
            &mut || {
                prepare();
                let (time, concerned) = timed(|| self.connect(block));
                if concerned? != expected {
                    return Err(BenchError::Engine("other channels are concerned".to_owned()));
                }
                self.reset();
                Ok(time)
            },
            &mut || {
                prepare();
                Ok(txids(block))
            },
        )
    }

    fn touched_by(&self, block: &Block) -> BTreeSet<Slot> {
        let inputs = block.txdata.iter().flat_map(|tx| &tx.input);
        inputs.flat_map(|input| self.engine.watching(input.previous_output)).collect()
    }

    /// Scan, stage, commit: all that the engine does for a block. Gives the channels concerned.
    fn connect(&mut self, block: &Block) -> Result<BTreeSet<Slot>, BenchError> {
        self.height += 1;
        let at = channels::block_ref(self.height);
        let touched = self.engine.scan(block).touched;
        let mut loaded = Loaded::new();
        let transition = loop {
            match self.engine.connect(at, touched.clone(), Position::AtTip, &loaded) {
                Ok(transition) => break transition,
                Err(NeedFacts(slots)) => loaded = self.load(&slots)?,
            }
        };
        let receipt = Durable::assert_durable(transition.id());
        let committed = self.engine.commit(transition, receipt);
        let released: Released =
            committed.map_err(|error| BenchError::Engine(error.to_string()))?;
        Ok(black_box(released).concerned)
    }

    fn load(&self, slots: &BTreeSet<Slot>) -> Result<Loaded, BenchError> {
        let load = |slot: &Slot| match self.closing.get(slot) {
            Some(facts) => Ok((*slot, facts.clone())),
            None => Err(BenchError::Engine(format!("facts of channel {} are needed", slot.0))),
        };
        slots.iter().map(load).collect()
    }
}

/// As if the block had just come from the node: its bytes are in the caches, the index is not.
fn read_through(block: &Block) {
    black_box(block.txdata.iter().map(Transaction::compute_wtxid).map(black_box).count());
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::classify::FundingSpend;

    #[test]
    fn the_block_touches_the_closing_channels_and_no_other() -> Result<(), BenchError> {
        let closing = channels::closing(SEED)?;
        let spends: Vec<_> = closing.iter().map(|closing| closing.spend.clone()).collect();
        let block = synthetic::block(SEED, &spends)?;
        let mut engine = Engine::new(100, &closing)?;
        let expected: BTreeSet<Slot> = (100..104).map(Slot).collect();
        assert_eq!(engine.touched_by(&block), expected);
        for _ in 0..2 {
            assert_eq!(engine.connect(&block)?, expected);
            let spend = |slot: &Slot| {
                let picture = engine.engine.active(*slot)?.picture.as_ref()?;
                Some(std::mem::discriminant(&picture.spend))
            };
            let number = arb_core::units::CommitmentNumber(0);
            let kinds = [
                FundingSpend::MutualClose,
                FundingSpend::RemoteCommitment(number),
                FundingSpend::LocalCommitment(number),
                FundingSpend::RevokedCommitment(number),
            ];
            let found: Vec<_> = expected.iter().map(spend).collect();
            assert_eq!(found, kinds.map(|kind| Some(std::mem::discriminant(&kind))));
            engine.reset();
            assert!(engine.engine.active(Slot(100)).is_none());
        }
        Ok(())
    }

    #[test]
    fn the_quiet_block_touches_nothing() -> Result<(), BenchError> {
        let block = synthetic::block(SEED, &[])?;
        let mut engine = Engine::new(1_000, &channels::closing(SEED)?)?;
        assert_eq!(engine.engine.len(), 1_004);
        assert!(engine.connect(&block)?.is_empty());
        Ok(())
    }
}
