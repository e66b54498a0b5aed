//! `Chain` as a block source.
use super::{Chain, Down};
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use std::time::Duration;
use tokio::time::sleep;

impl Chain {
    /// These are in a block that was handed out without them.
    pub(in super::super::super) fn hears_late(&self, at: BlockRef, txdata: Vec<Transaction>) {
        let mut state = self.state();
        let header = state.blocks[&at.hash].header;
        state.late.push((at, Block { header, txdata }));
        drop(state);
        self.0.bell.notify_one();
    }
}

impl BlockSource for Chain {
    type Error = Down;

    async fn tip(&self) -> Result<BlockRef, Down> {
        self.state().looks += 1;
        self.act().await?;
        Ok(self.tip_now())
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, Down> {
        self.act().await?;
        let naming = self.state().naming;
        if naming > Duration::ZERO {
            sleep(naming).await;
        }
        let state = self.state();
        Ok(state.best.iter().find(|block| block.height == height).map(|block| block.hash))
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, Down> {
        self.state().blocks_read += 1;
        self.act().await?;
        let act = self.state().before.take_if(|(before, _)| *before == hash);
        if let Some((_, act)) = act {
            act(self);
            let delay = self.state().delay;
            if delay > Duration::ZERO {
                sleep(delay).await;
            }
        }
        let mood = self.state().broken.get(&hash).copied().unwrap_or_default();
        mood.act().await?;
        Ok(self.state().blocks.get(&hash).cloned())
    }

    async fn mempool_spenders(&self, outpoints: Vec<OutPoint>) -> Result<Vec<Transaction>, Down> {
        self.state().mempool_looks += 1;
        self.act().await?;
        let mood = self.state().mempool_mood;
        mood.act().await?;
        let spends = |tx: &&Transaction| {
            tx.input.iter().any(|input| outpoints.contains(&input.previous_output))
        };
        Ok(self.state().mempool.iter().filter(spends).cloned().collect())
    }

    async fn changed(&self) {
        self.0.bell.notified().await;
    }

    fn late(&self, tip: BlockRef) -> Option<(BlockRef, Block)> {
        self.state().late.first().filter(|(at, _)| at.height <= tip.height).cloned()
    }

    fn had(&self, at: BlockRef, block: &Block) {
        self.state().late.retain(|late| *late != (at, block.clone()));
    }
}
