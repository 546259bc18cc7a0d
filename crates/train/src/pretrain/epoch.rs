//! The end of an epoch: how the encoder does on images that it was not trained on.

use simclr_data::Skipped;

use crate::TrainError;

use super::run::Run;
use super::state::EpochSums;
use super::{EpochRecord, HealthFields, Observer, health, holdout_knn};

/// Below this spread of normalised z (1 in health) the run is collapsing.
const COLLAPSE: f64 = 0.2;

impl Run<'_> {
    /// Measures where it is the turn of a figure, and finds out whether the state is the best so far.
    pub(super) fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<EpochRecord, TrainError> {
        let EpochSums { steps, loss, contrastive_accuracy } = std::mem::take(&mut self.state.sums);
        self.set_sums()?;
        let Measured { health, knn_top1, skipped } = self.measure(observer)?;
        self.list_skipped(skipped, observer)?;
        let mean = |sum: f64| sum / steps.max(1) as f64;
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
    fn measure(&mut self, observer: &mut dyn Observer) -> Result<Measured, TrainError> {
        let mut measured = Measured::default();
        // One worker measures, the others wait.
        let Some(holdout) = self.holdout.as_ref().filter(|_| self.keeps()) else { return Ok(measured) };
        let (epoch, train) = (self.epochs(), &self.config.train);
        let turn = |every: u64| every > 0 && (epoch.is_multiple_of(every) || epoch == train.epochs);
        let model = &self.state.model;
        if turn(train.health_every) {
            let (found, skipped) = health(model, &self.config.loss, holdout, &self.families, self.reading)?;
            measured.skipped = skipped;
            // Narrow projections are how training begins: they are no fault unless they stay so, warm-up behind them.
            let narrow = found.spread < COLLAPSE && self.state.step >= self.schedule.warmup_steps();
            let stays = std::mem::replace(&mut self.narrow, narrow) || epoch == train.epochs;
            if narrow && stays {
                observer.warn(&format!(
                    "the projections are collapsing: their spread is {:.2} of what is healthy; \
                     lower optim.rate or raise loss.temperature",
                    found.spread
                ));
            }
            measured.health = Some(HealthFields::from(found));
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
}

/// What the held-out images tell after an epoch, and those of them that are broken.
#[derive(Default)]
struct Measured {
    health: Option<HealthFields>,
    knn_top1: Option<f64>,
    skipped: Vec<Skipped>,
}
