//! `FactSink`: where facts go. The arbiter's handle behind a trait, for this crate names no driver.
use arb_core::facts::{ChannelFacts, ChannelNumbers, Update};
use arb_core::ids::ChannelId;
use arb_core::log::{ByteRecord, Home};
use core::fmt;
use core::future::Future;

/// Takes facts. Each call returns when what it brought is durable. Being told the same again
/// changes nothing and is no error.
pub trait FactSink: Sync {
    /// Watches a channel from now on.
    fn watch(&self, facts: ChannelFacts) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// States the numbers of a channel's current commitments; said after each `watch`, for an arbiter
    /// that knows the channel from before a crash was told nothing of it when it started.
    fn state_numbers(
        &self,
        numbers: ChannelNumbers,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Applies updates in order, all or none, and writes records with them: no record is durable before the
    /// updates are, and what is refused leaves none behind. There are none unless [`FactSink::home`] says
    /// where they are kept.
    fn update(
        &self,
        channel: ChannelId,
        updates: Vec<Update>,
        records: Vec<ByteRecord>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Where the records of an update are kept. If that is where LDK's are ([`WriteAll::beside`](crate::WriteAll::beside)), the
    /// recorder hands over its own record and LDK's monitor with the facts: LDK then waits for one
    /// commit instead of two.
    fn home(&self) -> Option<Home> {
        None
    }

    /// Whether LDK goes on with a channel that would be held, for the arbiter only observes: it is LDK's alone
    /// from then on. See [`Egress::lets_go`](crate::Egress::lets_go), which is the answer of a sink that has an egress.
    fn lets_go(&self, channel: ChannelId) -> bool {
        let _ = channel;
        false
    }

    /// Said whenever the arbiter took something, or `refused` it with [`Refusal::Later`]: whether LDK waits for it. Where it does not,
    /// LDK goes on alone with the channels that [`lets_go`](FactSink::lets_go) names, as with one that would be held.
    /// See [`Egress::waits`](crate::Egress::waits), which is the answer of a sink that has an egress.
    fn waits(&self, refused: bool) -> bool {
        let _ = refused;
        true
    }

    /// The same of one channel, of which the arbiter took something, or `refused` it with [`Refusal::SetAside`]. See
    /// [`Egress::waits_for`](crate::Egress::waits_for), which is the answer of a sink that has an egress.
    fn waits_for(&self, channel: ChannelId, refused: bool) -> bool {
        let _ = (channel, refused);
        true
    }

    /// LDK has closed the channel by its own commitment. Whether that is followed is the sink's
    /// affair; until it is acted upon, LDK alone publishes.
    fn closed(&self, channel: ChannelId) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why a sink did not take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing of any channel's now: it is told again when the recorder is asked to go on. Till then all channels wait, as long as
    /// [`FactSink::waits`] says so.
    Later(String),
    /// Nothing of this channel's now, as of one that the arbiter has set aside: it is told again whenever the recorder is asked to go
    /// on. Till then LDK waits with this channel, as long as [`FactSink::waits_for`] says so, and the others go on.
    SetAside(String),
    /// The channel is not watched any more: it is resolved and forgotten.
    NotWatched,
    /// A newer local commitment of a channel that the arbiter is failing, or whose funding output is
    /// spent: LDK must not revoke the one that may confirm.
    Fenced,
    /// It does not hold, or it cannot be taken for this channel. LDK must not go on with it.
    Refused(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Later(why) => write!(f, "not now: {why}"),
            Self::SetAside(why) => write!(f, "not this channel now: {why}"),
            Self::NotWatched => f.write_str("the channel is not watched"),
            Self::Fenced => f.write_str("the channel is being closed"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

impl core::error::Error for Refusal {}
