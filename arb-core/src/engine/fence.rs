//! The fence between node and arbiter: which updates of a channel's facts are taken.
//!
//! Once a local commitment was handed out for broadcast, or the funding output is seen spent, no
//! newer one is accepted: the node would revoke the one that confirms.
use crate::arbitrator::{ChannelArbitrator, PreimageSource};
use crate::engine::{Active, ChainArbitrator};
use crate::facts::{ChannelFacts, HtlcRecord, Link, Update, UpdateError};
use crate::ids::{HtlcId, Preimage, Slot};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitcoin::OutPoint;
use bitcoin::secp256k1::{Secp256k1, Signing, Verification};

/// Updates that were verified, and what they lead to: see [`ChainArbitrator::verify_updates`].
///
/// Nobody else can make one:
/// ```compile_fail,E0451
/// use arb_core::{engine::Updated, facts::ChannelFacts};
/// fn forge(facts: std::sync::Arc<ChannelFacts>) -> Updated {
///     Updated { base: facts.clone(), facts, ended: Vec::new(), preimages: Vec::new(), link: None, withdrawn: false }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Updated {
    /// The facts that the updates were verified against.
    base: Arc<ChannelFacts>,
    facts: Arc<ChannelFacts>,
    ended: Vec<(HtlcId, HtlcRecord)>,
    preimages: Vec<(Preimage, PreimageSource)>,
    link: Option<Link>,
    /// Whether a commitment of the peer's was withdrawn.
    withdrawn: bool,
}

impl Updated {
    /// The facts from now on.
    #[must_use]
    pub const fn facts(&self) -> &Arc<ChannelFacts> {
        &self.facts
    }

    /// HTLCs that left the last unrevoked commitment: penalty data from now on.
    #[must_use]
    pub fn ended(&self) -> &[(HtlcId, HtlcRecord)] {
        &self.ended
    }

    /// Preimages that came with the updates and that an HTLC wants, before or after them. Such updates go through
    /// [`ChainArbitrator::stage`] even if the channel is quiet.
    #[must_use]
    pub fn preimages(&self) -> &[(Preimage, PreimageSource)] {
        &self.preimages
    }

    /// Whether the peer is connected, if an update says so.
    #[must_use]
    pub const fn link(&self) -> Option<Link> {
        self.link
    }

    /// Whether there is anything to store.
    #[must_use]
    pub fn writes(&self) -> bool {
        // HTLCs change most often, and are compared faster than public keys.
        !self.ended.is_empty() || self.base.htlcs != self.facts.htlcs || self.base != self.facts
    }

    /// Both as one: what `later` was verified against is what this leads to.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        self.ended.extend(later.ended);
        self.preimages.extend(later.preimages);
        let link = later.link.or(self.link);
        let withdrawn = self.withdrawn || later.withdrawn;
        Self { facts: later.facts, link, withdrawn, ..self }
    }

    /// Funding outputs that are new: their past must be scanned, from their birth to the tip, and
    /// be staged with the updates.
    pub fn new_fundings(&self) -> impl Iterator<Item = OutPoint> {
        let known = |funding: &OutPoint| self.base.candidates.get(funding).is_some();
        let fundings = self.facts.candidates.iter().map(|candidate| candidate.funding);
        fundings.filter(move |funding| !known(funding))
    }

    /// Whether funding candidates came, went or took another's place. Such updates go through
    /// [`ChainArbitrator::stage`] even if the channel is quiet: what is watched changes with them.
    #[must_use]
    pub fn moves_candidates(&self) -> bool {
        let of = |facts: &'_ ChannelFacts| -> Vec<OutPoint> {
            facts.candidates.iter().map(|candidate| candidate.funding).collect()
        };
        of(&self.base) != of(&self.facts)
    }

    /// Funding outputs that are watched no more.
    fn discarded(&self) -> impl Iterator<Item = OutPoint> {
        let known = |funding: &OutPoint| self.facts.candidates.get(funding).is_some();
        let fundings = self.base.candidates.iter().map(|candidate| candidate.funding);
        fundings.filter(move |funding| !known(funding))
    }

    /// Why a channel cannot take them any more, if what reached it since they were verified stands
    /// against them: it is as if they had been stated only now.
    pub(super) fn refused_by(&self, active: &Active) -> Option<UpdateError> {
        if *active.facts == *self.facts {
            return None;
        }
        if *active.facts != *self.base {
            return Some(UpdateError::Overtaken);
        }
        // The commitment that was withdrawn may be what is seen now.
        if self.withdrawn && active.picture.is_some() {
            return Some(UpdateError::Overtaken);
        }
        if is_fenced(active) && brings_newer(&active.facts, &self.facts) {
            return Some(UpdateError::Fenced);
        }
        let needed = self.discarded().find(|funding| active.state.needs(funding));
        needed.map(UpdateError::CandidateNeeded)
    }
}

impl ChainArbitrator {
    /// Verifies updates of a channel, in order, all or none: that the facts allow them
    /// ([`ChannelFacts::updated`]), that no candidate is left behind, and that what happened to the
    /// channel does.
    ///
    /// `stored` are the newest facts of a quiet channel, those on their way to the store included;
    /// an active one's are here.
    ///
    /// # Errors
    /// The first thing that does not hold; [`UpdateError::Fenced`] for a newer local commitment of
    /// any candidate once one was handed out for broadcast or the funding output is seen spent.
    pub fn verify_updates<C: Signing + Verification>(
        &self,
        slot: Slot,
        stored: &Arc<ChannelFacts>,
        updates: &[Update],
        secp: &Secp256k1<C>,
    ) -> Result<Updated, UpdateError> {
        let active = self.active(slot);
        let base = active.map_or(stored, |active| &active.facts).clone();
        let fenced = active.is_some_and(is_fenced);
        let (mut facts, mut ended, mut link) = (base.clone(), Vec::new(), None);
        let (mut preimages, mut withdrawn) = (Vec::new(), false);
        let spent = active.is_some_and(|active| active.picture.is_some());
        for update in updates {
            let withdraws = matches!(update, Update::RemoteWithdrawn { .. });
            if withdraws && spent {
                continue;
            }
            let followed = facts.updated(update, secp)?;
            withdrawn |= withdraws && *facts != followed.facts;
            if fenced && brings_newer(&facts, &followed.facts) {
                return Err(UpdateError::Fenced);
            }
            if let Update::CandidateDiscarded { funding } = update
                && active.is_some_and(|active| active.state.needs(funding))
            {
                return Err(UpdateError::CandidateNeeded(*funding));
            }
            if let Update::Signals(signals) = update {
                link = Some(signals.link);
            }
            if let Update::Preimage { preimage, source } = update {
                preimages.push((*preimage, *source));
            }
            facts = Arc::new(followed.facts);
            ended.extend(followed.ended);
        }
        facts.check_in_step()?;
        preimages.retain(|(preimage, source)| {
            let wanted_by = |facts| source.is_wanted(preimage.hash(), facts);
            wanted_by(&base) || wanted_by(&facts)
        });
        Ok(Updated { base, facts, ended, preimages, link, withdrawn })
    }
}

/// Whether no newer local commitment is accepted.
const fn is_fenced(active: &Active) -> bool {
    active.state.is_failing() || active.picture.is_some()
}

/// Whether some candidate has a local commitment that is newer than any before.
fn brings_newer(before: &ChannelFacts, after: &ChannelFacts) -> bool {
    let number = |facts: &ChannelFacts| facts.candidates.moving().map(|c| c.local.number).max();
    number(after) > number(before)
}

/// Why a channel with a past is not registered with these facts: its log says that a local
/// commitment with another number was handed out.
pub(super) fn refused_registration(
    state: &ChannelArbitrator,
    facts: &ChannelFacts,
) -> Option<UpdateError> {
    let handed_out = state.fenced_at()?;
    let stated = facts.candidates.current.local.number;
    if stated > handed_out {
        Some(UpdateError::Fenced)
    } else if stated < handed_out {
        Some(UpdateError::LocalNumberTooOld { stated, current: handed_out })
    } else {
        None
    }
}
