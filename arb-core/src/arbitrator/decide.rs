//! `decide`: what an input means, as changes. Total: no `Result`, no panic.
use crate::arbitrator::{
    BlockView, Change, ChannelArbitrator, ChannelEvent, FailReason, Input, NoticeKey,
    PreimageSource,
};
use crate::arbitrator::{event, upstream};
use crate::classify::{self, FundingSpend};
use crate::facts::{ChannelFacts, HtlcRecord, Link, Standing};
use crate::ids::{HtlcId, PaymentHash, Preimage, Side};
use crate::picture::Picture;
use crate::policy::Policy;
use crate::ports::ScriptOwner;
use crate::units::{BlockHeight, CommitmentNumber, Confirmed, Tx};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxIn, TxOut};

/// Characters of the network's words that are logged.
const LONGEST_REASON: usize = 200;

/// What deciding needs besides facts and evidence.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The tip, with the input's block connected.
    pub tip: BlockHeight,
    /// Whether that is the tip of the source as well.
    pub position: Position,
    /// Settings.
    pub policy: Policy,
    /// Whether the facts are the newest that exist.
    pub standing: Standing,
    /// Whether the peer is connected, if the node said so.
    pub link: Option<Link>,
    /// Least feerate that the network relays.
    pub floor: FeeRate,
    /// Since which tip the mempool has held an agreed mutual close; `None`: it holds none.
    pub mutual_close: Option<BlockHeight>,
}

/// Whether the block source has more blocks to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The engine is at the source's tip.
    AtTip,
    /// More blocks are to come: evidence is gathered, nothing is decided by height.
    CatchingUp,
}

impl ChannelArbitrator {
    /// What `input` means: the changes that it leads to, in order.
    #[must_use]
    pub fn decide(&self, facts: &ChannelFacts, input: &Input, now: &Now) -> Vec<Change> {
        let picture = Picture::of(facts, self).map(Arc::new);
        self.decide_by(facts, picture, input, now).changes
    }

    /// As [`Self::decide`], with the picture that belongs to this state.
    pub(crate) fn decide_by(
        &self,
        facts: &ChannelFacts,
        picture: Option<Arc<Picture>>,
        input: &Input,
        now: &Now,
    ) -> Decided {
        let mut draft =
            Draft { facts, now, state: self.clone(), changes: Vec::new(), picture: Some(picture) };
        draft.take(input);
        draft.follow_up();
        let picture = draft.picture();
        Decided { changes: draft.changes, state: draft.state, picture }
    }
}

/// Changes, and the state and picture that they lead to.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) changes: Vec<Change>,
    pub(crate) state: ChannelArbitrator,
    pub(crate) picture: Option<Arc<Picture>>,
}

/// Decisions under way: each change is applied at once, so that later ones see it.
struct Draft<'a> {
    facts: &'a ChannelFacts,
    now: &'a Now,
    state: ChannelArbitrator,
    changes: Vec<Change>,
    /// The picture of `state`; `None` when it must be computed anew.
    picture: Option<Option<Arc<Picture>>>,
}

impl Draft<'_> {
    fn push(&mut self, change: Change) {
        if alters_picture(&change) {
            self.picture = None;
        }
        self.state = core::mem::take(&mut self.state).apply(&change);
        self.changes.push(change);
    }

    fn take(&mut self, input: &Input) {
        match input {
            Input::BlockConnected(view) => self.block(view),
            Input::Disconnected { fork_point } => {
                if self.state.chain.iter().any(|tx| tx.at.height > fork_point.height) {
                    self.push(Change::Disconnected { fork_point: *fork_point });
                }
            }
            Input::Preimage { preimage, source } => self.learn(preimage, *source),
            Input::SeenInMempool(tx) => {
                let txid = tx.compute_txid();
                if self.state.acts.unheard.contains(&txid) {
                    self.push(Change::Accepted { txid });
                }
                let picture = self.picture();
                match &picture {
                    Some(picture) => self.extract_preimages(tx, Some(picture)),
                    None => self.preimages_of_any_input(tx),
                }
                self.contest(tx, picture.as_deref());
                self.early_mutual(tx);
                self.see_commitment(tx);
            }
            Input::Fail(reason) => self.fail(*reason),
            Input::FactsUpdated => {}
            Input::RevokedHtlcsLoaded { number, htlcs } => self.loaded(*number, htlcs),
            Input::ScriptsJudged(verdicts) => self.judged(verdicts),
            Input::PointLearned { number, point } => {
                if self.state.points.get(number) != Some(point) {
                    self.push(Change::PointLearned { number: *number, point: *point });
                }
            }
            Input::Signed(out) => {
                // Other signatures make another witness, and the same id.
                let acts = &self.state.acts;
                let known = acts.ours(out.txid());
                if known.is_none_or(|known| known.transaction != out.transaction)
                    || acts.is_back(out)
                {
                    self.push(Change::HandedOut(out.clone()));
                }
            }
            Input::Rejected { txid, why } => {
                // What is refused at every block says so once.
                let known = self.state.acts.rejected.get(txid);
                if known.is_none_or(|known| known.why != *why) {
                    self.push(Change::Rejected { txid: *txid, why: *why, at: self.now.tip });
                }
            }
            Input::Unheard { txid } => {
                let acts = &self.state.acts;
                let is_ours = acts.ours(*txid).is_some();
                if is_ours && !acts.is_doubted(*txid) {
                    self.push(Change::Unheard { txid: *txid });
                }
            }
            Input::Accepted { txid } => {
                if self.state.acts.is_doubted(*txid) {
                    self.push(Change::Accepted { txid: *txid });
                }
            }
            Input::Budget { outpoint, budget } => {
                let (outpoint, budget) = (*outpoint, *budget);
                self.push(Change::BudgetRequested { outpoint, budget });
            }
            Input::Destination { outpoint, script } => {
                let (outpoint, script) = (*outpoint, script.clone());
                self.push(Change::DestinationRequested { outpoint, script });
            }
            Input::SetAside { outpoint, why } => {
                if !self.state.acts.set_aside.contains_key(outpoint) {
                    // Whatever a node says: one line of it is enough.
                    let why = why.chars().take(LONGEST_REASON).collect();
                    self.push(Change::SetAside { outpoint: *outpoint, why });
                }
            }
            Input::NoticeAcknowledged(key) => {
                let acts = &self.state.acts;
                // Of an HTLC that has left the channel there is nothing to be acknowledged any more.
                let is_moot =
                    matches!(key, NoticeKey::Upstream(duty) if !acts.upstream.contains_key(duty));
                if !acts.acknowledged.contains(key) && !is_moot {
                    self.push(Change::NoticeAcknowledged(*key));
                }
            }
            Input::Bump { outpoint, sat_per_kwu } => {
                let (outpoint, sat_per_kwu) = (*outpoint, *sat_per_kwu);
                self.push(Change::BumpRequested { outpoint, sat_per_kwu });
            }
            Input::Hurry { outpoint, deadline } => {
                if self.state.acts.deadlines.get(outpoint) != Some(deadline) {
                    let (outpoint, deadline) = (*outpoint, *deadline);
                    self.push(Change::DeadlineRequested { outpoint, deadline });
                }
            }
            Input::MutualCloseAgreed(txid) => {
                if !self.state.agreed_closes.contains(txid) {
                    self.push(Change::MutualCloseAgreed { txid: *txid });
                }
            }
        }
    }

    fn picture(&mut self) -> Option<Arc<Picture>> {
        let compute = || Picture::of(self.facts, &self.state).map(Arc::new);
        self.picture.get_or_insert_with(compute).clone()
    }

    /// What follows from any input: deadlines, upstream verdicts, events.
    fn follow_up(&mut self) {
        let picture = self.picture();
        let at_tip = self.now.position == Position::AtTip;
        if at_tip
            && picture.is_none()
            && self.state.intent.is_none()
            && let Some(reason) = past_deadline(self.facts, &self.state, self.now)
        {
            self.fail(reason);
        }
        let policy = &self.now.policy;
        let due = upstream::due(self.facts, &self.state, picture.as_deref(), self.now, policy);
        for (duty, verdict) in due {
            self.push(Change::UpstreamTold { duty, verdict });
        }
        self.announce();
    }

    /// Brings what subscribers were told up to what is so.
    fn announce(&mut self) {
        let picture = self.picture();
        let disconnected = self.disconnected();
        for event in event::due(self.facts, &self.state, picture.as_deref(), self.now, disconnected)
        {
            self.push(Change::Announced(event));
        }
    }

    fn fail(&mut self, reason: FailReason) {
        let outdated = self.now.standing == Standing::Outdated;
        if outdated || self.state.intent.is_some() || self.picture().is_some() {
            return;
        }
        let commitment = self.facts.candidates.current.local.number;
        self.push(Change::FailRequested { commitment, reason });
    }

    fn learn(&mut self, preimage: &Preimage, source: PreimageSource) {
        if !self.state.knows(preimage, source) {
            self.push(Change::PreimageLearned { preimage: *preimage, source });
        }
    }

    /// Penalty data is added to what is known: an HTLC may end after the rest was loaded, when the
    /// peer's last revocation reaches us after the close.
    fn loaded(&mut self, number: CommitmentNumber, htlcs: &[(HtlcId, HtlcRecord)]) {
        let known = self.state.revoked_htlcs.get(&number);
        let is_known = |id: &HtlcId| known.is_some_and(|all| all.iter().any(|(k, _)| k == id));
        let more = htlcs.iter().filter(|(id, _)| !is_known(id)).copied();
        let all: Vec<_> = known.into_iter().flatten().copied().chain(more).collect();
        if known != Some(&all) {
            self.push(Change::RevokedHtlcsLoaded { number, htlcs: all });
        }
    }

    /// Verdicts on scripts: a later one takes the place of an earlier.
    fn judged(&mut self, verdicts: &[(ScriptBuf, ScriptOwner)]) {
        let is_new = |(script, owner): &&(ScriptBuf, ScriptOwner)| {
            self.state.owner_of(script) != Some(*owner)
        };
        let news: Vec<_> = verdicts.iter().filter(is_new).cloned().collect();
        if !news.is_empty() {
            self.push(Change::ScriptsJudged(news));
        }
    }

    fn block(&mut self, view: &BlockView) {
        // In the order in which the transactions would be told of one by one.
        self.announce();
        for tx in &view.transactions {
            // Judged by the state that its predecessors in the block leave: a commitment and the
            // transactions that spend it may share one.
            let picture = self.picture();
            if !self.concerns_us(tx, picture.as_deref()) || self.is_recorded(tx, view) {
                continue;
            }
            self.extract_preimages(tx, picture.as_deref());
            let spent = Confirmed { at: view.at, value: tx.clone().into() };
            self.push(Change::Spent(Box::new(spent)));
            self.announce();
        }
    }

    fn is_recorded(&self, tx: &Transaction, view: &BlockView) -> bool {
        let txid = tx.compute_txid();
        let same = |known: &Confirmed<Tx>| known.at == view.at && known.value.txid() == txid;
        self.state.chain.iter().any(same)
    }

    fn concerns_us(&self, tx: &Transaction, picture: Option<&Picture>) -> bool {
        let mut of_interest: BTreeSet<OutPoint> = classify::fundings(self.facts).collect();
        of_interest.extend(picture.into_iter().flat_map(Picture::watched));
        tx.input.iter().any(|input| of_interest.contains(&input.previous_output))
    }

    /// Preimages in the witnesses of a transaction that spends the channel's outputs, each
    /// checked against the hash of an HTLC that we offered (BOLT 5 LL1, RL1, V8).
    fn extract_preimages(&mut self, tx: &Transaction, picture: Option<&Picture>) {
        let Some(picture) = picture else { return };
        for input in &tx.input {
            let spends = |o: &&crate::picture::Output| o.outpoint == input.previous_output;
            let Some(output) = picture.outputs.iter().find(spends) else { continue };
            self.preimages_of(input, output.role.htlc());
        }
    }

    /// Of what spends the outputs of a commitment that has no block yet. There is no picture of these; but a
    /// preimage is one, whichever output it opens.
    fn preimages_of_any_input(&mut self, tx: &Transaction) {
        for input in &tx.input {
            self.preimages_of(input, None);
        }
    }

    fn preimages_of(&mut self, input: &TxIn, named: Option<HtlcId>) {
        for element in input.witness.iter() {
            let Ok(bytes) = <[u8; 32]>::try_from(element) else { continue };
            let preimage = Preimage(bytes);
            if let Some(id) = self.offered_with(preimage.hash(), named) {
                self.learn(&preimage, PreimageSource::Downstream(id));
            }
        }
    }

    /// Another's unconfirmed spend of what we claim or may claim, an anchor that goes home with
    /// something else included: whatever else our transaction claimed left the mempool with it.
    fn contest(&mut self, tx: &Transaction, picture: Option<&Picture>) {
        let Some(picture) = picture else { return };
        if self.state.acts.ours(tx.compute_txid()).is_some() {
            return;
        }
        for input in &tx.input {
            let outpoint = input.previous_output;
            let on_its_way = self.state.acts.claims_of(outpoint).next().is_some();
            let open = |output: &crate::picture::Output| {
                let claimed = output.may_be_claimed() || on_its_way;
                output.outpoint == outpoint && output.spent.is_none() && claimed
            };
            let known = self.state.acts.contested.contains(&outpoint);
            if !known && picture.outputs.iter().any(open) {
                self.push(Change::Contested(outpoint));
            }
        }
    }

    /// The offered HTLC that a preimage found on chain opens: the one whose output was spent, or
    /// any with that hash where outputs cannot be told apart.
    fn offered_with(&self, hash: PaymentHash, named: Option<HtlcId>) -> Option<HtlcId> {
        let ours = |id: &HtlcId| id.offerer == Side::Local;
        let live = |id: &HtlcId| self.facts.htlcs.get(id).is_some_and(|r| r.htlc.hash == hash);
        let exact = named.filter(|id| ours(id) && live(id));
        exact.or_else(|| self.facts.htlcs.keys().find(|id| ours(id) && live(id)).copied())
    }

    fn early_mutual(&mut self, tx: &Transaction) {
        let told = event::is_told(&self.state);
        let known = self.now.mutual_close.is_some()
            || self.state.acts.mutual_seen == Some(self.now.tip)
            || self.picture().is_some();
        if told && known {
            return;
        }
        let secp = bitcoin::secp256k1::Secp256k1::new();
        let spends = |outpoint: OutPoint| tx.input.iter().any(|i| i.previous_output == outpoint);
        let mutual = self.facts.candidates.iter().filter(|c| spends(c.funding)).any(|candidate| {
            classify::classify(self.facts, &self.state, candidate, tx, &secp).spend()
                == FundingSpend::MutualClose
        });
        if mutual && !known {
            self.push(Change::MutualCloseSeen { at: self.now.tip });
        }
        if mutual && !told {
            self.push(Change::Announced(ChannelEvent::EarlyMutual));
        }
    }

    /// The peer's commitment in the mempool, if we can pay for it.
    fn see_commitment(&mut self, tx: &Transaction) {
        let txid = tx.compute_txid();
        let known = |(seen, _): &(Tx, _)| seen.txid() == txid;
        let known = self.state.acts.seen.iter().any(known);
        if self.picture().is_some() || (known && !self.state.acts.misses(txid)) {
            return;
        }
        let Some((candidate, _)) = classify::remote_anchor(self.facts, &self.state, tx) else {
            return;
        };
        let given = |sum: Amount, output: &TxOut| sum.checked_add(output.value);
        let given = tx.output.iter().try_fold(Amount::ZERO, given);
        if let Some(fee) = given.and_then(|given| candidate.capacity.checked_sub(given)) {
            self.push(Change::CommitmentSeen { transaction: Box::new(tx.clone().into()), fee });
        }
    }

    /// Whether this input took chain evidence away.
    fn disconnected(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Disconnected { .. }))
    }
}

/// Whether a change may alter the picture.
const fn alters_picture(change: &Change) -> bool {
    match change {
        Change::PreimageLearned { .. }
        | Change::RevokedHtlcsLoaded { .. }
        | Change::ScriptsJudged(_)
        | Change::PointLearned { .. }
        | Change::HandedOut(_)
        | Change::MutualCloseAgreed { .. }
        | Change::Spent(_)
        | Change::Disconnected { .. } => true,
        Change::FailRequested { .. }
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
        | Change::DestinationRequested { .. } => false,
    }
}

/// The deadline of BOLT 2 that is past at this tip, if any (B4, B5).
fn past_deadline(facts: &ChannelFacts, state: &ChannelArbitrator, now: &Now) -> Option<FailReason> {
    deadlines(facts, state, &now.policy)
        .filter(|(tip, _)| now.tip >= *tip)
        .map(|(_, reason)| reason)
        .next()
}

/// Every deadline that would fail the channel, with the tip at which it is past.
pub(crate) fn deadlines<'a>(
    facts: &'a ChannelFacts,
    state: &'a ChannelArbitrator,
    policy: &'a Policy,
) -> impl Iterator<Item = (BlockHeight, FailReason)> + 'a {
    let committed = facts.htlcs.iter().filter(|(id, _)| facts.is_committed(**id));
    committed.filter_map(move |(id, record)| {
        let htlc = &record.htlc;
        match id.offerer {
            Side::Local => {
                let tip = htlc.expiry.0.plus(policy.offered_grace);
                Some((tip, FailReason::OfferedDeadline(*id)))
            }
            Side::Remote => {
                crate::picture::usable_preimage(state, *id, htlc)?;
                let tip = htlc.expiry.0.minus(policy.fulfil_margin);
                Some((tip, FailReason::FulfilDeadline(*id)))
            }
        }
    })
}

/// The number of the local commitment that an intent holds the channel to.
impl ChannelArbitrator {
    /// The local commitment that was or may be handed out; no newer one is accepted.
    #[must_use]
    pub fn fenced_at(&self) -> Option<CommitmentNumber> {
        self.intent.map(|intent| intent.commitment)
    }
}
