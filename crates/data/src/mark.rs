//! What tells that a file or a folder is no longer the one it was.

use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The times of a file or a folder in nanoseconds since 1970, and its number in its file system. Programs that unpack
/// or copy set the first time as they like, and so two versions of a data set may agree in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// When it was last written; of a folder, when an entry was added, removed or renamed.
    pub modified: u64,
    /// When it was last changed in any way; 0 where the system does not record it.
    pub changed: u64,
    /// 0 where the system has no such number.
    pub inode: u64,
}

impl Mark {
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().map_or(0, nanoseconds);
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
            Self { modified, changed: u64::try_from(changed).unwrap_or(0), inode: metadata.ino() }
        }
        #[cfg(not(unix))]
        Self { modified, changed: 0, inode: 0 }
    }

    /// The mark of what `path` leads to.
    pub fn at(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|metadata| Self::of(&metadata))
    }

    /// The later of its times; `None` if there is none after the beginning of 1970, as in archives that are to be the
    /// same whenever they are made.
    pub fn latest(&self) -> Option<u64> {
        Some(self.modified.max(self.changed)).filter(|&latest| latest > 0)
    }
}

/// Nanoseconds since 1970; 0 for times before.
pub(crate) fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
