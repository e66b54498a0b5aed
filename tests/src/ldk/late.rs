//! Signers that may be away: LDK's channel signers, which then give an error to everything.

use arb_node_adapter::SpendsOwn;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
use bitcoin::{ScriptBuf, Transaction, Txid, Witness};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
    HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::ln::script::ShutdownScript;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{
    ChannelSigner, DelayedPaymentOutputDescriptor, HTLCDescriptor, InMemorySigner, KeysManager,
    SignerProvider, StaticPaymentOutputDescriptor,
};
use lightning::types::payment::PaymentPreimage;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The keys of a node, whose signers may be away.
#[derive(Clone)]
pub struct LateKeys {
    /// The keys.
    pub keys: Arc<KeysManager>,
    /// Whether the signers are away.
    pub away: Arc<AtomicBool>,
}

impl std::fmt::Debug for LateKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LateKeys").field("away", &self.away).finish_non_exhaustive()
    }
}

/// The signer of one channel.
#[derive(Clone)]
pub struct LateSigner(InMemorySigner, Arc<AtomicBool>);

impl std::fmt::Debug for LateSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LateSigner").finish_non_exhaustive()
    }
}

impl LateSigner {
    fn here(&self) -> Result<&InMemorySigner, ()> {
        if self.1.load(Ordering::SeqCst) { Err(()) } else { Ok(&self.0) }
    }
}

impl SignerProvider for LateKeys {
    type EcdsaSigner = LateSigner;

    fn generate_channel_keys_id(&self, inbound: bool, user_channel_id: u128) -> [u8; 32] {
        self.keys.generate_channel_keys_id(inbound, user_channel_id)
    }

    fn derive_channel_signer(&self, channel_keys_id: [u8; 32]) -> LateSigner {
        LateSigner(self.keys.derive_channel_signer(channel_keys_id), self.away.clone())
    }

    fn get_destination_script(&self, channel_keys_id: [u8; 32]) -> Result<ScriptBuf, ()> {
        self.keys.get_destination_script(channel_keys_id)
    }

    fn get_shutdown_scriptpubkey(&self) -> Result<ShutdownScript, ()> {
        self.keys.get_shutdown_scriptpubkey()
    }
}

impl SpendsOwn for LateSigner {
    fn spend_delayed(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &DelayedPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()> {
        self.here()?.spend_delayed(transaction, input, descriptor, secp)
    }

    fn spend_payment(
        &self,
        transaction: &Transaction,
        input: usize,
        descriptor: &StaticPaymentOutputDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Witness, ()> {
        self.here()?.spend_payment(transaction, input, descriptor, secp)
    }
}

impl ChannelSigner for LateSigner {
    fn get_per_commitment_point(&self, idx: u64, secp: &Secp256k1<All>) -> Result<PublicKey, ()> {
        self.here()?.get_per_commitment_point(idx, secp)
    }

    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        self.here()?.release_commitment_secret(idx)
    }

    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        self.here()?.validate_holder_commitment(holder_tx, preimages)
    }

    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        self.here()?.validate_counterparty_revocation(idx, secret)
    }

    fn pubkeys(&self, secp: &Secp256k1<All>) -> ChannelPublicKeys {
        self.0.pubkeys(secp)
    }

    fn new_funding_pubkey(&self, parent: Txid, secp: &Secp256k1<All>) -> PublicKey {
        self.0.new_funding_pubkey(parent, secp)
    }

    fn channel_keys_id(&self) -> [u8; 32] {
        self.0.channel_keys_id()
    }
}

impl EcdsaChannelSigner for LateSigner {
    fn sign_counterparty_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment: &CommitmentTransaction,
        inbound: Vec<PaymentPreimage>,
        outbound: Vec<PaymentPreimage>,
        secp: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        let here = self.here()?;
        here.sign_counterparty_commitment(parameters, commitment, inbound, outbound, secp)
    }

    fn sign_holder_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        commitment: &HolderCommitmentTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_holder_commitment(parameters, commitment, secp)
    }

    fn sign_justice_revoked_output(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_justice_revoked_output(parameters, tx, input, amount, key, secp)
    }

    fn sign_justice_revoked_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        key: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_justice_revoked_htlc(parameters, tx, input, amount, key, htlc, secp)
    }

    fn sign_holder_htlc_transaction(
        &self,
        tx: &Transaction,
        input: usize,
        descriptor: &HTLCDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_holder_htlc_transaction(tx, input, descriptor, secp)
    }

    fn sign_counterparty_htlc_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let here = self.here()?;
        here.sign_counterparty_htlc_transaction(parameters, tx, input, amount, point, htlc, secp)
    }

    fn sign_closing_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &ClosingTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_closing_transaction(parameters, tx, secp)
    }

    fn sign_holder_keyed_anchor_input(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_holder_keyed_anchor_input(parameters, tx, input, secp)
    }

    fn sign_channel_announcement_with_funding_key(
        &self,
        parameters: &ChannelTransactionParameters,
        msg: &UnsignedChannelAnnouncement,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        self.here()?.sign_channel_announcement_with_funding_key(parameters, msg, secp)
    }

    fn sign_splice_shared_input(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Signature {
        self.0.sign_splice_shared_input(parameters, tx, input, secp)
    }
}
