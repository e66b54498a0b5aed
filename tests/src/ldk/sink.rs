//! The arbiter as the sink of a recorder's facts.

use arb_core::facts::{ChannelFacts, Update, UpdateError};
use arb_core::ids::ChannelId;
use arb_core::log::{ByteRecord, Home};
use arb_node_adapter::{Claims, Egress, FactSink, Known, Mode, Refusal};
use arb_watcher::{Arbiter, ChannelNumbers, CommandError};
use bitcoin::OutPoint;
use std::sync::Arc;

/// The arbiter behind the recorder. In [`Mode::Own`] a channel that LDK closes is the arbiter's to close.
#[derive(Clone, Debug)]
pub struct ToArbiter(pub Arbiter, pub Arc<Egress>);

fn refusal(error: CommandError) -> Refusal {
    match error {
        CommandError::UnknownChannel(_) => Refusal::NotWatched,
        CommandError::Facts(UpdateError::Fenced) => Refusal::Fenced,
        CommandError::Stopped | CommandError::NotStored(_) => Refusal::Later(error.to_string()),
        CommandError::SetAside { .. } => Refusal::SetAside(error.to_string()),
        other => Refusal::Refused(other.to_string()),
    }
}

impl Claims for ToArbiter {
    async fn known(&self, channel: ChannelId, outpoint: OutPoint) -> Result<Known, String> {
        let report = self.0.report(channel).await.map_err(|error| error.to_string())?;
        Ok(Known::of(report.as_ref(), outpoint))
    }
}

impl FactSink for ToArbiter {
    async fn watch(&self, facts: ChannelFacts) -> Result<(), Refusal> {
        self.0.watch_channel(facts).await.map_err(refusal)
    }

    async fn state_numbers(&self, numbers: ChannelNumbers) -> Result<(), Refusal> {
        self.0.state_numbers(numbers).await.map_err(refusal)
    }

    async fn update(
        &self,
        channel: ChannelId,
        updates: Vec<Update>,
        records: Vec<ByteRecord>,
    ) -> Result<(), Refusal> {
        self.0.update_channel_with(channel, updates, records).await.map(drop).map_err(refusal)
    }

    fn home(&self) -> Option<Home> {
        self.0.home()
    }

    fn lets_go(&self, channel: ChannelId) -> bool {
        self.1.lets_go(channel)
    }

    fn waits(&self, refused: bool) -> bool {
        self.1.waits(refused)
    }

    fn waits_for(&self, channel: ChannelId, refused: bool) -> bool {
        self.1.waits_for(channel, refused)
    }

    async fn closed(&self, channel: ChannelId) -> Result<(), Refusal> {
        match self.1.mode() {
            Mode::Own | Mode::Guard { .. } => {
                // LDK waits for it to be durable, not for the network. Commands keep their order.
                let asked = tokio::select! {
                    biased;
                    answer = self.0.fail_channel(channel) => answer.map(drop),
                    known = self.0.report(channel) => known.map(drop),
                };
                match asked {
                    // The block was faster.
                    Ok(()) | Err(CommandError::Closed(_) | CommandError::ClosesMutually(_)) => {
                        Ok(())
                    }
                    Err(error) => Err(refusal(error)),
                }
            }
            _ => Ok(()),
        }
    }
}

/// LDK alone: nobody is told.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl FactSink for Nobody {
    async fn watch(&self, _: ChannelFacts) -> Result<(), Refusal> {
        Err(Refusal::NotWatched)
    }

    async fn state_numbers(&self, _: ChannelNumbers) -> Result<(), Refusal> {
        Err(Refusal::NotWatched)
    }

    async fn update(
        &self,
        _: ChannelId,
        _: Vec<Update>,
        _: Vec<ByteRecord>,
    ) -> Result<(), Refusal> {
        Err(Refusal::NotWatched)
    }

    async fn closed(&self, _: ChannelId) -> Result<(), Refusal> {
        Err(Refusal::NotWatched)
    }
}
