//! Facts on their way to the store: of a quiet channel many appends may be in flight. The store
//! applies them in order, and each holds everything that the ones before it do.
use crate::command::{CommandError, Reply};
use crate::receipt::Receipt;
use arb_core::engine::Updated;
use arb_core::facts::ChannelFacts;
use arb_core::ids::Slot;
use arb_core::log::ByteRecord;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Appends of facts that have not ended, by channel, oldest first.
#[derive(Default)]
pub(super) struct OnTheWay {
    of: HashMap<Slot, VecDeque<Append>>,
    next: u64,
}

/// Records of the node's own that are written with facts.
pub(super) type Records = Vec<Arc<ByteRecord>>;

struct Append {
    number: u64,
    /// This update, and those before it that failed.
    updated: Updated,
    records: Records,
    /// Who is told how it ended.
    replies: Vec<Asked>,
}

/// Whoever waits for facts to be durable.
enum Asked {
    /// To update them.
    Updated(Reply<Receipt>),
    /// To watch a channel of which these are the facts.
    Watched(Reply<()>),
}

impl Asked {
    fn send(self, answer: Result<Receipt, CommandError>) {
        match self {
            Self::Updated(reply) => reply.send(answer),
            Self::Watched(reply) => reply.send(answer.map(drop)),
        }
    }
}

fn succeed(updated: &Updated, replies: Vec<Asked>) {
    let receipt = Receipt::of(updated.facts());
    replies.into_iter().for_each(|reply| reply.send(Ok(receipt)));
}

impl OnTheWay {
    /// The newest facts, if any are on the way.
    pub(super) fn newest(&self, slot: Slot) -> Option<&Arc<ChannelFacts>> {
        self.of.get(&slot)?.back().map(|append| append.updated.facts())
    }

    /// What is on the way for these channels, as one update each.
    pub(super) fn of(
        &self,
        slots: &BTreeSet<Slot>,
    ) -> impl Iterator<Item = (Slot, (Updated, Records))> {
        slots.iter().filter_map(|slot| Some((*slot, as_one(self.of.get(slot)?)?)))
    }

    /// An append begins. Gives its number, and all that must be in it: an append that fails takes
    /// its penalty data and records along, unless those after it bring them too.
    pub(super) fn begin(
        &mut self,
        slot: Slot,
        (updated, records): (Updated, Records),
        reply: Reply<Receipt>,
    ) -> (u64, (Updated, Records)) {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        let appends = self.of.entry(slot).or_default();
        let all = match as_one(appends) {
            Some((before, of_before)) => {
                (before.then(updated.clone()), newest_of([of_before, records.clone()]))
            }
            None => (updated.clone(), records.clone()),
        };
        appends.push_back(Append {
            number,
            updated,
            records,
            replies: vec![Asked::Updated(reply)],
        });
        (number, all)
    }

    /// Answers once the newest facts are durable: now, if none are on the way.
    pub(super) fn watched(&mut self, slot: Slot, reply: Reply<()>) {
        match self.of.get_mut(&slot).and_then(VecDeque::back_mut) {
            Some(newest) => newest.replies.push(Asked::Watched(reply)),
            None => reply.send(Ok(())),
        }
    }

    /// An append is durable, and with it all that went before it. Gives its facts, unless newer
    /// ones are durable already.
    pub(super) fn stored(&mut self, slot: Slot, number: u64) -> Option<Updated> {
        let appends = self.of.get_mut(&slot)?;
        let mut newest = None;
        while appends.front().is_some_and(|append| append.number <= number) {
            let Some(Append { number: of, updated, replies, .. }) = appends.pop_front() else {
                break;
            };
            succeed(&updated, replies);
            newest = (of == number).then_some(updated);
        }
        self.tidy(slot);
        newest
    }

    /// An append left nothing behind. If a later one, which was built on it, is on the way, it may
    /// still become durable with that one.
    pub(super) fn failed(&mut self, slot: Slot, number: u64, why: &str) {
        let Some(appends) = self.of.get_mut(&slot) else { return };
        let Some(index) = appends.iter().position(|append| append.number == number) else { return };
        let Some(failed) = appends.remove(index) else { return };
        match appends.get_mut(index) {
            Some(later) => {
                later.replies.extend(failed.replies);
                later.updated = failed.updated.then(later.updated.clone());
                later.records = newest_of([failed.records, std::mem::take(&mut later.records)]);
            }
            None => {
                for reply in failed.replies {
                    reply.send(Err(CommandError::NotStored(why.to_owned())));
                }
            }
        }
        self.tidy(slot);
    }

    /// The newest facts of the channel became durable in another way.
    pub(super) fn superseded(&mut self, slot: Slot) {
        for append in self.of.remove(&slot).into_iter().flatten() {
            succeed(&append.updated, append.replies);
        }
    }

    fn tidy(&mut self, slot: Slot) {
        if self.of.get(&slot).is_some_and(VecDeque::is_empty) {
            self.of.remove(&slot);
        }
    }
}

fn as_one(appends: &VecDeque<Append>) -> Option<(Updated, Records)> {
    let updated = appends.iter().map(|append| append.updated.clone()).reduce(Updated::then)?;
    Some((updated, newest_of(appends.iter().map(|append| append.records.clone()))))
}

/// Of records with one name the last.
fn newest_of(all: impl IntoIterator<Item = Records>) -> Records {
    let mut newest = Records::new();
    for record in all.into_iter().flatten() {
        newest.retain(|old| (&old.folder, &old.name) != (&record.folder, &record.name));
        newest.push(record);
    }
    newest
}
