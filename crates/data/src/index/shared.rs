//! Files of entries in one folder, for all programs of a user.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::store::Store;
use crate::copies::hash_bytes;
use crate::names::bytes_of;

/// The most files that are kept, and their most bytes.
const MAX_FILES_AND_BYTES: (usize, u64) = (64, 1 << 30);

/// A file for each folder of images and for each folder of archives. Programs that write the same file at the same time
/// replace each other's: what one of them found is then found again.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    folder: PathBuf,
    /// Those in use, by their files.
    stores: BTreeMap<PathBuf, Store>,
}

impl Shared {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, stores: BTreeMap::new() }
    }

    /// The entries for the folder `of`, a canonical path.
    pub fn store(&mut self, of: &Path) -> &mut Store {
        let name = format!("{:016x}", hash_bytes(bytes_of(of.as_os_str()).unwrap_or_default()));
        self.stores.entry(self.folder.join(name)).or_insert_with_key(|file| {
            // The files used longest ago are removed first.
            let _ =
                File::options().write(true).open(file).and_then(|file| file.set_modified(SystemTime::now()));
            Store::load(file)
        })
    }

    /// Writes what has changed, without the entries of what no longer exists, and removes old files.
    pub fn save(&mut self) -> io::Result<()> {
        let grown = self.stores.values().any(|store| store.grown);
        if !grown {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        for (file, store) in self.stores.iter_mut().filter(|(_, store)| store.grown) {
            store.entries.retain(|path, _| path.exists());
            store.save(file)?;
        }
        tidy(&self.folder, MAX_FILES_AND_BYTES)
    }
}

/// Removes the oldest files of `folder` until there are at most `files`, of at most `bytes` altogether. The newest
/// stays.
fn tidy(folder: &Path, (files, bytes): (usize, u64)) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Another program may have removed it meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        all.push((metadata.modified()?, metadata.len(), entry.path()));
    }
    all.sort_unstable_by(|a, b| b.cmp(a));
    let mut sum = 0;
    for (number, (_, len, path)) in all.iter().enumerate() {
        sum += len;
        if number > 0 && (number >= files || sum > bytes) {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

#[cfg(test)]
impl Shared {
    /// Whether a file was read.
    pub fn is_loaded(&self) -> bool {
        !self.stores.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let write = |name: &str, len: usize, age: u64| {
            fs::write(dir.path().join(name), vec![0; len]).unwrap();
            let file = File::options().write(true).open(dir.path().join(name)).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        };
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        for (name, age) in [("a", 5), ("b", 1), ("c", 9), ("d", 3)] {
            write(name, 100, age);
        }
        tidy(dir.path(), (4, 400)).unwrap();
        assert_eq!(names().len(), 4);
        tidy(dir.path(), (3, 400)).unwrap();
        assert_eq!(names(), ["a", "b", "d"]);
        tidy(dir.path(), (3, 299)).unwrap();
        assert_eq!(names(), ["b", "d"]);
        // A single one may be larger.
        tidy(dir.path(), (3, 1)).unwrap();
        assert_eq!(names(), ["b"]);
    }
}
