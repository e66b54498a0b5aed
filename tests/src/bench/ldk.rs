//! `lightning`'s `ChainMonitor` with many monitors, to compare with. Two of its nodes open a channel
//! between them; its monitor is written once and read as often as wanted. The funding output is
//! confirmed and nothing is pending: the cheapest monitor of an open channel.
use arb_core::claim::trough::Troughs;
use std::io::Cursor;
use std::sync::Arc;

use arb_core::ports::FeeEstimates;
use arb_node_adapter::{Egress, LdkFees, MonitorEgress};
use bitcoin::{Amount, Block, BlockHash, FeeRate};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{ChannelMonitorUpdateStatus, Listen};
use lightning::ln::types::ChannelId;
use lightning::sign::{KeysManager, NodeSigner};
use lightning::util::persist::MonitorName;
use lightning::util::ser::{ReadableArgs, Writeable};

use super::BenchError;
use super::channels::TIP;
use super::synthetic::Random;
use crate::ldk::{ChannelKeys, Kind, LdkError, Net, Outbox, Quiet, Signers};

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const PUSHED_MSAT: u64 = 400_000_000;

type Monitor = ChannelMonitor<ChannelKeys>;
type Chain = crate::ldk::Monitors;

/// The monitor of an open channel, as bytes.
pub(super) struct Model {
    bytes: Vec<u8>,
    keys: Arc<KeysManager>,
    signers: Arc<Signers>,
}

impl Model {
    /// Opens a channel.
    ///
    /// # Errors
    /// It did not open.
    pub(super) fn open_channel() -> Result<Self, BenchError> {
        let mut net = Net::new(2, Kind::Anchors);
        let link = net.open(0, 1, CAPACITY, PUSHED_MSAT)?;
        let node = &net.nodes[0];
        let monitor = node.monitors.get_monitor(link.id);
        let bytes = monitor.map_err(|()| failed("the channel has no monitor"))?.encode();
        Ok(Self { bytes, keys: node.keys.clone(), signers: node.signers.clone() })
    }

    /// A `ChainMonitor` that holds the monitor this many times, under different ids; with what
    /// decides whether it publishes.
    ///
    /// # Errors
    /// A monitor is not read back.
    pub(super) fn load(&self, count: u32) -> Result<Monitors, BenchError> {
        let mut random = Random::new("monitors", u64::from(count));
        let egress = Arc::new(Egress::default());
        let outbox = Arc::new(Outbox::default());
        let fees = FeeEstimates {
            targets: Vec::new(),
            floor: FeeRate::BROADCAST_MIN,
            troughs: Troughs::default(),
        };
        let chain = ChainMonitor::new(
            None,
            Arc::new(MonitorEgress::new(outbox, egress.clone())),
            Arc::new(Quiet),
            Arc::new(LdkFees::new(fees)),
            Arc::new(DoneAtOnce) as crate::ldk::StoredMonitors,
            self.keys.clone(),
            self.keys.get_peer_storage_key(),
        );
        for _ in 0..count {
            let id = ChannelId(random.bytes32());
            let loaded = chain.load_existing_monitor(id, self.read()?);
            loaded.map_err(|()| failed("a monitor is there already"))?;
        }
        Ok(Monitors { chain, egress, height: TIP })
    }

    fn read(&self) -> Result<Monitor, BenchError> {
        let args = (&*self.keys, &*self.signers);
        let read = <(BlockHash, Monitor)>::read(&mut Cursor::new(&self.bytes), args);
        let (_, monitor) = read.map_err(|error| failed(&format!("the monitor: {error}")))?;
        Ok(monitor)
    }
}

/// Many monitors.
pub(super) struct Monitors {
    chain: Chain,
    pub(super) egress: Arc<Egress>,
    height: u32,
}

impl Monitors {
    /// Connects a block: all that `lightning` does for it.
    pub(super) fn connect(&mut self, block: &Block) {
        self.height += 1;
        self.egress.best_height(self.height);
        self.chain.block_connected(block, self.height);
    }

    /// Number of monitors.
    pub(super) fn len(&self) -> usize {
        self.chain.list_monitors().len()
    }
}

fn failed(what: &str) -> BenchError {
    BenchError::Ldk(what.to_owned())
}

impl From<LdkError> for BenchError {
    fn from(error: LdkError) -> Self {
        failed(&error.to_string())
    }
}

/// As cheap as can be: whatever is to be persisted is done at once.
struct DoneAtOnce;

impl Persist<ChannelKeys> for DoneAtOnce {
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
        assert_eq!(monitors.height, TIP + 1);
        for id in monitors.chain.list_monitors() {
            let monitor = monitors.chain.get_monitor(id).map_err(|()| failed("gone"))?;
            assert_eq!(monitor.current_best_block().height, monitors.height);
        }
        Ok(())
    }
}
