//! How a run is removed: its own parts, and nothing else.

use std::path::{Path, PathBuf};

use super::parts::place_of;
use super::{RunFolder, lock};
use crate::TrainError;

impl RunFolder {
    /// Removes a run that no process is training, whatever has become of its files; an empty folder stays.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::RunLocked`], [`TrainError::NotOnlyARun`], before which nothing is
    /// removed; [`TrainError::Io`].
    pub fn remove(path: &Path) -> Result<(), TrainError> {
        if !Self::exists(path) {
            return Err(TrainError::NoRun { path: path.to_path_buf() });
        }
        let _lock = lock(path)?;
        let mut entries: Vec<(usize, PathBuf)> = Vec::new();
        for entry in std::fs::read_dir(path).map_err(TrainError::io("list", path))? {
            let entry = entry.map_err(TrainError::io("list", path))?.path();
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place =
                place_of(&name).ok_or_else(|| TrainError::NotOnlyARun { path: path.to_path_buf(), name })?;
            entries.push((place, entry));
        }
        entries.sort();
        for (_, entry) in entries {
            let is_folder = entry.symlink_metadata().is_ok_and(|found| found.is_dir());
            let removed =
                if is_folder { std::fs::remove_dir_all(&entry) } else { std::fs::remove_file(&entry) };
            removed.map_err(TrainError::io("remove", &entry))?;
        }
        Ok(())
    }
}
