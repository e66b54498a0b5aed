//! `lightning`'s `ChainMonitor` with many monitors, to compare with. Two of its channel managers
//! open a channel between them; its monitor is written once and read as often as wanted. The
//! funding output is confirmed and nothing is pending: the cheapest monitor of an open channel.
use std::io::Cursor;
use std::sync::{Arc, Mutex};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Txid, Witness, transaction,
};
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FEERATE_FLOOR_SATS_PER_KW, FeeEstimator,
};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BestBlock, ChannelMonitorUpdateStatus, Filter, Listen, WatchedOutput};
use lightning::events::{Event, EventsProvider};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{ChainParameters, ChannelManager};
use lightning::ln::msgs::{BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent};
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, ReceiveAuthKey};
use lightning::util::config::UserConfig;
use lightning::util::errors::APIError;
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{ReadableArgs, Writeable};

use super::BenchError;
use super::synthetic::Random;

/// Seed of the node whose monitors are measured, and of its peer.
const SEEDS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const CAPACITY: u64 = 1_000_000;
const PUSHED_MSAT: u64 = 400_000_000;
/// Blocks on top of the one that holds the funding transaction.
const BURIED: u32 = 6;

type Monitor = ChannelMonitor<InMemorySigner>;
type Chain = ChainMonitor<
    InMemorySigner,
    Arc<Outside>,
    Arc<Outside>,
    Arc<Outside>,
    Arc<Outside>,
    Arc<Outside>,
    Arc<KeysManager>,
>;
type Manager = ChannelManager<
    Arc<Chain>,
    Arc<Outside>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Outside>,
    Arc<Outside>,
    Arc<Outside>,
    Arc<Outside>,
>;

/// The monitor of an open channel, as bytes.
pub(super) struct Model {
    bytes: Vec<u8>,
    keys: Arc<KeysManager>,
    height: u32,
}

impl Model {
    /// Opens a channel.
    ///
    /// # Errors
    /// It did not open.
    pub(super) fn open_channel() -> Result<Self, BenchError> {
        let mut tip = BestBlock::from_network(Network::Regtest);
        let [ours, peer] = SEEDS.map(Node::new);
        ours.meet(&peer)?;
        peer.meet(&ours)?;
        ours.manager
            .create_channel(peer.id, CAPACITY, PUSHED_MSAT, 1, None, None)
            .map_err(refused)?;
        talk(&ours, &peer)?;
        let funding = ours.fund()?;
        talk(&ours, &peer)?;
        for at in 0..=BURIED {
            let txdata = if at == 0 { vec![funding.clone()] } else { Vec::new() };
            let block = block_on(tip.block_hash, txdata);
            tip = BestBlock::new(block.block_hash(), tip.height + 1);
            for node in [&ours, &peer] {
                node.monitors.block_connected(&block, tip.height);
                node.manager.block_connected(&block, tip.height);
            }
            talk(&ours, &peer)?;
        }
        let channel = ours.manager.list_usable_channels().pop();
        let channel = channel.ok_or_else(|| failed("the channel is not usable"))?;
        let monitor = ours.monitors.get_monitor(channel.channel_id);
        let bytes = monitor.map_err(|()| failed("the channel has no monitor"))?.encode();
        Ok(Self { bytes, keys: ours.keys, height: tip.height })
    }

    /// A `ChainMonitor` that holds the monitor this many times, under different ids.
    ///
    /// # Errors
    /// A monitor is not read back.
    pub(super) fn load(&self, count: u32) -> Result<Monitors, BenchError> {
        let mut random = Random::new("monitors", u64::from(count));
        let chain = chain_monitor(&Arc::new(Outside), &self.keys);
        for _ in 0..count {
            let id = ChannelId(random.bytes32());
            let loaded = chain.load_existing_monitor(id, self.read()?);
            loaded.map_err(|()| failed("a monitor is there already"))?;
        }
        Ok(Monitors { chain, height: self.height })
    }

    fn read(&self) -> Result<Monitor, BenchError> {
        let keys = self.keys.as_ref();
        let read = <(BlockHash, Monitor)>::read(&mut Cursor::new(&self.bytes), (keys, keys));
        let (_, monitor) = read.map_err(|error| failed(&format!("the monitor: {error}")))?;
        Ok(monitor)
    }
}

/// Many monitors.
pub(super) struct Monitors {
    chain: Chain,
    height: u32,
}

impl Monitors {
    /// Connects a block: all that `lightning` does for it.
    pub(super) fn connect(&mut self, block: &Block) {
        self.height += 1;
        self.chain.block_connected(block, self.height);
    }

    /// Number of monitors.
    pub(super) fn len(&self) -> usize {
        self.chain.list_monitors().len()
    }
}

/// A node of `lightning`'s, as far as opening a channel needs one.
struct Node {
    id: PublicKey,
    keys: Arc<KeysManager>,
    monitors: Arc<Chain>,
    manager: Manager,
}

impl Node {
    fn new(seed: [u8; 32]) -> Self {
        let outside = Arc::new(Outside);
        let keys = Arc::new(KeysManager::new(&seed, 0, 0, true));
        let monitors = Arc::new(chain_monitor(&outside, &keys));
        let mut config =
            UserConfig { manually_accept_inbound_channels: true, ..Default::default() };
        config.channel_handshake_config.negotiate_anchors_zero_fee_htlc_tx = true;
        let params = ChainParameters {
            network: Network::Regtest,
            best_block: BestBlock::from_network(Network::Regtest),
        };
        let manager = ChannelManager::new(
            outside.clone(),
            monitors.clone(),
            outside.clone(),
            outside.clone(),
            outside.clone(),
            outside,
            keys.clone(),
            keys.clone(),
            keys.clone(),
            config,
            params,
            0,
        );
        Self { id: manager.get_our_node_id(), keys, monitors, manager }
    }

    fn meet(&self, other: &Self) -> Result<(), BenchError> {
        let features = other.manager.init_features();
        let init = Init { features, networks: None, remote_network_address: None };
        let met = self.manager.peer_connected(other.id, &init, true);
        met.map_err(|()| failed("the peers refuse each other"))
    }

    fn events(&self) -> Vec<Event> {
        let events = Mutex::new(Vec::new());
        self.manager.process_pending_events(&|event| {
            if let Ok(mut events) = events.lock() {
                events.push(event);
            }
            Ok(())
        });
        events.into_inner().unwrap_or_default()
    }

    /// Hands over the funding transaction that the manager asks for.
    fn fund(&self) -> Result<Transaction, BenchError> {
        let asked = self.events().into_iter().find_map(|event| match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                output_script,
                ..
            } => Some((temporary_channel_id, counterparty_node_id, output_script)),
            _ => None,
        });
        let (channel, peer, script) = asked.ok_or_else(|| failed("no funding is asked for"))?;
        let funding = funding_transaction(script);
        self.manager
            .funding_transaction_generated(channel, peer, funding.clone())
            .map_err(refused)?;
        Ok(funding)
    }

    fn accept(&self) -> Result<(), BenchError> {
        for event in self.events() {
            if let Event::OpenChannelRequest {
                temporary_channel_id: id,
                counterparty_node_id,
                ..
            } = event
            {
                self.manager
                    .accept_inbound_channel(&id, &counterparty_node_id, 1, None)
                    .map_err(refused)?;
            }
        }
        Ok(())
    }

    fn hear(&self, from: PublicKey, message: &MessageSendEvent) -> Result<(), BenchError> {
        match message {
            MessageSendEvent::SendOpenChannel { msg, .. } => {
                self.manager.handle_open_channel(from, msg);
                self.accept()?;
            }
            MessageSendEvent::SendAcceptChannel { msg, .. } => {
                self.manager.handle_accept_channel(from, msg);
            }
            MessageSendEvent::SendFundingCreated { msg, .. } => {
                self.manager.handle_funding_created(from, msg);
            }
            MessageSendEvent::SendFundingSigned { msg, .. } => {
                self.manager.handle_funding_signed(from, msg);
            }
            MessageSendEvent::SendChannelReady { msg, .. } => {
                self.manager.handle_channel_ready(from, msg);
            }
            MessageSendEvent::HandleError { action, .. } => {
                return Err(failed(&format!("a peer is told of an error: {action:?}")));
            }
            // Gossip: nothing of it reaches a monitor.
            _ => {}
        }
        Ok(())
    }
}

/// Hands messages over until neither has any.
fn talk(one: &Node, other: &Node) -> Result<(), BenchError> {
    loop {
        let mut silent = true;
        for (from, to) in [(one, other), (other, one)] {
            for message in from.manager.get_and_clear_pending_msg_events() {
                to.hear(from.id, &message)?;
                silent = false;
            }
        }
        if silent {
            return Ok(());
        }
    }
}

fn chain_monitor(outside: &Arc<Outside>, keys: &Arc<KeysManager>) -> Chain {
    ChainMonitor::new(
        None,
        outside.clone(),
        outside.clone(),
        outside.clone(),
        outside.clone(),
        keys.clone(),
        keys.get_peer_storage_key(),
    )
}

fn funding_transaction(script: ScriptBuf) -> Transaction {
    let input = TxIn {
        previous_output: OutPoint { txid: Txid::from_byte_array([9; 32]), vout: 0 },
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[1u8; 64]]),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut { value: Amount::from_sat(CAPACITY), script_pubkey: script }],
    }
}

fn block_on(prev_blockhash: BlockHash, txdata: Vec<Transaction>) -> Block {
    let header = Header {
        version: Version::TWO,
        prev_blockhash,
        merkle_root: TxMerkleNode::all_zeros(),
        time: 1_700_000_000,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    Block { header, txdata }
}

fn failed(what: &str) -> BenchError {
    BenchError::Ldk(what.to_owned())
}

fn refused(error: APIError) -> BenchError {
    BenchError::Ldk(format!("{error:?}"))
}

/// Everything outside of `lightning`, as cheap as can be: nothing is sent, found or said, feerates
/// are the floor, and whatever is to be persisted is done at once.
struct Outside;

impl BroadcasterInterface for Outside {
    fn broadcast_transactions(&self, _: &[&Transaction]) {}
}

impl FeeEstimator for Outside {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        FEERATE_FLOOR_SATS_PER_KW
    }
}

impl Filter for Outside {
    fn register_tx(&self, _: &Txid, _: &bitcoin::Script) {}
    fn register_output(&self, _: WatchedOutput) {}
}

impl Logger for Outside {
    fn log(&self, _: Record) {}
}

impl Persist<InMemorySigner> for Outside {
    fn persist_new_channel(&self, _: MonitorName, _: &Monitor) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &Monitor,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

impl Router for Outside {
    fn find_route(
        &self,
        _: &PublicKey,
        _: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        Err("there is no network")
    }

    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        _: PublicKey,
        _: Vec<ChannelDetails>,
        _: ReceiveTlvs,
        _: Option<u64>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}

impl MessageRouter for Outside {
    fn find_path(
        &self,
        _: PublicKey,
        _: Vec<PublicKey>,
        _: Destination,
    ) -> Result<OnionMessagePath, ()> {
        Err(())
    }

    fn create_blinded_paths<T: Signing + Verification>(
        &self,
        _: PublicKey,
        _: ReceiveAuthKey,
        _: MessageContext,
        _: Vec<MessageForwardNode>,
        _: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        Err(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightning::chain::channelmonitor::Balance;

    #[test]
    fn monitors_of_an_open_channel_follow_blocks() -> Result<(), BenchError> {
        let model = Model::open_channel()?;
        assert!(model.bytes.len() > 4_000, "{} bytes", model.bytes.len());
        let mut monitors = model.load(3)?;
        assert_eq!(monitors.len(), 3);
        let balances = model.read()?.get_claimable_balances();
        let open = matches!(balances.as_slice(), [Balance::ClaimableOnChannelClose { .. }]);
        assert!(open, "{balances:?}");
        monitors.connect(&super::super::synthetic::block(1, &[])?);
        assert_eq!(monitors.height, model.height + 1);
        for id in monitors.chain.list_monitors() {
            let monitor = monitors.chain.get_monitor(id).map_err(|()| failed("gone"))?;
            assert_eq!(monitor.current_best_block().height, monitors.height);
        }
        Ok(())
    }
}
