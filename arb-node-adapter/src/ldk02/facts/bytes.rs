//! LDK's serialised records, read to the last byte: what is not understood is refused.
use lightning::util::ser::{CollectionLength, Readable};
use std::collections::BTreeMap;

/// Bytes are not what this version of LDK writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// What is left of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<Self, Unreadable> {
        let (taken, rest) =
            self.0.split_at_checked(length).ok_or(Unreadable("the record is too short"))?;
        self.0 = rest;
        Ok(Self(taken))
    }

    /// A value that LDK can read by itself.
    pub(super) fn value<T: Readable>(&mut self) -> Result<T, Unreadable> {
        T::read(&mut self.0).map_err(|_| Unreadable("a value is not what it should be"))
    }

    /// `BigSize` of BOLT 1.
    pub(super) fn big_size(&mut self) -> Result<u64, Unreadable> {
        self.value::<lightning::util::ser::BigSize>().map(|size| size.0)
    }

    /// As many bytes as the number before them says.
    pub(super) fn prefixed(&mut self) -> Result<Self, Unreadable> {
        let length = self.big_size()?;
        self.take(usize::try_from(length).map_err(|_| Unreadable("a length is out of range"))?)
    }

    /// An optional value: its length plus one comes first, zero if it is absent.
    pub(super) fn option(&mut self) -> Result<Option<Self>, Unreadable> {
        let Some(length) = self.big_size()?.checked_sub(1) else { return Ok(None) };
        let length = usize::try_from(length).map_err(|_| Unreadable("a length is out of range"))?;
        self.take(length).map(Some)
    }

    /// A structure: its fields by type.
    pub(super) fn fields(&mut self) -> Result<Fields<'a>, Unreadable> {
        let mut stream = self.prefixed()?;
        let mut fields = BTreeMap::new();
        while !stream.is_empty() {
            let kind = stream.big_size()?;
            let value = stream.prefixed()?;
            if fields.last_key_value().is_some_and(|(last, _)| *last >= kind) {
                return Err(Unreadable("fields are not ascending"));
            }
            fields.insert(kind, value);
        }
        Ok(Fields(fields))
    }

    /// Reads until nothing is left.
    pub(super) fn all<T>(
        mut self,
        one: impl Fn(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let mut list = Vec::new();
        while !self.is_empty() {
            list.push(one(&mut self)?);
        }
        Ok(list)
    }

    /// As many values as the collection's length before them says.
    pub(super) fn counted<T>(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let length = self.value::<CollectionLength>()?.0;
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(one(self)?);
        }
        Ok(list)
    }

    pub(super) const fn end(self) -> Result<(), Unreadable> {
        if self.is_empty() { Ok(()) } else { Err(Unreadable("bytes are left over")) }
    }

    /// Reads one structure that fills all bytes.
    pub(super) fn structure<T>(
        mut self,
        read: impl FnOnce(&mut &'a [u8]) -> Option<T>,
    ) -> Result<T, Unreadable> {
        let value = read(&mut self.0).ok_or(Unreadable("a structure cannot be read"))?;
        self.end()?;
        Ok(value)
    }

    /// Reads one value that fills all bytes.
    pub(super) fn whole<T: Readable>(mut self) -> Result<T, Unreadable> {
        let value = self.value()?;
        self.end()?;
        Ok(value)
    }
}

/// Fields of a structure, until they are asked for.
#[derive(Debug)]
pub(super) struct Fields<'a>(BTreeMap<u64, Bytes<'a>>);

impl<'a> Fields<'a> {
    pub(super) fn optional(&mut self, kind: u64) -> Option<Bytes<'a>> {
        self.0.remove(&kind)
    }

    pub(super) fn required(&mut self, kind: u64) -> Result<Bytes<'a>, Unreadable> {
        self.optional(kind).ok_or(Unreadable("a field is missing"))
    }

    /// Drops a field that is known and of no use here.
    pub(super) fn skip(&mut self, kind: u64) {
        self.0.remove(&kind);
    }

    /// Those that were not asked for yet.
    pub(super) fn rest(&self) -> impl Iterator<Item = (u64, Bytes<'a>)> {
        self.0.iter().map(|(kind, value)| (*kind, *value))
    }

    /// Nothing may be left that nobody asked for.
    pub(super) fn end(self) -> Result<(), Unreadable> {
        if self.0.is_empty() { Ok(()) } else { Err(Unreadable("a field is not known")) }
    }
}

/// Bytes that are written in hexadecimal, in lines.
#[cfg(test)]
pub(super) fn unhexed(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|of| of as u8).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}
