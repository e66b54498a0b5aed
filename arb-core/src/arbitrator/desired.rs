//! `desired`: what should be true outside, level-triggered.
use crate::arbitrator::{
    Alert, ChannelArbitrator, Effect, EffectKey, HandedOut, Notice, Now, Position, Refusal, TxKind,
    upstream,
};
use crate::claim::{
    AnchorLock, Claim, Deadline, Presigned, SigningKey, SingleSpend, SpendPath, Unlock,
};
use crate::classify::{self, FundingSpend};
use crate::facts::{ChannelFacts, FundingCandidate, Standing};
use crate::format::{Commitment, CommitmentOutput, OutputKind, commitment, scripts};
use crate::height::{Due, Reason};
use crate::ids::{HtlcId, Side};
use crate::picture::{Output, Picture, Role, Way};
use crate::policy::Policy;
use crate::units::{self, BlockDelta, BlockHeight};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, TxOut, absolute::LockTime};

/// Blocks after which anybody may take an anchor (BOLT 3 `to_local_anchor`).
pub(crate) const ANCHOR_FOR_ALL: BlockDelta = BlockDelta(16);

/// Everything that is desired, by identity.
pub type Desire = BTreeMap<EffectKey, Effect>;

impl ChannelArbitrator {
    /// What should be true of the outside world.
    #[must_use]
    pub fn desired(&self, facts: &ChannelFacts, now: &Now) -> Desire {
        self.desired_by(facts, Picture::of(facts, self).as_ref(), now)
    }

    pub(crate) fn desired_by(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Desire {
        let mut desire = Desire::new();
        match picture {
            Some(picture) => self.desired_closed(facts, picture, now, &mut desire),
            None => {
                for claim in self.commitment_claims(facts, now) {
                    let claim = self.as_asked(claim, None, now.tip);
                    desire.insert(EffectKey::Claim(claim.outpoint), Effect::Claim(Box::new(claim)));
                }
            }
        }
        let alerts = self.alerts(facts, picture, now).into_iter().map(Notice::Alert);
        let failing = self.intent.iter().map(|intent| Notice::Failing(intent.reason));
        for notice in upstream::notices(facts, self).chain(alerts).chain(failing) {
            if !self.acts.acknowledged.contains(&notice.key()) {
                desire.insert(EffectKey::Notify(notice.key()), Effect::Notify(notice));
            }
        }
        let deep = picture.is_some_and(|p| p.is_forgettable(now.tip, &now.policy));
        let notified = !desire.keys().any(|key| matches!(key, EffectKey::Notify(_)));
        if deep && notified && upstream::is_done(facts, self) {
            desire.insert(EffectKey::Forget, Effect::Forget);
        }
        desire
    }

    fn desired_closed(
        &self,
        facts: &ChannelFacts,
        picture: &Picture,
        now: &Now,
        desire: &mut Desire,
    ) {
        if let Some(number) = picture.unread {
            let effect = Effect::LoadRevokedHtlcs(number);
            desire.insert(EffectKey::LoadRevokedHtlcs(number), effect);
        }
        let scripts = self.open_scripts(facts, picture);
        if !scripts.is_empty() {
            desire.insert(EffectKey::JudgeScripts, Effect::JudgeScripts(scripts));
        }
        if let Some(missing) = picture.missing_point {
            let effect = Effect::AskPoint(missing.number);
            desire.insert(EffectKey::AskPoint(missing.number), effect);
        }
        for output in &picture.outputs {
            let reclaimed = || self.reclaimed(facts, picture, output, now);
            let Some(claim) = self.claim_of(facts, output, &now.policy).or_else(reclaimed) else {
                continue;
            };
            let claim = self.as_asked(claim, picture.htlc_of(output), now.tip);
            if claim.open_at <= now.tip {
                desire.insert(EffectKey::Claim(claim.outpoint), Effect::Claim(Box::new(claim)));
            }
        }
    }

    /// The local commitment that fails the channel, and the anchor that pays for it.
    fn commitment_claims(&self, facts: &ChannelFacts, now: &Now) -> Vec<Claim> {
        if now.standing == Standing::Outdated || self.is_held_back(facts, now) {
            return Vec::new();
        }
        let mut claims = self.local_claims(facts, now);
        if let Some(anchor) = self.seen_anchor(facts, &now.policy) {
            // One commitment is enough: we do not bid against ourselves. But what the network would
            // not have pays for nothing, until it is signed anew.
            if !self.is_to_be_made_anew(anchor.outpoint) {
                claims.retain(|claim| matches!(claim.path, SpendPath::LocalCommitment(_)));
            }
            claims.push(anchor);
        }
        claims
    }

    /// Whether a commitment of ours waits: an agreed mutual close is on its way, and there is no HTLC
    /// that could be lost meanwhile (BOLT 5 F4).
    pub(crate) fn is_held_back(&self, facts: &ChannelFacts, now: &Now) -> bool {
        let waits = |since: BlockHeight| since.until(now.tip).0 < now.policy.mutual_patience.0;
        now.mutual_close.is_some_and(waits) && self.stake(facts, &now.policy).is_nothing()
    }

    /// What the network says against our newest spend of an output.
    fn refusal_of(&self, outpoint: OutPoint) -> Option<Refusal> {
        let newest = self.acts.claims_of(outpoint).next_back()?;
        self.acts.rejected.get(&newest.txid()).map(|refused| refused.why)
    }

    /// Whether our newest spend of an output is refused, and another one may be accepted: it was signed wrongly, or
    /// misses a coin of the wallet's while its parent is there.
    fn is_to_be_made_anew(&self, outpoint: OutPoint) -> bool {
        self.refusal_of(outpoint).is_some_and(|refused| match refused {
            Refusal::Invalid => true,
            Refusal::Conflict => self.misses_a_coin(outpoint),
            Refusal::Fee => false,
        })
    }

    /// Whether our newest spend of an output was refused for an input that it misses, though its parent was seen.
    fn misses_a_coin(&self, outpoint: OutPoint) -> bool {
        let newest = self.acts.claims_of(outpoint).next_back();
        newest.is_some_and(|out| !out.coins.is_empty() && self.acts.retried.contains(&out.txid()))
    }

    /// Our anchor on a commitment of the peer that was seen unconfirmed, where it matters to us when
    /// that confirms, and unless the commitment is gone: our child of it misses an input, and it was not seen since.
    fn seen_anchor(&self, facts: &ChannelFacts, policy: &Policy) -> Option<Claim> {
        let stake = self.stake(facts, policy);
        let (deadline, value_at_risk) = (stake.deadline, stake.value);
        if self.intent.is_none() && deadline.is_none() {
            return None;
        }
        let anchors = self.acts.seen.iter().rev().filter_map(|(tx, _)| {
            let (candidate, anchor) = classify::remote_anchor(facts, self, tx)?;
            let outpoint = OutPoint { txid: tx.compute_txid(), vout: anchor.vout };
            Some((anchor_lock(candidate, &anchor), outpoint, anchor.output))
        });
        let is_gone = |outpoint| {
            self.refusal_of(outpoint) == Some(Refusal::Conflict) && !self.misses_a_coin(outpoint)
        };
        let standing: Vec<_> = anchors.filter(|anchor| !is_gone(anchor.1)).collect();
        let sound = standing.iter().find(|anchor| !self.is_to_be_made_anew(anchor.1));
        let (lock, outpoint, output) = sound.or(standing.first()).cloned()?;
        let balance = facts.candidates.current.local.local_balance.floor();
        Some(Claim {
            channel: facts.id,
            outpoint,
            output,
            path: SpendPath::Anchor {
                lock,
                parent: outpoint.txid,
                ours: units::plus(balance, value_at_risk),
                lost: stake.lost,
            },
            open_at: BlockHeight(0),
            deadline,
            value_at_risk,
            destination: facts.destination.clone(),
        })
    }

    fn local_claims(&self, facts: &ChannelFacts, now: &Now) -> Vec<Claim> {
        if self.intent.is_none() {
            return Vec::new();
        }
        let secp = Secp256k1::verification_only();
        let Some(candidate) = self.closing_candidate(facts, now.tip) else { return Vec::new() };
        let Ok(built) = commitment::local_commitment(facts, candidate, &candidate.local, &secp)
        else {
            return Vec::new();
        };
        let stake = self.stake(facts, &now.policy);
        let base = Claim {
            channel: facts.id,
            outpoint: candidate.funding,
            output: TxOut {
                value: candidate.capacity,
                script_pubkey: funding_script(candidate).to_p2wsh(),
            },
            path: SpendPath::LocalCommitment(Box::new(presigned(candidate, &built))),
            open_at: BlockHeight(0),
            deadline: stake.deadline,
            value_at_risk: stake.value,
            destination: facts.destination.clone(),
        };
        let anchor = anchor_claim(candidate, &built, &base, stake.lost);
        core::iter::once(base).chain(anchor).collect()
    }

    /// Scripts that decide whether an unexplained close is a mutual one, and of which the node has
    /// not said whose they are.
    pub(crate) fn open_scripts(&self, facts: &ChannelFacts, picture: &Picture) -> Vec<ScriptBuf> {
        let unknown = picture.spend == FundingSpend::Unknown;
        let spend = self.spender(&picture.funding).filter(|_| unknown);
        spend.map_or_else(Vec::new, |(tx, _)| classify::open_scripts(facts, self, &tx.value))
    }

    /// Whether what an unexplained close is may still be learned from the node or its signer: nothing is said
    /// about it for [`crate::policy::Policy::verdict_patience`].
    pub(crate) fn awaits_verdict(
        &self,
        facts: &ChannelFacts,
        picture: &Picture,
        now: &Now,
    ) -> bool {
        let patience = now.policy.verdict_patience;
        let over = crate::height::depth(picture.at.height, patience).is_open(now.tip);
        let may_be_ours = picture.missing_point.is_some_and(|point| !point.explains_nothing)
            && !matches!(picture.spend, FundingSpend::OutdatedLocalCommitment(_));
        !over && (may_be_ours || !self.open_scripts(facts, picture).is_empty())
    }

    pub(crate) fn alerts(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if now.standing == Standing::Outdated && picture.is_none() {
            alerts.push(Alert::OutdatedFacts);
        }
        if let Some(picture) = picture {
            match picture.spend {
                FundingSpend::Unknown
                    if picture.unread.is_some() || self.awaits_verdict(facts, picture, now) => {}
                FundingSpend::Unknown => alerts.push(Alert::UnknownSpend(picture.txid)),
                FundingSpend::FutureCommitment(_) | FundingSpend::NewerLocalCommitment(_) => {
                    alerts.push(Alert::DataLoss(picture.txid));
                }
                FundingSpend::OutdatedLocalCommitment(_) => {
                    alerts.push(Alert::OutdatedLocalCommitment(picture.txid));
                }
                FundingSpend::MutualClose
                | FundingSpend::LocalCommitment(_)
                | FundingSpend::RemoteCommitment(_)
                | FundingSpend::RevokedCommitment(_)
                | FundingSpend::Splice(_) => {}
            }
            let explained = self.explains(picture.spend);
            let nobody = |output: &Output| explained && matches!(output.way, Way::Lost);
            let lost = picture.outputs.iter().filter(|output| is_lost(output) || nobody(output));
            alerts.extend(lost.map(|output| Alert::OutputLost(output.outpoint)));
        }
        let late = upstream::known_too_late(facts, self);
        alerts.extend(late.map(|duty| Alert::PreimageAfterFail(duty.htlc)));
        alerts
    }

    /// Whether every output of such a spend should be known: what is not is lost, and a person must
    /// hear of it (BOLT 5 R2). Spends that are alerted as a whole are not among them.
    fn explains(&self, spend: FundingSpend) -> bool {
        match spend {
            FundingSpend::LocalCommitment(_) | FundingSpend::RemoteCommitment(_) => true,
            FundingSpend::RevokedCommitment(number) => self.revoked_htlcs.contains_key(&number),
            FundingSpend::MutualClose
            | FundingSpend::OutdatedLocalCommitment(_)
            | FundingSpend::NewerLocalCommitment(_)
            | FundingSpend::FutureCommitment(_)
            | FundingSpend::Splice(_)
            | FundingSpend::Unknown => false,
        }
    }

    fn claim_of(&self, facts: &ChannelFacts, output: &Output, policy: &Policy) -> Option<Claim> {
        let Way::Spend { path, due, .. } = &output.way else { return None };
        if output.spent.is_some() {
            return None;
        }
        let mut claim = Claim {
            channel: facts.id,
            outpoint: output.outpoint,
            output: output.output.clone(),
            path: path.clone(),
            open_at: due.tip,
            deadline: None,
            value_at_risk: output.output.value,
            destination: facts.destination.clone(),
        };
        let is_told = || self.is_told(facts, output.role.htlc());
        let deadline = self.deadline_in(facts, output, policy);
        claim.deadline = deadline.map(|by| match claim.kind() {
            TxKind::Penalty => {
                Deadline::Penalty { by, second_stage: self.rival_from(facts, output) }
            }
            TxKind::Commitment
            | TxKind::Anchor
            | TxKind::HtlcTimeout
            | TxKind::HtlcSuccess
            | TxKind::Claim
            | TxKind::Sweep => match is_told() {
                true => Deadline::Race(Some(by)),
                false => Deadline::By(by),
            },
        });
        Some(claim)
    }

    /// The deadline of an output's claim: of an HTLC that we offered, and that is still to be failed upstream, no later than the tip
    /// at which it is in any case, for nothing of it is saved by what confirms later. What is the cheater's is ours until its delay is over.
    pub(crate) fn deadline_in(
        &self,
        facts: &ChannelFacts,
        output: &Output,
        policy: &Policy,
    ) -> Option<BlockHeight> {
        let Way::Spend { path, deadline, .. } = &output.way else { return None };
        let is_penalty =
            matches!(path, SpendPath::Single(single) if single.kind == TxKind::Penalty);
        let id = output.role.htlc().filter(|id| id.offerer == Side::Local && !is_penalty);
        let id = id.filter(|id| !self.is_told(facts, Some(*id)));
        let terms = id.and_then(|id| self.terms(facts, id));
        let failed = terms.and_then(|terms| upstream::late_from(terms, policy));
        deadline.map(|by| failed.map_or(by, |failed| by.min(failed)))
    }

    /// Whether the node was told upstream what becomes of an HTLC that we offered.
    fn is_told(&self, facts: &ChannelFacts, htlc: Option<HtlcId>) -> bool {
        let Some(id) = htlc.filter(|id| id.offerer == Side::Local) else { return false };
        self.terms(facts, id).is_some_and(|terms| self.acts.told(id, terms).is_some())
    }

    /// The expiry of an HTLC that the peer offered, if it was to come when the commitment confirmed:
    /// before, the peer has no path for it.
    fn rival_from(&self, facts: &ChannelFacts, output: &Output) -> Option<BlockHeight> {
        let id = output.role.htlc().filter(|id| id.offerer == Side::Remote)?;
        let expiry = self.terms(facts, id)?.expiry.0;
        (expiry > output.at.height).then_some(expiry)
    }

    /// Every claim of a closed channel, open now or later; without those that are spent, and with
    /// its own deadline.
    #[must_use]
    pub fn claims(&self, facts: &ChannelFacts, picture: &Picture, policy: &Policy) -> Vec<Claim> {
        let claim = |output| self.claim_of(facts, output, policy);
        picture.outputs.iter().filter_map(claim).collect()
    }

    /// Every claim of a channel with its own deadline, whatever the operator asked for: of a closed
    /// one, as [`Self::claims`]; of a failing one, the commitment and the anchor that pays for it.
    #[must_use]
    pub fn own_claims(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Vec<Claim> {
        match picture {
            Some(picture) => self.claims(facts, picture, &now.policy),
            None => self.commitment_claims(facts, now),
        }
    }

    /// The claim with the deadline that the operator asked for, if that is earlier than its own and not past,
    /// and with the destination. `htlc`: the output of the HTLC whose second stage made the claim's.
    fn as_asked(&self, claim: Claim, htlc: Option<OutPoint>, tip: BlockHeight) -> Claim {
        let by = self.acts.deadline_of(claim.outpoint, claim.open_at, claim.due(), tip);
        let deadline = Deadline::hurried(claim.deadline, by);
        let asked = self.acts.destination_of(claim.outpoint, htlc).cloned();
        let destination = asked.unwrap_or_else(|| claim.destination.clone());
        Claim { deadline, destination, ..claim }
    }

    /// Our anchor, which has done its work, to go home with what is swept while nobody else can take
    /// it; and, once it is on its way so, until somebody has it.
    fn reclaimed(
        &self,
        facts: &ChannelFacts,
        picture: &Picture,
        output: &Output,
        now: &Now,
    ) -> Option<Claim> {
        let idle = output.spent.is_none() && matches!(output.way, Way::Nothing);
        let ours = matches!(output.role, Role::Anchor(Side::Local)) && idle;
        let for_all = crate::height::csv(output.at.height, ANCHOR_FOR_ALL);
        let sweep = self.acts.claims_of(output.outpoint).next_back();
        let sweep = sweep.filter(|out| out.kind == TxKind::Sweep);
        // What is refused goes on without it: nobody can hold our balance back by way of an anchor, and neither does a
        // child of ours that is still in the mempool.
        let is_refused = sweep.is_some_and(|out| self.acts.rejected.contains_key(&out.txid()));
        if !ours || is_refused || (for_all.is_open(now.tip) && sweep.is_none()) {
            return None;
        }
        let key = facts.candidates.get(&picture.funding)?.keys.local;
        let path = SpendPath::Single(Box::new(SingleSpend {
            kind: TxKind::Sweep,
            htlc: None,
            script: Some(scripts::anchor(&key)),
            unlock: Unlock::Nothing,
            key: SigningKey::Funding(key),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            lock_time: LockTime::ZERO,
            version: Version::TWO,
        }));
        Some(Claim {
            channel: facts.id,
            outpoint: output.outpoint,
            output: output.output.clone(),
            path,
            // It says nothing of how long anything has waited.
            open_at: now.tip,
            deadline: None,
            value_at_risk: Amount::ZERO,
            destination: facts.destination.clone(),
        })
    }

    /// The channel's next event: the earliest height at which something happens by itself, and why;
    /// where there is no such height, what hinders it most.
    #[must_use]
    pub(crate) fn awaits(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Option<Due> {
        let hindered = || {
            let reason = self.hindrance(facts, picture, now)?;
            Some(Due { tip: now.tip, until: now.tip, reason })
        };
        self.next_due(facts, picture, now).or_else(hindered)
    }

    /// Whether an output is left for now: a claim of it would cost more than it brings at the least
    /// feerate that is relayed, and the operator allows no more.
    pub(crate) fn is_too_dear(&self, output: &Output, now: &Now) -> bool {
        let dear =
            output.is_uneconomic_at(now.floor) && self.acts.budget_of(output.outpoint).is_none();
        dear || self.is_waiting(output, now)
    }

    /// Whether no transaction was made of what could be spent since the block before: what it may cost
    /// does not suffice today.
    fn is_waiting(&self, output: &Output, now: &Now) -> bool {
        let Way::Spend { due, .. } = &output.way else { return false };
        let was_open = now.position == Position::AtTip && due.tip < now.tip;
        was_open && self.acts.claims_of(output.outpoint).next().is_none()
    }

    /// What keeps a transaction of ours that is wanted now from its block.
    fn hindrance(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Option<Reason> {
        let Some(picture) = picture else {
            if self.intent.is_none() || now.standing == Standing::Outdated {
                return None;
            }
            let candidate = self.closing_candidate(facts, now.tip)?;
            let commitment = self.acts.claims_of(candidate.funding).next_back();
            let txid = commitment.map(|out| out.txid());
            let pays = |out: &HandedOut| {
                out.transaction.input.iter().any(|i| Some(i.previous_output.txid) == txid)
            };
            let child = self.acts.of_kind(TxKind::Anchor).filter(|out| pays(out)).last();
            let last = child.map(|out| out.txid()).or(txid);
            let refused = last.and_then(|txid| self.acts.rejected.get(&txid));
            let poor = refused.is_some_and(|refused| refused.why == Refusal::Fee);
            return Some(if poor { Reason::Uneconomic } else { Reason::Confirmation });
        };
        let open = picture.outputs.iter().filter(|output| {
            let spend = matches!(&output.way, Way::Spend { due, .. } if due.is_open(now.tip));
            spend && output.spent.is_none() && !matches!(output.role, Role::Anchor(_))
        });
        let of = |output: &Output| {
            let dear = self.is_too_dear(output, now);
            if dear { Reason::Uneconomic } else { Reason::Confirmation }
        };
        open.map(of).min()
    }

    /// When something happens next to this channel by height alone, and why.
    #[must_use]
    pub fn next_height(&self, facts: &ChannelFacts, now: &Now) -> Option<Due> {
        self.next_due(facts, Picture::of(facts, self).as_ref(), now)
    }

    pub(crate) fn next_due(
        &self,
        facts: &ChannelFacts,
        picture: Option<&Picture>,
        now: &Now,
    ) -> Option<Due> {
        let upstream = upstream::next(facts, self, picture, now.tip, &now.policy);
        let own = match picture {
            Some(picture) => picture.next_due(now.tip, &now.policy),
            None if self.intent.is_some() => None,
            None => {
                let all = super::decide::deadlines(facts, self, &now.policy);
                all.map(|(tip, _)| crate::height::deadline(tip)).min()
            }
        };
        own.into_iter().chain(upstream).min()
    }

    /// Whether a transaction of ours of this kind was handed out.
    #[must_use]
    pub fn has_handed_out(&self, kind: TxKind) -> bool {
        self.acts.of_kind(kind).next().is_some()
    }
}

/// Something that we had a way to claim, and the other took: an HTLC by a path that was open to
/// us as well.
fn is_lost(output: &Output) -> bool {
    let by_peer = output.spent.is_some_and(|spent| spent.by == Side::Remote);
    let open = match &output.way {
        Way::Spend { path: SpendPath::Single(single), .. } => {
            single.kind != TxKind::Penalty || !matches!(output.role, Role::Htlc(_))
        }
        Way::Spend { .. } => true,
        Way::Theirs | Way::Home | Way::Nothing | Way::NeedsPreimage { .. } | Way::Lost => false,
    };
    // A peer that claims what we offered with the preimage takes what is its due.
    let due = matches!(output.role, Role::Htlc(id) if id.offerer == Side::Local);
    by_peer && open && !due && !matches!(output.role, Role::Anchor(_))
}

fn funding_script(candidate: &FundingCandidate) -> ScriptBuf {
    scripts::funding(&candidate.keys.local, &candidate.keys.remote)
}

fn presigned(candidate: &FundingCandidate, built: &Commitment) -> Presigned {
    Presigned {
        transaction: built.transaction.clone(),
        script: funding_script(candidate),
        key: SigningKey::Funding(candidate.keys.local),
        local_funding: candidate.keys.local,
        remote_funding: candidate.keys.remote,
        remote_signature: candidate.local.signature,
        anchor: built.our_anchor().map(|output| output.vout),
    }
}

/// What opens the anchor by which we pay for a commitment.
fn anchor_lock(candidate: &FundingCandidate, anchor: &CommitmentOutput) -> AnchorLock {
    if anchor.kind == OutputKind::SharedAnchor {
        return AnchorLock::Shared;
    }
    let key = candidate.keys.local;
    AnchorLock::Keyed { script: scripts::anchor(&key), key: SigningKey::Funding(key) }
}

fn anchor_claim(
    candidate: &FundingCandidate,
    built: &Commitment,
    parent: &Claim,
    lost: Vec<(BlockHeight, Amount)>,
) -> Option<Claim> {
    let anchor = built.our_anchor()?;
    let balance = built.outputs.iter().find(|o| o.kind == OutputKind::ToLocal);
    let balance = balance.map_or(Amount::ZERO, |balance| balance.output.value);
    let txid = built.transaction.compute_txid();
    Some(Claim {
        outpoint: OutPoint { txid, vout: anchor.vout },
        output: anchor.output.clone(),
        path: SpendPath::Anchor {
            lock: anchor_lock(candidate, anchor),
            parent: txid,
            ours: units::plus(balance, parent.value_at_risk),
            lost,
        },
        ..parent.clone()
    })
}
