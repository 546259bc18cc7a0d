//! Removing a run: its own parts, and nothing else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use simclr_data::unfinished;

use super::parts::place_of;
use super::{Lock, RunFolder};
use crate::TrainError;
use crate::file_system::has_ended;

impl RunFolder {
    /// Removes a run that no process is training, even if its files are damaged; an empty folder remains.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::RunLocked`], [`TrainError::NotOnlyARun`], all before anything is removed;
    /// [`TrainError::Io`].
    pub fn remove(path: &Path) -> Result<(), TrainError> {
        Self::check_removable(path)?;
        let _lock = Lock::take(path)?;
        Entries::of_run(path)?
            .iter()
            .try_for_each(|part| remove_part(part).map_err(TrainError::io("remove", part)))
    }

    /// Checks that [`RunFolder::remove`] would remove the run, unless a process is training it.
    ///
    /// # Errors
    /// [`TrainError::NoRun`], [`TrainError::NotOnlyARun`], [`TrainError::Io`].
    pub fn check_removable(path: &Path) -> Result<(), TrainError> {
        match Self::exists(path) {
            true => Entries::of_run(path).map(drop),
            false => Err(TrainError::NoRun { path: path.to_path_buf() }),
        }
    }

    /// Removes a run that has come to nothing, and its folder if that was created for it. Anything else in the folder
    /// stays, and so does what cannot be removed.
    pub fn discard(&self) {
        if self.check_in_place().is_err() {
            return;
        }
        let Ok(Entries { parts, .. }) = Entries::of(&self.path) else { return };
        for part in parts {
            let _ = remove_part(&part);
        }
        if self.is_new {
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Removes unfinished files of programs that have ended, or that run elsewhere and have not written for a day;
    /// those of checkpoints are removed when the next one is saved. What cannot be removed stays.
    pub(super) fn remove_unfinished(&self) {
        let names = |folder: &Path| self.files.list(folder).unwrap_or_default().into_iter();
        let parts = names(&self.path).filter(|path| place_of(&name_of(path)).is_some());
        // Results are included because fine-tuned networks are large.
        let results = names(&self.evaluations());
        let left_over = |path: &PathBuf| {
            unfinished(&name_of(path)).is_some_and(|(_, writer)| match writer.is_here() {
                true => has_ended(writer.process),
                false => is_old(path),
            })
        };
        for path in parts.chain(results).filter(left_over) {
            let _ = self.files.remove(&path);
        }
    }
}

/// Whether a file was last written more than a day ago.
fn is_old(path: &Path) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let written = path.symlink_metadata().and_then(|found| found.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|since| since > DAY))
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The entries of a run folder.
struct Entries {
    /// The parts of a run, in the order of removal.
    parts: Vec<PathBuf>,
    /// The names of everything else.
    others: Vec<String>,
}

impl Entries {
    fn of(path: &Path) -> Result<Entries, TrainError> {
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(path).map_err(TrainError::io("list", path))? {
            let entry = entry.map_err(TrainError::io("list", path))?.path();
            let name = name_of(&entry);
            match place_of(&name) {
                Some(place) => parts.push((place, entry)),
                None => others.push(name),
            }
        }
        parts.sort();
        Ok(Entries { parts: parts.into_iter().map(|(_, part)| part).collect(), others })
    }

    /// The parts of a run in whose folder there is nothing else.
    fn of_run(path: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let Entries { parts, others } = Entries::of(path)?;
        match others.into_iter().next() {
            None => Ok(parts),
            Some(name) => Err(TrainError::NotOnlyARun { path: path.to_path_buf(), name }),
        }
    }
}

fn remove_part(part: &Path) -> io::Result<()> {
    let is_folder = part.symlink_metadata().is_ok_and(|found| found.is_dir());
    if is_folder { fs::remove_dir_all(part) } else { fs::remove_file(part) }
}
