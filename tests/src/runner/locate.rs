//! Where the outputs of a story are: told by the peer's own transactions, never by a report.
use super::Failed;
use super::story::{Chan, Runner};
use crate::peer::{Commitment, OutputRole, Side};
use crate::scenario::ast::{ChannelName, HtlcRef, OutputRef};
use arb_core::format::{ObscuringFactor, commitment_number_of};
use bitcoin::{OutPoint, Transaction};
use std::sync::Arc;

/// A transaction that spends a funding output.
#[derive(Clone, Debug)]
pub(super) struct Close {
    pub(super) tx: Transaction,
    /// Height of its block; `None` while it is in the mempool.
    pub(super) height: Option<u32>,
    /// The commitment that it is, if it is one.
    pub(super) commitment: Option<Arc<Commitment>>,
    /// It makes another funding output, and the channel goes on.
    pub(super) splice: bool,
}

impl Chan {
    /// The commitment that a transaction is; both sides' carry the same numbers.
    fn identify(&self, scope: usize, tx: &Transaction) -> Option<Arc<Commitment>> {
        let txid = tx.compute_txid();
        if let Some(known) = self.commitments.get(&txid) {
            return Some(Arc::clone(known));
        }
        // The number is only a hint where to look: the peer's own transaction must be the same.
        let number = commitment_number_of(tx, ObscuringFactor::of(&self.first))?;
        let peer = self.on(scope).ok()?;
        let of = |side| peer.commitment(side, number.0).ok();
        let both = [Side::Local, Side::Remote].into_iter().filter_map(of);
        both.into_iter().find(|commitment| commitment.txid() == txid).map(Arc::new)
    }
}

impl Runner<'_> {
    /// What spends the funding output of a channel, in a block or in the mempool; the splice that
    /// made it, if nothing does.
    pub(super) async fn close(&mut self, name: &ChannelName) -> Result<Option<Close>, Failed> {
        let scope = self.scope(name)?;
        let chan = self.chan(name)?;
        let funding = chan.fundings().nth(scope).unwrap_or(chan.funding);
        let confirmed = self.world.ledger.spender(&funding);
        let (tx, height) = match confirmed.map(|(height, tx)| (tx.clone(), height)) {
            Some((tx, height)) => (tx, Some(height)),
            None => match self.world.backend.mempool_spender(&funding).await? {
                Some(tx) => (tx, None),
                None => return self.made_by(name),
            },
        };
        let chan = self.chan_mut(name)?;
        let splice = chan.splices.iter().any(|splice| splice.tx == tx);
        let commitment = chan.identify(scope, &tx);
        if let Some(commitment) = &commitment {
            chan.commitments.insert(commitment.txid(), Arc::clone(commitment));
        }
        Ok(Some(Close { tx, height, commitment, splice }))
    }

    /// The same of what is confirmed: whatever is in the mempool, a splice has spent the funding output before it.
    pub(super) async fn confirmed_close(
        &mut self,
        name: &ChannelName,
    ) -> Result<Option<Close>, Failed> {
        match self.close(name).await?.filter(|close| close.height.is_some()) {
            Some(close) => Ok(Some(close)),
            None => Ok(self.made_by(name)?.filter(|close| close.height.is_some())),
        }
    }

    /// The splice that made the funding output that the chain has.
    fn made_by(&self, name: &ChannelName) -> Result<Option<Close>, Failed> {
        let splices = &self.chan(name)?.splices;
        let splice = self.scope(name)?.checked_sub(1).and_then(|at| splices.get(at));
        Ok(splice.map(|splice| {
            let tx = splice.tx.clone();
            let height = self.world.ledger.tx(&tx.compute_txid()).map(|(at, _)| at);
            Close { tx, height, commitment: None, splice: true }
        }))
    }

    /// The commitment that spends the funding output of a channel.
    pub(super) async fn commitment(
        &mut self,
        name: &ChannelName,
    ) -> Result<Option<Arc<Commitment>>, Failed> {
        Ok(self.close(name).await?.and_then(|close| close.commitment))
    }

    /// Where an output is; `None` if there is none on chain or in the mempool.
    pub(super) async fn outpoint(
        &mut self,
        output: &OutputRef,
    ) -> Result<Option<OutPoint>, Failed> {
        let Some(commitment) = self.commitment(output.channel()).await? else { return Ok(None) };
        if let OutputRef::SecondStage(htlc) = output {
            return Ok(self.second_stage(&commitment, htlc));
        }
        Ok(first_stage(&commitment, output))
    }

    /// The output of the second-stage transaction that a block holds: inputs and outputs of such
    /// transactions are paired.
    fn second_stage(&self, commitment: &Commitment, htlc: &HtlcRef) -> Option<OutPoint> {
        let outpoint = first_stage(commitment, &OutputRef::Htlc(htlc.clone()))?;
        let (_, tx) = self.world.ledger.spender(&outpoint)?;
        paired_output(tx, &outpoint)
    }
}

/// The output that is paired with the input that spends `outpoint`.
pub(super) fn paired_output(tx: &Transaction, outpoint: &OutPoint) -> Option<OutPoint> {
    let input = tx.input.iter().position(|input| input.previous_output == *outpoint)?;
    let vout = u32::try_from(input).ok()?;
    tx.output.get(input).map(|_| OutPoint { txid: tx.compute_txid(), vout })
}

fn first_stage(commitment: &Commitment, output: &OutputRef) -> Option<OutPoint> {
    let vout = match output {
        OutputRef::Htlc(htlc) | OutputRef::SecondStage(htlc) => commitment.htlc_index(&htlc.htlc),
        OutputRef::ToLocal(_) => commitment.role_index(&OutputRole::ToLocal),
        OutputRef::ToRemote(_) => commitment.role_index(&OutputRole::ToRemote),
        OutputRef::Anchor(_) => commitment
            .role_index(&OutputRole::Anchor(Side::Local))
            .or_else(|| commitment.role_index(&OutputRole::SharedAnchor)),
    };
    vout.map(|vout| OutPoint { txid: commitment.txid(), vout })
}
