//! Emergency space: a file of real bytes that is given up when the disk is full.
use fs4::FileExt;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const RESERVE_FILE: &str = "reserve";

pub(crate) struct Reserve {
    path: PathBuf,
    full: u64,
    held: u64,
}

impl Reserve {
    /// The reserve of a folder, as a previous run left it.
    pub(crate) fn find(folder: &Path, full: u64) -> Self {
        let path = folder.join(RESERVE_FILE);
        let held = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, full, held }
    }

    /// Bytes that are held.
    pub(crate) const fn held(&self) -> u64 {
        self.held
    }

    /// Bytes that should be held.
    pub(crate) const fn full(&self) -> u64 {
        self.full
    }

    /// Whether all of it is held.
    pub(crate) const fn is_whole(&self) -> bool {
        self.held >= self.full
    }

    /// Gives the bytes back to the disk.
    pub(crate) fn release(&mut self) -> io::Result<()> {
        let file = self.file()?;
        file.set_len(0)?;
        self.held = 0;
        file.sync_all()
    }

    /// Takes the bytes from the disk; none if there are not enough.
    pub(crate) fn take(&mut self) -> io::Result<()> {
        let mut file = self.file()?;
        let taken = allocate(&mut file, self.full).and_then(|()| file.sync_all());
        if taken.is_err() {
            file.set_len(0)?;
            self.held = 0;
            return taken;
        }
        self.held = self.full;
        Ok(())
    }

    fn file(&self) -> io::Result<File> {
        File::options().write(true).create(true).truncate(false).open(&self.path)
    }
}

/// Real bytes, also where the file system cannot allocate without writing.
fn allocate(file: &mut File, length: u64) -> io::Result<()> {
    file.set_len(0)?;
    match FileExt::allocate(file, length) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        allocated => return allocated,
    }
    file.seek(SeekFrom::Start(0))?;
    let zeros = [0; 64 << 10];
    let mut left = length;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all(&zeros[..chunk])?;
        left -= chunk as u64;
    }
    Ok(())
}
