//! Identities: channels, HTLCs, payment hashes. An HTLC is never identified by hash and amount.
use alloc::fmt;
use bitcoin::hashes::{Hash, sha256};

/// Channel id of BOLT 2, opaque here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub [u8; 32]);

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Short channel id of BOLT 7, or an alias of it: block height, index in the block, output index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortChannelId(pub u64);

impl fmt::Debug for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ShortChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.0 >> 40, (self.0 >> 16) & 0xff_ffff, self.0 & 0xffff)
    }
}

/// A channel's short key in the store and in the index: stays with the channel until forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A party of the channel. `Local` is always this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// This node.
    Local,
    /// The peer.
    Remote,
}

impl Side {
    /// The other party.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

/// An HTLC of one channel: who offered it, and the offerer's counter (BOLT 2 `id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcId {
    /// Who offered it.
    pub offerer: Side,
    /// The offerer's counter.
    pub id: u64,
}

/// An HTLC of any channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HtlcRef {
    /// The channel.
    pub channel: ChannelId,
    /// The HTLC in it.
    pub htlc: HtlcId,
}

/// SHA-256 of a payment preimage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaymentHash(pub [u8; 32]);

/// A payment preimage. Its bytes never reach a log: `Debug` hides them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Preimage(pub [u8; 32]);

impl Preimage {
    /// The payment hash that this preimage opens.
    #[must_use]
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(sha256::Hash::hash(&self.0).to_byte_array())
    }
}

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(..)")
    }
}

/// A revealed per-commitment secret (BOLT 3). Its bytes never reach a log: `Debug` hides them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PerCommitmentSecret(pub [u8; 32]);

impl fmt::Debug for PerCommitmentSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PerCommitmentSecret(..)")
    }
}
