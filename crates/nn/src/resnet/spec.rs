//! A ResNet's shape.

use std::ops::RangeInclusive;

use simclr_words::words;

use crate::{NnError, Result};

words! {
    /// How many layers with weights, called as torchvision calls the network.
    Depth {
        /// ResNet-18, basic blocks.
        D18 = "resnet18",
        /// ResNet-34, basic blocks.
        D34 = "resnet34",
        /// ResNet-50, bottleneck blocks.
        D50 = "resnet50",
        /// ResNet-101, bottleneck blocks.
        D101 = "resnet101",
        /// ResNet-152, bottleneck blocks.
        D152 = "resnet152",
        /// ResNet-200, bottleneck blocks.
        D200 = "resnet200",
    }
}

impl Depth {
    /// The number of layers.
    pub const fn layers(self) -> u32 {
        match self {
            Depth::D18 => 18,
            Depth::D34 => 34,
            Depth::D50 => 50,
            Depth::D101 => 101,
            Depth::D152 => 152,
            Depth::D200 => 200,
        }
    }

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
        match self {
            Depth::D18 | Depth::D34 => false,
            Depth::D50 | Depth::D101 | Depth::D152 | Depth::D200 => true,
        }
    }
}

words! {
    /// What stands before the first block.
    Stem {
        /// 7 x 7 stride 2, or what a variant has in its place, and a 3 x 3 max pool stride 2: for images above 32
        /// pixels.
        ImageNet = "imagenet",
        /// 3 x 3 stride 1 and no pool: for images up to 32 pixels (arXiv:2002.05709, B.9).
        Small = "small",
    }
}

words! {
    /// Pixels added around an image before it is pooled, of which no maximum is taken.
    PoolPadding {
        /// For maxima as many on every side, for averages none: torchvision and timm.
        All = "all",
        /// As few as put every pixel of the image into a window, an odd one at the right and below: TensorFlow's
        /// SAME, and what the official code has.
        Same = "same",
    }
}

words! {
    /// How a ResNet goes down to a smaller image.
    #[derive(Default)]
    Variant {
        /// One convolution before the first block, and shortcuts of stride 2: the pixels between are not seen by
        /// them.
        #[default]
        Standard = "standard",
        /// ResNet-D (arXiv:1812.01187): three convolutions of 3 x 3 before the first block where the standard
        /// network has one of 7 x 7, and shortcuts that average windows of 2 x 2 before a convolution of stride 1.
        /// Tensors are named as those of timm's `resnet50d`.
        D = "d",
    }
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
                    "{} has none: bottleneck blocks are needed, of a ResNet-50 or deeper",
                    self.depth
                );
                refuse("encoder.selective_kernels", problem)
            }
            Some(_) => Ok(()),
        }
    }
}
