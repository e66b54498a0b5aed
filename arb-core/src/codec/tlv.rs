//! TLV streams: a writer, and a reader that asks for types in ascending order.
use super::DecodeError;
use alloc::vec::Vec;

/// Bytes that are left to read.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) const fn remaining(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or(DecodeError::Truncated)?;
        self.bytes = tail;
        Ok(head)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.bytes.split_first_chunk().ok_or(DecodeError::Truncated)?;
        self.bytes = tail;
        Ok(*head)
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.bytes)
    }

    /// A `bigsize` of BOLT 1.
    #[inline]
    pub(super) fn bigsize(&mut self) -> Result<u64, DecodeError> {
        match self.bytes {
            // Nearly all are one byte long.
            [short @ ..=0xfc, tail @ ..] => {
                self.bytes = tail;
                Ok(u64::from(*short))
            }
            _ => self.long_bigsize(),
        }
    }

    fn long_bigsize(&mut self) -> Result<u64, DecodeError> {
        let [first] = self.array()?;
        let (value, least) = match first {
            0xff => (u64::from_be_bytes(self.array()?), 0x1_0000_0000),
            0xfe => (u64::from(u32::from_be_bytes(self.array()?)), 0x1_0000),
            0xfd => (u64::from(u16::from_be_bytes(self.array()?)), 0xfd),
            small => (u64::from(small), 0),
        };
        if value < least { Err(DecodeError::NotMinimal) } else { Ok(value) }
    }

    /// A `bigsize` length and that many bytes.
    #[inline]
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.bigsize()?).map_err(|_| DecodeError::Truncated)?;
        self.take(length)
    }

    pub(super) const fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "each arm's range fits its type")]
fn put_bigsize(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfc => out.push(value as u8),
        0xfd..=0xffff => {
            out.push(0xfd);
            out.extend_from_slice(&(value as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(0xfe);
            out.extend_from_slice(&(value as u32).to_be_bytes());
        }
        _ => {
            out.push(0xff);
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

/// Makes the byte at `start` the length, a `bigsize`, of what stands behind it.
fn set_length(out: &mut Vec<u8>, start: usize) {
    let length = out.len().saturating_sub(start).saturating_sub(1) as u64;
    match u8::try_from(length) {
        Ok(short @ ..=0xfc) => {
            if let Some(byte) = out.get_mut(start) {
                *byte = short;
            }
        }
        _ => {
            let mut bytes = Vec::new();
            put_bigsize(&mut bytes, length);
            out.splice(start..=start, bytes);
        }
    }
}

/// Bytes with their length, a `bigsize`, in front.
pub(super) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_bigsize(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A value inside a TLV record. Whatever takes all the bytes that are left (scripts,
/// transactions) can only stand alone in its record; all else can stand in lists.
pub(super) trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(input: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

/// A TLV stream: what grows by new types.
pub(super) trait Body: Sized {
    /// Bytes that most have room in when they stand alone.
    const USUAL: usize = 128;
    fn write(&self, out: &mut TlvWriter);
    fn read(input: &mut TlvReader<'_>) -> Result<Self, DecodeError>;
}

/// Bytes of a body with their length in front: how bodies stand in lists.
pub(super) fn put_body<T: Body>(out: &mut Vec<u8>, body: &T) {
    let start = out.len();
    out.push(0);
    let mut stream = TlvWriter { out: core::mem::take(out) };
    body.write(&mut stream);
    *out = stream.out;
    set_length(out, start);
}

/// Reads what [`put_body`] wrote.
pub(super) fn take_body<T: Body>(input: &mut Reader<'_>) -> Result<T, DecodeError> {
    let mut stream = TlvReader::new(input.prefixed()?);
    let body = T::read(&mut stream)?;
    stream.finish()?;
    Ok(body)
}

/// Writes a TLV stream. Types must be given in ascending order.
#[derive(Default)]
pub(super) struct TlvWriter {
    out: Vec<u8>,
}

impl TlvWriter {
    /// A stream that follows a version byte, with room for so many bytes.
    pub(super) fn after(version: u8, room: usize) -> Self {
        let mut out = Vec::with_capacity(room);
        out.push(version);
        Self { out }
    }

    /// A record with what `put` writes.
    fn record(&mut self, kind: u64, put: impl FnOnce(&mut Self)) {
        put_bigsize(&mut self.out, kind);
        let start = self.out.len();
        // Nearly all values are short: then this byte is the length.
        self.out.push(0);
        put(self);
        set_length(&mut self.out, start);
    }

    pub(super) fn field<T: Field>(&mut self, kind: u64, value: &T) {
        self.record(kind, |writer| value.put(&mut writer.out));
    }

    pub(super) fn optional<T: Field>(&mut self, kind: u64, value: Option<&T>) {
        if let Some(value) = value {
            self.field(kind, value);
        }
    }

    pub(super) fn body<T: Body>(&mut self, kind: u64, value: &T) {
        self.stream(kind, |stream| value.write(stream));
    }

    /// A nested stream that has no type of its own.
    pub(super) fn stream(&mut self, kind: u64, write: impl FnOnce(&mut Self)) {
        self.record(kind, write);
    }

    /// Values one after the other; an empty list is left out.
    pub(super) fn list<'a, T: Field + 'a>(
        &mut self,
        kind: u64,
        values: impl IntoIterator<Item = &'a T>,
    ) {
        let mut values = values.into_iter().peekable();
        if values.peek().is_some() {
            self.record(kind, |writer| values.for_each(|value| value.put(&mut writer.out)));
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }
}

/// Reads a TLV stream. Types must be asked for in ascending order.
pub(super) struct TlvReader<'a> {
    input: Reader<'a>,
    last: Option<u64>,
}

/// A record, and what stands behind it.
struct Next<'a> {
    kind: u64,
    value: &'a [u8],
    behind: Reader<'a>,
}

impl<'a> TlvReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { input: Reader::new(bytes), last: None }
    }

    /// The next record, without moving past it.
    #[inline]
    fn peek(&self) -> Result<Option<Next<'a>>, DecodeError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let mut behind = self.input.clone();
        let kind = behind.bigsize()?;
        if self.last.is_some_and(|last| kind <= last) {
            return Err(DecodeError::Order);
        }
        let value = behind.prefixed()?;
        Ok(Some(Next { kind, value, behind }))
    }

    /// Moves past a record.
    #[inline]
    fn pass(&mut self, next: Next<'a>) -> &'a [u8] {
        self.last = Some(next.kind);
        self.input = next.behind;
        next.value
    }

    /// The record of type `kind` if there is one, without moving past it, but past unknown odd
    /// types in front of it.
    #[inline]
    fn seek(&mut self, kind: u64) -> Result<Option<Next<'a>>, DecodeError> {
        while let Some(next) = self.peek()? {
            if next.kind >= kind {
                return Ok((next.kind == kind).then_some(next));
            }
            refuse_even(next.kind)?;
            self.pass(next);
        }
        Ok(None)
    }

    /// The value of type `kind`, passing over unknown odd types in front of it.
    #[inline]
    fn find(&mut self, kind: u64) -> Result<Option<&'a [u8]>, DecodeError> {
        Ok(self.seek(kind)?.map(|next| self.pass(next)))
    }

    /// The next record, whatever its type; odd ones are unknown and skipped.
    pub(super) fn variant(&mut self) -> Result<(u64, TlvReader<'a>), DecodeError> {
        while let Some(next) = self.peek()? {
            let kind = next.kind;
            let value = self.pass(next);
            if kind & 1 == 0 {
                return Ok((kind, TlvReader::new(value)));
            }
        }
        Err(DecodeError::Missing(0))
    }

    #[inline]
    pub(super) fn field<T: Field>(&mut self, kind: u64) -> Result<T, DecodeError> {
        whole(self.find(kind)?.ok_or(DecodeError::Missing(kind))?)
    }

    #[inline]
    pub(super) fn optional<T: Field>(&mut self, kind: u64) -> Result<Option<T>, DecodeError> {
        let Some(value) = self.find(kind)? else { return Ok(None) };
        whole(value).map(Some)
    }

    pub(super) fn body<T: Body>(&mut self, kind: u64) -> Result<T, DecodeError> {
        let value = self.find(kind)?.ok_or(DecodeError::Missing(kind))?;
        let mut stream = TlvReader::new(value);
        let body = T::read(&mut stream)?;
        stream.finish()?;
        Ok(body)
    }

    pub(super) fn optional_body<T: Body>(&mut self, kind: u64) -> Result<Option<T>, DecodeError> {
        match self.seek(kind)? {
            Some(_) => self.body(kind).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn list<T: Field>(&mut self, kind: u64) -> Result<Vec<T>, DecodeError> {
        let mut input = Reader::new(self.find(kind)?.unwrap_or_default());
        let mut values = Vec::new();
        while !input.is_empty() {
            values.push(T::take(&mut input)?);
        }
        Ok(values)
    }

    /// The rest may hold unknown odd types only.
    pub(super) fn finish(mut self) -> Result<(), DecodeError> {
        while let Some(next) = self.peek()? {
            refuse_even(next.kind)?;
            self.pass(next);
        }
        Ok(())
    }
}

/// A value that all bytes are of.
#[inline]
fn whole<T: Field>(value: &[u8]) -> Result<T, DecodeError> {
    let mut input = Reader::new(value);
    let field = T::take(&mut input)?;
    input.finish()?;
    Ok(field)
}

const fn refuse_even(kind: u64) -> Result<(), DecodeError> {
    if kind & 1 == 0 { Err(DecodeError::UnknownType(kind)) } else { Ok(()) }
}
