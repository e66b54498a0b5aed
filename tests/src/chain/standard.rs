//! Standardness: what Core relays, apart from scripts' execution and fees.

use bitcoin::opcodes::Opcode;
use bitcoin::opcodes::all::{OP_CHECKMULTISIG, OP_PUSHNUM_1, OP_PUSHNUM_3, OP_PUSHNUM_NEG1};
use bitcoin::script::Instruction;
use bitcoin::{Amount, Script, ScriptBuf, Transaction, TxIn, TxOut, consensus};

use super::reject::Reject;

const MAX_WEIGHT: u64 = 400_000;
const MAX_SCRIPT_SIG: usize = 1650;
const MAX_DATA_CARRIER: usize = 100_000;
const MAX_DUST_OUTPUTS: usize = 1;
/// Smaller ones could pass for an inner node of a merkle tree.
const MIN_NON_WITNESS_SIZE: usize = 65;
const MAX_P2WSH_SCRIPT: usize = 3600;
const MAX_P2WSH_ITEMS: usize = 100;
const MAX_P2WSH_ITEM: usize = 80;
const MAX_TAPSCRIPT_ITEM: usize = 80;
const MAX_P2SH_SIGOPS: usize = 15;
const MAX_SCRIPT_SIZE: usize = 10_000;
const MAX_LEGACY_SIGOPS: usize = 2500;
const TAPROOT_ANNEX: u8 = 0x50;
const TAPSCRIPT_LEAF: u8 = 0xc0;
const LEAF_MASK: u8 = 0xfe;
/// 3 sat/vB, Core's `-dustrelayfee`.
const DUST_RELAY_SAT_PER_VB: u64 = 3;
/// Virtual size of the input that would spend the output: outpoint, script, sequence.
const WITNESS_SPEND: u64 = 32 + 4 + 1 + 107 / 4 + 4;
const LEGACY_SPEND: u64 = 32 + 4 + 1 + 107 + 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputKind {
    Spendable,
    Data,
    WitnessUnknown,
    NonStandard,
}

/// Pay-to-anchor: witness version 1, program 4e73.
pub(super) fn is_anchor(script: &Script) -> bool {
    script.as_bytes() == [0x51, 0x02, 0x4e, 0x73]
}

fn kind(script: &Script) -> OutputKind {
    let spendable = script.is_p2wpkh()
        || script.is_p2wsh()
        || script.is_p2tr()
        || is_anchor(script)
        || script.is_p2pkh()
        || script.is_p2sh()
        || is_p2pk(script)
        || is_small_multisig(script);
    let bytes = script.as_bytes();
    if spendable {
        OutputKind::Spendable
    } else if script.is_op_return() && Script::from_bytes(&bytes[1..]).is_push_only() {
        OutputKind::Data
    } else if script.is_witness_program() && bytes[0] != 0 {
        OutputKind::WitnessUnknown
    } else {
        OutputKind::NonStandard
    }
}

fn is_p2pk(script: &Script) -> bool {
    script.is_p2pk() && script.instructions().flatten().all(|part| is_key_or_opcode(&part))
}

/// True if a push has the length that its first byte promises of a public key.
fn is_key_or_opcode(part: &Instruction<'_>) -> bool {
    let Instruction::PushBytes(key) = part else { return true };
    matches!((key.len(), key.as_bytes().first()), (33, Some(2 | 3)) | (65, Some(4 | 6 | 7)))
}

/// Bare multisig with at most three keys.
fn is_small_multisig(script: &Script) -> bool {
    let small = OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_3.to_u8();
    match script.as_bytes() {
        [m, .., n, last] => {
            script.is_multisig()
                && script.instructions().flatten().all(|part| is_key_or_opcode(&part))
                && *last == OP_CHECKMULTISIG.to_u8()
                && small.contains(n)
                && (OP_PUSHNUM_1.to_u8()..=*n).contains(m)
        }
        _ => false,
    }
}

/// The value below which Core calls the output dust.
pub(super) fn dust_threshold(output: &TxOut) -> Amount {
    let script = &output.script_pubkey;
    if script.is_op_return() || script.len() > MAX_SCRIPT_SIZE {
        return Amount::ZERO;
    }
    let own = consensus::serialize(output).len() as u64;
    let spend = if script.is_witness_program() { WITNESS_SPEND } else { LEGACY_SPEND };
    Amount::from_sat((own + spend) * DUST_RELAY_SAT_PER_VB)
}

pub(super) fn is_dust(output: &TxOut) -> bool {
    output.value < dust_threshold(output)
}

/// Core's `IsStandardTx` and the least size.
pub(super) fn check_transaction(tx: &Transaction) -> Result<(), Reject> {
    if !(1..=3).contains(&tx.version.0) {
        return Err(Reject::Version);
    }
    if tx.weight().to_wu() > MAX_WEIGHT {
        return Err(Reject::TxSize);
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return Err(Reject::ScriptSigSize);
        }
        if !input.script_sig.is_push_only() {
            return Err(Reject::ScriptSigNotPushOnly);
        }
    }
    let mut data_left = MAX_DATA_CARRIER;
    for output in &tx.output {
        match kind(&output.script_pubkey) {
            OutputKind::NonStandard => return Err(Reject::ScriptPubkey),
            OutputKind::Data => {
                let left = data_left.checked_sub(output.script_pubkey.len());
                data_left = left.ok_or(Reject::DataCarrier)?;
            }
            OutputKind::Spendable | OutputKind::WitnessUnknown => {}
        }
    }
    if tx.output.iter().filter(|output| is_dust(output)).count() > MAX_DUST_OUTPUTS {
        return Err(Reject::Dust);
    }
    if tx.base_size() < MIN_NON_WITNESS_SIZE {
        return Err(Reject::TxSizeSmall);
    }
    Ok(())
}

/// Core's `ValidateInputsStandardness`.
pub(super) fn check_inputs(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), Reject> {
    let mut sigops = 0;
    for (input, prevout) in tx.input.iter().zip(prevouts) {
        let script = &prevout.script_pubkey;
        sigops += input.script_sig.count_sigops();
        if script.is_p2sh() {
            let redeem = last_push(&input.script_sig).ok_or(Reject::NonStandardInputs)?;
            let redeem = redeem.count_sigops();
            if redeem > MAX_P2SH_SIGOPS {
                return Err(Reject::NonStandardInputs);
            }
            sigops += redeem;
        } else {
            sigops += script.count_sigops();
        }
        if kind(script) != OutputKind::Spendable || sigops > MAX_LEGACY_SIGOPS {
            return Err(Reject::NonStandardInputs);
        }
    }
    Ok(())
}

/// Core's `IsWitnessStandard`.
pub(super) fn check_witnesses(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), Reject> {
    let standard =
        tx.input.iter().zip(prevouts).all(|(input, prevout)| is_witness_standard(input, prevout));
    if standard { Ok(()) } else { Err(Reject::WitnessNonStandard) }
}

fn is_witness_standard(input: &TxIn, prevout: &TxOut) -> bool {
    if input.witness.is_empty() {
        return true;
    }
    let wrapped = prevout.script_pubkey.is_p2sh();
    let redeem = last_push(&input.script_sig);
    let program = match &redeem {
        None if wrapped => return false,
        Some(redeem) if wrapped => redeem.as_script(),
        Some(_) | None => prevout.script_pubkey.as_script(),
    };
    if is_anchor(program) || !program.is_witness_program() {
        return false;
    }
    let items: Vec<&[u8]> = input.witness.iter().collect();
    if program.is_p2wsh() {
        let Some((script, stack)) = items.split_last() else { return false };
        return script.len() <= MAX_P2WSH_SCRIPT
            && stack.len() <= MAX_P2WSH_ITEMS
            && stack.iter().all(|item| item.len() <= MAX_P2WSH_ITEM);
    }
    wrapped || !program.is_p2tr() || is_taproot_witness_standard(&items)
}

fn is_taproot_witness_standard(items: &[&[u8]]) -> bool {
    match items {
        [] => false,
        [_] => true,
        [.., annex] if annex.first() == Some(&TAPROOT_ANNEX) => false,
        [stack @ .., _script, control] => match control.first() {
            None => false,
            Some(leaf) if leaf & LEAF_MASK == TAPSCRIPT_LEAF => {
                stack.iter().all(|item| item.len() <= MAX_TAPSCRIPT_ITEM)
            }
            Some(_) => true,
        },
    }
}

/// The last element that a script of pushes leaves, if it leaves any.
fn last_push(script: &Script) -> Option<ScriptBuf> {
    match script.instructions().last()? {
        Ok(Instruction::PushBytes(data)) => Some(ScriptBuf::from_bytes(data.as_bytes().to_vec())),
        Ok(Instruction::Op(op)) => {
            let number = small_number(op)?;
            Some(ScriptBuf::from_bytes(vec![number]))
        }
        Err(_) => None,
    }
}

/// The element that an opcode pushes: -1, or 1 to 16.
fn small_number(op: Opcode) -> Option<u8> {
    let first = OP_PUSHNUM_1.to_u8();
    match op.to_u8() {
        code if code == OP_PUSHNUM_NEG1.to_u8() => Some(0x81),
        code if (first..first + 16).contains(&code) => Some(code - first + 1),
        _ => None,
    }
}
