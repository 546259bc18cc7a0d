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
use super::checkpoint_writer::CheckpointWriter;
use super::records::Logs;
use super::state::State;

/// Writes a run to its folder. Of several workers only the first has one.
pub(super) struct RunWriter<'r> {
    pub(super) folder: &'r RunFolder,
    pub(super) logs: Logs,
    pub(super) checkpoint_writer: CheckpointWriter,
    pub(super) identity: Identity,
}

impl<'r> RunWriter<'r> {
    /// Begins the logs in `folder`, or cuts them back to where `from` was saved. If the disk is full, the cache on it
    /// makes room for checkpoints. Also returns the images skipped before.
    pub(super) fn new(
        folder: &'r RunFolder,
        config: &TrainConfig,
        identity: Identity,
        cache: Option<Arc<Cached>>,
        from: Option<&Checkpoint>,
    ) -> Result<(RunWriter<'r>, Vec<Skipped>), TrainError> {
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
        let checkpoint_writer = CheckpointWriter::new(
            folder.checkpoints(config.keep_checkpoints),
            config.checkpoint_every,
            cache,
        );
        Ok((RunWriter { folder, logs, checkpoint_writer, identity }, skipped))
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
            Err(error) if error.is_full_disk() && self.checkpoint_writer.make_room() => write(&mut self.logs),
            written => written,
        }
    }

    /// Holds the state, the best so far, in memory until the next one is saved.
    ///
    /// # Errors
    /// [`TrainError::WeightsNotFinite`], and those of the logs and of a pending write.
    pub(super) fn hold(&mut self, state: &State, config: &Config) -> Result<(), TrainError> {
        let (metrics, events) = (self.logs.metrics.length(), self.logs.events.length());
        let RunWriter { checkpoint_writer, identity, .. } = self;
        checkpoint_writer.hold(|| sound(state.checkpoint(config, *identity, metrics, events)?))
    }

    /// Syncs the logs to disk, then starts to save the state.
    ///
    /// # Errors
    /// As [`RunWriter::hold`].
    pub(super) fn save(&mut self, state: &State, config: &Config) -> Result<(), TrainError> {
        let RunWriter { checkpoint_writer, logs, identity, .. } = self;
        checkpoint_writer.save(|| {
            let (metrics, events) = (logs.metrics.sync()?, logs.events.sync()?);
            sound(state.checkpoint(config, *identity, metrics, events)?)
        })
    }
}

/// Returns the checkpoint if its network is finite, so that a run can go on from it.
fn sound(checkpoint: Checkpoint) -> Result<Checkpoint, TrainError> {
    checkpoint.check_finite().map(|()| checkpoint)
}
