//! What was found in folders and archives, kept in files so that they need not be searched again.
//!
//! Findings are kept in two places: in a file of the run, which moves with the run, and in the user's cache folder, for
//! commands without a run and for other runs on the same images.
//!
//! What was found is used again as long as nothing has changed, which the times and the number that a file system keeps
//! for each file and folder tell ([`Mark`]):
//!
//! - A folder has not changed if neither it nor any folder below it has: adding, removing or renaming a file changes
//!   the folder that the file lies in. Writing to a file does not, so files that were opened and found to be no images
//!   are compared one by one.
//! - An archive has not changed if its size is the same as well.
//! - The modification time alone is not enough: a copy may take it over from what it replaces. The time of the last
//!   change of any kind, and the number, it cannot.
//! - A dangling link, or something that could not be read, may become readable without a trace in any folder. A listing
//!   with such things is not kept.
//!
//! Each file has a checksum; a damaged file, or one of another version, counts as absent.

mod format;
mod shared;
mod store;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use shared::Shared;
use store::Store;

use crate::error::DataError;
use crate::files::tar::Packing;
use crate::in_order::in_order;
use crate::listing::{LeftOut, Listing, Stamp, list};
use crate::mark::{Mark, nanoseconds};
use crate::names::{Names, Paths, os_name};

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
    /// Why the archive may be cut short, although all of it can be read.
    pub doubt: Option<String>,
}

#[derive(Clone, Debug)]
enum Entry {
    Folder { listed: u64, listing: Arc<Listing> },
    Archive { len: u64, mark: Mark, members: Arc<Members> },
}

impl Entry {
    /// The members of an archive of this length and with this mark.
    fn members(&self, len: u64, mark: Mark) -> Option<Arc<Members>> {
        match self {
            Entry::Archive { len: len_then, mark: mark_then, members }
                if (*len_then, *mark_then) == (len, mark) =>
            {
                Some(Arc::clone(members))
            }
            _ => None,
        }
    }

    /// The listing of the folder `root`, if it has not changed since.
    fn listing(&self, root: &Path) -> Option<Arc<Listing>> {
        match self {
            Entry::Folder { listed, listing } if is_fresh(root, *listed, listing) => {
                Some(Arc::clone(listing))
            }
            _ => None,
        }
    }
}

/// Where something was known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// From the run.
    Own,
    /// From the files that all programs share.
    Shared,
    /// It was not known.
    New,
}

/// An archive that was looked through.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub members: Arc<Members>,
    /// Its length in bytes at that time.
    pub len: u64,
    pub mark: Mark,
}

/// An archive: its canonical path and what was found in it.
struct Found {
    path: PathBuf,
    scanned: Scanned,
    known: Known,
}

/// Listings of folders and archives.
#[derive(Clone, Debug, Default)]
pub struct Index {
    own: Store,
    shared: Option<Shared>,
}

impl Index {
    /// Reads an index; returns an empty one if there is no file, or it cannot be trusted.
    pub fn load(file: &Path) -> Self {
        Self { own: Store::load(file), shared: None }
    }

    /// Takes what it lacks from files in `folder`, which all programs of a user may share.
    pub fn sharing(self, folder: PathBuf) -> Self {
        Self { shared: Some(Shared::new(folder)), ..self }
    }

    /// Writes the index, if it has changed since it was loaded, to a temporary file that then replaces `file`.
    ///
    /// # Errors
    /// Any I/O error of the system.
    pub fn save(&mut self, file: &Path) -> io::Result<()> {
        self.own.save(file)
    }

    /// Writes what is new into the shared folder, and removes old files from it.
    ///
    /// # Errors
    /// Any I/O error of the system.
    pub fn share(&mut self) -> io::Result<()> {
        self.shared.as_mut().map_or(Ok(()), Shared::save)
    }

    /// The images below a folder, from the index if nothing changed.
    pub(crate) fn listing(&mut self, root: &Path) -> Result<Arc<Listing>, DataError> {
        let real = fs::canonicalize(root).map_err(|e| DataError::io(root, e))?;
        let own = self.own.entries.get(&real).and_then(|entry| entry.listing(&real));
        if let Some(listing) = own {
            return Ok(listing);
        }
        let shared = self.shared.as_mut().and_then(|shared| shared.store(&real).entries.get(&real).cloned());
        if let Some(entry) = shared
            && let Some(listing) = entry.listing(&real)
        {
            self.keep(&real.clone(), real, entry, Known::Shared);
            return Ok(listing);
        }
        let listed = nanoseconds(SystemTime::now());
        let listing = Arc::new(list(root)?);
        if !listing.passing {
            let entry = Entry::Folder { listed, listing: Arc::clone(&listing) };
            self.keep(&real.clone(), real, entry, Known::New);
        }
        Ok(listing)
    }

    /// The members of each archive, from the index if it is unchanged, else as `scan` finds them, with `threads`
    /// threads. It gets the canonical path of the archive, and the given one for messages.
    ///
    /// # Errors
    /// The error of the first archive that has one.
    pub(crate) fn members(
        &mut self,
        paths: &[PathBuf],
        threads: usize,
        scan: impl Fn(&Path, &Path) -> Result<Members, DataError> + Sync,
    ) -> Result<Vec<Scanned>, DataError> {
        let folder = common_folder(paths);
        // The shared file is large where there are many archives, and a run knows its own: it is read if one is not.
        let shared = Mutex::new(self.shared.as_mut());
        let in_shared = |path: &Path, len, mark| {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.as_mut()?.store(&folder).entries.get(path)?.members(len, mark)
        };
        // Archives after one that has an error need not be scanned.
        let failed = AtomicUsize::new(usize::MAX);
        let found = in_order(paths.len(), threads, |_: &mut (), number| {
            let path = &paths[number];
            let found = (number < failed.load(Ordering::Relaxed))
                .then(|| look_up(path, &self.own, in_shared, &scan))?;
            if found.is_err() {
                failed.fetch_min(number, Ordering::Relaxed);
            }
            Some(found)
        });
        let (mut all, mut error) = (Vec::with_capacity(paths.len()), None);
        for found in found.into_iter().flatten() {
            match found {
                Ok(Found { path, scanned, known }) => {
                    let Scanned { members, len, mark } = scanned.clone();
                    self.keep(&folder, path, Entry::Archive { len, mark, members }, known);
                    all.push(scanned);
                }
                Err(found) => error = error.or(Some(found)),
            }
        }
        error.map_or(Ok(all), Err)
    }

    /// Keeps an entry wherever it was not known; `folder` decides in which of the shared files.
    fn keep(&mut self, folder: &Path, path: PathBuf, entry: Entry, known: Known) {
        if known == Known::New
            && let Some(shared) = &mut self.shared
        {
            shared.store(folder).put(path.clone(), entry.clone());
        }
        if known != Known::Own {
            self.own.put(path, entry);
        }
    }
}

/// Returns what is known of an archive or, if neither `own` nor `in_shared` knows it as it is, what `scan` finds.
fn look_up(
    path: &Path,
    own: &Store,
    in_shared: impl Fn(&Path, u64, Mark) -> Option<Arc<Members>>,
    scan: impl Fn(&Path, &Path) -> Result<Members, DataError>,
) -> Result<Found, DataError> {
    let real = fs::canonicalize(path).map_err(|e| DataError::io(path, e))?;
    let metadata = fs::metadata(&real).map_err(|e| DataError::io(path, e))?;
    let (len, mark) = (metadata.len(), Mark::of(&metadata));
    let own = own.entries.get(&real).and_then(|entry| entry.members(len, mark));
    let own = own.map(|members| (members, Known::Own));
    let known = own.or_else(|| Some((in_shared(&real, len, mark)?, Known::Shared)));
    let (members, known) = match known {
        Some(known) => known,
        None => (Arc::new(scan(&real, path)?), Known::New),
    };
    Ok(Found { path: real, scanned: Scanned { members, len, mark }, known })
}

/// The innermost folder that holds all of `paths`, canonical where it can be.
fn common_folder(paths: &[PathBuf]) -> PathBuf {
    let mut common = paths.first().and_then(|path| path.parent()).unwrap_or(Path::new(""));
    while !paths.iter().all(|path| path.starts_with(common)) {
        common = common.parent().unwrap_or(Path::new(""));
    }
    // An empty path is the current folder.
    fs::canonicalize(Path::new(".").join(common)).unwrap_or_else(|_| common.to_owned())
}

fn is_fresh(root: &Path, listed: u64, listing: &Listing) -> bool {
    let is_same = |stamp: &Stamp| {
        stamp.mark.latest().is_some_and(|latest| latest.saturating_add(TICK) < listed)
            && Mark::at(&root.join(os_name(&stamp.path))).is_ok_and(|now| now == stamp.mark)
    };
    listing.stamps.iter().all(is_same) && is_there(root, &listing.images) && is_there(root, &listing.archives)
}

/// Whether a few of the files are where they were, or there are none: in spite of their marks, folders may hold others.
fn is_there(root: &Path, files: &Paths) -> bool {
    let few = files.len().checked_sub(1).map(|last| [0, last / 2, last]);
    few.into_iter().flatten().all(|file| root.join(os_name(&files.get(file))).exists())
}

#[cfg(test)]
mod tests {
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
            let error =
                index.members(&paths, threads, |_, path| scan(&[17, 18, 30], &scans, path)).unwrap_err();
            assert!(error.to_string().contains("17.tar: bad"), "{threads} threads: {error}");
            assert!(index.own.entries.len() >= 17 && scans.load(Ordering::Relaxed) <= 18 + threads);
            let members = index.members(&paths, threads, |_, path| scan(&[], &scans, path)).unwrap();
            assert!(members.iter().map(|scanned| scanned.members.lens[0]).eq(0..40), "{threads} threads");
            let all = scans.load(Ordering::Relaxed);
            index.members(&paths, threads, |_, path| scan(&[0], &scans, path)).unwrap();
            assert_eq!(scans.load(Ordering::Relaxed), all);
        }
    }

    /// Pretends that folders were listed a while later, as one that changed just now is not trusted.
    fn list_later(store: &mut Store) {
        for entry in store.entries.values_mut() {
            if let Entry::Folder { listed, .. } = entry {
                *listed += 2 * TICK;
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn another_version_with_the_same_times_is_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        let [root, parts] = ["images", "images/deep"].map(|name| dir.path().join(name));
        // As it is unpacked from an archive that is the same whenever it is made.
        let unpack = |images: &[&str], time: SystemTime| {
            fs::create_dir_all(&parts).unwrap();
            images.iter().for_each(|name| fs::write(parts.join(name), "").unwrap());
            for folder in [&parts, &root] {
                fs::File::open(folder).unwrap().set_modified(time).unwrap();
            }
        };
        let [zero, before] = [0, 9].map(|s| SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(s));
        for time in [SystemTime::now() - std::time::Duration::from_secs(900), zero, before] {
            unpack(&["a.jpg"], time);
            let mut index = Index::default();
            assert_eq!(index.listing(&root).unwrap().images.len(), 1);
            list_later(&mut index.own);
            index.own.grown = false;
            assert_eq!(index.listing(&root).unwrap().images.len(), 1);
            assert!(!index.own.grown, "it was not listed again");
            fs::rename(&root, dir.path().join("old")).unwrap();
            unpack(&["a.jpg", "b.jpg"], time);
            assert_eq!(index.listing(&root).unwrap().images.len(), 2);
            fs::remove_dir_all(dir.path().join("old")).unwrap();
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn folders_without_a_time_or_without_what_they_had_are_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        let mut listing = list(dir.path()).unwrap();
        assert!(is_fresh(dir.path(), u64::MAX, &listing));
        assert!(!is_fresh(dir.path(), 0, &listing));
        assert_eq!(Mark { modified: 0, changed: 0, inode: 5 }.latest(), None);
        listing.images.push(0, b"b.jpg");
        assert!(!is_fresh(dir.path(), u64::MAX, &listing));
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
        list_later(&mut index.own);
        index.save(&file).unwrap();

        let mut again = Index::load(&file);
        assert_eq!(again.listing(&root).unwrap().images.len(), 1);
        assert!(!again.own.grown);
        fs::write(root.join("deep/b.jpg"), "").unwrap();
        assert_eq!(again.listing(&root).unwrap().images.len(), 2);
        assert!(again.own.grown && again.own.entries.len() == 1);
        fs::write(&file, "nonsense").unwrap();
        assert!(Index::load(&file).own.entries.is_empty());
    }

    #[test]
    fn what_one_program_found_another_knows() {
        let dir = tempfile::tempdir().unwrap();
        let [cache, data, run] = ["a/cache", "data", "run"].map(|name| dir.path().join(name));
        fs::create_dir_all(data.join("deep")).unwrap();
        let paths = ["deep/0.tar", "1.tar"].map(|name| data.join(name));
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        let scans = AtomicUsize::new(0);
        let members = |index: &mut Index, paths: &[PathBuf]| {
            let before = scans.load(Ordering::Relaxed);
            let scan = |_: &Path, _: &Path| {
                scans.fetch_add(1, Ordering::Relaxed);
                Ok(Members::default())
            };
            index.members(paths, 2, scan).unwrap();
            scans.load(Ordering::Relaxed) - before
        };
        let shared = || Index::default().sharing(cache.clone());
        let mut first = shared();
        assert_eq!(members(&mut first, &paths), 2);
        first.share().unwrap();
        let files = || fs::read_dir(&cache).unwrap().count();
        assert_eq!(files(), 1);

        // The index of a run gets it too, and then does without.
        let mut second = Index::load(&run).sharing(cache.clone());
        assert_eq!(members(&mut second, &paths), 0);
        second.share().unwrap();
        second.save(&run).unwrap();
        assert_eq!(members(&mut Index::load(&run), &paths), 0);
        let mut knowing = Index::load(&run).sharing(cache.clone());
        assert_eq!(members(&mut knowing, &paths), 0);
        assert!(!knowing.shared.unwrap().is_loaded());
        assert_eq!(files(), 1);

        // An archive that is gone is forgotten; one that has changed is scanned.
        fs::remove_file(&paths[1]).unwrap();
        fs::write(&paths[0], "more").unwrap();
        let mut third = shared();
        fs::write(data.join("2.tar"), "").unwrap();
        assert_eq!(members(&mut third, &[paths[0].clone(), data.join("2.tar")]), 2);
        third.share().unwrap();
        let mut fourth = shared();
        let real = fs::canonicalize(&data).unwrap();
        assert_eq!(fourth.shared.as_mut().unwrap().store(&real).entries.len(), 2);
        assert_eq!(members(&mut fourth, &[paths[0].clone(), data.join("2.tar")]), 0);

        // A folder that cannot be written is no reason to fail, and neither is a damaged file.
        let file = fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
        fs::write(&file, "nonsense").unwrap();
        assert_eq!(members(&mut shared(), &[paths[0].clone(), data.join("2.tar")]), 2);
        fs::write(dir.path().join("file"), "").unwrap();
        let mut nowhere = Index::default().sharing(dir.path().join("file/cache"));
        assert_eq!(members(&mut nowhere, &paths[..1]), 1);
        assert!(nowhere.share().is_err());
    }

    #[cfg(unix)]
    #[test]
    fn shared_listings_are_of_their_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("images");
        fs::create_dir(&root).unwrap();
        fs::write(root.join("a.jpg"), "").unwrap();
        let real = fs::canonicalize(&root).unwrap();
        let shared = || Index::default().sharing(dir.path().join("cache"));
        let mut first = shared();
        let listing = first.listing(&root).unwrap();
        list_later(first.shared.as_mut().unwrap().store(&real));
        first.share().unwrap();
        let mut second = shared();
        assert_eq!(second.listing(&root).unwrap(), listing);
        assert!(!second.shared.as_mut().unwrap().store(&real).grown, "it was not listed again");
        fs::write(root.join("b.jpg"), "").unwrap();
        assert_eq!(second.listing(&root).unwrap().images.len(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn an_archive_is_read_where_its_link_leads() {
        let dir = tempfile::tempdir().unwrap();
        let [link, archive] = ["link.tar", "a.tar"].map(|name| dir.path().join(name));
        fs::write(&archive, "").unwrap();
        std::os::unix::fs::symlink(&archive, &link).unwrap();
        let scan = |real: &Path, given: &Path| {
            assert_eq!((real, given), (&*fs::canonicalize(&archive).unwrap(), &*link));
            Ok(Members::default())
        };
        Index::default().members(std::slice::from_ref(&link), 1, scan).unwrap();
    }

    #[test]
    fn the_folder_of_all() {
        let folder = |paths: &[&str]| common_folder(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(folder(&["/no/a/1.tar", "/no/a/b/2.tar"]), Path::new("/no/a"));
        assert_eq!(folder(&["/no/a/1.tar", "/no/ab/2.tar"]), Path::new("/no"));
        let here = fs::canonicalize(".").unwrap();
        assert_eq!((folder(&["1.tar"]), folder(&["src/1.tar", "2.tar"])), (here.clone(), here.clone()));
        assert_eq!(folder(&["src/../src/1.tar"]), here.join("src"));
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
            let scan = |_: &Path, _: &Path| {
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
        assert!(index.own.entries.is_empty());
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

    #[test]
    fn what_was_no_image_by_its_bytes_may_be_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("no_extension");
        fs::write(&file, "some text").unwrap();
        fs::write(dir.path().join("a.jpg"), "").unwrap();
        let mut index = Index::default();
        assert_eq!(index.listing(dir.path()).unwrap().images.len(), 1);
        list_later(&mut index.own);
        // No folder changes; the clock of the file system may not have moved on.
        fs::write(&file, b"\xff\xd8\xff").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(1);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert_eq!(index.listing(dir.path()).unwrap().images.len(), 2);

        let many = dir.path().join("many");
        fs::create_dir(&many).unwrap();
        (0..4200).for_each(|number| fs::write(many.join(number.to_string()), "text").unwrap());
        let listing = list(dir.path()).unwrap();
        assert!(listing.passing && listing.stamps.len() < 4200, "{}", listing.stamps.len());
    }
}
