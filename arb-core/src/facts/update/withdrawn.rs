//! A next remote commitment that was stated, and is not going to be signed.
use crate::facts::update::htlcs;
use crate::facts::{ChannelFacts, RemoteCommitment, UpdateError};
use crate::ids::HtlcId;
use crate::units::CommitmentNumber;
use alloc::collections::BTreeSet;

/// Takes the next commitment of this number out of every candidate, and HTLCs that it alone contained.
pub(super) fn withdraw(
    facts: &mut ChannelFacts,
    number: CommitmentNumber,
) -> Result<(), UpdateError> {
    let current = facts.candidates.current.remote.number;
    if number <= current {
        let expected = current.next().unwrap_or(CommitmentNumber::MAX);
        return Err(UpdateError::UnexpectedRemoteNumber { stated: number, expected });
    }
    let candidates = &mut facts.candidates;
    let all = core::iter::once(&mut candidates.current)
        .chain(&mut candidates.others)
        .chain(&mut candidates.former);
    let mut listed: BTreeSet<HtlcId> = BTreeSet::new();
    for candidate in all {
        let is_it = |next: &mut RemoteCommitment| next.number == number;
        if let Some(withdrawn) = candidate.remote_next.take_if(is_it) {
            listed.extend(withdrawn.htlcs);
        }
    }
    for record in facts.htlcs.values_mut() {
        record.remote_from = record.remote_from.filter(|from| *from != number);
        record.remote_until = record.remote_until.filter(|until| *until != number);
    }
    let live = htlcs::live(facts);
    facts.htlcs.retain(|id, _| live.contains(id) || !listed.contains(id));
    Ok(())
}
