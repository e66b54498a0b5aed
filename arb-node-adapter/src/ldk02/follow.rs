//! What a delivery means for the engine. Pure: engine and delivery in, engine inputs out.
//!
//! `Listen` delivers every block, so its blocks must connect. `Confirm` leaves blocks out, so that
//! some of the remembered blocks may be stale without anybody knowing; that is harmless, because
//! evidence in them is taken back by `transaction_unconfirmed`, block by block and channel by
//! channel. What must hold: no evidence is dropped that nobody would deliver again. So every fork
//! point is the *highest* known block that is low enough, and blocks of the evidence count as known
//! even where the blocks around them were never delivered.
use super::feed::Delivery;
use super::{Link, NotConnected};
use arb_core::arbitrator::{BlockView, Input, Position};
use arb_core::engine::{ChainArbitrator, EngineInput};
use arb_core::ids::Slot;
use arb_core::units::{BlockDelta, BlockHeight, BlockRef};
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use std::collections::BTreeMap;

type Touched = BTreeMap<Slot, Vec<Transaction>>;

pub(super) fn inputs(
    engine: &ChainArbitrator,
    delivery: &Delivery,
) -> Result<Vec<EngineInput>, NotConnected> {
    match delivery {
        Delivery::Block { link, block } => listened(engine, *link, block),
        Delivery::Disconnected { fork_point } => disconnected(engine, *fork_point),
        Delivery::Confirmed { link, block } => Ok(confirmed(engine, *link, block)),
        Delivery::Unconfirmed(txid) => Ok(unconfirmed(engine, txid)),
        Delivery::Best(link) => Ok(best(engine, *link)),
    }
}

fn is_remembered(engine: &ChainArbitrator, block: &BlockRef) -> bool {
    engine.blocks().any(|known| known == block)
}

/// Every block that is known to have been in the chain: the remembered ones and those that the
/// evidence is in.
fn known(engine: &ChainArbitrator) -> impl Iterator<Item = BlockRef> {
    engine.blocks().copied().chain(engine.confirmed().map(|(_, _, at)| at))
}

/// A block on top of the tip. Whether it is the source's tip is not known before the round ends.
fn connect(at: BlockRef, touched: Touched) -> EngineInput {
    EngineInput::Block { at, touched, position: Position::CatchingUp }
}

/// Transactions of a block that lies in the chain already.
fn late(at: BlockRef, touched: Touched) -> Vec<EngineInput> {
    let input = |(slot, transactions)| {
        let input = Box::new(Input::BlockConnected(BlockView { at, transactions }));
        EngineInput::Channel { slot, input }
    };
    touched.into_iter().map(input).collect()
}

/// Down to `fork_point`, which is the tip from then on even if it was never connected.
fn rewind(engine: &ChainArbitrator, fork_point: BlockRef) -> Vec<EngineInput> {
    let mut inputs = vec![EngineInput::Disconnected { fork_point }];
    if !is_remembered(engine, &fork_point) {
        inputs.push(connect(fork_point, Touched::new()));
    }
    inputs
}

fn listened(
    engine: &ChainArbitrator,
    link: Link,
    block: &Block,
) -> Result<Vec<EngineInput>, NotConnected> {
    let touched = engine.scan(block).touched;
    let Some(tip) = engine.tip() else { return Ok(vec![connect(link.at, touched)]) };
    let lowest = engine.blocks().map(|block| block.height).min();
    let replayed = lowest.is_some_and(|lowest| link.at.height < lowest);
    if replayed || is_remembered(engine, &link.at) {
        return Ok(late(link.at, touched));
    }
    match link.parent {
        Some(parent) if parent == tip => Ok(vec![connect(link.at, touched)]),
        Some(parent) if is_remembered(engine, &parent) => {
            let mut inputs = rewind(engine, parent);
            inputs.push(connect(link.at, touched));
            Ok(inputs)
        }
        _ => Err(NotConnected::Gap { tip, found: link.at }),
    }
}

fn disconnected(
    engine: &ChainArbitrator,
    fork_point: BlockRef,
) -> Result<Vec<EngineInput>, NotConnected> {
    let Some(tip) = engine.tip() else { return Ok(Vec::new()) };
    let BlockRef { height, hash } = fork_point;
    let differs = |known: BlockRef| known.height == height && known.hash != hash;
    if engine.blocks().copied().any(differs) {
        return Err(NotConnected::UnknownFork { tip, height, hash });
    }
    // A client that is behind disconnects what was never connected here.
    if tip.height <= height { Ok(Vec::new()) } else { Ok(rewind(engine, fork_point)) }
}

/// What stays when `link` is in the chain: the height up to which nothing known contradicts it;
/// `None` if nothing does.
fn undisputed(engine: &ChainArbitrator, link: Link) -> Option<BlockHeight> {
    let disputes = |known: &BlockRef, block: &BlockRef| {
        known.height == block.height && known.hash != block.hash
    };
    let disputed = |known: &BlockRef| {
        disputes(known, &link.at) || link.parent.is_some_and(|parent| disputes(known, &parent))
    };
    let lowest = known(engine).filter(disputed).map(|block| block.height).min()?;
    Some(lowest.minus(BlockDelta(1)))
}

/// Makes room for `link` at or below `limit`; gives the inputs and the tip that they lead to.
///
/// Where nothing is known so far down, stale blocks stay remembered: their evidence, if there is
/// any, goes with `transaction_unconfirmed`.
fn make_room(
    engine: &ChainArbitrator,
    link: Link,
    limit: Option<BlockHeight>,
) -> (Vec<EngineInput>, Option<BlockRef>) {
    let low_enough = |block: &BlockRef| limit.is_some_and(|limit| block.height <= limit);
    let candidates = known(engine).chain(link.parent).chain([link.at]).filter(low_enough);
    match candidates.max_by_key(|block| block.height) {
        Some(fork_point) => (rewind(engine, fork_point), Some(fork_point)),
        None => (Vec::new(), engine.tip()),
    }
}

/// Connects `link` above `tip`, its parent first: so the block below any block that was connected
/// is a known fork point.
fn extend(tip: Option<BlockRef>, link: Link, touched: Touched) -> Vec<EngineInput> {
    let above = |block: &BlockRef| tip.is_none_or(|tip| tip.height < block.height);
    let parent = link.parent.filter(above).map(|parent| connect(parent, Touched::new()));
    parent.into_iter().chain([connect(link.at, touched)]).collect()
}

fn confirmed(engine: &ChainArbitrator, link: Link, block: &Block) -> Vec<EngineInput> {
    let touched = engine.scan(block).touched;
    let (mut inputs, tip) = make_room(engine, link, undisputed(engine, link));
    if tip.is_none_or(|tip| tip.height < link.at.height) {
        inputs.extend(extend(tip, link, touched));
    } else {
        inputs.extend(late(link.at, touched));
    }
    inputs
}

fn best(engine: &ChainArbitrator, link: Link) -> Vec<EngineInput> {
    let is_lower = engine.tip().is_some_and(|tip| tip.height > link.at.height);
    let limit = undisputed(engine, link).or(is_lower.then_some(link.at.height));
    let (mut inputs, tip) = make_room(engine, link, limit);
    if tip.is_none_or(|tip| tip.height < link.at.height) {
        inputs.extend(extend(tip, link, Touched::new()));
    }
    inputs
}

/// The block of a transaction is stale, and so is every block that stood on it: the channel's
/// evidence from that height on is void. Other channels hear of their own transactions.
fn unconfirmed(engine: &ChainArbitrator, txid: &Txid) -> Vec<EngineInput> {
    let resting = engine.confirmed().filter(|(_, confirmed, _)| confirmed == txid);
    let inputs = resting.map(|(slot, _, at)| {
        let below = known(engine).filter(|block| block.height < at.height);
        // A channel goes by the height of the fork point alone: where no block is known so far
        // down, its hash may be nobody's.
        let unnamed =
            || BlockRef { height: at.height.minus(BlockDelta(1)), hash: BlockHash::all_zeros() };
        let fork_point = below.max_by_key(|block| block.height).unwrap_or_else(unnamed);
        EngineInput::Channel { slot, input: Box::new(Input::Disconnected { fork_point }) }
    });
    inputs.collect()
}
