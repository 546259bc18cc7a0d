//! What was found on a data set, and how it is kept in the run folder.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use simclr_train::TrainError;
use simclr_train::run_folder::RunFolder;

use super::known::{KNOWN, Known};
use super::{Protocol, TransferSet};
use crate::protocols::evaluation::BrokenImage;
use crate::protocols::trained::TrainedEncoder;
use crate::{EvalError, Metric};

/// Where entries lie, below `RUN/evaluation`.
const FOLDER: &str = "transfer";
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
    /// Images learnt from while settings were chosen; at the end the validation images were, too.
    pub train_images: usize,
    /// Images that settings were chosen by.
    pub validation_images: usize,
    /// Images that it was judged by.
    pub test_images: usize,
    /// Images of any of them that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<BrokenImage>,
    /// What it took.
    pub seconds: f64,
}

/// What a result depends on: another checkpoint, other images, another seed make another one, and results of it are computed anew.
///
/// Images count by their names and classes; one that is replaced under its name goes unnoticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// A checksum of the encoder's weights and of its configuration.
    pub encoder: String,
    /// [`TransferSet::fingerprint`].
    pub data: String,
    /// What judges it.
    pub metric: Metric,
    /// Draws the validation images where they are a part of those to learn from.
    pub seed: u64,
    /// Of the protocol, as this program carries it out.
    pub version: u32,
}

/// A data set's results by one protocol, as `RUN/evaluation/transfer/SET-PROTOCOL.json` holds them.
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
    /// The trained encoder's.
    pub trained: Option<Outcome>,
    /// The randomly initialised encoder's.
    pub random: Option<Outcome>,
}

impl Identity {
    /// Of results of `encoder` on `set`.
    ///
    /// # Errors
    /// A GPU's memory that cannot be read.
    pub(super) fn of(encoder: &TrainedEncoder, set: &TransferSet, seed: u64) -> Result<Identity, EvalError> {
        let mut crc = encoder.model.fingerprint()?;
        // What is done to images before the first layer is told there.
        crc = crc32c::crc32c_append(crc, encoder.config.to_toml()?.as_bytes());
        let hex = |crc: u32| format!("{crc:08x}");
        let metric = set.spec.metric;
        Ok(Identity { encoder: hex(crc), data: hex(set.fingerprint), metric, seed, version: VERSION })
    }
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
        seed: u64,
    ) -> Result<Entry, EvalError> {
        let fresh = Entry {
            set: set.spec.name.clone(),
            protocol,
            identity: Identity::of(encoder, set, seed)?,
            step: encoder.step,
            classes: set.classes.len(),
            trained: None,
            random: None,
        };
        let file = fresh.file(&encoder.run);
        // What is no entry (any more) is computed again.
        let found = std::fs::read(file).ok().and_then(|bytes| serde_json::from_slice::<Entry>(&bytes).ok());
        Ok(found.filter(|found| found.identity == fresh.identity).unwrap_or(fresh))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`EvalError::Train`] when it cannot be written.
    pub(super) fn save(&self, run: &RunFolder) -> Result<(), TrainError> {
        run.write_evaluation(&self.name(), self)
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
        format!("{FOLDER}/{}-{}", self.set, self.protocol.word())
    }

    /// Its data set's name for people.
    pub fn title(&self) -> &str {
        Known::of(&self.set).map_or(&self.set, |known| known.title)
    }

    /// What [another network](super::PAPERS_NETWORK) reached, as a fraction, where the paper judged the data set by the same metric.
    pub fn paper(&self) -> Option<f64> {
        let known = Known::of(&self.set).filter(|known| known.metric == self.identity.metric)?;
        Some(known.paper(self.protocol))
    }

    /// Results in the order of a page: the paper's data sets as the paper has them, then others by name.
    pub(in crate::protocols) fn place(&self) -> (usize, &str, Protocol) {
        let place = KNOWN.iter().position(|known| known.name == self.set);
        (place.unwrap_or(KNOWN.len()), &self.set, self.protocol)
    }
}
