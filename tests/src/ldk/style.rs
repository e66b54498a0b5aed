//! The ways in which LDK's own clients show it blocks.

use super::Node;
use bitcoin::{Block, Transaction};
use lightning::chain::{BestBlock, Confirm, Listen};

/// How a node is shown blocks: the ways that LDK's own tests know, by what a node can tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Delivery {
    /// Whole blocks; those that are lost in one call.
    #[default]
    Blocks,
    /// The block's transactions, and then that it is the best one.
    TransactionsFirst,
    /// That it is the best block, and then its transactions, twice.
    BestBlockFirst,
    /// Transactions of several blocks, twice, and then that the last of these is the best one.
    TransactionsFirstSkipping,
    /// That the last of several blocks is the best one, and then the transactions of all.
    BestBlockFirstSkipping,
    /// As [`Self::TransactionsFirst`]; of what is lost only the new tip is said.
    TransactionsFirstReorgsOnlyTip,
    /// As [`Self::BestBlockFirst`]; of what is lost only the new tip is said.
    BestBlockFirstReorgsOnlyTip,
}

impl Delivery {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Blocks,
        Self::TransactionsFirst,
        Self::BestBlockFirst,
        Self::TransactionsFirstSkipping,
        Self::BestBlockFirstSkipping,
        Self::TransactionsFirstReorgsOnlyTip,
        Self::BestBlockFirstReorgsOnlyTip,
    ];

    /// Blocks are connected, one above the other: LDK wants the manager to hear of each first.
    pub fn connect(self, node: &Node, blocks: &[(u32, Block)]) {
        if self.skips() {
            return self.skip(node, blocks);
        }
        for (height, block) in blocks {
            node.egress.best_height(*height);
            match self {
                Self::Blocks | Self::TransactionsFirstSkipping | Self::BestBlockFirstSkipping => {
                    node.manager.block_connected(block, *height);
                    node.monitors.block_connected(block, *height);
                }
                Self::TransactionsFirst | Self::TransactionsFirstReorgsOnlyTip => {
                    confirmed(node, block, *height);
                    best(node, block, *height);
                }
                Self::BestBlockFirst | Self::BestBlockFirstReorgsOnlyTip => {
                    best(node, block, *height);
                    confirmed(node, block, *height);
                    confirmed(node, block, *height);
                }
            }
        }
    }

    const fn skips(self) -> bool {
        matches!(self, Self::TransactionsFirstSkipping | Self::BestBlockFirstSkipping)
    }

    fn skip(self, node: &Node, blocks: &[(u32, Block)]) {
        let Some((height, last)) = blocks.last() else { return };
        node.egress.best_height(*height);
        if self == Self::BestBlockFirstSkipping {
            best(node, last, *height);
        }
        for (height, block) in blocks {
            confirmed(node, block, *height);
            confirmed(node, block, *height);
        }
        if self == Self::TransactionsFirstSkipping {
            best(node, last, *height);
        }
    }

    /// Blocks above `fork` are lost: these, the highest one first.
    pub fn disconnect(self, node: &Node, lost: &[Block], fork: &Block, height: u32) {
        node.egress.best_height(height);
        match self {
            Self::Blocks => {
                let fork_point = BestBlock::new(fork.block_hash(), height);
                node.manager.blocks_disconnected(fork_point);
                node.monitors.blocks_disconnected(fork_point);
            }
            Self::TransactionsFirstReorgsOnlyTip | Self::BestBlockFirstReorgsOnlyTip => {
                best(node, fork, height);
            }
            Self::TransactionsFirst
            | Self::BestBlockFirst
            | Self::TransactionsFirstSkipping
            | Self::BestBlockFirstSkipping => {
                for tx in lost.iter().flat_map(|block| &block.txdata) {
                    let txid = tx.compute_txid();
                    node.manager.transaction_unconfirmed(&txid);
                    node.monitors.transaction_unconfirmed(&txid);
                }
                best(node, fork, height);
            }
        }
    }
}

fn confirmed(node: &Node, block: &Block, height: u32) {
    let transactions: Vec<(usize, &Transaction)> = block.txdata.iter().enumerate().collect();
    node.manager.transactions_confirmed(&block.header, &transactions, height);
    node.monitors.transactions_confirmed(&block.header, &transactions, height);
}

fn best(node: &Node, block: &Block, height: u32) {
    node.manager.best_block_updated(&block.header, height);
    node.monitors.best_block_updated(&block.header, height);
}
