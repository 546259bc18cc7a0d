//! The stem: the layers before the blocks.

use simclr_engine::ops::{self, BatchNorm, Normalization};
use simclr_engine::{Segment, Tape, Var};

use super::{PoolPadding, ResNetSpec, Stem, Variant};
use crate::Result;
use crate::layers::{Conv, Maker};

/// The layers before the first block: convolutions, each with BatchNorm and ReLU, and possibly a max pool.
#[derive(Clone, Debug)]
pub struct StemLayers {
    /// The normalisation of images, if any.
    pub normalization: Option<Normalization>,
    /// The convolutions with their BatchNorms.
    pub layers: Vec<(Conv, BatchNorm)>,
    /// The pool after the last ReLU, if any.
    pub pool: Option<MaxPool>,
}

/// A max pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool {
    /// Side of the window in pixels.
    pub side: usize,
    /// Pixels between windows, both ways.
    pub stride: usize,
    /// What is added around the image.
    pub padding: PoolPadding,
}

impl MaxPool {
    /// Rows added above and below an image of `len` rows; columns likewise.
    pub fn padding_of(&self, len: usize) -> [usize; 2] {
        match self.padding {
            PoolPadding::All => [self.side / 2; 2],
            PoolPadding::Same => {
                let last = len.saturating_sub(1) / self.stride * self.stride;
                let missing = (last + self.side).saturating_sub(len);
                [missing / 2, missing - missing / 2]
            }
        }
    }
}

impl StemLayers {
    /// From images of 3 channels to `channels`.
    pub(super) fn new(maker: &mut Maker, spec: &ResNetSpec, channels: usize) -> Result<StemLayers> {
        let inner = (channels / 2).max(1);
        // Names with timm's numbers, which also count the ReLU between one pair and the next; then channels, side
        // and stride of each convolution.
        let plan: &[(&str, &str, [usize; 2], usize, usize)] = match (spec.stem, spec.variant) {
            (Stem::Small, _) => &[("conv1", "bn1", [3, channels], 3, 1)],
            (Stem::ImageNet, Variant::Standard) => &[("conv1", "bn1", [3, channels], 7, 2)],
            (Stem::ImageNet, Variant::D) => &[
                ("conv1.0", "conv1.1", [3, inner], 3, 2),
                ("conv1.3", "conv1.4", [inner; 2], 3, 1),
                ("conv1.6", "bn1", [inner, channels], 3, 1),
            ],
        };
        let layers = plan.iter().map(|&(conv, norm, [from, to], side, stride)| {
            Ok((maker.conv(conv, (from, to), side, stride)?, maker.norm(norm, to, 1.0, true)?))
        });
        let layers = layers.collect::<Result<_>>()?;
        let pool = match spec.stem {
            Stem::ImageNet => Some(MaxPool { side: 3, stride: 2, padding: spec.pool_padding }),
            Stem::Small => None,
        };
        Ok(StemLayers { normalization: None, layers, pool })
    }

    /// All its BatchNorms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.layers.iter_mut().map(|(_, norm)| norm)
    }
}

impl<'a> Segment<'a> for StemLayers {
    fn forward(&'a self, tape: &mut Tape<'a>, images: &[Var]) -> simclr_engine::Result<Var> {
        let mut x = match &self.normalization {
            Some(normalization) => ops::normalize(tape, &images[0], normalization)?,
            None => images[0].clone(),
        };
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            if i == 0 {
                x = conv.first(tape, x, norm)?;
            } else {
                x = conv.normalized(tape, x, norm, None, true)?;
            }
        }
        match self.pool {
            Some(pool) => {
                // Images are square.
                let padding = pool.padding_of(x.tensor().shape()[1]);
                ops::max_pool(tape, &x, pool.side, pool.stride, padding)
            }
            None => Ok(x),
        }
    }
}
