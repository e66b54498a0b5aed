//! BOLT 3 appendix H: zero-fee commitments. Rebuilds, signs for both parties, compares bytes.
use super::run::check_mirrored;
use super::{Record, hex32, transaction};
use crate::claim::SigningKey;
use crate::facts::{
    Candidates, ChannelFacts, ChannelNames, FundingCandidate, FundingKeys, Htlc, HtlcLink,
    HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts,
};
use crate::format::rules::HtlcDirection;
use crate::format::{
    ChannelSecrets, Commitment, CommitmentFormat, HtlcTransaction, OutputKind, htlc_transactions,
    local_commitment, sighash, witness,
};
use crate::ids::{ChannelId, HtlcId, PaymentHash, Preimage, Side};
use crate::units::{BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut};
use std::collections::BTreeMap;
use std::vec::Vec;

/// The channel of the appendix; secrets that it does not state are made up.
struct Channel(Record);

impl Channel {
    fn secrets(&self, side: Side) -> ChannelSecrets {
        let made_up = |byte: u8| SecretKey::from_slice(&[byte; 32]).expect("a secret key");
        let of = |name: &str| self.0.secret(name);
        match side {
            Side::Local => ChannelSecrets {
                funding: of("local_funding_priv"),
                revocation: made_up(0x55),
                payment: of("local_payment_basepoint_secret"),
                delayed_payment: of("local_delayed_payment_basepoint_secret"),
                htlc: of("local_htlc_basepoint_secret"),
            },
            Side::Remote => ChannelSecrets {
                funding: of("remote_funding_priv"),
                revocation: made_up(0x55),
                payment: of("remote_payment_basepoint_secret"),
                delayed_payment: made_up(0x66),
                htlc: of("remote_htlc_basepoint_secret"),
            },
        }
    }

    fn party(&self, side: Side, dust_limit: Amount) -> Party {
        let mut keys = self.secrets(side).public(&Secp256k1::signing_only());
        keys.revocation = self.0.public("revocation_basepoint");
        let delay = BlockDelta(self.0.get("to_self_delay").parse().expect("a delay"));
        Party { keys, delay, dust_limit }
    }

    fn facts(&self, vector: &Record) -> ChannelFacts {
        let secp = Secp256k1::new();
        let dust_limit = Amount::from_sat(vector.number("dust_limit"));
        let htlcs = htlcs(vector);
        let remote = RemoteCommitment {
            number: CommitmentNumber(self.0.number("commitment_number")),
            point: self.0.public("per_commitment_point"),
            feerate: FeeratePerKw(0),
            local_balance: MilliSat(vector.number("to_local_msat")),
            remote_balance: MilliSat(vector.number("to_remote_msat")),
            htlcs: htlcs.keys().copied().collect(),
        };
        // Signatures are made here, not checked.
        let nonsense = secp.sign_ecdsa(
            &Message::from_digest([1; 32]),
            &SecretKey::from_slice(&[1; 32]).expect("a key"),
        );
        let local = LocalCommitment {
            number: remote.number,
            point: remote.point,
            feerate: remote.feerate,
            local_balance: remote.local_balance,
            remote_balance: remote.remote_balance,
            htlcs: remote.htlcs.clone(),
            signature: nonsense,
            htlc_signatures: Vec::new(),
        };
        let funding_key = |side| self.secrets(side).funding_key(&secp);
        let vout = self.0.get("funding_index").parse().expect("an index");
        ChannelFacts {
            id: ChannelId([7; 32]),
            opener: Side::Local,
            local: self.party(Side::Local, dust_limit),
            remote: self.party(Side::Remote, dust_limit),
            candidates: Candidates::only(FundingCandidate {
                funding: OutPoint {
                    txid: self.0.get("funding_txid").parse().expect("a txid"),
                    vout,
                },
                keys: FundingKeys {
                    local: funding_key(Side::Local),
                    remote: funding_key(Side::Remote),
                },
                capacity: Amount::from_sat(self.0.number("funding_amount_satoshis")),
                format: CommitmentFormat::ZeroFee,
                local,
                remote,
                remote_next: None,
            }),
            htlcs,
            secrets: SecretStore::default(),
            shutdown: ShutdownScripts::default(),
            destination: ScriptBuf::new(),
            birth: BlockHeight(0),
            names: ChannelNames::default(),
        }
    }

    fn preimage(&self, hash: PaymentHash) -> Preimage {
        let mut known = self.0.all("preimage").map(|hex| Preimage(hex32(hex)));
        known.find(|preimage| preimage.hash() == hash).expect("every hash has its preimage")
    }
}

fn htlcs(vector: &Record) -> BTreeMap<HtlcId, HtlcRecord> {
    let of = |offerer: Side, line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, amount, hash, expiry] = words[..] else { panic!("{line}") };
        let link = match offerer {
            Side::Local => HtlcLink::OwnPayment,
            Side::Remote => HtlcLink::Final,
        };
        let htlc = Htlc {
            amount: MilliSat(amount.parse().expect("an amount")),
            hash: PaymentHash(hex32(hash)),
            expiry: CltvExpiry(BlockHeight(expiry.parse().expect("a height"))),
            link,
        };
        let record = HtlcRecord { htlc, remote_from: None, remote_until: None };
        (HtlcId { offerer, id: id.parse().expect("an id") }, record)
    };
    let offered = vector.all("outgoing").map(|line| of(Side::Local, line));
    offered.chain(vector.all("incoming").map(|line| of(Side::Remote, line))).collect()
}

struct Run {
    channel: Channel,
    facts: ChannelFacts,
    commitment: Commitment,
    secp: Secp256k1<All>,
}

impl Run {
    fn sign(
        &self,
        (transaction, spent): (&Transaction, &TxOut),
        script: &ScriptBuf,
        key: &SecretKey,
        kind: EcdsaSighashType,
    ) -> ecdsa::Signature {
        let message = sighash(transaction, 0, spent, Some(script), kind).expect("a sighash");
        self.secp.sign_ecdsa(&message, key)
    }

    fn signed_commitment(&self) -> Transaction {
        let (script, spent) = (self.commitment.funding_script(), self.commitment.funding_output());
        let mut signed = self.commitment.transaction.clone();
        let by = |side| {
            let key = self.channel.secrets(side).funding;
            self.sign((&self.commitment.transaction, &spent), &script, &key, EcdsaSighashType::All)
        };
        let keys = &self.commitment.spec.keys;
        let (local, remote) = (by(Side::Local), by(Side::Remote));
        let (one, two) = ((&keys.owner_funding, &local), (&keys.other_funding, &remote));
        signed.input[0].witness = witness::funding(one, two, &script);
        signed
    }

    fn signed_second_stage(&self, htlc: &HtlcTransaction) -> Transaction {
        let spec = &self.commitment.spec;
        let by = |side, kind| {
            let key = SigningKey::Htlc(spec.keys.point);
            let key = self.channel.secrets(side).signing_key(&key, &self.secp).expect("a key");
            self.sign((&htlc.transaction, &htlc.input), &htlc.script, &key, kind)
        };
        let peer_kind = spec.format.peer_htlc_sighash();
        let (own, peer) = (by(Side::Local, EcdsaSighashType::All), by(Side::Remote, peer_kind));
        let preimage = match htlc.direction {
            HtlcDirection::Offered => None,
            HtlcDirection::Received => {
                Some(self.channel.preimage(self.facts.htlcs[&htlc.htlc].htlc.hash))
            }
        };
        let mut signed = htlc.transaction.clone();
        signed.input[0].witness =
            witness::second_stage((&peer, peer_kind), &own, preimage.as_ref(), &htlc.script);
        signed
    }
}

fn check(name: &str) {
    let channel = Channel(Record::only(include_str!("zero_fee_channel.txt")));
    let vector = Record::named(include_str!("zero_fee.txt"), name);
    let secp = Secp256k1::new();
    let facts = channel.facts(&vector);
    let candidate = &facts.candidates.current;
    let commitment =
        local_commitment(&facts, candidate, &candidate.local, &secp).expect("a commitment");
    check_mirrored(&facts, &commitment, &secp);
    let run = Run { channel, facts, commitment, secp };

    assert_eq!(run.signed_commitment(), transaction(vector.get("commitment")));
    let anchor = run.commitment.output(OutputKind::SharedAnchor).expect("an anchor");
    let most = Amount::from_sat(240);
    assert!(anchor.output.value == most || run.commitment.fee == Amount::ZERO);
    let built = htlc_transactions(&run.commitment);
    let signed: Vec<Transaction> = built.iter().map(|htlc| run.signed_second_stage(htlc)).collect();
    let stated: Vec<Transaction> = vector.all("htlc_transaction").map(transaction).collect();
    assert_eq!(signed, stated);
    let all = built.len() + run.commitment.trimmed.len();
    assert_eq!(all, run.facts.htlcs.len());
}

#[test]
fn both_outputs_untrimmed() {
    check("Commitment transaction without HTLCs, both outputs untrimmed");
}

#[test]
fn one_output_trimmed_below_the_largest_anchor() {
    check("Commitment transaction without HTLCs, one output trimmed below maximum anchor amount");
}

#[test]
fn one_output_trimmed_above_the_largest_anchor() {
    check("Commitment transaction without HTLCs, one output trimmed above maximum anchor amount");
}

#[test]
fn all_htlcs_above_the_dust_limit() {
    check("Commitment transaction with all HTLCs above dust limit");
}

#[test]
fn htlcs_with_millisatoshi_truncation() {
    check("Commitment transaction with all HTLCs above dust limit and millisatoshi truncation");
}

#[test]
fn dust_htlcs_below_the_largest_anchor() {
    check("Commitment transaction with dust HTLCs below maximum anchor amount");
}

#[test]
fn similar_dust_htlcs_below_the_largest_anchor() {
    check("Commitment transaction with similar dust HTLCs below maximum anchor amount");
}

#[test]
fn millisatoshi_dust_of_less_than_1_satoshi() {
    check("Commitment transaction with millisatoshi dust HTLCs adding to less than 1 satoshi");
}

#[test]
fn millisatoshi_dust_of_1_satoshi() {
    check("Commitment transaction with millisatoshi dust HTLCs adding to 1 satoshi");
}

#[test]
fn millisatoshi_dust_of_more_than_1_satoshi() {
    check("Commitment transaction with millisatoshi dust HTLCs adding to more than 1 satoshi");
}

#[test]
fn dust_htlcs_above_the_largest_anchor() {
    check("Commitment transaction with dust HTLCs above maximum anchor amount");
}
