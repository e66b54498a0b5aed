//! Codec: the bytes of every stored record. A version byte, then a TLV stream as in BOLT 1:
//! strictly ascending types, unknown odd ones are skipped, unknown even ones are an error.
mod change;
mod facts;
mod field;
mod htlc;
mod log;
mod notice;
#[cfg(test)]
mod tests;
mod tlv;
mod transaction;

use alloc::fmt;
use alloc::vec::Vec;
use tlv::{Body, Reader, TlvReader, TlvWriter};

/// A record of the store. Bytes that are read back may be anything: decoding never panics and
/// allocates no more than a small multiple of its input.
pub trait Record: Sized {
    /// Version of the encoding that [`Self::encode`] writes.
    const VERSION: u8;

    /// The record's bytes. Equal records have equal bytes.
    fn encode(&self) -> Vec<u8>;

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no record of this type and version. They should be kept: a newer release
    /// may understand them.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end within a field.
    Truncated,
    /// The version byte is not one that this release reads.
    UnknownVersion(u8),
    /// A type that must be understood is not.
    UnknownType(u64),
    /// Types are not strictly ascending.
    Order,
    /// A number is not in its shortest form.
    NotMinimal,
    /// A field that must be there is not.
    Missing(u64),
    /// Bytes are left over within a field.
    TrailingBytes,
    /// A field holds no value of its kind.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the bytes end within a field"),
            Self::UnknownVersion(version) => write!(f, "unknown version {version}"),
            Self::UnknownType(kind) => write!(f, "unknown even type {kind}"),
            Self::Order => f.write_str("types are not strictly ascending"),
            Self::NotMinimal => f.write_str("a number is not in its shortest form"),
            Self::Missing(kind) => write!(f, "type {kind} is missing"),
            Self::TrailingBytes => f.write_str("bytes are left over within a field"),
            Self::Invalid(what) => write!(f, "not a valid {what}"),
        }
    }
}

impl core::error::Error for DecodeError {}

/// The version byte and the fields.
fn encode_record<T: Body>(version: u8, record: &T) -> Vec<u8> {
    let mut writer = TlvWriter::after(version, T::USUAL);
    record.write(&mut writer);
    writer.finish()
}

/// Checks the version byte and reads the fields.
fn decode_record<T: Body>(version: u8, bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let [found] = reader.array()?;
    if found != version {
        return Err(DecodeError::UnknownVersion(found));
    }
    let mut stream = TlvReader::new(reader.rest());
    let record = T::read(&mut stream)?;
    stream.finish()?;
    Ok(record)
}
