//! The encoder's weights alone, as other programs load them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use simclr_engine::Device;
use simclr_exchange::{StateDict, Trained};
use simclr_train::Model;
use simclr_train::config::{EncoderConfig, PoolPadding, Stem, Variant};
use simclr_train::run_folder::{ENCODER, RunFolder};

use crate::terminal;
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

/// Warns where a network under torchvision's names is none of torchvision's.
pub fn warn_of_other_networks(encoder: &EncoderConfig) {
    let EncoderConfig { name, selective_kernels, pool_padding, .. } = *encoder;
    let (stem, variant) = (encoder.stem.value(), encoder.settled_variant());
    if selective_kernels > 0.0 {
        terminal::warn(
            "encoder.selective_kernels: no library has this network; its tensors `attn.fc_reduce`, \
            `attn.bn` and `attn.fc_select` mix the two halves of the channels of `bn2`",
        );
    } else if variant == Variant::D {
        terminal::warn(&format!(
            "encoder.variant=d: torchvision has no such network; the names are those of timm's {name}d"
        ));
    }
    if (variant, pool_padding) == (Variant::D, PoolPadding::Same) {
        terminal::warn(
            "encoder.pool_padding=same: the shortcuts' pools are those of the official code, and another library's network \
            computes something else; --to onnx is exact",
        );
    } else if (stem, pool_padding) == (Some(Stem::ImageNet), PoolPadding::Same) {
        terminal::warn(
            "encoder.pool_padding=same: torchvision pads its max pool otherwise, and computes \
            something else until its network.maxpool is replaced (simclr export --help)",
        );
    }
}
