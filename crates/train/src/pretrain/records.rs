//! The records of a run in progress: the lines of `metrics.jsonl`, and the same for TensorBoard.

use serde::Serialize;

use crate::TrainError;
use crate::metrics_log::MetricsLog;
use crate::tensorboard::EventLog;

use super::health::Health;

/// The log line of a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Epochs done, with their fraction.
    pub epoch: f64,
    /// The loss of the batch.
    pub loss: f64,
    /// The fraction of anchors whose positive is ranked first.
    pub contrastive_accuracy: f64,
    /// Mean entropy of the softmax over candidates, in nats.
    pub entropy: f64,
    /// The learning rate.
    pub rate: f64,
    /// |g| over all parameters.
    pub gradient_norm: f64,
    /// |w| over all parameters, after the step.
    pub weight_norm: f64,
    /// The loss scale after the step; fp16 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Steps so far that were skipped because their scaled gradients overflowed; fp16 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_steps: Option<u64>,
    /// Views per second since the previous line.
    pub views_per_s: f64,
    /// Seconds that the steps since the previous line waited for views.
    pub waited_s: f64,
}

/// The log line of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRecord {
    /// Epochs done.
    pub epoch: u64,
    /// Steps done.
    pub step: u64,
    /// Mean loss of the epoch's steps.
    pub train_loss: f64,
    /// Mean contrastive accuracy of the epoch's steps.
    pub train_contrastive_accuracy: f64,
    /// Held-out figures, if images are held out and the figures are due.
    #[serde(flatten)]
    pub health: Option<Health>,
    /// kNN accuracy of held-out images, if there are labels and it is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_top1: Option<f64>,
    /// Images so far that could not be used.
    pub skipped: usize,
}

/// Writes records to both logs: to both of them or, as far as the system permits, to none.
#[derive(Debug)]
pub(super) struct Logs {
    pub(super) metrics: MetricsLog,
    pub(super) events: EventLog,
}

#[derive(Serialize)]
struct Line<'a, T> {
    kind: &'static str,
    #[serde(flatten)]
    record: &'a T,
}

impl Logs {
    pub(super) fn step(&mut self, record: &StepRecord) -> Result<(), TrainError> {
        let mut values = vec![
            ("train/loss", record.loss),
            ("train/contrastive_accuracy", record.contrastive_accuracy),
            ("train/entropy", record.entropy),
            ("train/rate", record.rate),
            ("train/gradient_norm", record.gradient_norm),
            ("train/weight_norm", record.weight_norm),
            ("speed/views_per_s", record.views_per_s),
            ("speed/waited_s", record.waited_s),
        ];
        values.extend(record.loss_scale.map(|scale| ("train/loss_scale", scale)));
        self.append(&Line { kind: "step", record }, record.step, &values)
    }

    pub(super) fn epoch(&mut self, record: &EpochRecord) -> Result<(), TrainError> {
        let mut values = vec![
            ("epoch/train_loss", record.train_loss),
            ("epoch/train_contrastive_accuracy", record.train_contrastive_accuracy),
        ];
        if let Some(health) = &record.health {
            values.extend(Health::FIGURES.map(|(_, tag, figure)| (tag, figure(health))));
        }
        values.extend(record.knn_top1.map(|knn| ("holdout/knn_top1", knn)));
        self.append(&Line { kind: "epoch", record }, record.step, &values)
    }

    fn append(&mut self, line: &impl Serialize, step: u64, values: &[(&str, f64)]) -> Result<(), TrainError> {
        let before = self.metrics.length();
        self.metrics.append(line)?;
        self.events.scalars(step, values).inspect_err(|_| self.metrics.take_back(before))
    }
}
