//! Finding the images below a folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::decode::{Format, MAGIC_BYTES, READ};
use crate::error::{DataError, name_of};
use crate::mark::Mark;
use crate::names::{Names, Paths, bytes_of, extension, os_name};

/// Extensions taken for images without opening the file, so that listing a million files does not open them. When they
/// are read, their first bytes decide.
const IMAGE_EXTENSIONS: [&str; 16] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "tif", "tiff", "gif", "pbm", "pgm", "ppm",
    "pnm", "pam",
];

/// Extensions of files that usually lie beside images, left out without opening them.
const OTHER_EXTENSIONS: [&str; 20] = [
    "txt", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "toml", "md", "html", "pdf", "npy", "xmp",
    "aae", "mp4", "mov", "avi", "gz", "zst",
];

/// Extensions of raw files from cameras. Many are TIFFs whose first page is only a small preview.
const RAW_EXTENSIONS: [&str; 20] = [
    "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "iiq", "kdc", "mrw", "nef", "nrw", "orf", "pef", "raf",
    "rw2", "rwl", "sr2", "srw", "x3f",
];

/// A listing that is kept remembers the files that had to be opened to find out that they are no images: each of them
/// is compared when the listing is used again, as it may be an image by then. A listing with more such files than this
/// is not kept, since comparing so many takes as long as listing the folder again.
const MOST_STAMPED: usize = 4096;

/// The most left-out files whose names are kept.
pub(crate) const REMEMBERED: usize = 1000;

/// A file among the images that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutFile {
    /// Its path within the data set, control characters escaped.
    pub name: String,
    /// Why it is left out.
    pub reason: String,
}

/// The files among the images that are not used. Hidden files are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The number of files that are not used.
    pub count: usize,
    /// The first thousand of them.
    pub files: Vec<LeftOutFile>,
    /// How many of them are images outside the parts that are used.
    pub images: usize,
    /// The folders of these images, such as `val/`, or the parts that a list says they are in.
    pub outside: BTreeSet<String>,
    /// Things that may hold images but cannot be read: folders, dangling links, the rest of archives that are cut
    /// short. They are not among `files`.
    pub broken: Vec<LeftOutFile>,
    /// Archives that may be cut short, although all that is there can be read. They are not among `files`, and no error
    /// where opening is strict.
    pub doubtful: Vec<LeftOutFile>,
    /// Notes, in sentences, on anything else that was found and not understood.
    pub notes: Vec<String>,
}

impl LeftOut {
    pub(crate) fn push(&mut self, name: String, reason: impl Into<String>) {
        self.count += 1;
        if self.files.len() < REMEMBERED {
            self.files.push(LeftOutFile { name, reason: reason.into() });
        }
    }

    pub(crate) fn push_broken(&mut self, name: String, reason: impl Into<String>) {
        self.broken.push(LeftOutFile { name, reason: reason.into() });
    }

    pub(crate) fn push_doubtful(&mut self, name: String, reason: impl Into<String>) {
        self.doubtful.push(LeftOutFile { name, reason: reason.into() });
    }

    /// Takes back that the file of this name, which counts as left out, is not used.
    pub(crate) fn take_back(&mut self, name: &str) {
        self.count = self.count.saturating_sub(1);
        self.files.retain(|file| file.name != name);
    }

    pub(crate) fn extend(&mut self, other: LeftOut) {
        self.broken.extend(other.broken);
        self.doubtful.extend(other.doubtful);
        self.notes.extend(other.notes);
        self.count += other.count;
        self.images += other.images;
        self.outside.extend(other.outside);
        let room = REMEMBERED - self.files.len();
        self.files.extend(other.files.into_iter().take(room));
    }
}

/// A folder or a file, and what it was when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Relative to the root, components separated by `/`.
    pub path: Vec<u8>,
    pub mark: Mark,
}

/// Images below a root, sorted by the components of their paths, and what else was there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub images: Paths,
    /// Files that may hold many images. They also count as left out.
    pub archives: Paths,
    pub left_out: LeftOut,
    /// Every folder that was read, and every file that was left out for what is in it.
    pub stamps: Vec<Stamp>,
    /// Whether something may become readable without any folder changing: a link was dangling, a folder or a file
    /// could not be read, or very many files have the bytes of no image. Such a listing must not be kept.
    pub passing: bool,
}

/// Lists the images below `root`, following symbolic links; hidden files and folders are ignored.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let real = fs::canonicalize(root).map_err(|e| DataError::io(root, e))?;
    let mut walk = Walk { root, listing: Listing::default(), inside: Vec::new(), stamped: 0 };
    walk.folder(&[], real).map_err(|error| DataError::io(root, error))?;
    let Listing { images, left_out, stamps, .. } = &mut walk.listing;
    images.folder_of.shrink_to_fit();
    images.files.shrink_to_fit();
    stamps.shrink_to_fit();
    for files in [&mut left_out.files, &mut left_out.broken] {
        files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(walk.listing)
}

struct Walk<'r> {
    root: &'r Path,
    listing: Listing,
    /// The real paths of the folders that the walk is in, to notice links that lead back to them.
    inside: Vec<PathBuf>,
    /// How many files were left out for their bytes.
    stamped: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Folder,
    Link,
    Other,
}

impl Walk<'_> {
    /// Lists one folder: its files and sub-folders in the order of their names, which is the order of whole paths.
    fn folder(&mut self, relative: &[u8], real: PathBuf) -> std::io::Result<()> {
        let path = self.root.join(os_name(relative));
        // Taken before reading, so that a change meanwhile shows up later.
        let mark = Mark::at(&path)?;
        let (mut names, mut kinds) = (Names::default(), Vec::new());
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(bytes) = bytes_of(&name) else {
                self.leave_out(relative, name.to_string_lossy().as_bytes(), "its name is not Unicode");
                continue;
            };
            if bytes.starts_with(b".") {
                continue;
            }
            names.push(bytes);
            kinds.push(match entry.file_type()? {
                kind if kind.is_file() => Kind::File,
                kind if kind.is_dir() => Kind::Folder,
                kind if kind.is_symlink() => Kind::Link,
                _ => Kind::Other,
            });
        }
        let mut order: Vec<u32> = (0..kinds.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| names.get(a as usize).cmp(names.get(b as usize)));

        self.listing.stamps.push(Stamp { path: relative.to_vec(), mark });
        let number = self.listing.images.folders.len() as u32;
        self.listing.images.folders.push(relative);
        self.listing.archives.folders.push(relative);
        self.inside.push(real);
        for entry in order {
            let name = names.get(entry as usize);
            self.entry(relative, number, name, kinds[entry as usize]);
        }
        self.inside.pop();
        Ok(())
    }

    fn entry(&mut self, folder: &[u8], number: u32, name: &[u8], kind: Kind) {
        let relative = join(folder, name);
        let path = || self.root.join(os_name(&relative));
        // A link's target decides what it is.
        let (kind, target) = match kind {
            Kind::Link => match fs::metadata(path()) {
                Ok(target) if target.is_dir() => (Kind::Folder, fs::canonicalize(path()).ok()),
                Ok(target) if target.is_file() => (Kind::File, None),
                Ok(_) => (Kind::Other, None),
                Err(error) => return self.broken_link(folder, number, name, &error),
            },
            kind => (kind, None),
        };
        match kind {
            Kind::Folder => {
                let real = target
                    .unwrap_or_else(|| self.inside.last().cloned().unwrap_or_default().join(os_name(name)));
                if self.inside.contains(&real) {
                    return self.leave_out(folder, name, "a link to a folder that it lies in");
                }
                // An unreadable corner is noted; an unreadable root is the user's mistake.
                if let Err(error) = self.folder(&relative, real) {
                    let reason =
                        format!("the folder cannot be read: {error}; images and classes may be missing");
                    self.broken(folder, name, &reason);
                }
            }
            Kind::File if is_archive_name(name) => {
                self.listing.archives.push(number, name);
                self.leave_out(folder, name, "an archive among images");
            }
            Kind::File => match looks_like_image(name, path) {
                Ok(Ok(())) => self.listing.images.push(number, name),
                Ok(Err(reason)) => {
                    if kind_by_name(name).is_none() {
                        self.stamp_file(&relative);
                    }
                    self.leave_out(folder, name, &reason);
                }
                Err(error) => self.broken(folder, name, &format!("the file cannot be read: {error}")),
            },
            Kind::Link | Kind::Other => self.leave_out(folder, name, "not a regular file"),
        }
    }

    /// Notes a file that was left out for its bytes: writing others does not change its folder.
    fn stamp_file(&mut self, relative: &[u8]) {
        self.stamped += 1;
        if self.stamped > MOST_STAMPED {
            self.listing.passing = true;
            return;
        }
        let mark = Mark::at(&self.root.join(os_name(relative))).unwrap_or_default();
        self.listing.stamps.push(Stamp { path: relative.to_vec(), mark });
    }

    /// Handles a link whose target cannot be read. By its name it may be an image, which then is a broken one, or a
    /// file that is not used anyway.
    fn broken_link(&mut self, folder: &[u8], number: u32, name: &[u8], error: &std::io::Error) {
        self.listing.passing = true;
        match kind_by_name(name) {
            Some(Ok(())) => self.listing.images.push(number, name),
            Some(Err(reason)) if !is_archive_name(name) => self.leave_out(folder, name, &reason),
            _ if error.kind() == std::io::ErrorKind::NotFound => {
                self.broken(folder, name, "a link that leads nowhere");
            }
            _ => self.broken(folder, name, &format!("a link that cannot be followed: {error}")),
        }
    }

    /// Notes something unreadable that may become readable without its folder changing.
    fn broken(&mut self, folder: &[u8], name: &[u8], reason: &str) {
        self.listing.passing = true;
        self.listing.left_out.push_broken(name_of(&join(folder, name)), reason);
    }

    fn leave_out(&mut self, folder: &[u8], name: &[u8], reason: &str) {
        self.listing.left_out.push(name_of(&join(folder, name)), reason);
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    match folder {
        [] => name.to_vec(),
        _ => [folder, b"/", name].concat(),
    }
}

fn is_one_of(list: &[&str], extension: &[u8]) -> bool {
    list.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(extension))
}

/// Whether the name of a file says that it is an image.
pub(crate) fn is_image_name(name: &[u8]) -> bool {
    is_one_of(&IMAGE_EXTENSIONS, extension(name))
}

/// Whether the name of a file says that it is an archive or a table that may hold images.
pub(crate) fn is_archive_name(name: &[u8]) -> bool {
    is_one_of(&["tar", "tgz", "parquet", "zip"], extension(name))
        || [&b".tar.gz"[..], b".tar.zst"].iter().any(|end| {
            name.len().checked_sub(end.len()).is_some_and(|at| name[at..].eq_ignore_ascii_case(end))
        })
}

/// Whether a file is an image by its name, or else why not; `None` if the name does not tell.
fn kind_by_name(name: &[u8]) -> Option<Result<(), String>> {
    let extension = extension(name);
    if is_image_name(name) {
        return Some(Ok(()));
    }
    let lower = || String::from_utf8_lossy(extension).to_ascii_lowercase();
    if is_one_of(&OTHER_EXTENSIONS, extension) {
        return Some(Err(format!("not an image (.{})", lower())));
    }
    is_one_of(&RAW_EXTENSIONS, extension)
        .then(|| Err(format!("camera raw (.{}) is not read; convert it to JPEG or TIFF", lower())))
}

/// Whether a file is an image by its name or its first bytes, or else why not; an error if the bytes cannot be read.
pub(crate) fn looks_like_image(
    name: &[u8],
    path: impl Fn() -> PathBuf,
) -> std::io::Result<Result<(), String>> {
    if let Some(told) = kind_by_name(name) {
        return Ok(told);
    }
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    File::open(path())?.take(MAGIC_BYTES as u64).read_to_end(&mut magic)?;
    Ok(match Format::of(&magic) {
        Some(format) if format.is_read() => Ok(()),
        Some(format) => Err(format!("{format} is not read; convert it to {READ}")),
        None if magic.is_empty() => Err("the file is empty".to_owned()),
        None => Err("not an image, by its first bytes".to_owned()),
    })
}
