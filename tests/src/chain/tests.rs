//! Tests of the embedded chain: what they share.

mod blocks;
mod fees;
mod graph;
mod locks;
mod packages;
mod policy;
mod reorgs;
mod scripts;

use bitcoin::hashes::Hash;
use bitcoin::opcodes::OP_TRUE;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{
    Amount, FeeRate, OutPoint, PublicKey, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness,
    absolute, transaction,
};

use super::EmbeddedChain;

/// An output with its value.
type Coin = (OutPoint, u64);

/// Anybody's witness script.
fn open_script() -> ScriptBuf {
    Builder::new().push_opcode(OP_TRUE).into_script()
}

/// Pays to anybody.
fn open() -> ScriptBuf {
    open_script().to_p2wsh()
}

fn sat(value: u64) -> Amount {
    Amount::from_sat(value)
}

fn per_vb(rate: u32) -> FeeRate {
    FeeRate::from_sat_per_vb_u32(rate)
}

/// A chain with so many confirmed coins of 100,000 sat that anybody may spend.
fn chain_with(coins: usize) -> (EmbeddedChain, Vec<Coin>) {
    let mut chain = EmbeddedChain::new();
    let outpoints = chain.fund_many(&vec![(open(), sat(100_000)); coins]).unwrap();
    (chain, outpoints.into_iter().map(|outpoint| (outpoint, 100_000)).collect())
}

/// Spends open coins into open outputs of these values.
fn spend(coins: &[Coin], values: &[u64]) -> Transaction {
    let input = coins.iter().map(|(outpoint, _)| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::from_slice(&[open_script().as_bytes()]),
    });
    let output = values.iter().map(|v| TxOut { value: sat(*v), script_pubkey: open() });
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: input.collect(),
        output: output.collect(),
    }
}

/// Spends open coins into one output, leaving this fee.
fn pay(coins: &[Coin], fee: u64) -> Transaction {
    let total: u64 = coins.iter().map(|(_, value)| value).sum();
    spend(coins, &[total - fee])
}

/// An output of a transaction as a coin.
fn out(tx: &Transaction, vout: u32) -> Coin {
    let value = tx.output[vout as usize].value.to_sat();
    (OutPoint { txid: tx.compute_txid(), vout }, value)
}

fn key(seed: u8) -> (SecretKey, PublicKey) {
    let secret = SecretKey::from_slice(&[seed; 32]).unwrap();
    (secret, PublicKey::new(secret.public_key(&Secp256k1::new())))
}

fn reason(result: Result<super::Accepted, super::Reject>) -> String {
    match result {
        Ok(accepted) => format!("accepted {}", accepted.txid),
        Err(reject) => reject.to_string(),
    }
}

fn anchor() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73])
}

fn random_outpoint(seed: u8) -> OutPoint {
    OutPoint { txid: bitcoin::Txid::from_byte_array([seed; 32]), vout: 0 }
}
