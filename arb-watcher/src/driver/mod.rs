//! The driver: one task that owns the engine. Commands, outcomes of its workers, the bell of the
//! block source and the end reach it; after each it settles what is desired with what is under
//! way. It awaits nothing but its store: whatever else is outside is asked by a worker.
mod abandon;
mod chain;
mod closes;
mod coins;
mod commands;
mod durable;
mod gathered;
mod idlers;
mod intervene;
mod isolate;
mod lanes;
mod line;
mod measure;
mod mempool;
mod on_the_way;
mod open;
mod panics;
mod quarantine;
mod recent;
mod reports;
mod rescan;
mod scan;
mod settle;
mod subscribers;
mod subscribing;
mod tasks;
mod trouble;
mod work;

#[cfg(test)]
mod tests;

use crate::alarms::{Board, SourceAlarm};
use crate::command::Envelope;
use crate::ended::{Ended, LastWord};
use crate::epochs::EpochHub;
use crate::notices::NoticeHub;
use crate::settings::{Ports, Settings};
use arb_core::engine::ChainArbitrator;
use arb_core::log::ChangeLog;
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use bitcoin::secp256k1::{All, Secp256k1};
use idlers::Idlers;
use intervene::Failing;
use lanes::Rescans;
use line::Line;
use on_the_way::OnTheWay;
pub(crate) use open::Seams;
pub use open::StartError;
use panics::Caught;
use quarantine::Quarantine;
use recent::Recent;
use std::future::ready;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use subscribers::Subscribers;
use tasks::Tasks;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use trouble::Troubles;
use work::{Appends, Unsent, Workers};

/// Most appends of facts that are under way at the same time.
const MOST_APPENDS: usize = 1_024;

/// The types of what is around a driver: its log, and its ports.
pub(crate) trait Around: 'static {
    type Log: ChangeLog;
    type Source: BlockSource;
    type Network: Broadcast;
    type Fees: FeeSource;
    type Keys: Signer;
    type Coins: CoinSource;
}

/// Those that a node has chosen.
pub(crate) struct Chosen<L, S, B, F, K, C>(PhantomData<(L, S, B, F, K, C)>);

impl<L, S, B, F, K, C> Around for Chosen<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    type Log = L;
    type Source = S;
    type Network = B;
    type Fees = F;
    type Keys = K;
    type Coins = C;
}

type PortsOf<A> = Ports<
    <A as Around>::Source,
    <A as Around>::Network,
    <A as Around>::Fees,
    <A as Around>::Keys,
    <A as Around>::Coins,
>;

/// The state of the one task.
pub(crate) struct Driver<A: Around> {
    /// First, so that it is said before commands are refused.
    last_word: LastWord,
    log: A::Log,
    ports: Arc<PortsOf<A>>,
    settings: Settings,
    engine: ChainArbitrator,
    secp: Secp256k1<All>,
    queue: mpsc::Receiver<Envelope>,
    commands: mpsc::WeakSender<Envelope>,
    end: End,
    /// Rung by a task that listens to the block source.
    bell: Arc<Notify>,
    chain: chain::Following,
    workers: Workers,
    appends: Appends,
    /// Facts that are to be appended before anything else is.
    unsent: Unsent,
    tasks: Tasks,
    line: Line,
    notices: NoticeHub,
    alarms: Arc<Board>,
    subscribers: Subscribers,
    epochs: EpochHub,
    failing: Failing,
    on_the_way: OnTheWay,
    recent: Recent,
    quarantine: Quarantine,
    troubles: Troubles,
    rescans: Rescans,
    next_slot: u32,
    next_direct: u64,
    idlers: Idlers,
}

/// The end of the driver: asked for, or every handle is gone, or it cannot go on.
pub(crate) struct End {
    asked: watch::Receiver<bool>,
    /// It must end by itself.
    must: Option<Ended>,
}

impl End {
    pub(crate) const fn new(asked: watch::Receiver<bool>) -> Self {
        Self { asked, must: None }
    }

    /// The driver must end.
    fn must(&mut self, why: Ended) {
        tracing::error!(%why, "the arbiter ends");
        self.must.get_or_insert(why);
    }

    /// Resolves when the driver is to end.
    async fn come(&mut self) {
        // An error: the last handle is gone.
        let _ = self.asked.wait_for(|asked| *asked).await;
    }

    fn is_near(&self) -> bool {
        self.must.is_some() || *self.asked.borrow() || self.asked.has_changed().is_err()
    }
}

/// A task that ends with its guard, and so with a driver that is aborted.
struct Guard(tokio::task::AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<A: Around> Driver<A> {
    /// Runs until the last handle is dropped, a shutdown is asked for, or it cannot go on.
    pub(crate) async fn run(mut self) {
        let why = match Caught::new(self.follow()).await {
            Ok(()) => self.end.must.take().unwrap_or(Ended::Asked),
            Err(what) => {
                tracing::error!(what, "the arbiter has panicked, and ends");
                Ended::Panicked(what)
            }
        };
        self.last_word.say(why);
    }

    async fn follow(&mut self) {
        let listener = self.listen();
        let readers = (self.subscribers.readers.clone(), self.notices.readers.clone());
        // One for all, and moved only if it must be: to set a timer wakes the thread that keeps them.
        let mut timer = pin!(tokio::time::sleep(Duration::ZERO));
        while !self.end.is_near() {
            let due = self.due();
            if let Some(due) = due.filter(|due| timer.deadline() != *due) {
                timer.as_mut().reset(due);
            }
            // Not biased: a flood of commands must not hold blocks up.
            tokio::select! {
                () = self.end.come() => break,
                Some(envelope) = self.queue.recv(), if self.takes_commands() => self.on_commands(envelope).await,
                Some(stored) = self.appends.next() => self.on_all_stored(stored).await,
                Some(outcome) = self.workers.next() => self.on_outcomes(outcome).await,
                () = self.bell.notified() => self.chain.rung(),
                () = readers.0.room.notified() => self.subscribers.room(),
                () = readers.1.room.notified() => self.notices.room(),
                () = readers.0.gone.notified() => self.subscribers.tidy(),
                () = readers.1.gone.notified() => self.notices.tidy(),
                () = ready(()), if self.rescans.are_done() => self.take_scanned().await,
                () = timer.as_mut(), if due.is_some() => self.on_time(),
            }
            // The end finishes what runs, and begins nothing.
            if !self.end.is_near() {
                self.settle().await;
            }
        }
        drop(listener);
        self.workers.abort();
        // Whoever waits for an append that is under way is told how it ended.
        while let Some(stored) = self.appends.next().await {
            self.on_all_stored(stored).await;
        }
    }

    /// A store that does not answer fills no memory: commands wait in their queue, where callers see that it is full.
    fn takes_commands(&self) -> bool {
        self.appends.len() < MOST_APPENDS
    }

    /// When time brings something to do, if it does.
    fn due(&self) -> Option<Instant> {
        let looks = Some(self.chain.due()).filter(|_| !self.chain.is_looking());
        [looks, self.quarantine.due(), self.tasks.due()].into_iter().flatten().min()
    }

    /// Does what is due by now. Tasks that are, are found when it settles.
    fn on_time(&mut self) {
        let is_past = |at: Instant| at <= Instant::now();
        if !self.chain.is_looking() && is_past(self.chain.due()) {
            self.look();
        }
        if self.quarantine.due().is_some_and(is_past) {
            self.read_again();
        }
    }

    /// Rings the bell whenever the source may have something new, until the guard is dropped. A source that
    /// panics is told of, and asked again after a pause that doubles: nothing else says that it is deaf.
    fn listen(&self) -> Guard {
        let (bell, ports, settings) = (self.bell.clone(), self.ports.clone(), self.settings);
        // Who watches the alarms learns of the driver's end even if the source never comes back.
        let alarms = Arc::downgrade(&self.alarms);
        let tell = move |alarm| alarms.upgrade().into_iter().for_each(|board| board.source(alarm));
        let listening = async move {
            let mut pause = settings.retry;
            loop {
                match Caught::new(async { ports.source.changed().await }).await {
                    Ok(()) => {
                        pause = settings.retry;
                        tell(None);
                    }
                    Err(what) => {
                        tracing::error!(what, "the block source has panicked");
                        tell(Some(SourceAlarm::Panics));
                        tokio::time::sleep(pause).await;
                        pause = pause.saturating_mul(2).min(settings.heartbeat.max(settings.retry));
                    }
                }
                bell.notify_one();
            }
        };
        Guard(tokio::spawn(listening).abort_handle())
    }
}
