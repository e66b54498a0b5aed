//! Storage of revealed per-commitment secrets in 49 slots (BOLT 3).
use crate::ids::PerCommitmentSecret;
use alloc::vec::Vec;

/// Slots of the store.
const SLOTS: usize = 49;

/// The secrets that the peer revealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretStore {
    slots: Vec<(u64, PerCommitmentSecret)>,
}

/// More secrets than slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets;

impl SecretStore {
    /// The filled slots: index of each secret, and the secret.
    pub fn slots(&self) -> impl Iterator<Item = (u64, PerCommitmentSecret)> {
        self.slots.iter().copied()
    }

    /// A store with these slots filled.
    ///
    /// # Errors
    /// There are more than slots.
    pub fn from_slots(
        slots: impl IntoIterator<Item = (u64, PerCommitmentSecret)>,
    ) -> Result<Self, TooManySecrets> {
        let slots: Vec<_> = slots.into_iter().collect();
        if slots.len() > SLOTS { Err(TooManySecrets) } else { Ok(Self { slots }) }
    }
}
