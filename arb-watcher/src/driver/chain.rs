//! Following the chain: one block a step, so that commands and outcomes are never far behind.
use super::{Driver, later};
use arb_core::arbitrator::{Input, Position};
use arb_core::engine::EngineInput;
use arb_core::log::{ChangeLog, Write};
use arb_core::ports::{BlockSource, Broadcast, CoinSource, FeeSource, Signer};
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::OutPoint;
use std::collections::HashSet;
use tokio::time::Instant;

/// Outpoints that the mempool is asked about at once; above that, only those of active channels.
const MEMPOOL_QUERY: usize = 10_000;

/// Where following the source stands.
pub(super) struct Following {
    /// There may be something new at the source; tried from this moment on.
    behind: Option<Instant>,
    /// When the tip last moved, for the alarm.
    moved: Instant,
    alarmed: bool,
}

/// What one step found.
enum Step {
    /// A block was connected or disconnected; there may be more.
    Moved,
    /// The engine is at the source's tip.
    AtTip,
}

/// Why a step failed: it is tried again.
#[derive(Debug, thiserror::Error)]
enum FollowError {
    #[error("block source: {0}")]
    Source(String),
    #[error("the source has no block {0}")]
    NoBlock(bitcoin::BlockHash),
    #[error("no remembered block is in the source's chain: it was reorganised too deeply")]
    TooDeep,
}

impl Following {
    pub(super) fn new() -> Self {
        Self { behind: Some(Instant::now()), moved: Instant::now(), alarmed: false }
    }

    pub(super) fn rung(&mut self) {
        self.behind.get_or_insert_with(Instant::now);
    }

    pub(super) const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// When the next step is due.
    pub(super) fn due(&self) -> Instant {
        self.behind.unwrap_or_else(Instant::now)
    }
}

fn source(error: impl std::error::Error) -> FollowError {
    FollowError::Source(error.to_string())
}

impl<L, S, B, F, K, C> Driver<L, S, B, F, K, C>
where
    L: ChangeLog,
    S: BlockSource,
    B: Broadcast,
    F: FeeSource,
    K: Signer,
    C: CoinSource,
{
    pub(super) async fn on_chain(&mut self) {
        self.chain.behind = None;
        match self.follow().await {
            Ok(Step::Moved) => {
                self.chain.behind = Some(Instant::now());
                self.chain.moved = Instant::now();
                self.chain.alarmed = false;
            }
            Ok(Step::AtTip) => self.alarm_stalled(),
            Err(error) => {
                tracing::warn!(%error, "following the chain");
                self.chain.behind = Some(later(&self.settings));
            }
        }
    }

    fn alarm_stalled(&mut self) {
        let still = self.chain.moved.elapsed();
        if still >= self.settings.stalled_after && !self.chain.alarmed {
            self.chain.alarmed = true;
            tracing::error!(minutes = still.as_secs() / 60, "the tip stands still");
        }
    }

    async fn follow(&mut self) -> Result<Step, FollowError> {
        let tip = self.ports.source.tip().await.map_err(source)?;
        let Some(own) = self.engine.tip() else {
            self.begin_at(tip).await;
            return Ok(Step::Moved);
        };
        if own == tip {
            self.at_tip().await?;
            return Ok(Step::AtTip);
        }
        let fork_point = self.fork_point().await?;
        if fork_point != own {
            tracing::info!(from = own.height.0, to = fork_point.height.0, "reorganisation");
            self.step(vec![EngineInput::Disconnected { fork_point }]).await;
            return Ok(Step::Moved);
        }
        self.connect_next(own, tip).await
    }

    /// A new store begins at the source's tip: channels tell their births, and are scanned from
    /// there.
    async fn begin_at(&mut self, tip: BlockRef) {
        let batch = self.direct_batch(vec![Write::BlockConnected(tip)]);
        let receipt = self.append(batch).await;
        tracing::debug!(batch = receipt.batch().0, "the cursor begins");
        self.engine.begin_at(tip);
    }

    /// The highest remembered block that is in the source's chain.
    async fn fork_point(&mut self) -> Result<BlockRef, FollowError> {
        let remembered: Vec<BlockRef> = self.engine.blocks().copied().collect();
        for block in remembered {
            let there = self.ports.source.hash_at(block.height).await.map_err(source)?;
            if there == Some(block.hash) {
                return Ok(block);
            }
        }
        Err(FollowError::TooDeep)
    }

    async fn connect_next(&mut self, own: BlockRef, tip: BlockRef) -> Result<Step, FollowError> {
        let height = BlockHeight(own.height.0.saturating_add(1));
        let Some(hash) = self.ports.source.hash_at(height).await.map_err(source)? else {
            return Ok(Step::Moved);
        };
        let block = self.ports.source.block(hash).await.map_err(source)?;
        let block = block.ok_or(FollowError::NoBlock(hash))?;
        if block.header.prev_blockhash != own.hash {
            // The chain moved between two questions.
            return Ok(Step::Moved);
        }
        let position = if hash == tip.hash {
            self.refresh_estimates().await;
            Position::AtTip
        } else {
            Position::CatchingUp
        };
        let at = BlockRef { height, hash };
        let touched = self.engine.scan(&block).touched;
        tracing::debug!(height = height.0, touched = touched.len(), "block");
        self.step(vec![EngineInput::Block { at, touched, position }]).await;
        Ok(Step::Moved)
    }

    async fn at_tip(&mut self) -> Result<(), FollowError> {
        self.refresh_estimates().await;
        if self.engine.position() == Position::CatchingUp {
            self.step(vec![EngineInput::ReachedTip]).await;
        }
        self.renew_all();
        self.look_at_mempool().await
    }

    async fn refresh_estimates(&mut self) {
        match self.ports.fees.estimates().await {
            Ok(estimates) => self.engine.set_estimates(estimates),
            Err(error) => tracing::warn!(%error, "the last feerates stay in use"),
        }
    }

    /// Preimages and mutual closes are learned from the mempool as well (BOLT 5 X3).
    async fn look_at_mempool(&mut self) -> Result<(), FollowError> {
        let mut outpoints: Vec<OutPoint> = self.engine.watched().take(MEMPOOL_QUERY + 1).collect();
        if outpoints.len() > MEMPOOL_QUERY {
            outpoints = self.engine.watched_by_active().collect();
        }
        if outpoints.is_empty() {
            return Ok(());
        }
        let found = self.ports.source.mempool_spenders(outpoints).await.map_err(source)?;
        let txids: HashSet<_> = found.iter().map(bitcoin::Transaction::compute_txid).collect();
        let mut inputs = Vec::new();
        for tx in found {
            if self.tasks.seen.contains(&tx.compute_txid()) {
                continue;
            }
            let of = tx.input.iter().filter_map(|i| self.engine.watcher(&i.previous_output));
            let slots: HashSet<_> = of.collect();
            inputs.extend(slots.into_iter().map(|slot| EngineInput::Channel {
                slot,
                input: Box::new(Input::SeenInMempool(Box::new(tx.clone()))),
            }));
        }
        self.tasks.seen = txids;
        if !inputs.is_empty() {
            self.step(inputs).await;
        }
        Ok(())
    }
}
