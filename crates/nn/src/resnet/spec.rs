//! A ResNet's shape.

use std::ops::RangeInclusive;

use crate::{NnError, Result};

/// How many layers with weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// ResNet-18.
    D18,
    /// ResNet-34.
    D34,
    /// ResNet-50.
    D50,
    /// ResNet-101.
    D101,
    /// ResNet-152.
    D152,
    /// ResNet-200.
    D200,
}

impl Depth {
    /// Residual blocks of each stage.
    pub fn blocks(self) -> [usize; 4] {
        match self {
            Depth::D18 => [2, 2, 2, 2],
            Depth::D34 | Depth::D50 => [3, 4, 6, 3],
            Depth::D101 => [3, 4, 23, 3],
            Depth::D152 => [3, 8, 36, 3],
            Depth::D200 => [3, 24, 36, 3],
        }
    }

    /// Whether blocks are 1 x 1, 3 x 3, 1 x 1 with four times the channels at the end, or two of 3 x 3.
    pub fn is_bottleneck(self) -> bool {
        !matches!(self, Depth::D18 | Depth::D34)
    }
}

/// What stands before the first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// 7 x 7 stride 2, or what a variant has in its place, and a 3 x 3 max pool stride 2: for images above 32 pixels.
    ImageNet,
    /// 3 x 3 stride 1 and no pool: for images up to 32 pixels (arXiv:2002.05709, B.9).
    Small,
}

/// Pixels added around an image before it is pooled, of which no maximum is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolPadding {
    /// For maxima as many on every side, for averages none: torchvision and timm.
    All,
    /// As few as put every pixel of the image into a window, an odd one at the right and below: TensorFlow's SAME,
    /// and what the official code has.
    Same,
}

/// How a ResNet goes down to a smaller image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Variant {
    /// One convolution before the first block, and shortcuts of stride 2: the pixels between are not seen by them.
    #[default]
    Standard,
    /// ResNet-D (arXiv:1812.01187): three convolutions of 3 x 3 before the first block where the standard network
    /// has one of 7 x 7, and shortcuts that average windows of 2 x 2 before a convolution of stride 1. Tensors are
    /// named as those of timm's `resnet50d`.
    D,
}

/// A ResNet's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResNetSpec {
    /// The number of layers.
    pub depth: Depth,
    /// Multiplies the numbers of channels; 1 has 64 in the first stage. Fractions make small networks. Within
    /// [`ResNetSpec::WIDTHS`].
    pub width: f64,
    /// What stands before the blocks.
    pub stem: Stem,
    /// How the network downsamples.
    pub variant: Variant,
    /// Replaces the 3 x 3 convolutions of bottleneck blocks by selective kernels, whose gates squeeze channels to
    /// this share, from 0 to 1: 0.0625 in SimCLR v2.
    pub selective_kernels: Option<f64>,
    /// Whether the first block of every stage has a projection shortcut even where sizes do not change, as in the
    /// official code (torchvision's ResNet-18 and 34 have none in the first stage).
    pub projection_shortcuts: bool,
    /// How the max pool of [`Stem::ImageNet`] is padded, and what a shortcut of [`Variant::D`] averages.
    pub pool_padding: PoolPadding,
}

impl ResNetSpec {
    /// The allowed widths: from 1 channel in the first stage to 1024.
    pub const WIDTHS: RangeInclusive<f64> = 1.0 / 64.0..=16.0;

    /// A network that is torchvision's in everything else.
    pub fn new(depth: Depth, width: f64, stem: Stem) -> ResNetSpec {
        let (variant, pool_padding) = (Variant::Standard, PoolPadding::All);
        ResNetSpec {
            depth,
            width,
            stem,
            variant,
            selective_kernels: None,
            projection_shortcuts: false,
            pool_padding,
        }
    }

    /// Checks that there is such a network.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |what, problem| Err(NnError::Spec { what, problem });
        if !Self::WIDTHS.contains(&self.width) {
            let (least, most) = (Self::WIDTHS.start(), Self::WIDTHS.end());
            let problem =
                format!("{} must be from {least} (one channel in the first stage) to {most}", self.width);
            return refuse("encoder.width", problem);
        }
        match self.selective_kernels {
            None => Ok(()),
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => {
                refuse("encoder.selective_kernels", format!("{ratio} must be from 0 to 1"))
            }
            Some(_) if !self.depth.is_bottleneck() => {
                let problem = format!(
                    "{:?} has none: bottleneck blocks are needed, of a ResNet-50 or deeper",
                    self.depth
                );
                refuse("encoder.selective_kernels", problem)
            }
            Some(_) => Ok(()),
        }
    }
}
