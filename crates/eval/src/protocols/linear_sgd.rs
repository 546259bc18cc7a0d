//! The linear protocol by stochastic gradient descent: a dense layer on h, or on z, of augmented images.

use std::time::Instant;

use simclr_engine::{Mode, Parameters, SingleProcess, Tape, Tensor};
use simclr_nn::Linear;
use simclr_train::Model;
use simclr_train::optim::Optimizer;

use super::encode::encode_set;
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores};
use super::examples::Examples;
use super::loss::backward_from_loss;
use super::protocol::{Protocol, Representation};
use super::sgd::{Learner, Sgd, SgdTraining, Step, count_correct};
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
    train_on(Representation::H, models, data, options, watch)
}

/// As [`linear_sgd`], on z in place of h: the projection head is frozen like the encoder.
///
/// # Errors
/// As [`linear_sgd`].
pub fn linear_sgd_z(
    models: &Versus<Model>,
    data: &Splits,
    options: &Sgd,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    train_on(Representation::Z, models, data, options, watch)
}

impl Representation {
    fn dim(self, model: &Model) -> usize {
        match self {
            Representation::H => model.encoder.features(),
            Representation::Z => model.head.dim(),
        }
    }

    /// One of h and z.
    fn of<T>(self, h: T, z: T) -> T {
        match self {
            Representation::H => h,
            Representation::Z => z,
        }
    }
}

/// Trains and tests a classifier on `features` of both encoders.
fn train_on(
    features: Representation,
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
        let mut classifier = Classifier::new(features, model, data.classes().len(), options)?;
        let (part, reading) = (Examples::labelled(data.train().clone()), data.reading(model));
        let outcome = SgdTraining::new(side, model, &part, reading, options)?.run(&mut classifier, watch)?;
        let test = encode_set(side, model, "test", data, features == Representation::Z, watch)?;
        let scores = outcome.finite_scores(classifier.scores(features.of(&test.h, &test.z))?)?;
        let train = data.train().len() - outcome.skipped.len();
        let broken = BrokenImage::all(&outcome.skipped, &test.skipped);
        let unlearnt = outcome.classes_without_images(&part, data.classes());
        counts = Counts { train, test: test.labels.len(), broken, unlearnt };
        let details = outcome.details(options, start.elapsed().as_secs_f64());
        Scores::of_scores(&scores, &test.labels, data.classes(), details)
    })?;
    Ok(Evaluation::new(Protocol::LinearSgd(features), counts, scores, start.elapsed().as_secs_f64()))
}

/// A dense layer from h or z to class scores; its parameters are separate from the encoder's.
struct Classifier<'m> {
    features: Representation,
    model: &'m Model,
    layer: Linear,
    parameters: Parameters,
    optimizer: Optimizer,
}

impl<'m> Classifier<'m> {
    fn new(
        features: Representation,
        model: &'m Model,
        classes: usize,
        options: &Sgd,
    ) -> Result<Classifier<'m>, EvalError> {
        let mut parameters = Parameters::new();
        let (dim, device) = (features.dim(model), &model.device);
        let layer = Linear::classifier("fc", dim, classes, device, options.seed, &mut parameters)?;
        let optimizer = options.optimizer(&parameters)?;
        Ok(Classifier { features, model, layer, parameters, optimizer })
    }

    /// Class scores of rows of features.
    fn scores(&self, rows: &[f32]) -> Result<Vec<f32>, EvalError> {
        let dim = self.features.dim(self.model);
        let mut tape = Tape::new(&self.parameters, Mode::Eval, &SingleProcess);
        let rows = tape.input(Tensor::from_slice(&self.model.device, &[rows.len() / dim, dim], rows)?);
        Ok(self.layer.forward(&mut tape, &rows)?.tensor().to_vec()?)
    }

    /// The features of a batch of images, computed chunk by chunk: BatchNorm uses constants here, so chunks do not
    /// change the result.
    fn encode(&self, images: &[u8]) -> Result<Vec<f32>, EvalError> {
        let (model, image) = (self.model, self.model.image_size().pow(2) * 3);
        let mut all = Vec::with_capacity(images.len() / image * self.features.dim(model));
        for chunk in images.chunks(model.images_at_once() * image) {
            let (h, z) = model.embed(chunk)?;
            all.extend_from_slice(&self.features.of(h, z));
        }
        Ok(all)
    }
}

impl Learner for Classifier<'_> {
    const NAME: &'static str = "linear classifier";

    fn step(&mut self, images: &[u8], targets: &Targets, rate: f64) -> Result<Step, EvalError> {
        let rows = self.encode(images)?;
        let (device, dim) = (&self.model.device, self.features.dim(self.model));
        let mut tape = Tape::new(&self.parameters, Mode::Train, &SingleProcess);
        let rows = tape.input(Tensor::from_vec(device, &[targets.rows(), dim], rows)?);
        let scores = self.layer.forward(&mut tape, &rows)?;
        let (loss, gradients) = backward_from_loss(&mut tape, &scores, targets)?;
        let loss = f64::from(loss.to_vec()?[0]);
        let correct = count_correct(scores.tensor(), targets)?;
        let finite = loss.is_finite();
        if finite {
            drop((scores, tape));
            self.optimizer.step(rate, &mut self.parameters, &gradients)?;
        }
        Ok(Step { loss, correct, finite })
    }
}
