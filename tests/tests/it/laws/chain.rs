//! A chain in a vector: it takes what consensus takes, and nothing else.
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::{
    Amount, BlockHash, OutPoint, Transaction, TxOut, Txid, absolute, consensus, relative,
};
use std::collections::BTreeMap;

/// Height of the block that the stories begin at.
pub(crate) const BASE: u32 = 1_000;
/// Time locks of commitments lie long before this.
const NOW: u32 = 1_700_000_000;

/// A block.
#[derive(Clone, Debug)]
pub(crate) struct Mined {
    pub(crate) at: BlockRef,
    pub(crate) transactions: Vec<Transaction>,
}

/// An unspent output and its height.
#[derive(Clone, Debug)]
pub(crate) struct Coin {
    pub(crate) output: TxOut,
    pub(crate) height: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Chain {
    genesis: BTreeMap<OutPoint, TxOut>,
    blocks: Vec<Mined>,
    made: u64,
}

pub(crate) fn label(kind: u8, number: u64) -> [u8; 32] {
    let mut bytes = vec![kind];
    bytes.extend(number.to_be_bytes());
    sha256d::Hash::hash(&bytes).to_byte_array()
}

impl Chain {
    pub(crate) fn new() -> Self {
        let mut chain = Self { genesis: BTreeMap::new(), blocks: Vec::new(), made: 0 };
        chain.mine(Vec::new());
        chain
    }

    /// A coin that was there before the story.
    pub(crate) fn endow(&mut self, output: TxOut) -> OutPoint {
        let number = self.genesis.len() as u64;
        let outpoint = OutPoint { txid: Txid::from_byte_array(label(1, number)), vout: 0 };
        self.genesis.insert(outpoint, output);
        outpoint
    }

    pub(crate) fn tip(&self) -> BlockRef {
        self.blocks.last().map(|block| block.at).expect("there is a first block")
    }

    pub(crate) fn height(&self) -> u32 {
        self.tip().height.0
    }

    /// Blocks above the first, which cannot be disconnected.
    pub(crate) fn above_base(&self) -> usize {
        self.blocks.len() - 1
    }

    pub(crate) fn mine(&mut self, transactions: Vec<Transaction>) -> Mined {
        self.made += 1;
        let height = BlockHeight(BASE + self.blocks.len() as u32);
        let hash = BlockHash::from_byte_array(label(2, self.made));
        let mined = Mined { at: BlockRef { height, hash }, transactions };
        self.blocks.push(mined.clone());
        mined
    }

    /// Takes the highest blocks off, highest last, and says which block stays.
    pub(crate) fn disconnect(&mut self, depth: usize) -> (BlockRef, Vec<Mined>) {
        let depth = depth.min(self.above_base());
        let taken = self.blocks.split_off(self.blocks.len() - depth);
        (self.tip(), taken)
    }

    pub(crate) fn coins(&self, extra: &[Transaction]) -> BTreeMap<OutPoint, Coin> {
        let old = |(outpoint, output): (&OutPoint, &TxOut)| {
            (*outpoint, Coin { output: output.clone(), height: 100 })
        };
        let mut coins: BTreeMap<OutPoint, Coin> = self.genesis.iter().map(old).collect();
        let next = self.height() + 1;
        let mined = self.blocks.iter().map(|block| (block.at.height.0, &block.transactions[..]));
        for (height, transactions) in mined.chain([(next, extra)]) {
            for tx in transactions {
                for input in &tx.input {
                    coins.remove(&input.previous_output);
                }
                let txid = tx.compute_txid();
                for (vout, output) in (0u32..).zip(&tx.output) {
                    let coin = Coin { output: output.clone(), height };
                    coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
        coins
    }

    /// The transaction that spent an output, if a block holds one.
    pub(crate) fn spender(&self, outpoint: OutPoint) -> Option<&Transaction> {
        let spends = |tx: &&Transaction| tx.input.iter().any(|i| i.previous_output == outpoint);
        self.blocks.iter().flat_map(|block| &block.transactions).find(spends)
    }

    /// Whether the next block may hold `tx` behind `extra`.
    pub(crate) fn check(&self, extra: &[Transaction], tx: &Transaction) -> Result<(), String> {
        let coins = self.coins(extra);
        let tip = self.height();
        let lowest = lowest_tip(tx, &coins).ok_or("an input is missing or spent")?;
        // Outputs made in the block itself have the block's height.
        if lowest > tip && !(lowest == tip + 1 && lock_tip(tx, &coins) <= Some(tip)) {
            return Err(format!("not before tip {lowest}, it is {tip}"));
        }
        check_scripts(tx, &coins)
    }
}

/// The lowest tip at which the inputs exist and every lock is over for the next block.
pub(crate) fn lowest_tip(tx: &Transaction, coins: &BTreeMap<OutPoint, Coin>) -> Option<u32> {
    let mut lowest = lock_tip(tx, coins)?;
    for input in &tx.input {
        lowest = lowest.max(coins.get(&input.previous_output)?.height);
    }
    Some(lowest)
}

/// The lowest tip at which every lock is over for the next block.
fn lock_tip(tx: &Transaction, coins: &BTreeMap<OutPoint, Coin>) -> Option<u32> {
    let mut lowest = 0;
    let all_final = tx.input.iter().all(|input| input.sequence.is_final());
    match tx.lock_time {
        _ if all_final => {}
        absolute::LockTime::Blocks(height) => lowest = height.to_consensus_u32(),
        absolute::LockTime::Seconds(time) if time.to_consensus_u32() < NOW => {}
        absolute::LockTime::Seconds(_) => return None,
    }
    for input in &tx.input {
        let coin = coins.get(&input.previous_output)?;
        if let Some(relative::LockTime::Blocks(blocks)) = input.sequence.to_relative_lock_time() {
            lowest = lowest.max((coin.height + u32::from(blocks.value())).saturating_sub(1));
        }
    }
    Some(lowest)
}

/// Values and scripts, by libbitcoinconsensus.
pub(crate) fn check_scripts(
    tx: &Transaction,
    coins: &BTreeMap<OutPoint, Coin>,
) -> Result<(), String> {
    let raw = consensus::serialize(tx);
    let mut paid_in = Amount::ZERO;
    for (index, input) in tx.input.iter().enumerate() {
        let spent = &coins.get(&input.previous_output).ok_or("missing input")?.output;
        paid_in += spent.value;
        let script = spent.script_pubkey.as_bytes();
        bitcoinconsensus::verify(script, spent.value.to_sat(), &raw, None, index)
            .map_err(|error| format!("input {index}: {error:?}"))?;
    }
    let paid_out: Amount = tx.output.iter().map(|output| output.value).sum();
    if paid_out > paid_in { Err(format!("pays {paid_out} of {paid_in}")) } else { Ok(()) }
}
