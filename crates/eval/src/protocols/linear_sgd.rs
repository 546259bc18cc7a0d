//! The linear protocol by stochastic gradient descent: a dense layer on h of augmented images.

use std::time::Instant;

use simclr_engine::{Mode, Parameters, SingleProcess, Tape, Tensor};
use simclr_nn::Linear;
use simclr_train::Model;
use simclr_train::optim::Optimizer;

use super::encode::encode_set;
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores};
use super::examples::Examples;
use super::loss::backward_from_loss;
use super::sgd::{Learner, Lessons, Sgd, Step, recognised};
use super::splits::Splits;
use super::versus::{Progress, Versus};
use crate::{EvalError, Targets};

impl Sgd {
    /// The settings of the linear protocol for `images` training images of `image_size` pixels.
    ///
    /// Up to 32 pixels, those for CIFAR: 100 epochs of batch 512 at rate 0.1. Above, those for ImageNet: 90 epochs of
    /// batch 4096 at 0.1 x batch / 256. Both with Nesterov momentum 0.9, a cosine schedule and no weight decay (1e-6
    /// in the official code). Unless `batch` is given, the batch is at most a tenth of the images, so that small sets
    /// get enough steps, and at least one image.
    pub fn linear(image_size: usize, images: usize, batch: Option<usize>) -> Sgd {
        let small = image_size <= 32;
        let (epochs, usual) = if small { (100, 512) } else { (90, 4096) };
        let batch = batch.unwrap_or(usual.min(images / 10).max(1));
        let rate = if small { 0.1 } else { 0.1 * batch as f64 / 256.0 };
        Sgd { epochs, steps: None, batch, rate, weight_decay: 0.0, seed: 0 }
    }
}

/// Trains a dense layer with softmax cross-entropy on h of random crops and flips of the training images, and tests
/// it on central crops.
///
/// The encoder is frozen: it is borrowed immutably, runs in evaluation mode (BatchNorm uses its running averages), and
/// no gradient reaches it. It still has to run on every image in every epoch, since each epoch draws other crops. That
/// is nearly all of the cost: `epochs` forward passes over the training images, twice that with a random encoder to
/// compare against. [`logistic`](super::logistic) needs one pass.
///
/// # Errors
/// Options out of range, a batch larger than the data set, [`EvalError::Diverged`], images that cannot be read.
pub fn linear_sgd(
    models: &Versus<Model>,
    data: &Splits,
    options: &Sgd,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    options.check(data.train().len())?;
    let start = Instant::now();
    let mut counts = Counts { train: data.train().len(), test: 0, broken: Vec::new(), unlearnt: Vec::new() };
    let scores = models.try_map(|side, model| {
        let start = Instant::now();
        let mut classifier = Classifier::new(model, data.classes().len(), options)?;
        let (part, reading) = (Examples::labelled(data.train().clone()), data.reading(model));
        let learnt = Lessons::new(side, model, &part, reading, options)?.teach(&mut classifier, watch)?;
        let test = encode_set(side, model, "test", data, false, watch)?;
        let scores = learnt.tested(classifier.scores(&test.h)?)?;
        let train = data.train().len() - learnt.skipped.len();
        let broken = BrokenImage::all(&learnt.skipped, &test.skipped);
        let unlearnt = learnt.unlearnt(&part, data.classes());
        counts = Counts { train, test: test.labels.len(), broken, unlearnt };
        let details = learnt.details(options, start.elapsed().as_secs_f64());
        Scores::of_scores(&scores, &test.labels, data.classes(), details)
    })?;
    Ok(Evaluation::new("linear_sgd", counts, scores, start.elapsed().as_secs_f64()))
}

/// A dense layer from h to class scores; its parameters are separate from the encoder's.
struct Classifier<'m> {
    model: &'m Model,
    layer: Linear,
    parameters: Parameters,
    optimizer: Optimizer,
}

impl<'m> Classifier<'m> {
    fn new(model: &'m Model, classes: usize, options: &Sgd) -> Result<Classifier<'m>, EvalError> {
        let mut parameters = Parameters::new();
        let (features, device) = (model.encoder.features(), &model.device);
        let layer = Linear::classifier("fc", features, classes, device, options.seed, &mut parameters)?;
        let optimizer = options.optimizer(&parameters)?;
        Ok(Classifier { model, layer, parameters, optimizer })
    }

    /// Class scores of rows of h.
    fn scores(&self, h: &[f32]) -> Result<Vec<f32>, EvalError> {
        let dim = self.model.encoder.features();
        let mut tape = Tape::new(&self.parameters, Mode::Eval, &SingleProcess);
        let h = tape.input(Tensor::from_slice(&self.model.device, &[h.len() / dim, dim], h)?);
        Ok(self.layer.forward(&mut tape, &h)?.tensor().to_vec()?)
    }
}

impl Learner for Classifier<'_> {
    const NAME: &'static str = "linear classifier";

    fn step(&mut self, images: &[u8], targets: &Targets, rate: f64) -> Result<Step, EvalError> {
        let h = encode_batch(self.model, images)?;
        let device = &self.model.device;
        let mut tape = Tape::new(&self.parameters, Mode::Train, &SingleProcess);
        let h = tape.input(Tensor::from_vec(device, &[targets.rows(), self.model.encoder.features()], h)?);
        let scores = self.layer.forward(&mut tape, &h)?;
        let (loss, gradients) = backward_from_loss(&mut tape, &scores, targets)?;
        let loss = f64::from(loss.to_vec()?[0]);
        let right = recognised(scores.tensor(), targets)?;
        let sound = loss.is_finite();
        if sound {
            drop((scores, tape));
            self.optimizer.step(rate, &mut self.parameters, &gradients)?;
        }
        Ok(Step { loss, right, sound })
    }
}

/// Encodes a batch of images chunk by chunk: BatchNorm uses constants here, so chunks do not change the result.
fn encode_batch(model: &Model, images: &[u8]) -> Result<Vec<f32>, EvalError> {
    let image = model.image_size().pow(2) * 3;
    let mut all = Vec::with_capacity(images.len() / image * model.encoder.features());
    for chunk in images.chunks(model.images_at_once() * image) {
        all.extend_from_slice(&model.embed(chunk)?.0);
    }
    Ok(all)
}
