//! Where the images of a data set lie, so that an image reached by two paths is known to be the same.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::{Dataset, Source};

/// Images and where they lie.
#[derive(Clone)]
pub struct LocatedImages {
    /// The images.
    pub images: Arc<dyn Dataset>,
    /// The path that their names are relative to.
    root: PathBuf,
}

impl fmt::Debug for LocatedImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (images, root) = (self.images.len(), &self.root);
        f.debug_struct("LocatedImages").field("images", &images).field("root", root).finish()
    }
}

impl LocatedImages {
    /// The training images of a source opened at `path`, and its test images if it has any.
    pub fn all(source: Source, path: &Path) -> (LocatedImages, Option<LocatedImages>) {
        let Source { train, test, kind, .. } = source;
        let root = kind.root(path);
        let place = |images| LocatedImages { images, root: root.clone() };
        (place(train), test.map(place))
    }

    /// Other images of the same place, with names relative to the same path.
    pub(super) fn with(&self, images: &Arc<dyn Dataset>) -> LocatedImages {
        LocatedImages { images: images.clone(), root: self.root.clone() }
    }

    /// Whether the file at `path` is one of these images, also if reached by another path.
    pub fn has(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let mut canonical = Canonical::default();
        (0..self.images.len()).any(|index| canonical.of(self.path(index)) == path)
    }

    /// The path of an image.
    pub fn path(&self, index: usize) -> PathBuf {
        // Names escape each backslash as two.
        self.root.join(self.images.name(index).replace("\\\\", "\\"))
    }

    /// The paths of all images, with `/` as the separator.
    pub fn paths(&self) -> impl Iterator<Item = String> {
        (0..self.images.len()).map(|index| self.path(index).to_string_lossy().replace('\\', "/"))
    }
}

/// An image that a part shares with an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// The earlier part.
    pub with: &'static str,
    /// The path of the image.
    pub at: PathBuf,
}

/// The images of some parts, by canonical path.
#[derive(Default)]
pub(super) struct Seen {
    canonical: Canonical,
    parts: HashMap<PathBuf, &'static str>,
}

impl Seen {
    /// Adds the images of a part called `name`; returns the first of them that an earlier part has too.
    pub fn add(&mut self, name: &'static str, part: &LocatedImages) -> Option<Shared> {
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

/// Canonicalises paths, looking up each folder only once.
#[derive(Default)]
struct Canonical {
    folders: HashMap<PathBuf, PathBuf>,
}

impl Canonical {
    /// The canonical path; a path that does not exist stays as it is.
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
