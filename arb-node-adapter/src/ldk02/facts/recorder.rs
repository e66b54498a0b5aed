//! `Recorder`: translates what LDK wrote, tells it to the arbiter, and lets LDK go on.
mod adopt;
mod again;
mod aside;
mod back;
mod forgotten;
mod hold;
mod observe;
mod refused;
mod signals;
mod together;

use super::book::{Book, Terms};
use super::held::{Held, HeldFor, Holding, LeftFor};
use super::messages::names;
use super::shelf::{Shelf, records};
use super::sign::LdkSigner;
use super::sink::{FactSink, Refusal};
use super::taps::{Job, Taps};
use super::translate::{Told, Translated, Translation, Untranslated};
use super::update::Step;
use super::{opening, update};
use crate::ldk02::{Egress, WriteAll};
use arb_core::facts::{ChannelFacts, ChannelNumbers, Update};
use arb_core::ids::{ChannelId, PaymentHash};
use arb_core::log::ByteRecord;
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use aside::is_given_up;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Secp256k1};
use core::fmt;
use core::ops::Deref;
use forgotten::Written;
use lightning::ln::channel_state::ChannelDetails;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use together::Went;

/// Why the recorder did not go on. Nothing is lost: call again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The sink takes nothing at the moment.
    Sink(String),
    /// It takes nothing of one channel at the moment.
    SetAside(String),
    /// The key-value store failed.
    Store(String),
    /// LDK does not close a channel that is handed back.
    NotClosed(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(why) | Self::SetAside(why) => write!(f, "the arbiter: {why}"),
            Self::Store(why) => write!(f, "the key-value store: {why}"),
            Self::NotClosed(why) => write!(f, "LDK does not close the channel: {why}"),
        }
    }
}

impl core::error::Error for Waiting {}

/// Translates what the decorators queued. One task drives it; no lock is held while it waits.
#[derive(Debug)]
pub struct Recorder<K> {
    taps: Arc<Taps>,
    shelf: Arc<Shelf<K>>,
    held: BTreeMap<ChannelId, Holding>,
    left: BTreeMap<ChannelId, LeftFor>,
    again: BTreeSet<ChannelId>,
    /// Channels that the arbiter takes nothing of at the moment, and why.
    aside: BTreeMap<ChannelId, String>,
    /// Channels that were handed back and that LDK did not have any more when this was opened.
    gone: Vec<ChannelId>,
    /// What LDK's monitors said when this was opened.
    written: BTreeMap<ChannelId, Written>,
    secp: Secp256k1<All>,
}

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// A recorder that remembers what it wrote to `store` before.
    ///
    /// `channels` is what the channel manager lists at start-up, before the node speaks to any peer: received
    /// HTLCs that the peer had committed to when the node stopped are known from there alone.
    ///
    /// A channel whose record cannot be read is left to LDK alone, and told by [`unreadable`](Self::unreadable).
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn open(taps: Arc<Taps>, store: K, channels: &[ChannelDetails]) -> Result<Self, Waiting> {
        let shelf = Shelf::open(store).map_err(Waiting::Store)?;
        let mut books = shelf.books();
        for details in channels {
            let channel = ChannelId(details.channel_id.0);
            let Some(book) = books.get_mut(&channel) else { continue };
            taps.follow(channel, details.counterparty.node_id);
            let names = Some(names(details)).filter(|names| *names != book.facts.names);
            if names.is_some() {
                let link = taps.link(details.counterparty.node_id);
                taps.enqueue(Job::Signals { channel, names, link });
            }
            for htlc in &details.pending_inbound_htlcs {
                let terms = Terms {
                    amount: MilliSat(htlc.amount_msat),
                    expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
                    hash: PaymentHash(htlc.payment_hash.0),
                };
                if book.record(htlc.htlc_id).is_none() && !book.left.contains_key(&htlc.htlc_id) {
                    book.announced.insert(htlc.htlc_id, terms);
                }
            }
        }
        drop(books);
        let unreadable = shelf.unreadable().iter();
        let left = unreadable.map(|(of, why)| (*of, LeftFor::Unreadable(why.clone()))).collect();
        let written = forgotten::written(&shelf).map_err(Waiting::Store)?;
        let listed = channels.iter().map(|details| ChannelId(details.channel_id.0)).collect();
        let gone = shelf.gone(&listed).map_err(Waiting::Store)?;
        let (held, aside, again) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        let (shelf, secp) = (Arc::new(shelf), Secp256k1::new());
        Ok(Self { taps, shelf, held, left, again, aside, gone, written, secp })
    }

    /// A signer for the arbiter, of the channels that are recorded. `provider` is the node's own.
    pub fn signer<P>(&self, provider: P) -> LdkSigner<P, K> {
        LdkSigner::new(provider, self.shelf.clone())
    }

    /// What the node states of its channels when it starts the arbiter. An arbiter whose own store is
    /// older than that publishes no commitment of ours. Where LDK's monitor is further than what is
    /// recorded (it went on alone meanwhile), its numbers count.
    pub fn numbers(&self) -> Vec<ChannelNumbers> {
        let channels: Vec<ChannelId> = self.shelf.books().keys().copied().collect();
        channels.into_iter().filter_map(|channel| self.true_numbers(channel)).collect()
    }

    /// Reminds an egress of what LDK handed over before this start, as far as it was written
    /// ([`Egress::recorded_by`]). To be called before the arbiter starts: otherwise a guard may take what LDK has in the
    /// mempool for somebody else's.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn remind(&self, egress: &Egress) -> Result<(), Waiting> {
        egress.remember(self.shelf.handed_over().map_err(Waiting::Store)?);
        Ok(())
    }

    /// Channels that are held.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values().map(|holding| &holding.held)
    }

    /// Channels that are left to LDK alone, since it wrote of them last, and why. The arbiter publishes nothing for
    /// them.
    pub fn left_to_ldk(&self) -> impl Iterator<Item = (&ChannelId, &LeftFor)> {
        self.left.iter()
    }

    /// Channels whose record cannot be read, and why: it is damaged, or of another version. Each is among those that
    /// are [`handed_back`](Self::handed_back), and [`left_to_ldk`](Self::left_to_ldk). The record is kept.
    pub fn unreadable(&self) -> impl Iterator<Item = (&ChannelId, &str)> {
        self.shelf.unreadable().iter().map(|(channel, why)| (channel, why.as_str()))
    }

    /// Tells `sink` what waits, in each channel's order, and calls `completed` for each update that
    /// LDK may now count as written (`ChainMonitor::channel_monitor_updated`). What concerns different
    /// channels is told, and written, at the same time, so that it shares commits.
    ///
    /// # Errors
    /// The sink or the store takes nothing at the moment; what was not told stays in the queue. An arbiter that only
    /// observes is not waited for for ever ([`FactSink::waits`]). That it takes nothing of one channel is no error:
    /// see [`set_aside`](Self::set_aside).
    pub async fn drain<S: FactSink>(
        &mut self,
        sink: &S,
        completed: impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        self.aside.clear();
        self.let_all_go(sink, &completed).await?;
        while let Some(mut job) = self.first() {
            match self.together(sink, &completed).await {
                Ok(Went::On) => continue,
                Ok(Went::Nowhere) => {}
                Err(Waiting::Sink(_)) if !sink.waits(true) => match self.first() {
                    Some(first) => job = first,
                    None => break,
                },
                Err(waiting) => return Err(waiting),
            }
            let mut done = self.alone(&job, sink, &completed).await;
            if let Err(waiting) = &done
                && is_given_up(&job, waiting, sink)
            {
                done = self.without(&job, waiting.clone(), sink, &completed).await;
            }
            match (done, job.channel()) {
                (Err(Waiting::SetAside(why)), Some(channel)) => {
                    self.aside.insert(channel, why);
                }
                (done, _) => {
                    done?;
                    self.taps.done(&[job]);
                }
            }
        }
        Ok(())
    }

    async fn alone<S: FactSink>(
        &mut self,
        job: &Arc<Job>,
        sink: &S,
        completed: &impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        let channel = job.channel();
        if let Some(channel) = channel.filter(|channel| self.held.contains_key(channel)) {
            return self.while_held(channel, job, sink, completed).await;
        }
        match self.write(job, sink).await {
            Ok(()) => {
                if let (Some(channel), Some(update)) = (channel, job.update()) {
                    completed(channel, update);
                }
                Ok(())
            }
            Err((_, Stop::Wait(waiting))) => Err(waiting),
            // LDK waits for none of these, so there is nothing to hold.
            Err(_) if matches!(**job, Job::Signals { .. } | Job::Shutdown { .. }) => Ok(()),
            Err((channel, Stop::Hold(why))) => {
                self.stopped(channel, job, why, sink, completed).await
            }
            Err((channel, Stop::Fence)) => {
                self.stopped(channel, job, HeldFor::Fenced, sink, completed).await
            }
            Err((_, Stop::Gone | Stop::Behind)) => Ok(()),
        }
    }

    /// Tells the arbiter first; LDK's own record follows.
    async fn write<S: FactSink>(&mut self, job: &Job, sink: &S) -> Result<(), (ChannelId, Stop)> {
        if let Some(channel) = job.channel() {
            let mut told = self.one(channel, job, sink).await;
            if matches!(told, Err(Stop::Gone)) && again::is_open(job) {
                told = match self.watch_again(channel, sink).await {
                    Ok(()) => self.one(channel, job, sink).await,
                    stopped => stopped,
                };
            }
            let told = match told {
                Err(Stop::Gone) if self.may_be_open(channel, job) => Ok(()),
                Err(Stop::Gone) => self.forget(channel).await.map_err(Stop::Wait),
                Err(Stop::Behind) => self.fell_behind(channel, job, sink).await,
                told => told,
            };
            told.map_err(|stop| (channel, stop))?;
        }
        let failed = |why| (ChannelId([0; 32]), Stop::Wait(Waiting::Store(why)));
        if job.monitor().is_some() {
            let written = self.shelf.write_all(records(&[], &[], job.monitor()));
            written.await.map_err(failed)?;
        }
        match job {
            Job::Archive { name } => self.shelf.archive_monitor(name).map_err(failed)?,
            Job::HandedOver { new, old } => {
                self.shelf.put_handed_over(new, old).await.map_err(failed)?;
            }
            Job::Open { .. }
            | Job::Update { .. }
            | Job::Monitor { .. }
            | Job::Shutdown { .. }
            | Job::Signals { .. } => {}
        }
        Ok(())
    }

    async fn one<S: FactSink>(
        &mut self,
        channel: ChannelId,
        job: &Job,
        sink: &S,
    ) -> Result<(), Stop> {
        match job {
            Job::Archive { .. } | Job::HandedOver { .. } => Ok(()),
            Job::Monitor { update, monitor, .. } => {
                self.refused(channel, *update, &monitor.bytes, sink).await
            }
            Job::Open { update, opening, .. } => {
                if self.shelf.books().contains_key(&channel) {
                    return Ok(());
                }
                let Some(opening) = opening else {
                    self.leave(channel, LeftFor::Beginning);
                    return Ok(());
                };
                let facts = match opening::facts(opening, &self.secp) {
                    Err(Untranslated::Format) => {
                        self.leave(channel, LeftFor::Format);
                        return Ok(());
                    }
                    facts => facts?,
                };
                answered(watch(&facts, sink).await)?;
                let book = Book::new(facts, *update, opening);
                self.keep(channel, [(channel, book)].into(), Vec::new())
            }
            Job::Update { .. } => self.update(channel, job, sink, Commitments::Told).await,
            Job::Signals { names, link, .. } => {
                self.signals(channel, names.as_ref(), *link, sink).await
            }
            Job::Shutdown { scripts, .. } => {
                // A script for a channel that was not opened here changes nothing.
                let translated = {
                    let books = self.shelf.books();
                    if !books.contains_key(&channel) {
                        return Ok(());
                    }
                    let mut translation = Translation::new(channel, &books, &self.secp)?;
                    translation.tell(Update::Shutdown(scripts.clone()))?;
                    translation.done()
                };
                self.tell(channel, (translated.told, Vec::new()), sink).await?;
                self.keep(channel, translated.changed, translated.ended)
            }
        }
    }

    /// One update. Without its commitments it does not count as applied.
    async fn update<S: FactSink>(
        &mut self,
        channel: ChannelId,
        job: &Job,
        sink: &S,
        commitments: Commitments,
    ) -> Result<(), Stop> {
        let Some(Translated { changed, told, ended }) = self.prepare(channel, job, commitments)?
        else {
            return Ok(());
        };
        self.tell(channel, (told, Vec::new()), sink).await?;
        self.keep(channel, changed, ended)
    }

    /// What is to be told of an update; `None`: nothing, or nothing more.
    fn prepare(
        &mut self,
        channel: ChannelId,
        job: &Job,
        commitments: Commitments,
    ) -> Result<Option<Translated>, Stop> {
        let Job::Update { update, bytes, txids, height, announced, .. } = job else {
            return Ok(None);
        };
        let digest = sha256::Hash::hash(bytes).to_byte_array();
        let applied = {
            let books = self.shelf.books();
            books.get(&channel).map(|book| (book.applied, book.digest))
        };
        match applied {
            None => {
                let back = || self.shelf.handed_back().contains(&channel);
                let why = || if back() { LeftFor::HandedBack } else { LeftFor::Unrecorded };
                self.left.entry(channel).or_insert_with(why);
                let steps = update::read(bytes).map(|(_, steps)| steps).unwrap_or_default();
                let books = self.shelf.books();
                return Ok(Some(Translation::beside(channel, &steps, &books, &self.secp)));
            }
            Some((applied, _)) if applied > *update => return Ok(None),
            Some((applied, of)) if applied == *update && of == digest => return Ok(None),
            Some((applied, _)) if again::is_behind(applied, *update, commitments) => {
                return Err(Stop::Behind);
            }
            Some(_) => {}
        }
        let (_, steps) = update::read(bytes).map_err(Untranslated::from)?;
        let translated = {
            let books = self.shelf.books();
            let mut translation = Translation::new(channel, &books, &self.secp)?;
            translation.book_mut(channel)?.announced.extend(announced.clone());
            match commitments {
                Commitments::Skipped => translation.fence(),
                Commitments::Told => {
                    let written = self.written.get(&channel);
                    if let Some(number) = written.and_then(|written| written.unsigned(*update)) {
                        translation.withdraw(number)?;
                    }
                }
            }
            translation.steps(&steps, txids, *height)?;
            if commitments == Commitments::Told {
                let book = translation.book_mut(channel)?;
                (book.applied, book.digest) = (*update, digest);
            }
            translation.done()
        };
        Ok(Some(translated))
    }

    /// Links of incoming HTLCs first, then the channel's own updates as one, with which records are written,
    /// then that LDK has closed it.
    async fn tell<S: FactSink>(
        &self,
        channel: ChannelId,
        (told, records): (Vec<(ChannelId, Told)>, Vec<ByteRecord>),
        sink: &S,
    ) -> Result<(), Stop> {
        let (mut own, any) = (Vec::new(), !told.is_empty());
        let mut others: BTreeMap<ChannelId, Vec<Update>> = BTreeMap::new();
        let mut closed = Vec::new();
        for (of, told) in told {
            match told {
                Told::Update(update) if of == channel => own.push(*update),
                Told::Update(update) => others.entry(of).or_default().push(*update),
                Told::Closed => closed.push(of),
            }
        }
        for (of, updates) in others {
            match answered(sink.update(of, updates, Vec::new()).await) {
                // Nothing is left upstream to be linked.
                Ok(()) | Err(Stop::Gone) => {}
                Err(stop) => return Err(stop),
            }
        }
        if !own.is_empty() {
            answered(sink.update(channel, own, records).await)?;
        }
        for of in closed {
            answered(sink.closed(of).await)?;
        }
        if any {
            sink.waits(false);
            sink.waits_for(channel, false);
        }
        Ok(())
    }

    /// Writes books, the channel's own last: it says that the update is applied. What is lost by a
    /// crash before is translated again, the same way.
    fn keep(
        &self,
        channel: ChannelId,
        changed: BTreeMap<ChannelId, Book>,
        ended: Vec<(ChannelId, PaymentHash)>,
    ) -> Result<(), Stop> {
        let failed = |why| Stop::Wait(Waiting::Store(why));
        for (of, hash) in ended {
            self.shelf.put_hash(of, hash).map_err(failed)?;
        }
        for (of, book) in own_last(channel, changed) {
            self.shelf.put(of, book).map_err(failed)?;
        }
        Ok(())
    }

    fn leave(&mut self, channel: ChannelId, why: LeftFor) {
        self.left.insert(channel, why);
    }

    /// The channel is resolved and forgotten.
    async fn forget(&self, channel: ChannelId) -> Result<(), Waiting> {
        self.shelf.forget_told(channel).map_err(Waiting::Store)?;
        self.shelf.remove(channel).await.map_err(Waiting::Store)?;
        self.taps.unfollow(channel);
        Ok(())
    }
}

fn own_last(channel: ChannelId, mut changed: BTreeMap<ChannelId, Book>) -> Vec<(ChannelId, Book)> {
    let own = changed.remove(&channel).map(|book| (channel, book));
    let mut books: Vec<_> = changed.into_iter().chain(own).collect();
    books.iter_mut().for_each(|(_, book)| book.tidy());
    books
}

fn numbers(facts: &ChannelFacts) -> ChannelNumbers {
    let current = &facts.candidates.current;
    ChannelNumbers { id: facts.id, local: current.local.number, remote: current.remote.number }
}

async fn watch<S: FactSink>(facts: &ChannelFacts, sink: &S) -> Result<(), Refusal> {
    sink.watch(facts.clone()).await?;
    sink.state_numbers(numbers(facts)).await?;
    sink.waits(false);
    sink.waits_for(facts.id, false);
    Ok(())
}

/// Why a job is not done.
enum Stop {
    Wait(Waiting),
    /// The arbiter has forgotten the channel.
    Gone,
    /// The arbiter takes no newer commitment of ours.
    Fence,
    /// LDK went on without the recorder.
    Behind,
    Hold(HeldFor),
}

/// Whether the commitments of an update are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commitments {
    Told,
    Skipped,
}

/// Whether LDK says with it that it has closed the channel. It makes no commitment any more, and
/// revokes none.
fn closes(job: &Job) -> bool {
    let Job::Update { bytes, .. } = job else { return false };
    let steps = update::read(bytes).map(|(_, steps)| steps).unwrap_or_default();
    steps.iter().any(|step| matches!(step, Step::ForceClosed))
}

impl From<Untranslated> for Stop {
    fn from(why: Untranslated) -> Self {
        Self::Hold(HeldFor::Untranslated(why))
    }
}

fn answered(answer: Result<(), Refusal>) -> Result<(), Stop> {
    match answer {
        Ok(()) => Ok(()),
        Err(Refusal::NotWatched) => Err(Stop::Gone),
        Err(Refusal::Later(why)) => Err(Stop::Wait(Waiting::Sink(why))),
        Err(Refusal::SetAside(why)) => Err(Stop::Wait(Waiting::SetAside(why))),
        Err(Refusal::Fenced) => Err(Stop::Fence),
        Err(Refusal::Refused(why)) => Err(Stop::Hold(HeldFor::Refused(why))),
    }
}
