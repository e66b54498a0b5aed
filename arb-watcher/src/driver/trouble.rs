//! Trouble that one channel has with the outside: told to the node when it lasts, withdrawn when it
//! is over. No part of the log: it is found out again after a restart.
use super::work::{Done, Failed};
use super::{Around, Driver};
use arb_core::arbitrator::{Alert, EffectKey, Position};
use arb_core::claim::build::Draft;
use arb_core::engine::TaskKey;
use arb_core::ids::{ChannelId, Slot};
use arb_core::units::{BlockRef, CommitmentNumber};
use bitcoin::OutPoint;
use std::collections::{BTreeMap, BTreeSet};

/// What was told, and of which channel.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<(Slot, Alert), ChannelId>);

impl Troubles {
    pub(super) fn forgotten(&mut self, slot: Slot) {
        self.0.retain(|(of, _), _| *of != slot);
    }
}

impl<A: Around> Driver<A> {
    /// What the signer did for each channel that a draft claims from.
    pub(super) fn on_asked_signer(&mut self, draft: &Draft, tip: Option<BlockRef>, done: &Done) {
        let mut claims: BTreeMap<ChannelId, Vec<OutPoint>> = BTreeMap::new();
        for claim in draft.claims() {
            claims.entry(claim.channel).or_default().push(claim.outpoint);
        }
        let all = claims.len();
        match done {
            Done::Signed(_) | Done::Spoilt(_) => {
                for (channel, claims) in claims {
                    let Some(slot) = self.engine.slot(&channel) else { continue };
                    self.tasks.signed(claims);
                    // The plan is made anew once what was signed is in the log.
                    if matches!(done, Done::Signed(_)) {
                        self.engine.join_again(slot);
                    }
                }
            }
            Done::Failed(Failed::Signer(failed)) => {
                let theirs = claims.into_iter().filter(|(id, _)| failed.channels.contains(id));
                let mut slots = BTreeSet::new();
                for (channel, claims) in theirs {
                    let Some(slot) = self.engine.slot(&channel) else { continue };
                    self.tasks.not_signed(slot, claims, tip);
                    slots.insert(slot);
                }
                if all > 1 {
                    self.set_apart(&slots, all);
                }
            }
            // The signer was not asked, or nobody knows what it said.
            Done::Failed(Failed::Other(_))
            | Done::Published(_)
            | Done::Judged(_)
            | Done::Pointed(_) => {}
        }
    }

    /// Channels for which the signer failed, of so many that share a transaction, share none for now: the
    /// others do not wait for them. If it fails for all of them it is not theirs, and they stay together
    /// unless it lasts.
    fn set_apart(&mut self, failed: &BTreeSet<Slot>, all: usize) {
        let blocks = self.signer_patience();
        let lasts = failed.iter().any(|slot| self.tasks.is_unsigned_for(*slot, blocks));
        if failed.len() == all && !lasts {
            return;
        }
        tracing::warn!(slots = ?failed, "made without the others");
        let new = failed.iter().filter(|slot| self.engine.stand_alone(**slot)).count();
        if new > 0 {
            self.renew_active();
        }
    }

    fn signer_patience(&self) -> u32 {
        self.engine.policy().signer_patience.0
    }

    /// Raises or withdraws the alerts of a signer that keeps failing for a channel. While blocks are to
    /// come nothing is to be signed, and nothing new is known.
    pub(super) fn judge_signers(&mut self) {
        if self.engine.position() == Position::CatchingUp {
            return;
        }
        for slot in self.tasks.signers_changed() {
            let fails = self.tasks.is_unsigned_for(slot, self.signer_patience());
            self.trouble(slot, Alert::SignerFailing, fails);
        }
    }

    /// Whether the penalty data of a revoked commitment that confirmed can be read.
    pub(super) fn penalty_data(&mut self, slot: Slot, number: CommitmentNumber, readable: bool) {
        self.trouble(slot, Alert::PenaltyDataUnreadable(number), !readable);
    }

    /// Withdraws what concerns tasks that are no longer desired.
    pub(super) fn end_troubles(&mut self, slot: Slot) {
        let first = (slot, Alert::PenaltyDataUnreadable(CommitmentNumber(0)));
        let last = (slot, Alert::PenaltyDataUnreadable(CommitmentNumber::MAX));
        let told: Vec<Alert> =
            self.troubles.0.range(first..=last).map(|((_, alert), _)| *alert).collect();
        for alert in told {
            let Alert::PenaltyDataUnreadable(number) = alert else { continue };
            let key = TaskKey::Effect(EffectKey::LoadRevokedHtlcs(number));
            let desired = self.tasks.desires(slot, &key);
            self.trouble(slot, alert, desired);
        }
    }

    fn trouble(&mut self, slot: Slot, alert: Alert, is_so: bool) {
        let key = (slot, alert);
        match (self.troubles.0.get(&key).copied(), is_so) {
            (None, true) => {
                let Some(id) = self.engine.active(slot).map(|active| active.facts.id) else {
                    return;
                };
                tracing::error!(channel = %id, slot = slot.0, ?alert, "alert");
                self.troubles.0.insert(key, id);
                self.notices.alarm(id, alert);
            }
            (Some(id), false) => {
                tracing::info!(channel = %id, slot = slot.0, ?alert, "over");
                self.troubles.0.remove(&key);
                self.notices.over(id, alert);
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}
