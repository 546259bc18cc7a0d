//! The checkpoints of a run: the newest few and the best are kept, and damaged ones are skipped.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::unfinished;

use super::Checkpoint;
use crate::TrainError;
use crate::file_system::{FileSystem, create_durably};
use crate::run_folder::Lock;

const START: &str = "step-";
const END: &str = ".safetensors";

/// A folder of files `step-XXXXXXXX.safetensors`.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
    files: Arc<dyn FileSystem>,
    /// The lock of the run that saves here.
    lock: Option<Arc<Lock>>,
}

/// The checkpoint that a search found.
#[derive(Debug)]
pub struct LoadedCheckpoint {
    /// Its file.
    pub path: PathBuf,
    /// Its contents.
    pub checkpoint: Checkpoint,
    /// What is wrong with the newer checkpoints that were skipped.
    pub skipped: Vec<TrainError>,
}

impl Checkpoints {
    /// The checkpoints in `folder`; saving keeps the newest `keep` (at least 1) and the best.
    pub fn new(folder: PathBuf, keep: usize, files: Arc<dyn FileSystem>) -> Self {
        Self { folder, keep: keep.max(1), files, lock: None }
    }

    /// The same for a run that holds `lock`, if it is open for training.
    pub(crate) fn of_locked(self, lock: Option<Arc<Lock>>) -> Self {
        Self { lock, ..self }
    }

    /// The folder of the checkpoints.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a step's checkpoint.
    pub fn path(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{START}{step:08}{END}"))
    }

    /// Writes a checkpoint to disk, durably, and then removes the older ones that are no longer kept.
    ///
    /// Failing to remove an old checkpoint is a warning, not an error.
    ///
    /// # Errors
    /// As [`Checkpoint::write`]; all older checkpoints then still exist. [`TrainError::RunGone`] if the folder of the
    /// run is no longer the one that was locked.
    pub fn save(&self, checkpoint: &Checkpoint) -> Result<PathBuf, TrainError> {
        let path = self.path(checkpoint.meta.step);
        self.check_in_place()?;
        create_durably(self.files.as_ref(), &self.folder).map_err(TrainError::io("create", &self.folder))?;
        // The folder may go while a large checkpoint is being written, which then fails for a less telling reason.
        let written = checkpoint.write(self.files.as_ref(), &path);
        self.check_in_place()?;
        written?;
        if let Err(error) = self.prune(checkpoint) {
            tracing::warn!("old checkpoints stay: {error}");
        }
        Ok(path)
    }

    fn check_in_place(&self) -> Result<(), TrainError> {
        self.lock.as_ref().map_or(Ok(()), |lock| lock.check())
    }

    /// Removes what is not kept beside `newest`, and returns whether there was any.
    fn prune(&self, newest: &Checkpoint) -> Result<bool, TrainError> {
        self.check_in_place()?;
        let step = newest.meta.step;
        let best = newest.meta.best.as_ref().map(super::Best::step);
        // Checkpoints of later steps are from before the run went back to an earlier one; it will reach those steps
        // again and replace them.
        let mut old: Vec<_> = self.list()?.into_iter().filter(|&(s, _)| s <= step).collect();
        old.truncate(old.len().saturating_sub(self.keep));
        let left_over = self.entries()?.into_iter().filter(|path| is_left_over(path));
        let removed = old.into_iter().filter(|&(s, _)| Some(s) != best).map(|(_, path)| path);
        let mut any = false;
        for path in removed.chain(left_over) {
            self.files.remove(&path).map_err(TrainError::io("remove", &path))?;
            any = true;
        }
        Ok(any)
    }

    /// Makes room on a full disk for the next checkpoint: removes those that are more than are kept, which is otherwise
    /// done after it is written. They are there if fewer are to be kept than before. The newest good one stays, and so
    /// does the best. Returns whether anything was removed.
    ///
    /// # Errors
    /// Those of [`Checkpoints::latest_good`]; [`TrainError::RunGone`].
    pub(crate) fn make_room(&self) -> Result<bool, TrainError> {
        let Some(newest) = self.latest_good()? else { return Ok(false) };
        self.prune(&newest.checkpoint)
    }

    /// Lists the steps that have a checkpoint, damaged or not, and their files, in ascending order.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the folder cannot be listed. A folder that does not exist has no checkpoints.
    pub fn list(&self) -> Result<Vec<(u64, PathBuf)>, TrainError> {
        let entries = self.entries()?.into_iter();
        let mut found: Vec<_> = entries.filter_map(|path| Some((step_of(&path)?, path))).collect();
        found.sort();
        Ok(found)
    }

    fn entries(&self) -> Result<Vec<PathBuf>, TrainError> {
        match self.files.list(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.map_err(TrainError::io("list", &self.folder)),
        }
    }

    /// Reads the checkpoint of a step.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; the error for a damaged checkpoint names the newest intact one before it. A checkpoint
    /// whose network has non-finite values counts as damaged.
    pub fn load(&self, step: u64) -> Result<Checkpoint, TrainError> {
        match self.read(&self.path(step)) {
            Err(TrainError::CheckpointDamaged { path, reason, .. }) => {
                let previous = self.newest_before(step).ok().flatten().map(|found| found.path);
                Err(TrainError::CheckpointDamaged { path, reason, previous })
            }
            other => other,
        }
    }

    /// Returns the newest intact checkpoint, or `None` if there are no checkpoints at all.
    ///
    /// # Errors
    /// [`TrainError::NoGoodCheckpoint`] when all checkpoints are damaged; [`TrainError::Io`] when none can be used but
    /// at least one could not be read and may be intact; [`TrainError::NewerFormat`] when the newest intact one was
    /// written by a later version.
    pub fn latest_good(&self) -> Result<Option<LoadedCheckpoint>, TrainError> {
        self.newest_before(u64::MAX)
    }

    /// Returns the checkpoint that the newest intact one records as the best, or `None` if there are no checkpoints.
    ///
    /// # Errors
    /// As [`Checkpoints::latest_good`]; [`TrainError::NoBest`], [`TrainError::BestLost`].
    pub fn best(&self) -> Result<Option<LoadedCheckpoint>, TrainError> {
        let mut looked_again = false;
        loop {
            let Some(newest) = self.latest_good()? else {
                return Ok(None);
            };
            let meta = &newest.checkpoint.meta;
            let best = meta.best.as_ref().map(super::Best::step);
            let best = best.ok_or_else(|| TrainError::NoBest { folder: self.folder.clone() })?;
            if best == meta.step {
                return Ok(Some(newest));
            }
            let path = self.path(best);
            match self.read(&path) {
                Ok(checkpoint) => {
                    return Ok(Some(LoadedCheckpoint { path, checkpoint, skipped: newest.skipped }));
                }
                // The run is in training, and has a better one now.
                Err(error) if error.is_not_found() && !looked_again => looked_again = true,
                Err(error) => {
                    return Err(TrainError::BestLost { reason: error.to_string(), newest: newest.path });
                }
            }
        }
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, TrainError> {
        let checkpoint = Checkpoint::read(self.files.as_ref(), path)?;
        match checkpoint.check_finite() {
            Ok(()) => Ok(checkpoint),
            Err(error) => Err(TrainError::CheckpointDamaged {
                path: path.to_path_buf(),
                reason: error.to_string(),
                previous: None,
            }),
        }
    }

    fn newest_before(&self, step: u64) -> Result<Option<LoadedCheckpoint>, TrainError> {
        let mut skipped: Vec<TrainError> = Vec::new();
        let (mut left, mut listed_again) = (self.list()?, false);
        while let Some((found, path)) = left.pop() {
            if found >= step {
                continue;
            }
            match self.read(&path) {
                Ok(checkpoint) => {
                    return Ok(Some(LoadedCheckpoint { path, checkpoint, skipped }));
                }
                Err(error @ TrainError::NewerFormat { .. }) => return Err(error),
                // The run is in training, and has saved a newer one since.
                Err(error) if error.is_not_found() && !listed_again => {
                    (left, listed_again) = (self.list()?, true);
                    skipped.clear();
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    skipped.push(error);
                }
            }
        }
        let Some(first) = skipped.first().map(TrainError::to_string) else { return Ok(None) };
        let count = skipped.len();
        let unread = skipped.into_iter().find(|error| matches!(error, TrainError::Io { .. }));
        Err(unread.unwrap_or(TrainError::NoGoodCheckpoint { folder: self.folder.clone(), count, first }))
    }
}

fn step_of(path: &Path) -> Option<u64> {
    step_of_name(path.file_name()?.to_str()?)
}

fn step_of_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(START)?.strip_suffix(END)?;
    let plain = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Whether `path` is a temporary file left by a program that was stopped while it wrote a checkpoint.
pub(crate) fn is_left_over(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    unfinished(&name).is_some_and(|(whole, _)| step_of_name(whole).is_some())
}
