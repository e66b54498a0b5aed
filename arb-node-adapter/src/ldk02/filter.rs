//! `OutputFilter`: what LDK's monitors want to see of blocks, for a node that delivers only that.
use super::lock;
use bitcoin::{Block, OutPoint, Script, ScriptBuf, Transaction, Txid};
use lightning::chain::{Filter, WatchedOutput};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// LDK's [`Filter`] over whole blocks: it remembers what LDK registers, and picks the transactions
/// that concern it, so that LDK's monitors and a [`LdkFeed`](super::LdkFeed) are given those alone.
///
/// LDK registers more while it is shown a block. What a transaction in the same block spends of that
/// is found if [`relevant`](Self::relevant) is asked again: until it gives nothing new.
#[derive(Debug, Default)]
pub struct OutputFilter {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    txids: BTreeMap<Txid, ScriptBuf>,
    outputs: BTreeSet<OutPoint>,
}

impl OutputFilter {
    /// Nothing is registered.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The transactions of a block that concern what is registered, with their position, in block
    /// order: registered ones, those that spend a registered output, and those that spend an output
    /// of one of these.
    #[must_use]
    pub fn relevant<'b>(&self, block: &'b Block) -> Vec<(usize, &'b Transaction)> {
        let state = lock(&self.state);
        let mut found: Vec<(usize, &Transaction)> = Vec::new();
        let mut parents = BTreeSet::new();
        for (position, tx) in block.txdata.iter().enumerate() {
            let spends = tx.input.iter().any(|input| {
                let spent = input.previous_output;
                state.outputs.contains(&spent) || parents.contains(&spent.txid)
            });
            let txid = tx.compute_txid();
            if spends || state.txids.contains_key(&txid) {
                parents.insert(txid);
                found.push((position, tx));
            }
        }
        found
    }

    /// Number of outputs that are registered.
    #[must_use]
    pub fn outputs(&self) -> usize {
        lock(&self.state).outputs.len()
    }
}

impl Filter for OutputFilter {
    fn register_tx(&self, txid: &Txid, script_pubkey: &Script) {
        lock(&self.state).txids.insert(*txid, script_pubkey.to_owned());
    }

    fn register_output(&self, output: WatchedOutput) {
        lock(&self.state).outputs.insert(output.outpoint.into_bitcoin_outpoint());
    }
}
