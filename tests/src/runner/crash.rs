//! Crashes: a log and a broadcaster that stop answering at a chosen point, as a process does that
//! dies there.
use arb_core::arbitrator::{Change, ChannelArbitrator, Now, Position};
use arb_core::facts::{ChannelFacts, HtlcRecord, Standing};
use arb_core::format::scripts;
use arb_core::ids::{ChannelId, HtlcId, Slot};
use arb_core::log::{Batch, ChangeLog, Damaged, Durable, Health, StoredChannel, Write};
use arb_core::policy::Policy;
use arb_core::ports::{Broadcast, Package, Verdict};
use arb_core::report::ChannelReport;
use arb_core::units::{BlockRef, CommitmentNumber};
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use std::collections::BTreeMap;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// Points of a run at which it may crash: counted in every run, taken at most once. Of those between which
/// nothing becomes durable, goes out or comes in, the first stands for all: a crash at any of them leaves the
/// same behind.
#[derive(Debug, Default)]
pub(super) struct CrashPlan {
    /// The point to crash at; `None`: only count.
    at: Option<usize>,
    passed: AtomicUsize,
    /// Nothing that outlives the process has happened since the last point.
    still: AtomicBool,
    /// Each point counts: more outlives the process than is told to the plan.
    apart: AtomicBool,
    name: Mutex<Option<String>>,
    happened: AtomicBool,
    /// What happens now is no part of the story.
    paused: AtomicBool,
    wake: Notify,
}

impl CrashPlan {
    /// A plan that only counts.
    pub(super) fn count() -> Self {
        Self::default()
    }

    /// A plan to crash at this point, counted from 0.
    pub(super) fn at(point: usize) -> Self {
        Self { at: Some(point), ..Self::default() }
    }

    /// How many points the run has passed.
    pub(super) fn passed(&self) -> usize {
        self.passed.load(Ordering::SeqCst)
    }

    /// The point to crash at.
    pub(super) const fn crashes_at(&self) -> Option<usize> {
        self.at
    }

    /// Points are neither counted nor taken while what happens is no part of the story.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// From now on each point counts.
    pub(super) fn keep_apart(&self) {
        self.apart.store(true, Ordering::SeqCst);
    }

    /// Something happens that outlives the process: a write, a broadcast, something that the node hears or
    /// asks for, a block.
    pub(super) fn moved(&self) {
        self.still.store(false, Ordering::SeqCst);
    }

    /// Passes a point; true if the process dies here.
    pub(super) fn point(&self, name: impl FnOnce() -> String) -> bool {
        if self.paused.load(Ordering::SeqCst) {
            return false;
        }
        let still = self.still.swap(true, Ordering::SeqCst);
        if still && !self.apart.load(Ordering::SeqCst) {
            return false;
        }
        let number = self.passed.fetch_add(1, Ordering::SeqCst);
        if self.at != Some(number) {
            return false;
        }
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name());
        self.happened.store(true, Ordering::SeqCst);
        self.wake.notify_one();
        true
    }

    /// Where it crashed, if it did.
    pub(super) fn name(&self) -> Option<String> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Resolves when a crash happens that nobody has dealt with.
    pub(super) async fn crashed(&self) {
        loop {
            let woken = self.wake.notified();
            if self.happened.load(Ordering::SeqCst) {
                return;
            }
            woken.await;
        }
    }

    /// The crash is dealt with.
    pub(super) fn recovered(&self) {
        self.happened.store(false, Ordering::SeqCst);
    }
}

/// One life of the process: what belongs to it answers no more once it is dead.
#[derive(Clone, Debug)]
pub(super) struct Life {
    plan: Arc<CrashPlan>,
    dead: Arc<AtomicBool>,
}

impl Life {
    /// A new life.
    pub(super) fn new(plan: Arc<CrashPlan>) -> Self {
        Self { plan, dead: Arc::default() }
    }

    fn dies(&self, name: impl FnOnce() -> String) -> bool {
        if !self.is_dead() && self.plan.point(name) {
            self.dead.store(true, Ordering::SeqCst);
        }
        self.is_dead()
    }

    fn moved(&self) {
        self.plan.moved();
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// What there was to report of channels when they were last about to be forgotten. Many blocks may
/// pass before the runner asks again.
#[derive(Clone, Debug, Default)]
pub(super) struct LastReports {
    reports: Arc<Mutex<BTreeMap<ChannelId, ChannelReport>>>,
    facts: Arc<Mutex<BTreeMap<ChannelId, ChannelFacts>>>,
}

impl LastReports {
    /// The last report of a channel that was forgotten.
    pub(super) fn of(&self, id: &ChannelId) -> Option<ChannelReport> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The facts that were written last.
    pub(super) fn facts(&self, id: &ChannelId) -> Option<ChannelFacts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// The funding outputs of all channels, and their scripts.
    pub(super) fn fundings(&self) -> Vec<(OutPoint, ScriptBuf)> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates = facts.values().flat_map(|facts| facts.candidates.iter());
        let registered = candidates.map(|candidate| {
            let script = scripts::funding(&candidate.keys.local, &candidate.keys.remote);
            (candidate.funding, script.to_p2wsh())
        });
        registered.collect()
    }

    fn keep_facts(&self, batch: &Batch) {
        let mut kept = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for write in &batch.writes {
            if let Write::Facts { facts, .. } = write {
                kept.insert(facts.id, (**facts).clone());
            }
        }
    }

    /// Reports the channels that a batch is to delete, by what the log holds of them.
    fn take<L: ChangeLog>(&self, log: &L, batch: &Batch, policy: Policy) {
        for write in &batch.writes {
            let Write::Forget { slot } = write else { continue };
            let (Ok(Some(Ok(facts))), Ok(Ok(changes)), Ok(blocks)) =
                (log.facts(*slot), log.changes(*slot), log.blocks())
            else {
                continue;
            };
            let Some(tip) = blocks.last().map(|block| block.height) else { continue };
            let standing = Standing::Current;
            let floor = bitcoin::FeeRate::BROADCAST_MIN;
            let mutual_close = None;
            let position = Position::AtTip;
            let now = Now { tip, position, policy, standing, link: None, floor, mutual_close };
            let report = ChannelReport::of(&facts, &ChannelArbitrator::replay(&changes), &now);
            let mut all = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(report.id, report);
        }
    }
}

/// A change log that may die around a write.
#[derive(Debug)]
pub(super) struct MortalLog<L> {
    pub(super) inner: L,
    pub(super) life: Life,
    pub(super) policy: Policy,
    pub(super) last: LastReports,
}

/// Whether a batch holds more than moves of the chain cursor.
fn matters(batch: &Batch) -> bool {
    let cursor =
        |write: &Write| matches!(write, Write::BlockConnected(_) | Write::Disconnected { .. });
    !batch.writes.iter().all(cursor)
}

/// What a batch writes, in a word or two.
fn describe(batch: &Batch) -> String {
    let kind = |write: &Write| match write {
        Write::Facts { .. } => "facts".to_owned(),
        Write::EndedHtlcs { .. } => "ended HTLCs".to_owned(),
        Write::LogReplaced { .. } => "log replaced".to_owned(),
        Write::Changes { changes, .. } => {
            let name = |change: &Change| {
                let text = format!("{change:?}");
                let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
                text.get(..end).unwrap_or_default().to_owned()
            };
            changes.iter().map(name).collect::<Vec<_>>().join("+")
        }
        Write::BlockConnected(_) | Write::Disconnected { .. } => "cursor".to_owned(),
        Write::Subscriber { .. } | Write::SubscriberToAll { .. } => "subscriber".to_owned(),
        Write::SetAside { aside, .. } => format!("set aside: {aside}"),
        Write::Forget { .. } => "forget".to_owned(),
        Write::Bytes(_) => "the node's own".to_owned(),
    };
    batch.writes.iter().map(kind).collect::<Vec<_>>().join(", ")
}

impl<L: ChangeLog> ChangeLog for MortalLog<L> {
    type Error = L::Error;
    type Append = Pin<Box<dyn Future<Output = Result<Durable, L::Error>> + Send>>;

    fn append(&mut self, batch: Batch) -> Self::Append {
        self.last.take(&self.inner, &batch, self.policy);
        let counts = matters(&batch);
        let what = if counts { describe(&batch) } else { String::new() };
        let before = || format!("before the write of {what}");
        if self.life.is_dead() || (counts && self.life.dies(before)) {
            return Box::pin(pending());
        }
        self.last.keep_facts(&batch);
        self.life.moved();
        let (append, life) = (self.inner.append(batch), self.life.clone());
        Box::pin(async move {
            let receipt = append.await;
            life.moved();
            let after = || format!("after the write of {what}");
            if life.is_dead() || (counts && receipt.is_ok() && life.dies(after)) {
                return pending().await;
            }
            receipt
        })
    }

    fn each_channel(&self, each: &mut dyn FnMut(StoredChannel)) -> Result<(), L::Error> {
        self.inner.each_channel(each)
    }

    fn channel_count(&self) -> Result<u64, L::Error> {
        self.inner.channel_count()
    }

    fn channel(&self, slot: Slot) -> Result<Option<StoredChannel>, L::Error> {
        self.inner.channel(slot)
    }

    fn health(&self) -> Health {
        self.inner.health()
    }

    fn facts(&self, slot: Slot) -> Result<Option<Result<Box<ChannelFacts>, Damaged>>, L::Error> {
        self.inner.facts(slot)
    }

    fn changes(&self, slot: Slot) -> Result<Result<Vec<Change>, Damaged>, L::Error> {
        self.inner.changes(slot)
    }

    fn ended_htlcs(
        &self,
        slot: Slot,
        number: CommitmentNumber,
    ) -> Result<Result<Vec<(HtlcId, HtlcRecord)>, Damaged>, L::Error> {
        self.inner.ended_htlcs(slot, number)
    }

    fn subscribers_to_all(&self) -> Result<Vec<(String, bool)>, L::Error> {
        self.inner.subscribers_to_all()
    }

    fn next_slot(&self) -> Result<Slot, L::Error> {
        self.inner.next_slot()
    }

    fn blocks(&self) -> Result<Vec<BlockRef>, L::Error> {
        self.inner.blocks()
    }
}

/// A broadcaster that may die around a broadcast.
#[derive(Debug)]
pub(super) struct MortalBroadcast<B> {
    pub(super) inner: B,
    pub(super) life: Life,
}

impl<B: Broadcast> Broadcast for MortalBroadcast<B> {
    type Error = B::Error;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, B::Error> {
        if self.life.dies(|| "before a broadcast".to_owned()) {
            return pending().await;
        }
        self.life.moved();
        let verdicts = self.inner.broadcast(package).await;
        self.life.moved();
        if self.life.dies(|| "after a broadcast".to_owned()) {
            return pending().await;
        }
        verdicts
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, B::Error> {
        self.inner.test(transaction).await
    }
}
