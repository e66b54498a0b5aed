//! `update_channel`, as a node calls it: an arbiter with its store, and channels whose peers sign
//! every commitment.
use std::path::Path;
use std::time::{Duration, Instant};

use arb_core::arbitrator::{Change, PreimageSource};
use arb_core::codec::Record as _;
use arb_core::facts::{ChannelEntry, ChannelFacts, Htlc, HtlcLink, Update};
use arb_core::ids::{ChannelId, HtlcId, PaymentHash, Preimage, Side};
use arb_core::units::{BlockHeight, CltvExpiry, MilliSat};
use arb_store::{LmdbLog, StoreConfig};
use arb_watcher::memory::{MemoryChain, MemoryCoins, MemoryFees, MemoryNetwork, MemorySigner};
use arb_watcher::{Arbiter, Ports, ScriptsPort, Settings};
use bitcoin::OutPoint;
use bitcoin::secp256k1::{All, Secp256k1, SecretKey};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::BenchError;
use super::bare::Record;
use super::measure::timed;
use crate::peer::{Channel, ChannelParams, Keep};
use crate::world::{Links, first_facts, updates_of};

/// Checksum of each stored value.
const CHECKSUM: usize = 4;

/// What a node tells of a channel at once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// An HTLC that commitments may contain from now on: no signature comes with it.
    Htlc,
    /// A received HTLC and its preimage: it passes through the engine, and into the channel's log.
    Preimage,
    /// Both sides have a new commitment and have revoked the last one.
    Commitments,
}

/// Who waits for the calls that are made at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// One task for all, as the LDK adapter's recorder does.
    OneTask,
    /// A task for each, as a node with a task for each peer does: each of them is started and woken.
    Tasks,
}

/// A channel that is in use, and what its node knows of it.
pub(super) struct Paying {
    peer: Channel,
    facts: ChannelFacts,
    /// How many HTLCs were told of. None is in a commitment, so each takes the place of the one before.
    htlcs: u64,
}

impl Paying {
    /// So many channels.
    ///
    /// # Errors
    /// A channel does not hold.
    pub(super) fn all(count: u32) -> Result<Vec<Self>, BenchError> {
        (0..count).map(Self::new).collect()
    }

    fn new(at: u32) -> Result<Self, BenchError> {
        let mut peer = Channel::new(ChannelParams::new(&format!("paying {at}")))?;
        peer.set_funding(OutPoint { vout: at, ..OutPoint::null() })?;
        let facts = first_facts(&peer, 0)?;
        peer.take_facts(Keep::Newest)?;
        Ok(Self { peer, facts, htlcs: 0 })
    }

    /// What the node tells next, and the time that it takes to verify it.
    fn next(
        &mut self,
        told: Told,
        secp: &Secp256k1<All>,
    ) -> Result<(Vec<Update>, Duration), BenchError> {
        let updates = match told {
            Told::Htlc => {
                self.htlcs += 1;
                vec![an_htlc(self.htlcs)]
            }
            Told::Preimage => {
                self.htlcs += 1;
                let preimage = preimage(self.htlcs);
                let source = PreimageSource::Node;
                vec![received(self.htlcs), Update::Preimage { preimage, source }]
            }
            Told::Commitments => {
                self.peer.empty_updates(1)?;
                let steps = self.peer.take_facts(Keep::Newest)?;
                updates_of(&steps, self.peer.funding()?, &Links::new())
            }
        };
        let (time, facts) = timed(|| {
            updates.iter().try_fold(self.facts.clone(), |facts, update| {
                facts.updated(update, secp).map(|followed| followed.facts)
            })
        });
        self.facts = facts?;
        Ok((updates, time))
    }

    /// The records of the channel in this slot after another update, but for the checksums' values, and
    /// the time that it takes to verify the update.
    ///
    /// # Errors
    /// The channel does not hold.
    pub(super) fn next_records(
        &mut self,
        told: Told,
        slot: u32,
        secp: &Secp256k1<All>,
    ) -> Result<(Vec<Record>, Duration), BenchError> {
        let (_, time) = self.next(told, secp)?;
        let record = |table, mut bytes: Vec<u8>| {
            bytes.extend([0; CHECKSUM]);
            (table, slot.to_be_bytes().to_vec(), bytes)
        };
        let entry = record(0, ChannelEntry::of(&self.facts).encode());
        let mut records = vec![entry, record(1, self.facts.encode())];
        if let Told::Preimage = told {
            let (preimage, source) = (preimage(self.htlcs), PreimageSource::Node);
            let mut learned = record(2, Change::PreimageLearned { preimage, source }.encode());
            // A log of an open channel is replaced before it is long.
            learned.1.extend((self.htlcs % 2).to_be_bytes());
            records.push(learned);
        }
        Ok((records, time))
    }
}

/// The same HTLC with ever other terms.
fn an_htlc(number: u64) -> Update {
    let amount = MilliSat(1_000_000 + number);
    let hash = PaymentHash([7; 32]);
    let expiry = CltvExpiry(BlockHeight(700_000));
    let htlc = Htlc { amount, hash, expiry, link: HtlcLink::OwnPayment };
    Update::HtlcAdded { id: HtlcId { offerer: Side::Local, id: 0 }, htlc }
}

/// The same, received, with ever another hash.
fn received(number: u64) -> Update {
    let (amount, hash) = (MilliSat(1_000_000), preimage(number).hash());
    let expiry = CltvExpiry(BlockHeight(700_000));
    let htlc = Htlc { amount, hash, expiry, link: HtlcLink::Final };
    Update::HtlcAdded { id: HtlcId { offerer: Side::Remote, id: 0 }, htlc }
}

fn preimage(number: u64) -> Preimage {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    Preimage(bytes)
}

/// An arbiter that watches channels that are in use.
pub(super) struct Arbitrated {
    runtime: Runtime,
    arbiter: Arbiter,
    channels: Vec<Paying>,
    secp: Secp256k1<All>,
}

impl Arbitrated {
    /// A new arbiter with its store in `folder`.
    ///
    /// # Errors
    /// The store cannot be opened, or a channel does not hold.
    pub(super) fn open(folder: &Path, channels: u32) -> Result<Self, BenchError> {
        let engine = |error: &dyn std::fmt::Display| BenchError::Engine(error.to_string());
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let log = LmdbLog::open(folder, StoreConfig::default())?;
        let wallet = SecretKey::from_slice(&[7; 32]).map_err(|error| engine(&error))?;
        let ports = Ports {
            source: MemoryChain::new(),
            broadcast: MemoryNetwork::new(),
            fees: MemoryFees::default(),
            signer: MemorySigner::new(),
            coins: MemoryCoins::new(wallet, &[]),
            scripts: ScriptsPort::default(),
        };
        let channels = Paying::all(channels)?;
        let arbiter = runtime.block_on(async {
            let started = Arbiter::start(log, ports, Settings::default(), Vec::new()).await;
            let arbiter = started.map_err(|error| engine(&error))?;
            for channel in &channels {
                let watched = arbiter.watch_channel(channel.facts.clone()).await;
                watched.map_err(|error| engine(&error))?;
            }
            Ok::<_, BenchError>(arbiter)
        })?;
        Ok(Self { runtime, arbiter, channels, secp: Secp256k1::new() })
    }

    /// The time from the first call for so many channels, all at once, to the last receipt, as a task of
    /// the node's sees it.
    ///
    /// # Errors
    /// An update is refused.
    pub(super) fn timed(
        &mut self,
        what: Told,
        (count, callers): (usize, Callers),
    ) -> Result<Duration, BenchError> {
        let Self { runtime, arbiter, channels, secp } = self;
        let mut told = Vec::with_capacity(count);
        for channel in channels.iter_mut().take(count) {
            told.push((channel.facts.id, channel.next(what, secp)?.0));
        }
        let arbiter = arbiter.clone();
        let telling = runtime.spawn(async move {
            let start = Instant::now();
            tell(&arbiter, told, callers).await.map(|()| start.elapsed())
        });
        let told = runtime.block_on(telling);
        told.map_err(|error| BenchError::Engine(error.to_string()))?
    }
}

async fn tell(
    arbiter: &Arbiter,
    told: Vec<(ChannelId, Vec<Update>)>,
    callers: Callers,
) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Engine(error.to_string());
    let call = |(id, updates)| {
        let arbiter = arbiter.clone();
        async move { arbiter.update_channel(id, updates).await }
    };
    match callers {
        Callers::OneTask => {
            let mut calls: FuturesUnordered<_> = told.into_iter().map(call).collect();
            while let Some(answer) = calls.next().await {
                answer.map_err(|error| failed(&error))?;
            }
        }
        Callers::Tasks => {
            let mut calls: JoinSet<_> = told.into_iter().map(call).collect();
            while let Some(answer) = calls.join_next().await {
                answer.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_durable() -> Result<(), BenchError> {
        let folder = tempfile::tempdir()?;
        let mut ours = Arbitrated::open(folder.path(), 3)?;
        for (told, count, callers) in [
            (Told::Commitments, 1, Callers::OneTask),
            (Told::Htlc, 3, Callers::Tasks),
            (Told::Preimage, 3, Callers::OneTask),
            (Told::Preimage, 3, Callers::Tasks),
            (Told::Commitments, 2, Callers::OneTask),
        ] {
            ours.timed(told, (count, callers))?;
        }
        let Arbitrated { runtime, arbiter, channels, .. } = ours;
        runtime.block_on(arbiter.shutdown());
        drop((arbiter, runtime));
        let log = LmdbLog::open(folder.path(), StoreConfig::default())?;
        for (slot, channel) in (0..).map(arb_core::ids::Slot).zip(&channels) {
            let stored = arb_core::log::ChangeLog::facts(&log, slot)?.transpose();
            let stored = stored.map_err(|error| BenchError::Engine(error.to_string()))?;
            assert_eq!(stored.as_deref(), Some(&channel.facts));
            let changes = arb_core::log::ChangeLog::changes(&log, slot)?;
            let changes = changes.map_err(|error| BenchError::Engine(error.to_string()))?;
            let (preimage, source) = (preimage(channel.htlcs), PreimageSource::Node);
            assert!(changes.contains(&Change::PreimageLearned { preimage, source }), "{changes:?}");
        }
        Ok(())
    }
}
