//! Settings of the driver, and the ports that it is given.
use crate::scripts::ScriptsPort;
pub use arb_core::facts::ChannelNumbers;
use arb_core::policy::Policy;
use std::time::Duration;

/// What the driver needs from outside, as the port traits of arb-core.
#[derive(Debug)]
pub struct Ports<S, B, F, K, C> {
    /// Blocks and mempool.
    pub source: S,
    /// Hands transactions to the network.
    pub broadcast: B,
    /// Estimates feerates.
    pub fees: F,
    /// Signs with channel keys.
    pub signer: K,
    /// The wallet, as far as fees go.
    pub coins: C,
    /// Says whose a script is; [`ScriptsPort::default`]: nobody can say.
    pub scripts: ScriptsPort,
}

/// Settings of the driver.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Settings of the arbiter itself, in blocks.
    pub policy: Policy,
    /// Tasks (signing, publishing) that run at once.
    pub workers: usize,
    /// Commands that wait before senders do.
    pub queue: usize,
    /// How long to wait before a failed call to the store or the block source is repeated; twice
    /// as long for each failure of the source in a row, up to 64 times.
    pub retry: Duration,
    /// How long a call to the outside may take before it has failed.
    pub patience: Duration,
    /// How long to wait for the block source to ring before it is asked all the same.
    pub heartbeat: Duration,
    /// Channels whose outputs the mempool is asked about at once, besides those of active ones. If
    /// there are more, the next ones are asked about after [`Self::retry`], until the round is over.
    pub mempool_slice: usize,
    /// Channels whose facts stay in memory after an update, so that the next one need not read them. One with many
    /// HTLCs counts for several.
    pub busy_channels: usize,
    /// Events that a [`Detached`](crate::Delivery::Detached) subscription to all channels holds for a reader that does
    /// not read, once there are no records that hold them. With more, the subscription ends.
    pub unread_events: usize,
    /// How long the tip may stand still before it is an alarm.
    pub stalled_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            workers: 16,
            queue: 256,
            retry: Duration::from_millis(500),
            patience: Duration::from_secs(60),
            heartbeat: Duration::from_secs(60),
            mempool_slice: 10_000,
            busy_channels: 1_024,
            unread_events: 8_192,
            stalled_after: Duration::from_secs(90 * 60),
        }
    }
}
