//! What is asked of the blocks, how often, and what becomes of the estimates.
use super::*;
use crate::mocked::{Down, MockEstimator, MockSource};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, FeeRate};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

const RATE: FeeRate = FeeRate::from_sat_per_kwu(5_000);

/// A chain whose tip moves and whose last blocks may be others.
#[derive(Clone, Default)]
struct Chain {
    tip: Arc<AtomicU32>,
    /// From this height on the blocks are of another branch.
    fork: Arc<AtomicU32>,
    asked: Arc<AtomicUsize>,
}

impl Chain {
    fn at(tip: u32) -> Self {
        let chain = Self::default();
        chain.tip.store(tip, SeqCst);
        chain.fork.store(u32::MAX, SeqCst);
        chain
    }

    fn hash(&self, height: u32) -> BlockHash {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&height.to_le_bytes());
        bytes[31] = u8::from(height >= self.fork.load(SeqCst));
        BlockHash::from_byte_array(bytes)
    }

    fn asked(&self) -> usize {
        self.asked.swap(0, SeqCst)
    }

    /// Its blocks, of which `taken` says what they took.
    fn blocks(
        &self,
        taken: impl Fn(BlockHash) -> Result<Option<FeeRate>, Down> + Send + Sync + 'static,
    ) -> MockSource {
        let mut blocks = MockSource::new();
        let chain = self.clone();
        blocks.expect_tip().returning(move || {
            let height = chain.tip.load(SeqCst);
            let tip = BlockRef { height: BlockHeight(height), hash: chain.hash(height) };
            Box::pin(async move { Ok(tip) })
        });
        let chain = self.clone();
        blocks.expect_hash_at().returning(move |at| {
            let hash = (at.0 <= chain.tip.load(SeqCst)).then(|| chain.hash(at.0));
            Box::pin(async move { Ok(hash) })
        });
        let asked = Arc::clone(&self.asked);
        blocks.expect_past_block().returning(move |hash| {
            asked.fetch_add(1, SeqCst);
            let time = 600 * height(hash);
            let taken = taken(hash).map(|of| of.map(|feerate| PastBlock { time, feerate }));
            Box::pin(async move { taken })
        });
        blocks
    }
}

fn height(hash: BlockHash) -> u32 {
    u32::from_le_bytes(hash.to_byte_array()[..4].try_into().unwrap())
}

fn estimates() -> FeeEstimates {
    FeeEstimates {
        targets: vec![(2, FeeRate::from_sat_per_kwu(9_000))],
        floor: FeeRate::BROADCAST_MIN,
        troughs: Troughs::default(),
    }
}

fn estimator() -> MockEstimator {
    let mut estimator = MockEstimator::new();
    estimator.expect_estimates().returning(|| Box::pin(async { Ok(estimates()) }));
    estimator
}

fn of(chain: &Chain) -> PastFees<MockEstimator, MockSource> {
    PastFees::new(estimator(), chain.blocks(|_| Ok(Some(RATE))))
}

async fn trough(fees: &PastFees<MockEstimator, MockSource>) -> Option<u64> {
    let told = fees.estimates().await.unwrap();
    assert_eq!(FeeEstimates { troughs: Troughs::default(), ..told.clone() }, estimates());
    told.troughs.within(10).map(FeeRate::to_sat_per_kwu)
}

#[tokio::test]
async fn the_past_is_read_a_piece_at_a_time_and_then_followed() {
    let chain = Chain::at(10_000);
    let fees = of(&chain);
    let mut calls = 0;
    while trough(&fees).await.is_none() {
        calls += 1;
        assert!(chain.asked() <= 1 + ASKED_AT_ONCE as usize);
        assert!(calls < 20, "two days of blocks are there after a few calls");
    }
    for _ in 0..10 {
        trough(&fees).await;
    }
    assert!(chain.asked() > 0);
    assert_eq!(fees.past.lock().await.len(), Troughs::PAST);
    // Nothing new: nothing is asked. A block: that block.
    assert_eq!((trough(&fees).await, chain.asked()), (Some(4_600), 0));
    chain.tip.store(10_001, SeqCst);
    assert_eq!((trough(&fees).await, chain.asked()), (Some(4_600), 1));
    assert_eq!(fees.past.lock().await.len(), Troughs::PAST);
}

#[tokio::test]
async fn blocks_that_are_disconnected_are_asked_about_no_more() {
    let chain = Chain::at(10_000);
    let fees = of(&chain);
    for _ in 0..15 {
        trough(&fees).await;
    }
    chain.asked();
    chain.fork.store(9_998, SeqCst);
    chain.tip.store(10_001, SeqCst);
    assert!(trough(&fees).await.is_some());
    assert_eq!(chain.asked(), 4);
    let past = fees.past.lock().await;
    let last = past.iter().rev().take(5).map(|taken| taken.at).collect::<Vec<_>>();
    for at in last {
        assert_eq!(at.hash, chain.hash(at.height.0));
    }
}

#[tokio::test]
async fn whoever_was_away_for_long_begins_anew() {
    let chain = Chain::at(10_000);
    let fees = of(&chain);
    for _ in 0..15 {
        trough(&fees).await;
    }
    chain.asked();
    chain.tip.store(20_000, SeqCst);
    assert_eq!(trough(&fees).await, None, "what is known is of other days");
    assert!(chain.asked() <= 1 + ASKED_AT_ONCE as usize);
}

#[tokio::test]
async fn a_source_that_does_not_tell_leaves_the_estimates_as_they_are() {
    let chain = Chain::at(10_000);
    for silent in [
        PastFees::new(estimator(), chain.blocks(|_| Err(Down))),
        PastFees::new(estimator(), chain.blocks(|_| Ok(None))),
        of(&Chain::at(200)),
    ] {
        for _ in 0..15 {
            assert_eq!(trough(&silent).await, None);
        }
    }
    // The estimates' own trouble is told.
    let mut down = MockEstimator::new();
    down.expect_estimates().returning(|| Box::pin(async { Err(Down) }));
    assert!(PastFees::new(down, chain.blocks(|_| Ok(None))).estimates().await.is_err());
}

#[tokio::test]
async fn empty_blocks_and_pruned_ones_do_not_count() {
    let empty = |hash: BlockHash| hash.to_byte_array()[0].is_multiple_of(10);
    let chain = Chain::at(10_000);
    let blocks = chain.blocks(move |hash| Ok((!empty(hash)).then_some(RATE)));
    let fees = PastFees::new(estimator(), blocks);
    for _ in 0..15 {
        trough(&fees).await;
    }
    assert_eq!(trough(&fees).await, Some(4_600));
    // Of the last day alone nothing follows.
    let blocks = chain.blocks(move |hash| Ok((height(hash) > 9_856).then_some(RATE)));
    let fees = PastFees::new(estimator(), blocks);
    for _ in 0..15 {
        assert_eq!(trough(&fees).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_holds_the_estimates_up_for_seconds_only() {
    let mut blocks = MockSource::new();
    blocks.expect_tip().returning(|| Box::pin(std::future::pending()));
    let fees = PastFees::new(estimator(), blocks);
    let since = tokio::time::Instant::now();
    assert_eq!(trough(&fees).await, None);
    assert!(since.elapsed() <= PATIENCE + Duration::from_millis(10));
}
