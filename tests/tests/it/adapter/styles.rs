//! The styles in which LDK's own tests deliver blocks, and a chain client that uses one of them.
use arb_node_adapter::LdkFeed;
use arb_tests::chain::EmbeddedChain;
use bitcoin::{Block, Transaction};
use lightning::chain::{BestBlock, Confirm, Listen};
use std::sync::Arc;

/// One to one the `ConnectStyle` of `lightning`'s functional tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    BestBlockFirst,
    BestBlockFirstSkippingBlocks,
    BestBlockFirstReorgsOnlyTip,
    TransactionsFirst,
    TransactionsFirstSkippingBlocks,
    TransactionsDuplicativelyFirstSkippingBlocks,
    HighlyRedundantTransactionsFirstSkippingBlocks,
    TransactionsFirstReorgsOnlyTip,
    FullBlockViaListen,
    ReplayedFullBlockViaListen,
    FullBlockDisconnectionsSkippingViaListen,
}

impl Style {
    pub(super) const ALL: [Self; 11] = [
        Self::BestBlockFirst,
        Self::BestBlockFirstSkippingBlocks,
        Self::BestBlockFirstReorgsOnlyTip,
        Self::TransactionsFirst,
        Self::TransactionsFirstSkippingBlocks,
        Self::TransactionsDuplicativelyFirstSkippingBlocks,
        Self::HighlyRedundantTransactionsFirstSkippingBlocks,
        Self::TransactionsFirstReorgsOnlyTip,
        Self::FullBlockViaListen,
        Self::ReplayedFullBlockViaListen,
        Self::FullBlockDisconnectionsSkippingViaListen,
    ];

    fn skips_blocks(self) -> bool {
        matches!(
            self,
            Self::BestBlockFirstSkippingBlocks
                | Self::BestBlockFirstReorgsOnlyTip
                | Self::TransactionsFirstSkippingBlocks
                | Self::TransactionsDuplicativelyFirstSkippingBlocks
                | Self::HighlyRedundantTransactionsFirstSkippingBlocks
                | Self::TransactionsFirstReorgsOnlyTip
        )
    }

    /// Whether a reorganisation is told by the transactions alone.
    pub(super) fn hides_disconnections(self) -> bool {
        matches!(self, Self::BestBlockFirstReorgsOnlyTip | Self::TransactionsFirstReorgsOnlyTip)
    }
}

/// A chain client: follows the chain, and calls the feed in its style.
pub(super) struct Client {
    style: Style,
    blocks: Vec<(Arc<Block>, u32)>,
}

/// Called after every single delivery.
pub(super) trait Between {
    async fn delivered(&mut self) -> Result<(), super::Failed>;
}

impl Client {
    /// A client that starts at the chain's tip.
    pub(super) fn new(style: Style, chain: &EmbeddedChain) -> Self {
        let tip = chain.block_at(chain.height()).cloned();
        Self { style, blocks: tip.into_iter().map(|block| (block, chain.height())).collect() }
    }

    /// Disconnects what is stale and connects what is new.
    pub(super) async fn follow(
        &mut self,
        chain: &EmbeddedChain,
        feed: &LdkFeed,
        between: &mut impl Between,
    ) -> Result<(), super::Failed> {
        let stale = |(block, _): &&(Arc<Block>, u32)| !chain.is_active(&block.block_hash());
        let count = self.blocks.iter().filter(stale).count();
        for left in (0..count).rev() {
            self.disconnect(feed, left)?;
            between.delivered().await?;
        }
        let from = self.blocks.last().ok_or("the client has no block")?.1 + 1;
        for height in from..=chain.height() {
            let block = chain.block_at(height).cloned().ok_or("no such block")?;
            self.blocks.push((block.clone(), height));
            let empty = block.txdata.iter().all(Transaction::is_coinbase);
            if !(self.style.skips_blocks() && empty && height < chain.height()) {
                self.connect(feed, &block, height, between).await?;
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, feed: &LdkFeed, left: usize) -> Result<(), super::Failed> {
        let (orig, height) = self.blocks.pop().ok_or("nothing to disconnect")?;
        let (prev, prev_height) = self.blocks.last().ok_or("nothing below")?;
        let fork_point = BestBlock::new(orig.header.prev_blockhash, height - 1);
        match self.style {
            Style::FullBlockViaListen | Style::ReplayedFullBlockViaListen => {
                feed.blocks_disconnected(fork_point);
            }
            Style::FullBlockDisconnectionsSkippingViaListen => {
                if left == 0 {
                    feed.blocks_disconnected(fork_point);
                }
            }
            Style::BestBlockFirstSkippingBlocks
            | Style::TransactionsFirstSkippingBlocks
            | Style::HighlyRedundantTransactionsFirstSkippingBlocks
            | Style::TransactionsDuplicativelyFirstSkippingBlocks => {
                if left == 0 {
                    feed.best_block_updated(&prev.header, *prev_height);
                }
            }
            Style::BestBlockFirstReorgsOnlyTip | Style::TransactionsFirstReorgsOnlyTip => {
                for tx in &orig.txdata {
                    feed.transaction_unconfirmed(&tx.compute_txid());
                }
            }
            Style::BestBlockFirst | Style::TransactionsFirst => {
                feed.best_block_updated(&prev.header, *prev_height);
            }
        }
        Ok(())
    }

    async fn connect(
        &self,
        feed: &LdkFeed,
        block: &Block,
        height: u32,
        between: &mut impl Between,
    ) -> Result<(), super::Failed> {
        match self.style {
            Style::BestBlockFirst
            | Style::BestBlockFirstSkippingBlocks
            | Style::BestBlockFirstReorgsOnlyTip => {
                feed.best_block_updated(&block.header, height);
                between.delivered().await?;
                confirm(feed, block, height);
            }
            Style::TransactionsFirst
            | Style::TransactionsFirstSkippingBlocks
            | Style::TransactionsDuplicativelyFirstSkippingBlocks
            | Style::HighlyRedundantTransactionsFirstSkippingBlocks
            | Style::TransactionsFirstReorgsOnlyTip => {
                if self.style == Style::HighlyRedundantTransactionsFirstSkippingBlocks {
                    for (block, height) in &self.blocks {
                        confirm(feed, block, *height);
                    }
                }
                confirm(feed, block, height);
                if self.style == Style::TransactionsDuplicativelyFirstSkippingBlocks {
                    confirm(feed, block, height);
                }
                between.delivered().await?;
                feed.best_block_updated(&block.header, height);
            }
            Style::FullBlockViaListen | Style::FullBlockDisconnectionsSkippingViaListen => {
                feed.block_connected(block, height);
            }
            Style::ReplayedFullBlockViaListen => {
                feed.filtered_block_connected(&block.header, &[], height);
                between.delivered().await?;
                feed.block_connected(block, height);
            }
        }
        between.delivered().await
    }
}

/// As LDK's tests do it, with all transactions of the block.
pub(super) fn confirm(feed: &LdkFeed, block: &Block, height: u32) {
    let data: Vec<(usize, &Transaction)> = block.txdata.iter().enumerate().collect();
    feed.transactions_confirmed(&block.header, &data, height);
}
