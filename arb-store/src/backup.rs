//! A copy of the store as it is at one moment, while it is in use.
use crate::StoreError;
use crate::open::{DATA_FILE, sync_folder};
use crate::store::Store;
use heed::CompactionOption;
use std::fs::{self, File};
use std::path::Path;

/// The copy until it is whole.
const UNFINISHED: &str = "data.mdb.unfinished";

const WHAT: &str = "backup";

/// Copies the store into `folder`, which must hold none. A copy that is not whole is no store.
pub(crate) fn back_up(store: &Store, folder: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(folder).map_err(StoreError::io(WHAT))?;
    let (whole, unfinished) = (folder.join(DATA_FILE), folder.join(UNFINISHED));
    // One at a time: two would write into one file.
    let Ok(_alone) = store.backup.try_lock() else {
        return Err(StoreError::InTheWay { path: unfinished });
    };
    if fs::symlink_metadata(&whole).is_ok() {
        return Err(StoreError::InTheWay { path: whole });
    }
    let written = File::create(&unfinished)
        .map_err(StoreError::io(WHAT))
        .and_then(|mut file| copy(store, &mut file))
        .and_then(|()| fs::rename(&unfinished, &whole).map_err(StoreError::io(WHAT)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    sync_folder(folder).map_err(StoreError::io(WHAT))
}

/// One read transaction: what is committed meanwhile is not in the copy, and waits for nothing, as long as
/// the map need not grow.
fn copy(store: &Store, file: &mut File) -> Result<(), StoreError> {
    let failed = |error| match error {
        heed::Error::Io(error) => StoreError::io(WHAT)(error),
        other => other.into(),
    };
    let length = store.unmoved(|| {
        store.env.copy_to_file(file, CompactionOption::Disabled).map_err(failed)?;
        // A map that has shrunk says in its pages how large it was; the file stays as long.
        let length = store.data.metadata().map_err(StoreError::io(WHAT))?.len();
        Ok::<_, StoreError>(length.max(store.map_size()))
    })?;
    // A file that is shorter than its map counts as shortened.
    file.set_len(length).map_err(StoreError::io(WHAT))?;
    file.sync_all().map_err(StoreError::io(WHAT))
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    //! What cannot be seen from outside: a copy that is stuck.
    use super::*;
    use crate::open::open;
    use crate::{LmdbLog, StoreConfig};
    use arb_core::log::ChangeLog as _;
    use arb_core::ports::ByteStore as _;
    use std::io::{Read as _, Write as _};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    /// More than a socket holds, and most of a map of 2 MiB.
    const LARGE: usize = 1_792 << 10;
    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn small() -> StoreConfig {
        StoreConfig { initial_map: 256 << 10, reserve: 64 << 10, ..StoreConfig::default() }
    }

    /// Writes so many bytes; whether they are durable in time.
    fn writes(log: &LmdbLog, name: &str, bytes: usize) -> bool {
        let before = log.statistics().batches;
        drop(log.bytes().put("test", name, vec![7; bytes]));
        let since = Instant::now();
        while log.statistics().batches == before && since.elapsed() < PATIENCE {
            sleep(Duration::from_millis(1));
        }
        log.statistics().batches > before
    }

    // incident eclair-3081
    #[test]
    fn a_copy_that_is_stuck_holds_nothing_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LmdbLog::open(folder.path(), small()).expect("a store");
        assert!(writes(&log, "before", LARGE));
        log.control().make_room().expect("the store is open");
        let (mut reader, writer) = UnixStream::pair().expect("a socket");
        let store = log.bytes().store;
        let copying = std::thread::spawn(move || {
            let mut file = File::from(OwnedFd::from(writer));
            store.unmoved(|| store.env.copy_to_file(&mut file, CompactionOption::Disabled))
        });
        let mut copied = vec![0; 2 * 4096];
        reader.read_exact(&mut copied).expect("it has begun");

        // Less than what room was made for: a map that must grow waits for the copy.
        assert!(writes(&log, "meanwhile", LARGE / 2), "a write waits for the copy");
        assert!(log.bytes().get("test", "meanwhile").expect("read").is_some());
        assert_eq!(log.channel_count().expect("read"), 0);
        assert!(!copying.is_finished());

        reader.read_to_end(&mut copied).expect("the rest");
        copying.join().expect("no panic").expect("copied");
        let target = tempfile::tempdir().expect("a folder");
        let mut file = File::create(target.path().join(DATA_FILE)).expect("a file");
        file.write_all(&copied).expect("written");
        file.set_len(log.bytes().store.map_size()).expect("as long as its map");
        drop(file);
        let copy = LmdbLog::open(target.path(), small()).expect("a store");
        assert!(copy.bytes().get("test", "before").expect("read").is_some());
        assert!(copy.bytes().get("test", "meanwhile").expect("read").is_none());
    }

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let (folder, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(folder.path(), &small()).expect("a store");
        // A folder stands where the copy is to be renamed to, after it was looked for.
        fs::create_dir(target.path().join(UNFINISHED)).expect("a folder");
        let failed = back_up(&store, target.path());
        assert!(matches!(failed, Err(StoreError::Io { what: WHAT, .. })), "{failed:?}");
        assert!(!target.path().join(DATA_FILE).exists());
    }
}
