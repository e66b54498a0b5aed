//! Random channels, histories and what happens to them.
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelNames, FundingCandidate, Htlc, HtlcLink, HtlcRecord,
    LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts, Update,
};
use arb_core::format::{ChannelSecrets, CommitmentFormat};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, PaymentHash, PerCommitmentSecret, Side};
use arb_core::units::{
    BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use arb_tests::peer::{
    self, Channel, ChannelParams, FactStep, Format, Keep, LocalCommitmentFacts, NewHtlc,
    PartySecrets, RemoteCommitmentFacts, Staged, Staging,
};
use arb_tests::world::funding_keys;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf};
use proptest::prelude::*;

use super::chain::{BASE, label};

/// The channel that HTLCs are forwarded from and to; nobody watches it.
const ELSEWHERE: ChannelId = ChannelId([0xee; 32]);

/// An HTLC to be. Few amounts, hashes and expiries: equal ones are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) offerer: Side,
    pub(crate) amount: u8,
    pub(crate) hash: u8,
    pub(crate) expiry: u8,
    pub(crate) forwarded: bool,
}

/// One step of the off-chain history.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deed {
    Add(Terms),
    Settle(u8),
    Cancel(u8),
    Fee(u8),
    Empty(u8),
}

/// A channel and its history.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) format: Format,
    pub(crate) opener: Side,
    pub(crate) ours: u8,
    pub(crate) deeds: Vec<Deed>,
    pub(crate) staged: Vec<Terms>,
    pub(crate) shutdown: bool,
    /// The peer's last revocation reaches us late, if at all.
    pub(crate) withheld: bool,
}

/// How the funding output is spent by others.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Close {
    Local,
    Remote,
    Next,
    Revoked(u8),
    Outdated(u8),
    /// Our own, newer than what the facts hold.
    Newer,
    Future,
    Mutual,
    Unknown,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    /// Blocks without anything.
    Mine(u8),
    /// One block: perhaps a close, perhaps claims of the peer, perhaps what we published.
    Block {
        close: Option<Close>,
        peer: u8,
        together: bool,
        ours: bool,
    },
    /// The tasks are done: signed, published, loaded, acknowledged.
    Work {
        acknowledge: bool,
    },
    /// The highest blocks go; the same transactions come back or not.
    Reorg {
        depth: u8,
        again: bool,
    },
    Restart,
    Preimage(u8),
    Fail,
    /// The network refused everything of ours.
    Reject,
    /// The peer's unconfirmed claims are seen.
    Mempool(u8),
    /// The node states the revocation of what was current.
    Revoke,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Local), Just(Side::Remote)]
}

fn terms() -> impl Strategy<Value = Terms> {
    (side(), 0u8..5, 0u8..3, 0u8..3, any::<bool>()).prop_map(
        |(offerer, amount, hash, expiry, forwarded)| Terms {
            offerer,
            amount,
            hash,
            expiry,
            forwarded,
        },
    )
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => terms().prop_map(Deed::Add),
        1 => any::<u8>().prop_map(Deed::Settle),
        1 => any::<u8>().prop_map(Deed::Cancel),
        1 => any::<u8>().prop_map(Deed::Fee),
        1 => (1u8..4).prop_map(Deed::Empty),
    ]
}

pub(crate) fn story() -> impl Strategy<Value = Story> {
    let format =
        prop_oneof![Just(Format::StaticRemoteKey), Just(Format::Anchors), Just(Format::ZeroFee)];
    let staged = prop_oneof![
        2 => Just(Vec::new()),
        1 => prop::collection::vec(terms(), 1..3),
    ];
    (
        format,
        side(),
        0u8..3,
        prop::collection::vec(deed(), 0..9),
        staged,
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(format, opener, ours, deeds, staged, shutdown, withheld)| Story {
            format,
            opener,
            ours,
            deeds,
            staged,
            shutdown,
            withheld,
        })
}

fn close() -> impl Strategy<Value = Close> {
    prop_oneof![
        2 => Just(Close::Local),
        2 => Just(Close::Remote),
        2 => Just(Close::Next),
        4 => any::<u8>().prop_map(Close::Revoked),
        1 => any::<u8>().prop_map(Close::Outdated),
        1 => Just(Close::Newer),
        1 => Just(Close::Future),
        2 => Just(Close::Mutual),
        1 => Just(Close::Unknown),
    ]
}

/// Something happens, the channel closes, and everything happens.
pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let before = prop::collection::vec(op(), 0..4);
    let close = (close(), any::<u8>(), any::<bool>(), any::<bool>());
    let close = close.prop_map(|(close, peer, together, ours)| Op::Block {
        close: Some(close),
        peer,
        together,
        ours,
    });
    (before, close, prop::collection::vec(op(), 0..12)).prop_map(|(mut ops, close, after)| {
        ops.push(close);
        ops.extend(after);
        ops
    })
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let block = (prop::option::of(close()), any::<u8>(), any::<bool>(), any::<bool>())
        .prop_map(|(close, peer, together, ours)| Op::Block { close, peer, together, ours });
    prop_oneof![
        2 => (1u8..40).prop_map(Op::Mine),
        1 => Just(Op::Mine(110)),
        6 => block,
        5 => any::<bool>().prop_map(|acknowledge| Op::Work { acknowledge }),
        2 => (1u8..11, any::<bool>()).prop_map(|(depth, again)| Op::Reorg { depth, again }),
        1 => Just(Op::Restart),
        1 => any::<u8>().prop_map(Op::Preimage),
        1 => Just(Op::Fail),
        1 => Just(Op::Reject),
        1 => any::<u8>().prop_map(Op::Mempool),
        1 => Just(Op::Revoke),
    ]
}

/// What the node knows, and the peer that it speaks of.
pub(crate) struct Told {
    pub(crate) channel: Channel,
    pub(crate) facts: ChannelFacts,
    pub(crate) ended: Vec<(HtlcId, HtlcRecord)>,
    pub(crate) secrets: ChannelSecrets,
    pub(crate) secp: Secp256k1<All>,
}

/// The side as the peer model names it.
fn theirs(side: Side) -> peer::Side {
    match side {
        Side::Local => peer::Side::Local,
        Side::Remote => peer::Side::Remote,
    }
}

pub(crate) fn id_of(htlc: &peer::HtlcRef) -> HtlcId {
    let offerer = match htlc.offerer {
        peer::Side::Local => Side::Local,
        peer::Side::Remote => Side::Remote,
    };
    HtlcId { offerer, id: htlc.id }
}

impl Story {
    /// Lives the story, and tells the node's side of it.
    pub(crate) fn tell(&self, funding: impl FnOnce(bitcoin::TxOut) -> OutPoint) -> Told {
        let mut params = ChannelParams::new("law");
        params.format = self.format;
        params.opener = theirs(self.opener);
        params.local_balance = Amount::from_sat([400_000, 500_000, 600_000][self.ours as usize]);
        params.local_delay = 12;
        params.remote_delay = 9;
        let mut channel = Channel::new(params).expect("the parameters are fine");
        let outpoint = funding(channel.funding_output());
        channel.set_funding(outpoint).expect("vout 0");
        let secp = Secp256k1::new();
        let mut facts = opening(&channel, &secp);
        facts.verify(&secp).expect("the opening verifies");
        let links = self.live(&mut channel);
        let mut ended = Vec::new();
        for step in self.told(channel.take_facts(Keep::Every).expect("facts")) {
            let Some(update) = update(&facts, &links, step) else { continue };
            let updated = facts.updated(&update, &secp).expect("every true update is accepted");
            facts = updated.facts;
            ended.extend(updated.ended);
        }
        facts.verify(&secp).expect("the facts verify");
        let secrets = secrets(channel.local_secrets());
        Told { channel, facts, ended, secrets, secp }
    }

    /// The steps that reach us in time.
    fn told(&self, mut steps: Vec<FactStep>) -> Vec<FactStep> {
        steps.retain(|step| !matches!(step, FactStep::RemoveHtlc { .. }));
        if self.withheld && matches!(steps.last(), Some(FactStep::RevocationSecret { .. })) {
            steps.pop();
        }
        steps
    }

    /// The deeds that are possible, in order; gives the terms by HTLC.
    fn live(&self, channel: &mut Channel) -> Vec<(HtlcId, Terms)> {
        let mut links = Vec::new();
        let mut count = 0;
        let pick = |channel: &Channel, n: u8| {
            let names: Vec<String> = channel.htlcs().iter().map(|h| h.name.clone()).collect();
            names.get(n as usize % names.len().max(1)).cloned()
        };
        for deed in &self.deeds {
            match deed {
                Deed::Add(terms) => {
                    count += 1;
                    let htlc = terms.htlc(count);
                    let added = match terms.offerer {
                        Side::Local => channel.offer(htlc),
                        Side::Remote => channel.receive(htlc),
                    };
                    links.extend(added.ok().map(|htlc| (id_of(&htlc), *terms)));
                }
                Deed::Settle(n) => {
                    let _ = pick(channel, *n).map(|name| channel.settle(&name));
                }
                Deed::Cancel(n) => {
                    let _ = pick(channel, *n).map(|name| channel.cancel(&name));
                }
                Deed::Fee(_) if self.format == Format::ZeroFee => {
                    channel.empty_updates(1).expect("no stage is open");
                }
                Deed::Fee(n) => {
                    channel.update_fee(253 + 10 * u32::from(*n)).expect("no stage is open");
                }
                Deed::Empty(n) => {
                    channel.empty_updates(u64::from(*n)).expect("no stage is open");
                }
            }
        }
        if self.shutdown {
            channel.shutdown().expect("no stage is open");
        }
        let staged = self.staged.iter().map(|terms| {
            count += 1;
            match terms.offerer {
                Side::Local => Staged::Offer(terms.htlc(count)),
                Side::Remote => Staged::Receive(terms.htlc(count)),
            }
        });
        let staged: Vec<Staged> = staged.collect();
        if let Ok(added) = channel.stage(staged) {
            links.extend(added.iter().map(id_of).zip(self.staged.iter().copied()));
        }
        links
    }
}

impl Terms {
    fn htlc(self, number: u32) -> NewHtlc {
        NewHtlc {
            name: format!("h{number}"),
            amount_msat: [20_000_000, 20_000_000, 5_500_999, 900_000, 300_000]
                [self.amount as usize],
            cltv_expiry: self.expiry(),
            preimage: label(3, u64::from(self.hash)),
        }
    }

    fn expiry(self) -> u32 {
        BASE + [25, 40, 60][self.expiry as usize]
    }

    fn link(self, staging: Staging) -> HtlcLink {
        let elsewhere = |offerer| HtlcRef { channel: ELSEWHERE, htlc: HtlcId { offerer, id: 7 } };
        match (self.offerer, self.forwarded) {
            (Side::Local, false) => HtlcLink::OwnPayment,
            (Side::Local, true) => HtlcLink::ForwardOf {
                incoming: elsewhere(Side::Remote),
                expiry: CltvExpiry(BlockHeight(self.expiry() + 34)),
                amount: MilliSat(21_000_000),
            },
            (Side::Remote, _) if staging == Staging::Next => HtlcLink::Uncommitted,
            (Side::Remote, false) => HtlcLink::Final,
            (Side::Remote, true) => HtlcLink::ForwardedTo { outgoing: elsewhere(Side::Local) },
        }
    }
}

fn secrets(party: &PartySecrets) -> ChannelSecrets {
    ChannelSecrets {
        funding: party.funding,
        revocation: party.revocation_base,
        payment: party.payment,
        delayed_payment: party.delayed_payment_base,
        htlc: party.htlc_base,
    }
}

pub(crate) fn wallet_script(key: &SecretKey, secp: &Secp256k1<All>) -> ScriptBuf {
    let public = CompressedPublicKey(PublicKey::from_secret_key(secp, key));
    ScriptBuf::new_p2wpkh(&public.wpubkey_hash())
}

/// The facts of a channel at commitment 0.
fn opening(channel: &Channel, secp: &Secp256k1<All>) -> ChannelFacts {
    let params = channel.params();
    let party = |secrets: &PartySecrets, delay: u16, dust_limit: Amount| Party {
        keys: self::secrets(secrets).public(secp),
        delay: BlockDelta(u32::from(delay)),
        dust_limit,
    };
    let candidate = FundingCandidate {
        funding: channel.funding().expect("set"),
        keys: funding_keys(channel),
        capacity: params.capacity,
        format: match params.format {
            Format::StaticRemoteKey => CommitmentFormat::StaticRemotekey,
            Format::Anchors => CommitmentFormat::Anchors,
            Format::ZeroFee => CommitmentFormat::ZeroFee,
        },
        local: local(channel.local_facts(0).expect("local 0")),
        remote: remote(channel.remote_facts(0).expect("remote 0")),
        remote_next: None,
    };
    ChannelFacts {
        id: ChannelId([0x11; 32]),
        opener: match params.opener {
            peer::Side::Local => Side::Local,
            peer::Side::Remote => Side::Remote,
        },
        local: party(channel.local_secrets(), params.local_delay, params.dust),
        remote: party(channel.remote_secrets(), params.remote_delay, params.remote_dust),
        candidates: Candidates::only(candidate),
        htlcs: std::collections::BTreeMap::new(),
        secrets: SecretStore::default(),
        shutdown: ShutdownScripts::default(),
        destination: wallet_script(&channel.local_secrets().wallet, secp),
        birth: BlockHeight(100),
        names: ChannelNames::default(),
    }
}

fn local(told: LocalCommitmentFacts) -> LocalCommitment {
    LocalCommitment {
        number: CommitmentNumber(told.number),
        point: told.per_commitment_point,
        feerate: FeeratePerKw(told.feerate_per_kw),
        local_balance: MilliSat(told.balances.local_msat),
        remote_balance: MilliSat(told.balances.remote_msat),
        htlcs: told.htlcs.iter().map(id_of).collect(),
        signature: told.signature,
        htlc_signatures: told.htlc_signatures,
    }
}

fn remote(told: RemoteCommitmentFacts) -> RemoteCommitment {
    RemoteCommitment {
        number: CommitmentNumber(told.number),
        point: told.per_commitment_point,
        feerate: FeeratePerKw(told.feerate_per_kw),
        local_balance: MilliSat(told.balances.local_msat),
        remote_balance: MilliSat(told.balances.remote_msat),
        htlcs: told.htlcs.iter().map(id_of).collect(),
    }
}

/// A step as the node states it; `None` where there is nothing to state.
fn update(facts: &ChannelFacts, links: &[(HtlcId, Terms)], step: FactStep) -> Option<Update> {
    let funding = facts.candidates.current.funding;
    Some(match step {
        FactStep::AddHtlc { htlc, staging } => {
            let id = id_of(&htlc.htlc);
            let (_, terms) = links.iter().find(|(known, _)| *known == id)?;
            let htlc = Htlc {
                amount: MilliSat(htlc.amount_msat),
                hash: PaymentHash(htlc.payment_hash),
                expiry: CltvExpiry(BlockHeight(htlc.cltv_expiry)),
                link: terms.link(staging),
            };
            Update::HtlcAdded { id, htlc }
        }
        FactStep::RemoveHtlc { .. } => return None,
        FactStep::LocalCommitment(told) => {
            Update::LocalCommitment { funding, commitment: local(told) }
        }
        FactStep::RemoteCommitment(told) => {
            Update::RemoteCommitment { funding, commitment: remote(told) }
        }
        FactStep::RevocationSecret { number, secret } => Update::RemoteRevoked {
            number: CommitmentNumber(number),
            secret: PerCommitmentSecret(secret),
        },
        FactStep::ShutdownScripts { local, remote } => {
            Update::Shutdown(ShutdownScripts { local: Some(local), remote: Some(remote) })
        }
    })
}
