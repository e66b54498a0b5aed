//! Settling: what is desired and not under way is started; what is under way and no longer
//! desired is forgotten about. Level-triggered, both ways, after whatever happened.
use super::Driver;
use arb_core::arbitrator::EffectKey;
use arb_core::arbitrator::NoticeKey;
use arb_core::engine::{Released, Task, TaskKey};
use arb_core::ids::Slot;
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use std::collections::BTreeSet;

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    /// Takes over what is desired of the channels that a transition concerned.
    pub(super) fn release(&mut self, released: Released) {
        for slot in &released.concerned {
            self.renew(*slot);
        }
    }

    /// The desire of one channel, anew.
    fn renew(&mut self, slot: Slot) {
        let tasks = self.engine.tasks(slot);
        self.tasks.desired.retain(|(of, _), _| *of != slot);
        self.tasks.tried.retain(|(of, key), _| *of != slot || tasks.contains_key(key));
        if let Some(active) = self.engine.active(slot) {
            let notices: Vec<NoticeKey> = tasks.keys().filter_map(notice_key).collect();
            self.notices.keep(active.facts.id, &notices);
        }
        let of_slot = tasks.into_iter().map(|(key, task)| ((slot, key), task));
        self.tasks.desired.extend(of_slot);
    }

    /// What is desired of every channel: at start-up, and when feerates changed.
    pub(super) fn renew_all(&mut self) {
        let slots: BTreeSet<Slot> = self.engine.slots().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.renew(slot);
        }
    }

    pub(super) async fn settle(&mut self) {
        self.deliver_events();
        self.start_tasks().await;
        self.answer_idlers();
    }

    async fn start_tasks(&mut self) {
        let tip = self.engine.height();
        let due: Vec<((Slot, TaskKey), Task)> = self
            .tasks
            .desired
            .iter()
            .filter(|(key, _)| !self.tasks.running.contains(key))
            .filter(|(key, task)| {
                let tried = self.tasks.tried.get(key);
                tried.is_none_or(|(same, at)| same != *task || *at != tip)
            })
            .map(|(key, task)| (key.clone(), task.clone()))
            .collect();
        for (key, task) in due {
            match task {
                Task::Notify(notice) => {
                    if let Some(active) = self.engine.active(key.0) {
                        self.notices.tell(active.facts.id, &notice);
                    }
                    self.tasks.tried.insert(key, (Task::Notify(notice), tip));
                }
                Task::Forget => {
                    self.tasks.tried.insert(key.clone(), (Task::Forget, tip));
                    self.forget(key.0).await;
                }
                Task::LoadRevokedHtlcs(number) => {
                    let task = Task::LoadRevokedHtlcs(number);
                    self.tasks.tried.insert(key.clone(), (task, tip));
                    self.load_revoked(key.0, number).await;
                }
                task @ (Task::Sign(_) | Task::Publish(_)) => {
                    if self.tasks.running.len() < self.settings.workers {
                        self.tasks.running.insert(key.clone());
                        self.start(key, task);
                    }
                }
            }
        }
    }

    /// Whether nothing is under way and nothing is left to try before the next block.
    fn is_idle(&self) -> bool {
        let tip = self.engine.height();
        let untried = |(key, task): (&(Slot, TaskKey), &Task)| {
            let tried = self.tasks.tried.get(key);
            tried.is_none_or(|(same, at)| same != task || *at != tip)
        };
        !self.chain.is_behind()
            && self.workers.is_empty()
            && !self.tasks.desired.iter().any(untried)
    }

    fn answer_idlers(&mut self) {
        if !self.idlers.is_empty() && self.is_idle() {
            for idler in self.idlers.drain(..) {
                let _ = idler.send(Ok(()));
            }
        }
    }
}

const fn notice_key(key: &TaskKey) -> Option<NoticeKey> {
    match key {
        TaskKey::Effect(EffectKey::Notify(key)) => Some(*key),
        TaskKey::Effect(_) | TaskKey::Step(_) => None,
    }
}
