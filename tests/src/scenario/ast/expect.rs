//! What an `expect` line may ask.

use core::fmt;

use bitcoin::FeeRate;

use super::{AboveTip, ChannelName, MilliSat, OutputRef, SubscriberName};

/// How a number is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Equal,
    AtLeast,
    AtMost,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        })
    }
}

/// A number that is expected, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Compare<T> {
    pub op: Op,
    pub value: T,
}

impl<T: PartialOrd> Compare<T> {
    /// Whether `actual` is what was expected.
    pub fn holds(&self, actual: &T) -> bool {
        match self.op {
            Op::Equal => *actual == self.value,
            Op::AtLeast => *actual >= self.value,
            Op::AtMost => *actual <= self.value,
        }
    }
}

impl<T: fmt::Display> fmt::Display for Compare<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.op, self.value)
    }
}

/// One thing that must be true where the statement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    Channel {
        channel: ChannelName,
        check: ChannelCheck,
    },
    Output {
        output: OutputRef,
        check: OutputCheck,
    },
    /// `expect ours …`: about distinct transactions of ours since the last `mark`, of one kind
    /// or of all.
    Ours {
        kind: Option<TransactionKind>,
        check: OwnCheck,
    },
    /// What a subscriber got, in order.
    Events {
        subscriber: SubscriberName,
        events: Vec<EventKind>,
    },
    Alert(AlertExpectation),
    /// `expect ours reserve…`: what the wallet needs to defend all channels at the present estimate.
    Reserve(Compare<MilliSat>),
}

/// `expect a …`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelCheck {
    Phase(PhaseName),
    Close(CloseKind),
    Recovered(Compare<MilliSat>),
    Fees(Compare<MilliSat>),
    /// The report's reason for the channel's next event, as the report prints it.
    Waits(String),
    Until(Compare<AboveTip>),
    /// What the dry run says of closing the channel, or of the rest of a closed one, at the present estimate.
    Closing(ClosingCheck),
}

/// `expect a closing_…`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClosingCheck {
    Transactions(Compare<u64>),
    Fees(Compare<MilliSat>),
    Weight(Compare<u64>),
    /// Value that costs more than it brings.
    Left(Compare<MilliSat>),
    /// The block with the last satoshi.
    Home(Compare<AboveTip>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PhaseName {
    Open,
    Failing,
    Closed,
    Resolved,
    Forgotten,
}

/// The confirmed spend of the funding output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseKind {
    Mutual,
    Local(u64),
    Outdated(u64),
    Remote(u64),
    Revoked(u64),
    Future(u64),
    Splice,
    Unknown,
    None,
}

/// `expect a.h1 …` and the other outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputCheck {
    /// `waits=`: the report's reason for this output.
    Waits(String),
    /// `set_aside=`: whether its claim was refused and is tried by itself.
    SetAside(bool),
    State(OutputState),
    /// What the node was told about the incoming HTLC; of HTLCs only.
    Upstream(UpstreamNotice),
    /// `to=`: whether our spend pays the script outside of the node, or the channel's own.
    Aside(bool),
    /// The feerate of our unconfirmed spend.
    Feerate(Compare<FeeRate>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputState {
    Unresolved,
    Claiming,
    Claimed,
    PeerClaimed,
    Resolved,
    Irrevocable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamNotice {
    Failed,
    Fulfilled,
    None,
}

/// What is asked of a set of our transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnCheck {
    /// How many there are.
    Count(Compare<u64>),
    /// How many inputs the one with the most has.
    MaxInputs(Compare<u64>),
    /// What the heaviest weighs, in weight units.
    MaxWeight(Compare<u64>),
}

/// What a transaction of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    Commitment,
    Anchor,
    HtlcTimeout,
    HtlcSuccess,
    Claim,
    Sweep,
    Penalty,
}

/// What a subscriber is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    EarlyMutual,
    Mutual,
    Local(u64),
    Remote(u64),
    Revoked(u64),
    Future(u64),
    Splice,
    Unknown,
    Reorged,
    Resolved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AlertExpectation {
    UnknownSpend,
    None,
}
