//! The encoder of a run folder.

use std::path::{Path, PathBuf};

use simclr_engine::Device;
use simclr_train::checkpoint::LoadedCheckpoint;
use simclr_train::pretrain::Failure;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model};

use super::evaluation::Evaluation;
use super::protocol::Protocol;
use crate::EvalError;

/// Selects a checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhichCheckpoint {
    /// The newest intact one.
    #[default]
    Newest,
    /// The one that did best on held-out images.
    Best,
}

/// A pretrained encoder and the run it comes from.
#[derive(Debug)]
pub struct TrainedEncoder {
    /// The network.
    pub model: Model,
    /// The configuration it was trained with.
    pub config: Config,
    /// Its run.
    pub run: RunFolder,
    /// The path of its checkpoint.
    pub checkpoint: PathBuf,
    /// The metric on held-out images by which it was chosen, if the best was asked for: `knn_top1`, which uses their
    /// labels, or `holdout_contrastive_accuracy`, which does not.
    pub chosen_by: Option<String>,
    /// Training steps up to its checkpoint.
    pub step: u64,
    /// Whole training epochs up to its checkpoint.
    pub epoch: u64,
}

impl TrainedEncoder {
    /// Loads the encoder of the run in `path`; the run may still be training. Its configuration is that of the
    /// checkpoint; warns if the run's file says another.
    ///
    /// # Errors
    /// [`EvalError::NoCheckpoint`], and through [`EvalError::Train`] a folder that holds no run or one of a newer
    /// version, or checkpoints that are all damaged.
    pub fn load(path: &Path, which: WhichCheckpoint, device: &Device) -> Result<TrainedEncoder, EvalError> {
        let (run, written) = RunFolder::open(path)?;
        let checkpoints = run.checkpoints(1);
        let found = match which {
            WhichCheckpoint::Newest => checkpoints.latest_good()?,
            WhichCheckpoint::Best => checkpoints.best()?,
        };
        let found = found.ok_or_else(|| EvalError::NoCheckpoint {
            run: path.to_path_buf(),
            imported: run.imported().map(str::to_owned),
            failure: Failure::of(&run).map(Box::new),
        })?;
        warn_if_edited(&run, &written, &found);
        let (model, config) = Model::from_checkpoint(&found.checkpoint, device)?;
        let meta = &found.checkpoint.meta;
        let best =
            meta.best.as_ref().filter(|best| which == WhichCheckpoint::Best && best.step() == meta.step);
        Ok(TrainedEncoder {
            model,
            config,
            run,
            step: meta.step,
            epoch: meta.epoch,
            chosen_by: best.map(|best| best.figure().to_owned()),
            checkpoint: found.path,
        })
    }

    /// Its name in tables: "SimCLR", or "imported".
    pub fn name(&self) -> &'static str {
        encoder_name(&self.run)
    }

    /// The result of a protocol that the run already holds; `None` if the file is missing or not (or no longer) a
    /// valid result.
    pub fn recorded(&self, protocol: &Protocol) -> Option<Evaluation> {
        Evaluation::read(&self.run.evaluations(), protocol)
    }

    /// Writes a result to the run, with the step of the checkpoint that it belongs to. Returns the file.
    ///
    /// # Errors
    /// As for [`TrainedEncoder::record_in`].
    pub fn record(&self, evaluation: &mut Evaluation) -> Result<PathBuf, EvalError> {
        self.record_in(&self.run.evaluations(), evaluation)
    }

    /// As [`TrainedEncoder::record`], to another folder, which need not exist yet.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub fn record_in(&self, folder: &Path, evaluation: &mut Evaluation) -> Result<PathBuf, EvalError> {
        evaluation.step = Some(self.step);
        Ok(self.run.write_result(folder, &evaluation.protocol.to_string(), evaluation)?)
    }
}

/// The configuration that the newest intact checkpoint of `run` was trained with; `written`, that of the run's file, if
/// there is no such checkpoint. Warns if the two differ.
pub fn trained_with(run: &RunFolder, written: Config) -> Config {
    let Ok(Some(found)) = run.checkpoints(1).latest_good() else { return written };
    warn_if_edited(run, &written, &found);
    Config::from_toml(&found.checkpoint.meta.config, "the checkpoint's configuration").unwrap_or(written)
}

/// Warns if the configuration `written` in the run's file is not the one that `found` was trained with.
fn warn_if_edited(run: &RunFolder, written: &Config, found: &LoadedCheckpoint) {
    if let Ok(Some(problem)) = run.edited(written, found) {
        tracing::warn!("{}: {problem}; the checkpoint's configuration is used", run.path().display());
    }
}

/// The name in tables of a run's encoder: it is unknown what trained an imported one.
pub(super) fn encoder_name(run: &RunFolder) -> &'static str {
    if run.imported().is_some() { "imported" } else { "SimCLR" }
}
