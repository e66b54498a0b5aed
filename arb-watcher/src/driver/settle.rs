//! Settling: what is desired and not under way is started; what is under way and no longer
//! desired is forgotten about. Level-triggered, both ways, after whatever happened.
use super::{Around, Driver};
use arb_core::arbitrator::{Alert, EffectKey, NoticeKey, Position};
use arb_core::engine::{Task, TaskKey};
use arb_core::facts::Standing;
use arb_core::ids::{ChannelId, Slot};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;

impl<A: Around> Driver<A> {
    /// Takes over what is desired of the channels that a transition concerned.
    pub(super) fn release(&mut self, concerned: BTreeSet<Slot>) {
        for slot in concerned {
            self.renew(slot);
        }
    }

    fn desire(&mut self, slot: Slot, desired: BTreeMap<TaskKey, Task>) {
        if let Some(active) = self.engine.active(slot) {
            let wanted =
                |key: &NoticeKey| desired.contains_key(&TaskKey::Effect(EffectKey::Notify(*key)));
            self.notices.keep(active.facts.id, wanted);
        } else if let Some(id) = self.id_of(slot) {
            self.quiet(slot, id);
        }
        self.release_coins(slot);
        self.keep_coins(slot);
        self.tasks.desire(slot, desired);
        self.failing.stir(slot);
        self.subscribers.has_news(slot);
        self.end_troubles(slot);
    }

    /// A channel that has nothing to remember tells nothing, but that its facts are outdated: that is the driver's
    /// to say then.
    fn quiet(&mut self, slot: Slot, id: ChannelId) {
        let told = self.notices.quiet(id);
        if told.contains(&NoticeKey::Alert(Alert::OutdatedFacts))
            && let Ok(facts) = self.facts_of(slot)
            && self.engine.standing(slot, &facts) == Standing::Outdated
        {
            self.notices.alarm(id, Alert::OutdatedFacts);
        }
    }

    /// What is desired of every channel with anything to remember: feerates have changed.
    pub(super) fn renew_active(&mut self) {
        let slots: Vec<Slot> = self.engine.actives().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.renew(slot);
        }
    }

    /// The desire of one channel, anew.
    pub(super) fn renew(&mut self, slot: Slot) {
        // One that is set aside by that desires nothing any more.
        if let Some(desired) = self.desired(slot) {
            self.desire(slot, desired);
        }
    }

    pub(super) async fn settle(&mut self) {
        if self.tasks.moved(self.engine.tip()) {
            self.failing.stir_all();
        }
        self.tasks.pass(Instant::now());
        self.judge_signers();
        // Penalty data is at hand in a moment, or not at all: one transaction for everything.
        while !self.end.is_near()
            && let Some((slot, due)) = self.tasks.at_once()
        {
            for (key, task) in due {
                // What was done before it may have led to something else.
                if !self.tasks.is_desired(slot, &key, &task) {
                    continue;
                }
                self.tasks.tried(slot, key, task.clone(), self.engine.tip());
                self.do_at_once(slot, task).await;
            }
        }
        self.deliver_events();
        self.end_subscriptions().await;
        for (slot, key, task) in self.tasks.hand_out(self.settings.workers) {
            self.start(slot, key, task);
        }
        self.begin_scans();
        self.answer_failing();
        self.answer_idlers();
        self.measure();
    }

    /// What needs no worker.
    async fn do_at_once(&mut self, slot: Slot, task: Task) {
        match task {
            Task::Notify(notice) => {
                // While blocks of the past come in, once is enough.
                let again = self.engine.position() == Position::AtTip;
                if let Some(active) = self.engine.active(slot)
                    && (again || !self.notices.is_told(active.facts.id, &notice))
                {
                    self.notices.tell(active.facts.id, &notice);
                }
            }
            Task::Forget => self.forget(slot).await,
            Task::LoadRevokedHtlcs(number) => self.load_revoked(slot, number).await,
            // They need one.
            Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_) | Task::AskPoint(_) => {}
        }
    }

    /// Whether nothing is under way and nothing is left to try before the end of a pause or the next block.
    fn is_idle(&self) -> bool {
        !self.chain.is_behind()
            && self.workers.is_empty()
            && !self.rescans.are_done()
            && self.appends.is_empty()
            && self.tasks.is_idle()
    }

    fn answer_idlers(&mut self) {
        if !self.idlers.is_empty() && self.is_idle() {
            let (_, ended) = self.chain.mempool.rounds();
            self.idlers.answer(ended);
        }
    }
}
