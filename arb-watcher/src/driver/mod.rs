//! The driver: one task that owns the engine. Four things reach it: the chain, commands, outcomes
//! of its workers, and the end; after each it settles what is desired with what is under way.
mod chain;
mod commands;
mod open;
mod settle;
mod subscribers;
mod work;

use crate::command::{Command, Reply};
use crate::notices::NoticeHub;
use crate::settings::{Ports, Settings};
use arb_core::engine::{
    ChainArbitrator, EngineInput, Loaded, NeedFacts, Released, Task, TaskKey, Transition,
};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{Batch, BatchId, ChangeLog, Durable, Write};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::units::BlockHeight;
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{OutPoint, Txid};
pub use open::StartError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use subscribers::Subscribers;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use work::Outcome;

/// Batches that do not pass through the engine are numbered from here, so that no receipt of one
/// kind can serve the other.
const DIRECT_BATCHES: u64 = 1 << 63;

/// The state of the one task.
pub(crate) struct Driver<L, S, B, F, K, C> {
    log: L,
    ports: Arc<Ports<S, B, F, K, C>>,
    settings: Settings,
    engine: ChainArbitrator,
    secp: Secp256k1<All>,
    queue: mpsc::Receiver<Command>,
    commands: mpsc::WeakSender<Command>,
    /// Rung by a task that listens to the block source.
    bell: Arc<Notify>,
    chain: chain::Following,
    workers: JoinSet<Outcome>,
    tasks: Tasks,
    notices: NoticeHub,
    subscribers: Subscribers,
    /// Facts whose append is under way, newer than those in the store.
    fresh_facts: HashMap<Slot, FreshFacts>,
    /// Channels whose records cannot be read.
    quarantined: BTreeMap<ChannelId, Slot>,
    next_slot: u32,
    next_direct: u64,
    idlers: Vec<Reply<()>>,
    ending: Option<Reply<()>>,
}

/// The task that listens to the block source ends with its guard, and so with a driver that is
/// aborted.
struct Listener(tokio::task::AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Facts on their way to the store.
struct FreshFacts {
    facts: Arc<ChannelFacts>,
    appends: usize,
}

/// What is desired, what is under way, and what was tried at which tip.
#[derive(Default)]
struct Tasks {
    desired: BTreeMap<(Slot, TaskKey), Task>,
    running: BTreeSet<(Slot, TaskKey)>,
    tried: BTreeMap<(Slot, TaskKey), (Task, BlockHeight)>,
    /// Mempool transactions that the engine has been shown.
    seen: HashSet<Txid>,
    /// Claims that wallet coins are reserved for.
    funded: BTreeSet<(Slot, OutPoint)>,
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
    /// Runs until the last handle is dropped or a shutdown is asked for.
    pub(crate) async fn run(mut self) {
        let listener = self.listen();
        while self.ending.is_none() {
            let due = self.chain.due();
            tokio::select! {
                biased;
                command = self.queue.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => break,
                },
                Some(outcome) = self.workers.join_next(), if !self.workers.is_empty() => {
                    // A worker that panicked is a worker that failed: its task is desired still.
                    if let Ok(outcome) = outcome {
                        self.on_outcome(outcome).await;
                    }
                }
                () = self.bell.notified() => self.chain.rung(),
                () = tokio::time::sleep_until(due), if self.chain.is_behind() => {
                    self.on_chain().await;
                }
            }
            self.settle().await;
        }
        drop(listener);
        self.workers.abort_all();
        if let Some(reply) = self.ending.take() {
            let _ = reply.send(Ok(()));
        }
    }

    /// Rings the bell whenever the source may have something new, until the guard is dropped.
    fn listen(&self) -> Listener {
        let (bell, ports) = (self.bell.clone(), self.ports.clone());
        let listening = async move {
            loop {
                ports.source.changed().await;
                bell.notify_one();
            }
        };
        Listener(tokio::spawn(listening).abort_handle())
    }

    /// Stages inputs, makes them durable, commits them. Facts of quiet channels are loaded as the
    /// engine asks for them; a channel whose facts cannot be read is set aside.
    async fn step(&mut self, inputs: Vec<EngineInput>) {
        let mut loaded = Loaded::new();
        let transition = loop {
            match self.engine.stage(&inputs, &loaded) {
                Ok(transition) => break transition,
                Err(NeedFacts(slots)) => self.load(slots, &mut loaded),
            }
        };
        let released = self.make_durable(transition).await;
        self.release(released);
    }

    async fn make_durable(&mut self, transition: Transition) -> Released {
        let transition = match self.engine.commit_empty(transition) {
            Ok(released) => return released,
            Err(transition) => *transition,
        };
        let receipt = self.append(transition.batch().clone()).await;
        match self.engine.commit(transition, receipt) {
            Ok(released) => released,
            Err(wrong) => {
                // Cannot happen with a store that keeps the contract of `ChangeLog`.
                tracing::error!(%wrong, "the store answered with another batch's receipt");
                Released::default()
            }
        }
    }

    /// Appends until it is durable: nothing may happen before.
    async fn append(&mut self, batch: Batch) -> Durable {
        loop {
            match self.log.append(batch.clone()).await {
                Ok(receipt) => return receipt,
                Err(error) => {
                    tracing::error!(%error, batch = batch.id.0, "the store refuses an append");
                    tokio::time::sleep(self.settings.retry).await;
                }
            }
        }
    }

    fn load(&mut self, slots: BTreeSet<Slot>, loaded: &mut Loaded) {
        for slot in slots {
            match self.facts_of(slot) {
                Ok(facts) => {
                    loaded.insert(slot, facts);
                }
                Err(why) => self.set_aside(slot, &why),
            }
        }
    }

    /// The newest facts of a channel.
    fn facts_of(&self, slot: Slot) -> Result<Arc<ChannelFacts>, String> {
        if let Some(active) = self.engine.active(slot) {
            return Ok(active.facts.clone());
        }
        if let Some(fresh) = self.fresh_facts.get(&slot) {
            return Ok(fresh.facts.clone());
        }
        match self.log.facts(slot) {
            Ok(Some(Ok(facts))) => Ok(Arc::from(facts)),
            Ok(Some(Err(damaged))) => Err(damaged.to_string()),
            Ok(None) => Err("no facts are stored".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// One channel that cannot be read does not stop the others.
    fn set_aside(&mut self, slot: Slot, why: &str) {
        let id = self.engine.slots().find(|(known, _)| *known == slot).map(|(_, id)| id);
        self.engine.quarantine(slot);
        if let Some(id) = id {
            tracing::error!(channel = %id, why, "channel set aside");
            self.quarantined.insert(id, slot);
            self.alarm_quarantine(id);
        }
    }

    fn alarm_quarantine(&mut self, id: ChannelId) {
        let alert = arb_core::arbitrator::Alert::Quarantined;
        self.notices.tell(id, &arb_core::arbitrator::Notice::Alert(alert));
    }

    /// A batch that does not pass through the engine.
    fn direct_batch(&mut self, writes: Vec<Write>) -> Batch {
        let id = BatchId(DIRECT_BATCHES | self.next_direct);
        self.next_direct = self.next_direct.wrapping_add(1);
        Batch { id, writes }
    }
}

/// When something that failed is tried again.
fn later(settings: &Settings) -> Instant {
    Instant::now() + settings.retry
}
