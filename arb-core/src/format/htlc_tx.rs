//! HTLC-timeout and HTLC-success transactions of BOLT 3: the second stage.
use crate::format::rules::HtlcDirection;
use crate::format::{Commitment, CommitmentOutput, CommitmentSpec, OutputKind, scripts};
use crate::ids::HtlcId;
use crate::units::CltvExpiry;
use alloc::vec::Vec;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxIn, TxOut, Witness, absolute::LockTime};

/// An HTLC transaction: the owner of a commitment takes an HTLC from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HtlcTransaction {
    /// The HTLC.
    pub htlc: HtlcId,
    /// Offered: an HTLC-timeout transaction; received: an HTLC-success transaction.
    pub direction: HtlcDirection,
    /// Index of the HTLC output in the commitment transaction.
    pub vout: u32,
    /// The transaction, without witness.
    pub transaction: Transaction,
    /// The HTLC output.
    pub input: TxOut,
    /// Witness script of the HTLC output.
    pub script: ScriptBuf,
    /// Witness script of the transaction's own output.
    pub output_script: ScriptBuf,
}

/// The HTLC transactions of a commitment, in output order: the order of the peer's signatures
/// (BOLT 2 `commitment_signed`).
#[must_use]
pub fn htlc_transactions(commitment: &Commitment) -> Vec<HtlcTransaction> {
    let txid = commitment.transaction.compute_txid();
    let spec = &commitment.spec;
    let of = |output: &CommitmentOutput| match (output.kind, output.expiry, &output.script) {
        (OutputKind::Htlc(htlc), Some(expiry), Some(script)) => {
            let outpoint = OutPoint { txid, vout: output.vout };
            Some(second_stage(spec, htlc, expiry, outpoint, &output.output, script))
        }
        _ => None,
    };
    commitment.outputs.iter().filter_map(of).collect()
}

fn second_stage(
    spec: &CommitmentSpec,
    htlc: HtlcId,
    expiry: CltvExpiry,
    outpoint: OutPoint,
    input: &TxOut,
    script: &ScriptBuf,
) -> HtlcTransaction {
    let direction = HtlcDirection::on(spec.owner(), htlc);
    let lock_time = match direction {
        HtlcDirection::Offered => LockTime::from_consensus(expiry.0.0),
        HtlcDirection::Received => LockTime::ZERO,
    };
    // An HTLC that cannot pay this fee is trimmed, so that nothing is cut off here.
    let fee = spec.format.htlc_fee(spec.feerate, direction);
    let value = input.value.checked_sub(fee).unwrap_or(Amount::ZERO);
    let output_script =
        scripts::delayed(&spec.keys.revocation, spec.delay, &spec.keys.owner_delayed);
    let transaction = Transaction {
        version: spec.format.version(),
        lock_time,
        input: alloc::vec![TxIn {
            previous_output: outpoint,
            script_sig: ScriptBuf::new(),
            sequence: spec.format.htlc_sequence(),
            witness: Witness::new(),
        }],
        output: alloc::vec![TxOut { value, script_pubkey: output_script.to_p2wsh() }],
    };
    HtlcTransaction {
        htlc,
        direction,
        vout: outpoint.vout,
        transaction,
        input: input.clone(),
        script: script.clone(),
        output_script,
    }
}
