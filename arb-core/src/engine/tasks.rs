//! Tasks: what the shell is to do for a channel, from its desire and the claim scheduler.
use crate::arbitrator::{Effect, EffectKey, Notice, Position, TxKind};
use crate::claim::Claim;
use crate::claim::build::Draft;
use crate::claim::plan::{Step, StepKey};
use crate::engine::{Active, ChainArbitrator};
use crate::ids::Slot;
use crate::ports::Package;
use crate::units::{BlockHeight, CommitmentNumber};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bitcoin::{OutPoint, ScriptBuf};

/// Blocks for which the wallet may not know of a coin that a block spends: it follows the chain by
/// itself.
const UNKNOWN_FOR: u32 = 6;

/// Blocks for which a child of a commitment that has confirmed without it keeps its coins from other claims. Longer it
/// keeps nobody from the only coin that there may be: who takes it pays more than the child.
const LEFT_FOR: u32 = 3;

/// Wallet coins that a transaction of ours spends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoinsInUse {
    /// The claim that they are reserved for.
    pub claim: OutPoint,
    /// The coins.
    pub coins: Vec<OutPoint>,
    /// Height of the block that holds the transaction; `None`: it is unconfirmed.
    pub confirmed: Option<BlockHeight>,
}

/// One thing to do. Everything that a transaction or a notice says is in the log already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Fund and sign.
    Sign(Box<Draft>),
    /// Hand to the network, parents first.
    Publish(Package),
    /// Load the HTLCs of a revoked commitment.
    LoadRevokedHtlcs(CommitmentNumber),
    /// Ask the node whose these scripts are.
    JudgeScripts(Vec<ScriptBuf>),
    /// Ask the signer for the per-commitment point of this commitment of ours.
    AskPoint(CommitmentNumber),
    /// Tell the node.
    Notify(Notice),
    /// Delete the channel's records, once every subscriber that asked for it has acknowledged.
    Forget,
}

/// Identity of a task within its channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskKey {
    /// A step of the claim scheduler.
    Step(StepKey),
    /// Another effect.
    Effect(EffectKey),
}

impl ChainArbitrator {
    /// Everything that is desired of a channel now. A quiet channel desires nothing; while blocks
    /// are to come, nothing is signed or published.
    #[must_use]
    pub fn tasks(&self, slot: Slot) -> BTreeMap<TaskKey, Task> {
        let Some(active) = self.active(slot) else { return BTreeMap::new() };
        let now = self.now(slot, &active.facts);
        let picture = active.picture.as_deref();
        let desire = active.state.desired_by(&active.facts, picture, &now);
        let mut claims: Vec<Claim> = Vec::new();
        let mut tasks = BTreeMap::new();
        for (key, effect) in desire {
            let task = match effect {
                Effect::Claim(claim) => {
                    claims.push(*claim);
                    continue;
                }
                Effect::LoadRevokedHtlcs(number) => Task::LoadRevokedHtlcs(number),
                Effect::JudgeScripts(scripts) => Task::JudgeScripts(scripts),
                Effect::AskPoint(number) => Task::AskPoint(number),
                Effect::Notify(notice) => Task::Notify(notice),
                Effect::Forget => Task::Forget,
            };
            tasks.insert(TaskKey::Effect(key), task);
        }
        if self.position == Position::AtTip {
            for step in self.steps_of(slot, active, &claims) {
                let Some(key) = step.key() else { continue };
                let task = match step {
                    Step::Sign(draft) => Task::Sign(draft),
                    Step::Publish(package) => Task::Publish(package),
                };
                tasks.insert(TaskKey::Step(key), task);
            }
        }
        tasks
    }

    /// Outputs of a channel that coins may be reserved for: those whose claims stand first in a
    /// transaction that is live or wanted, or in one that is in a block which the wallet may not
    /// have seen yet.
    #[must_use]
    pub fn funded_outpoints(&self, slot: Slot) -> BTreeSet<OutPoint> {
        let Some(active) = self.active(slot) else { return BTreeSet::new() };
        let mut funded = self.leads_of(slot, active);
        let in_use = self.coins_in_use(slot).into_iter();
        funded.extend(in_use.filter(|used| used.confirmed.is_some()).map(|used| used.claim));
        funded.extend(self.left_children(active));
        funded
    }

    /// Coins of transactions that are ours to make, and unconfirmed: they are in use even if nothing is signed anew.
    /// `is_funded` says of which outputs that is seen to already.
    #[must_use]
    pub fn coins_to_keep(
        &self,
        slot: Slot,
        is_funded: impl Fn(&OutPoint) -> bool,
    ) -> Vec<CoinsInUse> {
        let Some(active) = self.active(slot) else { return Vec::new() };
        let (mut coins, mut claims) = (BTreeSet::new(), BTreeSet::new());
        let mut kept = Vec::new();
        // The newest first: what it has replaced needs none, and what both spend is its own.
        for out in active.state.acts().handed_out.iter().rev() {
            let is_replaced = out.coins.iter().any(|coin| coins.contains(coin))
                || out.all_claims().any(|claim| claims.contains(&claim));
            coins.extend(out.coins.iter().copied());
            claims.extend(out.all_claims());
            if active.state.confirmed_at(out.txid()).is_some() {
                continue;
            }
            // Of a transaction for several channels, the one that comes first.
            let lead = out.all_claims().min().filter(|lead| out.claims.contains(lead));
            if let Some(claim) = lead.filter(|claim| !is_replaced && !is_funded(claim))
                && !out.coins.is_empty()
            {
                kept.push(CoinsInUse { claim, coins: out.coins.clone(), confirmed: None });
            }
        }
        if !kept.is_empty() {
            let leads = self.leads_of(slot, active);
            kept.retain(|used| leads.contains(&used.claim));
        }
        kept
    }

    /// Coins that are to be reserved again after a restart: of what is ours to make, of what a block holds that the
    /// wallet may not have seen, of children that may still confirm. What was replaced, or lost, has none any more: somebody else's
    /// transaction may spend them by now.
    #[must_use]
    pub fn coins_to_reserve(&self, slot: Slot) -> Vec<CoinsInUse> {
        let Some(active) = self.active(slot) else { return Vec::new() };
        let left: BTreeSet<OutPoint> = self.left_children(active).collect();
        let in_use = self.coins_in_use(slot).into_iter();
        let (confirmed, open): (Vec<_>, Vec<_>) = in_use.partition(|used| used.confirmed.is_some());
        let children = open.into_iter().filter(|used| left.contains(&used.claim));
        let children: BTreeMap<OutPoint, CoinsInUse> =
            children.map(|used| (used.claim, used)).collect();
        let own = self.coins_to_keep(slot, |claim| left.contains(claim));
        confirmed.into_iter().chain(children.into_values()).chain(own).collect()
    }

    /// Anchors by which a child of ours was hung on a commitment that has just confirmed without it. The child is
    /// as good as before: if it pays today's price it is in one of the next blocks, with its coins, unless something else of
    /// ours, or of anybody, has the anchor.
    fn left_children<'a>(&self, active: &'a Active) -> impl Iterator<Item = OutPoint> + use<'a> {
        let acts = active.state.acts();
        let tip = self.height();
        let lately = move |at: BlockHeight| at.until(tip).0 < LEFT_FOR;
        let confirmed = active.picture.iter().filter(move |picture| lately(picture.at.height));
        let outputs = confirmed.flat_map(|picture| &picture.outputs);
        let free = outputs.filter(|output| output.spent.is_none()).map(|output| output.outpoint);
        free.filter(move |outpoint| {
            let mut ours = acts.claims_of(*outpoint).rev();
            let newest = ours.find(|out| !acts.rejected.contains_key(&out.txid()));
            newest.is_some_and(|out| out.kind == TxKind::Anchor && !out.coins.is_empty())
        })
    }

    /// Wallet coins in transactions of a channel that are unconfirmed, or in a block which the
    /// wallet may not have seen yet.
    #[must_use]
    pub fn coins_in_use(&self, slot: Slot) -> Vec<CoinsInUse> {
        let Some(active) = self.active(slot) else { return Vec::new() };
        let lately = |at: BlockHeight| self.height().0.saturating_sub(at.0) < UNKNOWN_FOR;
        let used = active.state.acts().handed_out.iter().filter(|out| !out.coins.is_empty());
        let used = used.filter_map(|out| {
            // Of a transaction for several channels, the one that comes first.
            let claim = out.all_claims().min().filter(|lead| out.claims.contains(lead))?;
            let confirmed = active.state.confirmed_at(out.txid());
            let in_use = confirmed.is_none_or(lately);
            in_use.then(|| CoinsInUse { claim, coins: out.coins.clone(), confirmed })
        });
        used.collect()
    }

    /// Whether forgetting is all that is left to do for a channel.
    #[must_use]
    pub fn is_forgettable(&self, slot: Slot) -> bool {
        self.tasks(slot).contains_key(&TaskKey::Effect(EffectKey::Forget))
    }
}
