//! Keys of BOLT 3 "Key Derivation": from basepoints and a per-commitment point.
use crate::claim::SigningKey;
use crate::facts::{ChannelFacts, ChannelKeys, FundingKeys};
use crate::ids::{PerCommitmentSecret, Side};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey, Signing, Verification};
use core::fmt;

/// A derived key does not exist: the tweak is out of range or the sum is the point at infinity.
/// No one hits this by chance; the keys are not those of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivationError;

impl fmt::Display for DerivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no such derived key")
    }
}

impl core::error::Error for DerivationError {}

/// `SHA256(first || second)` as a scalar.
fn tweak(first: &PublicKey, second: &PublicKey) -> Result<Scalar, DerivationError> {
    let mut engine = sha256::Hash::engine();
    engine.input(&first.serialize());
    engine.input(&second.serialize());
    Scalar::from_be_bytes(sha256::Hash::from_engine(engine).to_byte_array())
        .map_err(|_| DerivationError)
}

/// `basepoint + SHA256(per_commitment_point || basepoint) * G` (BOLT 3).
///
/// # Errors
/// There is no such key.
pub fn derive_public_key<C: Verification>(
    secp: &Secp256k1<C>,
    point: &PublicKey,
    basepoint: &PublicKey,
) -> Result<PublicKey, DerivationError> {
    basepoint.add_exp_tweak(secp, &tweak(point, basepoint)?).map_err(|_| DerivationError)
}

/// `basepoint_secret + SHA256(per_commitment_point || basepoint)` (BOLT 3).
///
/// # Errors
/// There is no such key.
pub fn derive_private_key<C: Signing>(
    secp: &Secp256k1<C>,
    point: &PublicKey,
    basepoint_secret: &SecretKey,
) -> Result<SecretKey, DerivationError> {
    let basepoint = basepoint_secret.public_key(secp);
    basepoint_secret.add_tweak(&tweak(point, &basepoint)?).map_err(|_| DerivationError)
}

/// `revocation_basepoint * SHA256(revocation_basepoint || per_commitment_point) +
/// per_commitment_point * SHA256(per_commitment_point || revocation_basepoint)` (BOLT 3). The
/// basepoint is the one of the party that punishes, the point the one of the commitment's owner.
///
/// # Errors
/// There is no such key.
pub fn derive_revocation_public_key<C: Verification>(
    secp: &Secp256k1<C>,
    point: &PublicKey,
    revocation_basepoint: &PublicKey,
) -> Result<PublicKey, DerivationError> {
    let base = revocation_basepoint.mul_tweak(secp, &tweak(revocation_basepoint, point)?);
    let commitment = point.mul_tweak(secp, &tweak(point, revocation_basepoint)?);
    let (base, commitment) =
        (base.map_err(|_| DerivationError)?, commitment.map_err(|_| DerivationError)?);
    base.combine(&commitment).map_err(|_| DerivationError)
}

/// The private key of [`derive_revocation_public_key`], once the per-commitment secret is
/// revealed (BOLT 3).
///
/// # Errors
/// There is no such key.
pub fn derive_revocation_private_key<C: Signing>(
    secp: &Secp256k1<C>,
    secret: &PerCommitmentSecret,
    revocation_basepoint_secret: &SecretKey,
) -> Result<SecretKey, DerivationError> {
    let secret = secret_key(secret)?;
    let point = secret.public_key(secp);
    let basepoint = revocation_basepoint_secret.public_key(secp);
    let base = revocation_basepoint_secret.mul_tweak(&tweak(&basepoint, &point)?);
    let commitment = secret.mul_tweak(&tweak(&point, &basepoint)?);
    let (base, commitment) =
        (base.map_err(|_| DerivationError)?, commitment.map_err(|_| DerivationError)?);
    base.add_tweak(&Scalar::from(commitment)).map_err(|_| DerivationError)
}

/// `per_commitment_secret * G` (BOLT 3).
///
/// # Errors
/// The secret is no private key.
pub fn per_commitment_point<C: Signing>(
    secp: &Secp256k1<C>,
    secret: &PerCommitmentSecret,
) -> Result<PublicKey, DerivationError> {
    Ok(secret_key(secret)?.public_key(secp))
}

fn secret_key(secret: &PerCommitmentSecret) -> Result<SecretKey, DerivationError> {
    SecretKey::from_slice(&secret.0).map_err(|_| DerivationError)
}

/// Every public key in the scripts of one commitment transaction, named from its owner's point of
/// view: `owner` is BOLT 3's "local", `other` its "remote".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitmentKeys {
    /// Whose commitment transaction it is.
    pub owner: Side,
    /// The owner's per-commitment point.
    pub point: PublicKey,
    /// `revocationpubkey`: the other party's, once the commitment is revoked.
    pub revocation: PublicKey,
    /// `local_delayedpubkey`.
    pub owner_delayed: PublicKey,
    /// `local_htlcpubkey`.
    pub owner_htlc: PublicKey,
    /// `remote_htlcpubkey`.
    pub other_htlc: PublicKey,
    /// `remotepubkey`: the other party's payment basepoint, untweaked.
    pub other_payment: PublicKey,
    /// The owner's funding key.
    pub owner_funding: PublicKey,
    /// The other party's funding key.
    pub other_funding: PublicKey,
}

impl CommitmentKeys {
    /// Derives the keys of `owner`'s commitment transaction with this per-commitment point, which
    /// spends a funding output of these keys.
    ///
    /// # Errors
    /// One of them does not exist.
    pub fn new<C: Verification>(
        facts: &ChannelFacts,
        funding: &FundingKeys,
        owner: Side,
        point: PublicKey,
        secp: &Secp256k1<C>,
    ) -> Result<Self, DerivationError> {
        let own = &facts.party(owner).keys;
        let other = &facts.party(owner.other()).keys;
        Ok(Self {
            owner,
            point,
            revocation: derive_revocation_public_key(secp, &point, &other.revocation)?,
            owner_delayed: derive_public_key(secp, &point, &own.delayed_payment)?,
            owner_htlc: derive_public_key(secp, &point, &own.htlc)?,
            other_htlc: derive_public_key(secp, &point, &other.htlc)?,
            other_payment: other.payment,
            owner_funding: funding.of(owner),
            other_funding: funding.of(owner.other()),
        })
    }

    /// The funding key of this side.
    #[must_use]
    pub fn funding(&self, side: Side) -> PublicKey {
        if side == self.owner { self.owner_funding } else { self.other_funding }
    }

    /// The HTLC key of this side.
    #[must_use]
    pub fn htlc(&self, side: Side) -> PublicKey {
        if side == self.owner { self.owner_htlc } else { self.other_htlc }
    }
}

/// One party's channel secrets, for signers that hold them in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct ChannelSecrets {
    /// Of the funding key.
    pub funding: SecretKey,
    /// Of the revocation basepoint.
    pub revocation: SecretKey,
    /// Of the payment basepoint.
    pub payment: SecretKey,
    /// Of the delayed payment basepoint.
    pub delayed_payment: SecretKey,
    /// Of the HTLC basepoint.
    pub htlc: SecretKey,
}

impl fmt::Debug for ChannelSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSecrets(..)")
    }
}

impl ChannelSecrets {
    /// The public side.
    #[must_use]
    pub fn public<C: Signing>(&self, secp: &Secp256k1<C>) -> ChannelKeys {
        ChannelKeys {
            revocation: self.revocation.public_key(secp),
            payment: self.payment.public_key(secp),
            delayed_payment: self.delayed_payment.public_key(secp),
            htlc: self.htlc.public_key(secp),
        }
    }

    /// The public funding key.
    #[must_use]
    pub fn funding_key<C: Signing>(&self, secp: &Secp256k1<C>) -> PublicKey {
        self.funding.public_key(secp)
    }

    /// The private key that a claim asks for.
    ///
    /// # Errors
    /// There is no such key.
    pub fn signing_key<C: Signing>(
        &self,
        key: &SigningKey,
        secp: &Secp256k1<C>,
    ) -> Result<SecretKey, DerivationError> {
        match key {
            SigningKey::Funding(key) if *key == self.funding_key(secp) => Ok(self.funding),
            SigningKey::Funding(_) => Err(DerivationError),
            SigningKey::Payment => Ok(self.payment),
            SigningKey::DelayedPayment(point) => {
                derive_private_key(secp, point, &self.delayed_payment)
            }
            SigningKey::Htlc(point) => derive_private_key(secp, point, &self.htlc),
            SigningKey::Revocation(secret) => {
                derive_revocation_private_key(secp, secret, &self.revocation)
            }
        }
    }
}
