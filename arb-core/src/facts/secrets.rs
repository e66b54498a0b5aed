//! Storage of revealed per-commitment secrets in 49 slots (BOLT 3).

/// The secrets that the peer revealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecretStore {}
