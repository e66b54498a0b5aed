//! `ChannelArbitrator`: everything that the log says of one channel, and `apply`, its only writer.
use crate::arbitrator::{
    BlockView, Change, ChannelEvent, FailReason, HandedOut, NoticeKey, PreimageSource, Refusal,
    TxKind, UpstreamDuty, UpstreamVerdict,
};
use crate::classify::{self, FundingSpend};
use crate::facts::{ChannelFacts, FundingCandidate, Htlc, HtlcRecord};
use crate::ids::{HtlcId, PaymentHash, Preimage};
use crate::ports::ScriptOwner;
use crate::units::{BlockHeight, BlockRef, CommitmentNumber, Confirmed, Tx};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Script, ScriptBuf, Txid};

/// Evidence of one channel. Phase, classification and claims are computed from it and the facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelArbitrator {
    pub(crate) intent: Option<Intent>,
    pub(crate) preimages: BTreeMap<(PaymentHash, PreimageSource), Preimage>,
    pub(crate) revoked_htlcs: BTreeMap<CommitmentNumber, Vec<(HtlcId, HtlcRecord)>>,
    pub(crate) scripts: BTreeMap<ScriptBuf, ScriptOwner>,
    /// Per-commitment points of commitments of ours that the facts do not hold.
    pub(crate) points: BTreeMap<CommitmentNumber, PublicKey>,
    /// Transactions that the node calls agreed mutual closes.
    pub(crate) agreed_closes: BTreeSet<Txid>,
    pub(crate) acts: Acts,
    pub(crate) chain: Vec<Confirmed<Tx>>,
}

/// The wish to fail the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The local commitment to do it with.
    pub commitment: CommitmentNumber,
    /// Who or what asked.
    pub reason: FailReason,
}

/// What we did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// Transactions handed out, oldest first.
    pub handed_out: Vec<HandedOut>,
    /// Those that the network refused.
    pub rejected: BTreeMap<Txid, Rejections>,
    /// Those of which nobody heard that the network has them: it could not be asked.
    pub unheard: BTreeSet<Txid>,
    /// Outputs of which an unconfirmed spend by somebody else was seen.
    pub contested: BTreeSet<OutPoint>,
    /// Outputs whose claims spoil a transaction for others, and what the network said.
    pub set_aside: BTreeMap<OutPoint, String>,
    /// Live commitments of the peer that were seen unconfirmed, and what they pay, oldest first.
    pub seen: Vec<(Tx, Amount)>,
    /// Children of these that the network missed an input of, and that were handed over once more since their parent
    /// was seen again: what they miss now is a coin.
    pub(crate) retried: BTreeSet<Txid>,
    /// Tip at which an agreed mutual close was seen unconfirmed: at first, or after it was gone.
    pub mutual_seen: Option<BlockHeight>,
    /// What the node was told upstream.
    pub upstream: BTreeMap<UpstreamDuty, UpstreamVerdict>,
    /// Of these, what it was told to fulfil after it had been told to fail it.
    pub revised: BTreeSet<UpstreamDuty>,
    /// Notices that need no repetition.
    pub acknowledged: BTreeSet<NoticeKey>,
    /// Events, in order; their index is their number.
    pub events: Vec<ChannelEvent>,
    /// Feerates that the operator asked for, in satoshis per 1000 weight units.
    pub bumps: BTreeMap<Option<OutPoint>, u64>,
    /// Heights by which the operator wants claims confirmed.
    pub deadlines: BTreeMap<Option<OutPoint>, BlockHeight>,
    /// What the operator wants claims to cost at most.
    pub budgets: BTreeMap<Option<OutPoint>, Amount>,
    /// Where the operator wants the value of claims to go.
    pub destinations: BTreeMap<Option<OutPoint>, ScriptBuf>,
}

/// Refusals of one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejections {
    /// Why it was refused last.
    pub why: Refusal,
    /// Tip at which it was first refused for that.
    pub last: BlockHeight,
}

impl ChannelArbitrator {
    /// The state after `change`: the only writer, live and on replay.
    #[must_use]
    pub fn apply(mut self, change: &Change) -> Self {
        match change {
            Change::FailRequested { commitment, reason } => {
                self.intent.get_or_insert(Intent { commitment: *commitment, reason: *reason });
            }
            Change::PreimageLearned { preimage, source } => {
                self.preimages.insert((preimage.hash(), *source), *preimage);
            }
            Change::RevokedHtlcsLoaded { number, htlcs } => {
                self.revoked_htlcs.insert(*number, htlcs.clone());
            }
            Change::ScriptsJudged(verdicts) => self.scripts.extend(verdicts.iter().cloned()),
            Change::PointLearned { number, point } => {
                self.points.insert(*number, *point);
            }
            Change::MutualCloseAgreed { txid } => {
                self.agreed_closes.insert(*txid);
            }
            Change::Spent(spent) => self.spent(spent),
            Change::Disconnected { fork_point } => {
                self.chain.retain(|tx| tx.at.height <= fork_point.height);
            }
            Change::HandedOut(_)
            | Change::Rejected { .. }
            | Change::Accepted { .. }
            | Change::Unheard { .. }
            | Change::Contested(_)
            | Change::SetAside { .. }
            | Change::CommitmentSeen { .. }
            | Change::MutualCloseSeen { .. }
            | Change::UpstreamTold { .. }
            | Change::NoticeAcknowledged(_)
            | Change::Announced(_)
            | Change::BumpRequested { .. }
            | Change::DeadlineRequested { .. }
            | Change::BudgetRequested { .. }
            | Change::DestinationRequested { .. } => self.acts.apply(change),
        }
        self
    }

    /// The state after all of `changes`, in order.
    #[must_use]
    pub fn replay<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        changes.into_iter().fold(Self::default(), Self::apply)
    }

    fn spent(&mut self, spent: &Confirmed<Tx>) {
        let txid = spent.value.txid();
        self.chain.retain(|known| known.value.txid() != txid);
        self.chain.push(spent.clone());
    }

    /// Whether `history`, the whole past of the channel, holds all of the chain evidence.
    pub(crate) fn is_confirmed_by(&self, history: &[BlockView]) -> bool {
        self.chain.iter().all(|known| {
            history
                .iter()
                .any(|view| view.at == known.at && view.transactions.contains(&known.value))
        })
    }

    /// Whether there is nothing to remember: the channel is open and quiet.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a local commitment may be on its way to the chain: no newer one is accepted.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.intent.is_some()
    }

    /// The intent to fail the channel.
    #[must_use]
    pub const fn intent(&self) -> Option<&Intent> {
        self.intent.as_ref()
    }

    /// What was done so far.
    #[must_use]
    pub const fn acts(&self) -> &Acts {
        &self.acts
    }

    /// The confirmed spend of `outpoint`, and the index of the input that spends it.
    #[must_use]
    pub fn spender(&self, outpoint: &OutPoint) -> Option<(&Confirmed<Tx>, usize)> {
        self.chain.iter().find_map(|tx| {
            let index = tx.value.input.iter().position(|i| i.previous_output == *outpoint)?;
            Some((tx, index))
        })
    }

    /// Confirmed splices: transactions that spend one funding candidate and make another, in order
    /// of their blocks.
    pub(crate) fn splices<'a>(
        &'a self,
        facts: &'a ChannelFacts,
    ) -> impl Iterator<Item = &'a Confirmed<Tx>> {
        let several = facts.candidates.iter().nth(1).is_some();
        let candidates = facts.candidates.iter().filter(move |_| several);
        let spends = candidates.filter_map(|candidate| {
            let (tx, _) = self.spender(&candidate.funding)?;
            classify::splice_of(facts, candidate, &tx.value).map(|_| tx)
        });
        let mut splices: Vec<_> = spends.collect();
        splices.sort_by_key(|tx| tx.at.height);
        splices.into_iter()
    }

    /// The candidate whose commitment of ours can still close the channel: the one that confirmed
    /// last, as far as blocks say, else the current one; or another that may be in its place while
    /// the network refuses its commitment. If it refuses all, those in turn that pay too little for it, for of the
    /// others there is nothing to be spent. `None`: we revoked what there is.
    pub(crate) fn closing_candidate<'a>(
        &self,
        facts: &'a ChannelFacts,
        tip: BlockHeight,
    ) -> Option<&'a FundingCandidate> {
        if facts.candidates.iter().nth(1).is_none() {
            return Some(&facts.candidates.current);
        }
        let made: Vec<Txid> = self.splices(facts).map(|tx| tx.value.txid()).collect();
        let unspent = |c: &&FundingCandidate| self.spender(&c.funding).is_none();
        let usable = |c: &&FundingCandidate| unspent(c) && facts.unrevoked_local(c).is_some();
        let confirmed = |c: &&FundingCandidate| made.contains(&c.funding.txid);
        let all: Vec<_> = if made.is_empty() {
            facts.candidates.iter().filter(usable).collect()
        } else {
            // Another splice may hold the place of what confirmed.
            let goes_on = |c: &&FundingCandidate| {
                facts.candidates.moving().any(|moving| moving.funding == c.funding)
            };
            let last = facts.candidates.iter().filter(usable).find(confirmed);
            let next = facts.candidates.iter().filter(usable).filter(goes_on);
            last.into_iter().chain(next.filter(|c| !confirmed(c))).collect()
        };
        if let Some(open) = all.iter().find(|c| self.refusals(c.funding).next().is_none()) {
            return Some(open);
        }
        let too_low =
            |c: &&FundingCandidate| self.refusals(c.funding).all(|why| why == Refusal::Fee);
        let cheap: Vec<_> = all.iter().copied().filter(too_low).collect();
        let all = if cheap.is_empty() { all } else { cheap };
        let turn = usize::try_from(tip.0).ok().and_then(|tip| tip.checked_rem(all.len()));
        turn.and_then(|turn| all.get(turn)).copied()
    }

    /// Why the network refused our commitments for this funding output, if it did.
    fn refusals(&self, funding: OutPoint) -> impl Iterator<Item = Refusal> {
        let commitments = self.acts.claims_of(funding).filter(|o| o.kind == TxKind::Commitment);
        commitments.filter_map(|out| self.acts.rejected.get(&out.txid())).map(|refused| refused.why)
    }

    /// Whether a candidate may still matter: a block holds a spend of it or the transaction that
    /// made it, or a commitment of it was handed out.
    pub(crate) fn needs(&self, funding: &OutPoint) -> bool {
        let made = self.chain.iter().any(|tx| tx.value.txid() == funding.txid);
        made || self.spender(funding).is_some() || self.acts.claims_of(*funding).next().is_some()
    }

    /// The revoked commitment whose HTLCs must be loaded: of the peer's, or of one that looks like
    /// ours, or nobody's, only as long as they are not known. `shaped` is the number that the transaction bears if it
    /// is shaped like a commitment.
    pub(crate) fn awaits_penalty_data(
        &self,
        facts: &ChannelFacts,
        spend: FundingSpend,
        shaped: impl FnOnce() -> Option<CommitmentNumber>,
    ) -> Option<CommitmentNumber> {
        let number = match spend {
            FundingSpend::RevokedCommitment(number) => number,
            FundingSpend::OutdatedLocalCommitment(number) => {
                facts.secrets.get(number).map(|_| number)?
            }
            FundingSpend::MutualClose
            | FundingSpend::LocalCommitment(_)
            | FundingSpend::RemoteCommitment(_)
            | FundingSpend::NewerLocalCommitment(_)
            | FundingSpend::FutureCommitment(_)
            | FundingSpend::Splice(_) => return None,
            // Both balances may be trimmed: then its HTLCs alone tell what it is.
            FundingSpend::Unknown => {
                let revoked = facts.candidates.current.remote.number;
                let number = shaped().filter(|number| *number < revoked)?;
                facts.secrets.get(number).map(|_| number)?
            }
        };
        (!self.revoked_htlcs.contains_key(&number)).then_some(number)
    }

    /// Every confirmed transaction that the evidence rests on, and its block, in order of arrival.
    pub fn confirmed(&self) -> impl Iterator<Item = (Txid, BlockRef)> {
        self.chain.iter().map(|tx| (tx.value.txid(), tx.at))
    }

    /// The terms of an HTLC, live or of a revoked commitment that confirmed.
    pub(crate) fn terms<'a>(&'a self, facts: &'a ChannelFacts, id: HtlcId) -> Option<&'a Htlc> {
        let live = facts.htlcs.get(&id);
        let ended = || self.revoked_htlcs.values().flatten().find(|(known, _)| *known == id);
        live.or_else(|| ended().map(|(_, record)| record)).map(|record| &record.htlc)
    }

    /// A preimage that upstream duties of offered HTLCs with this hash may use: learned
    /// downstream on this channel, or the node's own.
    #[must_use]
    pub fn upstream_preimage(&self, hash: PaymentHash) -> Option<Preimage> {
        self.sources(hash).find_map(|(source, preimage)| match source {
            PreimageSource::Node | PreimageSource::Downstream(_) => Some(preimage),
            PreimageSource::Linked(_) => None,
        })
    }

    /// A preimage learned downstream on this channel: serves the linked incoming HTLCs.
    #[must_use]
    pub fn downstream_preimage(&self, hash: PaymentHash) -> Option<Preimage> {
        self.sources(hash).find_map(|(source, preimage)| match source {
            PreimageSource::Downstream(_) => Some(preimage),
            PreimageSource::Node | PreimageSource::Linked(_) => None,
        })
    }

    /// Whether this very piece of knowledge is there already.
    #[must_use]
    pub fn knows(&self, preimage: &Preimage, source: PreimageSource) -> bool {
        self.preimages.contains_key(&(preimage.hash(), source))
    }

    /// Whose a script is, if the node was asked.
    #[must_use]
    pub fn owner_of(&self, script: &Script) -> Option<ScriptOwner> {
        self.scripts.get(script).copied()
    }

    /// Everything known of a hash.
    pub(crate) fn sources(
        &self,
        hash: PaymentHash,
    ) -> impl Iterator<Item = (PreimageSource, Preimage)> {
        self.preimages
            .iter()
            .filter(move |((known, _), _)| *known == hash)
            .map(|((_, source), preimage)| (*source, *preimage))
    }
}

impl Acts {
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::HandedOut(out) => {
                let txid = out.txid();
                let is_back = self.is_back(out);
                match self.handed_out.iter_mut().find(|known| known.txid() == txid) {
                    None => self.handed_out.push((**out).clone()),
                    Some(_) if is_back => {
                        self.handed_out.retain(|known| known.txid() != txid);
                        self.handed_out.push((**out).clone());
                    }
                    Some(known) if known.transaction != out.transaction => {
                        // Its price was first paid when it was first signed.
                        known.transaction = out.transaction.clone();
                        self.rejected.remove(&txid);
                    }
                    Some(_) => {}
                }
            }
            Change::Rejected { txid, why, at } => {
                self.rejected.insert(*txid, Rejections { why: *why, last: *at });
                self.unheard.remove(txid);
            }
            Change::Unheard { txid } => {
                self.unheard.insert(*txid);
            }
            Change::Accepted { txid } => {
                self.rejected.remove(txid);
                self.unheard.remove(txid);
                self.retried.remove(txid);
                let claims = self.ours(*txid).map(|out| out.claims.clone()).unwrap_or_default();
                self.set_aside.retain(|outpoint, _| !claims.contains(outpoint));
            }
            Change::Contested(outpoint) => {
                self.contested.insert(*outpoint);
            }
            Change::SetAside { outpoint, why } => {
                self.set_aside.insert(*outpoint, why.clone());
            }
            Change::CommitmentSeen { transaction, fee } => {
                let txid = transaction.compute_txid();
                // Once it is back, what missed it may be accepted.
                let back: Vec<Txid> = self.missing(txid).collect();
                self.rejected.retain(|refused, _| !back.contains(refused));
                self.retried.extend(back);
                self.seen.retain(|(known, _)| known.txid() != txid);
                self.seen.push(((**transaction).clone(), *fee));
            }
            Change::MutualCloseSeen { at } => self.mutual_seen = Some(*at),
            Change::UpstreamTold { duty, verdict } => {
                if self.may_be_told(duty, *verdict)
                    && self.upstream.insert(*duty, *verdict).is_some()
                {
                    self.revised.insert(*duty);
                }
            }
            Change::NoticeAcknowledged(key) => {
                self.acknowledged.insert(*key);
            }
            Change::Announced(event) => self.events.push(*event),
            Change::BumpRequested { outpoint, sat_per_kwu } => {
                self.bumps.insert(*outpoint, *sat_per_kwu);
            }
            Change::DeadlineRequested { outpoint, deadline } => {
                self.deadlines.insert(*outpoint, *deadline);
            }
            Change::BudgetRequested { outpoint, budget } => {
                self.budgets.insert(*outpoint, *budget);
            }
            Change::DestinationRequested { outpoint, script } => {
                self.destinations.insert(*outpoint, script.clone());
            }
            Change::FailRequested { .. }
            | Change::PreimageLearned { .. }
            | Change::RevokedHtlcsLoaded { .. }
            | Change::ScriptsJudged(_)
            | Change::PointLearned { .. }
            | Change::MutualCloseAgreed { .. }
            | Change::Spent(_)
            | Change::Disconnected { .. } => {}
        }
    }

    /// What the node was told upstream of an offered HTLC with these terms. What it was told of another
    /// that both parties forgot, and whose id this one has, does not count.
    #[must_use]
    pub fn told(&self, htlc: HtlcId, terms: &Htlc) -> Option<UpstreamVerdict> {
        self.upstream.get(&UpstreamDuty::of(htlc, terms)).copied()
    }

    /// Whether the node may still be told this. A verdict stands, but one: as long as nobody has acknowledged
    /// that the HTLC was failed, it is fulfilled with a preimage that turns up.
    pub(crate) fn may_be_told(&self, duty: &UpstreamDuty, verdict: UpstreamVerdict) -> bool {
        match (self.upstream.get(duty), verdict) {
            (None, _) => true,
            (Some(UpstreamVerdict::Failed), UpstreamVerdict::Fulfilled) => {
                !self.acknowledged.contains(&NoticeKey::Upstream(*duty))
            }
            (Some(_), _) => false,
        }
    }

    /// The earlier of a claim's own deadline and those that the operator asked for. What opens later
    /// than one that was asked for was not meant: it would begin at the highest price. Nor does one that is past
    /// take the place of the claim's own that is not: the claim would be priced as one that has missed it.
    #[must_use]
    pub fn deadline_of(
        &self,
        outpoint: OutPoint,
        open_at: BlockHeight,
        own: Option<BlockHeight>,
        tip: BlockHeight,
    ) -> Option<BlockHeight> {
        let asked = [Some(outpoint), None].map(|of| self.deadlines.get(&of).copied());
        let is_meant = |asked: &BlockHeight| {
            *asked > open_at && (*asked > tip || own.is_none_or(|own| own <= tip))
        };
        asked.into_iter().flatten().filter(is_meant).chain(own).min()
    }

    /// Whether a transaction that was signed before is signed again in place of a newer one, and nobody was heard to have the one or the
    /// other: it is the newest from then on. (Else it is an old signature that comes late.)
    #[must_use]
    pub(crate) fn is_back(&self, out: &HandedOut) -> bool {
        let txid = out.txid();
        let in_its_place = |outpoint| {
            let newest = self.claims_of(outpoint).next_back().map(HandedOut::txid);
            newest.is_some_and(|newest| {
                newest != txid && (self.unheard.contains(&newest) || self.unheard.contains(&txid))
            })
        };
        self.ours(txid).is_some() && out.claims.iter().copied().any(in_its_place)
    }

    /// Whether the network refused a transaction of ours or was not heard about it, or a claim of it is set aside.
    #[must_use]
    pub fn is_doubted(&self, txid: Txid) -> bool {
        let set_aside = |out: &HandedOut| {
            out.claims.iter().any(|outpoint| self.set_aside.contains_key(outpoint))
        };
        self.rejected.contains_key(&txid)
            || self.unheard.contains(&txid)
            || self.ours(txid).is_some_and(set_aside)
    }

    /// What the operator wants the claim of an output to cost at most.
    #[must_use]
    pub fn budget_of(&self, outpoint: OutPoint) -> Option<Amount> {
        self.budgets.get(&Some(outpoint)).or_else(|| self.budgets.get(&None)).copied()
    }

    /// Children of ours of this transaction for which the network misses an input: the parent, for all that is known.
    fn missing(&self, parent: Txid) -> impl Iterator<Item = Txid> {
        let spends =
            move |out: &&HandedOut| out.claims.iter().any(|outpoint| outpoint.txid == parent);
        let misses = |txid: &Txid| {
            let refused = self.rejected.get(txid);
            let misses = refused.is_some_and(|refused| refused.why == Refusal::Conflict);
            misses && !self.retried.contains(txid)
        };
        self.handed_out.iter().filter(spends).map(HandedOut::txid).filter(misses)
    }

    /// Whether the network misses an input of a child of ours of this transaction, which may be that transaction. If
    /// it is in the mempool, the child is to be handed over once more.
    #[must_use]
    pub fn misses(&self, parent: Txid) -> bool {
        self.missing(parent).next().is_some()
    }

    /// Where the operator wants the value of a claim to go: what was said of the output, of that of the HTLC whose second
    /// stage made it, or of the channel.
    #[must_use]
    pub fn destination_of(&self, outpoint: OutPoint, htlc: Option<OutPoint>) -> Option<&ScriptBuf> {
        let said_of = |of| self.destinations.get(&of);
        let of_htlc = || htlc.and_then(|htlc| said_of(Some(htlc)));
        said_of(Some(outpoint)).or_else(of_htlc).or_else(|| said_of(None))
    }

    /// Transactions of ours that claim `outpoint`, oldest first.
    pub fn claims_of(&self, outpoint: OutPoint) -> impl DoubleEndedIterator<Item = &HandedOut> {
        self.handed_out.iter().filter(move |out| out.claims.contains(&outpoint))
    }

    /// A transaction of ours by its txid.
    #[must_use]
    pub fn ours(&self, txid: Txid) -> Option<&HandedOut> {
        self.handed_out.iter().find(|out| out.txid() == txid)
    }

    /// Transactions of ours of this kind.
    pub fn of_kind(&self, kind: TxKind) -> impl Iterator<Item = &HandedOut> {
        self.handed_out.iter().filter(move |out| out.kind == kind)
    }
}
