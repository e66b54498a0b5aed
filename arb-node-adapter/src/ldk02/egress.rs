//! Who publishes: LDK's monitors or the arbiter. One value, which may change at run time.
use super::lock;
use arb_core::ports::{Broadcast, Coin, CoinRequest, CoinSource, Package, Verdict};
use bitcoin::{OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use core::fmt;
use core::ops::Deref;
use lightning::chain::chaininterface::BroadcasterInterface;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Blocks for which, in [`Mode::Own`], a transaction of LDK's monitors is held back for the arbiter
/// to publish its own. LDK publishes again and again until a claim confirms.
pub const GRACE: u32 = 2;

/// Blocks for which it is remembered who published what: as long as LDK keeps a resolved monitor.
const REMEMBERED: u32 = 4032;

/// Who publishes transactions of channels that fail or are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// LDK's monitors. The arbiter decides and reports as if it did, and publishes nothing.
    ///
    /// A close that it decides upon is an intent like any other: no newer commitment is accepted
    /// then, although none was published. Let its margins be below LDK's own, which close the
    /// channel three blocks after an offered HTLC expires and 36 before a received one does.
    #[default]
    Observe,
    /// The arbiter. What LDK's monitors publish is held back; what the arbiter has published nothing
    /// for after [`GRACE`] blocks goes out all the same.
    ///
    /// The node ignores LDK's `BumpTransaction` events then, and of `SpendableOutputs` those that
    /// are not of its own wallet: the arbiter sees to both.
    Own,
}

/// The mode, and what it is decided by.
#[derive(Debug, Default)]
pub struct Egress {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    height: u32,
    /// Outputs that a transaction of the arbiter's was published for, and since when.
    claimed: BTreeMap<OutPoint, u32>,
    /// Outputs that LDK wanted to spend, and since when.
    wanted: BTreeMap<OutPoint, u32>,
}

impl Egress {
    /// In this mode.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { state: Mutex::new(State { mode, ..State::default() }) }
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        lock(&self.state).mode
    }

    /// Changes the mode. What was not published comes again: the arbiter's at the latest with the
    /// next block, LDK's when it publishes its pending claims again.
    pub fn set(&self, mode: Mode) {
        lock(&self.state).mode = mode;
    }

    /// The chain has this height.
    pub fn best_height(&self, height: u32) {
        let mut state = lock(&self.state);
        state.height = height;
        let recent = |_: &OutPoint, since: &mut u32| height.saturating_sub(*since) < REMEMBERED;
        state.claimed.retain(recent);
        state.wanted.retain(recent);
    }

    fn published(&self, transactions: &[Transaction]) {
        let mut state = lock(&self.state);
        let height = state.height;
        let inputs = transactions.iter().flat_map(|tx| &tx.input);
        state.claimed.extend(inputs.map(|input| (input.previous_output, height)));
    }

    /// Whether a transaction of LDK's monitors goes out.
    fn passes(&self, tx: &Transaction) -> bool {
        let mut state = lock(&self.state);
        match state.mode {
            Mode::Observe => true,
            Mode::Own => {
                let height = state.height;
                tx.input.iter().any(|input| {
                    let outpoint = input.previous_output;
                    if state.claimed.contains_key(&outpoint) {
                        return false;
                    }
                    let since = *state.wanted.entry(outpoint).or_insert(height);
                    height.saturating_sub(since) >= GRACE
                })
            }
        }
    }
}

/// The broadcaster of LDK's chain monitor, and of nothing else: the channel manager's funding
/// transactions and mutual closes are never held back.
#[derive(Debug)]
pub struct MonitorEgress<B> {
    inner: B,
    egress: Arc<Egress>,
}

impl<B> MonitorEgress<B> {
    /// Holds back what `egress` says.
    pub const fn new(inner: B, egress: Arc<Egress>) -> Self {
        Self { inner, egress }
    }
}

impl<B> BroadcasterInterface for MonitorEgress<B>
where
    B: Deref<Target: BroadcasterInterface>,
{
    fn broadcast_transactions(&self, txs: &[&Transaction]) {
        // A child without its parent is of no use: a package passes or not.
        let mut any = false;
        for tx in txs {
            any |= self.egress.passes(tx);
        }
        if any {
            self.inner.broadcast_transactions(txs);
        }
    }
}

/// Why the arbiter's ports did nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum EgressError<E> {
    /// It is LDK that publishes: tried again later.
    Observing,
    /// The port failed.
    Port(E),
}

impl<E: fmt::Display> fmt::Display for EgressError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Observing => f.write_str("the arbiter observes only"),
            Self::Port(error) => error.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for EgressError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Observing => None,
            Self::Port(error) => Some(error),
        }
    }
}

/// The arbiter's broadcaster.
#[derive(Debug)]
pub struct ArbiterEgress<B> {
    inner: B,
    egress: Arc<Egress>,
}

impl<B> ArbiterEgress<B> {
    /// Publishes through `inner` if `egress` lets it.
    pub const fn new(inner: B, egress: Arc<Egress>) -> Self {
        Self { inner, egress }
    }
}

impl<B: Broadcast> Broadcast for ArbiterEgress<B> {
    type Error = EgressError<B::Error>;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Self::Error> {
        match self.egress.mode() {
            Mode::Observe => Err(EgressError::Observing),
            Mode::Own => {
                let transactions = package.transactions.clone();
                let verdicts = self.inner.broadcast(package).await.map_err(EgressError::Port)?;
                // What the network refused, LDK may try after a while.
                let taken = |tx: &Transaction| {
                    let txid = tx.compute_txid();
                    verdicts.iter().any(|(of, verdict)| *of == txid && verdict.is_in())
                };
                let taken: Vec<_> = transactions.into_iter().filter(taken).collect();
                self.egress.published(&taken);
                Ok(verdicts)
            }
        }
    }
}

/// The arbiter's wallet: it has no coins while the arbiter observes only, so that LDK's own
/// claims have them.
#[derive(Debug)]
pub struct ArbiterCoins<C> {
    inner: C,
    egress: Arc<Egress>,
}

impl<C> ArbiterCoins<C> {
    /// Offers the coins of `inner` if `egress` lets it.
    pub const fn new(inner: C, egress: Arc<Egress>) -> Self {
        Self { inner, egress }
    }
}

impl<C: CoinSource> CoinSource for ArbiterCoins<C> {
    type Error = C::Error;

    async fn select(&self, request: CoinRequest) -> Result<Vec<Coin>, C::Error> {
        match self.egress.mode() {
            Mode::Observe => Ok(Vec::new()),
            Mode::Own => self.inner.select(request).await,
        }
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
