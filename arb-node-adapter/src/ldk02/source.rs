//! `ListenSource`: whole blocks from LDK's chain client as a block source for the driver.
use super::news::News;
use super::{Link, NotConnected, Round, lock};
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Transaction};
use core::fmt;
use core::future::{Future, poll_fn, ready};
use core::task::Waker;
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Listen};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Blocks below the tip whose bodies are kept after they were fetched, and that are remembered.
pub const KEPT_BODIES: usize = 288;

/// Why a block source that LDK feeds cannot answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing was delivered yet.
    NotStarted,
    /// Deliveries do not connect: start the chain client again from a block that is known.
    NotConnected(NotConnected),
    /// The chain client is within a round: whether its last block is the tip is not known yet.
    UnderWay,
    /// The block came filtered only, and the driver has to see all of it: a chain client that
    /// filters feeds a [`ConfirmSource`](super::ConfirmSource).
    Filtered(BlockHash),
    /// Headers from this height on come with the chain client's next round.
    NotYet(BlockHeight),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => write!(f, "no block was delivered yet"),
            Self::NotConnected(why) => why.fmt(f),
            Self::UnderWay => write!(f, "the chain client is within a round"),
            Self::Filtered(hash) => write!(f, "block {hash} was delivered filtered only"),
            Self::NotYet(height) => {
                write!(f, "headers from height {} on come with the next round", height.0)
            }
        }
    }
}

impl core::error::Error for SourceError {}

/// Whole blocks that a chain client delivers by [`Listen`], as a [`BlockSource`].
///
/// Bodies are kept until they were fetched, and those of the last [`KEPT_BODIES`] blocks beyond
/// that. What was never delivered cannot be served: register channels before their funding
/// confirms, or start the chain client at the oldest birth.
///
/// The mempool stays unseen, so a guard cannot be shown it by this:
///
/// ```compile_fail,E0277
/// # use arb_node_adapter::{ArbiterEgress, Egress, ListenSource};
/// fn sees<M: arb_node_adapter::Mempool>(_: M) {}
/// sees(ListenSource::new([]));
/// ```
///
/// [`Listen`] does not say which block is the chain's tip, and nothing may be decided by height
/// before that is known: call [`round_complete`](Self::round_complete) after each round of the
/// chain client. Until then the last block is withheld. A clone is another handle to the same
/// blocks: one for the chain client, one for the driver.
#[derive(Clone, Debug)]
pub struct ListenSource {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The chain that was delivered, lowest first, without gaps.
    chain: VecDeque<Entry>,
    lost: Option<NotConnected>,
    round: Round,
    news: News,
}

#[derive(Debug)]
struct Entry {
    at: BlockRef,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Never delivered, or let go after it was fetched.
    Absent,
    Filtered,
    Whole(Block),
    Fetched(Block),
}

impl ListenSource {
    /// A source whose chain begins with these blocks, lowest first: those that the store remembers
    /// ([`arb_core::log::ChangeLog::blocks`]). The chain client starts at the last of them.
    #[must_use]
    pub fn new(remembered: impl IntoIterator<Item = BlockRef>) -> Self {
        let entry = |at| Entry { at, body: Body::Absent };
        let chain = remembered.into_iter().map(entry).collect();
        let state = State { chain, lost: None, round: Round::Complete, news: News::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The chain client has delivered everything up to its tip.
    pub fn round_complete(&self) {
        self.change(|state| state.round = Round::Complete);
    }

    /// Number of block bodies that are held.
    #[must_use]
    pub fn bodies(&self) -> usize {
        let state = lock(&self.state);
        let held = |entry: &&Entry| matches!(entry.body, Body::Whole(_) | Body::Fetched(_));
        state.chain.iter().filter(held).count()
    }

    fn connect(&self, link: Link, body: Body) {
        self.change(|state| {
            state.round = Round::UnderWay;
            state.connect(link, body);
        });
    }

    /// Wakes after the lock is gone: a waker may run anything.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.news.tell()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn position(&self, block: &BlockRef) -> Option<usize> {
        self.chain.iter().rposition(|entry| entry.at == *block)
    }

    fn connect(&mut self, link: Link, body: Body) {
        if let Some(known) = self.position(&link.at) {
            if let Some(entry) = self.chain.get_mut(known) {
                entry.complete(body);
            }
            return;
        }
        let tip = self.chain.back().map(|entry| entry.at);
        let parent = link.parent.and_then(|parent| self.position(&parent));
        match (tip, parent) {
            (None, _) => {}
            (Some(_), Some(parent)) => self.chain.truncate(parent.saturating_add(1)),
            (Some(tip), None) => {
                self.lost = Some(NotConnected::Gap { tip, found: link.at });
                return;
            }
        }
        self.lost = None;
        self.chain.push_back(Entry { at: link.at, body });
        self.prune();
    }

    fn disconnect(&mut self, fork_point: BlockRef) {
        if let Some(position) = self.position(&fork_point) {
            self.chain.truncate(position.saturating_add(1));
            return;
        }
        let (Some(lowest), Some(tip)) = (self.chain.front(), self.chain.back()) else { return };
        let BlockRef { height, hash } = fork_point;
        if height < lowest.at.height {
            // Deeper than anything remembered: the driver finds out, and says so.
            self.chain.clear();
            self.chain.push_back(Entry { at: fork_point, body: Body::Absent });
        } else if height <= tip.at.height {
            self.lost = Some(NotConnected::UnknownFork { tip: tip.at, height, hash });
        }
    }

    /// Lets go what was fetched and is old.
    fn prune(&mut self) {
        let is_old = |chain: &VecDeque<Entry>| chain.len() > KEPT_BODIES;
        while is_old(&self.chain) {
            match self.chain.front().map(|entry| &entry.body) {
                Some(Body::Absent | Body::Fetched(_)) => {
                    self.chain.pop_front();
                }
                Some(Body::Whole(_) | Body::Filtered) | None => break,
            }
        }
    }

    fn fetch(&mut self, hash: BlockHash) -> Result<Option<Block>, SourceError> {
        let is_tip = self.chain.back().is_some_and(|tip| tip.at.hash == hash);
        if is_tip && self.round == Round::UnderWay {
            return Err(SourceError::UnderWay);
        }
        let found = self.chain.iter_mut().rev().find(|entry| entry.at.hash == hash);
        let Some(entry) = found else { return Ok(None) };
        match core::mem::replace(&mut entry.body, Body::Absent) {
            Body::Absent => Ok(None),
            Body::Filtered => {
                entry.body = Body::Filtered;
                Err(SourceError::Filtered(hash))
            }
            Body::Whole(block) | Body::Fetched(block) => {
                entry.body = Body::Fetched(block.clone());
                self.prune();
                Ok(Some(block))
            }
        }
    }

    /// Within a round, a tip that the driver stands on already would look like the chain's.
    fn tip(&self) -> Result<BlockRef, SourceError> {
        self.in_order()?;
        let tip = self.chain.back().ok_or(SourceError::NotStarted)?;
        match (self.round, &tip.body) {
            (Round::UnderWay, Body::Absent | Body::Fetched(_)) => Err(SourceError::UnderWay),
            (Round::UnderWay, Body::Whole(_) | Body::Filtered) | (Round::Complete, _) => Ok(tip.at),
        }
    }

    const fn in_order(&self) -> Result<(), SourceError> {
        match self.lost {
            Some(why) => Err(SourceError::NotConnected(why)),
            None => Ok(()),
        }
    }
}

impl Entry {
    /// The same block again: the whole of it may come after a filtered part.
    fn complete(&mut self, body: Body) {
        if let (Body::Filtered | Body::Absent, Body::Whole(_)) = (&self.body, &body) {
            self.body = body;
        }
    }
}

impl Listen for ListenSource {
    fn block_connected(&self, block: &Block, height: u32) {
        self.connect(Link::of(&block.header, height), Body::Whole(block.clone()));
    }

    fn filtered_block_connected(&self, header: &Header, _: &TransactionData<'_>, height: u32) {
        self.connect(Link::of(header, height), Body::Filtered);
    }

    fn blocks_disconnected(&self, fork_point_block: BestBlock) {
        let height = BlockHeight(fork_point_block.height);
        let fork_point = BlockRef { height, hash: fork_point_block.block_hash };
        self.change(|state| {
            state.round = Round::UnderWay;
            state.disconnect(fork_point);
        });
    }
}

impl BlockSource for ListenSource {
    type Error = SourceError;

    fn tip(&self) -> impl Future<Output = Result<BlockRef, SourceError>> + Send {
        ready(lock(&self.state).tip())
    }

    fn hash_at(
        &self,
        height: BlockHeight,
    ) -> impl Future<Output = Result<Option<BlockHash>, SourceError>> + Send {
        let state = lock(&self.state);
        let found = state.chain.iter().rev().find(|entry| entry.at.height == height);
        ready(state.in_order().map(|()| found.map(|entry| entry.at.hash)))
    }

    fn block(
        &self,
        hash: BlockHash,
    ) -> impl Future<Output = Result<Option<Block>, SourceError>> + Send {
        let mut state = lock(&self.state);
        ready(state.in_order().and_then(|()| state.fetch(hash)))
    }

    /// LDK's chain clients do not deliver the mempool.
    fn mempool_spenders(
        &self,
        _: Vec<OutPoint>,
    ) -> impl Future<Output = Result<Vec<Transaction>, SourceError>> + Send {
        ready(Ok(Vec::new()))
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        poll_fn(|context| lock(&self.state).news.poll(context))
    }
}
