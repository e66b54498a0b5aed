//! Outputs and transactions that are nothing more than that.
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};

pub(super) fn outpoint(n: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([n; 32]), vout: 0 }
}

/// A transaction that spends these outputs and leaves so many satoshis.
pub(super) fn spend(outputs: &[OutPoint], left: u64) -> Transaction {
    let input = |of: &OutPoint| TxIn {
        previous_output: *of,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: outputs.iter().map(input).collect(),
        output: vec![TxOut { value: Amount::from_sat(left), script_pubkey: ScriptBuf::new() }],
    }
}
