//! Updates of facts at payment speed: verified whole before anything is acknowledged.
mod candidates;
pub mod error;
mod htlcs;
mod verify;
mod withdrawn;

use crate::arbitrator::PreimageSource;
use crate::facts::{
    ChannelFacts, ChannelNames, FundingCandidate, Htlc, HtlcLink, HtlcRecord, LocalCommitment,
    RemoteCommitment, ShutdownScripts,
};
use crate::format::keys::per_commitment_point;
use crate::ids::{HtlcId, PerCommitmentSecret, Preimage};
use crate::units::{BlockHeight, CommitmentNumber};
use alloc::boxed::Box;
use alloc::vec::Vec;
use bitcoin::OutPoint;
use bitcoin::secp256k1::{All, Secp256k1, Signing, Verification};
pub use error::UpdateError;

/// One thing that the node tells of a channel after registration. Telling it again, unchanged,
/// changes nothing and is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// An HTLC that commitments may from now on contain. As long as none does, it may be stated
    /// again with other terms: both parties forget it when they reconnect.
    HtlcAdded {
        /// Its identity.
        id: HtlcId,
        /// Its terms.
        htlc: Htlc,
    },
    /// What an HTLC is linked to has become known. Of a settled link only the outgoing HTLC may
    /// change, and only after the one before it has irrevocably failed.
    HtlcLinked {
        /// The HTLC.
        id: HtlcId,
        /// Its link.
        link: HtlcLink,
    },
    /// A new commitment of ours, with the peer's signatures. Its number is higher than the current
    /// one's; numbers may be left out, for the node may state only the last of several commitments.
    /// The current one may be stated again with other signatures, which are checked: the peer signs anew what it
    /// says again. Those that are known stay.
    LocalCommitment {
        /// Funding output that it spends.
        funding: OutPoint,
        /// The commitment.
        commitment: LocalCommitment,
    },
    /// The peer's next commitment, about to be signed by us. Its number is one above the current
    /// one's. It cannot be replaced: what was signed may be broadcast. See [`RemoteWithdrawn`](Self::RemoteWithdrawn)
    /// for what was not.
    RemoteCommitment {
        /// Funding output that it spends.
        funding: OutPoint,
        /// The commitment.
        commitment: RemoteCommitment,
    },
    /// The peer's next commitment of this number was stated and is not going to be signed, since the node has forgotten
    /// it: another may be stated in its place. It goes in every candidate, and so do HTLCs that no other commitment
    /// contains. If no commitment of such a number is known, or a later one, nothing changes.
    ///
    /// **The caller promises that no signature of ours for it has ever left the node, nor will.** Nothing here can
    /// check that. If the peer has one, it can broadcast a commitment that is not recognised any more: its HTLCs are
    /// lost, and, once it is revoked, the penalty. A node may promise it only of what it has held back until it was
    /// durable on its own side as well, and finds missing there after a crash.
    ///
    /// Once the funding output is seen spent nothing is withdrawn, for it may be this commitment that spends it.
    RemoteWithdrawn {
        /// Number of the commitment.
        number: CommitmentNumber,
    },
    /// The peer revoked its current commitment: in every candidate, the next one takes its place.
    RemoteRevoked {
        /// Number of the revoked commitment.
        number: CommitmentNumber,
        /// Its secret.
        secret: PerCommitmentSecret,
    },
    /// Scripts agreed for a mutual close. One that is not stated stays as it was.
    Shutdown(ShutdownScripts),
    /// Another funding output that may confirm instead of the current one: a splice, or a
    /// replacement of one. Its commitments have the numbers, points and HTLCs of the current one's.
    CandidateAdded {
        /// The candidate, with its commitments.
        candidate: Box<FundingCandidate>,
        /// No spend of it can be in a block at or below this height.
        birth: BlockHeight,
    },
    /// This candidate is the funding output from now on (BOLT 2 `splice_locked`). All others stay
    /// as they are, since a reorganisation may bring one back; new commitments are stated for this
    /// one alone.
    CandidateLocked {
        /// Its funding output.
        funding: OutPoint,
    },
    /// This candidate will never confirm, or its spend would be no concern of ours. Never the
    /// current one.
    CandidateDiscarded {
        /// Its funding output.
        funding: OutPoint,
    },
    /// A fresh set of signals: the latest counts.
    Signals(Signals),
    /// HTLCs that had left the last live commitment when the channel was registered: penalty data for
    /// what the peer had revoked by then. The interval may be wider than the truth, for the outputs
    /// decide. The ids are names only, and none that the channel has or will have.
    HtlcsEnded(Vec<(HtlcId, HtlcRecord)>),
    /// A preimage that comes with the other updates: it becomes durable with them. One that no HTLC wants, neither
    /// before them all nor after them, is left out; see [`Input::Preimage`](crate::arbitrator::Input::Preimage).
    Preimage {
        /// The preimage.
        preimage: Preimage,
        /// Where it came from, and so whom it serves.
        source: PreimageSource,
    },
}

/// What the node's other parts say of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signals {
    /// How they name it.
    pub names: ChannelNames,
    /// Whether they reach the peer. Never stored.
    pub link: Link,
}

/// Whether the peer of a channel is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is.
    Up,
    /// It is not.
    Down,
}

/// What an update leads to as far as facts go. Whether a channel may take it depends on what
/// happened to it as well: see [`ChainArbitrator::verify_updates`].
///
/// [`ChainArbitrator::verify_updates`]: crate::engine::ChainArbitrator::verify_updates
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The facts from now on.
    pub facts: ChannelFacts,
    /// HTLCs that left the last live commitment: penalty data from now on.
    pub ended: Vec<(HtlcId, HtlcRecord)>,
}

impl ChannelFacts {
    /// The facts after an update, if all of it holds: commitments are rebuilt and every signature
    /// of the peer is checked.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn updated<C: Signing + Verification>(
        &self,
        update: &Update,
        secp: &Secp256k1<C>,
    ) -> Result<Followed, UpdateError> {
        self.follow(update, Some(secp))
    }

    /// The facts after an update that is still to be verified by whoever is told of it: its order is checked
    /// and that candidates agree, but no commitment is rebuilt, and no signature or secret is checked. For a
    /// node that follows what it tells the arbiter, which verifies it before it answers.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn updated_unverified(&self, update: &Update) -> Result<Followed, UpdateError> {
        self.follow(update, None::<&Secp256k1<All>>)
    }

    /// With `secp`, all that can be verified is.
    fn follow<C: Signing + Verification>(
        &self,
        update: &Update,
        secp: Option<&Secp256k1<C>>,
    ) -> Result<Followed, UpdateError> {
        let mut facts = self.clone();
        match update {
            Update::HtlcAdded { id, htlc } => htlcs::add(&mut facts, *id, *htlc)?,
            Update::HtlcLinked { id, link } => htlcs::link(&mut facts, *id, *link)?,
            Update::LocalCommitment { funding, commitment } => {
                facts.set_local(funding, commitment, secp)?;
            }
            Update::RemoteCommitment { funding, commitment } => {
                facts.set_remote_next(funding, commitment, secp)?;
            }
            Update::RemoteWithdrawn { number } => withdrawn::withdraw(&mut facts, *number)?,
            Update::RemoteRevoked { number, secret } => facts.revoke(*number, *secret, secp)?,
            Update::Shutdown(scripts) => facts.set_shutdown(scripts),
            Update::CandidateAdded { candidate, birth } => {
                candidates::add(&mut facts, candidate, *birth, secp)?;
            }
            Update::CandidateLocked { funding } => candidates::lock(&mut facts, funding)?,
            Update::CandidateDiscarded { funding } => candidates::discard(&mut facts, funding)?,
            Update::Signals(signals) => facts.names = signals.names.clone(),
            Update::HtlcsEnded(ended) => htlcs::check_ended(&facts, ended)?,
            Update::Preimage { .. } => {}
        }
        let mut ended = htlcs::take_ended(&mut facts);
        if let Update::HtlcsEnded(before) = update {
            ended.extend(before.iter().copied());
        }
        Ok(Followed { facts, ended })
    }

    fn set_local<C: Verification>(
        &mut self,
        funding: &OutPoint,
        commitment: &LocalCommitment,
        secp: Option<&Secp256k1<C>>,
    ) -> Result<(), UpdateError> {
        let candidate = self.candidates.get(funding).ok_or(UpdateError::UnknownFunding)?;
        let (stated, current) = (commitment.number, candidate.local.number);
        if stated < current {
            return Err(UpdateError::LocalNumberTooOld { stated, current });
        }
        if stated == current {
            if candidate.local == *commitment {
                return Ok(());
            }
            if !verify::differ_in_signatures(&candidate.local, commitment) {
                return Err(UpdateError::CommitmentConflict(stated));
            }
            return secp.map_or(Ok(()), |c| verify::check_local(self, candidate, commitment, c));
        }
        if let Some(secp) = secp {
            verify::check_local(self, candidate, commitment, secp)?;
        }
        let replaced = UpdateError::CandidateReplaced(*funding);
        self.candidates.moving_mut(funding).ok_or(replaced)?.local = commitment.clone();
        Ok(())
    }

    fn set_remote_next<C: Verification>(
        &mut self,
        funding: &OutPoint,
        commitment: &RemoteCommitment,
        secp: Option<&Secp256k1<C>>,
    ) -> Result<(), UpdateError> {
        let candidate = self.candidates.get(funding).ok_or(UpdateError::UnknownFunding)?;
        let known = core::iter::once(&candidate.remote).chain(candidate.remote_next.as_ref());
        if let Some(known) = known.into_iter().find(|known| known.number == commitment.number) {
            let conflict = UpdateError::CommitmentConflict(known.number);
            return if known == commitment { Ok(()) } else { Err(conflict) };
        }
        verify::check_next_number(candidate, commitment.number)?;
        verify::check_agreement(self, candidate, commitment)?;
        htlcs::check_none_ended(self, commitment)?;
        if let Some(secp) = secp {
            verify::check_remote(self, candidate, commitment, secp)?;
        }
        let replaced = UpdateError::CandidateReplaced(*funding);
        self.candidates.moving_mut(funding).ok_or(replaced)?.remote_next = Some(commitment.clone());
        htlcs::advance(self, commitment);
        Ok(())
    }

    fn revoke<C: Signing>(
        &mut self,
        number: CommitmentNumber,
        secret: PerCommitmentSecret,
        secp: Option<&Secp256k1<C>>,
    ) -> Result<(), UpdateError> {
        let current = &self.candidates.current.remote;
        if number != current.number {
            // Told again: nothing is to be done.
            let told = number < current.number && self.secrets.get(number) == Some(secret);
            let expected = current.number;
            let error = UpdateError::UnexpectedRemoteNumber { stated: number, expected };
            return if told { Ok(()) } else { Err(error) };
        }
        if let Some(secp) = secp {
            let point =
                per_commitment_point(secp, &secret).map_err(|_| UpdateError::SecretMismatch)?;
            if self.candidates.moving().any(|candidate| candidate.remote.point != point) {
                return Err(UpdateError::SecretMismatch);
            }
        }
        let without_next = |candidate: &&FundingCandidate| candidate.remote_next.is_none();
        if let Some(candidate) = self.candidates.moving().find(without_next) {
            return Err(UpdateError::NoNextCommitment(candidate.funding));
        }
        self.secrets.insert(number, secret)?;
        let candidates = &mut self.candidates;
        for candidate in core::iter::once(&mut candidates.current).chain(&mut candidates.others) {
            if let Some(next) = candidate.remote_next.take() {
                candidate.remote = next;
            }
        }
        Ok(())
    }

    fn set_shutdown(&mut self, scripts: &ShutdownScripts) {
        if let Some(local) = &scripts.local {
            self.shutdown.local = Some(local.clone());
        }
        if let Some(remote) = &scripts.remote {
            self.shutdown.remote = Some(remote.clone());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
