//! A key-value store in memory.

use arb_core::log::{ByteRecord, Home};
use arb_node_adapter::{KvWrite, WriteAll};
use lightning::io;
use lightning::util::async_poll::AsyncResult;
use lightning::util::persist::{
    CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE, CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
    KVStoreSync,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Key = (String, String, String);

/// A key-value store in memory, which can be told to fail.
#[derive(Debug, Default)]
pub struct MemoryKv {
    values: Mutex<BTreeMap<Key, Vec<u8>>>,
    writes_left: Mutex<Option<u64>>,
    written: AtomicU64,
    keeps_all: AtomicBool,
    home: Option<Home>,
}

impl MemoryKv {
    /// A store that a log may be kept with, which then writes [`Self::put_records`].
    #[must_use]
    pub fn beside_a_log() -> Self {
        Self { home: Some(Home::new()), ..Self::default() }
    }

    /// Where it is kept, if a log may be there too.
    pub const fn home(&self) -> Option<Home> {
        self.home
    }

    /// Writes what a log that is kept here writes with its own: all of it or nothing, as one write.
    ///
    /// # Errors
    /// As it was told to fail.
    pub fn put_records(&self, records: Vec<ByteRecord>) -> Result<(), io::Error> {
        self.one_write()?;
        for ByteRecord { folder, name, bytes } in records {
            let (first, second) = folder.split_once('/').unwrap_or((&folder, ""));
            self.put(key(first, second, &name), bytes);
        }
        Ok(())
    }

    /// Every write after the next `writes` fails; `None`: none does.
    pub fn fail_after(&self, writes: Option<u64>) {
        *self.writes_left.lock().unwrap_or_else(PoisonError::into_inner) = writes;
    }

    /// Whether nothing can be removed.
    pub fn keeps_all(&self, keeps_all: bool) {
        self.keeps_all.store(keeps_all, Ordering::Relaxed);
    }

    /// A store with the same values.
    pub fn copied(&self) -> Self {
        let home = self.home;
        Self { values: Mutex::new(self.values().clone()), home, ..Self::default() }
    }

    /// Puts LDK's monitor where its own persisters do.
    ///
    /// # Errors
    /// As it was told to fail.
    pub fn put_monitor(&self, name: &str, monitor: Vec<u8>) -> Result<(), io::Error> {
        self.write(
            CHANNEL_MONITOR_PERSISTENCE_PRIMARY_NAMESPACE,
            CHANNEL_MONITOR_PERSISTENCE_SECONDARY_NAMESPACE,
            name,
            monitor,
        )
    }

    /// Bytes of all values that were written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn one_write(&self) -> Result<(), io::Error> {
        if let Some(left) = self.writes_left.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            if *left == 0 {
                return Err(io::Error::new(io::ErrorKind::Other, "the disk is full"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn put(&self, key: Key, bytes: Vec<u8>) {
        self.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.values().insert(key, bytes);
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<Key, Vec<u8>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(primary: &str, secondary: &str, key: &str) -> Key {
    (primary.to_owned(), secondary.to_owned(), key.to_owned())
}

impl KVStoreSync for MemoryKv {
    fn read(&self, primary: &str, secondary: &str, name: &str) -> Result<Vec<u8>, io::Error> {
        let found = self.values().get(&key(primary, secondary, name)).cloned();
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such key"))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        name: &str,
        buf: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.one_write()?;
        self.put(key(primary, secondary, name), buf);
        Ok(())
    }

    fn remove(&self, primary: &str, secondary: &str, name: &str, _: bool) -> Result<(), io::Error> {
        if self.keeps_all.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Other, "nothing can be removed"));
        }
        self.values().remove(&key(primary, secondary, name));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let values = self.values();
        let here = values.keys().filter(|(one, two, _)| one == primary && two == secondary);
        Ok(here.map(|(_, _, name)| name.clone()).collect())
    }
}

impl WriteAll for MemoryKv {
    fn beside(&self, home: Home, writes: Vec<KvWrite>) -> Result<Vec<ByteRecord>, Vec<KvWrite>> {
        if self.home != Some(home) {
            return Err(writes);
        }
        let record = |KvWrite { first, second, key: name, bytes }| ByteRecord {
            folder: format!("{first}/{second}"),
            name,
            bytes,
        };
        Ok(writes.into_iter().map(record).collect())
    }

    fn write_all(&self, writes: Vec<KvWrite>) -> AsyncResult<'static, (), io::Error> {
        let mut writes = writes.into_iter();
        let done = writes.try_for_each(|of| self.write(&of.first, &of.second, &of.key, of.bytes));
        Box::pin(async move { done })
    }
}
