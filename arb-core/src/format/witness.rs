//! Sighashes and witnesses of BOLT 3, for every way in which a channel's outputs are spent.
use crate::claim::{AnchorLock, Presigned, SecondStage, SingleSpend, SpendPath, Unlock};
use crate::ids::Preimage;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, PublicKey, ecdsa};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{Script, Transaction, TxOut, Witness};
use core::fmt;

/// Why there is no sighash: the input does not exist, or a P2WPKH spend's output is not P2WPKH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SighashError;

impl fmt::Display for SighashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the input or its output is not what is to be signed")
    }
}

impl core::error::Error for SighashError {}

/// What a signature of input `input` signs (BIP 143). `spent` is the output that it spends;
/// `script` its witness script, `None` for a P2WPKH output.
///
/// # Errors
/// There is no such input, or `script` is missing.
pub fn sighash(
    transaction: &Transaction,
    input: usize,
    spent: &TxOut,
    script: Option<&Script>,
    sighash: EcdsaSighashType,
) -> Result<Message, SighashError> {
    let mut cache = SighashCache::new(transaction);
    let hash = match script {
        Some(script) => cache
            .p2wsh_signature_hash(input, script, spent.value, sighash)
            .map_err(|_| SighashError)?,
        None => cache
            .p2wpkh_signature_hash(input, &spent.script_pubkey, spent.value, sighash)
            .map_err(|_| SighashError)?,
    };
    Ok(Message::from_digest(hash.to_byte_array()))
}

/// A signature as it stands in a witness: DER and the sighash byte.
fn element(signature: &ecdsa::Signature, sighash: EcdsaSighashType) -> Vec<u8> {
    bitcoin::ecdsa::Signature { signature: *signature, sighash_type: sighash }.to_vec()
}

/// Spends the funding output: `0 <signature_for_pubkey1> <signature_for_pubkey2>`, in the order of
/// the keys in the script (BOLT 3 "Commitment Transaction"). Both sign with SIGHASH_ALL.
#[must_use]
pub fn funding(
    one: (&PublicKey, &ecdsa::Signature),
    two: (&PublicKey, &ecdsa::Signature),
    script: &Script,
) -> Witness {
    let (first, second) =
        if one.0.serialize() <= two.0.serialize() { (one.1, two.1) } else { (two.1, one.1) };
    let all = EcdsaSighashType::All;
    Witness::from_slice(&[Vec::new(), element(first, all), element(second, all), script.to_bytes()])
}

/// Spends an HTLC output by an HTLC transaction: `0 <remotehtlcsig> <localhtlcsig>` and the
/// preimage, or nothing for a timeout (BOLT 3). Our own signature is SIGHASH_ALL.
#[must_use]
pub fn second_stage(
    peer: (&ecdsa::Signature, EcdsaSighashType),
    own: &ecdsa::Signature,
    preimage: Option<&Preimage>,
    script: &Script,
) -> Witness {
    Witness::from_slice(&[
        Vec::new(),
        element(peer.0, peer.1),
        element(own, EcdsaSighashType::All),
        preimage.map_or_else(Vec::new, |preimage| preimage.0.to_vec()),
        script.to_bytes(),
    ])
}

/// Spends an output by one signature: the signature, what unlocks the branch, and the witness
/// script, if there is one.
#[must_use]
pub fn single(
    signature: &ecdsa::Signature,
    sighash: EcdsaSighashType,
    unlock: &Unlock,
    script: Option<&Script>,
) -> Witness {
    let mut witness = Witness::new();
    witness.push(element(signature, sighash));
    match unlock {
        Unlock::Nothing => {}
        Unlock::Empty => witness.push([0u8; 0]),
        Unlock::One => witness.push([1u8]),
        Unlock::RevocationKey(key) | Unlock::PublicKey(key) => witness.push(key.serialize()),
        Unlock::Preimage(preimage) => witness.push(preimage.0),
    }
    if let Some(script) = script {
        witness.push(script.as_bytes());
    }
    witness
}

impl SpendPath {
    /// The whole witness of this spend, given our own signature with SIGHASH_ALL.
    #[must_use]
    pub fn witness(&self, own: &ecdsa::Signature) -> Witness {
        match self {
            Self::LocalCommitment(presigned) => presigned.witness(own),
            Self::Anchor { lock: AnchorLock::Keyed { script, .. }, .. } => {
                single(own, EcdsaSighashType::All, &Unlock::Nothing, Some(script))
            }
            Self::Anchor { lock: AnchorLock::Shared, .. } => Witness::new(),
            Self::SecondStage(stage) => stage.witness(own),
            Self::Single(spend) => spend.witness(own),
        }
    }
}

impl Presigned {
    /// The whole witness, given our own signature with SIGHASH_ALL.
    #[must_use]
    pub fn witness(&self, own: &ecdsa::Signature) -> Witness {
        let remote = (&self.remote_funding, &self.remote_signature);
        funding((&self.local_funding, own), remote, &self.script)
    }
}

impl SecondStage {
    /// The whole witness, given our own signature with SIGHASH_ALL.
    #[must_use]
    pub fn witness(&self, own: &ecdsa::Signature) -> Witness {
        let peer = (&self.remote_signature, self.extensible.peer_sighash());
        second_stage(peer, own, self.preimage.as_ref(), &self.script)
    }
}

impl SingleSpend {
    /// The whole witness, given our own signature with SIGHASH_ALL.
    #[must_use]
    pub fn witness(&self, own: &ecdsa::Signature) -> Witness {
        single(own, EcdsaSighashType::All, &self.unlock, self.script.as_deref())
    }
}
