//! The encoder's weights alone, as other programs load them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use simclr_engine::Device;
use simclr_exchange::{StateDict, Trained};
use simclr_train::Model;
use simclr_train::run_folder::{ENCODER, RunFolder};

use crate::training::reread;

/// Writes the encoder of a checkpoint to the run folder, under torchvision's names.
pub fn export(folder: &RunFolder, checkpoint: &Path) -> Result<PathBuf> {
    let checkpoint = reread(folder, checkpoint)?;
    let (model, config) = Model::from_checkpoint(&checkpoint, &Device::cpu(1)?)?;
    let meta = &checkpoint.meta;
    let trained = Trained { model: &model, config: &config, step: meta.step, epoch: meta.epoch };
    let encoder = StateDict::new(&trained, false)?;
    folder.write(ENCODER, |out| encoder.write(out))?;
    Ok(folder.path().join(ENCODER))
}
