//! `ChannelEntry`: what the index of a store holds of a channel, so that starting up needs no facts
//! of quiet channels.
use crate::facts::{ChannelFacts, HtlcLink};
use crate::ids::{ChannelId, HtlcId, Side};
use crate::policy::Policy;
use crate::units::{BlockHeight, CommitmentNumber};
use alloc::vec::Vec;
use bitcoin::OutPoint;

/// The part of a channel's facts that watching it takes while it is quiet. It is written whenever
/// the facts are, and depends on nothing but them: settings may change between two runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelEntry {
    /// Channel id.
    pub id: ChannelId,
    /// The current funding output.
    pub funding: OutPoint,
    /// Funding outputs of the other candidates, former ones too.
    pub others: Vec<OutPoint>,
    /// Number of our current commitment.
    pub local: CommitmentNumber,
    /// Number of the peer's current commitment.
    pub remote: CommitmentNumber,
    /// Earliest expiry of the offered HTLCs in live commitments (BOLT 2 "G").
    pub offered: Option<BlockHeight>,
    /// Earliest expiry of the incoming HTLCs that offered ones forward.
    pub incoming: Option<BlockHeight>,
}

impl ChannelEntry {
    /// The entry that belongs to these facts.
    #[must_use]
    pub fn of(facts: &ChannelFacts) -> Self {
        let ours = |id: &HtlcId| id.offerer == Side::Local;
        let committed = facts.candidates.iter().flat_map(|candidate| {
            let local = facts.unrevoked_local(candidate).map(|local| &local.htlcs);
            let remotes = facts.unrevoked_remotes(candidate).map(|remote| &remote.htlcs);
            local.into_iter().chain(remotes).flatten()
        });
        let offered = committed.filter(|id| ours(id)).filter_map(|id| facts.htlcs.get(id));
        let records = facts.htlcs.iter().filter(|(id, _)| ours(id));
        let incoming = records.filter_map(|(_, record)| match record.htlc.link {
            HtlcLink::ForwardOf { expiry, .. } => Some(expiry.0),
            HtlcLink::OwnPayment
            | HtlcLink::Final
            | HtlcLink::ForwardedTo { .. }
            | HtlcLink::Uncommitted => None,
        });
        let current = &facts.candidates.current;
        Self {
            id: facts.id,
            funding: current.funding,
            others: facts.candidates.iter().skip(1).map(|other| other.funding).collect(),
            local: current.local.number,
            remote: current.remote.number,
            offered: offered.map(|record| record.htlc.expiry.0).min(),
            incoming: incoming.min(),
        }
    }

    /// Tip at which the channel, if it is quiet, must be looked at; never later than what its facts
    /// say. A received HTLC has no deadline as long as no preimage is known, and a channel that
    /// knows one is not quiet.
    #[must_use]
    pub fn due(&self, policy: &Policy) -> Option<BlockHeight> {
        let offered = self.offered.map(|expiry| expiry.plus(policy.offered_grace));
        let incoming = self.incoming.map(|expiry| expiry.minus(policy.upstream_margin));
        offered.into_iter().chain(incoming).min()
    }
}
