//! The trained encoder and the random one, side by side.

use std::fmt;

use simclr_train::memory;

/// Something of the trained encoder, and the same of the random one where that is wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Versus<T> {
    /// Of the trained encoder.
    pub trained: T,
    /// Of the randomly initialised one.
    pub random: Option<T>,
}

/// Which of the two.
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

/// What a protocol tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Images went through an encoder.
    Encoding {
        /// Which encoder.
        side: Side,
        /// "training", "test" or "validation".
        set: &'static str,
        /// Images done.
        done: usize,
        /// Images in all.
        images: usize,
    },
    /// The running averages of the random encoder are taken over batches of views.
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
    },
    /// What fine-tuning is going to do, with either encoder.
    Planned {
        /// Images learnt from.
        images: usize,
        /// Images that they were drawn from.
        of: usize,
        /// Epochs.
        epochs: u64,
        /// Images a step.
        batch: usize,
        /// The rate of the first step, the lowest where there is a choice.
        rate: f64,
        /// How many rates are tried with either encoder; 1 where there is no choice.
        rates: usize,
        /// What is kept for backward, and the memory that it takes.
        memory: memory::Choice,
    },
    /// An epoch of training has ended.
    Epoch {
        /// On which encoder.
        side: Side,
        /// What is trained.
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
    /// Settings of training were tried.
    Tried {
        /// On which encoder.
        side: Side,
        /// Which of the settings, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// The rate of the first step.
        rate: f64,
        /// The decay, before it was divided by the rate, where there is a choice of those.
        decay: Option<f64>,
        /// The metric of the validation images, or nothing where the loss became no number.
        score: Option<f64>,
    },
}

impl<T> Versus<T> {
    /// The trained one alone.
    pub fn alone(trained: T) -> Versus<T> {
        Versus { trained, random: None }
    }

    /// Does the same to both, the trained one first.
    ///
    /// # Errors
    /// The first that `each` returns.
    pub fn try_map<U, E>(&self, mut each: impl FnMut(Side, &T) -> Result<U, E>) -> Result<Versus<U>, E> {
        let trained = each(Side::Trained, &self.trained)?;
        let random = self.random.as_ref().map(|random| each(Side::Random, random)).transpose()?;
        Ok(Versus { trained, random })
    }
}
