//! Projection heads g, which map h, which is kept, to z, which the loss sees.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Device, Parameters, Tape, Var};

use crate::initialize::Initial;
use crate::layers::{Linear, Maker};
use crate::{NnError, Result};

/// The form of g (arXiv:2002.05709, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSpec {
    /// The number of dense layers, with ReLU between them: with none z = h, one is the linear head, and of nonlinear
    /// heads the paper's has 2 and SimCLR v2's 3.
    pub layers: usize,
    /// Width between the layers; that of h if not given.
    pub hidden: Option<usize>,
    /// Width of z.
    pub dim: usize,
    /// Whether a BatchNorm instead of a bias follows every dense layer, the last without beta and without ReLU: the
    /// official code. Otherwise layers have plain biases: the paper.
    pub batch_norm: bool,
}

impl Default for HeadSpec {
    /// Linear(d, d), BatchNorm, ReLU, Linear(d, 128), BatchNorm.
    fn default() -> HeadSpec {
        HeadSpec { layers: 2, hidden: None, dim: 128, batch_norm: true }
    }
}

/// A projection head. Its parameters are `head.I.linear.{weight,bias}` and `head.I.bn.*`, I from 0.
#[derive(Clone, Debug)]
pub struct Head {
    layers: Vec<HeadLayer>,
    features: usize,
}

/// A layer of a head.
#[derive(Clone, Debug)]
pub struct HeadLayer {
    /// The dense layer.
    pub linear: Linear,
    /// The BatchNorm after it, if there is one.
    pub norm: Option<BatchNorm>,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// The width of its output.
    pub outputs: usize,
}

impl Head {
    /// Makes a head on features of width `features`, drawing its parameters from `seed`.
    pub fn new(
        spec: &HeadSpec,
        features: usize,
        device: &Device,
        seed: u64,
        parameters: &mut Parameters,
    ) -> Result<Head> {
        Head::make(spec, features, Maker { device, seed: Some(seed), parameters })
    }

    /// Makes a head whose parameters and running averages are all 0, to be loaded.
    pub fn blank(
        spec: &HeadSpec,
        features: usize,
        device: &Device,
        parameters: &mut Parameters,
    ) -> Result<Head> {
        Head::make(spec, features, Maker { device, seed: None, parameters })
    }

    fn make(spec: &HeadSpec, features: usize, mut maker: Maker<'_>) -> Result<Head> {
        if spec.layers > 0 && spec.dim == 0 {
            return Err(NnError::Spec { what: "head.dim", problem: "must be at least 1".into() });
        }
        if spec.hidden == Some(0) {
            return Err(NnError::Spec { what: "head.hidden", problem: "must be at least 1".into() });
        }
        let mut inputs = features;
        let mut layers = Vec::new();
        for i in 0..spec.layers {
            let last = i + 1 == spec.layers;
            let outputs = if last { spec.dim } else { spec.hidden.unwrap_or(features) };
            // A BatchNorm removes any scale, so the official code's small deviation is fine. Plain biases need outputs
            // of a scale near one, because nothing adapts their learning rate to a smaller scale.
            let initial = if spec.batch_norm {
                Initial::Normal { deviation: 0.01 }
            } else {
                Initial::VarianceScaling { fan_in: inputs }
            };
            let linear =
                maker.linear(&format!("head.{i}.linear"), (inputs, outputs), !spec.batch_norm, initial)?;
            let norm = if spec.batch_norm {
                Some(maker.norm(&format!("head.{i}.bn"), outputs, 1.0, !last)?)
            } else {
                None
            };
            layers.push(HeadLayer { linear, norm, relu: !last, outputs });
            inputs = outputs;
        }
        Ok(Head { layers, features })
    }

    /// The same head with another decay: the share of itself that a running average keeps each step.
    #[must_use]
    pub fn with_norm_decay(mut self, decay: f32) -> Head {
        self.layers.iter_mut().filter_map(|layer| layer.norm.as_mut()).for_each(|norm| norm.decay = decay);
        self
    }

    /// The width of z.
    pub fn dim(&self) -> usize {
        self.dim_after(self.layers.len())
    }

    /// The width of the output of the first `layers` layers.
    pub fn dim_after(&self, layers: usize) -> usize {
        self.layers.iter().take(layers).next_back().map_or(self.features, |layer| layer.outputs)
    }

    /// The layers, in order; none if z = h.
    pub fn layers(&self) -> &[HeadLayer] {
        &self.layers
    }

    /// z (N, dim) of h (N, features), not yet normalised.
    pub fn forward(&self, tape: &mut Tape, h: &Var) -> Result<Var> {
        self.forward_first(tape, h, self.layers.len())
    }

    /// The output of the first `layers` layers, with their BatchNorm and ReLU, for h (N, features): h itself for 0, z
    /// for all. Fine-tuning in SimCLR v2 keeps one layer (arXiv:2006.10029, section 2).
    pub fn forward_first(&self, tape: &mut Tape, h: &Var, layers: usize) -> Result<Var> {
        let mut z = h.clone();
        for layer in self.layers.iter().take(layers) {
            z = layer.linear.forward(tape, &z)?;
            z = match (&layer.norm, layer.relu) {
                (Some(norm), relu) => ops::batch_norm(tape, &z, norm, None, relu)?,
                (None, true) => ops::relu(tape, &z)?,
                (None, false) => z,
            };
        }
        Ok(z)
    }
}
