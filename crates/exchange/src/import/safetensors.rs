//! A safetensors file of weights.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use super::weights::{START, Source};
use crate::trained::Facts;
use crate::{ExchangeError, Result};

/// A file whose header has been read.
#[derive(Debug)]
pub(super) struct Safetensors {
    path: PathBuf,
    /// What stands beside the tensors.
    metadata: HashMap<String, String>,
    header: Metadata,
    /// Where the first tensor begins in `bytes`.
    start: usize,
    bytes: Vec<u8>,
}

impl Safetensors {
    /// Whether a file of so many bytes that begins so may be one: with the length of its header, and the header,
    /// which is JSON.
    pub fn begins(start: &[u8], length: u64) -> bool {
        matches!(start.split_first_chunk(), Some((header, [b'{', ..])) if u64::from_le_bytes(*header) < length)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ExchangeError::NoWeights`], [`ExchangeError::Io`].
    pub fn read(path: &Path) -> Result<Safetensors> {
        let io = |source| ExchangeError::Io { path: path.to_owned(), source };
        let no_file = |reason: String| ExchangeError::NoWeights { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        // Before all of it is read.
        let mut bytes = Vec::new();
        (&mut file).take(START).read_to_end(&mut bytes).map_err(io)?;
        if !Safetensors::begins(&bytes, length) {
            return Err(no_file("it begins as none of these".to_owned()));
        }
        file.read_to_end(&mut bytes).map_err(io)?;
        let (length, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|error| no_file(format!("its header is damaged: {error}")))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Safetensors { path: path.to_owned(), metadata, header, start: size_of::<u64>() + length, bytes })
    }

    /// What the file tells beside its tensors.
    pub fn facts(&self) -> Facts {
        Facts::of(&self.metadata)
    }
}

impl Source for Safetensors {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.header.tensors().into_iter().map(|(name, info)| (name, info.shape.clone())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let problem = |what: String| ExchangeError::Weights {
            path: self.path.clone(),
            problem: format!("tensor `{name}` {what}"),
        };
        let info = self.header.info(name).ok_or_else(|| problem("is missing".to_owned()))?;
        // Reading the header has made sure that they lie within the file.
        let bytes = &self.bytes[self.start..][info.data_offsets.0..info.data_offsets.1];
        Ok(match info.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F16 => {
                bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
            }
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
            other => return Err(problem(format!("is {other:?}, expected F32, F16 or BF16"))),
        })
    }
}
