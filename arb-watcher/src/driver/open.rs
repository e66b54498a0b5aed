//! Start-up: the index of the store is read in one pass, which is all that quiet channels need;
//! channels with anything to remember are resumed.
use super::idlers::Idlers;
use super::intervene::Failing;
use super::lanes::Rescans;
use super::line::Line;
use super::on_the_way::OnTheWay;
use super::panics::caught_of;
use super::quarantine::{Quarantine, Stated};
use super::recent::Recent;
use super::subscribers::Subscribers;
use super::tasks::Tasks;
use super::trouble::Troubles;
use super::work::{Appends, Workers};
use super::{Around, Driver, End, PortsOf, chain};
use crate::alarms::Board;
use crate::command::Envelope;
use crate::ended::LastWord;
use crate::epochs::EpochHub;
use crate::notices::NoticeHub;
use crate::settings::{ChannelNumbers, Settings};
use arb_core::arbitrator::{Alert, ChannelArbitrator};
use arb_core::engine::{ChainArbitrator, EngineInput};
use arb_core::facts::{ChannelEntry, ChannelFacts, Standing};
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::{ChangeLog, Remedy, StoredChannel};
use arb_core::units::BlockRef;
use bitcoin::secp256k1::Secp256k1;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// The driver's ends of what the handle holds.
pub(crate) struct Seams {
    pub(crate) queue: mpsc::Receiver<Envelope>,
    pub(crate) commands: mpsc::WeakSender<Envelope>,
    pub(crate) end: End,
    pub(crate) alarms: Board,
    pub(crate) last_word: LastWord,
}

/// Channels that room is made for at most before they are read, whatever the store says.
const MOST_EXPECTED: usize = 1 << 24;

/// What the node stated of these channels.
fn stated_of(
    channels: &[StoredChannel],
    stated: &[ChannelNumbers],
) -> HashMap<ChannelId, Option<ChannelNumbers>> {
    let mut of: HashMap<_, _> = channels.iter().map(|channel| (channel.id, None)).collect();
    if !of.is_empty() {
        for stated in stated {
            if let Some(of) = of.get_mut(&stated.id) {
                *of = Some(*stated);
            }
        }
    }
    of
}

/// Holds stored facts, by their index entry, against what the node states, and raises the alarm if
/// they are outdated: they must not lead to a broadcast of a local commitment (BOLT 5 F5).
fn judge(
    engine: &mut ChainArbitrator,
    notices: &mut NoticeHub,
    slot: Slot,
    entry: &ChannelEntry,
    stated: Option<ChannelNumbers>,
) {
    if engine.state_numbers(slot, entry, stated) == Standing::Outdated {
        alarm_outdated(notices, entry.id);
    }
}

fn alarm_outdated(notices: &mut NoticeHub, id: ChannelId) {
    tracing::error!(channel = %id, "the facts are outdated");
    notices.alarm(id, Alert::OutdatedFacts);
}

/// Why the arbiter did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The store cannot be read: nothing was changed.
    #[error("the store cannot be read: {0}")]
    Store(String),
}

impl<A: Around> Driver<A> {
    pub(crate) async fn open(
        log: A::Log,
        ports: PortsOf<A>,
        settings: Settings,
        numbers: &[ChannelNumbers],
        seams: Seams,
    ) -> Result<Self, StartError> {
        let unreadable = |error: <A::Log as ChangeLog>::Error| StartError::Store(error.to_string());
        let blocks = log.blocks().map_err(unreadable)?;
        // Of a store with channels that is the cursor's damage: each is scanned from its birth.
        let is_lost = blocks.is_empty();
        let mut driver = Self {
            last_word: seams.last_word,
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
            unsent: Vec::new(),
            tasks: Tasks::default(),
            line: Line::default(),
            notices: NoticeHub::default(),
            alarms: Arc::new(seams.alarms),
            subscribers: Subscribers::default(),
            epochs: EpochHub::default(),
            failing: Failing::default(),
            on_the_way: OnTheWay::default(),
            recent: Recent::new(settings.busy_channels),
            quarantine: Quarantine::default(),
            troubles: Troubles::default(),
            rescans: Rescans::default(),
            next_slot: 0,
            next_direct: 0,
            idlers: Idlers::default(),
        };
        let to_all = driver.log.subscribers_to_all().map_err(unreadable)?;
        driver.subscribers = Subscribers::to_all(to_all, settings.unread_events);
        driver.next_slot = driver.log.next_slot().map_err(unreadable)?.0;
        let others = match is_lost {
            true => driver.all_channels().map_err(unreadable)?,
            false => driver.resume_quiet(numbers).map_err(unreadable)?,
        };
        let stated = stated_of(&others, numbers);
        for channel in others {
            let stated = stated.get(&channel.id).copied().flatten();
            if channel.aside || is_lost {
                let why = match is_lost {
                    true => "nobody knows any more which blocks it has seen",
                    false => "it was set aside, and has missed blocks",
                };
                driver.put_aside(channel.slot, channel.id, Stated::Not(stated), None, why);
            } else {
                driver.resume(channel, stated).map_err(unreadable)?;
            }
        }
        driver.step_back().await;
        // Until the mempool is looked at, it holds what it held.
        let mutual = driver.engine.seen_to_close_mutually();
        driver.engine.close_mutually(&mutual);
        driver.look_at_store();
        driver.reserve_coins();
        Ok(driver)
    }

    /// Where the newest block of the cursor cannot be read, what channels have seen above what is left is seen
    /// again, in whatever chain there is by then.
    async fn step_back(&mut self) {
        let Some(fork_point) = self.engine.tip() else { return };
        let is_above = |(_, at): (_, BlockRef)| at.height > fork_point.height;
        if self.engine.actives().any(|(_, active)| active.state.confirmed().any(is_above)) {
            // An error: the driver is to end.
            let _ = self.step(vec![EngineInput::Disconnected { fork_point }]).await;
        }
    }

    fn all_channels(&mut self) -> Result<Vec<StoredChannel>, <A::Log as ChangeLog>::Error> {
        let (mut all, Self { log, subscribers, .. }) = (Vec::new(), self);
        log.each_channel(&mut |mut channel| {
            for (name, state) in std::mem::take(&mut channel.subscribers) {
                subscribers.restore(channel.slot, name, state);
            }
            all.push(channel);
        })?;
        Ok(all)
    }

    /// Puts quiet channels back from the index alone. Gives the others.
    fn resume_quiet(
        &mut self,
        stated: &[ChannelNumbers],
    ) -> Result<Vec<StoredChannel>, <A::Log as ChangeLog>::Error> {
        let expected = usize::try_from(self.log.channel_count()?).unwrap_or(usize::MAX);
        let mut quiet = self.engine.quiet_channels(expected.min(MOST_EXPECTED));
        let mut others = Vec::new();
        let Self { log, engine, subscribers, notices, .. } = self;
        log.each_channel(&mut |mut channel| {
            let slot = channel.slot;
            for (name, state) in std::mem::take(&mut channel.subscribers) {
                subscribers.restore(slot, name, state);
            }
            match &channel.entry {
                Ok(entry) if !channel.has_changes && !channel.aside && quiet.push(slot, entry) => {}
                _ => others.push(channel),
            }
        })?;
        for (_, id) in engine.restore_quiet(quiet, stated) {
            alarm_outdated(notices, id);
        }
        Ok(others)
    }

    /// A channel with anything to remember, or that cannot be read.
    fn resume(
        &mut self,
        channel: StoredChannel,
        stated: Option<ChannelNumbers>,
    ) -> Result<(), <A::Log as ChangeLog>::Error> {
        let (slot, id) = (channel.slot, channel.id);
        // It may have been set aside for long, in earlier runs: nobody knows since when.
        let aside = |driver: &mut Self, stated, why: &str| {
            driver.put_aside(slot, id, stated, None, why);
        };
        match &channel.entry {
            Ok(entry) => judge(&mut self.engine, &mut self.notices, slot, entry, stated),
            Err(damaged) => {
                aside(self, Stated::Not(stated), &damaged.to_string());
                return Ok(());
            }
        }
        let read = self.log.facts(slot).and_then(|facts| Ok((facts, self.log.changes(slot)?)));
        let read = match read {
            Err(error) if A::Log::remedy(&error) != Remedy::Wait => {
                aside(self, Stated::Judged, &error.to_string());
                return Ok(());
            }
            read => read?,
        };
        match read {
            (Some(Ok(facts)), Ok(changes)) => {
                let state = caught_of(slot, || ChannelArbitrator::replay(&changes));
                let state = state.map_err(|panicked| panicked.why());
                let restored = state.and_then(|s| self.restore(slot, Arc::from(facts), s));
                if let Err(why) = restored {
                    aside(self, Stated::Judged, &why);
                }
            }
            (Some(Err(damaged)), _) | (_, Err(damaged)) => {
                aside(self, Stated::Judged, &damaged.to_string());
            }
            (None, Ok(_)) => aside(self, Stated::Judged, "no facts are stored"),
        }
        Ok(())
    }

    /// Holds facts against what the node states of the channel.
    pub(super) fn state_numbers(
        &mut self,
        slot: Slot,
        facts: &ChannelFacts,
        stated: Option<ChannelNumbers>,
    ) {
        let entry = ChannelEntry::of(facts);
        judge(&mut self.engine, &mut self.notices, slot, &entry, stated);
    }
}
