//! What other programs make of an encoder's weights.

use std::path::Path;

use simclr_train::Config;
use simclr_train::config::{EncoderConfig, PoolPadding, Stem, Variant};
use simclr_train::run_folder::RunFolder;

use crate::terminal;

/// Prints where the encoder of a finished run is, and how to get one that other programs can load.
pub fn tell(folder: &RunFolder, config: &Config, encoder: &Path) {
    let run = terminal::quoted_path(folder.path());
    let how = match beyond_torchvision(config).is_empty() {
        true => "torchvision's names".to_owned(),
        false => format!("for other programs: simclr export {run} --to onnx"),
    };
    terminal::say(&format!("encoder: {} ({how})", encoder.display()));
}

/// Warns if no other library has a network that takes the tensors, though they have torchvision's names.
pub fn warn_of_no_network(config: &Config) {
    let beyond = beyond_torchvision(config).join(" and ");
    if !beyond.is_empty() {
        terminal::warn(&format!(
            "{beyond}: neither torchvision nor timm has such a network, and theirs refuse this file; --to onnx writes one \
             that onnxruntime and others run as it is"
        ));
    }
}

/// The settings of an encoder that no network of torchvision or timm has.
fn beyond_torchvision(config: &Config) -> Vec<String> {
    let encoder = &config.encoder;
    let width = (encoder.width != 1.0).then(|| format!("encoder.width={}", encoder.width));
    let is_small = encoder.stem_at(config.data.image_size) == Stem::Small;
    width.into_iter().chain(is_small.then(|| "encoder.stem=small".to_owned())).collect()
}

/// Warns if torchvision has no network that computes the same from tensors with these names.
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
