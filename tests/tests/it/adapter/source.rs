//! `ListenSource`: what it serves, what it withholds, what it lets go.
use super::Failed;
use arb_core::ports::BlockSource;
use arb_core::units::{BlockHeight, BlockRef};
use arb_node_adapter::{KEPT_BODIES, ListenSource, NotConnected, SourceError};
use arb_tests::chain::EmbeddedChain;
use lightning::chain::{BestBlock, Listen};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn at(chain: &EmbeddedChain, height: u32) -> Result<BlockRef, Failed> {
    let hash = chain.hash_at(height).ok_or("no block")?;
    Ok(BlockRef { height: BlockHeight(height), hash })
}

fn deliver(source: &ListenSource, chain: &EmbeddedChain, heights: std::ops::RangeInclusive<u32>) {
    for height in heights {
        if let Some(block) = chain.block_at(height) {
            source.block_connected(block, height);
        }
    }
}

/// Whether `changed` would resolve at once.
fn has_news(source: &ListenSource) -> bool {
    let mut changed = pin!(source.changed());
    changed.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
}

#[tokio::test]
async fn serves_whole_blocks_after_the_round() -> Result<(), Failed> {
    let mut chain = EmbeddedChain::new();
    chain.mine_empty(10);
    let source = ListenSource::new([]);
    assert_eq!(source.tip().await, Err(SourceError::NotStarted));
    assert!(!has_news(&source));
    deliver(&source, &chain, 5..=10);
    assert!(has_news(&source) && !has_news(&source));
    let tip = at(&chain, 10)?;
    assert_eq!(source.tip().await, Ok(tip));
    // More may come: the last block is withheld, those below it are not.
    assert_eq!(source.block(tip.hash).await, Err(SourceError::UnderWay));
    let below = source.block(at(&chain, 9)?.hash).await?;
    assert_eq!(below.as_ref(), chain.block_at(9).map(AsRef::as_ref));
    source.round_complete();
    assert!(has_news(&source));
    assert_eq!(source.block(tip.hash).await?.as_ref(), chain.block_at(10).map(AsRef::as_ref));
    assert_eq!(source.hash_at(BlockHeight(4)).await, Ok(None));
    assert_eq!(source.hash_at(BlockHeight(11)).await, Ok(None));
    assert_eq!(source.block(at(&chain, 4)?.hash).await, Ok(None));

    // A reorganisation: while it is under way the fork point does not pass for the tip.
    chain.disconnect(3, &|_| true)?;
    chain.mine_empty(4);
    source.blocks_disconnected(BestBlock::new(at(&chain, 7)?.hash, 7));
    deliver(&source, &chain, 8..=8);
    assert_eq!(source.tip().await, Ok(at(&chain, 8)?));
    assert_eq!(source.block(tip.hash).await, Ok(None), "stale");
    deliver(&source, &chain, 9..=11);
    source.round_complete();
    for height in 5..=11 {
        let expected = chain.hash_at(height);
        assert_eq!(source.hash_at(BlockHeight(height)).await, Ok(expected));
    }
    source.block(at(&chain, 11)?.hash).await?;
    source.blocks_disconnected(BestBlock::new(at(&chain, 9)?.hash, 9));
    let chain_tip = source.block(at(&chain, 9)?.hash).await;
    assert_eq!(chain_tip, Err(SourceError::UnderWay));
    Ok(())
}

#[tokio::test]
async fn refuses_gaps_and_filtered_blocks() -> Result<(), Failed> {
    let mut chain = EmbeddedChain::new();
    chain.mine_empty(10);
    let source = ListenSource::new([at(&chain, 3)?, at(&chain, 4)?]);
    assert_eq!(source.tip().await, Ok(at(&chain, 4)?));
    deliver(&source, &chain, 6..=6);
    let gap = NotConnected::Gap { tip: at(&chain, 4)?, found: at(&chain, 6)? };
    source.round_complete();
    assert_eq!(source.tip().await, Err(SourceError::NotConnected(gap)));
    assert_eq!(source.hash_at(BlockHeight(4)).await, Err(SourceError::NotConnected(gap)));
    deliver(&source, &chain, 5..=6);
    source.round_complete();
    assert_eq!(source.tip().await, Ok(at(&chain, 6)?));

    let seventh = chain.block_at(7).cloned().ok_or("no block")?;
    let hash = seventh.block_hash();
    source.filtered_block_connected(&seventh.header, &[], 7);
    source.round_complete();
    assert_eq!(source.block(hash).await, Err(SourceError::Filtered(hash)));
    source.block_connected(&seventh, 7);
    source.round_complete();
    assert_eq!(source.block(hash).await?.as_ref(), Some(seventh.as_ref()));
    // A part of it after the whole takes nothing away.
    source.filtered_block_connected(&seventh.header, &[], 7);
    source.round_complete();
    assert_eq!(source.block(hash).await?.as_ref(), Some(seventh.as_ref()));

    let elsewhere = BestBlock::new(at(&chain, 9)?.hash, 5);
    source.blocks_disconnected(elsewhere);
    assert!(matches!(
        source.tip().await,
        Err(SourceError::NotConnected(NotConnected::UnknownFork { .. }))
    ));
    Ok(())
}

#[tokio::test]
async fn lets_go_of_what_was_fetched_and_of_nothing_else() -> Result<(), Failed> {
    let mut chain = EmbeddedChain::new();
    let count = KEPT_BODIES as u32 + 50;
    chain.mine_empty(count);
    let source = ListenSource::new([]);
    deliver(&source, &chain, 1..=count);
    source.round_complete();
    assert_eq!(source.bodies(), KEPT_BODIES + 50);
    for height in 1..=count {
        assert!(source.block(at(&chain, height)?.hash).await?.is_some());
    }
    assert_eq!(source.bodies(), KEPT_BODIES);
    Ok(())
}
