//! What other programs make of an encoder's weights.

use simclr_train::config::{EncoderConfig, PoolPadding, Stem, Variant};

use crate::terminal;

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
