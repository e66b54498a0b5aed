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

/// Why a channel is left to LDK alone: [`super::Recorder::left_to_ldk`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeftFor {
    /// It was opened while the arbiter watched, and its beginning was not seen: it is adopted at the next start
    /// ([`super::Recorder::adopt`]).
    Beginning,
    /// arb-core does not know the format of its commitments.
    Format,
    /// Nothing is recorded of it: it was open before the arbiter was there, and is not adopted, or the arbiter has
    /// forgotten it.
    Unrecorded,
    /// What is recorded of it cannot be read.
    Unreadable(String),
    /// LDK went on with it while the recorder was away.
    Behind,
    /// It would be held, and the arbiter only observes.
    Observed,
    /// It was handed back.
    HandedBack,
}

impl fmt::Display for LeftFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Beginning => f.write_str("its beginning was not seen"),
            Self::Format => f.write_str("its format is not known"),
            Self::Unrecorded => f.write_str("nothing is recorded of it"),
            Self::Unreadable(why) => write!(f, "its record cannot be read: {why}"),
            Self::Behind => f.write_str("LDK went on with it while the recorder was away"),
            Self::Observed => f.write_str("it would be held, and the arbiter only observes"),
            Self::HandedBack => f.write_str("it was handed back"),
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
