//! `LdkFeed`: takes chain data in every style that LDK's chain clients use, and keeps it until
//! [`LdkFeed::settle`](super::LdkFeed::settle) applies it.
use super::{Link, NotConnected, lock};
use arb_core::engine::ChainArbitrator;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::block::Header;
use bitcoin::{Block, BlockHash, Transaction, Txid};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BestBlock, Confirm, Listen};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// What a chain client delivered, in its words.
#[derive(Debug)]
pub(super) enum Delivery {
    /// `Listen`: the next block, or again a block that is known, with all or some transactions.
    Block { link: Link, block: Block },
    /// `Listen`: everything above is gone.
    Disconnected { fork_point: BlockRef },
    /// `Confirm`: transactions of a block somewhere in the chain.
    Confirmed { link: Link, block: Block },
    /// `Confirm`: a transaction is in its block no more.
    Unconfirmed(Txid),
    /// `Confirm`: the tip.
    Best(Link),
}

/// Takes chain data from LDK's chain clients, beside LDK's own objects.
///
/// The calls of [`Listen`] and [`Confirm`] only store what they are given. Call
/// [`settle`](Self::settle) with [`Round::Complete`](super::Round::Complete) after each round of
/// the chain client (`SpvClient::poll_best_tip`, `EsploraSyncClient::sync`, ...): neither interface
/// says when its news are complete, and before that nothing may be decided by height. Within a long
/// round, settle with [`Round::UnderWay`](super::Round::UnderWay) to keep the queue short.
///
/// One chain client feeds one `LdkFeed`, by one of the two interfaces.
#[derive(Debug, Default)]
pub struct LdkFeed {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Arc<Delivery>>,
    /// What the engine's evidence rests on, as of the last settling.
    relevant: Vec<(Txid, BlockRef)>,
    /// Why the chain is not followed now.
    lost: Option<NotConnected>,
}

impl LdkFeed {
    /// A feed for this engine: what it rests on is to be looked after from the first round on.
    #[must_use]
    pub fn new(engine: &ChainArbitrator) -> Self {
        let feed = Self::default();
        feed.publish(engine);
        feed
    }

    /// Number of deliveries that wait for being settled.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.state).queue.len()
    }

    fn push(&self, delivery: Delivery) {
        lock(&self.state).queue.push_back(Arc::new(delivery));
    }

    pub(super) fn front(&self) -> Option<Arc<Delivery>> {
        lock(&self.state).queue.front().cloned()
    }

    /// The first delivery was applied, or cannot be.
    pub(super) fn done(&self, outcome: Result<(), NotConnected>) {
        let mut state = lock(&self.state);
        let done = state.queue.pop_front();
        match (outcome, done.as_deref()) {
            (Err(why), _) => state.lost = Some(why),
            (Ok(()), Some(Delivery::Block { .. } | Delivery::Best(_))) => state.lost = None,
            (Ok(()), _) => {}
        }
    }

    pub(super) fn lost(&self) -> Option<NotConnected> {
        lock(&self.state).lost
    }

    /// What a reorganisation may still take away, for `get_relevant_txids`.
    pub(super) fn publish(&self, engine: &ChainArbitrator) {
        let (tip, depth) = (engine.height(), engine.policy().forget_depth);
        let shallow = |at: &BlockRef| at.height.plus(depth) > tip;
        let confirmed = engine.confirmed().filter(|(_, _, at)| shallow(at));
        let mut relevant: Vec<_> = confirmed.map(|(_, txid, at)| (txid, at)).collect();
        // Two channels may rest on one transaction.
        relevant.sort_by_key(|(txid, at)| (at.height, *txid));
        relevant.dedup();
        lock(&self.state).relevant = relevant;
    }
}

/// The tip that the engine stands at: where a chain client has to start.
#[must_use]
pub fn best_block(engine: &ChainArbitrator) -> Option<BestBlock> {
    engine.tip().map(|tip| BestBlock::new(tip.hash, tip.height.0))
}

/// The block with these transactions alone.
fn part(header: &Header, data: &TransactionData<'_>) -> Block {
    let txdata = data.iter().map(|(_, transaction)| (*transaction).clone()).collect();
    Block { header: *header, txdata }
}

impl Listen for LdkFeed {
    fn filtered_block_connected(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        let link = Link::of(header, height);
        self.push(Delivery::Block { link, block: part(header, txdata) });
    }

    fn blocks_disconnected(&self, fork_point_block: BestBlock) {
        let height = BlockHeight(fork_point_block.height);
        let fork_point = BlockRef { height, hash: fork_point_block.block_hash };
        self.push(Delivery::Disconnected { fork_point });
    }
}

impl Confirm for LdkFeed {
    fn transactions_confirmed(&self, header: &Header, txdata: &TransactionData<'_>, height: u32) {
        let link = Link::of(header, height);
        self.push(Delivery::Confirmed { link, block: part(header, txdata) });
    }

    fn transaction_unconfirmed(&self, txid: &Txid) {
        self.push(Delivery::Unconfirmed(*txid));
    }

    fn best_block_updated(&self, header: &Header, height: u32) {
        self.push(Delivery::Best(Link::of(header, height)));
    }

    /// What the engine rests on, and what was delivered since it was settled last.
    fn get_relevant_txids(&self) -> Vec<(Txid, u32, Option<BlockHash>)> {
        let state = lock(&self.state);
        let mut relevant = state.relevant.clone();
        for delivery in &state.queue {
            match &**delivery {
                Delivery::Unconfirmed(gone) => relevant.retain(|(txid, _)| txid != gone),
                Delivery::Confirmed { link, block } => {
                    let txids = block.txdata.iter().map(Transaction::compute_txid);
                    for txid in txids {
                        relevant.retain(|(known, _)| *known != txid);
                        relevant.push((txid, link.at));
                    }
                }
                Delivery::Block { .. } | Delivery::Disconnected { .. } | Delivery::Best(_) => {}
            }
        }
        relevant.into_iter().map(|(txid, at)| (txid, at.height.0, Some(at.hash))).collect()
    }
}
