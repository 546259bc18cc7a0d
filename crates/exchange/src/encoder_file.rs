//! The encoder of a run in a file of its folder, for other programs.

use std::path::{Path, PathBuf};

use simclr_engine::Device;
use simclr_train::checkpoint::Checkpoint;
use simclr_train::run_folder::{ENCODER, RunFolder};
use simclr_train::{Model, TrainError};

use crate::import::is_of_step;
use crate::{Result, StateDict, Trained};

/// Whether `encoder.safetensors` ([`ENCODER`]) in the folder of `run` is what [`write_encoder`] writes, or an export of
/// it with more tensors, for the checkpoint of `step`: undamaged, and of that step.
pub fn has_encoder(run: &RunFolder, step: u64) -> bool {
    is_of_step(&run.path().join(ENCODER), step)
}

/// Writes the encoder of a `checkpoint` of `run` to `encoder.safetensors` ([`ENCODER`]) in its folder, whole or not at
/// all, under torchvision's names ([`StateDict`]). Returns the file. A finished run should have it:
///
/// ```no_run
/// # use std::sync::Arc;
/// # use simclr_data::{Dataset, Synthetic};
/// # use simclr_train::{Config, pretrain::pretrain, run_folder::RunFolder};
/// # let images: Arc<dyn Dataset> = Arc::new(Synthetic::new(100, 32, 0));
/// # let config = Config::default();
/// let run = RunFolder::create("runs/first".as_ref(), &config)?;
/// let outcome = pretrain(&images, &config, &run, None, &config.device()?, &mut ())?;
/// let file = simclr_exchange::write_encoder(&run, &outcome.checkpoint)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Those of [`Checkpoint::read`] and [`Model::from_checkpoint`]; [`TrainError::Io`] where the file cannot be written.
pub fn write_encoder(run: &RunFolder, checkpoint: &Path) -> Result<PathBuf> {
    let checkpoint = Checkpoint::read(run.files().as_ref(), checkpoint)?;
    let device = Device::cpu(1).map_err(TrainError::from)?;
    let (model, config) = Model::from_checkpoint(&checkpoint, &device)?;
    let meta = &checkpoint.meta;
    let trained = Trained { model: &model, config: &config, step: meta.step, epoch: meta.epoch };
    let encoder = StateDict::new(&trained, false)?;
    run.write(ENCODER, |out| encoder.write(out))?;
    Ok(run.path().join(ENCODER))
}
