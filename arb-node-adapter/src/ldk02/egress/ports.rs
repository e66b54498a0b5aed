//! The arbiter's broadcaster and wallet, as far as the mode lets it have them.
use super::{Egress, LOOKS, Mode};
use crate::ldk02::fence::{ForceClose, NoFence, committed};
use crate::ldk02::mempool::{Mempool, NoMempool};
use arb_core::ports::{Broadcast, Coin, CoinRequest, CoinSource, Package, Stake, Verdict};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use core::fmt;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why the arbiter's ports did nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum EgressError<E> {
    /// It is LDK that publishes: tried again later.
    Observing,
    /// LDK has it in the mempool, or has time yet: tried again later.
    Guarding,
    /// The channel is LDK's alone.
    HandedBack,
    /// LDK may go on with the channel, so nothing of it is published yet.
    NotClosed(String),
    /// The port failed.
    Port(E),
}

impl<E: fmt::Display> fmt::Display for EgressError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observing => f.write_str("the arbiter observes only"),
            Self::Guarding => f.write_str("LDK has it in the mempool, or has time yet"),
            Self::HandedBack => f.write_str("the channel was handed back to LDK"),
            Self::NotClosed(why) => write!(f, "LDK does not close the channel: {why}"),
            Self::Port(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for EgressError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Observing | Self::Guarding | Self::HandedBack | Self::NotClosed(_) => None,
            Self::Port(error) => Some(error),
        }
    }
}

/// Whether a guard is to step in for any of these outputs. What is not known is not there: better
/// two claims than none.
async fn steps_in<M: Mempool>(egress: &Egress, mempool: &M, stakes: &[Stake], before: u32) -> bool {
    // It looks earlier than it steps in: whether LDK still hands over what it has there takes blocks to tell.
    let near = egress.near(stakes, before.max(LOOKS));
    if near.is_empty() {
        return false;
    }
    let outpoints = near.iter().map(|(outpoint, _)| *outpoint).collect();
    let spenders = mempool.spenders(outpoints).await.unwrap_or_default();
    let mut steps_in = false;
    for (outpoint, deadline) in near {
        let is_ldks = egress.is_ldks(outpoint, deadline, &spenders);
        steps_in |= !is_ldks && egress.left(deadline) <= before;
    }
    steps_in
}

/// The arbiter's broadcaster.
#[derive(Debug)]
pub struct ArbiterEgress<B, M = NoMempool, F = NoFence> {
    inner: B,
    egress: Arc<Egress>,
    mempool: M,
    fence: F,
}

impl<B> ArbiterEgress<B> {
    /// Publishes through `inner` if `egress` lets it. A guard counts only what is confirmed as got
    /// through by LDK.
    pub const fn new(inner: B, egress: Arc<Egress>) -> Self {
        Self { inner, egress, mempool: NoMempool, fence: NoFence }
    }
}

impl<B, M> ArbiterEgress<B, M> {
    /// The same, and a guard sees what LDK has in the mempool. What was handed to a broadcaster that does not answer
    /// counts as published as long as it is there.
    pub const fn seeing(inner: B, egress: Arc<Egress>, mempool: M) -> Self {
        Self { inner, egress, mempool, fence: NoFence }
    }
}

impl<B, M, F> ArbiterEgress<B, M, F> {
    /// The same, and LDK is told to close a channel before our commitment is published. Needed
    /// wherever the arbiter may decide by itself to fail a channel.
    pub fn telling<G: ForceClose>(self, fence: G) -> ArbiterEgress<B, M, G> {
        let Self { inner, egress, mempool, .. } = self;
        ArbiterEgress { inner, egress, mempool, fence }
    }
}

impl<B, M, F: ForceClose> ArbiterEgress<B, M, F> {
    /// LDK makes no commitment any more of the channels of which a package has ours. What claims from
    /// a commitment, or pays for the peer's, changes nothing for LDK: it sees the block by itself.
    fn close<E>(&self, package: &Package) -> Result<(), EgressError<E>> {
        for channel in committed(package) {
            // It may have been handed back since this package was looked at.
            if !self.egress.begin(channel) {
                return Err(EgressError::HandedBack);
            }
            if !self.egress.was_told(&channel) {
                if let Err(why) = self.fence.force_close(channel) {
                    self.egress.not_begun(&channel);
                    return Err(EgressError::NotClosed(why));
                }
                self.egress.tell(channel);
            }
        }
        Ok(())
    }
}

impl<B, M: Mempool, F> ArbiterEgress<B, M, F> {
    /// Those transactions of a package that are in the mempool, if any was handed over and no more was said of it.
    async fn seen(&self, package: &Package, verdicts: &[(Txid, Verdict)]) -> BTreeSet<Txid> {
        if !verdicts.iter().any(|(_, verdict)| *verdict == Verdict::HandedOver) {
            return BTreeSet::new();
        }
        let inputs = package.transactions.iter().flat_map(|tx| &tx.input);
        let spent = inputs.map(|input| input.previous_output).collect();
        let spenders = self.mempool.spenders(spent).await.unwrap_or_default();
        spenders.iter().map(Transaction::compute_txid).collect()
    }
}

impl<B: Broadcast, M: Mempool, F: ForceClose> Broadcast for ArbiterEgress<B, M, F> {
    type Error = EgressError<B::Error>;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Self::Error> {
        if self.egress.is_handed_back(&package.stakes) {
            return Err(EgressError::HandedBack);
        }
        match self.egress.mode() {
            Mode::Observe => return Err(EgressError::Observing),
            Mode::Guard { before } => {
                if !steps_in(&self.egress, &self.mempool, &package.stakes, before).await {
                    return Err(EgressError::Guarding);
                }
                // It may have changed while the mempool was asked.
                if self.egress.is_handed_back(&package.stakes) {
                    return Err(EgressError::HandedBack);
                }
                match self.egress.mode() {
                    Mode::Observe => return Err(EgressError::Observing),
                    Mode::Guard { .. } | Mode::Own => {}
                }
            }
            Mode::Own => {}
        }
        // Claims of other channels are in it: the arbiter takes it apart, as one that the network refuses.
        if self.egress.leaves_out(&package.stakes) {
            let refused = |tx: &Transaction| (tx.compute_txid(), left_out());
            return Ok(package.transactions.iter().map(refused).collect());
        }
        self.close(&package)?;
        self.egress.wants(&package.stakes);
        let mut taken = package.clone();
        let verdicts = self.inner.broadcast(package).await.map_err(EgressError::Port)?;
        let verdict_of = |txid| verdicts.iter().find(|(of, _)| *of == txid).map(|(_, of)| of);
        // What the network refused, LDK may try after a while.
        taken
            .transactions
            .retain(|tx| verdict_of(tx.compute_txid()).is_some_and(Verdict::is_handed_over));
        let seen = self.seen(&taken, &verdicts).await;
        self.egress.published(&taken, |txid| {
            seen.contains(txid) || verdict_of(*txid).is_some_and(Verdict::is_in)
        });
        Ok(verdicts)
    }

    /// Nothing is handed over, so any mode may ask.
    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, Self::Error> {
        if self.egress.is_left_out(&transaction) {
            return Ok(Some(left_out()));
        }
        self.inner.test(transaction).await.map_err(EgressError::Port)
    }
}

fn left_out() -> Verdict {
    Verdict::Refused("it claims for a channel that is LDK's alone".to_owned())
}

/// The arbiter's wallet: it has no coins while the arbiter may not publish, so that LDK's own
/// claims have them.
#[derive(Debug)]
pub struct ArbiterCoins<C, M = NoMempool> {
    inner: C,
    egress: Arc<Egress>,
    mempool: M,
}

impl<C> ArbiterCoins<C> {
    /// Offers the coins of `inner` if `egress` lets it.
    pub const fn new(inner: C, egress: Arc<Egress>) -> Self {
        Self { inner, egress, mempool: NoMempool }
    }
}

impl<C, M> ArbiterCoins<C, M> {
    /// The same, and a guard sees what LDK has in the mempool.
    pub const fn seeing(inner: C, egress: Arc<Egress>, mempool: M) -> Self {
        Self { inner, egress, mempool }
    }
}

impl<C: CoinSource, M: Mempool> CoinSource for ArbiterCoins<C, M> {
    type Error = C::Error;

    async fn select(&self, request: CoinRequest) -> Result<Vec<Coin>, C::Error> {
        let CoinRequest { channel, claim, deadline, .. } = request;
        let stake = Stake { channel, outpoint: claim, deadline };
        self.egress.wants(&[stake]);
        let may = match self.egress.mode() {
            _ if self.egress.is_handed_back(&[stake]) => false,
            Mode::Observe => false,
            Mode::Guard { before } => steps_in(&self.egress, &self.mempool, &[stake], before).await,
            Mode::Own => true,
        };
        // It may have changed while the mempool was asked.
        let may = may && self.egress.mode() != Mode::Observe;
        if !may || self.egress.is_handed_back(&[stake]) {
            return Ok(Vec::new());
        }
        if let Some(of_ldk) = self.egress.coins_of_ldk(claim) {
            self.inner.release(of_ldk).await?;
        }
        self.inner.select(request).await
    }

    async fn change_script(&self) -> Result<ScriptBuf, C::Error> {
        self.inner.change_script().await
    }

    async fn sign(
        &self,
        transaction: Transaction,
        prevouts: Vec<TxOut>,
    ) -> Result<Transaction, C::Error> {
        self.inner.sign(transaction, prevouts).await
    }

    async fn release(&self, claim: OutPoint) -> Result<(), C::Error> {
        self.inner.release(claim).await
    }

    async fn reserve(&self, claim: OutPoint, coins: Vec<OutPoint>) -> Result<(), C::Error> {
        self.inner.reserve(claim, coins).await
    }
}
