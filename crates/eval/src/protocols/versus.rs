//! The trained encoder and a random one, side by side.

use std::fmt;

use simclr_train::memory;

/// A value for the trained encoder, and the same for a random encoder if one is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Versus<T> {
    /// Of the trained encoder.
    pub trained: T,
    /// Of the randomly initialised one.
    pub random: Option<T>,
}

/// Which of the two encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The trained encoder.
    Trained,
    /// The randomly initialised one.
    Random,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Trained => "trained encoder",
            Side::Random => "random encoder",
        })
    }
}

/// What a protocol reports while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Images went through an encoder, or through both.
    Encoding {
        /// Which encoder; `None` for both.
        side: Option<Side>,
        /// The name of the images, such as "training", "test" or "validation".
        set: &'static str,
        /// Images done.
        done: usize,
        /// Images in all.
        images: usize,
    },
    /// Batches of views went through the random encoder, to set its running averages.
    Averaging {
        /// Batches done.
        done: usize,
        /// Batches in all.
        batches: usize,
    },
    /// A classifier is being fitted by logistic regression.
    Fitting {
        /// On which encoder's features.
        side: Side,
        /// L2 weights tried.
        tried: usize,
        /// L2 weights to try, at most.
        weights: usize,
    },
    /// The settings of fine-tuning, the same for both encoders.
    Planned {
        /// Training images.
        images: usize,
        /// Images they were drawn from.
        of: usize,
        /// Epochs.
        epochs: u64,
        /// Images per step.
        batch: usize,
        /// The rate of the first step; the lowest if several are tried.
        rate: f64,
        /// The number of rates tried with each encoder; 1 if the rate is fixed.
        rates: usize,
        /// What is kept for the backward pass, and the memory it takes.
        memory: memory::Choice,
    },
    /// An epoch of training has ended.
    Epoch {
        /// With which encoder.
        side: Side,
        /// What is being trained.
        learner: &'static str,
        /// Epochs done.
        epoch: u64,
        /// Epochs in all.
        epochs: u64,
        /// Mean cross-entropy of the epoch's batches, each before its update.
        loss: f64,
        /// Fraction of the epoch's images recognised, likewise.
        top1: f64,
        /// The rate of the epoch's last step.
        rate: f64,
    },
    /// A setting of training was tried.
    Tried {
        /// With which encoder.
        side: Side,
        /// The number of the setting, from 1.
        number: usize,
        /// The number of settings.
        of: usize,
        /// The rate of the first step.
        rate: f64,
        /// The decay, before division by the rate, if decays are tried.
        decay: Option<f64>,
        /// The metric on the validation images, or `None` if training diverged.
        score: Option<f64>,
    },
}

impl<T> Versus<T> {
    /// The trained one only.
    pub fn alone(trained: T) -> Versus<T> {
        Versus { trained, random: None }
    }

    /// Pairs each with its counterpart.
    pub(super) fn zip<U>(self, other: Versus<U>) -> Versus<(T, U)> {
        Versus { trained: (self.trained, other.trained), random: self.random.zip(other.random) }
    }

    /// Applies `each` to both, the trained one first.
    pub(super) fn map<U>(self, mut each: impl FnMut(T) -> U) -> Versus<U> {
        Versus { trained: each(self.trained), random: self.random.map(each) }
    }

    /// Applies `each` to both, the trained one first.
    ///
    /// # Errors
    /// The first error of `each`.
    pub fn try_map<U, E>(&self, mut each: impl FnMut(Side, &T) -> Result<U, E>) -> Result<Versus<U>, E> {
        let trained = each(Side::Trained, &self.trained)?;
        let random = self.random.as_ref().map(|random| each(Side::Random, random)).transpose()?;
        Ok(Versus { trained, random })
    }
}

impl<T, E> Versus<Result<T, E>> {
    /// Both, or the first error.
    pub(super) fn transpose(self) -> Result<Versus<T>, E> {
        Ok(Versus { trained: self.trained?, random: self.random.transpose()? })
    }
}
