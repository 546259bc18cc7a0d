//! A network, and how it was trained.

use std::collections::HashMap;

use simclr_augment::central_crop_box;
use simclr_data::Window;
use simclr_train::config::{DataConfig, Normalize, PoolPadding};
use simclr_train::{Config, Model, TrainError};

/// The prefix of the names of the head's tensors.
pub(crate) const HEAD: &str = "head.";

/// The metadata key that names the program which wrote a file.
const PROGRAM: &str = "program";

/// No training takes more steps or epochs; readers of JSON round larger numbers.
const MAX_COUNT: u64 = 1 << 53;

/// A network to write, with the facts that are written beside its weights.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// The network.
    pub model: &'a Model,
    /// The configuration that it was trained with.
    pub config: &'a Config,
    /// Optimiser steps that it was trained for.
    pub step: u64,
    /// Whole epochs that it was trained for.
    pub epoch: u64,
}

impl Trained<'_> {
    /// The number of trained values, with or without those of the head.
    pub fn parameters(&self, with_head: bool) -> usize {
        let trained = self.model.parameters.iter().filter(|(_, kind, _)| kind.is_trained());
        trained.filter(|(name, ..)| is_written(name, with_head)).map(|(_, _, value)| value.len()).sum()
    }

    /// The facts to write beside its weights, as names and values. `normalizes` says whether the written network
    /// normalises images itself, if its images are normalised at all.
    pub(crate) fn facts(&self, normalizes: bool) -> Result<Vec<(&'static str, String)>, TrainError> {
        Ok(vec![
            (PROGRAM, program()),
            ("encoder", self.config.encoder.name.to_string()),
            ("width", self.config.encoder.width.to_string()),
            ("image_size", self.model.image_size().to_string()),
            ("preprocessing", self.preprocessing(normalizes)),
            ("step", self.step.to_string()),
            ("epoch", self.epoch.to_string()),
            ("config", self.config.recipe_to_toml()?),
        ])
    }

    /// How to turn an image into the network's input, as a text for people.
    fn preprocessing(&self, normalizes: bool) -> String {
        let size = self.model.image_size();
        let square = size as u32;
        let part = match central_crop_box(square, square, square).width < square {
            true => "the central square of 7/8 of the shorter side",
            false => "the whole image",
        };
        let bytes = format!(
            "{}{part}, resized to {size} x {size} (bicubic, antialiased); RGB, 8-bit values divided by 255",
            self.decoding()
        );
        match self.config.encoder.normalize.constants() {
            Some([mean, deviation]) if !normalizes => {
                format!("{bytes}, less {mean:?}, divided by {deviation:?}")
            }
            _ => bytes,
        }
    }

    /// What is done to an image's stored values first, if it is not what every program does, to precede the rest.
    fn decoding(&self) -> String {
        let DataConfig { window, background, .. } = &self.config.data;
        let mut steps = match window {
            Window::Full => String::new(),
            Window::Image => {
                "the range of each image's stored values, without the darkest and the brightest 0.1%, \
                              mapped to 0 to 255 (data.window); "
                    .to_owned()
            }
            Window::Values { low, high } => {
                format!("stored values {low} to {high} mapped to 0 to 255 (data.window); ")
            }
        };
        if *background != DataConfig::default().background {
            steps += &format!("transparent pixels laid over RGB {background:?} (data.background); ");
        }
        steps
    }
}

/// The facts that a file states beside its tensors.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// The configuration that it was trained with; `None` for files of other programs.
    pub config: Option<String>,
    /// Optimiser steps that it was trained for.
    pub step: u64,
    /// Whole epochs that it was trained for.
    pub epoch: u64,
    /// Without a configuration: how its images are normalised, if that is known.
    pub normalize: Option<Normalize>,
    /// Without a configuration: how its max pool is padded.
    pub pool_padding: PoolPadding,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts { config: None, step: 0, epoch: 0, normalize: None, pool_padding: PoolPadding::All }
    }
}

impl Facts {
    /// The facts in a file's metadata; those of other programs are ignored.
    ///
    /// # Errors
    /// A description of a number that is out of range.
    pub fn of(metadata: &HashMap<String, String>) -> Result<Facts, String> {
        if !is_own(metadata) {
            return Ok(Facts::default());
        }
        let number = |name: &str| match metadata.get(name) {
            Some(text) => text.parse().ok().filter(|&number| number <= MAX_COUNT).ok_or_else(|| {
                format!("its metadata `{name}` is {text:?}, expected a whole number from 0 to {MAX_COUNT}")
            }),
            None => Ok(0),
        };
        let config = metadata.get("config").cloned();
        Ok(Facts { config, step: number("step")?, epoch: number("epoch")?, ..Facts::default() })
    }
}

/// Whether this program wrote a file with these metadata.
pub(crate) fn is_own(metadata: &HashMap<String, String>) -> bool {
    metadata.contains_key(PROGRAM)
}

/// Whether a tensor of this name is written: those of the head only `with_head`.
pub(crate) fn is_written(name: &str, with_head: bool) -> bool {
    with_head || !name.starts_with(HEAD)
}

/// The program and its version.
fn program() -> String {
    format!("simclr {}", env!("CARGO_PKG_VERSION"))
}
