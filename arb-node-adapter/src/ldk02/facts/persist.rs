//! The gate: nothing that LDK wrote is completed before the arbiter has it.
use super::taps::{Job, Taps};
use arb_core::ids::ChannelId;
use core::ops::Deref;
use lightning::chain::ChannelMonitorUpdateStatus;
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::util::persist::MonitorName;
use lightning::util::ser::Writeable;
use std::sync::Arc;

/// A persister that hands on what the inner one has stored, and always answers `InProgress`:
/// LDK 0.2 panics when both answers are mixed. The [`super::Recorder`] completes the updates.
///
/// The inner persister must be done when it returns, as those of [`lightning::util::persist`] are
/// over a `KVStoreSync`. An update that it leaves in progress is never completed.
#[derive(Debug)]
pub struct GatedPersist<P> {
    inner: P,
    taps: Arc<Taps>,
}

impl<P> GatedPersist<P> {
    /// Gates `inner`.
    pub const fn new(inner: P, taps: Arc<Taps>) -> Self {
        Self { inner, taps }
    }
}

impl<P, S> Persist<S> for GatedPersist<P>
where
    P: Deref<Target: Persist<S>>,
    S: EcdsaChannelSigner,
{
    fn persist_new_channel(
        &self,
        monitor_name: MonitorName,
        monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        let stored = self.inner.persist_new_channel(monitor_name, monitor);
        if stored == ChannelMonitorUpdateStatus::Completed {
            let channel = ChannelId(monitor.channel_id().0);
            self.taps.follow(channel, monitor.get_counterparty_node_id());
            let funding = monitor.get_funding_txo().into_bitcoin_outpoint();
            let remote = monitor.initial_counterparty_commitment_tx();
            let birth = monitor.current_best_block().height;
            let opening = self.taps.opening(channel, funding, remote, birth).map(Box::new);
            let update = monitor.get_latest_update_id();
            self.taps.enqueue(Job::Open { channel, update, opening });
        }
        gated(stored)
    }

    fn update_persisted_channel(
        &self,
        monitor_name: MonitorName,
        monitor_update: Option<&ChannelMonitorUpdate>,
        monitor: &ChannelMonitor<S>,
    ) -> ChannelMonitorUpdateStatus {
        let stored = self.inner.update_persisted_channel(monitor_name, monitor_update, monitor);
        // Without an update it is the monitor's view of the chain, which nothing waits for.
        if let Some(update) = monitor_update
            && stored == ChannelMonitorUpdateStatus::Completed
        {
            let channel = ChannelId(monitor.channel_id().0);
            let remotes = monitor.counterparty_commitment_txs_from_update(update);
            self.taps.enqueue(Job::Update {
                channel,
                update: update.update_id,
                bytes: update.encode(),
                txids: remotes.iter().map(|remote| remote.trust().txid()).collect(),
                announced: self.taps.take_committed(channel),
            });
        }
        gated(stored)
    }

    fn archive_persisted_channel(&self, monitor_name: MonitorName) {
        self.inner.archive_persisted_channel(monitor_name);
    }
}

const fn gated(stored: ChannelMonitorUpdateStatus) -> ChannelMonitorUpdateStatus {
    match stored {
        ChannelMonitorUpdateStatus::Completed | ChannelMonitorUpdateStatus::InProgress => {
            ChannelMonitorUpdateStatus::InProgress
        }
        ChannelMonitorUpdateStatus::UnrecoverableError => {
            ChannelMonitorUpdateStatus::UnrecoverableError
        }
    }
}
