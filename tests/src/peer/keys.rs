//! The secrets of both parties, derived from the channel's name and seed.

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{CompressedPublicKey, ScriptBuf};
use lightning::ln::chan_utils::{ChannelPublicKeys, build_commitment_secret};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};

use super::PeerError;

/// BOLT 3 counts per-commitment secrets downwards from here.
pub(super) const FIRST_SECRET_INDEX: u64 = (1 << 48) - 1;

/// A party of the channel: `Local` is our node, `Remote` the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    Local,
    Remote,
}

impl Side {
    /// The other party.
    pub fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

/// Everything secret that one party of a channel holds. It has no `Debug` on purpose.
#[derive(Clone)]
pub struct PartySecrets {
    pub funding: SecretKey,
    pub revocation_base: SecretKey,
    pub payment: SecretKey,
    pub delayed_payment_base: SecretKey,
    pub htlc_base: SecretKey,
    /// Seed of BOLT 3's `generate_from_seed`.
    pub commitment_seed: [u8; 32],
    /// The party's on-chain wallet: its destination script and default shutdown script.
    pub wallet: SecretKey,
}

/// The public keys of one party, BOLT 2 `open_channel` / `accept_channel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartyKeys {
    pub funding: PublicKey,
    pub revocation_basepoint: PublicKey,
    pub payment_basepoint: PublicKey,
    pub delayed_payment_basepoint: PublicKey,
    pub htlc_basepoint: PublicKey,
}

impl PartySecrets {
    pub(super) fn derive(name: &str, seed: u64, side: Side) -> Self {
        let key = |role| derive_key(name, seed, side, role);
        Self {
            funding: key("funding"),
            revocation_base: key("revocation"),
            payment: key("payment"),
            delayed_payment_base: key("delayed"),
            htlc_base: key("htlc"),
            commitment_seed: key("commitment seed").secret_bytes(),
            wallet: key("wallet"),
        }
    }

    /// The public half.
    pub fn keys(&self, secp: &Secp256k1<All>) -> PartyKeys {
        let public = |secret| PublicKey::from_secret_key(secp, secret);
        PartyKeys {
            funding: public(&self.funding),
            revocation_basepoint: public(&self.revocation_base),
            payment_basepoint: public(&self.payment),
            delayed_payment_basepoint: public(&self.delayed_payment_base),
            htlc_basepoint: public(&self.htlc_base),
        }
    }

    /// The per-commitment secret of commitment `number`, counted upwards from 0.
    pub fn commitment_secret(&self, number: u64) -> Result<SecretKey, PeerError> {
        let index = FIRST_SECRET_INDEX
            .checked_sub(number)
            .ok_or(PeerError::BadParameter("commitment number"))?;
        let secret = build_commitment_secret(&self.commitment_seed, index);
        SecretKey::from_slice(&secret).map_err(|_| PeerError::BadParameter("commitment seed"))
    }

    /// The wallet of this side of a channel of that name.
    pub fn wallet_of(name: &str, seed: u64, side: Side) -> SecretKey {
        derive_key(name, seed, side, "wallet")
    }

    pub(super) fn wallet_script(&self, secp: &Secp256k1<All>) -> ScriptBuf {
        p2wpkh_script(secp, &self.wallet)
    }
}

impl PartyKeys {
    pub(super) fn for_lightning(&self) -> ChannelPublicKeys {
        ChannelPublicKeys {
            funding_pubkey: self.funding,
            revocation_basepoint: RevocationBasepoint(self.revocation_basepoint),
            payment_point: self.payment_basepoint,
            delayed_payment_basepoint: DelayedPaymentBasepoint(self.delayed_payment_basepoint),
            htlc_basepoint: HtlcBasepoint(self.htlc_basepoint),
        }
    }
}

pub(super) fn p2wpkh_script(secp: &Secp256k1<All>, key: &SecretKey) -> ScriptBuf {
    let public = CompressedPublicKey(PublicKey::from_secret_key(secp, key));
    ScriptBuf::new_p2wpkh(&public.wpubkey_hash())
}

/// A key that belongs to neither party's protocol, for scripts that nobody agreed on.
pub(super) fn stranger_key(name: &str, seed: u64) -> SecretKey {
    derive_key(name, seed, Side::Remote, "stranger")
}

/// The funding key that a party brings to its `nth` splice.
pub(super) fn splice_key(name: &str, seed: u64, side: Side, nth: usize) -> SecretKey {
    derive_key(name, seed, side, &format!("funding of splice {nth}"))
}

fn derive_key(name: &str, seed: u64, side: Side, role: &str) -> SecretKey {
    let side: u8 = match side {
        Side::Local => 1,
        Side::Remote => 2,
    };
    let mut counter = 0u32;
    loop {
        let mut engine = sha256::Hash::engine();
        engine.input(b"channel key\0");
        engine.input(&seed.to_be_bytes());
        engine.input(&[side]);
        engine.input(&counter.to_be_bytes());
        engine.input(role.as_bytes());
        engine.input(&[0]);
        engine.input(name.as_bytes());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        // All but about one hash in 2^128 is a valid key.
        if let Ok(key) = SecretKey::from_slice(&hash) {
            return key;
        }
        counter = counter.wrapping_add(1);
    }
}

/// The preimage that a hash name of a scenario stands for.
pub fn preimage_named(name: &str) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    engine.input(b"preimage\0");
    engine.input(name.as_bytes());
    sha256::Hash::from_engine(engine).to_byte_array()
}

/// The payment hash of a preimage.
pub fn payment_hash(preimage: &[u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(preimage).to_byte_array()
}
