//! Chain, network, feerates, signer and wallet.
use super::Mood;
use super::channel::{BIRTH, our_secrets, wallet_script};
use arb_core::claim::trough::Troughs;
use arb_core::format::sighash;
use arb_core::ids::ChannelId;
use arb_core::ports::{
    Broadcast, Coin, CoinRequest, CoinSource, FeeEstimates, FeeSource, OurScripts, Package,
    PointRequest, ScriptOwner, SignRequest, Signer, Verdict,
};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::{Header, Version};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, ecdsa};
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, FeeRate, OutPoint, ScriptBuf, Transaction,
    TxMerkleNode, TxOut, Txid, Weight,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

pub(in super::super) use crate::mocked::Down;

/// A chain from [`BIRTH`] on that remembers stale blocks.
#[derive(Clone, Default)]
pub(in super::super) struct Chain(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<ChainState>,
    bell: Notify,
    /// Held by the call that is answered, where one is at a time.
    turn: tokio::sync::Mutex<()>,
}

type Hook = Box<dyn FnOnce(&Chain) + Send>;

mod source;

struct ChainState {
    best: Vec<BlockRef>,
    blocks: HashMap<BlockHash, Block>,
    /// How it is asked for those that it does not give.
    broken: HashMap<BlockHash, Mood>,
    mempool: Vec<Transaction>,
    mood: Mood,
    mempool_mood: Mood,
    /// It answers one call at a time, and takes so long for each.
    pace: Duration,
    /// How long the source takes to name a block.
    naming: Duration,
    /// What happens before the block of this hash is handed out.
    before: Option<(BlockHash, Hook)>,
    /// How long that block then takes.
    delay: Duration,
    looks: usize,
    mempool_looks: usize,
    blocks_read: usize,
    nonce: u32,
    /// What it heard of after its blocks were handed out.
    late: Vec<(BlockRef, Block)>,
}

impl Default for ChainState {
    fn default() -> Self {
        let mut state = Self {
            best: Vec::new(),
            blocks: HashMap::new(),
            broken: HashMap::new(),
            mempool: Vec::new(),
            mood: Mood::Well,
            mempool_mood: Mood::Well,
            pace: Duration::ZERO,
            naming: Duration::ZERO,
            before: None,
            delay: Duration::ZERO,
            looks: 0,
            mempool_looks: 0,
            blocks_read: 0,
            nonce: 0,
            late: Vec::new(),
        };
        state.mine(vec![]);
        state
    }
}

impl ChainState {
    fn mine(&mut self, txdata: Vec<Transaction>) -> BlockRef {
        self.nonce += 1;
        let prev_blockhash = self.best.last().map_or(BlockHash::all_zeros(), |tip| tip.hash);
        let header = Header {
            version: Version::TWO,
            prev_blockhash,
            merkle_root: TxMerkleNode::all_zeros(),
            time: 0,
            bits: CompactTarget::default(),
            nonce: self.nonce,
        };
        let height = self.best.last().map_or(BIRTH, |tip| tip.height.0 + 1);
        let at = BlockRef { height: BlockHeight(height), hash: header.block_hash() };
        self.mempool.retain(|tx| !txdata.contains(tx));
        self.blocks.insert(at.hash, Block { header, txdata });
        self.best.push(at);
        at
    }
}

impl Chain {
    fn state(&self) -> MutexGuard<'_, ChainState> {
        self.0.state.lock().expect("no panic with the lock")
    }

    pub(in super::super) fn mine(&self, txdata: Vec<Transaction>) -> BlockRef {
        let at = self.state().mine(txdata);
        self.0.bell.notify_one();
        at
    }

    pub(in super::super) fn mine_many(&self, blocks: u32) {
        for _ in 0..blocks {
            self.mine(vec![]);
        }
    }

    /// Takes blocks off the best chain.
    pub(in super::super) fn undo(&self, blocks: usize) {
        let mut state = self.state();
        let left = state.best.len().checked_sub(blocks).expect("so many blocks");
        state.best.truncate(left);
    }

    pub(in super::super) fn tip_now(&self) -> BlockRef {
        *self.state().best.last().expect("at least one block")
    }

    pub(in super::super) fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// How it answers about its mempool alone.
    pub(in super::super) fn mempool_is(&self, mood: Mood) {
        self.state().mempool_mood = mood;
    }

    /// It takes so long to name a block of a height.
    pub(in super::super) fn names_blocks_in(&self, naming: Duration) {
        self.state().naming = naming;
    }

    /// From now on it answers one call after the other, each after so long.
    pub(in super::super) fn answers_one_in(&self, pace: Duration) {
        self.state().pace = pace;
    }

    pub(in super::super) fn slow(&self, delay: Duration) {
        self.state().delay = delay;
    }

    pub(in super::super) fn before(
        &self,
        block: BlockRef,
        act: impl FnOnce(&Self) + Send + 'static,
    ) {
        self.state().before = Some((block.hash, Box::new(act)));
    }

    pub(in super::super) fn enter_mempool(&self, tx: Transaction) {
        self.state().mempool.push(tx);
        self.0.bell.notify_one();
    }

    pub(in super::super) fn leave_mempool(&self, txid: Txid) {
        self.state().mempool.retain(|tx| tx.compute_txid() != txid);
        self.0.bell.notify_one();
    }

    /// The best chain, to come back to.
    pub(in super::super) fn best(&self) -> Vec<BlockRef> {
        self.state().best.clone()
    }

    pub(in super::super) fn return_to(&self, best: Vec<BlockRef>) {
        self.state().best = best;
    }

    /// The source loses a block's content.
    pub(in super::super) fn prune(&self, block: BlockRef) -> Option<Block> {
        self.state().blocks.remove(&block.hash)
    }

    /// The source fails, or hangs, whenever it is asked for this block.
    pub(in super::super) fn breaks(&self, block: BlockRef, how: Mood) {
        self.state().broken.insert(block.hash, how);
    }

    /// It does not any more.
    pub(in super::super) fn mends(&self, block: BlockRef) {
        self.state().broken.remove(&block.hash);
    }

    /// The source has it again.
    pub(in super::super) fn has(&self, block: Block) {
        self.state().blocks.insert(block.block_hash(), block);
    }

    /// The source knows of no block below this one.
    pub(in super::super) fn begins_at(&self, first: BlockRef) {
        self.state().best.retain(|block| block.height >= first.height);
    }

    /// How often the tip was asked for.
    pub(in super::super) fn looks(&self) -> usize {
        self.state().looks
    }

    pub(in super::super) fn mempool_looks(&self) -> usize {
        self.state().mempool_looks
    }

    /// How often a block was asked for.
    pub(in super::super) fn blocks_read(&self) -> usize {
        self.state().blocks_read
    }

    /// Everybody who holds the chain: the test, and ports.
    pub(in super::super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }

    async fn act(&self) -> Result<(), Down> {
        let pace = self.state().pace;
        if pace > Duration::ZERO {
            let _turn = self.0.turn.lock().await;
            sleep(pace).await;
        }
        let mood = self.state().mood;
        mood.act().await
    }
}

/// A network that accepts everything, unless told otherwise.
#[derive(Clone, Default)]
pub(in super::super) struct Net(Arc<Mutex<NetState>>);

#[derive(Default)]
struct NetState {
    sent: Vec<Vec<Transaction>>,
    mood: Mood,
    /// Verdicts on packages to come.
    verdicts: VecDeque<Verdict>,
    /// What is said of whatever spends these outputs.
    refused: BTreeMap<OutPoint, Verdict>,
    refuses_all: Option<Verdict>,
    /// Whatever spends the output of an entry pays too little, until what spends the other alone is accepted.
    behind: BTreeMap<OutPoint, OutPoint>,
    taken: BTreeSet<OutPoint>,
    /// How long what spends an output is on its way, and the verdict on its way back.
    delays: BTreeMap<OutPoint, (Duration, Duration)>,
}

impl Net {
    fn state(&self) -> MutexGuard<'_, NetState> {
        self.0.lock().expect("no panic with the lock")
    }

    pub(in super::super) fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub(in super::super) fn answer(&self, verdict: Verdict) {
        self.state().verdicts.push_back(verdict);
    }

    /// Nothing that spends this output is accepted.
    pub(in super::super) fn refuses(&self, outpoint: OutPoint, verdict: Verdict) {
        self.state().refused.insert(outpoint, verdict);
    }

    /// The opposite.
    pub(in super::super) fn accepts(&self, outpoint: OutPoint) {
        self.state().refused.remove(&outpoint);
    }

    /// What spends `output` pays too little, until something that spends `first` alone is accepted.
    pub(in super::super) fn takes_after(&self, output: OutPoint, first: OutPoint) {
        self.state().behind.insert(output, first);
    }

    /// Whether something that spends this output alone was accepted.
    pub(in super::super) fn took(&self, output: OutPoint) -> bool {
        self.state().taken.contains(&output)
    }

    /// What spends this output is on its way for so long, and the verdict on its way back.
    pub(in super::super) fn delays(&self, output: OutPoint, there: Duration, back: Duration) {
        self.state().delays.insert(output, (there, back));
    }

    /// Nothing at all is accepted.
    pub(in super::super) fn refuses_all(&self, verdict: Verdict) {
        self.state().refuses_all = Some(verdict);
    }

    fn judge(&self, tx: &Transaction) -> Option<Verdict> {
        let state = self.state();
        let early =
            |output| state.behind.get(output).is_some_and(|first| !state.taken.contains(first));
        if let [input] = tx.input.as_slice()
            && early(&input.previous_output)
        {
            return Some(Verdict::FeeTooLow("less fees than conflicting txs".to_owned()));
        }
        let spends = |i: &bitcoin::TxIn| state.refused.get(&i.previous_output).cloned();
        state.refuses_all.clone().or_else(|| tx.input.iter().find_map(spends))
    }

    /// Packages since the last call.
    pub(in super::super) fn sent(&self) -> Vec<Vec<Transaction>> {
        std::mem::take(&mut self.state().sent)
    }

    /// Transactions since the last call.
    pub(in super::super) fn txids(&self) -> Vec<Txid> {
        self.sent().into_iter().flatten().map(|tx| tx.compute_txid()).collect()
    }
}

impl Broadcast for Net {
    type Error = Down;

    async fn broadcast(&self, package: Package) -> Result<Vec<(Txid, Verdict)>, Down> {
        let mood = {
            let mut state = self.state();
            state.sent.push(package.transactions.clone());
            state.mood
        };
        mood.act().await?;
        let spent = package.transactions.iter().flat_map(|tx| &tx.input);
        let spent: Vec<OutPoint> = spent.map(|input| input.previous_output).collect();
        let delay = spent.iter().find_map(|output| self.state().delays.get(output).copied());
        if let Some((there, _)) = delay {
            tokio::time::sleep(there).await;
        }
        let verdict = self.state().verdicts.pop_front().unwrap_or(Verdict::Accepted);
        let of = |tx: &Transaction| {
            (tx.compute_txid(), self.judge(tx).unwrap_or_else(|| verdict.clone()))
        };
        let verdicts: Vec<_> = package.transactions.iter().map(of).collect();
        if spent.len() == 1 && verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Accepted) {
            self.state().taken.extend(spent);
        }
        if let Some((_, back)) = delay {
            tokio::time::sleep(back).await;
        }
        Ok(verdicts)
    }

    async fn test(&self, transaction: Transaction) -> Result<Option<Verdict>, Down> {
        let mood = self.state().mood;
        mood.act().await?;
        Ok(Some(self.judge(&transaction).unwrap_or(Verdict::Accepted)))
    }
}

/// The same feerate for every target.
#[derive(Clone)]
pub(in super::super) struct Fees(Arc<Mutex<(u64, Mood)>>);

impl Default for Fees {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((500, Mood::Well))))
    }
}

impl Fees {
    pub(in super::super) fn are(&self, sat_per_kwu: u64) {
        self.0.lock().expect("no panic with the lock").0 = sat_per_kwu;
    }

    pub(in super::super) fn is(&self, mood: Mood) {
        self.0.lock().expect("no panic with the lock").1 = mood;
    }
}

impl FeeSource for Fees {
    type Error = Down;

    async fn estimates(&self) -> Result<FeeEstimates, Down> {
        let (sat_per_kwu, mood) = *self.0.lock().expect("no panic with the lock");
        mood.act().await?;
        let targets = vec![(1, FeeRate::from_sat_per_kwu(sat_per_kwu))];
        Ok(FeeEstimates { targets, floor: FeeRate::BROADCAST_MIN, troughs: Troughs::default() })
    }
}

/// Signs with our secrets, in whatever mood it is for a channel.
#[derive(Clone, Default)]
pub(in super::super) struct Signing(Arc<Mutex<BTreeMap<ChannelId, Mood>>>);

impl Signing {
    pub(in super::super) fn is(&self, id: ChannelId, mood: Mood) {
        self.0.lock().expect("no panic with the lock").insert(id, mood);
    }
}

impl Signer for Signing {
    type Error = Down;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, Down> {
        let moods = self.0.lock().expect("no panic with the lock").clone();
        moods.get(&request.channel).copied().unwrap_or_default().act().await?;
        let secp = Secp256k1::new();
        let key = our_secrets().signing_key(&request.key, &secp).map_err(|_| Down)?;
        let (spent, script) = (&request.prevouts[request.input], request.script.as_deref());
        let message = sighash(&request.transaction, request.input, spent, script, request.sighash);
        Ok(secp.sign_ecdsa(&message.map_err(|_| Down)?, &key))
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, Down> {
        let moods = self.0.lock().expect("no panic with the lock").clone();
        moods.get(&request.channel).copied().unwrap_or_default().act().await?;
        Ok(None)
    }
}

/// A node that knows its scripts, and counts how often it is asked.
#[derive(Clone, Default)]
pub(in super::super) struct Scripts(Arc<Mutex<ScriptsState>>);

#[derive(Default)]
struct ScriptsState {
    ours: Vec<ScriptBuf>,
    mood: Mood,
    asked: usize,
}

impl Scripts {
    fn state(&self) -> MutexGuard<'_, ScriptsState> {
        self.0.lock().expect("no panic with the lock")
    }

    pub(in super::super) fn own(&self, script: ScriptBuf) {
        self.state().ours.push(script);
    }

    pub(in super::super) fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub(in super::super) fn asked(&self) -> usize {
        self.state().asked
    }
}

impl OurScripts for Scripts {
    type Error = Down;

    async fn owners(&self, scripts: Vec<ScriptBuf>) -> Result<Vec<ScriptOwner>, Down> {
        let mood = {
            let mut state = self.state();
            state.asked += 1;
            state.mood
        };
        mood.act().await?;
        let state = self.state();
        let owner = |script| match state.ours.contains(script) {
            true => ScriptOwner::Node,
            false => ScriptOwner::Other,
        };
        Ok(scripts.iter().map(owner).collect())
    }
}

/// A wallet with one coin for each claim.
#[derive(Clone, Default)]
pub(in super::super) struct Wallet(Arc<Mutex<WalletState>>);

#[derive(Default)]
struct WalletState {
    reserved: BTreeMap<OutPoint, OutPoint>,
    released: Vec<OutPoint>,
    mood: Mood,
}

impl Wallet {
    fn state(&self) -> MutexGuard<'_, WalletState> {
        self.0.lock().expect("no panic with the lock")
    }

    pub(in super::super) fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Claims that coins are reserved for.
    pub(in super::super) fn reserved(&self) -> Vec<OutPoint> {
        self.state().reserved.keys().copied().collect()
    }

    /// The wallet forgets its reservations, as one in another process might.
    pub(in super::super) fn forget(&self) {
        self.state().reserved.clear();
    }

    async fn act(&self) -> Result<(), Down> {
        let mood = self.state().mood;
        mood.act().await
    }
}

impl CoinSource for Wallet {
    type Error = Down;

    async fn select(&self, request: CoinRequest) -> Result<Vec<Coin>, Down> {
        self.act().await?;
        let mut bytes = request.claim.txid.to_byte_array();
        bytes[0] ^= 0xff;
        let outpoint = OutPoint { txid: Txid::from_byte_array(bytes), vout: request.claim.vout };
        self.state().reserved.insert(request.claim, outpoint);
        let output = TxOut { value: Amount::from_sat(100_000), script_pubkey: wallet_script() };
        Ok(vec![Coin { outpoint, output, satisfaction_weight: Weight::from_wu(109) }])
    }

    async fn change_script(&self) -> Result<ScriptBuf, Down> {
        Ok(wallet_script())
    }

    async fn sign(&self, tx: Transaction, _: Vec<TxOut>) -> Result<Transaction, Down> {
        Ok(tx)
    }

    async fn release(&self, claim: OutPoint) -> Result<(), Down> {
        self.act().await?;
        let mut state = self.state();
        state.reserved.remove(&claim);
        state.released.push(claim);
        Ok(())
    }

    async fn reserve(&self, claim: OutPoint, coins: Vec<OutPoint>) -> Result<(), Down> {
        self.act().await?;
        self.state().reserved.extend(coins.first().map(|coin| (claim, *coin)));
        Ok(())
    }
}
