//! A safetensors file of weights.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};

use super::weights::{START, Source, TYPES, each, open};
use crate::checksum::{CHECKSUM, Checksum};
use crate::trained::{Facts, is_own};
use crate::{ExchangeError, Result};

/// The longest header that the format allows, in bytes.
const MAX_HEADER_LEN: u64 = 100_000_000;

/// A file whose header has been read.
#[derive(Debug)]
pub(super) struct Safetensors {
    path: PathBuf,
    /// The metadata beside the tensors.
    metadata: HashMap<String, String>,
    header: Metadata,
    /// Where the first tensor begins in `bytes`.
    start: usize,
    bytes: Vec<u8>,
}

/// Whether `path` is an undamaged file that this program wrote for a network of `step` steps.
pub(crate) fn is_of_step(path: &Path, step: u64) -> bool {
    Safetensors::read(path).is_ok_and(|file| {
        // Without a checksum there is no telling whether it is undamaged.
        let is_checked = is_own(&file.metadata) && file.fact(CHECKSUM).is_some();
        is_checked && file.facts().is_ok_and(|facts| facts.step == step)
    })
}

impl Safetensors {
    /// Whether a file with these first bytes is one: the length of its header, then the header, which is JSON.
    pub fn begins(start: &[u8]) -> bool {
        matches!(start.split_first_chunk(), Some((length, [b'{', ..])) if u64::from_le_bytes(*length) <= MAX_HEADER_LEN)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A file that is not a safetensors file, is damaged, or cannot be read.
    pub fn read(path: &Path) -> Result<Safetensors> {
        let io = |source| ExchangeError::Io { path: path.to_owned(), source };
        let mut file = open(path)?;
        // Checked before the whole file is read.
        let mut bytes = Vec::new();
        (&mut file).take(START).read_to_end(&mut bytes).map_err(io)?;
        if !Safetensors::begins(&bytes) {
            let reason = "it begins like none of these".to_owned();
            return Err(ExchangeError::NoWeights { path: path.to_owned(), reason });
        }
        file.read_to_end(&mut bytes).map_err(io)?;
        let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
            ExchangeError::weights(path, format!("this safetensors file is damaged or cut short: {error}"))
        })?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let start = size_of::<u64>() + length;
        let file = Safetensors { path: path.to_owned(), metadata, header, start, bytes };
        file.check()?;
        Ok(file)
    }

    /// Compares the contents with the checksum in the metadata, which only this program writes.
    fn check(&self) -> Result<()> {
        let Some(stored) = self.fact(CHECKSUM).filter(|_| is_own(&self.metadata)) else {
            return Ok(());
        };
        let mut checksum = Checksum::of_metadata(&self.metadata);
        for (name, info) in self.header.tensors() {
            checksum.add_tensor(&name, info.dtype, &info.shape, [self.bytes_of(info)]);
        }
        if checksum.digits() == stored {
            return Ok(());
        }
        let problem = format!(
            "it is damaged, or another program changed it: its contents do not match its checksum; write or copy it \
            again, or, where the change was meant, take `{CHECKSUM}` out of its metadata"
        );
        Err(ExchangeError::weights(&self.path, problem))
    }

    /// The bytes of a tensor; reading the header has checked that they lie within the file.
    fn bytes_of(&self, info: &TensorInfo) -> &[u8] {
        &self.bytes[self.start..][info.data_offsets.0..info.data_offsets.1]
    }

    /// The value of a metadata key.
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).map(String::as_str)
    }

    /// The facts that the file states beside its tensors.
    ///
    /// # Errors
    /// Those of [`Facts::of`].
    pub fn facts(&self) -> Result<Facts> {
        Facts::of(&self.metadata).map_err(|problem| ExchangeError::weights(&self.path, problem))
    }
}

impl Source for Safetensors {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let problem = |what: &str| ExchangeError::tensor(&self.path, name, what);
        let info = self.header.info(name).ok_or_else(|| problem("is missing"))?;
        let bytes = self.bytes_of(info);
        Ok(match info.dtype {
            Dtype::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F32 => each(bytes, f32::from_le_bytes),
            Dtype::F16 => each(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => each(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => return Err(problem(&format!("is {other:?}, expected {TYPES}"))),
        })
    }
}
