//! BatchNorm over all workers, with the residual addition and the ReLU that follow it.

use simclr_kernels::batch_norm::NormConstants;

use crate::tape::BackwardContext;
use crate::{
    Collective, DType, EngineError, Gate, Mask, Mode, NormParameters, ParameterId, Result, Tape, Tensor, Var,
};

/// A BatchNorm's parameters and constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// gamma, (C).
    pub gamma: ParameterId,
    /// beta, (C), where there is one.
    pub beta: Option<ParameterId>,
    /// Running average of the mean, (C).
    pub running_mean: ParameterId,
    /// Running average of the unbiased variance, (C).
    pub running_var: ParameterId,
    /// Added to the variance: 1e-5.
    pub epsilon: f32,
    /// What an average keeps of itself each step: 0.9.
    pub decay: f32,
}

/// y = act(gamma (x - mean) / sqrt(var + epsilon) + beta + residual), act being ReLU if `relu`.
///
/// x and residual are (..., C). In training, mean and biased variance are taken over every pixel of every image of
/// every worker (the paper's global BatchNorm), the variance between workers' means included; otherwise they are the
/// running averages. arXiv:1502.03167, algorithm 1.
pub fn batch_norm(
    tape: &mut Tape,
    x: &Var,
    norm: &BatchNorm,
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    let channels = x.tensor().last_dim();
    let gamma = tape.parameter(norm.gamma);
    let beta = norm.beta.map(|id| tape.parameter(id));
    if x.tensor().is_empty() || gamma.tensor().shape() != [channels] {
        return Err(EngineError::shape(
            "batch_norm",
            format!("(..., {})", gamma.tensor().len()),
            x.tensor().shape(),
        ));
    }
    for id in [Some(norm.running_mean), Some(norm.running_var), norm.beta].into_iter().flatten() {
        let shape = tape.parameters().get(id).shape();
        if shape != [channels] {
            let expected = format!("{} of [{channels}]", tape.parameters().name(id));
            return Err(EngineError::shape("batch_norm", expected, shape));
        }
    }
    if let Some(residual) = residual.filter(|r| r.tensor().shape() != x.tensor().shape()) {
        let expected = format!("a residual {:?}", x.tensor().shape());
        return Err(EngineError::shape("batch_norm", expected, residual.tensor().shape()));
    }
    let parameters = tape.parameters();
    let averages = [norm.running_mean, norm.running_var].map(|id| parameters.get(id));
    let own = NormParameters { gamma: gamma.tensor(), beta: beta.as_ref().map(Var::tensor), averages };
    let device = x.tensor().device();
    let mut coefficients = Tensor::empty(device, &[4, channels]);
    let count = match tape.mode() {
        Mode::Train => {
            let (sums, count) = batch_sums(tape, x)?;
            let [mut mean, mut variance] = [0, 1].map(|_| Tensor::empty(device, &[channels]));
            let constants = NormConstants { epsilon: norm.epsilon, decay: norm.decay };
            let moved = [&mut mean, &mut variance];
            device.kernels().batch_coefficients(constants, (&sums, count), own, moved, &mut coefficients)?;
            tape.update_buffer(norm.running_mean, mean);
            tape.update_buffer(norm.running_var, variance);
            Some(count)
        }
        Mode::Eval | Mode::TrainFrozenNorm => {
            device.kernels().frozen_coefficients(norm.epsilon, own, &mut coefficients)?;
            None
        }
    };
    // Inputs without a place of their own stand in for absent ones: their gradient is never wanted.
    let absent = tape.input(gamma.tensor().clone());
    let inputs = [x, &gamma, beta.as_ref().unwrap_or(&absent), residual.unwrap_or(&absent)];
    let mut y = Tensor::empty_of(device, x.tensor().shape(), x.tensor().dtype());
    // Without a residual x itself tells where the output is positive.
    let mask_bytes = match relu && residual.is_some() && tape.records(&inputs) {
        true => device.kernels().batch_norm_mask(x.tensor())?,
        false => 0,
    };
    let mut mask = (mask_bytes > 0).then(|| Mask::empty(device, mask_bytes));
    let kernels = device.kernels();
    let residual_value = residual.map(Var::tensor);
    kernels.batch_norm_forward(x.tensor(), &coefficients, residual_value, relu, &mut y, mask.as_mut())?;
    let collective = tape.collective();
    Ok(tape.record(&inputs, y.clone(), || BatchNormBackward {
        x: x.tensor().clone(),
        gate: match (relu, residual, mask) {
            (false, ..) => KeptGate::Open,
            (true, None, _) => KeptGate::Affine,
            (true, Some(_), Some(mask)) => KeptGate::Mask(mask),
            (true, Some(_), None) => KeptGate::Output(y),
        },
        coefficients,
        count,
        collective,
    }))
}

/// [sum of x; C, sum of x^2; C, ...] over the batches of all workers, and how many values each is a sum of.
fn batch_sums(tape: &Tape, x: &Var) -> Result<(Tensor, f64)> {
    let x_value = x.tensor();
    let (channels, collective) = (x_value.last_dim(), tape.collective());
    let known = match x.channel_sums() {
        Some(known) => known.clone(),
        None => {
            let mut sums = Tensor::empty_of(x_value.device(), &[2 * channels], DType::F64);
            x_value.device().kernels().channel_sums(x_value, &mut sums)?;
            sums
        }
    };
    let count = (x_value.len() / channels) as f64;
    if collective.size() == 1 {
        return Ok((known, count));
    }
    let mut sums = Tensor::empty_of(x_value.device(), &[2 * channels + 1], DType::F64);
    let values = sums.values_mut::<f64>()?;
    values[..2 * channels].copy_from_slice(known.values()?);
    values[2 * channels] = count;
    collective.all_reduce_sum(values)?;
    let count = values[2 * channels];
    Ok((sums, count))
}

/// What backward finds the ReLU's gate by.
enum KeptGate {
    Open,
    Output(Tensor),
    Affine,
    Mask(Mask),
}

impl KeptGate {
    fn lend(&self) -> Gate<'_> {
        match self {
            KeptGate::Open => Gate::Open,
            KeptGate::Output(y) => Gate::Output(y),
            KeptGate::Affine => Gate::Affine,
            KeptGate::Mask(mask) => Gate::Mask(mask),
        }
    }
}

pub(crate) struct BatchNormBackward<'a> {
    x: Tensor,
    gate: KeptGate,
    /// (4, C): scale, shift, mean and 1 / deviation.
    coefficients: Tensor,
    /// Values behind each mean; none where the statistics are constants.
    count: Option<f64>,
    collective: &'a dyn Collective,
}

impl BatchNormBackward<'_> {
    pub(crate) fn backward(self, mut dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let device = dy.device().clone();
        let (channels, coefficients) = (self.x.last_dim(), &self.coefficients);
        let mut gate = self.gate.lend();
        let mut sums = Tensor::empty_of(&device, &[2 * channels], DType::F64);
        let keep = context.wants(3);
        device.kernels().batch_norm_backward_sums(&mut dy, gate, &self.x, coefficients, keep, &mut sums)?;
        if keep {
            gate = Gate::Open;
        }
        // A parameter's gradient is this worker's share: all parameters' gradients are summed over workers at once.
        if context.wants(1) || context.wants(2) {
            let [mut dgamma, mut dbeta] = [0, 1].map(|_| Tensor::empty(&device, &[channels]));
            device.kernels().batch_norm_parameter_gradients(&sums, coefficients, &mut dgamma, &mut dbeta)?;
            context.give(1, dgamma)?;
            context.give(2, dbeta)?;
        }
        if !context.wants(0) && !keep {
            return Ok(());
        }
        if self.count.is_some() && self.collective.size() > 1 {
            self.collective.all_reduce_sum(sums.values_mut()?)?;
        }
        let mut backward = Tensor::empty(&device, &[3, channels]);
        let kernels = device.kernels();
        kernels.batch_norm_backward_coefficients(&sums, self.count, coefficients, &mut backward)?;
        let mut dx = self.x;
        kernels.batch_norm_backward_input(&dy, gate, &mut dx, coefficients, &backward)?;
        context.give(0, dx)?;
        context.give(3, dy)
    }
}
