//! The ways in which LDK's own clients show it blocks.

use super::Node;
use bitcoin::{Block, Transaction};
use lightning::chain::{BestBlock, Confirm, Listen};

/// How a node is shown blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Whole blocks; those that are lost in one call.
    #[default]
    Blocks,
    /// The block's transactions, and then that it is the best one.
    TransactionsFirst,
    /// That it is the best block, and then its transactions, twice.
    BestBlockFirst,
}

impl Delivery {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Blocks, Self::TransactionsFirst, Self::BestBlockFirst];

    /// A block is connected: LDK wants the manager to hear of it first.
    pub fn connect(self, node: &Node, block: &Block, height: u32) {
        node.egress.best_height(height);
        let transactions: Vec<(usize, &Transaction)> = block.txdata.iter().enumerate().collect();
        let header = &block.header;
        let confirmed = || {
            node.manager.transactions_confirmed(header, &transactions, height);
            node.monitors.transactions_confirmed(header, &transactions, height);
        };
        let best = || {
            node.manager.best_block_updated(header, height);
            node.monitors.best_block_updated(header, height);
        };
        match self {
            Self::Blocks => {
                node.manager.block_connected(block, height);
                node.monitors.block_connected(block, height);
            }
            Self::TransactionsFirst => {
                confirmed();
                best();
            }
            Self::BestBlockFirst => {
                best();
                confirmed();
                confirmed();
            }
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
            Self::TransactionsFirst | Self::BestBlockFirst => {
                for tx in lost.iter().flat_map(|block| &block.txdata) {
                    let txid = tx.compute_txid();
                    node.manager.transaction_unconfirmed(&txid);
                    node.monitors.transaction_unconfirmed(&txid);
                }
                node.manager.best_block_updated(&fork.header, height);
                node.monitors.best_block_updated(&fork.header, height);
            }
        }
    }
}
