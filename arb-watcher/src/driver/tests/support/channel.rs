//! A channel of 1,000,000 satoshis whose both parties sign: we opened it.
use arb_core::claim::SigningKey;
use arb_core::facts::secrets::generate_from_seed;
use arb_core::facts::{
    Candidates, ChannelFacts, ChannelNames, FundingCandidate, FundingKeys, Htlc, HtlcLink,
    LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts, Update,
};
use arb_core::format::keys::per_commitment_point;
use arb_core::format::{
    ChannelSecrets, CommitmentFormat, HtlcTransaction, htlc_transactions, local_commitment,
    remote_commitment, sighash,
};
use arb_core::ids::{ChannelId, HtlcId, HtlcRef, Preimage, Side};
use arb_core::units::{
    BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat,
};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness,
    absolute::LockTime, transaction::Version,
};

/// Height of the first block of every test's chain, and the birth of every channel.
pub(in super::super) const BIRTH: u32 = 100;

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const LOCAL_SEED: [u8; 32] = [0x1a; 32];
const REMOTE_SEED: [u8; 32] = [0x2b; 32];

pub(in super::super) struct Channel {
    pub(in super::super) facts: ChannelFacts,
    secp: Secp256k1<All>,
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

/// Our secrets, the same in every channel.
pub(super) fn our_secrets() -> ChannelSecrets {
    secrets(1)
}

fn their_secrets() -> ChannelSecrets {
    secrets(0x21)
}

pub(in super::super) fn offered(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Local, id }
}

pub(in super::super) fn received(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Remote, id }
}

pub(in super::super) const fn number(number: u64) -> CommitmentNumber {
    CommitmentNumber(number)
}

/// 10,000 satoshis and one more for each id, 400 blocks after the birth.
pub(in super::super) fn terms(id: HtlcId) -> Htlc {
    let link = match id.offerer {
        Side::Local => HtlcLink::OwnPayment,
        Side::Remote => HtlcLink::Final,
    };
    Htlc {
        amount: MilliSat::from_amount(Amount::from_sat(10_000 + id.id)),
        hash: preimage(id.id).hash(),
        expiry: CltvExpiry(BlockHeight(BIRTH + 400)),
        link,
    }
}

pub(in super::super) fn preimage(id: u64) -> Preimage {
    Preimage([u8::try_from(id % 251).expect("small"); 32])
}

impl Channel {
    /// Both commitments are number 0, without HTLCs.
    pub(in super::super) fn new(id: u8, format: CommitmentFormat) -> Self {
        let funding = OutPoint { txid: Txid::from_byte_array([id; 32]), vout: 0 };
        Self::funded_by(id, format, funding)
    }

    /// As [`Self::new`], with this funding output.
    pub(in super::super) fn funded_by(id: u8, format: CommitmentFormat, funding: OutPoint) -> Self {
        let secp = Secp256k1::new();
        let party = |secrets: &ChannelSecrets, delay| Party {
            keys: secrets.public(&secp),
            delay: BlockDelta(delay),
            dust_limit: Amount::from_sat(546),
        };
        let (local, remote) = (party(&our_secrets(), 6), party(&their_secrets(), 144));
        let keys = FundingKeys {
            local: our_secrets().funding_key(&secp),
            remote: their_secrets().funding_key(&secp),
        };
        let blank = ecdsa::Signature::from_compact(&[1; 64]).expect("a signature");
        let candidate = FundingCandidate {
            funding,
            keys,
            capacity: CAPACITY,
            format,
            local: LocalCommitment {
                number: number(0),
                point: keys.local,
                feerate: FeeratePerKw(253),
                local_balance: MilliSat(0),
                remote_balance: MilliSat(0),
                htlcs: Vec::new(),
                signature: blank,
                htlc_signatures: Vec::new(),
            },
            remote: RemoteCommitment {
                number: number(0),
                point: keys.remote,
                feerate: FeeratePerKw(253),
                local_balance: MilliSat(0),
                remote_balance: MilliSat(0),
                htlcs: Vec::new(),
            },
            remote_next: None,
        };
        let facts = ChannelFacts {
            id: ChannelId([id; 32]),
            opener: Side::Local,
            candidates: Candidates::only(candidate),
            local,
            remote,
            htlcs: std::collections::BTreeMap::new(),
            secrets: SecretStore::default(),
            shutdown: ShutdownScripts::default(),
            destination: wallet_script(),
            birth: BlockHeight(BIRTH),
            names: ChannelNames::default(),
        };
        let mut channel = Self { facts, secp };
        channel.facts.candidates.current.local = channel.local(0, &[]);
        channel.facts.candidates.current.remote = channel.remote(0, &[]);
        channel
    }

    /// As it would be if the peer had opened it, with this balance of ours.
    pub(in super::super) fn opened_by_peer(mut self, local_balance: MilliSat) -> Self {
        let remote_balance = MilliSat(CAPACITY.to_sat() * 1000 - local_balance.0);
        self.facts.opener = Side::Remote;
        let current = &mut self.facts.candidates.current;
        (current.remote.local_balance, current.remote.remote_balance) =
            (local_balance, remote_balance);
        let candidate = current.clone();
        let mut local =
            LocalCommitment { local_balance, remote_balance, ..candidate.local.clone() };
        self.sign(&candidate, &mut local);
        self.facts.candidates.current.local = local;
        self
    }

    pub(in super::super) fn id(&self) -> ChannelId {
        self.facts.id
    }

    pub(in super::super) fn funding(&self) -> OutPoint {
        self.facts.candidates.current.funding
    }

    fn point(&self, seed: &[u8; 32], number: CommitmentNumber) -> PublicKey {
        let secret = generate_from_seed(seed, number).expect("in range");
        per_commitment_point(&self.secp, &secret).expect("a point")
    }

    fn balances(htlcs: &[HtlcId]) -> (MilliSat, MilliSat) {
        let offered_by = |side: Side| {
            let of = htlcs.iter().filter(|id| id.offerer == side);
            of.fold(MilliSat(0), |sum, id| sum.plus(terms(*id).amount))
        };
        let left = |start, side| MilliSat(start).checked_sub(offered_by(side)).expect("enough");
        (left(600_000_000, Side::Local), left(400_000_000, Side::Remote))
    }

    /// Our commitment with these HTLCs, signed by the peer.
    fn local(&self, at: u64, htlcs: &[HtlcId]) -> LocalCommitment {
        let (local_balance, remote_balance) = Self::balances(htlcs);
        let mut local = LocalCommitment {
            number: number(at),
            point: self.point(&LOCAL_SEED, number(at)),
            feerate: FeeratePerKw(253),
            local_balance,
            remote_balance,
            htlcs: htlcs.to_vec(),
            signature: self.facts.candidates.current.local.signature,
            htlc_signatures: Vec::new(),
        };
        self.sign(&self.facts.candidates.current, &mut local);
        local
    }

    /// The peer's signatures of a commitment of ours.
    fn sign(&self, candidate: &FundingCandidate, local: &mut LocalCommitment) {
        let built = local_commitment(&self.facts, candidate, local, &self.secp).expect("builds");
        let (script, spent) = (built.funding_script(), built.funding_output());
        let all = EcdsaSighashType::All;
        let message = sighash(&built.transaction, 0, &spent, Some(&script), all);
        let message = message.expect("a sighash");
        local.signature = self.secp.sign_ecdsa(&message, &their_secrets().funding);
        let key = SigningKey::Htlc(local.point);
        let key = their_secrets().signing_key(&key, &self.secp).expect("a key");
        let ty = candidate.format.peer_htlc_sighash();
        let sign = |htlc: &HtlcTransaction| {
            let script = Some(htlc.script.as_script());
            let message = sighash(&htlc.transaction, 0, &htlc.input, script, ty);
            self.secp.sign_ecdsa(&message.expect("a sighash"), &key)
        };
        local.htlc_signatures = htlc_transactions(&built).iter().map(sign).collect();
    }

    /// A splice to the first output of a transaction, as an update that these facts follow.
    pub(in super::super) fn splice(&mut self, tx: &Transaction) -> Update {
        let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
        let mut candidate = FundingCandidate { funding, ..self.facts.candidates.current.clone() };
        let mut local = candidate.local.clone();
        self.sign(&candidate, &mut local);
        candidate.local = local;
        let candidate = Box::new(candidate);
        self.follow(Update::CandidateAdded { candidate, birth: BlockHeight(BIRTH) })
    }

    /// The splice is locked, as an update that these facts follow.
    pub(in super::super) fn lock(&mut self, tx: &Transaction) -> Update {
        let funding = OutPoint { txid: tx.compute_txid(), vout: 0 };
        self.follow(Update::CandidateLocked { funding })
    }

    fn remote(&self, at: u64, htlcs: &[HtlcId]) -> RemoteCommitment {
        let (local_balance, remote_balance) = Self::balances(htlcs);
        RemoteCommitment {
            number: number(at),
            point: self.point(&REMOTE_SEED, number(at)),
            feerate: FeeratePerKw(253),
            local_balance,
            remote_balance,
            htlcs: htlcs.to_vec(),
        }
    }

    /// An HTLC, as an update that these facts follow.
    pub(in super::super) fn add(&mut self, id: HtlcId) -> Update {
        self.follow(Update::HtlcAdded { id, htlc: terms(id) })
    }

    /// An HTLC that forwards one of another channel, as an update that these facts follow.
    pub(in super::super) fn forward(&mut self, id: HtlcId, incoming: HtlcRef) -> Update {
        let expiry = CltvExpiry(BlockHeight(BIRTH + 500));
        let link = HtlcLink::ForwardOf { incoming, expiry, amount: terms(id).amount };
        let htlc = Htlc { link, ..terms(id) };
        self.follow(Update::HtlcAdded { id, htlc })
    }

    /// Our next commitment, as an update that these facts follow.
    pub(in super::super) fn next_local(&mut self, at: u64, htlcs: &[HtlcId]) -> Update {
        let (funding, commitment) = (self.funding(), self.local(at, htlcs));
        self.follow(Update::LocalCommitment { funding, commitment })
    }

    /// The peer's next commitment, as an update that these facts follow.
    pub(in super::super) fn next_remote(&mut self, at: u64, htlcs: &[HtlcId]) -> Update {
        let (funding, commitment) = (self.funding(), self.remote(at, htlcs));
        self.follow(Update::RemoteCommitment { funding, commitment })
    }

    /// The peer's secret, as an update that these facts follow.
    pub(in super::super) fn revoke(&mut self, at: u64) -> Update {
        let secret = generate_from_seed(&REMOTE_SEED, number(at)).expect("in range");
        self.follow(Update::RemoteRevoked { number: number(at), secret })
    }

    fn follow(&mut self, update: Update) -> Update {
        self.facts = self.facts.updated(&update, &self.secp).expect("a sound update").facts;
        update
    }

    /// Our current commitment transaction, unsigned: the chain here asks for no signatures.
    pub(in super::super) fn local_tx(&self) -> Transaction {
        let candidate = &self.facts.candidates.current;
        let built = local_commitment(&self.facts, candidate, &candidate.local, &self.secp);
        built.expect("builds").transaction
    }

    /// The peer's commitment transaction of this number.
    pub(in super::super) fn remote_tx(&self, at: u64, htlcs: &[HtlcId]) -> Transaction {
        let (candidate, stated) = (&self.facts.candidates.current, self.remote(at, htlcs));
        let built = remote_commitment(&self.facts, candidate, &stated, &self.secp);
        built.expect("builds").transaction
    }

    /// A mutual close that pays us everything.
    pub(in super::super) fn mutual_tx(&self) -> Transaction {
        spend(self.funding(), CAPACITY, self.facts.destination.clone())
    }
}

/// A transaction that spends an output to a script.
pub(in super::super) fn spend(from: OutPoint, value: Amount, to: ScriptBuf) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: from,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value, script_pubkey: to }],
    }
}

/// P2WPKH of the wallet.
pub(super) fn wallet_script() -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array([7; 20]))
}
