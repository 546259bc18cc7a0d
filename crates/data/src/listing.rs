//! Finding the images below a folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use crate::decode::{Format, MAGIC_BYTES};
use crate::error::{DataError, shown};

/// Extensions taken for images without opening the file: a million files must not be opened to be listed. What is in
/// them is decided by their first bytes when they are read.
const IMAGE_EXTENSIONS: [&str; 8] = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib"];

/// Extensions of what usually lies beside images, left out without opening the file.
const OTHER_EXTENSIONS: [&str; 18] = [
    "txt", "csv", "tsv", "json", "jsonl", "xml", "yaml", "yml", "toml", "md", "html", "pdf", "npy", "xmp",
    "aae", "mp4", "mov", "avi",
];

/// How many left-out files are remembered by name.
const REMEMBERED: usize = 1000;

/// A file among the images that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOutFile {
    /// Its path within the data set, control characters escaped.
    pub name: String,
    /// Why it is left out.
    pub reason: String,
}

/// The files among the images that are not read. Hidden files are not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many there are.
    pub count: usize,
    /// The first thousand of them.
    pub files: Vec<LeftOutFile>,
}

impl LeftOut {
    pub(crate) fn push(&mut self, name: String, reason: impl Into<String>) {
        self.count += 1;
        if self.files.len() < REMEMBERED {
            self.files.push(LeftOutFile { name, reason: reason.into() });
        }
    }

    pub(crate) fn extend(&mut self, other: LeftOut) {
        self.count += other.count;
        let room = REMEMBERED - self.files.len();
        self.files.extend(other.files.into_iter().take(room));
    }
}

/// Paths of images relative to a root, sorted by their components, and what else was there.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub images: Vec<PathBuf>,
    pub left_out: LeftOut,
}

/// Lists the images below `root`, following symbolic links; hidden files and folders are ignored.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut listing = Listing::default();
    let walk = WalkDir::new(root).follow_links(true).min_depth(1).into_iter().filter_entry(|e| !is_hidden(e));
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            // An unreadable root is the user's mistake; an unreadable corner or a loop of links is noted.
            Err(error) => match error.path() {
                Some(path) if path != root => {
                    listing.left_out.push(shown(relative(path, root)), error.to_string());
                    continue;
                }
                _ => return Err(DataError::io(root, error.into())),
            },
        };
        if entry.file_type().is_dir() {
            continue;
        }
        let path = relative(entry.path(), root);
        match looks_like_image(&entry) {
            Ok(()) => listing.images.push(path.to_owned()),
            Err(reason) => listing.left_out.push(shown(path), reason),
        }
    }
    listing.images.sort_unstable();
    listing.left_out.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(listing)
}

/// The names of the folders directly below `root` that are not hidden, sorted.
pub(crate) fn sub_folders(root: &Path) -> Result<Vec<String>, DataError> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root).map_err(|e| DataError::io(root, e))? {
        let entry = entry.map_err(|e| DataError::io(root, e))?;
        // Follows links, unlike the type that the entry itself carries.
        if entry.path().is_dir()
            && let Some(name) = entry.file_name().to_str()
            && !name.starts_with('.')
        {
            folders.push(name.to_owned());
        }
    }
    folders.sort_unstable();
    Ok(folders)
}

fn relative<'a>(path: &'a Path, root: &Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".")
}

fn looks_like_image(entry: &DirEntry) -> Result<(), String> {
    if !entry.file_type().is_file() {
        return Err("not a regular file".to_owned());
    }
    let extension = entry.path().extension().and_then(|e| e.to_str()).unwrap_or("");
    let is_one_of = |list: &[&str]| list.iter().any(|known| known.eq_ignore_ascii_case(extension));
    if is_one_of(&IMAGE_EXTENSIONS) {
        return Ok(());
    }
    if is_one_of(&OTHER_EXTENSIONS) {
        return Err(format!("not an image (.{})", extension.to_ascii_lowercase()));
    }
    let mut magic = Vec::with_capacity(MAGIC_BYTES);
    File::open(entry.path())
        .and_then(|file| file.take(MAGIC_BYTES as u64).read_to_end(&mut magic))
        .map_err(|e| e.to_string())?;
    match Format::of(&magic) {
        Some(format) if format.is_read() => Ok(()),
        Some(format) => Err(format!("{format} is not read; convert it to JPEG, PNG, WebP or BMP")),
        None => Err("not an image, by its first bytes".to_owned()),
    }
}
