//! Opening: lock the folder, look before writing, refuse what is not understood.
use crate::StoreError;
use crate::config::StoreConfig;
use crate::layout::{
    Databases, FEATURES, FORMAT, FORMAT_KEY, LATER, MAX_DATABASES, Meta, NAMES, Table,
};
use crate::space::Gauges;
use crate::store::{Store, first_map};
use arb_core::log::Home;
use fs4::{FileExt, TryLockError};
use heed::types::Bytes;
use heed::{CommitOrAbort, Env, EnvOpenOptions, MdbError, WithoutTls};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

const LOCK_FILE: &str = "arb.lock";
pub(crate) const DATA_FILE: &str = "data.mdb";
/// The two pages that describe the rest.
const LEAST_DATA: u64 = 2 * 4096;

/// Opens the store in `folder`, creating it if the folder holds none.
pub(crate) fn open(folder: &Path, config: &StoreConfig) -> Result<Store, StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io("folder"))?;
    let mut lock = lock(folder)?;
    let path = folder.join(DATA_FILE);
    let length = length_of(&path)?;
    let mut mark = String::new();
    lock.0.read_to_string(&mut mark).map_err(StoreError::io("lock file"))?;
    if length < LEAST_DATA && !mark.is_empty() {
        return Err(StoreError::Shortened { path, expected: LEAST_DATA, found: length });
    }
    let env = open_env(folder, (length == 0).then_some(config.initial_map))?;
    let opened = prepare(&env, &path, config, !mark.is_empty());
    let (tables, identity, data) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            // Closed before the caller hears of it, so that it may try again at once.
            env.prepare_for_closing().wait();
            return Err(error);
        }
    };
    if mark.is_empty() {
        set_mark(&mut lock.0, folder, identity).map_err(StoreError::io("lock file"))?;
    }
    Ok(Store {
        env,
        tables,
        identity,
        home: Home::new(),
        gauges: Arc::new(Gauges::default()),
        folder: folder.to_owned(),
        data,
        map: RwLock::new(()),
        backup: Mutex::new(()),
        _lock: lock,
    })
}

/// The lock that keeps other processes away.
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that another thread is just starting has a copy of the
        // file, and with it the lock, until its program runs.
        let _ = FileExt::unlock(&self.0);
    }
}

/// The lock file. Its text, written once the store exists, tells a lost data file from a new
/// folder.
fn lock(folder: &Path) -> Result<Lock, StoreError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(folder.join(LOCK_FILE)).map_err(StoreError::io("lock file"))?;
    match FileExt::try_lock(&file) {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: folder.to_owned() }),
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock file")(error)),
    }
}

fn set_mark(lock: &mut File, folder: &Path, identity: [u8; 16]) -> std::io::Result<()> {
    let identity: String = identity.iter().map(|byte| format!("{byte:02x}")).collect();
    lock.write_all(identity.as_bytes())?;
    lock.sync_all()?;
    sync_folder(folder)
}

/// The names of the files must be as durable as their contents.
pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn length_of(path: &Path) -> Result<u64, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(StoreError::io("data file")(error)),
    }
}

/// Opens the environment without flags: every commit reaches stable storage before it returns.
fn open_env(folder: &Path, map: Option<u64>) -> Result<Env<WithoutTls>, StoreError> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.max_dbs(MAX_DATABASES);
    if let Some(map) = map {
        options.map_size(first_map(map));
    }
    // SAFETY: the lock file keeps other processes of this program away, and nothing but LMDB
    // changes the file while it is mapped, except to make it longer.
    #[allow(unsafe_code)]
    let env = unsafe { options.open(folder) };
    env.map_err(|error| match error {
        heed::Error::Mdb(MdbError::Invalid | MdbError::VersionMismatch) => {
            StoreError::NotAStore { path: folder.to_owned() }
        }
        heed::Error::EnvAlreadyOpened => StoreError::InUse { path: folder.to_owned() },
        other => other.into(),
    })
}

type Prepared = (Databases, [u8; 16], File);

fn prepare(
    env: &Env<WithoutTls>,
    path: &PathBuf,
    config: &StoreConfig,
    marked: bool,
) -> Result<Prepared, StoreError> {
    let data = File::options().read(true).write(true).open(path);
    let data = data.map_err(StoreError::io("data file"))?;
    let info = env.info();
    let (found, expected) = (length_of(path)?, info.map_size as u64);
    // Pages 0 and 1 describe the rest: without more, nothing was ever committed.
    if info.last_page_number <= 1 {
        if marked {
            return Err(StoreError::Shortened { path: path.clone(), expected, found });
        }
        let size = (first_map(config.initial_map) as u64).max(expected);
        data.set_len(size).map_err(StoreError::io("data file"))?;
        data.sync_all().map_err(StoreError::io("data file"))?;
        let identity = new_identity();
        return Ok((create(env, identity)?, identity, data));
    }
    // A page beyond the end of the file would end the process when it is read.
    if found < expected {
        return Err(StoreError::Shortened { path: path.clone(), expected, found });
    }
    let (tables, meta) = match existing(env, path)? {
        (Some(tables), meta) => (tables, meta),
        (None, _) => {
            add_later(env)?;
            let (tables, meta) = existing(env, path)?;
            (tables.ok_or_else(|| StoreError::NotAStore { path: path.clone() })?, meta)
        }
    };
    if meta.format < FORMAT {
        raise(env, &tables, meta)?;
    }
    Ok((tables, meta.identity, data))
}

/// Says that the store has this release's format, before anything is written in it that releases of
/// the older one do not know. What is there is read as it is.
fn raise(env: &Env<WithoutTls>, tables: &Databases, meta: Meta) -> Result<(), StoreError> {
    let mut txn = env.write_txn()?;
    tables.meta.put(&mut txn, FORMAT_KEY, &Meta { format: FORMAT, ..meta }.encode())?;
    Ok(txn.commit()?)
}

fn create(env: &Env<WithoutTls>, identity: [u8; 16]) -> Result<Databases, StoreError> {
    let txn = env.write_txn()?;
    let created = env.create_databases_and_commit(txn, |opener, txn| {
        let mut tables = Vec::new();
        for name in NAMES {
            tables.push(opener.create_database::<Bytes, Bytes>(txn, Some(name))?);
        }
        let tables = <[_; NAMES.len()]>::try_from(tables).map_err(|_| StoreError::DamagedMeta)?;
        let meta = Meta { format: FORMAT, features: FEATURES, identity };
        tables[0].put(txn, FORMAT_KEY, &meta.encode())?;
        Ok::<_, StoreError>(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    Ok(Databases::new(created.unwrap_commit()))
}

/// Adds the databases that the first stores of this format lack.
fn add_later(env: &Env<WithoutTls>) -> Result<(), StoreError> {
    let txn = env.write_txn()?;
    env.create_databases_and_commit(txn, |opener, txn| {
        for name in LATER {
            opener.create_database::<Bytes, Bytes>(txn, Some(name))?;
        }
        Ok::<_, StoreError>(CommitOrAbort::<_, ()>::Commit(()))
    })?;
    Ok(())
}

/// Opens the databases of a store that exists; reads only, and judges the format first. `None`:
/// it lacks some of [`LATER`] yet.
fn existing(env: &Env<WithoutTls>, path: &Path) -> Result<(Option<Databases>, Meta), StoreError> {
    let mut found = None;
    let txn = env.read_txn()?;
    let not_a_store = || StoreError::NotAStore { path: path.to_owned() };
    let opened = env.open_databases_and_commit(txn, |opener, txn| {
        let meta =
            opener.open_database::<Bytes, Bytes>(txn, Some(NAMES[0]))?.ok_or_else(not_a_store)?;
        let record = meta.get(txn, FORMAT_KEY)?.ok_or_else(not_a_store)?;
        found = Some(Meta::decode(record)?);
        let mut tables = Vec::new();
        for name in NAMES {
            match opener.open_database::<Bytes, Bytes>(txn, Some(name))? {
                Some(table) => tables.push(table),
                None if LATER.contains(&name) => {}
                None => return Err(not_a_store()),
            }
        }
        let tables = <[_; NAMES.len()]>::try_from(tables).ok();
        Ok::<_, StoreError>(CommitOrAbort::<_, ()>::Commit(tables))
    })?;
    let tables: Option<[Table; NAMES.len()]> = opened.unwrap_commit();
    Ok((tables.map(Databases::new), found.ok_or_else(not_a_store)?))
}

/// A number that no other store has. Not a secret: the standard library's hash seeds suffice.
fn new_identity() -> [u8; 16] {
    let now = std::time::SystemTime::now();
    let word = || RandomState::new().hash_one((std::process::id(), now));
    ((u128::from(word()) << 64) | u128::from(word())).to_be_bytes()
}

#[cfg(test)]
mod tests {
    //! What cannot be seen from outside: a kill does not show a missing fsync.
    use super::*;
    use heed::EnvFlags;

    #[test]
    fn no_flag_weakens_a_commit() {
        let folder = tempfile::tempdir().expect("a folder");
        for _ in 0..2 {
            let store = open(folder.path(), &StoreConfig::default()).expect("a store");
            let weak = EnvFlags::NO_SYNC
                | EnvFlags::NO_META_SYNC
                | EnvFlags::WRITE_MAP
                | EnvFlags::MAP_ASYNC
                | EnvFlags::NO_LOCK;
            assert_eq!(store.env.get_flags().expect("flags") & weak.bits(), 0);
        }
    }

    #[test]
    fn identities_differ() {
        assert_ne!(new_identity(), new_identity());
    }
}
