//! The file formats, and what a writer of one has to do.

use std::path::Path;

use super::companion::Companion;
use super::images::Image;
use super::{npy, parquet, safetensors};
use crate::EvalError;

/// A file format, chosen by the file's extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A table with the columns `name`, `split`, `label`, `class` and `features`, a list of float32 which Arrow's
    /// readers see as of fixed length.
    Parquet,
    /// NumPy's format: only the matrix (rows, values), float32. A CSV file beside it has the rest.
    Npy,
    /// The tensors `features` (rows, values), float32, and `labels` (rows), int64, -1 for none. A CSV file beside it
    /// has the names.
    Safetensors,
}

impl FileFormat {
    const ALL: [FileFormat; 3] = [FileFormat::Parquet, FileFormat::Npy, FileFormat::Safetensors];

    /// Returns the format that the extension of `path` names.
    ///
    /// # Errors
    /// [`EvalError::UnknownFormat`].
    pub fn of(path: &Path) -> Result<FileFormat, EvalError> {
        let extension = path.extension().unwrap_or_default();
        let found =
            FileFormat::ALL.into_iter().find(|format| extension.eq_ignore_ascii_case(format.extension()));
        found.ok_or_else(|| EvalError::UnknownFormat { path: path.to_owned() })
    }

    fn extension(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Npy => "npy",
            FileFormat::Safetensors => "safetensors",
        }
    }

    /// The files that an embedding in this format at `path` consists of.
    pub fn files(self, path: &Path) -> Vec<std::path::PathBuf> {
        let companion = (self != FileFormat::Parquet).then(|| Companion::path(path));
        std::iter::once(path.to_owned()).chain(companion).collect()
    }

    /// Starts a file in this format.
    pub(super) fn create(self, path: &Path, what: &Description) -> Result<Box<dyn Writer>, EvalError> {
        Ok(match self {
            FileFormat::Parquet => Box::new(parquet::Table::create(path, what)?),
            FileFormat::Npy => Box::new(npy::Npy::create(path, what)?),
            FileFormat::Safetensors => Box::new(safetensors::Safetensors::create(path, what)?),
        })
    }
}

/// What is known before the first row is written.
pub(super) struct Description {
    /// The number of rows if every image can be read.
    pub most_rows: usize,
    /// Values per row.
    pub dim: usize,
    /// Metadata as (name, value), written where the format has a place for it.
    pub notes: Vec<(&'static str, String)>,
}

/// A batch of rows.
pub(super) struct Rows<'a> {
    /// The values, row-major.
    pub features: &'a [f32],
    /// The image of each row.
    pub images: Vec<Image<'a>>,
}

/// A file being written, which appears at its path only when it is finished.
pub(super) trait Writer {
    /// Adds rows.
    ///
    /// # Errors
    /// [`EvalError::Write`].
    fn write(&mut self, rows: &Rows<'_>) -> Result<(), EvalError>;

    /// Completes the file.
    ///
    /// # Errors
    /// [`EvalError::Write`].
    fn finish(self: Box<Self>) -> Result<(), EvalError>;
}
