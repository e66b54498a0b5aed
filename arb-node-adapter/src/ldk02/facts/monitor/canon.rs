//! A monitor's bytes in an order that does not depend on LDK's hash maps.
use crate::ldk02::facts::bytes::{Bytes, Unreadable};

/// The bytes read so far, with the entries of LDK's hash maps in order.
pub(super) struct Canon<'a> {
    pub(super) parts: Vec<u8>,
    /// What is not among them yet.
    rest: &'a [u8],
}

impl<'a> Canon<'a> {
    /// Of a record of which nothing is read yet.
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self { parts: Vec::new(), rest: bytes }
    }

    /// All up to where `all` is.
    pub(super) fn upto(&mut self, all: &Bytes<'a>) {
        let taken = self.rest.len().saturating_sub(all.0.len());
        self.parts.extend(self.rest.get(..taken).unwrap_or_default());
        self.rest = all.0;
    }

    /// As many entries of a hash map as stand there.
    pub(super) fn entries<T>(
        &mut self,
        all: &mut Bytes<'a>,
        count: u64,
        mut one: impl FnMut(&mut Bytes<'a>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        self.upto(all);
        let (mut found, mut raw) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let before = all.0;
            found.push(one(all)?);
            raw.push(before.get(..before.len().saturating_sub(all.0.len())).unwrap_or_default());
        }
        self.parts_of(raw);
        self.rest = all.0;
        Ok(found)
    }

    fn parts_of(&mut self, mut raw: Vec<&[u8]>) {
        raw.sort_unstable();
        self.parts.extend(raw.concat());
    }

    /// A field that is a hash map.
    pub(super) fn field<T>(
        &mut self,
        mut field: Bytes<'a>,
        one: impl Fn(&mut Bytes<'a>) -> Result<T, Unreadable>,
    ) -> Result<Vec<T>, Unreadable> {
        let mut raw = Vec::new();
        let found = field.counted(|bytes| {
            let before = bytes.0;
            let value = one(bytes)?;
            let taken = before.len().saturating_sub(bytes.0.len());
            raw.push(before.get(..taken).unwrap_or_default());
            Ok(value)
        })?;
        field.end()?;
        self.parts_of(raw);
        Ok(found)
    }
}
