//! From LDK's updates to ours.
mod balances;
mod helps;

pub(super) use balances::{Outputs, balances};

use super::book::{Book, Terms, elsewhere};
use super::bytes::Unreadable;
use super::opening::funding;
use super::update::{
    LocalStep, RemoteStep, RemoteTx, Seen, Source, SourceKey, SpliceStep, Step, spent,
};
use arb_core::arbitrator::PreimageSource;
use arb_core::facts::{
    FundingCandidate, HtlcLink, LocalCommitment, RemoteCommitment, ShutdownScripts, Update,
    UpdateError,
};
use arb_core::format::{local_commitment, remote_commitment};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, PaymentHash, Preimage, Side};
use arb_core::units::{BlockHeight, CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::secp256k1::{All, Secp256k1};
use bitcoin::{OutPoint, Txid};
use core::fmt;
use lightning::ln::chan_utils::HolderCommitmentTransaction;
use std::collections::BTreeMap;

/// Something to be told to the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Update(Box<Update>),
    /// LDK has closed the channel.
    Closed,
}

/// What an update of LDK's could not be translated for. The update is not completed then: LDK
/// sends nothing that builds on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Untranslated {
    /// The bytes are not what this version of LDK writes.
    Unreadable(&'static str),
    /// Nothing is remembered of this channel: it was opened before the arbiter was there.
    UnknownChannel,
    /// A commitment of a funding output that nothing is known of.
    UnknownFunding(Option<OutPoint>),
    /// A splice that changes more than the funding output.
    Splice,
    /// A commitment format that arb-core does not know.
    Format,
    /// An HTLC cannot be told apart, or was never announced.
    UnknownHtlc,
    /// The commitment that we build is not the one that LDK has.
    OtherTransaction(CommitmentNumber),
    /// What LDK says in two ways differs.
    Differs(CommitmentNumber),
    /// The facts do not hold.
    Facts(UpdateError),
}

impl From<Unreadable> for Untranslated {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error.0)
    }
}

impl From<UpdateError> for Untranslated {
    fn from(error: UpdateError) -> Self {
        Self::Facts(error)
    }
}

impl fmt::Display for Untranslated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => write!(f, "LDK's update cannot be read: {why}"),
            Self::UnknownChannel => f.write_str("nothing is known of the channel's beginning"),
            Self::UnknownFunding(Some(funding)) => {
                write!(f, "funding output {funding} is not known")
            }
            Self::UnknownFunding(None) => f.write_str("a funding output is not known"),
            Self::Splice => f.write_str("a splice changes more than the funding output"),
            Self::Format => f.write_str("commitments of this format are not known"),
            Self::UnknownHtlc => f.write_str("an HTLC was not announced"),
            Self::OtherTransaction(number) => {
                write!(f, "commitment {} is not the one that LDK has", number.0)
            }
            Self::Differs(number) => write!(f, "LDK's two words on commitment {} differ", number.0),
            Self::Facts(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Untranslated {}

/// One update being translated: books that it changes, and what is to be told, in order.
#[derive(Debug)]
pub(super) struct Translation<'a> {
    channel: ChannelId,
    before: &'a BTreeMap<ChannelId, Book>,
    /// Books that differ from those before.
    changed: BTreeMap<ChannelId, Book>,
    told: Vec<(ChannelId, Told)>,
    /// Hashes of HTLCs that left all commitments.
    ended: Vec<(ChannelId, PaymentHash)>,
    secp: &'a Secp256k1<All>,
    /// Commitments are left out: the arbiter takes no newer one of ours, and until LDK's update is
    /// completed the peer gets none.
    fenced: bool,
}

/// A translation that is complete.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) changed: BTreeMap<ChannelId, Book>,
    pub(super) told: Vec<(ChannelId, Told)>,
    pub(super) ended: Vec<(ChannelId, PaymentHash)>,
}

impl<'a> Translation<'a> {
    pub(super) fn new(
        channel: ChannelId,
        before: &'a BTreeMap<ChannelId, Book>,
        secp: &'a Secp256k1<All>,
    ) -> Result<Self, Untranslated> {
        let book = before.get(&channel).ok_or(Untranslated::UnknownChannel)?;
        let changed = [(channel, book.clone())].into();
        let (told, ended, fenced) = (Vec::new(), Vec::new(), false);
        Ok(Self { channel, before, changed, told, ended, secp, fenced })
    }

    /// An update of a channel that is LDK's alone: HTLCs of watched channels that it forwards are
    /// linked, and nothing else of it is understood.
    pub(super) fn beside(
        channel: ChannelId,
        steps: &[Step],
        before: &'a BTreeMap<ChannelId, Book>,
        secp: &'a Secp256k1<All>,
    ) -> Translated {
        let (changed, told, ended, fenced) = (BTreeMap::new(), Vec::new(), Vec::new(), false);
        let mut all = Self { channel, before, changed, told, ended, secp, fenced };
        let link = HtlcLink::ForwardedTo { outgoing: elsewhere(channel) };
        for source in steps.iter().flat_map(Step::sources) {
            let SourceKey::Forward { id, .. } = source.key else { continue };
            let Some(incoming) = source.incoming else { continue };
            let is_watched = |of| all.book(of).is_some();
            let book = all.book(incoming);
            let Some(id) = book.and_then(|book| book.resolve(id, is_watched)) else { continue };
            let known = book.and_then(|book| book.record(id)).map(|record| record.htlc.link);
            if known != Some(link) {
                // Where we are the recipient as well, that stands.
                let _conflict =
                    all.tell_of(incoming, Update::HtlcLinked { id: remote_id(id), link });
            }
        }
        all.done()
    }

    /// From here on commitments are left out; what comes with them is told.
    pub(super) const fn fence(&mut self) {
        self.fenced = true;
    }

    /// What came of it.
    pub(super) fn done(self) -> Translated {
        Translated { changed: self.changed, told: self.told, ended: self.ended }
    }

    /// What LDK has forgotten before it signed it: the peer's commitments from this number on.
    pub(super) fn withdraw(&mut self, number: CommitmentNumber) -> Result<(), Untranslated> {
        self.tell(Update::RemoteWithdrawn { number })?;
        // An offered HTLC that went with it gets a new id if LDK offers it again: links still name the old one.
        self.book_mut(self.channel)?.tidy();
        Ok(())
    }

    /// Translates the steps of one update, which LDK made at this height.
    pub(super) fn steps(
        &mut self,
        steps: &[Step],
        txids: &[Txid],
        height: u32,
    ) -> Result<(), Untranslated> {
        let mut txids = txids.iter();
        for step in steps {
            match step {
                Step::Local(step) => self.local(step)?,
                Step::Remote(step) => {
                    // LDK gives these in typed form as well.
                    let mut said = step.transactions.iter().map(|tx| &tx.txid);
                    if !said.all(|txid| txids.next() == Some(txid)) {
                        return Err(Untranslated::Differs(step.number));
                    }
                    if !self.fenced {
                        self.remote(step)?;
                    }
                }
                Step::Preimage { preimage, recipient_of } => {
                    self.preimage(*preimage, recipient_of.as_deref())?;
                }
                Step::Secret { number, secret } => {
                    self.tell(Update::RemoteRevoked { number: *number, secret: *secret })?;
                }
                Step::ForceClosed => self.told.push((self.channel, Told::Closed)),
                Step::Shutdown(script) => {
                    let local = Some(script.clone());
                    self.tell(Update::Shutdown(ShutdownScripts { local, remote: None }))?;
                }
                Step::Nothing => {}
                Step::Splice(step) => {
                    if txids.next() != Some(&step.remote.trust().txid()) {
                        return Err(Untranslated::Differs(number(
                            step.remote.commitment_number(),
                        )?));
                    }
                    if !self.fenced {
                        self.splice(step, height)?;
                    }
                }
                Step::Locked(txid) => self.locked(*txid)?,
            }
        }
        match txids.next() {
            Some(_) => Err(Untranslated::Unreadable("a commitment is missing")),
            None => Ok(()),
        }
    }

    /// Tells something of the channel, and learns it.
    pub(super) fn tell(&mut self, update: Update) -> Result<(), Untranslated> {
        self.tell_of(self.channel, update)
    }

    fn tell_of(&mut self, channel: ChannelId, update: Update) -> Result<(), Untranslated> {
        let book = self.book_mut(channel)?;
        // The arbiter verifies it before LDK goes on.
        let updated = book.facts.updated_unverified(&update)?;
        book.facts = updated.facts;
        let ended = updated.ended.iter().map(|(_, record)| (channel, record.htlc.hash));
        self.ended.extend(ended);
        self.told.push((channel, Told::Update(Box::new(update))));
        Ok(())
    }

    fn book(&self, channel: ChannelId) -> Option<&Book> {
        self.changed.get(&channel).or_else(|| self.before.get(&channel))
    }

    fn own(&self) -> Result<&Book, Untranslated> {
        self.book(self.channel).ok_or(Untranslated::UnknownChannel)
    }

    pub(super) fn book_mut(&mut self, channel: ChannelId) -> Result<&mut Book, Untranslated> {
        let before = self.before.get(&channel);
        match self.changed.entry(channel) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => {
                Ok(entry.insert(before.ok_or(Untranslated::UnknownChannel)?.clone()))
            }
        }
    }

    fn local(&mut self, step: &LocalStep) -> Result<(), Untranslated> {
        for (source, preimage) in &step.claimed {
            let id = self.own()?.offered.get(source).copied();
            let id = id.ok_or(Untranslated::UnknownHtlc)?;
            let source = PreimageSource::Downstream(HtlcId { offerer: Side::Local, id });
            self.learn(*preimage, source);
        }
        if self.fenced {
            return Ok(());
        }
        let now = self.own()?.facts.candidates.current.local.htlcs.clone();
        let htlcs = self.identify(&step.htlcs, &now, Side::Local)?;
        let fundings = step.transactions.iter().map(|tx| spent(tx)).collect();
        for (funding, commitment) in self.candidates(fundings)?.into_iter().zip(&step.transactions)
        {
            let commitment = self.local_of(&funding, commitment, htlcs.clone())?;
            self.tell(Update::LocalCommitment { funding: funding.funding, commitment })?;
        }
        Ok(())
    }

    fn remote(&mut self, step: &RemoteStep) -> Result<(), Untranslated> {
        let current = &self.own()?.facts.candidates.current;
        let newest = current.remote_next.as_ref().unwrap_or(&current.remote);
        let (now, current) = (newest.htlcs.clone(), current.funding);
        let htlcs = self.identify(&step.htlcs, &now, Side::Remote)?;
        let stated = RemoteCommitment {
            number: step.number,
            point: step.point,
            feerate: FeeratePerKw(step.feerate),
            local_balance: MilliSat(0),
            remote_balance: MilliSat(0),
            htlcs,
        };
        let funding = |tx: &RemoteTx| {
            if step.transactions.len() == 1 { tx.funding.or(Some(current)) } else { tx.funding }
        };
        let fundings = step.transactions.iter().map(funding).collect();
        for (funding, tx) in self.candidates(fundings)?.into_iter().zip(&step.transactions) {
            let commitment = self.remote_of(&funding, tx, stated.clone())?;
            self.tell(Update::RemoteCommitment { funding: funding.funding, commitment })?;
        }
        Ok(())
    }

    /// The candidates that these funding outputs are of: all those that go on, and no other.
    fn candidates(
        &self,
        fundings: Vec<Option<OutPoint>>,
    ) -> Result<Vec<FundingCandidate>, Untranslated> {
        let candidates = &self.own()?.facts.candidates;
        if let Some(left) = candidates.moving().find(|of| !fundings.contains(&Some(of.funding))) {
            return Err(UpdateError::CandidateBehind(left.funding).into());
        }
        let find = |funding: Option<OutPoint>| {
            let found = candidates.moving().find(|of| Some(of.funding) == funding);
            found.cloned().ok_or(Untranslated::UnknownFunding(funding))
        };
        fundings.into_iter().map(find).collect()
    }

    /// A commitment of ours that spends a candidate.
    fn local_of(
        &self,
        candidate: &FundingCandidate,
        commitment: &HolderCommitmentTransaction,
        htlcs: Vec<HtlcId>,
    ) -> Result<LocalCommitment, Untranslated> {
        let number = number(commitment.commitment_number())?;
        let stated = LocalCommitment {
            number,
            point: commitment.per_commitment_point(),
            feerate: FeeratePerKw(commitment.negotiated_feerate_per_kw()),
            local_balance: MilliSat(0),
            remote_balance: MilliSat(0),
            htlcs,
            signature: commitment.counterparty_sig,
            htlc_signatures: commitment.counterparty_htlc_sigs.clone(),
        };
        let facts = &self.own()?.facts;
        let outputs = Outputs {
            txid: commitment.trust().txid(),
            local: commitment.to_broadcaster_value_sat(),
            remote: commitment.to_countersignatory_value_sat(),
        };
        let build = |local_balance, remote_balance| {
            let stated = LocalCommitment { local_balance, remote_balance, ..stated.clone() };
            local_commitment(facts, candidate, &stated, self.secp).ok()
        };
        let balances = balances(facts, candidate.capacity, &stated.htlcs, &outputs, build);
        let (local_balance, remote_balance) =
            balances.ok_or(Untranslated::OtherTransaction(number))?;
        Ok(LocalCommitment { local_balance, remote_balance, ..stated })
    }

    /// A commitment of the peer's that spends a candidate: what is `stated`, with its balances.
    fn remote_of(
        &self,
        candidate: &FundingCandidate,
        tx: &RemoteTx,
        stated: RemoteCommitment,
    ) -> Result<RemoteCommitment, Untranslated> {
        let facts = &self.own()?.facts;
        let outputs = Outputs { txid: tx.txid, local: tx.to_local, remote: tx.to_remote };
        let build = |local_balance, remote_balance| {
            let stated = RemoteCommitment { local_balance, remote_balance, ..stated.clone() };
            remote_commitment(facts, candidate, &stated, self.secp).ok()
        };
        let balances = balances(facts, candidate.capacity, &stated.htlcs, &outputs, build);
        let (local_balance, remote_balance) =
            balances.ok_or(Untranslated::OtherTransaction(stated.number))?;
        Ok(RemoteCommitment { local_balance, remote_balance, ..stated })
    }

    /// Another funding output: its commitments have the HTLCs of the current one's, for the channel
    /// is quiet while a splice is agreed upon.
    fn splice(&mut self, step: &SpliceStep, height: u32) -> Result<(), Untranslated> {
        let book = self.own()?;
        if !book.is_splice(&step.parameters) {
            return Err(Untranslated::Splice);
        }
        let (funding, keys, capacity) = funding(&step.parameters)?;
        let [ours, theirs] = [spent(&step.local), spent(&step.remote)];
        if let Some(other) = [ours, theirs].into_iter().find(|of| *of != Some(funding)) {
            return Err(Untranslated::UnknownFunding(other));
        }
        let current = book.facts.candidates.current.clone();
        let candidate = FundingCandidate { funding, keys, capacity, ..current };
        let local = self.local_of(&candidate, &step.local, candidate.local.htlcs.clone())?;
        let remote = RemoteCommitment {
            number: number(step.remote.commitment_number())?,
            point: step.remote.per_commitment_point(),
            feerate: FeeratePerKw(step.remote.negotiated_feerate_per_kw()),
            ..candidate.remote.clone()
        };
        let remote = self.remote_of(&candidate, &RemoteTx::of(&step.remote), remote)?;
        let candidate = FundingCandidate { local, remote, ..candidate };
        let birth = BlockHeight(height);
        self.tell(Update::CandidateAdded { candidate: Box::new(candidate), birth })?;
        self.book_mut(self.channel)?.spliced(step.parameters.clone());
        Ok(())
    }

    /// A splice is the funding transaction from now on.
    fn locked(&mut self, txid: Txid) -> Result<(), Untranslated> {
        let candidates = &self.own()?.facts.candidates;
        let found = candidates.iter().find(|candidate| candidate.funding.txid == txid);
        let funding = found.ok_or(Untranslated::UnknownFunding(None))?.funding;
        self.tell(Update::CandidateLocked { funding })
    }

    /// Which HTLCs a commitment contains; new ones are told.
    fn identify(
        &mut self,
        seen: &[Seen],
        now: &[HtlcId],
        whose: Side,
    ) -> Result<Vec<HtlcId>, Untranslated> {
        let mut ids = Vec::new();
        let mut received: BTreeMap<Terms, usize> = BTreeMap::new();
        for htlc in seen {
            // LDK says "offered" of the commitment's owner.
            let ours = htlc.htlc.offered == (whose == Side::Local);
            let terms = Terms::of(&htlc.htlc);
            match (ours, htlc.source) {
                (true, Some(source)) => ids.push(self.offered(terms, source)?),
                (false, None) => {
                    let count = received.entry(terms).or_default();
                    *count = count.saturating_add(1);
                }
                (true, None) | (false, Some(_)) => {
                    return Err(Untranslated::Unreadable("an HTLC's source is misplaced"));
                }
            }
        }
        for (terms, count) in received {
            ids.extend(self.received(terms, count, now, whose)?);
        }
        ids.sort_unstable();
        Ok(ids)
    }

    fn received(
        &mut self,
        terms: Terms,
        count: usize,
        now: &[HtlcId],
        whose: Side,
    ) -> Result<Vec<HtlcId>, Untranslated> {
        let books = self.before;
        let book = self.own()?;
        let chosen = book.choose(terms, count, now, whose, books);
        let chosen = chosen.ok_or(Untranslated::UnknownHtlc)?;
        let gone: Vec<u64> = now
            .iter()
            .filter(|id| id.offerer == Side::Remote && !chosen.contains(&id.id))
            .filter(|id| book.record(id.id).is_some_and(|r| Terms::of_record(&r.htlc) == terms))
            .map(|id| id.id)
            .collect();
        for id in &chosen {
            let announced = self.own()?.announced.contains_key(id);
            if announced {
                let id = HtlcId { offerer: Side::Remote, id: *id };
                self.tell(Update::HtlcAdded { id, htlc: terms.linked(HtlcLink::Uncommitted) })?;
            }
        }
        let book = self.book_mut(self.channel)?;
        for id in &chosen {
            book.announced.remove(id);
        }
        book.left.extend(gone.into_iter().map(|id| (id, terms)));
        Ok(chosen.into_iter().map(|id| HtlcId { offerer: Side::Remote, id }).collect())
    }

    /// The id of an offered HTLC, given at first sight.
    fn offered(&mut self, terms: Terms, source: Source) -> Result<HtlcId, Untranslated> {
        if let Some(id) = self.own()?.offered.get(&source.key) {
            return Ok(HtlcId { offerer: Side::Local, id: *id });
        }
        let channel = self.channel;
        let book = self.book_mut(channel)?;
        let id = book.next_offered;
        book.next_offered = id.saturating_add(1);
        book.offered.insert(source.key, id);
        let id = HtlcId { offerer: Side::Local, id };
        let link = self.link_of(HtlcRef { channel, htlc: id }, source, terms.amount)?;
        self.tell(Update::HtlcAdded { id, htlc: terms.linked(link) })?;
        Ok(id)
    }

    /// The link of a new offered HTLC; the incoming one is told first.
    fn link_of(
        &mut self,
        outgoing: HtlcRef,
        source: Source,
        amount: MilliSat,
    ) -> Result<HtlcLink, Untranslated> {
        let (SourceKey::Forward { id, .. }, Some(channel)) = (source.key, source.incoming) else {
            return Ok(HtlcLink::OwnPayment);
        };
        // A channel that is not ours to watch: LDK alone resolves the HTLC upstream.
        let Some(book) = self.book(channel) else { return Ok(source.link(amount)) };
        let id = book.resolve(id, |of| self.book(of).is_some());
        let id = id.ok_or(Untranslated::UnknownHtlc)?;
        let record = book.record(id).ok_or(Untranslated::UnknownHtlc)?.htlc;
        let htlc = HtlcId { offerer: Side::Remote, id };
        let link = HtlcLink::ForwardedTo { outgoing };
        self.tell_of(channel, Update::HtlcLinked { id: htlc, link })?;
        let incoming = HtlcRef { channel, htlc };
        Ok(HtlcLink::ForwardOf { incoming, expiry: record.expiry, amount: record.amount })
    }

    fn preimage(
        &mut self,
        preimage: Preimage,
        recipient_of: Option<&[(ChannelId, u64)]>,
    ) -> Result<(), Untranslated> {
        let hash = preimage.hash();
        let Some(parts) = recipient_of else {
            // It came from downstream. LDK does not say of which HTLC; whoever offered one of this
            // hash that was forwarded paid for this preimage.
            let of = |link: fn(HtlcLink) -> bool| -> Result<Vec<u64>, Untranslated> {
                let all = self.own()?.received().filter(|(_, record)| record.htlc.hash == hash);
                Ok(all.filter(|(_, r)| link(r.htlc.link)).map(|(id, _)| id).collect())
            };
            let linked = of(|link| matches!(link, HtlcLink::ForwardedTo { .. }))?;
            // None: then LDK means one that was forwarded to a channel of which nothing was seen.
            let unlinked = match linked.is_empty() {
                true => of(|link| link == HtlcLink::Uncommitted)?,
                false => Vec::new(),
            };
            let outgoing = elsewhere(self.channel);
            for id in &unlinked {
                let link = HtlcLink::ForwardedTo { outgoing };
                self.tell(Update::HtlcLinked { id: remote_id(*id), link })?;
            }
            for id in linked.into_iter().chain(unlinked) {
                self.open(id, preimage, PreimageSource::Linked(remote_id(id)))?;
            }
            return Ok(());
        };
        let mut any = false;
        let channel = self.channel;
        for (_, id) in parts.iter().filter(|(of, _)| *of == channel) {
            // What has left all commitments needs no preimage.
            let is_watched = |of| self.book(of).is_some();
            let Some(id) = self.own()?.resolve(*id, is_watched) else { continue };
            self.tell(Update::HtlcLinked { id: remote_id(id), link: HtlcLink::Final })?;
            self.book_mut(channel)?.opened.insert(id);
            any = true;
        }
        if any {
            self.learn(preimage, PreimageSource::Node);
        }
        Ok(())
    }

    fn open(
        &mut self,
        id: u64,
        preimage: Preimage,
        source: PreimageSource,
    ) -> Result<(), Untranslated> {
        self.book_mut(self.channel)?.opened.insert(id);
        self.learn(preimage, source);
        Ok(())
    }

    /// A preimage changes no facts.
    fn learn(&mut self, preimage: Preimage, source: PreimageSource) {
        let learned = Update::Preimage { preimage, source };
        self.told.push((self.channel, Told::Update(Box::new(learned))));
    }
}

const fn remote_id(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Remote, id }
}

pub(super) fn number(ldk: u64) -> Result<CommitmentNumber, Untranslated> {
    let number = super::update::FIRST_NUMBER.checked_sub(ldk);
    number
        .map(CommitmentNumber)
        .ok_or(Untranslated::Unreadable("a commitment number is out of range"))
}
