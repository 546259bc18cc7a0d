//! What keeps a run: its folder, its logs, its checkpoints.

use std::sync::Arc;

use simclr_data::{Cached, Skipped};

use crate::checkpoint::Checkpoint;
use crate::config::TrainConfig;
use crate::metrics_log::MetricsLog;
use crate::run_folder::RunFolder;
use crate::tensorboard::EventLog;
use crate::{Config, TrainError};

use super::Identity;
use super::records::Logs;
use super::saving::Saver;
use super::state::State;

/// Of several workers the first alone has one.
pub(super) struct Keeper<'r> {
    pub(super) folder: &'r RunFolder,
    pub(super) logs: Logs,
    pub(super) saver: Saver,
    pub(super) identity: Identity,
}

impl<'r> Keeper<'r> {
    /// Begins the logs in `folder`, or cuts them back to where `from` was saved; a cache on the disk gives way to
    /// checkpoints. Returns the images that were passed over before.
    pub(super) fn new(
        folder: &'r RunFolder,
        config: &TrainConfig,
        (identity, cache): (Identity, Option<Arc<Cached>>),
        from: Option<&Checkpoint>,
    ) -> Result<(Keeper<'r>, Vec<Skipped>), TrainError> {
        let files = folder.files().as_ref();
        let (logs, skipped) = match from {
            Some(Checkpoint { meta, .. }) => {
                let metrics = MetricsLog::resume(files, &folder.metrics(), meta.metrics_bytes)?;
                let events = EventLog::resume(files, folder.path(), meta.events_bytes)?;
                (Logs { metrics, events }, folder.read_skipped()?)
            }
            None => {
                let metrics = MetricsLog::create(files, &folder.metrics())?;
                let events = EventLog::create(files, folder.path())?;
                (Logs { metrics, events }, Vec::new())
            }
        };
        // What ended it before is no more true once it goes on.
        folder.remove_failure()?;
        let saver = Saver::new(folder.checkpoints(config.keep_checkpoints), config.checkpoint_every, cache);
        Ok((Keeper { folder, logs, saver, identity }, skipped))
    }

    /// Keeps the state, the best so far, until the next one is saved.
    ///
    /// # Errors
    /// [`TrainError::WeightsNotFinite`], and those of the logs and of what was written meanwhile.
    pub(super) fn hold(&mut self, state: &State, config: &Config) -> Result<(), TrainError> {
        let (metrics, events) = (self.logs.metrics.length(), self.logs.events.length());
        let Keeper { saver, identity, .. } = self;
        saver.hold(|| sound(state.checkpoint(config, *identity, metrics, events)?))
    }

    /// Starts to save the state; the logs are on the disk before it.
    ///
    /// # Errors
    /// As [`Keeper::hold`].
    pub(super) fn save(&mut self, state: &State, config: &Config) -> Result<(), TrainError> {
        let Keeper { saver, logs, identity, .. } = self;
        saver.save(|| {
            let (metrics, events) = (logs.metrics.sync()?, logs.events.sync()?);
            sound(state.checkpoint(config, *identity, metrics, events)?)
        })
    }
}

/// A checkpoint from which a run can go on.
fn sound(checkpoint: Checkpoint) -> Result<Checkpoint, TrainError> {
    checkpoint.check_finite().map(|()| checkpoint)
}
