//! Transactions, in consensus encoding. Counts are checked against the bytes that are there
//! before anything is allocated for them.
use super::DecodeError;
use super::tlv::{Field, Reader};
use crate::units::Tx;
use alloc::vec::Vec;
use bitcoin::Transaction;
use bitcoin::consensus::encode;

const INVALID: DecodeError = DecodeError::Invalid("transaction");
/// Bytes of an input with an empty script, and of an output with one.
const LEAST_INPUT: usize = 41;
const LEAST_OUTPUT: usize = 9;

impl Field for Transaction {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&encode::serialize(self));
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = input.rest();
        walk(&mut Reader::new(bytes))?;
        encode::deserialize(bytes).map_err(|_| INVALID)
    }
}

impl Field for Tx {
    fn put(&self, out: &mut Vec<u8>) {
        self.transaction().put(out);
    }
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Transaction::take(input).map(Self::from)
    }
}

/// Walks a transaction without allocating: every count must have its bytes.
fn walk(input: &mut Reader<'_>) -> Result<(), DecodeError> {
    input.take(4)?;
    let mut inputs = count(input, LEAST_INPUT)?;
    // BIP 144: no inputs stands for the marker byte, and a flag follows.
    let segwit = inputs == 0;
    if segwit {
        input.take(1)?;
        inputs = count(input, LEAST_INPUT)?;
    }
    for _ in 0..inputs {
        input.take(36)?;
        skip_bytes(input)?;
        input.take(4)?;
    }
    for _ in 0..count(input, LEAST_OUTPUT)? {
        input.take(8)?;
        skip_bytes(input)?;
    }
    if segwit {
        for _ in 0..inputs {
            for _ in 0..count(input, 1)? {
                skip_bytes(input)?;
            }
        }
    }
    input.take(4)?;
    Ok(())
}

/// A count of things that take at least `least` bytes each.
fn count(input: &mut Reader<'_>, least: usize) -> Result<usize, DecodeError> {
    let count = usize::try_from(compact_size(input)?).map_err(|_| INVALID)?;
    match count.checked_mul(least) {
        Some(bytes) if bytes <= input.remaining() => Ok(count),
        _ => Err(INVALID),
    }
}

fn skip_bytes(input: &mut Reader<'_>) -> Result<(), DecodeError> {
    let length = count(input, 1)?;
    input.take(length)?;
    Ok(())
}

fn compact_size(input: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let [first] = input.array()?;
    Ok(match first {
        0xff => u64::from_le_bytes(input.array()?),
        0xfe => u64::from(u32::from_le_bytes(input.array()?)),
        0xfd => u64::from(u16::from_le_bytes(input.array()?)),
        small => u64::from(small),
    })
}
