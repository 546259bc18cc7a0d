//! Keeping a run on disk: its folder, logs and checkpoints.

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

/// Writes a run to its folder. Of several workers only the first has a keeper.
pub(super) struct Keeper<'r> {
    pub(super) folder: &'r RunFolder,
    pub(super) logs: Logs,
    pub(super) saver: Saver,
    pub(super) identity: Identity,
}

impl<'r> Keeper<'r> {
    /// Begins the logs in `folder`, or cuts them back to where `from` was saved. If the disk is full, the cache on it
    /// makes room for checkpoints. Also returns the images skipped before.
    pub(super) fn new(
        folder: &'r RunFolder,
        config: &TrainConfig,
        identity: Identity,
        cache: Option<Arc<Cached>>,
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
        // Those that are new have to be there after a power cut: checkpoints say how long they are.
        files.sync_folder(folder.path()).map_err(TrainError::io("write", folder.path()))?;
        // The failure that ended the run before is obsolete once it goes on.
        folder.remove_failure()?;
        let saver = Saver::new(folder.checkpoints(config.keep_checkpoints), config.checkpoint_every, cache);
        Ok((Keeper { folder, logs, saver, identity }, skipped))
    }

    /// Writes to the logs. If the disk is full, the cache on it makes room for them, too.
    ///
    /// # Errors
    /// [`TrainError::Io`]; the logs are then as they were, as far as the system permits.
    pub(super) fn log(
        &mut self,
        write: impl Fn(&mut Logs) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        match write(&mut self.logs) {
            Err(error) if error.is_full_disk() && self.saver.make_room() => write(&mut self.logs),
            written => written,
        }
    }

    /// Holds the state, the best so far, in memory until the next one is saved.
    ///
    /// # Errors
    /// [`TrainError::WeightsNotFinite`], and those of the logs and of a pending write.
    pub(super) fn hold(&mut self, state: &State, config: &Config) -> Result<(), TrainError> {
        let (metrics, events) = (self.logs.metrics.length(), self.logs.events.length());
        let Keeper { saver, identity, .. } = self;
        saver.hold(|| sound(state.checkpoint(config, *identity, metrics, events)?))
    }

    /// Syncs the logs to disk, then starts to save the state.
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

/// Returns the checkpoint if its network is finite, so that a run can go on from it.
fn sound(checkpoint: Checkpoint) -> Result<Checkpoint, TrainError> {
    checkpoint.check_finite().map(|()| checkpoint)
}
