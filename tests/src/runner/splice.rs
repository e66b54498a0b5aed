//! Splices: funding outputs that a channel may go on with, and which of them is there.
use super::Failed;
use super::story::{Chan, Runner};
use crate::peer::{Channel, FactStep, Keep};
use crate::scenario::ast::{ChannelName, SpliceConfirmation};
use crate::world::{candidate_facts, updates_of};
use arb_core::facts::Update;
use arb_core::units::BlockHeight;
use bitcoin::{Amount, OutPoint, Transaction};
use std::borrow::Cow;

/// Confirmations at which both sides lock a splice.
pub(super) const LOCKED_AT: u32 = 6;

/// A splice of a channel.
pub(super) struct Splice {
    pub(super) tx: Transaction,
    /// The funding output that it makes.
    pub(super) funding: OutPoint,
    capacity: Amount,
    /// The node was told that it is locked.
    locked: bool,
    /// The candidates' commitments go on: another was not locked since.
    moving: bool,
}

impl Splice {
    /// A splice that waits.
    pub(super) fn new(tx: Transaction, funding: OutPoint, capacity: Amount) -> Self {
        Self { tx, funding, capacity, locked: false, moving: true }
    }
}

impl Chan {
    /// The funding outputs, first one first.
    pub(super) fn fundings(&self) -> impl Iterator<Item = OutPoint> {
        std::iter::once(self.funding).chain(self.splices.iter().map(|splice| splice.funding))
    }

    /// The channel on one of its funding outputs, the first of which is 0.
    pub(super) fn on(&self, scope: usize) -> Result<Cow<'_, Channel>, Failed> {
        let Some(splice) = scope.checked_sub(1).and_then(|at| self.splices.get(at)) else {
            return Ok(Cow::Borrowed(&self.peer));
        };
        Ok(Cow::Owned(self.peer.spliced(scope, splice.funding, splice.capacity)?))
    }

    /// The funding outputs whose commitments go on, the current one first.
    pub(super) fn moving(&self) -> Vec<usize> {
        let first = self.splices.iter().all(|splice| !splice.locked).then_some(0);
        let splices = (1..).zip(&self.splices).filter(|(_, splice)| splice.moving);
        first.into_iter().chain(splices.map(|(scope, _)| scope)).collect()
    }

    /// The place of the funding output that counts, the first of which is 0.
    pub(super) fn current_scope(&self) -> usize {
        self.moving().first().copied().unwrap_or_default()
    }

    /// The funding output that counts.
    pub(super) fn current_funding(&self) -> OutPoint {
        self.fundings().nth(self.current_scope()).unwrap_or(self.funding)
    }

    /// What the node learned since the last time, for every funding output.
    pub(super) fn take_updates(&mut self, keep: Keep) -> Result<Vec<Update>, Failed> {
        if self.splices.is_empty() {
            let steps = self.peer.take_facts(keep)?;
            return Ok(updates_of(&steps, self.funding, &self.links));
        }
        let mut of_each = Vec::new();
        for scope in self.moving() {
            let mut peer = self.on(scope)?.into_owned();
            let funding = peer.funding()?;
            of_each.push((funding, peer.take_facts(keep)?));
        }
        let steps = self.peer.take_facts(keep)?.len();
        let mut updates = Vec::new();
        for at in 0..steps {
            let step = |(funding, steps): &(OutPoint, Vec<FactStep>)| {
                let step = steps.get(at).cloned()?;
                Some(updates_of(&[step], *funding, &self.links))
            };
            for update in of_each.iter().filter_map(step).flatten() {
                // What concerns no funding output is said once.
                if updates.last() != Some(&update) {
                    updates.push(update);
                }
            }
        }
        Ok(updates)
    }

    fn lock(&mut self, at: usize) {
        for splice in &mut self.splices {
            splice.moving = false;
        }
        if let Some(splice) = self.splices.get_mut(at) {
            (splice.locked, splice.moving) = (true, true);
        }
    }
}

impl Runner<'_> {
    /// The funding output that is unspent or was closed, as far as blocks say.
    pub(super) fn scope(&self, name: &ChannelName) -> Result<usize, Failed> {
        let chan = self.chan(name)?;
        let mut scope = 0;
        while let Some(funding) = chan.fundings().nth(scope)
            && let Some((_, tx)) = self.world.ledger.spender(&funding)
            && let Some(next) = chan.splices.iter().position(|s| s.tx == *tx)
        {
            scope = next + 1;
        }
        Ok(scope)
    }

    /// The channel on the funding output that is there.
    pub(super) fn on_chain_peer(&self, name: &ChannelName) -> Result<Cow<'_, Channel>, Failed> {
        self.chan(name)?.on(self.scope(name)?)
    }

    /// Both sides sign another funding output; its transaction enters the mempool, or nobody
    /// publishes it.
    pub(super) async fn splice(
        &mut self,
        name: &ChannelName,
        capacity: Amount,
        confirm: SpliceConfirmation,
    ) -> Result<(), Failed> {
        // One that a block holds is locked before another is made of it.
        self.lock_splice(name, 1).await?;
        let coins = self.peer_coins(name).await?;
        let chan = self.chan(name)?;
        let current = chan.on(chan.current_scope())?;
        let nth = chan.splices.len() + 1;
        let tx = current.splice_transaction(nth, capacity, self.estimate(), &coins)?;
        let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
        let splice = Splice::new(tx.clone(), funding, capacity);
        let chan = self.chan_mut(name)?;
        chan.splices.push(splice);
        let (id, peer) = (chan.id, chan.on(nth)?);
        let candidate = Box::new(candidate_facts(&peer)?);
        let secret = peer.local_secrets().funding;
        self.world.signer.insert_funding(id, secret);
        let birth = BlockHeight(self.world.height());
        self.send(name, vec![Update::CandidateAdded { candidate, birth }]).await?;
        match confirm {
            SpliceConfirmation::Confirms => self.submit(&tx).await,
            SpliceConfirmation::StaysUnconfirmed => Ok(()),
        }
    }

    /// Both sides lock the splices that are deep enough. True if there was one.
    pub(super) async fn lock_splices(&mut self) -> Result<bool, Failed> {
        let names: Vec<ChannelName> = self.channels.keys().cloned().collect();
        let mut locked = false;
        for name in names {
            locked |= self.lock_splice(&name, LOCKED_AT).await?;
        }
        Ok(locked)
    }

    /// Locks the splice of a channel that has so many confirmations.
    async fn lock_splice(&mut self, name: &ChannelName, depth: u32) -> Result<bool, Failed> {
        let chan = self.chan(name)?;
        let deep = |tx: &Transaction| {
            let made = self.world.ledger.tx(&tx.compute_txid()).map(|(height, _)| height);
            made.is_some_and(|made| self.world.height() + 1 >= made + depth)
        };
        let found = chan.splices.iter().position(|s| s.moving && !s.locked && deep(&s.tx));
        let Some(at) = found.filter(|_| !self.disk_is_full && !chan.forgotten) else {
            return Ok(false);
        };
        if self.is_of_ldk() && !self.ldk_lock(name, at).await? {
            return Ok(false);
        }
        self.chan_mut(name)?.lock(at);
        if self.is_of_ldk() {
            return Ok(true);
        }
        let chan = self.chan(name)?;
        let funding = chan.fundings().nth(at + 1).unwrap_or(chan.funding);
        let is_it = |update: &Update| match update {
            Update::CandidateAdded { candidate, .. } => candidate.funding == funding,
            _ => false,
        };
        if chan.lost && !chan.told.iter().flat_map(|(_, updates)| updates).any(is_it) {
            // What is lost is not known to be one.
            return Ok(true);
        }
        self.send(name, vec![Update::CandidateLocked { funding }]).await?;
        Ok(true)
    }
}
