//! A network, and where it comes from.

use simclr_train::{Config, Model, TrainError};

/// How images become a network's input, for people.
const PREPROCESSING: &str = "RGB, 8-bit values divided by 255";

/// What the head's tensors are called by.
const HEAD: &str = "head.";

/// A network to be written, with what is written beside its weights.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// The network.
    pub model: &'a Model,
    /// As it was trained.
    pub config: &'a Config,
    /// Optimiser steps of training behind it.
    pub step: u64,
    /// Whole epochs of training behind it.
    pub epoch: u64,
}

impl Trained<'_> {
    /// How many values of it were trained, without its head or with it.
    pub fn parameters(&self, with_head: bool) -> usize {
        let trained = self.model.parameters.iter().filter(|(_, kind, _)| kind.is_trained());
        trained.filter(|(name, ..)| is_written(name, with_head)).map(|(_, _, value)| value.len()).sum()
    }

    /// What is to be known of it, as names and values.
    pub(crate) fn facts(&self) -> Result<Vec<(&'static str, String)>, TrainError> {
        Ok(vec![
            ("program", program()),
            ("encoder", self.config.encoder.name.to_string()),
            ("width", self.config.encoder.width.to_string()),
            ("image_size", self.model.image_size().to_string()),
            ("preprocessing", PREPROCESSING.to_owned()),
            ("step", self.step.to_string()),
            ("epoch", self.epoch.to_string()),
            ("config", self.config.to_toml()?),
        ])
    }
}

/// Whether a tensor of this name is written: those of the head, where it is asked for.
pub(crate) fn is_written(name: &str, with_head: bool) -> bool {
    with_head || !name.starts_with(HEAD)
}

/// The program and its version.
fn program() -> String {
    format!("simclr {}", env!("CARGO_PKG_VERSION"))
}
