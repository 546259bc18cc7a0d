//! What a file of bare numbers cannot say of its rows: a CSV file beside it.

use std::path::{Path, PathBuf};

use simclr_train::file_system::{AtomicFile, Disk};

use super::images::Image;
use crate::EvalError;

/// A CSV file with a line for each row: name, split, label, class; empty where there is none.
pub(super) struct Companion {
    path: PathBuf,
    lines: csv::Writer<AtomicFile<'static>>,
}

impl Companion {
    /// Where that of the file at `path` is.
    pub fn path(path: &Path) -> PathBuf {
        path.with_extension("csv")
    }

    /// Starts that of the file at `path`.
    pub fn create(path: &Path) -> Result<Companion, EvalError> {
        let path = Companion::path(path);
        let file = AtomicFile::create(&Disk, &path).map_err(EvalError::write(&path))?;
        let mut companion = Companion { path, lines: csv::Writer::from_writer(file) };
        companion.line(["name", "split", "label", "class"])?;
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
        self.lines.write_record(fields).map_err(|error| EvalError::write(&self.path)(error.into()))
    }

    /// The file with all that was written on the disk, not yet in its place.
    pub fn complete(self) -> Result<AtomicFile<'static>, EvalError> {
        let file = self.lines.into_inner().map_err(|error| error.into_error());
        let synced = file.and_then(|mut file| file.sync().map(|()| file));
        synced.map_err(EvalError::write(&self.path))
    }
}
