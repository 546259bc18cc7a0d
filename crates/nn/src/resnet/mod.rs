//! ResNet v1 (arXiv:1512.03385, post-activation, stride on the 3 x 3 convolution), named as torchvision names it,
//! and its variant D.

mod block;
mod selective;
mod spec;
mod stem;

use simclr_engine::ops::{self, Normalization};
use simclr_engine::{Device, Parameters, Segment, Tape, Var};
use simclr_words::words;

pub use self::block::{AvgPool, Block, Downsample};
pub use self::selective::SelectiveKernels;
pub use self::spec::{Depth, PoolPadding, ResNetSpec, Stem, Variant};
pub use self::stem::{MaxPool, StemLayers};
use crate::Result;
use crate::layers::Maker;

words! {
    /// What backward finds in memory.
    #[derive(Default)]
    Memory {
        /// Every activation: fastest.
        #[default]
        Full = "full",
        /// The images and the inputs of residual blocks; what is inside of the stem and of blocks is computed again.
        /// Exact: BatchNorm still sees the whole batch.
        Blocks = "blocks",
    }
}

/// A ResNet without a classifier: maps images (N, S, S, 3) in [0, 1] to h (N, features), by a stem, blocks and the
/// mean over all pixels.
#[derive(Clone, Debug)]
pub struct ResNet {
    stem: StemLayers,
    blocks: Vec<Block>,
    features: usize,
    memory: Memory,
}

impl ResNet {
    /// Makes a ResNet, drawing its parameters from `seed`.
    pub fn new(spec: &ResNetSpec, device: &Device, seed: u64, parameters: &mut Parameters) -> Result<ResNet> {
        ResNet::make(spec, Maker { device, seed: Some(seed), parameters })
    }

    /// Makes a ResNet whose parameters and running averages are all 0, to be loaded: drawing them would take longer.
    pub fn blank(spec: &ResNetSpec, device: &Device, parameters: &mut Parameters) -> Result<ResNet> {
        ResNet::make(spec, Maker { device, seed: None, parameters })
    }

    fn make(spec: &ResNetSpec, mut maker: Maker<'_>) -> Result<ResNet> {
        spec.check()?;
        let base = (64.0 * spec.width).round() as usize;
        let stem = StemLayers::new(&mut maker, spec, base)?;
        let expansion = if spec.depth.is_bottleneck() { 4 } else { 1 };
        let mut inputs = base;
        let mut blocks = Vec::new();
        for (stage, count) in spec.depth.blocks().into_iter().enumerate() {
            let (inner, outputs) = (base << stage, (base << stage) * expansion);
            for index in 0..count {
                let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                let project = index == 0 && (stride != 1 || inputs != outputs || spec.projection_shortcuts);
                let name = format!("layer{}.{index}", stage + 1);
                let channels = [inputs, inner, outputs];
                blocks.push(Block::new(&mut maker, &name, spec, channels, stride, project)?);
                inputs = outputs;
            }
        }
        Ok(ResNet { stem, blocks, features: inputs, memory: Memory::Full })
    }

    /// The same network, keeping what `memory` says for backward.
    pub fn with_memory(self, memory: Memory) -> ResNet {
        ResNet { memory, ..self }
    }

    /// The same network with another decay: the share of itself that a running average keeps each step.
    pub fn with_norm_decay(mut self, decay: f32) -> ResNet {
        let blocks = self.blocks.iter_mut().flat_map(Block::norms_mut);
        blocks.chain(self.stem.norms_mut()).for_each(|norm| norm.decay = decay);
        self
    }

    /// The same network, normalising its images first: a convolution then pads them with the mean, not with black.
    pub fn with_normalization(mut self, normalization: Option<Normalization>) -> ResNet {
        self.stem.normalization = normalization;
        self
    }

    /// The width of h.
    pub fn features(&self) -> usize {
        self.features
    }

    /// The layers before the blocks.
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

    /// Runs a part of the network, keeping all its activations or only its input for backward.
    fn part<'a>(&self, tape: &mut Tape<'a>, x: &Var, part: &'a dyn Segment<'a>) -> Result<Var> {
        Ok(match self.memory {
            Memory::Full => part.forward(tape, std::slice::from_ref(x))?,
            Memory::Blocks => tape.checkpoint(&[x], part)?,
        })
    }
}
