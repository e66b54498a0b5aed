//! `commit`: state and effects, in exchange for the receipt of the very batch.
use crate::engine::stage::{Next, Transition};
use crate::engine::{ChainArbitrator, Task, TaskKey, Updated};
use crate::ids::{ChannelId, Slot};
use crate::log::{BatchId, Durable};
use crate::policy::Joining;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::fmt;

/// What is to be done now that a transition is durable.
#[derive(Debug, Default)]
pub struct Released {
    /// Everything desired of the channels that the transition concerned, by channel and identity.
    pub tasks: BTreeMap<(Slot, TaskKey), Task>,
    /// Channels that the transition concerned: whatever is under way for them and not among the
    /// tasks is to be withdrawn.
    pub concerned: BTreeSet<Slot>,
}

/// The receipt is not that of the transition: nothing was done. The transition is handed back.
#[derive(Debug)]
pub struct WrongReceipt {
    /// Batch of the transition.
    pub expected: BatchId,
    /// Batch of the receipt.
    pub found: BatchId,
    /// The transition, to be committed with its own receipt.
    pub transition: Box<Transition>,
}

impl fmt::Display for WrongReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "receipt of batch {} for batch {}", self.found.0, self.expected.0)
    }
}

impl core::error::Error for WrongReceipt {}

impl ChainArbitrator {
    /// Takes the state that `transition` leads to. Gives the channels that it concerned: [`Self::released`] has
    /// what is desired of them now, as have [`Self::plan`] and [`Self::tasks`], channel by channel.
    ///
    /// # Errors
    /// The receipt is that of another batch, or another transition was committed since this one
    /// was staged.
    pub fn commit(
        &mut self,
        transition: Transition,
        receipt: Durable,
    ) -> Result<BTreeSet<Slot>, WrongReceipt> {
        let (expected, found) = (transition.id(), receipt.batch());
        if expected != found || expected.0 != self.next_batch {
            return Err(WrongReceipt { expected, found, transition: Box::new(transition) });
        }
        self.next_batch = self.next_batch.saturating_add(1);
        Ok(self.take(transition))
    }

    /// As [`Self::commit`], for a transition that has nothing to write.
    ///
    /// # Errors
    /// It has something to write: append it first. The transition is handed back.
    pub fn commit_empty(
        &mut self,
        transition: Transition,
    ) -> Result<BTreeSet<Slot>, Box<Transition>> {
        if transition.is_empty() && transition.id().0 == self.next_batch {
            // What was staged beside it is stale now, as after any commit.
            self.next_batch = self.next_batch.saturating_add(1);
            Ok(self.take(transition))
        } else {
            Err(Box::new(transition))
        }
    }

    fn take(&mut self, transition: Transition) -> BTreeSet<Slot> {
        let moved = self.tip() != transition.blocks.back().copied();
        let replan = self.stirs_plan(&transition.next) || moved;
        self.blocks = transition.blocks;
        self.position = transition.position;
        let mut concerned = BTreeSet::new();
        self.links.extend(transition.links);
        for (slot, next) in transition.next {
            match next {
                Next::Quiet(facts) => self.insert_quiet(slot, &facts),
                Next::Active(active) => self.insert_active(slot, *active),
                Next::Forgotten => {
                    self.remove_channel(slot);
                    self.outdated.remove(&slot);
                    self.links.remove(&slot);
                }
            }
            concerned.insert(slot);
        }
        if replan {
            self.forget_plan();
            // What one channel does may be another's to sign.
            let shared = self.policy.joining == Joining::Allowed;
            concerned.extend(self.active.keys().filter(|_| shared));
        }
        concerned
    }

    /// What is to be done for the channels that a commit concerned.
    #[must_use]
    pub fn released(&mut self, concerned: BTreeSet<Slot>) -> Released {
        self.plan(&mut |_| ());
        let mut released = Released { concerned, ..Released::default() };
        for slot in &released.concerned {
            let tasks = self.tasks(*slot).into_iter().map(|(key, task)| ((*slot, key), task));
            released.tasks.extend(tasks);
        }
        released
    }

    /// Verified updates of a quiet channel became durable: its due height follows. Until then they
    /// go into every stage that touches the channel, before the other inputs. An active channel's
    /// facts, and what moves candidates, are replaced through [`ChainArbitrator::stage`] only.
    pub fn quiet_facts_replaced(&mut self, slot: Slot, updated: &Updated) {
        self.links.extend(updated.link().map(|link| (slot, link)));
        if self.active(slot).is_none() {
            self.insert_quiet(slot, updated.facts());
        }
    }

    /// Sets a channel aside whose records cannot be read: nothing watches it from now on. Gives its
    /// id; `None` if there is no such channel.
    pub fn quarantine(&mut self, slot: Slot) -> Option<ChannelId> {
        self.forget_plan();
        let id = self.remove_channel(slot).map(|watcher| watcher.id)?;
        self.set_aside(id);
        Some(id)
    }

    /// A channel is known and was set aside before it came here. Until it does, preimages that it may need are kept
    /// for it by the channels that learned them.
    pub fn set_aside(&mut self, id: ChannelId) {
        self.aside.insert(id);
    }

    /// Whether a channel keeps a preimage for one that is set aside: its records must not go before that one is back.
    #[must_use]
    pub fn keeps_for_others(&self, slot: Slot) -> bool {
        let owed = self.active(slot).into_iter().flat_map(|active| active.state.owed());
        owed.into_iter().any(|(incoming, _)| self.aside.contains(&incoming.channel))
    }
}
