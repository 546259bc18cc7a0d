//! What stands before the blocks.

use simclr_engine::ops::{self, BatchNorm, Normalization};
use simclr_engine::{Segment, Tape, Var};

use super::{PoolPadding, Stem};
use crate::Result;
use crate::layers::{Conv, Maker};

/// What stands before the first block: convolution, BatchNorm, ReLU, and a max pool where there is one.
#[derive(Clone, Debug)]
pub struct StemLayers {
    /// What is done to images first, where anything is.
    pub normalization: Option<Normalization>,
    /// The convolution.
    pub conv: Conv,
    /// Its BatchNorm.
    pub norm: BatchNorm,
    /// What follows the ReLU.
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
    pub(super) fn new(
        maker: &mut Maker,
        stem: Stem,
        padding: PoolPadding,
        channels: usize,
    ) -> Result<StemLayers> {
        let (side, stride, pool) = match stem {
            Stem::ImageNet => (7, 2, Some(MaxPool { side: 3, stride: 2, padding })),
            Stem::Small => (3, 1, None),
        };
        let conv = maker.conv("conv1", (3, channels), side, stride)?;
        let norm = maker.norm("bn1", channels, 1.0, true)?;
        Ok(StemLayers { normalization: None, conv, norm, pool })
    }

    /// All its BatchNorms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        std::iter::once(&mut self.norm)
    }
}

impl<'a> Segment<'a> for StemLayers {
    fn forward(&'a self, tape: &mut Tape<'a>, images: &[Var]) -> simclr_engine::Result<Var> {
        let x = match &self.normalization {
            Some(normalization) => ops::normalize(tape, &images[0], normalization)?,
            None => images[0].clone(),
        };
        let x = self.conv.forward(tape, &x)?;
        let x = ops::batch_norm(tape, &x, &self.norm, None, true)?;
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
