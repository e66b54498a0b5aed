//! The gate: nothing that LDK wrote is stored or completed before the arbiter has it.
use super::monitor::known;
use super::taps::{Job, Stored, Taps};
use arb_core::ids::ChannelId;
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;
use std::sync::Arc;

/// LDK's persister. It hands everything to the [`super::Recorder`] and always answers `InProgress`:
/// LDK 0.2 panics when both answers are mixed.
///
/// The recorder writes the monitors, where and as [`lightning::util::persist`] does, and only after
/// the arbiter's receipt. Written earlier, a monitor would tell LDK after a crash that the update is
/// done, and the arbiter would never hear of it.
#[derive(Debug)]
pub struct GatedPersist {
    taps: Arc<Taps>,
}

impl GatedPersist {
    /// Hands over to the recorder of these taps.
    #[must_use]
    pub const fn new(taps: Arc<Taps>) -> Self {
        Self { taps }
    }
}

fn stored<S: EcdsaChannelSigner>(name: MonitorName, monitor: &ChannelMonitor<S>) -> Stored {
    Stored { name: name.to_string(), bytes: monitor.encode() }
}

impl<S: EcdsaChannelSigner> Persist<S> for GatedPersist {
    fn persist_new_channel(
        &self,
        monitor_name: MonitorName,
        monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        let channel = ChannelId(monitor.channel_id().0);
        let peer = monitor.get_counterparty_node_id();
        self.taps.follow(channel, peer);
        let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
        let remote = monitor.initial_counterparty_commitment_tx();
        let birth = monitor.current_best_block().height;
        let update = monitor.get_latest_update_id();
        let monitor = stored(monitor_name, monitor);
        // No method of LDK's says it.
        let destination = known(&monitor.bytes).ok().map(|known| known.destination);
        let said = (remote, destination);
        let opening = self.taps.opening(channel, peer, funding, said, birth).map(Box::new);
        self.taps.enqueue(Job::Open { channel, update, opening, monitor });
        let link = self.taps.link(peer);
        self.taps.enqueue(Job::Signals { channel, names: None, link });
        ChannelMonitorUpdateStatus::InProgress
    }

    fn update_persisted_channel(
        &self,
        monitor_name: MonitorName,
        monitor_update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        let channel = ChannelId(monitor.channel_id().0);
        let job = match monitor_update {
            Some(update) => {
                let remotes = monitor.counterparty_commitment_txs_from_update(update);
                for (funding, _) in update.renegotiated_funding_data() {
                    self.taps.spliced(&funding.into_bitcoin_outpoint());
                }
                Job::Update {
                    channel,
                    update: update.update_id,
                    bytes: update.encode(),
                    txids: remotes.iter().map(|remote| remote.trust().txid()).collect(),
                    height: monitor.current_best_block().height,
                    announced: self.taps.take_committed(channel),
                    monitor: stored(monitor_name, monitor),
                }
            }
            // The monitor's view of the chain, or that it has refused an update: LDK says the same of
            // both, and nothing waits for it.
            None => {
                let update = monitor.get_latest_update_id();
                Job::Monitor { channel, update, monitor: stored(monitor_name, monitor) }
            }
        };
        self.taps.enqueue(job);
        ChannelMonitorUpdateStatus::InProgress
    }

    fn archive_persisted_channel(&self, monitor_name: MonitorName) {
        self.taps.enqueue(Job::Archive { name: monitor_name.to_string() });
    }
}
