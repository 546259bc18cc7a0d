//! What the protocols that train a classifier by SGD share: settings, and the loop over epochs.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use simclr_augment::{ViewConfig, ViewFamily};
use simclr_data::{DataError, Loader, LoaderConfig, Position, Reading, Share, Skipped};
use simclr_engine::{Parameters, Tensor};
use simclr_metrics::likeliest;
use simclr_train::config::{Auto, OptimConfig, OptimizerName, Scaling, ScheduleKind};
use simclr_train::optim::Optimizer;
use simclr_train::{Config, Embedding, Model, Schedule, TrainError};

use super::examples::Examples;
use super::versus::{Progress, Side};
use crate::targets::Target;
use crate::{EvalError, Targets};

/// Keeps the draws apart from those of pretraining, which may have used the same images and seed.
const SEED_TAG: u64 = u64::from_le_bytes(*b"classify");

/// Nesterov momentum.
const MOMENTUM: f64 = 0.9;

/// Settings of SGD on random crops and flips, with Nesterov momentum 0.9 and a cosine schedule from the rate to 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// Passes over the images.
    pub epochs: u64,
    /// Stops after this many steps instead of `epochs`, possibly in the middle of an epoch.
    pub steps: Option<u64>,
    /// Images per step.
    pub batch: usize,
    /// The rate of the first step, not scaled by the batch.
    pub rate: f64,
    /// Weight decay of weights (not of biases and BatchNorms).
    pub weight_decay: f64,
    /// Seed of the classifier's weights, the order of the images and the views.
    pub seed: u64,
}

impl Sgd {
    /// Checks the settings for a training set of `images` images.
    ///
    /// # Errors
    /// [`EvalError::Option`] for a value out of range, [`DataError::TooFewImages`] for a batch larger than the data
    /// set.
    pub fn check(&self, images: usize) -> Result<(), EvalError> {
        self.check_ranges()?;
        match self.batch <= images {
            true => Ok(()),
            false => Err(DataError::TooFewImages { batch: self.batch, usable: images, broken: 0 }.into()),
        }
    }

    /// Returns [`EvalError::Option`] for a value out of range.
    pub(super) fn check_ranges(&self) -> Result<(), EvalError> {
        let range = |name, value: f64, fits: bool, expected| {
            if fits { Ok(()) } else { Err(EvalError::Option { name, found: value.to_string(), expected }) }
        };
        let (rate, decay) = (self.rate, self.weight_decay);
        range("epochs", self.epochs as f64, self.epochs > 0, "at least 1")?;
        range("steps", self.steps.unwrap_or(1) as f64, self.steps != Some(0), "at least 1")?;
        range("batch", self.batch as f64, self.batch > 0, "at least 1")?;
        range("rate", rate, rate > 0.0 && rate.is_finite(), "a number above 0")?;
        range("weight decay", decay, decay >= 0.0 && decay.is_finite(), "a number of at least 0")
    }

    /// The optimiser for `parameters`.
    pub(super) fn optimizer(&self, parameters: &Parameters) -> Result<Optimizer, EvalError> {
        Ok(Optimizer::new(&self.optim(), parameters)?)
    }

    fn optim(&self) -> OptimConfig {
        OptimConfig {
            name: OptimizerName::Sgd,
            rate: Auto::Value(self.rate),
            scaling: Scaling::None,
            momentum: MOMENTUM,
            nesterov: true,
            weight_decay: self.weight_decay,
            warmup_epochs: 0.0,
            schedule: ScheduleKind::Cosine,
            ..OptimConfig::default()
        }
    }

    /// The schedule from the rate down to 0, reached within a step of the last one, as in the official code.
    fn rates(&self, images: usize) -> Schedule {
        let mut config = Config { optim: self.optim(), ..Config::default() };
        let images = match self.steps {
            Some(steps) => {
                (config.train.batch, config.train.epochs) = (1, steps);
                1
            }
            None => {
                (config.train.batch, config.train.epochs) = (self.batch, self.epochs);
                images as u64
            }
        };
        Schedule::new(&config, images)
    }
}

/// A classifier that learns from batches of images.
pub(super) trait Learner {
    /// Its name in progress reports.
    const NAME: &'static str;

    /// One update from images (n, S, S, 3), 8 bits.
    fn step(&mut self, images: &[u8], targets: &Targets, rate: f64) -> Result<Step, EvalError>;
}

/// The outcome of an update; loss and count are those before it.
pub(super) struct Step {
    /// Mean loss.
    pub(super) loss: f64,
    /// Images recognised: their class, or one of their classes, had the highest score.
    pub(super) correct: usize,
    /// Whether loss and gradients are finite; otherwise nothing was updated.
    pub(super) finite: bool,
}

/// Counts the rows whose highest score is that of their class, or of one of the classes they show.
pub(super) fn count_correct(scores: &Tensor, targets: &Targets) -> Result<usize, EvalError> {
    let (rows, classes) = (scores.to_vec()?, scores.last_dim());
    let shows = |&(row, scores): &(usize, &[f32])| match targets.of(row) {
        Target::One(class) => likeliest(scores) as usize == class,
        Target::Several(shown) => shown[likeliest(scores) as usize],
    };
    Ok(rows.chunks_exact(classes).enumerate().filter(shows).count())
}

/// The outcome of a training.
pub(super) struct SgdOutcome {
    /// Steps taken.
    pub(super) steps: u64,
    /// The last epoch, its mean loss and its accuracy.
    epoch: u64,
    loss: f64,
    top1: f64,
    /// The rate of the last step.
    rate: f64,
    /// Images that could not be read.
    pub(super) skipped: Vec<Skipped>,
}

impl SgdOutcome {
    /// Passes on the classifier's scores for the test images.
    ///
    /// # Errors
    /// [`EvalError::Diverged`] if a score is not finite: nothing else has checked the last step's update.
    pub(super) fn finite_scores(&self, scores: Vec<f32>) -> Result<Vec<f32>, EvalError> {
        match scores.iter().all(|score| score.is_finite()) {
            true => Ok(scores),
            false => Err(self.diverged()),
        }
    }

    /// Passes on the features of images by an encoder that was trained along with the classifier.
    ///
    /// # Errors
    /// [`EvalError::Diverged`] if a feature is not finite, as for [`SgdOutcome::finite_scores`]; errors of encoding.
    pub(super) fn finite_features(
        &self,
        found: Result<Embedding, EvalError>,
    ) -> Result<Embedding, EvalError> {
        match found {
            Err(EvalError::Train(TrainError::FeaturesNotFinite { .. })) => Err(self.diverged()),
            other => other,
        }
    }

    /// In the last step.
    fn diverged(&self) -> EvalError {
        EvalError::Diverged { epoch: self.epoch, rate: self.rate, loss: f64::NAN }
    }

    /// Those of `classes` without a readable image in `part`.
    pub(super) fn classes_without_images(&self, part: &Examples, classes: &[String]) -> Vec<String> {
        let broken: HashSet<u32> = self.skipped.iter().map(|skipped| skipped.index).collect();
        let seen: Vec<u32> = (0..part.len() as u32).filter(|row| !broken.contains(row)).collect();
        part.targets.select(&seen).missing(classes)
    }

    /// The details to record in a result, with `seconds` for all of it.
    pub(super) fn details(&self, sgd: &Sgd, seconds: f64) -> Map<String, Value> {
        Map::from_iter([
            ("epochs".to_owned(), json!(sgd.epochs)),
            ("batch".to_owned(), json!(sgd.batch)),
            ("rate".to_owned(), json!(sgd.rate)),
            ("weight_decay".to_owned(), json!(sgd.weight_decay)),
            ("seed".to_owned(), json!(sgd.seed)),
            ("train_loss".to_owned(), json!(self.loss)),
            ("train_top1".to_owned(), json!(self.top1)),
            ("seconds".to_owned(), json!(seconds)),
        ])
    }
}

/// Turns [`EvalError::Diverged`] into `None`: rates that are being tried may be too high.
pub(super) fn unless_diverged<T>(found: Result<T, EvalError>) -> Result<Option<T>, EvalError> {
    match found {
        Err(EvalError::Diverged { .. }) => Ok(None),
        other => other.map(Some),
    }
}

/// The training loop of one encoder.
pub(super) struct SgdTraining<'s> {
    side: Side,
    sgd: &'s Sgd,
    rates: Schedule,
    targets: &'s Targets,
    images: usize,
    loader: Loader,
}

impl<'s> SgdTraining<'s> {
    /// Sets up random crops and flips of the images of `part`, at the image size of `model`.
    pub(super) fn new(
        side: Side,
        model: &Model,
        part: &'s Examples,
        reading: Reading,
        sgd: &'s Sgd,
    ) -> Result<SgdTraining<'s>, EvalError> {
        let views = vec![ViewFamily::first_branch(&ViewConfig::crop_flip(), model.image_size() as u32)?];
        let (batch, seed) = (sgd.batch, sgd.seed ^ SEED_TAG);
        let config = LoaderConfig { batch, share: Share::WHOLE, seed, reading, views };
        let loader = Loader::new(part.images.clone(), config, Position::default());
        let (images, rates) = (part.len(), sgd.rates(part.len()));
        Ok(SgdTraining { side, sgd, rates, targets: &part.targets, images, loader })
    }

    /// Trains for all epochs, or until all steps are done.
    ///
    /// # Errors
    /// [`EvalError::Diverged`], a batch larger than the data set, images that cannot be read.
    pub(super) fn run<L: Learner>(
        mut self,
        learner: &mut L,
        watch: &mut dyn FnMut(Progress),
    ) -> Result<SgdOutcome, EvalError> {
        let last = self.sgd.steps;
        let epochs = match last {
            Some(steps) => steps.saturating_mul(self.sgd.batch as u64).div_ceil(self.images.max(1) as u64),
            None => self.sgd.epochs,
        };
        let mut outcome =
            SgdOutcome { steps: 0, epoch: 0, loss: 0.0, top1: 0.0, rate: 0.0, skipped: Vec::new() };
        // Broken images make an epoch shorter, so the steps may need more epochs.
        let more = |outcome: &SgdOutcome| last.map_or(outcome.epoch < epochs, |last| outcome.steps < last);
        while more(&outcome) {
            let epoch = outcome.epoch + 1;
            let (mut loss, mut correct, mut images) = (0.0, 0, 0);
            let rate = loop {
                let batch = self.loader.next_batch()?;
                let rate = self.rates.rate(outcome.steps);
                let targets = self.targets.select(&batch.indices);
                let step = learner.step(&batch.views, &targets, rate)?;
                if !step.finite {
                    return Err(EvalError::Diverged { epoch, rate, loss: step.loss });
                }
                loss += step.loss * targets.rows() as f64;
                correct += step.correct;
                images += targets.rows();
                outcome.steps += 1;
                let end = batch.position.epochs(self.images) >= epoch || last == Some(outcome.steps);
                self.loader.recycle(batch);
                if end {
                    break rate;
                }
            };
            let (loss, top1) = (loss / images as f64, correct as f64 / images as f64);
            outcome = SgdOutcome { epoch, loss, top1, rate, ..outcome };
            let epochs = epochs.max(epoch);
            watch(Progress::Epoch { side: self.side, learner: L::NAME, epoch, epochs, loss, top1, rate });
        }
        outcome.skipped = self.loader.skipped();
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::common::{SIDE, Toy, models};

    /// Records the images it gets and learns nothing; reports a third of them as recognised.
    struct RecordingLearner(Vec<Vec<u8>>);

    impl Learner for RecordingLearner {
        const NAME: &'static str = "a test";

        fn step(&mut self, images: &[u8], targets: &Targets, _: f64) -> Result<Step, EvalError> {
            self.0.extend(images.chunks_exact(3 * SIDE * SIDE).map(<[u8]>::to_vec));
            Ok(Step { loss: 1.0, correct: targets.rows() / 3, finite: true })
        }
    }

    #[test]
    fn learners_see_random_crops_and_flips_in_the_images_own_colours() {
        // Red grows to the right, green downwards.
        let place = |at: usize| [(at % SIDE * 8) as u8, (at / SIDE * 8) as u8, 77];
        let image: Vec<u8> = (0..SIDE * SIDE).flat_map(place).collect();
        let toy = Toy { pixels: vec![image.clone(); 12], ..Toy::new(&["a", "b", "c"], 12, 1) };
        let (part, model) = (Examples::labelled(Arc::new(toy)), models(1).trained);
        let sgd = Sgd { epochs: 4, batch: 6, ..Sgd::linear(SIDE, 12, None) };
        let reading = Reading { threads: 1, strict: true };
        let (mut learner, mut told) = (RecordingLearner(Vec::new()), Vec::new());
        let training = SgdTraining::new(Side::Trained, &model, &part, reading, &sgd).unwrap();
        let outcome = training.run(&mut learner, &mut |progress| {
            if let Progress::Epoch { top1, loss, .. } = progress {
                told.push((top1, loss));
            }
        });
        let details = outcome.unwrap().details(&sgd, 0.0);
        assert_eq!(told, [(1.0 / 3.0, 1.0); 4]);
        assert_eq!((&details["train_top1"], &details["train_loss"]), (&json!(1.0 / 3.0), &json!(1.0)));
        let RecordingLearner(views) = learner;
        assert_eq!(views.len(), 48);
        let last = 3 * (SIDE - 1);
        let is_flipped = |view: &&Vec<u8>| view[0] > view[last];
        let flipped = views.iter().filter(is_flipped).count();
        assert!((10..=38).contains(&flipped), "{flipped} of 48 views are flipped");
        for view in &views {
            // In a crop of this image all rows have the same red and all columns the same green; blue is constant.
            assert!(view.chunks_exact(3).all(|pixel| pixel[2] == 77), "other colours");
            assert!(view[last + 1] == view[1] && view[0] != view[last], "no crop");
        }
        assert!(views.iter().filter(|view| **view == image).count() < 5, "whole images");
    }

    #[test]
    fn the_cosine_ends_within_a_step_of_the_last_however_the_images_divide() {
        let of =
            |batch, epochs, steps| Sgd { batch, epochs, steps, rate: 1.0, ..Sgd::linear(224, 1000, None) };
        // 63 images in batches of 32 are 59.06 steps in 30 epochs.
        for (sgd, images, steps) in [
            (of(32, 30, None), 63, 60),
            (of(32, 30, None), 64, 60),
            (of(256, 90, None), 408, 144),
            (of(32, 1, Some(77)), 63, 77),
        ] {
            let rates = sgd.rates(images);
            if sgd.steps.is_none() {
                assert_eq!(Schedule::steps(images as u64, sgd.batch as u64, sgd.epochs), steps);
            }
            assert_eq!(rates.rate(0), 1.0);
            assert!(rates.rate(steps - 1) > 0.0 && rates.rate(steps - 1) < 0.01, "{}", rates.rate(steps - 1));
            assert_eq!(rates.rate(steps + 1), 0.0);
        }
        // A number of epochs that nobody can wait for does not overflow.
        assert_eq!(Schedule::steps(1000, 1, u64::MAX), u64::MAX);
        assert_eq!(of(1, u64::MAX, None).rates(1000).rate(1), 1.0);
    }
}
