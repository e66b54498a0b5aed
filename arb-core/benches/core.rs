//! Micro-benchmarks: how long single operations of the core take here. Comparisons, which these
//! cannot make, are those of `cargo xtask bench`.
mod support;

use arb_core::arbitrator::{ChannelArbitrator, Position};
use arb_core::codec::Record;
use arb_core::engine::{ChainArbitrator, Loaded};
use arb_core::facts::ChannelFacts;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::Durable;
use arb_core::policy::Policy;
use arb_core::units::{BlockHeight, BlockRef};
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;

const CHANNELS: u32 = 100_000;
const TRANSACTIONS: u32 = 2_500;

fn tip(height: u32) -> BlockRef {
    BlockRef { height: BlockHeight(height), hash: BlockHash::from_byte_array([7; 32]) }
}

fn model() -> ChannelFacts {
    support::channel(&Secp256k1::new())
}

fn engine(model: &ChannelFacts) -> ChainArbitrator {
    let mut engine = ChainArbitrator::new(Policy::default(), vec![tip(800_000)]);
    for slot in 0..CHANNELS {
        let mut facts = model.clone();
        facts.candidates.current.funding = support::outpoint(slot);
        facts.id = ChannelId(facts.candidates.current.funding.txid.to_byte_array());
        engine.restore(Slot(slot), Arc::new(facts), ChannelArbitrator::default());
    }
    engine
}

fn blocks(c: &mut Criterion) {
    let mut engine = engine(&model());
    let block = support::block(TRANSACTIONS);
    let mut group = c.benchmark_group("engine of 100000 quiet channels");
    group.bench_function("scan a block", |b| b.iter(|| engine.scan(black_box(&block))));
    let mut height = 800_000;
    group.bench_function("stage and commit a block", |b| {
        b.iter(|| {
            height += 1;
            let touched = Default::default();
            let staged = engine.connect(tip(height), touched, Position::AtTip, &Loaded::new());
            let transition = staged.expect("no facts are needed");
            let receipt = Durable::assert_durable(transition.id());
            engine.commit(transition, receipt).expect("its own receipt")
        });
    });
    group.finish();
}

fn facts(c: &mut Criterion) {
    let facts = model();
    let secp = Secp256k1::new();
    let bytes = facts.encode();
    let mut group = c.benchmark_group("facts");
    group.bench_function("verify", |b| b.iter(|| black_box(&facts).verify(&secp)));
    group.bench_function("encode", |b| b.iter(|| black_box(&facts).encode()));
    group.bench_function("decode", |b| {
        b.iter_batched(
            || bytes.clone(),
            |bytes| ChannelFacts::decode(&bytes).expect("what was encoded"),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, blocks, facts);
criterion_main!(benches);
