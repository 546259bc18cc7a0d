//! The lock of a run folder, by which a process also notices that its folder has been removed or replaced.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use super::parts::LOCK;
use crate::TrainError;

/// The lock of a run folder, held until it is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub(crate) struct Lock {
    folder: PathBuf,
    /// Locked, if the file system has locks.
    file: File,
    /// What was written into it. By it the file is recognised where a network file system gives it another number each
    /// time.
    mark: String,
}

impl Lock {
    /// Locks a run folder for this process; only warns on a file system without locks.
    ///
    /// # Errors
    /// [`TrainError::RunLocked`], [`TrainError::Io`].
    pub(super) fn take(folder: &Path) -> Result<Lock, TrainError> {
        let lock = Self::try_take(folder)?;
        // Another process may have removed the run, with its lock, since the file was opened.
        if !lock.is_replaced() {
            return Ok(lock);
        }
        // Given up first: a process that locks a file twice is refused.
        drop(lock);
        Self::try_take(folder)
    }

    fn try_take(folder: &Path) -> Result<Lock, TrainError> {
        let path = folder.join(LOCK);
        let mut file = OpenOptions::new()
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
        let mark = mark();
        // On a full disk the numbers of files must do.
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(mark.as_bytes())) {
            tracing::debug!("{} is not marked: {error}", path.display());
        }
        Ok(Lock { folder: folder.to_path_buf(), file, mark })
    }

    /// Checks that the folder is still the one that was locked: before every change in it, because its path may lead to
    /// another run by now.
    ///
    /// # Errors
    /// [`TrainError::RunGone`].
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        if self.is_replaced() { Err(TrainError::RunGone { path: self.folder.clone() }) } else { Ok(()) }
    }

    /// Whether the path of the lock leads to no file, or to another one.
    fn is_replaced(&self) -> bool {
        let path = self.folder.join(LOCK);
        match path.metadata() {
            Ok(now) => {
                let differs = self.file.metadata().is_ok_and(|held| !is_same(&held, &now));
                differs && fs::read(&path).is_ok_and(|found| found != self.mark.as_bytes())
            }
            // What else is wrong with the disk, the next write reports.
            Err(error) => matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        }
    }
}

/// Text that no other lock has.
fn mark() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("process {} at {} ns\n", process::id(), since.as_nanos())
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

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_lock_is_recognised_by_its_mark_where_its_number_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, path) = (dir.path(), dir.path().join(LOCK));
        let lock = Lock::take(folder).unwrap();
        assert!(lock.check().is_ok() && matches!(Lock::take(folder), Err(TrainError::RunLocked { .. })));
        // As a network file system does: the same contents, another number.
        let (number, aside) = (path.metadata().unwrap().ino(), folder.join("aside"));
        fs::rename(&path, &aside).unwrap();
        fs::copy(&aside, &path).unwrap();
        assert_ne!(path.metadata().unwrap().ino(), number);
        assert!(lock.check().is_ok());
        // The lock of another process.
        fs::write(&path, mark()).unwrap();
        assert!(matches!(lock.check(), Err(TrainError::RunGone { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(lock.check(), Err(TrainError::RunGone { .. })));
        assert!(Lock::take(folder).is_ok());
    }
}
