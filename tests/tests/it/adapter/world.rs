//! A channel with one HTLC of ours on an embedded chain, and an engine that watches it.
use super::Failed;
use arb_core::arbitrator::{
    Change, ChannelArbitrator, ChannelEvent, OutputProgress, Phase, Position,
};
use arb_core::engine::{ChainArbitrator, EngineInput, Loaded};
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, Htlc, HtlcLink,
    LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts, Update,
};
use arb_core::format::CommitmentFormat;
use arb_core::ids::{ChannelId, HtlcId, PaymentHash, PerCommitmentSecret, Side, Slot};
use arb_core::log::ChangeLog;
use arb_core::memory::MemoryLog;
use arb_core::policy::Policy;
use arb_core::report::ChannelReport;
use arb_core::units::{
    BlockDelta, BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use arb_tests::chain::EmbeddedChain;
use arb_tests::peer::{
    self, Bundle, Channel, ChannelParams, FactStep, Format, HtlcRef, Keep, LocalCommitmentFacts,
    NewHtlc, RemoteCommitmentFacts, preimage_named,
};
use arb_tests::world::funding_keys;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Amount, FeeRate, OutPoint, Transaction, Txid};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const SLOT: Slot = Slot(0);

/// A chain, the channel's facts, and the transactions of its story.
pub(super) struct World {
    pub(super) chain: EmbeddedChain,
    pub(super) facts: ChannelFacts,
    /// The peer's current commitment.
    pub(super) close: Transaction,
    /// The peer claims our HTLC with its preimage.
    pub(super) claim: Transaction,
}

impl World {
    pub(super) fn new() -> Result<Self, Failed> {
        let mut chain = EmbeddedChain::new();
        let format = Format::StaticRemoteKey;
        let mut peer = Channel::new(ChannelParams { format, ..ChannelParams::new("a") })?;
        let funding = chain.fund(peer.funding_script(), peer.params().capacity)?;
        peer.set_funding(funding)?;
        peer.offer(NewHtlc {
            name: "o1".to_owned(),
            amount_msat: 50_000_000,
            cltv_expiry: chain.height() + 400,
            preimage: preimage_named("o1"),
        })?;
        let facts = facts(&mut peer, BlockHeight(chain.height()))?;
        let commitment = peer.remote_current()?;
        let rate = FeeRate::from_sat_per_vb_u32(5);
        let claims = peer.claim_htlcs(&commitment, &["o1"], Bundle::Separate, rate.into(), &[])?;
        let claim = claims.into_iter().next().ok_or("no claim")?.tx;
        Ok(Self { chain, facts, close: commitment.tx, claim })
    }

    /// Where the chain stands.
    pub(super) fn tip(&self) -> BlockRef {
        let (height, hash) = self.chain.tip();
        BlockRef { height: BlockHeight(height), hash }
    }

    /// The block of the active chain that holds a transaction.
    pub(super) fn block_of(&self, tx: &Transaction) -> Result<BlockRef, Failed> {
        let height = self.chain.tx_height(&tx.compute_txid()).ok_or("not confirmed")?;
        let hash = self.chain.hash_at(height).ok_or("no such block")?;
        Ok(BlockRef { height: BlockHeight(height), hash })
    }

    /// An engine that watches the channel, at the tip.
    pub(super) async fn arbiter(&self) -> Result<Watching, Failed> {
        let mut log = MemoryLog::new();
        let mut engine = ChainArbitrator::new(Policy::default(), Vec::new());
        let (at, position) = (self.tip(), Position::CatchingUp);
        let begin = EngineInput::Block { at, touched: BTreeMap::new(), position };
        let facts = Box::new(self.facts.clone());
        let watch = EngineInput::Watch { slot: SLOT, facts, history: Vec::new() };
        let transition = engine
            .stage(&[begin, watch], &Loaded::new(), &mut |_| ())
            .map_err(|_| "facts wanted")?;
        let receipt = log.append(transition.batch().clone()).await?;
        engine.commit(transition, receipt)?;
        Ok(Watching { engine, log, facts: Arc::new(self.facts.clone()) })
    }
}

/// An engine and its log.
pub(super) struct Watching {
    pub(super) engine: ChainArbitrator,
    pub(super) log: MemoryLog,
    facts: Arc<ChannelFacts>,
}

/// What the engine knows and thinks of the channel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) state: ChannelArbitrator,
    pub(super) phase: Phase,
    pub(super) report: ChannelReport,
    pub(super) tip: Option<BlockRef>,
    /// Outputs that blocks are searched for.
    pub(super) watched: BTreeSet<OutPoint>,
    /// The whole state, as the log leads to it without what depends on the order of the news.
    quiet: ChannelArbitrator,
}

/// What the engine thinks once the chain has come to rest, in whatever order it heard of it.
#[derive(Debug, PartialEq)]
pub(super) struct AtRest {
    state: ChannelArbitrator,
    confirmed: Vec<(Txid, BlockRef)>,
    watched: BTreeSet<OutPoint>,
    phase: Phase,
    report: ChannelReport,
    last: BTreeMap<OutPoint, OutputProgress>,
    tip: Option<BlockRef>,
}

impl Seen {
    /// The same without what depends on the order of the news: how often an output was told of
    /// before the chain came to rest. What was told of it last remains.
    pub(super) fn at_rest(&self) -> AtRest {
        let mut report = self.report.clone();
        let mut last = BTreeMap::new();
        for event in &report.events {
            match event {
                ChannelEvent::Output { outpoint, progress } => {
                    last.insert(*outpoint, *progress);
                }
                // It takes back what was told of outputs, too.
                ChannelEvent::Reorged => last.clear(),
                _ => {}
            }
        }
        report.events.retain(|event| !event.is_progress());
        // Never told of is as good as told that nothing holds any more.
        last.retain(|_, progress| *progress != OutputProgress::Unspent);
        AtRest {
            state: self.quiet.clone(),
            confirmed: self.state.confirmed().collect(),
            watched: self.watched.clone(),
            phase: self.phase,
            report,
            last,
            tip: self.tip,
        }
    }
}

impl Watching {
    /// What there is to see; the log must say the same.
    pub(super) fn seen(&self) -> Result<Seen, Failed> {
        let state = self.engine.active(SLOT).map(|active| active.state.clone());
        let state = state.unwrap_or_default();
        let changes = self.log.changes(SLOT)??;
        let logged = ChannelArbitrator::replay(&changes);
        assert_eq!(logged, state, "the log leads to the engine's state");
        let told = |change: &&Change| !matches!(change, Change::Announced(e) if e.is_progress());
        let quiet = ChannelArbitrator::replay(changes.iter().filter(told));
        let stored = self.log.facts(SLOT)?.ok_or("no facts")??;
        assert_eq!(*stored, *self.facts, "no block changes facts");
        let tip = self.engine.tip();
        assert_eq!(self.log.blocks()?.last().copied(), tip, "cursor of the log");
        let now = self.engine.now(SLOT, &self.facts);
        Ok(Seen {
            phase: state.phase(&self.facts, now.tip, &now.policy),
            report: ChannelReport::of(&self.facts, &state, &now),
            watched: self.engine.watched(),
            quiet,
            state,
            tip,
        })
    }
}

fn facts(peer: &mut Channel, birth: BlockHeight) -> Result<ChannelFacts, Failed> {
    let secp = Secp256k1::new();
    let params = peer.params().clone();
    let party = |side, delay: u16, dust_limit: Amount| {
        let keys = peer.keys(side);
        let keys = ChannelKeys {
            revocation: keys.revocation_basepoint,
            payment: keys.payment_basepoint,
            delayed_payment: keys.delayed_payment_basepoint,
            htlc: keys.htlc_basepoint,
        };
        Party { keys, delay: BlockDelta(delay.into()), dust_limit }
    };
    let funding = peer.funding()?;
    let mut facts = ChannelFacts {
        id: ChannelId([7; 32]),
        opener: side(params.opener),
        local: party(peer::Side::Local, params.local_delay, params.dust),
        remote: party(peer::Side::Remote, params.remote_delay, params.remote_dust),
        candidates: Candidates::only(FundingCandidate {
            funding,
            keys: funding_keys(peer),
            capacity: params.capacity,
            format: CommitmentFormat::StaticRemotekey,
            local: local(peer.local_facts(0)?),
            remote: remote(peer.remote_facts(0)?),
            remote_next: None,
        }),
        htlcs: BTreeMap::new(),
        secrets: SecretStore::default(),
        shutdown: ShutdownScripts::default(),
        destination: peer.shutdown_script(peer::Side::Local),
        birth,
        names: ChannelNames::default(),
    };
    for step in peer.take_facts(Keep::Every)? {
        facts = facts.updated(&update(funding, step)?, &secp)?.facts;
    }
    facts.verify(&secp)?;
    Ok(facts)
}

fn update(funding: OutPoint, step: FactStep) -> Result<Update, Failed> {
    Ok(match step {
        FactStep::AddHtlc { htlc, .. } => Update::HtlcAdded {
            id: id(htlc.htlc),
            htlc: Htlc {
                amount: MilliSat(htlc.amount_msat),
                hash: PaymentHash(htlc.payment_hash),
                expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
                link: HtlcLink::OwnPayment,
            },
        },
        FactStep::LocalCommitment(facts) => {
            Update::LocalCommitment { funding, commitment: local(facts) }
        }
        FactStep::RemoteCommitment(facts) => {
            Update::RemoteCommitment { funding, commitment: remote(facts) }
        }
        FactStep::RevocationSecret { number, secret } => Update::RemoteRevoked {
            number: CommitmentNumber(number),
            secret: PerCommitmentSecret(secret),
        },
        FactStep::RemoveHtlc { .. } | FactStep::ShutdownScripts { .. } => {
            return Err("no part of this story".into());
        }
    })
}

fn local(facts: LocalCommitmentFacts) -> LocalCommitment {
    LocalCommitment {
        number: CommitmentNumber(facts.number),
        point: facts.per_commitment_point,
        feerate: FeeratePerKw(facts.feerate_per_kw),
        local_balance: MilliSat(facts.balances.local_msat),
        remote_balance: MilliSat(facts.balances.remote_msat),
        htlcs: facts.htlcs.into_iter().map(id).collect(),
        signature: facts.signature,
        htlc_signatures: facts.htlc_signatures,
    }
}

fn remote(facts: RemoteCommitmentFacts) -> RemoteCommitment {
    RemoteCommitment {
        number: CommitmentNumber(facts.number),
        point: facts.per_commitment_point,
        feerate: FeeratePerKw(facts.feerate_per_kw),
        local_balance: MilliSat(facts.balances.local_msat),
        remote_balance: MilliSat(facts.balances.remote_msat),
        htlcs: facts.htlcs.into_iter().map(id).collect(),
    }
}

pub(super) fn id(htlc: HtlcRef) -> HtlcId {
    HtlcId { offerer: side(htlc.offerer), id: htlc.id }
}

const fn side(side: peer::Side) -> Side {
    match side {
        peer::Side::Local => Side::Local,
        peer::Side::Remote => Side::Remote,
    }
}
