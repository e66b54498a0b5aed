//! A channel of 1,000,000 satoshis whose both parties sign: we opened it.
use crate::claim::SigningKey;
use crate::facts::secrets::generate_from_seed;
use crate::facts::{
    Candidates, ChannelFacts, ChannelNames, FundingCandidate, FundingKeys, Htlc, HtlcLink,
    HtlcRecord, LocalCommitment, Party, RemoteCommitment, SecretStore, ShutdownScripts, Update,
    UpdateError,
};
use crate::format::keys::per_commitment_point;
use crate::format::{
    ChannelSecrets, CommitmentFormat, htlc_transactions, local_commitment, sighash,
};
use crate::ids::{ChannelId, HtlcId, PerCommitmentSecret, Preimage, Side};
use crate::units::{BlockDelta, BlockHeight, CltvExpiry, CommitmentNumber, FeeratePerKw, MilliSat};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, OutPoint, ScriptBuf, Txid};
use std::vec::Vec;

pub(crate) const CAPACITY: Amount = Amount::from_sat(1_000_000);
const LOCAL_SEED: [u8; 32] = [0x1a; 32];
const REMOTE_SEED: [u8; 32] = [0x2b; 32];

pub(crate) struct World {
    pub(crate) secp: Secp256k1<All>,
    pub(crate) facts: ChannelFacts,
    remote_secrets: ChannelSecrets,
}

fn channel_secrets(first: u8) -> ChannelSecrets {
    let key = |offset: u8| SecretKey::from_slice(&[first + offset; 32]).expect("a secret key");
    ChannelSecrets {
        funding: key(0),
        revocation: key(1),
        payment: key(2),
        delayed_payment: key(3),
        htlc: key(4),
    }
}

/// The funding keys that a splice brings, ours and the peer's.
fn splice_secrets() -> [SecretKey; 2] {
    [0x41, 0x42].map(|byte| SecretKey::from_slice(&[byte; 32]).expect("a secret key"))
}

/// Both commitments are number 1 and contain an offered and a received HTLC.
pub(crate) fn world(format: CommitmentFormat) -> World {
    let mut world = World::new(format);
    world.add(offered(0));
    world.add(received(0));
    world.accept_remote(1, &[offered(0), received(0)]);
    world.accept_revocation(0);
    world.accept_local(1, &[offered(0), received(0)]);
    world
}

pub(crate) fn offered(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Local, id }
}

pub(crate) fn received(id: u64) -> HtlcId {
    HtlcId { offerer: Side::Remote, id }
}

pub(crate) fn number(number: u64) -> CommitmentNumber {
    CommitmentNumber(number)
}

/// Terms: 10,000 satoshis for id 0, one more for each next.
pub(crate) fn terms(id: HtlcId) -> Htlc {
    let link = match id.offerer {
        Side::Local => HtlcLink::OwnPayment,
        Side::Remote => HtlcLink::Uncommitted,
    };
    Htlc {
        amount: MilliSat::from_amount(Amount::from_sat(10_000 + id.id)),
        hash: Preimage([u8::try_from(id.id % 251).expect("small"); 32]).hash(),
        expiry: CltvExpiry(BlockHeight(500)),
        link,
    }
}

pub(crate) fn funding_outpoint(vout: u32) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([9; 32]), vout }
}

/// The commitments' feerate.
fn feerate(format: CommitmentFormat) -> FeeratePerKw {
    FeeratePerKw(if format == CommitmentFormat::ZeroFee { 0 } else { 253 })
}

pub(crate) fn remote_secret(number: CommitmentNumber) -> PerCommitmentSecret {
    generate_from_seed(&REMOTE_SEED, number).expect("in range")
}

impl World {
    /// Both commitments are number 0, without HTLCs.
    pub(crate) fn new(format: CommitmentFormat) -> Self {
        let secp = Secp256k1::new();
        let (local, remote_secrets) = (channel_secrets(1), channel_secrets(0x21));
        let party = |secrets: &ChannelSecrets, delay| Party {
            keys: secrets.public(&secp),
            delay: BlockDelta(delay),
            dust_limit: Amount::from_sat(546),
        };
        let keys = FundingKeys {
            local: local.funding_key(&secp),
            remote: remote_secrets.funding_key(&secp),
        };
        let (local, remote) = (party(&local, 144), party(&remote_secrets, 720));
        let blank = ecdsa::Signature::from_compact(&[1; 64]).expect("a signature");
        let mut world = Self {
            facts: ChannelFacts {
                id: ChannelId([3; 32]),
                opener: Side::Local,
                candidates: Candidates::only(FundingCandidate {
                    funding: funding_outpoint(0),
                    keys,
                    capacity: CAPACITY,
                    format,
                    local: LocalCommitment {
                        number: number(0),
                        point: keys.local,
                        feerate: feerate(format),
                        local_balance: MilliSat(0),
                        remote_balance: MilliSat(0),
                        htlcs: Vec::new(),
                        signature: blank,
                        htlc_signatures: Vec::new(),
                    },
                    remote: RemoteCommitment {
                        number: number(0),
                        point: keys.remote,
                        feerate: feerate(format),
                        local_balance: MilliSat(0),
                        remote_balance: MilliSat(0),
                        htlcs: Vec::new(),
                    },
                    remote_next: None,
                }),
                local,
                remote,
                htlcs: alloc::collections::BTreeMap::new(),
                secrets: SecretStore::default(),
                shutdown: ShutdownScripts::default(),
                destination: ScriptBuf::new(),
                birth: BlockHeight(0),
                names: ChannelNames::default(),
            },
            secp,
            remote_secrets,
        };
        world.facts.candidates.current.local = world.local(0, &[]);
        world.facts.candidates.current.remote = world.remote(0, &[]);
        world
    }

    /// A second candidate of the same capacity, at the same numbers.
    pub(crate) fn with_splice(mut self) -> Self {
        let splice = self.splice(funding_outpoint(1));
        self.facts.candidates.others.push(splice);
        self
    }

    /// Another candidate, with what the current one holds, signed by the peer.
    pub(crate) fn splice(&self, funding: OutPoint) -> FundingCandidate {
        let [local, remote] = splice_secrets().map(|secret| secret.public_key(&self.secp));
        let keys = FundingKeys { local, remote };
        let current = self.facts.candidates.current.clone();
        let mut splice = FundingCandidate { funding, keys, ..current };
        let format = splice.format.peer_htlc_sighash();
        let mut local = splice.local.clone();
        self.sign_for(&splice, &mut local, format);
        splice.local = local;
        splice
    }

    fn point(&self, seed: &[u8; 32], number: CommitmentNumber) -> PublicKey {
        let secret = generate_from_seed(seed, number).expect("in range");
        per_commitment_point(&self.secp, &secret).expect("a point")
    }

    /// Balances beside these HTLCs: 600,000 satoshis are ours, less what we offer.
    fn balances(&self, htlcs: &[HtlcId]) -> (MilliSat, MilliSat) {
        let offered_by = |side: Side| {
            let of = htlcs.iter().filter(|id| id.offerer == side);
            of.fold(MilliSat(0), |sum, id| sum.plus(terms(*id).amount))
        };
        let left = |start, side| MilliSat(start).checked_sub(offered_by(side)).expect("enough");
        (left(600_000_000, Side::Local), left(400_000_000, Side::Remote))
    }

    /// Our commitment with these HTLCs, signed by the peer if their terms are known.
    pub(crate) fn local(&self, at: u64, htlcs: &[HtlcId]) -> LocalCommitment {
        let (local_balance, remote_balance) = self.balances(htlcs);
        let current = &self.facts.candidates.current.local;
        let unsigned = LocalCommitment {
            number: number(at),
            point: self.point(&LOCAL_SEED, number(at)),
            feerate: feerate(self.facts.candidates.current.format),
            local_balance,
            remote_balance,
            htlcs: htlcs.to_vec(),
            signature: current.signature,
            htlc_signatures: Vec::new(),
        };
        self.signed_for(&self.facts.candidates.current, unsigned)
    }

    /// A commitment of ours, signed by the peer for another candidate.
    pub(crate) fn signed_for(
        &self,
        candidate: &FundingCandidate,
        mut local: LocalCommitment,
    ) -> LocalCommitment {
        self.sign_for(candidate, &mut local, candidate.format.peer_htlc_sighash());
        local
    }

    pub(crate) fn remote(&self, at: u64, htlcs: &[HtlcId]) -> RemoteCommitment {
        let (local_balance, remote_balance) = self.balances(htlcs);
        RemoteCommitment {
            number: number(at),
            point: self.point(&REMOTE_SEED, number(at)),
            feerate: feerate(self.facts.candidates.current.format),
            local_balance,
            remote_balance,
            htlcs: htlcs.to_vec(),
        }
    }

    /// Our commitment on the candidate with this `vout`, signed by the peer. What cannot be built
    /// stays as it is.
    pub(crate) fn signed(&self, vout: u32, mut local: LocalCommitment) -> LocalCommitment {
        let format = self.facts.candidates.current.format;
        self.sign_as(vout, &mut local, format.peer_htlc_sighash());
        local
    }

    /// The same, with a sighash type of choice for the HTLC signatures.
    pub(crate) fn sign_as(&self, vout: u32, local: &mut LocalCommitment, ty: EcdsaSighashType) {
        let candidate = self.facts.candidates.get(&funding_outpoint(vout)).expect("a candidate");
        self.sign_for(candidate, local, ty);
    }

    fn sign_for(
        &self,
        candidate: &FundingCandidate,
        local: &mut LocalCommitment,
        ty: EcdsaSighashType,
    ) {
        let Ok(built) = local_commitment(&self.facts, candidate, local, &self.secp) else {
            return;
        };
        let (script, spent) = (built.funding_script(), built.funding_output());
        let all = EcdsaSighashType::All;
        let [_, of_splice] = splice_secrets();
        let is_splice = of_splice.public_key(&self.secp) == candidate.keys.remote;
        let secret = if is_splice { of_splice } else { self.remote_secrets.funding };
        let message = sighash(&built.transaction, 0, &spent, Some(&script), all);
        local.signature = self.secp.sign_ecdsa(&message.expect("a sighash"), &secret);
        let key = SigningKey::Htlc(local.point);
        let key = self.remote_secrets.signing_key(&key, &self.secp).expect("a key");
        let sign = |htlc: &crate::format::HtlcTransaction| {
            let script = Some(htlc.script.as_script());
            let message = sighash(&htlc.transaction, 0, &htlc.input, script, ty);
            self.secp.sign_ecdsa(&message.expect("a sighash"), &key)
        };
        local.htlc_signatures = htlc_transactions(&built).iter().map(sign).collect();
    }

    /// The same with another valid signature of the commitment that spends the current funding output.
    pub(crate) fn signed_anew(&self, signed: &LocalCommitment) -> LocalCommitment {
        let current = &self.facts.candidates.current;
        let built = local_commitment(&self.facts, current, signed, &self.secp).expect("it builds");
        let (script, spent) = (built.funding_script(), built.funding_output());
        let all = EcdsaSighashType::All;
        let message = sighash(&built.transaction, 0, &spent, Some(&script), all);
        let message = message.expect("a sighash");
        let key = &self.remote_secrets.funding;
        let signature = self.secp.sign_ecdsa_with_noncedata(&message, key, &[7; 32]);
        LocalCommitment { signature, ..signed.clone() }
    }

    /// Applies an update that must be accepted; gives the HTLCs that ended.
    pub(crate) fn accept(&mut self, update: &Update) -> Vec<(HtlcId, HtlcRecord)> {
        let updated = self.facts.updated(update, &self.secp).expect("accepted");
        assert_eq!(self.facts.updated_unverified(update).as_ref(), Ok(&updated));
        self.facts = updated.facts;
        if self.facts.check_in_step().is_ok() {
            assert_eq!(self.facts.verify(&self.secp), Ok(()), "updates keep facts consistent");
        }
        updated.ended
    }

    /// Applies an update that must change nothing.
    pub(crate) fn accept_unchanged(&self, update: &Update) {
        let updated = self.facts.updated(update, &self.secp).expect("accepted");
        assert_eq!(updated.facts, self.facts);
        assert_eq!(updated.ended, []);
    }

    pub(crate) fn refuse(&self, update: &Update) -> UpdateError {
        let refused = self.facts.updated(update, &self.secp).expect_err("refused");
        // Without verifying, nothing else is refused.
        if let Err(unverified) = self.facts.updated_unverified(update) {
            assert_eq!(unverified, refused);
        }
        refused
    }

    pub(crate) fn add(&mut self, id: HtlcId) {
        assert_eq!(self.accept(&Update::HtlcAdded { id, htlc: terms(id) }), []);
    }

    pub(crate) fn accept_local(&mut self, at: u64, htlcs: &[HtlcId]) -> Vec<HtlcId> {
        let update = self.local_update(at, htlcs);
        self.accept(&update).into_iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn accept_remote(&mut self, at: u64, htlcs: &[HtlcId]) {
        let update = self.remote_update(at, htlcs);
        assert_eq!(self.accept(&update), []);
    }

    pub(crate) fn accept_revocation(&mut self, at: u64) -> Vec<HtlcId> {
        self.accept(&revocation(at)).into_iter().map(|(id, _)| id).collect()
    }

    pub(crate) fn local_update(&self, at: u64, htlcs: &[HtlcId]) -> Update {
        let commitment = self.local(at, htlcs);
        Update::LocalCommitment { funding: self.facts.candidates.current.funding, commitment }
    }

    /// Our commitment with these HTLCs, for every candidate that goes on.
    pub(crate) fn local_updates(&self, at: u64, htlcs: &[HtlcId]) -> Vec<Update> {
        let update = |candidate: &FundingCandidate| {
            let commitment = self.signed_for(candidate, self.local(at, htlcs));
            Update::LocalCommitment { funding: candidate.funding, commitment }
        };
        self.facts.candidates.moving().map(update).collect()
    }

    pub(crate) fn remote_update(&self, at: u64, htlcs: &[HtlcId]) -> Update {
        let commitment = self.remote(at, htlcs);
        Update::RemoteCommitment { funding: self.facts.candidates.current.funding, commitment }
    }
}

pub(crate) fn revocation(at: u64) -> Update {
    Update::RemoteRevoked { number: number(at), secret: remote_secret(number(at)) }
}
