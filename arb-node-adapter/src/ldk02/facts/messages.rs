//! LDK's channel messages, watched: only they say the peer's dust limit, the ids of received
//! HTLCs, the peer's script for a mutual close, and when LDK has new names for a channel.
use super::book::Terms;
use super::taps::{Stage, Taps};
use arb_core::facts::{ChannelNames, ShutdownScripts};
use arb_core::ids::{ChannelId, PaymentHash, ShortChannelId, Side};
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use bitcoin::OutPoint;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use core::ops::Deref;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::AChannelManager;
use lightning::ln::msgs::{
    AcceptChannel, AcceptChannelV2, AnnouncementSignatures, BaseMessageHandler,
    ChannelMessageHandler, ChannelReady, ChannelReestablish, ChannelUpdate, ClosingSigned,
    CommitmentSigned, ErrorAction, ErrorMessage, FundingCreated, FundingSigned, Init,
    MessageSendEvent, OpenChannel, OpenChannelV2, PeerStorage, PeerStorageRetrieval, RevokeAndACK,
    Shutdown, SpliceAck, SpliceInit, SpliceLocked, Stfu, TxAbort, TxAckRbf, TxAddInput,
    TxAddOutput, TxComplete, TxInitRbf, TxRemoveInput, TxRemoveOutput, TxSignatures, UpdateAddHTLC,
    UpdateFailHTLC, UpdateFailMalformedHTLC, UpdateFee, UpdateFulfillHTLC,
};
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A channel manager whose messages are watched: give it to LDK's `PeerManager` in the manager's
/// place.
///
/// One thing LDK does not hear: a request for a channel under an id that the peer has used for one that is not funded
/// yet (BOLT 2 forbids it), or was not until LDK's messages were fetched last. LDK would refuse it, and say nothing of
/// which dust limit counts; and what it still has to say of the one before would be taken for its word on the new one.
///
/// LDK's messages are to be fetched by one caller at a time, as its `PeerManager` does.
#[derive(Debug)]
pub struct TappedMessages<M> {
    inner: M,
    taps: Arc<Taps>,
}

impl<M> TappedMessages<M> {
    /// Watches the messages of `inner`.
    pub const fn new(inner: M, taps: Arc<Taps>) -> Self {
        Self { inner, taps }
    }

    fn sent(&self, event: &MessageSendEvent)
    where
        M: Deref<Target: AChannelManager>,
    {
        if let MessageSendEvent::SendOpenChannel { node_id, msg } = event {
            let fields = &msg.common_fields;
            let temporary = fields.temporary_channel_id.0;
            self.taps.offered(*node_id, temporary, fields.dust_limit_satoshis);
        } else if let MessageSendEvent::SendAcceptChannel { node_id, msg } = event {
            let fields = &msg.common_fields;
            let temporary = fields.temporary_channel_id.0;
            self.taps.answered(*node_id, temporary, fields.dust_limit_satoshis);
        } else if let MessageSendEvent::SendFundingCreated { node_id, msg } = event {
            self.funded(Side::Local, *node_id, msg);
        } else if let MessageSendEvent::SendShutdown { node_id, msg } = event {
            let scripts = ShutdownScripts { local: Some(msg.scriptpubkey.clone()), remote: None };
            self.taps.shut_down(*node_id, ChannelId(msg.channel_id.0), scripts);
        } else if let MessageSendEvent::HandleError { node_id, action } = event
            && let ErrorAction::SendErrorMessage { msg }
            | ErrorAction::DisconnectPeer { msg: Some(msg) } = action
        {
            // If the channel was funded, nothing is remembered under this id.
            self.failed(*node_id, msg.channel_id.0, is_stray(&msg.data));
        }
    }

    /// An error about a channel that is not funded yet: one of both sides has said it. LDK may have the channel all
    /// the same, and only where it has not, the channel is forgotten. A `stray` error leaves a request that LDK has
    /// not answered as it is; LDK lists none of those. Channels that LDK opens are few, and forgotten when the peer
    /// disconnects: LDK has new ids for them before the peer knows.
    fn failed(&self, peer: PublicKey, temporary: [u8; 32], stray: bool)
    where
        M: Deref<Target: AChannelManager>,
    {
        let may_be_gone = match self.taps.stage(peer, temporary) {
            None | Some(Stage::Ours) => false,
            Some(Stage::Asked) => !stray,
            Some(Stage::Accepted) => true,
        };
        if !may_be_gone {
            return;
        }
        let channels = self.inner.get_cm().list_channels_with_counterparty(&peer);
        if channels.iter().all(|details| details.channel_id.0 != temporary) {
            self.taps.failed(peer, temporary);
        }
    }

    /// LDK may have new names for a peer's channels.
    fn named(&self, peer: PublicKey)
    where
        M: Deref<Target: AChannelManager>,
    {
        let channels = self.inner.get_cm().list_channels_with_counterparty(&peer);
        self.taps.signal(peer, by_name(&channels));
    }

    fn funded(&self, opener: Side, peer: PublicKey, msg: &FundingCreated) {
        let vout = u32::from(msg.funding_output_index);
        let funding = OutPoint { txid: msg.funding_txid, vout };
        self.taps.funded(opener, peer, msg.temporary_channel_id.0, funding);
    }
}

/// Whether LDK answers so to what it knows no channel for, and not to a request.
fn is_stray(data: &str) -> bool {
    const STRAY: [&str; 4] = [
        "Got a message for a channel from the wrong node",
        "Can't find a peer",
        "Dual-funded channels not supported",
        "Failed to find corresponding channel",
    ];
    STRAY.iter().any(|stray| data.starts_with(stray))
}

/// Whether LDK closes nothing for such an error of a peer's.
fn is_ignored(data: &str) -> bool {
    ["cannot co-op close channel w/ active htlcs", "link failed to shutdown"].contains(&data)
}

/// How LDK names a channel. Its position in the chain is known from some confirmation on; the aliases
/// are the one that we gave the peer and the one that the peer gave us.
pub(super) fn names(details: &ChannelDetails) -> ChannelNames {
    let aliases = [details.outbound_scid_alias, details.inbound_scid_alias];
    let aliases: BTreeSet<u64> = aliases.into_iter().flatten().collect();
    ChannelNames {
        short_channel_id: details.short_channel_id.map(ShortChannelId),
        aliases: aliases.into_iter().map(ShortChannelId).collect(),
    }
}

fn by_name(channels: &[ChannelDetails]) -> BTreeMap<ChannelId, ChannelNames> {
    channels.iter().map(|details| (ChannelId(details.channel_id.0), names(details))).collect()
}

impl<M> BaseMessageHandler for TappedMessages<M>
where
    M: Deref<Target: ChannelMessageHandler + AChannelManager>,
{
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let number = self.taps.fetches();
        let events = self.inner.get_and_clear_pending_msg_events();
        let mut ready = BTreeSet::new();
        for event in &events {
            self.sent(event);
            if let MessageSendEvent::SendChannelReady { node_id, .. }
            | MessageSendEvent::SendSpliceLocked { node_id, .. } = event
            {
                ready.insert(*node_id);
            }
        }
        self.taps.fetched(number);
        ready.into_iter().for_each(|peer| self.named(peer));
        events
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.taps.disconnected(their_node_id);
        self.inner.peer_disconnected(their_node_id);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }

    fn provided_init_features(&self, their_node_id: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(their_node_id)
    }

    fn peer_connected(
        &self,
        their_node_id: PublicKey,
        msg: &Init,
        inbound: bool,
    ) -> Result<(), ()> {
        self.inner.peer_connected(their_node_id, msg, inbound)?;
        let channels = self.inner.get_cm().list_channels_with_counterparty(&their_node_id);
        self.taps.connected(their_node_id, by_name(&channels));
        Ok(())
    }
}

macro_rules! passed_on {
    ($($name:ident: $message:ty),* $(,)?) => {
        $(fn $name(&self, their_node_id: PublicKey, msg: $message) {
            self.inner.$name(their_node_id, msg);
        })*
    };
}

impl<M> ChannelMessageHandler for TappedMessages<M>
where
    M: Deref<Target: ChannelMessageHandler + AChannelManager>,
{
    fn handle_open_channel(&self, their_node_id: PublicKey, msg: &OpenChannel) {
        let fields = &msg.common_fields;
        let temporary = fields.temporary_channel_id.0;
        if self.taps.asked(their_node_id, temporary, fields.dust_limit_satoshis) {
            self.inner.handle_open_channel(their_node_id, msg);
        }
    }

    fn handle_open_channel_v2(&self, their_node_id: PublicKey, msg: &OpenChannelV2) {
        // As with any second word under this id.
        let temporary = msg.common_fields.temporary_channel_id.0;
        if !self.taps.is_in_use(their_node_id, temporary) {
            self.inner.handle_open_channel_v2(their_node_id, msg);
        }
    }

    fn handle_accept_channel(&self, their_node_id: PublicKey, msg: &AcceptChannel) {
        let fields = &msg.common_fields;
        let temporary = fields.temporary_channel_id.0;
        self.taps.accepted(their_node_id, temporary, fields.dust_limit_satoshis);
        self.inner.handle_accept_channel(their_node_id, msg);
    }

    fn handle_funding_created(&self, their_node_id: PublicKey, msg: &FundingCreated) {
        self.funded(Side::Remote, their_node_id, msg);
        self.inner.handle_funding_created(their_node_id, msg);
    }

    fn handle_update_add_htlc(&self, their_node_id: PublicKey, msg: &UpdateAddHTLC) {
        let terms = Terms {
            amount: MilliSat(msg.amount_msat),
            expiry: CltvExpiry(BlockHeight(msg.cltv_expiry)),
            hash: PaymentHash(msg.payment_hash.0),
        };
        self.taps.announced(their_node_id, ChannelId(msg.channel_id.0), msg.htlc_id, terms);
        self.inner.handle_update_add_htlc(their_node_id, msg);
    }

    fn handle_commitment_signed(&self, their_node_id: PublicKey, msg: &CommitmentSigned) {
        self.taps.committed(their_node_id, ChannelId(msg.channel_id.0));
        self.inner.handle_commitment_signed(their_node_id, msg);
    }

    fn handle_commitment_signed_batch(
        &self,
        their_node_id: PublicKey,
        channel_id: LdkChannelId,
        batch: Vec<CommitmentSigned>,
    ) {
        self.taps.committed(their_node_id, ChannelId(channel_id.0));
        self.inner.handle_commitment_signed_batch(their_node_id, channel_id, batch);
    }

    fn handle_shutdown(&self, their_node_id: PublicKey, msg: &Shutdown) {
        let scripts = ShutdownScripts { local: None, remote: Some(msg.scriptpubkey.clone()) };
        self.taps.shut_down(their_node_id, ChannelId(msg.channel_id.0), scripts);
        self.inner.handle_shutdown(their_node_id, msg);
    }

    fn handle_channel_ready(&self, their_node_id: PublicKey, msg: &ChannelReady) {
        self.inner.handle_channel_ready(their_node_id, msg);
        self.named(their_node_id);
    }

    fn handle_splice_locked(&self, their_node_id: PublicKey, msg: &SpliceLocked) {
        self.inner.handle_splice_locked(their_node_id, msg);
        self.named(their_node_id);
    }

    fn handle_channel_reestablish(&self, their_node_id: PublicKey, msg: &ChannelReestablish) {
        self.inner.handle_channel_reestablish(their_node_id, msg);
        self.named(their_node_id);
    }

    fn handle_error(&self, their_node_id: PublicKey, msg: &ErrorMessage) {
        self.inner.handle_error(their_node_id, msg);
        let all = match msg.channel_id.is_zero() {
            true => self.taps.openings_of(their_node_id),
            false => vec![msg.channel_id.0],
        };
        for temporary in all {
            self.failed(their_node_id, temporary, is_ignored(&msg.data));
        }
    }

    passed_on! {
        handle_accept_channel_v2: &AcceptChannelV2,
        handle_funding_signed: &FundingSigned,
        handle_peer_storage: PeerStorage,
        handle_peer_storage_retrieval: PeerStorageRetrieval,
        handle_closing_signed: &ClosingSigned,
        handle_stfu: &Stfu,
        handle_splice_init: &SpliceInit,
        handle_splice_ack: &SpliceAck,
        handle_tx_add_input: &TxAddInput,
        handle_tx_add_output: &TxAddOutput,
        handle_tx_remove_input: &TxRemoveInput,
        handle_tx_remove_output: &TxRemoveOutput,
        handle_tx_complete: &TxComplete,
        handle_tx_signatures: &TxSignatures,
        handle_tx_init_rbf: &TxInitRbf,
        handle_tx_ack_rbf: &TxAckRbf,
        handle_tx_abort: &TxAbort,
        handle_update_fulfill_htlc: UpdateFulfillHTLC,
        handle_update_fail_htlc: &UpdateFailHTLC,
        handle_update_fail_malformed_htlc: &UpdateFailMalformedHTLC,
        handle_revoke_and_ack: &RevokeAndACK,
        handle_update_fee: &UpdateFee,
        handle_announcement_signatures: &AnnouncementSignatures,
        handle_channel_update: &ChannelUpdate,
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.inner.get_chain_hashes()
    }

    fn message_received(&self) {
        self.inner.message_received();
    }
}
