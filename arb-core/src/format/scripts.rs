//! Scripts of BOLT 3: funding output, commitment transaction outputs, second-stage outputs.
use crate::format::rules::HtlcDirection;
use crate::format::{CommitmentFormat, CommitmentKeys};
use crate::ids::{HtlcId, PaymentHash};
use crate::units::{BlockDelta, CltvExpiry};
use bitcoin::hashes::{Hash, hash160, ripemd160};
use bitcoin::opcodes::all as op;
use bitcoin::script::Builder;
use bitcoin::secp256k1::{PublicKey, XOnlyPublicKey};
use bitcoin::{CompressedPublicKey, Script, ScriptBuf, Sequence};

/// Blocks after which anyone may take a keyed anchor (BOLT 3).
pub const ANCHOR_OPEN_AFTER: BlockDelta = BlockDelta(16);

/// What an output pays to, and what its plainest spend needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputScript {
    /// The output's script.
    pub script_pubkey: ScriptBuf,
    /// Witness script; `None` for a P2WPKH output.
    pub witness_script: Option<ScriptBuf>,
    /// `nSequence` of the spending input.
    pub sequence: Sequence,
}

fn key(builder: Builder, key: &PublicKey) -> Builder {
    builder.push_slice(key.serialize())
}

/// Funding output (BOLT 3 "Funding Transaction Output"): witness script, the lesser key first.
#[must_use]
pub fn funding(one: &PublicKey, two: &PublicKey) -> ScriptBuf {
    let (first, second) = if one.serialize() <= two.serialize() { (one, two) } else { (two, one) };
    let builder = Builder::new().push_int(2);
    key(key(builder, first), second).push_int(2).push_opcode(op::OP_CHECKMULTISIG).into_script()
}

/// Whether an address of a segwit wallet stands for the script: P2WPKH, P2WSH, or P2TR to a key that exists. Other
/// witness programs may be spent by anybody, or by nobody.
#[must_use]
pub fn is_wallet_script(script: &Script) -> bool {
    let taproot = || script.as_bytes().get(2..).map(XOnlyPublicKey::from_slice);
    script.is_p2wpkh() || script.is_p2wsh() || script.is_p2tr() && matches!(taproot(), Some(Ok(_)))
}

/// `nSequence` of a spend that waits `delay` blocks (BIP 68). A delay above 65535 has no such
/// form; registration refuses it.
#[must_use]
pub fn delay_sequence(delay: BlockDelta) -> Sequence {
    Sequence::from_height(u16::try_from(delay.0).unwrap_or(u16::MAX))
}

/// Witness script of `to_local` and of the output of every HTLC transaction (BOLT 3 "`to_local`
/// Output", "HTLC-Timeout and HTLC-Success Transactions").
#[must_use]
pub fn delayed(revocation: &PublicKey, delay: BlockDelta, delayed: &PublicKey) -> ScriptBuf {
    let builder = key(Builder::new().push_opcode(op::OP_IF), revocation)
        .push_opcode(op::OP_ELSE)
        .push_int(i64::from(delay.0))
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_DROP);
    key(builder, delayed).push_opcode(op::OP_ENDIF).push_opcode(op::OP_CHECKSIG).into_script()
}

/// `to_local` and second-stage output of a commitment with these keys (BOLT 3): pays its owner
/// after `delay` blocks.
#[must_use]
pub fn to_local(keys: &CommitmentKeys, delay: BlockDelta) -> OutputScript {
    let script = delayed(&keys.revocation, delay, &keys.owner_delayed);
    OutputScript {
        script_pubkey: script.to_p2wsh(),
        witness_script: Some(script),
        sequence: delay_sequence(delay),
    }
}

/// `to_remote` (BOLT 3 "`to_remote` Output"): pays `payment`, the payment basepoint of the party
/// that does not own the commitment.
#[must_use]
pub fn to_remote(format: CommitmentFormat, payment: &PublicKey) -> OutputScript {
    match format {
        CommitmentFormat::StaticRemotekey | CommitmentFormat::ZeroFee => OutputScript {
            script_pubkey: ScriptBuf::new_p2wpkh(&CompressedPublicKey(*payment).wpubkey_hash()),
            witness_script: None,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        },
        CommitmentFormat::Anchors => {
            let script = key(Builder::new(), payment)
                .push_opcode(op::OP_CHECKSIGVERIFY)
                .push_int(1)
                .push_opcode(op::OP_CSV)
                .into_script();
            OutputScript {
                script_pubkey: script.to_p2wsh(),
                witness_script: Some(script),
                sequence: Sequence::from_height(1),
            }
        }
    }
}

/// Witness script of a keyed anchor (BOLT 3 "`to_local_anchor` and `to_remote_anchor` Output").
#[must_use]
pub fn anchor(funding: &PublicKey) -> ScriptBuf {
    key(Builder::new(), funding)
        .push_opcode(op::OP_CHECKSIG)
        .push_opcode(op::OP_IFDUP)
        .push_opcode(op::OP_NOTIF)
        .push_int(i64::from(ANCHOR_OPEN_AFTER.0))
        .push_opcode(op::OP_CSV)
        .push_opcode(op::OP_ENDIF)
        .into_script()
}

/// Script of a shared anchor, pay-to-anchor (BOLT 3 "`shared_anchor` Output"): `OP_1 <0x4e73>`.
#[must_use]
pub fn shared_anchor() -> ScriptBuf {
    Builder::new().push_opcode(op::OP_PUSHNUM_1).push_slice([0x4e, 0x73]).into_script()
}

/// `RIPEMD160(payment_hash)`: `HASH160` of the preimage.
fn preimage_hash160(hash: &PaymentHash) -> [u8; 20] {
    ripemd160::Hash::hash(&hash.0).to_byte_array()
}

/// Both HTLC scripts up to their fork between the parties.
fn htlc_head(keys: &CommitmentKeys) -> Builder {
    let builder = Builder::new()
        .push_opcode(op::OP_DUP)
        .push_opcode(op::OP_HASH160)
        .push_slice(hash160::Hash::hash(&keys.revocation.serialize()).to_byte_array())
        .push_opcode(op::OP_EQUAL)
        .push_opcode(op::OP_IF)
        .push_opcode(op::OP_CHECKSIG)
        .push_opcode(op::OP_ELSE);
    key(builder, &keys.other_htlc)
        .push_opcode(op::OP_SWAP)
        .push_opcode(op::OP_SIZE)
        .push_int(32)
        .push_opcode(op::OP_EQUAL)
}

/// Both HTLC scripts from where the parties' branches end.
fn htlc_tail(format: CommitmentFormat, builder: Builder) -> ScriptBuf {
    let builder = builder.push_opcode(op::OP_ENDIF);
    let builder = match format {
        CommitmentFormat::StaticRemotekey | CommitmentFormat::ZeroFee => builder,
        CommitmentFormat::Anchors => {
            builder.push_int(1).push_opcode(op::OP_CSV).push_opcode(op::OP_DROP)
        }
    };
    builder.push_opcode(op::OP_ENDIF).into_script()
}

/// Witness script of an HTLC that the owner offered (BOLT 3 "Offered HTLC Outputs").
#[must_use]
pub fn offered_htlc(
    format: CommitmentFormat,
    keys: &CommitmentKeys,
    hash: &PaymentHash,
) -> ScriptBuf {
    let builder = htlc_head(keys)
        .push_opcode(op::OP_NOTIF)
        .push_opcode(op::OP_DROP)
        .push_int(2)
        .push_opcode(op::OP_SWAP);
    let builder = key(builder, &keys.owner_htlc)
        .push_int(2)
        .push_opcode(op::OP_CHECKMULTISIG)
        .push_opcode(op::OP_ELSE)
        .push_opcode(op::OP_HASH160)
        .push_slice(preimage_hash160(hash))
        .push_opcode(op::OP_EQUALVERIFY)
        .push_opcode(op::OP_CHECKSIG);
    htlc_tail(format, builder)
}

/// Witness script of an HTLC that the owner received (BOLT 3 "Received HTLC Outputs").
#[must_use]
pub fn received_htlc(
    format: CommitmentFormat,
    keys: &CommitmentKeys,
    hash: &PaymentHash,
    expiry: CltvExpiry,
) -> ScriptBuf {
    let builder = htlc_head(keys)
        .push_opcode(op::OP_IF)
        .push_opcode(op::OP_HASH160)
        .push_slice(preimage_hash160(hash))
        .push_opcode(op::OP_EQUALVERIFY)
        .push_int(2)
        .push_opcode(op::OP_SWAP);
    let builder = key(builder, &keys.owner_htlc)
        .push_int(2)
        .push_opcode(op::OP_CHECKMULTISIG)
        .push_opcode(op::OP_ELSE)
        .push_opcode(op::OP_DROP)
        .push_int(i64::from(expiry.0.0))
        .push_opcode(op::OP_CLTV)
        .push_opcode(op::OP_DROP)
        .push_opcode(op::OP_CHECKSIG);
    htlc_tail(format, builder)
}

/// Witness script of an HTLC output on the commitment that `keys` belong to, offered or received
/// as its owner sees it.
#[must_use]
pub fn htlc(
    format: CommitmentFormat,
    keys: &CommitmentKeys,
    id: HtlcId,
    hash: &PaymentHash,
    expiry: CltvExpiry,
) -> ScriptBuf {
    match HtlcDirection::on(keys.owner, id) {
        HtlcDirection::Offered => offered_htlc(format, keys, hash),
        HtlcDirection::Received => received_htlc(format, keys, hash, expiry),
    }
}
