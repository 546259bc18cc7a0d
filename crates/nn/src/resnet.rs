//! ResNet v1 (arXiv:1512.03385, post-activation, stride on the 3 x 3 convolution), named as torchvision names it.

use std::ops::RangeInclusive;

use simclr_engine::ops::{self, BatchNorm, Normalization};
use simclr_engine::{Device, Parameters, Segment, Tape, Var};

use crate::layers::{Conv, Maker};
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
    /// 7 x 7 stride 2 and a 3 x 3 max pool stride 2: for images above 32 pixels.
    ImageNet,
    /// 3 x 3 stride 1 and no pool: for images up to 32 pixels (arXiv:2002.05709, B.9).
    Small,
}

/// A ResNet's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResNetSpec {
    /// Layers.
    pub depth: Depth,
    /// Multiplies all channels; 1 has 64 in the first stage. Fractions make small networks. One of [`ResNetSpec::WIDTHS`].
    pub width: f64,
    /// What stands before the blocks.
    pub stem: Stem,
    /// A projection shortcut in the first block of every stage, as the official code has, also where sizes do not
    /// change (torchvision's ResNet-18 and 34 have none in the first stage).
    pub projection_shortcuts: bool,
}

/// What backward finds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Memory {
    /// Every activation: fastest.
    #[default]
    Full,
    /// The images and the inputs of residual blocks; what is inside of the stem and of blocks is computed again. Exact:
    /// BatchNorm still sees the whole batch.
    Blocks,
}

/// A ResNet without classifier: images (N, S, S, 3) in [0, 1] to h (N, features), by stem, blocks and the mean over all pixels.
#[derive(Clone, Debug)]
pub struct ResNet {
    stem: StemLayers,
    blocks: Vec<Block>,
    features: usize,
    memory: Memory,
}

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
    /// Pixels added on every side, which never win.
    pub padding: usize,
}

/// A residual block: y = ReLU(branch(x) + shortcut(x)).
#[derive(Clone, Debug)]
pub struct Block {
    /// The branch: convolutions with their BatchNorms, and a ReLU between one and the next.
    pub layers: Vec<(Conv, BatchNorm)>,
    /// The shortcut, where it is not x itself.
    pub downsample: Option<(Conv, BatchNorm)>,
}

impl ResNetSpec {
    /// The widths that a network can have: from 1 channel in the first stage to 1024.
    pub const WIDTHS: RangeInclusive<f64> = 1.0 / 64.0..=16.0;
}

impl ResNet {
    /// Makes a ResNet, drawing its parameters from `seed`.
    pub fn new(spec: &ResNetSpec, device: &Device, seed: u64, parameters: &mut Parameters) -> Result<ResNet> {
        let widths = ResNetSpec::WIDTHS;
        if !widths.contains(&spec.width) {
            let (least, most) = (widths.start(), widths.end());
            let problem = format!("{} must be from {least} (one channel at first) to {most}", spec.width);
            return Err(NnError::Spec { what: "encoder.width", problem });
        }
        let base = (64.0 * spec.width).round() as usize;
        let mut maker = Maker { device, seed, parameters };
        let (side, stride, pool) = match spec.stem {
            Stem::ImageNet => (7, 2, Some(MaxPool { side: 3, stride: 2, padding: 1 })),
            Stem::Small => (3, 1, None),
        };
        let conv = maker.conv("conv1", (3, base), side, stride)?;
        let norm = maker.norm("bn1", base, 1.0, true)?;
        let expansion = if spec.depth.is_bottleneck() { 4 } else { 1 };
        let mut inputs = base;
        let mut blocks = Vec::new();
        for (stage, count) in spec.depth.blocks().into_iter().enumerate() {
            let (inner, outputs) = (base << stage, (base << stage) * expansion);
            for index in 0..count {
                let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                let project = index == 0 && (stride != 1 || inputs != outputs || spec.projection_shortcuts);
                let name = format!("layer{}.{index}", stage + 1);
                blocks.push(Block::new(
                    &mut maker,
                    &name,
                    [inputs, inner, outputs],
                    stride,
                    project,
                    expansion,
                )?);
                inputs = outputs;
            }
        }
        let stem = StemLayers { normalization: None, conv, norm, pool };
        Ok(ResNet { stem, blocks, features: inputs, memory: Memory::Full })
    }

    /// The same network, keeping less for backward.
    pub fn with_memory(self, memory: Memory) -> ResNet {
        ResNet { memory, ..self }
    }

    /// The same network, whose running averages keep the share `decay` of themselves each step.
    pub fn with_norm_decay(mut self, decay: f32) -> ResNet {
        self.stem.norm.decay = decay;
        for block in &mut self.blocks {
            block.layers.iter_mut().chain(&mut block.downsample).for_each(|(_, norm)| norm.decay = decay);
        }
        self
    }

    /// The same network, which normalises its images first: a convolution pads them with the mean then, not with black.
    pub fn with_normalization(mut self, normalization: Option<Normalization>) -> ResNet {
        self.stem.normalization = normalization;
        self
    }

    /// The width of h.
    pub fn features(&self) -> usize {
        self.features
    }

    /// What stands before the blocks.
    pub fn stem(&self) -> &StemLayers {
        &self.stem
    }

    /// The blocks of all stages, in order.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// h (N, features) of images (N, S, S, 3).
    pub fn forward<'a>(&'a self, tape: &mut Tape<'a>, images: &Var) -> Result<Var> {
        let mut x = self.part(tape, images, &self.stem)?;
        for block in &self.blocks {
            x = self.part(tape, &x, block)?;
        }
        Ok(ops::global_avg_pool(tape, &x)?)
    }

    /// Runs a part of the network, of which backward finds all or the input.
    fn part<'a>(&self, tape: &mut Tape<'a>, x: &Var, part: &'a dyn Segment<'a>) -> Result<Var> {
        Ok(match self.memory {
            Memory::Full => part.forward(tape, std::slice::from_ref(x))?,
            Memory::Blocks => tape.checkpoint(&[x], part)?,
        })
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
            Some(MaxPool { side, stride, padding }) => ops::max_pool(tape, &x, side, stride, padding),
            None => Ok(x),
        }
    }
}

impl Block {
    fn new(
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
