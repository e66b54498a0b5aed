//! What is desired, what is under way, and what was tried. Kept so that nothing here depends on
//! how many channels there are: only channels that something happened to are looked at.
mod turns;
mod unsigned;
mod verdicts;

use arb_core::arbitrator::EffectKey;
use arb_core::claim::Claim;
use arb_core::claim::build::Draft;
use arb_core::engine::{Task, TaskKey};
use arb_core::ids::Slot;
use arb_core::ports::Package;
use arb_core::units::BlockRef;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;
use turns::Turn;
use unsigned::UnsignedClaims;
use verdicts::Verdicts;

/// One channel may have this part of the workers: one whose signer never answers must not hold the
/// others up.
const SHARE: usize = 4;

/// Whoever has not answered for so long holds no place among the workers any more: however many
/// channels have signers that never answer, the others are asked meanwhile.
const SLOW: Duration = Duration::from_secs(1);

/// What failed is tried again after so long, then after twice as long each time, up to the longest;
/// and at every block.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// What is desired, what is under way, and what was tried at which tip.
#[derive(Default)]
pub(super) struct Tasks {
    of: BTreeMap<Slot, OfChannel>,
    /// The tip that all of this is about: at another one, what failed is tried again.
    tip: Option<BlockRef>,
    /// Channels that something happened to since they were looked at.
    stirred: BTreeSet<Slot>,
    /// Channels with work for workers, in turn. Each is in here once, and not while it has its share of them.
    queue: VecDeque<Slot>,
    /// Channels with work that wants coins of the wallet, in the order in which that has its turn: there may not be enough
    /// for all. Each is in here once, and not while it has its share of workers.
    hungry: BTreeSet<(Turn, Slot)>,
    /// Whether that comes before the queue, where not all of both find a worker.
    hungry_first: bool,
    under_way: usize,
    /// In whose names coins are selected by what is under way.
    signing: BTreeMap<(Slot, TaskKey), OutPoint>,
    /// How many of those under way are slow.
    slow: usize,
    /// What was handed out and is not known to be slow, with its time; some has ended since.
    handed_out: VecDeque<(Instant, Slot, TaskKey)>,
    /// When channels are looked at for what failed.
    retries: BTreeSet<(Instant, Slot)>,
    /// The time, as the driver said last.
    now: Option<Instant>,
    /// Claims that wallet coins are or may be reserved for.
    funded: BTreeMap<Slot, BTreeSet<OutPoint>>,
    /// Spends of what active channels watch, ours among them, that the mempool held at the last look, and what each
    /// spends.
    in_mempool: HashMap<Txid, Vec<OutPoint>>,
    /// What the network said since the tip has moved.
    verdicts: Verdicts,
    unsigned: UnsignedClaims,
}

#[derive(Default)]
struct OfChannel {
    desired: BTreeMap<TaskKey, Task>,
    /// What is under way, by whether it is slow.
    running: BTreeMap<TaskKey, bool>,
    tried: BTreeMap<TaskKey, Tried>,
    /// What was handed over and answered for, be it that it was refused.
    heard: BTreeSet<TaskKey>,
    /// What is to be done once more when the attempt that is under way has ended: it may have come too early.
    again: BTreeSet<TaskKey>,
    /// Work that no worker has taken yet.
    due: BTreeSet<TaskKey>,
    /// The same, if it wants coins of the wallet.
    hungry: BTreeSet<(Turn, TaskKey)>,
    queued: bool,
    /// Its place among those that want coins.
    place: Option<Turn>,
}

/// The last attempt at a task.
struct Tried {
    task: Task,
    tip: Option<BlockRef>,
    /// How often it has failed at this tip.
    failures: u32,
    /// When it is tried again if it failed.
    again: Option<Instant>,
}

/// The block and the time that something is due at, or not.
#[derive(Clone, Copy)]
struct At {
    tip: Option<BlockRef>,
    now: Option<Instant>,
}

impl OfChannel {
    /// Whether a task is neither under way nor tried at this tip, or is to be tried again.
    fn is_due(&self, key: &TaskKey, task: &Task, at: At) -> bool {
        let again = self.tried.get(key).is_none_or(|tried| {
            let pause_over = tried.again.zip(at.now).is_some_and(|(again, now)| again <= now);
            tried.tip != at.tip || tried.task != *task || pause_over
        });
        again && !self.running.contains_key(key)
    }
}

/// How many of the workers one channel may have.
const fn share(workers: usize) -> usize {
    let share = workers.div_ceil(SHARE);
    if share == 0 { 1 } else { share }
}

/// Whether a task needs a worker. The others are done at once.
const fn needs_worker(task: &Task) -> bool {
    match task {
        Task::Sign(_) | Task::Publish(_) | Task::JudgeScripts(_) | Task::AskPoint(_) => true,
        Task::LoadRevokedHtlcs(_) | Task::Notify(_) | Task::Forget => false,
    }
}

impl Tasks {
    /// Replaces what is desired of a channel.
    pub(super) fn desire(&mut self, slot: Slot, desired: BTreeMap<TaskKey, Task>) {
        let channel = self.of.entry(slot).or_default();
        channel.tried.retain(|key, _| desired.contains_key(key));
        channel.heard.retain(|key| desired.contains_key(key));
        channel.due.retain(|key| desired.contains_key(key));
        channel.again.retain(|key| desired.contains_key(key));
        channel.hungry.retain(|(_, key)| desired.contains_key(key));
        let before = std::mem::replace(&mut channel.desired, desired);
        self.unsigned.desire(&before, &channel.desired);
        self.stirred.insert(slot);
        self.line_up(slot);
        self.tidy(slot);
    }

    /// Whether this very task is desired now.
    pub(super) fn is_desired(&self, slot: Slot, key: &TaskKey, task: &Task) -> bool {
        self.of.get(&slot).is_some_and(|channel| channel.desired.get(key) == Some(task))
    }

    const fn at(&self) -> At {
        At { tip: self.tip, now: self.now }
    }

    /// Time has passed: whose pause is over is looked at, and who has not answered for long is slow.
    pub(super) fn pass(&mut self, now: Instant) {
        self.now = Some(now);
        while let Some((_, slot)) = self.retries.first().filter(|(at, _)| *at <= now).copied() {
            self.retries.pop_first();
            self.stirred.insert(slot);
        }
        while let Some((since, slot, key)) = self.handed_out.front() {
            let slow = self.of.get_mut(slot).and_then(|channel| channel.running.get_mut(key));
            match slow {
                Some(_) if *since + SLOW > now => break,
                Some(slow) if !*slow => {
                    *slow = true;
                    self.slow = self.slow.saturating_add(1);
                }
                // It has ended. If it was handed out again since, that stands further behind.
                Some(_) | None => {}
            }
            self.handed_out.pop_front();
        }
    }

    /// When time brings something: a pause is over, or work waits and somebody will be slow.
    pub(super) fn due(&self) -> Option<Instant> {
        let waits = !self.queue.is_empty() || !self.hungry.is_empty();
        let slow = self.handed_out.front().filter(|_| waits);
        let slow = slow.map(|(since, _, _)| *since + SLOW);
        let retry = self.retries.first().map(|(at, _)| *at);
        slow.into_iter().chain(retry).min()
    }

    /// Whether the tip has moved: then whatever is desired may be due.
    pub(super) fn moved(&mut self, tip: Option<BlockRef>) -> bool {
        let moved = self.tip != tip;
        if moved {
            self.tip = tip;
            self.stirred.extend(self.of.keys());
            self.verdicts = Verdicts::default();
        }
        moved
    }

    /// What is due without a worker, of the next channel that something happened to; its work is
    /// queued. `None` when there is no such channel.
    pub(super) fn at_once(&mut self) -> Option<(Slot, Vec<(TaskKey, Task)>)> {
        let slot = self.stirred.pop_first()?;
        let at = self.at();
        let Some(channel) = self.of.get_mut(&slot) else { return Some((slot, Vec::new())) };
        let (mut at_once, mut due, mut hungry) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        let unsigned = self.unsigned.of(slot);
        for (key, task) in &channel.desired {
            if !channel.is_due(key, task, at) {
                continue;
            }
            if let Some(turn) = Turn::of(task, self.tip, unsigned) {
                hungry.insert((turn, key.clone()));
            } else if needs_worker(task) {
                due.insert(key.clone());
            } else {
                at_once.push((key.clone(), task.clone()));
            }
        }
        channel.due = due;
        channel.hungry = hungry;
        self.line_up(slot);
        Some((slot, at_once))
    }

    /// Tasks for free workers: channel by channel in turn, and what wants coins in the order of what is at stake. Each
    /// channel has its share at most. What is handed out here is under way.
    pub(super) fn hand_out(&mut self, workers: usize) -> Vec<(Slot, TaskKey, Task)> {
        let mut handed_out = Vec::new();
        if self.hungry_first {
            self.hand_out_hungry(workers, workers.div_ceil(2), &mut handed_out);
        }
        for _ in 0..self.queue.len() {
            if self.busy() >= workers.max(1) {
                break;
            }
            let Some(slot) = self.queue.pop_front() else { break };
            for _ in 0..self.room(slot, workers) {
                let due = self.of.get_mut(&slot).and_then(|channel| channel.due.pop_first());
                let Some(key) = due else { break };
                self.take(slot, key, &mut handed_out);
            }
            if let Some(channel) = self.of.get_mut(&slot) {
                // With its share it is in the queue again once an attempt has ended.
                let may_have_more = channel.running.len() < share(workers);
                channel.queued = may_have_more && !channel.due.is_empty();
                if channel.queued {
                    self.queue.push_back(slot);
                }
            }
            self.tidy(slot);
        }
        self.hand_out_hungry(workers, workers, &mut handed_out);
        if !handed_out.is_empty() {
            self.hungry_first = !self.hungry_first;
        }
        handed_out
    }

    /// So many of those that want coins.
    fn hand_out_hungry(
        &mut self,
        workers: usize,
        most: usize,
        handed_out: &mut Vec<(Slot, TaskKey, Task)>,
    ) {
        let mut left = most;
        while left > 0 && self.busy() < workers.max(1) {
            let Some((_, slot)) = self.hungry.pop_first() else { break };
            let room = self.room(slot, workers) > 0;
            let Some(channel) = self.of.get_mut(&slot) else { continue };
            channel.place = None;
            // With its share it has its place again once an attempt has ended.
            if room && let Some((_, key)) = channel.hungry.pop_first() {
                self.take(slot, key, handed_out);
                self.line_up(slot);
                left = left.saturating_sub(1);
            }
        }
    }

    /// A channel with work that no worker has taken waits for one, behind others in turn or among those that want coins.
    fn line_up(&mut self, slot: Slot) {
        let Some(channel) = self.of.get_mut(&slot) else { return };
        if !channel.due.is_empty() && !channel.queued {
            channel.queued = true;
            self.queue.push_back(slot);
        }
        let place = channel.hungry.first().map(|(turn, _)| *turn);
        if place != channel.place {
            if let Some(before) = std::mem::replace(&mut channel.place, place) {
                self.hungry.remove(&(before, slot));
            }
            self.hungry.extend(place.map(|turn| (turn, slot)));
        }
    }

    /// How many tasks of a channel may be handed out now.
    fn room(&self, slot: Slot, workers: usize) -> usize {
        let running = self.of.get(&slot).map_or(0, |channel| channel.running.len());
        share(workers).saturating_sub(running).min(workers.max(1).saturating_sub(self.busy()))
    }

    /// A worker takes a task.
    fn take(&mut self, slot: Slot, key: TaskKey, handed_out: &mut Vec<(Slot, TaskKey, Task)>) {
        let Some(channel) = self.of.get_mut(&slot) else { return };
        let Some(task) = channel.desired.get(&key).cloned() else { return };
        channel.running.insert(key.clone(), false);
        if let Task::Sign(draft) = &task {
            self.signing.insert((slot, key.clone()), draft.coins_as.1);
        }
        if let Some(now) = self.now {
            self.handed_out.push_back((now, slot, key.clone()));
        }
        self.under_way = self.under_way.saturating_add(1);
        handed_out.push((slot, key, task));
    }

    /// An attempt that was handed out has ended.
    pub(super) fn ended(&mut self, slot: Slot, key: TaskKey, task: Task, tip: Option<BlockRef>) {
        self.is_over(slot, &key);
        self.tried(slot, key, task, tip);
    }

    /// The attempt that has just ended has failed: it is repeated after a pause.
    pub(super) fn failed(&mut self, slot: Slot, key: &TaskKey, now: Instant) {
        let Some(channel) = self.of.get_mut(&slot) else { return };
        let Some(tried) = channel.tried.get_mut(key) else { return };
        let factor = 1_u32.checked_shl(tried.failures).unwrap_or(u32::MAX);
        let at = now + FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE);
        tried.failures = tried.failures.saturating_add(1);
        tried.again = Some(at);
        self.retries.insert((at, slot));
    }

    /// The network has answered for what was handed over.
    pub(super) fn heard(&mut self, slot: Slot, key: TaskKey) {
        if let Some(channel) = self.of.get_mut(&slot).filter(|c| c.desired.contains_key(&key)) {
            channel.heard.insert(key);
        }
    }

    /// Whether it ever has.
    pub(super) fn is_heard(&self, slot: Slot, key: &TaskKey) -> bool {
        self.of.get(&slot).is_some_and(|channel| channel.heard.contains(key))
    }

    /// Workers that are not slow, and have something to do.
    const fn busy(&self) -> usize {
        self.under_way.saturating_sub(self.slow)
    }

    /// Nobody is at a task any more.
    fn is_over(&mut self, slot: Slot, key: &TaskKey) {
        self.signing.remove(&(slot, key.clone()));
        let Some(channel) = self.of.get_mut(&slot) else { return };
        let Some(slow) = channel.running.remove(key) else { return };
        self.under_way = self.under_way.saturating_sub(1);
        self.slow = self.slow.saturating_sub(usize::from(slow));
        self.line_up(slot);
    }

    /// What an attempt that was handed out has brought is not wanted any more.
    pub(super) fn dropped(&mut self, slot: Slot, key: &TaskKey) {
        self.is_over(slot, key);
        self.stirred.insert(slot);
        self.tidy(slot);
    }

    /// A task was tried.
    pub(super) fn tried(&mut self, slot: Slot, key: TaskKey, task: Task, tip: Option<BlockRef>) {
        let at = self.at();
        let Some(channel) = self.of.get_mut(&slot) else { return };
        // Of what is no longer desired nothing is remembered.
        let desired = channel.desired.get(&key).cloned();
        if channel.again.remove(&key) {
            channel.tried.remove(&key);
            self.stirred.insert(slot);
        } else if let Some(desired) = desired {
            // Pauses grow with the failures at one tip.
            let before = channel.tried.get(&key).filter(|before| before.tip == tip);
            let failures = before.map_or(0, |before| before.failures);
            channel.tried.insert(key.clone(), Tried { task, tip, failures, again: None });
            // It may have changed meanwhile.
            if channel.is_due(&key, &desired, at) {
                self.stirred.insert(slot);
            }
        }
        self.tidy(slot);
    }

    /// The mempool holds these spends of what active channels watch, and of the anchors of commitments
    /// that wait, with all that each spends. What of ours was among them at the last look and is no more, goes out again at
    /// once, with what it is handed over with; and so does what a spend by somebody else stood in the way of, if that is
    /// no more. Gives what is no more, ours or not.
    pub(super) fn mempool_holds(&mut self, now: HashMap<Txid, Vec<OutPoint>>) -> HashSet<Txid> {
        let then = std::mem::replace(&mut self.in_mempool, now);
        let is_gone = |(txid, _): &(&Txid, &Vec<OutPoint>)| !self.in_mempool.contains_key(*txid);
        let gone: HashSet<Txid> = then.iter().filter(is_gone).map(|(txid, _)| *txid).collect();
        let free: HashSet<OutPoint> =
            then.iter().filter(is_gone).flat_map(|(_, spent)| spent).copied().collect();
        if !gone.is_empty() {
            self.try_again(|package| {
                let spent =
                    |tx: &Transaction| tx.input.iter().any(|i| free.contains(&i.previous_output));
                package.transactions.iter().any(spent)
            });
        }
        gone
    }

    /// Whether it was there at the last look.
    pub(super) fn is_in_mempool(&self, txid: &Txid) -> bool {
        self.in_mempool.contains_key(txid)
    }

    /// The network may have lost everything: all of it goes out again.
    pub(super) fn reconnected(&mut self) {
        self.try_again(|_| true);
    }

    /// The network took a transaction. Gives whether it found others to pay too little at this tip.
    pub(super) fn is_accepted(&mut self, txid: Txid) -> bool {
        self.verdicts.is_accepted(txid)
    }

    /// The network found a transaction to pay too little. Gives whether it took others at this tip.
    pub(super) fn is_outbid(&mut self, txid: Txid) -> bool {
        self.verdicts.is_outbid(txid)
    }

    /// These were one transaction before. The network takes any of them only once one that pays for the whole
    /// is accepted, and workers hand them over in no order: if one is, those that came too early go out again.
    pub(super) fn taken_apart(&mut self, all: &BTreeSet<Txid>) {
        let early = self.verdicts.too_early(all);
        if !early.is_empty() {
            self.try_again(|package| {
                package.transactions.iter().any(|tx| early.contains(&tx.compute_txid()))
            });
        }
    }

    /// What was handed over, of this kind, is handed over again.
    fn try_again(&mut self, again: impl Fn(&Package) -> bool) {
        let is_again = |task: &Task| matches!(task, Task::Publish(package) if again(package));
        let again = |tried: &Tried| is_again(&tried.task);
        for (slot, channel) in &mut self.of {
            let before = channel.tried.len();
            channel.tried.retain(|_, tried| !again(tried));
            let running = channel
                .running
                .keys()
                .filter(|key| channel.desired.get(*key).is_some_and(is_again));
            channel.again.extend(running.cloned());
            if channel.tried.len() < before {
                self.stirred.insert(*slot);
            }
        }
    }

    /// Forgetting waits for nobody any more, perhaps.
    pub(super) fn forget_again(&mut self, slot: Slot) {
        if let Some(channel) = self.of.get_mut(&slot) {
            channel.tried.remove(&TaskKey::Effect(EffectKey::Forget));
            self.stirred.insert(slot);
        }
    }

    /// Whether a task of a channel is desired.
    pub(super) fn desires(&self, slot: Slot, key: &TaskKey) -> bool {
        self.of.get(&slot).is_some_and(|channel| channel.desired.contains_key(key))
    }

    /// Whether a transaction for the very claims of `task` is still to be signed.
    pub(super) fn wants(&self, slot: Slot, key: &TaskKey, task: &Task) -> bool {
        let now = self.of.get(&slot).and_then(|channel| channel.desired.get(key));
        let (Some(Task::Sign(now)), Task::Sign(then)) = (now, task) else { return false };
        let outpoint = |claim: &Claim| claim.outpoint;
        now.claims().map(outpoint).eq(then.claims().map(outpoint))
    }

    /// The signer did not sign for these claims of a channel, at this tip.
    pub(super) fn not_signed(
        &mut self,
        slot: Slot,
        claims: impl IntoIterator<Item = OutPoint>,
        tip: Option<BlockRef>,
    ) {
        claims.into_iter().for_each(|claim| self.unsigned.failed(slot, claim, tip));
    }

    /// The signer signed for these claims.
    pub(super) fn signed(&mut self, claims: impl IntoIterator<Item = OutPoint>) {
        claims.into_iter().for_each(|claim| self.unsigned.remove(claim));
    }

    /// Channels for whose claims the signer has failed or has signed since this was asked last, or for whose claims
    /// that it had failed for nobody wants a signature any more.
    pub(super) fn signers_changed(&mut self) -> BTreeSet<Slot> {
        let _ = self.unsigned.forget();
        self.unsigned.changed()
    }

    /// Whether the signer has failed for a claim of a channel at so many blocks in a row.
    pub(super) fn is_unsigned_for(&self, slot: Slot, blocks: u32) -> bool {
        self.unsigned.lasts(slot, blocks)
    }

    /// Whether it is to be doubted that the signer will sign a draft of a channel: it has not for some blocks.
    pub(super) fn is_doubted(&self, slot: Slot, draft: &Draft) -> bool {
        turns::is_doubted(draft, self.unsigned.of(slot))
    }

    /// In whose names coins are or will be selected for what workers are signing.
    pub(super) fn being_signed(&self) -> impl Iterator<Item = OutPoint> {
        self.signing.values().copied()
    }

    /// How many tasks workers are at.
    pub(super) const fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether nothing is left to try at this tip.
    pub(super) fn is_idle(&self) -> bool {
        let waits = !self.queue.is_empty() || !self.hungry.is_empty();
        self.under_way == 0 && self.stirred.is_empty() && !waits
    }

    /// Coins are or may be reserved for a claim.
    pub(super) fn fund(&mut self, slot: Slot, claim: OutPoint) {
        self.funded.entry(slot).or_default().insert(claim);
    }

    /// Whether coins are or may be reserved for a claim.
    pub(super) fn has_coins(&self, slot: Slot, claim: &OutPoint) -> bool {
        self.funded.get(&slot).is_some_and(|funded| funded.contains(claim))
    }

    /// They are not: it is to be tried again when the channel is next looked at.
    pub(super) fn has_no_coins(&mut self, slot: Slot, claim: &OutPoint) {
        if let Some(funded) = self.funded.get_mut(&slot) {
            funded.remove(claim);
            if funded.is_empty() {
                self.funded.remove(&slot);
            }
        }
    }

    /// Whether coins may be reserved for anything of a channel.
    pub(super) fn is_funded(&self, slot: Slot) -> bool {
        self.funded.contains_key(&slot)
    }

    /// Claims of a channel whose coins are to be released, as they are not wanted any more.
    pub(super) fn unfund(&mut self, slot: Slot, wanted: &BTreeSet<OutPoint>) -> BTreeSet<OutPoint> {
        let Some(funded) = self.funded.get_mut(&slot) else { return BTreeSet::new() };
        let all = std::mem::take(funded).into_iter();
        let (kept, over) = all.partition(|claim| wanted.contains(claim));
        *funded = kept;
        if funded.is_empty() {
            self.funded.remove(&slot);
        }
        over
    }

    /// A channel of which nothing is desired and nothing is under way is not remembered.
    fn tidy(&mut self, slot: Slot) {
        let over = |c: &OfChannel| c.desired.is_empty() && c.running.is_empty() && !c.queued;
        if self.of.get(&slot).is_some_and(over) {
            self.of.remove(&slot);
        }
    }
}

#[cfg(test)]
mod tests;
