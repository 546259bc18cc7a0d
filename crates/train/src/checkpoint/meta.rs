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
    /// Anything else that must survive, such as sums in the middle of an epoch.
    #[serde(default)]
    pub extra: Map<String, Value>,
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
