//! `penalty`: a revoked commitment with as many HTLCs as the protocol allows. From the block to the
//! last signature of its penalties, against signing that many digests and nothing else.
use std::hint::black_box;
use std::time::Duration;

use bitcoin::secp256k1::{Message, Secp256k1};
use indicatif::ProgressBar;

use super::BenchError;
use super::measure::{interleaved, timed};
use super::node::{Node, Took};
use super::report::{Goal, Row};
use super::storm::{folder, runtime};
use super::synthetic::Random;
use super::told::Revoked;

const SEED: u64 = 29;
/// BOLT 2: 483 of each side.
const HTLCS: usize = 966;
/// For the HTLCs and both balances.
const SIGNATURES: usize = HTLCS + 2;
const SATOSHIS: u64 = 10_000;
const PAIRS: usize = 7;

/// The block is read, its outputs are recognised, every claim is priced and built, made durable,
/// and handed back and forth between tasks: an order of magnitude, not two.
const GOAL: Goal = Goal::Below(10.0);

pub(super) fn run(progress: &ProgressBar) -> Result<Vec<Row>, BenchError> {
    progress.set_message("penalty: a channel");
    let mut model = Revoked::with_htlcs(HTLCS, SATOSHIS)?;
    let mut random = Random::new("penalty", SEED);
    let mut digests = Random::new("penalty digests", SEED);
    let runtime = runtime()?;
    progress.set_message("penalty");
    let mut punish = || {
        let took = runtime.block_on(punish(&mut model, &mut random))?;
        if took.signatures < SIGNATURES {
            return Err(BenchError::Engine(format!("{} signatures only", took.signatures)));
        }
        Ok(took.signed)
    };
    let pairs = interleaved(PAIRS, &mut punish, &mut || sign(&mut digests, SIGNATURES))?;
    let name = format!("penalty: {HTLCS} HTLCs, block to signatures / {SIGNATURES} bare ones");
    Ok(vec![Row::of(name, pairs, Some(GOAL))])
}

/// A channel on a store of its own is closed by its revoked commitment.
async fn punish(model: &mut Revoked, random: &mut Random) -> Result<Took, BenchError> {
    let folder = folder()?;
    let channels = [model.at(random.outpoint())?];
    let node = Node::start(folder.path(), model, &channels).await?;
    let took = node.connect(&[channels[0].close.clone()]).await?;
    node.stop().await;
    Ok(took)
}

/// Signs this many digests.
fn sign(random: &mut Random, count: usize) -> Result<Duration, BenchError> {
    let secp = Secp256k1::new();
    let key = bitcoin::secp256k1::SecretKey::from_slice(&[7; 32]);
    let key = key.map_err(|error| BenchError::Engine(error.to_string()))?;
    let digests: Vec<Message> =
        (0..count).map(|_| Message::from_digest(random.bytes32())).collect();
    let sign = |digest| secp.sign_ecdsa(digest, &key);
    Ok(timed(|| digests.iter().for_each(|digest| _ = black_box(sign(digest)))).0)
}
