//! Values of every kind, for property tests of the codec.
use crate::arbitrator::{
    Alert, Change, ChannelEvent, CloseKind, FailReason, HandedOut, NoticeKey, OutputProgress,
    PreimageSource, Refusal, TxKind, UpstreamDuty, UpstreamVerdict,
};
use crate::facts::secrets::SecretIndex;
use crate::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys, Htlc,
    HtlcLink, HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts,
};
use crate::format::CommitmentFormat;
use crate::ids::{
    ChannelId, HtlcId, HtlcRef, PaymentHash, PerCommitmentSecret, Preimage, ShortChannelId, Side,
};
use crate::ports::ScriptOwner;
use crate::units::{
    BlockDelta, BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, Confirmed, FeeratePerKw,
    MilliSat,
};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime, transaction::Version,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Local), Just(Side::Remote)]
}

fn htlc_id() -> impl Strategy<Value = HtlcId> {
    (side(), any::<u64>()).prop_map(|(offerer, id)| HtlcId { offerer, id })
}

fn htlc_ref() -> impl Strategy<Value = HtlcRef> {
    (any::<[u8; 32]>(), htlc_id())
        .prop_map(|(channel, htlc)| HtlcRef { channel: ChannelId(channel), htlc })
}

fn txid() -> impl Strategy<Value = Txid> {
    any::<[u8; 32]>().prop_map(Txid::from_byte_array)
}

fn outpoint() -> impl Strategy<Value = OutPoint> {
    (txid(), any::<u32>()).prop_map(|(txid, vout)| OutPoint { txid, vout })
}

fn script() -> impl Strategy<Value = ScriptBuf> {
    vec(any::<u8>(), 0..40).prop_map(ScriptBuf::from_bytes)
}

fn number() -> impl Strategy<Value = CommitmentNumber> {
    (0..=CommitmentNumber::MAX.0).prop_map(CommitmentNumber)
}

fn amount() -> impl Strategy<Value = Amount> {
    any::<u64>().prop_map(Amount::from_sat)
}

fn msat() -> impl Strategy<Value = MilliSat> {
    any::<u64>().prop_map(MilliSat)
}

fn height() -> impl Strategy<Value = BlockHeight> {
    any::<u32>().prop_map(BlockHeight)
}

pub(super) fn block_ref() -> impl Strategy<Value = BlockRef> {
    (height(), any::<[u8; 32]>())
        .prop_map(|(height, hash)| BlockRef { height, hash: BlockHash::from_byte_array(hash) })
}

/// A point: every second abscissa has one.
fn point() -> impl Strategy<Value = PublicKey> {
    (any::<bool>(), any::<[u8; 32]>()).prop_filter_map("not on the curve", |(odd, x)| {
        let mut bytes = [2 + u8::from(odd); 33];
        bytes[1..].copy_from_slice(&x);
        PublicKey::from_slice(&bytes).ok()
    })
}

fn signature() -> impl Strategy<Value = ecdsa::Signature> {
    (any::<[u8; 32]>(), any::<[u8; 32]>()).prop_filter_map("out of range", |(r, s)| {
        let bytes: Vec<u8> = r.into_iter().chain(s).collect();
        ecdsa::Signature::from_compact(&bytes).ok()
    })
}

fn link() -> impl Strategy<Value = HtlcLink> {
    prop_oneof![
        Just(HtlcLink::OwnPayment),
        (htlc_ref(), height(), msat()).prop_map(|(incoming, expiry, amount)| {
            HtlcLink::ForwardOf { incoming, expiry: CltvExpiry(expiry), amount }
        }),
        Just(HtlcLink::Final),
        htlc_ref().prop_map(|outgoing| HtlcLink::ForwardedTo { outgoing }),
        Just(HtlcLink::Uncommitted),
    ]
}

pub(super) fn htlc_record() -> impl Strategy<Value = HtlcRecord> {
    let terms = (msat(), any::<[u8; 32]>(), height(), link());
    (terms, option::of(number()), option::of(number())).prop_map(
        |((amount, hash, expiry, link), remote_from, remote_until)| HtlcRecord {
            htlc: Htlc { amount, hash: PaymentHash(hash), expiry: CltvExpiry(expiry), link },
            remote_from,
            remote_until,
        },
    )
}

fn party() -> impl Strategy<Value = Party> {
    (point(), point(), point(), point(), any::<u32>(), amount()).prop_map(
        |(revocation, payment, delayed_payment, htlc, delay, dust_limit)| Party {
            keys: ChannelKeys { revocation, payment, delayed_payment, htlc },
            delay: BlockDelta(delay),
            dust_limit,
        },
    )
}

fn remote_commitment() -> impl Strategy<Value = RemoteCommitment> {
    (number(), point(), any::<u32>(), msat(), msat(), vec(htlc_id(), 0..4)).prop_map(
        |(number, point, feerate, local_balance, remote_balance, htlcs)| RemoteCommitment {
            number,
            point,
            feerate: FeeratePerKw(feerate),
            local_balance,
            remote_balance,
            htlcs,
        },
    )
}

fn local_commitment() -> impl Strategy<Value = LocalCommitment> {
    (remote_commitment(), signature(), vec(signature(), 0..4)).prop_map(
        |(terms, signature, htlc_signatures)| LocalCommitment {
            number: terms.number,
            point: terms.point,
            feerate: terms.feerate,
            local_balance: terms.local_balance,
            remote_balance: terms.remote_balance,
            htlcs: terms.htlcs,
            signature,
            htlc_signatures,
        },
    )
}

fn candidate() -> impl Strategy<Value = FundingCandidate> {
    let format = prop_oneof![
        Just(CommitmentFormat::StaticRemotekey),
        Just(CommitmentFormat::Anchors),
        Just(CommitmentFormat::ZeroFee)
    ];
    let next = option::of(remote_commitment());
    let keys = (point(), point()).prop_map(|(local, remote)| FundingKeys { local, remote });
    (outpoint(), keys, amount(), format, local_commitment(), remote_commitment(), next).prop_map(
        |(funding, keys, capacity, format, local, remote, remote_next)| FundingCandidate {
            funding,
            keys,
            capacity,
            format,
            local,
            remote,
            remote_next,
        },
    )
}

fn names() -> impl Strategy<Value = ChannelNames> {
    let id = || any::<u64>().prop_map(ShortChannelId);
    (option::of(id()), vec(id(), 0..3))
        .prop_map(|(short_channel_id, aliases)| ChannelNames { short_channel_id, aliases })
}

fn secrets() -> impl Strategy<Value = SecretStore> {
    vec((0..1_u64 << 48, any::<[u8; 32]>()), 0..2).prop_map(|slots| {
        let slots = slots
            .into_iter()
            .filter_map(|(at, secret)| Some((SecretIndex::new(at)?, PerCommitmentSecret(secret))));
        SecretStore::from_slots(slots).unwrap_or_default()
    })
}

pub(super) fn facts() -> impl Strategy<Value = ChannelFacts> {
    let identity = (any::<[u8; 32]>(), side(), party(), party());
    let candidates = (candidate(), vec(candidate(), 0..3), vec(candidate(), 0..2));
    let state = (btree_map(htlc_id(), htlc_record(), 0..5), secrets());
    let scripts = (option::of(script()), option::of(script()), script());
    (identity, candidates, state, scripts, height(), names()).prop_map(
        |(identity, (current, others, former), (htlcs, secrets), scripts, birth, names)| {
            let (id, opener, local, remote) = identity;
            ChannelFacts {
                id: ChannelId(id),
                opener,
                local,
                remote,
                candidates: Candidates { current, others, former },
                htlcs,
                secrets,
                shutdown: ShutdownScripts { local: scripts.0, remote: scripts.1 },
                destination: scripts.2,
                birth,
                names,
            }
        },
    )
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let witness = vec(vec(any::<u8>(), 0..30), 0..4);
    let inputs = vec((outpoint(), script(), any::<u32>(), witness), 0..4);
    let outputs = vec((amount(), script()), 0..4);
    (any::<i32>(), any::<u32>(), inputs, outputs).prop_map(
        |(version, lock_time, inputs, outputs)| Transaction {
            version: Version(version),
            lock_time: LockTime::from_consensus(lock_time),
            input: inputs.into_iter().map(input).collect(),
            output: outputs
                .into_iter()
                .map(|(value, script_pubkey)| TxOut { value, script_pubkey })
                .collect(),
        },
    )
}

fn input(parts: (OutPoint, ScriptBuf, u32, Vec<Vec<u8>>)) -> TxIn {
    let (previous_output, script_sig, sequence, witness) = parts;
    let witness = Witness::from_slice(&witness);
    TxIn { previous_output, script_sig, sequence: Sequence(sequence), witness }
}

fn tx_kind() -> impl Strategy<Value = TxKind> {
    prop_oneof![
        Just(TxKind::Commitment),
        Just(TxKind::Anchor),
        Just(TxKind::HtlcTimeout),
        Just(TxKind::HtlcSuccess),
        Just(TxKind::Claim),
        Just(TxKind::Sweep),
        Just(TxKind::Penalty),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    prop_oneof![Just(Refusal::Fee), Just(Refusal::Conflict), Just(Refusal::Invalid)]
}

fn handed_out() -> impl Strategy<Value = HandedOut> {
    let outpoints = || vec(outpoint(), 0..3);
    let claims = (outpoints(), outpoints());
    (tx_kind(), transaction(), claims, outpoints(), amount(), height()).prop_map(
        |(kind, transaction, (claims, others), coins, fee, at)| HandedOut {
            kind,
            transaction: transaction.into(),
            claims,
            others,
            coins,
            fee,
            at,
        },
    )
}

fn alert() -> impl Strategy<Value = Alert> {
    prop_oneof![
        txid().prop_map(Alert::UnknownSpend),
        txid().prop_map(Alert::DataLoss),
        txid().prop_map(Alert::OutdatedLocalCommitment),
        outpoint().prop_map(Alert::OutputLost),
        htlc_id().prop_map(Alert::PreimageAfterFail),
        Just(Alert::OutdatedFacts),
        Just(Alert::Quarantined),
        Just(Alert::SignerFailing),
        number().prop_map(Alert::PenaltyDataUnreadable),
    ]
}

fn upstream_duty() -> impl Strategy<Value = UpstreamDuty> {
    let incoming = prop::option::of(htlc_ref());
    (htlc_id(), any::<[u8; 32]>(), incoming).prop_map(|(htlc, hash, incoming)| UpstreamDuty {
        htlc,
        hash: PaymentHash(hash),
        incoming,
    })
}

fn notice_key() -> impl Strategy<Value = NoticeKey> {
    prop_oneof![
        upstream_duty().prop_map(NoticeKey::Upstream),
        alert().prop_map(NoticeKey::Alert),
        Just(NoticeKey::Failing),
    ]
}

fn close_kind() -> impl Strategy<Value = CloseKind> {
    prop_oneof![
        Just(CloseKind::Mutual),
        number().prop_map(CloseKind::Local),
        number().prop_map(CloseKind::Outdated),
        number().prop_map(CloseKind::Remote),
        number().prop_map(CloseKind::Revoked),
        number().prop_map(CloseKind::Future),
        txid().prop_map(CloseKind::Splice),
        Just(CloseKind::Unknown),
    ]
}

fn progress() -> impl Strategy<Value = OutputProgress> {
    prop_oneof![
        Just(OutputProgress::Unspent),
        Just(OutputProgress::Claimed),
        Just(OutputProgress::PeerClaimed),
        Just(OutputProgress::Irrevocable),
    ]
}

fn event() -> impl Strategy<Value = ChannelEvent> {
    prop_oneof![
        Just(ChannelEvent::EarlyMutual),
        close_kind().prop_map(ChannelEvent::Closed),
        Just(ChannelEvent::Reorged),
        Just(ChannelEvent::Resolved),
        (outpoint(), progress())
            .prop_map(|(outpoint, progress)| ChannelEvent::Output { outpoint, progress }),
    ]
}

fn reason() -> impl Strategy<Value = FailReason> {
    prop_oneof![
        Just(FailReason::Requested),
        htlc_id().prop_map(FailReason::OfferedDeadline),
        htlc_id().prop_map(FailReason::FulfilDeadline),
    ]
}

fn owner() -> impl Strategy<Value = ScriptOwner> {
    prop_oneof![Just(ScriptOwner::Node), Just(ScriptOwner::Other)]
}

fn source() -> impl Strategy<Value = PreimageSource> {
    prop_oneof![
        Just(PreimageSource::Node),
        htlc_id().prop_map(PreimageSource::Downstream),
        htlc_id().prop_map(PreimageSource::Linked),
    ]
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let verdict = prop_oneof![Just(UpstreamVerdict::Fulfilled), Just(UpstreamVerdict::Failed)];
    prop_oneof![
        (number(), reason())
            .prop_map(|(commitment, reason)| Change::FailRequested { commitment, reason }),
        (any::<[u8; 32]>(), source()).prop_map(|(preimage, source)| Change::PreimageLearned {
            preimage: Preimage(preimage),
            source
        }),
        (number(), vec((htlc_id(), htlc_record()), 0..4))
            .prop_map(|(number, htlcs)| Change::RevokedHtlcsLoaded { number, htlcs }),
        vec((script(), owner()), 0..4).prop_map(Change::ScriptsJudged),
        (number(), point()).prop_map(|(number, point)| Change::PointLearned { number, point }),
        handed_out().prop_map(|handed_out| Change::HandedOut(Box::new(handed_out))),
        outpoint().prop_map(Change::Contested),
        txid().prop_map(|txid| Change::Accepted { txid }),
        txid().prop_map(|txid| Change::Unheard { txid }),
        (outpoint(), "[ -~é]{0,20}").prop_map(|(outpoint, why)| Change::SetAside { outpoint, why }),
        (transaction(), amount()).prop_map(|(transaction, fee)| Change::CommitmentSeen {
            transaction: Box::new(transaction.into()),
            fee,
        }),
        (txid(), refusal(), height()).prop_map(|(txid, why, at)| Change::Rejected {
            txid,
            why,
            at
        }),
        (upstream_duty(), verdict)
            .prop_map(|(duty, verdict)| Change::UpstreamTold { duty, verdict }),
        notice_key().prop_map(Change::NoticeAcknowledged),
        event().prop_map(Change::Announced),
        (option::of(outpoint()), any::<u64>())
            .prop_map(|(outpoint, sat_per_kwu)| Change::BumpRequested { outpoint, sat_per_kwu }),
        txid().prop_map(|txid| Change::MutualCloseAgreed { txid }),
        height().prop_map(|at| Change::MutualCloseSeen { at }),
        (option::of(outpoint()), height())
            .prop_map(|(outpoint, deadline)| Change::DeadlineRequested { outpoint, deadline }),
        (option::of(outpoint()), amount())
            .prop_map(|(outpoint, budget)| Change::BudgetRequested { outpoint, budget }),
        (option::of(outpoint()), script())
            .prop_map(|(outpoint, script)| Change::DestinationRequested { outpoint, script }),
        (block_ref(), transaction())
            .prop_map(|(at, value)| Change::Spent(Box::new(Confirmed { at, value: value.into() }))),
        block_ref().prop_map(|fork_point| Change::Disconnected { fork_point }),
    ]
}
