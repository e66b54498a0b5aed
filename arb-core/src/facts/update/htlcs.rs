//! HTLC records: their terms and links, and the intervals of remote commitments that contain them.
use crate::facts::update::verify::check_terms;
use crate::facts::{ChannelFacts, Htlc, HtlcLink, HtlcRecord, RemoteCommitment, UpdateError};
use crate::ids::{HtlcId, Side};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// Adds an HTLC, or finds it as it was stated before.
pub(super) fn add(facts: &mut ChannelFacts, id: HtlcId, htlc: Htlc) -> Result<(), UpdateError> {
    let record = HtlcRecord { htlc, remote_from: None, remote_until: None };
    check_terms(id, &record)?;
    let Some(known) = facts.htlcs.get(&id).map(|known| known.htlc) else {
        facts.htlcs.insert(id, record);
        return Ok(());
    };
    let same_terms =
        (known.amount, known.hash, known.expiry) == (htlc.amount, htlc.hash, htlc.expiry);
    let is_live = live(facts).contains(&id);
    if !same_terms && is_live {
        return Err(UpdateError::HtlcConflict(id));
    }
    // An HTLC that no commitment contains is forgotten by both parties when they reconnect, and
    // its id used again (BOLT 2 "Message Retransmission"): maybe for another part of the same payment,
    // with the same terms. Of a received one more may have become known meanwhile.
    let same = same_terms && (is_live || id.offerer == Side::Remote);
    let link = if same { restated(id, known.link, htlc.link)? } else { htlc.link };
    if let Some(record) = facts.htlcs.get_mut(&id) {
        record.htlc = Htlc { link, ..htlc };
    }
    Ok(())
}

/// Sets the link of a known HTLC.
pub(super) fn link(
    facts: &mut ChannelFacts,
    id: HtlcId,
    link: HtlcLink,
) -> Result<(), UpdateError> {
    check_link(id, link)?;
    let record = facts.htlcs.get_mut(&id).ok_or(UpdateError::UnknownHtlc(id))?;
    record.htlc.link = relinked(id, record.htlc.link, link)?;
    Ok(())
}

/// The link after the same HTLC was added again: what became known meanwhile stays.
fn restated(id: HtlcId, known: HtlcLink, stated: HtlcLink) -> Result<HtlcLink, UpdateError> {
    match stated {
        HtlcLink::Uncommitted => Ok(known),
        HtlcLink::OwnPayment
        | HtlcLink::ForwardOf { .. }
        | HtlcLink::Final
        | HtlcLink::ForwardedTo { .. } => relinked(id, known, stated),
    }
}

/// The link after another was stated. Once it is known whom a preimage may serve, only the
/// outgoing HTLC may change: when the first attempt to forward failed, it is forwarded again.
fn relinked(id: HtlcId, known: HtlcLink, stated: HtlcLink) -> Result<HtlcLink, UpdateError> {
    match (known, stated) {
        (HtlcLink::Uncommitted, stated) => Ok(stated),
        (HtlcLink::ForwardedTo { .. }, HtlcLink::ForwardedTo { .. }) => Ok(stated),
        (known, stated) if known == stated => Ok(known),
        _ => Err(UpdateError::LinkConflict(id)),
    }
}

/// Whether an HTLC of this offerer can have such a link.
pub(super) fn check_link(id: HtlcId, link: HtlcLink) -> Result<(), UpdateError> {
    let offerer = match link {
        HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } => Side::Local,
        HtlcLink::Final | HtlcLink::ForwardedTo { .. } | HtlcLink::Uncommitted => Side::Remote,
    };
    if offerer == id.offerer { Ok(()) } else { Err(UpdateError::LinkConflict(id)) }
}

/// Every HTLC that is in an unrevoked commitment of any candidate.
pub(super) fn live(facts: &ChannelFacts) -> BTreeSet<HtlcId> {
    let of = |candidate| {
        let local = facts.unrevoked_local(candidate).map(|local| &local.htlcs);
        let remotes = facts.unrevoked_remotes(candidate).map(|remote| &remote.htlcs);
        local.into_iter().chain(remotes).flatten().copied()
    };
    facts.candidates.iter().flat_map(of).collect()
}

/// Refuses a next remote commitment that contains an HTLC which had left.
pub(super) fn check_none_ended(
    facts: &ChannelFacts,
    next: &RemoteCommitment,
) -> Result<(), UpdateError> {
    let ended = |id: &&HtlcId| {
        let record = facts.htlcs.get(*id);
        record.is_some_and(|record| record.remote_until.is_some())
    };
    match next.htlcs.iter().find(ended) {
        Some(id) => Err(UpdateError::HtlcEnded(*id)),
        None => Ok(()),
    }
}

/// Opens and closes the intervals at a next remote commitment.
pub(super) fn advance(facts: &mut ChannelFacts, next: &RemoteCommitment) {
    let listed: BTreeSet<HtlcId> = next.htlcs.iter().copied().collect();
    for (id, record) in &mut facts.htlcs {
        if listed.contains(id) {
            record.remote_from.get_or_insert(next.number);
        } else if record.remote_from.is_some() {
            record.remote_until.get_or_insert(next.number);
        }
    }
}

/// Takes out the HTLCs that left the last live commitment. One that no remote commitment has
/// contained yet was only just added, and stays.
pub(super) fn take_ended(facts: &mut ChannelFacts) -> Vec<(HtlcId, HtlcRecord)> {
    let live = live(facts);
    let ended =
        |id: &HtlcId, record: &HtlcRecord| !live.contains(id) && record.remote_from.is_some();
    let taken: Vec<_> = facts
        .htlcs
        .iter()
        .filter(|(id, record)| ended(id, record))
        .map(|(id, record)| (*id, *record))
        .collect();
    facts.htlcs.retain(|id, record| !ended(id, record));
    taken
}

/// Checks HTLCs that ended before the channel was registered: none is known, and all of them had left
/// before the peer's current commitment.
pub(super) fn check_ended(
    facts: &ChannelFacts,
    ended: &[(HtlcId, HtlcRecord)],
) -> Result<(), UpdateError> {
    let current = facts.candidates.current.remote.number;
    for (id, record) in ended {
        check_terms(*id, record)?;
        if facts.htlcs.contains_key(id) {
            return Err(UpdateError::HtlcConflict(*id));
        }
        match (record.remote_from, record.remote_until) {
            (Some(from), Some(until)) if from < until && until <= current => {}
            _ => return Err(UpdateError::HtlcInterval(*id)),
        }
    }
    Ok(())
}

/// Checks that every record fits the commitments.
pub(super) fn verify(facts: &ChannelFacts) -> Result<(), UpdateError> {
    let live = live(facts);
    let current = &facts.candidates.current.remote;
    let next = facts.candidates.moving().find_map(|candidate| candidate.remote_next.as_ref());
    for (id, record) in &facts.htlcs {
        check_terms(*id, record)?;
        // The interval says of the live remote commitments exactly what they list.
        let fits = |commitment: &RemoteCommitment| {
            record.in_remote(commitment.number) == commitment.htlcs.contains(id)
        };
        let is_live = live.contains(id) || record.remote_from.is_none();
        let ordered = match (record.remote_from, record.remote_until) {
            (Some(from), Some(until)) => from < until,
            (None, Some(_)) => false,
            (Some(_) | None, None) => true,
        };
        if !ordered || !is_live || !fits(current) || !next.is_none_or(fits) {
            return Err(UpdateError::HtlcInterval(*id));
        }
    }
    Ok(())
}
