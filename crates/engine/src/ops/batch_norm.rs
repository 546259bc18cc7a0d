//! BatchNorm over all workers, with the residual addition and the ReLU that follow it.

use crate::{
    Backward, BackwardContext, Collective, EngineError, Gate, Mode, ParameterId, Result, Tape, Tensor, Var,
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
    let statistics = match tape.mode() {
        Mode::Train => batch_statistics(tape, x, norm)?,
        Mode::Eval | Mode::TrainFrozenNorm => running_statistics(tape, norm)?,
    };
    let gammas = gamma.tensor().as_slice()?;
    let scale: Vec<f32> = gammas.iter().zip(&statistics.inv_std).map(|(g, s)| g * s).collect();
    let mut shift: Vec<f32> = scale.iter().zip(&statistics.mean).map(|(scale, mean)| -scale * mean).collect();
    if let Some(beta) = &beta {
        shift.iter_mut().zip(beta.tensor().as_slice()?).for_each(|(shift, beta)| *shift += beta);
    }
    let device = x.tensor().device();
    let mut y = Tensor::empty_of(device, x.tensor().shape(), x.tensor().dtype());
    let residual_value = residual.map(Var::tensor);
    device.kernels().batch_norm_forward(x.tensor(), &scale, &shift, residual_value, relu, &mut y)?;
    // Inputs without a place of their own stand in for absent ones: their gradient is never wanted.
    let absent = tape.input(gamma.tensor().clone());
    let inputs = [x, &gamma, beta.as_ref().unwrap_or(&absent), residual.unwrap_or(&absent)];
    let collective = tape.collective();
    Ok(tape.record(&inputs, y.clone(), || BatchNormBackward {
        x: x.tensor().clone(),
        gate: match (relu, residual) {
            (false, _) => KeptGate::Open,
            (true, Some(_)) => KeptGate::Output(y),
            (true, None) => KeptGate::Affine { scale, shift },
        },
        gamma: gamma.tensor().clone(),
        statistics,
        collective,
    }))
}

struct Statistics {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    /// Values behind each mean; none where the statistics are constants.
    count: Option<f64>,
}

/// Mean and deviation over the batch of all workers; the running averages move towards them.
fn batch_statistics(tape: &mut Tape, x: &Var, norm: &BatchNorm) -> Result<Statistics> {
    let channels = x.tensor().last_dim();
    let mut sums = vec![0.0; 2 * channels + 1];
    match x.channel_sums() {
        Some(known) => sums[..2 * channels].copy_from_slice(known),
        None => x.tensor().device().kernels().channel_sums(x.tensor(), &mut sums[..2 * channels])?,
    }
    sums[2 * channels] = (x.tensor().len() / channels) as f64;
    tape.collective().all_reduce_sum(&mut sums)?;
    let count = sums[2 * channels];
    let mean: Vec<f64> = sums[..channels].iter().map(|sum| sum / count).collect();
    let squares = &sums[channels..2 * channels];
    let variance: Vec<f64> = squares
        .iter()
        .zip(&mean)
        .map(|(sum, m)| sum / count - m * m)
        // Rounding may leave a little less than nothing. A NaN is kept.
        .map(|variance| if variance < 0.0 { 0.0 } else { variance })
        .collect();
    let keep = f64::from(norm.decay);
    let unbias = if count > 1.0 { count / (count - 1.0) } else { 1.0 };
    average_towards(tape, norm.running_mean, keep, mean.iter().copied())?;
    average_towards(tape, norm.running_var, keep, variance.iter().map(|v| v * unbias))?;
    Ok(Statistics {
        mean: mean.iter().map(|&m| m as f32).collect(),
        inv_std: variance.iter().map(|v| (1.0 / (v + f64::from(norm.epsilon)).sqrt()) as f32).collect(),
        count: Some(count),
    })
}

fn average_towards(
    tape: &mut Tape,
    id: ParameterId,
    keep: f64,
    new: impl Iterator<Item = f64>,
) -> Result<()> {
    let old = tape.parameters().get(id);
    let mut average = Tensor::empty(old.device(), old.shape());
    for ((average, old), new) in average.as_mut_slice()?.iter_mut().zip(old.as_slice()?).zip(new) {
        *average = (keep * f64::from(*old) + (1.0 - keep) * new) as f32;
    }
    tape.update_buffer(id, average);
    Ok(())
}

fn running_statistics(tape: &Tape, norm: &BatchNorm) -> Result<Statistics> {
    let variance = tape.parameters().get(norm.running_var).as_slice()?;
    Ok(Statistics {
        mean: tape.parameters().get(norm.running_mean).to_vec()?,
        inv_std: variance.iter().map(|v| 1.0 / (v + norm.epsilon).sqrt()).collect(),
        count: None,
    })
}

/// What backward finds the ReLU's gate by.
enum KeptGate {
    Open,
    Output(Tensor),
    Affine { scale: Vec<f32>, shift: Vec<f32> },
}

impl KeptGate {
    fn lend(&self) -> Gate<'_> {
        match self {
            KeptGate::Open => Gate::Open,
            KeptGate::Output(y) => Gate::Output(y),
            KeptGate::Affine { scale, shift } => Gate::Affine { scale, shift },
        }
    }
}

struct BatchNormBackward<'a> {
    x: Tensor,
    gate: KeptGate,
    gamma: Tensor,
    statistics: Statistics,
    collective: &'a dyn Collective,
}

impl Backward for BatchNormBackward<'_> {
    fn backward(self: Box<Self>, mut dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let device = dy.device().clone();
        let channels = self.gamma.len();
        let Statistics { mean, inv_std, count } = &self.statistics;
        let mut gate = self.gate.lend();
        let mut sums = vec![0.0; 2 * channels];
        let keep = context.wants(3);
        device.kernels().batch_norm_backward_sums(&mut dy, gate, &self.x, mean, keep, &mut sums)?;
        if keep {
            gate = Gate::Open;
        }
        // A parameter's gradient is this worker's share: all parameters' gradients are summed over workers at once.
        if context.wants(1) {
            let dgamma: Vec<f32> =
                sums[channels..].iter().zip(inv_std).map(|(sum, s)| (sum * f64::from(*s)) as f32).collect();
            context.give(1, Tensor::from_vec(&device, &[channels], dgamma)?)?;
        }
        if context.wants(2) {
            let dbeta = sums[..channels].iter().map(|&sum| sum as f32).collect();
            context.give(2, Tensor::from_vec(&device, &[channels], dbeta)?)?;
        }
        if !context.wants(0) && !context.wants(3) {
            return Ok(());
        }
        // dx = gamma inv_std (g - sum g / n - (x - mean) inv_std^2 sum g (x - mean) / n) as a g + b x + c.
        let gamma = self.gamma.as_slice()?;
        let a: Vec<f32> = gamma.iter().zip(inv_std).map(|(g, s)| g * s).collect();
        let (mut b, mut c) = (vec![0.0; channels], vec![0.0; channels]);
        if let Some(count) = count {
            self.collective.all_reduce_sum(&mut sums)?;
            for i in 0..channels {
                let (scale, inv_std) = (f64::from(a[i]), f64::from(inv_std[i]));
                let slope = -scale * inv_std * inv_std * sums[channels + i] / count;
                b[i] = slope as f32;
                c[i] = (-scale * sums[i] / count - slope * f64::from(mean[i])) as f32;
            }
        }
        let mut dx = self.x;
        device.kernels().batch_norm_backward_input(&dy, gate, &mut dx, [&a, &b, &c])?;
        context.give(0, dx)?;
        context.give(3, dy)
    }
}
