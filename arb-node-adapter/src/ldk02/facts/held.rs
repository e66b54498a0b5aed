//! Channels that are held: LDK's updates are not completed, so that LDK sends nothing that builds on
//! them.
use super::taps::Job;
use super::translate::Untranslated;
use arb_core::ids::ChannelId;
use core::fmt;
use std::sync::Arc;

/// Why a channel is held: LDK's update is not completed, so that LDK sends nothing that builds on
/// it. Secrets and preimages are told as before. It ends when LDK has closed the channel (it revokes nothing then), when
/// the channel is handed back to LDK ([`super::Recorder::hand_back`]), when the arbiter only observes
/// ([`FactSink::lets_go`](super::FactSink::lets_go)), or at a restart, if the cause is gone then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The channel.
    pub channel: ChannelId,
    /// LDK's update.
    pub update: Option<u64>,
    /// Why.
    pub why: HeldFor,
}

/// What a channel is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldFor {
    /// It cannot be translated.
    Untranslated(Untranslated),
    /// The arbiter does not take it.
    Refused(String),
    /// The fence: the arbiter is failing the channel, and takes no newer commitment of ours.
    /// Secrets, preimages and scripts are told to it as before.
    Fenced,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} is held: ", self.channel)?;
        match &self.why {
            HeldFor::Untranslated(why) => why.fmt(f),
            HeldFor::Refused(why) => f.write_str(why),
            HeldFor::Fenced => f.write_str("it is being closed"),
        }
    }
}

/// A held channel, and what waits for it to be let go.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) held: Held,
    /// Updates that are not completed, in order.
    pub(super) updates: Vec<u64>,
    /// The newest monitor: it contains all of them.
    pub(super) last: Option<Arc<Job>>,
}

impl Holding {
    pub(super) const fn new(held: Held) -> Self {
        Self { held, updates: Vec::new(), last: None }
    }

    pub(super) fn add(&mut self, job: &Arc<Job>) {
        let new = job.update().filter(|update| !self.updates.contains(update));
        self.updates.extend(new);
        if job.monitor().is_some() {
            self.last = Some(job.clone());
        }
    }
}
