//! Selective kernels (arXiv:1903.06586) in the form of SimCLR v2 (arXiv:2006.10029): both streams have windows of 3
//! x 3.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Tape, Var};

use crate::Result;
use crate::initialize::Initial;
use crate::layers::{Linear, Maker};

/// Channels that are squeezed to, at least.
const LEAST: usize = 32;

/// What mixes two streams of channels, which one convolution of twice as many makes: of each image, how much of
/// which stream each channel has, by the softmax of `select` of ReLU of `norm` of `reduce` of the streams' mean.
#[derive(Clone, Debug)]
pub struct SelectiveKernels {
    /// From C channels to few.
    pub reduce: Linear,
    /// The BatchNorm of these.
    pub norm: BatchNorm,
    /// From few to 2 C logits, of the first stream, then of the second.
    pub select: Linear,
}

impl SelectiveKernels {
    /// Of streams of `channels` channels, squeezed to the share `ratio` of them. Named as in timm, where a layer
    /// has its own name.
    pub(super) fn new(
        maker: &mut Maker,
        name: &str,
        channels: usize,
        ratio: f64,
    ) -> Result<SelectiveKernels> {
        let few = SelectiveKernels::squeezed(channels, ratio);
        let fan_in = |inputs| Initial::VarianceScaling { fan_in: inputs };
        Ok(SelectiveKernels {
            reduce: maker.linear(&format!("{name}.fc_reduce"), (channels, few), false, fan_in(channels))?,
            norm: maker.norm(&format!("{name}.bn"), few, 1.0, true)?,
            select: maker.linear(&format!("{name}.fc_select"), (few, 2 * channels), false, fan_in(few))?,
        })
    }

    /// To how many channels a gate of so many squeezes, at this share of them.
    pub fn squeezed(channels: usize, ratio: f64) -> usize {
        ((channels as f64 * ratio) as usize).max(LEAST)
    }

    /// Mixes the streams x (N, H, W, 2 C) to (N, H, W, C).
    pub(super) fn forward<'a>(&'a self, tape: &mut Tape<'a>, x: &Var) -> simclr_engine::Result<Var> {
        let y = ops::fuse(tape, x)?;
        let y = self.reduce.apply(tape, &y)?;
        let y = ops::batch_norm(tape, &y, &self.norm, None, true)?;
        let logits = self.select.apply(tape, &y)?;
        ops::select(tape, x, &logits)
    }
}
