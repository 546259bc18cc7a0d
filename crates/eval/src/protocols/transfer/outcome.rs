//! The results on a data set, and how they are stored in the run folder.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Once;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simclr_train::Config;
use simclr_train::config::{Difference, Variant};
use simclr_train::run_folder::RunFolder;

use super::known::Known;
use super::tuning::GridPoint;
use super::{Protocol, TransferOptions, TransferSet};
use crate::protocols::choice::Edge;
use crate::protocols::evaluation::BrokenImage;
use crate::protocols::trained::TrainedEncoder;
use crate::{EvalError, Metric};

/// The folder of entries, below `RUN/evaluation`.
const FOLDER: &str = "transfer";
/// The file in it that a process locks while it merges and writes an entry.
const LOCK: &str = "lock";
/// The configuration keys that determine how an image is processed, before the first layer and in the network:
/// prefixes of tables, and single keys.
const OF_ENCODERS: [&str; 6] =
    ["encoder.", "data.image_size", "data.shrink", "data.background", "data.window", "train.precision"];
/// Further keys that random weights and their BatchNorms' averages depend on.
const OF_RANDOM: [&str; 3] = ["view.", "head.", "train.seed"];
/// Raised when a protocol changes what it computes, so that results of earlier versions are computed again.
const VERSION: u32 = 1;

/// The result of a protocol on a data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The data set's metric on the test images, from 0 to 1.
    pub score: f64,
    /// The metric on the validation images, before they were trained on: it was the highest of all settings.
    pub validation: f64,
    /// The chosen settings.
    pub chosen: Map<String, Value>,
    /// Images of the final training, after settings were chosen.
    pub train_images: usize,
    /// The validation images among them.
    pub validation_images: usize,
    /// Test images.
    pub test_images: usize,
    /// Images of any part that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenImage>,
    /// Classes of which no image to train on could be read; their test images still count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlearnt: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Outcome {
    /// Whether it has the rate and decay of `point`.
    fn is_of(&self, point: GridPoint) -> bool {
        let is = |key, value: f64| self.chosen.get(key).is_some_and(|chosen| *chosen == value);
        is("rate", point.rate) && is("decay", point.decay)
    }
}

/// What a result depends on: with another checkpoint, other images or another seed, results are computed anew.
///
/// Images count by their paths as the suite writes them, their names and classes; an image replaced under the same
/// name goes unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A checksum of the encoder's weights and of the configuration keys that a result depends on; of those keys alone
    /// where training starts from random weights.
    pub encoder: String,
    /// [`TransferSet::fingerprint`].
    pub data: String,
    /// The metric that judges it.
    pub metric: Metric,
    /// Seed of the draw of validation images, if they are set aside from the training images, and of training.
    pub seed: u64,
    /// The length of the training, if there was one. The grid does not count, so that points tried also serve a larger
    /// grid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// The version of the protocol, as this program implements it.
    pub version: u32,
}

/// The length of a training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Training {
    /// Steps.
    pub steps: u64,
    /// Images per step.
    pub batch: usize,
}

/// The results of a protocol on a data set, stored as `RUN/evaluation/transfer/SET-PROTOCOL-IDENTITY.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The data set's name.
    pub set: String,
    /// The protocol.
    pub protocol: Protocol,
    /// What the results depend on.
    pub identity: Identity,
    /// Training steps of the encoder.
    pub step: u64,
    /// The number of classes.
    pub classes: usize,
    /// Rates and decays tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grid: Vec<GridPoint>,
    /// The result of the trained encoder, or for [`Protocol::Scratch`] of random weights.
    pub trained: Option<Outcome>,
    /// The result of a random encoder, with a linear classifier.
    pub random: Option<Outcome>,
}

impl Identity {
    /// The identity of results of `encoder` on `set`.
    ///
    /// # Errors
    /// A GPU's memory cannot be read.
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

    /// The part of a file name that tells identities apart: training steps, seed, and a checksum of all fields.
    fn short(&self) -> String {
        let crc = crc32c::crc32c(format!("{self:?}").as_bytes());
        let steps = self.training.map_or(String::new(), |training| format!("{}-steps-", training.steps));
        format!("{steps}seed-{}-{crc:08x}", self.seed)
    }
}

/// The settings that a result by `protocol` depends on, where they differ from the defaults: so a key added by a later
/// version changes nothing, and neither does the value that a key resolves to when it is not given.
fn relevant(config: &Config, protocol: Protocol) -> String {
    // A linear classifier may be compared with one on a random encoder.
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
    /// The entry in the run folder of `encoder`, or an empty one.
    ///
    /// # Errors
    /// A GPU's memory cannot be read.
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

    /// The entry of the same identity in the run folder. A file that is not (or no longer) a valid entry is ignored.
    fn saved(&self, run: &RunFolder) -> Option<Entry> {
        let bytes = std::fs::read(self.file(run)).ok()?;
        let found: Entry = serde_json::from_slice(&bytes).ok()?;
        (found.identity == self.identity).then_some(found)
    }

    /// How many fits or trainings of `options` are missing: for a linear classifier one per encoder; otherwise one for
    /// each rate and decay not tried yet, and one more on all images.
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

    /// The point of the grid with this rate and decay, if it was tried.
    pub(super) fn point(&self, rate: f64, decay: f64) -> Option<GridPoint> {
        self.grid.iter().find(|point| (point.rate, point.decay) == (rate, decay)).copied()
    }

    /// The best point tried so far on the validation images, among those that do not diverge on all images; the first
    /// among equals. Points outside a smaller grid still count.
    pub(super) fn best(&self) -> Option<GridPoint> {
        let tried = self.grid.iter().copied();
        let better =
            |best: GridPoint, other: GridPoint| if other.validation > best.validation { other } else { best };
        tried.filter(|point| point.validation.is_some() && !point.fails_on_all).reduce(better)
    }

    /// The chosen rate and its edge, if it is the lowest or the highest that was tried with its decay, and better than
    /// the next, so that a rate beyond it may be better still.
    pub fn rate_at_edge(&self) -> Option<(f64, Edge)> {
        let chosen = &self.trained.as_ref()?.chosen;
        let number = |key| chosen.get(key).and_then(Value::as_f64);
        let (rate, decay) = number("rate").zip(number("decay"))?;
        let tried = self.grid.iter().filter(|point| point.decay == decay);
        Some((rate, Edge::of(rate, tried.map(|point| (point.rate, point.validation)))?))
    }

    /// Records that training on all images diverges with the rate and decay of `point`.
    pub(super) fn fails_on_all(&mut self, point: GridPoint) {
        let is = |other: &&mut GridPoint| (other.rate, other.decay) == (point.rate, point.decay);
        self.grid.iter_mut().filter(is).for_each(|point| point.fails_on_all = true);
    }

    /// Whether its outcome has the rate and decay of `point`.
    pub(super) fn is_of(&self, point: GridPoint) -> bool {
        self.trained.as_ref().is_some_and(|outcome| outcome.is_of(point))
    }

    /// Writes the entry, whole or not at all, after merging what another process has stored of the same in the
    /// meantime: several GPUs may try parts of a grid at the same time.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written, [`EvalError::Io`] when its folder cannot be locked.
    pub(super) fn save(&mut self, run: &RunFolder) -> Result<(), EvalError> {
        let _lock = lock(&Entry::folder(run))?;
        if let Some(saved) = self.saved(run) {
            self.take_in(saved);
        }
        Ok(run.write_evaluation(&self.name(), self)?)
    }

    /// Merges `other`, which was stored first. If both tried a point, the score of `other` counts. If both have an
    /// outcome, that of the best point counts, or else the one that did better on the validation images.
    fn take_in(&mut self, other: Entry) {
        for point in other.grid {
            match self.grid.iter_mut().find(|own| (own.rate, own.decay) == (point.rate, point.decay)) {
                Some(own) => {
                    let fails_on_all = own.fails_on_all || point.fails_on_all;
                    *own = GridPoint { fails_on_all, ..point };
                }
                None => self.grid.push(point),
            }
        }
        let best = self.best();
        let worth = |outcome: &Outcome| (best.is_some_and(|best| outcome.is_of(best)), outcome.validation);
        let better = |own: Option<Outcome>, other: Option<Outcome>| match (own, other) {
            (Some(own), Some(other)) if worth(&other) > worth(&own) => Some(other),
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

    /// The paper's data set, by this name and number of classes.
    fn known(&self) -> Option<&'static Known> {
        Known::of(&self.set).filter(|known| known.has(self.classes))
    }

    /// The data set's name for people.
    pub fn title(&self) -> &str {
        self.known().map_or(&self.set, |known| known.title)
    }

    /// The result of [another network](super::PAPERS_NETWORK), as a fraction, if the paper judged the data set by the
    /// same metric.
    pub fn paper(&self) -> Option<f64> {
        Some(self.comparable()?.paper(self.protocol))
    }

    /// Likewise the result of that network after supervised training.
    pub fn paper_supervised(&self) -> Option<f64> {
        self.comparable()?.supervised(self.protocol)
    }

    /// The paper's data set, if the metric is the same.
    fn comparable(&self) -> Option<&'static Known> {
        self.known().filter(|known| known.metric == self.identity.metric)
    }
}

/// Waits until no other process has the lock of `folder`, and locks it until the file is dropped. A file system without
/// locks does without.
///
/// # Errors
/// [`EvalError::Io`] when the file cannot be created.
fn lock(folder: &Path) -> Result<File, EvalError> {
    let path = folder.join(LOCK);
    let create = || {
        fs::create_dir_all(folder)?;
        OpenOptions::new().write(true).create(true).truncate(false).open(&path)
    };
    let file = create().map_err(|source| EvalError::Io { path: path.clone(), source })?;
    if let Err(error) = file.lock() {
        // Only once, as there may be a result every minute.
        static WARNED: Once = Once::new();
        WARNED.call_once(|| {
            tracing::warn!("{} cannot be locked ({error}): let no other process write there", path.display());
        });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use serde_json::json;

    use super::*;

    /// An entry without results.
    fn empty() -> Entry {
        let identity = json!({ "encoder": "", "data": "", "metric": "top1", "seed": 0, "version": 1 });
        let entry = json!({
            "set": "a", "protocol": "finetune", "identity": identity, "step": 1, "classes": 2, "trained": null, "random": null,
        });
        serde_json::from_value(entry).unwrap()
    }

    fn point(rate: f64, validation: Option<f64>, fails_on_all: bool) -> GridPoint {
        GridPoint { rate, decay: 0.0, validation, validation_images: 9, fails_on_all, seconds: 0.0 }
    }

    #[test]
    fn what_processes_save_at_the_same_time_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        drop(RunFolder::create(&path, &Config::default()).unwrap());
        let (writers, points) = (4, 25);
        thread::scope(|scope| {
            for writer in 0..writers {
                let path = &path;
                scope.spawn(move || {
                    let (run, mut entry) = (RunFolder::open(path).unwrap().0, empty());
                    for number in 0..points {
                        entry.grid.push(point(f64::from(writer * points + number), Some(0.5), false));
                        entry.save(&run).unwrap();
                    }
                });
            }
        });
        let saved = empty().saved(&RunFolder::open(&path).unwrap().0).unwrap();
        assert_eq!(saved.grid.len() as u32, writers * points);
    }

    fn outcome(of: GridPoint) -> Outcome {
        serde_json::from_value(json!({
            "score": 0.5, "validation": of.validation, "chosen": { "rate": of.rate, "decay": of.decay },
            "train_images": 9, "validation_images": 9, "test_images": 9, "seconds": 0.0,
        }))
        .unwrap()
    }

    /// Otherwise the best point would be trained again and again, each time in vain.
    #[test]
    fn a_merged_outcome_is_of_the_best_point() {
        let (low, good) = (point(0.1, Some(0.5), false), point(0.2, Some(0.7), false));
        let own = Entry { grid: vec![low, good], trained: Some(outcome(good)), ..empty() };
        let high = point(0.1, Some(0.9), false);
        for (stored, rate) in [
            // Tried elsewhere too, with another score: the one stored first counts.
            (high, 0.1),
            // It diverges on all images, whatever an earlier outcome says.
            (GridPoint { fails_on_all: true, ..high }, 0.2),
        ] {
            let mut merged = own.clone();
            merged.take_in(Entry { grid: vec![stored], trained: Some(outcome(stored)), ..empty() });
            let best = merged.best().unwrap();
            assert_eq!(best.rate, rate);
            assert!(merged.is_of(best), "{merged:?}");
        }
    }

    #[test]
    fn of_settings_that_do_as_well_the_first_is_taken() {
        let mut entry = empty();
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
