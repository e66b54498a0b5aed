//! Who publishes: LDK's monitors or the arbiter. One value, which may change at run time.
mod left;
mod ports;
mod waits;

use super::{Taps, lock};
use arb_core::ids::ChannelId;
use arb_core::ports::{Package, Stake};
use arb_core::units::BlockHeight;
use bitcoin::block::Header;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use core::ops::Deref;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Confirm, Listen};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use waits::Refusing;

pub use ports::{ArbiterCoins, ArbiterEgress, EgressError};

/// Blocks for which, in [`Mode::Own`], a transaction of LDK's monitors is held back for the arbiter
/// to publish its own. LDK publishes again and again until a claim confirms.
pub const GRACE: u32 = 2;

/// Blocks for which, in [`Mode::Own`], the arbiter may publish nothing for an output that it has published for
/// before: it does with every block. LDK's pass then, for it may not be able to. So they do this long after it
/// was handed to a broadcaster that does not say what became of it ([`Verdict::HandedOver`]), unless it is seen in the
/// mempool.
///
/// [`GUARD_BEFORE`] blocks before a deadline there is less time: [`GRACE`] blocks, and a single one where the
/// arbiter has tried and was refused.
///
/// [`Verdict::HandedOver`]: arb_core::ports::Verdict::HandedOver
pub const SILENCE: u32 = 6;

/// Blocks before a deadline at which a guard steps in, unless it is told otherwise. LDK closes a
/// channel, and publishes what it claims, 18 blocks earlier still.
pub const GUARD_BEFORE: u32 = 18;

/// Blocks before a deadline from which on a guard looks at what LDK has in the mempool, though it steps in later: so it can tell in
/// the last [`SILENCE`] of them that LDK has handed nothing over for as long.
const LOOKS: u32 = 2 * SILENCE;

/// Blocks for which it is remembered who published what: as long as LDK keeps a resolved monitor.
const REMEMBERED: u32 = 4032;

/// Transactions of LDK's that are remembered, those that it handed over last. LDK pays more for a claim at every block that goes
/// by without it.
const MOST_OF_LDK: usize = 20_000;

/// Who publishes transactions of channels that fail or are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// LDK's monitors. The arbiter decides and reports as if it did, and publishes nothing.
    ///
    /// No update of LDK's is held for long, and no channel is closed by the arbiter. Where it would hold one, the
    /// channel is handed back to LDK instead ([`Egress::lets_go`]), and stays LDK's when the mode changes. What was held
    /// when the mode became this one goes on with the next thing that LDK writes. A close that it
    /// decides upon is an intent like any other, after which it takes no newer commitment: so let LDK be
    /// the first to close a channel, with [`beside_ldk`](super::beside_ldk).
    #[default]
    Observe,
    /// LDK's monitors; and the arbiter, for what LDK has neither in a block nor in the mempool when
    /// this many blocks are left until its deadline ([`GUARD_BEFORE`] is a good number). What has no
    /// deadline stays with LDK: nobody else can take it.
    ///
    /// What LDK has in the mempool is known by what it handed to a [`MonitorEgress`]: the handler of
    /// `BumpTransaction` events is to be given one as well. That is written ([`Egress::recorded_by`]), and known after a
    /// restart. What was handed over and not written before a crash is not: so, as long as there is time, anything
    /// in the mempool counts as LDK's until it has had [`GRACE`] blocks to hand it over again.
    ///
    /// What LDK has in the mempool it hands over again and again (`ChainMonitor::rebroadcast_pending_claims`, which LDK's background
    /// processor calls). If it has not for [`SILENCE`] blocks, it is cut off, or what it pays since then reaches nobody: that
    /// counts no longer in the last [`SILENCE`] blocks before the deadline, or in the last `before` where these are fewer. Only
    /// the first time that it handed something over is known after a restart: from then on [`GRACE`] blocks are enough.
    Guard {
        /// Blocks before the deadline.
        before: u32,
    },
    /// The arbiter. What LDK's monitors publish is held back; what the arbiter has published nothing
    /// for after [`GRACE`] blocks goes out all the same, and so does what it published something for and has
    /// not done again for [`SILENCE`] blocks.
    ///
    /// The arbiter sees to what LDK's `BumpTransaction` events are about, and to the outputs of
    /// `SpendableOutputs` that are not at the channel's destination yet. [`LdkEvents`](super::LdkEvents) says what is
    /// left to the node.
    Own,
}

/// The mode, and what it is decided by.
///
/// It has to know the height: it is to be told of blocks as a [`Listen`] or [`Confirm`] beside LDK's own, or by
/// [`best_height`](Self::best_height). What goes out before the first block counts as if it went out with it.
#[derive(Debug, Default)]
pub struct Egress {
    state: Mutex<State>,
    /// By whom it is written what LDK hands over.
    taps: Option<Arc<Taps>>,
}

#[derive(Debug, Default)]
struct State {
    mode: Mode,
    /// Zero as long as none is known.
    height: u32,
    /// Outputs that a transaction of the arbiter's was published for.
    claimed: BTreeMap<OutPoint, Claimed>,
    /// Outputs that LDK wanted to spend, and since when.
    wanted: BTreeMap<OutPoint, u32>,
    /// First deadlines of outputs that the arbiter wanted to claim.
    deadlines: BTreeMap<OutPoint, u32>,
    /// Outputs for whose claims LDK has asked for coins, and what it has them reserved as.
    coins: BTreeMap<OutPoint, OutPoint>,
    /// Transactions that LDK handed over.
    of_ldk: BTreeMap<Txid, HandedOver>,
    /// Outputs for which a guard has found a spender in the mempool that is nobody's yet.
    unknown: BTreeMap<OutPoint, Unknown>,
    /// Outputs of which LDK has a spender in the mempool, as a guard has found it.
    quiet: BTreeMap<OutPoint, Quiet>,
    /// Channels of which our commitment is about to be published, or was.
    closing: BTreeSet<ChannelId>,
    /// Those of them that LDK was told to close.
    told: BTreeSet<ChannelId>,
    /// Channels that are LDK's alone.
    handed_back: BTreeSet<ChannelId>,
    /// Outputs of such channels that the arbiter wanted to claim together with those of others.
    left_out: BTreeSet<OutPoint>,
    /// There is no arbiter any more.
    has_ended: bool,
    refusing: Option<Refusing>,
    /// Channels that the arbiter has set aside.
    aside: BTreeMap<ChannelId, Refusing>,
}

impl State {
    /// This is the first height: what came before is as old as what comes now.
    fn began_at(&mut self, height: u32) {
        self.claimed.values_mut().for_each(|claimed| {
            (claimed.since, claimed.last, claimed.known) = (height, height, height);
        });
        self.wanted.values_mut().for_each(|since| *since = height);
        let refusing = self.refusing.iter_mut().chain(self.aside.values_mut());
        refusing.for_each(|of| *of = Refusing::since(height));
        let new = self.of_ldk.values_mut().filter(|of| of.last == 0);
        new.for_each(|of| of.last = height);
    }

    /// LDK hands a transaction over. Whether that is to be written: not at every block once more.
    fn hands_over(&mut self, txid: Txid) -> bool {
        let height = self.height;
        let fresh = HandedOver { last: height, written: None };
        let of = self.of_ldk.entry(txid).or_insert(fresh);
        of.last = height;
        let is_new = of.written.is_none_or(|at| height.saturating_sub(at) >= REMEMBERED / 2);
        if is_new {
            of.written = Some(height);
        }
        is_new
    }

    /// Forgets what LDK handed over long ago, and what is too much. What of it was written.
    fn forget_of_ldk(&mut self) -> Vec<Txid> {
        let height = self.height;
        let mut since = 0;
        if let Some(more) = self.of_ldk.len().checked_sub(MOST_OF_LDK).filter(|more| *more > 0) {
            let mut all: Vec<u32> = self.of_ldk.values().map(|of| of.last).collect();
            all.sort_unstable();
            since = all.get(more).copied().unwrap_or(0);
        }
        let mut old = Vec::new();
        self.of_ldk.retain(|txid, of| {
            let stays = of.last >= since && height.saturating_sub(of.last) < REMEMBERED;
            if !stays && of.written.is_some() {
                old.push(*txid);
            }
            stays
        });
        old
    }

    /// The channel is LDK's alone.
    fn leave(&mut self, channel: ChannelId) {
        self.handed_back.insert(channel);
        self.claimed.retain(|_, claimed| claimed.channel != Some(channel));
    }

    /// Whether the arbiter has had its time for an output that LDK wants to spend, and has published nothing
    /// for it, or nothing any more.
    fn is_overdue(&mut self, outpoint: OutPoint) -> bool {
        let since = *self.wanted.entry(outpoint).or_insert(self.height);
        let passed = self.height.saturating_sub(since);
        match (self.is_heard_of(outpoint), self.is_near(outpoint)) {
            (Some(is_heard_of), _) => !is_heard_of,
            (None, false) => passed >= GRACE,
            (None, true) => passed >= 1,
        }
    }

    fn is_near(&self, outpoint: OutPoint) -> bool {
        let deadline = self.deadlines.get(&outpoint);
        deadline.is_some_and(|of| of.saturating_sub(self.height) <= GUARD_BEFORE)
    }

    /// Whether what the arbiter has published for an output was heard of lately; `None`: it has published nothing.
    fn is_heard_of(&self, outpoint: OutPoint) -> Option<bool> {
        let passed = self.height.saturating_sub(self.claimed.get(&outpoint)?.known);
        Some(passed < if self.is_near(outpoint) { GRACE } else { SILENCE })
    }

    /// Whether a spender in the mempool that LDK has not handed over since the start may be what it handed over
    /// before that. Asked with every block; several may come at once.
    fn may_be_ldks(&mut self, outpoint: OutPoint, deadline: BlockHeight) -> bool {
        let (height, left) = (self.height, BlockHeight(self.height).until(deadline).0);
        if self.claimed.contains_key(&outpoint) || left <= GRACE {
            return false;
        }
        let unknown = self.unknown.entry(outpoint).or_insert(Unknown { last: height, heights: 1 });
        if unknown.last != height {
            *unknown = Unknown { last: height, heights: unknown.heights.saturating_add(1) };
        }
        unknown.heights <= GRACE
    }

    /// Whether LDK hands over no more what it has in the mempool for an output, and handed over last at this height,
    /// although the deadline is near: it is cut off, or what it pays more reaches nobody. Asked with every block; several
    /// may come at once, in which LDK has no time to hand anything over, as after a start.
    fn is_cut_off(&mut self, outpoint: OutPoint, deadline: BlockHeight, handed: u32) -> bool {
        let (height, left) = (self.height, BlockHeight(self.height).until(deadline).0);
        let fresh = Quiet { handed, last: height, heights: 0 };
        let quiet = self.quiet.entry(outpoint).or_insert(fresh);
        if quiet.handed != handed {
            *quiet = fresh;
        } else if quiet.last != height {
            *quiet = Quiet { last: height, heights: quiet.heights.saturating_add(1), ..*quiet };
        }
        let silent = height.saturating_sub(handed);
        quiet.heights >= GRACE && silent >= SILENCE && left <= SILENCE
    }
}

/// What LDK has in the mempool for an output: when it handed that over last, and for how long it has not since.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    handed: u32,
    /// When a guard asked last.
    last: u32,
    /// It asked at so many heights.
    heights: u32,
}

/// A transaction that LDK handed over: when it did so last, and the height that is written.
#[derive(Clone, Copy, Debug)]
struct HandedOver {
    last: u32,
    written: Option<u32>,
}

/// When a guard found a spender that is nobody's.
#[derive(Clone, Copy, Debug)]
struct Unknown {
    last: u32,
    /// At so many heights.
    heights: u32,
}

/// An output that the arbiter published a transaction for.
#[derive(Clone, Copy, Debug)]
struct Claimed {
    since: u32,
    /// When it was published last.
    last: u32,
    /// When it was known last that the network has it.
    known: u32,
    /// `None`: a coin of the wallet.
    channel: Option<ChannelId>,
}

impl Egress {
    /// In this mode.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { state: Mutex::new(State { mode, ..State::default() }), taps: None }
    }

    /// The same, and what LDK hands over is written by the recorder of these taps, so that it is known after a restart
    /// ([`Recorder::remind`](super::Recorder::remind)).
    #[must_use]
    pub fn recorded_by(self, taps: Arc<Taps>) -> Self {
        Self { taps: Some(taps), ..self }
    }

    /// What LDK handed over before this start, at these heights.
    pub(super) fn remember(&self, known: BTreeMap<Txid, u32>) {
        let mut state = lock(&self.state);
        for (txid, height) in known {
            let before = HandedOver { last: height, written: Some(height) };
            state.of_ldk.entry(txid).or_insert(before).written = Some(height);
        }
    }

    /// The mode.
    #[must_use]
    pub fn mode(&self) -> Mode {
        lock(&self.state).mode
    }

    /// Changes the mode. What was not published comes again: the arbiter's at the latest with the
    /// next block, LDK's when it publishes its pending claims again. From [`Mode::Own`] to another, spendable
    /// outputs that were acknowledged as the arbiter's ([`Handled::Arbiter`]) and are not spent yet are the node's to sweep, as LDK's
    /// monitors have done with them: [`LdkEvents::for_node`] gives them, after each block.
    ///
    /// [`Handled::Arbiter`]: super::Handled::Arbiter
    /// [`LdkEvents::for_node`]: super::LdkEvents::for_node
    pub fn set(&self, mode: Mode) {
        let mut state = lock(&self.state);
        (state.mode, state.has_ended) = (mode, false);
    }

    /// The chain has this height.
    pub fn best_height(&self, height: u32) {
        let mut state = lock(&self.state);
        if state.height == 0 {
            state.began_at(height);
        }
        state.height = height;
        let recent = |since: u32| height.saturating_sub(since) < REMEMBERED;
        state.claimed.retain(|_, claimed| recent(claimed.last));
        state.wanted.retain(|_, since| recent(*since));
        state.unknown.retain(|_, unknown| recent(unknown.last));
        state.quiet.retain(|_, quiet| recent(quiet.last));
        state.deadlines.retain(|_, deadline| recent(*deadline));
        let old = state.forget_of_ldk();
        drop(state);
        if let Some(taps) = &self.taps {
            taps.handed_over(Vec::new(), old);
        }
    }

    /// There is no arbiter any more: all that LDK publishes goes out, as in [`Mode::Observe`], and LDK waits for the
    /// arbiter no longer: each channel is LDK's alone, for good, with the next thing that LDK writes of it. To be said by
    /// whoever waits for its end, and not where the node stops as well.
    pub fn ended(&self) {
        let mut state = lock(&self.state);
        (state.mode, state.has_ended) = (Mode::Observe, true);
    }

    /// Outputs that the arbiter has published a transaction for, with the height at which it first
    /// did. In [`Mode::Guard`] each of them means that LDK did not get through.
    #[must_use]
    pub fn published_for(&self) -> BTreeMap<OutPoint, u32> {
        let state = lock(&self.state);
        state.claimed.iter().map(|(outpoint, claimed)| (*outpoint, claimed.since)).collect()
    }

    /// The height, and whether there is no arbiter any more.
    pub(super) fn height_and_end(&self) -> (u32, bool) {
        let state = lock(&self.state);
        (state.height, state.has_ended)
    }

    /// Our commitment of the channel is about to be published: from here on
    /// [`hand_back`](Self::hand_back) says so. `false`: it was handed back before.
    fn begin(&self, channel: ChannelId) -> bool {
        let mut state = lock(&self.state);
        let ours = !state.handed_back.contains(&channel);
        if ours {
            state.closing.insert(channel);
        }
        ours
    }

    /// LDK was not told to close it, and nothing of ours goes out.
    fn not_begun(&self, channel: &ChannelId) {
        lock(&self.state).closing.remove(channel);
    }

    fn tell(&self, channel: ChannelId) {
        lock(&self.state).told.insert(channel);
    }

    /// Whether all of these are of channels that are LDK's alone.
    fn is_handed_back(&self, stakes: &[Stake]) -> bool {
        let state = lock(&self.state);
        !stakes.is_empty() && stakes.iter().all(|stake| state.handed_back.contains(&stake.channel))
    }

    /// Whether some of these are of channels that are LDK's alone. A transaction that claims them is refused from here on.
    fn leaves_out(&self, stakes: &[Stake]) -> bool {
        let mut state = lock(&self.state);
        let left = stakes.iter().filter(|stake| state.handed_back.contains(&stake.channel));
        let left: Vec<OutPoint> = left.map(|stake| stake.outpoint).collect();
        let any = !left.is_empty();
        state.left_out.extend(left);
        any
    }

    /// Whether a transaction claims an output that was left out.
    fn is_left_out(&self, transaction: &Transaction) -> bool {
        let state = lock(&self.state);
        transaction.input.iter().any(|input| state.left_out.contains(&input.previous_output))
    }

    /// The arbiter wants to claim these.
    fn wants(&self, stakes: &[Stake]) {
        let mut state = lock(&self.state);
        for stake in stakes {
            let Some(BlockHeight(deadline)) = stake.deadline else { continue };
            let first = state.deadlines.entry(stake.outpoint).or_insert(deadline);
            *first = deadline.min(*first);
        }
    }

    /// Transactions of this package were handed over; `known` says which of them the network has.
    fn published(&self, package: &Package, known: impl Fn(&Txid) -> bool) {
        let mut state = lock(&self.state);
        let last = state.height;
        let inputs = package.transactions.iter().flat_map(|tx| {
            let known = known(&tx.compute_txid());
            tx.input.iter().map(move |input| (input, known))
        });
        for (input, known) in inputs {
            let outpoint = input.previous_output;
            let stake = package.stakes.iter().find(|stake| stake.outpoint == outpoint);
            let channel = stake.map(|stake| stake.channel);
            // It may have been handed back while the network was asked.
            if channel.is_some_and(|channel| state.handed_back.contains(&channel)) {
                continue;
            }
            let claimed = Claimed { since: last, last, known: last, channel };
            let claimed = state.claimed.entry(outpoint).or_insert(claimed);
            claimed.last = last;
            if known {
                claimed.known = last;
            }
        }
    }

    /// Whether a transaction of LDK's monitors goes out.
    fn passes(&self, tx: &Transaction) -> bool {
        let mut state = lock(&self.state);
        match state.mode {
            Mode::Observe | Mode::Guard { .. } => true,
            Mode::Own => tx.input.iter().any(|input| state.is_overdue(input.previous_output)),
        }
    }

    /// Whether the arbiter has had its time for any of these outputs, which LDK wants to spend.
    pub(super) fn is_overdue(&self, outpoints: impl Iterator<Item = OutPoint>) -> bool {
        let mut state = lock(&self.state);
        // Each of them counts from now on.
        outpoints.filter(|outpoint| state.is_overdue(*outpoint)).count() > 0
    }

    fn handed_on(&self, transactions: &[&Transaction]) {
        let mut state = lock(&self.state);
        let mut txids: Vec<Txid> = transactions.iter().map(|tx| tx.compute_txid()).collect();
        txids.retain(|txid| state.hands_over(*txid));
        let height = state.height;
        drop(state);
        if let Some(taps) = &self.taps {
            taps.handed_over(txids.into_iter().map(|txid| (txid, height)).collect(), Vec::new());
        }
    }

    /// A claim of LDK's, which spends these outputs, is about to have coins.
    pub(super) fn asks_for_coins(&self, claim: OutPoint, spent: impl Iterator<Item = OutPoint>) {
        let mut state = lock(&self.state);
        state.coins.retain(|_, of| *of != claim);
        state.coins.extend(spent.map(|outpoint| (outpoint, claim)));
    }

    /// Whether a transaction of the arbiter's for this output may be out, and may be published again: its coins are
    /// its own. It is not where LDK's may pass.
    pub(super) fn is_in_use(&self, outpoint: &OutPoint) -> bool {
        let state = lock(&self.state);
        state.mode != Mode::Observe && state.is_heard_of(*outpoint) == Some(true)
    }

    /// A claim of LDK's has coins no more.
    pub(super) fn has_no_coins(&self, claim: OutPoint) {
        lock(&self.state).coins.retain(|_, of| *of != claim);
    }

    /// What LDK has coins reserved as, for a claim of this output.
    fn coins_of_ldk(&self, outpoint: OutPoint) -> Option<OutPoint> {
        lock(&self.state).coins.remove(&outpoint)
    }

    /// Those of these outputs whose deadline is at most so many blocks away, with their deadlines.
    fn near(&self, stakes: &[Stake], blocks: u32) -> Vec<(OutPoint, BlockHeight)> {
        let of = |stake: &Stake| stake.deadline.map(|deadline| (stake.outpoint, deadline));
        let near = |(_, deadline): &(OutPoint, BlockHeight)| self.left(*deadline) <= blocks;
        stakes.iter().filter_map(of).filter(near).collect()
    }

    /// Blocks until this height.
    fn left(&self, deadline: BlockHeight) -> u32 {
        BlockHeight(lock(&self.state).height).until(deadline).0
    }

    /// Whether LDK has this output spent by one of these transactions of the mempool, as far as that is known.
    fn is_ldks(&self, outpoint: OutPoint, deadline: BlockHeight, mempool: &[Transaction]) -> bool {
        let spends =
            |tx: &&Transaction| tx.input.iter().any(|input| input.previous_output == outpoint);
        let mut spenders = mempool.iter().filter(spends).map(Transaction::compute_txid).peekable();
        let mut state = lock(&self.state);
        if spenders.peek().is_none() {
            return false;
        }
        let of_ldk = spenders.filter_map(|txid| state.of_ldk.get(&txid).map(|of| of.last)).max();
        match of_ldk {
            Some(handed) => !state.is_cut_off(outpoint, deadline, handed),
            None => state.may_be_ldks(outpoint, deadline),
        }
    }
}

impl Listen for Egress {
    fn filtered_block_connected(&self, _: &Header, _: &TransactionData<'_>, height: u32) {
        self.best_height(height);
    }

    fn blocks_disconnected(&self, fork_point_block: BestBlock) {
        self.best_height(fork_point_block.height);
    }
}

/// Of a chain client that filters, only the tip.
impl Confirm for Egress {
    fn transactions_confirmed(&self, _: &Header, _: &TransactionData<'_>, _: u32) {}

    fn transaction_unconfirmed(&self, _: &Txid) {}

    fn best_block_updated(&self, _: &Header, height: u32) {
        self.best_height(height);
    }

    fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        Vec::new()
    }
}

/// The broadcaster of LDK's chain monitor, and of what handles its `BumpTransaction` events. The
/// channel manager's own funding transactions and mutual closes are never held back: it has the
/// inner one.
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
            self.egress.handed_on(txs);
            self.inner.broadcast_transactions(txs);
        }
    }
}
