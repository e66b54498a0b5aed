//! Blocks and mempool of Bitcoin Core.
use super::call::{RpcRequest, code};
use super::client::{CoreError, Rpc};
use super::decode::{decoded, field, height, odd, parsed, text};
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::{Block, BlockHash, OutPoint, Transaction, Txid};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const INFO: &str = "getblockchaininfo";
const HASH: &str = "getblockhash";
const BLOCK: &str = "getblock";
const SPENDERS: &str = "gettxspendingprevout";
const TRANSACTION: &str = "getrawtransaction";
const WAIT: &str = "waitfornewblock";
const BEST: &str = "getbestblockhash";

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

    async fn spenders_of(
        &self,
        outpoints: &[OutPoint],
        found: &mut BTreeMap<Txid, Transaction>,
    ) -> Result<(), CoreError> {
        let outputs: Vec<Value> =
            outpoints.iter().map(|o| json!({"txid": text(o.txid), "vout": o.vout})).collect();
        let options = json!({"mempool_only": true, "return_spending_tx": true});
        let answer = match self.rpc.request(SPENDERS, vec![json!(outputs), options]).await? {
            // Before Core 31 there are no options: ids only.
            Err(error) if matches!(error.code, code::MISC | code::INVALID_PARAMETER) => {
                self.rpc.call(SPENDERS, vec![json!(outputs)]).await?
            }
            answer => answer.map_err(|error| CoreError::Node { method: SPENDERS, error })?,
        };
        let entries = answer.as_array().ok_or_else(|| odd(SPENDERS, "a list is expected"))?;
        let mut wanted = BTreeSet::new();
        for entry in entries {
            // A spend that an index knows from a block is none of the mempool.
            let Some(txid) = entry.get("spendingtxid").filter(|_| in_mempool(entry)) else {
                continue;
            };
            let txid: Txid = parsed(SPENDERS, txid)?;
            match entry.get("spendingtx") {
                Some(raw) => {
                    found.insert(txid, decoded(SPENDERS, raw)?);
                }
                None => {
                    wanted.insert(txid);
                }
            }
        }
        wanted.retain(|txid| !found.contains_key(txid));
        self.fetch(wanted, found).await
    }

    async fn fetch(
        &self,
        wanted: BTreeSet<Txid>,
        found: &mut BTreeMap<Txid, Transaction>,
    ) -> Result<(), CoreError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let request = |txid| RpcRequest { method: TRANSACTION, params: vec![text(txid)] };
        let answers = self.rpc.batch(wanted.iter().map(request).collect()).await?;
        for (txid, answer) in wanted.into_iter().zip(answers) {
            match answer {
                Ok(raw) => {
                    found.insert(txid, decoded(TRANSACTION, &raw)?);
                }
                // It left the mempool in between.
                Err(error) if error.code == code::NOT_FOUND => {}
                Err(error) => return Err(CoreError::Node { method: TRANSACTION, error }),
            }
        }
        Ok(())
    }
}

fn in_mempool(entry: &Value) -> bool {
    entry.get("blockhash").is_none_or(Value::is_null)
}

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
        let mut found = BTreeMap::new();
        for some in outpoints.chunks(self.config.outpoints_per_call.max(1)) {
            self.spenders_of(some, &mut found).await?;
        }
        Ok(found.into_values().collect())
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
