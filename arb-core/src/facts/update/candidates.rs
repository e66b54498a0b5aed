//! Funding candidates that come, take the place of the current one, and go.
use crate::facts::update::verify;
use crate::facts::{ChannelFacts, FundingCandidate, UpdateError};
use crate::units::BlockHeight;
use bitcoin::OutPoint;
use bitcoin::secp256k1::{Secp256k1, Verification};

/// Adds a candidate, or finds it as it was stated before.
pub(super) fn add<C: Verification>(
    facts: &mut ChannelFacts,
    candidate: &FundingCandidate,
    birth: BlockHeight,
    secp: Option<&Secp256k1<C>>,
) -> Result<(), UpdateError> {
    let conflict = UpdateError::CandidateConflict(candidate.funding);
    if let Some(known) = facts.candidates.get(&candidate.funding) {
        if known == candidate {
            return Ok(());
        }
        // The peer signs anew what it says again.
        let signed = FundingCandidate { local: known.local.clone(), ..candidate.clone() };
        if signed != *known || !verify::differ_in_signatures(&known.local, &candidate.local) {
            return Err(conflict);
        }
        return secp.map_or(Ok(()), |secp| verify::check_candidate(facts, candidate, secp));
    }
    facts.candidates.others.push(candidate.clone());
    facts.birth = facts.birth.min(birth);
    facts.verify_candidates()?;
    secp.map_or(Ok(()), |secp| verify::check_candidate(facts, candidate, secp))
}

/// Makes a candidate the current one. The others' commitments stay as they are from now on.
pub(super) fn lock(facts: &mut ChannelFacts, funding: &OutPoint) -> Result<(), UpdateError> {
    let candidates = &mut facts.candidates;
    if candidates.current.funding == *funding {
        return Ok(());
    }
    let is_it = |candidate: &FundingCandidate| candidate.funding == *funding;
    let step = |candidate: &FundingCandidate| (candidate.local.number, candidate.remote.number);
    let from = if candidates.others.iter().any(is_it) {
        &mut candidates.others
    } else {
        &mut candidates.former
    };
    let at = from.iter().position(is_it).ok_or(UpdateError::UnknownFunding)?;
    if from.get(at).map(step) != Some(step(&candidates.current)) {
        return Err(UpdateError::CandidateReplaced(*funding));
    }
    let locked = from.remove(at);
    let before = core::mem::replace(&mut candidates.current, locked);
    let others = core::mem::take(&mut candidates.others);
    candidates.former.splice(0..0, core::iter::once(before).chain(others));
    Ok(())
}

/// Takes a candidate out that is not the current one.
pub(super) fn discard(facts: &mut ChannelFacts, funding: &OutPoint) -> Result<(), UpdateError> {
    let candidates = &mut facts.candidates;
    if candidates.current.funding == *funding {
        return Err(UpdateError::CandidateNeeded(*funding));
    }
    candidates.others.retain(|candidate| candidate.funding != *funding);
    candidates.former.retain(|candidate| candidate.funding != *funding);
    Ok(())
}
