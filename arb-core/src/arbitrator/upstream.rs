//! Upstream duties: what the node is told about the incoming side of every offered HTLC.
use crate::arbitrator::{
    ChannelArbitrator, Notice, Now, Position, PreimageSource, UpstreamDuty, UpstreamResolution,
    UpstreamVerdict,
};
use crate::classify::FundingSpend;
use crate::facts::{ChannelFacts, Htlc, HtlcLink};
use crate::height::{self, Due};
use crate::ids::{HtlcId, Side};
use crate::picture::{Picture, Role};
use crate::policy::Policy;
use crate::units::{BlockDelta, BlockHeight};
use alloc::vec::Vec;

/// Verdicts that are due at the tip and not given yet, or better than what was given.
///
/// The duties are those of every HTLC that we offered in any unrevoked commitment; a revoked one
/// that confirms adds none.
pub(crate) fn due(
    facts: &ChannelFacts,
    arbitrator: &ChannelArbitrator,
    picture: Option<&Picture>,
    now: &Now,
    policy: &Policy,
) -> Vec<(UpstreamDuty, UpstreamVerdict)> {
    let tip = now.tip;
    let offered = facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Local);
    let duties = offered.map(|(id, record)| (id, record, UpstreamDuty::of(*id, &record.htlc)));
    duties
        .filter_map(|(id, record, duty)| {
            let htlc = &record.htlc;
            let may =
                |verdict| arbitrator.acts.may_be_told(&duty, verdict).then_some((duty, verdict));
            if arbitrator.upstream_preimage(htlc.hash).is_some() {
                return may(UpstreamVerdict::Fulfilled);
            }
            let fail = may(UpstreamVerdict::Failed)?;
            if now.position == Position::CatchingUp {
                // A block to come may hold the preimage.
                return None;
            }
            let open = |due: Due| due.is_open(tip);
            if picture.and_then(|p| given_up(p, *id, htlc, policy)).is_some_and(open) {
                return Some(fail);
            }
            // In any case, even if this channel is still open: the incoming one can be saved.
            let margin = is_late(htlc, tip, policy);
            let committed = facts.is_committed(*id);
            let settled = picture.is_some_and(|p| match committed {
                true => lost_downstream(p, *id, policy).is_some_and(open),
                // What we know nothing of may contain what our facts do not say to be committed.
                false => is_known(p.spend),
            });
            (margin || settled).then_some(fail)
        })
        .collect()
}

/// The incoming HTLC is about to expire: failing it back saves that channel.
fn is_late(htlc: &Htlc, tip: BlockHeight, policy: &Policy) -> bool {
    late_from(htlc, policy).is_some_and(|from| tip >= from)
}

/// Tip from which an offered HTLC is failed back in any case. However wide the margin, that is not
/// before the HTLC expires: until then the peer alone can take it, and we would lose what it is
/// worth (BOLT 2). Where it expires too late for that, against all rules, the incoming channel is
/// saved nevertheless.
pub(crate) fn late_from(htlc: &Htlc, policy: &Policy) -> Option<BlockHeight> {
    match htlc.link {
        HtlcLink::ForwardOf { expiry, .. } => {
            let earliest = expiry.0.minus(policy.upstream_margin);
            let latest =
                expiry.0.minus(policy.upstream_margin.min(Policy::default().upstream_margin));
            Some(htlc.expiry.0.clamp(earliest, latest))
        }
        HtlcLink::OwnPayment
        | HtlcLink::Final
        | HtlcLink::ForwardedTo { .. }
        | HtlcLink::Uncommitted => None,
    }
}

/// Whether it is known which HTLCs such a spend has outputs for.
const fn is_known(spend: FundingSpend) -> bool {
    match spend {
        // The peer may hold an output for the HTLC that we cannot see.
        FundingSpend::FutureCommitment(_)
        | FundingSpend::OutdatedLocalCommitment(_)
        | FundingSpend::NewerLocalCommitment(_)
        | FundingSpend::Unknown
        | FundingSpend::Splice(_) => false,
        FundingSpend::MutualClose
        | FundingSpend::LocalCommitment(_)
        | FundingSpend::RemoteCommitment(_)
        | FundingSpend::RevokedCommitment(_) => true,
    }
}

/// When the peer can claim the HTLC no more: its output was taken by us (BOLT 5 LL3a, RL2), or
/// the confirmed commitment has no output for it (LL4b, RL3b), at act depth.
fn lost_downstream(picture: &Picture, id: HtlcId, policy: &Policy) -> Option<Due> {
    let from = match picture.htlc(id) {
        _ if !is_known(picture.spend) => return None,
        None => picture.at.height,
        Some(_) => taken_by_us(picture, id)?,
    };
    Some(height::depth(from, policy.act_depth))
}

/// When nothing better will be known: the HTLC has no output that we can see, or one that is
/// not worth its claim, and its expiry is as deep as what is forgotten. Without an incoming
/// HTLC nothing else would end the duty; with one its own expiry does, and the peer may take the
/// output until then.
fn given_up(picture: &Picture, id: HtlcId, htlc: &Htlc, policy: &Policy) -> Option<Due> {
    if late_from(htlc, policy).is_some() {
        return None;
    }
    let hidden = match picture.spend {
        FundingSpend::FutureCommitment(_)
        | FundingSpend::OutdatedLocalCommitment(_)
        | FundingSpend::NewerLocalCommitment(_)
        | FundingSpend::Unknown => true,
        FundingSpend::MutualClose
        | FundingSpend::LocalCommitment(_)
        | FundingSpend::RemoteCommitment(_)
        | FundingSpend::RevokedCommitment(_)
        | FundingSpend::Splice(_) => {
            picture.htlc(id).is_some_and(|o| o.spent.is_none() && o.is_uneconomic())
        }
    };
    let from = htlc.expiry.0.max(picture.at.height);
    hidden.then(|| height::depth(from, policy.forget_depth))
}

/// Whether every duty was decided: nothing is forgotten before.
pub(crate) fn is_done(facts: &ChannelFacts, arbitrator: &ChannelArbitrator) -> bool {
    let mut offered = facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Local);
    offered.all(|(id, record)| arbitrator.acts.told(*id, &record.htlc).is_some())
}

/// What the node was told to fail before its preimage was known: even if it has been told to fulfil it since, it may
/// have failed it, and a person must hear of that. Of an HTLC that has left the channel since, it must
/// be its own preimage: a payment may be tried again.
pub(crate) fn known_too_late<'a>(
    facts: &'a ChannelFacts,
    arbitrator: &'a ChannelArbitrator,
) -> impl Iterator<Item = &'a UpstreamDuty> {
    let acts = &arbitrator.acts;
    let failed = acts.upstream.iter().filter(|(duty, verdict)| {
        **verdict == UpstreamVerdict::Failed || acts.revised.contains(duty)
    });
    let failed = failed.map(|(duty, _)| duty);
    failed.filter(|duty| match facts.htlcs.get(&duty.htlc) {
        Some(record) => {
            let same = UpstreamDuty::of(duty.htlc, &record.htlc) == **duty;
            same && arbitrator.upstream_preimage(duty.hash).is_some()
        }
        None => {
            let own = PreimageSource::Downstream(duty.htlc);
            arbitrator.sources(duty.hash).any(|(source, _)| source == own)
        }
    })
}

/// Where the HTLC's value came to us for good: its output, or (revoked) the output of the peer's
/// second stage.
fn taken_by_us(picture: &Picture, id: HtlcId) -> Option<BlockHeight> {
    let ours = |role: Role| {
        let output = picture.outputs.iter().find(|output| output.role == role)?;
        output.spent.filter(|spent| spent.by == Side::Local).map(|spent| spent.at.height)
    };
    ours(Role::Htlc(id)).or_else(|| ours(Role::SecondStage(Some(id))))
}

/// Notices that were decided and not acknowledged.
pub(crate) fn notices(
    facts: &ChannelFacts,
    arbitrator: &ChannelArbitrator,
) -> impl Iterator<Item = Notice> {
    facts.htlcs.iter().filter_map(|(id, record)| {
        let htlc = &record.htlc;
        let duty = UpstreamDuty::of(*id, htlc);
        let verdict = arbitrator.acts.upstream.get(&duty)?;
        let resolution = match verdict {
            UpstreamVerdict::Failed => UpstreamResolution::Fail,
            UpstreamVerdict::Fulfilled => {
                UpstreamResolution::Fulfil(arbitrator.upstream_preimage(htlc.hash)?)
            }
        };
        let UpstreamDuty { htlc, hash, incoming } = duty;
        let amount = record.htlc.amount;
        let names = facts.names.clone();
        Some(Notice::Upstream { htlc, names, incoming, hash, amount, resolution })
    })
}

/// The next upstream duty by height alone.
pub(crate) fn next(
    facts: &ChannelFacts,
    arbitrator: &ChannelArbitrator,
    picture: Option<&Picture>,
    tip: BlockHeight,
    policy: &Policy,
) -> Option<Due> {
    let offered = facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Local);
    let open = offered.filter(|(id, r)| arbitrator.acts.told(**id, &r.htlc).is_none());
    open.flat_map(|(id, record)| {
        let late = late_from(&record.htlc, policy).map(height::deadline);
        let settled = picture.and_then(|p| lost_downstream(p, *id, policy));
        let hidden = picture.and_then(|p| given_up(p, *id, &record.htlc, policy));
        [late, settled, hidden]
    })
    .flatten()
    .filter(|due| picture.is_none() || due.tip > tip)
    .filter(|due| due.tip < tip.plus(BlockDelta(u32::MAX)))
    .min()
}
