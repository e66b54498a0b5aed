//! Broadcasts both ways: LDK's broadcaster as our port, our port behind LDK's broadcaster.
use super::lock;
use arb_core::ports::{Broadcast, Package, Verdict};
use bitcoin::{Transaction, Txid};
use core::convert::Infallible;
use core::future::{Future, ready};
use core::ops::Deref;
use lightning::chain::chaininterface::BroadcasterInterface;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

/// An LDK broadcaster as our port.
///
/// It has no verdicts: all that is said of a transaction is [`Verdict::HandedOver`]. So a refusal,
/// for too low a fee or because of a conflict, is never heard of; feerates then rise with the
/// height alone, and not because the network asked for more, and in [`Mode::Own`](super::Mode::Own) LDK publishes
/// as well [`SILENCE`](super::SILENCE) blocks later. Prefer a broadcaster that answers
/// where there is one.
#[derive(Clone, Debug)]
pub struct FromLdkBroadcaster<B>(pub B);

impl<B> Broadcast for FromLdkBroadcaster<B>
where
    B: Deref<Target: BroadcasterInterface> + Send + Sync + 'static,
{
    type Error = Infallible;

    fn broadcast(
        &self,
        package: Package,
    ) -> impl Future<Output = Result<Vec<(Txid, Verdict)>, Infallible>> + Send {
        let transactions: Vec<&Transaction> = package.transactions.iter().collect();
        if !transactions.is_empty() {
            self.0.broadcast_transactions(&transactions);
        }
        let handed_over = |tx: &&Transaction| (tx.compute_txid(), Verdict::HandedOver);
        ready(Ok(transactions.iter().map(handed_over).collect()))
    }
}

/// A broadcaster for LDK's objects: a queue that one of our ports drains.
///
/// A package that waits already is not queued again, so that LDK's rebroadcasts do not pile up
/// while the port is away.
#[derive(Debug, Default)]
pub struct BroadcastQueue {
    packages: Mutex<VecDeque<Package>>,
}

impl BroadcastQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of packages that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.packages).len()
    }

    /// Hands what waits to `port`, oldest first, and gives its verdicts. One task drains a queue.
    ///
    /// # Errors
    /// The port failed. The package that it failed on and those after it wait on; verdicts given
    /// so far are dropped, as LDK has no use for them.
    pub async fn drain<B: Broadcast>(&self, port: &B) -> Result<Vec<(Txid, Verdict)>, B::Error> {
        let mut verdicts = Vec::new();
        while let Some(package) = self.first() {
            verdicts.extend(port.broadcast(package.clone()).await?);
            self.handed_over(&package);
        }
        Ok(verdicts)
    }

    fn first(&self) -> Option<Package> {
        lock(&self.packages).front().cloned()
    }

    fn handed_over(&self, package: &Package) {
        let mut packages = lock(&self.packages);
        if packages.front() == Some(package) {
            packages.pop_front();
        }
    }
}

impl BroadcasterInterface for BroadcastQueue {
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        let package = Package::from(parents_first(txs));
        let mut packages = lock(&self.packages);
        if !package.transactions.is_empty() && !packages.contains(&package) {
            packages.push_back(package);
        }
    }
}

/// LDK promises no order; our port wants parents first.
fn parents_first(txs: &[&Transaction]) -> Vec<Transaction> {
    let mut waiting: BTreeMap<Txid, &Transaction> = BTreeMap::new();
    let mut order: Vec<Txid> = Vec::new();
    for tx in txs {
        let txid = tx.compute_txid();
        if waiting.insert(txid, tx).is_none() {
            order.push(txid);
        }
    }
    let mut sorted = Vec::new();
    while !order.is_empty() {
        let left: BTreeSet<Txid> = order.iter().copied().collect();
        let is_ready = |tx: &Transaction| {
            !tx.input.iter().any(|input| left.contains(&input.previous_output.txid))
        };
        let before = order.len();
        order.retain(|txid| match waiting.get(txid) {
            Some(tx) if is_ready(tx) => {
                sorted.push((*tx).clone());
                false
            }
            Some(_) => true,
            None => false,
        });
        if order.len() == before {
            // Transactions cannot depend on each other in a circle; none is lost if they did.
            sorted.extend(
                order.drain(..).filter_map(|txid| waiting.get(&txid)).map(|tx| (*tx).clone()),
            );
        }
    }
    sorted
}
