//! Our signer port over LDK's channel signers: every kind of claim, by the methods that LDK has
//! for it.
use super::book::Book;
use super::shelf::Shelf;
use super::update::FIRST_NUMBER;
use arb_core::claim::SigningKey;
use arb_core::facts::FundingCandidate;
use arb_core::format::{Commitment, OutputKind, local_commitment};
use arb_core::ids::{ChannelId, PerCommitmentSecret, Side};
use arb_core::ports::{PointRequest, SignRequest, Signer};
use bitcoin::opcodes::all::OP_CLTV;
use bitcoin::script::Instruction;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, Script, Transaction, TxOut, Witness};
use core::fmt;
use core::ops::Deref;
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyChannelTransactionParameters,
    HTLCOutputInCommitment, HolderCommitmentTransaction, TxCreationKeys, get_htlc_redeemscript,
    get_keyed_anchor_redeemscript, get_revokeable_redeemscript,
};
use lightning::ln::channel_keys::RevocationKey;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{
    ChannelDerivationParameters, ChannelSigner, DelayedPaymentOutputDescriptor, HTLCDescriptor,
    InMemorySigner, SignerProvider, StaticPaymentOutputDescriptor,
};
use lightning::types::payment::PaymentHash as LdkPaymentHash;
use lightning::util::persist::KVStoreSync;
use std::sync::Arc;

/// Value of an anchor output (BOLT 3).
const ANCHOR: Amount = Amount::from_sat(330);

/// Spends what is the node's own already: LDK's channel signers have no common method for it, and
/// leave it to whoever sweeps. An error means that the signer cannot, now.
pub trait SpendsOwn {
    /// The witness for a delayed output of ours (`to_local`, or of a second-stage transaction).
    #[allow(clippy::result_unit_err, reason = "LDK's signers say no more")]
    fn spend_delayed(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &DelayedPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()>;

    /// The witness for our output of the peer's commitment.
    #[allow(clippy::result_unit_err, reason = "LDK's signers say no more")]
    fn spend_payment(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &StaticPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()>;
}

impl SpendsOwn for InMemorySigner {
    fn spend_delayed(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &DelayedPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()> {
        self.sign_dynamic_p2wsh_input(transaction, input, descriptor, secp)
    }

    fn spend_payment(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &StaticPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()> {
        self.sign_counterparty_payment_input(transaction, input, descriptor, secp)
    }
}

/// Why nothing was signed. It is tried again, and holds up this claim only.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignError {
    /// The channel is not recorded.
    UnknownChannel(ChannelId),
    /// The request does not describe an input that can be signed.
    Inconsistent,
    /// The commitment is not the one that is recorded.
    OtherCommitment,
    /// No HTLC of this script is recorded.
    UnknownHtlc,
    /// The signer is not there, or wants to be asked later.
    NotNow,
    /// The key-value store failed.
    Store(String),
}

impl fmt::Display for SignError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownChannel(channel) => write!(f, "channel {channel} is not recorded"),
            Self::Inconsistent => f.write_str("the request is not consistent"),
            Self::OtherCommitment => f.write_str("another commitment is recorded"),
            Self::UnknownHtlc => f.write_str("no HTLC of this script is recorded"),
            Self::NotNow => f.write_str("the signer does not sign now"),
            Self::Store(why) => write!(f, "the key-value store: {why}"),
        }
    }
}

impl core::error::Error for SignError {}

/// Signs through LDK's channel signers, with what a [`super::Recorder`] has recorded. Made by
/// [`super::Recorder::signer`].
#[derive(Debug)]
pub struct LdkSigner<P, K> {
    provider: P,
    shelf: Arc<Shelf<K>>,
    secp: Secp256k1<All>,
}

impl<P, K> LdkSigner<P, K> {
    pub(super) fn new(provider: P, shelf: Arc<Shelf<K>>) -> Self {
        Self { provider, shelf, secp: Secp256k1::new() }
    }
}

impl<P, K> Signer for LdkSigner<P, K>
where
    P: Deref<Target: SignerProvider<EcdsaSigner: SpendsOwn>> + Send + Sync + 'static,
    K: Deref<Target: KVStoreSync> + Send + Sync + 'static,
{
    type Error = SignError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, SignError> {
        let book = self.shelf.book(&request.channel);
        let book = book.ok_or(SignError::UnknownChannel(request.channel))?;
        let signer = self.provider.derive_channel_signer(book.keys);
        Job::new(&request, &book, &self.secp)?.sign(&signer, &self.shelf)
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, SignError> {
        let book = self.shelf.book(&request.channel);
        let book = book.ok_or(SignError::UnknownChannel(request.channel))?;
        let number = FIRST_NUMBER.checked_sub(request.number.0).ok_or(SignError::Inconsistent)?;
        let signer = self.provider.derive_channel_signer(book.keys);
        let point = signer.get_per_commitment_point(number, &self.secp);
        point.map(Some).map_err(|()| SignError::NotNow)
    }
}

/// One request with all that it needs.
struct Job<'a> {
    request: &'a SignRequest,
    book: &'a Book,
    /// The funding candidate that it is about.
    candidate: &'a FundingCandidate,
    parameters: &'a ChannelTransactionParameters,
    peer: &'a CounterpartyChannelTransactionParameters,
    spent: &'a TxOut,
    secp: &'a Secp256k1<All>,
}

impl<'a> Job<'a> {
    fn new(
        request: &'a SignRequest,
        book: &'a Book,
        secp: &'a Secp256k1<All>,
    ) -> Result<Self, SignError> {
        let spent = request.prevouts.get(request.input).ok_or(SignError::Inconsistent)?;
        let candidate = candidate(request, book, secp)?;
        let parameters = book.parameters_of(&candidate.funding).ok_or(SignError::Inconsistent)?;
        let peer = parameters.counterparty_parameters.as_ref().ok_or(SignError::Inconsistent)?;
        Ok(Self { request, book, candidate, parameters, peer, spent, secp })
    }

    fn sign<S, K>(&self, signer: &S, shelf: &Shelf<K>) -> Result<ecdsa::Signature, SignError>
    where
        S: EcdsaChannelSigner + SpendsOwn,
        K: Deref<Target: KVStoreSync>,
    {
        let consistent = self.request.sighash == EcdsaSighashType::All
            && self.request.prevouts.len() == self.request.transaction.input.len();
        if !consistent {
            return Err(SignError::Inconsistent);
        }
        let signed = match self.request.key {
            SigningKey::Funding(key) => self.funding(signer, key)?,
            SigningKey::Payment => self.payment(signer)?,
            SigningKey::DelayedPayment(point) => self.delayed(signer, point)?,
            SigningKey::Htlc(point) => self.htlc(signer, shelf, point)?,
            SigningKey::Revocation(secret) => self.revoked(signer, shelf, secret)?,
        };
        signed.ok_or(SignError::NotNow)
    }

    const fn parameters(&self) -> &ChannelTransactionParameters {
        self.parameters
    }

    fn script(&self) -> Result<&Script, SignError> {
        self.request.script.as_deref().ok_or(SignError::Inconsistent)
    }

    fn outpoint(&self) -> Result<LdkOutPoint, SignError> {
        let input = self.request.transaction.input.get(self.request.input);
        let outpoint = input.ok_or(SignError::Inconsistent)?.previous_output;
        let index = u16::try_from(outpoint.vout).map_err(|_| SignError::Inconsistent)?;
        Ok(LdkOutPoint { txid: outpoint.txid, index })
    }

    fn funding<S>(&self, signer: &S, key: PublicKey) -> Result<Option<ecdsa::Signature>, SignError>
    where
        S: EcdsaChannelSigner,
    {
        let (parameters, transaction) = (self.parameters(), &self.request.transaction);
        if key != parameters.holder_pubkeys.funding_pubkey {
            return Err(SignError::Inconsistent);
        }
        let anchor = get_keyed_anchor_redeemscript(&parameters.holder_pubkeys.funding_pubkey);
        if self.script()? == anchor.as_script() {
            if self.spent.value != ANCHOR {
                return Err(SignError::Inconsistent);
            }
            let input = self.request.input;
            let signed =
                signer.sign_holder_keyed_anchor_input(parameters, transaction, input, self.secp);
            return Ok(signed.ok());
        }
        let commitment = self.commitment()?;
        Ok(signer.sign_holder_commitment(parameters, &commitment, self.secp).ok())
    }

    /// Our recorded commitment as LDK has it.
    fn commitment(&self) -> Result<HolderCommitmentTransaction, SignError> {
        let stated = &self.candidate.local;
        let built = built(self.book, self.candidate, self.secp)?;
        let txid = self.request.transaction.compute_txid();
        if built.transaction.compute_txid() != txid {
            return Err(SignError::OtherCommitment);
        }
        let parameters = self.parameters();
        let commitment = CommitmentTransaction::new(
            FIRST_NUMBER.checked_sub(stated.number.0).ok_or(SignError::Inconsistent)?,
            &stated.point,
            value(&built, OutputKind::ToLocal),
            value(&built, OutputKind::ToRemote),
            stated.feerate.0,
            self.htlcs(&built),
            &parameters.as_holder_broadcastable(),
            self.secp,
        );
        if commitment.trust().txid() != txid {
            return Err(SignError::OtherCommitment);
        }
        Ok(HolderCommitmentTransaction::new(
            commitment,
            stated.signature,
            stated.htlc_signatures.clone(),
            &parameters.holder_pubkeys.funding_pubkey,
            &self.peer.pubkeys.funding_pubkey,
        ))
    }

    fn htlcs(&self, built: &Commitment) -> Vec<HTLCOutputInCommitment> {
        let htlc = |output: &arb_core::format::CommitmentOutput| {
            let OutputKind::Htlc(id) = output.kind else { return None };
            let htlc = self.book.facts.htlcs.get(&id)?.htlc;
            Some(HTLCOutputInCommitment {
                offered: id.offerer == Side::Local,
                amount_msat: htlc.amount.0,
                cltv_expiry: htlc.expiry.0.0,
                payment_hash: LdkPaymentHash(htlc.hash.0),
                transaction_output_index: Some(output.vout),
            })
        };
        built.outputs.iter().filter_map(htlc).collect()
    }

    fn payment<S: SpendsOwn>(&self, signer: &S) -> Result<Option<ecdsa::Signature>, SignError> {
        let descriptor = StaticPaymentOutputDescriptor {
            outpoint: self.outpoint()?,
            output: self.spent.clone(),
            channel_keys_id: self.book.keys,
            channel_value_satoshis: self.parameters().channel_value_satoshis,
            channel_transaction_parameters: Some(self.parameters().clone()),
        };
        let (transaction, input) = (&self.request.transaction, self.request.input);
        let witness = signer.spend_payment(transaction, input, &descriptor, self.secp);
        Ok(witness.ok().as_ref().and_then(first_signature))
    }

    fn delayed<S: SpendsOwn>(
        &self,
        signer: &S,
        point: PublicKey,
    ) -> Result<Option<ecdsa::Signature>, SignError> {
        let revocation = &self.peer.pubkeys.revocation_basepoint;
        let descriptor = DelayedPaymentOutputDescriptor {
            outpoint: self.outpoint()?,
            per_commitment_point: point,
            to_self_delay: self.peer.selected_contest_delay,
            output: self.spent.clone(),
            revocation_pubkey: RevocationKey::from_basepoint(self.secp, revocation, &point),
            channel_keys_id: self.book.keys,
            channel_value_satoshis: self.parameters().channel_value_satoshis,
            channel_transaction_parameters: Some(self.parameters().clone()),
        };
        let (transaction, input) = (&self.request.transaction, self.request.input);
        let witness = signer.spend_delayed(transaction, input, &descriptor, self.secp);
        Ok(witness.ok().as_ref().and_then(first_signature))
    }

    /// Keys of a commitment of ours (`Side::Local`) or of the peer's.
    fn keys(&self, owner: Side, point: &PublicKey) -> TxCreationKeys {
        let (ours, theirs) = (&self.parameters().holder_pubkeys, &self.peer.pubkeys);
        match owner {
            Side::Local => TxCreationKeys::from_channel_static_keys(point, ours, theirs, self.secp),
            Side::Remote => {
                TxCreationKeys::from_channel_static_keys(point, theirs, ours, self.secp)
            }
        }
    }

    /// The HTLC whose script this is, on a commitment of these keys.
    fn htlc_of<K>(
        &self,
        shelf: &Shelf<K>,
        keys: &TxCreationKeys,
    ) -> Result<Option<HTLCOutputInCommitment>, SignError>
    where
        K: Deref<Target: KVStoreSync>,
    {
        let script = self.script()?;
        let Some((digest, expiry)) = read_htlc_script(script) else { return Ok(None) };
        let hash = shelf.payment_hash(self.request.channel, &self.book.facts, digest);
        let hash = hash.map_err(SignError::Store)?.ok_or(SignError::UnknownHtlc)?;
        let htlc = HTLCOutputInCommitment {
            offered: expiry.is_none(),
            // The script does not say what was below a satoshi.
            amount_msat: self.spent.value.to_sat().saturating_mul(1000),
            cltv_expiry: expiry.unwrap_or_default(),
            payment_hash: LdkPaymentHash(hash.0),
            transaction_output_index: Some(u32::from(self.outpoint()?.index)),
        };
        let features = &self.parameters().channel_type_features;
        let same = get_htlc_redeemscript(&htlc, features, keys).as_script() == script;
        Ok(same.then_some(htlc))
    }

    fn htlc<S, K>(
        &self,
        signer: &S,
        shelf: &Shelf<K>,
        point: PublicKey,
    ) -> Result<Option<ecdsa::Signature>, SignError>
    where
        S: EcdsaChannelSigner,
        K: Deref<Target: KVStoreSync>,
    {
        let (transaction, input) = (&self.request.transaction, self.request.input);
        let parameters = self.parameters();
        if let Some(htlc) = self.htlc_of(shelf, &self.keys(Side::Remote, &point))? {
            let amount = self.spent.value.to_sat();
            let signed = signer.sign_counterparty_htlc_transaction(
                parameters,
                transaction,
                input,
                amount,
                &point,
                &htlc,
                self.secp,
            );
            return Ok(signed.ok());
        }
        let htlc = self.htlc_of(shelf, &self.keys(Side::Local, &point))?;
        let htlc = htlc.ok_or(SignError::UnknownHtlc)?;
        let local = &self.candidate.local;
        let descriptor = HTLCDescriptor {
            channel_derivation_parameters: ChannelDerivationParameters {
                value_satoshis: parameters.channel_value_satoshis,
                keys_id: self.book.keys,
                transaction_parameters: parameters.clone(),
            },
            commitment_txid: self.outpoint()?.txid,
            per_commitment_number: FIRST_NUMBER.saturating_sub(local.number.0),
            per_commitment_point: point,
            feerate_per_kw: local.feerate.0,
            counterparty_sig: self.counter_signature(&htlc)?,
            htlc,
            preimage: None,
        };
        let signed =
            signer.sign_holder_htlc_transaction(transaction, input, &descriptor, self.secp);
        Ok(signed.ok())
    }

    /// The peer's signature of our second-stage transaction.
    fn counter_signature(
        &self,
        htlc: &HTLCOutputInCommitment,
    ) -> Result<ecdsa::Signature, SignError> {
        let built = built(self.book, self.candidate, self.secp)?;
        let outputs = built.outputs.iter().filter(|o| matches!(o.kind, OutputKind::Htlc(_)));
        let mut signatures = outputs.zip(&self.candidate.local.htlc_signatures);
        let found =
            signatures.find(|(output, _)| Some(output.vout) == htlc.transaction_output_index);
        found.map(|(_, signature)| *signature).ok_or(SignError::OtherCommitment)
    }

    fn revoked<S, K>(
        &self,
        signer: &S,
        shelf: &Shelf<K>,
        secret: PerCommitmentSecret,
    ) -> Result<Option<ecdsa::Signature>, SignError>
    where
        S: EcdsaChannelSigner,
        K: Deref<Target: KVStoreSync>,
    {
        let (transaction, input) = (&self.request.transaction, self.request.input);
        let (parameters, amount) = (self.parameters(), self.spent.value.to_sat());
        let secret = SecretKey::from_slice(&secret.0).map_err(|_| SignError::Inconsistent)?;
        let keys = self.keys(Side::Remote, &secret.public_key(self.secp));
        let delay = parameters.holder_selected_contest_delay;
        let delayed = get_revokeable_redeemscript(
            &keys.revocation_key,
            delay,
            &keys.broadcaster_delayed_payment_key,
        );
        if self.script()? == delayed.as_script() {
            let signed = signer.sign_justice_revoked_output(
                parameters,
                transaction,
                input,
                amount,
                &secret,
                self.secp,
            );
            return Ok(signed.ok());
        }
        let htlc = self.htlc_of(shelf, &keys)?.ok_or(SignError::UnknownHtlc)?;
        let signed = signer.sign_justice_revoked_htlc(
            parameters,
            transaction,
            input,
            amount,
            &secret,
            &htlc,
            self.secp,
        );
        Ok(signed.ok())
    }
}

/// The funding candidate that a request is about: that of the key or, for a second stage of ours, of the
/// commitment that it spends. Anything else is the same for all of them but for the funding output, which
/// is in no script there.
fn candidate<'a>(
    request: &SignRequest,
    book: &'a Book,
    secp: &Secp256k1<All>,
) -> Result<&'a FundingCandidate, SignError> {
    let candidates = &book.facts.candidates;
    let outpoint = request.transaction.input.get(request.input).map(|input| input.previous_output);
    let outpoint = outpoint.ok_or(SignError::Inconsistent)?;
    match request.key {
        SigningKey::Funding(key) => {
            // A peer is free to have one key for several: then the output tells.
            let is_it = |of: &&FundingCandidate| of.keys.local == key;
            let spent = candidates.iter().find(|of| of.funding == outpoint).filter(is_it);
            spent.or_else(|| candidates.iter().find(is_it)).ok_or(SignError::Inconsistent)
        }
        SigningKey::Htlc(_) => {
            let is_it = |of: &&FundingCandidate| {
                let built = built(book, of, secp);
                built.is_ok_and(|built| built.transaction.compute_txid() == outpoint.txid)
            };
            Ok(candidates.iter().find(is_it).unwrap_or(&candidates.current))
        }
        SigningKey::Payment | SigningKey::DelayedPayment(_) | SigningKey::Revocation(_) => {
            Ok(&candidates.current)
        }
    }
}

/// Our commitment of a candidate.
fn built(
    book: &Book,
    candidate: &FundingCandidate,
    secp: &Secp256k1<All>,
) -> Result<Commitment, SignError> {
    local_commitment(&book.facts, candidate, &candidate.local, secp)
        .map_err(|_| SignError::Inconsistent)
}

fn value(built: &Commitment, kind: OutputKind) -> u64 {
    let found = built.outputs.iter().find(|output| output.kind == kind);
    found.map_or(0, |output| output.output.value.to_sat())
}

fn first_signature(witness: &Witness) -> Option<ecdsa::Signature> {
    let signature = bitcoin::ecdsa::Signature::from_slice(witness.nth(0)?).ok()?;
    Some(signature.signature)
}

/// RIPEMD-160 of the payment hash, and the expiry that a received HTLC's script has (BOLT 3).
fn read_htlc_script(script: &Script) -> Option<([u8; 20], Option<u32>)> {
    let mut digests = Vec::new();
    let mut expiry = None;
    let mut before: Option<&[u8]> = None;
    for instruction in script.instructions() {
        match instruction.ok()? {
            Instruction::PushBytes(bytes) => {
                let bytes = bytes.as_bytes();
                if let Ok(digest) = <[u8; 20]>::try_from(bytes) {
                    digests.push(digest);
                }
                before = Some(bytes);
            }
            Instruction::Op(op) => {
                if op == OP_CLTV {
                    let height = bitcoin::script::read_scriptint(before?).ok()?;
                    expiry = Some(u32::try_from(height).ok()?);
                }
                before = None;
            }
        }
    }
    // The first is that of the revocation key.
    Some((*digests.get(1)?, expiry))
}
