//! An arbiter that only observes holds nothing, and neither does one that takes nothing any more.
use super::again::numbers_of;
use super::aside::is_given_up;
use super::{Job, LeftFor, Recorder, Stop, Waiting, answered, closes};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::held::HeldFor;
use crate::ldk02::facts::monitor::NotAtRest;
use crate::ldk02::facts::{FactSink, monitor};
use arb_core::ids::ChannelId;
use core::ops::Deref;
use std::sync::Arc;

/// Whether LDK has closed the channel before: it revokes nothing with what it writes now.
fn is_closed(job: &Job) -> bool {
    let monitor = job.monitor().map(|monitor| monitor::read(&monitor.bytes));
    matches!(monitor, Some(Err(NotAtRest::Closing)))
}

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// A job cannot be told: the channel is held, or LDK goes on with it alone.
    pub(super) async fn stopped<S: FactSink>(
        &mut self,
        channel: ChannelId,
        job: &Arc<Job>,
        why: HeldFor,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        self.hold(channel, job, why);
        if !self.goes(channel, sink) {
            return self.while_held(channel, job, sink, completed).await;
        }
        if let Some(holding) = self.held.get_mut(&channel) {
            holding.add(job);
        }
        self.let_pass(channel, sink, completed).await
    }

    /// The arbiter takes nothing, and LDK waits for it no longer: it goes on with the channel alone. What the arbiter
    /// has of it is outdated then: it hears of that when it is there again, and cannot sign for it. Of a channel whose
    /// commitment of ours may be out LDK has to wait for its own close all the same.
    pub(super) async fn without<S: FactSink>(
        &mut self,
        job: &Arc<Job>,
        waiting: Waiting,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        let Some(channel) = job.channel().filter(|_| !matches!(**job, Job::Signals { .. })) else {
            return Ok(());
        };
        if !self.held.contains_key(&channel) {
            self.hold(channel, job, HeldFor::Refused(waiting.to_string()));
        }
        if let Some(holding) = self.held.get_mut(&channel) {
            holding.add(job);
        }
        let is_begun = matches!(**job, Job::Open { .. });
        if !is_begun && !self.shelf.books().contains_key(&channel) {
            self.let_go(channel, completed)
        } else if self.goes(channel, sink) {
            self.let_pass(channel, sink, completed).await
        } else if closes(job) || is_closed(job) {
            self.let_go(channel, completed)
        } else if self.shelf.was_told(&channel) || is_given_up(job, &waiting, sink) {
            Ok(())
        } else {
            // The mode has changed since.
            Err(waiting)
        }
    }

    /// Channels that were held before the arbiter only observed.
    pub(super) async fn let_all_go<S: FactSink>(
        &mut self,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        let held: Vec<ChannelId> = self.held.keys().copied().collect();
        for channel in held {
            if self.goes(channel, sink) {
                match self.let_pass(channel, sink, completed).await {
                    Err(Waiting::SetAside(_)) => {}
                    passed => passed?,
                }
            }
        }
        Ok(())
    }

    /// Not where LDK was told to close the channel, before a restart perhaps: our commitment may be out.
    fn goes<S: FactSink>(&self, channel: ChannelId, sink: &S) -> bool {
        !self.shelf.was_told(&channel) && sink.lets_go(channel)
    }

    /// LDK goes on alone. What is durable first is that the arbiter publishes nothing for the channel any more: what
    /// it has of it is outdated from now on, as it hears.
    async fn let_pass<S: FactSink>(
        &mut self,
        channel: ChannelId,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        self.shelf.put_handed_back(channel).map_err(Waiting::Store)?;
        let last = self.held.get(&channel).and_then(|holding| holding.last.clone());
        let monitor = last.as_ref().and_then(|job| job.monitor());
        let known = monitor.and_then(|monitor| monitor::known(&monitor.bytes).ok());
        match answered(sink.state_numbers(numbers_of(channel, known.as_ref())).await) {
            Err(Stop::Wait(Waiting::SetAside(why))) => {
                if sink.waits_for(channel, true) {
                    return Err(Waiting::SetAside(why));
                }
            }
            Err(Stop::Wait(waiting)) if sink.waits(true) => return Err(waiting),
            Ok(())
            | Err(Stop::Wait(_) | Stop::Gone | Stop::Fence | Stop::Behind | Stop::Hold(_)) => {}
        }
        self.let_go(channel, completed)?;
        self.forget(channel).await?;
        self.leave(channel, LeftFor::Observed);
        Ok(())
    }
}
