//! Start-up: the store is read in one pass; channels with anything to remember are resumed.
use super::subscribers::Subscribers;
use super::{Driver, Tasks, chain};
use crate::command::Command;
use crate::notices::NoticeHub;
use crate::settings::{ChannelNumbers, Ports, Settings};
use arb_core::arbitrator::ChannelArbitrator;
use arb_core::engine::ChainArbitrator;
use arb_core::facts::{ChannelFacts, Standing};
use arb_core::ids::ChannelId;
use arb_core::log::{ChangeLog, StoredChannel};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use bitcoin::secp256k1::Secp256k1;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

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
        queue: mpsc::Receiver<Command>,
        commands: mpsc::WeakSender<Command>,
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
            queue,
            commands,
            bell: Arc::new(Notify::new()),
            chain: chain::Following::new(),
            workers: JoinSet::new(),
            tasks: Tasks::default(),
            notices: NoticeHub::default(),
            subscribers: Subscribers::default(),
            fresh_facts: HashMap::new(),
            quarantined: BTreeMap::new(),
            outdated: BTreeSet::new(),
            next_slot: 0,
            next_direct: 0,
            idlers: Vec::new(),
            ending: None,
        };
        let stated: BTreeMap<ChannelId, ChannelNumbers> =
            numbers.iter().map(|stated| (stated.id, *stated)).collect();
        driver.next_slot = driver.log.next_slot().map_err(unreadable)?.0;
        for channel in channels {
            driver.resume(channel, &stated)?;
        }
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
                facts.standing = standing(&facts, stated.get(&id));
                if facts.standing == Standing::Outdated {
                    self.outdated.insert(slot);
                }
                let state = ChannelArbitrator::replay(&changes);
                self.engine.restore(slot, Arc::from(facts), state);
            }
            (Err(damaged), _) | (_, Err(damaged)) => {
                tracing::error!(channel = %id, %damaged, "channel set aside");
                self.quarantined.insert(id, slot);
                self.alarm_quarantine(id);
            }
        }
        Ok(())
    }

    /// Coins in transactions that were handed out before the restart stay theirs.
    async fn reserve_coins(&mut self) {
        let slots: Vec<_> = self.engine.slots().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(active) = self.engine.active(slot) else { continue };
            for out in &active.state.acts().handed_out {
                let confirmed = active.state.confirmed_at(out.transaction.compute_txid());
                let Some(claim) = out.claims.first() else { continue };
                if confirmed.is_none() && !out.coins.is_empty() {
                    self.tasks.funded.insert((slot, *claim));
                    let reserved = self.ports.coins.reserve(*claim, out.coins.clone()).await;
                    if let Err(error) = reserved {
                        tracing::warn!(%error, "coins are not reserved again");
                    }
                }
            }
        }
    }
}

/// Facts that are older than what the node states, or that it does not state at all, must not
/// lead to a broadcast of a local commitment (BOLT 5 F5).
fn standing(facts: &ChannelFacts, stated: Option<&ChannelNumbers>) -> Standing {
    let Some(stated) = stated else { return Standing::Outdated };
    let current = &facts.candidates.current;
    let older = current.local.number < stated.local || current.remote.number < stated.remote;
    if older { Standing::Outdated } else { facts.standing }
}
