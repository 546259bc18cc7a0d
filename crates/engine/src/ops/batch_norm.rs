//! BatchNorm over all workers, with the residual addition and the ReLU that follow it.

use simclr_kernels::batch_norm::NormConstants;

use crate::tape::BackwardContext;
use crate::{
    BackwardSums, Collective, DType, Device, EngineError, Gate, Mask, Mode, NormParameters, ParameterId,
    Result, Tape, Tensor, Var,
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
    let prepared = prepare(tape, x, norm, residual)?;
    apply(tape, x, prepared, residual, relu)
}

/// A BatchNorm that is about to be applied: its parameters as they are used there, and what it normalises by.
pub(super) struct Prepared {
    gamma: Var,
    beta: Option<Var>,
    /// Stands in for inputs that are absent: it has no place of its own, and its gradient is never wanted.
    absent: Var,
    /// (4, C), and how many values each mean is of, where it is not a constant.
    found: (Tensor, Option<f64>),
}

impl Prepared {
    /// What is recorded as its inputs.
    pub fn inputs<'v>(&'v self, x: &'v Var, residual: Option<&'v Var>) -> [&'v Var; 4] {
        let [gamma, beta] = self.parameters();
        [x, gamma, beta, residual.unwrap_or(&self.absent)]
    }

    /// gamma, and beta or what stands in for it.
    pub fn parameters(&self) -> [&Var; 2] {
        [&self.gamma, self.beta.as_ref().unwrap_or(&self.absent)]
    }

    /// (4, C).
    pub fn coefficients(&self) -> &Tensor {
        &self.found.0
    }

    /// What backward normalises by.
    pub fn statistics<'a>(&self, collective: &'a dyn Collective) -> Statistics<'a> {
        let (coefficients, count) = self.found.clone();
        Statistics { coefficients, count, collective }
    }

    /// What goes back behind a ReLU without a residual, from the gradient of what that leaves.
    pub fn backward<'a>(&self, x: &Tensor, collective: &'a dyn Collective) -> BatchNormBackward<'a> {
        BatchNormBackward { x: x.clone(), gate: KeptGate::Affine, statistics: self.statistics(collective) }
    }
}

/// The first half of [`batch_norm`]: all but y.
pub(super) fn prepare(
    tape: &mut Tape,
    x: &Var,
    norm: &BatchNorm,
    residual: Option<&Var>,
) -> Result<Prepared> {
    let x_value = x.tensor();
    if let Some(residual) = residual.map(Var::tensor).filter(|residual| residual.shape() != x_value.shape()) {
        let expected = format!("a residual {:?}", x_value.shape());
        return Err(EngineError::shape("batch_norm", expected, residual.shape()));
    }
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

/// The same of an x of which only the shape is there; `sums` makes [sum of x; C, sum of x^2; C].
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
        // Workers bring as many images each.
        let (mut sums, collective) = (sums()?, tape.collective());
        collective.all_reduce(&mut std::iter::once(&mut sums))?;
        let values = shape.iter().product::<usize>() / gamma.tensor().len();
        Ok((sums, (values * collective.size()) as f64))
    })?;
    let absent = tape.input(gamma.tensor().clone());
    Ok(Prepared { gamma, beta, absent, found })
}

/// The second half.
pub(super) fn apply(
    tape: &mut Tape,
    x: &Var,
    prepared: Prepared,
    residual: Option<&Var>,
    relu: bool,
) -> Result<Var> {
    let (device, inputs) = (x.tensor().device(), prepared.inputs(x, residual));
    let mut y = Tensor::empty_of(device, x.tensor().shape(), x.tensor().dtype());
    // Without a residual x itself tells where the output is positive.
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

/// That x has channels and pixels, and parameters a value a channel.
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

/// What y is computed by, (4, C), and over how many values its mean and variance are, where they are the batch's:
/// these move the running averages. `batch_sums` makes [sum of x; C, sum of x^2; C] over the batches of all workers,
/// and how many values each is a sum of.
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
    let parameters = tape.parameters();
    let channels = parameters.get(norm.gamma).len();
    let averages = [norm.running_mean, norm.running_var].map(|id| parameters.get(id));
    let beta = norm.beta.map(|id| parameters.get(id));
    let own = NormParameters { gamma: parameters.get(norm.gamma), beta, averages };
    let mut to = Tensor::empty(device, &[4, channels]);
    let Some((sums, count)) = batch else {
        device.kernels().frozen_coefficients(norm.epsilon, own, &mut to)?;
        return Ok((to, None));
    };
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

/// What a BatchNorm's backward normalises by.
pub(super) struct Statistics<'a> {
    /// (4, C): scale, shift, mean and 1 / deviation.
    pub coefficients: Tensor,
    /// Values behind each mean; none where the statistics are constants.
    count: Option<f64>,
    collective: &'a dyn Collective,
}

impl Statistics<'_> {
    /// Where the sums of a backward go. `gamma` is gamma's number among the operator's inputs, beta's is the next;
    /// `wanted` is whether what [`crate::Kernels::batch_norm_backward_coefficients`] makes of them is needed.
    pub fn sums(
        &self,
        device: &Device,
        context: &BackwardContext,
        gamma: usize,
        wanted: bool,
    ) -> StatisticsSums<'_> {
        let channels = self.coefficients.last_dim();
        // A parameter's gradient is this worker's share: all parameters' gradients are summed over workers at once.
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

/// Sums on their way back.
pub(super) struct StatisticsSums<'s> {
    of: &'s Statistics<'s>,
    gamma: usize,
    sums: Tensor,
    gradients: Option<[Tensor; 2]>,
    backward: Option<Tensor>,
}

impl StatisticsSums<'_> {
    /// Constant statistics need nobody's sums.
    fn alone(&self) -> bool {
        self.of.count.is_none() || self.of.collective.size() == 1
    }

    /// Where a kernel is to leave them, and what follows from them.
    pub fn to(&mut self) -> BackwardSums<'_> {
        let alone = self.alone();
        BackwardSums {
            sums: &mut self.sums,
            gradients: self.gradients.as_mut().map(|[dgamma, dbeta]| [dgamma, dbeta]),
            coefficients: self.backward.as_mut().filter(|_| alone).map(|to| (self.of.count, to)),
        }
    }

    /// Gives the gradients of gamma and beta once a kernel has left them, and returns (3, C), where it is wanted, of
    /// all workers' sums.
    pub fn give(mut self, device: &Device, context: &mut BackwardContext) -> Result<Option<Tensor>> {
        if let Some([dgamma, dbeta]) = self.gradients.take() {
            context.give(self.gamma, dgamma)?;
            context.give(self.gamma + 1, dbeta)?;
        }
        let alone = self.alone();
        if let Some(backward) = self.backward.as_mut().filter(|_| !alone) {
            self.of.collective.all_reduce(&mut std::iter::once(&mut self.sums))?;
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
