//! The end of an epoch: how well the encoder does on images that it was not trained on.

use simclr_data::Skipped;

use crate::checkpoint::Extra;
use crate::config::LossConfig;
use crate::{Config, TrainError};

use super::run::Run;
use super::state::EpochSums;
use super::{EpochRecord, Health, Observer, health, holdout_knn};

/// Below this spread of normalised z (about 1 if healthy) the run is collapsing.
const MIN_SPREAD: f64 = 0.2;

/// If no spread is measured, the run is collapsing when the standard deviation of a batch's similarities is below this.
/// It is at most about s^2 for a spread s, and 1 / sqrt(d) for directions that fill d dimensions evenly.
const MIN_SIMILARITY_DEVIATION: f64 = 0.01;

/// Projections whose spread is more than this times that of the measurement before are widening.
const WIDENING: f64 = 1.1;

/// An epoch whose mean loss is within this many nats of the loss at chance level tells no images apart.
const CHANCE_TOLERANCE: f64 = 0.01;

/// Above this temperature entropy says nothing about similarities: their effect on it is lost in rounding.
const MAX_INFORMATIVE_TEMPERATURE: f64 = 1.0;

impl Run<'_> {
    /// Measures the figures that are due, notes whether the state is the best so far, and logs the epoch. After an
    /// error, all of it can be done once more, now or when the run is resumed.
    pub(super) fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        // An epoch that is measured once more is not compared with itself.
        let before = self.state.warnings;
        let logged = self.epoch_record(observer).and_then(|record| self.log_epoch(record));
        let record = logged.inspect_err(|_| self.state.warnings = before)?;
        self.state.epoch_due = false;
        self.state.sums = EpochSums::default();
        self.set_sums()?;
        observer.epoch(&record);
        Ok(())
    }

    fn log_epoch(&mut self, record: EpochRecord) -> Result<EpochRecord, TrainError> {
        if let Some(writer) = &mut self.writer {
            writer.folder.check_in_place()?;
            writer.log(|logs| logs.epoch(&record))?;
        }
        Ok(record)
    }

    fn epoch_record(&mut self, observer: &mut dyn Observer) -> Result<EpochRecord, TrainError> {
        let EpochSums { steps, loss, contrastive_accuracy } = self.state.sums;
        let Measured { health, knn_top1, skipped } = self.measure()?;
        self.list_skipped(skipped, observer)?;
        let mean = |sum: f64| sum / steps.max(1) as f64;
        // At a very high temperature projections are narrow because nothing is learnt: report that, not a collapse.
        let is_hot = self.config.loss.temperature > MAX_INFORMATIVE_TEMPERATURE;
        let guesses = is_hot && self.warn_at_chance_level(mean(loss), observer);
        if !guesses && !self.watch_for_collapse(health.as_ref(), observer) && !is_hot {
            self.warn_at_chance_level(mean(loss), observer);
        }
        let record = EpochRecord {
            epoch: self.epochs(),
            step: self.state.step,
            train_loss: mean(loss),
            train_contrastive_accuracy: mean(contrastive_accuracy),
            health,
            knn_top1,
            skipped: self.skipped.len(),
        };
        if let Some(by) = self.best_by {
            self.state.best = by.better(self.state.best.take(), &record);
        }
        Ok(record)
    }

    /// Measures health figures and kNN accuracy of the held-out images, each if due.
    fn measure(&self) -> Result<Measured, TrainError> {
        let mut measured = Measured::default();
        // One worker measures, the others wait.
        let Some(holdout) = self.holdout.as_ref().filter(|_| self.writes_run()) else { return Ok(measured) };
        let (epoch, train) = (self.epochs(), &self.config.train);
        let turn = |every: u64| every > 0 && (epoch.is_multiple_of(every) || epoch == train.epochs);
        let model = &self.state.model;
        if turn(train.health_every) {
            let (found, skipped) = health(model, &self.config.loss, holdout, &self.families, self.reading)?;
            measured.skipped = skipped;
            measured.health = Some(found);
        }
        if turn(train.knn_every) {
            let (top1, skipped) = holdout_knn(model, &self.train, holdout, self.reading)?;
            measured.knn_top1 = top1;
            measured.skipped.extend(skipped);
        }
        // Indices of the run's images: the held-out ones follow those trained on.
        measured.skipped.iter_mut().for_each(|skipped| skipped.index += self.train.len() as u32);
        Ok(measured)
    }

    /// Warns if all projections point the same way, and returns whether it warned. Without held-out figures it judges
    /// by the last step, at no cost.
    fn watch_for_collapse(&mut self, health: Option<&Health>, observer: &mut dyn Observer) -> bool {
        let train = &self.config.train;
        let (narrow, found) = match health {
            Some(Health { spread, .. }) => (
                Some(*spread).filter(|&spread| spread < MIN_SPREAD),
                format!("their spread is {spread:.2} of what is healthy"),
            ),
            None if self.writes_run() && (self.holdout.is_none() || train.health_every == 0) => {
                let deviation = self.deviation_of_similarities();
                let narrow = deviation.filter(|&deviation| deviation < MIN_SIMILARITY_DEVIATION);
                (narrow, "every view is about as similar to all others".to_owned())
            }
            // The health figures are not due.
            None => return false,
        };
        // Projections are narrow when training begins; that is a fault only if they stay so after warm-up, no wider
        // than before.
        let narrow = narrow.filter(|_| self.state.step >= self.schedule.warmup_steps());
        let before = std::mem::replace(&mut self.state.warnings.narrow, narrow);
        let widens = |now: f64| before.is_none_or(|before| now > WIDENING * before);
        let stays = narrow.is_some_and(|now| self.epochs() == train.epochs || !widens(now));
        if stays {
            observer.warn(&format!(
                "the projections are collapsing: {found}; see that the images differ and are not all dark \
                 (data.window), lower optim.rate or raise loss.temperature"
            ));
        }
        stays
    }

    /// Warns, once, if the loss stays at that of guessing, where all candidates are equally likely. Returns whether it
    /// has warned.
    fn warn_at_chance_level(&mut self, loss: f64, observer: &mut dyn Observer) -> bool {
        let Config { train, loss: LossConfig { name, normalize, .. }, .. } = self.config;
        let candidates = 2 * train.batch - 1;
        // Where z is not normalised it may be small beside the temperature: the loss is then near that of guessing,
        // however well it tells images apart.
        let judges = self.writes_run() && *normalize;
        let Some(chance) = name.chance_loss(candidates).filter(|_| judges) else { return false };
        if self.state.warnings.chance_level == ChanceLevel::Warned {
            return true;
        }
        let is_last = self.epochs() == train.epochs;
        // As with narrow projections, this is no fault during warm-up.
        let stands = (loss - chance).abs() < CHANCE_TOLERANCE
            && (is_last || self.state.step >= self.schedule.warmup_steps());
        let stood = self.state.warnings.chance_level == ChanceLevel::Once;
        self.state.warnings.chance_level = match stands {
            true if stood || is_last => ChanceLevel::Warned,
            true => ChanceLevel::Once,
            false => ChanceLevel::Above,
        };
        if self.state.warnings.chance_level == ChanceLevel::Warned {
            observer.warn(&format!(
                "the loss is stuck at that of guessing ({chance:.3} = ln {candidates}): nothing is being learnt; lower \
                 loss.temperature if it is above 1, raise optim.rate if it is tiny, and see that the images differ"
            ));
        }
        self.state.warnings.chance_level == ChanceLevel::Warned
    }

    /// Estimates the standard deviation of the similarities in the last step, valid if it is small, from the entropy:
    /// that of a nearly uniform softmax is below the maximum by half the variance of its logits.
    fn deviation_of_similarities(&self) -> Option<f64> {
        let loss = &self.config.loss;
        let largest = ((2 * self.config.train.batch - 1) as f64).ln();
        let lacking = (largest - self.figures.batch.entropy).max(0.0);
        (loss.normalize && loss.temperature <= MAX_INFORMATIVE_TEMPERATURE)
            .then(|| loss.temperature * (2.0 * lacking).sqrt())
    }
}

/// Whether the loss was at chance level after the previous epoch, and whether a warning was given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChanceLevel {
    #[default]
    Above,
    Once,
    Warned,
}

/// What the warnings go by beside the figures of the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct WarningState {
    /// How wide the projections were when last measured, if they were too narrow.
    narrow: Option<f64>,
    chance_level: ChanceLevel,
}

impl WarningState {
    /// What a checkpoint records.
    pub(super) fn restore(extra: &Extra) -> WarningState {
        let chance_level = match extra.chance_level_warned {
            None => ChanceLevel::Above,
            Some(false) => ChanceLevel::Once,
            Some(true) => ChanceLevel::Warned,
        };
        WarningState { narrow: extra.narrow, chance_level }
    }

    /// Records it in a checkpoint.
    pub(super) fn record(self, extra: &mut Extra) {
        extra.narrow = self.narrow;
        extra.chance_level_warned = match self.chance_level {
            ChanceLevel::Above => None,
            ChanceLevel::Once => Some(false),
            ChanceLevel::Warned => Some(true),
        };
    }
}

/// The figures of the held-out images after an epoch, and the broken ones among these images.
#[derive(Default)]
struct Measured {
    health: Option<Health>,
    knn_top1: Option<f64>,
    skipped: Vec<Skipped>,
}
