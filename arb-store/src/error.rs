//! What can go wrong with a store, and what to do about it.
use arb_core::log::{Damaged, Remedy};
use arb_core::memory::Refused;
use heed::MdbError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or this one, has the store open.
    #[error("the store at {} is in use: close it there first", .path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The store was written by a newer release.
    #[error("the store has format {found}, this release knows up to {known}: use a newer release")]
    NewerFormat {
        /// Format of the store.
        found: u16,
        /// Newest format that this release knows.
        known: u16,
    },
    /// The store uses features that this release does not know.
    #[error("the store uses unknown features {bits:#x}: use a newer release")]
    UnknownFeatures {
        /// Bits of the features.
        bits: u64,
    },
    /// The data file is gone or shorter than it was.
    #[error(
        "the data file {} has {found} of {expected} bytes: restore it whole, do not start anew",
        .path.display()
    )]
    Shortened {
        /// The data file.
        path: PathBuf,
        /// Least length that it must have.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// The folder holds data that is not a store.
    #[error("{} holds no store of this kind: choose another folder", .path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
    },
    /// A backup would replace a store, or another is being made.
    #[error("{} is there already: choose another folder for the backup", .path.display())]
    InTheWay {
        /// The data file.
        path: PathBuf,
    },
    /// The record that says what the store is cannot be read.
    #[error("the store's own record is damaged: restore the data file")]
    DamagedMeta,
    /// No space is left for this batch. Nothing of it was written.
    #[error("no space is left: free some, then repeat; facts wait longest")]
    Full,
    /// The batch breaks the rules of the log. Repeating it is useless.
    #[error("the batch is refused: {0}")]
    Refused(#[from] Refused),
    /// A file cannot be read or written.
    #[error("{what}: {error}: repair the cause, then repeat or reopen")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        error: Arc<io::Error>,
    },
    /// LMDB failed.
    #[error("LMDB: {0}: repeat; if it fails again, close the store and open it anew")]
    Lmdb(LmdbFailure),
    /// A record cannot be read. It is kept as it is.
    #[error("a record is damaged: {0}")]
    Damaged(Damaged),
    /// A folder or name is empty, too long, or contains a zero.
    #[error("a folder or name is empty, too long, or contains a zero")]
    BadName,
    /// The store was closed, or its writer has ended.
    #[error("the store is closed: open it anew")]
    Closed,
}

impl StoreError {
    /// What to do about an append that failed so. A disk that fails, as one that is full, may be mended
    /// while the store is open.
    #[must_use]
    pub const fn remedy(&self) -> Remedy {
        match self {
            Self::Full | Self::Io { .. } => Remedy::Wait,
            Self::Lmdb(failure) => failure.remedy,
            Self::Refused(_) | Self::BadName | Self::Damaged(_) | Self::InTheWay { .. } => {
                Remedy::Refused
            }
            Self::InUse { .. }
            | Self::NewerFormat { .. }
            | Self::UnknownFeatures { .. }
            | Self::Shortened { .. }
            | Self::NotAStore { .. }
            | Self::DamagedMeta
            | Self::Closed => Remedy::Reopen,
        }
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, error: Arc::new(error) }
    }
}

/// What LMDB said.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{text}")]
pub struct LmdbFailure {
    text: String,
    /// The map must grow: what the writer sees to.
    pub(crate) map_full: bool,
    remedy: Remedy,
}

/// Damage stays until the file is restored; what is too long for LMDB is so each time.
const fn remedy(failure: &heed::Error) -> Remedy {
    match failure {
        heed::Error::Mdb(
            MdbError::Corrupted
            | MdbError::Panic
            | MdbError::PageNotFound
            | MdbError::Invalid
            | MdbError::VersionMismatch,
        ) => Remedy::Reopen,
        heed::Error::Mdb(MdbError::BadValSize | MdbError::KeyExist) => Remedy::Refused,
        _ => Remedy::Wait,
    }
}

impl From<heed::Error> for StoreError {
    fn from(error: heed::Error) -> Self {
        match error {
            heed::Error::Io(error) => Self::Io { what: "data file", error: Arc::new(error) },
            other => Self::Lmdb(LmdbFailure {
                remedy: remedy(&other),
                map_full: matches!(other, heed::Error::Mdb(MdbError::MapFull)),
                text: other.to_string(),
            }),
        }
    }
}
