//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::decode::READ;
use crate::listing::{LeftOut, LeftOutFile};
use crate::source::FORMS;
use simclr_words::text::{counted, grouped};

/// An error of a data set or a loader. Every message names the file or the setting, what is wrong, and what would be
/// right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The path given as data does not exist.
    #[error("{}: no such file or folder; give a folder of images, an archive of them, or a data set file", shown(.0))]
    NotFound(PathBuf),

    /// The operating system refused a file or a folder.
    #[error("{}: {source}", shown(.path))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A folder or an archive in which nothing is an image.
    #[error("{}: no images in it{}; {READ} files are read", shown(.path), others(.left_out))]
    NoImages {
        /// The folder or archive.
        path: PathBuf,
        /// The files that are there.
        left_out: Box<LeftOut>,
    },

    /// An invalid pattern of paths.
    #[error("{}: {reason}", shown(.path))]
    Pattern {
        /// The pattern.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },

    /// A file that is no data set.
    #[error("{}: {found}; give {FORMS}", shown(.path))]
    Unrecognised {
        /// The file.
        path: PathBuf,
        /// What it seems to be.
        found: String,
    },

    /// A data-set file (CIFAR, IDX) or folder that contradicts its own format.
    #[error("{}: {reason}", shown(.path))]
    Malformed {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what would be right.
        reason: String,
    },

    /// One image that cannot be read. Loaders skip, count and list it.
    #[error("{name}: {reason}")]
    Image {
        /// The name of the image within its data set, control characters escaped.
        name: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Images can no longer be read: their folder or archive is gone, or the system cannot read from its disk.
    #[error("{}: {source}; images cannot be read any more: {}, then go on", shown(.path), remedy(.source))]
    Lost {
        /// One of the images, or the archive.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },

    /// Labels were needed and the data set has none.
    #[error(
        "this data set has no labels; put each class into a sub-folder of its own, at least two of these, or list the images \
         in a .csv file with the columns path and label"
    )]
    NoLabels,

    /// A balanced subset that would leave a class without image, or is larger than what it is drawn from.
    #[error(
        "{} cannot be drawn from {}, some of each of {} classes; give a number from {} to {}",
        counted(*images, "image"),
        counted(*labelled, "labelled image"),
        grouped(*classes as u64),
        grouped(*classes as u64),
        grouped(*labelled as u64)
    )]
    SubsetSize {
        /// The images asked for.
        images: usize,
        /// Classes that have images.
        classes: usize,
        /// Their images.
        labelled: usize,
    },

    /// Holding out as many images as asked for would leave none.
    #[error(
        "cannot hold out {} of {}: at least one must be left to train on",
        grouped(*held_out as u64),
        counted(*images, "image")
    )]
    HoldoutTooLarge {
        /// Images to be held out.
        held_out: usize,
        /// Images in the data set.
        images: usize,
    },

    /// An epoch does not hold one full batch.
    #[error(
        "batch = {} is more than the {} of the data set ({} broken); {}",
        grouped(*batch as u64),
        counted(*usable, "readable image"),
        grouped(*broken as u64),
        match usable {
            0 | 1 => "give images that can be read",
            _ => "choose a smaller batch",
        }
    )]
    TooFewImages {
        /// Images in a batch.
        batch: usize,
        /// Images that could be read.
        usable: usize,
        /// Images that could not.
        broken: usize,
    },

    /// A setting of a loader outside its range.
    #[error("{key}: {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong and what would be right.
        reason: String,
    },

    /// The loader's threads ended, after an error already returned or because of a defect.
    #[error("the loader has stopped: {0}")]
    Stopped(String),
}

impl DataError {
    /// Whether the request is at fault (an argument, a setting, or the data that was given), and not the machine or
    /// a damaged file.
    pub fn is_misuse(&self) -> bool {
        match self {
            Self::NotFound(_)
            | Self::NoImages { .. }
            | Self::Pattern { .. }
            | Self::Unrecognised { .. }
            | Self::NoLabels
            | Self::SubsetSize { .. }
            | Self::HoldoutTooLarge { .. }
            | Self::TooFewImages { .. }
            | Self::Setting { .. } => true,
            Self::Io { .. }
            | Self::Malformed { .. }
            | Self::Image { .. }
            | Self::Lost { .. }
            | Self::Stopped(_) => false,
        }
    }

    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound(path.to_owned()),
            _ => Self::Io { path: path.to_owned(), source },
        }
    }

    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into() }
    }
}

/// What to do so that images can be read again.
fn remedy(error: &io::Error) -> &'static str {
    /// The same on all Unix systems: too many files are open in the system, or in the process.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.kind() {
        io::ErrorKind::NotFound => "bring back what has gone",
        // Of another program, not of the system.
        io::ErrorKind::InvalidData => "bring back the file as it was",
        _ if cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => {
            "allow more open files (`ulimit -n`)"
        }
        _ => "check the disk or the network that they are on",
    }
}

/// Describes the files that are there instead of images.
fn others(left_out: &LeftOut) -> String {
    if let Some(LeftOutFile { name, reason }) = left_out.broken.iter().chain(&left_out.doubtful).next() {
        return format!(" that can be read ({name}: {reason})");
    }
    match (left_out.count, left_out.files.first()) {
        (0, _) => ", nor any other files".to_owned(),
        (1, Some(file)) => format!(", only 1 other file ({}: {})", file.name, file.reason),
        (count, Some(file)) => {
            format!(", only {count} other files (the first: {}: {})", file.name, file.reason)
        }
        (count, None) => format!(", only {count} other files"),
    }
}

/// A path as text that is inert in terminals: control characters are escaped.
pub(crate) fn shown(path: &Path) -> String {
    inert(&path.to_string_lossy())
}

/// Bytes as text that is inert: invalid UTF-8 is escaped too, so that different names stay different.
pub(crate) fn inert_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out += &inert(chunk.valid());
        chunk.invalid().iter().for_each(|byte| out += &format!("\\x{byte:02x}"));
    }
    out
}

/// The name of an image: as [`inert_bytes`], but with backslashes escaped too, so that an escape cannot be confused
/// with part of a file name.
pub(crate) fn name_of(bytes: &[u8]) -> String {
    if !bytes.contains(&b'\\') {
        return inert_bytes(bytes);
    }
    let parts: Vec<String> = bytes.split(|&byte| byte == b'\\').map(inert_bytes).collect();
    parts.join("\\\\")
}

/// Text with its control characters escaped, so that a file name cannot drive a terminal.
pub(crate) fn inert(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
