//! Soak: channels come and go by chance on the embedded chain, with subscribers of every kind,
//! reorganisations and restarts, for as long as wanted; and nothing grows.
mod channel;
mod holders;
mod samples;
mod world;

pub use samples::{Figure, Figures};

use crate::bench::synthetic::Random;
use crate::chain::ChainError;
use crate::peer::PeerError;
use arb_watcher::CommandError;
use bitcoin::hashes::Hash;
use bitcoin::{FeeRate, Transaction};
use channel::{Close, Life};
use holders::Holders;
use samples::Sample;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use world::World;

/// Channels that live at once, closing ones included.
const LIVING: usize = 24;
/// Blocks that a channel is open at most.
const OPEN: u32 = 120;
/// Blocks after its end began in which nobody who does not read is let go of yet.
const UNREAD: u32 = 150;
/// Blocks after its end began by which a channel must be forgotten: its last expiry, a delay,
/// confirmations and their reorganisations, and a hundred blocks on top.
const FORGOTTEN: u32 = 600;
/// Steps between two samples.
const SAMPLED: u64 = 4;
/// Starts before the first step: LMDB has lists of two megabytes, for which the allocator keeps room in the heap once
/// they were freed.
const STARTS: usize = 4;
/// Samples without which a third of them says nothing.
const ENOUGH: usize = 30;

/// Why a soak ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoakError {
    /// The peer could not do what was wanted.
    #[error("peer: {0}")]
    Peer(#[from] PeerError),
    /// The chain could not do what was wanted.
    #[error("chain: {0}")]
    Chain(#[from] ChainError),
    /// The arbiter refused a command.
    #[error("arbiter: {0}")]
    Command(#[from] CommandError),
    /// A file failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A channel lives for ever.
    #[error("a channel that ended {blocks} blocks ago ({how}) is not forgotten: {report}")]
    NotForgotten {
        /// Blocks since then.
        blocks: u32,
        /// How it ended.
        how: String,
        /// What the arbiter says of it.
        report: String,
    },
    /// The run was too short for a verdict.
    #[error("{0} samples are too few: run it longer")]
    TooShort(usize),
    /// Anything else.
    #[error("{0}")]
    Unexpected(String),
}

impl SoakError {
    fn unexpected(what: impl ToString) -> Self {
        Self::Unexpected(what.to_string())
    }
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long.
    pub time: Duration,
    /// Where chance begins.
    pub seed: u64,
}

/// What a soak found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where chance began.
    pub seed: u64,
    /// Steps that were taken.
    pub steps: u64,
    /// Blocks that were mined, stale ones included.
    pub blocks: u64,
    /// Reorganisations.
    pub reorganisations: u64,
    /// Ends and new starts of the arbiter.
    pub restarts: u64,
    /// Channels that were opened.
    pub opened: u64,
    /// Channels that were forgotten.
    pub forgotten: u64,
    /// Ends of channels, by kind.
    pub closes: BTreeMap<String, u64>,
    /// What must not grow.
    pub figures: Figures,
}

/// What happened so far.
#[derive(Default)]
struct Counts {
    blocks: u64,
    reorganisations: u64,
    restarts: u64,
    opened: u64,
    forgotten: u64,
    closes: BTreeMap<String, u64>,
}

struct Soak {
    world: World,
    random: Random,
    living: Vec<(Life, String)>,
    holders: Holders,
    counts: Counts,
}

/// Runs a soak. `progress` is told, after each step, the part of the time that is over and the
/// blocks and channels so far.
///
/// # Errors
/// The arbiter did something that it must not do, or the run was too short to tell.
pub async fn run(options: Options, progress: &dyn Fn(f64, u64, u64)) -> Result<Report, SoakError> {
    let random = Random::new("soak", options.seed);
    let mut world = World::begin().await?;
    for _ in 1..STARTS {
        world.end(false).await;
        world.start(Vec::new()).await?;
    }
    let counts = Counts::default();
    let holders = Holders::new(options.seed);
    let mut soak = Soak { world, random, living: Vec::new(), holders, counts };
    let (began, mut steps) = (Instant::now(), 0);
    let mut samples: Vec<Sample> = Vec::new();
    while began.elapsed() < options.time {
        soak.step().await?;
        steps += 1;
        if steps % SAMPLED == 0 {
            soak.world.forget();
            let others = soak.living.iter().map(|(life, _)| life.streams()).sum();
            soak.holders.check(soak.world.arbiter()?, others).await?;
            samples.push(soak.world.sample(soak.holders.len())?);
        }
        let part = began.elapsed().as_secs_f64() / options.time.as_secs_f64();
        progress(part, soak.counts.blocks, soak.counts.forgotten);
    }
    soak.holders.arbiter_ended().await;
    soak.world.end(false).await;
    if samples.len() < ENOUGH {
        return Err(SoakError::TooShort(samples.len()));
    }
    let Counts { blocks, reorganisations, restarts, opened, forgotten, closes } = soak.counts;
    let (seed, figures) = (options.seed, Figures::of(&samples));
    Ok(Report {
        seed,
        steps,
        blocks,
        reorganisations,
        restarts,
        opened,
        forgotten,
        closes,
        figures,
    })
}

impl Soak {
    /// One thing that happens, and what everybody does about it.
    async fn step(&mut self) -> Result<(), SoakError> {
        match self.random.between(0, 99) {
            0..=24 => self.open().await?,
            25..=49 => self.of_any(Act::Update).await?,
            50..=54 => self.of_any(Act::Subscribe).await?,
            55..=59 => self.of_any(Act::Preimage).await?,
            60..=66 => self.of_any(Act::PeerClaims).await?,
            67..=73 => self.close().await?,
            74..=76 => self.reorganise()?,
            77 => self.restart().await?,
            78..=79 => {
                let rate = self.random.between(2, 60) as u32;
                self.world.set_feerate(FeeRate::from_sat_per_vb_u32(rate));
            }
            80..=86 => self.holders.open(self.world.arbiter()?).await?,
            87..=92 => self.holders.end_one().await,
            93..=94 => self.holders.close_ledger(),
            _ => {}
        }
        self.mine();
        self.world.idle().await?;
        self.world.acknowledge().await?;
        self.holders.book(self.world.arbiter()?).await?;
        self.tend().await
    }

    fn mine(&mut self) {
        for _ in 0..self.random.between(1, 3) {
            let full = self.random.between(0, 9) > 0;
            self.world.mine(full);
            self.counts.blocks += 1;
        }
    }

    async fn open(&mut self) -> Result<(), SoakError> {
        if self.living.len() >= LIVING {
            return Ok(());
        }
        let peer = Life::peer(self.counts.opened, &mut self.random)?;
        let outpoints = self.world.fund(Life::payments(&peer))?;
        self.counts.blocks += 1;
        let &[funding, coin] = outpoints.as_slice() else {
            return Err(SoakError::unexpected("no funding output"));
        };
        // The node waits for some confirmations: a reorganisation does not undo the funding.
        for _ in 0..DEEPEST + 1 {
            self.world.mine(true);
            self.counts.blocks += 1;
        }
        self.world.idle().await?;
        let life = Life::open(peer, (funding, coin), &self.world).await?;
        self.living.push((life, "deadline".to_owned()));
        self.counts.opened += 1;
        Ok(())
    }

    fn any(&mut self) -> Option<usize> {
        let most = (self.living.len() as u64).checked_sub(1)?;
        Some(self.random.between(0, most) as usize)
    }

    async fn of_any(&mut self, act: Act) -> Result<(), SoakError> {
        let Some(at) = self.any() else { return Ok(()) };
        let Some((life, _)) = self.living.get_mut(at) else { return Ok(()) };
        match act {
            Act::Update => life.update(&self.world, &mut self.random).await,
            Act::Subscribe => life.subscribe(&self.world, &mut self.random).await,
            Act::Preimage => life.preimage(&self.world, &mut self.random).await,
            Act::PeerClaims => {
                life.peer_claims(&self.world, &mut self.random);
                Ok(())
            }
        }
    }

    async fn close(&mut self) -> Result<(), SoakError> {
        let Some(at) = self.any() else { return Ok(()) };
        self.close_one(at).await
    }

    async fn close_one(&mut self, at: usize) -> Result<(), SoakError> {
        let kind = self.random.between(0, Close::ALL.len() as u64 - 1) as usize;
        let (Some((life, how)), Some(close)) = (self.living.get_mut(at), Close::ALL.get(kind))
        else {
            return Ok(());
        };
        if life.close(*close, &self.world, &mut self.random).await? {
            *how = format!("{close:?}");
            *self.counts.closes.entry(how.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn reorganise(&mut self) -> Result<(), SoakError> {
        let depth = self.random.between(1, u64::from(DEEPEST)) as u32;
        let chance = self.random.next();
        // The same transactions are gone however often they are asked about.
        let gone = |tx: &Transaction| {
            let txid = tx.compute_txid().to_byte_array();
            (u64::from(txid[0]) ^ chance).is_multiple_of(4)
        };
        self.world.reorganise(depth, &gone)?;
        self.counts.blocks += u64::from(depth) + 1;
        self.counts.reorganisations += 1;
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SoakError> {
        let kill = self.random.between(0, 1) == 0;
        self.world.end(kill).await;
        self.living.iter_mut().for_each(|(life, _)| life.arbiter_ended());
        self.holders.arbiter_ended().await;
        let numbers = self.living.iter().map(|(life, _)| life.numbers()).collect();
        self.world.start(numbers).await?;
        self.counts.restarts += 1;
        Ok(())
    }

    /// What time brings: events are read, old channels end, forgotten ones are let go of.
    async fn tend(&mut self) -> Result<(), SoakError> {
        let height = self.world.height();
        let mut at = 0;
        while let Some((life, how)) = self.living.get_mut(at) {
            life.read().await?;
            life.look_whether_it_ended(&self.world);
            match life.closing {
                None if height > life.opened + OPEN => self.close_one(at).await?,
                Some(since) if height > since + FORGOTTEN => {
                    let (blocks, how) = (height - since, how.clone());
                    let report = life.report(&self.world).await?;
                    return Err(SoakError::NotForgotten { blocks, how, report });
                }
                Some(since) if height > since + UNREAD => life.let_go(&self.world).await?,
                None | Some(_) => {}
            }
            let Some((life, _)) = self.living.get(at) else { break };
            if life.is_forgotten(&self.world).await? {
                self.world.signer.remove(&life.id);
                self.holders.forgotten(&life.id);
                self.living.swap_remove(at);
                self.counts.forgotten += 1;
            } else {
                at += 1;
            }
        }
        Ok(())
    }
}

/// Deepest reorganisation, in blocks.
const DEEPEST: u32 = 6;

/// What may happen to any channel.
#[derive(Clone, Copy)]
enum Act {
    Update,
    Subscribe,
    Preimage,
    PeerClaims,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_short_one_opens_closes_and_tells_that_it_was_too_short() {
        let options = Options { time: Duration::from_millis(1), seed: 1 };
        let refused = run(options, &|_, _, _| {}).await;
        assert!(matches!(refused, Err(SoakError::TooShort(0))), "{refused:?}");
    }
}
