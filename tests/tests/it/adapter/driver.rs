//! The driver on LDK's interfaces alone: blocks by `Listen`, fees and broadcasts by LDK's traits.
use super::Failed;
use super::world::World;
use arb_core::arbitrator::{Phase, UpstreamVerdict};
use arb_core::claim::trough::Troughs;
use arb_core::classify::FundingSpend;
use arb_core::memory::MemoryLog;
use arb_core::ports::{
    Coin, CoinRequest, CoinSource, FeeEstimates, PointRequest, SignRequest, Signer,
};
use arb_node_adapter::{BroadcastQueue, FromLdkBroadcaster, FromLdkFees, LdkFees, ListenSource};
use arb_watcher::{Arbiter, Ports, Settings};
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{FeeRate, OutPoint, ScriptBuf, Transaction, TxOut};
use lightning::chain::{BestBlock, Listen};
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

#[tokio::test]
async fn the_driver_follows_what_ldk_delivers() -> Result<(), Failed> {
    let mut world = World::new()?;
    let start = world.chain.height();
    let source = ListenSource::new([]);
    deliver(&source, &world, start)?;
    let floor = FeeRate::BROADCAST_MIN;
    let fees = Arc::new(LdkFees::new(FeeEstimates {
        targets: Vec::new(),
        floor,
        troughs: Troughs::default(),
    }));
    let ports = Ports {
        source: source.clone(),
        broadcast: FromLdkBroadcaster(Arc::new(BroadcastQueue::new())),
        fees: FromLdkFees(fees),
        signer: Away,
        coins: Away,
        scripts: arb_watcher::ScriptsPort::default(),
    };
    let settings = Settings { retry: Duration::from_millis(5), ..Settings::default() };
    let arbiter = Arbiter::start(MemoryLog::new(), ports, settings, Vec::new()).await?;
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, arbiter.idle()).await??;
    let id = world.facts.id;
    arbiter.watch_channel(world.facts.clone()).await?;

    let (close, claim) = (world.close.clone(), world.claim.clone());
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    world.chain.mine_empty(2);
    deliver(&source, &world, start + 1)?;
    let reached = |height: u32| {
        let arbiter = arbiter.clone();
        async move {
            // The retry after a withheld block takes its time.
            loop {
                let report = arbiter.report(id).await?.ok_or("no report")?;
                if report.tip.0 == height {
                    return Ok::<_, Failed>(report);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let report = tokio::time::timeout(patience, reached(world.chain.height())).await??;
    let spend = FundingSpend::RemoteCommitment(world.facts.candidates.current.remote.number);
    assert_eq!(report.phase, Phase::Closed(spend));
    assert_eq!(report.upstream.first().map(|(_, v)| *v), Some(UpstreamVerdict::Fulfilled));

    // Out again, on a longer fork.
    world.chain.disconnect(4, &|_| true)?;
    world.chain.mine_empty(6);
    source
        .blocks_disconnected(BestBlock::new(world.chain.hash_at(start).ok_or("no block")?, start));
    deliver(&source, &world, start + 1)?;
    let report = tokio::time::timeout(patience, reached(world.chain.height())).await??;
    assert_eq!(report.phase, Phase::Open);
    arbiter.shutdown().await;
    Ok(())
}
