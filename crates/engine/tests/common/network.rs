//! A network small enough for tests, with every kind of layer that a ResNet and a projection head have.

use simclr_engine::ops::{self, BatchNorm, ContrastiveFigures, Conv2d};
use simclr_engine::{Device, ParameterId, ParameterKind, Parameters, Result, Segment, Tape, Tensor, Var};

use super::values::uniform;

/// The side and the channels of the images that it takes.
pub const SIZE: usize = 12;
pub const CHANNELS: usize = 3;

#[derive(Clone, Copy, Debug)]
pub struct Network {
    stem: ParameterId,
    stem_norm: BatchNorm,
    blocks: [Block; 2],
    dense: [(ParameterId, ParameterId); 2],
}

#[derive(Clone, Copy, Debug)]
struct Block {
    stride: usize,
    convs: [ParameterId; 2],
    norms: [BatchNorm; 2],
    shortcut: Option<(ParameterId, BatchNorm)>,
}

struct Builder<'d> {
    device: &'d Device,
    parameters: Parameters,
}

impl Builder<'_> {
    fn add(
        &mut self,
        name: &str,
        kind: ParameterKind,
        shape: &[usize],
        centre: f32,
        spread: f32,
    ) -> ParameterId {
        let len = shape.iter().product();
        let values = uniform(name, len).iter().map(|u| centre + spread * u).collect();
        let value = Tensor::from_vec(self.device, shape, values).unwrap();
        self.parameters.add(name, kind, value).unwrap()
    }

    fn weights(&mut self, name: &str, shape: &[usize]) -> ParameterId {
        let fan_in: usize = shape[1..].iter().product();
        self.add(name, ParameterKind::Weight, shape, 0.0, (6.0 / fan_in as f32).sqrt())
    }

    fn norm(&mut self, name: &str, channels: usize) -> BatchNorm {
        let shape = [channels];
        BatchNorm {
            gamma: self.add(&format!("{name}.gamma"), ParameterKind::Norm, &shape, 1.0, 0.2),
            beta: Some(self.add(&format!("{name}.beta"), ParameterKind::Norm, &shape, 0.0, 0.2)),
            running_mean: self.add(&format!("{name}.mean"), ParameterKind::Buffer, &shape, 0.0, 0.0),
            running_var: self.add(&format!("{name}.var"), ParameterKind::Buffer, &shape, 1.0, 0.0),
            epsilon: 1e-5,
            decay: 0.9,
        }
    }

    fn block(&mut self, name: &str, from: usize, to: usize, stride: usize) -> Block {
        Block {
            stride,
            convs: [
                self.weights(&format!("{name}.conv1"), &[to, 3, 3, from]),
                self.weights(&format!("{name}.conv2"), &[to, 3, 3, to]),
            ],
            norms: [self.norm(&format!("{name}.norm1"), to), self.norm(&format!("{name}.norm2"), to)],
            shortcut: (from != to).then(|| {
                (
                    self.weights(&format!("{name}.shortcut"), &[to, 1, 1, from]),
                    self.norm(&format!("{name}.shortcut_norm"), to),
                )
            }),
        }
    }
}

impl<'a> Segment<'a> for Block {
    fn forward(&'a self, tape: &mut Tape<'a>, inputs: &[Var]) -> Result<Var> {
        let x = &inputs[0];
        let y = conv_norm(tape, x, self.convs[0], &self.norms[0], (self.stride, 1), None, true)?;
        let shortcut = match &self.shortcut {
            None => x.clone(),
            Some((conv, norm)) => conv_norm(tape, x, *conv, norm, (self.stride, 0), None, false)?,
        };
        conv_norm(tape, &y, self.convs[1], &self.norms[1], (1, 1), Some(&shortcut), true)
    }
}

fn conv_norm(
    tape: &mut Tape,
    x: &Var,
    weights: ParameterId,
    norm: &BatchNorm,
    (stride, padding): (usize, usize),
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    let conv = Conv2d { stride, padding, channel_sums: true };
    let w = tape.parameter(weights);
    let y = ops::conv2d(tape, x, &w, conv)?;
    ops::batch_norm(tape, &y, norm, residual, relu)
}

impl Network {
    pub fn new(device: &Device) -> (Parameters, Network) {
        let mut builder = Builder { device, parameters: Parameters::new() };
        let b = &mut builder;
        let network = Network {
            stem: b.weights("stem", &[8, 3, 3, CHANNELS]),
            stem_norm: b.norm("stem_norm", 8),
            blocks: [b.block("block1", 8, 8, 1), b.block("block2", 8, 16, 2)],
            dense: [("dense1", 16, 16), ("dense2", 8, 16)].map(|(name, out, into)| {
                let bias = format!("{name}.bias");
                (b.weights(name, &[out, into]), b.add(&bias, ParameterKind::Bias, &[out], 0.0, 0.1))
            }),
        };
        (builder.parameters, network)
    }

    /// The loss of views (2n, SIZE, SIZE, CHANNELS); each block is a checkpointed segment if `checkpoint`.
    pub fn loss<'a>(
        &'a self,
        tape: &mut Tape<'a>,
        views: Tensor,
        checkpoint: bool,
    ) -> Result<(Var, ContrastiveFigures)> {
        let x = tape.input(views);
        let x = conv_norm(tape, &x, self.stem, &self.stem_norm, (1, 1), None, true)?;
        let mut x = ops::max_pool(tape, &x, 3, 2, [1, 1])?;
        for block in &self.blocks {
            x = if checkpoint { tape.checkpoint(&[&x], block)? } else { block.forward(tape, &[x])? };
        }
        let mut z = ops::global_avg_pool(tape, &x)?;
        for (i, (weights, bias)) in self.dense.into_iter().enumerate() {
            let (w, b) = (tape.parameter(weights), tape.parameter(bias));
            z = ops::linear(tape, &z, &w, Some(&b))?;
            if i == 0 {
                z = ops::relu(tape, &z)?;
            }
        }
        let z = ops::l2_normalize(tape, &z)?;
        let (loss, sums) = ops::nt_xent(tape, &z, 0.5)?;
        Ok((loss, sums.figures()?))
    }
}
