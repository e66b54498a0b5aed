//! `LmdbBytes`: bytes under names, in the same environment as the change log.
use crate::apply::Asked;
use crate::layout::unseal;
use crate::store::Store;
use crate::writer::{Request, Requests};
use crate::{Append, StoreError, receipt};
use arb_core::log::Home;
use arb_core::memory::{LONGEST_RECORD_NAME, check_record_name};
use arb_core::ports::ByteStore;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Longest key in bytes: folder, a zero and the name. LMDB takes 511.
pub const LONGEST_KEY: usize = LONGEST_RECORD_NAME;

/// A [`ByteStore`] beside the change log, for the node's own records: one file, one writer, one
/// fsync for what is written together. Made by [`crate::LmdbLog::bytes`].
///
/// It works as long as the log is open; after that every write fails with [`StoreError::Closed`],
/// and the folder is unlocked when the last handle is gone. When the disk is full, writes are
/// refused, as facts are, except [`ByteStore::put_reserved`], which uses the emergency space.
#[derive(Clone)]
pub struct LmdbBytes {
    pub(crate) store: Arc<Store>,
    pub(crate) requests: Requests,
}

impl fmt::Debug for LmdbBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LmdbBytes").field("folder", &self.store.folder).finish_non_exhaustive()
    }
}

/// Resolves when a write is on stable storage. Dropping it does not take the write back.
#[derive(Debug)]
#[must_use = "whether it is written is told by this future"]
pub struct Written(Result<Append, Option<StoreError>>);

impl Future for Written {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Ok(append) => Pin::new(append).poll(context).map_ok(drop),
            // It is not asked again after it has answered.
            Err(refused) => Poll::Ready(Err(refused.take().unwrap_or(StoreError::Closed))),
        }
    }
}

impl LmdbBytes {
    fn write(&self, folder: &str, name: &str, bytes: Option<Vec<u8>>, reserved: bool) -> Written {
        let key = match key(folder, name) {
            Ok(key) => key,
            Err(error) => return Written(Err(Some(error))),
        };
        let (receipt, append) = receipt::channel();
        // A request that finds no writer drops its receipt, which says so.
        let asked = Asked::Bytes { key, bytes, reserved };
        drop(self.requests.send(vec![Request::Append(asked, receipt)]));
        Written(Ok(append))
    }
}

impl ByteStore for LmdbBytes {
    type Error = StoreError;
    type Write = Written;

    fn home(&self) -> Option<Home> {
        Some(self.store.home)
    }

    fn get(&self, folder: &str, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key(folder, name)?;
        self.store.read(|tables, txn| {
            let Some(value) = tables.bytes.get(txn, &key)? else { return Ok(None) };
            Ok(Some(unseal(&key, value).map_err(StoreError::Damaged)?.to_vec()))
        })
    }

    fn put(&self, folder: &str, name: &str, bytes: Vec<u8>) -> Written {
        self.write(folder, name, Some(bytes), false)
    }

    fn put_reserved(&self, folder: &str, name: &str, bytes: Vec<u8>) -> Written {
        self.write(folder, name, Some(bytes), true)
    }

    fn delete(&self, folder: &str, name: &str) -> Written {
        self.write(folder, name, None, false)
    }

    fn names(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix(folder)?;
        self.store.read(|tables, txn| {
            let mut names = Vec::new();
            for entry in tables.bytes.prefix_iter(txn, &prefix)? {
                let (key, _) = entry?;
                let name = key.get(prefix.len()..).and_then(|name| std::str::from_utf8(name).ok());
                names.extend(name.map(str::to_owned));
            }
            Ok(names)
        })
    }
}

fn prefix(folder: &str) -> Result<Vec<u8>, StoreError> {
    if folder.contains('\0') || folder.len() >= LONGEST_KEY {
        return Err(StoreError::BadName);
    }
    Ok([folder.as_bytes(), &[0]].concat())
}

fn key(folder: &str, name: &str) -> Result<Vec<u8>, StoreError> {
    check_record_name(folder, name).map_err(|_| StoreError::BadName)?;
    Ok(record_key(folder, name))
}

/// The key of a record whose name has been checked.
pub(crate) fn record_key(folder: &str, name: &str) -> Vec<u8> {
    [folder.as_bytes(), &[0], name.as_bytes()].concat()
}
