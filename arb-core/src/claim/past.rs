//! What was done about the claims of one channel or of several, by output: logs laid side by side.
use crate::arbitrator::{Acts, HandedOut, Refusal, Rejections};
use crate::claim::Claim;
use crate::claim::build::Parent;
use crate::ids::ChannelId;
use crate::policy::Joining;
use crate::units::{BlockHeight, Tx};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bitcoin::{Amount, FeeRate, OutPoint, Txid};

/// What a plan rests on, of one channel: claims that are to be made, now or later, and what was
/// done about them.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The claims; all of them are this channel's.
    pub claims: &'a [Claim],
    /// What the channel's log says.
    pub acts: &'a Acts,
    /// Whether they may share transactions with those of other parts of which this is so.
    pub joining: Joining,
}

/// A transaction of ours.
#[derive(Clone, Debug)]
pub(super) struct Out<'a> {
    pub(super) txid: Txid,
    pub(super) handed_out: &'a HandedOut,
    /// The last word of the network about it, if it was refused.
    refused: Option<Rejections>,
    /// Whether nobody heard that the network has it: it could not be asked.
    pub(super) is_unheard: bool,
}

impl Out<'_> {
    /// Why the network refused it at an earlier tip, if it did.
    pub(super) fn refusal(&self, tip: BlockHeight) -> Option<Refusal> {
        self.refused.filter(|refused| refused.last < tip).map(|refused| refused.why)
    }

    /// Whether the network refused it for its fee, at this tip or before.
    pub(super) fn is_outbid(&self) -> bool {
        self.refused.is_some_and(|refused| refused.why == Refusal::Fee)
    }

    /// Whether the network refused it for another reason than its fee. What it conflicts with may
    /// be seen in a moment, in the mempool or in a block, so a conflict counts from the next tip on.
    pub(super) fn is_suspect(&self, tip: BlockHeight) -> bool {
        self.refused.is_some_and(|refused| match refused.why {
            Refusal::Fee => false,
            Refusal::Conflict => refused.last < tip,
            Refusal::Invalid => true,
        })
    }
}

/// Most blocks between two transactions for the same claims of which a coin seems to be gone.
const PAUSE: u32 = 3;
/// Most blocks until a transaction that is refused for what it is, is signed anew.
const LONGEST_PAUSE: u32 = 6;

/// All of it, read once.
#[derive(Debug)]
pub(super) struct Past<'a> {
    /// Oldest first.
    outs: Vec<Out<'a>>,
    places: BTreeMap<Txid, usize>,
    /// Places of the transactions that claim an output, oldest first.
    by_claim: BTreeMap<OutPoint, Vec<usize>>,
    acts: BTreeMap<ChannelId, &'a Acts>,
    /// Channels whose claims may share transactions with those of others.
    joined: BTreeSet<ChannelId>,
}

impl<'a> Past<'a> {
    pub(super) fn of(parts: &[Part<'a>]) -> Self {
        let chains: Vec<Vec<Out<'a>>> = parts.iter().map(|part| chain(part.acts)).collect();
        let outs = in_order(chains);
        let mut by_claim: BTreeMap<OutPoint, Vec<usize>> = BTreeMap::new();
        for (at, out) in outs.iter().enumerate() {
            for claim in out.handed_out.all_claims() {
                by_claim.entry(claim).or_default().push(at);
            }
        }
        let acts = parts.iter().filter_map(|part| Some((part.claims.first()?.channel, part.acts)));
        let places = outs.iter().enumerate().map(|(at, out)| (out.txid, at)).collect();
        let joined = parts.iter().filter(|part| part.joining == Joining::Allowed);
        let joined = joined.filter_map(|part| Some(part.claims.first()?.channel)).collect();
        Self { places, by_claim, acts: acts.collect(), joined, outs }
    }

    /// Whether the claim may share a transaction with those of other channels.
    pub(super) fn is_joined(&self, claim: &Claim) -> bool {
        self.joined.contains(&claim.channel)
    }

    /// Every transaction, oldest first.
    pub(super) fn outs(&self) -> &[Out<'a>] {
        &self.outs
    }

    /// Transactions that claim an output, oldest first.
    pub(super) fn claims_of(
        &self,
        outpoint: OutPoint,
    ) -> impl DoubleEndedIterator<Item = &Out<'a>> + use<'a, '_> {
        let places = self.by_claim.get(&outpoint).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|at| self.outs.get(*at))
    }

    /// Whether a wallet coin that pays for a transaction of ours seems to be gone: a reorganisation took
    /// the block that made it, or it was spent elsewhere. The network does not say which input it misses,
    /// so it is not asked at every block.
    pub(super) fn is_unfunded(&self, out: &Out<'_>, tip: BlockHeight) -> bool {
        let misses = |out: &Out<'_>| {
            !out.handed_out.coins.is_empty() && out.refusal(tip) == Some(Refusal::Conflict)
        };
        let Some(claim) = out.handed_out.all_claims().next().filter(|_| misses(out)) else {
            return false;
        };
        let tries = self.claims_of(claim).filter(|out| misses(out)).count();
        let pause = u32::try_from(tries).unwrap_or(PAUSE).min(PAUSE);
        out.handed_out.at.until(tip).0 >= pause
    }

    /// Whether a transaction that the network refused for what it is, a wrong signature most likely, is to
    /// be signed anew: at the next tip, and again after ever longer pauses.
    pub(super) fn is_missigned(&self, out: &Out<'_>, tip: BlockHeight) -> bool {
        let is_invalid = |out: &Out<'_>| {
            out.refused
                .filter(|refused| refused.why == Refusal::Invalid)
                .map(|refused| refused.last)
        };
        let Some(last) = is_invalid(out) else { return false };
        let claims = out.handed_out.all_claims().next().into_iter();
        let tries = claims.flat_map(|claim| self.claims_of(claim));
        let tries = tries.filter(|out| is_invalid(out).is_some()).map(|out| out.handed_out.at);
        let tried_for = tries.min().map_or(0, |first| first.until(last).0);
        last.until(tip).0 >= tried_for.clamp(1, LONGEST_PAUSE)
    }

    /// A transaction of ours.
    pub(super) fn ours(&self, txid: Txid) -> Option<&Out<'a>> {
        self.places.get(&txid).and_then(|at| self.outs.get(*at))
    }

    /// What an unconfirmed commitment pays and weighs: ours, or the peer's.
    pub(super) fn parent(&self, anchor: &Claim, parent: Txid) -> Option<Parent> {
        if let Some(out) = self.ours(parent) {
            let out = out.handed_out;
            return Some(Parent { fee: out.fee, weight: out.transaction.weight() });
        }
        let (transaction, fee) = self.seen(anchor, parent)?;
        Some(Parent { fee: *fee, weight: transaction.weight() })
    }

    /// A commitment of the peer that was seen unconfirmed, and what it pays.
    pub(super) fn seen(&self, anchor: &Claim, parent: Txid) -> Option<&'a (Tx, Amount)> {
        let acts = self.acts.get(&anchor.channel)?;
        acts.seen.iter().find(|(transaction, _)| transaction.txid() == parent)
    }

    /// Whether the claim is made by itself: an unconfirmed spend of the output by somebody else was
    /// seen, or the network would have none that claims it.
    pub(super) fn is_apart(&self, claim: &Claim) -> bool {
        self.acts.get(&claim.channel).is_some_and(|acts| is_apart(acts, &claim.outpoint))
    }

    /// The same of an output of any channel, be it spent or not.
    pub(super) fn is_apart_anywhere(&self, outpoint: OutPoint) -> bool {
        self.acts.values().any(|acts| is_apart(acts, &outpoint))
    }

    /// Whether the network would have no transaction that makes the claim.
    pub(super) fn is_set_aside(&self, claim: &Claim) -> bool {
        let acts = self.acts.get(&claim.channel);
        acts.is_some_and(|acts| acts.set_aside.contains_key(&claim.outpoint))
    }

    /// Whether the network has none of our transactions for the claim, and would not have the newest whatever it paid.
    pub(super) fn is_refused(&self, claim: &Claim) -> bool {
        let invalid =
            |out: &Out<'_>| out.refused.is_some_and(|refused| refused.why == Refusal::Invalid);
        let mut outs = self.claims_of(claim.outpoint);
        let newest = outs.next_back();
        newest.is_some_and(invalid) && outs.all(|out| out.refused.is_some())
    }

    /// What the operator wants the claim to cost at most.
    pub(super) fn budget(&self, claim: &Claim) -> Option<Amount> {
        let budget = self.acts.get(&claim.channel)?.budget_of(claim.outpoint)?;
        // An operator without limits says any number.
        Some(budget.min(Amount::MAX_MONEY))
    }

    /// The feerate that the operator asked for.
    pub(super) fn asked(&self, claim: &Claim) -> Option<FeeRate> {
        let bumps = &self.acts.get(&claim.channel)?.bumps;
        let asked = bumps.get(&Some(claim.outpoint)).or_else(|| bumps.get(&None));
        asked.copied().map(FeeRate::from_sat_per_kwu)
    }
}

fn is_apart(acts: &Acts, outpoint: &OutPoint) -> bool {
    acts.contested.contains(outpoint) || acts.set_aside.contains_key(outpoint)
}

fn chain(acts: &Acts) -> Vec<Out<'_>> {
    let out = |handed_out| {
        let txid = HandedOut::txid(handed_out);
        let (refused, is_unheard) =
            (acts.rejected.get(&txid).copied(), acts.unheard.contains(&txid));
        Out { txid, handed_out, refused, is_unheard }
    };
    acts.handed_out.iter().map(out).collect()
}

/// The transactions of all logs, each once, in an order that none of the logs contradicts.
fn in_order(mut chains: Vec<Vec<Out<'_>>>) -> Vec<Out<'_>> {
    if chains.len() < 2 {
        return chains.pop().unwrap_or_default();
    }
    let mut of: BTreeMap<Txid, Vec<usize>> = BTreeMap::new();
    for (number, chain) in chains.iter_mut().enumerate() {
        // The next one stands last.
        chain.reverse();
        for out in chain.iter() {
            of.entry(out.txid).or_default().push(number);
        }
    }
    // What is next in every log that has it; the older by height first.
    let mut heads: BTreeMap<Txid, usize> = BTreeMap::new();
    let mut ready: BTreeSet<(BlockHeight, Txid)> = BTreeSet::new();
    let mut pending: Vec<usize> = (0..chains.len()).collect();
    let mut order: Vec<Out<'_>> = Vec::with_capacity(of.len());
    loop {
        for number in pending.drain(..) {
            let Some(head) = chains.get(number).and_then(|chain| chain.last()) else { continue };
            let seen = heads.entry(head.txid).or_default();
            *seen = seen.saturating_add(1);
            if of.get(&head.txid).is_some_and(|all| all.len() == *seen) {
                ready.insert((head.handed_out.at, head.txid));
            }
        }
        let next = ready.pop_first().map(|(_, txid)| txid);
        // Logs that contradict each other cannot be; if they do, the first of them is right.
        let stuck = || chains.iter().find_map(|chain| chain.last()).map(|out| out.txid);
        let Some(txid) = next.or_else(stuck) else { return order };
        for number in of.remove(&txid).unwrap_or_default() {
            let Some(chain) = chains.get_mut(number) else { continue };
            let at_head = chain.last().is_some_and(|head| head.txid == txid);
            let place = chain.iter().rposition(|out| out.txid == txid);
            let Some(out) = place.map(|place| chain.remove(place)) else { continue };
            if at_head {
                pending.push(number);
            }
            match order.last_mut().filter(|last| last.txid == txid) {
                Some(known) => {
                    known.refused = later(known.refused, out.refused);
                    known.is_unheard &= out.is_unheard;
                }
                None => order.push(out),
            }
        }
    }
}

/// The later of two words of the network.
fn later(one: Option<Rejections>, other: Option<Rejections>) -> Option<Rejections> {
    one.into_iter().chain(other).max_by_key(|refused| refused.last)
}

#[cfg(test)]
mod tests;
