//! A real Bitcoin Core on regtest that a test starts, steers and stops: the judge of what the
//! embedded chain claims.
mod process;
mod template;
mod wallet;

use arb_core::ports::{BlockSource, Broadcast, Package, Verdict};
use arb_core::units::{BlockHeight, BlockRef};
use arb_watcher::core_rpc::{
    Auth, CoreBlocks, CoreBlocksConfig, CoreBroadcast, CoreBroadcastConfig, CoreError, Rpc,
    RpcBuilder,
};
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::{
    Amount, Block, BlockHash, Denomination, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid,
};
use process::Process;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;
use template::Candidate;
use wallet::Wallet;

/// Environment variable with the path of the `bitcoind` to use.
pub const EXECUTABLE: &str = "BITCOIND_EXE";

/// Why the node could not be steered.
#[derive(Debug, thiserror::Error)]
pub enum RegtestError {
    /// No node to start.
    #[error("{EXECUTABLE} names no bitcoind to start, and `cargo xtask bitcoind` has built none")]
    NoExecutable,
    /// The node's files or process.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The node ended, or did not come up or down in time.
    #[error("bitcoind {what}; it last said:\n{log}")]
    Process {
        /// What it did.
        what: String,
        /// End of its output and log.
        log: String,
    },
    /// A call failed.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// An answer is not understood.
    #[error("the node's answer is not understood: {0}")]
    Answer(String),
    /// The wallet cannot pay.
    #[error("no coins for {0}")]
    NoCoins(Amount),
}

/// Result of steering the node.
pub type Result<T> = std::result::Result<T, RegtestError>;

/// The path of the node to start: the one that the environment names, or one that `cargo xtask
/// bitcoind` has built; an error if there is neither.
pub fn executable() -> Result<OsString> {
    let named = std::env::var_os(EXECUTABLE).filter(|path| !path.is_empty());
    named.or_else(built).ok_or(RegtestError::NoExecutable)
}

/// A finished build in the cache folder of the project, the newest by name.
fn built() -> Option<OsString> {
    let given = |name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let base = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")))?;
    let folders = std::fs::read_dir(base.join("arbiter")).ok()?.flatten().map(|entry| entry.path());
    let finished = folders.filter(|folder| folder.join("finished").is_file());
    let programs = finished.map(|folder| folder.join("build/bin/bitcoind"));
    programs.filter(|program| program.is_file()).max().map(PathBuf::into_os_string)
}

/// A running node with a chain of some hundred blocks and coins to spend. Ends when dropped.
#[derive(Debug)]
pub struct Regtest {
    process: Process,
    rpc: Rpc,
    blocks: CoreBlocks,
    broadcast: CoreBroadcast,
    wallet: Wallet,
    /// Goes into coinbases, so that a block after a reorganisation never equals a stale one.
    branch: i64,
}

impl Regtest {
    /// Starts a node with an empty mempool and with coins of ours.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a node with more arguments, which also hold after restarts.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let mut node = Self::empty(arguments).await?;
        node.fill_wallet().await?;
        Ok(node)
    }

    /// Starts a node with more arguments, whose chain is the genesis block; it has no coins to
    /// spend.
    pub async fn empty(arguments: &[&str]) -> Result<Self> {
        let mut process = Process::new(executable()?, arguments)?;
        process.first_start().await?;
        let rpc = process.rpc();
        Ok(Self {
            blocks: CoreBlocks::new(rpc.clone(), CoreBlocksConfig::default()),
            broadcast: CoreBroadcast::new(rpc.clone(), CoreBroadcastConfig::default()),
            wallet: Wallet::new(),
            branch: 0,
            rpc,
            process,
        })
    }

    /// Address of the node's RPC server, `host:port`. Restarts do not change it.
    #[must_use]
    pub fn address(&self) -> String {
        self.process.address()
    }

    /// Path of the node's cookie file.
    #[must_use]
    pub fn cookie(&self) -> PathBuf {
        self.process.cookie()
    }

    /// A client as a user of the node would build it.
    #[must_use]
    pub fn client(&self) -> RpcBuilder {
        Rpc::builder(self.address(), Auth::Cookie(self.cookie()))
    }

    /// The node's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.process.directory()
    }

    /// The tip.
    pub async fn tip(&self) -> Result<BlockRef> {
        Ok(self.blocks.tip().await?)
    }

    /// Hash of the block at a height of the best chain.
    pub async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>> {
        Ok(self.blocks.hash_at(height).await?)
    }

    /// The block with this hash, stale ones included.
    pub async fn block(&self, hash: BlockHash) -> Result<Option<Block>> {
        Ok(self.blocks.block(hash).await?)
    }

    /// Mines `blocks` blocks; the first takes what it can from the mempool.
    pub async fn mine(&self, blocks: u32) -> Result<Vec<BlockHash>> {
        let hashes =
            self.call("generatetodescriptor", vec![json!(blocks), self.coinbase()]).await?;
        let hashes = hashes.as_array().ok_or_else(|| odd("a list of hashes", &hashes))?;
        hashes.iter().map(parse).collect()
    }

    /// Mines a block without a transaction.
    pub async fn mine_empty(&self) -> Result<BlockHash> {
        self.mine_only(&[]).await
    }

    /// Mines a block of exactly these transactions, in this order, mempool or not.
    pub async fn mine_only(&self, transactions: &[Transaction]) -> Result<BlockHash> {
        let raw: Vec<String> = transactions.iter().map(serialize_hex).collect();
        let answer = self.call("generateblock", vec![self.coinbase(), json!(raw)]).await?;
        parse(&answer["hash"])
    }

    /// Mines a block from the mempool, without the transactions that `left_out` names and without
    /// their descendants.
    pub async fn mine_without(
        &self,
        mut left_out: impl FnMut(&Transaction) -> bool,
    ) -> Result<BlockHash> {
        let mut candidates = self.candidates().await?;
        for candidate in &mut candidates {
            candidate.left_out = left_out(&candidate.transaction);
        }
        self.mine_only(&template::select(candidates)).await
    }

    /// An output of `amount` to `script`, confirmed in a block of its own.
    pub async fn fund(&mut self, script: ScriptBuf, amount: Amount) -> Result<OutPoint> {
        let payment = self.pay(vec![TxOut { value: amount, script_pubkey: script }]).await?;
        self.mine_only(std::slice::from_ref(&payment)).await?;
        Ok(OutPoint::new(payment.compute_txid(), 0))
    }

    /// A signed transaction with these outputs first, from confirmed coins of ours. It is not
    /// sent; its coins are not used again.
    pub async fn pay(&mut self, outputs: Vec<TxOut>) -> Result<Transaction> {
        let wanted = wallet::cost(&outputs);
        let mut coins = Vec::new();
        let mut value = Amount::ZERO;
        while value < wanted + wallet::input_cost(coins.len()) {
            let coin = self.spendable_coin().await?.ok_or(RegtestError::NoCoins(wanted))?;
            value += coin.1.value;
            coins.push(coin);
        }
        Ok(self.wallet.pay(&coins, outputs))
    }

    /// Hands a transaction to the mempool.
    pub async fn submit(&self, transaction: &Transaction) -> Result<Verdict> {
        let mut verdicts = self.submit_package(std::slice::from_ref(transaction)).await?;
        verdicts.pop().ok_or_else(|| RegtestError::Answer("no verdict".to_owned()))
    }

    /// Hands a package to the mempool, parents first: a verdict each.
    pub async fn submit_package(&self, transactions: &[Transaction]) -> Result<Vec<Verdict>> {
        let package = Package::from(transactions.to_vec());
        let verdicts = self.broadcast.broadcast(package).await?;
        Ok(verdicts.into_iter().map(|(_, verdict)| verdict).collect())
    }

    /// The mempool's transactions, parents before children.
    pub async fn mempool(&self) -> Result<Vec<Transaction>> {
        Ok(self.candidates().await?.into_iter().map(|candidate| candidate.transaction).collect())
    }

    /// The mempool's transaction that spends `outpoint`.
    pub async fn mempool_spender(&self, outpoint: OutPoint) -> Result<Option<Transaction>> {
        Ok(self.blocks.mempool_spenders(vec![outpoint]).await?.pop())
    }

    /// Disconnects the last `blocks` blocks for good. Their transactions return to the mempool as
    /// far as they are still valid; then those that `drop` names leave it, with their descendants.
    /// Of more than ten blocks Core returns none: those in `gone`, parents first, are handed in again.
    /// The caller mines the new branch.
    pub async fn disconnect(
        &mut self,
        blocks: u32,
        gone: &[Transaction],
        mut drop: impl FnMut(&Transaction) -> bool,
    ) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let first = BlockHeight(self.tip().await?.height.0.saturating_sub(blocks - 1));
        let hash = self.hash_at(first).await?;
        let hash = hash.ok_or_else(|| RegtestError::Answer(format!("no block at {first:?}")))?;
        self.call("invalidateblock", vec![json!(hash.to_string())]).await?;
        self.branch += 1;

        let before = self.mempool().await?;
        // What returns may be a parent of what waited, so it goes first.
        let missing = gone.iter().filter(|tx| !tx.is_coinbase() && !before.contains(tx));
        let missing: Vec<Transaction> = missing.filter(|tx| !drop(tx)).cloned().collect();
        let waited: Vec<Transaction> = before.iter().filter(|tx| !drop(tx)).cloned().collect();
        if waited.len() == before.len() {
            return self.refill(&missing).await;
        }
        let kept = [missing, waited].concat();
        // The mempool cannot be edited: an empty one is filled anew.
        self.process.stop().await?;
        self.process.forget_mempool()?;
        self.process.start().await?;
        self.refill(&kept).await
    }

    /// Stops the node and starts it again with `arguments` in place of those of the last restart.
    /// The mempool is kept as far as the node takes it back.
    pub async fn restart(&mut self, arguments: &[&str]) -> Result<()> {
        self.stop().await?;
        self.process.set_arguments(arguments);
        self.process.start().await
    }

    /// Stops the node; [`Self::restart`] starts it again.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.stop().await
    }

    /// Restarts the node with another floor of its mempool. What is below it leaves the mempool.
    pub async fn set_floor(&mut self, floor: FeeRate) -> Result<()> {
        let per_kvb = Amount::from_sat(floor.to_sat_per_kwu() * 4);
        let argument = format!("-minrelaytxfee={}", per_kvb.to_string_in(Denomination::Bitcoin));
        self.restart(&[&argument]).await
    }

    async fn call(&self, method: &'static str, params: Vec<Value>) -> Result<Value> {
        Ok(self.rpc.call(method, params).await?)
    }

    fn coinbase(&self) -> Value {
        let script = ScriptBuf::builder()
            .push_opcode(bitcoin::opcodes::all::OP_RETURN)
            .push_int(self.branch)
            .into_script();
        descriptor(&script)
    }

    async fn fill_wallet(&mut self) -> Result<()> {
        let ours = descriptor(self.wallet.script());
        let hashes = self.call("generatetodescriptor", vec![json!(110), ours]).await?;
        let hashes = hashes.as_array().ok_or_else(|| odd("a list of hashes", &hashes))?;
        for hash in hashes.iter().take(10) {
            let block = self.block(parse(hash)?).await?;
            let coinbase = block.and_then(|block| block.txdata.into_iter().next());
            let coinbase =
                coinbase.ok_or_else(|| RegtestError::Answer("no coinbase".to_owned()))?;
            self.wallet.add(&coinbase);
        }
        let split = self.wallet.split().ok_or(RegtestError::NoCoins(Amount::ONE_BTC))?;
        self.mine_only(&[split]).await?;
        Ok(())
    }

    async fn spendable_coin(&mut self) -> Result<Option<(OutPoint, TxOut)>> {
        for _ in 0..self.wallet.len() {
            let Some(coin) = self.wallet.take() else { return Ok(None) };
            let params = vec![json!(coin.0.txid.to_string()), json!(coin.0.vout), json!(true)];
            let output = self.call("gettxout", params).await?;
            if output["confirmations"].as_u64().is_some_and(|depth| depth > 0) {
                return Ok(Some(coin));
            }
            self.wallet.put_back(coin);
        }
        Ok(None)
    }

    async fn candidates(&self) -> Result<Vec<Candidate>> {
        let entries = self.call("getrawmempool", vec![json!(true)]).await?;
        let entries = entries.as_object().ok_or_else(|| odd("an object", &entries))?;
        let mut sorted: Vec<(u64, &String, &Value)> = Vec::new();
        for (txid, entry) in entries {
            let ancestors =
                entry["ancestorcount"].as_u64().ok_or_else(|| odd("ancestorcount", entry))?;
            sorted.push((ancestors, txid, entry));
        }
        // A child has more ancestors than its parents.
        sorted.sort_by_key(|(ancestors, txid, _)| (*ancestors, *txid));
        let mut candidates = Vec::new();
        for (_, txid, entry) in sorted {
            let raw = self.call("getrawtransaction", vec![json!(txid)]).await?;
            let raw = raw.as_str().ok_or_else(|| odd("hex", &raw))?;
            let fee = entry["fees"]["base"].as_f64().and_then(|fee| Amount::from_btc(fee).ok());
            candidates.push(Candidate {
                transaction: deserialize_hex(raw)
                    .map_err(|error| RegtestError::Answer(error.to_string()))?,
                fee: fee.ok_or_else(|| odd("a fee", entry))?,
                left_out: false,
            });
        }
        Ok(candidates)
    }

    /// Fills an empty mempool; a parent that the floor keeps out comes in with its child.
    async fn refill(&self, transactions: &[Transaction]) -> Result<()> {
        let mut out: Vec<&Transaction> = Vec::new();
        for transaction in transactions {
            let parents: Vec<Txid> =
                transaction.input.iter().map(|input| input.previous_output.txid).collect();
            let (with, without): (Vec<_>, Vec<_>) =
                out.into_iter().partition(|other| parents.contains(&other.compute_txid()));
            out = without;
            let package: Vec<Transaction> =
                with.iter().copied().chain([transaction]).cloned().collect();
            let verdicts = self.submit_package(&package).await?;
            let all = with.into_iter().chain([transaction]);
            out.extend(all.zip(verdicts).filter(|(_, verdict)| !verdict.is_in()).map(|(tx, _)| tx));
        }
        Ok(())
    }
}

fn descriptor(script: &ScriptBuf) -> Value {
    json!(format!("raw({})", script.to_hex_string()))
}

fn parse<T: std::str::FromStr>(value: &Value) -> Result<T> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| odd(std::any::type_name::<T>(), value))
}

fn odd(expected: &str, value: &Value) -> RegtestError {
    let mut text = value.to_string();
    text.truncate(text.char_indices().nth(200).map_or(text.len(), |(at, _)| at));
    RegtestError::Answer(format!("{expected} expected, not {text}"))
}

/// How long the node may take to come up or to end.
const PATIENCE: Duration = Duration::from_secs(60);
