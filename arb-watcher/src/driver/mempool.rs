//! What the mempool holds: preimages and mutual closes are learned from it before a block has them. A look is a
//! worker's: a mempool that does not answer holds no block up.
use super::chain::{FollowError, source, wait};
use super::work::{Job, Outcome};
use super::{Around, Driver};
use crate::settings::Settings;
use arb_core::arbitrator::Input;
use arb_core::classify;
use arb_core::engine::EngineInput;
use arb_core::format::number::is_commitment_shaped;
use arb_core::ids::Slot;
use arb_core::ports::BlockSource;
use arb_core::units::BlockRef;
use bitcoin::{OutPoint, Transaction, Txid};
use std::collections::{BTreeSet, HashMap, HashSet};
use tokio::time::{Instant, timeout};

/// Where looking at the mempool stands.
#[derive(Default)]
pub(super) struct Looks {
    /// A worker is asking.
    asking: bool,
    /// When the next look is, if the last one failed or there is more to ask about.
    again: Option<Instant>,
    failures: u32,
    /// Where the next slice of the round through all channels begins.
    slice: usize,
    /// A new round was asked for: it begins once this one is over, or it would never be.
    anew: bool,
    /// Rounds that have begun, and which of them was the last to end.
    begun: u64,
    ended: u64,
    /// Mempool transactions that the engine has been shown in the last round, and in this one.
    seen: [HashSet<Shown>; 2],
}

/// A mempool transaction that the engine has been shown, and as what. What it knew of a child of an unconfirmed
/// commitment is not all: once that has a block, the child spends what is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shown {
    Spender(Txid),
    Under(Txid),
}

/// What the mempool holds for a slice of the channels, and where the next slice begins; `None`
/// after the last.
pub(super) struct MempoolSlice {
    /// The engine's tip when it was asked.
    tip: Option<BlockRef>,
    found: Vec<Transaction>,
    /// Transactions that spend an output of an unconfirmed commitment in `found`.
    under: Vec<Transaction>,
    next: Option<usize>,
}

impl Looks {
    /// When there is a look to come.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Whatever it holds is to be shown again.
    pub(super) fn forget(&mut self) {
        self.seen = <[HashSet<Shown>; 2]>::default();
    }

    /// There is another round once this one is over.
    pub(super) const fn start_over(&mut self) {
        self.anew = true;
    }

    /// How many rounds have begun, and which of them was the last to end.
    pub(super) const fn rounds(&self) -> (u64, u64) {
        (self.begun, self.ended)
    }

    /// Whether a round is under way, or a failure is waited out.
    pub(super) const fn is_in_round(&self) -> bool {
        self.asking || self.slice > 0 || self.failures > 0
    }

    /// A transaction of the mempool is to be shown again.
    pub(super) fn unseen(&mut self, txid: &Txid) {
        for seen in &mut self.seen {
            seen.remove(&Shown::Spender(*txid));
        }
    }

    /// Whether it may be asked now. The slice that is asked about begins here.
    fn begin(&mut self) -> Option<usize> {
        if self.asking || self.again.is_some_and(|again| again > Instant::now()) {
            return None;
        }
        if self.slice == 0 {
            self.anew = false;
            self.begun = self.begun.saturating_add(1);
        }
        (self.asking, self.again) = (true, None);
        Some(self.slice)
    }

    fn failed(&mut self, settings: &Settings) {
        self.asking = false;
        self.again = Some(Instant::now() + wait(settings, self.failures));
        self.failures = self.failures.saturating_add(1);
    }

    /// The next slice is asked about a moment later; blocks do not wait for that. Whoever waits for the end of
    /// this round is answered before the next begins.
    fn go_on(&mut self, settings: &Settings) {
        if self.slice > 0 {
            self.again = Some(Instant::now() + settings.retry);
        } else if self.anew {
            self.again = Some(Instant::now());
        }
    }

    const fn answered(&mut self) {
        (self.asking, self.failures) = (false, 0);
    }

    fn is_shown(&self, shown: &Shown) -> bool {
        self.seen.iter().any(|seen| seen.contains(shown))
    }

    /// The engine was shown what the mempool holds for one slice. What it was shown in neither this
    /// round nor the one before would be new to it.
    fn shown(&mut self, shown: Vec<Shown>, next: Option<usize>) {
        self.seen[1].extend(shown);
        self.slice = next.unwrap_or_default();
        if next.is_none() {
            self.ended = self.begun;
            self.seen[0] = std::mem::take(&mut self.seen[1]);
        }
    }
}

impl<A: Around> Driver<A> {
    /// Preimages and mutual closes are learned from the mempool as well (BOLT 5 X3). Active
    /// channels are asked about at every look, all others in turn.
    pub(super) fn look_at_mempool(&mut self) {
        let Some(slice) = self.chain.mempool.begin() else { return };
        let (tip, channels) = (self.engine.tip(), self.settings.mempool_slice.max(1));
        let (mut outpoints, next) = self.engine.watched_slice(slice, channels);
        outpoints.extend(self.engine.watched_by_active());
        outpoints.extend(self.engine.anchors_on_their_way());
        let (ports, patience) = (self.ports.clone(), self.settings.patience);
        self.workers.spawn(Job::Mempool, async move {
            if outpoints.is_empty() {
                let (found, under) = (Vec::new(), Vec::new());
                return Outcome::Mempool(Ok(MempoolSlice { tip, found, under, next }));
            }
            let outpoints = outpoints.into_iter().collect();
            let found = timeout(patience, in_mempool(&ports.source, outpoints)).await;
            Outcome::Mempool(match found {
                Ok(Ok((found, under))) => Ok(MempoolSlice { tip, found, under, next }),
                Ok(Err(error)) => Err(source(error)),
                Err(_) => Err(FollowError::Late),
            })
        });
    }

    /// Those that spend what active channels watch, or an anchor that a child of ours is to spend; and all that they
    /// spend.
    fn of_active(&self, found: &[Transaction]) -> HashMap<Txid, Vec<OutPoint>> {
        let anchors: HashSet<OutPoint> = self.engine.anchors_on_their_way().collect();
        let is_active = |outpoint: OutPoint| {
            let mut watching = self.engine.watching(outpoint);
            anchors.contains(&outpoint) || watching.any(|slot| self.engine.active(slot).is_some())
        };
        let of_active =
            found.iter().filter(|tx| tx.input.iter().any(|i| is_active(i.previous_output)));
        let spent = |tx: &Transaction| tx.input.iter().map(|input| input.previous_output).collect();
        of_active.map(|tx| (tx.compute_txid(), spent(tx))).collect()
    }

    /// Whether a child of ours was refused for an input that it misses, and this is another one than it was.
    fn is_missed(&self, slots: &BTreeSet<Slot>, parent: &Shown) -> bool {
        let Shown::Spender(parent) = parent else { return false };
        let mut active = slots.iter().filter_map(|slot| self.engine.active(*slot));
        active.any(|active| active.state.acts().misses(*parent))
    }

    pub(super) async fn on_mempool(&mut self, slice: Result<MempoolSlice, FollowError>) {
        let MempoolSlice { tip, found, under, next } = match slice {
            Ok(slice) => slice,
            Err(error) => {
                tracing::warn!(%error, "the mempool");
                return self.chain.mempool.failed(&self.settings);
            }
        };
        self.chain.mempool.answered();
        if tip != self.engine.tip() {
            // What it held may be in a block by now.
            return self.chain.rung();
        }
        let mut shown = Vec::new();
        let (mut inputs, mut closes) = (Vec::new(), Vec::new());
        for tx in &found {
            let as_this = Shown::Spender(tx.compute_txid());
            shown.push(as_this);
            let of = tx.input.iter().flat_map(|i| self.engine.watching(i.previous_output));
            let slots: BTreeSet<_> = of.collect();
            if self.chain.mempool.is_shown(&as_this) && !self.is_missed(&slots, &as_this) {
                continue;
            }
            if classify::is_closing_shaped(tx) {
                closes.push((slots.clone(), tx.clone()));
            }
            inputs.extend(slots.into_iter().map(|slot| seen_in_mempool(slot, tx)));
        }
        let parents: HashMap<Txid, &Transaction> =
            found.iter().map(|tx| (tx.compute_txid(), tx)).collect();
        for tx in &under {
            let as_this = Shown::Under(tx.compute_txid());
            shown.push(as_this);
            if self.chain.mempool.is_shown(&as_this) {
                continue;
            }
            let parents = tx.input.iter().filter_map(|i| parents.get(&i.previous_output.txid));
            let spent = parents.flat_map(|parent| &parent.input);
            let of: BTreeSet<_> =
                spent.flat_map(|i| self.engine.watching(i.previous_output)).collect();
            inputs.extend(of.into_iter().map(|slot| seen_in_mempool(slot, tx)));
        }
        if !inputs.is_empty() && self.step(inputs).await.is_err() {
            return;
        }
        let mutual = self.engine.closed_mutually_by(&found);
        self.hold_back(&mutual);
        // What is back later is shown again.
        for txid in self.tasks.mempool_holds(self.of_active(&found)) {
            self.chain.mempool.unseen(&txid);
        }
        self.chain.mempool.shown(shown, next);
        self.chain.mempool.go_on(&self.settings);
        for (slots, tx) in closes {
            self.judge_close(slots, tx);
        }
    }
}

fn seen_in_mempool(slot: Slot, tx: &Transaction) -> EngineInput {
    let input = Box::new(Input::SeenInMempool(Box::new(tx.clone())));
    EngineInput::Channel { slot, input }
}

/// Mempool transactions that spend any of these outputs; and those that spend an output of an unconfirmed
/// commitment among these, by the preimage perhaps.
async fn in_mempool<S: BlockSource>(
    from: &S,
    outpoints: Vec<OutPoint>,
) -> Result<(Vec<Transaction>, Vec<Transaction>), S::Error> {
    let found = from.mempool_spenders(outpoints).await?;
    let commitments = found.iter().filter(|tx| is_commitment_shaped(tx));
    let outputs = commitments.flat_map(|tx| {
        let txid = tx.compute_txid();
        (0u32..).zip(&tx.output).map(move |(vout, _)| OutPoint { txid, vout })
    });
    let outputs: Vec<OutPoint> = outputs.collect();
    if outputs.is_empty() {
        return Ok((found, Vec::new()));
    }
    let under = from.mempool_spenders(outputs).await?;
    Ok((found, under))
}
