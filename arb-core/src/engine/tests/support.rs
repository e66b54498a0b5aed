//! An engine with one channel, and blocks by height.
use super::super::*;
use crate::arbitrator::{Change, ChannelArbitrator, Input};
use crate::facts::update::tests::world::{World, revocation, terms};
use crate::facts::{Update, UpdateError};
use crate::ids::HtlcId;
use crate::log::{Durable, Write};
use crate::report::ChannelReport;
use bitcoin::hashes::Hash;
use bitcoin::{Block, BlockHash, CompactTarget, Transaction, TxMerkleNode};
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

pub(super) const SLOT: Slot = Slot(0);

pub(super) struct Watched {
    pub(super) world: World,
    pub(super) engine: ChainArbitrator,
    /// What a store would hold of the channel.
    pub(super) log: Vec<Change>,
    blocks: u8,
}

impl Watched {
    /// A channel that is watched since block 10, the tip.
    pub(super) fn new(world: World) -> Self {
        let engine = ChainArbitrator::new(Policy::default(), vec![at(10, 0)]);
        let mut watched = Self { world, engine, log: Vec::new(), blocks: 0 };
        let facts = Box::new(watched.world.facts.clone());
        assert_eq!(watched.step(&[EngineInput::ReachedTip]), []);
        let watch = EngineInput::Watch { slot: SLOT, facts, history: Vec::new() };
        assert_eq!(watched.step(&[watch]), []);
        watched
    }

    pub(super) fn stage(&self, inputs: &[EngineInput]) -> Transition {
        let loaded = Loaded::from([(SLOT, Arc::new(self.world.facts.clone()))]);
        self.engine.stage(inputs, &loaded, &mut |_| ()).expect("its facts are loaded")
    }

    /// Stages and commits; tells what was refused.
    pub(super) fn step(&mut self, inputs: &[EngineInput]) -> Vec<UpdateError> {
        let transition = self.stage(inputs);
        let refused = transition.refused().iter().map(|(_, why)| *why).collect();
        for write in transition.batch().writes.clone() {
            match write {
                Write::Changes { slot: SLOT, changes } => self.log.extend(changes),
                Write::LogReplaced { slot: SLOT, changes } => self.log = changes,
                _ => {}
            }
        }
        let receipt = Durable::assert_durable(transition.id());
        self.engine.commit(transition, receipt).expect("its own receipt");
        let state = self.engine.active(SLOT).map(|active| active.state.clone());
        assert_eq!(ChannelArbitrator::replay(&self.log), state.unwrap_or_default());
        refused
    }

    pub(super) fn verify(&self, updates: &[Update]) -> Result<Updated, UpdateError> {
        let stored = Arc::new(self.world.facts.clone());
        self.engine.verify_updates(SLOT, &stored, updates, &self.world.secp)
    }

    /// Updates that must be taken.
    pub(super) fn update(&mut self, updates: &[Update]) {
        let updated = self.verify(updates).expect("accepted");
        self.world.facts = (**updated.facts()).clone();
        assert_eq!(self.step(&[facts(updated)]), []);
    }

    /// A block with these transactions, as far as the channel watches them.
    pub(super) fn mine(&mut self, txdata: Vec<Transaction>) {
        self.blocks += 1;
        let at = at(self.engine.height().0 + 1, self.blocks);
        let block = Block {
            header: bitcoin::block::Header {
                version: bitcoin::block::Version::TWO,
                prev_blockhash: BlockHash::all_zeros(),
                merkle_root: TxMerkleNode::all_zeros(),
                time: 0,
                bits: CompactTarget::from_consensus(0),
                nonce: 0,
            },
            txdata,
        };
        let touched = self.engine.scan(&block).touched;
        self.step(&[EngineInput::Block { at, touched, position: Position::AtTip }]);
    }

    /// Takes the last blocks away.
    pub(super) fn disconnect(&mut self, blocks: usize) {
        let fork_point = *self.engine.blocks().nth(blocks).expect("remembered");
        self.step(&[EngineInput::Disconnected { fork_point }, EngineInput::ReachedTip]);
    }

    pub(super) fn report(&self) -> ChannelReport {
        let now = self.engine.now(SLOT, &self.world.facts);
        match self.engine.active(SLOT) {
            Some(active) => ChannelReport::of(&active.facts, &active.state, &now),
            None => ChannelReport::quiet(&self.world.facts, &now),
        }
    }
}

pub(super) fn facts(updated: Updated) -> EngineInput {
    EngineInput::Facts { slot: SLOT, updated: Box::new(updated), history: Vec::new() }
}

pub(super) fn channel(input: Input) -> EngineInput {
    EngineInput::Channel { slot: SLOT, input: Box::new(input) }
}

/// Both commitments have this number and these HTLCs from now on; the ones before are revoked.
pub(super) fn commit(watched: &mut Watched, at: u64, htlcs: &[HtlcId]) {
    watched.update(&[watched.world.remote_update(at, htlcs)]);
    watched.update(&[watched.world.local_update(at, htlcs), revocation(at - 1)]);
}

pub(super) fn add(watched: &mut Watched, ids: &[HtlcId]) {
    let added = |id: &HtlcId| Update::HtlcAdded { id: *id, htlc: terms(*id) };
    watched.update(&ids.iter().map(added).collect::<Vec<_>>());
}

fn at(height: u32, hash: u8) -> BlockRef {
    BlockRef { height: BlockHeight(height), hash: BlockHash::from_byte_array([hash; 32]) }
}
