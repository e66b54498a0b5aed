//! A bare LMDB environment, without checks, threads or records of ours: what the store is compared
//! with.
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvOpenOptions, WithoutTls};

use super::BenchError;

/// An environment with `N` databases.
pub(super) struct Bare<const N: usize> {
    env: Env<WithoutTls>,
    tables: [Database<'static, Bytes, Bytes>; N],
}

/// One record: its database, its key, its value.
pub(super) type Record = (usize, Vec<u8>, Vec<u8>);

impl<const N: usize> Bare<N> {
    /// Opens the environment in `folder`. Without a size, it is there already.
    ///
    /// # Errors
    /// LMDB fails.
    pub(super) fn open(
        folder: &Path,
        names: [&str; N],
        map: Option<usize>,
    ) -> Result<Self, BenchError> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.max_dbs(32);
        if let Some(map) = map {
            std::fs::create_dir_all(folder)?;
            options.map_size(map);
        }
        // SAFETY: the folder is one of this run's own; nothing else has the file open.
        #[allow(unsafe_code)]
        let env = unsafe { options.open(folder) }?;
        let txn = env.write_txn()?;
        let opened = env.create_databases_and_commit(txn, |opener, txn| {
            let mut tables = Vec::new();
            for name in names {
                tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
            }
            let tables = <[_; N]>::try_from(tables);
            let tables = tables.map_err(|_| BenchError::Engine("databases".to_owned()))?;
            Ok::<_, BenchError>(CommitOrAbort::<_, ()>::Commit(tables))
        })?;
        Ok(Self { env, tables: opened.unwrap_commit() })
    }

    /// Puts records in and commits them: one synced transaction.
    ///
    /// # Errors
    /// LMDB fails.
    pub(super) fn commit(&self, records: &[Record]) -> Result<(), BenchError> {
        let mut txn = self.env.write_txn()?;
        for (table, key, value) in records {
            self.tables[*table].put(&mut txn, key, value)?;
        }
        Ok(txn.commit()?)
    }

    /// Hands every value of the first database to `each`, in the order of their keys.
    ///
    /// # Errors
    /// LMDB fails.
    pub(super) fn each(&self, mut each: impl FnMut(&[u8])) -> Result<(), BenchError> {
        let txn = self.env.read_txn()?;
        for entry in self.tables[0].iter(&txn)? {
            each(entry?.1);
        }
        Ok(())
    }

    /// Closes the environment, so that its folder can be opened again.
    pub(super) fn close(self) {
        self.env.prepare_for_closing().wait();
    }
}
