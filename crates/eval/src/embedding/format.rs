//! What a file format has to do, and which there are.

use std::path::Path;

use super::companion::Companion;
use super::images::Image;
use super::{npy, parquet, safetensors};
use crate::EvalError;

/// A kind of file, known by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// A table with the columns `name`, `split`, `label`, `class` and `features`, a list of float32, to
    /// Arrow's readers of a fixed length.
    Parquet,
    /// NumPy's: the matrix alone (rows, values), float32. The rest is in a CSV file beside it.
    Npy,
    /// The tensors `features` (rows, values), float32, and `labels` (rows), int64, -1 for none. Names are in a CSV
    /// file beside it.
    Safetensors,
}

impl FileFormat {
    const ALL: [FileFormat; 3] = [FileFormat::Parquet, FileFormat::Npy, FileFormat::Safetensors];

    /// The format of a file of this name.
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

    /// Starts such a file.
    pub(super) fn create(self, path: &Path, what: &Description) -> Result<Box<dyn Writer>, EvalError> {
        Ok(match self {
            FileFormat::Parquet => Box::new(parquet::Table::create(path, what)?),
            FileFormat::Npy => Box::new(npy::Npy::create(path, what)?),
            FileFormat::Safetensors => Box::new(safetensors::Safetensors::create(path, what)?),
        })
    }
}

/// What is known before the first row.
pub(super) struct Description {
    /// The number of rows, were no image broken.
    pub most_rows: usize,
    /// Values a row.
    pub dim: usize,
    /// What the rows are, by names: kept where the format has a place for it.
    pub notes: Vec<(&'static str, String)>,
}

/// Some rows.
pub(super) struct Rows<'a> {
    /// The values, row after row.
    pub features: &'a [f32],
    /// The image of each row.
    pub images: Vec<Image<'a>>,
}

/// A file being written, which is there when it is finished and not before.
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
