//! Runs a vector of appendix C or F: rebuilds, checks the stated signatures, signs, compares bytes.
use super::{Record, VectorChannel, signature, transaction};
use crate::claim::SigningKey;
use crate::facts::{ChannelFacts, RemoteCommitment};
use crate::format::rules::HtlcDirection;
use crate::format::{
    Commitment, CommitmentFormat, HtlcTransaction, ObscuringFactor, OutputKind,
    commitment_number_of, htlc_transactions, local_commitment, remote_commitment, sighash, witness,
};
use crate::ids::{HtlcId, Side};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey, ecdsa};
use bitcoin::sighash::EcdsaSighashType;
use bitcoin::{Amount, ScriptBuf, Transaction, TxOut};
use std::vec::Vec;

struct Run<'a> {
    channel: VectorChannel,
    vector: &'a Record,
    commitment: Commitment,
    secp: Secp256k1<All>,
}

/// One input of a transaction, as it is signed.
struct Input<'a> {
    transaction: &'a Transaction,
    spent: &'a TxOut,
    script: &'a ScriptBuf,
}

impl Input<'_> {
    fn sign(
        &self,
        secp: &Secp256k1<All>,
        key: &SecretKey,
        ty: EcdsaSighashType,
    ) -> ecdsa::Signature {
        let message = sighash(self.transaction, 0, self.spent, Some(self.script), ty);
        secp.sign_ecdsa(&message.expect("a sighash"), key)
    }

    fn verify(
        &self,
        secp: &Secp256k1<All>,
        key: &PublicKey,
        ty: EcdsaSighashType,
        signature: &ecdsa::Signature,
    ) {
        let message = sighash(self.transaction, 0, self.spent, Some(self.script), ty);
        let message = message.expect("a sighash");
        secp.verify_ecdsa(&message, signature, key).expect("the stated signature is valid");
    }
}

/// Checks every figure of a vector.
pub(super) fn check(vector: &Record, format: CommitmentFormat) {
    let secp = Secp256k1::new();
    let channel = VectorChannel::new();
    let facts = channel.facts(vector, format);
    let candidate = &facts.candidates.current;
    let commitment =
        local_commitment(&facts, candidate, &candidate.local, &secp).expect("a commitment");
    check_mirrored(&facts, &commitment, &secp);
    let run = Run { channel, vector, commitment, secp };
    run.check_keys();
    run.check_commitment();
    run.check_htlc_transactions();
}

/// Checks that the other party, which knows the same channel with the sides exchanged, builds the
/// same transactions as a remote commitment.
pub(super) fn check_mirrored(facts: &ChannelFacts, built: &Commitment, secp: &Secp256k1<All>) {
    let turned = |id: &HtlcId| HtlcId { offerer: id.offerer.other(), id: id.id };
    let mut mirror = facts.clone();
    core::mem::swap(&mut mirror.local, &mut mirror.remote);
    let keys = &mut mirror.candidates.current.keys;
    core::mem::swap(&mut keys.local, &mut keys.remote);
    mirror.opener = facts.opener.other();
    mirror.htlcs = facts.htlcs.iter().map(|(id, record)| (turned(id), *record)).collect();
    let local = &facts.candidates.current.local;
    let remote = RemoteCommitment {
        number: local.number,
        point: local.point,
        feerate: local.feerate,
        local_balance: local.remote_balance,
        remote_balance: local.local_balance,
        htlcs: local.htlcs.iter().map(turned).collect(),
    };
    let candidate = &mirror.candidates.current;
    let mirrored = remote_commitment(&mirror, candidate, &remote, secp).expect("a commitment");
    assert_eq!(mirrored.transaction, built.transaction);
    let number = commitment_number_of(&mirrored.transaction, ObscuringFactor::of(&mirror));
    assert_eq!(number, Some(local.number));
    for (theirs, ours) in mirrored.outputs.iter().zip(&built.outputs) {
        let expected = match ours.kind {
            OutputKind::Htlc(id) => OutputKind::Htlc(turned(&id)),
            OutputKind::Anchor(side) => OutputKind::Anchor(side.other()),
            OutputKind::ToLocal | OutputKind::ToRemote | OutputKind::SharedAnchor => ours.kind,
        };
        assert_eq!((theirs.vout, theirs.kind), (ours.vout, expected));
        assert_eq!(theirs.script, ours.script);
    }
    let second_stage = |commitment: &Commitment| -> Vec<Transaction> {
        htlc_transactions(commitment).into_iter().map(|htlc| htlc.transaction).collect()
    };
    assert_eq!(second_stage(&mirrored), second_stage(built));
}

impl Run<'_> {
    fn check_keys(&self) {
        let record = self.channel.record();
        let keys = &self.commitment.spec.keys;
        assert_eq!(keys.owner_htlc, record.public("local_htlcpubkey"));
        assert_eq!(keys.other_htlc, record.public("remote_htlcpubkey"));
        assert_eq!(keys.owner_delayed, record.public("local_delayedpubkey"));
        assert_eq!(keys.revocation, record.public("local_revocation_pubkey"));
        assert_eq!(keys.other_payment, record.public("remote_payment_basepoint"));
        assert_eq!(keys.owner_funding, record.public("local_funding_pubkey"));
        assert_eq!(keys.other_funding, record.public("remote_funding_pubkey"));
        let factor = std::format!("{:012x}", self.commitment.spec.factor.to_u64());
        assert_eq!(factor, record.get("obscuring_factor"));
    }

    fn check_commitment(&self) {
        let commitment = &self.commitment;
        let script = commitment.funding_script();
        let spent = commitment.funding_output();
        let input = Input { transaction: &commitment.transaction, spent: &spent, script: &script };
        let (all, keys) = (EcdsaSighashType::All, &commitment.spec.keys);
        let remote = signature(self.vector.get("remote_signature"));
        input.verify(&self.secp, &keys.other_funding, all, &remote);
        let remote_key = self.channel.secrets(Side::Remote).funding;
        assert_eq!(input.sign(&self.secp, &remote_key, all), remote, "RFC 6979");

        let local = input.sign(&self.secp, &self.channel.secrets(Side::Local).funding, all);
        let mut signed = commitment.transaction.clone();
        signed.input[0].witness = witness::funding(
            (&keys.other_funding, &remote),
            (&keys.owner_funding, &local),
            &script,
        );
        assert_eq!(signed, transaction(self.vector.get("commitment")));
        let outputs: Amount = signed.output.iter().map(|output| output.value).sum();
        assert_eq!(commitment.fee, commitment.spec.capacity - outputs);
        for fee in self.vector.all("fee") {
            assert_eq!(commitment.fee.to_sat(), fee.parse::<u64>().expect("a fee"));
        }
    }

    fn check_htlc_transactions(&self) {
        let built = htlc_transactions(&self.commitment);
        let mut stated = self.vector.all("htlc_transaction");
        for htlc in &built {
            let line = stated.next().expect("as many HTLC transactions as are built");
            let (signature_hex, hex) = line.split_once(' ').expect("signature and transaction");
            self.check_htlc_transaction(htlc, signature(signature_hex), &transaction(hex));
        }
        assert_eq!(stated.next(), None, "as many HTLC transactions as are stated");
        let trimmed = self.commitment.trimmed.len();
        assert_eq!(built.len() + trimmed, self.commitment.spec.htlcs.len());
    }

    fn check_htlc_transaction(
        &self,
        htlc: &HtlcTransaction,
        remote: ecdsa::Signature,
        stated: &Transaction,
    ) {
        let input =
            Input { transaction: &htlc.transaction, spent: &htlc.input, script: &htlc.script };
        let spec = &self.commitment.spec;
        let peer_sighash = spec.format.peer_htlc_sighash();
        input.verify(&self.secp, &spec.keys.other_htlc, peer_sighash, &remote);

        let key = SigningKey::Htlc(spec.keys.point);
        let derived = |side| self.channel.secrets(side).signing_key(&key, &self.secp);
        let (local, peer) = (derived(Side::Local), derived(Side::Remote));
        let (local, peer) = (local.expect("a key"), peer.expect("a key"));
        assert_eq!(local, self.channel.record().secret("local_privkey"));
        assert_eq!(peer, self.channel.record().secret("remote_privkey"));
        assert_eq!(input.sign(&self.secp, &peer, peer_sighash), remote, "RFC 6979");

        let own = input.sign(&self.secp, &local, EcdsaSighashType::All);
        let preimage = match htlc.direction {
            HtlcDirection::Offered => None,
            HtlcDirection::Received => Some(self.channel.preimage(htlc.htlc.id)),
        };
        let mut signed = htlc.transaction.clone();
        signed.input[0].witness =
            witness::second_stage((&remote, peer_sighash), &own, preimage.as_ref(), &htlc.script);
        assert_eq!(&signed, stated);
    }
}
