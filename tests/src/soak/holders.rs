//! Who listens to all channels: a ledger that must miss nothing, and tasks that hold epochs and
//! subscriptions, read or do not, and end in every way.
use super::SoakError;
use crate::bench::synthetic::Random;
use arb_core::ids::ChannelId;
use arb_watcher::{AllChannelsSubscription, Arbiter, CommandError, Delivered, Delivery, Epochs};
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Tasks at once.
const MOST: usize = 8;
/// Names that they share: who takes one that is taken gets what the other got.
const NAMES: u64 = 4;
const LEDGER: &str = "ledger";

/// All of them.
pub(super) struct Holders {
    /// Its own, so that the other things that happen by chance are the same without it.
    random: Random,
    tasks: Vec<Holder>,
    ledger: Option<AllChannelsSubscription>,
    /// The last event of each channel that is in the ledger.
    booked: BTreeMap<ChannelId, u64>,
}

struct Holder {
    task: JoinHandle<()>,
    end: oneshot::Sender<Way>,
}

/// How a task ends by itself.
#[derive(Clone, Copy)]
enum Way {
    Returns,
    Panics,
}

impl Holders {
    pub(super) fn new(seed: u64) -> Self {
        let random = Random::new("soak holders", seed);
        Self { random, tasks: Vec::new(), ledger: None, booked: BTreeMap::new() }
    }

    /// How many tasks there are.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Somebody opens an epoch and a subscription to all channels.
    ///
    /// # Errors
    /// The arbiter refuses.
    pub(super) async fn open(&mut self, arbiter: &Arbiter) -> Result<(), SoakError> {
        if self.tasks.len() >= MOST {
            self.end_one().await;
        }
        let name = format!("h{}", self.random.between(0, NAMES - 1));
        let epochs = arbiter.epochs().await?;
        let events = arbiter.subscribe_all(&name, Delivery::Detached).await?;
        let (end, ended) = oneshot::channel();
        let reads = self.random.between(0, 1) == 0;
        self.tasks.push(Holder { task: tokio::spawn(hold(epochs, events, reads, ended)), end });
        if self.random.between(0, 9) == 0 {
            arbiter.unsubscribe_all(&name).await?;
        }
        Ok(())
    }

    /// One of them ends, in one of the ways in which tasks do.
    pub(super) async fn end_one(&mut self) {
        let Some(most) = (self.tasks.len() as u64).checked_sub(1) else { return };
        let at = self.random.between(0, most) as usize;
        let Holder { task, end } = self.tasks.swap_remove(at);
        // It waits for this, unless it is gone.
        let _ = match self.random.between(0, 3) {
            0 => end.send(Way::Returns),
            1 => end.send(Way::Panics),
            2 => {
                drop(end);
                Ok(())
            }
            _ => {
                task.abort();
                Ok(())
            }
        };
        let _ = task.await;
    }

    /// The ledger is closed, and opened again when it is next read.
    pub(super) fn close_ledger(&mut self) {
        self.ledger = None;
    }

    /// Books every event: each comes, and in the order of its channel.
    ///
    /// # Errors
    /// One is missing.
    pub(super) async fn book(&mut self, arbiter: &Arbiter) -> Result<(), SoakError> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => arbiter.subscribe_all(LEDGER, Delivery::Acknowledged).await?,
        };
        let ledger = self.ledger.insert(ledger);
        while let Some(Delivered { channel, number, .. }) = ledger.try_next() {
            let next = self.booked.get(&channel).map_or(0, |last| last + 1);
            if number > next {
                let what = format!("event {number} of {channel} came in the place of {next}");
                return Err(SoakError::unexpected(what));
            }
            if number == next {
                self.booked.insert(channel, number);
            }
            match ledger.acknowledge(channel, number).await {
                Ok(()) | Err(CommandError::UnknownChannel(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the arbiter counts what is held, and no more.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn check(&self, arbiter: &Arbiter, others: usize) -> Result<(), SoakError> {
        let counts = arbiter.counts().await?;
        let ledger = usize::from(self.ledger.is_some());
        let held = (self.tasks.len(), self.tasks.len() + ledger + others);
        if (counts.epochs, counts.subscriptions) == held {
            return Ok(());
        }
        Err(SoakError::unexpected(format!(
            "{held:?} epochs and subscriptions are held: {counts:?}"
        )))
    }

    /// A channel is forgotten.
    pub(super) fn forgotten(&mut self, channel: &ChannelId) {
        self.booked.remove(channel);
    }

    /// The arbiter has ended, and what it gave with it.
    pub(super) async fn arbiter_ended(&mut self) {
        self.ledger = None;
        for Holder { task, .. } in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }
}

/// Holds an epoch and a subscription until the end comes.
async fn hold(
    mut epochs: Epochs,
    mut events: AllChannelsSubscription,
    reads: bool,
    end: oneshot::Receiver<Way>,
) {
    let reading = async {
        let mut more = reads;
        while more {
            more = tokio::select! {
                epoch = epochs.next() => epoch.is_some(),
                event = events.next() => event.is_some(),
            };
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        way = end => match way {
            Ok(Way::Panics) => std::panic::resume_unwind(Box::new("as it wants")),
            Ok(Way::Returns) | Err(_) => {}
        }
    }
}
