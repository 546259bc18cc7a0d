//! A file that only grows, except that resuming cuts it back to its length at a checkpoint.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::TrainError;
use crate::file_system::{FileSystem, Output};

/// An append-only file that knows its length.
pub(crate) struct AppendLog {
    out: Box<dyn Output>,
    path: PathBuf,
    length: u64,
    /// Whether there may be more in the file than `length` bytes: a part of a record that could not be taken back.
    torn: bool,
}

impl AppendLog {
    /// Creates an empty log, discarding any existing contents.
    pub(crate) fn create(files: &dyn FileSystem, path: &Path) -> Result<Self, TrainError> {
        Self::resume(files, path, 0)
    }

    /// Opens the log and cuts it to `length` bytes. A log that is shorter, because somebody changed it, is kept as it
    /// is, with a warning.
    pub(crate) fn resume(files: &dyn FileSystem, path: &Path, length: u64) -> Result<Self, TrainError> {
        let (mut out, found) = files.append(path).map_err(TrainError::io("open", path))?;
        if found > length {
            out.truncate(length).map_err(TrainError::io("cut", path))?;
        } else if found < length {
            tracing::warn!(
                "{} is {found} bytes long, {length} were written: lines are missing",
                path.display()
            );
        }
        Ok(Self { out, path: path.to_path_buf(), length: found.min(length), torn: false })
    }

    /// Appends a whole record; after an error the log counts as it was before.
    pub(crate) fn append(&mut self, record: &[u8]) -> Result<(), TrainError> {
        if self.torn {
            self.out.truncate(self.length).map_err(TrainError::io("cut", &self.path))?;
            self.torn = false;
        }
        let written = self.out.write_all(record).and_then(|()| self.out.flush());
        if let Err(error) = written {
            self.take_back(self.length);
            return Err(TrainError::io("write", &self.path)(error));
        }
        self.length += record.len() as u64;
        Ok(())
    }

    /// Takes back what follows `length` bytes: now or, where the system does not permit it, before the next record.
    /// Resuming would cut it off as well.
    pub(crate) fn take_back(&mut self, length: u64) {
        self.torn = self.out.truncate(length).is_err();
        self.length = length;
    }

    /// Syncs the log to disk and returns its length.
    pub(crate) fn sync(&mut self) -> Result<u64, TrainError> {
        self.out.sync().map_err(TrainError::io("write", &self.path))?;
        Ok(self.length)
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl std::fmt::Debug for AppendLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppendLog").field("path", &self.path).field("length", &self.length).finish()
    }
}

/// Reads the first `limit` bytes of a log, so that the caller can check that they end at the end of a record.
pub(crate) fn read_up_to(files: &dyn FileSystem, path: &Path, limit: u64) -> Result<Vec<u8>, TrainError> {
    let (file, _) = files.open(path).map_err(TrainError::io("read", path))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(TrainError::io("read", path))?;
    Ok(bytes)
}
