//! The channels are opened by the nodes themselves.
use super::{Ends, Nodes, Runner, US, ldk_failed};
use crate::ldk::{Delivery, Hands, Kept, Kind, Lines, MemoryKv, Node};
use crate::peer::{self, Channel, ChannelParams, PartyKeys, PartySecrets};
use crate::runner::Failed;
use crate::runner::splice::LOCKED_AT;
use crate::runner::story::{Chan, FUNDING_DEPTH};
use crate::scenario::ast::{self, ChannelName};
use crate::world::{channel_id, first_facts};
use arb_core::claim::trough::Troughs;
use arb_core::ports::FeeEstimates;
use arb_node_adapter::{GatedPersist, LdkFees, Recorder};
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{FeeRate, OutPoint, ScriptBuf};
use lightning::chain::BestBlock;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::transaction::OutPoint as LdkOutPoint;
use lightning::events::Event;
use lightning::ln::types::ChannelId as LdkChannelId;
use lightning::sign::{ChannelSigner, InMemorySigner, SignerProvider};
use lightning::util::config::{ChannelConfigOverrides, ChannelHandshakeConfigUpdate, UserConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

/// LDK's own identity of a channel, which the nodes do not use.
const USER_CHANNEL_ID: u128 = 1;

/// A channel that waits for its funding output.
pub(in crate::runner) struct Proposed {
    pub(in crate::runner) name: ChannelName,
    pub(in crate::runner) peer: Channel,
    opener: usize,
    other: usize,
    temporary: LdkChannelId,
}

/// The seed of a node's keys.
pub(super) fn seed_of(node: usize) -> u8 {
    // A story with more channels than that has other troubles.
    u8::try_from(node).unwrap_or(u8::MAX - 1) + 1
}

/// What the nodes are set to.
pub(super) fn config(kind: Kind) -> UserConfig {
    let mut config = kind.config();
    config.accept_intercept_htlcs = true;
    // As many as the format allows.
    config.channel_handshake_config.our_max_accepted_htlcs = u16::MAX;
    let delta = crate::scenario::ldk::FORWARDING_DELTA;
    config.channel_config.cltv_expiry_delta = u16::try_from(delta).unwrap_or(u16::MAX);
    config.channel_config.forwarding_fee_base_msat = 0;
    // A splice is locked at this depth; the channels are deeper when they are opened.
    config.channel_handshake_config.minimum_depth = LOCKED_AT;
    config
}

/// Gives a node's estimator the answers of another one.
pub(super) fn take_fees(node: &Node, fees: &LdkFees) {
    let rate = fees.get_est_sat_per_1000_weight(ConfirmationTarget::OutputSpendingFee);
    set_fees(node, FeeRate::from_sat_per_kwu(rate.into()));
}

/// Gives a node's estimator one answer.
pub(super) fn set_fees(node: &Node, rate: FeeRate) {
    node.fees.set(FeeEstimates {
        targets: vec![(1, rate)],
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    });
}

const fn kind(format: ast::Format) -> Kind {
    match format {
        ast::Format::StaticRemotekey => Kind::StaticRemotekey,
        ast::Format::ZeroFee => Kind::ZeroFee,
        ast::Format::Anchors | ast::Format::Taproot => Kind::Anchors,
    }
}

impl Nodes {
    /// Our node and a peer for each channel, at a block.
    fn new(
        channels: &[ast::Channel],
        best: BestBlock,
        coins: arb_watcher::memory::MemoryCoins,
    ) -> Result<Self, Failed> {
        let gated = |taps: &Arc<arb_node_adapter::Taps>| {
            Arc::new(GatedPersist::new(taps.clone())) as crate::ldk::StoredMonitors
        };
        let mut nodes = vec![Node::begin(seed_of(US), config(Kind::ZeroFee), best, &gated)];
        nodes[US].egress.set(arb_node_adapter::Mode::Own);
        let mut kept = Vec::new();
        for (at, channel) in (1..).zip(channels) {
            let keeper = Arc::new(Kept::default());
            kept.push(Arc::clone(&keeper));
            let stored = move |_: &Arc<arb_node_adapter::Taps>| {
                Arc::clone(&keeper) as crate::ldk::StoredMonitors
            };
            nodes.push(Node::begin(seed_of(at), config(kind(channel.format)), best, &stored));
        }
        let store = Arc::new(MemoryKv::default());
        let recorder = Recorder::open(nodes[US].taps.clone(), store.clone(), &[])
            .map_err(|waiting| Failed::new("a recorder", waiting))?;
        Ok(Self {
            lines: Lines::default(),
            hands: Hands::new(&nodes[US], coins),
            shown: vec![vec![(best.height, best.block_hash)]; nodes.len()],
            nodes,
            recorder,
            store,
            kept,
            channels: BTreeMap::new(),
            forks: BTreeMap::new(),
            payments: BTreeMap::new(),
            sent: 0,
            waiting: Vec::new(),
            intercepted: BTreeMap::new(),
            claimed: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            ended: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            not_forwarded: BTreeSet::new(),
            closings: BTreeMap::new(),
            kept_back: BTreeSet::new(),
            faults: Arc::default(),
            delivery: Delivery::default(),
            bodies: BTreeMap::new(),
            highest: 0,
            said: Vec::new(),
            spendable: super::Spendable::default(),
            compared: Default::default(),
            buried: Mutex::default(),
        })
    }

    /// Messages alone, until none moves.
    fn chat(&self, peer: usize) {
        loop {
            let mut moved = false;
            for from in [US, peer] {
                moved |= self.nodes[from].collect_events();
                moved |= self.lines.pass(&self.nodes, from);
            }
            if !moved {
                return;
            }
        }
    }

    /// A channel up to the script of its funding output.
    fn propose(
        &mut self,
        channel: &ast::Channel,
        at: usize,
    ) -> Result<(Proposed, ScriptBuf), Failed> {
        let missing = |what: &str| Failed::new(format!("{what} of LDK"), "none");
        let (opener, other) = match channel.opener {
            ast::Side::Local => (US, at),
            ast::Side::Remote => (at, US),
        };
        for node in [opener, other] {
            set_fees(&self.nodes[node], channel.feerate);
        }
        self.lines.connect(&self.nodes, US, at);
        let all = channel.capacity.to_sat() * 1000;
        let push = match channel.opener {
            ast::Side::Local => all - channel.local.0,
            ast::Side::Remote => channel.local.0,
        };
        let to = self.nodes[other].id();
        let (sat, mut config) = (channel.capacity.to_sat(), config(kind(channel.format)));
        // Each side names the other's delay.
        let (of_opener, of_other) = match channel.opener {
            ast::Side::Local => (channel.local_delay, channel.remote_delay),
            ast::Side::Remote => (channel.remote_delay, channel.local_delay),
        };
        config.channel_handshake_config.our_to_self_delay = of_other;
        let overrides = ChannelConfigOverrides {
            handshake_overrides: Some(ChannelHandshakeConfigUpdate {
                to_self_delay: Some(of_opener),
                ..Default::default()
            }),
            update_overrides: None,
        };
        self.nodes[opener]
            .manager
            .create_channel(to, sat, push, USER_CHANNEL_ID, None, Some(config))
            .map_err(ldk_failed)?;
        self.chat(at);
        let asked = self.nodes[other].take_event(|event| match event {
            Event::OpenChannelRequest { temporary_channel_id, .. } => Some(*temporary_channel_id),
            _ => None,
        });
        let asked = asked.ok_or_else(|| missing("open_channel"))?;
        let from = self.nodes[opener].id();
        self.nodes[other]
            .manager
            .accept_inbound_channel(&asked, &from, USER_CHANNEL_ID, Some(overrides))
            .map_err(ldk_failed)?;
        self.chat(at);
        let wanted = self.nodes[opener].take_event(|event| match event {
            Event::FundingGenerationReady { temporary_channel_id, output_script, .. } => {
                Some((*temporary_channel_id, output_script.clone()))
            }
            _ => None,
        });
        let (temporary, script) = wanted.ok_or_else(|| missing("accept_channel"))?;
        let peer = self.model(channel, at)?;
        if peer.funding_script() != script {
            let found = format!("{script} of LDK");
            return Err(Failed::new(format!("{}", peer.funding_script()), found));
        }
        Ok((Proposed { name: channel.name.clone(), peer, opener, other, temporary }, script))
    }

    /// The signers of a channel, ours first, by its peer.
    pub(super) fn signers(&self, peer: usize) -> [InMemorySigner; 2] {
        [(US, peer - 1), (peer, 0)].map(|(node, number)| {
            // The first channel of a node has number 0, in LDK's way to name a channel's keys.
            let mut id = [0; 32];
            id[..4].copy_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
            id[4..8].copy_from_slice(&u32::from(seed_of(node)).to_be_bytes());
            id[8..16].copy_from_slice(&1u64.to_be_bytes());
            id[16..].copy_from_slice(&USER_CHANNEL_ID.to_be_bytes());
            self.nodes[node].keys.derive_channel_keys(&id)
        })
    }

    /// The model of a channel with the keys that its nodes have.
    fn model(&self, channel: &ast::Channel, at: usize) -> Result<Channel, Failed> {
        let params = crate::runner::story::params_of(channel)?;
        let [ours, theirs] = self.signers(at);
        let local = party(&ours, &params, peer::Side::Local);
        let remote = party(&theirs, &params, peer::Side::Remote);
        let mut model = Channel::with_parties(params, local, remote)?;
        for (node, side) in [(US, peer::Side::Local), (at, peer::Side::Remote)] {
            let script = self.nodes[node].keys.get_shutdown_scriptpubkey().map_err(ldk_failed)?;
            model.set_shutdown_script(side, script.into());
        }
        Ok(model)
    }
}

fn party(
    signer: &InMemorySigner,
    params: &ChannelParams,
    side: peer::Side,
) -> (PartySecrets, PartyKeys) {
    let secp = Secp256k1::new();
    let public = signer.pubkeys(&secp);
    let secrets = PartySecrets {
        funding: signer.funding_key(None),
        revocation_base: signer.revocation_base_key,
        // LDK keeps it to itself, and no statement spends by it.
        payment: signer.htlc_base_key,
        delayed_payment_base: signer.delayed_payment_base_key,
        htlc_base: signer.htlc_base_key,
        commitment_seed: signer.commitment_seed,
        wallet: PartySecrets::wallet_of(&params.name, params.seed, side),
    };
    let keys = PartyKeys {
        funding: public.funding_pubkey,
        revocation_basepoint: public.revocation_basepoint.to_public_key(),
        payment_basepoint: public.payment_point,
        delayed_payment_basepoint: public.delayed_payment_basepoint.to_public_key(),
        htlc_basepoint: public.htlc_basepoint.to_public_key(),
    };
    (secrets, keys)
}

impl Runner<'_> {
    /// The nodes, and their channels up to the scripts of the funding outputs.
    pub(in crate::runner) async fn propose_ldk(
        &mut self,
    ) -> Result<Vec<(Proposed, ScriptBuf)>, Failed> {
        let height = self.world.backend.height().await?;
        let block = self.world.backend.block_at(height).await?;
        let block = block.ok_or_else(|| Failed::new("a tip", "none"))?;
        let best = BestBlock::new(block.block_hash(), height);
        let channels = &self.scenario.channels;
        let mut nodes = Nodes::new(channels, best, self.world.wallet.clone())?;
        let proposed =
            (1..).zip(channels).map(|(at, channel)| nodes.propose(channel, at)).collect();
        self.node.beside = Some(nodes.beside(Arc::clone(&self.signs)));
        self.ldk = Some(nodes);
        proposed
    }

    /// Tells the nodes where the funding outputs are; the arbiter runs.
    pub(in crate::runner) async fn open_ldk(
        &mut self,
        proposed: Vec<(Proposed, OutPoint)>,
    ) -> Result<(), Failed> {
        for (Proposed { name, mut peer, opener, other, temporary }, funding) in proposed {
            peer.set_funding(funding)?;
            peer.take_facts(peer::Keep::Newest)?;
            let nodes = self.nodes()?;
            let to = nodes.nodes[other].id();
            let index = u16::try_from(funding.vout)
                .map_err(|_| Failed::new("a funding output below 65536", funding.vout))?;
            let at = LdkOutPoint { txid: funding.txid, index };
            nodes.nodes[opener]
                .manager
                .unsafe_manual_funding_transaction_generated(temporary, to, at)
                .map_err(ldk_failed)?;
            let far = opener.max(other);
            self.talk(far).await?;
            let birth = (self.world.height() + 1).saturating_sub(FUNDING_DEPTH);
            let (id, first) = (channel_id(&funding), first_facts(&peer, birth)?);
            let ends = Ends { peer: far, id: LdkChannelId(id.0), short_id: 0 };
            self.nodes_mut()?.channels.insert(name.clone(), ends);
            self.channels.insert(name, Chan::new(peer, id, funding, first));
        }
        let peers: Vec<usize> = (1..self.nodes()?.nodes.len()).collect();
        self.show(US).await?;
        for peer in peers {
            self.show(peer).await?;
            self.talk(peer).await?;
            self.nodes_mut()?.hang_up(peer);
        }
        self.nodes_mut()?.find_short_ids()
    }
}

impl Nodes {
    /// The peer is not reached any more.
    pub(super) fn hang_up(&mut self, peer: usize) {
        self.lines.cut(&self.nodes, US, peer);
    }

    fn find_short_ids(&mut self) -> Result<(), Failed> {
        let all = self.nodes[US].manager.list_channels();
        for (name, ends) in &mut self.channels {
            let details = all.iter().find(|details| details.channel_id == ends.id);
            let ready = details.filter(|details| details.is_channel_ready);
            let short_id = ready.and_then(|details| details.short_channel_id);
            ends.short_id = short_id
                .ok_or_else(|| Failed::new(format!("channel {name} to be ready"), "not"))?;
        }
        Ok(())
    }

    /// The channel has another name since a splice is locked.
    pub(super) fn rename(&mut self, channel: &ChannelName) {
        let all = self.nodes[US].manager.list_channels();
        let Some(ends) = self.channels.get_mut(channel) else { return };
        let details = all.iter().find(|details| details.channel_id == ends.id);
        if let Some(short_id) = details.and_then(|details| details.short_channel_id) {
            ends.short_id = short_id;
        }
    }
}
