//! Phase and output states: computed from the picture and the tip, never stored.
use crate::arbitrator::ChannelArbitrator;
use crate::claim::build::SMALLEST_OUTPUT;
use crate::claim::{SpendPath, fee};
use crate::classify::FundingSpend;
use crate::facts::ChannelFacts;
use crate::height::{self, Due, Reason};
use crate::picture::{Output, Picture, Role, Way};
use crate::policy::{IRREVOCABLE, Policy};
use crate::units::{BlockDelta, BlockHeight};
use bitcoin::{FeeRate, Weight};

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No funding output is spent, and nobody asked to fail the channel.
    Open,
    /// The channel is to be failed; no funding output is spent yet.
    Failing,
    /// A funding output is spent.
    Closed(FundingSpend),
    /// Every value-bearing output's resolution is as deep as [`Policy::resolved_depth`].
    Resolved(FundingSpend),
}

/// State of an output at a tip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputState {
    /// Unspent, and no path is open to us now.
    Unresolved,
    /// Unspent, and a path is open to us now.
    Claiming,
    /// Spent by us.
    Claimed,
    /// Spent by the peer.
    PeerClaimed,
    /// It needs no spend.
    Resolved,
    /// Its resolution is [`IRREVOCABLE`] deep.
    Irrevocable,
}

impl Output {
    /// The state at `tip`.
    #[must_use]
    pub fn state(&self, tip: BlockHeight) -> OutputState {
        if let Some(due) = self.irrevocable_at(tip)
            && due.is_open(tip)
        {
            return OutputState::Irrevocable;
        }
        match (&self.spent, &self.way) {
            // What its owner does with it changes nothing.
            (_, Way::Theirs) => OutputState::Resolved,
            (Some(spent), _) if spent.by == crate::ids::Side::Local => OutputState::Claimed,
            (Some(_), _) => OutputState::PeerClaimed,
            (None, Way::Home | Way::Nothing) => OutputState::Resolved,
            (None, Way::Spend { due, .. }) if due.is_open(tip) => OutputState::Claiming,
            (None, Way::NeedsPreimage { expiry }) if tip >= *expiry => OutputState::Resolved,
            (None, Way::Spend { .. } | Way::NeedsPreimage { .. } | Way::Lost) => {
                OutputState::Unresolved
            }
        }
    }

    /// When the resolution becomes irrevocable; `None` while there is none.
    #[must_use]
    pub fn irrevocable_at(&self, tip: BlockHeight) -> Option<Due> {
        self.deep_at(tip, IRREVOCABLE)
    }

    /// When the resolution is `depth` deep; `None` while there is none. An expired received HTLC that
    /// the peer leaves counts from its expiry (BOLT 5 LR5, RR3).
    fn deep_at(&self, tip: BlockHeight, depth: BlockDelta) -> Option<Due> {
        let from = match (&self.spent, &self.way) {
            (_, Way::Theirs) => self.at.height,
            (Some(spent), _) => spent.at.height,
            (None, Way::Home | Way::Nothing) => self.at.height,
            (None, Way::NeedsPreimage { expiry }) if tip >= *expiry => {
                (*expiry).max(self.at.height)
            }
            (None, Way::Spend { .. } | Way::NeedsPreimage { .. } | Way::Lost) => return None,
        };
        Some(height::depth(from, depth))
    }

    /// Whether claiming it costs more than it brings at any feerate that is relayed. Such an
    /// output does not hold the channel's resolution up.
    #[must_use]
    pub fn is_uneconomic(&self) -> bool {
        self.is_uneconomic_at(FeeRate::BROADCAST_MIN)
    }

    /// Whether claiming it costs more than it brings at this feerate.
    #[must_use]
    pub fn is_uneconomic_at(&self, feerate: FeeRate) -> bool {
        let cost = match &self.way {
            Way::Spend { path: SpendPath::SecondStage(_), .. } => SECOND_STAGE,
            Way::Spend { .. } => ONE_INPUT,
            Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => {
                return false;
            }
        };
        let cost = fee::fee_of(feerate, cost);
        let brings = self.output.value.checked_sub(SMALLEST_OUTPUT);
        brings.is_none_or(|brings| brings <= cost)
    }

    /// Whether the channel's resolution waits for this output.
    fn holds_up(&self) -> bool {
        let anchor = matches!(self.role, Role::Anchor(_) | Role::SharedAnchor);
        let lost = self.spent.is_none() && matches!(self.way, Way::Lost);
        let left = self.spent.is_none() && self.is_uneconomic();
        !(anchor || lost || left)
    }
}

/// The weight of a transaction of one input, about.
const ONE_INPUT: Weight = Weight::from_wu(150 * 4);
/// The weight of a second stage with a coin and of the sweep of its output, about.
const SECOND_STAGE: Weight = Weight::from_wu(500 * 4);

impl ChannelArbitrator {
    /// The phase at `tip`.
    #[must_use]
    pub fn phase(&self, facts: &ChannelFacts, tip: BlockHeight, policy: &Policy) -> Phase {
        self.phase_of(Picture::of(facts, self).as_ref(), tip, policy)
    }

    pub(crate) fn phase_of(
        &self,
        picture: Option<&Picture>,
        tip: BlockHeight,
        policy: &Policy,
    ) -> Phase {
        match (picture, &self.intent) {
            (Some(picture), _) if picture.is_resolved(tip, policy) => {
                Phase::Resolved(picture.spend)
            }
            (Some(picture), _) => Phase::Closed(picture.spend),
            (None, Some(_)) => Phase::Failing,
            (None, None) => Phase::Open,
        }
    }
}

impl Picture {
    /// Confirmations of the spend of the funding output.
    #[must_use]
    pub const fn depth(&self, tip: BlockHeight) -> BlockDelta {
        BlockDelta(tip.0.saturating_add(1).saturating_sub(self.at.height.0))
    }

    /// Whether every value-bearing output is resolved, as deep as [`Policy::resolved_depth`].
    #[must_use]
    pub fn is_resolved(&self, tip: BlockHeight, policy: &Policy) -> bool {
        self.deep_at(tip, policy.resolved_depth()).is_some_and(|due| due.is_open(tip))
    }

    /// Whether every value-bearing output is resolved, as deep as [`Policy::forget_depth`].
    #[must_use]
    pub fn is_forgettable(&self, tip: BlockHeight, policy: &Policy) -> bool {
        self.deep_at(tip, policy.forget_depth).is_some_and(|due| due.is_open(tip))
    }

    /// When the next thing happens by height alone: a lock opens, an expiry comes, a depth is
    /// reached.
    #[must_use]
    pub fn next_due(&self, tip: BlockHeight, policy: &Policy) -> Option<Due> {
        let locks =
            self.outputs.iter().filter(|o| o.spent.is_none()).filter_map(|o| match &o.way {
                Way::Spend { due, .. } => Some(*due),
                Way::NeedsPreimage { expiry } => {
                    Some(Due { tip: *expiry, until: *expiry, reason: Reason::Cltv })
                }
                Way::Theirs | Way::Home | Way::Nothing | Way::Lost => None,
            });
        let next_lock = locks.filter(|due| !due.is_open(tip)).min();
        let depths = [policy.resolved_depth(), policy.forget_depth];
        let deep = || depths.into_iter().filter_map(|depth| self.deep_at(tip, depth));
        next_lock.or_else(|| deep().find(|due| !due.is_open(tip)))
    }

    /// Whether an output that nobody has taken may be an HTLC of those that are still to be read.
    fn may_hold_unread(&self) -> bool {
        let unknown = |output: &Output| output.spent.is_none() && matches!(output.way, Way::Lost);
        self.unread.is_some() && self.outputs.iter().any(unknown)
    }

    /// When the close and the resolution of the last output are `depth` deep; `None` if an output
    /// that holds the channel up is not resolved.
    fn deep_at(&self, tip: BlockHeight, depth: BlockDelta) -> Option<Due> {
        if self.may_hold_unread() {
            return None;
        }
        let mut last = height::depth(self.at.height, depth);
        if let Some(missing) = self.missing_point
            && self.outputs.iter().any(|o| o.spent.is_none() && matches!(o.way, Way::Lost))
        {
            last = last.and(height::depth(missing.delay.until, depth));
        }
        for output in self.outputs.iter().filter(|o| o.holds_up()) {
            last = last.and(output.deep_at(tip, depth)?);
        }
        Some(last)
    }
}
