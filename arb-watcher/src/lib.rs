//! Drives arb-core on tokio: one task owns the engine; block sources, publishing, notices and
//! subscriptions are around it.
#![warn(missing_docs)]

mod abandon;
mod alarms;
mod bump;
mod command;
pub mod core_rpc;
mod driver;
mod ended;
mod epochs;
mod handle;
pub mod layers;
mod mailbox;
pub mod memory;
pub mod metrics;
#[cfg(test)]
mod mocked;
mod notices;
mod past_fees;
mod queue;
mod receipt;
mod scripts;
mod settings;
mod subscription;

pub use abandon::{AbandonError, Unfunded};
pub use alarms::{Alarms, ChainAlarm, SourceAlarm, StoreAlarm};
pub use bump::{BumpGoal, BumpTarget};
pub use command::{Answer, Command, CommandError, Counts, Reserve};
pub use core_rpc::{StalledTip, TipAlarm};
pub use driver::StartError;
pub use ended::Ended;
pub use epochs::{Epoch, Epochs};
pub use handle::Arbiter;
pub use notices::NoticeStream;
pub use past_fees::PastFees;
pub use queue::Answering;
pub use receipt::Receipt;
pub use scripts::{Reuse, ScriptsPort};
pub use settings::{ChannelNumbers, Ports, Settings};
pub use subscription::{
    AllChannelsSubscription, ChainEventSubscription, Closing, Delivered, Delivery,
};
