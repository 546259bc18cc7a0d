//! A matrix in a file whose header holds the number of rows, which is known only at the end.

use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use simclr_train::file_system::{AtomicFile, Disk, FileSystem};

use super::companion::Companion;
use super::format::Rows;
use crate::EvalError;

/// Such a file and its companion.
pub(super) struct Matrix {
    path: PathBuf,
    file: AtomicFile<'static>,
    companion: Companion,
    /// Bytes of the header.
    room: usize,
    /// Rows so far.
    pub rows: usize,
}

impl Matrix {
    /// Starts the file with `header`, a placeholder as long as the final one.
    pub fn create(path: &Path, header: &[u8]) -> Result<Matrix, EvalError> {
        let path = path.to_owned();
        let mut file = AtomicFile::create(&Disk, &path).map_err(EvalError::write(&path))?;
        let companion = Companion::create(&path)?;
        file.write_all(header).map_err(EvalError::write(&path))?;
        Ok(Matrix { path, file, companion, room: header.len(), rows: 0 })
    }

    /// Adds rows.
    pub fn write(&mut self, rows: &Rows<'_>) -> Result<(), EvalError> {
        let bytes: Vec<u8> = rows.features.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.append(&bytes)?;
        self.rows += rows.images.len();
        self.companion.write(&rows.images)
    }

    /// Writes bytes after the rows.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), EvalError> {
        self.file.write_all(bytes).map_err(EvalError::write(&self.path))
    }

    /// Writes the final `header` over the placeholder, then moves both files to their paths. The order of the moves
    /// ensures that an interruption never leaves one embedding's matrix beside another's companion.
    pub fn finish(mut self, header: &[u8]) -> Result<(), EvalError> {
        debug_assert_eq!(header.len(), self.room, "a header keeps its length");
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(header));
        written.and_then(|()| self.file.sync()).map_err(EvalError::write(&self.path))?;
        let companion = self.companion.complete()?;
        match Disk.remove(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(EvalError::write(&self.path)(error));
            }
            _ => companion.commit().map_err(EvalError::write(&Companion::path(&self.path)))?,
        }
        self.file.commit().map_err(EvalError::write(&self.path))
    }
}
