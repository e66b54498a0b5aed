//! `ConfirmSource`: transactions and tips from a chain client of LDK's that filters, as a block source for the driver.
use super::news::News;
use super::{KEPT_BODIES, Link, SourceError, lock};
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, Txid};
use core::error::Error;
use core::fmt;
use core::future::{Future, poll_fn, ready};
use core::task::Waker;
use lightning::chain::transaction::{OutPoint as LdkOutPoint, TransactionData};
use lightning::chain::{Confirm, Filter, WatchedOutput};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

/// How deep a transaction may lie for the chain client to be asked to look after it: as deep as a block in which a
/// reorganisation can still change what the arbiter knows.
pub const RELEVANT_DEPTH: u32 = 100;

/// Blocks below the first tip whose headers are fetched with it, as the driver remembers as many at first.
const FIRST: u32 = 144;

/// Most headers that are asked for at once: what Electrum gives.
const AT_ONCE: u32 = 2_016;

/// How many transactions after the funding output an output may be whose spend matters: that of a second stage is.
const FURTHEST: u8 = 2;

/// Headers of a chain server (Electrum, Esplora). They need not be trusted: each is the one that the next names.
pub trait Headers: Sync {
    /// Why a call failed.
    type Error: Error + Send + Sync + 'static;

    /// The header of block `to`, and before it, in the order of the chain, those of as many blocks below it as come
    /// easily: `most` in all. Empty: the block is not there (any more).
    fn headers(
        &self,
        to: BlockRef,
        most: u32,
    ) -> impl Future<Output = Result<Vec<Header>, Self::Error>> + Send;
}

/// Why a round is not complete: call [`ConfirmSource::round_complete`] after the next.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoundError<E> {
    /// The chain client has said of no block that it is the best one.
    NoTip,
    /// The server failed.
    Headers(E),
    /// The server does not have this block, or gave another: the chain may have moved.
    NoHeader(BlockRef),
}

impl<E: fmt::Display> fmt::Display for RoundError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTip => write!(f, "no best block was delivered yet"),
            Self::Headers(why) => write!(f, "headers: {why}"),
            Self::NoHeader(at) => {
                write!(
                    f,
                    "the server gave no header of block {} at height {}",
                    at.hash, at.height.0
                )
            }
        }
    }
}

impl<E: Error + 'static> Error for RoundError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Headers(why) => Some(why),
            Self::NoTip | Self::NoHeader(_) => None,
        }
    }
}

/// Transactions and tips that a chain client delivers by [`Confirm`] (`EsploraSyncClient`, `ElectrumSyncClient`), as a
/// [`BlockSource`].
///
/// The blocks that it serves have what was delivered of them and nothing else. So an output whose spend matters must be
/// registered with the chain client. LDK's chain monitor registers funding outputs and those of commitment transactions:
/// give it the source as its [`Filter`], which passes on what it is told, and registers what comes after these while it is
/// shown the transaction. Before a channel is watched that is closed already, let a round go by.
///
/// Neither what is confirmed nor the tip counts before the round is over: call [`round_complete`](Self::round_complete)
/// after each round of the chain client. It fetches the headers of blocks that were left out, because the driver goes from
/// block to block and remembers where a reorganisation may lead back to.
///
/// After a restart, deliver again what registered outputs were spent by, as LDK's clients do: what the arbiter knows
/// already changes nothing, and what it was told of too late before is made good.
///
/// The mempool stays unseen. A clone is another handle to the same blocks: one for the chain client, one for the driver.
///
/// ```
/// use arb_core::units::BlockRef;
/// use arb_node_adapter::{ConfirmSource, Headers};
/// use lightning::chain::{Confirm, Filter};
/// use std::error::Error;
/// use std::sync::Arc;
///
/// /// As `EsploraSyncClient` has it.
/// trait ChainClient: Filter + Send + Sync {
///     async fn sync(&self, told: Vec<Arc<dyn Confirm + Send + Sync>>) -> Result<(), Box<dyn Error>>;
/// }
///
/// // Before LDK's chain monitor is made, which is given `Some(blocks.clone())` as its filter.
/// fn blocks(remembered: Vec<BlockRef>, client: Arc<impl ChainClient + 'static>) -> Arc<ConfirmSource> {
///     Arc::new(ConfirmSource::new(remembered, client))
/// }
///
/// // Every minute, or with each block. The arbiter has a clone of `blocks` as `Ports::source`.
/// async fn round<H: Headers>(
///     client: &impl ChainClient,
///     server: &H,
///     (manager, monitors): (Arc<dyn Confirm + Send + Sync>, Arc<dyn Confirm + Send + Sync>),
///     blocks: Arc<ConfirmSource>,
/// ) -> Result<(), Box<dyn Error>> {
///     client.sync(vec![manager, monitors, blocks.clone()]).await?;
///     Ok(blocks.round_complete(server).await?)
/// }
/// ```
#[derive(Clone)]
pub struct ConfirmSource {
    state: Arc<Mutex<State>>,
    filter: Arc<dyn Filter + Send + Sync>,
}

#[derive(Debug, Default)]
struct State {
    /// The chain of the last complete round, without gaps. Of remembered blocks no header is known.
    chain: BTreeMap<u32, BlockHash>,
    /// Its tip; `None`: no round was complete yet.
    tip: Option<BlockRef>,
    /// The best block, as the chain client said last.
    best: Option<BlockRef>,
    /// Headers, of whatever chain.
    headers: HashMap<BlockHash, (u32, Header)>,
    /// What was delivered of a block. It is little, and no chain client says it twice: it stays.
    bodies: HashMap<BlockHash, Body>,
    /// The lowest height that was asked for in vain.
    wanted: Option<u32>,
    /// The lowest height that was ever asked for so: from there on headers stay.
    asked_from: Option<u32>,
    /// What was delivered of blocks that the driver may have had without it.
    untold: BTreeMap<(u32, BlockHash), (Header, Body)>,
    /// The height up to which the driver has had blocks, as far as it said.
    stood: Option<u32>,
    /// Outputs that were registered, and after how many transactions: those that the chain monitor registered, none.
    followed: HashMap<OutPoint, u8>,
    /// Transactions that are confirmed no more, since the last round.
    gone: BTreeSet<Txid>,
    news: News,
}

/// Transactions of a block, in its order.
type Body = BTreeMap<(usize, Txid), Transaction>;

impl fmt::Debug for ConfirmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmSource").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Where a round has to lead to.
#[derive(Clone, Copy, Debug)]
struct Goal {
    /// The lowest block that was asked for.
    wanted: Option<u32>,
    /// How far down the chain is looked for that it goes on from.
    lowest: u32,
    /// The last block of that chain.
    highest: Option<u32>,
}

impl ConfirmSource {
    /// A source that goes on from the blocks that the store remembers ([`arb_core::log::ChangeLog::blocks`]), and
    /// registers outputs with `filter`, the chain client.
    #[must_use]
    pub fn new(
        remembered: impl IntoIterator<Item = BlockRef>,
        filter: Arc<dyn Filter + Send + Sync>,
    ) -> Self {
        let chain = remembered.into_iter().map(|at| (at.height.0, at.hash)).collect();
        Self { state: Arc::new(Mutex::new(State { chain, ..State::default() })), filter }
    }

    /// The chain client has delivered everything up to its best block. Fetches the headers that are missing, and shows
    /// the driver the chain up to there.
    ///
    /// # Errors
    /// Headers are not to be had now. What was fetched is kept, and the driver stays with the chain of the last round.
    pub async fn round_complete<H: Headers>(&self, from: &H) -> Result<(), RoundError<H::Error>> {
        let (best, goal) = {
            let state = lock(&self.state);
            let best = state.best.ok_or(RoundError::NoTip)?;
            (best, state.goal(best))
        };
        let (mut path, mut at, mut joined) = (Vec::new(), best, false);
        loop {
            joined |= self.joins(at);
            if joined && goal.wanted.is_none_or(|wanted| wanted > at.height.0) {
                break;
            }
            let header = match self.header(at) {
                Some(header) => header,
                None => self.fetch(from, at, goal.most(at, joined)).await?,
            };
            path.push(at);
            let Some(parent) = Link::of(&header, at.height.0).parent else { break };
            if !joined && at.height.0 <= goal.lowest {
                break;
            }
            at = parent;
        }
        let wakers = lock(&self.state).settle(best, goal, &path, joined);
        wakers.into_iter().for_each(Waker::wake);
        Ok(())
    }

    fn header(&self, at: BlockRef) -> Option<Header> {
        lock(&self.state).headers.get(&at.hash).map(|(_, header)| *header)
    }

    fn joins(&self, at: BlockRef) -> bool {
        lock(&self.state).chain.get(&at.height.0) == Some(&at.hash)
    }

    /// Fetches the header of a block, and some below it.
    async fn fetch<H: Headers>(
        &self,
        from: &H,
        at: BlockRef,
        most: u32,
    ) -> Result<Header, RoundError<H::Error>> {
        let given = from.headers(at, most).await.map_err(RoundError::Headers)?;
        let mut state = lock(&self.state);
        let (mut height, mut hash) = (at.height.0, at.hash);
        for header in given.into_iter().rev() {
            if header.block_hash() != hash {
                break;
            }
            state.headers.insert(hash, (height, header));
            let Some(below) = height.checked_sub(1) else { break };
            (height, hash) = (below, header.prev_blockhash);
        }
        let header = state.headers.get(&at.hash).map(|(_, header)| *header);
        header.ok_or(RoundError::NoHeader(at))
    }
}

impl Goal {
    /// How many headers are missing from here down, as far as can be told.
    fn most(self, at: BlockRef, joined: bool) -> u32 {
        let height = at.height.0;
        let down_to = match self.highest {
            _ if joined => self.wanted.unwrap_or(height),
            Some(highest) if highest < height => highest.saturating_add(1),
            Some(_) => height,
            None => self.lowest,
        };
        height.saturating_sub(down_to).saturating_add(1).min(AT_ONCE)
    }
}

impl State {
    fn goal(&self, best: BlockRef) -> Goal {
        let first = best.height.0.saturating_sub(FIRST);
        let lowest = self.chain.first_key_value().map_or(first, |(height, _)| *height);
        Goal {
            wanted: self.wanted,
            lowest: self.wanted.map_or(lowest, |wanted| wanted.min(lowest)),
            highest: self.chain.last_key_value().map(|(height, _)| *height),
        }
    }

    /// The chain is this path now, the highest block first, and if it has `joined` that of before, what is below.
    fn settle(
        &mut self,
        best: BlockRef,
        goal: Goal,
        path: &[BlockRef],
        joined: bool,
    ) -> Vec<Waker> {
        let _ = self.chain.split_off(&best.height.0.saturating_add(1));
        self.chain.extend(path.iter().map(|at| (at.height.0, at.hash)));
        if let Some(lowest) = path.last().filter(|_| !joined) {
            // What is remembered below is of another chain.
            self.chain = self.chain.split_off(&lowest.height.0);
        }
        if self.wanted == goal.wanted {
            self.wanted = None;
        }
        self.tip = Some(best);
        self.gone.clear();
        self.prune(best);
        self.news.tell()
    }

    /// Lets go what the driver is far above.
    fn prune(&mut self, tip: BlockRef) {
        let had = self.stood.map_or(0, |stood| stood.min(tip.height.0));
        let kept = u32::try_from(KEPT_BODIES).unwrap_or(u32::MAX);
        let low = had.saturating_sub(kept).min(self.asked_from.unwrap_or(u32::MAX));
        self.chain = self.chain.split_off(&low);
        self.headers.retain(|_, (height, _)| *height >= low);
        // In no chain, and too deep to come back.
        let chain = &self.chain;
        self.untold.retain(|(height, hash), _| {
            *height >= low || chain.get(height).is_none_or(|known| known == hash)
        });
    }

    fn confirmed(&mut self, header: &Header, data: &TransactionData<'_>, height: u32) {
        let hash = header.block_hash();
        self.headers.insert(hash, (height, *header));
        let body = self.bodies.entry(hash).or_default();
        // The next block above may be on its way to the driver.
        let may_be_had = self.stood.is_none_or(|stood| height <= stood.saturating_add(1));
        for (place, transaction) in data {
            let key = (*place, transaction.compute_txid());
            self.gone.remove(&key.1);
            if body.insert(key, (*transaction).clone()).is_none() && may_be_had {
                let untold = self.untold.entry((height, hash));
                let (_, untold) = untold.or_insert_with(|| (*header, Body::new()));
                untold.insert(key, (*transaction).clone());
            }
        }
    }

    /// The outputs of a transaction that are to be registered.
    fn follow(&mut self, transaction: &Transaction) -> Vec<(OutPoint, ScriptBuf)> {
        let spent = transaction.input.iter();
        let steps = spent.filter_map(|input| self.followed.get(&input.previous_output)).min();
        let steps = steps.copied().unwrap_or_default().saturating_add(1);
        if steps > FURTHEST {
            return Vec::new();
        }
        let txid = transaction.compute_txid();
        let outputs = (0..)
            .zip(&transaction.output)
            .map(|(vout, output)| (OutPoint { txid, vout }, output.script_pubkey.clone()));
        let spendable = outputs.filter(|(_, script)| !script.is_op_return());
        let is_new = |(outpoint, _): &(OutPoint, ScriptBuf)| match self.followed.entry(*outpoint) {
            Entry::Occupied(_) => false,
            Entry::Vacant(new) => {
                new.insert(steps);
                true
            }
        };
        spendable.filter(is_new).collect()
    }

    /// Headers down to this height are to come with the next round.
    fn not_yet(&mut self, height: u32) -> SourceError {
        let least = |known: Option<u32>| Some(known.map_or(height, |known| known.min(height)));
        (self.wanted, self.asked_from) = (least(self.wanted), least(self.asked_from));
        SourceError::NotYet(BlockHeight(height))
    }

    fn tip(&self) -> Result<BlockRef, SourceError> {
        self.tip.ok_or(SourceError::NotStarted)
    }

    fn hash_at(&mut self, height: BlockHeight) -> Result<Option<BlockHash>, SourceError> {
        let tip = self.tip()?;
        match self.chain.get(&height.0) {
            None if height <= tip.height => Err(self.not_yet(height.0)),
            found => Ok(found.copied()),
        }
    }

    fn block(&mut self, hash: BlockHash) -> Result<Option<Block>, SourceError> {
        let _ = self.tip()?;
        if let Some((_, header)) = self.headers.get(&hash) {
            let body = self.bodies.get(&hash).into_iter().flatten();
            let txdata = body.map(|(_, transaction)| transaction.clone()).collect();
            return Ok(Some(Block { header: *header, txdata }));
        }
        let remembered = self.chain.iter().find(|(_, known)| **known == hash);
        match remembered.map(|(height, _)| *height) {
            Some(height) => Err(self.not_yet(height)),
            None => Ok(None),
        }
    }

    /// Of the blocks that the driver has had, what it has not been told of the lowest.
    fn late(&mut self, tip: BlockRef) -> Option<(BlockRef, Block)> {
        self.stood = Some(tip.height.0);
        // Blocks above the next one are still to be asked for, and are whole then.
        let next = tip.height.0.saturating_add(1);
        self.untold.retain(|(height, _), _| *height <= next);
        let is_in = |height: &u32, hash: &BlockHash| {
            *height <= tip.height.0 && self.chain.get(height).is_none_or(|known| known == hash)
        };
        let mut of_chain = self.untold.iter().filter(|((height, hash), _)| is_in(height, hash));
        let ((height, hash), (header, body)) = of_chain.next()?;
        let at = BlockRef { height: BlockHeight(*height), hash: *hash };
        Some((at, Block { header: *header, txdata: body.values().cloned().collect() }))
    }

    fn had(&mut self, at: BlockRef, block: &Block) {
        let key = (at.height.0, at.hash);
        let Some((_, untold)) = self.untold.get_mut(&key) else { return };
        let had: BTreeSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        untold.retain(|(_, txid), _| !had.contains(txid));
        if untold.is_empty() {
            self.untold.remove(&key);
        }
    }
}

impl Confirm for ConfirmSource {
    fn transactions_confirmed(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        let outputs: Vec<(OutPoint, ScriptBuf)> = {
            let mut state = lock(&self.state);
            state.confirmed(header, txdata, height);
            txdata.iter().flat_map(|(_, transaction)| state.follow(transaction)).collect()
        };
        let block_hash = Some(header.block_hash());
        for (outpoint, script_pubkey) in outputs {
            // LDK counts outputs in 16 bits, and no transaction of a channel has more.
            let Ok(index) = u16::try_from(outpoint.vout) else { continue };
            let outpoint = LdkOutPoint { txid: outpoint.txid, index };
            self.filter.register_output(WatchedOutput { block_hash, outpoint, script_pubkey });
        }
    }

    /// Which blocks are in the chain, and with them which transactions, is told by the headers.
    fn transaction_unconfirmed(&self, txid: &Txid) {
        lock(&self.state).gone.insert(*txid);
    }

    fn best_block_updated(&self, header: &Header, height: u32) {
        let mut state = lock(&self.state);
        let hash = header.block_hash();
        state.headers.insert(hash, (height, *header));
        state.best = Some(BlockRef { height: BlockHeight(height), hash });
    }

    /// What a reorganisation may still take away.
    fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        let state = lock(&self.state);
        let Some(best) = state.best else { return Vec::new() };
        let low = best.height.0.saturating_sub(RELEVANT_DEPTH);
        let of = |(hash, body): (&BlockHash, &Body)| {
            let (height, _) = state.headers.get(hash).filter(|(height, _)| *height > low)?;
            // What is known to be in another chain is delivered again if it comes back.
            let is_stale = state.chain.get(height).is_some_and(|known| known != hash);
            let txids = body.keys().map(|(_, txid)| (*txid, *height, Some(*hash)));
            let txids = txids.filter(|(txid, ..)| !state.gone.contains(txid));
            (!is_stale).then(|| txids.collect::<Vec<_>>())
        };
        let mut relevant: Vec<_> = state.bodies.iter().filter_map(of).flatten().collect();
        relevant.sort_by_key(|(txid, height, _)| (*height, *txid));
        relevant
    }
}

impl Filter for ConfirmSource {
    fn register_tx(&self, txid: &Txid, script_pubkey: &Script) {
        self.filter.register_tx(txid, script_pubkey);
    }

    fn register_output(&self, output: WatchedOutput) {
        lock(&self.state).followed.insert(output.outpoint.into_bitcoin_outpoint(), 0);
        self.filter.register_output(output);
    }
}

impl BlockSource for ConfirmSource {
    type Error = SourceError;

    fn tip(&self) -> impl Future<Output = Result<BlockRef, SourceError>> + Send {
        ready(lock(&self.state).tip())
    }

    fn hash_at(
        &self,
        height: BlockHeight,
    ) -> impl Future<Output = Result<Option<BlockHash>, SourceError>> + Send {
        ready(lock(&self.state).hash_at(height))
    }

    fn block(
        &self,
        hash: BlockHash,
    ) -> impl Future<Output = Result<Option<Block>, SourceError>> + Send {
        ready(lock(&self.state).block(hash))
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

    fn late(&self, tip: BlockRef) -> Option<(BlockRef, Block)> {
        lock(&self.state).late(tip)
    }

    fn had(&self, at: BlockRef, block: &Block) {
        lock(&self.state).had(at, block);
    }
}
