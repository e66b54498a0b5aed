//! Channels of which the arbiter takes nothing for a while: theirs waits, and the others go on.
use super::together::touches;
use super::{Job, Recorder, Waiting};
use crate::ldk02::WriteAll;
use crate::ldk02::facts::FactSink;
use arb_core::ids::ChannelId;
use core::ops::Deref;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Whether LDK waits for the arbiter with this job no longer.
pub(super) fn is_given_up<S: FactSink>(job: &Job, waiting: &Waiting, sink: &S) -> bool {
    match (waiting, job.channel()) {
        (Waiting::Sink(_), _) => !sink.waits(true),
        (Waiting::SetAside(_), Some(channel)) => !sink.waits_for(channel, true),
        _ => false,
    }
}

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// Channels of which the arbiter took nothing when [`drain`](Self::drain) was called last, and why
    /// ([`Refusal::SetAside`](crate::Refusal::SetAside)). LDK waits with these alone. They are told of again with each call; one is to
    /// come every few seconds, for [`Taps::waiting`](crate::Taps::waiting) does not resolve for their sake.
    pub fn set_aside(&self) -> impl Iterator<Item = (&ChannelId, &str)> {
        self.aside.iter().map(|(channel, why)| (channel, why.as_str()))
    }

    pub(super) fn first(&self) -> Option<Arc<Job>> {
        self.first_of(1).pop()
    }

    /// As many as stand first, without those of channels that are set aside, and without those of another channel from the first
    /// one on that touches such a channel or one that waits likewise.
    pub(super) fn first_of(&self, most: usize) -> Vec<Arc<Job>> {
        if self.aside.is_empty() {
            return self.taps.first_of(most);
        }
        let (all, enqueued) = self.taps.all();
        let mut aside: BTreeSet<ChannelId> = self.aside.keys().copied().collect();
        let mut first = Vec::new();
        for job in all {
            let waits = match (job.channel(), &*job) {
                // What it tells to one that is set aside is refused, and it waits then: not for what it has in flight there.
                (Some(channel), _) => !touches(channel, &job, None).is_disjoint(&aside),
                // What is put away must not be written afterwards.
                (None, Job::Archive { .. }) => true,
                (None, _) => false,
            };
            if waits {
                aside.extend(job.channel());
            } else {
                first.push(job);
                if first.len() == most {
                    break;
                }
            }
        }
        if first.is_empty() {
            self.taps.seen(enqueued);
        }
        first
    }
}
