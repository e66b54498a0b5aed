//! What a scenario says, typed: one variant for each statement of the language.

use bitcoin::{Amount, FeeRate};

mod expect;
mod names;

pub use expect::{
    AlertExpectation, ChannelCheck, CloseKind, ClosingCheck, Compare, EventKind, Expectation, Op,
    OutputCheck, OutputState, OwnCheck, PhaseName, TransactionKind, UpstreamNotice,
};
pub use names::{ChannelName, HashName, HtlcRef, OutputRef, SubscriberName};

/// An amount in millisatoshi, the unit in which HTLCs and balances are agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliSat(pub u64);

impl MilliSat {
    /// The whole satoshis in it, rounded down as BOLT 3 does for commitment outputs.
    pub fn to_sat_rounded_down(self) -> Amount {
        Amount::from_sat(self.0 / 1000)
    }
}

/// A height that counts from the tip at the place where the statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AboveTip(pub u32);

/// Which side of a channel: this node or the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Local,
    Remote,
}

/// The commitment format of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    StaticRemotekey,
    Anchors,
    ZeroFee,
    Taproot,
}

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The file's name, as it was given to the parser.
    pub file: String,
    /// Ids of the requirements that the file exercises, in order.
    pub bolt: Vec<String>,
    /// Ids of the incidents that the file reproduces, in order.
    pub incidents: Vec<String>,
    /// The channels, all open when the story begins.
    pub channels: Vec<Channel>,
    pub wallet: Wallet,
    pub policy: Policy,
    /// The story, in the order of the file.
    pub story: Vec<Statement>,
}

impl Scenario {
    /// The channel of that name, if the file declares it.
    pub fn channel(&self, name: &ChannelName) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name == *name)
    }

    /// Whether the channels are those of LDK nodes.
    pub fn is_of_ldk(&self) -> bool {
        self.channels.iter().any(|channel| channel.node.as_deref() == Some(LDK))
    }

    /// As if every channel had `node=ldk`.
    #[must_use]
    pub fn with_ldk(mut self) -> Self {
        for channel in &mut self.channels {
            channel.node = Some(LDK.to_owned());
        }
        self
    }
}

/// What `node=` says for LDK.
pub const LDK: &str = "ldk";

/// `channel a …`: an open channel, its funding 200 blocks deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    pub line: usize,
    pub name: ChannelName,
    pub format: Format,
    pub capacity: Amount,
    /// Our balance at commitment #0.
    pub local: MilliSat,
    pub opener: Side,
    /// Blocks that we wait for our own `to_local`.
    pub local_delay: u16,
    /// Blocks that the peer waits for its own.
    pub remote_delay: u16,
    /// The dust limit of our commitments.
    pub dust: Amount,
    /// The dust limit of the peer's commitments.
    pub remote_dust: Amount,
    /// The commitment's feerate.
    pub feerate: FeeRate,
    /// `node=…`: the node implementation that drives this channel on both sides.
    pub node: Option<String>,
}

/// Equal confirmed coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coins {
    pub count: u32,
    pub value: Amount,
}

/// `wallet …`: the confirmed coins of our wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wallet {
    pub coins: Vec<Coins>,
}

/// `policy …`: the arbiter's settings, in blocks where they are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub act_depth: u32,
    pub offered_grace: u32,
    pub fulfil_margin: u32,
    pub upstream_margin: u32,
    pub forget_depth: u32,
    pub joining: Joining,
}

/// `joining=`: whether claims of different channels may share transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    Never,
    Allowed,
}

/// One statement of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub line: usize,
    /// The line as written, without comment and surrounding blanks.
    pub text: String,
    pub step: Step,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    History(History),
    OnChain(OnChain),
    Arbiter(ArbiterStep),
    /// Every expectation of the line, in order.
    Expect(Vec<Expectation>),
    /// `mark`: counters restart here.
    Mark,
}

/// When a statement of the history is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// In the commitments of both sides, irrevocably.
    Committed,
    /// `stage=next`: only in the peer's next commitment (and, if received, in our current one).
    Next,
}

/// What a received HTLC is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceivedRole {
    /// A payment to us.
    Final,
    /// Forwarded: the HTLC that we offered for it.
    Forwarded { outgoing: HtlcRef },
    /// Not irrevocably committed (`stage=next`).
    Uncommitted,
}

/// `offer …`: an HTLC that we offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub htlc: HtlcRef,
    pub amount: MilliSat,
    pub expiry: AboveTip,
    pub hash: HashName,
    /// The incoming HTLC that we forwarded; without it the payment is our own.
    pub upstream: Option<HtlcRef>,
    pub stage: Stage,
}

/// `receive …`: an HTLC that the peer offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receive {
    pub htlc: HtlcRef,
    pub amount: MilliSat,
    pub expiry: AboveTip,
    pub hash: HashName,
    pub role: ReceivedRole,
    pub stage: Stage,
}

/// Whether a splice transaction confirms by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpliceConfirmation {
    Confirms,
    StaysUnconfirmed,
}

/// What the two sides agreed off-chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum History {
    Offer(Offer),
    Receive(Receive),
    Settle(HtlcRef),
    Cancel(HtlcRef),
    /// `update a n=100`: further commitments without a change.
    Update {
        channel: ChannelName,
        count: u64,
    },
    UpdateFee {
        channel: ChannelName,
        feerate: FeeRate,
    },
    Splice {
        channel: ChannelName,
        capacity: Amount,
        confirm: SpliceConfirmation,
    },
    Shutdown(ChannelName),
    ForgetSince {
        channel: ChannelName,
        number: u64,
    },
}

/// What spends a funding output by no act of the arbiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PublishedSpend {
    /// Our current commitment.
    Local,
    /// The peer's current commitment.
    Remote,
    /// The peer's next, unrevoked commitment.
    RemoteNext,
    /// The peer's commitment of that number.
    RemoteNumber(u64),
    Mutual,
    Unknown,
    /// The peer's current commitment, with signatures that do not hold.
    Invalid,
}

/// In how many transactions the peer claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClaimGrouping {
    OneEach,
    Together,
}

/// What may enter the blocks of a `mine`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockFill {
    /// The mempool, by feerate.
    Mempool,
    Empty,
    /// The mempool without these.
    Without(Vec<Excluded>),
}

/// What `without=` keeps out of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Excluded {
    /// Transactions of the arbiter.
    Ours,
    /// Transactions that touch this output.
    Touching(OutputRef),
}

/// The transactions that a reorganisation loses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dropped {
    Local(ChannelName),
    Remote(ChannelName),
    Mutual(ChannelName),
    Unknown(ChannelName),
    Splice(ChannelName),
    /// Whatever spent this HTLC's output.
    Htlc(HtlcRef),
}

/// What happens on the chain and in the mempool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnChain {
    Publish {
        channel: ChannelName,
        spend: PublishedSpend,
        /// What it and a child of the peer's on its anchor pay together; without it, no child but that
        /// which it cannot do without.
        feerate: Option<FeeRate>,
    },
    /// `peer pays …`: the peer spends the anchor of a commitment in the mempool.
    PeerPays {
        channel: ChannelName,
        feerate: FeeRate,
    },
    /// `peer crowds …`: as `pays`, and then descendants of that until the mempool takes no more;
    /// `heavy`: few and large ones, until it takes no byte more.
    PeerCrowds {
        channel: ChannelName,
        feerate: FeeRate,
        heavy: bool,
    },
    PeerClaims {
        htlcs: Vec<HtlcRef>,
        feerate: Option<FeeRate>,
        grouping: ClaimGrouping,
    },
    PeerClaimsSecondLevel(HtlcRef),
    PeerReplaces {
        htlc: HtlcRef,
        feerate: FeeRate,
    },
    /// `peer withdraws …`: the peer spends elsewhere what pays for its unconfirmed spend.
    PeerWithdraws {
        htlc: HtlcRef,
        feerate: FeeRate,
    },
    Mine {
        blocks: u32,
        fill: BlockFill,
    },
    Reorg {
        blocks: u32,
        drop: Vec<Dropped>,
    },
    Feerate {
        estimate: FeeRate,
        floor: Option<FeeRate>,
    },
}

/// Whether a subscriber has to acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryMode {
    Detached,
    Acknowledged,
}

/// What a manual fee bump is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BumpTarget {
    /// The channel's unconfirmed close.
    Channel(ChannelName),
    /// Our claim of an output.
    Output(OutputRef),
}

/// A port of the arbiter, working or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortState {
    Works,
    Fails,
}

/// What the arbiter is told, and what befalls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterStep {
    Fail(ChannelName),
    Preimage(HashName),
    Subscribe {
        channel: ChannelName,
        subscriber: SubscriberName,
        delivery: DeliveryMode,
    },
    Acknowledge(SubscriberName),
    Unsubscribe(SubscriberName),
    Bump {
        target: BumpTarget,
        feerate: FeeRate,
    },
    /// `bump … budget=`: what a claim may cost.
    Budget {
        target: BumpTarget,
        budget: Amount,
    },
    /// `bump … deadline=`: by when it is to be confirmed.
    Deadline {
        target: BumpTarget,
        deadline: AboveTip,
    },
    /// `bump … to=aside`: the value goes to a script outside of the node.
    SendAside(BumpTarget),
    /// A clean stop, and start.
    Restart,
    /// No clean stop, and start.
    Kill,
    /// Blocks that pass while the arbiter is stopped.
    Offline(u32),
    Signer(PortState),
    /// `signer off=a`: nothing is signed for that channel until `signer on`.
    SignerOffFor(ChannelName),
    /// `signer wrong=a.h1`: spends of that output are signed wrongly until `signer on`.
    SignedWrongly(OutputRef),
    Broadcaster {
        state: PortState,
        whose: Whose,
    },
    Disk(PortState),
    /// `mode own`: who publishes, beside an LDK node.
    Mode(Mode),
}

/// Whose broadcaster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Whose {
    /// The arbiter's, and LDK's where there is one.
    Everybody,
    /// `only=ldk`: that of our LDK node.
    Ldk,
}

/// Who publishes what concerns a channel of an LDK node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// LDK.
    Observe,
    /// LDK, and the arbiter what LDK leaves undone.
    Guard,
    /// The arbiter.
    Own,
}
