//! A signer that holds channel secrets in memory.
use super::lock;
use arb_core::claim::SigningKey;
use arb_core::facts::secrets::generate_from_seed;
use arb_core::format::{ChannelSecrets, keys::per_commitment_point, sighash};
use arb_core::ids::ChannelId;
use arb_core::ports::{PointRequest, SignRequest, Signer};
use bitcoin::OutPoint;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey, ecdsa};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Why nothing was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The signer is switched off.
    #[error("the signer is switched off")]
    Off,
    /// The signer holds no secrets of this channel.
    #[error("no secrets of channel {0}")]
    UnknownChannel(ChannelId),
    /// The key that was asked for cannot be derived.
    #[error("the key cannot be derived")]
    NoSuchKey,
    /// The request does not describe an input that can be signed.
    #[error("the request is not consistent")]
    Inconsistent,
}

/// A signer that holds channel secrets in memory.
#[derive(Clone)]
pub struct MemorySigner {
    inner: Arc<Inner>,
}

struct Inner {
    secp: Secp256k1<All>,
    channels: Mutex<BTreeMap<ChannelId, ChannelSecrets>>,
    /// Seeds of our per-commitment secrets.
    seeds: Mutex<BTreeMap<ChannelId, [u8; 32]>>,
    /// Of splices that brought other funding keys.
    fundings: Mutex<BTreeMap<(ChannelId, PublicKey), SecretKey>>,
    off: AtomicBool,
    /// Channels whose requests fail.
    off_for: Mutex<BTreeSet<ChannelId>>,
    /// Outputs whose spends are signed wrongly.
    spoiled: Mutex<BTreeSet<OutPoint>>,
}

impl std::fmt::Debug for MemorySigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySigner").finish_non_exhaustive()
    }
}

impl Default for MemorySigner {
    fn default() -> Self {
        Self::new()
    }
}

impl MemorySigner {
    /// A signer without channels, switched on.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            secp: Secp256k1::new(),
            channels: Mutex::default(),
            seeds: Mutex::default(),
            fundings: Mutex::default(),
            off: AtomicBool::new(false),
            off_for: Mutex::default(),
            spoiled: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes over the secrets of a channel.
    pub fn insert(&self, channel: ChannelId, secrets: ChannelSecrets) {
        lock(&self.inner.channels).insert(channel, secrets);
    }

    /// Takes over the seed of a channel's per-commitment secrets (BOLT 3 `generate_from_seed`): the signer says its
    /// points from then on.
    pub fn insert_seed(&self, channel: ChannelId, seed: [u8; 32]) {
        lock(&self.inner.seeds).insert(channel, seed);
    }

    /// Takes over the secret funding key that a splice of a channel brought.
    pub fn insert_funding(&self, channel: ChannelId, secret: SecretKey) {
        let key = secret.public_key(&self.inner.secp);
        lock(&self.inner.fundings).insert((channel, key), secret);
    }

    /// Forgets the secrets of a channel.
    pub fn remove(&self, channel: &ChannelId) {
        lock(&self.inner.channels).remove(channel);
        lock(&self.inner.seeds).remove(channel);
        lock(&self.inner.fundings).retain(|(of, _), _| of != channel);
    }

    /// Every request fails until [`Self::switch_on`].
    pub fn switch_off(&self) {
        self.inner.off.store(true, Ordering::SeqCst);
    }

    /// Every request of that channel fails until [`Self::switch_on`].
    pub fn switch_off_for(&self, channel: ChannelId) {
        lock(&self.inner.off_for).insert(channel);
    }

    /// Requests are answered again.
    pub fn switch_on(&self) {
        lock(&self.inner.off_for).clear();
        self.inner.off.store(false, Ordering::SeqCst);
    }

    /// Every spend of that output is signed wrongly until [`Self::mend`].
    pub fn spoil(&self, outpoint: OutPoint) {
        lock(&self.inner.spoiled).insert(outpoint);
    }

    /// All spends are signed rightly again.
    pub fn mend(&self) {
        lock(&self.inner.spoiled).clear();
    }

    fn is_on(&self, channel: &ChannelId) -> Result<(), SignError> {
        let off = lock(&self.inner.off_for).contains(channel);
        if off || self.inner.off.load(Ordering::SeqCst) { Err(SignError::Off) } else { Ok(()) }
    }

    fn point_now(&self, request: PointRequest) -> Result<Option<PublicKey>, SignError> {
        self.is_on(&request.channel)?;
        let seed = lock(&self.inner.seeds).get(&request.channel).copied();
        let Some(seed) = seed else { return Ok(None) };
        let secret = generate_from_seed(&seed, request.number).ok_or(SignError::NoSuchKey)?;
        let point = per_commitment_point(&self.inner.secp, &secret);
        point.map(Some).map_err(|_| SignError::NoSuchKey)
    }

    fn sign_now(&self, request: &SignRequest) -> Result<ecdsa::Signature, SignError> {
        self.is_on(&request.channel)?;
        let secrets = lock(&self.inner.channels).get(&request.channel).cloned();
        let secrets = secrets.ok_or(SignError::UnknownChannel(request.channel))?;
        let secp = &self.inner.secp;
        let of_splice = match request.key {
            SigningKey::Funding(key) => {
                lock(&self.inner.fundings).get(&(request.channel, key)).copied()
            }
            _ => None,
        };
        let key = of_splice.map_or_else(|| secrets.signing_key(&request.key, secp), Ok);
        let key = key.map_err(|_| SignError::NoSuchKey)?;
        let spent = request.prevouts.get(request.input).ok_or(SignError::Inconsistent)?;
        let script = request.script.as_deref();
        let message = sighash(&request.transaction, request.input, spent, script, request.sighash)
            .map_err(|_| SignError::Inconsistent)?;
        let spends = request.transaction.input.get(request.input).map(|i| i.previous_output);
        let spoiled = spends.is_some_and(|spends| lock(&self.inner.spoiled).contains(&spends));
        let message = if spoiled { Message::from_digest([0x11; 32]) } else { message };
        // libsecp256k1 signs with low S.
        Ok(secp.sign_ecdsa(&message, &key))
    }
}

impl Signer for MemorySigner {
    type Error = SignError;

    async fn sign(&self, request: SignRequest) -> Result<ecdsa::Signature, SignError> {
        self.sign_now(&request)
    }

    async fn point(&self, request: PointRequest) -> Result<Option<PublicKey>, SignError> {
        self.point_now(request)
    }
}
