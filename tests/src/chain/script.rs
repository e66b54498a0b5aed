//! Script checks of a whole transaction: policy first, for its reasons, then consensus.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::script::{Instruction, read_scriptbool};
use bitcoin::secp256k1::{Secp256k1, XOnlyPublicKey};
use bitcoin::taproot::ControlBlock;
use bitcoin::{Script, ScriptBuf, Transaction, TxIn, TxOut, Witness, consensus};

use super::interpreter::{Spend, Stack, run};
use super::script_error::ScriptError;
use super::signature::SigVersion;
use super::standard::is_anchor;

/// Scripts of every input under standardness flags and under consensus.
pub(super) fn check_standard(
    tx: &Transaction,
    prevouts: &[TxOut],
) -> Result<(), (usize, ScriptError)> {
    for (index, (input, prevout)) in tx.input.iter().zip(prevouts).enumerate() {
        let spend = Spend { tx, input: index, value: prevout.value };
        check_input(&spend, input, &prevout.script_pubkey).map_err(|error| (index, error))?;
    }
    check_consensus(tx, prevouts)
        .map_err(|index| (index, consensus_reason(&tx.input[index], &prevouts[index])))
}

/// Scripts of every input under consensus, taproot included; gives the first input that fails.
pub(super) fn check_consensus(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), usize> {
    let raw = consensus::serialize(tx);
    let utxos: Vec<bitcoinconsensus::Utxo> = prevouts
        .iter()
        .map(|prevout| bitcoinconsensus::Utxo {
            script_pubkey: prevout.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: prevout.script_pubkey.len() as u32,
            value: prevout.value.to_sat() as i64,
        })
        .collect();
    for (index, prevout) in prevouts.iter().enumerate() {
        let script = prevout.script_pubkey.as_bytes();
        bitcoinconsensus::verify(script, prevout.value.to_sat(), &raw, Some(&utxos), index)
            .map_err(|_| index)?;
    }
    Ok(())
}

/// The reason for what the interpreter does not run: taproot.
fn consensus_reason(input: &TxIn, prevout: &TxOut) -> ScriptError {
    if !prevout.script_pubkey.is_p2tr() {
        return ScriptError::Unknown;
    }
    if let Some([.., script, control]) =
        (input.witness.len() > 1).then_some(&input.witness.to_vec()[..])
    {
        return leaf_reason(&prevout.script_pubkey, script, control);
    }
    match input.witness.nth(0).map(<[u8]>::len) {
        None => ScriptError::WitnessProgramWitnessEmpty,
        Some(64 | 65) => ScriptError::SchnorrSig,
        Some(_) => ScriptError::SchnorrSigSize,
    }
}

/// The reason for a spend by a script of the tree.
fn leaf_reason(output: &Script, script: &[u8], control: &[u8]) -> ScriptError {
    let path = control.len().checked_sub(33);
    if path.is_none_or(|path| path % 32 != 0 || path > 128 * 32) {
        return ScriptError::TaprootWrongControlSize;
    }
    let key = output.as_bytes().get(2..).and_then(|key| XOnlyPublicKey::from_slice(key).ok());
    let committed = ControlBlock::decode(control).ok().zip(key).is_some_and(|(control, key)| {
        let secp = Secp256k1::verification_only();
        control.verify_taproot_commitment(&secp, key, Script::from_bytes(script))
    });
    if committed { ScriptError::Unknown } else { ScriptError::WitnessProgramMismatch }
}

fn check_input(spend: &Spend<'_>, input: &TxIn, script: &Script) -> Result<(), ScriptError> {
    let pushed = run(spend, &input.script_sig, SigVersion::Base, Stack::new())?;
    if script.is_witness_program() {
        if !input.script_sig.is_empty() {
            return Err(ScriptError::WitnessMalleated);
        }
        return check_program(spend, &input.witness, script, Wrapped::No);
    }
    let left = run(spend, script, SigVersion::Base, pushed.clone())?;
    ends_true(&left)?;
    if script.is_p2sh() {
        return check_redeem(spend, input, pushed);
    }
    is_clean(&left, &input.witness)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrapped {
    No,
    InP2sh,
}

fn check_redeem(spend: &Spend<'_>, input: &TxIn, mut pushed: Stack) -> Result<(), ScriptError> {
    if !input.script_sig.is_push_only() {
        return Err(ScriptError::SigPushOnly);
    }
    let redeem = ScriptBuf::from_bytes(pushed.pop().ok_or(ScriptError::EvalFalse)?);
    if redeem.is_witness_program() {
        let mut pushes = input.script_sig.instructions_minimal();
        let only = matches!(pushes.next(), Some(Ok(Instruction::PushBytes(_))));
        if !only || pushes.next().is_some() {
            return Err(ScriptError::WitnessMalleatedP2sh);
        }
        return check_program(spend, &input.witness, &redeem, Wrapped::InP2sh);
    }
    let left = run(spend, &redeem, SigVersion::Base, pushed)?;
    ends_true(&left)?;
    is_clean(&left, &input.witness)
}

fn check_program(
    spend: &Spend<'_>,
    witness: &Witness,
    program: &Script,
    wrapped: Wrapped,
) -> Result<(), ScriptError> {
    let mut stack: Stack = witness.iter().map(<[u8]>::to_vec).collect();
    let script = if program.is_p2wsh() {
        let script = stack.pop().ok_or(ScriptError::WitnessProgramWitnessEmpty)?;
        if program.as_bytes()[2..] != sha256::Hash::hash(&script).to_byte_array() {
            return Err(ScriptError::WitnessProgramMismatch);
        }
        ScriptBuf::from_bytes(script)
    } else if program.is_p2wpkh() {
        if stack.len() != 2 {
            return Err(ScriptError::WitnessProgramMismatch);
        }
        program.p2wpkh_script_code().ok_or(ScriptError::Unknown)?
    } else if wrapped == Wrapped::No && (program.is_p2tr() || is_anchor(program)) {
        // Taproot is consensus' to judge; an anchor asks for nothing.
        return Ok(());
    } else {
        return Err(ScriptError::DiscourageUpgradableWitnessProgram);
    };
    let left = run(spend, &script, SigVersion::WitnessV0, stack)?;
    // In Core's order: one element (consensus for witness scripts), and that true.
    if left.len() != 1 {
        return Err(ScriptError::CleanStack);
    }
    ends_true(&left)
}

fn ends_true(stack: &Stack) -> Result<(), ScriptError> {
    match stack.last() {
        Some(top) if read_scriptbool(top) => Ok(()),
        _ => Err(ScriptError::EvalFalse),
    }
}

fn is_clean(stack: &Stack, witness: &Witness) -> Result<(), ScriptError> {
    if stack.len() != 1 {
        return Err(ScriptError::CleanStack);
    }
    if !witness.is_empty() {
        return Err(ScriptError::WitnessUnexpected);
    }
    Ok(())
}
