//! Trouble that one channel has with the outside: told to the node when it lasts, withdrawn when it
//! is over. No part of the log: it is found out again after a restart.
use super::Driver;
use super::work::SignerFailed;
use arb_core::arbitrator::{Alert, EffectKey};
use arb_core::engine::TaskKey;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::units::CommitmentNumber;
use std::collections::{BTreeMap, BTreeSet};

/// What was told, and of which channel.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<(Slot, Alert), ChannelId>);

impl Troubles {
    pub(super) fn forgotten(&mut self, slot: Slot) {
        self.0.retain(|(of, _), _| *of != slot);
    }
}

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    /// Raises or withdraws the alert of a signer that keeps failing for this channel.
    pub(super) fn judge_signer(&mut self, slot: Slot) {
        let fails = self.tasks.signer_fails(slot);
        self.trouble(slot, Alert::SignerFailing, fails);
    }

    /// Channels for which the signer failed, of those that share a transaction, share none for now: the
    /// others do not wait for them. If it fails for all of them it is not theirs, and they stay together
    /// unless it lasts.
    pub(super) fn set_apart(
        &mut self,
        slot: Slot,
        all: &BTreeSet<ChannelId>,
        failed: &SignerFailed,
    ) {
        let theirs = failed.channels.len() < all.len() || self.tasks.signer_fails(slot);
        if all.len() > 1 && theirs {
            tracing::warn!(channels = ?failed.channels, "made without the others");
            let slots: Vec<Slot> =
                failed.channels.iter().filter_map(|channel| self.engine.slot(channel)).collect();
            let new = slots.into_iter().filter(|slot| self.engine.stand_alone(*slot)).count();
            if new > 0 {
                self.renew_active();
            }
        }
    }

    /// Whether the penalty data of a revoked commitment that confirmed can be read.
    pub(super) fn penalty_data(&mut self, slot: Slot, number: CommitmentNumber, readable: bool) {
        self.trouble(slot, Alert::PenaltyDataUnreadable(number), !readable);
    }

    /// Withdraws what concerns tasks that are no longer desired.
    pub(super) fn end_troubles(&mut self, slot: Slot) {
        self.judge_signer(slot);
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
