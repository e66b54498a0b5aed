//! Manual fee control: what is bumped, and to what end.
use arb_core::ids::ChannelId;
use arb_core::units::BlockHeight;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf};

/// What is to be bumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BumpTarget {
    /// What the channel can claim now, and if it can claim nothing yet, what it can later; before it
    /// is closed, our commitment. What opens after that is not meant.
    Channel(ChannelId),
    /// The claim of one output of the channel: of the commitment, of a second stage, or our anchor.
    Output(ChannelId, OutPoint),
}

impl BumpTarget {
    /// The channel.
    #[must_use]
    pub const fn channel(&self) -> ChannelId {
        match self {
            Self::Channel(id) | Self::Output(id, _) => *id,
        }
    }

    /// The output; `None`: all of the channel.
    #[must_use]
    pub const fn outpoint(&self) -> Option<OutPoint> {
        match self {
            Self::Channel(_) => None,
            Self::Output(_, outpoint) => Some(*outpoint),
        }
    }
}

/// To what end. A later one of the same kind replaces the one before.
///
/// ```
/// use arb_core::ids::ChannelId;
/// use arb_watcher::{Arbiter, BumpGoal, BumpTarget, CommandError};
/// use bitcoin::{Amount, OutPoint, ScriptBuf};
///
/// /// Brings an output to an address outside of the node, for half of its value at most.
/// async fn bring(
///     arbiter: &Arbiter,
///     (id, outpoint): (ChannelId, OutPoint),
///     value: Amount,
///     to: ScriptBuf,
/// ) -> Result<(), CommandError> {
///     let target = BumpTarget::Output(id, outpoint);
///     arbiter.bump(target, BumpGoal::Budget(value / 2)).await?;
///     arbiter.bump(target, BumpGoal::Destination(to)).await
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BumpGoal {
    /// At least this feerate, not below the mempool's floor. The budget yields to it, up to what the
    /// claim brings or, of a commitment, to what it pays out.
    FeeRate(FeeRate),
    /// Confirmed by this height: the price rises towards it as towards a claim's own deadline, which
    /// stays in force if it is earlier, and is the whole budget from there on. Of claims that open
    /// later than that it says nothing.
    Deadline(BlockHeight),
    /// At most so much is paid, for the claim or for each claim of the channel. Where the wallet pays,
    /// it may be more than the output is worth: to protect what its loss would cost elsewhere.
    Budget(Amount),
    /// The value goes to this script, for example to an address outside of the node, from the next
    /// transaction that is made for it on. HTLC transactions pay the channel's own script in any
    /// case; what they make goes where this says.
    Destination(ScriptBuf),
}
