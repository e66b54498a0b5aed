//! Start-up: the store is read in one pass; channels with anything to remember are resumed.
use super::on_the_way::OnTheWay;
use super::quarantine::{Quarantine, Stated};
use super::subscribers::Subscribers;
use super::trouble::Troubles;
use super::work::{Appends, Job, Outcome, Workers};
use super::{Driver, End, Outdated, Tasks, chain};
use crate::alarms::Board;
use crate::command::Envelope;
use crate::notices::NoticeHub;
use crate::settings::{ChannelNumbers, Ports, Settings};
use arb_core::arbitrator::{Alert, ChannelArbitrator};
use arb_core::engine::ChainArbitrator;
use arb_core::facts::{ChannelFacts, Standing};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, StoredChannel};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use bitcoin::OutPoint;
use bitcoin::secp256k1::Secp256k1;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

/// The driver's ends of what the handle holds.
pub(crate) struct Seams {
    pub(crate) queue: mpsc::Receiver<Envelope>,
    pub(crate) commands: mpsc::WeakSender<Envelope>,
    pub(crate) end: End,
    pub(crate) alarms: Board,
}

/// Why the arbiter did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be read: nothing was changed.
    #[error("the store cannot be read: {0}")]
    Store(String),
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
    pub(crate) async fn open(
        log: L,
        ports: Ports<S, B, F, K, C>,
        settings: Settings,
        numbers: &[ChannelNumbers],
        seams: Seams,
    ) -> Result<Self, StartError> {
        let unreadable = |error: L::Error| StartError::Store(error.to_string());
        let blocks = log.blocks().map_err(unreadable)?;
        let channels = log.channels().map_err(unreadable)?;
        let mut driver = Self {
            engine: ChainArbitrator::new(settings.policy, blocks),
            log,
            ports: Arc::new(ports),
            settings,
            secp: Secp256k1::new(),
            queue: seams.queue,
            commands: seams.commands,
            end: seams.end,
            bell: Arc::new(Notify::new()),
            chain: chain::Following::new(&settings),
            workers: Workers::default(),
            appends: Appends::default(),
            tasks: Tasks::default(),
            notices: NoticeHub::default(),
            alarms: seams.alarms,
            subscribers: Subscribers::default(),
            on_the_way: OnTheWay::default(),
            outdated: Outdated::default(),
            quarantine: Quarantine::default(),
            troubles: Troubles::default(),
            waiting: Vec::new(),
            next_slot: 0,
            next_direct: 0,
            idlers: Vec::new(),
        };
        let stated: BTreeMap<ChannelId, ChannelNumbers> =
            numbers.iter().map(|stated| (stated.id, *stated)).collect();
        driver.next_slot = driver.log.next_slot().map_err(unreadable)?.0;
        for channel in channels {
            driver.resume(channel, &stated)?;
        }
        driver.look_at_store();
        driver.reserve_coins().await;
        Ok(driver)
    }

    fn resume(
        &mut self,
        channel: StoredChannel,
        stated: &BTreeMap<ChannelId, ChannelNumbers>,
    ) -> Result<(), StartError> {
        let (slot, id) = (channel.slot, channel.id);
        for (name, state) in channel.subscribers {
            self.subscribers.restore(slot, name, state);
        }
        let changes = if channel.has_changes {
            self.log.changes(slot).map_err(|error| StartError::Store(error.to_string()))?
        } else {
            Ok(Vec::new())
        };
        match (channel.facts, changes) {
            (Ok(mut facts), Ok(changes)) => {
                self.judge(slot, stated.get(&id).copied(), &mut facts);
                let state = ChannelArbitrator::replay(&changes);
                self.engine.restore(slot, Arc::from(facts), state);
            }
            (Err(damaged), _) | (_, Err(damaged)) => {
                let stated = Stated::Not(stated.get(&id).copied());
                // It may have been set aside for long, in earlier runs: nobody knows since when.
                self.put_aside(slot, id, stated, None, &damaged.to_string());
            }
        }
        Ok(())
    }

    /// Facts that are older than what the node states, or that it does not state at all, must not
    /// lead to a broadcast of a local commitment (BOLT 5 F5).
    pub(super) fn judge(
        &mut self,
        slot: Slot,
        stated: Option<ChannelNumbers>,
        facts: &mut ChannelFacts,
    ) {
        let older = stated.is_none_or(|stated| stated.is_newer(facts));
        if older && facts.standing == Standing::Current {
            self.outdated.0.insert(slot, stated);
            facts.standing = Standing::Outdated;
        }
        if facts.standing == Standing::Outdated {
            tracing::error!(channel = %facts.id, "the stored facts are outdated");
            self.notices.alarm(facts.id, Alert::OutdatedFacts);
        }
    }

    /// Coins in transactions that were handed out before the restart stay theirs. What the wallet
    /// does not take back now is told it again later.
    async fn reserve_coins(&mut self) {
        let mut late = false;
        for (slot, claim, coins) in self.coins_in_use() {
            self.tasks.funded.insert((slot, claim));
            let reserving = self.ports.coins.reserve(claim, coins.clone());
            if !late {
                match timeout(self.settings.patience, reserving).await {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => tracing::warn!(%error, "coins are not reserved again"),
                    Err(_) => late = true,
                }
            }
            let (ports, settings) = (self.ports.clone(), self.settings);
            self.workers.spawn(Job::Other, async move {
                loop {
                    sleep(settings.retry).await;
                    let reserving = ports.coins.reserve(claim, coins.clone());
                    match timeout(settings.patience, reserving).await {
                        Ok(Ok(())) => return Outcome::Reserved,
                        Ok(Err(error)) => tracing::warn!(%error, "coins are not reserved again"),
                        Err(_) => tracing::warn!("the wallet does not answer"),
                    }
                }
            });
        }
    }

    /// Wallet coins in unconfirmed transactions of ours, by claim.
    fn coins_in_use(&self) -> Vec<(Slot, OutPoint, Vec<OutPoint>)> {
        let used = self.engine.actives().flat_map(|(slot, active)| {
            active.state.acts().handed_out.iter().filter_map(move |out| {
                let claim = *out.claims.first()?;
                let confirmed = active.state.confirmed_at(out.transaction.compute_txid());
                let used = confirmed.is_none() && !out.coins.is_empty();
                used.then(|| (slot, claim, out.coins.clone()))
            })
        });
        used.collect()
    }
}
