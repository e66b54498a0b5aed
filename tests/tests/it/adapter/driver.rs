//! The driver on LDK's interfaces alone: blocks by `Listen`, fees and broadcasts by LDK's traits.
use super::Failed;
use super::world::World;
use arb_core::arbitrator::{Phase, UpstreamVerdict};
use arb_core::claim::trough::Troughs;
use arb_core::classify::FundingSpend;
use arb_core::memory::MemoryLog;
use arb_core::ports::{
    BlockSource, Coin, CoinRequest, CoinSource, FeeEstimates, PointRequest, SignRequest, Signer,
};
use arb_core::report::ChannelReport;
use arb_core::units::BlockRef;
use arb_node_adapter::{
    BroadcastQueue, ConfirmSource, FromLdkBroadcaster, FromLdkFees, Headers, LdkFees, ListenSource,
    OutputFilter, RoundError, SourceError,
};
use arb_watcher::{Arbiter, Ports, Settings};
use bitcoin::block::Header;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{FeeRate, OutPoint, ScriptBuf, Transaction, TxOut};
use lightning::chain::{BestBlock, Confirm, Filter, Listen, WatchedOutput};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Neither signer nor wallet: the story needs none of them.
struct Away;

fn away<T>() -> Result<T, io::Error> {
    Err(io::Error::other("away"))
}

impl Signer for Away {
    type Error = io::Error;

    async fn sign(&self, _: SignRequest) -> Result<ecdsa::Signature, io::Error> {
        away()
    }

    async fn point(&self, _: PointRequest) -> Result<Option<PublicKey>, io::Error> {
        away()
    }
}

impl CoinSource for Away {
    type Error = io::Error;

    async fn select(&self, _: CoinRequest) -> Result<Vec<Coin>, io::Error> {
        away()
    }

    async fn change_script(&self) -> Result<ScriptBuf, io::Error> {
        away()
    }

    async fn sign(&self, _: Transaction, _: Vec<TxOut>) -> Result<Transaction, io::Error> {
        away()
    }

    async fn release(&self, _: OutPoint) -> Result<(), io::Error> {
        Ok(())
    }

    async fn reserve(&self, _: OutPoint, _: Vec<OutPoint>) -> Result<(), io::Error> {
        Ok(())
    }
}

fn deliver(source: &ListenSource, world: &World, from: u32) -> Result<(), Failed> {
    for height in from..=world.chain.height() {
        let block = world.chain.block_at(height).ok_or("no block")?;
        source.block_connected(block, height);
    }
    source.round_complete();
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(20);

/// An arbiter on LDK's interfaces, once it has come to rest.
async fn started<S: BlockSource>(source: S) -> Result<Arbiter, Failed> {
    let floor = FeeRate::BROADCAST_MIN;
    let fees = Arc::new(LdkFees::new(FeeEstimates {
        targets: Vec::new(),
        floor,
        troughs: Troughs::default(),
    }));
    let ports = Ports {
        source,
        broadcast: FromLdkBroadcaster(Arc::new(BroadcastQueue::new())),
        fees: FromLdkFees(fees),
        signer: Away,
        coins: Away,
        scripts: arb_watcher::ScriptsPort::default(),
    };
    let settings = Settings { retry: Duration::from_millis(5), ..Settings::default() };
    let arbiter = Arbiter::start(MemoryLog::new(), ports, settings, Vec::new()).await?;
    tokio::time::timeout(PATIENCE, arbiter.idle()).await??;
    Ok(arbiter)
}

/// The report of the channel once the arbiter stands at a height.
async fn reached(arbiter: &Arbiter, world: &World, height: u32) -> Result<ChannelReport, Failed> {
    until(arbiter, world, |report| report.tip.0 == height).await
}

async fn until(
    arbiter: &Arbiter,
    world: &World,
    is_it: impl Fn(&ChannelReport) -> bool,
) -> Result<ChannelReport, Failed> {
    let report = async {
        loop {
            let report = arbiter.report(world.facts.id).await?.ok_or("no report")?;
            if is_it(&report) {
                return Ok::<_, Failed>(report);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, report).await?
}

#[tokio::test]
async fn the_driver_follows_what_ldk_delivers() -> Result<(), Failed> {
    let mut world = World::new()?;
    let start = world.chain.height();
    let source = ListenSource::new([]);
    deliver(&source, &world, start)?;
    let arbiter = started(source.clone()).await?;
    arbiter.watch_channel(world.facts.clone()).await?;

    let (close, claim) = (world.close.clone(), world.claim.clone());
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    world.chain.mine_empty(2);
    deliver(&source, &world, start + 1)?;
    // The retry after a withheld block takes its time.
    let report = reached(&arbiter, &world, world.chain.height()).await?;
    let spend = FundingSpend::RemoteCommitment(world.facts.candidates.current.remote.number);
    assert_eq!(report.phase, Phase::Closed(spend));
    assert_eq!(report.upstream.first().map(|(_, v)| *v), Some(UpstreamVerdict::Fulfilled));

    // Out again, on a longer fork.
    world.chain.disconnect(4, &|_| true)?;
    world.chain.mine_empty(6);
    source
        .blocks_disconnected(BestBlock::new(world.chain.hash_at(start).ok_or("no block")?, start));
    deliver(&source, &world, start + 1)?;
    let report = reached(&arbiter, &world, world.chain.height()).await?;
    assert_eq!(report.phase, Phase::Open);
    arbiter.shutdown().await;
    Ok(())
}

/// A server that has the chain's headers, from one height up to another.
struct Server<'a>(&'a World, std::ops::RangeInclusive<u32>);

impl Headers for Server<'_> {
    type Error = Infallible;

    async fn headers(&self, to: BlockRef, most: u32) -> Result<Vec<Header>, Infallible> {
        let Self(world, heights) = self;
        let is_there = world.chain.hash_at(to.height.0) == Some(to.hash);
        if !heights.contains(&to.height.0) || !is_there {
            return Ok(Vec::new());
        }
        let first = to.height.0.saturating_sub(most.saturating_sub(1)).max(*heights.start());
        let blocks = (first..=to.height.0).filter_map(|height| world.chain.block_at(height));
        Ok(blocks.map(|block| block.header).collect())
    }
}

fn best(source: &ConfirmSource, world: &World) -> Result<(), Failed> {
    let height = world.chain.height();
    let tip = world.chain.block_at(height).ok_or("no block")?;
    source.best_block_updated(&tip.header, height);
    Ok(())
}

/// The one transaction of this block that is not its first.
fn confirm(source: &ConfirmSource, world: &World, height: u32) -> Result<(), Failed> {
    let block = world.chain.block_at(height).ok_or("no block")?;
    let only = block.txdata.get(1).ok_or("no transaction")?;
    source.transactions_confirmed(&block.header, &[(1, only)], height);
    Ok(())
}

#[tokio::test]
async fn what_a_filtering_client_says_late_is_not_lost() -> Result<(), Failed> {
    let mut world = World::new()?;
    let start = world.chain.height();
    let filter = Arc::new(OutputFilter::new());
    let source = ConfirmSource::new([], filter.clone());
    assert!(matches!(source.tip().await, Err(SourceError::NotStarted)));
    let round = source.round_complete(&Server(&world, 0..=start)).await;
    assert!(matches!(round, Err(RoundError::NoTip)));
    best(&source, &world)?;
    source.round_complete(&Server(&world, 0..=start)).await?;
    let arbiter = started(source.clone()).await?;
    arbiter.watch_channel(world.facts.clone()).await?;

    // Its tip comes, and headers between are not to be had; the driver stays where it was.
    let (close, claim) = (world.close.clone(), world.claim.clone());
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    world.chain.mine_empty(2);
    let tip = world.chain.height();
    best(&source, &world)?;
    let round = source.round_complete(&Server(&world, 0..=start)).await;
    assert!(matches!(round, Err(RoundError::NoHeader(at)) if at.height.0 == tip - 1));
    assert_eq!(source.tip().await?.height.0, start);
    source.round_complete(&Server(&world, 0..=tip)).await?;
    assert_eq!(reached(&arbiter, &world, tip).await?.phase, Phase::Open);

    // What was in them comes too late, the last first: nobody knows what it is for.
    let before = filter.outputs();
    confirm(&source, &world, start + 2)?;
    source.round_complete(&Server(&world, 0..=tip)).await?;
    tokio::time::timeout(PATIENCE, arbiter.idle()).await??;
    assert_eq!(reached(&arbiter, &world, tip).await?.phase, Phase::Open);
    confirm(&source, &world, start + 1)?;
    let outputs = close.output.len() + claim.output.len();
    assert_eq!(filter.outputs() - before, outputs);
    source.round_complete(&Server(&world, 0..=tip)).await?;
    let spend = FundingSpend::RemoteCommitment(world.facts.candidates.current.remote.number);
    let closed = |report: &ChannelReport| report.phase == Phase::Closed(spend);
    let is_told = |report: &ChannelReport| {
        closed(report)
            && report.upstream.first().map(|(_, v)| *v) == Some(UpstreamVerdict::Fulfilled)
    };
    until(&arbiter, &world, is_told).await?;
    let relevant = source.get_relevant_txids();
    let expected = [(close, start + 1), (claim, start + 2)];
    let expected = expected.map(|(tx, at)| (tx.compute_txid(), at, world.chain.hash_at(at)));
    assert_eq!(relevant, expected);

    // Out again, on a longer fork, of which only the tip is said.
    world.chain.disconnect(4, &|_| true)?;
    world.chain.mine_empty(6);
    for (txid, ..) in relevant {
        source.transaction_unconfirmed(&txid);
    }
    assert_eq!(source.get_relevant_txids(), []);
    best(&source, &world)?;
    source.round_complete(&Server(&world, 0..=tip + 2)).await?;
    let report = reached(&arbiter, &world, world.chain.height()).await?;
    assert_eq!(report.phase, Phase::Open);
    arbiter.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn what_a_filtering_client_says_again_after_a_restart_is_made_good() -> Result<(), Failed> {
    let mut world = World::new()?;
    let start = world.chain.height();
    let close = world.close.clone();
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_empty(1);
    let tip = world.chain.height();
    let at = |height: u32| world.chain.hash_at(height).map(|hash| (height, hash));
    let remembered = (start..=tip)
        .filter_map(at)
        .map(|(height, hash)| BlockRef { height: arb_core::units::BlockHeight(height), hash });
    let remembered: Vec<BlockRef> = remembered.collect();
    let source = ConfirmSource::new(remembered.clone(), Arc::new(OutputFilter::new()));
    confirm(&source, &world, start + 1)?;
    best(&source, &world)?;
    // All blocks are known: no header is asked for.
    source.round_complete(&Server(&world, 0..=0)).await?;
    let standing = remembered.last().copied().ok_or("no block")?;
    let (at, late) = source.late(standing).ok_or("nothing late")?;
    assert_eq!((at.height.0, late.txdata.as_slice()), (start + 1, [close].as_slice()));
    assert_eq!(source.late(standing).map(|(at, _)| at), Some(at));
    source.had(at, &late);
    assert_eq!(source.late(standing), None);

    // A remembered block is served once its header came.
    let hash = at.hash;
    assert_eq!(source.block(hash).await?.map(|block| block.txdata.len()), Some(1));
    let empty = remembered.first().copied().ok_or("no block")?;
    assert!(
        matches!(source.block(empty.hash).await, Err(SourceError::NotYet(at)) if at == empty.height)
    );
    source.round_complete(&Server(&world, 0..=tip)).await?;
    assert_eq!(source.block(empty.hash).await?.map(|block| block.txdata.len()), Some(0));
    assert!(matches!(
        source.hash_at(arb_core::units::BlockHeight(1)).await,
        Err(SourceError::NotYet(_))
    ));
    source.round_complete(&Server(&world, 0..=tip)).await?;
    assert_eq!(source.hash_at(arb_core::units::BlockHeight(1)).await?, world.chain.hash_at(1));
    Ok(())
}

#[tokio::test]
async fn what_was_in_a_stale_block_alone_is_never_told() -> Result<(), Failed> {
    let mut world = World::new()?;
    let start = world.chain.height();
    let filter = Arc::new(OutputFilter::new());
    let source = ConfirmSource::new([], filter.clone());
    best(&source, &world)?;
    source.round_complete(&Server(&world, 0..=start)).await?;
    let (close, funding) = (world.close.clone(), world.facts.candidates.current.funding);
    let index = u16::try_from(funding.vout)?;
    source.register_output(WatchedOutput {
        block_hash: None,
        outpoint: lightning::chain::transaction::OutPoint { txid: funding.txid, index },
        script_pubkey: ScriptBuf::new(),
    });
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    confirm(&source, &world, start + 1)?;
    best(&source, &world)?;
    source.round_complete(&Server(&world, 0..=start + 1)).await?;
    let first = world.chain.hash_at(start + 1);
    assert_eq!(source.get_relevant_txids(), [(close.compute_txid(), start + 1, first)]);

    // A longer chain without it. Whoever looks no longer after the output is asked to do so again.
    world.chain.disconnect(1, &|_| true)?;
    world.chain.mine_empty(2);
    source.transaction_unconfirmed(&close.compute_txid());
    assert_eq!(source.get_relevant_txids(), []);
    best(&source, &world)?;
    source.round_complete(&Server(&world, 0..=start + 2)).await?;
    for _ in 0..3 {
        let tip = source.tip().await?;
        assert_eq!(source.late(tip), None, "at {}", tip.height.0);
        let body = source.block(tip.hash).await?.ok_or("no block")?;
        assert_eq!(body.txdata, []);
        world.chain.mine_empty(300);
        best(&source, &world)?;
        source.round_complete(&Server(&world, 0..=world.chain.height())).await?;
    }

    // It is in another block: that one is relevant, whether or not the round has come to its end.
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    let tip = world.chain.height();
    confirm(&source, &world, tip)?;
    let relevant = [(close.compute_txid(), tip, world.chain.hash_at(tip))];
    assert_eq!(source.get_relevant_txids(), relevant);
    Ok(())
}

#[tokio::test]
async fn headers_of_old_blocks_hold_up_nobody() -> Result<(), Failed> {
    let mut world = World::new()?;
    world.chain.mine_empty(200);
    let start = world.chain.height();
    let source = ConfirmSource::new([], Arc::new(OutputFilter::new()));
    best(&source, &world)?;
    let recent = Server(&world, start - 150..=start);
    source.round_complete(&recent).await?;
    let old = arb_core::units::BlockHeight(start - 160);
    assert!(matches!(source.hash_at(old).await, Err(SourceError::NotYet(_))));
    assert!(matches!(source.round_complete(&recent).await, Err(RoundError::NoHeader(_))));
    world.chain.mine_empty(1);
    best(&source, &world)?;
    let recent = Server(&world, start - 150..=start + 1);
    assert!(matches!(source.round_complete(&recent).await, Err(RoundError::NoHeader(_))));
    assert_eq!(source.tip().await?.height.0, start + 1, "the tip is shown all the same");
    assert!(source.hash_at(arb_core::units::BlockHeight(start - 150)).await?.is_some());
    source.round_complete(&Server(&world, 0..=start + 1)).await?;
    assert_eq!(source.hash_at(old).await?, world.chain.hash_at(old.0));
    Ok(())
}
