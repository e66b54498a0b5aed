//! What concerns different channels, done at the same time: one commit for all of it where the arbiter's log and the
//! node's store are one, and one of each where they are not.
use super::{Commitments, Recorder, Stop, Waiting, closes, own_last};
use crate::ldk02::facts::FactSink;
use crate::ldk02::facts::book::Book;
use crate::ldk02::facts::shelf::records;
use crate::ldk02::facts::taps::Job;
use crate::ldk02::facts::translate::{Told, Translated};
use crate::ldk02::facts::update::{self, Step};
use crate::ldk02::{KvWrite, WriteAll};
use arb_core::facts::HtlcLink;
use arb_core::ids::ChannelId;
use core::future::{Future, poll_fn};
use core::ops::Deref;
use core::pin::Pin;
use core::task::Poll;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Jobs that are done at the same time. The arbiter keeps more than that in flight.
const MOST: usize = 64;

/// What came of it.
pub(super) enum Went {
    /// Something is done.
    On,
    /// The first job is one to be done alone.
    Nowhere,
}

/// A job, what it tells, and what it changes.
struct Prepared {
    job: Arc<Job>,
    channel: ChannelId,
    told: Vec<(ChannelId, Told)>,
    books: Vec<(ChannelId, Book)>,
    writes: Vec<KvWrite>,
}

impl Prepared {
    fn new(job: Arc<Job>, channel: ChannelId, translated: Option<Translated>) -> Self {
        let (told, books, ended) = match translated {
            Some(all) => (all.told, own_last(channel, all.changed), all.ended),
            None => (Vec::new(), Vec::new(), Vec::new()),
        };
        let writes = records(&ended, &books, job.monitor());
        Self { job, channel, told, books, writes }
    }

    /// Whether the channel's own updates are the last thing that is told: what says that all of it was may
    /// become durable with them.
    fn ends_with_updates(&self) -> bool {
        let is_update = |(_, told): &(_, Told)| matches!(told, Told::Update(_));
        self.told.iter().all(is_update) && self.told.iter().any(|(of, _)| *of == self.channel)
    }
}

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// Does what stands first and is independent: updates and views of the chain of different channels,
    /// none of which is held. Each keeps the order that one alone has: the arbiter's receipt, the
    /// recorder's own record, LDK's monitor, LDK's completion. Where log and store are kept together, the first
    /// three are one commit.
    ///
    /// What the arbiter does not take stays first, to be done alone.
    pub(super) async fn together<S: FactSink>(
        &mut self,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<Went, Waiting> {
        let prepared = self.independent();
        let this = &*self;
        let told = prepared.into_iter().map(|mut of| async move {
            let mut with_facts = Vec::new();
            if of.ends_with_updates() {
                match this.shelf.beside(sink.home(), core::mem::take(&mut of.writes)) {
                    Ok(records) => with_facts = records,
                    Err(writes) => of.writes = writes,
                }
            }
            let told = (core::mem::take(&mut of.told), with_facts);
            let answer = this.tell(of.channel, told, sink).await;
            (of, answer)
        });
        let (mut waiting, mut aside) = (None, Vec::new());
        let mut written = Vec::new();
        for (of, answer) in all(told.collect()).await {
            match answer {
                Ok(()) => written.push(this.written(of)),
                Err(Stop::Wait(Waiting::SetAside(why))) => {
                    if sink.waits_for(of.channel, true) {
                        aside.push((of.channel, why));
                    }
                }
                Err(Stop::Wait(why)) => waiting = waiting.or(Some(why)),
                Err(Stop::Gone | Stop::Behind | Stop::Fence | Stop::Hold(_)) => {}
            }
        }
        let mut done = Vec::new();
        for (job, written) in all(written).await {
            match written {
                Ok(()) => done.push(job),
                Err(why) => waiting = waiting.or(Some(Waiting::Store(why))),
            }
        }
        for job in &done {
            if let (Some(channel), Some(update)) = (job.channel(), job.update()) {
                completed(channel, update);
            }
        }
        self.taps.done(&done);
        let is_first = done.is_empty() && aside.is_empty();
        self.aside.extend(aside);
        match waiting {
            Some(why) => Err(why),
            None if is_first => Ok(Went::Nowhere),
            None => Ok(Went::On),
        }
    }

    /// Writes what one job changes, unless that was written with its facts, and shows it. It is asked for when
    /// this is called.
    fn written(
        &self,
        of: Prepared,
    ) -> impl Future<Output = (Arc<Job>, Result<(), String>)> + use<'_, K> {
        let Prepared { job, books, writes, .. } = of;
        let written = self.shelf.write_all(writes);
        async move {
            let answer = written.await;
            if answer.is_ok() {
                self.shelf.show(books);
            }
            (job, answer)
        }
    }

    fn independent(&mut self) -> Vec<Prepared> {
        let (mut prepared, mut touched) = (Vec::new(), BTreeSet::new());
        for job in self.first_of(MOST) {
            let Some(channel) = job.channel().filter(|of| !self.held.contains_key(of)) else {
                break;
            };
            let book = self.shelf.book(&channel);
            let touches = touches(channel, &job, book.as_ref());
            if !touches.is_disjoint(&touched) {
                break;
            }
            let translated = match &*job {
                Job::Monitor { update, .. } => match &book {
                    Some(book) if *update > book.applied => break,
                    Some(_) | None => None,
                },
                Job::Update { .. } if !closes(&job) => {
                    match self.prepare(channel, &job, Commitments::Told) {
                        Ok(translated) => translated,
                        Err(_) => break,
                    }
                }
                Job::Update { .. }
                | Job::Open { .. }
                | Job::Archive { .. }
                | Job::HandedOver { .. }
                | Job::Shutdown { .. }
                | Job::Signals { .. } => break,
            };
            touched.extend(touches);
            prepared.push(Prepared::new(job, channel, translated));
        }
        prepared
    }
}

/// Channels whose records a job reads or changes: its own, those whose HTLCs it forwards, and those that
/// forward its own.
pub(super) fn touches(channel: ChannelId, job: &Job, book: Option<&Book>) -> BTreeSet<ChannelId> {
    let mut touched = BTreeSet::from([channel]);
    let Job::Update { bytes, .. } = job else { return touched };
    let steps = update::read(bytes).map(|(_, steps)| steps).unwrap_or_default();
    touched.extend(steps.iter().flat_map(Step::sources).filter_map(|source| source.incoming));
    let received = book.into_iter().flat_map(Book::received);
    touched.extend(received.filter_map(|(_, record)| match record.htlc.link {
        HtlcLink::ForwardedTo { outgoing } => Some(outgoing.channel),
        HtlcLink::OwnPayment
        | HtlcLink::ForwardOf { .. }
        | HtlcLink::Final
        | HtlcLink::Uncommitted => None,
    }));
    touched
}

/// Waits for all of these, which go on at the same time.
async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut outputs: Vec<Option<F::Output>> = waiting.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, output) in waiting.iter_mut().zip(&mut outputs) {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(done) => *output = Some(done),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
