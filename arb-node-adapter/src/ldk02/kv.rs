//! `LdkStore`: a byte store of ours as LDK's key-value store, both of its traits.
use super::block::block;
use arb_core::log::{ByteRecord, Home};
use arb_core::ports::ByteStore;
use core::ops::Deref;
use lightning::io::{Error, ErrorKind};
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::{
    KVSTORE_NAMESPACE_KEY_ALPHABET as ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN as LONGEST, KVStore,
    KVStoreSync,
};

/// First part of the folders that LDK's records are in.
const ROOT: &str = "ldk";

/// A byte store as LDK's [`KVStoreSync`] and [`KVStore`]: with `LmdbBytes` of `arb-store`, LDK's
/// records and the arbiter's are in one environment.
///
/// A write is asked for when the method is called, before its future is polled, so that writes keep
/// their order. The synchronous methods block their thread until the medium has it. Nothing is ever
/// removed lazily.
#[derive(Clone, Debug)]
pub struct LdkStore<B>(pub B);

impl<B: ByteStore> LdkStore<B> {
    fn find(&self, first: &str, second: &str, key: &str) -> Result<Vec<u8>, Error> {
        let folder = checked(first, second, Some(key))?;
        match self.0.get(&folder, key) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Error::new(ErrorKind::NotFound, "no such key")),
            Err(error) => Err(failed(error)),
        }
    }

    fn all(&self, first: &str, second: &str) -> Result<Vec<String>, Error> {
        self.0.names(&checked(first, second, None)?).map_err(failed)
    }

    fn put(&self, first: &str, second: &str, key: &str, bytes: Vec<u8>) -> Result<B::Write, Error> {
        Ok(self.0.put(&checked(first, second, Some(key))?, key, bytes))
    }

    fn delete(&self, first: &str, second: &str, key: &str) -> Result<B::Write, Error> {
        Ok(self.0.delete(&checked(first, second, Some(key))?, key))
    }
}

fn failed(error: impl core::error::Error) -> Error {
    Error::new(ErrorKind::Other, error.to_string())
}

/// The folder of two namespaces, if they and the key are what LDK allows.
fn checked(first: &str, second: &str, key: Option<&str>) -> Result<String, Error> {
    let valid = |name: &str| name.len() <= LONGEST && name.chars().all(|c| ALPHABET.contains(c));
    let named = key.is_none_or(|key| !key.is_empty());
    let nested = !first.is_empty() || second.is_empty();
    let all = [first, second, key.unwrap_or_default()];
    if named && nested && all.into_iter().all(valid) {
        // Not a letter of LDK's.
        Ok(format!("{ROOT}/{first}/{second}"))
    } else {
        Err(Error::new(ErrorKind::InvalidInput, "a namespace or key is not allowed"))
    }
}

/// A value to be written to LDK's key-value store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvWrite {
    /// First namespace.
    pub first: String,
    /// Second namespace.
    pub second: String,
    /// Key.
    pub key: String,
    /// Value.
    pub bytes: Vec<u8>,
}

/// LDK's key-value store, asked to write several values at once.
pub trait WriteAll: KVStoreSync {
    /// Writes values in this order: what a crash leaves of them is a beginning of the list. They are
    /// asked for when the method is called, and durable when the future resolves; what is
    /// asked for meanwhile may share a commit with them.
    fn write_all(&self, writes: Vec<KvWrite>) -> AsyncResult<'static, (), Error>;

    /// Writes a value, as [`KVStoreSync::write`] does, without which our commitment cannot be published: where space is kept for
    /// when the disk is full, it may be used ([`ByteStore::put_reserved`]).
    ///
    /// # Errors
    /// The store takes nothing at the moment.
    fn write_reserved(&self, write: KvWrite) -> Result<(), Error> {
        self.write(&write.first, &write.second, &write.key, write.bytes)
    }

    /// Removes values, in no order. That is asked for when the method is called, and durable when the future resolves; it
    /// may share a commit. That there is no such value is no error.
    fn remove_all(
        &self,
        first: &str,
        second: &str,
        keys: Vec<String>,
    ) -> AsyncResult<'static, (), Error> {
        let done = keys.iter().try_for_each(|key| self.remove(first, second, key, true));
        Box::pin(async move { done })
    }

    /// The same values as records that a change log with this home writes with its own, to be found here
    /// afterwards. Given back if they are kept elsewhere, or cannot be named so: then [`WriteAll::write_all`] is the way.
    ///
    /// # Errors
    /// They are not kept together.
    fn beside(&self, home: Home, writes: Vec<KvWrite>) -> Result<Vec<ByteRecord>, Vec<KvWrite>> {
        let _ = home;
        Err(writes)
    }
}

impl<B: ByteStore> WriteAll for LdkStore<B> {
    fn write_reserved(&self, write: KvWrite) -> Result<(), Error> {
        let folder = checked(&write.first, &write.second, Some(&write.key))?;
        block(self.0.put_reserved(&folder, &write.key, write.bytes)).map_err(failed)
    }

    fn beside(&self, home: Home, writes: Vec<KvWrite>) -> Result<Vec<ByteRecord>, Vec<KvWrite>> {
        let folder = |of: &KvWrite| checked(&of.first, &of.second, Some(&of.key));
        let folders = writes.iter().map(folder).collect::<Result<Vec<_>, _>>();
        match folders {
            Ok(folders) if self.0.home() == Some(home) => {
                let record =
                    |(folder, KvWrite { key: name, bytes, .. })| ByteRecord { folder, name, bytes };
                Ok(folders.into_iter().zip(writes).map(record).collect())
            }
            _ => Err(writes),
        }
    }

    fn remove_all(
        &self,
        first: &str,
        second: &str,
        keys: Vec<String>,
    ) -> AsyncResult<'static, (), Error> {
        // All are asked for before any is awaited: what waits for the writer shares a commit.
        let removed: Vec<_> = keys.iter().map(|key| self.delete(first, second, key)).collect();
        Box::pin(async move {
            for removed in removed {
                removed?.await.map_err(failed)?;
            }
            Ok(())
        })
    }

    fn write_all(&self, writes: Vec<KvWrite>) -> AsyncResult<'static, (), Error> {
        let put = |of: KvWrite| self.put(&of.first, &of.second, &of.key, of.bytes);
        let writes: Vec<_> = writes.into_iter().map(put).collect();
        Box::pin(async move {
            for write in writes {
                write?.await.map_err(failed)?;
            }
            Ok(())
        })
    }
}

/// Any other store of the node's as [`WriteAll`]: one value after the other, each of them durable
/// before the next, and the calling thread waits for all.
#[derive(Clone, Debug)]
pub struct OneByOne<K>(pub K);

impl<K> KVStoreSync for OneByOne<K>
where
    K: Deref<Target: KVStoreSync>,
{
    fn read(&self, first: &str, second: &str, key: &str) -> Result<Vec<u8>, Error> {
        self.0.read(first, second, key)
    }

    fn write(&self, first: &str, second: &str, key: &str, buf: Vec<u8>) -> Result<(), Error> {
        self.0.write(first, second, key, buf)
    }

    fn remove(&self, first: &str, second: &str, key: &str, lazy: bool) -> Result<(), Error> {
        self.0.remove(first, second, key, lazy)
    }

    fn list(&self, first: &str, second: &str) -> Result<Vec<String>, Error> {
        self.0.list(first, second)
    }
}

impl<K> WriteAll for OneByOne<K>
where
    K: Deref<Target: KVStoreSync>,
{
    fn write_all(&self, writes: Vec<KvWrite>) -> AsyncResult<'static, (), Error> {
        let mut writes = writes.into_iter();
        let done = writes.try_for_each(|of| self.0.write(&of.first, &of.second, &of.key, of.bytes));
        Box::pin(async move { done })
    }
}

impl<B: ByteStore> KVStoreSync for LdkStore<B> {
    fn read(&self, first: &str, second: &str, key: &str) -> Result<Vec<u8>, Error> {
        self.find(first, second, key)
    }

    fn write(&self, first: &str, second: &str, key: &str, buf: Vec<u8>) -> Result<(), Error> {
        block(self.put(first, second, key, buf)?).map_err(failed)
    }

    fn remove(&self, first: &str, second: &str, key: &str, _: bool) -> Result<(), Error> {
        block(self.delete(first, second, key)?).map_err(failed)
    }

    fn list(&self, first: &str, second: &str) -> Result<Vec<String>, Error> {
        self.all(first, second)
    }
}

impl<B: ByteStore> KVStore for LdkStore<B> {
    fn read(&self, first: &str, second: &str, key: &str) -> AsyncResult<'static, Vec<u8>, Error> {
        let found = self.find(first, second, key);
        Box::pin(async move { found })
    }

    fn write(
        &self,
        first: &str,
        second: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> AsyncResult<'static, (), Error> {
        let write = self.put(first, second, key, buf);
        Box::pin(async move { write?.await.map_err(failed) })
    }

    fn remove(
        &self,
        first: &str,
        second: &str,
        key: &str,
        _: bool,
    ) -> AsyncResult<'static, (), Error> {
        let write = self.delete(first, second, key);
        Box::pin(async move { write?.await.map_err(failed) })
    }

    fn list(&self, first: &str, second: &str) -> AsyncResult<'static, Vec<String>, Error> {
        let found = self.all(first, second);
        Box::pin(async move { found })
    }
}
