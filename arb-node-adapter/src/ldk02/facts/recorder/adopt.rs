//! Channels that were open before the arbiter was there.
use super::{Recorder, watch};
use crate::ldk02::facts::book::Book;
use crate::ldk02::facts::bootstrap::Adoption;
use crate::ldk02::facts::{FactSink, Refusal};
use arb_core::facts::{HtlcLink, Update};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, Side};
use core::ops::Deref;
use lightning::util::persist::KVStoreSync;
use std::collections::BTreeMap;

/// Ended HTLCs that are told at once.
const AT_ONCE: usize = 500;

/// The link of a received HTLC that is recorded already.
struct Relink {
    channel: ChannelId,
    htlc: HtlcId,
    outgoing: HtlcRef,
}

impl<K> Recorder<K>
where
    K: Deref<Target: KVStoreSync>,
{
    /// Watches channels that were open before the arbiter was there: at start-up, before the node
    /// speaks to their peers, and all at once, for HTLCs are forwarded from one to the other. That one
    /// is recorded already is no error.
    ///
    /// Returns the channels that are not adopted, and why the sink or the store did not take them:
    /// they are LDK's alone as before.
    pub async fn adopt<S: FactSink>(
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
            } else if !self.shelf.books().contains_key(&channel) {
                all.insert(channel, adoption);
            }
        }
        let relinks = self.link(&mut all);
        for (channel, adoption) in all {
            if let Err(why) = self.adopt_one(adoption, sink).await {
                refused.push((channel, why));
            }
        }
        for Relink { channel, htlc, outgoing } in relinks {
            let link = HtlcLink::ForwardedTo { outgoing };
            if let Err(why) = self.relink(channel, htlc, link, sink).await {
                refused.push((outgoing.channel, why));
            }
        }
        refused
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

    /// The record comes last: until then all of it is done again.
    async fn adopt_one<S: FactSink>(
        &mut self,
        adoption: Adoption,
        sink: &S,
    ) -> Result<(), Refusal> {
        let Adoption { facts, opening, update, peer, ended, offered, next_offered, .. } = adoption;
        let channel = facts.id;
        watch(&facts, sink).await?;
        for part in ended.chunks(AT_ONCE) {
            sink.update(channel, vec![Update::HtlcsEnded(part.to_vec())]).await?;
        }
        for (_, record) in &ended {
            self.shelf.put_hash(channel, record.htlc.hash).map_err(Refusal::Later)?;
        }
        let book = Book { offered, next_offered, ..Book::new(facts, update, &opening) };
        self.shelf.put(channel, book).map_err(Refusal::Later)?;
        self.taps.follow(channel, peer);
        self.left.remove(&channel);
        Ok(())
    }

    async fn relink<S: FactSink>(
        &self,
        channel: ChannelId,
        id: HtlcId,
        link: HtlcLink,
        sink: &S,
    ) -> Result<(), Refusal> {
        sink.update(channel, vec![Update::HtlcLinked { id, link }]).await?;
        let Some(mut book) = self.shelf.book(&channel) else { return Ok(()) };
        if let Some(record) = book.facts.htlcs.get_mut(&id) {
            record.htlc.link = link;
        }
        self.shelf.put(channel, book).map_err(Refusal::Later)
    }
}
