//! The confirmed chain: blocks, where each transaction is, and what spends each output.
//!
//! An output is unspent if its transaction is placed and no spender is recorded. So there is
//! no undo data: disconnecting a block removes its places and spenders.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::constants::genesis_block;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, TxOut, Txid};

/// Blocks whose median time is the median time past.
const MEDIAN_TIME_SPAN: usize = 11;

#[derive(Clone, Debug)]
struct Connected {
    hash: BlockHash,
    block: Arc<Block>,
}

#[derive(Clone, Debug)]
struct Stored {
    height: u32,
    block: Arc<Block>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    height: u32,
    index: u32,
}

/// A confirmed output that is unspent.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfirmedCoin<'a> {
    pub(super) output: &'a TxOut,
    pub(super) height: u32,
    pub(super) coinbase: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Ledger {
    genesis: Connected,
    /// Blocks above genesis that are remembered: index 0 is the one above `forgotten`.
    active: VecDeque<Connected>,
    /// Height of the highest block above genesis that is forgotten; 0 if none is.
    forgotten: u32,
    /// Every block ever made, stale ones too.
    stored: HashMap<BlockHash, Stored>,
    places: HashMap<Txid, Place>,
    spenders: HashMap<OutPoint, Txid>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        let block = Arc::new(genesis_block(Network::Regtest));
        let hash = block.block_hash();
        let stored = HashMap::from([(hash, Stored { height: 0, block: Arc::clone(&block) })]);
        // Genesis' coinbase is no coin, as in Core: it has no place.
        Self {
            genesis: Connected { hash, block },
            active: VecDeque::new(),
            forgotten: 0,
            stored,
            places: HashMap::new(),
            spenders: HashMap::new(),
        }
    }

    fn tip_block(&self) -> &Connected {
        self.active.back().unwrap_or(&self.genesis)
    }

    fn connected(&self, height: u32) -> Option<&Connected> {
        if height == 0 {
            return Some(&self.genesis);
        }
        let index = height.checked_sub(self.forgotten + 1)?;
        self.active.get(index as usize)
    }

    pub(super) fn height(&self) -> u32 {
        self.forgotten + self.active.len() as u32
    }

    /// Blocks above genesis that are remembered.
    pub(super) fn remembered(&self) -> u32 {
        self.active.len() as u32
    }

    pub(super) fn tip_hash(&self) -> BlockHash {
        self.tip_block().hash
    }

    pub(super) fn tip_time(&self) -> u32 {
        self.tip_block().block.header.time
    }

    pub(super) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.connected(height).map(|c| c.hash)
    }

    pub(super) fn block_at(&self, height: u32) -> Option<&Arc<Block>> {
        self.connected(height).map(|c| &c.block)
    }

    /// Any block ever made with its height, stale ones too.
    pub(super) fn block(&self, hash: &BlockHash) -> Option<(u32, &Arc<Block>)> {
        self.stored.get(hash).map(|s| (s.height, &s.block))
    }

    /// Median time past of the block at `height` (BIP113), or of the tip if that is lower.
    pub(super) fn median_time_past(&self, height: u32) -> u32 {
        let top = height.min(self.height());
        let mut times: Vec<u32> = (0..=top)
            .rev()
            .take(MEDIAN_TIME_SPAN)
            .filter_map(|h| self.connected(h))
            .map(|c| c.block.header.time)
            .collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn connect(&mut self, hash: BlockHash, block: Arc<Block>) {
        let height = self.height() + 1;
        for (index, tx) in block.txdata.iter().enumerate() {
            let txid = tx.compute_txid();
            self.places.insert(txid, Place { height, index: index as u32 });
            if index > 0 {
                let spent = tx.input.iter().map(|input| (input.previous_output, txid));
                self.spenders.extend(spent);
            }
        }
        self.stored.insert(hash, Stored { height, block: Arc::clone(&block) });
        self.active.push_back(Connected { hash, block });
    }

    fn unplace(&mut self, block: &Block) {
        for tx in &block.txdata {
            self.places.remove(&tx.compute_txid());
            for input in &tx.input {
                self.spenders.remove(&input.previous_output);
            }
        }
    }

    /// Forgets every block but the last `kept`, stale ones as well, and with them whatever was
    /// unspent in them.
    pub(super) fn forget(&mut self, kept: usize) {
        while self.active.len() > kept {
            let Some(Connected { block, .. }) = self.active.pop_front() else { break };
            self.unplace(&block);
            self.forgotten += 1;
        }
        let forgotten = self.forgotten;
        self.stored.retain(|_, stored| stored.height == 0 || stored.height > forgotten);
    }

    /// Takes the tip off; genesis stays.
    pub(super) fn disconnect(&mut self) -> Option<(BlockHash, Arc<Block>)> {
        let Connected { hash, block } = self.active.pop_back()?;
        self.unplace(&block);
        Some((hash, block))
    }

    pub(super) fn tx_height(&self, txid: &Txid) -> Option<u32> {
        self.places.get(txid).map(|p| p.height)
    }

    pub(super) fn tx(&self, txid: &Txid) -> Option<&Transaction> {
        let place = self.places.get(txid)?;
        self.connected(place.height)?.block.txdata.get(place.index as usize)
    }

    /// An output of a confirmed transaction, spent or not.
    pub(super) fn output(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.tx(&outpoint.txid)?.output.get(outpoint.vout as usize)
    }

    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<&Txid> {
        self.spenders.get(outpoint)
    }

    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<ConfirmedCoin<'_>> {
        let place = self.places.get(&outpoint.txid)?;
        if self.spenders.contains_key(outpoint) {
            return None;
        }
        let output = self.output(outpoint)?;
        // Core keeps no coins for outputs that nobody can spend.
        if output.script_pubkey.is_op_return() {
            return None;
        }
        Some(ConfirmedCoin { output, height: place.height, coinbase: place.index == 0 })
    }

    /// Heights and blocks above genesis, lowest first.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (u32, &Arc<Block>)> {
        let first = self.forgotten + 1;
        self.active.iter().enumerate().map(move |(i, c)| (first + i as u32, &c.block))
    }
}
