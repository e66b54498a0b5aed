//! An arbiter as a node has it: its driver, its store on this disk, and a source that is handed blocks.
use std::path::Path;
use std::time::Duration;

use arb_core::arbitrator::Position;
use arb_core::units::BlockRef;
use arb_node_adapter::ListenSource;
use arb_store::{LmdbLog, StoreConfig};
use arb_watcher::memory::{MemoryCoins, MemoryFees, MemoryNetwork, MemorySigner};
use arb_watcher::{Arbiter, Epoch, Epochs, Ports, ScriptsPort, Settings};
use bitcoin::Block;
use bitcoin::secp256k1::SecretKey;
use lightning::chain::Listen;
use tokio::runtime::Runtime;

use super::channels::{TIP, block_ref};
use super::measure::timed;
use super::storm::runtime;
use super::{BenchError, start};

/// An arbiter of quiet channels that waits for the next block.
pub(super) struct Whole {
    runtime: Runtime,
    arbiter: Arbiter,
    epochs: Epochs,
    source: ListenSource,
    tip: BlockRef,
}

impl Whole {
    /// With a new store of so many channels in `folder`.
    pub(super) fn new(folder: &Path, count: u32) -> Result<Self, BenchError> {
        let failed = |error: &dyn std::fmt::Display| BenchError::Engine(error.to_string());
        let numbers = start::fill(folder, count)?;
        let source = ListenSource::new([block_ref(TIP)]);
        let wallet = SecretKey::from_slice(&[7; 32]).map_err(|error| failed(&error))?;
        let ports = Ports {
            source: source.clone(),
            broadcast: MemoryNetwork::new(),
            fees: MemoryFees::default(),
            signer: MemorySigner::new(),
            coins: MemoryCoins::new(wallet, &[]),
            scripts: ScriptsPort::default(),
        };
        let log = LmdbLog::open(folder, StoreConfig::default())?;
        let runtime = runtime()?;
        let started = runtime.block_on(async {
            let arbiter = Arbiter::start(log, ports, Settings::default(), numbers).await;
            let arbiter = arbiter.map_err(|error| failed(&error))?;
            arbiter.idle().await.map_err(|error| failed(&error))?;
            let epochs = arbiter.epochs().await.map_err(|error| failed(&error))?;
            Ok::<_, BenchError>((arbiter, epochs))
        });
        let (arbiter, epochs) = started?;
        Ok(Self { runtime, arbiter, epochs, source, tip: block_ref(TIP) })
    }

    /// From the delivery of `block`, which becomes the next one, until it is durable. `meanwhile` happens after the
    /// delivery.
    pub(super) fn connect(
        &mut self,
        block: &mut Block,
        meanwhile: impl FnOnce(&Block),
    ) -> Result<Duration, BenchError> {
        block.header.prev_blockhash = self.tip.hash;
        self.tip.height.0 += 1;
        self.tip.hash = block.block_hash();
        let (time, digested) = timed(|| {
            self.source.block_connected(block, self.tip.height.0);
            self.source.round_complete();
            meanwhile(block);
            self.runtime.block_on(digested(&mut self.epochs, self.tip))
        });
        if digested { Ok(time) } else { Err(BenchError::Engine("no block came".to_owned())) }
    }

    pub(super) fn stop(self) {
        self.runtime.block_on(self.arbiter.shutdown());
    }
}

/// Waits until the arbiter has this block.
async fn digested(epochs: &mut Epochs, tip: BlockRef) -> bool {
    while let Some(epoch) = epochs.next().await {
        if epoch == (Epoch::Connected { block: tip, position: Position::AtTip }) {
            return true;
        }
    }
    false
}
