//! Layers: operators together with their parameters.

use simclr_engine::ops::{self, BatchNorm};
use simclr_engine::{Device, ParameterId, ParameterKind, Parameters, Tape, Tensor, Var};

use crate::Result;
use crate::initialize::{Initial, initial_values};

/// BatchNorm's epsilon.
const EPSILON: f32 = 1e-5;
/// The share of itself that a running average keeps each step.
const DECAY: f32 = 0.9;

/// Makes a network's parameters on a device.
pub(crate) struct Maker<'p> {
    pub(crate) device: &'p Device,
    /// From which parameters are drawn; `None` where all are going to be loaded, and are 0 until then.
    pub(crate) seed: Option<u64>,
    pub(crate) parameters: &'p mut Parameters,
}

impl Maker<'_> {
    fn add(
        &mut self,
        name: String,
        kind: ParameterKind,
        shape: &[usize],
        initial: Initial,
    ) -> Result<ParameterId> {
        let tensor = match self.seed {
            _ if self.device.is_dry() => Tensor::empty(self.device, shape),
            Some(seed) => {
                let values = initial_values(initial, shape.iter().product(), seed, &name);
                Tensor::from_vec(self.device, shape, values)?
            }
            None => Tensor::zeros(self.device, shape)?,
        };
        Ok(self.parameters.add(name, kind, tensor)?)
    }

    /// A convolution without bias, from `inputs` to `outputs` channels.
    pub(crate) fn conv(
        &mut self,
        name: &str,
        (inputs, outputs): (usize, usize),
        side: usize,
        stride: usize,
    ) -> Result<Conv> {
        let initial = Initial::VarianceScaling { fan_in: inputs * side * side };
        let shape = [outputs, side, side, inputs];
        let weight = self.add(format!("{name}.weight"), ParameterKind::Weight, &shape, initial)?;
        Ok(Conv { weight, stride, padding: side / 2 })
    }

    /// A BatchNorm of `channels` channels, its gamma starting at `gamma`.
    pub(crate) fn norm(
        &mut self,
        name: &str,
        channels: usize,
        gamma: f32,
        with_beta: bool,
    ) -> Result<BatchNorm> {
        use ParameterKind::{Buffer, Norm as NormKind};
        let mut add = |part: &str, kind, value| {
            self.add(format!("{name}.{part}"), kind, &[channels], Initial::Constant(value))
        };
        let gamma = add("weight", NormKind, gamma)?;
        let beta = if with_beta { Some(add("bias", NormKind, 0.0)?) } else { None };
        let running_mean = add("running_mean", Buffer, 0.0)?;
        let running_var = add("running_var", Buffer, 1.0)?;
        Ok(BatchNorm { gamma, beta, running_mean, running_var, epsilon: EPSILON, decay: DECAY })
    }

    /// A dense layer.
    pub(crate) fn linear(
        &mut self,
        name: &str,
        (inputs, outputs): (usize, usize),
        with_bias: bool,
        initial: Initial,
    ) -> Result<Linear> {
        let weight =
            self.add(format!("{name}.weight"), ParameterKind::Weight, &[outputs, inputs], initial)?;
        let bias = if with_bias {
            let initial = Initial::Constant(0.0);
            Some(self.add(format!("{name}.bias"), ParameterKind::Bias, &[outputs], initial)?)
        } else {
            None
        };
        Ok(Linear { weight, bias })
    }
}

/// A convolution without bias, which a BatchNorm follows.
#[derive(Clone, Debug)]
pub struct Conv {
    /// (K, R, S, C): from C channels to K, R x S pixels wide.
    pub weight: ParameterId,
    /// Pixels between outputs, both ways.
    pub stride: usize,
    /// Zeros added on every side.
    pub padding: usize,
}

impl Conv {
    pub(crate) fn forward(&self, tape: &mut Tape, x: &Var) -> simclr_engine::Result<Var> {
        let w = tape.parameter(self.weight);
        let options = self.options(tape);
        ops::conv2d(tape, x, &w, options)
    }

    /// ReLU(norm(convolution of x)), where x is images, whose gradient is not needed.
    pub(crate) fn first(&self, tape: &mut Tape, x: Var, norm: &BatchNorm) -> simclr_engine::Result<Var> {
        let options = self.options(tape);
        ops::first_layer(tape, x, self.weight, options, norm)
    }

    /// norm(convolution of x) plus `residual`, through a ReLU if `relu`.
    pub(crate) fn normalized(
        &self,
        tape: &mut Tape,
        x: Var,
        norm: &BatchNorm,
        residual: Option<&Var>,
        relu: bool,
    ) -> simclr_engine::Result<Var> {
        let options = self.options(tape);
        ops::conv2d_norm(tape, x, self.weight, options, norm, residual, relu)
    }

    /// The convolution of ReLU(norm(x)).
    pub(crate) fn after(&self, tape: &mut Tape, x: Var, norm: &BatchNorm) -> simclr_engine::Result<Var> {
        let options = self.options(tape);
        ops::norm_conv2d(tape, x, norm, self.weight, options)
    }

    fn options(&self, tape: &Tape) -> ops::Conv2d {
        // Only batch statistics are computed from the sums; running averages need none.
        let channel_sums = tape.mode() == simclr_engine::Mode::Train;
        ops::Conv2d { stride: self.stride, padding: self.padding, channel_sums }
    }
}

/// A dense layer, with or without bias.
#[derive(Clone, Debug)]
pub struct Linear {
    /// (outputs, inputs).
    pub weight: ParameterId,
    /// (outputs).
    pub bias: Option<ParameterId>,
}

impl Linear {
    /// A classifier on features: weights from N(0, 0.01^2), biases 0, named `NAME.weight` and `NAME.bias`.
    pub fn classifier(
        name: &str,
        inputs: usize,
        outputs: usize,
        device: &Device,
        seed: u64,
        parameters: &mut Parameters,
    ) -> Result<Linear> {
        let mut maker = Maker { device, seed: Some(seed), parameters };
        maker.linear(name, (inputs, outputs), true, Initial::Normal { deviation: 0.01 })
    }

    /// y = x w^T + b for rows x (N, inputs).
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        Ok(self.apply(tape, x)?)
    }

    /// [`Linear::forward`] with the engine's errors, for segments of the tape.
    pub(crate) fn apply(&self, tape: &mut Tape, x: &Var) -> simclr_engine::Result<Var> {
        let w = tape.parameter(self.weight);
        let bias = self.bias.map(|id| tape.parameter(id));
        ops::linear(tape, x, &w, bias.as_ref())
    }
}
