//! What the translation of one channel remembers: the facts as told, and which HTLC is which.
use super::taps::Opening;
use super::update::SourceKey;
use arb_core::facts::{ChannelFacts, Htlc, HtlcLink, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, PaymentHash, Side};
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use bitcoin::OutPoint;
use lightning::ln::chan_utils::{ChannelTransactionParameters, HTLCOutputInCommitment};
use std::collections::{BTreeMap, BTreeSet};

/// The terms of an HTLC. Two HTLCs of equal terms have the same script, and so the same output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Terms {
    pub(super) amount: MilliSat,
    pub(super) expiry: CltvExpiry,
    pub(super) hash: PaymentHash,
}

impl Terms {
    pub(super) const fn of(htlc: &HTLCOutputInCommitment) -> Self {
        Self {
            amount: MilliSat(htlc.amount_msat),
            expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
            hash: PaymentHash(htlc.payment_hash.0),
        }
    }

    pub(super) const fn of_record(htlc: &Htlc) -> Self {
        Self { amount: htlc.amount, expiry: htlc.expiry, hash: htlc.hash }
    }

    pub(super) const fn linked(self, link: HtlcLink) -> Htlc {
        Htlc { amount: self.amount, hash: self.hash, expiry: self.expiry, link }
    }
}

/// What is remembered of one channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Book {
    /// The facts as they were told.
    pub(super) facts: ChannelFacts,
    /// What LDK derives the channel's keys from.
    pub(super) keys: [u8; 32],
    /// LDK's own word on keys, delays and funding output, as the channel was registered.
    pub(super) parameters: ChannelTransactionParameters,
    /// The same of every splice since.
    pub(super) splices: Vec<ChannelTransactionParameters>,
    /// The last update of LDK's that they contain.
    pub(super) applied: u64,
    /// A digest of that update. A node that lost its last steps may make another update of the
    /// same number.
    pub(super) digest: [u8; 32],
    /// Ids of offered HTLCs, by what LDK knows them by.
    pub(super) offered: BTreeMap<SourceKey, u64>,
    /// The next id of an offered HTLC.
    pub(super) next_offered: u64,
    /// Received HTLCs that the peer has committed to, and that no commitment of ours has shown yet.
    pub(super) announced: BTreeMap<u64, Terms>,
    /// Received HTLCs whose preimage was told.
    pub(super) opened: BTreeSet<u64>,
    /// Received HTLCs that were taken to have left while another of equal terms stayed.
    pub(super) left: BTreeMap<u64, Terms>,
}

/// How much would be lost if a received HTLC were taken to have left, and had not: the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// The peer revoked the last of its commitments that contains it.
    LeftRemote,
    /// Its outgoing HTLC left without a preimage: it is to be failed.
    Failed,
    /// Announced, and in no commitment yet.
    Announced,
    /// Not linked to anything.
    Unlinked,
    /// Forwarded to a channel that is not watched: whether that one is pending is not known.
    Elsewhere,
    /// Its preimage is known.
    Opened,
    /// Its outgoing HTLC is pending: LDK removes no HTLC before the one that it became.
    Pending,
}

impl Book {
    pub(super) fn new(facts: ChannelFacts, applied: u64, opening: &Opening) -> Self {
        Self {
            facts,
            keys: opening.keys,
            parameters: opening.parameters.clone(),
            splices: Vec::new(),
            applied,
            digest: [0; 32],
            offered: BTreeMap::new(),
            next_offered: 0,
            announced: BTreeMap::new(),
            opened: BTreeSet::new(),
            left: BTreeMap::new(),
        }
    }

    /// Forgets what was remembered of HTLCs that no commitment contains any more.
    pub(super) fn tidy(&mut self) {
        let facts = &self.facts;
        let known = |side, id: u64| facts.htlcs.contains_key(&HtlcId { offerer: side, id });
        self.offered.retain(|_, id| known(Side::Local, *id));
        self.opened.retain(|id| known(Side::Remote, *id));
        let is_candidate = |of: &ChannelTransactionParameters| {
            outpoint(of).is_some_and(|funding| facts.candidates.get(&funding).is_some())
        };
        self.splices.retain(is_candidate);
        let twins: BTreeSet<Terms> = self
            .received()
            .filter(|(id, _)| self.facts.is_committed(HtlcId { offerer: Side::Remote, id: *id }))
            .map(|(_, record)| Terms::of_record(&record.htlc))
            .collect();
        self.left.retain(|_, terms| twins.contains(terms));
    }

    /// LDK's own word on every funding candidate.
    pub(super) fn all_parameters(&self) -> impl Iterator<Item = &ChannelTransactionParameters> {
        core::iter::once(&self.parameters).chain(&self.splices)
    }

    /// LDK's own word on this funding candidate.
    pub(super) fn parameters_of(
        &self,
        funding: &OutPoint,
    ) -> Option<&ChannelTransactionParameters> {
        self.all_parameters().find(|of| outpoint(of) == Some(*funding))
    }

    /// Remembers LDK's own word on a splice.
    pub(super) fn spliced(&mut self, parameters: ChannelTransactionParameters) {
        let funding = outpoint(&parameters);
        if !self.all_parameters().any(|known| outpoint(known) == funding) {
            self.splices.push(parameters);
        }
    }

    /// Whether nothing but the funding output and its keys is another.
    pub(super) fn is_splice(&self, parameters: &ChannelTransactionParameters) -> bool {
        let (mut known, new) = (self.parameters.clone(), parameters);
        known.holder_pubkeys.funding_pubkey = new.holder_pubkeys.funding_pubkey;
        if let (Some(known), Some(new)) =
            (&mut known.counterparty_parameters, &new.counterparty_parameters)
        {
            known.pubkeys.funding_pubkey = new.pubkeys.funding_pubkey;
        }
        known.funding_outpoint = new.funding_outpoint;
        known.splice_parent_funding_txid = new.splice_parent_funding_txid;
        known.channel_value_satoshis = new.channel_value_satoshis;
        known == *new
    }

    pub(super) fn received(&self) -> impl Iterator<Item = (u64, &HtlcRecord)> {
        let received = self.facts.htlcs.iter().filter(|(id, _)| id.offerer == Side::Remote);
        received.map(|(id, record)| (id.id, record))
    }

    pub(super) fn record(&self, id: u64) -> Option<&HtlcRecord> {
        self.facts.htlcs.get(&HtlcId { offerer: Side::Remote, id })
    }

    /// The received HTLC that LDK means by `id`: it, or, if it was taken to have left, the one of
    /// equal terms that stayed and is linked to none that is watched.
    pub(super) fn resolve(&self, id: u64, is_watched: impl Fn(ChannelId) -> bool) -> Option<u64> {
        if self.record(id).is_some() {
            return Some(id);
        }
        let terms = self.left.get(&id)?;
        let is_free = |link| match link {
            HtlcLink::Uncommitted => true,
            HtlcLink::ForwardedTo { outgoing } => {
                outgoing == elsewhere(outgoing.channel) || !is_watched(outgoing.channel)
            }
            HtlcLink::Final | HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } => false,
        };
        let same = |(_, record): &(u64, &HtlcRecord)| {
            Terms::of_record(&record.htlc) == *terms && is_free(record.htlc.link)
        };
        self.received().find(same).map(|(id, _)| id)
    }

    fn weight(&self, id: u64, record: &HtlcRecord, books: &BTreeMap<ChannelId, Self>) -> Weight {
        if record.remote_until.is_some() {
            return Weight::LeftRemote;
        }
        let opened = self.opened.contains(&id);
        match record.htlc.link {
            _ if opened => Weight::Opened,
            HtlcLink::ForwardedTo { outgoing } if is_pending(outgoing, books) => Weight::Pending,
            HtlcLink::ForwardedTo { outgoing }
                if outgoing == elsewhere(outgoing.channel)
                    || !books.contains_key(&outgoing.channel) =>
            {
                Weight::Elsewhere
            }
            HtlcLink::ForwardedTo { .. } => Weight::Failed,
            HtlcLink::Uncommitted => Weight::Unlinked,
            HtlcLink::Final | HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } => Weight::Opened,
        }
    }

    /// Which `count` received HTLCs of these terms a commitment contains. Those of the greatest
    /// weight; among equal ones, those that it contained before; then the oldest.
    ///
    /// `None`: there are not so many.
    pub(super) fn choose(
        &self,
        terms: Terms,
        count: usize,
        now: &[HtlcId],
        whose: Side,
        books: &BTreeMap<ChannelId, Self>,
    ) -> Option<Vec<u64>> {
        let known = self.received().filter(|(id, record)| {
            let id = HtlcId { offerer: Side::Remote, id: *id };
            Terms::of_record(&record.htlc) == terms
                && self.facts.is_committed(id)
                // What has left the peer's commitments does not come back into them.
                && (whose == Side::Local || record.remote_until.is_none())
        });
        let mut all: Vec<_> = known
            .map(|(id, record)| {
                let stays = now.contains(&HtlcId { offerer: Side::Remote, id });
                (self.weight(id, record, books), stays, id)
            })
            .collect();
        if whose == Side::Local {
            let announced = self.announced.iter().filter(|(_, of)| **of == terms);
            all.extend(announced.map(|(id, _)| (Weight::Announced, false, *id)));
        }
        all.sort_by_key(|(weight, stays, id)| (core::cmp::Reverse((*weight, *stays)), *id));
        let chosen: Vec<u64> = all.into_iter().take(count).map(|(_, _, id)| id).collect();
        (chosen.len() == count).then_some(chosen)
    }
}

fn outpoint(parameters: &ChannelTransactionParameters) -> Option<OutPoint> {
    parameters.funding_outpoint.map(|funding| funding.into_bitcoin_outpoint())
}

/// An outgoing HTLC of a channel that is not watched, or of an unknown one: no HTLC has this name.
pub(super) const fn elsewhere(channel: ChannelId) -> HtlcRef {
    HtlcRef { channel, htlc: HtlcId { offerer: Side::Local, id: u64::MAX } }
}

fn is_pending(outgoing: HtlcRef, books: &BTreeMap<ChannelId, Book>) -> bool {
    books.get(&outgoing.channel).is_some_and(|book| book.facts.is_committed(outgoing.htlc))
}
