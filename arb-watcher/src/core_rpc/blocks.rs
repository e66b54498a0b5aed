//! Blocks and mempool of Bitcoin Core.
use super::call::{RpcRequest, code};
use super::client::{CoreError, Rpc};
use super::decode::{decoded, field, height, odd, parsed, text};
use arb_core::claim::trough::PastBlock;
use arb_core::ports::{BlockFees, BlockSource, SeesMempool};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, BlockHash, FeeRate, OutPoint, Transaction, Txid, Weight};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const INFO: &str = "getblockchaininfo";
const HASH: &str = "getblockhash";
const BLOCK: &str = "getblock";
const STATISTICS: &str = "getblockstats";
const SPENDERS: &str = "gettxspendingprevout";
const TRANSACTION: &str = "getrawtransaction";
const WAIT: &str = "waitfornewblock";
const BEST: &str = "getbestblockhash";

/// Transactions asked for in one call: each may be as large as what is relayed, 400,000 weight units.
const TRANSACTIONS_PER_CALL: usize = 32;

/// Without the coinbase. A lighter block took whatever there was.
const FULL: Weight = Weight::from_wu(3_800_000);

/// Settings of [`CoreBlocks`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreBlocksConfig {
    /// How long [`BlockSource::changed`] waits for a block at most: how often the mempool is
    /// looked at.
    pub poll: Duration,
    /// Outpoints asked for in one call.
    pub outpoints_per_call: usize,
}

impl Default for CoreBlocksConfig {
    /// 10 s; 500 outpoints.
    fn default() -> Self {
        Self { poll: Duration::from_secs(10), outpoints_per_call: 500 }
    }
}

/// Blocks and mempool of a Bitcoin Core node.
///
/// ```
/// use arb_watcher::core_rpc::{CoreBlocks, CoreBlocksConfig, Rpc};
/// use std::time::Duration;
///
/// /// Looks at the mempool each second.
/// fn blocks(rpc: Rpc) -> CoreBlocks {
///     let poll = Duration::from_secs(1);
///     CoreBlocks::new(rpc, CoreBlocksConfig { poll, ..CoreBlocksConfig::default() })
/// }
/// ```
#[derive(Debug)]
pub struct CoreBlocks {
    rpc: Rpc,
    config: CoreBlocksConfig,
    /// The tip at the end of the last wait.
    seen: Mutex<Option<BlockHash>>,
}

impl CoreBlocks {
    /// The blocks of the node behind `rpc`.
    #[must_use]
    pub const fn new(rpc: Rpc, config: CoreBlocksConfig) -> Self {
        Self { rpc, config, seen: Mutex::new(None) }
    }

    /// The tip once it is not `seen`, or after the poll interval.
    async fn next_tip(&self, seen: Option<BlockHash>) -> Result<BlockHash, CoreError> {
        let Some(seen) = seen else {
            return parsed(BEST, &self.rpc.call(BEST, vec![]).await?);
        };
        let milliseconds = u64::try_from(self.config.poll.as_millis()).unwrap_or(u64::MAX);
        // To the node, zero means for ever, and more than 2^31 - 1 is no number.
        let milliseconds = milliseconds.clamp(1, 0x7fff_ffff);
        let answer = self.rpc.call(WAIT, vec![json!(milliseconds), text(seen)]).await?;
        parsed(WAIT, field(WAIT, &answer, "hash")?)
    }

    /// The mempool's spenders of these outpoints, by id: one that spends a thousand of them would come a
    /// thousand times with its bytes.
    async fn spenders_of(&self, outpoints: &[OutPoint]) -> Result<BTreeSet<Txid>, CoreError> {
        let outputs: Vec<Value> =
            outpoints.iter().map(|o| json!({"txid": text(o.txid), "vout": o.vout})).collect();
        let options = json!({"mempool_only": true});
        let answer = match self.rpc.request(SPENDERS, vec![json!(outputs), options]).await? {
            // Before Core 31 there are no options.
            Err(error) if matches!(error.code, code::MISC | code::INVALID_PARAMETER) => {
                self.rpc.call(SPENDERS, vec![json!(outputs)]).await?
            }
            answer => answer.map_err(|error| CoreError::Node { method: SPENDERS, error })?,
        };
        let entries = answer.as_array().ok_or_else(|| odd(SPENDERS, "a list is expected"))?;
        // A spend that an index knows from a block is none of the mempool.
        let entries = entries.iter().filter(|entry| in_mempool(entry));
        let spenders = entries.filter_map(|entry| entry.get("spendingtxid"));
        spenders.map(|txid| parsed(SPENDERS, txid)).collect()
    }

    /// These transactions, as far as the mempool has them.
    async fn fetch(&self, wanted: &BTreeSet<Txid>) -> Result<Vec<Transaction>, CoreError> {
        let mut found = Vec::with_capacity(wanted.len());
        let request = |txid: &Txid| RpcRequest { method: TRANSACTION, params: vec![text(txid)] };
        let all: Vec<&Txid> = wanted.iter().collect();
        for some in all.chunks(TRANSACTIONS_PER_CALL) {
            let requests = some.iter().map(|txid| request(txid)).collect();
            for answer in self.rpc.batch(requests).await? {
                match answer {
                    Ok(raw) => found.push(decoded(TRANSACTION, &raw)?),
                    // It left the mempool in between.
                    Err(error) if error.code == code::NOT_FOUND => {}
                    Err(error) => return Err(CoreError::Node { method: TRANSACTION, error }),
                }
            }
        }
        Ok(found)
    }
}

fn in_mempool(entry: &Value) -> bool {
    entry.get("blockhash").is_none_or(Value::is_null)
}

impl SeesMempool for CoreBlocks {}

impl BlockSource for CoreBlocks {
    type Error = CoreError;

    async fn tip(&self) -> Result<BlockRef, CoreError> {
        let info = self.rpc.call(INFO, vec![]).await?;
        Ok(BlockRef {
            height: BlockHeight(height(INFO, field(INFO, &info, "blocks")?)?),
            hash: parsed(INFO, field(INFO, &info, "bestblockhash")?)?,
        })
    }

    async fn hash_at(&self, height: BlockHeight) -> Result<Option<BlockHash>, CoreError> {
        // To the node, a height is an i32.
        if i32::try_from(height.0).is_err() {
            return Ok(None);
        }
        match self.rpc.request(HASH, vec![json!(height.0)]).await? {
            Ok(hash) => parsed(HASH, &hash).map(Some),
            Err(error) if error.code == code::INVALID_PARAMETER => Ok(None),
            Err(error) => Err(CoreError::Node { method: HASH, error }),
        }
    }

    async fn block(&self, hash: BlockHash) -> Result<Option<Block>, CoreError> {
        let raw = match self.rpc.request(BLOCK, vec![text(hash), json!(0)]).await? {
            Ok(raw) => raw,
            Err(error) if error.code == code::NOT_FOUND => return Ok(None),
            // Pruned, or its header alone is known.
            Err(error) if error.code == code::MISC && error.message.starts_with("Block not") => {
                return Ok(None);
            }
            Err(error) => return Err(CoreError::Node { method: BLOCK, error }),
        };
        let block: Block = decoded(BLOCK, &raw)?;
        if block.block_hash() != hash {
            return Err(odd(BLOCK, format_args!("block {} is not {hash}", block.block_hash())));
        }
        Ok(Some(block))
    }

    async fn mempool_spenders(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<Transaction>, CoreError> {
        let mut spenders = BTreeSet::new();
        for some in outpoints.chunks(self.config.outpoints_per_call.max(1)) {
            spenders.extend(self.spenders_of(some).await?);
        }
        self.fetch(&spenders).await
    }

    async fn changed(&self) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now();
        let tip = match self.next_tip(seen).await {
            Ok(tip) => Some(tip),
            Err(error) => {
                tracing::debug!(%error, "waiting for a block failed");
                None
            }
        };
        // A node that is shutting down, or does not know the call, answers at once.
        if tip.is_none() || tip == seen {
            sleep(self.config.poll.saturating_sub(since.elapsed())).await;
        }
        if tip.is_some() {
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = tip;
        }
    }
}

impl BlockFees for CoreBlocks {
    /// Of a full block, the feerate below which its cheapest tenth by weight is.
    async fn past_block(&self, hash: BlockHash) -> Result<Option<PastBlock>, CoreError> {
        let wanted = json!(["feerate_percentiles", "time", "total_weight", "txs"]);
        let answer = match self.rpc.request(STATISTICS, vec![text(hash), wanted]).await? {
            Ok(answer) => answer,
            // Not in its chain any more, or pruned.
            Err(error)
                if matches!(error.code, code::NOT_FOUND | code::INVALID_PARAMETER | code::MISC) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(CoreError::Node { method: STATISTICS, error }),
        };
        let number = |value: &Value| {
            value.as_u64().ok_or_else(|| odd(STATISTICS, "a whole number is expected"))
        };
        let count = number(field(STATISTICS, &answer, "txs")?)?;
        let weight = number(field(STATISTICS, &answer, "total_weight")?)?;
        if count <= 1 {
            // Begun before its miner knew what there was.
            return Ok(None);
        }
        let time = u32::try_from(number(field(STATISTICS, &answer, "time")?)?);
        let time = time.map_err(|_| odd(STATISTICS, "no header has such a time"))?;
        if Weight::from_wu(weight) < FULL {
            return Ok(Some(PastBlock { time, feerate: FeeRate::ZERO }));
        }
        let percentiles = field(STATISTICS, &answer, "feerate_percentiles")?;
        let tenth = percentiles.get(0).ok_or_else(|| odd(STATISTICS, "a list is expected"))?;
        // Core leaves out what is less than 1 sat/vB: a half of that, on average.
        let per_kwu = number(tenth)?.checked_mul(250).and_then(|whole| whole.checked_add(125));
        let per_kwu = per_kwu.ok_or_else(|| odd(STATISTICS, "no feerate is so high"))?;
        Ok(Some(PastBlock { time, feerate: FeeRate::from_sat_per_kwu(per_kwu) }))
    }
}
