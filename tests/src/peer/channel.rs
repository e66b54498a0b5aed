//! One channel: its parameters, its keys and its funding output.

use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut};
use lightning::chain::transaction::OutPoint as LightningOutPoint;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CounterpartyChannelTransactionParameters,
    DirectedChannelTransactionParameters, make_funding_redeemscript,
};
use lightning::types::features::ChannelTypeFeatures;
use std::collections::BTreeMap;

use super::history::History;
use super::keys::splice_key;
use super::{PartyKeys, PartySecrets, PeerError, Side};

/// The commitment format, BOLT 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    StaticRemoteKey,
    /// `option_anchors`: HTLC transactions without fees of their own.
    Anchors,
    /// Commitments without fees and with one shared anchor.
    ZeroFee,
}

impl Format {
    pub(super) fn features(self) -> ChannelTypeFeatures {
        match self {
            Self::StaticRemoteKey => ChannelTypeFeatures::only_static_remote_key(),
            Self::Anchors => ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            Self::ZeroFee => ChannelTypeFeatures::anchors_zero_fee_commitments(),
        }
    }
}

/// What both sides agreed on when the channel was opened.
#[derive(Clone, Debug)]
pub struct ChannelParams {
    pub name: String,
    pub format: Format,
    pub capacity: Amount,
    /// Ours at commitment #0; the rest is the peer's.
    pub local_balance: Amount,
    /// Who pays the commitment's fee and anchors.
    pub opener: Side,
    /// Blocks that we wait for our own `to_local`.
    pub local_delay: u16,
    /// Blocks that the peer waits for its own `to_local`.
    pub remote_delay: u16,
    /// The dust limit of our commitments.
    pub dust: Amount,
    /// The dust limit of the peer's commitments.
    pub remote_dust: Amount,
    /// The commitment's, in sat per 1000 weight units; `ZeroFee` takes it as 0.
    pub feerate_per_kw: u32,
    /// Another seed gives other keys.
    pub seed: u64,
}

impl ChannelParams {
    /// The defaults of the scenario language.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            format: Format::Anchors,
            capacity: Amount::from_sat(1_000_000),
            local_balance: Amount::from_sat(500_000),
            opener: Side::Local,
            local_delay: 144,
            remote_delay: 144,
            dust: Amount::from_sat(354),
            remote_dust: Amount::from_sat(354),
            feerate_per_kw: 253,
            seed: 0,
        }
    }

    fn check(&self) -> Result<(), PeerError> {
        let bad = |field| Err(PeerError::BadParameter(field));
        if self.capacity == Amount::ZERO || self.capacity > Amount::MAX_MONEY {
            return bad("capacity");
        }
        if self.local_balance > self.capacity {
            return bad("local");
        }
        if self.local_delay == 0 {
            return bad("local_delay");
        }
        if self.remote_delay == 0 {
            return bad("remote_delay");
        }
        Ok(())
    }
}

/// One channel with the secrets of both sides.
#[derive(Clone)]
pub struct Channel {
    pub(super) params: ChannelParams,
    pub(super) secp: Secp256k1<All>,
    pub(super) local: PartySecrets,
    pub(super) remote: PartySecrets,
    local_keys: PartyKeys,
    remote_keys: PartyKeys,
    pub(super) history: History,
    pub(super) shutdown_scripts: [Option<ScriptBuf>; 2],
    /// The holder is our node.
    terms: ChannelTransactionParameters,
    funding: Option<OutPoint>,
    /// Funding secrets of splices, ours first, that come from elsewhere.
    splice_secrets: BTreeMap<usize, [SecretKey; 2]>,
}

impl Channel {
    /// Both sides at commitment #0, without a funding outpoint.
    pub fn new(params: ChannelParams) -> Result<Self, PeerError> {
        let secp = Secp256k1::new();
        let party = |side| {
            let secrets = PartySecrets::derive(&params.name, params.seed, side);
            let keys = secrets.keys(&secp);
            (secrets, keys)
        };
        let (local, remote) = (party(Side::Local), party(Side::Remote));
        Self::with_parties(params, local, remote)
    }

    /// The same with keys from elsewhere. A party's payment secret may be any, if nothing of the
    /// story is to spend by it.
    pub fn with_parties(
        mut params: ChannelParams,
        (local, local_keys): (PartySecrets, PartyKeys),
        (remote, remote_keys): (PartySecrets, PartyKeys),
    ) -> Result<Self, PeerError> {
        params.check()?;
        if params.format == Format::ZeroFee {
            params.feerate_per_kw = 0;
        }
        let secp = Secp256k1::new();
        let terms = ChannelTransactionParameters {
            holder_pubkeys: local_keys.for_lightning(),
            // Each side selects the delay of the other's `to_local`; `lightning` files the
            // delay of the holder's own commitment under the counterparty that selected it.
            holder_selected_contest_delay: params.remote_delay,
            is_outbound_from_holder: params.opener == Side::Local,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: remote_keys.for_lightning(),
                selected_contest_delay: params.local_delay,
            }),
            funding_outpoint: None,
            splice_parent_funding_txid: None,
            channel_type_features: params.format.features(),
            channel_value_satoshis: params.capacity.to_sat(),
        };
        let history = History::new(&params)?;
        Ok(Self {
            params,
            secp,
            local,
            remote,
            local_keys,
            remote_keys,
            history,
            shutdown_scripts: [None, None],
            terms,
            funding: None,
            splice_secrets: BTreeMap::new(),
        })
    }

    /// What the channel was opened with.
    pub fn params(&self) -> &ChannelParams {
        &self.params
    }

    /// The witness script of the funding output.
    pub fn funding_redeem_script(&self) -> ScriptBuf {
        let local = self.keys(Side::Local).funding;
        make_funding_redeemscript(&local, &self.keys(Side::Remote).funding)
    }

    /// The script of the funding output.
    pub fn funding_script(&self) -> ScriptBuf {
        self.funding_redeem_script().to_p2wsh()
    }

    /// The funding output.
    pub fn funding_output(&self) -> TxOut {
        TxOut { value: self.params.capacity, script_pubkey: self.funding_script() }
    }

    /// Says where the funding output is; every transaction of the channel hangs on it.
    pub fn set_funding(&mut self, funding: OutPoint) -> Result<(), PeerError> {
        let index = u16::try_from(funding.vout)
            .map_err(|_| PeerError::BadParameter("funding output index"))?;
        self.terms.funding_outpoint = Some(LightningOutPoint { txid: funding.txid, index });
        self.funding = Some(funding);
        Ok(())
    }

    /// The funding keys that both sides bring to their `nth` splice.
    pub(super) fn set_funding_keys(&mut self, nth: usize) {
        let ChannelParams { name, seed, .. } = &self.params;
        let own = |side| splice_key(name, *seed, side, nth);
        let given = self.splice_secrets.get(&nth).copied();
        let [local, remote] = given.unwrap_or_else(|| [own(Side::Local), own(Side::Remote)]);
        (self.local.funding, self.remote.funding) = (local, remote);
        self.local_keys.funding = local.public_key(&self.secp);
        self.remote_keys.funding = remote.public_key(&self.secp);
        self.terms.holder_pubkeys = self.local_keys.for_lightning();
        if let Some(peer) = &mut self.terms.counterparty_parameters {
            peer.pubkeys = self.remote_keys.for_lightning();
        }
    }

    /// Says what both sides bring to their `nth` splice, ours first.
    pub fn set_splice_secrets(&mut self, nth: usize, secrets: [SecretKey; 2]) {
        self.splice_secrets.insert(nth, secrets);
    }

    pub(super) fn set_capacity(&mut self, capacity: Amount) {
        self.params.capacity = capacity;
        self.terms.channel_value_satoshis = capacity.to_sat();
    }

    /// Where the funding output is.
    pub fn funding(&self) -> Result<OutPoint, PeerError> {
        self.funding.ok_or(PeerError::NoFunding)
    }

    /// What our node's signer holds.
    pub fn local_secrets(&self) -> &PartySecrets {
        &self.local
    }

    /// What the peer holds.
    pub fn remote_secrets(&self) -> &PartySecrets {
        &self.remote
    }

    /// The public keys of one side.
    pub fn keys(&self, side: Side) -> PartyKeys {
        match side {
            Side::Local => self.local_keys,
            Side::Remote => self.remote_keys,
        }
    }

    /// The per-commitment point of one side's commitment `number`.
    pub fn commitment_point(&self, owner: Side, number: u64) -> Result<PublicKey, PeerError> {
        let secret = self.secrets(owner).commitment_secret(number)?;
        Ok(PublicKey::from_secret_key(&self.secp, &secret))
    }

    /// The peer's per-commitment secret, if it has revoked that commitment.
    pub fn revocation_secret(&self, number: u64) -> Result<Option<[u8; 32]>, PeerError> {
        if number >= self.remote_number() {
            return Ok(None);
        }
        Ok(Some(self.remote.commitment_secret(number)?.secret_bytes()))
    }

    /// Where the peer's claims pay to.
    pub fn peer_script(&self) -> ScriptBuf {
        self.remote.wallet_script(&self.secp)
    }

    /// The key of [`Self::peer_script`], for spending it again.
    pub fn peer_wallet_key(&self) -> SecretKey {
        self.remote.wallet
    }

    /// The script that one side named, or would name, in `shutdown`.
    pub fn shutdown_script(&self, side: Side) -> ScriptBuf {
        let [local, remote] = &self.shutdown_scripts;
        let agreed = match side {
            Side::Local => local,
            Side::Remote => remote,
        };
        agreed.clone().unwrap_or_else(|| self.secrets(side).wallet_script(&self.secp))
    }

    /// Replaces the default shutdown script of one side.
    pub fn set_shutdown_script(&mut self, side: Side, script: ScriptBuf) {
        let [local, remote] = &mut self.shutdown_scripts;
        match side {
            Side::Local => *local = Some(script),
            Side::Remote => *remote = Some(script),
        }
    }

    pub(super) fn secrets(&self, side: Side) -> &PartySecrets {
        match side {
            Side::Local => &self.local,
            Side::Remote => &self.remote,
        }
    }

    /// Blocks that the owner of a commitment waits for its `to_local`.
    pub(super) fn delay(&self, owner: Side) -> u16 {
        match owner {
            Side::Local => self.params.local_delay,
            Side::Remote => self.params.remote_delay,
        }
    }

    pub(super) fn dust(&self, owner: Side) -> Amount {
        match owner {
            Side::Local => self.params.dust,
            Side::Remote => self.params.remote_dust,
        }
    }

    /// `lightning`'s view of the owner's commitments. `lightning` panics where there is no
    /// funding outpoint, so its absence is an error here.
    pub(super) fn directed(
        &self,
        owner: Side,
    ) -> Result<DirectedChannelTransactionParameters<'_>, PeerError> {
        self.funding()?;
        Ok(match owner {
            Side::Local => self.terms.as_holder_broadcastable(),
            Side::Remote => self.terms.as_counterparty_broadcastable(),
        })
    }
}
