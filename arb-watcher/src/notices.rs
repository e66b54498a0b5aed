//! The way out: notices to the node, repeated until acknowledged.
use crate::mailbox::{Inbox, Outbox, Readers, mailbox};
use arb_core::arbitrator::{Alert, Notice, NoticeKey};
use arb_core::ids::ChannelId;
use futures_core::Stream;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Notices that a slow reader may have waiting; what does not fit follows when there is room.
const WAITING: usize = 1024;

/// Notices to the node: everything outstanding first, then new ones, each repeated with every
/// block until it is acknowledged. Any number of streams may be open; each gets every notice, and
/// one acknowledgement is enough. Dropping it, in whatever way, ends it.
///
/// An HTLC is to be failed until that is acknowledged: if its preimage turns up before, it is to be fulfilled
/// instead. A node that has failed it already acknowledges, and does nothing.
///
/// ```
/// use arb_core::arbitrator::{Notice, UpstreamResolution};
/// use arb_watcher::{Arbiter, CommandError};
///
/// async fn obey(arbiter: &Arbiter) -> Result<(), CommandError> {
///     let mut notices = arbiter.notices().await?;
///     while let Some((channel, notice)) = notices.next().await {
///         match &notice {
///             Notice::Upstream { incoming: Some(incoming), resolution, .. } => match resolution {
///                 UpstreamResolution::Fulfil(_) => println!("fulfil {incoming:?}"),
///                 UpstreamResolution::Fail => println!("fail {incoming:?}"),
///             },
///             other => println!("{channel}: {other:?}"),
///         }
///         // Done, and durable with the node: it is not repeated.
///         arbiter.acknowledge(channel, notice.key()).await?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct NoticeStream(Inbox<(ChannelId, Notice)>);

impl NoticeStream {
    /// The next notice; `None` once the driver has ended. Nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<(ChannelId, Notice)> {
        self.0.next().await
    }

    /// A notice that is there already; `None` if none is.
    pub fn try_next(&mut self) -> Option<(ChannelId, Notice)> {
        self.0.try_next()
    }

    /// How many notices there is no room for now: this reader is too slow. They follow when it has
    /// read on, those that concern payments first.
    ///
    /// ```
    /// use arb_core::memory::MemoryLog;
    /// use arb_watcher::Arbiter;
    #[doc = include_str!("../doc/start.md")]
    /// let notices = arbiter.notices().await?;
    /// assert_eq!(notices.lag(), 0); // nothing waits for room
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn lag(&self) -> u64 {
        self.0.late(usize::MAX)
    }
}

impl Stream for NoticeStream {
    type Item = (ChannelId, Notice);

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(cx)
    }
}

/// Everything outstanding, and who listens.
#[derive(Debug, Default)]
pub(crate) struct NoticeHub {
    /// What the engine wants told.
    outstanding: Notices,
    /// What the driver itself found out; no part of the log.
    alarms: Notices,
    /// By the number of their mailbox.
    listeners: BTreeMap<u64, Listener>,
    pub(crate) readers: Arc<Readers>,
}

/// Notices of channels, counted: how many there are is asked for whenever anything happens.
#[derive(Debug, Default)]
struct Notices {
    of: BTreeMap<ChannelId, BTreeMap<NoticeKey, Notice>>,
    count: usize,
}

impl Notices {
    fn get(&self, id: ChannelId, key: NoticeKey) -> Option<&Notice> {
        self.of.get(&id)?.get(&key)
    }

    fn insert(&mut self, id: ChannelId, notice: Notice) {
        let before = self.of.entry(id).or_default().insert(notice.key(), notice);
        self.count = self.count.saturating_add(usize::from(before.is_none()));
    }

    /// Those of one channel.
    fn keys(&self, id: ChannelId) -> impl Iterator<Item = NoticeKey> {
        self.of.get(&id).into_iter().flat_map(BTreeMap::keys).copied()
    }

    fn retain(&mut self, id: ChannelId, keep: impl Fn(&NoticeKey) -> bool) {
        let Some(notices) = self.of.get_mut(&id) else { return };
        let before = notices.len();
        notices.retain(|key, _| keep(key));
        self.count = self.count.saturating_add(notices.len()).saturating_sub(before);
        if notices.is_empty() {
            self.of.remove(&id);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (ChannelId, &Notice)> {
        self.of.iter().flat_map(|(id, of)| of.values().map(|notice| (*id, notice)))
    }
}

/// A stream's other end.
#[derive(Debug)]
struct Listener {
    outbox: Outbox<(ChannelId, Notice)>,
    /// What there was no room for, what concerns payments first.
    missed: BTreeSet<(bool, ChannelId, NoticeKey)>,
}

impl Listener {
    fn tell(&mut self, id: ChannelId, notice: &Notice) {
        let key = notice.key();
        let missed = (!matches!(key, NoticeKey::Upstream(_)), id, key);
        // What came first goes first, unless it is less important.
        let waits = self.missed.first().is_some_and(|first| first.0 <= missed.0);
        if waits || !self.outbox.put((id, notice.clone()), WAITING) {
            self.missed.insert(missed);
        } else {
            self.missed.remove(&missed);
        }
        self.outbox.set_late(u64::try_from(self.missed.len()).unwrap_or(u64::MAX));
    }
}

impl NoticeHub {
    pub(crate) fn listen(&mut self) -> NoticeStream {
        let (outbox, inbox) = mailbox(&self.readers);
        let number = outbox.number();
        let mut listener = Listener { outbox, missed: BTreeSet::new() };
        let all = self.outstanding.iter().chain(self.alarms.iter());
        all.for_each(|(id, notice)| listener.tell(id, notice));
        self.listeners.insert(number, listener);
        NoticeStream(inbox)
    }

    /// Readers that are gone are forgotten.
    pub(crate) fn tidy(&mut self) {
        for number in self.readers.ended() {
            self.listeners.remove(&number);
        }
    }

    /// Whether this very notice was told and nobody acknowledged it.
    pub(crate) fn is_told(&self, id: ChannelId, notice: &Notice) -> bool {
        self.outstanding.get(id, notice.key()) == Some(notice)
    }

    pub(crate) fn tell(&mut self, id: ChannelId, notice: &Notice) {
        self.outstanding.insert(id, notice.clone());
        self.send(id, notice);
    }

    /// Tells what the driver found out by itself, until it is acknowledged or over.
    pub(crate) fn alarm(&mut self, id: ChannelId, alert: Alert) {
        let notice = Notice::Alert(alert);
        self.send(id, &notice);
        self.alarms.insert(id, notice);
    }

    /// Readers that were late have room again: what they missed and what still holds is told.
    pub(crate) fn room(&mut self) {
        for number in self.readers.with_room() {
            let Some(listener) = self.listeners.get_mut(&number) else { continue };
            while let Some(missed) = listener.missed.pop_first() {
                let (_, id, key) = missed;
                let outstanding = self.outstanding.get(id, key);
                let Some(notice) = outstanding.or_else(|| self.alarms.get(id, key)) else {
                    continue;
                };
                if !listener.outbox.put((id, notice.clone()), WAITING) {
                    listener.missed.insert(missed);
                    break;
                }
            }
            listener.outbox.set_late(u64::try_from(listener.missed.len()).unwrap_or(u64::MAX));
        }
    }

    /// Another block: the driver's alarms once more. The engine repeats its own notices.
    pub(crate) fn repeat_alarms(&mut self) {
        for (id, notice) in self.alarms.iter() {
            self.listeners.values_mut().for_each(|listener| listener.tell(id, notice));
        }
    }

    fn send(&mut self, id: ChannelId, notice: &Notice) {
        self.listeners.values_mut().for_each(|listener| listener.tell(id, notice));
    }

    pub(crate) fn is_alarm(&self, id: ChannelId, key: NoticeKey) -> bool {
        self.alarms.get(id, key).is_some() && self.outstanding.get(id, key).is_none()
    }

    pub(crate) fn acknowledged(&mut self, id: ChannelId, key: NoticeKey) {
        self.outstanding.retain(id, |other| *other != key);
        self.alarms.retain(id, |other| *other != key);
    }

    /// Notices of a channel that are no longer so, or no longer desired, are not repeated.
    pub(crate) fn keep(&mut self, id: ChannelId, desired: impl Fn(&NoticeKey) -> bool) {
        self.outstanding.retain(id, desired);
        // The engine tells of outdated facts itself once it has anything to remember.
        self.over(id, Alert::OutdatedFacts);
    }

    /// The channel has nothing to remember any more. Gives what nobody acknowledged.
    pub(crate) fn quiet(&mut self, id: ChannelId) -> Vec<NoticeKey> {
        let told = self.outstanding.keys(id).collect();
        self.outstanding.retain(id, |_| false);
        told
    }

    /// What the driver found out by itself is over.
    pub(crate) fn over(&mut self, id: ChannelId, alert: Alert) {
        self.alarms.retain(id, |key| *key != NoticeKey::Alert(alert));
    }

    /// How many nobody acknowledged.
    pub(crate) const fn waiting(&self) -> usize {
        self.outstanding.count.saturating_add(self.alarms.count)
    }

    /// What the driver found out about a channel by itself, and nobody acknowledged.
    pub(crate) fn alarms_of(&self, id: ChannelId) -> impl Iterator<Item = Alert> {
        self.alarms.keys(id).filter_map(|key| match key {
            NoticeKey::Alert(alert) => Some(alert),
            NoticeKey::Upstream(_) | NoticeKey::Failing => None,
        })
    }

    /// The channel is no more.
    pub(crate) fn forgotten(&mut self, id: ChannelId) {
        self.outstanding.retain(id, |_| false);
        self.alarms.retain(id, |_| false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arb_core::arbitrator::{FailReason, UpstreamResolution};
    use arb_core::facts::ChannelNames;
    use arb_core::ids::{HtlcId, PaymentHash, Side};
    use arb_core::units::MilliSat;

    #[test]
    fn readers_that_are_gone_leave_nothing_behind() {
        let mut hub = NoticeHub::default();
        let kept = hub.listen();
        for _ in 0..1_000 {
            drop(hub.listen());
        }
        hub.tidy();
        assert_eq!(hub.listeners.len(), 1);
        drop(kept);
        hub.tidy();
        assert!(hub.listeners.is_empty());
    }

    #[test]
    fn what_concerns_payments_goes_first_and_nothing_is_left_out() {
        let mut hub = NoticeHub::default();
        let mut stream = hub.listen();
        let id = |n: u32| {
            ChannelId(std::array::from_fn(|at| n.to_be_bytes().get(at).copied().unwrap_or(0)))
        };
        let many = u32::try_from(WAITING).unwrap_or(0) * 3;
        for n in 0..many {
            hub.alarm(id(n), Alert::SignerFailing);
        }
        let payment = Notice::Upstream {
            htlc: HtlcId { offerer: Side::Local, id: 1 },
            names: ChannelNames::default(),
            incoming: None,
            hash: PaymentHash([1; 32]),
            amount: MilliSat(1),
            resolution: UpstreamResolution::Fail,
        };
        hub.tell(id(many), &payment);
        assert_eq!(stream.lag(), u64::from(many) + 1 - WAITING as u64);
        let mut told = Vec::new();
        while let Some((id, _)) = stream.try_next() {
            told.push(id);
            hub.room();
            // Blocks repeat what nobody acknowledges: it goes before nothing.
            if told.len() == 500 {
                hub.repeat_alarms();
            }
            if told.len() > 9 * many as usize {
                panic!("without end");
            }
        }
        assert_eq!(told.iter().position(|told| *told == id(many)), Some(WAITING), "at once");
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), many as usize + 1, "all of them");
        assert_eq!(stream.lag(), 0);
        // Whoever listens from now on hears of it first.
        let mut other = hub.listen();
        assert_eq!(other.try_next().map(|(id, _)| id), Some(id(many)));
    }

    #[test]
    fn every_notice_that_waits_is_counted() {
        let (one, two) = (ChannelId([1; 32]), ChannelId([2; 32]));
        let failing = Notice::Failing(FailReason::Requested);
        let mut hub = NoticeHub::default();
        hub.tell(one, &failing);
        hub.tell(one, &Notice::Alert(Alert::OutdatedFacts));
        hub.tell(one, &failing);
        hub.tell(two, &failing);
        hub.alarm(two, Alert::SignerFailing);
        hub.alarm(two, Alert::SignerFailing);
        hub.alarm(two, Alert::Quarantined);
        assert_eq!(hub.waiting(), 5);
        hub.acknowledged(one, failing.key());
        hub.acknowledged(one, failing.key());
        assert_eq!(hub.waiting(), 4);
        hub.over(two, Alert::Quarantined);
        hub.forgotten(two);
        assert_eq!(hub.waiting(), 1);
        hub.keep(one, |_| true);
        assert_eq!((hub.quiet(one).len(), hub.waiting()), (1, 0));
        assert_eq!(hub.outstanding.iter().chain(hub.alarms.iter()).count(), 0);
    }
}
