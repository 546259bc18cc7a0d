//! Residual blocks.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Segment, Tape, Var};

use crate::Result;
use crate::layers::{Conv, Maker};

/// A residual block: y = ReLU(branch(x) + shortcut(x)).
#[derive(Clone, Debug)]
pub struct Block {
    /// The branch: convolutions with their BatchNorms, and a ReLU between one and the next.
    pub layers: Vec<(Conv, BatchNorm)>,
    /// The shortcut, where it is not x itself.
    pub downsample: Option<(Conv, BatchNorm)>,
}

impl Block {
    /// A block from `inputs` to `outputs` channels, with `inner` between, whose first convolution of 3 x 3 has `stride`.
    pub(super) fn new(
        maker: &mut Maker,
        name: &str,
        [inputs, inner, outputs]: [usize; 3],
        stride: usize,
        project: bool,
        expansion: usize,
    ) -> Result<Block> {
        // (inputs, outputs, side, stride) of each convolution.
        let plan: &[(usize, usize, usize, usize)] = if expansion == 1 {
            &[(inputs, outputs, 3, stride), (outputs, outputs, 3, 1)]
        } else {
            &[(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)]
        };
        let mut layers = Vec::new();
        for (i, &(from, to, side, stride)) in plan.iter().enumerate() {
            let conv = maker.conv(&format!("{name}.conv{}", i + 1), (from, to), side, stride)?;
            // The branch starts as nothing, so that every block starts as its shortcut.
            let gamma = if i + 1 == plan.len() { 0.0 } else { 1.0 };
            layers.push((conv, maker.norm(&format!("{name}.bn{}", i + 1), to, gamma, true)?));
        }
        let downsample = if project {
            let conv = maker.conv(&format!("{name}.downsample.0"), (inputs, outputs), 1, stride)?;
            Some((conv, maker.norm(&format!("{name}.downsample.1"), outputs, 1.0, true)?))
        } else {
            None
        };
        Ok(Block { layers, downsample })
    }

    /// All its BatchNorms.
    pub(super) fn norms_mut(&mut self) -> impl Iterator<Item = &mut BatchNorm> {
        self.layers.iter_mut().chain(&mut self.downsample).map(|(_, norm)| norm)
    }
}

impl<'a> Segment<'a> for Block {
    fn forward(&'a self, tape: &mut Tape<'a>, inputs: &[Var]) -> simclr_engine::Result<Var> {
        let x = &inputs[0];
        let shortcut = match &self.downsample {
            Some((conv, norm)) => {
                let y = conv.forward(tape, x)?;
                ops::batch_norm(tape, &y, norm, None, false)?
            }
            None => x.clone(),
        };
        let mut y = x.clone();
        for (i, (conv, norm)) in self.layers.iter().enumerate() {
            let last = i + 1 == self.layers.len();
            y = conv.forward(tape, &y)?;
            y = ops::batch_norm(tape, &y, norm, last.then_some(&shortcut), true)?;
        }
        Ok(y)
    }
}
