//! One training step: views to loss, loss to gradients, gradients to parameters.

use simclr_engine::ops::{ContrastiveFigures, ContrastiveSums};
use simclr_engine::{
    BufferUpdates, Collective, Gradients, LossScale, Mode, ParameterId, Tape, Tensor, Var, ops,
};

use crate::config::{LossConfig, LossName, Mining};
use crate::optim::Optimizer;
use crate::{Model, TrainError};

/// The figures of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepFigures {
    /// Loss, contrastive accuracy and entropy of the batch, before the update.
    pub batch: ContrastiveFigures,
    /// |g| over all trained parameters.
    pub gradient_norm: f64,
}

impl StepFigures {
    /// Whether loss and gradients are finite: [`train_step`] has then taken the step, and else changed nothing.
    pub fn is_finite(&self) -> bool {
        self.batch.loss.is_finite() && self.gradient_norm.is_finite()
    }
}

/// Runs one step on `views`, 2n 8-bit images (n first views, then the n second views).
///
/// Parameters, running averages and the optimiser change only if loss and gradients are finite; otherwise nothing
/// changes (see [`StepFigures::is_finite`]). The loss is not scaled: to train in fp16, use
/// [`CapturedStep`](super::CapturedStep).
///
/// # Errors
/// Bytes that are not a whole number of [images](Model::images), an odd number of these or fewer than 4; workers that
/// do not answer, and errors of the device. Nothing has then changed, unless the update itself failed.
pub fn train_step(
    model: &mut Model,
    optimizer: &mut Optimizer,
    loss: &LossConfig,
    collective: &dyn Collective,
    views: &[u8],
    rate: f64,
) -> Result<StepFigures, TrainError> {
    let device = model.device.clone();
    device.install(|| {
        let images = model.images(views)?;
        let Pass { sums, gradients, mut averages } = forward_backward(model, loss, collective, images, None)?;

        let squares = model.device.sum_of_squares(gradients.iter().map(|(_, gradient)| gradient))?;
        let figures = StepFigures { batch: sums.figures()?, gradient_norm: squares.sqrt() };
        if !figures.is_finite() {
            return Ok(figures);
        }
        for (id, average) in averages.drain() {
            model.parameters.set(id, average)?;
        }
        optimizer.step(rate, &mut model.parameters, &gradients)?;
        Ok(figures)
    })
}

/// The results of the forward and backward pass, for the update.
pub(crate) struct Pass {
    pub(super) sums: ContrastiveSums,
    pub(super) gradients: Gradients,
    pub(super) averages: BufferUpdates,
}

/// Runs the forward and backward pass on `images`. The gradients are multiplied by `scale`.
pub(crate) fn forward_backward(
    model: &Model,
    loss: &LossConfig,
    collective: &dyn Collective,
    images: Tensor,
    scale: Option<&LossScale>,
) -> Result<Pass, TrainError> {
    let device = images.device().clone();
    let mut tape = Tape::new(&model.parameters, Mode::Train, collective);
    let images = tape.input(images);
    let h = model.encoder.forward(&mut tape, &images)?;
    let mut z = model.head.forward(&mut tape, &h)?;
    drop((images, h));
    if loss.normalize {
        z = ops::l2_normalize(&mut tape, &z)?;
    }
    let (value, sums) = contrastive(&mut tape, &z, loss)?;
    let start = match scale {
        Some(scale) => scale.gradient(),
        None => Tensor::full(&device, &[1], 1.0)?,
    };
    // Each worker holds the gradient of the global loss through its own views, so the whole gradient is their sum.
    // A GPU would queue exchanges of single gradients behind their computation anyway: one exchange of all takes
    // fewer launches.
    let mut exchange = |_: ParameterId, gradient: &mut Tensor| match device.is_gpu() {
        true => Ok(()),
        false => collective.all_reduce_tensors(&mut std::iter::once(gradient)),
    };
    let mut gradients = tape.backward_with(&value, start, &mut exchange)?;
    if device.is_gpu() {
        gradients.all_reduce(collective)?;
    }
    Ok(Pass { sums, gradients, averages: tape.into_buffer_updates() })
}

/// Computes the loss of z, and the sums for its figures.
fn contrastive(tape: &mut Tape, z: &Var, loss: &LossConfig) -> simclr_engine::Result<(Var, ContrastiveSums)> {
    let (temperature, semi_hard) = (loss.temperature as f32, loss.mining == Mining::SemiHard);
    match loss.name {
        LossName::NtXent => ops::nt_xent(tape, z, temperature),
        LossName::NtLogistic => ops::nt_logistic(tape, z, temperature, semi_hard),
        LossName::MarginTriplet => ops::margin_triplet(tape, z, temperature, loss.margin as f32, semi_hard),
    }
}

/// |w| over all trained parameters.
pub fn weight_norm(model: &Model) -> Result<f64, TrainError> {
    let trained = model.parameters.iter().filter(|(_, kind, _)| kind.is_trained());
    Ok(model.device.sum_of_squares(trained.map(|(_, _, value)| value))?.sqrt())
}
