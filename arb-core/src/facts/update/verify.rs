//! What must hold of commitments before they are believed: balances, counts, weight, signatures.
use crate::facts::update::htlcs;
use crate::facts::{
    ChannelFacts, FundingCandidate, HtlcRecord, LocalCommitment, RemoteCommitment, UpdateError,
};
use crate::format::{
    Commitment, CommitmentFormat, htlc_transactions, local_commitment, remote_commitment, sighash,
    weights,
};
use crate::ids::{HtlcId, Side};
use crate::units::CommitmentNumber;
use alloc::collections::BTreeSet;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, Verification, ecdsa};
use bitcoin::sighash::EcdsaSighashType;

impl ChannelFacts {
    /// Checks facts as a whole, for registration: every commitment of every candidate with all its
    /// signatures, that candidates agree, and that HTLC records fit the commitments.
    ///
    /// The secret store may be empty although the peer revoked commitments (those can then not be
    /// punished); if it is not, it must reach up to the current remote commitment.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn verify<C: Verification>(&self, secp: &Secp256k1<C>) -> Result<(), UpdateError> {
        self.verify_parties()?;
        self.verify_candidates()?;
        for candidate in self.candidates.iter() {
            check_candidate(self, candidate, secp)?;
        }
        htlcs::verify(self)?;
        match self.secrets.last() {
            Some(last) if last.next() != Some(self.candidates.current.remote.number) => {
                let next = last.next().unwrap_or(CommitmentNumber::MAX);
                Err(UpdateError::SecretsIncomplete { next })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn verify_parties(&self) -> Result<(), UpdateError> {
        for side in [Side::Local, Side::Remote] {
            let party = self.party(side);
            if party.dust_limit < weights::MIN_DUST_LIMIT {
                return Err(UpdateError::DustLimit(side));
            }
            if party.delay.0 > u32::from(u16::MAX) {
                return Err(UpdateError::Delay(side));
            }
        }
        Ok(())
    }

    /// Checks that candidates are distinct, and that what is not revoked is of one step of the
    /// channel, whichever candidate it spends.
    pub(super) fn verify_candidates(&self) -> Result<(), UpdateError> {
        let current = &self.candidates.current;
        let mut seen = BTreeSet::new();
        for candidate in self.candidates.iter() {
            let conflict = UpdateError::CandidateConflict(candidate.funding);
            let former = !self.candidates.moving().any(|c| c.funding == candidate.funding);
            let stale_local = former && candidate.local.number < current.local.number;
            let stale_remote = former && candidate.remote.number < current.remote.number;
            if !seen.insert(candidate.funding)
                || !(stale_local || agree_local(&candidate.local, &current.local))
                || !(stale_remote || agree(&candidate.remote, &current.remote))
            {
                return Err(conflict);
            }
            if let Some(next) = candidate.remote_next.as_ref().filter(|_| !stale_remote) {
                check_agreement(self, candidate, next)?;
            }
        }
        self.check_in_step()
    }

    /// Checks that no candidate is left behind: the peer may broadcast the commitments of any of
    /// them, and we the newest of ours only.
    ///
    /// # Errors
    /// A candidate lacks a commitment that another has.
    pub(crate) fn check_in_step(&self) -> Result<(), UpdateError> {
        let current = &self.candidates.current;
        let step = |candidate: &FundingCandidate| {
            let next = candidate.remote_next.as_ref().map(|next| next.number);
            (candidate.local.number, candidate.remote.number, next)
        };
        match self.candidates.others.iter().find(|other| step(other) != step(current)) {
            Some(behind) => Err(UpdateError::CandidateBehind(behind.funding)),
            None => Ok(()),
        }
    }
}

/// Whether two candidates' remote commitments are of one step of the channel: same number, point
/// and HTLCs, in any order.
fn agree(one: &RemoteCommitment, two: &RemoteCommitment) -> bool {
    let same = (one.number, one.point) == (two.number, two.point);
    same && set(&one.htlcs) == set(&two.htlcs)
}

/// Whether two candidates' local commitments are of one step of the channel.
fn agree_local(one: &LocalCommitment, two: &LocalCommitment) -> bool {
    let same = (one.number, one.point) == (two.number, two.point);
    same && set(&one.htlcs) == set(&two.htlcs)
}

/// Whether two local commitments are one that is signed twice.
pub(super) fn differ_in_signatures(one: &LocalCommitment, two: &LocalCommitment) -> bool {
    let of_one = (one.number, one.point, one.feerate, one.local_balance, one.remote_balance);
    let of_two = (two.number, two.point, two.feerate, two.local_balance, two.remote_balance);
    of_one == of_two && one.htlcs == two.htlcs
}

fn set(htlcs: &[HtlcId]) -> BTreeSet<HtlcId> {
    htlcs.iter().copied().collect()
}

/// Checks that the next remote commitment of a candidate is of one step with those of the others.
pub(super) fn check_agreement(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    next: &RemoteCommitment,
) -> Result<(), UpdateError> {
    let mut others = facts.candidates.moving().filter_map(|other| other.remote_next.as_ref());
    if others.all(|other| agree(other, next)) {
        Ok(())
    } else {
        Err(UpdateError::CandidateConflict(candidate.funding))
    }
}

/// Checks every commitment of a candidate that may still be broadcast. Those that are revoked may
/// hold HTLCs that are known no more.
pub(super) fn check_candidate<C: Verification>(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    secp: &Secp256k1<C>,
) -> Result<(), UpdateError> {
    if let Some(local) = facts.unrevoked_local(candidate) {
        check_local(facts, candidate, local, secp)?;
    }
    if let Some(next) = &candidate.remote_next {
        check_next_number(candidate, next.number)?;
    }
    facts.unrevoked_remotes(candidate).try_for_each(|r| check_remote(facts, candidate, r, secp))
}

/// Checks that a next remote commitment comes right after the current one.
pub(super) fn check_next_number(
    candidate: &FundingCandidate,
    stated: CommitmentNumber,
) -> Result<(), UpdateError> {
    match candidate.remote.number.next() {
        Some(expected) if expected == stated => Ok(()),
        Some(expected) => Err(UpdateError::UnexpectedRemoteNumber { stated, expected }),
        None => {
            let expected = candidate.remote.number;
            Err(UpdateError::UnexpectedRemoteNumber { stated, expected })
        }
    }
}

/// Rebuilds a remote commitment and checks that it could be broadcast.
pub(super) fn check_remote<C: Verification>(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    stated: &RemoteCommitment,
    secp: &Secp256k1<C>,
) -> Result<(), UpdateError> {
    check_counts(candidate.format, &stated.htlcs)?;
    check_transaction(&remote_commitment(facts, candidate, stated, secp)?)
}

/// Rebuilds a local commitment and its HTLC transactions, and checks that they could be broadcast
/// and that every signature of the peer is valid.
pub(super) fn check_local<C: Verification>(
    facts: &ChannelFacts,
    candidate: &FundingCandidate,
    stated: &LocalCommitment,
    secp: &Secp256k1<C>,
) -> Result<(), UpdateError> {
    check_counts(candidate.format, &stated.htlcs)?;
    let commitment = local_commitment(facts, candidate, stated, secp)?;
    check_transaction(&commitment)?;
    check_commitment_signature(&commitment, &stated.signature, secp)?;
    check_htlc_signatures(&commitment, &stated.htlc_signatures, secp)
}

fn check_counts(format: CommitmentFormat, ids: &[HtlcId]) -> Result<(), UpdateError> {
    for offerer in [Side::Local, Side::Remote] {
        let count = ids.iter().filter(|id| id.offerer == offerer).count();
        if count > format.max_htlcs_per_direction() {
            return Err(UpdateError::TooManyHtlcs { offerer, count });
        }
    }
    Ok(())
}

/// Checks what consensus and relay policy want of the transaction itself.
pub(super) fn check_transaction(commitment: &Commitment) -> Result<(), UpdateError> {
    if commitment.outputs.is_empty() {
        return Err(UpdateError::NoOutputs);
    }
    let weight = commitment.signed_weight();
    if weight > commitment.spec.format.max_weight() {
        Err(UpdateError::TooHeavy(weight))
    } else {
        Ok(())
    }
}

fn check_commitment_signature<C: Verification>(
    commitment: &Commitment,
    signature: &ecdsa::Signature,
    secp: &Secp256k1<C>,
) -> Result<(), UpdateError> {
    let script = commitment.funding_script();
    let spent = commitment.funding_output();
    let all = EcdsaSighashType::All;
    let message = sighash(&commitment.transaction, 0, &spent, Some(&script), all)
        .map_err(|_| UpdateError::CommitmentSignature)?;
    if is_valid(secp, &message, signature, &commitment.spec.keys.other_funding) {
        Ok(())
    } else {
        Err(UpdateError::CommitmentSignature)
    }
}

fn check_htlc_signatures<C: Verification>(
    commitment: &Commitment,
    signatures: &[ecdsa::Signature],
    secp: &Secp256k1<C>,
) -> Result<(), UpdateError> {
    let transactions = htlc_transactions(commitment);
    let (expected, stated) = (transactions.len(), signatures.len());
    if expected != stated {
        return Err(UpdateError::HtlcSignatureCount { expected, stated });
    }
    let sighash_type = commitment.spec.format.peer_htlc_sighash();
    let key = &commitment.spec.keys.other_htlc;
    for (htlc, signature) in transactions.iter().zip(signatures) {
        let refused = UpdateError::HtlcSignature(htlc.htlc);
        let script = Some(htlc.script.as_script());
        let message = sighash(&htlc.transaction, 0, &htlc.input, script, sighash_type)
            .map_err(|_| refused)?;
        if !is_valid(secp, &message, signature, key) {
            return Err(refused);
        }
    }
    Ok(())
}

/// Whether the signature is valid and has low S: relay policy refuses high S, and so the
/// transaction could not be broadcast. (libsecp256k1 refuses high S too; that is not relied upon.)
fn is_valid<C: Verification>(
    secp: &Secp256k1<C>,
    message: &Message,
    signature: &ecdsa::Signature,
    key: &PublicKey,
) -> bool {
    let mut normalized = *signature;
    normalized.normalize_s();
    normalized == *signature && secp.verify_ecdsa(message, signature, key).is_ok()
}

/// Terms that an HTLC must have whatever the commitments say.
pub(super) fn check_terms(id: HtlcId, record: &HtlcRecord) -> Result<(), UpdateError> {
    if record.htlc.expiry.0.0 >= bitcoin::absolute::LOCK_TIME_THRESHOLD {
        return Err(UpdateError::ExpiryOutOfRange(id));
    }
    htlcs::check_link(id, record.htlc.link)
}
