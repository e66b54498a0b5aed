//! What the blocks of a story did: the truth that reports are compared with.
use bitcoin::{Block, BlockHash, OutPoint, Transaction, TxOut, Txid};
use std::collections::HashMap;

/// Whether a block had room for the arbiter's transactions, and the arbiter its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// What the arbiter had published before could be in it.
    Full,
    /// It was mined empty or without something, or the arbiter could not act.
    None,
}

/// A block of the active chain.
#[derive(Clone, Debug)]
pub struct LedgerBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its transactions, coinbase first.
    pub transactions: Vec<Transaction>,
    /// Whether the arbiter's transactions had a chance.
    pub room: Room,
}

/// The active chain from some height on.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    first: u32,
    blocks: Vec<LedgerBlock>,
    places: HashMap<Txid, (u32, usize)>,
    spenders: HashMap<OutPoint, Txid>,
}

impl Ledger {
    /// An empty ledger whose first block will be the one at this height.
    pub fn starting_at(first: u32) -> Self {
        Self { first, ..Self::default() }
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        (self.first + self.blocks.len() as u32).saturating_sub(1)
    }

    /// Puts a block on top.
    pub fn connect(&mut self, block: Block, room: Room) {
        let height = self.first + self.blocks.len() as u32;
        for (index, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            self.places.insert(txid, (height, index));
            self.spenders.extend(tx.input.iter().map(|input| (input.previous_output, txid)));
        }
        let hash = block.block_hash();
        self.blocks.push(LedgerBlock { hash, transactions: block.txdata, room });
    }

    /// Takes blocks off the top and gives their transactions; `None`, and nothing is done, if
    /// there are not so many.
    pub fn disconnect(&mut self, blocks: u32) -> Option<Vec<Transaction>> {
        let keep = self.blocks.len().checked_sub(blocks as usize)?;
        let gone = self.blocks.split_off(keep);
        let transactions: Vec<_> = gone.into_iter().flat_map(|b| b.transactions).collect();
        for tx in &transactions {
            self.places.remove(&tx.compute_txid());
            for input in &tx.input {
                self.spenders.remove(&input.previous_output);
            }
        }
        Some(transactions)
    }

    /// The block at a height.
    pub fn block(&self, height: u32) -> Option<&LedgerBlock> {
        self.blocks.get(height.checked_sub(self.first)? as usize)
    }

    /// A confirmed transaction and its height.
    pub fn tx(&self, txid: &Txid) -> Option<(u32, &Transaction)> {
        let (height, index) = self.places.get(txid)?;
        Some((*height, self.block(*height)?.transactions.get(*index)?))
    }

    /// All confirmed transactions.
    pub fn transactions(&self) -> impl Iterator<Item = &Transaction> {
        self.blocks.iter().flat_map(|block| &block.transactions)
    }

    /// The confirmed transaction that spends an output, and its height.
    pub fn spender(&self, outpoint: &OutPoint) -> Option<(u32, &Transaction)> {
        self.tx(self.spenders.get(outpoint)?)
    }

    /// A confirmed output, spent or not.
    pub fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.tx(&outpoint.txid)?.1.output.get(outpoint.vout as usize)
    }

    /// Confirmed outputs to a script that no confirmed transaction spends.
    pub fn coins(&self, script: &bitcoin::Script) -> Vec<(OutPoint, TxOut)> {
        let mut coins = Vec::new();
        for tx in self.transactions() {
            if !tx.output.iter().any(|output| *output.script_pubkey == *script) {
                continue;
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0u32..).zip(&tx.output) {
                let outpoint = OutPoint { txid, vout };
                let ours = *output.script_pubkey == *script;
                if ours && !self.spenders.contains_key(&outpoint) {
                    coins.push((outpoint, output.clone()));
                }
            }
        }
        coins
    }

    /// Heights above `from` and below `to` whose blocks had room for the arbiter.
    pub fn chances(&self, from: u32, to: u32) -> usize {
        let between = (from + 1..to).filter_map(|height| self.block(height));
        between.filter(|block| block.room == Room::Full).count()
    }
}
