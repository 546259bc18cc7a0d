//! BatchNorm over all workers, with the residual addition and the ReLU that follow it.

use simclr_kernels::batch_norm::NormConstants;

use crate::tape::BackwardContext;
use crate::{
    BackwardSums, Collective, DType, Device, EngineError, Gate, Mask, Mode, NormParameters, ParameterId,
    Parameters, Result, Tape, Tensor, Var,
};

/// A BatchNorm's parameters and constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchNorm {
    /// gamma, (C).
    pub gamma: ParameterId,
    /// beta, (C), if there is one.
    pub beta: Option<ParameterId>,
    /// Running average of the mean, (C).
    pub running_mean: ParameterId,
    /// Running average of the unbiased variance, (C).
    pub running_var: ParameterId,
    /// Added to the variance: 1e-5.
    pub epsilon: f32,
    /// The share of itself that an average keeps each step: 0.9.
    pub decay: f32,
}

/// y = act(gamma (x - mean) / sqrt(var + epsilon) + beta + residual), where act is ReLU if `relu`.
///
/// x and residual are (..., C). In training, the mean and the biased variance are those of all pixels of all images
/// of all workers (the paper's global BatchNorm), including the variance between workers' means; otherwise they are
/// the running averages. arXiv:1502.03167, algorithm 1.
///
/// # Errors
/// [`EngineError::Shape`](crate::EngineError::Shape) if the operands do not fit together; errors of the device, and of
/// workers that do not answer.
pub fn batch_norm(
    tape: &mut Tape,
    x: &Var,
    norm: &BatchNorm,
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    let prepared = prepare(tape, x, norm, residual)?;
    apply(tape, x, prepared, residual, relu)
}

/// A BatchNorm that is about to be applied: its parameters as values on the tape, and its coefficients.
pub(super) struct Prepared {
    gamma: Var,
    beta: Option<Var>,
    /// Stands in for absent inputs: it has no node on the tape, so that its gradient is never wanted.
    absent: Var,
    /// The coefficients, (4, C), and the number of values behind each mean, if it is not a constant.
    found: (Tensor, Option<f64>),
}

impl Prepared {
    /// The inputs to record.
    pub fn inputs<'v>(&'v self, x: &'v Var, residual: Option<&'v Var>) -> [&'v Var; 4] {
        let [gamma, beta] = self.parameters();
        [x, gamma, beta, residual.unwrap_or(&self.absent)]
    }

    /// gamma, and beta or its stand-in.
    pub fn parameters(&self) -> [&Var; 2] {
        [&self.gamma, self.beta.as_ref().unwrap_or(&self.absent)]
    }

    /// (4, C).
    pub fn coefficients(&self) -> &Tensor {
        &self.found.0
    }

    /// What backward needs to normalise.
    pub fn statistics<'a>(&self, collective: &'a dyn Collective) -> Statistics<'a> {
        let (coefficients, count) = self.found.clone();
        Statistics { coefficients, count, collective }
    }

    /// The backward of a BatchNorm and a ReLU without a residual, from the gradient of the ReLU's output.
    pub fn backward<'a>(&self, x: &Tensor, collective: &'a dyn Collective) -> BatchNormBackward<'a> {
        BatchNormBackward { x: x.clone(), gate: KeptGate::Affine, statistics: self.statistics(collective) }
    }
}

/// The first half of [`batch_norm`]: everything but y.
pub(super) fn prepare(
    tape: &mut Tape,
    x: &Var,
    norm: &BatchNorm,
    residual: Option<&Var>,
) -> Result<Prepared> {
    let x_value = x.tensor();
    check_residual(x_value.shape(), residual)?;
    let device = x_value.device();
    prepare_sums(tape, device, x_value.shape(), norm, || {
        if let Some(known) = x.channel_sums() {
            return Ok(known.clone());
        }
        let mut sums = Tensor::empty_of(device, &[2 * x_value.last_dim()], DType::F64);
        device.kernels().channel_sums(x_value, &mut sums)?;
        Ok(sums)
    })
}

/// [`prepare`] for an x of which only the shape exists; `sums` makes [sum of x; C, sum of x^2; C].
pub(super) fn prepare_sums(
    tape: &mut Tape,
    device: &Device,
    shape: &[usize],
    norm: &BatchNorm,
    sums: impl FnOnce() -> Result<Tensor>,
) -> Result<Prepared> {
    check(tape, shape, norm)?;
    let gamma = tape.parameter(norm.gamma);
    let beta = norm.beta.map(|id| tape.parameter(id));
    let found = coefficients(tape, device, norm, |tape| {
        // All workers have the same number of images.
        let (mut sums, collective) = (sums()?, tape.collective());
        collective.all_reduce_tensors(&mut std::iter::once(&mut sums))?;
        let values = shape.iter().product::<usize>() / gamma.tensor().len();
        Ok((sums, (values * collective.size()) as f64))
    })?;
    let absent = tape.input(gamma.tensor().clone());
    Ok(Prepared { gamma, beta, absent, found })
}

/// The second half of [`batch_norm`]: y.
pub(super) fn apply(
    tape: &mut Tape,
    x: &Var,
    prepared: Prepared,
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    let (device, inputs) = (x.tensor().device(), prepared.inputs(x, residual));
    let mut y = Tensor::empty_of(device, x.tensor().shape(), x.tensor().dtype());
    // Without a residual, x itself shows where the output is positive.
    let mask_bytes = match relu && residual.is_some() && tape.records(&inputs) {
        true => device.kernels().batch_norm_mask(x.tensor())?,
        false => 0,
    };
    let mut mask = (mask_bytes > 0).then(|| Mask::empty(device, mask_bytes));
    let kernels = device.kernels();
    let residual_value = residual.map(Var::tensor);
    let coefficients = prepared.coefficients();
    kernels.batch_norm_forward(x.tensor(), coefficients, residual_value, relu, &mut y, mask.as_mut())?;
    let collective = tape.collective();
    Ok(tape.record(&inputs, y.clone(), || BatchNormBackward {
        gate: match (relu, residual, mask) {
            (false, ..) => KeptGate::Open,
            (true, None, _) => KeptGate::Affine,
            (true, Some(_), Some(mask)) => KeptGate::Mask(mask),
            (true, Some(_), None) => KeptGate::Output(y),
        },
        ..prepared.backward(x.tensor(), collective)
    }))
}

/// The coefficients, (4, C), of an x of this shape by the running averages.
pub(super) fn running_coefficients(
    tape: &Tape,
    device: &Device,
    shape: &[usize],
    norm: &BatchNorm,
) -> Result<Tensor> {
    check(tape, shape, norm)?;
    frozen_coefficients(tape, device, norm)
}

fn frozen_coefficients(tape: &Tape, device: &Device, norm: &BatchNorm) -> Result<Tensor> {
    let own = parameters_of(tape.parameters(), norm);
    let mut to = Tensor::empty(device, &[4, own.gamma.len()]);
    device.kernels().frozen_coefficients(norm.epsilon, own, &mut to)?;
    Ok(to)
}

fn parameters_of<'p>(parameters: &'p Parameters, norm: &BatchNorm) -> NormParameters<'p> {
    let averages = [norm.running_mean, norm.running_var].map(|id| parameters.get(id));
    let beta = norm.beta.map(|id| parameters.get(id));
    NormParameters { gamma: parameters.get(norm.gamma), beta, averages }
}

/// Checks that a residual has the shape of what it is added to.
pub(super) fn check_residual(shape: &[usize], residual: Option<&Var>) -> Result<()> {
    match residual.map(|residual| residual.tensor().shape()).filter(|&other| other != shape) {
        Some(other) => Err(EngineError::shape("batch_norm", format!("a residual {shape:?}"), other)),
        None => Ok(()),
    }
}

/// Checks that x has channels and pixels, and that the parameters have one value per channel.
fn check(tape: &Tape, shape: &[usize], norm: &BatchNorm) -> Result<()> {
    let parameters = tape.parameters();
    let gamma = parameters.get(norm.gamma);
    let channels = shape.last().copied().unwrap_or(1);
    if shape.contains(&0) || gamma.shape() != [channels] {
        return Err(EngineError::shape("batch_norm", format!("(..., {})", gamma.len()), shape));
    }
    for id in [Some(norm.running_mean), Some(norm.running_var), norm.beta].into_iter().flatten() {
        let shape = parameters.get(id).shape();
        if shape != [channels] {
            let expected = format!("{} of [{channels}]", parameters.name(id));
            return Err(EngineError::shape("batch_norm", expected, shape));
        }
    }
    Ok(())
}

/// The coefficients of y, (4, C), and, if mean and variance are the batch's, which also moves the running averages,
/// the number of values that they are over. `batch_sums` makes [sum of x; C, sum of x^2; C] over the batches of all
/// workers, and the number of values in each sum.
fn coefficients<'a>(
    tape: &mut Tape<'a>,
    device: &Device,
    norm: &BatchNorm,
    batch_sums: impl FnOnce(&Tape<'a>) -> Result<(Tensor, f64)>,
) -> Result<(Tensor, Option<f64>)> {
    if let Some(known) = tape.known_coefficients() {
        tape.note_coefficients(&known);
        return Ok((known.0, Some(known.1)));
    }
    let batch = match tape.mode() {
        Mode::Train => Some(batch_sums(tape)?),
        Mode::Eval | Mode::TrainFrozenNorm => None,
    };
    let Some((sums, count)) = batch else {
        return Ok((frozen_coefficients(tape, device, norm)?, None));
    };
    let own = parameters_of(tape.parameters(), norm);
    let channels = own.gamma.len();
    let mut to = Tensor::empty(device, &[4, channels]);
    let [mut mean, mut variance] = [0, 1].map(|_| Tensor::empty(device, &[channels]));
    let constants = NormConstants { epsilon: norm.epsilon, decay: norm.decay };
    device.kernels().batch_coefficients(
        constants,
        (&sums, count),
        own,
        [&mut mean, &mut variance],
        &mut to,
    )?;
    tape.update_buffer(norm.running_mean, mean);
    tape.update_buffer(norm.running_var, variance);
    let found = (to, count);
    tape.note_coefficients(&found);
    Ok((found.0, Some(count)))
}

/// What backward keeps to find the ReLU's gate.
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

/// The statistics that a BatchNorm's backward needs.
pub(super) struct Statistics<'a> {
    /// (4, C): scale, shift, mean and 1 / deviation.
    pub coefficients: Tensor,
    /// The number of values behind each mean; `None` if the statistics are constants.
    count: Option<f64>,
    collective: &'a dyn Collective,
}

impl Statistics<'_> {
    /// Room for the sums of a backward pass. `gamma` is gamma's number among the operator's inputs, beta's is the next;
    /// `wanted` is whether the output of [`crate::Kernels::batch_norm_backward_coefficients`] is needed.
    pub fn sums(
        &self,
        device: &Device,
        context: &BackwardContext,
        gamma: usize,
        wanted: bool,
    ) -> StatisticsSums<'_> {
        let channels = self.coefficients.last_dim();
        // A parameter's gradient is this worker's share: the gradients of all parameters are summed over workers later.
        let gradients = (context.wants(gamma) || context.wants(gamma + 1))
            .then(|| [0, 1].map(|_| Tensor::empty(device, &[channels])));
        StatisticsSums {
            of: self,
            gamma,
            sums: Tensor::empty_of(device, &[2 * channels], DType::F64),
            gradients,
            backward: wanted.then(|| Tensor::empty(device, &[3, channels])),
        }
    }
}

/// The sums of a backward pass.
pub(super) struct StatisticsSums<'s> {
    of: &'s Statistics<'s>,
    gamma: usize,
    sums: Tensor,
    gradients: Option<[Tensor; 2]>,
    backward: Option<Tensor>,
}

impl StatisticsSums<'_> {
    /// Whether no other worker's sums are needed: constant statistics need none.
    fn alone(&self) -> bool {
        self.of.count.is_none() || self.of.collective.size() == 1
    }

    /// Where a kernel is to write the sums and what is computed from them.
    pub fn to(&mut self) -> BackwardSums<'_> {
        let alone = self.alone();
        BackwardSums {
            sums: &mut self.sums,
            gradients: self.gradients.as_mut().map(|[dgamma, dbeta]| [dgamma, dbeta]),
            coefficients: self.backward.as_mut().filter(|_| alone).map(|to| (self.of.count, to)),
        }
    }

    /// Gives the gradients of gamma and beta after a kernel has written them, and returns the backward coefficients,
    /// (3, C), from the sums of all workers, if they are wanted.
    pub fn give(mut self, device: &Device, context: &mut BackwardContext) -> Result<Option<Tensor>> {
        if let Some([dgamma, dbeta]) = self.gradients.take() {
            context.give(self.gamma, dgamma)?;
            context.give(self.gamma + 1, dbeta)?;
        }
        let alone = self.alone();
        if let Some(backward) = self.backward.as_mut().filter(|_| !alone) {
            self.of.collective.all_reduce_tensors(&mut std::iter::once(&mut self.sums))?;
            let (kernels, coefficients) = (device.kernels(), &self.of.coefficients);
            kernels.batch_norm_backward_coefficients(&self.sums, self.of.count, coefficients, backward)?;
        }
        Ok(self.backward)
    }
}

pub(crate) struct BatchNormBackward<'a> {
    pub(super) x: Tensor,
    gate: KeptGate,
    pub(super) statistics: Statistics<'a>,
}

impl BatchNormBackward<'_> {
    pub(crate) fn backward(self, mut dy: Tensor, context: &mut BackwardContext) -> Result<()> {
        let BatchNormBackward { x, gate, statistics } = self;
        let device = dy.device().clone();
        let (kernels, coefficients) = (device.kernels(), &statistics.coefficients);
        let keep = context.wants(3);
        let mut sums = statistics.sums(&device, context, 1, context.wants(0) || keep);
        kernels.batch_norm_backward_sums(&mut dy, gate.lend(), &x, coefficients, keep, sums.to())?;
        let Some(backward) = sums.give(&device, context)? else { return Ok(()) };
        let gate = if keep { Gate::Open } else { gate.lend() };
        let mut dx = x;
        kernels.batch_norm_backward_input(&dy, gate, &mut dx, coefficients, &backward)?;
        context.give(0, dx)?;
        context.give(3, dy)
    }
}
