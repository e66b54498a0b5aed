//! One verified channel, and a block that does not touch it: what the micro-benchmarks work on.
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelNames, FundingCandidate, FundingKeys, LocalCommitment, Party,
    RemoteCommitment, SecretStore, ShutdownScripts,
};
use arb_core::format::{ChannelSecrets, CommitmentFormat, local_commitment, sighash};
use arb_core::ids::{ChannelId, Side};
use arb_core::units::{BlockDelta, BlockHeight, CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
};
use std::collections::BTreeMap;

const OUR_BALANCE: MilliSat = MilliSat(600_000_000);
const PEER_BALANCE: MilliSat = MilliSat(400_000_000);
const FEERATE: FeeratePerKw = FeeratePerKw(253);

/// An outpoint like no other.
pub(crate) fn outpoint(n: u32) -> OutPoint {
    let digest = sha256::Hash::hash(&n.to_le_bytes());
    OutPoint { txid: Txid::from_byte_array(digest.to_byte_array()), vout: n % 2 }
}

fn secrets(first: u8) -> ChannelSecrets {
    let key = |offset: u8| SecretKey::from_slice(&[first + offset; 32]).expect("a secret key");
    ChannelSecrets {
        funding: key(0),
        revocation: key(1),
        payment: key(2),
        delayed_payment: key(3),
        htlc: key(4),
    }
}

/// A channel without HTLCs, at commitment 0, whose facts hold.
pub(crate) fn channel(secp: &Secp256k1<All>) -> ChannelFacts {
    let (ours, peers) = (secrets(1), secrets(0x21));
    let party = |secrets: &ChannelSecrets| Party {
        keys: secrets.public(secp),
        delay: BlockDelta(144),
        dust_limit: Amount::from_sat(354),
    };
    let (local, remote) = (party(&ours), party(&peers));
    let keys = FundingKeys { local: ours.funding_key(secp), remote: peers.funding_key(secp) };
    let mut facts = ChannelFacts {
        id: ChannelId([3; 32]),
        opener: Side::Local,
        candidates: Candidates::only(FundingCandidate {
            funding: outpoint(u32::MAX),
            keys,
            capacity: Amount::from_sat(1_000_000),
            format: CommitmentFormat::Anchors,
            local: LocalCommitment {
                number: CommitmentNumber(0),
                point: keys.local,
                feerate: FEERATE,
                local_balance: OUR_BALANCE,
                remote_balance: PEER_BALANCE,
                htlcs: Vec::new(),
                signature: ecdsa::Signature::from_compact(&[1; 64]).expect("a signature"),
                htlc_signatures: Vec::new(),
            },
            remote: RemoteCommitment {
                number: CommitmentNumber(0),
                point: keys.remote,
                feerate: FEERATE,
                local_balance: OUR_BALANCE,
                remote_balance: PEER_BALANCE,
                htlcs: Vec::new(),
            },
            remote_next: None,
        }),
        local,
        remote,
        htlcs: BTreeMap::new(),
        secrets: SecretStore::default(),
        shutdown: ShutdownScripts::default(),
        destination: ScriptBuf::from_bytes([vec![0, 20], vec![7; 20]].concat()),
        birth: BlockHeight(0),
        names: ChannelNames::default(),
    };
    let candidate = &facts.candidates.current;
    let built = local_commitment(&facts, candidate, &candidate.local, secp);
    let built = built.expect("a commitment");
    let (script, spent) = (built.funding_script(), built.funding_output());
    let all = EcdsaSighashType::All;
    let message = sighash(&built.transaction, 0, &spent, Some(&script), all).expect("a sighash");
    facts.candidates.current.local.signature = secp.sign_ecdsa(&message, &peers.funding);
    facts.verify(secp).expect("facts that hold");
    facts
}

/// A block of transactions with two inputs and two outputs each, none of which is watched.
pub(crate) fn block(transactions: u32) -> Block {
    let input = |n| TxIn {
        previous_output: outpoint(0x8000_0000 + n),
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[vec![1; 72], vec![2; 33]]),
    };
    let script_pubkey = ScriptBuf::from_bytes([vec![0, 20], vec![9; 20]].concat());
    let output = TxOut { value: Amount::from_sat(10_000), script_pubkey };
    let transaction = |n| Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(2 * n), input(2 * n + 1)],
        output: vec![output.clone(), output.clone()],
    };
    let mut block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    block.txdata.extend((1..transactions).map(transaction));
    block
}
