//! What parts of a monitor must say, by what others say.
use crate::ldk02::facts::update::Seen;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::{CompressedPublicKey, ScriptBuf, Txid};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, HolderCommitmentTransaction,
    get_commitment_transaction_number_obscure_factor,
    get_to_countersigner_keyed_anchor_redeemscript,
};
use std::collections::{BTreeMap, BTreeSet};

/// A commitment of ours in the words of older versions, but for its HTLCs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Legacy {
    pub(super) txid: Txid,
    pub(super) to_local: u64,
    pub(super) feerate: u32,
    /// Revocation, our HTLCs, the peer's, delayed payment; the point.
    pub(super) keys: [PublicKey; 5],
    pub(super) signatures: Vec<Signature>,
}

impl Legacy {
    pub(super) fn of(commitment: &HolderCommitmentTransaction) -> Self {
        let trusted = commitment.trust();
        let keys = trusted.keys();
        Self {
            txid: trusted.txid(),
            to_local: commitment.to_broadcaster_value_sat(),
            feerate: commitment.negotiated_feerate_per_kw(),
            keys: [
                keys.revocation_key.to_public_key(),
                keys.broadcaster_htlc_key.to_public_key(),
                keys.countersignatory_htlc_key.to_public_key(),
                keys.broadcaster_delayed_payment_key.to_public_key(),
                keys.per_commitment_point,
            ],
            signatures: commitment.counterparty_htlc_sigs.clone(),
        }
    }
}

pub(super) fn obscure_factor(parameters: &ChannelTransactionParameters) -> u64 {
    let ours = &parameters.holder_pubkeys.payment_point;
    let peer = parameters.counterparty_parameters.as_ref();
    peer.map_or(u64::MAX, |peer| {
        get_commitment_transaction_number_obscure_factor(
            ours,
            &peer.pubkeys.payment_point,
            parameters.is_outbound_from_holder,
        )
    })
}

/// The script of our output of the peer's commitment.
pub(super) fn to_remote_script(parameters: &ChannelTransactionParameters) -> ScriptBuf {
    let (features, point) =
        (&parameters.channel_type_features, &parameters.holder_pubkeys.payment_point);
    if features.supports_anchors_zero_fee_htlc_tx() {
        get_to_countersigner_keyed_anchor_redeemscript(point).to_p2wsh()
    } else {
        ScriptBuf::new_p2wpkh(&CompressedPublicKey(*point).wpubkey_hash())
    }
}

/// What the peer's `to_local` is made of.
pub(super) fn terms_of_peer(
    parameters: &ChannelTransactionParameters,
) -> Option<(PublicKey, PublicKey, u16)> {
    let keys = &parameters.counterparty_parameters.as_ref()?.pubkeys;
    let delay = parameters.holder_selected_contest_delay;
    Some((keys.delayed_payment_basepoint.0, keys.htlc_basepoint.0, delay))
}

pub(super) fn delay_of_ours(parameters: &ChannelTransactionParameters) -> Option<u16> {
    Some(parameters.counterparty_parameters.as_ref()?.selected_contest_delay)
}

/// Hashes of all HTLCs of these commitments.
pub(super) fn hashes_of(commitments: &BTreeMap<Txid, Vec<Seen>>) -> BTreeSet<[u8; 32]> {
    commitments.values().flatten().map(|seen| seen.htlc.payment_hash.0).collect()
}

/// Hashes with the number of the newest commitment of the peer's that has an HTLC of it; if all of these are
/// `known`, no others.
pub(super) fn are_hashes(
    hashes: &[([u8; 32], u64)],
    known: Option<&BTreeSet<[u8; 32]>>,
    newest: u64,
) -> bool {
    let is_known = |hash| known.is_none_or(|known| known.contains(hash));
    hashes.iter().all(|(hash, number)| is_known(hash) && *number >= newest)
}
