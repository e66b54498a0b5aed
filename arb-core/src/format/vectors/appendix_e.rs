//! BOLT 3 appendix E: key derivation.
use super::Record;
use crate::format::keys::{
    derive_private_key, derive_public_key, derive_revocation_private_key,
    derive_revocation_public_key, per_commitment_point,
};
use crate::ids::PerCommitmentSecret;
use bitcoin::secp256k1::Secp256k1;

fn vector() -> Record {
    Record::only(include_str!("appendix_e.txt"))
}

fn secret(vector: &Record) -> PerCommitmentSecret {
    PerCommitmentSecret(vector.bytes("per_commitment_secret"))
}

#[test]
fn points_belong_to_secrets() {
    let (secp, vector) = (Secp256k1::new(), vector());
    assert_eq!(vector.secret("base_secret").public_key(&secp), vector.public("base_point"));
    let point = per_commitment_point(&secp, &secret(&vector));
    assert_eq!(point, Ok(vector.public("per_commitment_point")));
}

#[test]
fn derivation_of_pubkey_from_basepoint_and_per_commitment_point() {
    let (secp, vector) = (Secp256k1::new(), vector());
    let (base, point) = (vector.public("base_point"), vector.public("per_commitment_point"));
    let key = derive_public_key(&secp, &point, &base);
    assert_eq!(key, Ok(vector.public("localpubkey")));
}

#[test]
fn derivation_of_private_key_from_basepoint_secret_and_per_commitment_secret() {
    let (secp, vector) = (Secp256k1::new(), vector());
    let point = vector.public("per_commitment_point");
    let key = derive_private_key(&secp, &point, &vector.secret("base_secret"));
    assert_eq!(key, Ok(vector.secret("localprivkey")));
}

#[test]
fn derivation_of_revocation_pubkey_from_basepoint_and_per_commitment_point() {
    let (secp, vector) = (Secp256k1::new(), vector());
    let (base, point) = (vector.public("base_point"), vector.public("per_commitment_point"));
    let key = derive_revocation_public_key(&secp, &point, &base);
    assert_eq!(key, Ok(vector.public("revocationpubkey")));
}

#[test]
fn derivation_of_revocation_secret_from_basepoint_secret_and_per_commitment_secret() {
    let (secp, vector) = (Secp256k1::new(), vector());
    let base = vector.secret("base_secret");
    let key = derive_revocation_private_key(&secp, &secret(&vector), &base);
    assert_eq!(key, Ok(vector.secret("revocationprivkey")));
}
