//! What an encoder is worth on other data sets: the transfer study (arXiv:2002.05709, section 6 and B.8).
//!
//! | file | |
//! |---|---|
//! | `suite` | which data sets there are: a TOML file |
//! | `known` | the paper's twelve: metrics and figures |
//! | `labels` | a table of the classes of images that show several |
//! | `set` | a data set, opened and split |
//! | `linear` | a linear classifier on h |
//! | `outcome` | results, and how they are kept |

mod known;
mod labels;
mod linear;
mod outcome;
mod set;
mod suite;

use serde::{Deserialize, Serialize};

pub use known::{KNOWN, Known, PAPERS_NETWORK};
pub use outcome::{Entry, Identity, Outcome};
pub use set::{Part, TransferSet};
pub use suite::{SetSpec, Suite};

use super::baseline::random_encoder;
use super::trained::TrainedEncoder;
use super::versus::{Progress, Side};
use crate::EvalError;

/// How a data set is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A linear classifier on h, the encoder frozen.
    Linear,
}

impl Protocol {
    /// As files and messages name it.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Linear => "linear",
        }
    }

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Protocol::Linear => "linear",
        }
    }

    /// What the pretrained encoder is compared with, in words.
    pub fn baseline(self) -> &'static str {
        match self {
            Protocol::Linear => "random encoder",
        }
    }
}

/// Settings of [`transfer`].
#[derive(Clone, Debug, PartialEq)]
pub struct TransferOptions {
    /// Whether a randomly initialised encoder stands beside the trained one.
    pub with_random: bool,
    /// Whether the first image that cannot be read is an error, instead of being left out and listed.
    pub strict: bool,
    /// The seed with which the data set was opened.
    pub seed: u64,
}

/// Carries out `protocol` on a data set, as far as the run folder of `encoder` does not hold its results already; each result is written
/// there as it comes.
///
/// # Errors
/// Images that cannot be read, features that are not finite, a result that cannot be written.
pub fn transfer(
    encoder: &TrainedEncoder,
    set: &TransferSet,
    protocol: Protocol,
    options: &TransferOptions,
    watch: &mut dyn FnMut(Progress),
) -> Result<Entry, EvalError> {
    let TransferOptions { with_random, strict, seed } = *options;
    let mut entry = Entry::take_up(encoder, set, protocol, seed)?;
    if entry.trained.is_none() {
        entry.trained = Some(linear::linear(Side::Trained, &encoder.model, set, strict, watch)?);
        entry.save(&encoder.run)?;
    }
    if with_random && entry.random.is_none() {
        let random = random_encoder(&encoder.config, &set.train.images, &encoder.model.device)?;
        entry.random = Some(linear::linear(Side::Random, &random, set, strict, watch)?);
        entry.save(&encoder.run)?;
    }
    Ok(entry)
}
