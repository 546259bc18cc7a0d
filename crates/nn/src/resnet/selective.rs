//! Selective kernels (arXiv:1903.06586) in the form of SimCLR v2 (arXiv:2006.10029): both streams have 3 x 3 windows.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Tape, Var};

use crate::Result;
use crate::initialize::Initial;
use crate::layers::{Linear, Maker};

/// The minimum number of channels after squeezing.
const LEAST: usize = 32;

/// Mixes the two C-channel streams of one 2C-channel convolution. The streams' weights in each channel of each image
/// are the softmax of `select`(ReLU(`norm`(`reduce`(m)))), where m is the mean over pixels of the streams' sum.
#[derive(Clone, Debug)]
pub struct SelectiveKernels {
    /// From C channels to fewer.
    pub reduce: Linear,
    /// The BatchNorm of the fewer channels.
    pub norm: BatchNorm,
    /// From the fewer channels to 2 C logits: those of the first stream, then those of the second.
    pub select: Linear,
}

impl SelectiveKernels {
    /// Makes the gate for streams of `channels` channels, squeezed to the share `ratio` of them. Its tensors
    /// have the names that timm gives them.
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

    /// The number of channels to which a gate squeezes `channels` channels, at the share `ratio`.
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
