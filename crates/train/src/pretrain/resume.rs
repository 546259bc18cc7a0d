//! Resuming a run: what must hold before it can go on.

use std::path::Path;

use super::Failure;
use crate::checkpoint::{Checkpoint, LoadedCheckpoint};
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// A run to go on with: the arguments for [`pretrain`](super::pretrain).
#[derive(Debug)]
pub struct Resumed {
    /// Its folder, locked by [`resume`].
    pub folder: RunFolder,
    /// The configuration that it goes on with; use [`Resumed::change`] to change it.
    pub config: Config,
    /// Its newest good checkpoint; `None` if there is none yet and the run starts from the beginning.
    pub from: Option<LoadedCheckpoint>,
    /// The failure that ended its last training, if any; it will recur on the same images.
    pub failed: Option<Failure>,
    /// Whether the run was opened for training, not only for reading.
    trains: bool,
}

/// Resumes the run in the folder `path` with its recorded configuration, from its newest good checkpoint. The folder is
/// locked until it is dropped.
///
/// # Errors
/// Those of [`RunFolder::resume`], [`RunFolder::check_trained_here`] and [`RunFolder::check_config`];
/// [`TrainError::NoGoodCheckpoint`] where there are some and all are damaged; [`TrainError::Io`].
pub fn resume(path: &Path) -> Result<Resumed, TrainError> {
    let (folder, config) = RunFolder::resume(path)?;
    Resumed::of(folder, config, true)
}

/// Returns what [`resume`] would go on with. It locks and writes nothing, so the run may be in training meanwhile.
///
/// # Errors
/// As [`resume`], without that of the lock.
pub fn inspect(path: &Path) -> Result<Resumed, TrainError> {
    let (folder, config) = RunFolder::open(path)?;
    Resumed::of(folder, config, false)
}

impl Resumed {
    fn of(folder: RunFolder, config: Config, trains: bool) -> Result<Resumed, TrainError> {
        folder.check_trained_here()?;
        let from = folder.checkpoints(config.train.keep_checkpoints).latest_good()?;
        folder.check_config(&config, from.as_ref())?;
        let failed = Failure::of(&folder);
        Ok(Resumed { folder, config, from, failed, trains })
    }

    /// Makes the run go on with `config`, [resolved](Config::resolved), and records it in the folder if that was opened
    /// by [`resume`]. Once there is a checkpoint, only keys that do not change results may differ.
    ///
    /// # Errors
    /// Those of [`Config::validate`]; [`TrainError::Conflict`] for a key that would change what the run computes;
    /// [`TrainError::Io`].
    pub fn change(mut self, config: &Config) -> Result<Resumed, TrainError> {
        let config = config.resolved()?;
        if config == self.config {
            return Ok(self);
        }
        if let Err(conflict) = self.config.check_resume(&config) {
            if self.from.is_some() {
                return Err(conflict);
            }
            // It is a different run now, to which the failure does not apply.
            self.failed = None;
        }
        if self.trains {
            self.folder.write_config(&config)?;
        }
        Ok(Resumed { config, ..self })
    }

    /// The checkpoint to go on from.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.from.as_ref().map(|found| &found.checkpoint)
    }

    /// Whether all epochs are done.
    pub fn is_finished(&self) -> bool {
        self.checkpoint().is_some_and(|checkpoint| checkpoint.meta.has_finished(self.config.train.epochs))
    }
}
