//! Choosing transactions for a block, blocks given by hand, and the faucet.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute, transaction,
};

use super::EmbeddedChain;
use super::block::{Position, build};
use super::cluster::{chunks, compare_feerates};
use super::coins::{Coins, check_context_free, check_values};
use super::locks::{is_final, sequence_locks_open};
use super::mempool::{Entry, Mempool, graph};
use super::reject::{ChainError, Reject};
use super::script;

/// Weight left for header and coinbase, as Core reserves it.
const MAX_SELECTED_WEIGHT: u64 = 4_000_000 - 8_000;
/// Core's `-blockmintxfee`, 1 sat/kvB, as fee and weight: a chunk without fee is not mined.
const MIN_CHUNK_FEERATE: (u64, u64) = (1, 4_000);

/// What goes into a block.
#[derive(Clone, Copy)]
pub enum Selection<'a> {
    /// The mempool by chunk feerate, up to the weight limit.
    All,
    Empty,
    /// As `All`, without the transactions for which this is true and their descendants.
    Without(&'a dyn Fn(&Transaction) -> bool),
}

impl std::fmt::Debug for Selection<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Empty => "Empty",
            Self::Without(_) => "Without(..)",
        })
    }
}

/// The transactions to mine, parents first, and their fees.
pub(super) fn select(mempool: &Mempool, selection: &Selection<'_>) -> (Vec<Transaction>, Amount) {
    let excluded = match selection {
        Selection::All => BTreeSet::new(),
        Selection::Empty => return (Vec::new(), Amount::ZERO),
        Selection::Without(unwanted) => {
            let unwanted = mempool.entries().filter(|entry| unwanted(&entry.tx));
            mempool.descendants(unwanted.map(|entry| entry.txid))
        }
    };
    let entries: Vec<&Entry> =
        mempool.entries().filter(|entry| !excluded.contains(&entry.txid)).collect();
    let (mut chosen, mut fees, mut weight) = (Vec::new(), Amount::ZERO, 0);
    let mut skipped = HashSet::new();
    for chunk in chunks(&graph(&entries)) {
        if compare_feerates((chunk.fee, chunk.size), MIN_CHUNK_FEERATE).is_lt() {
            break;
        }
        if weight + chunk.size > MAX_SELECTED_WEIGHT {
            skipped.insert(chunk.cluster);
        }
        if skipped.contains(&chunk.cluster) {
            continue;
        }
        weight += chunk.size;
        fees += Amount::from_sat(chunk.fee);
        chosen.extend(chunk.members.iter().map(|&i| entries[i].tx.as_ref().clone()));
    }
    (chosen, fees)
}

/// The faucet's witness script: anybody's coins.
fn faucet_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

impl EmbeddedChain {
    /// Mines one block from the mempool.
    pub fn mine(&mut self, selection: &Selection<'_>) -> BlockHash {
        let (transactions, fees) = select(&self.mempool, selection);
        self.append(transactions, fees)
    }

    /// Mines blocks without transactions.
    pub fn mine_empty(&mut self, blocks: u32) {
        for _ in 0..blocks {
            self.append(Vec::new(), Amount::ZERO);
        }
    }

    /// Mines a block of exactly these transactions, in this order, judged by consensus alone:
    /// neither fees nor standardness matter. As Core's `generateblock`.
    pub fn mine_transactions(
        &mut self,
        transactions: &[Transaction],
    ) -> Result<BlockHash, ChainError> {
        let fees = self.check_block(transactions).map_err(|reject| {
            let parent = self.ledger.tip_hash();
            ChainError::Block { parent, reject }
        })?;
        Ok(self.append(transactions.to_vec(), fees))
    }

    /// Makes a confirmed output.
    ///
    /// Mines what that needs: first, if the faucet lacks mature coins, empty blocks; then one
    /// block with the paying transaction alone. The mempool's transactions stay unmined.
    pub fn fund(&mut self, script: ScriptBuf, amount: Amount) -> Result<OutPoint, ChainError> {
        let outpoints = self.fund_many(&[(script, amount)])?;
        outpoints.first().copied().ok_or(ChainError::FaucetDry(amount))
    }

    /// Makes several confirmed outputs in one block; see [`Self::fund`].
    pub fn fund_many(
        &mut self,
        payments: &[(ScriptBuf, Amount)],
    ) -> Result<Vec<OutPoint>, ChainError> {
        if payments.is_empty() {
            return Ok(Vec::new());
        }
        let total = payments.iter().try_fold(Amount::ZERO, |sum, (_, amount)| {
            let sum = sum.checked_add(*amount).filter(|sum| *sum <= Amount::MAX_MONEY);
            sum.ok_or(ChainError::FaucetDry(Amount::MAX_MONEY))
        })?;
        let coins = self.faucet_coins(total)?;
        let tx = pay(&coins, payments, total);
        let txid = tx.compute_txid();
        self.mine_transactions(&[tx])?;
        Ok((0..payments.len() as u32).map(|vout| OutPoint { txid, vout }).collect())
    }

    fn faucet_coins(&mut self, total: Amount) -> Result<Vec<(OutPoint, Amount)>, ChainError> {
        /// Blocks after which even the first halving cannot have helped.
        const PATIENCE: u32 = 210_000;
        for _ in 0..PATIENCE {
            if let Some(coins) = self.mature_faucet_coins(total) {
                return Ok(coins);
            }
            self.mine_empty(1);
        }
        Err(ChainError::FaucetDry(total))
    }

    /// The oldest faucet coins that reach the total; none if it is out of reach.
    fn mature_faucet_coins(&self, total: Amount) -> Option<Vec<(OutPoint, Amount)>> {
        let script = faucet_script().to_p2wsh();
        let (mut coins, mut sum) = (Vec::new(), Amount::ZERO);
        for (_, block) in self.ledger.blocks() {
            for tx in block
                .txdata
                .iter()
                .filter(|tx| tx.output.iter().any(|output| output.script_pubkey == script))
            {
                let txid = tx.compute_txid();
                for vout in 0..tx.output.len() as u32 {
                    let outpoint = OutPoint { txid, vout };
                    let Some(coin) = self.ledger.coin(&outpoint) else { continue };
                    let young = coin.coinbase && coin.height + 100 > self.ledger.height() + 1;
                    if coin.output.script_pubkey != script || young {
                        continue;
                    }
                    coins.push((outpoint, coin.output.value));
                    sum += coin.output.value;
                    if sum >= total {
                        return Some(coins);
                    }
                }
            }
        }
        None
    }

    fn append(&mut self, transactions: Vec<Transaction>, fees: Amount) -> BlockHash {
        self.blocks_made += 1;
        let position = Position {
            parent: self.ledger.tip_hash(),
            height: self.ledger.height() + 1,
            parent_time: self.ledger.tip_time(),
            extra_nonce: self.blocks_made,
        };
        let (hash, block) = build(&position, transactions, fees, self.faucet.clone());
        let block = Arc::new(block);
        self.ledger.connect(hash, Arc::clone(&block));
        self.leave_mempool(&block.txdata);
        self.sequence += 1;
        hash
    }

    /// What is confirmed leaves the mempool, and what it conflicts with.
    fn leave_mempool(&mut self, confirmed: &[Transaction]) {
        if self.mempool.is_empty() {
            return;
        }
        for tx in confirmed {
            self.mempool.remove(&tx.compute_txid());
            let spenders: Vec<Txid> = tx
                .input
                .iter()
                .filter_map(|input| self.mempool.spender(&input.previous_output))
                .map(|entry| entry.txid)
                .collect();
            self.remove_with_descendants(spenders);
        }
    }

    /// Consensus on the transactions of a next block; gives their fees.
    fn check_block(&self, transactions: &[Transaction]) -> Result<Amount, Reject> {
        let height = self.ledger.height() + 1;
        let mut made: HashMap<Txid, &Transaction> = HashMap::new();
        let mut spent = HashSet::new();
        let mut fees = Amount::ZERO;
        let weight: u64 = transactions.iter().map(|tx| tx.weight().to_wu()).sum();
        if weight > MAX_SELECTED_WEIGHT {
            return Err(Reject::BlockWeight);
        }
        for tx in transactions {
            check_context_free(tx)?;
            if tx.is_coinbase() {
                return Err(Reject::Coinbase);
            }
            let mut coins = Coins::default();
            for outpoint in tx.input.iter().map(|input| input.previous_output) {
                let earlier = made.get(&outpoint.txid);
                let earlier = earlier.and_then(|tx| tx.output.get(outpoint.vout as usize));
                if !spent.insert(outpoint) {
                    return Err(Reject::MissingOrSpent);
                } else if let Some(output) = earlier {
                    coins.push(output.clone(), height, false);
                } else {
                    let coin = self.ledger.coin(&outpoint).ok_or(Reject::MissingOrSpent)?;
                    coins.push(coin.output.clone(), coin.height, coin.coinbase);
                }
            }
            let locks_open = sequence_locks_open(&self.ledger, tx, &coins.heights);
            if !is_final(&self.ledger, tx) || !locks_open {
                return Err(Reject::BlockNonFinal);
            }
            fees += check_values(tx, &coins, height)?;
            script::check_consensus(tx, &coins.outputs).map_err(|input| Reject::BlockScript {
                input,
                error: super::script_error::ScriptError::Unknown,
            })?;
            made.insert(tx.compute_txid(), tx);
        }
        Ok(fees)
    }
}

/// Where coinbases pay to.
pub(super) fn faucet_payee() -> ScriptBuf {
    faucet_script().to_p2wsh()
}

/// A transaction from faucet coins; the rest goes back to the faucet.
fn pay(
    coins: &[(OutPoint, Amount)],
    payments: &[(ScriptBuf, Amount)],
    total: Amount,
) -> Transaction {
    let input = coins.iter().map(|(outpoint, _)| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[faucet_script().as_bytes()]),
    });
    let mut output: Vec<TxOut> = payments
        .iter()
        .map(|(script, value)| TxOut { value: *value, script_pubkey: script.clone() })
        .collect();
    let available: Amount = coins.iter().map(|(_, value)| *value).sum();
    let change = available.checked_sub(total).filter(|change| *change > Amount::ZERO);
    output.extend(change.map(|value| TxOut { value, script_pubkey: faucet_payee() }));
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: input.collect(),
        output,
    }
}
