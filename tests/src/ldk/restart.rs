//! A node that starts again from what it wrote.

use super::node::{Node, Parts, Pieces, Quiet, Stored};
use super::{ChannelKeys, LdkError, Manager, MemoryKv, NoRoutes};
use bitcoin::{Block, BlockHash};
use lightning::chain::BestBlock;
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::ln::channelmanager::ChannelManagerReadArgs;
use lightning::util::config::UserConfig;
use lightning::util::persist::{KVStoreSync, read_channel_monitors};
use lightning::util::ser::ReadableArgs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a node starts again from.
#[derive(Debug)]
pub struct Restart<'a, K = MemoryKv> {
    /// The seed of its keys.
    pub seed: u8,
    /// What it is set to.
    pub config: UserConfig,
    /// Its channel manager, as it was written.
    pub manager: &'a [u8],
    /// Its monitors, as they were written.
    pub store: &'a Arc<K>,
    /// Blocks up to the manager's, for monitors that were written before.
    pub blocks: &'a BTreeMap<u32, Block>,
    /// Where the chain parts from a block that it lost.
    pub forks: &'a BTreeMap<BlockHash, BestBlock>,
}

impl Restart<'_> {
    /// The node. It is where its manager was: blocks that it missed are to be shown.
    ///
    /// # Errors
    /// LDK cannot read what was written.
    pub fn start(self, stored: &Stored) -> Result<Node, LdkError> {
        // Other random numbers than in the lives before, each of which has written something.
        let run = self.store.written().saturating_add(2);
        let parts = Parts::new(self.seed, run, stored);
        self.with(parts)
    }
}

impl<K: KVStoreSync> Restart<'_, K> {
    /// The same, made with these: the keys are theirs.
    ///
    /// # Errors
    /// LDK cannot read what was written.
    pub fn start_with(self, pieces: Pieces) -> Result<Node, LdkError> {
        self.with(Parts::of(pieces))
    }

    fn with(self, parts: Parts) -> Result<Node, LdkError> {
        let monitors =
            read_channel_monitors(self.store.clone(), parts.keys.clone(), parts.signers.clone())
                .map_err(LdkError::refused)?;
        for (_, monitor) in &monitors {
            self.catch_up(monitor, &parts);
        }
        let args = ChannelManagerReadArgs::new(
            parts.keys.clone(),
            parts.keys.clone(),
            parts.signers.clone(),
            parts.fees.clone(),
            parts.monitors.clone(),
            parts.outbox.clone(),
            Arc::new(NoRoutes),
            Arc::new(NoRoutes),
            Arc::new(Quiet),
            self.config,
            monitors.iter().map(|(_, monitor)| monitor).collect(),
        );
        let (_, manager) =
            <(BlockHash, Manager)>::read(&mut &*self.manager, args).map_err(LdkError::refused)?;
        for (_, monitor) in monitors {
            let loaded = parts.monitors.load_existing_monitor(monitor.channel_id(), monitor);
            loaded.map_err(LdkError::refused)?;
        }
        Ok(parts.with(manager))
    }

    fn catch_up(&self, monitor: &ChannelMonitor<ChannelKeys>, parts: &Parts) {
        let (outbox, fees, quiet) = (&parts.outbox, &parts.fees, Arc::new(Quiet));
        let mut from = monitor.current_best_block();
        if let Some(fork) = self.forks.get(&from.block_hash) {
            monitor.blocks_disconnected(*fork, outbox.clone(), fees.clone(), &quiet);
            from = *fork;
        }
        for (height, block) in self.blocks.range(from.height.saturating_add(1)..) {
            let transactions: Vec<_> = block.txdata.iter().enumerate().collect();
            let (outbox, fees) = (outbox.clone(), fees.clone());
            monitor.block_connected(&block.header, &transactions, *height, outbox, fees, &quiet);
        }
    }
}
