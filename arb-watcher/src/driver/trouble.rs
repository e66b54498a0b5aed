//! Trouble that one channel has with the outside: told to the node when it lasts, withdrawn when it
//! is over. No part of the log: it is found out again after a restart.
use super::{Driver, Tasks, Tried};
use arb_core::arbitrator::{Alert, EffectKey};
use arb_core::engine::{Task, TaskKey};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::units::{BlockRef, CommitmentNumber};
use std::collections::BTreeMap;

/// Failures in a row after which a signer is in trouble. There is one attempt a block.
const LASTING: u32 = 3;

/// What was told, and of which channel.
#[derive(Default)]
pub(super) struct Troubles(BTreeMap<(Slot, Alert), ChannelId>);

impl Troubles {
    pub(super) fn forgotten(&mut self, slot: Slot) {
        self.0.retain(|(of, _), _| *of != slot);
    }
}

impl Tasks {
    /// Notes an attempt, and whether it was the signer that failed.
    pub(super) fn note(
        &mut self,
        slot: Slot,
        key: TaskKey,
        task: Task,
        tip: Option<BlockRef>,
        signer_failed: bool,
    ) {
        let tried = self.tried.entry(slot).or_default();
        let before = tried.get(&key).map_or(0, |tried| tried.signer_failures);
        let signer_failures = if signer_failed { before.saturating_add(1) } else { 0 };
        tried.insert(key, Tried { task, tip, signer_failures });
    }

    fn signer_fails(&self, slot: Slot) -> bool {
        let mut tried = self.tried.get(&slot).into_iter().flat_map(|tried| tried.values());
        tried.any(|tried| tried.signer_failures >= LASTING)
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
            let desired = self.tasks.desired.get(&slot).is_some_and(|all| all.contains_key(&key));
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
