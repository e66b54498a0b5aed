//! Inputs and how each is unlocked: the only place that signs whole transactions.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Weight, Witness,
};
use lightning::ln::chan_utils::build_htlc_input_witness;
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentPreimage;

use super::PeerError;

/// How an output is spent.
#[derive(Clone)]
pub(super) enum Unlock {
    /// Both funding keys, in the order of the script, BOLT 3.
    Funding { script: ScriptBuf, keys: [SecretKey; 2] },
    /// `<sig> <element> <script>`.
    Script { script: ScriptBuf, key: SecretKey, element: Vec<u8> },
    /// `<sig> <script>`.
    BareScript { script: ScriptBuf, key: SecretKey },
    /// A P2WPKH of this key.
    KeyHash { key: SecretKey },
    /// A second-stage input: the owner's key and the other side's signature.
    SecondStage {
        script: ScriptBuf,
        key: SecretKey,
        counter_signature: Signature,
        preimage: Option<[u8; 32]>,
        features: ChannelTypeFeatures,
    },
    /// Nothing: a shared anchor.
    Anyone,
}

impl Unlock {
    fn signatures(&self) -> u64 {
        match self {
            Self::Funding { .. } | Self::SecondStage { .. } => 2,
            Self::Script { .. } | Self::BareScript { .. } | Self::KeyHash { .. } => 1,
            Self::Anyone => 0,
        }
    }
}

/// An output to be spent, and how.
#[derive(Clone)]
pub(super) struct Input {
    pub(super) outpoint: OutPoint,
    pub(super) prevout: TxOut,
    pub(super) sequence: Sequence,
    pub(super) unlock: Unlock,
}

/// A transaction before it is signed.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) version: Version,
    pub(super) lock_time: LockTime,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<TxOut>,
}

impl Plan {
    /// All inputs, signed for exactly these outputs.
    pub(super) fn sign(&self, secp: &Secp256k1<All>) -> Result<Transaction, PeerError> {
        let mut tx = Transaction {
            version: self.version,
            lock_time: self.lock_time,
            input: self.inputs.iter().map(unsigned).collect(),
            output: self.outputs.clone(),
        };
        let witnesses = {
            let mut cache = SighashCache::new(&tx);
            (self.inputs.iter().enumerate())
                .map(|(at, input)| witness(secp, &mut cache, at, input))
                .collect::<Result<Vec<_>, _>>()?
        };
        for (txin, witness) in tx.input.iter_mut().zip(witnesses) {
            txin.witness = witness;
        }
        Ok(tx)
    }

    /// An upper bound of the signed weight: a signature may be up to two bytes longer with other
    /// outputs.
    pub(super) fn weight(&self, secp: &Secp256k1<All>) -> Result<Weight, PeerError> {
        let slack: u64 = self.inputs.iter().map(|input| 2 * input.unlock.signatures()).sum();
        Ok(self.sign(secp)?.weight() + Weight::from_wu(slack))
    }

    pub(super) fn value_in(&self) -> Result<Amount, PeerError> {
        sum(self.inputs.iter().map(|input| input.prevout.value))
    }

    pub(super) fn value_out(&self) -> Result<Amount, PeerError> {
        sum(self.outputs.iter().map(|output| output.value))
    }

    pub(super) fn prevouts(&self) -> Vec<TxOut> {
        self.inputs.iter().map(|input| input.prevout.clone()).collect()
    }
}

/// The fee of `weight` at `rate`, rounded up.
pub(super) fn fee(rate: FeeRate, weight: Weight) -> Result<Amount, PeerError> {
    rate.fee_wu(weight).ok_or(PeerError::AmountOverflow)
}

fn sum(values: impl Iterator<Item = Amount>) -> Result<Amount, PeerError> {
    let mut total = Amount::ZERO;
    for value in values {
        total = total.checked_add(value).ok_or(PeerError::AmountOverflow)?;
    }
    Ok(total)
}

fn unsigned(input: &Input) -> TxIn {
    TxIn {
        previous_output: input.outpoint,
        script_sig: ScriptBuf::new(),
        sequence: input.sequence,
        witness: Witness::new(),
    }
}

pub(super) fn witness(
    secp: &Secp256k1<All>,
    cache: &mut SighashCache<&Transaction>,
    at: usize,
    input: &Input,
) -> Result<Witness, PeerError> {
    let value = input.prevout.value;
    let mut p2wsh = |script: &ScriptBuf, key: &SecretKey| {
        let hash = cache
            .p2wsh_signature_hash(at, script, value, EcdsaSighashType::All)
            .map_err(|_| PeerError::SignatureHash)?;
        Ok::<_, PeerError>(secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), key))
    };
    Ok(match &input.unlock {
        Unlock::Funding { script, keys: [first, second] } => Witness::from_slice(&[
            Vec::new(),
            encode(&p2wsh(script, first)?),
            encode(&p2wsh(script, second)?),
            script.to_bytes(),
        ]),
        Unlock::Script { script, key, element } => {
            Witness::from_slice(&[encode(&p2wsh(script, key)?), element.clone(), script.to_bytes()])
        }
        Unlock::BareScript { script, key } => {
            Witness::from_slice(&[encode(&p2wsh(script, key)?), script.to_bytes()])
        }
        Unlock::KeyHash { key } => {
            let hash = cache
                .p2wpkh_signature_hash(
                    at,
                    &input.prevout.script_pubkey,
                    value,
                    EcdsaSighashType::All,
                )
                .map_err(|_| PeerError::SignatureHash)?;
            let signature = secp.sign_ecdsa(&Message::from_digest(hash.to_byte_array()), key);
            let public = PublicKey::from_secret_key(secp, key).serialize();
            Witness::from_slice(&[encode(&signature), public.to_vec()])
        }
        Unlock::SecondStage { script, key, counter_signature, preimage, features } => {
            build_htlc_input_witness(
                &p2wsh(script, key)?,
                counter_signature,
                &preimage.map(PaymentPreimage),
                script,
                features,
            )
        }
        Unlock::Anyone => Witness::new(),
    })
}

fn encode(signature: &Signature) -> Vec<u8> {
    let mut bytes = signature.serialize_der().to_vec();
    bytes.push(EcdsaSighashType::All as u8);
    bytes
}
