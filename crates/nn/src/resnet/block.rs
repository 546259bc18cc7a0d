//! Residual blocks.

use simclr_engine::ops::{self, BatchNorm, Shortcut};
use simclr_engine::{Segment, Tape, Var};

use super::{PoolPadding, ResNetSpec, SelectiveKernels, Variant};
use crate::Result;
use crate::layers::{Conv, Maker};

/// A residual block: y = ReLU(branch(x) + shortcut(x)).
#[derive(Clone, Debug)]
pub struct Block {
    /// The branch: convolutions with their BatchNorms, and a ReLU between one and the next.
    pub layers: Vec<(Conv, BatchNorm)>,
    /// Mixes the two streams that the convolution [`Block::STREAMS`] makes, if it makes two.
    pub selective: Option<SelectiveKernels>,
    /// The shortcut, if it is not x itself.
    pub downsample: Option<Downsample>,
}

/// A shortcut that changes the shape of x: an average pool, if there is one, a convolution of 1 x 1 and its
/// BatchNorm.
#[derive(Clone, Debug)]
pub struct Downsample {
    /// The pool before the convolution, with the stride that the convolution would have without it.
    pub pool: Option<AvgPool>,
    /// The convolution.
    pub conv: Conv,
    /// Its BatchNorm.
    pub norm: BatchNorm,
}

/// An average pool of windows of 2 x 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPool {
    /// Pixels between windows, both ways.
    pub stride: usize,
    /// Whether pixels of windows beyond the image count as zeros; otherwise they do not count.
    pub zeros: bool,
}

impl Block {
    /// The index of the convolution that makes two streams if there are selective kernels: the one of 3 x 3 in a
    /// bottleneck block.
    pub const STREAMS: usize = 1;

    /// A block from `inputs` to `outputs` channels, with `inner` between, whose first convolution of 3 x 3 has
    /// `stride`.
    pub(super) fn new(
        maker: &mut Maker,
        name: &str,
        spec: &ResNetSpec,
        [inputs, inner, outputs]: [usize; 3],
        stride: usize,
        project: bool,
    ) -> Result<Block> {
        let streams = if spec.selective_kernels.is_some() { 2 } else { 1 };
        // (inputs, outputs, side, stride) of each convolution.
        let plan: &[(usize, usize, usize, usize)] = if spec.depth.is_bottleneck() {
            &[(inputs, inner, 1, 1), (inner, streams * inner, 3, stride), (inner, outputs, 1, 1)]
        } else {
            &[(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        };
        let mut layers = Vec::new();
        for (i, &(from, to, side, stride)) in plan.iter().enumerate() {
            let conv = maker.conv(&format!("{name}.conv{}", i + 1), (from, to), side, stride)?;
            // The branch starts at zero, so that every block starts as its shortcut.
            let gamma = if i + 1 == plan.len() { 0.0 } else { 1.0 };
            layers.push((conv, maker.norm(&format!("{name}.bn{}", i + 1), to, gamma, true)?));
        }
        let downsample = match project {
            true => Some(Downsample::new(maker, name, spec, [inputs, outputs], stride)?),
            false => None,
        };
        let selective = match spec.selective_kernels {
            Some(ratio) => Some(SelectiveKernels::new(maker, &format!("{name}.attn"), inner, ratio)?),
            None => None,
        };
        Ok(Block { layers, selective, downsample })
    }

    /// The block by running averages, each convolution fused with the BatchNorm behind it.
    fn infer<'a>(&'a self, tape: &mut Tape<'a>, x: &Var) -> simclr_engine::Result<Var> {
        let shortcut = match &self.downsample {
            Some(downsample) => {
                let pooled = downsample.pooled(tape, x)?;
                downsample.conv.normalized(tape, pooled, &downsample.norm, None, false)?
            }
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            let residual = (i + 1 == self.layers.len()).then_some(&shortcut);
            y = conv.normalized(tape, y, norm, residual, true)?;
            if let Some(selective) = self.selective.as_ref().filter(|_| i == Block::STREAMS) {
                y = selective.forward(tape, &y)?;
            }
        }
        Ok(y)
    }

    /// All its BatchNorms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        let shortcut = self.downsample.iter_mut().map(|downsample| &mut downsample.norm);
        let gate = self.selective.iter_mut().map(|selective| &mut selective.norm);
        self.layers.iter_mut().map(|(_, norm)| norm).chain(gate).chain(shortcut)
    }
}

impl Downsample {
    /// The shortcut of the block named `block`.
    fn new(
        maker: &mut Maker,
        block: &str,
        spec: &ResNetSpec,
        [inputs, outputs]: [usize; 2],
        stride: usize,
    ) -> Result<Downsample> {
        // The numbers in names count the pool, even if there is none because it would do nothing.
        let (pool, stride, at) = match (spec.variant, spec.pool_padding) {
            (Variant::Standard, _) => (None, stride, 0),
            (Variant::D, PoolPadding::All) => {
                ((stride > 1).then_some(AvgPool { stride, zeros: false }), 1, 1)
            }
            // The official code pads with zeros where it halves the image, and uses SAME where it does not.
            (Variant::D, PoolPadding::Same) => (Some(AvgPool { stride, zeros: stride > 1 }), 1, 1),
        };
        let conv = maker.conv(&format!("{block}.downsample.{at}"), (inputs, outputs), 1, stride)?;
        let norm = maker.norm(&format!("{block}.downsample.{}", at + 1), outputs, 1.0, true)?;
        Ok(Downsample { pool, conv, norm })
    }

    fn forward<'a>(&'a self, tape: &mut Tape<'a>, x: &Var) -> simclr_engine::Result<Shortcut<'a>> {
        let x = self.pooled(tape, x)?;
        let y = self.conv.forward(tape, &x)?;
        drop(x);
        ops::norm_shortcut(tape, y, &self.norm)
    }

    /// What the convolution sees of x.
    fn pooled(&self, tape: &mut Tape, x: &Var) -> simclr_engine::Result<Var> {
        match self.pool {
            Some(AvgPool { stride, zeros }) => ops::avg_pool(tape, x, stride, zeros),
            None => Ok(x.clone()),
        }
    }
}

impl<'a> Segment<'a> for Block {
    fn forward(&'a self, tape: &mut Tape<'a>, inputs: &[Var]) -> simclr_engine::Result<Var> {
        let x = &inputs[0];
        if ops::fuses_conv2d_norm(tape, x) {
            return self.infer(tape, x);
        }
        let mut shortcut =
            self.downsample.as_ref().map(|downsample| downsample.forward(tape, x)).transpose()?;
        let mut y = x.clone();
        // The BatchNorm that may be fused with the next convolution.
        let mut before: Option<&BatchNorm> = None;
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            y = match before.take() {
                Some(before) => conv.after(tape, y, before)?,
                None => conv.forward(tape, &y)?,
            };
            if i + 1 == self.layers.len() {
                y = match shortcut.take() {
                    Some(shortcut) => ops::norm_pair(tape, y, norm, shortcut)?,
                    None => ops::batch_norm(tape, &y, norm, Some(x), true)?,
                };
            } else if let Some(selective) = self.selective.as_ref().filter(|_| i == Block::STREAMS) {
                y = ops::batch_norm(tape, &y, norm, None, true)?;
                y = selective.forward(tape, &y)?;
            } else {
                before = Some(norm);
            }
        }
        Ok(y)
    }
}
