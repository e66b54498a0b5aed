//! One story, eleven styles, three rhythms of settling: the same engine every time.
use super::Failed;
use super::styles::{Between, Client, Style, confirm};
use super::world::{SLOT, Seen, Watching, World};
use arb_core::arbitrator::{ChannelEvent, CloseKind, Phase, Position, UpstreamVerdict};
use arb_core::classify::FundingSpend;
use arb_core::ids::{HtlcId, Preimage, Side};
use arb_core::units::BlockRef;
use arb_node_adapter::{
    FeedError, LdkFeed, NotConnected, Round, Settled, best_block, register_outputs,
};
use arb_tests::peer::preimage_named;
use bitcoin::{BlockHash, OutPoint, Script, Txid};
use lightning::chain::{BestBlock, Confirm, Filter, Listen, WatchedOutput};
use std::sync::Mutex;

/// When the node settles besides at the end of each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rhythm {
    EachRound,
    EachDelivery,
}

/// A node: an engine fed by LDK's interfaces.
struct Node {
    watching: Watching,
    feed: LdkFeed,
    settled: Settled,
}

impl Node {
    async fn new(world: &World) -> Result<Self, Failed> {
        let watching = world.arbiter().await?;
        let feed = LdkFeed::new(&watching.engine);
        Ok(Self { watching, feed, settled: Settled::default() })
    }

    async fn settle(&mut self, round: Round) -> Result<(), Failed> {
        let Watching { engine, log, .. } = &mut self.watching;
        Ok(self.feed.settle(engine, log, round, &mut self.settled).await?)
    }

    async fn follow(
        &mut self,
        client: &mut Client,
        world: &World,
        rhythm: Rhythm,
    ) -> Result<Seen, Failed> {
        let Self { watching, feed, settled } = self;
        let mut between = Settling { watching, feed, settled, rhythm };
        client.follow(&world.chain, feed, &mut between).await?;
        self.settle(Round::Complete).await?;
        assert_eq!(self.feed.waiting(), 0);
        assert_eq!(self.watching.engine.position(), Position::AtTip);
        self.watching.seen()
    }

    fn relevant(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        self.feed.get_relevant_txids()
    }
}

struct Settling<'a> {
    watching: &'a mut Watching,
    feed: &'a LdkFeed,
    settled: &'a mut Settled,
    rhythm: Rhythm,
}

impl Between for Settling<'_> {
    async fn delivered(&mut self) -> Result<(), Failed> {
        if self.rhythm == Rhythm::EachDelivery {
            let Watching { engine, log, .. } = &mut *self.watching;
            self.feed.settle(engine, log, Round::UnderWay, self.settled).await?;
            assert_eq!(self.feed.waiting(), 0);
        }
        Ok(())
    }
}

fn relevant_of(world: &World, txs: &[&bitcoin::Transaction]) -> Result<Relevant, Failed> {
    let entry = |tx: &&bitcoin::Transaction| {
        let BlockRef { height, hash } = world.block_of(tx)?;
        Ok((tx.compute_txid(), height.0, Some(hash)))
    };
    txs.iter().map(entry).collect()
}

type Relevant = Vec<(Txid, u32, Option<BlockHash>)>;

const OFFERED: HtlcId = HtlcId { offerer: Side::Local, id: 0 };

fn spend(world: &World) -> FundingSpend {
    FundingSpend::RemoteCommitment(world.facts.candidates.current.remote.number)
}

/// Closed by the peer's commitment, our HTLC claimed, the node told so.
fn check_claimed(world: &World, node: &Node, seen: &Seen) -> Result<(), Failed> {
    assert_eq!(seen.phase, Phase::Closed(spend(world)));
    assert_eq!(seen.tip, Some(world.tip()));
    assert_eq!(seen.report.upstream, [(OFFERED, UpstreamVerdict::Fulfilled)]);
    let preimage = Preimage(preimage_named("o1"));
    assert_eq!(seen.state.downstream_preimage(preimage.hash()), Some(preimage));
    let htlc =
        seen.report.outputs.iter().find(|o| o.outpoint == world.claim.input[0].previous_output);
    let htlc = htlc.ok_or("the HTLC's output is reported")?;
    assert_eq!(htlc.spender, Some(world.claim.compute_txid()));
    assert_eq!(htlc.spent_by, Some(Side::Remote));
    assert_eq!(htlc.spent_at, Some(world.block_of(&world.claim)?.height));
    assert_eq!(node.relevant(), relevant_of(world, &[&world.close, &world.claim])?);
    Ok(())
}

/// The story: closed and claimed, all reorganised out, in again at other heights, the claim alone
/// out, and in again. Gives what was seen at each stop.
async fn story(style: Style, rhythm: Rhythm) -> Result<Vec<Seen>, Failed> {
    let mut world = World::new()?;
    let mut node = Node::new(&world).await?;
    let mut client = Client::new(style, &world.chain);
    let mut stops = Vec::new();
    let keep_out = |_: &bitcoin::Transaction| true;
    let (close, claim) = (world.close.clone(), world.claim.clone());

    world.chain.mine_empty(3);
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_empty(2);
    stops.push(node.follow(&mut client, &world, rhythm).await?);
    assert_eq!(node.relevant(), relevant_of(&world, &[&close])?);
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    world.chain.mine_empty(2);
    let seen = node.follow(&mut client, &world, rhythm).await?;
    check_claimed(&world, &node, &seen)?;
    stops.push(seen);

    world.chain.disconnect(7, &keep_out)?;
    let mut out = node.follow(&mut client, &world, rhythm).await?;
    assert_eq!(out.phase, Phase::Open);
    assert_eq!(out.state.confirmed().count(), 0);
    assert_eq!(out.report.events.last(), Some(&ChannelEvent::Reorged));
    assert!(node.relevant().is_empty());
    if style.hides_disconnections() {
        // Such a client does not say where the tip went before there is a new one.
        assert_ne!(out.tip, Some(world.tip()));
        (out.tip, out.report.tip) = (Some(world.tip()), world.tip().height);
    }
    stops.push(out);

    world.chain.mine_empty(4);
    world.chain.mine_transactions(std::slice::from_ref(&close))?;
    world.chain.mine_empty(1);
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    world.chain.mine_empty(4);
    let seen = node.follow(&mut client, &world, rhythm).await?;
    check_claimed(&world, &node, &seen)?;
    stops.push(seen);

    world.chain.disconnect(5, &keep_out)?;
    world.chain.mine_empty(6);
    let seen = node.follow(&mut client, &world, rhythm).await?;
    assert_eq!(seen.phase, Phase::Closed(spend(&world)));
    assert_eq!(seen.tip, Some(world.tip()));
    assert_eq!(node.relevant(), relevant_of(&world, &[&close])?);
    stops.push(seen);

    // One block takes the place of the tip, and holds the claim.
    world.chain.disconnect(1, &keep_out)?;
    world.chain.mine_transactions(std::slice::from_ref(&claim))?;
    let seen = node.follow(&mut client, &world, rhythm).await?;
    check_claimed(&world, &node, &seen)?;
    let closed =
        ChannelEvent::Closed(CloseKind::Remote(world.facts.candidates.current.remote.number));
    let mut told = seen.report.events.clone();
    told.retain(|event| !event.is_progress());
    assert_eq!(told, [closed, ChannelEvent::Reorged, closed]);
    stops.push(seen);
    Ok(stops)
}

#[tokio::test]
async fn every_style_leads_to_the_same_engine() -> Result<(), Failed> {
    let first = story(Style::FullBlockViaListen, Rhythm::EachRound).await?;
    assert_eq!(first.len(), 6);
    for style in Style::ALL {
        for rhythm in [Rhythm::EachRound, Rhythm::EachDelivery] {
            let stops =
                story(style, rhythm).await.map_err(|e| format!("{style:?} {rhythm:?}: {e}"))?;
            for (at, (stop, expected)) in stops.iter().zip(&first).enumerate() {
                let (stop, expected) = (stop.at_rest(), expected.at_rest());
                assert_eq!(stop, expected, "{style:?} {rhythm:?} at stop {at}");
            }
        }
    }
    Ok(())
}

/// A client that learns of a transaction long after its block, and in a block it never announced.
#[tokio::test]
async fn late_transactions_survive_reorganisations_above_them() -> Result<(), Failed> {
    let mut world = World::new()?;
    let mut node = Node::new(&world).await?;
    let start = world.chain.height();
    world.chain.mine_empty(9);
    world.chain.mine_transactions(std::slice::from_ref(&world.close))?;
    world.chain.mine_empty(9);
    world.chain.mine_transactions(std::slice::from_ref(&world.claim))?;
    world.chain.mine_empty(10);
    let tip = world.chain.height();
    let block = |world: &World, height| world.chain.block_at(height).cloned().ok_or("no block");
    node.feed.best_block_updated(&block(&world, tip)?.header, tip);
    node.settle(Round::Complete).await?;
    assert_eq!(node.watching.seen()?.phase, Phase::Open);
    for height in [start + 10, start + 20] {
        confirm(&node.feed, block(&world, height)?.as_ref(), height);
        // What waits is relevant already, the coinbase too.
        assert!(node.relevant().len() >= 2);
        node.settle(Round::Complete).await?;
    }
    check_claimed(&world, &node, &node.watching.seen()?)?;

    // The last three blocks are replaced; only the new tip is announced.
    world.chain.disconnect(3, &|_| true)?;
    world.chain.mine_empty(4);
    let tip = world.chain.height();
    node.feed.best_block_updated(&block(&world, tip)?.header, tip);
    node.settle(Round::Complete).await?;
    check_claimed(&world, &node, &node.watching.seen()?)?;
    // A lower tip, above the claim: nothing is lost.
    node.feed.best_block_updated(&block(&world, start + 21)?.header, start + 21);
    node.settle(Round::Complete).await?;
    let lower = node.watching.seen()?;
    assert_eq!(lower.report.tip.0, start + 21);
    assert_eq!(lower.state.confirmed().count(), 2);
    node.feed.best_block_updated(&block(&world, tip)?.header, tip);
    node.settle(Round::Complete).await?;
    check_claimed(&world, &node, &node.watching.seen()?)?;

    // The claim alone is taken back.
    node.feed.transaction_unconfirmed(&world.claim.compute_txid());
    assert_eq!(node.relevant(), relevant_of(&world, &[&world.close])?, "told before settling");
    node.settle(Round::Complete).await?;
    assert_eq!(node.relevant(), relevant_of(&world, &[&world.close])?);
    // And a lower tip below everything takes the rest.
    node.feed.best_block_updated(&block(&world, start + 9)?.header, start + 9);
    node.settle(Round::Complete).await?;
    assert!(node.relevant().is_empty());
    assert_eq!(node.watching.seen()?.phase, Phase::Open);
    Ok(())
}

/// The first evidence of a new store may lie below everything that it remembers.
#[tokio::test]
async fn evidence_below_the_first_block_is_taken_back() -> Result<(), Failed> {
    let mut world = World::new()?;
    world.chain.mine_transactions(std::slice::from_ref(&world.close))?;
    world.chain.mine_empty(5);
    let mut node = Node::new(&world).await?;
    let at = world.block_of(&world.close)?;
    let block = world.chain.block(&at.hash).cloned().ok_or("no block")?;
    confirm(&node.feed, &block, at.height.0);
    node.settle(Round::Complete).await?;
    assert_eq!(node.watching.seen()?.state.confirmed().count(), 1);
    node.feed.transaction_unconfirmed(&world.close.compute_txid());
    node.settle(Round::Complete).await?;
    assert_eq!(node.watching.seen()?.state.confirmed().count(), 0);
    Ok(())
}

#[tokio::test]
async fn what_does_not_connect_is_refused_until_it_does() -> Result<(), Failed> {
    let mut world = World::new()?;
    let mut node = Node::new(&world).await?;
    let start = world.tip();
    assert_eq!(best_block(&node.watching.engine), Some(BestBlock::new(start.hash, start.height.0)));
    world.chain.mine_transactions(std::slice::from_ref(&world.close))?;
    world.chain.mine_empty(2);
    let block = |height: u32| world.chain.block_at(height).cloned().ok_or("no block");
    let first = start.height.0 + 1;
    node.feed.block_connected(block(first + 1)?.as_ref(), first + 1);
    let Watching { engine, log, .. } = &mut node.watching;
    for _ in 0..2 {
        // Sticky: an empty queue does not mean that the tip was reached.
        let refused = node.feed.settle(engine, log, Round::Complete, &mut node.settled).await;
        let Err(FeedError::NotConnected(NotConnected::Gap { tip, found })) = refused else {
            return Err(format!("{refused:?}").into());
        };
        assert_eq!((tip, found.height.0), (start, first + 1));
    }
    assert_eq!(node.watching.engine.position(), Position::CatchingUp);
    node.feed.blocks_disconnected(BestBlock::new(block(first)?.block_hash(), start.height.0));
    assert!(node.settle(Round::UnderWay).await.is_err(), "not in the chain that was followed");
    for height in first..first + 3 {
        node.feed.block_connected(block(height)?.as_ref(), height);
    }
    node.settle(Round::Complete).await?;
    let seen = node.watching.seen()?;
    assert_eq!((seen.phase, seen.tip), (Phase::Closed(spend(&world)), Some(world.tip())));
    Ok(())
}

#[derive(Default)]
struct Registered(Mutex<Vec<OutPoint>>);

impl Filter for Registered {
    fn register_tx(&self, _: &Txid, _: &Script) {}

    fn register_output(&self, output: WatchedOutput) {
        if let Ok(mut registered) = self.0.lock() {
            registered.push(output.outpoint.into_bitcoin_outpoint());
        }
    }
}

#[tokio::test]
async fn a_filtering_client_is_told_what_to_look_for() -> Result<(), Failed> {
    let mut world = World::new()?;
    let mut node = Node::new(&world).await?;
    let watched = |node: &Node| -> Result<Vec<OutPoint>, Failed> {
        let filter = Registered::default();
        register_outputs(&filter, &node.watching.engine, &world.facts);
        let mut registered = filter.0.into_inner().map_err(|_| "poisoned")?;
        registered.sort();
        Ok(registered)
    };
    let funding = world.facts.candidates.current.funding;
    assert_eq!(watched(&node)?, [funding]);
    world.chain.mine_transactions(std::slice::from_ref(&world.close))?;
    let mut client = Client::new(Style::TransactionsFirst, &world.chain);
    // The client starts below the block.
    let at = world.block_of(&world.close)?;
    let block = world.chain.block(&at.hash).cloned().ok_or("no block")?;
    confirm(&node.feed, &block, at.height.0);
    node.follow(&mut client, &world, Rhythm::EachRound).await?;
    let expected: Vec<OutPoint> = node.watching.engine.watched().into_iter().collect();
    assert_eq!(watched(&node)?, expected);
    assert!(expected.contains(&world.claim.input[0].previous_output));
    assert!(node.settled.released.concerned.contains(&SLOT));
    // The peer's second stage: a secret that reaches us late would make it ours.
    world.chain.mine_transactions(std::slice::from_ref(&world.claim))?;
    node.follow(&mut client, &world, Rhythm::EachRound).await?;
    let expected: Vec<OutPoint> = node.watching.engine.watched().into_iter().collect();
    assert_eq!(watched(&node)?, expected);
    assert!(expected.contains(&OutPoint { txid: world.claim.compute_txid(), vout: 0 }));
    Ok(())
}

/// A new tip says by its header which blocks are stale, whatever else the client says.
#[tokio::test]
async fn a_header_voids_what_it_contradicts() -> Result<(), Failed> {
    for above in [0, 1] {
        let mut world = World::new()?;
        let mut node = Node::new(&world).await?;
        let mut client = Client::new(Style::TransactionsFirstSkippingBlocks, &world.chain);
        world.chain.mine_transactions(std::slice::from_ref(&world.close))?;
        world.chain.mine_empty(2);
        world.chain.mine_transactions(std::slice::from_ref(&world.claim))?;
        let seen = node.follow(&mut client, &world, Rhythm::EachRound).await?;
        check_claimed(&world, &node, &seen)?;
        let stale = world.tip();
        world.chain.disconnect(1, &|_| true)?;
        world.chain.mine_empty(1 + above);
        let tip = world.tip();
        let block = world.chain.block(&tip.hash).cloned().ok_or("no block")?;
        node.feed.best_block_updated(&block.header, tip.height.0);
        node.settle(Round::Complete).await?;
        assert_eq!(node.watching.engine.tip(), Some(tip));
        assert!(!node.watching.engine.blocks().any(|known| *known == stale), "{above}");
        assert_eq!(node.relevant(), relevant_of(&world, &[&world.close])?, "{above}");
    }
    Ok(())
}
