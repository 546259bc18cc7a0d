//! What was found on a data set, and how it is kept in the run folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simclr_train::Config;
use simclr_train::config::{Difference, Variant};
use simclr_train::run_folder::RunFolder;

use super::known::Known;
use super::tuning::GridPoint;
use super::{Protocol, TransferOptions, TransferSet};
use crate::protocols::evaluation::BrokenImage;
use crate::protocols::trained::TrainedEncoder;
use crate::{EvalError, Metric};

/// Where entries lie, below `RUN/evaluation`.
const FOLDER: &str = "transfer";
/// The keys of a configuration that tell what is done to an image, before the first layer and in the network:
/// tables, and keys.
const OF_ENCODERS: [&str; 6] =
    ["encoder.", "data.image_size", "data.shrink", "data.background", "data.window", "train.precision"];
/// Those that random weights depend on beside them, with the averages of their BatchNorms.
const OF_RANDOM: [&str; 3] = ["view.", "head.", "train.seed"];
/// Raised when the same protocol computes something else, so that what an earlier version found is computed again.
const VERSION: u32 = 1;

/// What a protocol finds on a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The data set's metric of the test images, from 0 to 1.
    pub score: f64,
    /// The same of the validation images, before they were learnt from: it was the highest of all settings.
    pub validation: f64,
    /// The settings that were chosen.
    pub chosen: Map<String, Value>,
    /// Images learnt from at the end, when settings were chosen.
    pub train_images: usize,
    /// Images of those that settings were chosen by.
    pub validation_images: usize,
    /// Images that it was judged by.
    pub test_images: usize,
    /// Images of any of them that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenImage>,
    /// Classes of which none of the images to learn from could be read; their test images count all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlearnt: Vec<String>,
    /// What it took.
    pub seconds: f64,
}

/// What a result depends on: another checkpoint, other images, another seed make another one, and results of it are
/// computed anew.
///
/// Images count by the paths that the suite writes, their names and classes; one that is replaced under its name
/// goes unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A checksum of the encoder's weights and of those keys of its configuration that a result depends on; of the
    /// latter alone where training begins from random weights.
    pub encoder: String,
    /// [`TransferSet::fingerprint`].
    pub data: String,
    /// What judges it.
    pub metric: Metric,
    /// Draws the validation images where they are a part of those to learn from, and all that is random in training.
    pub seed: u64,
    /// How it was trained, where it was; the grid does not count, so that what was tried serves a larger one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// Of the protocol, as this program carries it out.
    pub version: u32,
}

/// The length of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// Steps.
    pub steps: u64,
    /// Images a step.
    pub batch: usize,
}

/// A data set's results by one protocol, as `RUN/evaluation/transfer/SET-PROTOCOL-IDENTITY.json` holds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The data set's name.
    pub set: String,
    /// How it was used.
    pub protocol: Protocol,
    /// What the results depend on.
    pub identity: Identity,
    /// Steps of training behind the encoder.
    pub step: u64,
    /// How many classes there are.
    pub classes: usize,
    /// Rates and decays that were tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grid: Vec<GridPoint>,
    /// The trained encoder's, or of [`Protocol::Scratch`] that of random weights.
    pub trained: Option<Outcome>,
    /// With a linear classifier, the randomly initialised encoder's.
    pub random: Option<Outcome>,
}

impl Identity {
    /// Of results of `encoder` on `set`.
    ///
    /// # Errors
    /// A GPU's memory that cannot be read.
    pub(super) fn of(
        encoder: &TrainedEncoder,
        set: &TransferSet,
        protocol: Protocol,
        options: &TransferOptions,
    ) -> Result<Identity, EvalError> {
        let weights = match protocol {
            Protocol::Linear | Protocol::FineTune => encoder.model.fingerprint()?,
            Protocol::Scratch => 0,
        };
        let crc = crc32c::crc32c_append(weights, relevant(&encoder.config, protocol).as_bytes());
        let tuning = &options.tuning;
        let training = Training { steps: tuning.steps, batch: tuning.batch_of(set.train.len()) };
        let hex = |crc: u32| format!("{crc:08x}");
        Ok(Identity {
            encoder: hex(crc),
            data: hex(set.fingerprint),
            metric: set.spec.metric,
            seed: options.seed,
            training: protocol.trains().then_some(training),
            version: VERSION,
        })
    }

    /// What files are told apart by: the steps of training, the seed, and a checksum of it all.
    fn short(&self) -> String {
        let crc = crc32c::crc32c(format!("{self:?}").as_bytes());
        let steps = self.training.map_or(String::new(), |training| format!("{}-steps-", training.steps));
        format!("{steps}seed-{}-{crc:08x}", self.seed)
    }
}

/// What a result by `protocol` depends on of a configuration, as far as it differs from the defaults: a key that a
/// later version adds changes nothing, nor what such a key is settled to where it is not given.
fn relevant(config: &Config, protocol: Protocol) -> String {
    // Under a linear classifier a random encoder may stand beside the trained one.
    let random = if protocol == Protocol::FineTune { &[][..] } else { &OF_RANDOM };
    let counts = |key: &str| OF_ENCODERS.iter().chain(random).any(|start| key.starts_with(start));
    let differences = config.differences(&Config::default()).into_iter();
    let settled = |difference: &Difference| {
        difference.key == "encoder.variant" && config.encoder.settled_variant() == Variant::Standard
    };
    let counting = differences.filter(|difference| counts(difference.key) && !settled(difference));
    counting.map(|Difference { key, ours, .. }| format!("{key} = {ours}\n")).collect()
}

impl Entry {
    /// What the run folder of `encoder` holds of it already, or nothing yet.
    ///
    /// # Errors
    /// A GPU's memory that cannot be read.
    pub fn take_up(
        encoder: &TrainedEncoder,
        set: &TransferSet,
        protocol: Protocol,
        options: &TransferOptions,
    ) -> Result<Entry, EvalError> {
        let fresh = Entry {
            set: set.spec.name.clone(),
            protocol,
            identity: Identity::of(encoder, set, protocol, options)?,
            step: encoder.step,
            classes: set.classes.len(),
            grid: Vec::new(),
            trained: None,
            random: None,
        };
        Ok(fresh.saved(&encoder.run).unwrap_or(fresh))
    }

    /// What the run folder holds of the same. What is no entry (any more) is computed again.
    fn saved(&self, run: &RunFolder) -> Option<Entry> {
        let bytes = std::fs::read(self.file(run)).ok()?;
        let found: Entry = serde_json::from_slice(&bytes).ok()?;
        (found.identity == self.identity).then_some(found)
    }

    /// How many fits or trainings of `options` it lacks: of a linear classifier one for each encoder; else one for
    /// each rate and decay that was not tried, and one more on all images.
    pub fn lacks(&self, options: &TransferOptions) -> usize {
        if !self.protocol.trains() {
            let missing = |outcome: &Option<Outcome>| usize::from(outcome.is_none());
            let random = if options.with_random { missing(&self.random) } else { 0 };
            return missing(&self.trained) + random;
        }
        let grid = &options.tuning.grid;
        let untried = grid.points().filter(|&(rate, decay)| self.point(rate, decay).is_none()).count();
        let is_last_done = untried == 0 && self.best().is_some_and(|best| self.is_of(best));
        untried + usize::from(!is_last_done)
    }

    /// What was found with a rate and a decay.
    pub(super) fn point(&self, rate: f64, decay: f64) -> Option<GridPoint> {
        self.grid.iter().find(|point| (point.rate, point.decay) == (rate, decay)).copied()
    }

    /// What did best of all that was tried on the validation images, and does not fail on all; of equals the first: a
    /// smaller grid takes nothing back.
    pub(super) fn best(&self) -> Option<GridPoint> {
        let tried = self.grid.iter().copied();
        let better =
            |best: GridPoint, other: GridPoint| if other.validation > best.validation { other } else { best };
        tried.filter(|point| point.validation.is_some() && !point.fails_on_all).reduce(better)
    }

    /// Records that the loss becomes no number with the rate and decay of `point` on all images.
    pub(super) fn fails_on_all(&mut self, point: GridPoint) {
        let is = |other: &&mut GridPoint| (other.rate, other.decay) == (point.rate, point.decay);
        self.grid.iter_mut().filter(is).for_each(|point| point.fails_on_all = true);
    }

    /// Whether its outcome is of the rate and decay of `point`.
    pub(super) fn is_of(&self, point: GridPoint) -> bool {
        let chosen = self.trained.as_ref().map(|outcome| &outcome.chosen);
        chosen.is_some_and(|chosen| {
            let is = |key, value: f64| chosen.get(key).is_some_and(|chosen| *chosen == value);
            is("rate", point.rate) && is("decay", point.decay)
        })
    }

    /// Writes it, whole or not at all, with what another process has found of the same meanwhile, which it takes in:
    /// a grid may be tried in parts, on several GPUs at once.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub(super) fn save(&mut self, run: &RunFolder) -> Result<(), EvalError> {
        if let Some(saved) = self.saved(run) {
            self.take_in(saved);
        }
        Ok(run.write_evaluation(&self.name(), self)?)
    }

    /// Adds what `other` knows and it does not; of two outcomes the one that did better on the validation images.
    fn take_in(&mut self, other: Entry) {
        for point in other.grid {
            match self.grid.iter_mut().find(|own| (own.rate, own.decay) == (point.rate, point.decay)) {
                Some(own) => own.fails_on_all |= point.fails_on_all,
                None => self.grid.push(point),
            }
        }
        let better = |own: Option<Outcome>, other: Option<Outcome>| match (own, other) {
            (Some(own), Some(other)) if other.validation > own.validation => Some(other),
            (own, other) => own.or(other),
        };
        self.trained = better(self.trained.take(), other.trained);
        self.random = better(self.random.take(), other.random);
    }

    /// The folder of all entries in a run folder.
    pub fn folder(run: &RunFolder) -> PathBuf {
        run.evaluation(FOLDER).with_extension("")
    }

    /// Its file in a run folder.
    pub fn file(&self, run: &RunFolder) -> PathBuf {
        run.evaluation(&self.name())
    }

    fn name(&self) -> String {
        format!("{FOLDER}/{}-{}-{}", self.set, self.protocol.word(), self.identity.short())
    }

    /// The data set of the paper that it is of by its name and its number of classes.
    fn known(&self) -> Option<&'static Known> {
        Known::of(&self.set).filter(|known| known.has(self.classes))
    }

    /// Its data set's name for people.
    pub fn title(&self) -> &str {
        self.known().map_or(&self.set, |known| known.title)
    }

    /// What [another network](super::PAPERS_NETWORK) reached, as a fraction, where the paper judged the data set by
    /// the same metric.
    pub fn paper(&self) -> Option<f64> {
        let known = self.known().filter(|known| known.metric == self.identity.metric)?;
        Some(known.paper(self.protocol))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_settings_that_do_as_well_the_first_is_taken() {
        let point = |rate: f64, validation: Option<f64>, fails_on_all: bool| GridPoint {
            rate,
            decay: 0.0,
            validation,
            validation_images: 9,
            fails_on_all,
            seconds: 0.0,
        };
        let identity = json!({ "encoder": "", "data": "", "metric": "top1", "seed": 0, "version": 1 });
        let entry = json!({
            "set": "a", "protocol": "finetune", "identity": identity, "step": 1, "classes": 2, "trained": null, "random": null,
        });
        let mut entry: Entry = serde_json::from_value(entry).unwrap();
        assert_eq!(entry.best(), None);
        entry.grid = vec![
            point(0.1, None, false),
            point(0.2, Some(0.5), false),
            point(0.3, Some(0.7), false),
            point(0.4, Some(0.7), false),
            point(0.5, Some(0.9), true),
        ];
        assert_eq!(entry.best().map(|best| best.rate), Some(0.3));
    }
}
