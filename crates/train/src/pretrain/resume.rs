//! Taking up a run again: what must hold before it can go on.

use std::path::Path;

use super::Failure;
use crate::checkpoint::{Checkpoint, Found};
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// A run to go on with: what [`pretrain`](super::pretrain) is to be given.
#[derive(Debug)]
pub struct Resumed {
    /// Its folder, locked by [`resume`].
    pub folder: RunFolder,
    /// What it goes on with; to be changed by [`Resumed::change`].
    pub config: Config,
    /// Its newest good checkpoint; `None` where there is none yet, and the run begins anew.
    pub from: Option<Found>,
    /// What ended it when it was last trained, where that will come again on the same images.
    pub failed: Option<Failure>,
    /// Whether it was opened to train, and not only to look.
    trains: bool,
}

/// Takes up the run in the folder `path` with the configuration that it was begun with, from its newest good
/// checkpoint. The folder is locked until it is dropped.
///
/// # Errors
/// Those of [`RunFolder::resume`] and [`RunFolder::check_config`]; [`TrainError::CannotResume`] of a run whose network
/// was imported; [`TrainError::Io`], and where no checkpoint is good the error of the newest.
pub fn resume(path: &Path) -> Result<Resumed, TrainError> {
    let (folder, config) = RunFolder::resume(path)?;
    Resumed::of(folder, config, true)
}

/// What [`resume`] would go on with: nothing is locked or written, so that the run may be in training meanwhile.
///
/// # Errors
/// As [`resume`], without the lock.
pub fn look(path: &Path) -> Result<Resumed, TrainError> {
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

    /// Has the run go on with `config`, [resolved](Config::resolved), and keeps that in its folder if it was opened by
    /// [`resume`]. Once there is a checkpoint, only what changes nothing may be different.
    ///
    /// # Errors
    /// Those of [`Config::validate`]; [`TrainError::Conflict`] of a key that would change what the run computes;
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
            // It is another run now.
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
        self.checkpoint().is_some_and(|checkpoint| checkpoint.meta.epoch >= self.config.train.epochs)
    }
}
