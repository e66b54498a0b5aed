//! What a close must save, and by when.
use crate::arbitrator::ChannelArbitrator;
use crate::arbitrator::upstream::late_from;
use crate::claim::Deadline;
use crate::facts::{ChannelFacts, HtlcLink};
use crate::ids::Side;
use crate::policy::Policy;
use crate::units::{self, BlockDelta, BlockHeight};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bitcoin::Amount;

/// Blocks that are left to an HTLC transaction once the commitment is confirmed: half of BOLT 2's S.
const SECOND_STAGE: BlockDelta = BlockDelta(6);

/// What a close must save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AtStake {
    /// By when the commitment should be confirmed. A race if nothing has a deadline, but an HTLC that
    /// was failed upstream can still be taken by the peer.
    pub(crate) deadline: Option<Deadline>,
    /// What is lost if it never is.
    pub(crate) value: Amount,
    /// What is lost if it is not by a height: every such height, with all that is lost by then, lowest first.
    pub(crate) lost: Vec<(BlockHeight, Amount)>,
}

impl AtStake {
    pub(crate) fn is_nothing(&self) -> bool {
        self.deadline.is_none() && self.value == Amount::ZERO
    }
}

impl ChannelArbitrator {
    /// By when the commitment should be confirmed, so that its HTLC transactions have time, and what
    /// is lost otherwise. What was fulfilled upstream is the peer's to take: nothing of it is at
    /// stake.
    pub(crate) fn stake(&self, facts: &ChannelFacts, policy: &Policy) -> AtStake {
        let (mut value, mut told) = (Amount::ZERO, false);
        let mut due: BTreeMap<BlockHeight, Amount> = BTreeMap::new();
        for (id, record) in &facts.htlcs {
            let htlc = &record.htlc;
            let by = match (id.offerer, htlc.link) {
                (Side::Local, _) if self.upstream_preimage(htlc.hash).is_some() => continue,
                (Side::Local, HtlcLink::ForwardOf { .. })
                    if self.acts().told(*id, htlc).is_some() =>
                {
                    told = true;
                    None
                }
                (Side::Local, HtlcLink::ForwardOf { expiry, .. }) => {
                    let by = expiry.0.minus(SECOND_STAGE);
                    Some(late_from(htlc, policy).map_or(by, |late| by.min(late)))
                }
                // Of our own payment nobody waits for the end, and what it is worth is ours.
                (Side::Local, _) => None,
                (Side::Remote, _) => match crate::picture::usable_preimage(self, *id, htlc) {
                    Some(_) => Some(htlc.expiry.0.minus(SECOND_STAGE)),
                    None => continue,
                },
            };
            let amount = htlc.amount.floor();
            if let Some(by) = by {
                let at = due.entry(by).or_default();
                *at = units::plus(*at, amount);
            }
            value = units::plus(value, amount);
        }
        let lost: Vec<(BlockHeight, Amount)> = due
            .into_iter()
            .scan(Amount::ZERO, |all, (by, amount)| {
                *all = units::plus(*all, amount);
                Some((by, *all))
            })
            .collect();
        let race = told.then_some(Deadline::Race(None));
        let deadline = lost.first().map(|(by, _)| Deadline::By(*by)).or(race);
        AtStake { deadline, value, lost }
    }
}
