//! The HTLCs of a monitor: those that are pending, and those of commitments that the peer has revoked.
use super::Unadopted;
use crate::ldk02::facts::book::{Terms, elsewhere};
use crate::ldk02::facts::monitor::Monitor;
use crate::ldk02::facts::update::{FIRST_NUMBER, Seen, Source, SourceKey};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{ChannelFacts, HtlcLink, HtlcRecord};
use arb_core::ids::{ChannelId, HtlcId, PaymentHash, Preimage, Side};
use arb_core::units::{BlockHeight, CltvExpiry, CommitmentNumber, MilliSat};
use lightning::ln::channel_state::ChannelDetails;
use std::collections::{BTreeMap, BTreeSet};

/// What a monitor says of HTLCs.
#[derive(Debug, Default)]
pub(super) struct Htlcs {
    /// Those of both commitments.
    pub(super) records: BTreeMap<HtlcId, HtlcRecord>,
    /// Those of revoked commitments that are not among them.
    pub(super) ended: Vec<(HtlcId, HtlcRecord)>,
    pub(super) offered: BTreeMap<SourceKey, u64>,
    pub(super) next_offered: u64,
    pub(super) forwards: Vec<(HtlcId, ChannelId, u64)>,
    /// Preimages of received ones, with whom they serve.
    pub(super) preimages: Vec<(Preimage, PreimageSource)>,
    /// Received ones whose preimage is among them.
    pub(super) opened: BTreeSet<u64>,
}

/// The HTLCs of one commitment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    offered: BTreeMap<SourceKey, (Terms, Source)>,
    received: BTreeMap<Terms, usize>,
}

impl Listed {
    fn of(seen: &[Seen], whose: Side) -> Result<Self, Unadopted> {
        let mut listed = Self::default();
        for htlc in seen {
            let terms = Terms::of(&htlc.htlc);
            match (offerer(htlc, whose), htlc.source) {
                (Side::Local, Some(source)) => {
                    if listed.offered.insert(source.key, (terms, source)).is_some() {
                        return Err(Unadopted::Unreadable("two HTLCs have one source"));
                    }
                }
                (Side::Remote, None) => {
                    let count = listed.received.entry(terms).or_default();
                    *count = count.saturating_add(1);
                }
                (Side::Local, None) | (Side::Remote, Some(_)) => {
                    return Err(Unadopted::Unreadable("an HTLC's source is misplaced"));
                }
            }
        }
        Ok(listed)
    }
}

/// LDK says "offered" of the commitment's owner.
fn offerer(seen: &Seen, whose: Side) -> Side {
    if seen.htlc.offered { whose } else { whose.other() }
}

/// All HTLCs of a channel whose two commitments are the same.
pub(super) fn pending(read: &Monitor, details: &ChannelDetails) -> Result<Htlcs, Unadopted> {
    let remote = read.remote.and_then(|txid| read.commitments.get(&txid));
    let remote = remote.ok_or(Unadopted::Contradiction("HTLCs of the peer's commitment"))?;
    let listed = Listed::of(&read.local_htlcs, Side::Local)?;
    if listed != Listed::of(remote, Side::Remote)? {
        return Err(Unadopted::NotSettled);
    }
    let mut htlcs = Htlcs { ended: ended(read, &listed)?, ..Htlcs::default() };
    let ended = htlcs.ended.iter().filter(|(id, _)| id.offerer == Side::Local);
    htlcs.next_offered = u64::try_from(ended.count()).unwrap_or(u64::MAX);
    for (key, (terms, source)) in listed.offered {
        let id = HtlcId { offerer: Side::Local, id: htlcs.next_offered };
        htlcs.next_offered = htlcs.next_offered.saturating_add(1);
        htlcs.offered.insert(key, id.id);
        let link = source.link(terms.amount);
        if let HtlcLink::ForwardOf { incoming, .. } = link {
            htlcs.forwards.push((id, incoming.channel, incoming.htlc.id));
        }
        htlcs.records.insert(id, since_ever(terms, link, None));
    }
    let mut received = listed.received;
    for htlc in &details.pending_inbound_htlcs {
        let terms = Terms {
            amount: MilliSat(htlc.amount_msat),
            expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
            hash: PaymentHash(htlc.payment_hash.0),
        };
        let left = received.get_mut(&terms).and_then(|left| left.checked_sub(1).map(|n| (left, n)));
        let Some((left, fewer)) = left else { return Err(Unadopted::Htlcs) };
        *left = fewer;
        let id = HtlcId { offerer: Side::Remote, id: htlc.htlc_id };
        let link = htlcs.open(read, id, terms.hash);
        htlcs.records.insert(id, since_ever(terms, link, None));
    }
    if received.values().any(|left| *left > 0) { Err(Unadopted::Htlcs) } else { Ok(htlcs) }
}

impl Htlcs {
    /// The link of a received HTLC, as far as what LDK knows of its hash shows it: that we take it,
    /// or that its preimage came from downstream. Which HTLC forwards it is found later.
    fn open(&mut self, read: &Monitor, id: HtlcId, hash: PaymentHash) -> HtlcLink {
        let Some((preimage, parts)) = read.opened.get(&hash.0) else {
            return HtlcLink::Uncommitted;
        };
        let channel = ChannelId(read.channel);
        let (link, source) = if parts.is_empty() {
            let link = HtlcLink::ForwardedTo { outgoing: elsewhere(channel) };
            (link, PreimageSource::Linked(id))
        } else if parts.contains(&(channel, id.id)) {
            (HtlcLink::Final, PreimageSource::Node)
        } else {
            return HtlcLink::Uncommitted;
        };
        self.preimages.push((*preimage, source));
        self.opened.insert(id.id);
        link
    }
}

/// What a monitor has that is in no facts.
#[derive(Debug)]
pub(in crate::ldk02::facts) struct Before {
    /// HTLCs of revoked commitments.
    pub(in crate::ldk02::facts) ended: Vec<(HtlcId, HtlcRecord)>,
    /// Preimages of received HTLCs that are pending, with whom they serve.
    pub(in crate::ldk02::facts) preimages: Vec<(Preimage, PreimageSource)>,
}

/// HTLCs of revoked commitments, for facts that were recorded without them, and the preimages that LDK
/// knows of those in the facts.
pub(in crate::ldk02::facts) fn known_before(read: &Monitor, facts: &ChannelFacts) -> Before {
    let until = facts.candidates.current.remote.number;
    let pending = |offerer: Side, terms: Terms| {
        let same = |(id, record): &(&HtlcId, &HtlcRecord)| {
            id.offerer == offerer && Terms::of_record(&record.htlc) == terms
        };
        facts.htlcs.iter().filter(same).count()
    };
    let mut ended = Vec::new();
    // One below the name that no HTLC has (`elsewhere`).
    let (mut next_offered, mut next_received) = (u64::MAX - 1, u64::MAX);
    for ((offerer, terms), count) in most(read) {
        for _ in 0..count.saturating_sub(pending(offerer, terms)) {
            let (next, link) = match offerer {
                Side::Local => (&mut next_offered, HtlcLink::OwnPayment),
                Side::Remote => (&mut next_received, HtlcLink::Uncommitted),
            };
            let id = HtlcId { offerer, id: *next };
            *next = next.saturating_sub(1);
            // The peer had revoked nothing before its first commitment.
            if until > CommitmentNumber(0) {
                ended.push((id, since_ever(terms, link, Some(until))));
            }
        }
    }
    let preimages = facts.htlcs.iter().filter_map(|(id, record)| {
        let (preimage, _) = read.opened.get(&record.htlc.hash.0)?;
        match record.htlc.link {
            HtlcLink::Final => Some((*preimage, PreimageSource::Node)),
            HtlcLink::ForwardedTo { .. } => Some((*preimage, PreimageSource::Linked(*id))),
            HtlcLink::OwnPayment | HtlcLink::ForwardOf { .. } | HtlcLink::Uncommitted => None,
        }
    });
    Before { ended, preimages: preimages.collect() }
}

/// HTLCs of revoked commitments that are pending no more. LDK's list has txids, not numbers: so each
/// counts as if it might be in any of them, and the outputs decide. Of equal ones there are as many as
/// any one commitment has.
fn ended(read: &Monitor, listed: &Listed) -> Result<Vec<(HtlcId, HtlcRecord)>, Unadopted> {
    let odd = Unadopted::Unreadable("a number is out of range");
    let current = FIRST_NUMBER.checked_sub(read.remote_number).ok_or(odd)?;
    let most = most(read);
    let mut ended = Vec::new();
    let (mut next_offered, mut next_received) = (0, u64::MAX);
    for ((offerer, terms), count) in most {
        let pending = match offerer {
            Side::Local => listed.offered.values().filter(|(of, _)| *of == terms).count(),
            Side::Remote => listed.received.get(&terms).copied().unwrap_or_default(),
        };
        for _ in 0..count.saturating_sub(pending) {
            let (next, link) = match offerer {
                Side::Local => (&mut next_offered, HtlcLink::OwnPayment),
                Side::Remote => (&mut next_received, HtlcLink::Uncommitted),
            };
            let id = HtlcId { offerer, id: *next };
            // The peer counts its own up from zero: these never meet those that are to come.
            *next = match offerer {
                Side::Local => next.saturating_add(1),
                Side::Remote => next.saturating_sub(1),
            };
            ended.push((id, since_ever(terms, link, Some(CommitmentNumber(current)))));
        }
    }
    Ok(ended)
}

/// How often HTLCs with an output are in any one commitment of the peer's, of equal ones.
fn most(read: &Monitor) -> BTreeMap<(Side, Terms), usize> {
    let mut most: BTreeMap<(Side, Terms), usize> = BTreeMap::new();
    for commitment in read.commitments.values() {
        let mut here: BTreeMap<(Side, Terms), usize> = BTreeMap::new();
        // What is trimmed in all of them has no output that could be punished.
        let outputs = commitment.iter().filter(|s| s.htlc.transaction_output_index.is_some());
        for seen in outputs {
            let count =
                here.entry((offerer(seen, Side::Remote), Terms::of(&seen.htlc))).or_default();
            *count = count.saturating_add(1);
        }
        for (htlc, count) in here {
            let known = most.entry(htlc).or_default();
            *known = count.max(*known);
        }
    }
    most
}

const fn since_ever(terms: Terms, link: HtlcLink, until: Option<CommitmentNumber>) -> HtlcRecord {
    let htlc = terms.linked(link);
    HtlcRecord { htlc, remote_from: Some(CommitmentNumber(0)), remote_until: until }
}
