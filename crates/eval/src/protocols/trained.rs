//! The encoder of a run folder.

use std::path::{Path, PathBuf};

use simclr_engine::Device;
use simclr_train::pretrain::Failure;
use simclr_train::run_folder::RunFolder;
use simclr_train::{Config, Model};

use super::evaluation::Evaluation;
use crate::EvalError;

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhichCheckpoint {
    /// The newest that is intact.
    #[default]
    Newest,
    /// The one that did best on held-out images.
    Best,
}

/// A pretrained encoder and the run that it came from.
#[derive(Debug)]
pub struct TrainedEncoder {
    /// The network.
    pub model: Model,
    /// As it was trained.
    pub config: Config,
    /// Its run.
    pub run: RunFolder,
    /// Its checkpoint.
    pub checkpoint: PathBuf,
    /// The figure of held-out images by which it was chosen, where the best was asked for: `knn_top1`, which is by
    /// their labels, or `holdout_contrastive_accuracy`, which is not.
    pub chosen_by: Option<String>,
    /// Steps of training behind it.
    pub step: u64,
    /// Whole epochs of training behind it.
    pub epoch: u64,
}

impl TrainedEncoder {
    /// Loads the encoder of the run in `path`; the run may be in training meanwhile.
    ///
    /// # Errors
    /// [`EvalError::NoCheckpoint`], and through [`EvalError::Train`] a folder that holds no run or a newer
    /// version's, or checkpoints that are all damaged.
    pub fn load(path: &Path, which: WhichCheckpoint, device: &Device) -> Result<TrainedEncoder, EvalError> {
        let (run, _) = RunFolder::open(path)?;
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

    /// What tables call it: "SimCLR", or "imported".
    pub fn name(&self) -> &'static str {
        encoder_name(&self.run)
    }

    /// What the run holds of a protocol already; what is no result (any more) is none.
    pub fn recorded(&self, protocol: &str) -> Option<Evaluation> {
        Evaluation::read(&self.run.evaluations(), protocol)
    }

    /// Writes a result to the run, with the step of the checkpoint that it is of. Returns the file.
    ///
    /// # Errors
    /// As for [`TrainedEncoder::record_in`].
    pub fn record(&self, evaluation: &mut Evaluation) -> Result<PathBuf, EvalError> {
        self.record_in(&self.run.evaluations(), evaluation)
    }

    /// The same to another folder, which need not be there yet.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub fn record_in(&self, folder: &Path, evaluation: &mut Evaluation) -> Result<PathBuf, EvalError> {
        evaluation.step = Some(self.step);
        Ok(self.run.write_result(folder, &evaluation.protocol, evaluation)?)
    }
}

/// What tables call the encoder of a run: what trained an imported one, nobody has told.
pub(super) fn encoder_name(run: &RunFolder) -> &'static str {
    if run.imported().is_some() { "imported" } else { "SimCLR" }
}
