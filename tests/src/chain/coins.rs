//! Consensus rules on a transaction's form and amounts.

use std::collections::HashSet;

use bitcoin::{Amount, Transaction, TxOut};

use super::reject::Reject;

const COINBASE_MATURITY: u32 = 100;
const MAX_BLOCK_WEIGHT: usize = 4_000_000;

/// What a transaction spends, input by input.
#[derive(Debug, Default)]
pub(super) struct Coins {
    pub(super) outputs: Vec<TxOut>,
    /// Heights of confirmation; tip + 1 for unconfirmed ones.
    pub(super) heights: Vec<u32>,
    /// Heights of those that are coinbase outputs.
    coinbases: Vec<u32>,
}

impl Coins {
    pub(super) fn push(&mut self, output: TxOut, height: u32, coinbase: bool) {
        self.outputs.push(output);
        self.heights.push(height);
        if coinbase {
            self.coinbases.push(height);
        }
    }

    /// True if each coinbase output may be spent in a block at `height`.
    pub(super) fn mature_at(&self, height: u32) -> bool {
        self.coinbases.iter().all(|made| made.saturating_add(COINBASE_MATURITY) <= height)
    }
}

/// Core's `CheckTransaction`.
pub(super) fn check_context_free(tx: &Transaction) -> Result<(), Reject> {
    if tx.input.is_empty() {
        return Err(Reject::VinEmpty);
    }
    if tx.output.is_empty() {
        return Err(Reject::VoutEmpty);
    }
    if tx.base_size() * 4 > MAX_BLOCK_WEIGHT {
        return Err(Reject::Oversize);
    }
    let mut total = Amount::ZERO;
    for output in &tx.output {
        if output.value > Amount::MAX_MONEY {
            return Err(Reject::OutputTooLarge);
        }
        total += output.value;
        if total > Amount::MAX_MONEY {
            return Err(Reject::OutputTotalTooLarge);
        }
    }
    let mut seen = HashSet::new();
    if !tx.input.iter().all(|input| seen.insert(input.previous_output)) {
        return Err(Reject::InputsDuplicate);
    }
    if tx.is_coinbase() {
        let length = tx.input[0].script_sig.len();
        return if (2..=100).contains(&length) { Ok(()) } else { Err(Reject::CoinbaseLength) };
    }
    if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return Err(Reject::PrevoutNull);
    }
    Ok(())
}

/// Core's `CheckTxInputs` for a block at `height`; gives the fee.
pub(super) fn check_values(tx: &Transaction, coins: &Coins, height: u32) -> Result<Amount, Reject> {
    if !coins.mature_at(height) {
        return Err(Reject::PrematureSpendOfCoinbase);
    }
    let mut inputs = Amount::ZERO;
    for output in &coins.outputs {
        let sum = inputs.checked_add(output.value).filter(|sum| *sum <= Amount::MAX_MONEY);
        inputs = sum.ok_or(Reject::InputValuesOutOfRange)?;
    }
    // Bounded by the context-free checks.
    let outputs: Amount = tx.output.iter().map(|output| output.value).sum();
    inputs.checked_sub(outputs).ok_or(Reject::InBelowOut { inputs, outputs })
}
