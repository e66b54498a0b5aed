//! Encodings of signatures and keys that Core asks for beyond consensus.

use std::sync::LazyLock;

use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, VerifyOnly};

use super::script_error::ScriptError;

/// Which rules a script runs under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SigVersion {
    Base,
    WitnessV0,
}

static SECP: LazyLock<Secp256k1<VerifyOnly>> = LazyLock::new(Secp256k1::verification_only);

/// Half of the group's order: the greatest S that is not "high".
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Strict DER (BIP66), low S and a defined hash type; an empty signature passes.
pub(super) fn check_signature_encoding(signature: &[u8]) -> Result<(), ScriptError> {
    if signature.is_empty() {
        return Ok(());
    }
    let s = der_s(signature).ok_or(ScriptError::SigDer)?;
    if !is_low(s) {
        return Err(ScriptError::SigHighS);
    }
    match signature.last().map(|byte| byte & !0x80) {
        Some(1..=3) => Ok(()),
        _ => Err(ScriptError::SigHashtype),
    }
}

pub(super) fn check_pubkey_encoding(key: &[u8], version: SigVersion) -> Result<(), ScriptError> {
    let compressed = key.len() == 33 && matches!(key[0], 2 | 3);
    let uncompressed = key.len() == 65 && key[0] == 4;
    if !compressed && !uncompressed {
        return Err(ScriptError::PubkeyType);
    }
    if version == SigVersion::WitnessV0 && !compressed {
        return Err(ScriptError::WitnessPubkeyType);
    }
    Ok(())
}

/// Verifies an encoded signature (hash type included) over a digest.
pub(super) fn verify(signature: &[u8], key: &[u8], digest: [u8; 32]) -> bool {
    let Some((_, der)) = signature.split_last() else { return false };
    let (Ok(signature), Ok(key)) = (Signature::from_der(der), PublicKey::from_slice(key)) else {
        return false;
    };
    SECP.verify_ecdsa(&Message::from_digest(digest), &signature, &key).is_ok()
}

/// S of a strictly encoded signature with its hash type byte; `None` if the encoding is not strict.
fn der_s(signature: &[u8]) -> Option<&[u8]> {
    let (_, der) = signature.split_last()?;
    if !(8..=72).contains(&der.len()) || der[0] != 0x30 || usize::from(der[1]) != der.len() - 2 {
        return None;
    }
    let (_, rest) = integer(&der[2..])?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then_some(s)
}

/// Reads one positive, minimally encoded DER integer.
fn integer(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x02, length, rest @ ..] = bytes else { return None };
    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
    match value {
        [] => None,
        [first, ..] if *first >= 0x80 => None,
        [0, second, ..] if *second < 0x80 => None,
        _ => Some((value, rest)),
    }
}

fn is_low(s: &[u8]) -> bool {
    let digits: &[u8] = match s {
        [0, rest @ ..] => rest,
        _ => s,
    };
    match digits.len() {
        0..=31 => true,
        32 => *digits <= HALF_ORDER[..],
        _ => false,
    }
}
