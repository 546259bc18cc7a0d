//! Recognising what a path holds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cifar::{self, Cifar, Variant};
use crate::dataset::Dataset;
use crate::decode::Format;
use crate::error::DataError;
use crate::folder::Folder;
use crate::idx;
use crate::listing::{LeftOut, sub_folders};

/// What was recognised at a path.
#[derive(Clone)]
pub struct Source {
    /// The images to train on.
    pub train: Arc<dyn Dataset>,
    /// The images to test on, where the data set sets some apart. Its classes are numbered as those of `train`.
    pub test: Option<Arc<dyn Dataset>>,
    /// What kind of data set it is.
    pub kind: SourceKind,
    /// The files among the images that are not read, with the reasons.
    pub left_out: LeftOut,
}

/// The kinds of data set that are recognised; displayed as words for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// Image files without labels.
    Folder,
    /// Image files, one sub-folder per class.
    ClassFolders,
    /// CIFAR-10 binaries.
    Cifar10,
    /// CIFAR-100 binaries.
    Cifar100,
    /// IDX files (MNIST).
    Idx,
    /// Images rendered by this program.
    Made,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder => "folder of images, unlabelled",
            Self::ClassFolders => "folder, one sub-folder per class",
            Self::Cifar10 => "CIFAR-10 binaries",
            Self::Cifar100 => "CIFAR-100 binaries",
            Self::Idx => "IDX files",
            Self::Made => "made images",
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("kind", &self.kind)
            .field("train", &self.train.len())
            .field("test", &self.test.as_ref().map(|test| test.len()))
            .field("classes", &self.train.classes().len())
            .field("left_out", &self.left_out.count)
            .finish()
    }
}

/// Sub-folders in which data sets are usually unpacked.
const USUAL_PLACES: [&str; 5] = ["", "cifar-10-batches-bin", "cifar-100-binary", "raw", "MNIST/raw"];

/// Names of the training and the test part, in the order of preference.
const TRAIN_NAMES: [&str; 2] = ["train", "training"];
const TEST_NAMES: [&str; 5] = ["test", "testing", "val", "validation", "valid"];

/// Opens whatever data set is at `path`: a folder of images (searched recursively), one folder per class, `train/` and
/// `test/` (or `val/`) below it, CIFAR-10 or -100 binaries or IDX files, as a folder or as a single file.
///
/// # Errors
/// [`DataError`] naming the path or file, what is wrong, and what would be right.
pub fn open(path: &Path) -> Result<Source, DataError> {
    let metadata = std::fs::metadata(path).map_err(|e| DataError::io(path, e))?;
    if !metadata.is_dir() {
        return open_file(path);
    }
    for place in USUAL_PLACES {
        let folder = if place.is_empty() { path.to_owned() } else { path.join(place) };
        if !folder.is_dir() {
            continue;
        }
        if let Some(files) = cifar::find(&folder)? {
            return open_cifar(&folder, &files.train, &files.test, files.variant);
        }
        if let Some((train, test)) = idx::find(&folder)? {
            return open_idx(&train, test.as_ref());
        }
    }
    let folders = sub_folders(path)?;
    let named = |names: &[&str]| -> Vec<PathBuf> {
        let mut found = Vec::new();
        for name in names {
            found.extend(
                folders.iter().filter(|folder| folder.eq_ignore_ascii_case(name)).map(|f| path.join(f)),
            );
        }
        found
    };
    match named(&TRAIN_NAMES).into_iter().next() {
        Some(train) => open_parts(&train, &named(&TEST_NAMES)),
        None => {
            let (folder, left_out) = Folder::open(path)?;
            Ok(Source { kind: folder_kind(&folder), train: Arc::new(folder), test: None, left_out })
        }
    }
}

fn folder_kind(folder: &Folder) -> SourceKind {
    match folder.classes().is_empty() {
        true => SourceKind::Folder,
        false => SourceKind::ClassFolders,
    }
}

/// A training folder, and the first of the test folders that is of use: ImageNet's `test/` has no labels, its `val/` has.
fn open_parts(train: &Path, tests: &[PathBuf]) -> Result<Source, DataError> {
    let (train, mut left_out) = Folder::open(train)?;
    let mut chosen = None;
    for test in tests {
        let (mut folder, test_left_out) = match Folder::open(test) {
            Err(DataError::NoImages { .. }) => continue,
            opened => opened?,
        };
        let labelled = !folder.classes().is_empty();
        if labelled {
            folder.relabel(train.classes())?;
        }
        if labelled || chosen.is_none() {
            chosen = Some((folder, test_left_out));
        }
        if labelled || train.classes().is_empty() {
            break;
        }
    }
    let test = chosen.map(|(folder, more)| {
        left_out.extend(more);
        Arc::new(folder) as Arc<dyn Dataset>
    });
    Ok(Source { kind: folder_kind(&train), train: Arc::new(train), test, left_out })
}

fn open_cifar(
    folder: &Path,
    train: &[PathBuf],
    test: &[PathBuf],
    variant: Variant,
) -> Result<Source, DataError> {
    let classes = variant.class_names(folder)?;
    let train = Cifar::load(train, variant, classes.clone(), "train")?;
    let test: Option<Arc<dyn Dataset>> = match test {
        [] => None,
        files => Some(Arc::new(Cifar::load(files, variant, classes, "test")?)),
    };
    let kind = match variant {
        Variant::Cifar10 => SourceKind::Cifar10,
        Variant::Cifar100 => SourceKind::Cifar100,
    };
    Ok(Source { train: Arc::new(train), test, kind, left_out: LeftOut::default() })
}

fn open_idx(train: &idx::Pair, test: Option<&idx::Pair>) -> Result<Source, DataError> {
    let mut train = train.load("train")?;
    let mut test = test.map(|pair| pair.load("test")).transpose()?;
    if let Some(test) = &mut test {
        train.share_classes(test);
    }
    let test = test.map(|set| Arc::new(set) as Arc<dyn Dataset>);
    Ok(Source { train: Arc::new(train), test, kind: SourceKind::Idx, left_out: LeftOut::default() })
}

fn open_file(path: &Path) -> Result<Source, DataError> {
    let unrecognised =
        |found: &str| DataError::Unrecognised { path: path.to_owned(), found: found.to_owned() };
    if idx::is_images(path) {
        return open_idx(&idx::Pair::of(path.to_owned()), None);
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin")) {
        let variant = Variant::guess(path)?.ok_or_else(|| {
            DataError::malformed(
                path,
                "cut short or not a CIFAR file: its size is not a whole number of records (3073 or 3074 bytes)",
            )
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        return open_cifar(folder, &[path.to_owned()], &[], variant);
    }
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| std::io::Read::read_to_end(&mut std::io::Read::take(file, 16), &mut head))
        .map_err(|e| DataError::io(path, e))?;
    Err(match Format::of(&head) {
        Some(_) => unrecognised("is a single image; give the folder it lies in"),
        None => unrecognised("is no data set that is known here"),
    })
}
