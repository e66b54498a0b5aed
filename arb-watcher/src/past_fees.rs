//! Feerates of past blocks beside the estimates of any source.
use arb_core::claim::trough::{PastBlock, Troughs};
use arb_core::ports::{BlockFees, FeeEstimates, FeeSource};
use arb_core::units::{BlockHeight, BlockRef};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Past blocks asked about in one call of [`FeeSource::estimates`]: a source reads each from its disk.
const ASKED_AT_ONCE: u32 = 36;
/// How long estimates wait for what past blocks took. What is known by then is kept for the next call.
const PATIENCE: Duration = Duration::from_secs(4);

/// The estimates of `F`, with [`FeeEstimates::troughs`] from the last three days of blocks of `S`.
///
/// The blocks are kept in memory only, a few kilobytes: after a start they are asked for again, the newest first, some at each
/// call. Until there are two days of them, and whenever they cannot be had, the estimates are those of `F` alone. No
/// decision is lost by that: what a claim has paid stands in the log, and its price never falls.
///
/// ```
/// use arb_watcher::PastFees;
/// use arb_watcher::core_rpc::{CoreBlocks, CoreBlocksConfig, CoreFees, CoreFeesConfig, Rpc};
///
/// /// The estimates of a Bitcoin Core, and what its blocks took.
/// fn fees(rpc: &Rpc) -> PastFees<CoreFees, CoreBlocks> {
///     let blocks = CoreBlocks::new(rpc.clone(), CoreBlocksConfig::default());
///     PastFees::new(CoreFees::new(rpc.clone(), CoreFeesConfig::default()), blocks)
/// }
/// ```
#[derive(Debug)]
pub struct PastFees<F, S> {
    fees: F,
    blocks: S,
    /// Ascending, without a gap.
    past: Mutex<VecDeque<Taken>>,
}

/// What a block took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    at: BlockRef,
    /// `None`: it does not tell, or is not there.
    fee: Option<PastBlock>,
}

impl<F: FeeSource, S: BlockFees> PastFees<F, S> {
    /// Adds the past of these blocks to these estimates.
    #[must_use]
    pub fn new(fees: F, blocks: S) -> Self {
        Self { fees, blocks, past: Mutex::new(VecDeque::new()) }
    }

    /// Brings the past up to the tip, and a piece further back.
    async fn follow(&self, past: &mut VecDeque<Taken>) -> Result<BlockRef, S::Error> {
        let tip = self.blocks.tip().await?;
        while let Some(last) = past.back() {
            let there = self.blocks.hash_at(last.at.height).await?;
            if there == Some(last.at.hash) {
                break;
            }
            past.pop_back();
        }
        let newest = past.back().map(|last| last.at.height);
        let is_near = |known: &BlockHeight| known.until(tip.height).0 <= ASKED_AT_ONCE;
        let first = match newest.filter(is_near) {
            Some(known) => known.0.saturating_add(1),
            None => {
                past.clear();
                tip.height.0
            }
        };
        for height in first..=tip.height.0 {
            let Some(taken) = self.taken(BlockHeight(height)).await? else { break };
            past.push_back(taken);
            if past.len() > Troughs::PAST {
                past.pop_front();
            }
        }
        Ok(tip)
    }

    /// A piece further back, if that is wanted.
    async fn reach_back(&self, past: &mut VecDeque<Taken>) -> Result<(), S::Error> {
        for _ in 0..ASKED_AT_ONCE {
            let first = past.front().map(|first| first.at.height.0);
            let Some(before) = first.and_then(|first| first.checked_sub(1)) else { break };
            if past.len() >= Troughs::PAST {
                break;
            }
            let Some(taken) = self.taken(BlockHeight(before)).await? else { break };
            past.push_front(taken);
        }
        Ok(())
    }

    async fn taken(&self, height: BlockHeight) -> Result<Option<Taken>, S::Error> {
        let Some(hash) = self.blocks.hash_at(height).await? else { return Ok(None) };
        let fee = self.blocks.past_block(hash).await?;
        Ok(Some(Taken { at: BlockRef { height, hash }, fee }))
    }

    async fn troughs(&self) -> Troughs {
        let mut past = self.past.lock().await;
        let mut tip = None;
        let look = async {
            tip = Some(self.follow(&mut past).await?);
            self.reach_back(&mut past).await
        };
        match timeout(PATIENCE, look).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "what past blocks took is not known"),
            Err(_) => tracing::debug!("what past blocks took is not known in time"),
        }
        // A past that ends before the tip is one of other hours.
        if tip.is_none() || past.back().map(|last| last.at) != tip {
            return Troughs::default();
        }
        let told: Vec<PastBlock> = past.iter().filter_map(|taken| taken.fee).collect();
        Troughs::of(&told)
    }
}

impl<F: FeeSource, S: BlockFees> FeeSource for PastFees<F, S> {
    type Error = F::Error;

    async fn estimates(&self) -> Result<FeeEstimates, F::Error> {
        let estimates = self.fees.estimates().await?;
        Ok(FeeEstimates { troughs: self.troughs().await, ..estimates })
    }
}

#[cfg(test)]
mod tests;
