//! Phase and output states: computed from the picture and the tip, never stored.
use crate::arbitrator::ChannelArbitrator;
use crate::claim::SpendPath;
use crate::claim::build::SMALLEST_OUTPUT;
use crate::classify::FundingSpend;
use crate::facts::ChannelFacts;
use crate::height::{self, Due, Reason};
use crate::picture::{Output, Picture, Role, Way};
use crate::policy::Policy;
use crate::units::{BlockDelta, BlockHeight};
use bitcoin::Amount;

/// Where a channel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No funding output is spent, and nobody asked to fail the channel.
    Open,
    /// The channel is to be failed; no funding output is spent yet.
    Failing,
    /// A funding output is spent.
    Closed(FundingSpend),
    /// Every value-bearing output is irrevocably resolved.
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
    /// Its resolution is as deep as [`Policy::forget_depth`].
    Irrevocable,
}

impl Output {
    /// The state at `tip`.
    #[must_use]
    pub fn state(&self, tip: BlockHeight, policy: &Policy) -> OutputState {
        if let Some(due) = self.irrevocable_at(tip, policy)
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

    /// When the resolution becomes irrevocable; `None` while there is none. An expired received
    /// HTLC that the peer leaves counts from its expiry (BOLT 5 LR5, RR3).
    #[must_use]
    pub fn irrevocable_at(&self, tip: BlockHeight, policy: &Policy) -> Option<Due> {
        let from = match (&self.spent, &self.way) {
            (_, Way::Theirs) => self.at.height,
            (Some(spent), _) => spent.at.height,
            (None, Way::Home | Way::Nothing) => self.at.height,
            (None, Way::NeedsPreimage { expiry }) if tip >= *expiry => {
                (*expiry).max(self.at.height)
            }
            (None, Way::Spend { .. } | Way::NeedsPreimage { .. } | Way::Lost) => return None,
        };
        Some(height::depth(from, policy.forget_depth))
    }

    /// Whether claiming it costs more than it brings at any feerate that is relayed. Such an
    /// output does not hold the channel's resolution up.
    #[must_use]
    pub fn is_uneconomic(&self) -> bool {
        let cost = match &self.way {
            Way::Spend { path: SpendPath::SecondStage(_), .. } => SECOND_STAGE,
            Way::Spend { .. } => ONE_INPUT,
            Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => {
                return false;
            }
        };
        let brings = self.output.value.checked_sub(SMALLEST_OUTPUT);
        brings.is_none_or(|brings| brings <= cost)
    }

    /// Whether the channel's resolution waits for this output.
    fn holds_up(&self) -> bool {
        let anchor = matches!(self.role, Role::Anchor(_));
        let lost = self.spent.is_none() && matches!(self.way, Way::Lost);
        let left = self.spent.is_none() && self.is_uneconomic();
        !(anchor || lost || left)
    }
}

/// What a transaction of one input costs at 1 sat/vB, at most.
const ONE_INPUT: Amount = Amount::from_sat(150);
/// What a second stage with a coin and the sweep of its output cost at 1 sat/vB, at most.
const SECOND_STAGE: Amount = Amount::from_sat(500);

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

    /// Whether every value-bearing output is irrevocably resolved.
    #[must_use]
    pub fn is_resolved(&self, tip: BlockHeight, policy: &Policy) -> bool {
        let deep = self.depth(tip) >= policy.forget_depth;
        let done = |o: &Output| o.irrevocable_at(tip, policy).is_some_and(|due| due.is_open(tip));
        deep && self.outputs.iter().filter(|o| o.holds_up()).all(done)
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
        next_lock.or_else(|| self.resolved_at(tip, policy))
    }

    /// When the last output that is resolved by now becomes irrevocable; `None` if one that holds
    /// the channel up is not resolved.
    fn resolved_at(&self, tip: BlockHeight, policy: &Policy) -> Option<Due> {
        let mut last = height::depth(self.at.height, policy.forget_depth);
        for output in self.outputs.iter().filter(|o| o.holds_up()) {
            last = last.and(output.irrevocable_at(tip, policy)?);
        }
        (!last.is_open(tip)).then_some(last)
    }
}
