//! What a checkpoint records beside its tensors.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where a run stands. With the tensors, this is everything that resuming needs: randomness is a function of seed
/// and position.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Optimiser steps done.
    pub step: u64,
    /// The epoch in which the next batch begins.
    pub epoch: u64,
    /// The place in that epoch's order of images where it does.
    pub next: u64,
    /// Seed of weights, order and views.
    pub seed: u64,
    /// Training images, so that another data set is noticed.
    pub images: u64,
    /// A checksum (CRC-32C) of their names in order, so that as many others are noticed; none in a checkpoint from
    /// before there was one.
    #[serde(default)]
    pub names: Option<u32>,
    /// Length of the metrics log in bytes; what comes after it is written again.
    pub metrics_bytes: u64,
    /// Length of the TensorBoard events in bytes; what comes after it is written again.
    pub events_bytes: u64,
    /// The best checkpoint so far, this one included.
    pub best: Option<Best>,
    /// The resolved configuration, as TOML.
    pub config: String,
    /// Anything else that must survive.
    #[serde(default)]
    pub extra: Extra,
}

/// What came to a checkpoint's record with time; each may be missing in an older one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// Steps of the epoch under way.
    pub epoch_steps: u64,
    /// The sum of their losses.
    pub epoch_loss: f64,
    /// The sum of their contrastive accuracies.
    pub epoch_contrastive_accuracy: f64,
    /// What the loss is multiplied by, where it is scaled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Sound steps since that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale_steps: Option<u32>,
    /// Steps skipped for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_steps: Option<u64>,
    /// A checksum of the sizes of the images' files, where the data set tells any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sizes: Option<u32>,
    /// Each worker's places that are behind, where there are several workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_places: Option<Vec<u64>>,
    /// What else is there.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The best checkpoint so far, and by what figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    step: u64,
    figure: String,
    value: f64,
}

impl Best {
    /// The checkpoint of `step` with `value` of `figure`; nothing for a value that is not finite.
    pub fn new(step: u64, figure: &str, value: f64) -> Option<Self> {
        value.is_finite().then(|| Self { step, figure: figure.to_owned(), value })
    }

    /// Its step; a checkpoint of this step is kept.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The name of the figure.
    pub fn figure(&self) -> &str {
        &self.figure
    }

    /// The figure, finite.
    pub fn value(&self) -> f64 {
        self.value
    }
}
