//! The few file operations that a run needs, behind a trait so that tests can make each of them fail.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use simclr_data::temporary_of;

use crate::TrainError;

/// The Unix error (EBADF) for a file that does not support an operation; it has no [`ErrorKind`].
const BAD_FILE: i32 = 9;

/// A file open for writing.
pub trait Output: Write + Seek + Send {
    /// Returns when everything written is on the disk.
    ///
    /// # Errors
    /// Whatever the system reports; what was written since the last success may be lost.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// File operations; the program uses [`Disk`]. Those that an implementation does not replace are the real ones.
///
/// Every operation fails as its counterpart in [`std::fs`] does.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Creates a new file for writing; fails if it exists.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(File::create_new(path)?))
    }

    /// Opens a file for appending, creating it if it does not exist. Also returns its length in bytes.
    fn append(&self, path: &Path) -> io::Result<(Box<dyn Output>, u64)> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        Ok((Box::new(file), length))
    }

    /// Opens a file for reading. Also returns its length in bytes.
    fn open(&self, path: &Path) -> io::Result<(Box<dyn Read>, u64)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::from(ErrorKind::IsADirectory));
        }
        Ok((Box::new(file), metadata.len()))
    }

    /// Renames a file, replacing any file at the new path.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Creates a folder and its parents; does nothing if it exists.
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    /// Removes a folder, if it is empty.
    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }

    /// Returns when the folder's entries (files created, renamed, removed) are on the disk.
    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        // On other systems a folder cannot be opened as a file, and renaming is durable by other means.
        if !cfg!(unix) {
            return Ok(());
        }
        // Some file systems cannot open folders, or cannot sync them (vboxsf, some SMB and 9p), which is no reason to
        // refuse a run. A failing disk reports other errors.
        let folder = match File::open(path) {
            Err(error) if [ErrorKind::PermissionDenied, ErrorKind::IsADirectory].contains(&error.kind()) => {
                return Ok(());
            }
            opened => opened?,
        };
        match folder.sync_all() {
            Err(error)
                if error.kind() == ErrorKind::InvalidInput || error.raw_os_error() == Some(BAD_FILE) =>
            {
                Ok(())
            }
            synced => synced,
        }
    }

    /// The paths in a folder, in no particular order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect()
    }
}

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Output for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

impl FileSystem for Disk {}

/// A file being written so that, whatever happens, its path holds the old contents or the new, never a mixture.
/// Writes go to a temporary file beside it, which [`AtomicFile::commit`] syncs and renames over it; dropping the value
/// earlier removes the temporary file.
pub struct AtomicFile<'a> {
    files: &'a dyn FileSystem,
    path: PathBuf,
    temporary: PathBuf,
    out: BufWriter<Box<dyn Output>>,
    renamed: bool,
}

impl fmt::Debug for AtomicFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtomicFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> AtomicFile<'a> {
    /// Starts writing the new contents of `path`.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn create(files: &'a dyn FileSystem, path: &Path) -> io::Result<Self> {
        loop {
            let temporary = temporary_of(path);
            match files.create(&temporary) {
                // Left by a process that had our process id: try the next name.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => {
                    let out = BufWriter::new(created?);
                    return Ok(Self { files, path: path.to_path_buf(), temporary, out, renamed: false });
                }
            }
        }
    }

    /// Syncs everything written to the disk, still in the temporary file.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn sync(&mut self) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_mut().sync()
    }

    /// Moves the file to its path, and returns when that is on the disk.
    ///
    /// # Errors
    /// Whatever the system reports. The path then holds the old contents, or the new ones, which may not be durable.
    pub fn commit(mut self) -> io::Result<()> {
        self.sync()?;
        self.files.rename(&self.temporary, &self.path)?;
        self.renamed = true;
        self.files.sync_folder(folder_of(&self.path))
    }
}

impl Write for AtomicFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Seek for AtomicFile<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.out.seek(to)
    }
}

impl Drop for AtomicFile<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: if it cannot be removed now, it is removed later with what stopped programs left.
            let _ = self.files.remove(&self.temporary);
        }
    }
}

/// Writes a file whole or not at all, through an [`AtomicFile`].
///
/// # Errors
/// [`TrainError::Io`] naming the path, which then holds the old contents, or the new ones, which may not be durable.
pub fn write_atomically(
    files: &dyn FileSystem,
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), TrainError> {
    let written = AtomicFile::create(files, path).and_then(|mut file| {
        write(&mut file)?;
        file.commit()
    });
    written.map_err(TrainError::io("write", path))
}

/// Creates a folder and its parents, and returns when the new ones are on the disk.
pub(crate) fn create_durably(files: &dyn FileSystem, folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let missing: Vec<&Path> = missing.collect();
    files.create_folder(folder)?;
    missing.into_iter().try_for_each(|folder| files.sync_folder(folder_of(folder)))
}

/// Reads a text file of at most `limit` bytes.
pub(crate) fn read_text(files: &dyn FileSystem, path: &Path, limit: u64) -> Result<String, TrainError> {
    let (file, length) = files.open(path).map_err(TrainError::io("read", path))?;
    let damaged = |reason: String| TrainError::Damaged { path: path.to_path_buf(), reason };
    if length > limit {
        return Err(damaged(format!("it is {length} bytes long, at most {limit} make sense")));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(TrainError::io("read", path))?;
    String::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8 text".to_owned()))
}

/// Whether a process is known to have ended; only Linux reports this without unsafe code.
pub(crate) fn has_ended(process: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(process.to_string()).exists()
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_atomic_write_replaces_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        for text in ["one", "two"] {
            write_atomically(&Disk, &path, |out| out.write_all(text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(Disk.list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn a_failed_write_keeps_the_old_contents_and_removes_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").unwrap();
        for full in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
            let error = write_atomically(&Disk, &path, |_| Err(full.into())).unwrap_err().to_string();
            assert!(error.contains("a.txt") && error.contains("free some space"), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(Disk.list(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_failure_and_one_that_is_not_there_is() {
        let folder = tempfile::tempdir().unwrap();
        Disk.sync_folder(folder.path()).unwrap();
        let gone = Disk.sync_folder(&folder.path().join("gone")).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::NotFound);
        if cfg!(target_os = "linux") {
            let processes = Path::new("/proc/self");
            assert_eq!(
                File::open(processes).unwrap().sync_all().unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
            Disk.sync_folder(processes).unwrap();
        }
    }

    #[test]
    fn two_who_write_one_file_do_not_meet_and_touch_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let theirs = folder.path().join("x.npy.tmp");
        fs::write(&theirs, "mine").unwrap();
        let mut writers = ["first", "second"].map(|text| (text, AtomicFile::create(&Disk, &path).unwrap()));
        for (text, file) in &mut writers {
            file.write_all(text.as_bytes()).unwrap();
        }
        for (text, file) in writers {
            file.commit().unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "mine");
        assert_eq!(Disk.list(folder.path()).unwrap().len(), 2);
        assert!(!has_ended(std::process::id()));
    }

    #[test]
    fn a_text_that_is_too_long_or_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(read_text(&Disk, &path, 10).unwrap_err().to_string().contains("not UTF-8"));
        assert!(read_text(&Disk, &path, 1).unwrap_err().to_string().contains("2 bytes long"));
        assert!(read_text(&Disk, folder.path(), 10).is_err());
    }
}
