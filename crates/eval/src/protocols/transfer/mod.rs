//! Evaluates an encoder on other data sets: the transfer study (arXiv:2002.05709, section 6 and B.8).
//!
//! | file | |
//! |---|---|
//! | `suite` | the data sets, listed in a TOML file |
//! | `known` | the paper's twelve: metrics and results |
//! | `labels` | a table of the classes of images that show several |
//! | `set` | a data set, opened and split |
//! | `linear` | a linear classifier on h |
//! | `tuning`, `tune` | fine-tuning, from the encoder or from scratch |
//! | `outcome` | results, and how they are stored |
//! | `table` | results as lines of a table |

mod known;
mod labels;
mod linear;
mod outcome;
mod set;
mod suite;
mod table;
mod tune;
mod tuning;

use simclr_words::words;

pub use known::{KNOWN, Known, PAPERS_NETWORK};
pub use outcome::{Entry, Identity, Outcome, Training};
pub use set::TransferSet;
pub use suite::{SetSpec, Suite};
pub use table::table;
pub use tuning::{Grid, GridPoint, Tuning};

use super::baseline::random_encoder;
use super::trained::TrainedEncoder;
use super::versus::{Progress, Side};
use crate::EvalError;
use tune::Tuner;

words! {
    /// How an encoder is used on a data set.
    #[derive(PartialOrd, Ord)]
    Protocol {
        /// A linear classifier on h of the frozen encoder.
        Linear = "linear",
        /// The whole encoder, fine-tuned under a linear classifier.
        FineTune = "finetune",
        /// The same network trained from random weights.
        Scratch = "scratch",
    }
}

impl Protocol {
    /// Whether the whole encoder is trained, with a choice of settings, rather than only a classifier on top.
    pub fn trains(self) -> bool {
        self != Protocol::Linear
    }
}

/// Settings of [`transfer`].
#[derive(Clone, Debug, PartialEq)]
pub struct TransferOptions {
    /// Whether a random encoder is compared, under a linear classifier.
    pub with_random: bool,
    /// Whether the first image that cannot be read is an error, instead of being left out and listed.
    pub strict: bool,
    /// The seed that the data set was opened with; it also seeds training.
    pub seed: u64,
    /// How the whole encoder is trained.
    pub tuning: Tuning,
}

/// Runs `protocol` on a data set, except for results that the run folder of `encoder` already holds; each result, and
/// each rate and decay tried, is written there as soon as it is known.
///
/// # Errors
/// Options out of range, images that cannot be read, features that are not finite, [`EvalError::BatchDoesNotFit`],
/// [`EvalError::AllDiverged`], a result that cannot be written.
pub fn transfer(
    encoder: &TrainedEncoder,
    set: &TransferSet,
    protocol: Protocol,
    options: &TransferOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Entry, EvalError> {
    options.tuning.check()?;
    let &TransferOptions { with_random, strict, seed, ref tuning } = options;
    let mut entry = Entry::take_up(encoder, set, protocol, options)?;
    if entry.lacks(options) == 0 {
        return Ok(entry);
    }
    let (model, run) = (&encoder.model, &encoder.run);
    let random = |watch: &mut dyn FnMut(Progress)| {
        random_encoder(&encoder.config, &set.train.images, &model.device, watch)
    };
    match protocol {
        Protocol::Linear => {
            if entry.trained.is_none() {
                entry.trained = Some(linear::linear(Side::Trained, model, set, strict, watch)?);
                entry.save(run)?;
            }
            if with_random && entry.random.is_none() {
                let random = random(watch)?;
                entry.random = Some(linear::linear(Side::Random, &random, set, strict, watch)?);
                entry.save(run)?;
            }
        }
        Protocol::FineTune => {
            let tuner = Tuner { side: Side::Trained, model, set, tuning, seed, strict };
            tuner.complete(&mut entry, &mut |entry| entry.save(run), watch)?;
        }
        Protocol::Scratch => {
            let tuner = Tuner { side: Side::Random, model: &random(watch)?, set, tuning, seed, strict };
            tuner.complete(&mut entry, &mut |entry| entry.save(run), watch)?;
        }
    }
    Ok(entry)
}
