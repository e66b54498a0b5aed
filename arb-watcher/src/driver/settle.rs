//! Settling: what is desired and not under way is started; what is under way and no longer
//! desired is forgotten about. Level-triggered, both ways, after whatever happened.
use super::work::{Job, Outcome};
use super::{Driver, Tasks};
use arb_core::arbitrator::EffectKey;
use arb_core::arbitrator::NoticeKey;
use arb_core::claim::Claim;
use arb_core::claim::plan::StepKey;
use arb_core::engine::{Released, Task, TaskKey};
use arb_core::ids::Slot;
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::units::BlockRef;
use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use std::collections::{BTreeSet, HashSet};
use tokio::time::timeout;

impl Tasks {
    /// What is neither under way nor tried at this tip.
    fn due(&self, tip: Option<BlockRef>) -> impl Iterator<Item = (Slot, &TaskKey, &Task)> {
        let all = self
            .desired
            .iter()
            .flat_map(|(slot, tasks)| tasks.iter().map(|(key, task)| (*slot, key, task)));
        all.filter(move |(slot, key, task)| {
            let tried = self.tried.get(slot).and_then(|tried| tried.get(key));
            let again = tried.is_none_or(|tried| tried.task != **task || tried.tip != tip);
            again && !self.running.contains(&(*slot, (*key).clone()))
        })
    }

    /// Claims of a channel that wallet coins are or may be reserved for.
    fn funded_of(&self, slot: Slot) -> Vec<OutPoint> {
        let first = OutPoint { txid: Txid::all_zeros(), vout: 0 };
        let from_there = self.funded.range((slot, first)..);
        from_there.take_while(|(of, _)| *of == slot).map(|(_, claim)| *claim).collect()
    }

    /// The mempool holds these spends of what active channels watch. What of ours was among them at
    /// the last look and is no more, goes out again at once.
    pub(super) fn mempool_holds(&mut self, now: HashSet<Txid>) {
        let vanished = |key: &TaskKey| match key {
            TaskKey::Step(StepKey::Publish(txid)) => {
                self.in_mempool.contains(txid) && !now.contains(txid)
            }
            TaskKey::Step(StepKey::Sign(_)) | TaskKey::Effect(_) => false,
        };
        for tried in self.tried.values_mut() {
            tried.retain(|key, _| !vanished(key));
        }
        self.in_mempool = now;
    }

    /// Whether a transaction for the very claims of `task` is still to be signed.
    pub(super) fn wants(&self, slot: Slot, key: &TaskKey, task: &Task) -> bool {
        let now = self.desired.get(&slot).and_then(|tasks| tasks.get(key));
        let (Some(Task::Sign(now)), Task::Sign(then)) = (now, task) else { return false };
        let outpoint = |claim: &Claim| claim.outpoint;
        now.claims().map(outpoint).eq(then.claims().map(outpoint))
    }

    /// Forgetting waits for nobody any more, perhaps.
    pub(super) fn forget_again(&mut self, slot: Slot) {
        if let Some(tried) = self.tried.get_mut(&slot) {
            tried.remove(&TaskKey::Effect(EffectKey::Forget));
        }
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
    /// Takes over what is desired of the channels that a transition concerned.
    pub(super) fn release(&mut self, released: Released) {
        for slot in &released.concerned {
            self.renew(*slot);
            self.subscribers.has_news(*slot);
        }
    }

    /// The desire of one channel, anew.
    pub(super) fn renew(&mut self, slot: Slot) {
        let tasks = self.engine.tasks(slot);
        if let Some(tried) = self.tasks.tried.get_mut(&slot) {
            tried.retain(|key, _| tasks.contains_key(key));
        }
        if let Some(active) = self.engine.active(slot) {
            let notices: Vec<NoticeKey> = tasks.keys().filter_map(notice_key).collect();
            self.notices.keep(active.facts.id, &notices);
        }
        self.release_coins(slot);
        if tasks.is_empty() {
            self.tasks.desired.remove(&slot);
            self.tasks.tried.remove(&slot);
        } else {
            self.tasks.desired.insert(slot, tasks);
        }
        self.end_troubles(slot);
    }

    /// Coins of claims that are no longer ours to make, or are made with others, go back to the
    /// wallet.
    fn release_coins(&mut self, slot: Slot) {
        let funded = self.tasks.funded_of(slot);
        if funded.is_empty() {
            return;
        }
        let wanted = self.engine.funded_outpoints(slot);
        for claim in funded.into_iter().filter(|claim| !wanted.contains(claim)) {
            self.tasks.funded.remove(&(slot, claim));
            let (ports, patience) = (self.ports.clone(), self.settings.patience);
            self.workers.spawn(Job::Other, async move {
                let result = match timeout(patience, ports.coins.release(claim)).await {
                    Ok(released) => released.map_err(|error| error.to_string()),
                    Err(_) => Err("the wallet does not answer".to_owned()),
                };
                Outcome::Released { slot, claim, result }
            });
        }
    }

    /// What is desired of every channel with anything to remember: feerates may have changed.
    pub(super) fn renew_active(&mut self) {
        let slots: Vec<Slot> = self.engine.actives().map(|(slot, _)| slot).collect();
        slots.into_iter().for_each(|slot| self.renew(slot));
    }

    pub(super) async fn settle(&mut self) {
        while !self.end.is_near() && self.start_tasks().await {}
        self.deliver_events();
        self.answer_idlers();
        self.measure();
    }

    /// Starts what is due; tells whether that changed what is desired. What goes beyond the number
    /// of workers is started when one is free.
    async fn start_tasks(&mut self) -> bool {
        let tip = self.engine.tip();
        let workers = self.settings.workers.max(1);
        let mut free = workers.saturating_sub(self.tasks.running.len());
        let mut due = Vec::new();
        let loads = |(slot, _, task)| matches!(task, &Task::LoadRevokedHtlcs(_)).then_some(slot);
        let loading: BTreeSet<Slot> = self.tasks.due(tip).filter_map(loads).collect();
        for (slot, key, task) in self.tasks.due(tip) {
            let works = is_work(task);
            // Penalty data is at hand in a moment, or not at all: one transaction for everything.
            let waits = matches!(task, Task::Sign(_)) && loading.contains(&slot);
            if waits || (works && free == 0) {
                continue;
            }
            free = free.saturating_sub(usize::from(works));
            due.push((slot, key.clone(), task.clone()));
        }
        let mut stepped = false;
        for (slot, key, task) in due {
            match &task {
                Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_) => {
                    self.start(slot, key, task);
                    continue;
                }
                Task::Notify(notice) => {
                    if let Some(active) = self.engine.active(slot) {
                        self.notices.tell(active.facts.id, notice);
                    }
                }
                Task::Forget | Task::LoadRevokedHtlcs(_) => stepped = true,
            }
            self.tasks.note(slot, key, task.clone(), tip, false);
            match task {
                Task::Forget => self.forget(slot).await,
                Task::LoadRevokedHtlcs(number) => self.load_revoked(slot, number).await,
                Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_) | Task::Notify(_) => {}
            }
        }
        stepped
    }

    /// Whether nothing is under way and nothing is left to try before the next block.
    fn is_idle(&self) -> bool {
        !self.chain.is_behind()
            && self.workers.is_empty()
            && self.appends.is_empty()
            && self.tasks.due(self.engine.tip()).next().is_none()
    }

    fn answer_idlers(&mut self) {
        if !self.idlers.is_empty() && self.is_idle() {
            for idler in self.idlers.drain(..) {
                idler.send(Ok(()));
            }
        }
    }
}

/// Whether a worker does it.
const fn is_work(task: &Task) -> bool {
    matches!(task, Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_))
}

const fn notice_key(key: &TaskKey) -> Option<NoticeKey> {
    match key {
        TaskKey::Effect(EffectKey::Notify(key)) => Some(*key),
        TaskKey::Effect(_) | TaskKey::Step(_) => None,
    }
}
