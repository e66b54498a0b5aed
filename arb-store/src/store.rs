//! The open store: environment, databases, and the lock between readers and a growing map.
use crate::StoreError;
use crate::layout::Databases;
use crate::open::Lock;
use crate::space::Gauges;
use arb_core::log::Home;
use heed::{Env, RoTxn, WithoutTls};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Sizes of the map are multiples of this, which every page size divides.
const MAP_STEP: u64 = 64 << 10;

pub(crate) struct Store {
    pub(crate) env: Env<WithoutTls>,
    pub(crate) tables: Databases,
    pub(crate) identity: [u8; 16],
    pub(crate) home: Home,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) folder: PathBuf,
    pub(crate) data: File,
    /// Read: a read transaction lives. Written: the map is being resized.
    pub(crate) map: RwLock<()>,
    /// Held while a copy is made.
    pub(crate) backup: Mutex<()>,
    /// Held while the store is open; the last field to be dropped.
    pub(crate) _lock: Lock,
}

impl Store {
    /// Reads in one transaction, which no resizing of the map overlaps.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Databases, &RoTxn<'_, WithoutTls>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.unmoved(|| work(&self.tables, &self.env.read_txn()?))
    }

    /// Does something during which the map stays as it is: whoever must resize it waits.
    pub(crate) fn unmoved<T>(&self, work: impl FnOnce() -> T) -> T {
        let _guard = self.map.read().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Bytes of the data file in use.
    pub(crate) fn used(&self) -> u64 {
        let pages = self.env.info().last_page_number as u64 + 1;
        pages * u64::from(self.env.unnamed_database_stat().page_size)
    }

    pub(crate) fn map_size(&self) -> u64 {
        self.env.info().map_size as u64
    }

    /// Makes the map this large, or as large as the data in it. To be called by the writer,
    /// between transactions.
    pub(crate) fn resize(&self, size: u64) -> Result<(), StoreError> {
        let size = round_up(size.max(self.used()));
        let length = self.data.metadata().map_err(StoreError::io("data file"))?.len();
        if length < size {
            // Before LMDB stores the new size: a file shorter than its map is refused at open.
            self.data.set_len(size).map_err(StoreError::io("data file"))?;
            self.data.sync_all().map_err(StoreError::io("data file"))?;
        }
        let size = usize::try_from(size).map_err(|_| StoreError::Full)?;
        let _guard = self.map.write().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: no transaction is alive. Write transactions belong to the calling thread, which
        // is between two of them; read transactions hold the lock's other side.
        #[allow(unsafe_code)]
        unsafe {
            self.env.resize(size)?;
        }
        Ok(())
    }
}

pub(crate) const fn round_up(size: u64) -> u64 {
    size.div_ceil(MAP_STEP).saturating_mul(MAP_STEP)
}

pub(crate) const fn round_down(size: u64) -> u64 {
    size / MAP_STEP * MAP_STEP
}

pub(crate) fn first_map(size: u64) -> usize {
    usize::try_from(round_up(size)).unwrap_or(MAP_STEP as usize)
}
