//! The end of an epoch: how the encoder does on images that it was not trained on.

use simclr_data::Skipped;

use crate::config::LossConfig;
use crate::{Config, TrainError};

use super::run::Run;
use super::state::EpochSums;
use super::{EpochRecord, Health, Observer, health, holdout_knn};

/// Below this spread of normalised z (1 in health) the run is collapsing.
const COLLAPSE: f64 = 0.2;

/// Where no spread is measured, the run is collapsing when the similarities of a batch deviate by less than this: of a
/// spread s they deviate by about s^2 at most, of directions that fill d dimensions evenly by 1 / sqrt(d).
const FLAT: f64 = 0.01;

/// Where the mean loss of an epoch is nearer than this to that of guessing, in nats, nothing is told apart.
const NEAR: f64 = 0.01;

/// Above this temperature entropy says nothing of similarities: what they take from it is lost in rounding.
const HOT: f64 = 1.0;

impl Run<'_> {
    /// Measures where it is the turn of a figure, and finds out whether the state is the best so far.
    pub(super) fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<EpochRecord, TrainError> {
        let EpochSums { steps, loss, contrastive_accuracy } = std::mem::take(&mut self.state.sums);
        self.set_sums()?;
        let Measured { health, knn_top1, skipped } = self.measure()?;
        self.list_skipped(skipped, observer)?;
        let mean = |sum: f64| sum / steps.max(1) as f64;
        // Of projections that are narrow because nothing is learnt at such a temperature, that is to be said.
        let is_hot = self.config.loss.temperature > HOT;
        let guesses = is_hot && self.watch_for_guessing(mean(loss), observer);
        if !guesses && !self.watch_for_collapse(health.as_ref(), observer) && !is_hot {
            self.watch_for_guessing(mean(loss), observer);
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

    /// Health figures and kNN accuracy of the held-out images, each in its turn.
    fn measure(&self) -> Result<Measured, TrainError> {
        let mut measured = Measured::default();
        // One worker measures, the others wait.
        let Some(holdout) = self.holdout.as_ref().filter(|_| self.keeps()) else { return Ok(measured) };
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
        // Of all images of the run, those that are trained on have the first numbers.
        measured.skipped.iter_mut().for_each(|skipped| skipped.index += self.train.len() as u32);
        Ok(measured)
    }

    /// Warns of projections that all point the same way. Without held-out figures the last step tells, at no cost.
    /// Returns whether it did.
    fn watch_for_collapse(&mut self, health: Option<&Health>, observer: &mut dyn Observer) -> bool {
        let train = &self.config.train;
        let (narrow, found) = match health {
            Some(Health { spread, .. }) => {
                (*spread < COLLAPSE, format!("their spread is {spread:.2} of what is healthy"))
            }
            None if self.keeps() && (self.holdout.is_none() || train.health_every == 0) => {
                let deviation = self.deviation_of_similarities();
                let narrow = deviation.is_some_and(|deviation| deviation < FLAT);
                (narrow, "every view is about as similar to all others".to_owned())
            }
            // It is not their turn.
            None => return false,
        };
        // Narrow projections are how training begins: they are no fault unless they stay so, warm-up behind them.
        let narrow = narrow && self.state.step >= self.schedule.warmup_steps();
        let stays = std::mem::replace(&mut self.narrow, narrow) || self.epochs() == train.epochs;
        if narrow && stays {
            observer.warn(&format!(
                "the projections are collapsing: {found}; see that the images differ and are not all dark \
                 (data.window), lower optim.rate or raise loss.temperature"
            ));
        }
        narrow && stays
    }

    /// Warns, once, of a loss that stays what it is where all candidates are equally likely. Returns whether it has.
    fn watch_for_guessing(&mut self, loss: f64, observer: &mut dyn Observer) -> bool {
        let Config { train, loss: LossConfig { name, .. }, .. } = self.config;
        let candidates = 2 * train.batch - 1;
        let Some(guessing) = name.of_guessing(candidates).filter(|_| self.keeps()) else { return false };
        if self.guessing == Guessing::Told {
            return true;
        }
        let is_last = self.epochs() == train.epochs;
        // As the projections may be narrow while the rate warms up, so may the loss tell nothing.
        let stands =
            (loss - guessing).abs() < NEAR && (is_last || self.state.step >= self.schedule.warmup_steps());
        let stood = self.guessing == Guessing::Stood;
        self.guessing = match stands {
            true if stood || is_last => Guessing::Told,
            true => Guessing::Stood,
            false => Guessing::Not,
        };
        if self.guessing == Guessing::Told {
            observer.warn(&format!(
                "the loss stands at that of guessing ({guessing:.3} = ln {candidates}): nothing is learnt; lower \
                 loss.temperature if it is above 1, raise optim.rate if it is tiny, and see that the images differ"
            ));
        }
        self.guessing == Guessing::Told
    }

    /// The standard deviation of the similarities in the last step, where it is small and can be told: a softmax that
    /// is nearly uniform lacks half the variance of its logits of the largest entropy.
    fn deviation_of_similarities(&self) -> Option<f64> {
        let loss = &self.config.loss;
        let largest = ((2 * self.config.train.batch - 1) as f64).ln();
        let lacking = (largest - self.figures.batch.entropy).max(0.0);
        (loss.normalize && loss.temperature <= HOT).then(|| loss.temperature * (2.0 * lacking).sqrt())
    }
}

/// Whether the loss of the epoch before was that of guessing, and whether that was warned of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Guessing {
    #[default]
    Not,
    Stood,
    Told,
}

/// What the held-out images tell after an epoch, and those of them that are broken.
#[derive(Default)]
struct Measured {
    health: Option<Health>,
    knn_top1: Option<f64>,
    skipped: Vec<Skipped>,
}
