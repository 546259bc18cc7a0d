//! A network, and where it comes from.

use std::collections::HashMap;

use simclr_augment::central_crop_box;
use simclr_train::config::{Normalize, PoolPadding};
use simclr_train::{Config, Model, TrainError};

/// What the head's tensors are called by.
pub(crate) const HEAD: &str = "head.";

/// What the program that wrote a file is called by in its metadata.
const PROGRAM: &str = "program";

/// No training takes more steps or epochs: beyond, readers of JSON round them.
const MOST: u64 = 1 << 53;

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

    /// What is to be known of it, as names and values. `normalizes` says whether what is written normalises images
    /// itself, where they are to be.
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

    /// How images become a network's input, for people.
    fn preprocessing(&self, normalizes: bool) -> String {
        let size = self.model.image_size();
        let square = size as u32;
        let part = match central_crop_box(square, square, square).width < square {
            true => "the central square of 7/8 of the shorter side",
            false => "the whole image",
        };
        let bytes = format!(
            "{part}, resized to {size} x {size} (bicubic, antialiased); RGB, 8-bit values divided by 255"
        );
        match self.config.encoder.normalize.constants() {
            Some([mean, deviation]) if !normalizes => {
                format!("{bytes}, less {mean:?}, divided by {deviation:?}")
            }
            _ => bytes,
        }
    }
}

/// What is known of a network beside its tensors, for reading it again.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// As it was trained; none beside the tensors of another program.
    pub config: Option<String>,
    /// Optimiser steps of training behind it.
    pub step: u64,
    /// Whole epochs of training behind it.
    pub epoch: u64,
    /// Where no configuration tells: how its images are normalised, if that is known.
    pub normalize: Option<Normalize>,
    /// Where no configuration tells: how its max pool is padded.
    pub pool_padding: PoolPadding,
}

impl Default for Facts {
    fn default() -> Facts {
        Facts { config: None, step: 0, epoch: 0, normalize: None, pool_padding: PoolPadding::All }
    }
}

impl Facts {
    /// Those beside the tensors of a file; what another program wrote there says nothing.
    ///
    /// # Errors
    /// A number that cannot be, in words.
    pub fn of(metadata: &HashMap<String, String>) -> Result<Facts, String> {
        if !is_own(metadata) {
            return Ok(Facts::default());
        }
        let number = |name: &str| match metadata.get(name) {
            Some(text) => text.parse().ok().filter(|&number| number <= MOST).ok_or_else(|| {
                format!("its metadata `{name}` is {text:?}, expected a whole number from 0 to {MOST}")
            }),
            None => Ok(0),
        };
        let config = metadata.get("config").cloned();
        Ok(Facts { config, step: number("step")?, epoch: number("epoch")?, ..Facts::default() })
    }
}

/// Whether a file with these metadata was written here.
pub(crate) fn is_own(metadata: &HashMap<String, String>) -> bool {
    metadata.contains_key(PROGRAM)
}

/// Whether a tensor of this name is written: those of the head, where it is asked for.
pub(crate) fn is_written(name: &str, with_head: bool) -> bool {
    with_head || !name.starts_with(HEAD)
}

/// The program and its version.
fn program() -> String {
    format!("simclr {}", env!("CARGO_PKG_VERSION"))
}
