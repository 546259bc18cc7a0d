//! A file of what was found in folders and archives, so that they need not be searched again.
//!
//! A folder counts as unchanged if no folder below it has changed since: adding, removing or renaming a file changes
//! the folder that it lies in. A dangling link or something unreadable may become readable without such a change, so a
//! listing with such things is not kept. An archive counts as unchanged if its size and times are the same: a file
//! copied over it may keep the modification time, but not the change time. The index carries a checksum; a damaged one,
//! or one of another version, counts as absent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::error::DataError;
use crate::listing::{LeftOut, LeftOutFile, Listing, Stamp, changed, list, nanoseconds};
use crate::names::{Names, Paths, bytes_of, os_name};
use crate::temporary::temporary_of;

const MAGIC: &[u8] = b"simclr index 5\n";
/// In nanoseconds: a folder that changed this shortly before it was listed may have changed again within the same tick
/// of its clock.
const TICK: u64 = 2_000_000_000;

/// The image files of an archive, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
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

    /// The members of an archive, from the index if it is unchanged, else as `scan` finds them.
    pub(crate) fn members(
        &mut self,
        path: &Path,
        scan: impl FnOnce() -> Result<Members, DataError>,
    ) -> Result<Arc<Members>, DataError> {
        let real = fs::canonicalize(path).map_err(|e| DataError::io(path, e))?;
        let metadata = fs::metadata(&real).map_err(|e| DataError::io(path, e))?;
        let (len, times) = (metadata.len(), times(&metadata));
        if let Some(Entry::Archive { len: len_then, times: times_then, members }) = self.entries.get(&real)
            && (*len_then, *times_then) == (len, times)
        {
            return Ok(Arc::clone(members));
        }
        let members = Arc::new(scan()?);
        self.put(real, Entry::Archive { len, times, members: Arc::clone(&members) });
        Ok(members)
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

fn encode(entries: &BTreeMap<PathBuf, Entry>) -> Vec<u8> {
    let mut out = Writer(MAGIC.to_vec());
    out.number(entries.len() as u64);
    for (path, entry) in entries {
        let path = bytes_of(path.as_os_str()).unwrap_or_default();
        match entry {
            Entry::Folder { listed, listing } => {
                out.number(0);
                out.bytes(path);
                out.number(*listed);
                out.paths(&listing.images);
                out.paths(&listing.archives);
                out.left_out(&listing.left_out);
                out.number(listing.stamps.len() as u64);
                for stamp in &listing.stamps {
                    out.bytes(&stamp.path);
                    out.number(stamp.changed);
                }
            }
            Entry::Archive { len, times, members } => {
                out.number(1);
                out.bytes(path);
                out.number(*len);
                times.iter().for_each(|&time| out.number(time));
                out.names(&members.names);
                out.numbers(members.offsets.iter().copied());
                out.numbers(members.lens.iter().copied());
                out.numbers(members.labels.iter().map(|&label| label.into()));
                out.left_out(&members.left_out);
                out.bytes(members.broken.as_deref().unwrap_or_default().as_bytes());
            }
        }
    }
    let checksum = crc32c::crc32c(&out.0);
    out.0.extend(checksum.to_le_bytes());
    out.0
}

fn decode(bytes: &[u8]) -> Option<BTreeMap<PathBuf, Entry>> {
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let mut input = Reader(body.strip_prefix(MAGIC)?);
    let count = input.number()?;
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let kind = input.number()?;
        let path = os_name(input.bytes()?).into();
        let entry = match kind {
            0 => Entry::Folder {
                listed: input.number()?,
                listing: Arc::new(Listing {
                    images: input.paths()?,
                    archives: input.paths()?,
                    left_out: input.left_out()?,
                    stamps: (0..input.number()?)
                        .map(|_| Some(Stamp { path: input.bytes()?.to_vec(), changed: input.number()? }))
                        .collect::<Option<_>>()?,
                    passing: false,
                }),
            },
            1 => {
                let (len, times) = (input.number()?, [input.number()?, input.number()?]);
                let members = Members {
                    names: input.names()?,
                    offsets: input.numbers()?,
                    lens: input.numbers()?,
                    labels: input
                        .numbers()?
                        .into_iter()
                        .map(|n| u32::try_from(n).ok())
                        .collect::<Option<_>>()?,
                    left_out: input.left_out()?,
                    broken: Some(input.text()?).filter(|reason| !reason.is_empty()),
                };
                let images = members.names.len();
                let whole = members.offsets.len() == images
                    && members.lens.len() == images
                    && (members.labels.is_empty() || members.labels.len() == images);
                Entry::Archive { len, times, members: Arc::new(whole.then_some(members)?) }
            }
            _ => return None,
        };
        entries.insert(path, entry);
    }
    input.0.is_empty().then_some(entries)
}

/// Writes numbers as LEB128, and byte strings after their length.
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn numbers(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.number(numbers.len() as u64);
        numbers.for_each(|number| self.number(number));
    }

    fn names(&mut self, names: &Names) {
        self.number(names.len() as u64);
        names.iter().for_each(|name| self.bytes(name));
    }

    fn paths(&mut self, paths: &Paths) {
        self.names(&paths.folders);
        self.numbers(paths.folder_of.iter().map(|&folder| folder.into()));
        self.names(&paths.files);
    }

    /// Leaves out the other fields: listings with something broken are not kept, an archive's fault is stored in
    /// `Members`, and parts are worked out later.
    fn left_out(&mut self, left_out: &LeftOut) {
        self.number(left_out.count as u64);
        self.number(left_out.files.len() as u64);
        for file in &left_out.files {
            self.bytes(file.name.as_bytes());
            self.bytes(file.reason.as_bytes());
        }
    }
}

/// Reads what [`Writer`] wrote; `None` if the bytes are something else. Memory is allocated only for data that are
/// there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn numbers(&mut self) -> Option<Vec<u64>> {
        let count = self.number()?;
        (0..count).map(|_| self.number()).collect()
    }

    fn names(&mut self) -> Option<Names> {
        let mut names = Names::default();
        for _ in 0..self.number()? {
            names.push(self.bytes()?);
        }
        names.shrink_to_fit();
        Some(names)
    }

    fn paths(&mut self) -> Option<Paths> {
        let folders = self.names()?;
        let mut folder_of = Vec::new();
        for _ in 0..self.number()? {
            folder_of.push(
                u32::try_from(self.number()?).ok().filter(|&folder| (folder as usize) < folders.len())?,
            );
        }
        folder_of.shrink_to_fit();
        let files = self.names()?;
        (files.len() == folder_of.len()).then_some(Paths { folders, folder_of, files })
    }

    fn left_out(&mut self) -> Option<LeftOut> {
        let count = usize::try_from(self.number()?).ok()?;
        let mut files = Vec::new();
        for _ in 0..self.number()? {
            files.push(LeftOutFile { name: self.text()?, reason: self.text()? });
        }
        // `LeftOut::extend` relies on there being no more than `REMEMBERED`.
        (files.len() <= count.min(crate::listing::REMEMBERED)).then_some(LeftOut {
            count,
            files,
            ..LeftOut::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> BTreeMap<PathBuf, Entry> {
        let mut names = Names::default();
        names.push(b"a.jpg");
        names.push(b"b/c.png");
        let mut images = Paths::default();
        images.folders.push(b"");
        images.folders.push(b"deep/er");
        images.push(0, b"x.jpg");
        images.push(1, b"y.jpg");
        let mut left_out = LeftOut::default();
        left_out.push("n.txt".to_owned(), "not an image (.txt)");
        let stamps = vec![Stamp { path: b"deep".to_vec(), changed: u64::MAX }];
        let listing = Listing {
            images,
            archives: Paths::default(),
            left_out: left_out.clone(),
            stamps,
            passing: false,
        };
        let members = Members {
            names,
            offsets: vec![512, 1 << 40],
            lens: vec![0, 300],
            labels: vec![7, u32::MAX],
            left_out,
            broken: Some("torn".to_owned()),
        };
        BTreeMap::from([
            ("/data".into(), Entry::Folder { listed: 12345, listing: Arc::new(listing) }),
            ("/a.tar".into(), Entry::Archive { len: 3, times: [4, 5], members: Arc::new(members) }),
        ])
    }

    #[test]
    fn an_index_comes_back() {
        let bytes = encode(&entries());
        assert_eq!(format!("{:?}", decode(&bytes).unwrap()), format!("{:?}", entries()));
    }

    #[test]
    fn a_damaged_index_is_none() {
        let bytes = encode(&entries());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x41;
            assert!(decode(&damaged).is_none(), "byte {at}");
            assert!(decode(&bytes[..at]).is_none(), "cut at {at}");
            // With its checksum corrected it may mean something else, but must never panic.
            let checked = damaged.len() - 4;
            let checksum = crc32c::crc32c(&damaged[..checked]);
            damaged[checked..].copy_from_slice(&checksum.to_le_bytes());
            let _ = decode(&damaged);
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
        let mut scans = 0;
        let mut members = |index: &mut Index| {
            let scan = || {
                scans += 1;
                Ok(Members::default())
            };
            index.members(&path, scan).unwrap();
            scans
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
