//! Settling: what is desired and not under way is started; what is under way and no longer
//! desired is forgotten about. Level-triggered, both ways, after whatever happened.
use super::panics::Caught;
use super::work::{Job, Outcome};
use super::{Around, Driver};
use arb_core::arbitrator::{Alert, EffectKey, NoticeKey, Position};
use arb_core::engine::{CoinsInUse, Task, TaskKey};
use arb_core::facts::Standing;
use arb_core::ids::{ChannelId, Slot};
use arb_core::ports::CoinSource;
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::{Instant, timeout};

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

    /// Coins of claims that are no longer ours to make, or are made with others, go back to the
    /// wallet.
    pub(super) fn release_coins(&mut self, slot: Slot) {
        // What is set aside may still be on its way, with its coins.
        if !self.tasks.is_funded(slot) || self.quarantine.slots().any(|aside| aside == slot) {
            return;
        }
        let wanted = self.of_channel(slot, |driver| driver.engine.funded_outpoints(slot));
        let Ok(wanted) = wanted else { return };
        for claim in self.tasks.unfund(slot, &wanted) {
            let (ports, patience) = (self.ports.clone(), self.settings.patience);
            self.workers.spawn(Job::Other, async move {
                let releasing = Caught::new(ports.coins.release(claim));
                let result = match timeout(patience, releasing).await {
                    Ok(Ok(released)) => released.map_err(|error| error.to_string()),
                    Ok(Err(what)) => Err(format!("the wallet has panicked: {what}")),
                    Err(_) => Err("the wallet does not answer".to_owned()),
                };
                Outcome::Released { slot, claim, result }
            });
        }
    }

    /// Coins in a transaction that is ours again, after a reorganisation or since the network takes it after all, are
    /// reserved again: nothing is signed for it, and something else would spend them.
    fn keep_coins(&mut self, slot: Slot) {
        if self.quarantine.slots().any(|aside| aside == slot) {
            return;
        }
        let kept = self.of_channel(slot, |driver| {
            driver.engine.coins_to_keep(slot, |claim| driver.tasks.has_coins(slot, claim))
        });
        for CoinsInUse { claim, coins, .. } in kept.unwrap_or_default() {
            self.tasks.fund(slot, claim);
            let (ports, patience) = (self.ports.clone(), self.settings.patience);
            self.workers.spawn(Job::Other, async move {
                let reserving = Caught::new(ports.coins.reserve(claim, coins));
                match timeout(patience, reserving).await {
                    Ok(Ok(Ok(()))) => Outcome::Reserved { slot, claim },
                    Ok(Ok(Err(error))) => {
                        Outcome::NotReserved { slot, claim, why: error.to_string() }
                    }
                    Ok(Err(what)) => Outcome::NotReserved { slot, claim, why: what },
                    Err(_) => {
                        let why = "the wallet does not answer".to_owned();
                        Outcome::NotReserved { slot, claim, why }
                    }
                }
            });
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
        self.tasks.moved(self.engine.tip());
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
        for (slot, key, task) in self.tasks.hand_out(self.settings.workers) {
            self.start(slot, key, task);
        }
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
            Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_) => {}
        }
    }

    /// Whether nothing is under way and nothing is left to try before the end of a pause or the next block.
    fn is_idle(&self) -> bool {
        !self.chain.is_behind()
            && self.workers.is_empty()
            && self.appends.is_empty()
            && self.tasks.is_idle()
    }

    fn answer_idlers(&mut self) {
        if !self.idlers.is_empty() && self.is_idle() {
            for idler in self.idlers.drain(..) {
                idler.send(Ok(()));
            }
        }
    }
}
