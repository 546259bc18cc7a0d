//! Recognising what a path holds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::concat::Concat;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::listing::LeftOut;
use crate::opener::Opener;

/// The data set that was recognised at a path.
#[derive(Clone)]
pub struct Source {
    /// The images to train on.
    pub train: Arc<dyn Dataset>,
    /// The images to test on, if the data set has a test part. Its classes are numbered as those of `train`, followed
    /// by any that only it has.
    pub test: Option<Arc<dyn Dataset>>,
    /// More images to train on without labels, if the data set has some (STL-10; `unlabelled/` beside `train/`).
    pub unlabelled: Option<Arc<dyn Dataset>>,
    /// What kind of data set it is.
    pub kind: SourceKind,
    /// The files among the images that are not used, with the reasons.
    pub left_out: LeftOut,
}

/// What a data set may be, in words: what [`open`] recognises.
pub const FORMS: &str = "a folder of images (searched recursively), one sub-folder per class, train/ and test/ of \
    either, single images, tar shards, Parquet files, a .zip, a list of paths (.txt, .csv, .tsv), CIFAR-10, CIFAR-100 \
    or STL-10 binaries (.bin), or IDX files (MNIST)";

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
    /// STL-10 binaries.
    Stl10,
    /// IDX files (MNIST).
    Idx,
    /// Tar shards (WebDataset).
    Shards,
    /// Parquet files with a column of images.
    Parquet,
    /// A zip archive.
    Zip,
    /// A text or CSV file of paths.
    List,
    /// Image files, given one by one.
    Images,
    /// Several of these together.
    Several {
        /// How many.
        sets: usize,
        /// Whether the images of any lie in archives.
        archives: bool,
    },
    /// Images rendered by this program.
    Synthetic,
    /// Images that a program holds in memory.
    InMemory,
}

impl SourceKind {
    /// The path that the names of the images are relative to, of a data set of this kind that was opened at `path`.
    pub fn root(self, path: &Path) -> PathBuf {
        let parent = || path.parent().unwrap_or(Path::new("")).to_owned();
        match self {
            // These are called by their whole paths.
            Self::Several { .. } | Self::Images => PathBuf::new(),
            Self::List => parent(),
            // A table's name is a part of its images' names, as a shard's is where there are several.
            Self::Parquet if !path.is_dir() => parent(),
            Self::Shards if !path.exists() => parent(),
            Self::Parquet
            | Self::Shards
            | Self::Zip
            | Self::Folder
            | Self::ClassFolders
            | Self::Cifar10
            | Self::Cifar100
            | Self::Stl10
            | Self::Idx
            | Self::Synthetic
            | Self::InMemory => path.to_owned(),
        }
    }

    /// Whether its images, or some of several, lie in archives. If another archive is put into their folder, it will be
    /// read with them, or instead of them if it is of another kind.
    pub fn is_of_archives(self) -> bool {
        match self {
            Self::Shards | Self::Parquet | Self::Zip => true,
            Self::Several { archives, .. } => archives,
            Self::Folder
            | Self::ClassFolders
            | Self::Cifar10
            | Self::Cifar100
            | Self::Stl10
            | Self::Idx
            | Self::List
            | Self::Images
            | Self::Synthetic
            | Self::InMemory => false,
        }
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Several { sets, .. } => return write!(f, "{sets} data sets"),
            Self::Stl10 => "STL-10 binaries",
            Self::Shards => "tar shards",
            Self::Parquet => "Parquet files",
            Self::Zip => "zip archive",
            Self::List => "list of image files",
            Self::Images => "single images, unlabelled",
            Self::Folder => "folder of images, unlabelled",
            Self::ClassFolders => "folder, one sub-folder per class",
            Self::Cifar10 => "CIFAR-10 binaries",
            Self::Cifar100 => "CIFAR-100 binaries",
            Self::Idx => "IDX files",
            Self::Synthetic => "made images",
            Self::InMemory => "images in memory",
        })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("kind", &self.kind)
            .field("train", &self.train.len())
            .field("test", &self.test.as_ref().map(|test| test.len()))
            .field("unlabelled", &self.unlabelled.as_ref().map(|set| set.len()))
            .field("classes", &self.train.classes().len())
            .field("left_out", &self.left_out.count)
            .finish()
    }
}

impl Source {
    /// A data set with a training part only.
    pub fn of(kind: SourceKind, train: Arc<dyn Dataset>) -> Self {
        Self { train, test: None, unlabelled: None, kind, left_out: LeftOut::default() }
    }

    /// The images to pretrain on: those of `train`, followed by those of `unlabelled`.
    pub fn to_pretrain(&self) -> Arc<dyn Dataset> {
        match &self.unlabelled {
            None => self.train.clone(),
            Some(unlabelled) => {
                let sets = vec![(String::new(), self.train.clone()), (String::new(), unlabelled.clone())];
                Arc::new(Concat::new(sets, self.train.classes().to_vec()))
            }
        }
    }
}

/// Opens whatever data set is at `path`: any of [`FORMS`]. Beside `train/` and `test/` (or `val/`) there may be
/// `unlabelled/`. [`Opener`] opens several at once, and keeps what it finds.
///
/// # Errors
/// [`DataError`] naming the path or file, what is wrong, and what would be right.
pub fn open(path: &Path) -> Result<Source, DataError> {
    Opener::default().open(&[path.to_owned()])
}
