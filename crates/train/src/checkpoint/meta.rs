//! What a checkpoint records beside its tensors.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The position of a run. With the tensors, this is everything needed to resume: randomness is a function of seed
/// and position.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Optimiser steps done.
    pub step: u64,
    /// The epoch of the next batch.
    pub epoch: u64,
    /// Where the next batch begins in that epoch's order of images.
    pub next: u64,
    /// Seed of the weights, the order of images and the views.
    pub seed: u64,
    /// Number of training images, to detect a different data set.
    pub images: u64,
    /// CRC-32C of the image names in order, to detect a different data set of the same size; `None` in checkpoints
    /// older than this field.
    #[serde(default)]
    pub names: Option<u32>,
    /// Length of the metrics log in bytes; a resumed run rewrites what follows.
    pub metrics_bytes: u64,
    /// Length of the TensorBoard events in bytes; a resumed run rewrites what follows.
    pub events_bytes: u64,
    /// The best checkpoint so far, this one included.
    pub best: Option<Best>,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// Further state that must survive.
    #[serde(default)]
    pub extra: Extra,
}

impl Meta {
    /// Whether `epochs` epochs are done and recorded.
    pub fn has_finished(&self, epochs: u64) -> bool {
        self.epoch >= epochs && !self.extra.epoch_due
    }
}

/// Fields added to the record over time; older checkpoints may lack any of them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// Steps done in the current epoch.
    pub epoch_steps: u64,
    /// The sum of the losses of these steps.
    pub epoch_loss: f64,
    /// The sum of the contrastive accuracies of these steps.
    pub epoch_contrastive_accuracy: f64,
    /// The loss scale, if the loss is scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Steps with finite gradients since the loss scale last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale_steps: Option<u32>,
    /// Steps skipped because scaled gradients overflowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_steps: Option<u64>,
    /// Whether an epoch has ended with this step, and an error kept its figures from being recorded: that is still to
    /// be done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub epoch_due: bool,
    /// How wide the projections were when last measured, if they were so narrow that a warning may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub narrow: Option<f64>,
    /// Whether a loss at chance level was warned of, if it stood there after the last epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chance_level_warned: Option<bool>,
    /// CRC-32C of the image names, as far as they do not depend on where the data lie, if those are others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names_within: Option<u32>,
    /// A checksum of the sizes of the image files, if the data set reports them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizes: Option<u32>,
    /// Each worker's position since the start of the run, if there are several workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_places: Option<Vec<u64>>,
    /// Unknown fields, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The best checkpoint so far, and the figure by which it is the best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    step: u64,
    figure: String,
    value: f64,
}

impl Best {
    /// The checkpoint of `step`, whose `figure` is `value`; `None` if `value` is not finite.
    pub fn new(step: u64, figure: &str, value: f64) -> Option<Self> {
        value.is_finite().then(|| Self { step, figure: figure.to_owned(), value })
    }

    /// The step of the best checkpoint, which is kept.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The name of the figure.
    pub fn figure(&self) -> &str {
        &self.figure
    }

    /// The value of the figure, finite.
    pub fn value(&self) -> f64 {
        self.value
    }
}
