//! Blocks that the nodes are shown, and our node's stops and starts.
use super::{Beside, Nodes, Runner, Switched, US, ldk_failed};
use crate::ldk::{Delivery, Hands, Restart};
use crate::runner::Failed;
use arb_node_adapter::{GatedPersist, ManagerFence, Recorder};
use bitcoin::Block;
use lightning::chain::BestBlock;
use lightning::util::ser::Writeable;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Nodes {
    fn best(&self, node: usize) -> BestBlock {
        let (height, hash) = self.shown[node][self.shown[node].len() - 1];
        BestBlock::new(hash, height)
    }

    pub(super) fn beside(&self, works: Arc<std::sync::atomic::AtomicBool>) -> Beside {
        let node = &self.nodes[US];
        let signer = Arc::new(self.recorder.signer(node.keys.clone()));
        let fence = self.recorder.fence(ManagerFence(node.manager.clone()));
        Beside { signer: Switched { signer, works }, egress: node.egress.clone(), fence }
    }
}

impl Runner<'_> {
    async fn block_at(&self, height: u32) -> Result<Block, Failed> {
        let block = self.world.backend.block_at(height).await?;
        block.ok_or_else(|| Failed::new(format!("a block at height {height}"), "none"))
    }

    /// Shows a node the chain as it is, from where the node was.
    pub(super) async fn show(&mut self, node: usize) -> Result<(), Failed> {
        let tip = self.world.backend.height().await?;
        let (mut fork, mut lost) = (false, Vec::new());
        loop {
            let best = self.nodes()?.best(node);
            if best.height <= tip
                && self.block_at(best.height).await?.block_hash() == best.block_hash
            {
                break;
            }
            fork = true;
            let nodes = self.nodes_mut()?;
            nodes.shown[node].pop();
            if nodes.shown[node].is_empty() {
                return Err(Failed::new("a fork within the story", "none"));
            }
            let below = nodes.best(node);
            nodes.forks.insert(best.block_hash, below);
            lost.extend(nodes.bodies.get(&best.block_hash).cloned());
        }
        let best = self.nodes()?.best(node);
        let top = self.block_at(best.height).await?;
        let nodes = self.nodes_mut()?;
        // The peers are shown whole blocks.
        let delivery = if node == US { nodes.delivery } else { Delivery::default() };
        if fork {
            // A block that is lost may be above another one that is.
            for fork in nodes.forks.values_mut().filter(|fork| fork.height > best.height) {
                *fork = best;
            }
            delivery.disconnect(&nodes.nodes[node], &lost, &top, best.height);
        }
        let mut blocks = Vec::new();
        for height in best.height + 1..=tip {
            blocks.push((height, self.block_at(height).await?));
        }
        let nodes = self.nodes_mut()?;
        delivery.connect(&nodes.nodes[node], &blocks);
        for (height, block) in blocks {
            nodes.shown[node].push((height, block.block_hash()));
            if node == US {
                nodes.highest = nodes.highest.max(height);
                nodes.bodies.insert(block.block_hash(), block);
            }
        }
        Ok(())
    }

    /// Our node sees the tip, and tries again what is not confirmed.
    pub(in crate::runner) async fn show_ldk(&mut self) -> Result<(), Failed> {
        if self.ldk.is_none() || !self.node.is_running() {
            return Ok(());
        }
        self.show(US).await?;
        self.nodes()?.nodes[US].monitors.rebroadcast_pending_claims();
        Ok(())
    }

    /// Our node starts again, from what it wrote until it stopped.
    pub(in crate::runner) async fn restart_ldk(&mut self) -> Result<(), Failed> {
        if self.ldk.is_none() {
            return Ok(());
        }
        let best = self.nodes()?.best(US);
        let mut blocks = BTreeMap::new();
        for (height, _) in self.nodes()?.shown[US].clone() {
            blocks.insert(height, self.block_at(height).await?);
        }
        let works = Arc::clone(&self.signs);
        let coins = self.world.wallet.clone();
        let nodes = self.nodes_mut()?;
        let old = &nodes.nodes[US];
        let manager = old.manager.encode();
        let (mode, fees) = (old.egress.mode(), old.fees.clone());
        let restart = Restart {
            seed: super::open::seed_of(US),
            config: super::open::config(crate::ldk::Kind::ZeroFee),
            manager: &manager,
            store: &nodes.store,
            blocks: &blocks,
            forks: &nodes.forks,
        };
        let node =
            restart.start(&|taps| Arc::new(GatedPersist::new(taps.clone()))).map_err(ldk_failed)?;
        node.egress.set(mode);
        node.egress.best_height(best.height);
        super::open::take_fees(&node, &fees);
        let channels = node.manager.list_channels();
        nodes.recorder = Recorder::open(node.taps.clone(), nodes.store.clone(), &channels)
            .map_err(|waiting| Failed::new("a recorder", waiting))?;
        let reminded = nodes.recorder.remind(&node.egress);
        reminded.map_err(|waiting| Failed::new("what LDK handed over", waiting))?;
        nodes.hands = Hands::new(&node, coins);
        nodes.lines.replace(&mut nodes.nodes, US, node);
        self.node.beside = Some(self.nodes()?.beside(works));
        Ok(())
    }
}
