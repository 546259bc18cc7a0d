//! The encoder's weights alone, as other programs load them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use safetensors::{Dtype, tensor::TensorView};
use simclr_train::checkpoint::Checkpoint;
use simclr_train::run_folder::RunFolder;

use crate::training::reread;

/// The file's name in the run folder.
pub const FILE: &str = "encoder.safetensors";

/// Prefixes of what a checkpoint holds beside the encoder.
const OTHERS: [&str; 2] = ["head.", "optimizer."];

/// Writes the encoder of a checkpoint to the run folder: torchvision's names, shapes (out, in, h, w) and
/// `num_batches_tracked`, so that `load_state_dict(..., strict=False)` misses only `fc.*`.
pub fn export(folder: &RunFolder, checkpoint: &Path) -> Result<PathBuf> {
    let bytes = serialize(&reread(folder, checkpoint)?)?;
    folder.write(FILE, |out| out.write_all(&bytes))?;
    Ok(folder.path().join(FILE))
}

fn serialize(checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let encoder =
        || checkpoint.tensors.iter().filter(|t| !OTHERS.iter().any(|other| t.name.starts_with(other)));
    let values: Vec<(&str, &[usize], Vec<u8>)> = encoder()
        .map(|tensor| {
            let bytes = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
            (tensor.name.as_str(), tensor.shape.as_slice(), bytes)
        })
        .collect();
    let steps = checkpoint.meta.step.to_le_bytes();
    let mut views = Vec::new();
    for (name, shape, bytes) in &values {
        views.push((name.to_string(), TensorView::new(Dtype::F32, shape.to_vec(), bytes)?));
        if let Some(norm) = name.strip_suffix(".running_var") {
            views.push((format!("{norm}.num_batches_tracked"), TensorView::new(Dtype::I64, vec![], &steps)?));
        }
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(metadata))?)
}
