//! The test vectors of BOLT 3, appendices C to F and H, and the channel that they describe.
mod appendix_c;
mod appendix_e;
mod appendix_f;
mod run;
mod zero_fee;

use crate::facts::{
    Candidates, ChannelFacts, ChannelKeys, ChannelNames, FundingCandidate, FundingKeys, Htlc,
    HtlcLink, HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts,
};
use crate::format::{ChannelSecrets, CommitmentFormat};
use crate::ids::{ChannelId, HtlcId, Preimage, Side};
use crate::units::{BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::hex::FromHex;
use bitcoin::secp256k1::{PublicKey, SecretKey, ecdsa};
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, consensus};
use std::string::String;
use std::vec::Vec;

/// Lines `name: value`, of which a name may stand more than once.
pub(crate) struct Record(Vec<(&'static str, &'static str)>);

impl Record {
    /// The only record of a file.
    pub(crate) fn only(text: &'static str) -> Self {
        let line = |line: &'static str| line.split_once(':').expect("name: value");
        Self(text.lines().map(line).map(|(name, value)| (name, value.trim())).collect())
    }

    /// The record with this name in a file of records, which blank lines separate.
    pub(crate) fn named(text: &'static str, name: &str) -> Self {
        let mut records = text.split("\n\n").map(Self::only);
        records.find(|record| record.get("name") == name).expect("a record with this name")
    }

    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &'static str> {
        self.0.iter().filter(move |(key, _)| *key == name).map(|(_, value)| *value)
    }

    pub(crate) fn get(&self, name: &str) -> &'static str {
        self.all(name).next().unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.get(name).parse().expect("a number")
    }

    pub(crate) fn bytes(&self, name: &str) -> [u8; 32] {
        hex32(self.get(name))
    }

    pub(crate) fn secret(&self, name: &str) -> SecretKey {
        SecretKey::from_slice(&self.bytes(name)).expect("a secret key")
    }

    pub(crate) fn public(&self, name: &str) -> PublicKey {
        let bytes = Vec::from_hex(self.get(name)).expect("hex");
        PublicKey::from_slice(&bytes).expect("a public key")
    }
}

pub(crate) fn hex32(hex: &str) -> [u8; 32] {
    <[u8; 32]>::from_hex(hex).expect("32 bytes")
}

pub(crate) fn signature(hex: &str) -> ecdsa::Signature {
    ecdsa::Signature::from_der(&Vec::from_hex(hex).expect("hex")).expect("a DER signature")
}

pub(crate) fn transaction(hex: &str) -> Transaction {
    consensus::encode::deserialize(&Vec::from_hex(hex).expect("hex")).expect("a transaction")
}

/// The channel of appendices C and F, with every secret of both parties.
pub(crate) struct VectorChannel {
    record: Record,
}

impl VectorChannel {
    pub(crate) fn new() -> Self {
        Self { record: Record::only(include_str!("channel.txt")) }
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// A party's secrets; those that the vectors do not state are made up.
    pub(crate) fn secrets(&self, side: Side) -> ChannelSecrets {
        let made_up = |byte: u8| SecretKey::from_slice(&[byte; 32]).expect("a secret key");
        let of = |name: &str| self.record.secret(name);
        match side {
            Side::Local => ChannelSecrets {
                funding: of("local_funding_privkey"),
                revocation: made_up(0x55),
                payment: of("local_payment_basepoint_secret"),
                delayed_payment: of("local_delayed_payment_basepoint_secret"),
                htlc: of("local_payment_basepoint_secret"),
            },
            Side::Remote => ChannelSecrets {
                funding: of("remote_funding_privkey"),
                revocation: of("remote_revocation_basepoint_secret"),
                payment: of("remote_payment_basepoint_secret"),
                delayed_payment: made_up(0x66),
                htlc: of("remote_payment_basepoint_secret"),
            },
        }
    }

    /// A party's basepoints, from the vectors where they state them.
    fn keys(&self, side: Side) -> ChannelKeys {
        let secp = bitcoin::secp256k1::Secp256k1::signing_only();
        self.secrets(side).public(&secp)
    }

    fn field(&self, htlc: u64, name: &str) -> &'static str {
        let mut key = String::from("htlc_");
        key.push_str(&std::format!("{htlc}_{name}"));
        self.record.get(&key)
    }

    pub(crate) fn htlc(&self, number: u64) -> (HtlcId, Htlc) {
        let offerer = match self.field(number, "direction") {
            "local->remote" => Side::Local,
            "remote->local" => Side::Remote,
            other => panic!("direction {other}"),
        };
        let link = match offerer {
            Side::Local => HtlcLink::OwnPayment,
            Side::Remote => HtlcLink::Final,
        };
        let parse = |name| self.field(number, name).parse::<u64>().expect("a number");
        let expiry = u32::try_from(parse("expiry")).expect("a height");
        let htlc = Htlc {
            amount: MilliSat(parse("amount_msat")),
            hash: self.preimage(number).hash(),
            expiry: CltvExpiry(BlockHeight(expiry)),
            link,
        };
        (HtlcId { offerer, id: number }, htlc)
    }

    pub(crate) fn preimage(&self, number: u64) -> Preimage {
        Preimage(hex32(self.field(number, "payment_preimage")))
    }

    /// Our commitment as a vector states it.
    pub(crate) fn commitment(&self, vector: &Record) -> LocalCommitment {
        let htlcs = vector.get("htlcs").split_whitespace();
        let signatures = vector.all("htlc_transaction").map(|line| {
            let (hex, _) = line.split_once(' ').expect("signature and transaction");
            signature(hex)
        });
        LocalCommitment {
            number: CommitmentNumber(self.record.number("commitment_number")),
            point: self.record.public("local_per_commitment_point"),
            feerate: FeeratePerKw(vector.get("feerate_per_kw").parse().expect("a feerate")),
            local_balance: MilliSat(vector.number("to_local_msat")),
            remote_balance: MilliSat(vector.number("to_remote_msat")),
            htlcs: htlcs.map(|n| self.htlc(n.parse().expect("a number")).0).collect(),
            signature: signature(vector.get("remote_signature")),
            htlc_signatures: signatures.collect(),
        }
    }

    /// The facts of the channel whose current local commitment is this vector's.
    pub(crate) fn facts(&self, vector: &Record, format: CommitmentFormat) -> ChannelFacts {
        let dust_limit = Amount::from_sat(vector.number("dust_limit"));
        let local = self.commitment(vector);
        let remote = RemoteCommitment {
            number: local.number,
            point: local.point,
            feerate: local.feerate,
            local_balance: local.local_balance,
            remote_balance: local.remote_balance,
            htlcs: local.htlcs.clone(),
        };
        let party = |side| Party {
            keys: self.keys(side),
            delay: BlockDelta(self.record.get("local_delay").parse().expect("a delay")),
            dust_limit,
        };
        let record = |(id, htlc)| {
            (id, HtlcRecord { htlc, remote_from: Some(local.number), remote_until: None })
        };
        let numbers = vector.get("htlcs").split_whitespace().map(|n| n.parse().expect("a number"));
        let txid = self.record.get("funding_tx_id").parse().expect("a txid");
        ChannelFacts {
            id: ChannelId([7; 32]),
            opener: Side::Local,
            local: party(Side::Local),
            remote: party(Side::Remote),
            candidates: Candidates::only(FundingCandidate {
                funding: OutPoint { txid, vout: 0 },
                keys: FundingKeys {
                    local: self
                        .secrets(Side::Local)
                        .funding_key(&bitcoin::secp256k1::Secp256k1::new()),
                    remote: self
                        .secrets(Side::Remote)
                        .funding_key(&bitcoin::secp256k1::Secp256k1::new()),
                },
                capacity: Amount::from_sat(self.record.number("funding_amount_satoshi")),
                format,
                local: local.clone(),
                remote,
                remote_next: None,
            }),
            htlcs: numbers.map(|n| record(self.htlc(n))).collect(),
            secrets: SecretStore::default(),
            shutdown: ShutdownScripts::default(),
            destination: ScriptBuf::new(),
            birth: BlockHeight(0),
            names: ChannelNames::default(),
        }
    }
}
