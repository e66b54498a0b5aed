//! Metrics: names of what the driver counts and measures, through the facade `metrics`. Without a
//! recorder they cost next to nothing. `docs/metrics.md` says what each means; the tests hold that
//! page to the code.
//!
//! Nothing here is counted over quiet channels: their number is known, and they have nothing else.
//!
//! ```
//! # struct Exporter;
//! # impl metrics::Recorder for Exporter {
//! #     fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
//! #     fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
//! #     fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
//! #     fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter { metrics::Counter::noop() }
//! #     fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge { metrics::Gauge::noop() }
//! #     fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram { metrics::Histogram::noop() }
//! # }
//! // Before the arbiter is started, so that names are described too.
//! metrics::set_global_recorder(Exporter).expect("no other recorder");
//! assert_eq!(arb_watcher::metrics::BLOCK_HEIGHT, "arb_block_height");
//! ```
use metrics::Unit;

/// Gauge: channels by `phase`: `open`, `failing`, `closed`, `resolved`.
pub const CHANNELS: &str = "arb_channels";
/// Gauge: channels that are set aside because their records cannot be read.
pub const QUARANTINED: &str = "arb_channels_quarantined";
/// Gauge: satoshis that are lost if no claim confirms in time, by `due`.
pub const VALUE_AT_RISK: &str = "arb_value_at_risk_sat";
/// Gauge: height of the last block that was taken in.
pub const BLOCK_HEIGHT: &str = "arb_block_height";
/// Gauge: blocks that the source is ahead.
pub const BLOCK_LAG: &str = "arb_block_lag";
/// Histogram: blocks that were disconnected at once.
pub const REORG_DEPTH: &str = "arb_reorg_depth";
/// Histogram: seconds from handing a batch to the store until it is durable.
pub const APPEND_SECONDS: &str = "arb_append_seconds";
/// Counter: appends that the store refused.
pub const APPEND_FAILURES: &str = "arb_append_failures_total";
/// Gauge: notices that nobody acknowledged.
pub const NOTICES_WAITING: &str = "arb_notices_waiting";
/// Gauge: tasks of workers under way.
pub const TASKS_RUNNING: &str = "arb_tasks_running";
/// Counter: tasks that failed and are tried again, by `task`.
pub const TASK_FAILURES: &str = "arb_task_failures_total";
/// Counter: transactions of ours that were handed out, by `kind`.
pub const CLAIMS: &str = "arb_claims_total";
/// Counter: satoshis of fees of our transactions that confirmed.
pub const FEES_PAID: &str = "arb_fees_paid_sat_total";
/// Gauge: subscriptions that somebody reads.
pub const SUBSCRIPTIONS: &str = "arb_subscriptions_open";
/// Gauge: epochs that somebody reads.
pub const EPOCHS: &str = "arb_epochs_open";
/// Gauge: 1 while an alarm stands, by `of`: `chain`, `store`, `source`.
pub const ALARMS: &str = "arb_alarm";

/// Tells the recorder what each name means.
pub(crate) fn describe() {
    let gauges = [
        (CHANNELS, Unit::Count, "channels by phase"),
        (QUARANTINED, Unit::Count, "channels that are set aside"),
        (VALUE_AT_RISK, Unit::Count, "satoshis that are lost if no claim confirms in time"),
        (BLOCK_HEIGHT, Unit::Count, "height of the last block that was taken in"),
        (BLOCK_LAG, Unit::Count, "blocks that the source is ahead"),
        (NOTICES_WAITING, Unit::Count, "notices that nobody acknowledged"),
        (TASKS_RUNNING, Unit::Count, "tasks of workers under way"),
        (SUBSCRIPTIONS, Unit::Count, "subscriptions that somebody reads"),
        (EPOCHS, Unit::Count, "epochs that somebody reads"),
        (ALARMS, Unit::Count, "1 while an alarm stands"),
    ];
    for (name, unit, meaning) in gauges {
        metrics::describe_gauge!(name, unit, meaning);
    }
    let counters = [
        (APPEND_FAILURES, Unit::Count, "appends that the store refused"),
        (TASK_FAILURES, Unit::Count, "tasks that failed and are tried again"),
        (CLAIMS, Unit::Count, "transactions of ours that were handed out"),
        (FEES_PAID, Unit::Count, "satoshis of fees of our transactions that confirmed"),
    ];
    for (name, unit, meaning) in counters {
        metrics::describe_counter!(name, unit, meaning);
    }
    let histograms = [
        (REORG_DEPTH, Unit::Count, "blocks that were disconnected at once"),
        (APPEND_SECONDS, Unit::Seconds, "time until a batch is durable"),
    ];
    for (name, unit, meaning) in histograms {
        metrics::describe_histogram!(name, unit, meaning);
    }
}
