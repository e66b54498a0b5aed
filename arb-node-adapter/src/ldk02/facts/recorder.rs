//! `Recorder`: translates what LDK wrote, tells it to the arbiter, and lets LDK go on.
use super::book::{Book, Terms};
use super::shelf::Shelf;
use super::sign::LdkSigner;
use super::sink::{FactSink, Refusal};
use super::taps::{Job, Taps};
use super::translate::{Told, Translation, Untranslated};
use super::{opening, update};
use arb_core::facts::Update;
use arb_core::ids::{ChannelId, PaymentHash};
use arb_core::units::{BlockHeight, CltvExpiry, CommitmentNumber, MilliSat};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Secp256k1};
use core::fmt;
use core::ops::Deref;
use lightning::ln::channel_state::ChannelDetails;
use lightning::util::persist::KVStoreSync;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Why a channel is held: LDK's update is not completed, so that LDK sends nothing that builds on
/// it. The channel goes on only after a restart, if the cause is gone then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The channel.
    pub channel: ChannelId,
    /// LDK's update.
    pub update: Option<u64>,
    /// Why.
    pub why: HeldFor,
}

/// What a channel is held for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeldFor {
    /// It cannot be translated.
    Untranslated(Untranslated),
    /// The arbiter does not take it.
    Refused(String),
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {} is held: ", self.channel)?;
        match &self.why {
            HeldFor::Untranslated(why) => why.fmt(f),
            HeldFor::Refused(why) => f.write_str(why),
        }
    }
}

/// Why the recorder did not go on. Nothing is lost: call again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// The sink takes nothing at the moment.
    Sink(String),
    /// The key-value store failed.
    Store(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sink(why) => write!(f, "the arbiter: {why}"),
            Self::Store(why) => write!(f, "the key-value store: {why}"),
        }
    }
}

impl core::error::Error for Waiting {}

/// Translates what the decorators queued. One task drives it; no lock is held while it waits.
#[derive(Debug)]
pub struct Recorder<K> {
    taps: Arc<Taps>,
    shelf: Arc<Shelf<K>>,
    held: BTreeMap<ChannelId, Held>,
    left: BTreeSet<ChannelId>,
    secp: Secp256k1<All>,
}

impl<K> Recorder<K>
where
    K: Deref<Target: KVStoreSync>,
{
    /// A recorder that remembers what it wrote to `store` before.
    ///
    /// `channels` is what the channel manager lists at start-up: received HTLCs that the peer had
    /// committed to when the node stopped are known from there alone.
    ///
    /// # Errors
    /// The store cannot be read, or a record is of another version.
    pub fn open(taps: Arc<Taps>, store: K, channels: &[ChannelDetails]) -> Result<Self, Waiting> {
        let shelf = Shelf::open(store).map_err(Waiting::Store)?;
        let mut books = shelf.books();
        for details in channels {
            let channel = ChannelId(details.channel_id.0);
            let Some(book) = books.get_mut(&channel) else { continue };
            taps.follow(channel, details.counterparty.node_id);
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
        let (held, left) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { taps, shelf: Arc::new(shelf), held, left, secp: Secp256k1::new() })
    }

    /// A signer for the arbiter, of the channels that are recorded. `provider` is the node's own.
    pub fn signer<P>(&self, provider: P) -> LdkSigner<P, K> {
        LdkSigner::new(provider, self.shelf.clone())
    }

    /// What the node states of its channels when it starts the arbiter: the channel, the number of
    /// our current commitment and that of the peer's. An arbiter whose own store is older than that
    /// publishes no commitment of ours.
    pub fn numbers(&self) -> Vec<(ChannelId, CommitmentNumber, CommitmentNumber)> {
        let books = self.shelf.books();
        let current = books.iter().map(|(id, book)| (*id, &book.facts.candidates.current));
        current.map(|(id, current)| (id, current.local.number, current.remote.number)).collect()
    }

    /// Channels that are held.
    pub fn held(&self) -> impl Iterator<Item = &Held> {
        self.held.values()
    }

    /// Channels that are left to LDK alone, since it wrote of them last: their beginning was not
    /// seen, their format is not known to arb-core, or the arbiter has forgotten them. The arbiter
    /// publishes nothing for them.
    pub fn left_to_ldk(&self) -> impl Iterator<Item = &ChannelId> {
        self.left.iter()
    }

    /// Tells `sink` what waits, in order, and calls `completed` for each update that LDK may now
    /// count as written (`ChainMonitor::channel_monitor_updated`).
    ///
    /// # Errors
    /// The sink or the store takes nothing at the moment; what was not told stays in the queue.
    pub async fn drain<S: FactSink>(
        &mut self,
        sink: &S,
        completed: impl Fn(ChannelId, u64),
    ) -> Result<(), Waiting> {
        while let Some(job) = self.taps.first() {
            // Nothing more is written of a held channel: its monitor contains what is held.
            let channel = job.channel();
            if !channel.is_some_and(|channel| self.held.contains_key(&channel)) {
                match self.write(&job, sink).await {
                    Ok(()) => {
                        if let (Some(channel), Some(update)) = (channel, job.update()) {
                            completed(channel, update);
                        }
                    }
                    Err((_, Stop::Wait(waiting))) => return Err(waiting),
                    Err((channel, Stop::Hold(why))) => {
                        let update = job.update();
                        self.held.insert(channel, Held { channel, update, why });
                    }
                    Err((_, Stop::Gone)) => {}
                }
            }
            self.taps.first_done();
        }
        Ok(())
    }

    /// Tells the arbiter first; LDK's own record follows.
    async fn write<S: FactSink>(&mut self, job: &Job, sink: &S) -> Result<(), (ChannelId, Stop)> {
        if let Some(channel) = job.channel() {
            let told = match self.one(channel, job, sink).await {
                Err(Stop::Gone) => self.forget(channel).map_err(Stop::Wait),
                told => told,
            };
            told.map_err(|stop| (channel, stop))?;
        }
        let failed = |why| (ChannelId([0; 32]), Stop::Wait(Waiting::Store(why)));
        if let Some(monitor) = job.monitor() {
            self.shelf.put_monitor(monitor).map_err(failed)?;
        }
        if let Job::Archive { name } = job {
            self.shelf.archive_monitor(name).map_err(failed)?;
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
            Job::Monitor { .. } | Job::Archive { .. } => Ok(()),
            Job::Open { update, opening, .. } => {
                if self.shelf.books().contains_key(&channel) {
                    return Ok(());
                }
                let Some(opening) = opening else { return self.leave(channel) };
                let facts = match opening::facts(opening, &self.secp) {
                    Err(Untranslated::Format) => return self.leave(channel),
                    facts => facts?,
                };
                answered(sink.watch(facts.clone()).await)?;
                let book = Book::new(facts, *update, opening);
                self.keep(channel, [(channel, book)].into(), Vec::new())
            }
            Job::Update { update, bytes, txids, announced, .. } => {
                let digest = sha256::Hash::hash(bytes).to_byte_array();
                let applied = {
                    let books = self.shelf.books();
                    books.get(&channel).map(|book| (book.applied, book.digest))
                };
                match applied {
                    None => return self.leave(channel),
                    Some((applied, _)) if applied > *update => return Ok(()),
                    Some((applied, of)) if applied == *update && of == digest => return Ok(()),
                    Some(_) => {}
                }
                let (_, steps) = update::read(bytes).map_err(Untranslated::from)?;
                let translated = {
                    let books = self.shelf.books();
                    let mut translation = Translation::new(channel, &books, &self.secp)?;
                    translation.book_mut(channel)?.announced.extend(announced.clone());
                    translation.steps(&steps, txids)?;
                    let book = translation.book_mut(channel)?;
                    (book.applied, book.digest) = (*update, digest);
                    translation.done()
                };
                self.tell(channel, translated.told, sink).await?;
                self.keep(channel, translated.changed, translated.ended)
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
                self.tell(channel, translated.told, sink).await?;
                self.keep(channel, translated.changed, translated.ended)
            }
        }
    }

    /// Links of incoming HTLCs first, then the channel's own updates as one, then the rest.
    async fn tell<S: FactSink>(
        &self,
        channel: ChannelId,
        told: Vec<(ChannelId, Told)>,
        sink: &S,
    ) -> Result<(), Stop> {
        let mut own = Vec::new();
        let mut others: BTreeMap<ChannelId, Vec<Update>> = BTreeMap::new();
        let mut rest = Vec::new();
        for (of, told) in told {
            match told {
                Told::Update(update) if of == channel => own.push(update),
                Told::Update(update) => others.entry(of).or_default().push(update),
                Told::Preimage(..) | Told::Closed => rest.push((of, told)),
            }
        }
        for (of, updates) in others {
            match answered(sink.update(of, updates).await) {
                // Nothing is left upstream to be linked.
                Ok(()) | Err(Stop::Gone) => {}
                Err(stop) => return Err(stop),
            }
        }
        if !own.is_empty() {
            answered(sink.update(channel, own).await)?;
        }
        for (of, told) in rest {
            match told {
                Told::Preimage(preimage, source) => {
                    answered(sink.preimage(of, preimage, source).await)?;
                }
                Told::Closed => answered(sink.closed(of).await)?,
                Told::Update(_) => {}
            }
        }
        Ok(())
    }

    /// Writes books, the channel's own last: it says that the update is applied. What is lost by a
    /// crash before is translated again, the same way.
    fn keep(
        &self,
        channel: ChannelId,
        mut changed: BTreeMap<ChannelId, Book>,
        ended: Vec<(ChannelId, PaymentHash)>,
    ) -> Result<(), Stop> {
        let failed = |why| Stop::Wait(Waiting::Store(why));
        for (of, hash) in ended {
            self.shelf.put_hash(of, hash).map_err(failed)?;
        }
        let own = changed.remove(&channel).map(|book| (channel, book));
        for (of, mut book) in changed.into_iter().chain(own) {
            book.tidy();
            self.shelf.put(of, book).map_err(failed)?;
        }
        Ok(())
    }

    fn leave(&mut self, channel: ChannelId) -> Result<(), Stop> {
        self.left.insert(channel);
        Ok(())
    }

    /// The channel is resolved and forgotten.
    fn forget(&self, channel: ChannelId) -> Result<(), Waiting> {
        self.shelf.remove(channel).map_err(Waiting::Store)?;
        self.taps.unfollow(channel);
        Ok(())
    }
}

/// Why a job is not done.
enum Stop {
    Wait(Waiting),
    /// The arbiter has forgotten the channel.
    Gone,
    Hold(HeldFor),
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
        Err(Refusal::Refused(why)) => Err(Stop::Hold(HeldFor::Refused(why))),
    }
}
