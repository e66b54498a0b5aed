//! Receipts: who may commit what.
use super::*;
use crate::log::Durable;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use std::vec;

mod aside;
mod fence;
mod moot;
mod restore;
mod revoked;
mod signals;
mod splice;
mod support;
mod unheld;

fn at(height: u32) -> BlockRef {
    BlockRef { height: BlockHeight(height), hash: BlockHash::all_zeros() }
}

fn engine() -> ChainArbitrator {
    ChainArbitrator::new(Policy::default(), vec![at(10)])
}

fn block(engine: &ChainArbitrator, height: u32) -> Transition {
    let none = BTreeMap::new();
    engine.connect(at(height), none, Position::AtTip, &Loaded::new()).expect("no facts needed")
}

fn nothing(engine: &ChainArbitrator) -> Transition {
    engine.stage(&[EngineInput::ReachedTip], &Loaded::new(), &mut |_| ()).expect("no facts needed")
}

#[test]
fn staging_leaves_the_engine_as_it_is() {
    let engine = engine();
    let transition = block(&engine, 11);
    assert_eq!(transition.batch().writes.len(), 1);
    // The field that the doctest of `Transition` cannot read.
    assert!(transition.next.is_empty());
    assert_eq!(engine.height(), BlockHeight(10));
    assert_eq!(engine.position(), Position::CatchingUp);
}

#[test]
fn the_receipt_of_another_batch_is_refused() {
    let mut engine = engine();
    let transition = block(&engine, 11);
    let other = BatchId(transition.id().0 + 1);
    let refused = engine.commit(transition, Durable::assert_durable(other)).expect_err("other");
    assert_eq!((refused.expected, refused.found), (BatchId(0), other));
    assert_eq!(engine.height(), BlockHeight(10));
    let receipt = Durable::assert_durable(refused.transition.id());
    engine.commit(*refused.transition, receipt).expect("its own receipt");
    assert_eq!(engine.height(), BlockHeight(11));
}

#[test]
fn what_was_staged_before_another_commit_is_refused() {
    let mut engine = engine();
    let (one, two) = (block(&engine, 11), block(&engine, 11));
    let receipt = |t: &Transition| Durable::assert_durable(t.id());
    let (first, second) = (receipt(&one), receipt(&two));
    engine.commit(one, first).expect("in order");
    engine.commit(two, second).expect_err("stale");

    let (empty, stale) = (nothing(&engine), nothing(&engine));
    let behind = block(&engine, 12);
    engine.commit_empty(empty).expect("nothing to write");
    assert!(engine.commit_empty(stale).is_err());
    let receipt = receipt(&behind);
    engine.commit(behind, receipt).expect_err("stale");
    assert_eq!(engine.height(), BlockHeight(11));
}

#[test]
fn what_has_something_to_write_needs_a_receipt() {
    let mut engine = engine();
    let transition = block(&engine, 11);
    assert!(engine.commit_empty(transition).is_err(), "a block is to be written");
    assert_eq!(engine.height(), BlockHeight(10));
}
