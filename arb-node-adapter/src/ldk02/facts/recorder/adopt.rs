//! Channels that were open before the arbiter was there.
use super::again::AT_ONCE;
use super::{Recorder, numbers, watch};
use crate::ldk02::facts::book::Book;
use crate::ldk02::facts::bootstrap::Adoption;
use crate::ldk02::facts::{FactSink, Refusal};
use crate::ldk02::{Egress, WriteAll};
use arb_core::facts::{HtlcLink, Update};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, Side};
use arb_core::units::BlockHeight;
use core::ops::Deref;
use std::collections::BTreeMap;

/// The link of a received HTLC that is recorded already.
struct Relink {
    channel: ChannelId,
    htlc: HtlcId,
    outgoing: HtlcRef,
}

impl<K> Recorder<K>
where
    K: Deref<Target: WriteAll>,
{
    /// Watches channels that were open before the arbiter was there: at start-up, before the node
    /// speaks to their peers, and all at once, for HTLCs are forwarded from one to the other. That one
    /// is recorded already is no error, and one that is recorded and not watched (the arbiter's store
    /// is older than the recorder's) is adopted again. What a crash interrupted is to be repeated.
    ///
    /// A channel that the arbiter watches by other facts is refused: LDK went on with it alone. The
    /// arbiter is told the true numbers, so that it publishes no commitment of ours that is outdated. One
    /// that it does not know, and whose record here is older than the monitor, is adopted from the monitor.
    ///
    /// Returns the channels that are not adopted, and why the sink or the store did not take them:
    /// they are LDK's alone as before. The arbiter may watch one all the same, by facts that nobody keeps up to date:
    /// so `egress` hears of each, and of those whose adoption was interrupted before and which are none of
    /// these any more. To be called at each start for that reason, though there be nothing to adopt. That a channel
    /// was handed back is forgotten with it, once neither LDK nor the arbiter has the channel.
    pub async fn adopt<S: FactSink>(
        &mut self,
        adoptions: Vec<Adoption>,
        sink: &S,
        egress: &Egress,
    ) -> Vec<(ChannelId, Refusal)> {
        let refused = self.adopt_all(adoptions, sink).await;
        let channels: Vec<ChannelId> = refused.iter().map(|(channel, _)| *channel).collect();
        for channel in channels.into_iter().chain(self.shelf.half_adopted()) {
            egress.hand_back(channel);
        }
        for channel in core::mem::take(&mut self.gone) {
            let nothing = sink.update(channel, Vec::new(), Vec::new()).await;
            if nothing == Err(Refusal::NotWatched) {
                // At the next start, if not now.
                let _kept = self.shelf.forget_handed_back(channel);
            }
        }
        refused
    }

    async fn adopt_all<S: FactSink>(
        &mut self,
        adoptions: Vec<Adoption>,
        sink: &S,
    ) -> Vec<(ChannelId, Refusal)> {
        let mut refused = Vec::new();
        let mut all: BTreeMap<ChannelId, Adoption> = BTreeMap::new();
        for adoption in adoptions {
            let channel = adoption.facts.id;
            if self.shelf.handed_back().contains(&channel) {
                let why = "it was handed back to LDK".to_owned();
                refused.push((channel, Refusal::Refused(why)));
                continue;
            }
            match self.is_watched(&adoption, sink).await {
                Ok(true) => {}
                Ok(false) => {
                    all.insert(channel, adoption);
                }
                Err(why) => refused.push((channel, why)),
            }
        }
        // Links of incoming HTLCs first, as with an update: a channel that is recorded is done with.
        for Relink { channel, htlc, outgoing } in self.link(&mut all) {
            let link = HtlcLink::ForwardedTo { outgoing };
            if let Err(why) = self.relink(channel, htlc, link, sink).await
                && all.remove(&outgoing.channel).is_some()
            {
                refused.push((outgoing.channel, why));
            }
        }
        for (channel, adoption) in all {
            if let Err(why) = self.adopt_one(adoption, sink).await {
                refused.push((channel, why));
            }
        }
        refused
    }

    /// Whether a channel is recorded, and the arbiter knows it. A record of which it knows nothing is
    /// deleted, and so is one that is older than LDK's monitor: the arbiter hears how far LDK is.
    async fn is_watched<S: FactSink>(
        &self,
        adoption: &Adoption,
        sink: &S,
    ) -> Result<bool, Refusal> {
        let channel = adoption.facts.id;
        let Some(book) = self.shelf.book(&channel) else { return Ok(false) };
        if adoption.update > book.applied {
            return match sink.state_numbers(numbers(&adoption.facts)).await {
                Ok(()) | Err(Refusal::NotWatched) => {
                    self.shelf.remove(channel).await.map_err(Refusal::Later)?;
                    Ok(false)
                }
                Err(why) => Err(why),
            };
        }
        match sink.state_numbers(numbers(&book.facts)).await {
            Ok(()) => Ok(true),
            Err(Refusal::NotWatched) => {
                self.shelf.remove(channel).await.map_err(Refusal::Later)?;
                Ok(false)
            }
            Err(why) => Err(why),
        }
    }

    /// Links offered HTLCs with the received ones that they forward, of channels that are recorded
    /// or about to be. Where there is no such channel, LDK alone resolves the HTLC upstream.
    fn link(&self, all: &mut BTreeMap<ChannelId, Adoption>) -> Vec<Relink> {
        let forwards: Vec<_> = all
            .iter()
            .flat_map(|(channel, of)| of.forwards.iter().map(|forward| (*channel, *forward)))
            .collect();
        let mut relinks = Vec::new();
        for (channel, (offered, of, id)) in forwards {
            let outgoing = HtlcRef { channel, htlc: offered };
            let htlc = HtlcId { offerer: Side::Remote, id };
            let received = match all.get_mut(&of) {
                Some(adoption) => adoption.facts.htlcs.get_mut(&htlc).map(|record| {
                    record.htlc.link = HtlcLink::ForwardedTo { outgoing };
                    record.htlc
                }),
                None => {
                    let book = self.shelf.book(&of);
                    let record = book.and_then(|book| book.facts.htlcs.get(&htlc).copied());
                    record.map(|record| {
                        relinks.push(Relink { channel: of, htlc, outgoing });
                        record.htlc
                    })
                }
            };
            let record = all.get_mut(&channel).and_then(|of| of.facts.htlcs.get_mut(&offered));
            if let (Some(received), Some(record)) = (received, record) {
                let incoming = HtlcRef { channel: of, htlc };
                let (expiry, amount) = (received.expiry, received.amount);
                record.htlc.link = HtlcLink::ForwardOf { incoming, expiry, amount };
            }
        }
        relinks
    }

    /// The record comes last: until then all of it is done again, and is then told the same, from the
    /// height at which it was begun.
    async fn adopt_one<S: FactSink>(
        &mut self,
        adoption: Adoption,
        sink: &S,
    ) -> Result<(), Refusal> {
        let Adoption { mut facts, opening, update, peer, ended, offered, .. } = adoption;
        let channel = facts.id;
        let birth = self.shelf.put_birth(channel, facts.birth.0).map_err(Refusal::Later)?;
        facts.birth = facts.birth.min(BlockHeight(birth));
        if let Err(why) = watch(&facts, sink).await {
            if let Refusal::Refused(_) = why {
                // If it is not watched at all, nothing is to be said of it.
                let _told = sink.state_numbers(numbers(&facts)).await;
            }
            return Err(why);
        }
        for part in ended.chunks(AT_ONCE) {
            sink.update(channel, vec![Update::HtlcsEnded(part.to_vec())], Vec::new()).await?;
        }
        for (preimage, source) in adoption.preimages {
            sink.update(channel, vec![Update::Preimage { preimage, source }], Vec::new()).await?;
        }
        for (_, record) in &ended {
            self.shelf.put_hash(channel, record.htlc.hash).map_err(Refusal::Later)?;
        }
        let (next_offered, opened) = (adoption.next_offered, adoption.opened);
        let book = Book { offered, next_offered, opened, ..Book::new(facts, update, &opening) };
        self.shelf.put(channel, book).map_err(Refusal::Later)?;
        self.taps.follow(channel, peer);
        self.left.remove(&channel);
        // It is recorded: whether this stays changes nothing.
        let _stays = self.shelf.forget_birth(channel);
        Ok(())
    }

    async fn relink<S: FactSink>(
        &self,
        channel: ChannelId,
        id: HtlcId,
        link: HtlcLink,
        sink: &S,
    ) -> Result<(), Refusal> {
        match sink.update(channel, vec![Update::HtlcLinked { id, link }], Vec::new()).await {
            // Nothing is left upstream to be linked.
            Ok(()) | Err(Refusal::NotWatched) => {}
            Err(why) => return Err(why),
        }
        let Some(mut book) = self.shelf.book(&channel) else { return Ok(()) };
        if let Some(record) = book.facts.htlcs.get_mut(&id) {
            record.htlc.link = link;
        }
        self.shelf.put(channel, book).map_err(Refusal::Later)
    }
}
