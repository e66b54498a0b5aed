//! Where the arbiter, the recorder and LDK remember differently: an arbiter whose log is gone or older, and a
//! recorder that was away while LDK went on.
use super::{Commitments, Job, LeftFor, Recorder, Stop, Waiting, answered, numbers, watch};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::FactSink;
use crate::ldk02::facts::bootstrap::{Before, known_before};
use crate::ldk02::facts::monitor::{self, Known, Monitor, NotAtRest};
use crate::ldk02::facts::update::{self, FIRST_NUMBER, Step};
use arb_core::facts::{ChannelNumbers, Update};
use arb_core::ids::ChannelId;
use arb_core::units::{BlockHeight, CommitmentNumber};
use core::ops::Deref;

/// Ended HTLCs that are told at once.
pub(super) const AT_ONCE: usize = 500;

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// Channels that the arbiter knew nothing of although they are recorded and open, and that it was told
    /// of again since this recorder was opened: its log was lost, or is an older one. Its alarm is the
    /// node's to raise.
    pub fn watched_again(&self) -> impl Iterator<Item = &ChannelId> {
        self.again.iter()
    }

    /// Tells the arbiter of an open channel that it knows nothing of: the facts as they are recorded, and what
    /// LDK's monitor has for penalties and of preimages. LDK has seen it unspent up to its monitor's block: the past
    /// before that, which a chain client that starts there does not deliver, need not be read.
    pub(super) async fn watch_again<S: FactSink>(
        &mut self,
        channel: ChannelId,
        sink: &S,
    ) -> Result<(), Stop> {
        let Some(mut book) = self.shelf.book(&channel) else { return Ok(()) };
        let monitor = self.monitor_of(channel)?;
        let seen = monitor.as_ref().map(|read| BlockHeight(read.best.1));
        if let Some(seen) = seen.filter(|seen| *seen > book.facts.birth) {
            book.facts.birth = seen;
            let kept = self.shelf.put(channel, book.clone());
            kept.map_err(|why| Stop::Wait(Waiting::Store(why)))?;
        }
        answered(watch(&book.facts, sink).await)?;
        if let Some(read) = monitor {
            let Before { ended, preimages } = known_before(&read, &book.facts);
            for part in ended.chunks(AT_ONCE) {
                let part = vec![Update::HtlcsEnded(part.to_vec())];
                answered(sink.update(channel, part, Vec::new()).await)?;
            }
            for (preimage, source) in preimages {
                let told = vec![Update::Preimage { preimage, source }];
                answered(sink.update(channel, told, Vec::new()).await)?;
            }
        }
        self.again.insert(channel);
        Ok(())
    }

    /// LDK went on alone with a channel since it was recorded: what is recorded is outdated. The arbiter hears
    /// how far LDK is, so that it publishes no commitment of ours, and the channel is LDK's for good: it counts as
    /// handed back, which the egress is to hear of as well.
    pub(super) async fn fell_behind<S: FactSink>(
        &mut self,
        channel: ChannelId,
        job: &Job,
        sink: &S,
    ) -> Result<(), Stop> {
        let failed = |why| Stop::Wait(Waiting::Store(why));
        self.shelf.put_handed_back(channel).map_err(failed)?;
        let known = job.monitor().and_then(|monitor| monitor::known(&monitor.bytes).ok());
        match answered(sink.state_numbers(numbers_of(channel, known.as_ref())).await) {
            Ok(()) | Err(Stop::Gone) => {}
            Err(stop) => return Err(stop),
        }
        self.forget(channel).await.map_err(Stop::Wait)?;
        self.leave(channel, LeftFor::Behind);
        Ok(())
    }

    /// Numbers of a channel: LDK's, if its monitor is further than what is recorded.
    pub(super) fn true_numbers(&self, channel: ChannelId) -> Option<ChannelNumbers> {
        let book = self.shelf.book(&channel)?;
        let ahead = self.shelf.monitor(&book).ok().flatten();
        let ahead = ahead.filter(|bytes| update_of(bytes).is_some_and(|of| of > book.applied));
        Some(match ahead {
            Some(bytes) => numbers_of(channel, monitor::known(&bytes).ok().as_ref()),
            None => numbers(&book.facts),
        })
    }

    /// Whether a channel that the arbiter does not know may be one that LDK has open: signals say nothing of
    /// it, so its monitor must.
    pub(super) fn may_be_open(&self, channel: ChannelId, job: &Job) -> bool {
        let book = self.shelf.book(&channel).filter(|_| matches!(job, Job::Signals { .. }));
        let bytes = book.and_then(|book| self.shelf.monitor(&book).ok().flatten());
        bytes.is_some_and(|bytes| !matches!(monitor::read(&bytes), Err(NotAtRest::Closing)))
    }

    fn monitor_of(&self, channel: ChannelId) -> Result<Option<Monitor>, Stop> {
        let Some(book) = self.shelf.book(&channel) else { return Ok(None) };
        let bytes = self.shelf.monitor(&book);
        let bytes = bytes.map_err(|why| Stop::Wait(Waiting::Store(why)))?;
        Ok(bytes.and_then(|bytes| monitor::read(&bytes).ok()))
    }
}

/// Whether LDK has the channel open that it says this of.
pub(super) fn is_open(job: &Job) -> bool {
    match job {
        Job::Update { bytes, .. } => {
            let steps = update::read(bytes).map(|(_, steps)| steps).unwrap_or_default();
            let goes_on = |step: &Step| match step {
                Step::Local(_)
                | Step::Remote(_)
                | Step::Secret { .. }
                | Step::Splice(_)
                | Step::Locked(_)
                | Step::Shutdown(_) => true,
                Step::Preimage { .. } | Step::ForceClosed | Step::Nothing => false,
            };
            steps.iter().any(goes_on)
        }
        // LDK lists it.
        Job::Signals { names, .. } => names.is_some(),
        Job::Shutdown { .. } => true,
        Job::Open { .. } | Job::Monitor { .. } | Job::Archive { .. } | Job::HandedOver { .. } => {
            false
        }
    }
}

/// Whether LDK made updates that were never seen here.
pub(super) fn is_behind(applied: u64, update: u64, commitments: Commitments) -> bool {
    commitments == Commitments::Told && applied.checked_add(1).is_some_and(|next| update > next)
}

/// The number of the last update in a monitor, behind its two version bytes.
pub(super) fn update_of(monitor: &[u8]) -> Option<u64> {
    let bytes = monitor.get(2..10)?;
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// How far LDK is. A monitor that is not understood is further than anything.
pub(super) fn numbers_of(id: ChannelId, known: Option<&Known>) -> ChannelNumbers {
    let number = |ldk: u64| CommitmentNumber(FIRST_NUMBER.saturating_sub(ldk));
    match known {
        Some(known) => ChannelNumbers {
            id,
            local: number(known.local_number),
            remote: number(known.remote_number),
        },
        None => ChannelNumbers { id, local: CommitmentNumber::MAX, remote: CommitmentNumber::MAX },
    }
}
