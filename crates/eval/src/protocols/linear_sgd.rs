//! The linear protocol by stochastic gradient descent: a dense layer on h of augmented images.

use std::time::Instant;

use serde_json::{Map, json};
use simclr_augment::{ViewConfig, ViewFamily};
use simclr_data::{Loader, LoaderConfig, Position, Skipped};
use simclr_engine::{Mode, Parameters, SingleProcess, Tape, Tensor, ops};
use simclr_nn::Linear;
use simclr_train::config::{OptimConfig, OptimizerName, Scaling, ScheduleKind};
use simclr_train::optim::Optimizer;
use simclr_train::{Config, Model, Schedule};

use super::encode::encode_set;
use super::evaluation::{BrokenImage, Counts, Evaluation, Scores, likeliest};
use super::splits::Splits;
use super::versus::{Progress, Side, Versus};
use crate::EvalError;

/// Settings of [`linear_sgd`].
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSgd {
    /// Times that each image is seen.
    pub epochs: u64,
    /// Images a step.
    pub batch: usize,
    /// The rate of the first step, as it is: not scaled by the batch.
    pub rate: f64,
    /// Nesterov momentum.
    pub momentum: f64,
    /// Weight decay of the weights (not the biases): 0 in the paper, 1e-6 in the official code.
    pub weight_decay: f64,
    /// From the rate down to 0, or constant.
    pub schedule: ScheduleKind,
    /// Draws the classifier, the order of the images and the views.
    pub seed: u64,
}

impl LinearSgd {
    /// The protocol for `images` training images of `image_size` pixels.
    ///
    /// Up to 32 pixels that of CIFAR: 100 epochs of batch 512 at rate 0.1. Above, that of ImageNet: 90 epochs of batch 4096 at
    /// 0.1 x batch / 256. Both with Nesterov momentum 0.9, a cosine and no decay. The batch is at most a tenth of the images, so
    /// that small sets get steps enough, and at least one image.
    pub fn for_images(image_size: usize, images: usize) -> LinearSgd {
        let small = image_size <= 32;
        let (epochs, batch) = if small { (100, 512) } else { (90, 4096) };
        let batch = batch.min(images / 10).max(1);
        let rate = if small { 0.1 } else { 0.1 * batch as f64 / 256.0 };
        let schedule = ScheduleKind::Cosine;
        LinearSgd { epochs, batch, rate, momentum: 0.9, weight_decay: 0.0, schedule, seed: 0 }
    }

    fn check(&self) -> Result<(), EvalError> {
        let range = |name, value: f64, fits: bool, expected| {
            if fits { Ok(()) } else { Err(EvalError::Option { name, found: value.to_string(), expected }) }
        };
        let (rate, momentum, decay) = (self.rate, self.momentum, self.weight_decay);
        range("epochs", self.epochs as f64, self.epochs > 0, "at least 1")?;
        range("batch", self.batch as f64, self.batch > 0, "at least 1")?;
        range("rate", rate, rate > 0.0 && rate.is_finite(), "a number above 0")?;
        range("momentum", momentum, (0.0..1.0).contains(&momentum), "a number from 0 to below 1")?;
        range("weight decay", decay, decay >= 0.0 && decay.is_finite(), "a number of at least 0")
    }

    fn optimizer(&self) -> OptimConfig {
        OptimConfig {
            name: OptimizerName::Sgd,
            rate: self.rate,
            scaling: Scaling::None,
            momentum: self.momentum,
            nesterov: true,
            weight_decay: self.weight_decay,
            warmup_epochs: 0.0,
            schedule: self.schedule,
            ..OptimConfig::default()
        }
    }

    /// The official code's: a cosine that reaches 0 at step images * epochs // batch + 1.
    fn rates(&self, images: usize) -> Schedule {
        let mut config = Config { optim: self.optimizer(), ..Config::default() };
        config.train.batch = self.batch;
        config.train.epochs = self.epochs;
        Schedule::new(&config, images as u64)
    }
}

/// Trains a dense layer with softmax cross-entropy on h of random crops and flips of the training images, and tests it on central crops.
///
/// The encoder is frozen: it is borrowed unchangeable, runs in evaluation mode (BatchNorm by its running averages), and no
/// gradient reaches it. It has to run on every image of every epoch all the same, since each epoch draws other crops: that is
/// nearly all of the cost, `epochs` forward passes over the training images, twice with a random encoder to compare with.
/// [`logistic`](super::logistic) needs one.
///
/// # Errors
/// Options out of range, a batch larger than the data set, [`EvalError::Diverged`], images that cannot be read.
pub fn linear_sgd(
    models: &Versus<Model>,
    data: &Splits,
    options: &LinearSgd,
    watch: &mut dyn FnMut(Progress),
) -> Result<Evaluation, EvalError> {
    options.check()?;
    let start = Instant::now();
    let mut counts = Counts { train: data.train().len(), test: 0, broken: Vec::new() };
    let scores = models.try_map(|side, model| {
        let start = Instant::now();
        let (classifier, skipped) = Classifier::train(side, model, data, options, watch)?;
        let test = encode_set(side, model, "test", data, false, watch)?;
        let scores = classifier.scores(model, &test.h)?;
        let details = Map::from_iter([
            ("epochs".to_owned(), json!(options.epochs)),
            ("batch".to_owned(), json!(options.batch)),
            ("rate".to_owned(), json!(options.rate)),
            ("weight_decay".to_owned(), json!(options.weight_decay)),
            ("train_loss".to_owned(), json!(classifier.loss)),
            ("train_top1".to_owned(), json!(classifier.top1)),
            ("seconds".to_owned(), json!(start.elapsed().as_secs_f64())),
        ]);
        let train = data.train().len() - skipped.len();
        let broken = BrokenImage::all(&skipped, &test.skipped);
        counts = Counts { train, test: test.labels.len(), broken };
        Scores::of_scores(&scores, &test.labels, data.classes(), details)
    })?;
    Ok(Evaluation::new("linear_sgd", counts, scores, start.elapsed().as_secs_f64()))
}

/// A dense layer from h to class scores, its parameters apart from the encoder's.
struct Classifier {
    layer: Linear,
    parameters: Parameters,
    /// Figures of the last epoch.
    loss: f64,
    top1: f64,
}

impl Classifier {
    fn train(
        side: Side,
        model: &Model,
        data: &Splits,
        options: &LinearSgd,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<(Classifier, Vec<Skipped>), EvalError> {
        let device = &model.device;
        let mut parameters = Parameters::new();
        let (inputs, outputs) = (model.encoder.features(), data.classes().len());
        let layer = Linear::classifier("fc", inputs, outputs, device, options.seed, &mut parameters)?;
        let mut classifier = Classifier { layer, parameters, loss: 0.0, top1: 0.0 };
        let mut optimizer = Optimizer::new(&options.optimizer(), &classifier.parameters)?;
        let rates = options.rates(data.train().len());
        let mut loader = loader(model, data, options)?;
        let mut step = 0;
        for epoch in 1..=options.epochs {
            let (mut loss, mut right, mut images) = (0.0, 0, 0);
            let rate = loop {
                let batch = loader.next_batch()?;
                let h = encode_batch(model, &batch.views)?;
                let rate = rates.rate(step);
                let (batch_loss, batch_right) =
                    classifier.step(model, h, &batch.labels, rate, &mut optimizer)?;
                if !batch_loss.is_finite() {
                    return Err(EvalError::Diverged { epoch, rate, loss: batch_loss });
                }
                loss += batch_loss * batch.labels.len() as f64;
                right += batch_right;
                images += batch.labels.len();
                step += 1;
                let end = batch.end_of_epoch;
                loader.recycle(batch);
                if end {
                    break rate;
                }
            };
            (classifier.loss, classifier.top1) = (loss / images as f64, right as f64 / images as f64);
            let (loss, top1, epochs) = (classifier.loss, classifier.top1, options.epochs);
            watch(Progress::Epoch { side, epoch, epochs, loss, top1, rate });
        }
        Ok((classifier, loader.skipped()))
    }

    /// One update; the loss and the images recognised before it.
    fn step(
        &mut self,
        model: &Model,
        h: Vec<f32>,
        labels: &[u32],
        rate: f64,
        optimizer: &mut Optimizer,
    ) -> Result<(f64, usize), EvalError> {
        let mut tape = Tape::new(&self.parameters, Mode::Train, &SingleProcess);
        let h = tape.input(Tensor::from_vec(&model.device, &[labels.len(), model.encoder.features()], h)?);
        let scores = self.layer.forward(&mut tape, &h)?;
        let loss = ops::softmax_cross_entropy(&mut tape, &scores, labels)?;
        let value = f64::from(loss.tensor().to_vec()?[0]);
        let (rows, classes) = (scores.tensor().to_vec()?, scores.tensor().last_dim());
        let right =
            rows.chunks_exact(classes).zip(labels).filter(|(row, label)| likeliest(row) == **label).count();
        let gradients = tape.backward(&loss, Tensor::full(&model.device, &[1], 1.0)?)?;
        drop(tape);
        optimizer.step(rate, &mut self.parameters, &gradients)?;
        Ok((value, right))
    }

    /// Class scores of rows of h.
    fn scores(&self, model: &Model, h: &[f32]) -> Result<Vec<f32>, EvalError> {
        let dim = model.encoder.features();
        let mut tape = Tape::new(&self.parameters, Mode::Eval, &SingleProcess);
        let h = tape.input(Tensor::from_slice(&model.device, &[h.len() / dim, dim], h)?);
        Ok(self.layer.forward(&mut tape, &h)?.tensor().to_vec()?)
    }
}

fn loader(model: &Model, data: &Splits, options: &LinearSgd) -> Result<Loader, EvalError> {
    let views = vec![ViewFamily::first_branch(&ViewConfig::crop_flip(), model.image_size() as u32)?];
    let (batch, seed, reading) = (options.batch, options.seed, data.reading(model));
    let config = LoaderConfig { batch, seed, reading, prefetch: 2, views };
    Ok(Loader::new(data.train().clone(), config, Position::default()))
}

/// h of a batch of images, a chunk at a time: BatchNorms are constants, so the batch of the classifier may be cut.
fn encode_batch(model: &Model, images: &[u8]) -> Result<Vec<f32>, EvalError> {
    let image = model.image_size().pow(2) * 3;
    let mut all = Vec::with_capacity(images.len() / image * model.encoder.features());
    for chunk in images.chunks(model.images_at_once() * image) {
        all.extend_from_slice(&model.embed(chunk)?.0);
    }
    Ok(all)
}
