//! The world of a scenario: a chain, a wallet, a signer, and the ports through which the arbiter
//! sees them.
mod backend;
mod facts;
mod faults;
mod filtered;
mod ledger;
mod ports;

pub use backend::{Backend, Fill, SharedChain};
pub use facts::{
    Links, candidate_facts, channel_id, channel_secrets, first_facts, funding_keys, htlc_id,
    local_commitment, number, party_facts, updates_of,
};
pub use faults::{Faults, Seen};
pub use filtered::{Client, Fundings, Shown, ShownBlocks};
pub use ledger::{Ledger, LedgerBlock, Room};
pub use ports::{PortError, UpTo, WorldBlocks, WorldBroadcast, WorldFees};

use crate::chain::ChainError;
use crate::regtest::RegtestError;
use arb_watcher::memory::{MemoryCoins, MemorySigner};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::SecretKey;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, Txid};
use std::sync::Arc;

/// Why the world did not do what the story asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorldError {
    /// The embedded chain was misused.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The real node could not be steered.
    #[error(transparent)]
    Regtest(#[from] RegtestError),
    /// A block that was just made is not there.
    #[error("the chain does not have the block at height {0}")]
    NoBlock(u32),
    /// More blocks are to be disconnected than the story has made.
    #[error("a reorganisation of {0} blocks goes below the start of the story")]
    TooDeep(u32),
}

/// A chain, a wallet, a signer, and what can go wrong with them.
#[derive(Debug)]
pub struct World {
    /// The chain.
    pub backend: Backend,
    /// What its blocks did, as far as the story reaches back.
    pub ledger: Ledger,
    /// Our wallet: pays fees.
    pub wallet: MemoryCoins,
    /// Our channel keys.
    pub signer: MemorySigner,
    /// Faults of the ports, and what passed through them.
    pub faults: Arc<Faults>,
    /// How the arbiter is shown blocks.
    pub shown: Shown,
}

impl World {
    /// A world around a chain, with an empty wallet.
    pub fn new(backend: Backend) -> Self {
        Self {
            backend,
            ledger: Ledger::default(),
            wallet: MemoryCoins::new(wallet_key(), &[]),
            signer: MemorySigner::new(),
            faults: Arc::new(Faults::default()),
            shown: Shown::default(),
        }
    }

    /// Height of the tip.
    pub fn height(&self) -> u32 {
        self.ledger.height()
    }

    /// Makes confirmed outputs and buries them `depth` deep; the story begins at that tip.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn begin(
        &mut self,
        payments: &[(ScriptBuf, Amount)],
        depth: u32,
    ) -> Result<Vec<OutPoint>, WorldError> {
        let before = self.backend.height().await?;
        let outpoints = self.backend.fund(payments).await?;
        self.ledger = Ledger::starting_at(before + 1);
        for height in before + 1..=self.backend.height().await? {
            self.take_up(height, Room::None).await?;
        }
        for _ in 1..depth {
            self.mine(&Fill::Empty, Room::None).await?;
        }
        Ok(outpoints)
    }

    /// Mines one block.
    ///
    /// # Errors
    /// The chain refuses.
    pub async fn mine(&mut self, fill: &Fill<'_>, room: Room) -> Result<(), WorldError> {
        self.backend.mine(fill).await?;
        let height = self.height() + 1;
        self.take_up(height, room).await?;
        self.backend.announce();
        Ok(())
    }

    /// Disconnects blocks; their transactions return to the mempool but for those that `drop`
    /// names and their descendants. Nobody is told before the next block is there. Gives what was in the blocks.
    ///
    /// # Errors
    /// The chain refuses, or has no such blocks.
    pub async fn disconnect(
        &mut self,
        blocks: u32,
        drop: &dyn Fn(&Transaction) -> bool,
    ) -> Result<Vec<Transaction>, WorldError> {
        let gone = self.ledger.disconnect(blocks).ok_or(WorldError::TooDeep(blocks))?;
        self.backend.disconnect(blocks, &gone, drop).await?;
        for tx in &gone {
            let txid = tx.compute_txid();
            for vout in 0..tx.output.len() as u32 {
                self.wallet.remove(&OutPoint { txid, vout });
            }
        }
        for input in gone.iter().flat_map(|tx| &tx.input) {
            let outpoint = input.previous_output;
            if let Some(output) = self.ledger.output(&outpoint) {
                self.wallet.add(outpoint, output.clone());
            }
        }
        Ok(gone)
    }

    /// A transaction that a block or the mempool holds.
    ///
    /// # Errors
    /// The chain cannot be asked.
    pub async fn transaction(&self, txid: &Txid) -> Result<Option<Transaction>, WorldError> {
        match self.ledger.tx(txid) {
            Some((_, tx)) => Ok(Some(tx.clone())),
            None => {
                let mempool = self.backend.mempool().await?;
                Ok(mempool.into_iter().find(|tx| tx.compute_txid() == *txid))
            }
        }
    }

    /// The fee that an unconfirmed transaction pays by itself; `None` if an output that it spends
    /// is unknown.
    ///
    /// # Errors
    /// The chain cannot be asked.
    pub async fn fee(&self, tx: &Transaction) -> Result<Option<Amount>, WorldError> {
        let mut value = Amount::ZERO;
        for input in &tx.input {
            let OutPoint { txid, vout } = input.previous_output;
            let parent = self.transaction(&txid).await?;
            let output = parent.and_then(|parent| parent.output.get(vout as usize).cloned());
            let Some(output) = output else { return Ok(None) };
            value += output.value;
        }
        let spent: Amount = tx.output.iter().map(|output| output.value).sum();
        Ok(value.checked_sub(spent))
    }

    /// The feerate that an unconfirmed transaction pays by itself, rounded down.
    ///
    /// # Errors
    /// The chain cannot be asked.
    pub async fn feerate(&self, tx: &Transaction) -> Result<Option<FeeRate>, WorldError> {
        Ok(self.fee(tx).await?.map(|fee| fee / tx.weight()))
    }

    /// Reads the block at `height` into the ledger and the wallet.
    async fn take_up(&mut self, height: u32, room: Room) -> Result<(), WorldError> {
        let block = self.backend.block_at(height).await?.ok_or(WorldError::NoBlock(height))?;
        for tx in &block.txdata {
            for input in &tx.input {
                self.wallet.remove(&input.previous_output);
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0u32..).zip(&tx.output) {
                self.wallet.add(OutPoint { txid, vout }, output.clone());
            }
        }
        self.ledger.connect(block, room);
        Ok(())
    }
}

/// The key of our wallet: any, but the same in every run.
fn wallet_key() -> SecretKey {
    let mut counter = 0u32;
    loop {
        let mut engine = sha256::Hash::engine();
        engine.input(b"our wallet");
        engine.input(&counter.to_be_bytes());
        let bytes = sha256::Hash::from_engine(engine).to_byte_array();
        match SecretKey::from_slice(&bytes) {
            Ok(key) => return key,
            // About one hash in 2^128 is no key.
            Err(_) => counter += 1,
        }
    }
}
