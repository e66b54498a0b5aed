//! Upper bounds against what they bound, and against the lengths that BOLT 3 states.
use super::*;
use crate::arbitrator::TxKind;
use crate::claim::{Extensible, Presigned, SecondStage, SigningKey};
use crate::format::vectors::{Record, VectorChannel};
use crate::format::{Commitment, HtlcTransaction, htlc_transactions, local_commitment, scripts};
use crate::ids::Preimage;
use crate::units::FeeratePerKw;
use alloc::boxed::Box;
use bitcoin::secp256k1::{Message, Secp256k1, ecdsa};
use bitcoin::{Sequence, Txid, absolute::LockTime, hashes::Hash};

const FORMATS: [CommitmentFormat; 3] =
    [CommitmentFormat::StaticRemotekey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee];

/// A signature of the greatest length: high R, low S.
fn longest_signature() -> ecdsa::Signature {
    let secp = Secp256k1::new();
    let key = VectorChannel::new().record().secret("local_privkey");
    (0..=u8::MAX)
        .map(|byte| secp.sign_ecdsa(&Message::from_digest([byte; 32]), &key))
        .find(|signature| signature.serialize_der().len() == 71)
        .expect("every other signature has a high R")
}

fn commitment(format: CommitmentFormat) -> Commitment {
    let name = "commitment tx with all five HTLCs untrimmed (minimum feerate)";
    let vector = Record::named(include_str!("../vectors/appendix_c.txt"), name);
    let mut facts = VectorChannel::new().facts(&vector, format);
    if format == CommitmentFormat::ZeroFee {
        facts.candidates.current.local.feerate = FeeratePerKw(0);
    }
    let candidate = &facts.candidates.current;
    local_commitment(&facts, candidate, &candidate.local, &Secp256k1::new()).expect("a commitment")
}

fn second_stage(htlc: &HtlcTransaction, signature: ecdsa::Signature) -> SecondStage {
    SecondStage {
        htlc: htlc.htlc,
        transaction: htlc.transaction.clone(),
        script: htlc.script.clone(),
        key: SigningKey::Payment,
        remote_signature: signature,
        extensible: Extensible::Yes,
        preimage: match htlc.direction {
            HtlcDirection::Offered => None,
            HtlcDirection::Received => Some(Preimage([1; 32])),
        },
    }
}

/// Checks that the bound is the weight when the signatures are as long as can be.
fn check_exact(path: &SpendPath) {
    let witness = path.witness(&longest_signature());
    let size = u64::try_from(witness.size()).expect("small");
    assert_eq!(path.witness_weight(), Weight::from_wu(size), "{path:?}");
}

#[test]
fn witness_weights_are_exact_for_the_longest_signatures() {
    let signature = longest_signature();
    for format in FORMATS {
        let commitment = commitment(format);
        let keys = &commitment.spec.keys;
        check_exact(&SpendPath::LocalCommitment(Box::new(Presigned {
            transaction: commitment.transaction.clone(),
            script: commitment.funding_script(),
            key: SigningKey::Funding(keys.owner_funding),
            local_funding: keys.owner_funding,
            remote_funding: keys.other_funding,
            remote_signature: signature,
            anchor: None,
        })));
        check_exact(&SpendPath::Anchor {
            lock: AnchorLock::Keyed {
                script: scripts::anchor(&keys.owner_funding),
                key: SigningKey::Funding(keys.owner_funding),
            },
            parent: Txid::all_zeros(),
            ours: Amount::ZERO,
            lost: std::vec::Vec::new(),
        });
        check_exact(&SpendPath::Anchor {
            lock: AnchorLock::Shared,
            parent: Txid::all_zeros(),
            ours: Amount::ZERO,
            lost: std::vec::Vec::new(),
        });
        for htlc in htlc_transactions(&commitment) {
            check_exact(&SpendPath::SecondStage(Box::new(second_stage(&htlc, signature))));
        }
    }
}

#[test]
fn single_spend_weights_are_exact_for_the_longest_signatures() {
    for format in FORMATS {
        let commitment = commitment(format);
        let keys = &commitment.spec.keys;
        let to_local = scripts::to_local(keys, commitment.spec.delay).witness_script;
        let htlc = htlc_transactions(&commitment)[0].script.clone();
        let revocation = Unlock::RevocationKey(keys.revocation);
        let to_remote = scripts::to_remote(format, &keys.other_payment).witness_script;
        let unlock_to_remote = match format {
            CommitmentFormat::StaticRemotekey | CommitmentFormat::ZeroFee => {
                Unlock::PublicKey(keys.other_payment)
            }
            CommitmentFormat::Anchors => Unlock::Nothing,
        };
        for (script, unlock) in [
            (to_local.clone(), Unlock::Empty),
            (to_local, Unlock::One),
            (Some(htlc.clone()), revocation),
            (Some(htlc.clone()), Unlock::Empty),
            (Some(htlc), Unlock::Preimage(Preimage([2; 32]))),
            (to_remote, unlock_to_remote),
        ] {
            check_exact(&SpendPath::Single(Box::new(SingleSpend {
                kind: TxKind::Claim,
                htlc: None,
                script,
                unlock,
                key: SigningKey::Payment,
                sequence: Sequence::ZERO,
                lock_time: LockTime::ZERO,
                version: bitcoin::transaction::Version::TWO,
            })));
        }
    }
}

#[test]
fn signed_transactions_weigh_what_is_expected() {
    let signature = longest_signature();
    for format in FORMATS {
        let commitment = commitment(format);
        let expected = expected_commitment(format, 5);
        // Appendix A counts 73 bytes for each signature, of which low S saves one, and with anchors
        // three bytes for the number of outputs.
        let saved = match format {
            CommitmentFormat::StaticRemotekey | CommitmentFormat::ZeroFee => 2,
            CommitmentFormat::Anchors => 2 + 2 * WU_PER_BYTE,
        };
        assert_eq!(commitment.signed_weight(), expected - Weight::from_wu(saved));
        for htlc in htlc_transactions(&commitment) {
            let mut signed = htlc.transaction.clone();
            signed.input[0].witness = second_stage(&htlc, signature).witness(&signature);
            let expected = expected_htlc(format, htlc.direction);
            let saved = match htlc.direction {
                HtlcDirection::Offered => 2,
                // One more "for historical reasons", and an expiry below 2^16 is a byte shorter
                // than that of Appendix A by two.
                HtlcDirection::Received => 5,
            };
            assert_eq!(signed.weight(), expected - Weight::from_wu(saved));
        }
    }
}

#[test]
fn scripts_have_the_lengths_of_appendix_a() {
    for (format, more) in FORMATS.into_iter().zip([0, 3, 0]) {
        let commitment = commitment(format);
        let keys = &commitment.spec.keys;
        let hash = Preimage([0; 32]).hash();
        assert_eq!(scripts::offered_htlc(format, keys, &hash).len(), 133 + more);
        // Heights need two bytes up to 2^15, three up to 2^23, then four.
        for (height, length) in [(500, 138), (800_000, 139), (499_999_999, 140)] {
            let expiry = crate::units::CltvExpiry(crate::units::BlockHeight(height));
            let script = scripts::received_htlc(format, keys, &hash, expiry);
            assert_eq!(script.len(), length + more, "height {height}");
        }
        let funding = commitment.funding_script();
        assert_eq!(u64::try_from(funding.len()).expect("small"), FUNDING_SCRIPT);
    }
}

#[test]
fn long_elements_take_longer_counts() {
    assert_eq!(witness(&[0xfc]), Weight::from_wu(1 + 1 + 0xfc));
    assert_eq!(witness(&[0xfd]), Weight::from_wu(1 + 3 + 0xfd));
}
