//! The embedded chain: a deterministic Bitcoin chain in memory with a mempool that judges
//! transactions as Bitcoin Core 31 does.
//!
//! Blocks are real (proof of work at regtest's difficulty, merkle roots, BIP34 heights); the
//! scripts of every transaction that enters are verified by libbitcoinconsensus. On top of that
//! stand Core's relay rules, with its reject reasons: standardness, fees, replacement by
//! feerate diagram, clusters, packages, TRUC and ephemeral dust.
//!
//! Not modelled: orphans, the byte size limit of the mempool and its rolling minimum, expiry,
//! prioritisation, and policy inside tapscript leaves (their consensus is). Two things differ
//! after a reorg: clusters may exceed their limits, which Core would trim; and transactions
//! return from any depth, while Core's `invalidateblock` gives up those below ten blocks. The
//! subsidy halves at mainnet's interval, so that stories of any length can be funded.

mod accept;
mod block;
mod cluster;
mod coins;
mod interpreter;
mod ledger;
mod locks;
mod mempool;
mod mining;
mod package;
mod reject;
mod script;
mod script_error;
mod signature;
mod staging;
mod standard;
mod truc;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Amount, Block, BlockHash, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid};

pub use mining::Selection;
pub use reject::{
    Accepted, ChainError, Displaces, PackageReject, PackageReport, PackageVerdict, Reject,
    TrucViolation,
};
pub use script_error::ScriptError;

use accept::{Entrance, FeePolicy, Judge, Plan};
use cluster::{chunks, compare_feerates};
use ledger::Ledger;
use mempool::{Entry, Mempool, graph};

/// The height of the tip and its hash.
pub type Tip = (u32, BlockHash);

/// A Bitcoin chain and its mempool; see the module's head.
///
/// A clone shares its blocks and transactions, so snapshots are cheap.
#[derive(Clone, Debug)]
pub struct EmbeddedChain {
    ledger: Ledger,
    mempool: Mempool,
    fees: FeePolicy,
    faucet: ScriptBuf,
    /// Blocks ever made, so that no two are equal.
    blocks_made: u64,
    sequence: u64,
}

impl Default for EmbeddedChain {
    fn default() -> Self {
        Self::new()
    }
}

impl EmbeddedChain {
    /// Regtest's genesis block, an empty mempool, and 1 sat/vB as floor and increment.
    pub fn new() -> Self {
        let one = FeeRate::from_sat_per_vb_u32(1);
        Self {
            ledger: Ledger::new(),
            mempool: Mempool::default(),
            fees: FeePolicy { floor: one, incremental: one },
            faucet: mining::faucet_payee(),
            blocks_made: 0,
            sequence: 0,
        }
    }

    /// A number that grows with every change of tip or mempool.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn tip(&self) -> Tip {
        (self.ledger.height(), self.ledger.tip_hash())
    }

    pub fn height(&self) -> u32 {
        self.ledger.height()
    }

    /// The median time past of the tip, which time locks compare with (BIP113).
    pub fn median_time_past(&self) -> u32 {
        self.ledger.median_time_past(self.ledger.height())
    }

    /// The hash of the active chain's block at a height.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.ledger.hash_at(height)
    }

    /// The active chain's block at a height.
    pub fn block_at(&self, height: u32) -> Option<&Arc<Block>> {
        self.ledger.block_at(height)
    }

    /// Any block ever made, stale ones too.
    pub fn block(&self, hash: &BlockHash) -> Option<&Arc<Block>> {
        self.ledger.block(hash).map(|(_, block)| block)
    }

    /// The height of any block ever made, stale ones too.
    pub fn block_height(&self, hash: &BlockHash) -> Option<u32> {
        self.ledger.block(hash).map(|(height, _)| height)
    }

    /// True if the block is part of the active chain.
    pub fn is_active(&self, hash: &BlockHash) -> bool {
        let height = self.block_height(hash);
        height.and_then(|height| self.ledger.hash_at(height)).as_ref() == Some(hash)
    }

    /// The height of a confirmed transaction.
    pub fn tx_height(&self, txid: &Txid) -> Option<u32> {
        self.ledger.tx_height(txid)
    }

    /// A confirmed transaction.
    pub fn confirmed_tx(&self, txid: &Txid) -> Option<&Transaction> {
        self.ledger.tx(txid)
    }

    /// A confirmed output that no confirmed transaction spends.
    pub fn utxo(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.ledger.coin(outpoint).map(|coin| coin.output)
    }

    /// An output of a confirmed or unconfirmed transaction, spent or not.
    pub fn prevout(&self, outpoint: &OutPoint) -> Option<&TxOut> {
        self.ledger.output(outpoint).or_else(|| self.mempool.output(outpoint))
    }

    /// The confirmed transaction that spends an output.
    pub fn confirmed_spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.ledger.tx(self.ledger.spender(outpoint)?)
    }

    /// The unconfirmed transaction that spends an output.
    pub fn mempool_spender(&self, outpoint: &OutPoint) -> Option<&Transaction> {
        self.mempool.spender(outpoint).map(|entry| entry.tx.as_ref())
    }

    pub fn in_mempool(&self, txid: &Txid) -> bool {
        self.mempool.contains(txid)
    }

    pub fn mempool_tx(&self, txid: &Txid) -> Option<&Arc<Transaction>> {
        self.mempool.get(txid).map(|entry| &entry.tx)
    }

    /// The unconfirmed transactions in order of arrival, so parents before children.
    pub fn mempool(&self) -> impl Iterator<Item = &Arc<Transaction>> {
        self.mempool.queue().into_iter().filter_map(|txid| self.mempool_tx(&txid))
    }

    /// The fee that an unconfirmed transaction pays by itself.
    pub fn mempool_fee(&self, txid: &Txid) -> Option<Amount> {
        self.mempool.get(txid).map(|entry| entry.fee)
    }

    /// The feerate of an unconfirmed transaction by itself, rounded down.
    pub fn mempool_feerate(&self, txid: &Txid) -> Option<FeeRate> {
        let entry = self.mempool.get(txid)?;
        Some(FeeRate::from_sat_per_kwu(entry.fee.to_sat() * 1000 / entry.weight.max(1)))
    }

    /// An unconfirmed transaction and all its unconfirmed descendants.
    pub fn mempool_descendants(&self, txid: &Txid) -> BTreeSet<Txid> {
        self.mempool.descendants([*txid])
    }

    /// The least feerate of the mempool (Core's `-minrelaytxfee`).
    pub fn floor(&self) -> FeeRate {
        self.fees.floor
    }

    /// Changes the floor; chunks below it leave the mempool, as when a node that is full, or
    /// started again with another floor, drops them.
    pub fn set_floor(&mut self, floor: FeeRate) {
        self.fees.floor = floor;
        let entries: Vec<&Entry> = self.mempool.entries().collect();
        let least = (floor.to_sat_per_kwu(), 1000);
        let below: Vec<Txid> = chunks(&graph(&entries))
            .iter()
            .filter(|chunk| compare_feerates((chunk.fee, chunk.size), least).is_lt())
            .flat_map(|chunk| chunk.members.iter().map(|&i| entries[i].txid))
            .collect();
        self.remove_with_descendants(below);
        self.sequence += 1;
    }

    /// Changes what a replacement pays for its own size (Core's `-incrementalrelayfee`).
    pub fn set_incremental_relay_feerate(&mut self, feerate: FeeRate) {
        self.fees.incremental = feerate;
    }

    /// Hands a transaction to the mempool.
    pub fn submit(&mut self, tx: Transaction) -> Result<Accepted, Reject> {
        self.enter(Arc::new(tx), Entrance::Single)
    }

    /// Says what [`Self::submit`] would, and changes nothing.
    pub fn test_accept(&self, tx: &Transaction) -> Result<Accepted, Reject> {
        let plan = self.judge(&[]).single(Arc::new(tx.clone()), Entrance::Single)?;
        let replaced: Vec<Txid> = plan.removals.into_iter().collect();
        let [entry] = plan.additions.as_slice() else { return Err(Reject::MissingOrSpent) };
        Ok(accepted(entry, replaced))
    }

    /// Hands a child with its parents to the mempool, parents first.
    pub fn submit_package(&mut self, package: &[Transaction]) -> PackageReport {
        package::submit(self, package)
    }

    /// Forgets every block but the last `kept`, and whatever is unspent in those before them: for
    /// stories without end. A reorganisation cannot go below them.
    pub fn forget(&mut self, kept: usize) {
        self.ledger.forget(kept);
    }

    fn enter(&mut self, tx: Arc<Transaction>, entrance: Entrance) -> Result<Accepted, Reject> {
        let plan = self.judge(&[]).single(tx, entrance)?;
        // A plan for one transaction adds one.
        self.apply(plan).pop().ok_or(Reject::MissingOrSpent)
    }

    fn judge<'a>(&'a self, package: &'a [Arc<Transaction>]) -> Judge<'a> {
        Judge { ledger: &self.ledger, mempool: &self.mempool, fees: self.fees, package }
    }

    fn apply(&mut self, plan: Plan) -> Vec<Accepted> {
        for txid in &plan.removals {
            self.mempool.remove(txid);
        }
        let mut replaced: Vec<Txid> = plan.removals.into_iter().collect();
        let mut all = Vec::new();
        for entry in plan.additions {
            // As in Core, the first of a package names what all replaced.
            all.push(accepted(&entry, std::mem::take(&mut replaced)));
            self.mempool.insert(entry);
        }
        self.sequence += 1;
        all
    }

    fn remove_with_descendants(&mut self, txids: impl IntoIterator<Item = Txid>) {
        for txid in self.mempool.descendants(txids) {
            self.mempool.remove(&txid);
        }
    }

    /// Disconnects blocks from the tip and gives their hashes, highest first.
    ///
    /// Their transactions return to the mempool, except coinbases, those for which `drop` is
    /// true, those that are no longer valid, and descendants of all these. What stays in the
    /// mempool is checked again for locks and maturity.
    pub fn disconnect(
        &mut self,
        blocks: u32,
        drop: &dyn Fn(&Transaction) -> bool,
    ) -> Result<Vec<BlockHash>, ChainError> {
        let height = self.ledger.remembered();
        if blocks > height {
            return Err(ChainError::DisconnectPastGenesis { blocks, height });
        }
        let taken: Vec<(BlockHash, Arc<Block>)> =
            (0..blocks).map_while(|_| self.ledger.disconnect()).collect();
        let waiting = self.mempool.queue();
        for block in taken.iter().rev().map(|(_, block)| block) {
            for tx in &block.txdata {
                self.resurrect(tx, drop);
            }
        }
        // What returns may be a parent of what waited, so it goes first.
        self.mempool.requeue(&waiting);
        self.drop_premature();
        self.sequence += 1;
        Ok(taken.into_iter().map(|(hash, _)| hash).collect())
    }

    fn resurrect(&mut self, tx: &Transaction, drop: &dyn Fn(&Transaction) -> bool) {
        let returns = !tx.is_coinbase()
            && !drop(tx)
            && self.enter(Arc::new(tx.clone()), Entrance::Resurrected).is_ok();
        if !returns {
            let children = self.mempool.children(tx.compute_txid(), tx);
            self.remove_with_descendants(children);
        }
    }

    /// Core's `removeForReorg`.
    fn drop_premature(&mut self) {
        let next = self.ledger.height() + 1;
        let premature: Vec<Txid> = self
            .mempool
            .entries()
            .filter(|entry| !self.may_be_next(entry, next))
            .map(|entry| entry.txid)
            .collect();
        self.remove_with_descendants(premature);
    }

    fn may_be_next(&self, entry: &Entry, next: u32) -> bool {
        let mut coins = coins::Coins::default();
        for input in &entry.tx.input {
            let outpoint = &input.previous_output;
            if let Some(coin) = self.ledger.coin(outpoint) {
                coins.push(coin.output.clone(), coin.height, coin.coinbase);
            } else if let Some(output) = self.mempool.output(outpoint) {
                coins.push(output.clone(), next, false);
            } else {
                return false;
            }
        }
        locks::is_final(&self.ledger, &entry.tx)
            && locks::sequence_locks_open(&self.ledger, &entry.tx, &coins.heights)
            && coins.mature_at(next)
    }
}

fn accepted(entry: &Entry, replaced: Vec<Txid>) -> Accepted {
    Accepted { txid: entry.txid, vsize: entry.vsize, fee: entry.fee, replaced }
}
