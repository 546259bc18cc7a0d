//! Where the images of a data set lie, so that one which is reached by two paths is known to be the same.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::{Dataset, Source};

/// Images, and where they lie.
#[derive(Clone)]
pub struct Placed {
    /// The images.
    pub images: Arc<dyn Dataset>,
    /// The path that their names are relative to.
    root: PathBuf,
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, root) = (self.images.len(), &self.root);
        f.debug_struct("Placed").field("images", &images).field("root", root).finish()
    }
}

impl Placed {
    /// The training images of what was opened at `path`, and those that it sets apart to test on.
    pub fn all(source: Source, path: &Path) -> (Placed, Option<Placed>) {
        let Source { train, test, kind, .. } = source;
        let root = kind.root(path);
        let place = |images| Placed { images, root: root.clone() };
        (place(train), test.map(place))
    }

    /// Whether the file at `path` is one of them, by whatever way it is reached.
    pub fn has(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let mut canonical = Canonical::default();
        (0..self.images.len()).any(|index| canonical.of(self.path(index)) == path)
    }

    /// Where an image lies.
    pub fn path(&self, index: usize) -> PathBuf {
        // A name has its backslashes twice.
        self.root.join(self.images.name(index).replace("\\\\", "\\"))
    }

    /// Where each lies, folders apart by `/`.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        (0..self.images.len()).map(|index| self.path(index).to_string_lossy().replace('\\', "/"))
    }
}

/// An image that a part has in common with one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// The part before it.
    pub with: &'static str,
    /// Where it lies.
    pub at: PathBuf,
}

/// The images of some parts, by where they lie.
#[derive(Default)]
pub(super) struct Seen {
    canonical: Canonical,
    parts: HashMap<PathBuf, &'static str>,
}

impl Seen {
    /// Adds the images of a part called `name`; tells the first of them that another part before it has.
    pub fn add(&mut self, name: &'static str, part: &Placed) -> Option<Shared> {
        let mut shared = None;
        for index in 0..part.images.len() {
            let at = part.path(index);
            let with = *self.parts.entry(self.canonical.of(at.clone())).or_insert(name);
            if with != name {
                shared.get_or_insert(Shared { with, at });
            }
        }
        shared
    }
}

/// Paths without links, each folder looked up once.
#[derive(Default)]
struct Canonical {
    folders: HashMap<PathBuf, PathBuf>,
}

impl Canonical {
    /// The same file's one path; what is not there keeps its own.
    fn of(&mut self, path: PathBuf) -> PathBuf {
        if path.is_symlink() {
            return path.canonicalize().unwrap_or(path);
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return path };
        let canonical = self.folders.entry(folder.to_owned()).or_insert_with(|| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            folder.canonicalize().unwrap_or_else(|_| folder.to_owned())
        });
        canonical.join(name)
    }
}
