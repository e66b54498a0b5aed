//! Channels for the benchmarks: many quiet ones, and a few whose funding output is spent.
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::world::funding_keys;
use arb_core::arbitrator::ChannelArbitrator;
use arb_core::engine::ChainArbitrator;
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, Htlc, HtlcLink,
    HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts,
};
use arb_core::format::CommitmentFormat;
use arb_core::ids::{ChannelId, HtlcId, PaymentHash, PerCommitmentSecret, Side, Slot};
use arb_core::policy::Policy;
use arb_core::units::{
    BlockDelta, BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, BlockHash, FeeRate, OutPoint, Transaction};

use super::BenchError;
use super::synthetic::Random;
use crate::peer::{
    self, Channel, ChannelParams, ClosingStyle, Format, HtlcRef, NewHtlc, PeerError, preimage_named,
};

/// Tip of a new engine.
pub(super) const TIP: u32 = 900_000;

/// Expiry of every HTLC: no run connects as many blocks.
pub(super) const EXPIRY: u32 = 1_000_000;

/// One quiet channel of this many has HTLCs pending.
const WITH_HTLCS: u32 = 10;

/// An engine without channels, as it is after some days: as many blocks as it remembers.
pub(super) fn engine() -> ChainArbitrator {
    let remembered = arb_core::engine::REMEMBERED_BLOCKS as u32;
    let blocks = (TIP - remembered + 1..=TIP).map(block_ref).collect();
    ChainArbitrator::new(Policy::default(), blocks)
}

/// A block of this height, its hash made of the height.
pub(super) fn block_ref(height: u32) -> BlockRef {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&height.to_le_bytes());
    BlockRef { height: BlockHeight(height), hash: BlockHash::from_byte_array(hash) }
}

/// Facts of quiet channels, made from a few verified ones.
pub(super) struct Quiet {
    idle: ChannelFacts,
    paying: ChannelFacts,
    random: Random,
}

impl Quiet {
    /// # Errors
    /// The models do not hold.
    pub(super) fn new(seed: u64) -> Result<Self, BenchError> {
        let mut random = Random::new("quiet", seed);
        let mut paying = open("paying", random.outpoint())?;
        add_htlcs(&mut paying)?;
        let idle = open("idle", random.outpoint())?;
        Ok(Self { idle: facts(&idle)?, paying: facts(&paying)?, random })
    }

    /// Facts of the channel in this slot, with an id and a funding output of their own.
    pub(super) fn facts(&mut self, slot: u32) -> ChannelFacts {
        let model = if slot.is_multiple_of(WITH_HTLCS) { &self.paying } else { &self.idle };
        let mut facts = model.clone();
        facts.id = ChannelId(self.random.bytes32());
        facts.candidates.current.funding = self.random.outpoint();
        facts
    }

    /// Puts channels with the slots from 0 up to, not including, `count` into an engine.
    pub(super) fn fill(&mut self, engine: &mut ChainArbitrator, count: u32) {
        for slot in 0..count {
            engine.restore(Slot(slot), Arc::new(self.facts(slot)), ChannelArbitrator::default());
        }
    }
}

/// A channel whose funding output is spent.
pub(super) struct Closing {
    /// Its facts before.
    pub(super) facts: Arc<ChannelFacts>,
    /// The spend.
    pub(super) spend: Transaction,
}

/// Four channels: a mutual close, a commitment of the peer with HTLCs, one of ours, and a revoked
/// one.
///
/// # Errors
/// A channel does not hold.
pub(super) fn closing(seed: u64) -> Result<Vec<Closing>, BenchError> {
    let mut random = Random::new("closing", seed);
    let mut closed = |name: &str, spend: fn(&mut Channel) -> Result<Transaction, PeerError>| {
        let mut channel = open(name, random.outpoint())?;
        let spend = spend(&mut channel)?;
        Ok::<_, BenchError>(Closing { facts: Arc::new(facts(&channel)?), spend })
    };
    Ok(vec![
        closed("mutual", |channel| {
            channel.mutual_close(FeeRate::from_sat_per_kwu(1_000), ClosingStyle::Simple)
        })?,
        closed("remote", |channel| {
            add_htlcs(channel)?;
            Ok(channel.remote_current()?.tx)
        })?,
        closed("local", |channel| {
            add_htlcs(channel)?;
            Ok(channel.local_commitment()?.tx)
        })?,
        closed("revoked", |channel| {
            add_htlcs(channel)?;
            let revoked = channel.remote_current()?.tx;
            channel.settle("offered")?;
            channel.settle("received")?;
            Ok(revoked)
        })?,
    ])
}

fn open(name: &str, funding: OutPoint) -> Result<Channel, PeerError> {
    let mut channel =
        Channel::new(ChannelParams { format: Format::Anchors, ..ChannelParams::new(name) })?;
    channel.set_funding(funding)?;
    channel.shutdown()?;
    Ok(channel)
}

fn add_htlcs(channel: &mut Channel) -> Result<(), PeerError> {
    let htlc = |name: &str| NewHtlc {
        name: name.to_owned(),
        amount_msat: 50_000_000,
        cltv_expiry: EXPIRY,
        preimage: preimage_named(name),
    };
    channel.offer(htlc("offered"))?;
    channel.receive(htlc("received"))?;
    Ok(())
}

/// What the node would have told of a channel so far, in one piece.
fn facts(channel: &Channel) -> Result<ChannelFacts, BenchError> {
    let params = channel.params();
    let funding = channel.funding()?;
    let local = channel.local_facts(channel.local_number())?;
    let remote = channel.remote_facts(channel.remote_number())?;
    let mut secrets = SecretStore::default();
    for number in 0..channel.remote_number() {
        if let Some(secret) = channel.revocation_secret(number)? {
            secrets.insert(CommitmentNumber(number), PerCommitmentSecret(secret))?;
        }
    }
    let facts = ChannelFacts {
        id: ChannelId(funding.txid.to_byte_array()),
        opener: Side::Local,
        local: party(channel, peer::Side::Local, params.local_delay, params.dust),
        remote: party(channel, peer::Side::Remote, params.remote_delay, params.remote_dust),
        candidates: Candidates::only(FundingCandidate {
            funding,
            keys: funding_keys(channel),
            capacity: params.capacity,
            format: CommitmentFormat::Anchors,
            local: LocalCommitment {
                number: CommitmentNumber(local.number),
                point: local.per_commitment_point,
                feerate: FeeratePerKw(local.feerate_per_kw),
                local_balance: MilliSat(local.balances.local_msat),
                remote_balance: MilliSat(local.balances.remote_msat),
                htlcs: local.htlcs.iter().copied().map(htlc_id).collect(),
                signature: local.signature,
                htlc_signatures: local.htlc_signatures,
            },
            remote: RemoteCommitment {
                number: CommitmentNumber(remote.number),
                point: remote.per_commitment_point,
                feerate: FeeratePerKw(remote.feerate_per_kw),
                local_balance: MilliSat(remote.balances.local_msat),
                remote_balance: MilliSat(remote.balances.remote_msat),
                htlcs: remote.htlcs.iter().copied().map(htlc_id).collect(),
            },
            remote_next: None,
        }),
        htlcs: records(channel, &local.htlcs),
        secrets,
        shutdown: ShutdownScripts {
            local: Some(channel.shutdown_script(peer::Side::Local)),
            remote: Some(channel.shutdown_script(peer::Side::Remote)),
        },
        destination: channel.shutdown_script(peer::Side::Local),
        birth: BlockHeight(TIP - 1_000),
        names: ChannelNames::default(),
    };
    facts.verify(&Secp256k1::new())?;
    Ok(facts)
}

const fn htlc_id(htlc: HtlcRef) -> HtlcId {
    let offerer = match htlc.offerer {
        peer::Side::Local => Side::Local,
        peer::Side::Remote => Side::Remote,
    };
    HtlcId { offerer, id: htlc.id }
}

fn party(channel: &Channel, side: peer::Side, delay: u16, dust_limit: Amount) -> Party {
    let keys = channel.keys(side);
    Party {
        keys: ChannelKeys {
            revocation: keys.revocation_basepoint,
            payment: keys.payment_basepoint,
            delayed_payment: keys.delayed_payment_basepoint,
            htlc: keys.htlc_basepoint,
        },
        delay: BlockDelta(u32::from(delay)),
        dust_limit,
    }
}

/// The records of pending HTLCs. All of them are said to be as old as the channel: a superset of
/// the commitments that hold them, as records are.
fn records(channel: &Channel, pending: &[HtlcRef]) -> BTreeMap<HtlcId, HtlcRecord> {
    let held = channel.htlcs().iter().filter(|htlc| pending.contains(&htlc.htlc));
    held.map(|htlc| {
        let link = match htlc.htlc.offerer {
            peer::Side::Local => HtlcLink::OwnPayment,
            peer::Side::Remote => HtlcLink::Final,
        };
        let terms = Htlc {
            amount: MilliSat(htlc.amount_msat),
            hash: PaymentHash(htlc.payment_hash),
            expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
            link,
        };
        let from = Some(CommitmentNumber(0));
        (htlc_id(htlc.htlc), HtlcRecord { htlc: terms, remote_from: from, remote_until: None })
    })
    .collect()
}
