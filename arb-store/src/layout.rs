//! Layout: databases, keys, checksums, and the record that says what the store is.
use crate::StoreError;
use arb_core::codec::Record;
use arb_core::ids::{ChannelId, Slot};
use arb_core::log::Damaged;
use arb_core::units::BlockHeight;
use heed::types::Bytes;
use heed::{Database, RoTxn};

/// The format that this release writes. It reads format 1 as well, which keeps every HTLC of
/// `penalty` under a key of its own.
pub(crate) const FORMAT: u16 = 2;
/// Features that this release knows: none yet.
pub(crate) const FEATURES: u64 = 0;
/// Databases that a folder may hold; more than there are, so that a newer store can be opened
/// far enough to be refused.
pub(crate) const MAX_DATABASES: u32 = 32;
/// Names of the databases, in the order of [`Databases::new`].
pub(crate) const NAMES: [&str; 10] =
    ["meta", "channels", "facts", "penalty", "log", "chain", "subs", "gone", "bytes", "aside"];
/// Those that a store may lack, if it was created before there was such a thing.
pub(crate) const LATER: [&str; 2] = ["bytes", "aside"];

pub(crate) const FORMAT_KEY: &[u8] = b"format";
pub(crate) const NEXT_SLOT_KEY: &[u8] = b"next";

/// Stands for all channels in front of a subscriber's name; no channel has this slot.
pub(crate) const ALL_CHANNELS: Slot = Slot(u32::MAX);

const CHECKSUM: usize = 4;

pub(crate) type Table = Database<'static, Bytes, Bytes>;

/// The databases.
#[derive(Clone, Copy)]
pub(crate) struct Databases {
    /// What the store is; the next slot.
    pub(crate) meta: Table,
    /// Slot -> `ChannelEntry`: the index that is read at start-up.
    pub(crate) channels: Table,
    /// Slot -> `ChannelFacts`.
    pub(crate) facts: Table,
    /// Slot, 2, number -> a chunk of HTLCs; in format 1: slot, offerer, id -> `HtlcRecord`.
    pub(crate) penalty: Table,
    /// Slot, sequence number -> `Change`.
    pub(crate) log: Table,
    /// Height -> `BlockRef`.
    pub(crate) chain: Table,
    /// Slot, name -> `SubscriberState`; [`ALL_CHANNELS`], name -> a subscription to all channels.
    pub(crate) subs: Table,
    /// Slots of forgotten channels whose penalty data and log are still being deleted.
    pub(crate) gone: Table,
    /// Folder, zero, name -> bytes that are not the arbiter's.
    pub(crate) bytes: Table,
    /// Slots of channels that are set aside. That there is a record counts, not what is in it.
    pub(crate) aside: Table,
}

impl Databases {
    pub(crate) const fn new(tables: [Table; 10]) -> Self {
        let [meta, channels, facts, penalty, log, chain, subs, gone, bytes, aside] = tables;
        Self { meta, channels, facts, penalty, log, chain, subs, gone, bytes, aside }
    }
}

pub(crate) const fn slot_key(slot: Slot) -> [u8; 4] {
    slot.0.to_be_bytes()
}

pub(crate) fn slot_of(key: &[u8]) -> Option<Slot> {
    key.first_chunk().map(|bytes| Slot(u32::from_be_bytes(*bytes)))
}

pub(crate) fn log_key(slot: Slot, sequence: u64) -> Vec<u8> {
    [&slot_key(slot)[..], &sequence.to_be_bytes()].concat()
}

pub(crate) fn sequence_of(key: &[u8]) -> Option<u64> {
    key.get(4..)?.try_into().ok().map(u64::from_be_bytes)
}

pub(crate) const fn height_key(height: BlockHeight) -> [u8; 4] {
    height.0.to_be_bytes()
}

pub(crate) fn subscriber_key(slot: Slot, name: &str) -> Vec<u8> {
    [&slot_key(slot)[..], name.as_bytes()].concat()
}

/// A value as it is stored: the bytes, then the CRC-32C of key and bytes.
pub(crate) fn seal(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.len() + CHECKSUM);
    value.extend_from_slice(bytes);
    value.extend_from_slice(&checksum(key, bytes).to_be_bytes());
    value
}

/// The bytes of a stored value.
pub(crate) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (bytes, sum) = value
        .split_last_chunk::<CHECKSUM>()
        .ok_or_else(|| damaged(key, "the value is too short"))?;
    if u32::from_be_bytes(*sum) == checksum(key, bytes) {
        Ok(bytes)
    } else {
        Err(damaged(key, "the checksum does not match"))
    }
}

fn checksum(key: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), bytes)
}

/// The record in a stored value.
pub(crate) fn decode<T: Record>(key: &[u8], value: &[u8]) -> Result<T, Damaged> {
    T::decode(unseal(key, value)?).map_err(|error| damaged(key, &error.to_string()))
}

pub(crate) fn damaged(key: &[u8], why: &str) -> Damaged {
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    Damaged { what: format!("key {key}: {why}") }
}

/// The channel id in a value of `channels` whose checksum does not match, as good as it can be
/// read: it stands first in the entry, behind the version and its own type and length.
pub(crate) fn id_in_damaged_entry(value: &[u8]) -> ChannelId {
    let mut id = [0; 32];
    id.iter_mut().zip(value.iter().skip(3)).for_each(|(to, from)| *to = *from);
    ChannelId(id)
}

/// What the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) format: u16,
    pub(crate) features: u64,
    pub(crate) identity: [u8; 16],
}

impl Meta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let format = self.format.to_be_bytes();
        seal(FORMAT_KEY, &[&format[..], &self.features.to_be_bytes(), &self.identity].concat())
    }

    /// Reads the record. The format stands first in every release, and is judged before the rest
    /// is understood.
    pub(crate) fn decode(value: &[u8]) -> Result<Self, StoreError> {
        let (format, _) = value.split_first_chunk().ok_or(StoreError::DamagedMeta)?;
        let format = u16::from_be_bytes(*format);
        if format > FORMAT {
            return Err(StoreError::NewerFormat { found: format, known: FORMAT });
        }
        let bytes = unseal(FORMAT_KEY, value).map_err(|_| StoreError::DamagedMeta)?;
        let rest = bytes.get(2..).and_then(|rest| rest.split_first_chunk());
        let (features, identity) = rest.ok_or(StoreError::DamagedMeta)?;
        let features = u64::from_be_bytes(*features);
        let unknown = features & !FEATURES;
        if unknown != 0 {
            return Err(StoreError::UnknownFeatures { bits: unknown });
        }
        let identity = identity.try_into().map_err(|_| StoreError::DamagedMeta)?;
        Ok(Self { format, features, identity })
    }
}

/// The lowest slot above every slot that was ever used.
pub(crate) fn next_slot(tables: &Databases, txn: &RoTxn<'_>) -> Result<u32, StoreError> {
    let Some(value) = tables.meta.get(txn, NEXT_SLOT_KEY)? else { return Ok(0) };
    let bytes = unseal(NEXT_SLOT_KEY, value).map_err(|_| StoreError::DamagedMeta)?;
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| StoreError::DamagedMeta)?))
}
