//! A file of what was found in folders and archives, so that they need not be searched again.
//!
//! A folder counts as unchanged if no folder below it has changed since: adding, removing or renaming a file changes
//! the folder that it lies in. A dangling link or something unreadable may become readable without such a change, so a
//! listing with such things is not kept. An archive counts as unchanged if its size and times are the same: a file
//! copied over it may keep the modification time, but not the change time. The index carries a checksum; a damaged one,
//! or one of another version, counts as absent.

mod format;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use format::{decode, encode};

use crate::error::DataError;
use crate::files::tar::Packing;
use crate::in_order::in_order;
use crate::listing::{LeftOut, Listing, changed, list, nanoseconds};
use crate::names::{Names, os_name};
use crate::temporary::temporary_of;

/// In nanoseconds: a folder that changed this shortly before it was listed may have changed again within the same tick
/// of its clock.
const TICK: u64 = 2_000_000_000;

/// The image files of an archive, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub packing: Packing,
    pub names: Names,
    /// The offset of each in the decompressed archive.
    pub offsets: Vec<u64>,
    /// The length of each in bytes.
    pub lens: Vec<u64>,
    /// Their labels, `NO_LABEL` for those without; empty if none has one.
    pub labels: Vec<u32>,
    pub left_out: LeftOut,
    /// What is wrong with the archive, if it is cut short or damaged.
    pub broken: Option<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder {
        listed: u64,
        listing: Arc<Listing>,
    },
    /// `times` are those at which it was last modified and changed.
    Archive {
        len: u64,
        times: [u64; 2],
        members: Arc<Members>,
    },
}

/// The members of an archive and, if it was scanned just now, its canonical path, its length and its times.
struct Found {
    members: Arc<Members>,
    new: Option<(PathBuf, u64, [u64; 2])>,
}

/// Listings of folders and archives.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By canonical path.
    entries: BTreeMap<PathBuf, Entry>,
    /// Whether it has changed since it was loaded.
    grown: bool,
}

impl Index {
    /// Reads an index; returns an empty one if there is no file, or it cannot be trusted.
    pub fn load(file: &Path) -> Self {
        let entries = fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        Self { entries, grown: false }
    }

    /// Writes the index, if it has changed since it was loaded, to a temporary file that then replaces `file`.
    ///
    /// # Errors
    /// Any I/O error of the system.
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

    /// The images below a folder, from the index if nothing changed.
    pub(crate) fn listing(&mut self, root: &Path) -> Result<Arc<Listing>, DataError> {
        let real = fs::canonicalize(root).map_err(|e| DataError::io(root, e))?;
        if let Some(Entry::Folder { listed, listing }) = self.entries.get(&real)
            && is_fresh(&real, *listed, listing)
        {
            return Ok(Arc::clone(listing));
        }
        let listed = nanoseconds(SystemTime::now());
        let listing = Arc::new(list(root)?);
        if listing.passing {
            return Ok(listing);
        }
        self.put(real, Entry::Folder { listed, listing: Arc::clone(&listing) });
        Ok(listing)
    }

    /// The members of each archive, from the index if it is unchanged, else as `scan` finds them, with `threads` threads.
    ///
    /// # Errors
    /// The error of the first archive that has one.
    pub(crate) fn members(
        &mut self,
        paths: &[PathBuf],
        threads: usize,
        scan: impl Fn(&Path) -> Result<Members, DataError> + Sync,
    ) -> Result<Vec<Arc<Members>>, DataError> {
        // Archives after one that has an error need not be scanned.
        let failed = AtomicUsize::new(usize::MAX);
        let found = in_order(paths.len(), threads, |_: &mut (), number| {
            let found =
                (number < failed.load(Ordering::Relaxed)).then(|| self.look_up(&paths[number], &scan))?;
            if found.is_err() {
                failed.fetch_min(number, Ordering::Relaxed);
            }
            Some(found)
        });
        let (mut all, mut error) = (Vec::with_capacity(paths.len()), None);
        for found in found.into_iter().flatten() {
            match found {
                Ok(Found { members, new }) => {
                    if let Some((path, len, times)) = new {
                        self.put(path, Entry::Archive { len, times, members: Arc::clone(&members) });
                    }
                    all.push(members);
                }
                Err(found) => error = error.or(Some(found)),
            }
        }
        error.map_or(Ok(all), Err)
    }

    fn look_up(
        &self,
        path: &Path,
        scan: impl Fn(&Path) -> Result<Members, DataError>,
    ) -> Result<Found, DataError> {
        let real = fs::canonicalize(path).map_err(|e| DataError::io(path, e))?;
        let metadata = fs::metadata(&real).map_err(|e| DataError::io(path, e))?;
        let (len, times) = (metadata.len(), times(&metadata));
        match self.entries.get(&real) {
            Some(Entry::Archive { len: len_then, times: times_then, members })
                if (*len_then, *times_then) == (len, times) =>
            {
                Ok(Found { members: Arc::clone(members), new: None })
            }
            _ => Ok(Found { members: Arc::new(scan(path)?), new: Some((real, len, times)) }),
        }
    }

    fn put(&mut self, path: PathBuf, entry: Entry) {
        self.entries.insert(path, entry);
        self.grown = true;
    }
}

fn is_fresh(root: &Path, listed: u64, listing: &Listing) -> bool {
    listing.stamps.iter().all(|stamp| {
        stamp.changed.saturating_add(TICK) < listed
            && changed(&root.join(os_name(&stamp.path))).is_ok_and(|now| now == stamp.changed)
    })
}

/// When a file was last modified, and when it was changed in any way if the system records that, in nanoseconds since
/// 1970.
fn times(metadata: &fs::Metadata) -> [u64; 2] {
    #[cfg(unix)]
    let changed = {
        use std::os::unix::fs::MetadataExt;
        metadata.ctime().wrapping_mul(1_000_000_000).wrapping_add(metadata.ctime_nsec()) as u64
    };
    #[cfg(not(unix))]
    let changed = 0;
    [metadata.modified().map_or(0, nanoseconds), changed]
}

#[cfg(test)]
mod tests {
    use super::format::tests::entries;
    use super::*;

    #[test]
    fn the_first_error_of_several_archives_is_told_and_what_was_found_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..40).map(|number| dir.path().join(format!("{number}.tar"))).collect();
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        let scan = |bad: &'static [usize], scans: &AtomicUsize, path: &Path| {
            scans.fetch_add(1, Ordering::Relaxed);
            let number = paths.iter().position(|other| other == path).unwrap();
            // Later archives fail sooner.
            std::thread::sleep(std::time::Duration::from_millis(40 - number as u64));
            match bad.contains(&number) {
                true => Err(DataError::malformed(path, "bad")),
                false => Ok(Members { lens: vec![number as u64], ..Members::default() }),
            }
        };
        for threads in [1, 3, 40] {
            let (mut index, scans) = (Index::default(), AtomicUsize::new(0));
            let error = index.members(&paths, threads, |path| scan(&[17, 18, 30], &scans, path)).unwrap_err();
            assert!(error.to_string().contains("17.tar: bad"), "{threads} threads: {error}");
            assert!(index.entries.len() >= 17 && scans.load(Ordering::Relaxed) <= 18 + threads);
            let members = index.members(&paths, threads, |path| scan(&[], &scans, path)).unwrap();
            assert!(members.iter().map(|members| members.lens[0]).eq(0..40), "{threads} threads");
            let all = scans.load(Ordering::Relaxed);
            index.members(&paths, threads, |path| scan(&[0], &scans, path)).unwrap();
            assert_eq!(scans.load(Ordering::Relaxed), all);
        }
    }

    #[test]
    fn a_folder_is_listed_again_only_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        let root = dir.path().join("images");
        fs::create_dir_all(root.join("deep")).unwrap();
        fs::write(root.join("deep/a.jpg"), "").unwrap();
        let mut index = Index::default();
        assert_eq!(index.listing(&root).unwrap().images.len(), 1);
        // Pretends that it was listed a while later, as a folder that changed just now is not trusted.
        let later = |index: &mut Index| {
            if let Some(Entry::Folder { listed, .. }) = index.entries.values_mut().next() {
                *listed += 2 * TICK;
            }
        };
        later(&mut index);
        index.save(&file).unwrap();

        let mut again = Index::load(&file);
        assert_eq!(again.listing(&root).unwrap().images.len(), 1);
        assert!(!again.grown);
        fs::write(root.join("deep/b.jpg"), "").unwrap();
        assert_eq!(again.listing(&root).unwrap().images.len(), 2);
        assert!(again.grown && again.entries.len() == 1);
        fs::write(&file, "nonsense").unwrap();
        assert!(Index::load(&file).entries.is_empty());
    }

    #[test]
    fn an_index_that_cannot_take_its_place_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("index");
        fs::create_dir(&file).unwrap();
        let mut index = Index { entries: entries(), grown: true };
        assert!(index.save(&file).is_err() && index.grown);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_dir(&file).unwrap();
        // Another program may be writing one.
        fs::create_dir(file.with_extension("part")).unwrap();
        index.save(&file).unwrap();
        assert_eq!(Index::load(&file).entries.len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn an_archive_of_the_same_size_and_time_is_another() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        fs::write(&path, "old").unwrap();
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let mut index = Index::default();
        let scans = AtomicUsize::new(0);
        let members = |index: &mut Index| {
            let scan = |_: &Path| {
                scans.fetch_add(1, Ordering::Relaxed);
                Ok(Members::default())
            };
            index.members(std::slice::from_ref(&path), 1, scan).unwrap();
            scans.load(Ordering::Relaxed)
        };
        assert_eq!([members(&mut index), members(&mut index)], [1, 1]);
        // As `cp -p` does it, when the clock of the file system has moved on.
        let changed =
            |path: &Path| fs::metadata(path).map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
        let before = changed(&path);
        while changed(&path) == before {
            fs::write(&path, "new").unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
        }
        assert_eq!(members(&mut index), 2);
    }

    #[cfg(unix)]
    #[test]
    fn what_may_be_read_the_next_time_is_looked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("images");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("a.jpg"), "").unwrap();
        let target = dir.path().join("b.jpg");
        std::os::unix::fs::symlink(&target, root.join("b")).unwrap();
        let mut index = Index::default();
        let listing = index.listing(&root).unwrap();
        assert_eq!((listing.images.len(), listing.left_out.broken.len()), (1, 1));
        assert!(index.entries.is_empty());
        // No folder below the root changes.
        fs::write(&target, b"\xff\xd8\xff").unwrap();
        assert_eq!(index.listing(&root).unwrap().images.len(), 2);

        let empty = root.join("no_extension");
        fs::write(&empty, "").unwrap();
        let listing = index.listing(&root).unwrap();
        assert_eq!(listing.left_out.files[0].reason, "the file is empty");
        assert!(is_fresh(&root, u64::MAX, &listing));
        fs::File::options().write(true).open(&empty).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(!is_fresh(&root, u64::MAX, &listing), "it was written");
    }
}
