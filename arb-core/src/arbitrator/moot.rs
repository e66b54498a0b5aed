//! What an open channel need not remember any longer. Each payment leaves a preimage, and a word of what the
//! node was told about it; once the HTLC has left all commitments that may be broadcast, both are moot, and a channel
//! that nothing else is known of is quiet again (ADR 0011).
use crate::arbitrator::{
    Alert, Change, ChannelArbitrator, NoticeKey, PreimageSource, UpstreamDuty, UpstreamVerdict,
    upstream,
};
use crate::facts::ChannelFacts;
use crate::ids::{ChannelId, HtlcRef, PaymentHash, Preimage};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

impl ChannelArbitrator {
    /// The evidence without what is moot, and the log that leads to it; `None` if it is not worth writing
    /// that log: more than half of what is remembered must be moot, so that a payment costs the same however
    /// many there were.
    ///
    /// A channel that is failing, or of which anything is remembered that only a close brings, keeps all. Preimages
    /// for incoming channels that are set aside (`aside`) are kept until these can be told.
    pub(crate) fn without_moot(
        &self,
        facts: &ChannelFacts,
        aside: &BTreeSet<ChannelId>,
    ) -> Option<(Self, Vec<Change>)> {
        let is_alerted = |duty: &&UpstreamDuty| {
            let alert = Alert::PreimageAfterFail(duty.htlc);
            self.acts.acknowledged.contains(&NoticeKey::Alert(alert))
        };
        // A person must hear of what came too late, also if the HTLC has left since.
        let late: BTreeSet<&UpstreamDuty> =
            upstream::known_too_late(facts, self).filter(|duty| !is_alerted(duty)).collect();
        let is_kept = |duty: &UpstreamDuty| {
            let is_aside = |incoming: HtlcRef| aside.contains(&incoming.channel);
            duty.incoming.is_some_and(is_aside) && self.downstream_preimage(duty.hash).is_some()
        };
        let kept = self.acts.upstream.keys().filter(|duty| is_kept(duty));
        let needed = kept.chain(late.iter().copied()).map(|duty| duty.hash);
        let live = facts.htlcs.values().map(|record| record.htlc.hash);
        let hashes: BTreeSet<PaymentHash> = live.chain(needed).collect();
        let is_open = |duty: &UpstreamDuty| {
            let live = facts.htlcs.get(&duty.htlc).is_some_and(|r| r.htlc.hash == duty.hash);
            live || late.contains(duty) || is_kept(duty)
        };
        let is_needed = |(hash, _): &(PaymentHash, PreimageSource)| hashes.contains(hash);
        let stands = |key: &NoticeKey| match key {
            NoticeKey::Upstream(duty) => is_open(duty),
            NoticeKey::Alert(Alert::PreimageAfterFail(id)) => facts.htlcs.contains_key(id),
            NoticeKey::Alert(_) | NoticeKey::Failing => true,
        };
        let preimages = self.preimages.keys().filter(|key| !is_needed(key));
        let told = self.acts.upstream.keys().filter(|duty| !is_open(duty));
        let acknowledged = self.acts.acknowledged.iter().filter(|key| !stands(key));
        let moot = preimages.count().saturating_add(told.count());
        let moot = moot.saturating_add(acknowledged.count());
        if moot == 0 || self.intent.is_some() {
            return None;
        }
        let mut left = self.clone();
        left.preimages.retain(|key, _| is_needed(key));
        left.acts.upstream.retain(|duty, _| is_open(duty));
        left.acts.revised.retain(|duty| is_open(duty));
        left.acts.acknowledged.retain(stands);
        let changes = left.as_changes();
        if moot <= changes.len() {
            return None;
        }
        let replayed = Self::replay(&changes);
        (replayed == left).then_some((replayed, changes))
    }

    /// Preimages learned downstream, and the incoming HTLCs that they serve.
    pub(crate) fn owed(&self) -> impl Iterator<Item = (HtlcRef, Preimage)> {
        let forwards =
            self.acts.upstream.keys().filter_map(|duty| Some((duty.incoming?, duty.hash)));
        forwards.filter_map(|(incoming, hash)| Some((incoming, self.downstream_preimage(hash)?)))
    }

    /// Changes that lead to what an open channel can remember. What a close adds is left out: then they lead
    /// elsewhere.
    fn as_changes(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.scripts.is_empty() {
            let verdicts = self.scripts.iter().map(|(script, owner)| (script.clone(), *owner));
            changes.push(Change::ScriptsJudged(verdicts.collect()));
        }
        let agreed = self.agreed_closes.iter();
        changes.extend(agreed.map(|txid| Change::MutualCloseAgreed { txid: *txid }));
        changes.extend(self.chain.iter().map(|spent| Change::Spent(Box::new(spent.clone()))));
        changes.extend(self.acts.events.iter().map(|event| Change::Announced(*event)));
        changes.extend(self.preimages.iter().map(|((_, source), preimage)| {
            Change::PreimageLearned { preimage: *preimage, source: *source }
        }));
        let failed = |duty: &UpstreamDuty| (*duty, UpstreamVerdict::Failed);
        let told = self.acts.revised.iter().map(failed);
        let told = told.chain(self.acts.upstream.iter().map(|(duty, verdict)| (*duty, *verdict)));
        changes.extend(told.map(|(duty, verdict)| Change::UpstreamTold { duty, verdict }));
        changes.extend(self.acts.acknowledged.iter().copied().map(Change::NoticeAcknowledged));
        changes
    }
}
