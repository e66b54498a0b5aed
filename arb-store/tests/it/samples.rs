//! Sample records.
use arb_core::arbitrator::{Change, HandedOut, TxKind};
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys, Htlc,
    HtlcLink, HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts,
};
use arb_core::format::CommitmentFormat;
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, PaymentHash, ShortChannelId, Side, Slot};
use arb_core::log::Write;
use arb_core::units::{
    BlockDelta, BlockHeight, BlockRef, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, ecdsa};
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use std::sync::Arc;

/// The generator of secp256k1, or its negation.
fn point(sign: u8) -> PublicKey {
    let mut bytes = [sign; 33];
    bytes[1..].copy_from_slice(&[
        0x79, 0xbe, 0x66, 0x7e, 0xf9, 0xdc, 0xbb, 0xac, 0x55, 0xa0, 0x62, 0x95, 0xce, 0x87, 0x0b,
        0x07, 0x02, 0x9b, 0xfc, 0xdb, 0x2d, 0xce, 0x28, 0xd9, 0x59, 0xf2, 0x81, 0x5b, 0x16, 0xf8,
        0x17, 0x98,
    ]);
    PublicKey::from_slice(&bytes).expect("a point")
}

fn signature(byte: u8) -> ecdsa::Signature {
    ecdsa::Signature::from_compact(&[byte; 64]).expect("a signature")
}

fn party(sign: u8, delay: u32) -> Party {
    let key = point(sign);
    Party {
        keys: ChannelKeys { revocation: key, payment: key, delayed_payment: key, htlc: key },
        delay: BlockDelta(delay),
        dust_limit: Amount::from_sat(354),
    }
}

fn remote_commitment(number: u64) -> RemoteCommitment {
    RemoteCommitment {
        number: CommitmentNumber(number),
        point: point(3),
        feerate: FeeratePerKw(253),
        local_balance: MilliSat(450_000_000),
        remote_balance: MilliSat(500_000_000),
        htlcs: vec![offered(1)],
    }
}

fn candidate() -> FundingCandidate {
    FundingCandidate {
        funding: outpoint(0xf0),
        keys: FundingKeys { local: point(2), remote: point(3) },
        capacity: Amount::from_sat(1_000_000),
        format: CommitmentFormat::Anchors,
        local: LocalCommitment {
            number: CommitmentNumber(41),
            point: point(2),
            feerate: FeeratePerKw(253),
            local_balance: MilliSat(450_000_000),
            remote_balance: MilliSat(500_000_000),
            htlcs: vec![offered(1)],
            signature: signature(0x51),
            htlc_signatures: vec![signature(0x52)],
        },
        remote: remote_commitment(41),
        remote_next: Some(remote_commitment(42)),
    }
}

pub(crate) fn outpoint(byte: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: 1 }
}

pub(crate) fn offered(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Local, id }
}

/// An HTLC that remote commitments from `from` up to, not including, `until` contain.
pub(crate) fn htlc(from: u64, until: Option<u64>) -> HtlcRecord {
    HtlcRecord {
        htlc: Htlc {
            amount: MilliSat(50_000_000),
            hash: PaymentHash([0x22; 32]),
            expiry: CltvExpiry(BlockHeight(800_040)),
            link: HtlcLink::ForwardOf {
                incoming: HtlcRef {
                    channel: ChannelId([0x33; 32]),
                    htlc: HtlcId { offerer: Side::Remote, id: 9 },
                },
                expiry: CltvExpiry(BlockHeight(800_080)),
                amount: MilliSat(50_001_000),
            },
        },
        remote_from: Some(CommitmentNumber(from)),
        remote_until: until.map(CommitmentNumber),
    }
}

pub(crate) fn facts(id: u8) -> ChannelFacts {
    ChannelFacts {
        id: ChannelId([id; 32]),
        opener: Side::Local,
        local: party(2, 144),
        remote: party(3, 720),
        candidates: Candidates::only(candidate()),
        htlcs: [(offered(1), htlc(41, None))].into(),
        secrets: SecretStore::default(),
        shutdown: ShutdownScripts {
            local: None,
            remote: Some(ScriptBuf::from_bytes(vec![0x51, 0x20])),
        },
        destination: ScriptBuf::from_bytes(vec![0x00, 0x14, 0x77]),
        birth: BlockHeight(799_000),
        names: ChannelNames {
            short_channel_id: Some(ShortChannelId(800_000 << 40 | 1 << 16)),
            aliases: vec![ShortChannelId(16_000_000 << 40 | 7)],
        },
    }
}

pub(crate) fn register(slot: u32) -> Write {
    Write::Facts { slot: Slot(slot), facts: Arc::new(facts(slot as u8 + 1)) }
}

pub(crate) fn block(height: u32) -> BlockRef {
    let hash = BlockHash::hash(&height.to_be_bytes());
    BlockRef { height: BlockHeight(height), hash }
}

pub(crate) fn bump(sat_per_kwu: u64) -> Change {
    Change::BumpRequested { outpoint: None, sat_per_kwu }
}

pub(crate) fn bumps(slot: u32, feerates: impl IntoIterator<Item = u64>) -> Write {
    Write::Changes { slot: Slot(slot), changes: feerates.into_iter().map(bump).collect() }
}

pub(crate) fn handed_out() -> Change {
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::from_consensus(800_000),
        input: vec![TxIn {
            previous_output: outpoint(0xf0),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness: Witness::from_slice(&[&[1_u8, 2, 3][..], &[]]),
        }],
        output: vec![TxOut {
            value: Amount::from_sat(49_000),
            script_pubkey: ScriptBuf::from_bytes(vec![0x00, 0x14, 0x77]),
        }],
    };
    Change::HandedOut(Box::new(HandedOut {
        kind: TxKind::Penalty,
        transaction: transaction.into(),
        claims: vec![outpoint(0xf0)],
        others: Vec::new(),
        coins: Vec::new(),
        fee: Amount::from_sat(1_000),
        at: BlockHeight(800_001),
    }))
}

/// The same, claiming from another channel as well.
pub(crate) fn handed_out_for_several() -> Change {
    let Change::HandedOut(mut handed_out) = handed_out() else {
        unreachable!("the sample is a transaction")
    };
    handed_out.others = vec![outpoint(0xf1)];
    Change::HandedOut(handed_out)
}

/// A change of about `length` bytes that no two calls with other numbers share.
pub(crate) fn long_change(number: u64, length: usize) -> Change {
    let Change::HandedOut(mut handed_out) = handed_out() else {
        unreachable!("the sample is a transaction")
    };
    handed_out.fee = Amount::from_sat(number);
    let mut transaction = handed_out.transaction.transaction().clone();
    transaction.output[0].script_pubkey = ScriptBuf::from_bytes(vec![7; length]);
    handed_out.transaction = transaction.into();
    Change::HandedOut(handed_out)
}
