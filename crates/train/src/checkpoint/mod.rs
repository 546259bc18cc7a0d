//! Checkpoints: everything needed to resume a run bit for bit, in one file with a checksum.

mod folder;
mod format;
mod meta;

use std::path::Path;

pub(crate) use folder::is_left_over;
pub use folder::{Checkpoints, LoadedCheckpoint};
pub use meta::{Best, Extra, Meta};

use crate::TrainError;
use crate::file_system::{FileSystem, write_atomically};
use format::{Encoded, FORMAT, Fault};

/// Prefix of the optimiser's tensors in a checkpoint.
pub(crate) const OPTIMIZER: &str = "optimizer.";

/// A tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// Its dimensions; their product is the number of values.
    pub shape: Vec<usize>,
    /// Its values, row-major; at least one. All bits are preserved, also those of NaNs.
    pub data: Vec<f32>,
}

/// The state of a run after a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Checkpoint {
    /// Parameters, BatchNorm averages and the optimiser's state, in the order of the file.
    pub tensors: Vec<NamedTensor>,
    /// The position of the run.
    pub meta: Meta,
}

impl Checkpoint {
    /// Writes the checkpoint to `path` atomically: after an error the file is as it was before.
    ///
    /// # Errors
    /// [`TrainError::BadTensor`] for a shape that does not fit its values or a name that occurs twice;
    /// [`TrainError::Io`].
    pub fn write(&self, files: &dyn FileSystem, path: &Path) -> Result<(), TrainError> {
        let encoded = Encoded::new(self)?;
        write_atomically(files, path, |out| encoded.write(out))
    }

    /// Returns the contents of the checkpoint's file.
    ///
    /// # Errors
    /// [`TrainError::BadTensor`].
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, TrainError> {
        let (encoded, mut bytes) = (Encoded::new(self)?, Vec::new());
        encoded.write(&mut bytes).map_err(TrainError::io("copy", Path::new("a checkpoint")))?;
        Ok(bytes)
    }

    /// Decodes a checkpoint that worker 0 sent.
    ///
    /// # Errors
    /// [`TrainError::Workers`] if the bytes are not a valid checkpoint.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, TrainError> {
        let broken = |_| TrainError::Workers("worker 0 sent a checkpoint that is damaged".to_owned());
        format::decode(&mut &*bytes, bytes.len() as u64).map_err(broken)
    }

    /// Checks that all values of the network are finite: a network with others is useless.
    ///
    /// # Errors
    /// [`TrainError::WeightsNotFinite`].
    pub(crate) fn check_finite(&self) -> Result<(), TrainError> {
        let mut network = self.tensors.iter().filter(|tensor| !tensor.name.starts_with(OPTIMIZER));
        match network.find(|tensor| !tensor.data.iter().all(|value| value.is_finite())) {
            Some(tensor) => Err(TrainError::WeightsNotFinite { tensor: tensor.name.clone() }),
            None => Ok(()),
        }
    }

    /// Reads a checkpoint and verifies its checksum.
    ///
    /// # Errors
    /// [`TrainError::CheckpointDamaged`] when any byte differs from what was written,
    /// [`TrainError::NewerFormat`], [`TrainError::Io`].
    pub fn read(files: &dyn FileSystem, path: &Path) -> Result<Self, TrainError> {
        let (mut file, length) = files.open(path).map_err(TrainError::io("read", path))?;
        format::decode(&mut file, length).map_err(|fault| match fault {
            Fault::Io(source) => TrainError::io("read", path)(source),
            Fault::Damaged(reason) => {
                TrainError::CheckpointDamaged { path: path.to_path_buf(), reason, previous: None }
            }
            Fault::Newer { found, program } => {
                TrainError::NewerFormat { path: path.to_path_buf(), found, supported: FORMAT, program }
            }
        })
    }

    /// Returns the tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&NamedTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }
}
