//! Entries of an index, kept in a file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Entry;
use super::format::{decode, encode};
use crate::temporary::temporary_of;

/// What was found in folders and archives.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// By canonical path.
    pub entries: BTreeMap<PathBuf, Entry>,
    /// Whether it has changed since it was loaded.
    pub grown: bool,
}

impl Store {
    /// Reads the entries of a file; there are none if there is no file, or it cannot be trusted.
    pub fn load(file: &Path) -> Self {
        let entries = fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { entries, grown: false }
    }

    /// Writes the entries, if they have changed since they were loaded, to a temporary file that then replaces `file`.
    pub fn save(&mut self, file: &Path) -> io::Result<()> {
        if !self.grown {
            return Ok(());
        }
        let temporary = temporary_of(file);
        let put = fs::write(&temporary, encode(&self.entries)).and_then(|()| fs::rename(&temporary, file));
        // The first error is the one to return.
        put.inspect_err(|_| _ = fs::remove_file(&temporary))?;
        self.grown = false;
        Ok(())
    }

    pub fn put(&mut self, path: PathBuf, entry: Entry) {
        self.entries.insert(path, entry);
        self.grown = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::format::tests::entries;
    use super::*;

    #[test]
    fn an_index_that_cannot_take_its_place_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        fs::create_dir(&file).unwrap();
        let mut store = Store { entries: entries(), grown: true };
        assert!(store.save(&file).is_err() && store.grown);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_dir(&file).unwrap();
        // Another program may be writing one.
        fs::create_dir(file.with_extension("part")).unwrap();
        store.save(&file).unwrap();
        assert_eq!(Store::load(&file).entries.len(), 2);
    }
}
