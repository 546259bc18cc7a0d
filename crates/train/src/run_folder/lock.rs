//! The lock of a run folder, by which a process also notices that its folder has been removed or replaced.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::parts::LOCK;
use crate::TrainError;

/// The lock of a run folder, held until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: PathBuf,
    /// Locked, if the file system has locks.
    file: File,
    /// Whether the file system tells whether two files are the same.
    compares: bool,
}

impl Lock {
    /// Locks a run folder for this process; only warns on a file system without locks.
    ///
    /// # Errors
    /// [`TrainError::RunLocked`], [`TrainError::Io`].
    pub(super) fn take(folder: &Path) -> Result<Lock, TrainError> {
        let lock = Self::try_take(folder)?;
        // Another process may have removed the run, with its lock, since the file was opened.
        if lock.compares { Ok(lock) } else { Self::try_take(folder) }
    }

    fn try_take(folder: &Path) -> Result<Lock, TrainError> {
        let path = folder.join(LOCK);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(TrainError::io("create", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::RunLocked { path: folder.to_path_buf() });
            }
            Err(TryLockError::Error(error)) => tracing::warn!(
                "{} cannot be locked ({error}): let no other process train in it",
                folder.display()
            ),
        }
        // On some network file systems a file has another number each time.
        let compares =
            file.metadata().is_ok_and(|held| path.metadata().is_ok_and(|now| is_same(&held, &now)));
        Ok(Lock { folder: folder.to_path_buf(), file, compares })
    }

    /// Checks that the folder is still the one that was locked: before every change in it, because its path may lead to
    /// another run by now.
    ///
    /// # Errors
    /// [`TrainError::RunGone`].
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let is_gone = match self.folder.join(LOCK).metadata() {
            Ok(now) => self.compares && self.file.metadata().is_ok_and(|held| !is_same(&held, &now)),
            // What else is wrong with the disk, the next write reports.
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        };
        if is_gone { Err(TrainError::RunGone { path: self.folder.clone() }) } else { Ok(()) }
    }
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Elsewhere only the existence of a file is compared.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}
