//! The CSV file beside a matrix of features, with the names and labels of its rows.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use simclr_train::file_system::{AtomicFile, Disk};

use super::images::Image;
use crate::EvalError;

/// The columns; they are also the first line, by which such a file is recognised.
const COLUMNS: [&str; 4] = ["name", "split", "label", "class"];

/// A CSV file with a line for each row: name, split, label, class; a field is empty where the image has none.
pub(super) struct Companion {
    path: PathBuf,
    lines: csv::Writer<AtomicFile<'static>>,
}

impl Companion {
    /// The path for the matrix at `path`: `features.npy.csv`, so that every matrix has its own.
    pub fn path(path: &Path) -> PathBuf {
        let mut whole = path.as_os_str().to_owned();
        whole.push(".csv");
        PathBuf::from(whole)
    }

    /// Starts the companion of the matrix at `path`.
    ///
    /// # Errors
    /// [`EvalError::Taken`] where another file has that name: it may be the user's own list.
    pub fn create(path: &Path) -> Result<Companion, EvalError> {
        let path = Companion::path(path);
        if !is_free(&path) {
            return Err(EvalError::Taken { path, what: "list of images that was written with features" });
        }
        let file = AtomicFile::create(&Disk, &path).map_err(EvalError::write(&path))?;
        let mut companion = Companion { path, lines: csv::Writer::from_writer(file) };
        companion.line(COLUMNS)?;
        Ok(companion)
    }

    /// Adds lines.
    pub fn write(&mut self, images: &[Image<'_>]) -> Result<(), EvalError> {
        images.iter().try_for_each(|Image { name, split, label, class }| {
            let label = label.map_or_else(String::new, |label| label.to_string());
            let split = split.map_or("", |split| split.word());
            self.line([name.as_str(), split, label.as_str(), class.unwrap_or_default()])
        })
    }

    fn line(&mut self, fields: [&str; 4]) -> Result<(), EvalError> {
        self.lines.write_record(fields).map_err(EvalError::write_line(&self.path))
    }

    /// Flushes the file to disk; the caller commits it to its final path.
    pub fn complete(self) -> Result<AtomicFile<'static>, EvalError> {
        let file = self.lines.into_inner().map_err(|error| error.into_error());
        let synced = file.and_then(|mut file| file.sync().map(|()| file));
        synced.map_err(EvalError::write(&self.path))
    }
}

/// Whether `path` is free: nothing is there, or a companion, which may be replaced.
fn is_free(path: &Path) -> bool {
    let expected = COLUMNS.join(",");
    let first = |file: File| {
        let mut line = String::new();
        // Bounded, so that a file of one endless line is not read.
        BufReader::new(file.take(2 * expected.len() as u64)).read_line(&mut line).map(|_| line)
    };
    match File::open(path).and_then(first) {
        Ok(line) => line.trim_end() == expected,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
