//! What becomes of a channel that is held.
use super::{Commitments, Job, Recorder, Stop, Waiting, answered, closes};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::held::{Held, HeldFor, Holding};
use crate::ldk02::facts::{FactSink, Refusal};
use arb_core::ids::ChannelId;
use core::ops::Deref;
use std::sync::Arc;

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    pub(super) fn hold(&mut self, channel: ChannelId, job: &Job, why: HeldFor) {
        let held = Held { channel, update: job.update(), why };
        self.held.insert(channel, Holding::new(held));
    }

    /// One more job of a held channel. No monitor is written: the newest one contains what is held.
    /// Behind the fence all but commitments is told, none of which reaches the peer. Whatever a channel is held
    /// for, secrets and preimages are told, as far as they follow from what the arbiter knows: they can only help.
    pub(super) async fn while_held<S: FactSink>(
        &mut self,
        channel: ChannelId,
        job: &Arc<Job>,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        let fenced = self.held.get(&channel).is_some_and(|of| of.held.why == HeldFor::Fenced);
        let closes = closes(job);
        let told = match (fenced, &**job) {
            (true, Job::Update { bytes, .. }) => {
                let told = self.update(channel, job, sink, Commitments::Skipped).await;
                if matches!(told, Err(Stop::Hold(_))) {
                    self.helps(channel, bytes, sink).await?;
                }
                told
            }
            (true, Job::Shutdown { .. }) | (_, Job::Signals { .. }) => {
                self.one(channel, job, sink).await
            }
            (false, Job::Update { bytes, .. }) => {
                self.helps(channel, bytes, sink).await?;
                if closes { answered(sink.closed(channel).await) } else { Ok(()) }
            }
            (_, Job::Monitor { monitor, .. }) => {
                self.learn(channel, &monitor.bytes, sink).await?;
                Ok(())
            }
            _ => Ok(()),
        };
        let why = match told {
            Err(Stop::Wait(waiting)) => return Err(waiting),
            Err(_) if matches!(**job, Job::Signals { .. } | Job::Shutdown { .. }) => None,
            Err(Stop::Hold(why)) => Some(why),
            Err(Stop::Fence) => Some(HeldFor::Refused(Refusal::Fenced.to_string())),
            Ok(()) | Err(Stop::Gone | Stop::Behind) => None,
        };
        if let Some(holding) = self.held.get_mut(&channel) {
            if let Some(why) = why {
                holding.held = Held { channel, update: job.update(), why };
            }
            holding.add(job);
        }
        if closes { self.let_go(channel, completed) } else { Ok(()) }
    }

    /// LDK goes on with a channel that was held. Its newest monitor is written before anything is
    /// completed: LDK must not find an update done after a crash, and the close that came with it
    /// not.
    pub(super) fn let_go(
        &mut self,
        channel: ChannelId,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        let Some(holding) = self.held.get(&channel) else { return Ok(()) };
        if let Some(monitor) = holding.last.as_ref().and_then(|job| job.monitor()) {
            self.shelf.put_monitor(monitor).map_err(Waiting::Store)?;
        }
        let (last, book) = (holding.updates.last(), self.shelf.book(&channel));
        if let (Some(last), Some(mut book)) = (last, book) {
            book.applied = book.applied.max(*last);
            self.shelf.put(channel, book).map_err(Waiting::Store)?;
        }
        for update in &holding.updates {
            completed(channel, *update);
        }
        self.held.remove(&channel);
        Ok(())
    }
}
