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
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

/// Headers of a chain server (Electrum, Esplora). They need not be trusted: each is the one that the next names, up to the
/// best block.
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
/// Neither what is confirmed nor the tip counts before a round is over: call [`round_complete`](Self::round_complete)
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
/// use arb_node_adapter::{ConfirmSource, Egress, Headers};
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
///     (blocks, egress): (Arc<ConfirmSource>, Arc<Egress>),
/// ) -> Result<(), Box<dyn Error>> {
///     client.sync(vec![manager, monitors, blocks.clone(), egress]).await?;
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
    bodies: HashMap<BlockHash, Part>,
    /// By which of these an output is spent.
    spenders: HashMap<OutPoint, Vec<(BlockHash, Place)>>,
    /// The block that a transaction is in, as the chain client said last.
    confirmed_in: BTreeMap<Txid, BlockRef>,
    /// The lowest height that was asked for in vain.
    wanted: Option<u32>,
    /// The lowest height that was ever asked for so: from there on headers stay.
    asked_from: Option<u32>,
    /// What was delivered, in a round that is not complete, of blocks that the driver may have had without it.
    news_of: BTreeMap<(u32, BlockHash), Part>,
    /// The same of complete rounds, of blocks of the chain.
    untold: BTreeMap<(u32, BlockHash), Part>,
    /// The height up to which the driver has had blocks, as far as it said.
    stood: Option<u32>,
    /// Outputs that were registered, and after how many transactions: those that the chain monitor registered, none.
    followed: HashMap<OutPoint, (u8, ScriptBuf)>,
    /// Transactions that were asked for by their id: nothing else is known of their outputs.
    asked_for: HashSet<Txid>,
    news: News,
}

/// A transaction's place in its block.
type Place = (usize, Txid);

/// A part of a block: some of its transactions, in order.
#[derive(Clone, Debug)]
struct Part {
    height: u32,
    header: Header,
    transactions: BTreeMap<Place, Transaction>,
}

impl Part {
    const fn of(header: Header, height: u32) -> Self {
        Self { height, header, transactions: BTreeMap::new() }
    }

    fn block(&self) -> Block {
        Block { header: self.header, txdata: self.transactions.values().cloned().collect() }
    }
}

impl fmt::Debug for ConfirmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfirmSource").field("state", &self.state).finish_non_exhaustive()
    }
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
    /// the driver the chain up to there; then those of older blocks that were asked for since the last round, for a
    /// channel that is older. One call at a time, and none after a round that failed.
    ///
    /// # Errors
    /// Headers are not to be had now. What was fetched is kept. The driver stays with the chain of the last round, unless
    /// only older blocks are missing.
    pub async fn round_complete<H: Headers>(&self, from: &H) -> Result<(), RoundError<H::Error>> {
        let best = lock(&self.state).best.ok_or(RoundError::NoTip)?;
        let (mut path, mut at) = (Vec::new(), best);
        let joined = loop {
            if self.joins(at) {
                break true;
            }
            let header = self.header_of(from, at, |state| state.missing_above(at)).await?;
            path.push(at);
            let parent = Link::of(&header, at.height.0).parent;
            let is_last = at.height.0 <= lock(&self.state).lowest(best);
            match parent.filter(|_| !is_last) {
                Some(parent) => at = parent,
                None => break false,
            }
        };
        let wakers = lock(&self.state).settle(best, &path, joined);
        wakers.into_iter().for_each(Waker::wake);
        loop {
            let next = lock(&self.state).next_older();
            let Some((at, most)) = next else { return Ok(()) };
            self.header_of(from, at, |_| most).await?;
            let wakers = lock(&self.state).extend_down();
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    fn joins(&self, at: BlockRef) -> bool {
        lock(&self.state).chain.get(&at.height.0) == Some(&at.hash)
    }

    /// The header of a block, and if it is not known that of some below it as well.
    async fn header_of<H: Headers>(
        &self,
        from: &H,
        at: BlockRef,
        most: impl FnOnce(&State) -> u32,
    ) -> Result<Header, RoundError<H::Error>> {
        let most = {
            let state = lock(&self.state);
            if let Some((_, header)) = state.headers.get(&at.hash) {
                return Ok(*header);
            }
            most(&state).clamp(1, AT_ONCE)
        };
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

    /// Registers an output with the chain client. No lock is held: it may call back.
    fn register(
        &self,
        outpoint: OutPoint,
        script_pubkey: ScriptBuf,
        block_hash: Option<BlockHash>,
    ) {
        // LDK counts outputs in 16 bits, and no transaction of a channel has more.
        let Ok(index) = u16::try_from(outpoint.vout) else { return };
        let outpoint = LdkOutPoint { txid: outpoint.txid, index };
        self.filter.register_output(WatchedOutput { block_hash, outpoint, script_pubkey });
    }
}

impl State {
    /// How far down a chain is looked for that the best block's goes on from.
    fn lowest(&self, best: BlockRef) -> u32 {
        let first = best.height.0.saturating_sub(FIRST);
        self.chain.first_key_value().map_or(first, |(height, _)| *height)
    }

    /// How many headers are missing from here down to the chain, as far as can be told.
    fn missing_above(&self, at: BlockRef) -> u32 {
        let height = at.height.0;
        let down_to = match self.chain.last_key_value() {
            Some((highest, _)) if *highest < height => highest.saturating_add(1),
            Some(_) => height,
            None => self.lowest(at),
        };
        height.saturating_sub(down_to).saturating_add(1)
    }

    /// The chain is this path now, the highest block first, and if it has `joined` that of before, what is below.
    fn settle(&mut self, best: BlockRef, path: &[BlockRef], joined: bool) -> Vec<Waker> {
        let _ = self.chain.split_off(&best.height.0.saturating_add(1));
        self.chain.extend(path.iter().map(|at| (at.height.0, at.hash)));
        if let Some(lowest) = path.last().filter(|_| !joined) {
            // What is remembered below is of another chain.
            self.chain = self.chain.split_off(&lowest.height.0);
        }
        self.tip = Some(best);
        // What is in another block of that height is told with the block itself, should that come back.
        let chain = &self.chain;
        let is_in = |at: &(u32, BlockHash)| chain.get(&at.0).is_none_or(|known| *known == at.1);
        self.untold.retain(|at, _| is_in(at));
        for (at, part) in core::mem::take(&mut self.news_of) {
            if is_in(&at) {
                let untold = self.untold.entry(at).or_insert(Part::of(part.header, part.height));
                untold.transactions.extend(part.transactions);
            }
        }
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
    }

    /// The next older block whose header was asked for, and how many are missing from there down.
    fn next_older(&mut self) -> Option<(BlockRef, u32)> {
        let wanted = self.wanted?;
        let without = |(_, hash): &(&u32, &BlockHash)| !self.headers.contains_key(*hash);
        let known = self.chain.range(wanted..).rev().find(without);
        let known =
            known.map(|(height, hash)| BlockRef { height: BlockHeight(*height), hash: *hash });
        let at = known.or_else(|| {
            let (lowest, hash) =
                self.chain.first_key_value().filter(|(lowest, _)| **lowest > wanted)?;
            Link::of(&self.headers.get(hash)?.1, *lowest).parent
        });
        let Some(at) = at else {
            self.wanted = None;
            return None;
        };
        Some((at, at.height.0.saturating_sub(wanted).saturating_add(1)))
    }

    /// Blocks below the chain whose headers came are in it.
    fn extend_down(&mut self) -> Vec<Waker> {
        while let Some((lowest, hash)) = self.chain.first_key_value() {
            let parent =
                self.headers.get(hash).and_then(|(_, header)| Link::of(header, *lowest).parent);
            let Some(parent) = parent.filter(|parent| self.headers.contains_key(&parent.hash))
            else {
                break;
            };
            self.chain.insert(parent.height.0, parent.hash);
        }
        self.news.tell()
    }

    fn confirmed(&mut self, header: &Header, data: &TransactionData<'_>, height: u32) {
        let hash = header.block_hash();
        let at = BlockRef { height: BlockHeight(height), hash };
        self.headers.insert(hash, (height, *header));
        for (position, transaction) in data {
            let place = (*position, transaction.compute_txid());
            let body = self.bodies.entry(hash).or_insert(Part::of(*header, height));
            if body.transactions.insert(place, (*transaction).clone()).is_none() {
                for input in &transaction.input {
                    let spenders = self.spenders.entry(input.previous_output).or_default();
                    spenders.push((hash, place));
                }
            }
            let is_news = self.confirmed_in.insert(place.1, at) != Some(at);
            // The block above may be on its way to the driver.
            let may_be_had = self.stood.is_none_or(|stood| height <= stood.saturating_add(1));
            if is_news && may_be_had {
                self.tell_again(hash, place);
            }
        }
    }

    /// The driver may have had a block without this transaction, and without knowing it for what is spent by those
    /// that come after it.
    fn tell_again(&mut self, hash: BlockHash, place: Place) {
        let mut again = vec![(hash, place)];
        while let Some((hash, place)) = again.pop() {
            let Some(body) = self.bodies.get(&hash) else { continue };
            let Some(transaction) = body.transactions.get(&place) else { continue };
            let of = self.news_of.entry((body.height, hash));
            let of = of.or_insert(Part::of(body.header, body.height));
            if of.transactions.insert(place, transaction.clone()).is_none() {
                let outputs = (0..).zip(&transaction.output);
                let outputs = outputs.map(|(vout, _)| OutPoint { txid: place.1, vout });
                again.extend(outputs.filter_map(|output| self.spenders.get(&output)).flatten());
            }
        }
    }

    /// The outputs of a transaction that are to be registered.
    fn follow(&mut self, transaction: &Transaction) -> Vec<(OutPoint, ScriptBuf)> {
        let txid = transaction.compute_txid();
        let spent = transaction.input.iter();
        let steps = spent.filter_map(|input| self.followed.get(&input.previous_output));
        let steps = match steps.map(|(steps, _)| *steps).min() {
            Some(steps) => steps.saturating_add(1),
            None if self.asked_for.contains(&txid) => return Vec::new(),
            None => 1,
        };
        if steps > FURTHEST {
            return Vec::new();
        }
        let outputs = (0..)
            .zip(&transaction.output)
            .map(|(vout, output)| (OutPoint { txid, vout }, output.script_pubkey.clone()));
        let spendable = outputs.filter(|(_, script)| !script.is_op_return());
        let is_new =
            |(outpoint, script): &(OutPoint, ScriptBuf)| match self.followed.entry(*outpoint) {
                Entry::Occupied(_) => false,
                Entry::Vacant(new) => {
                    new.insert((steps, script.clone()));
                    true
                }
            };
        spendable.filter(is_new).collect()
    }

    /// A transaction is confirmed no more. Gives what it spent: a chain client looks no longer after outputs whose spend was
    /// some blocks deep.
    fn unconfirmed(&mut self, txid: &Txid) -> Vec<(OutPoint, ScriptBuf)> {
        let Some(at) = self.confirmed_in.remove(txid) else { return Vec::new() };
        let body = self.bodies.get(&at.hash).into_iter().flat_map(|body| &body.transactions);
        let transaction =
            body.filter(|((_, known), _)| known == txid).map(|(_, transaction)| transaction);
        let spent = transaction.flat_map(|transaction| &transaction.input);
        let followed = spent.filter_map(|input| {
            let (_, script) = self.followed.get(&input.previous_output)?;
            Some((input.previous_output, script.clone()))
        });
        followed.collect()
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
        if let Some(body) = self.bodies.get(&hash) {
            return Ok(Some(body.block()));
        }
        if let Some((height, header)) = self.headers.get(&hash) {
            return Ok(Some(Part::of(*header, *height).block()));
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
        let ((height, hash), part) = self.untold.first_key_value()?;
        let at = BlockRef { height: BlockHeight(*height), hash: *hash };
        (at.height <= tip.height).then(|| (at, part.block()))
    }

    fn had(&mut self, at: BlockRef, block: &Block) {
        let key = (at.height.0, at.hash);
        let Some(untold) = self.untold.get_mut(&key) else { return };
        let had: BTreeSet<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        untold.transactions.retain(|(_, txid), _| !had.contains(txid));
        if untold.transactions.is_empty() {
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
        for (outpoint, script) in outputs {
            self.register(outpoint, script, Some(header.block_hash()));
        }
    }

    /// Which blocks are in the chain, and with them which transactions, is told by the headers.
    fn transaction_unconfirmed(&self, txid: &Txid) {
        let spent = lock(&self.state).unconfirmed(txid);
        for (outpoint, script) in spent {
            self.register(outpoint, script, None);
        }
    }

    fn best_block_updated(&self, header: &Header, height: u32) {
        let mut state = lock(&self.state);
        let hash = header.block_hash();
        state.headers.insert(hash, (height, *header));
        state.best = Some(BlockRef { height: BlockHeight(height), hash });
    }

    /// What a reorganisation may still take away, in the block that the chain client said last.
    fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        let state = lock(&self.state);
        let low = state.best.map_or(0, |best| best.height.0.saturating_sub(RELEVANT_DEPTH));
        let relevant = state.confirmed_in.iter().filter(|(_, at)| at.height.0 >= low);
        let mut relevant: Vec<_> =
            relevant.map(|(txid, at)| (*txid, at.height.0, Some(at.hash))).collect();
        relevant.sort_by_key(|(txid, height, _)| (*height, *txid));
        relevant
    }
}

impl Filter for ConfirmSource {
    fn register_tx(&self, txid: &Txid, script_pubkey: &Script) {
        lock(&self.state).asked_for.insert(*txid);
        self.filter.register_tx(txid, script_pubkey);
    }

    fn register_output(&self, output: WatchedOutput) {
        let followed = (0, output.script_pubkey.clone());
        lock(&self.state).followed.insert(output.outpoint.into_bitcoin_outpoint(), followed);
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
