//! What stands around the engine while blocks are measured: facts to load, and a store or none.
use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use arb_core::arbitrator::{ChannelArbitrator, Position};
use arb_core::engine::{ChainArbitrator, Loaded, NeedFacts, Transition};
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::{Batch, BatchId, ChangeLog, Durable, Write};
use arb_store::{LmdbLog, StoreConfig};
use bitcoin::{Block, OutPoint};
use hashbrown::HashMap;

use crate::bench::BenchError;
use crate::bench::channels::{self, Closing, Quiet};
use crate::bench::store::wait;

pub(super) const SEED: u64 = 20_240_501;

/// Facts that one transaction writes while a store is filled.
const FILLED_AT_ONCE: usize = 10_000;

/// Batches that fill the store are numbered from here, beyond those of the engine.
const FILLING: u64 = 1 << 63;

/// An engine with quiet channels, and channels that blocks may close.
pub(super) struct Shell {
    pub(super) engine: ChainArbitrator,
    closing: BTreeMap<Slot, Arc<ChannelFacts>>,
    height: u32,
    storage: Storage,
}

/// Where facts are loaded from and transitions become durable.
enum Storage {
    /// Facts lie ready, and nothing is written: the engine alone.
    None,
    /// The store of the project, synced to the disk.
    Lmdb(Box<LmdbLog>),
}

impl Shell {
    /// The engine alone.
    ///
    /// # Errors
    /// The channels do not hold.
    pub(super) fn engine_alone(count: u32, closing: &[Closing]) -> Result<Self, BenchError> {
        let mut engine = channels::engine();
        Quiet::new(SEED)?.fill(&mut engine, count);
        let slots = (count..).map(Slot);
        let closing = slots.zip(closing.iter().map(|closing| closing.facts.clone())).collect();
        let mut shell = Self { engine, closing, height: channels::TIP, storage: Storage::None };
        shell.reset();
        Ok(shell)
    }

    /// With a store in `folder` that holds the facts of every channel.
    ///
    /// # Errors
    /// The channels do not hold, or the store fails.
    pub(super) fn with_store(
        count: u32,
        closing: &[Closing],
        folder: &Path,
    ) -> Result<Self, BenchError> {
        let mut shell = Self::engine_alone(count, closing)?;
        let mut log = LmdbLog::open(folder, StoreConfig::default())?;
        let mut quiet = Quiet::new(SEED)?;
        let mut writes = Vec::new();
        let mut batches = (FILLING..).map(BatchId);
        let mut append = |writes: &mut Vec<Write>| {
            let id = batches.next().unwrap_or(BatchId(u64::MAX));
            wait(log.append(Batch { id, writes: std::mem::take(writes) })).map(drop)
        };
        for slot in 0..count {
            let facts = Arc::new(quiet.facts(slot));
            writes.push(Write::Facts { slot: Slot(slot), facts });
            if writes.len() == FILLED_AT_ONCE {
                append(&mut writes)?;
            }
        }
        for (slot, facts) in &shell.closing {
            writes.push(Write::Facts { slot: *slot, facts: facts.clone() });
        }
        append(&mut writes)?;
        shell.storage = Storage::Lmdb(Box::new(log));
        Ok(shell)
    }

    /// The channels that blocks touch are quiet again.
    pub(super) fn reset(&mut self) {
        for (slot, facts) in &self.closing {
            self.engine.restore(*slot, facts.clone(), ChannelArbitrator::default());
        }
    }

    /// The first of the channels that blocks may close.
    pub(super) fn closing(&self, count: usize) -> BTreeSet<Slot> {
        self.closing.keys().copied().take(count).collect()
    }

    /// Everything watched, in a bare map with the engine's hasher.
    pub(super) fn bare_map(&self) -> HashMap<OutPoint, Slot> {
        let watched = self.engine.watched().into_iter();
        watched.flat_map(|o| self.engine.watching(o).map(move |slot| (o, slot))).collect()
    }

    /// All that is done for a block: scan, load, stage, append, commit. Gives the channels that
    /// were concerned.
    pub(super) fn connect(&mut self, block: &Block) -> Result<BTreeSet<Slot>, BenchError> {
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
        let receipt = self.append(&transition)?;
        let committed = self.engine.commit(transition, receipt);
        let concerned = committed.map_err(|error| BenchError::Engine(error.to_string()))?;
        Ok(black_box(self.engine.released(concerned)).concerned)
    }

    fn append(&mut self, transition: &Transition) -> Result<Durable, BenchError> {
        match &mut self.storage {
            Storage::None => Ok(Durable::assert_durable(transition.id())),
            Storage::Lmdb(log) => Ok(wait(log.append(transition.batch().clone()))?),
        }
    }

    fn load(&self, slots: &BTreeSet<Slot>) -> Result<Loaded, BenchError> {
        slots.iter().map(|slot| Ok((*slot, self.load_one(*slot)?))).collect()
    }

    fn load_one(&self, slot: Slot) -> Result<Arc<ChannelFacts>, BenchError> {
        let missing = || BenchError::Engine(format!("there are no facts of channel {}", slot.0));
        match &self.storage {
            Storage::None => self.closing.get(&slot).cloned().ok_or_else(missing),
            Storage::Lmdb(log) => match log.facts(slot)? {
                Some(Ok(facts)) => Ok(Arc::from(facts)),
                Some(Err(damaged)) => Err(BenchError::Engine(damaged.to_string())),
                None => Err(missing()),
            },
        }
    }
}
