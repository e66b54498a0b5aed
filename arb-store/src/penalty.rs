//! The table `penalty`: HTLCs that left the last live commitment, several in one value.
//!
//! A chunk that is full fills one page of LMDB's by itself. Were each HTLC a value, those of a
//! channel would go between what it has and what the channel behind it has: LMDB splits such a page
//! in the middle, and its first half gets nothing more.
use crate::StoreError;
use crate::layout::{Table, damaged, slot_key, unseal};
use arb_core::codec::Record;
use arb_core::facts::HtlcRecord;
use arb_core::ids::{HtlcId, Side, Slot};
use arb_core::log::Damaged;
use heed::RoTxn;

/// Longest chunk, without its checksum: with it, what is left of a page behind its header.
const LONGEST: usize = 4096 - 16 - 4;
/// Stands in the key of a chunk where format 1 has the offerer of an HTLC.
const CHUNK: u8 = 2;

/// HTLCs of one channel, one after the other.
pub(crate) struct Chunk {
    number: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Chunk {
    /// The channel's last chunk, or its first one, empty.
    pub(crate) fn last(table: Table, txn: &RoTxn<'_>, slot: Slot) -> Result<Self, StoreError> {
        let last = table.get_lower_than_or_equal_to(txn, &chunk_key(slot, u64::MAX))?;
        let of_slot = last.and_then(|(key, value)| Some((number_of(key, slot)?, key, value)));
        let Some((number, key, value)) = of_slot else {
            return Ok(Self { number: 0, bytes: Vec::new() });
        };
        let chunk = |bytes: &[u8]| Self { number, bytes: bytes.to_vec() };
        // What cannot be read is kept as it is.
        let behind = |_| Self { number, bytes: Vec::new() }.next();
        Ok(unseal(key, value).map_or_else(behind, chunk))
    }

    /// The one behind it, empty.
    pub(crate) const fn next(&self) -> Self {
        Self { number: self.number.saturating_add(1), bytes: Vec::new() }
    }

    pub(crate) fn key(&self, slot: Slot) -> Vec<u8> {
        chunk_key(slot, self.number)
    }

    /// Whether an HTLC goes into it; one does in any case.
    pub(crate) fn has_room_for(&self, htlc: &[u8]) -> bool {
        self.bytes.is_empty() || self.bytes.len().saturating_add(htlc.len()) <= LONGEST
    }
}

fn chunk_key(slot: Slot, number: u64) -> Vec<u8> {
    [&slot_key(slot)[..], &[CHUNK], &number.to_be_bytes()].concat()
}

/// The number in the key of a chunk of this channel.
fn number_of(key: &[u8], slot: Slot) -> Option<u64> {
    let number = key.strip_prefix(&slot_key(slot))?.strip_prefix(&[CHUNK])?;
    number.try_into().ok().map(u64::from_be_bytes)
}

/// An HTLC as it stands in a chunk: offerer, id, length of the record, record.
pub(crate) fn item(id: HtlcId, record: &HtlcRecord) -> Vec<u8> {
    let record = record.encode();
    let offerer = match id.offerer {
        Side::Local => 0,
        Side::Remote => 1,
    };
    // A record has fewer than two hundred bytes, whatever it says.
    let length = u16::try_from(record.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[offerer][..], &id.id.to_be_bytes(), &length, &record].concat()
}

/// Hands over every HTLC of a value, in the order in which they were told.
pub(crate) fn each(
    key: &[u8],
    bytes: &[u8],
    each: &mut impl FnMut(HtlcId, HtlcRecord),
) -> Result<(), Damaged> {
    let decode =
        |record| HtlcRecord::decode(record).map_err(|error| damaged(key, &error.to_string()));
    let behind_slot = key.get(4..).unwrap_or_default();
    if behind_slot.first() != Some(&CHUNK) {
        // Of format 1.
        let (id, rest) = split_id(behind_slot).ok_or_else(|| damaged(key, "no HTLC"))?;
        return if rest.is_empty() {
            decode(bytes).map(|record| each(id, record))
        } else {
            Err(damaged(key, "no HTLC"))
        };
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        let (id, record, behind) =
            split_item(rest).ok_or_else(|| damaged(key, "an HTLC is cut short"))?;
        each(id, decode(record)?);
        rest = behind;
    }
    Ok(())
}

fn split_item(bytes: &[u8]) -> Option<(HtlcId, &[u8], &[u8])> {
    let (id, rest) = split_id(bytes)?;
    let (length, rest) = rest.split_first_chunk()?;
    let (record, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    Some((id, record, rest))
}

fn split_id(bytes: &[u8]) -> Option<(HtlcId, &[u8])> {
    let (offerer, rest) = bytes.split_first()?;
    let offerer = match offerer {
        0 => Side::Local,
        1 => Side::Remote,
        _ => return None,
    };
    let (id, rest) = rest.split_first_chunk()?;
    Some((HtlcId { offerer, id: u64::from_be_bytes(*id) }, rest))
}
