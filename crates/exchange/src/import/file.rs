//! A safetensors file of weights.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};
use simclr_train::checkpoint::NamedTensor;

use crate::{ExchangeError, Result};

/// How the files begin that `torch.save` writes: zip archives, and pickles of protocol 2 before 2020.
const PICKLES: [&[u8]; 2] = [b"PK\x03\x04", b"\x80\x02"];

/// A file whose header has been read; its tensors are looked at one by one.
pub(super) struct WeightsFile {
    pub path: PathBuf,
    /// What stands beside the tensors.
    pub metadata: HashMap<String, String>,
    header: Metadata,
    /// Where the first tensor begins in `bytes`.
    start: usize,
    bytes: Vec<u8>,
}

impl WeightsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ExchangeError::Pickle`], [`ExchangeError::NotSafetensors`], [`ExchangeError::Io`].
    pub fn read(path: &Path) -> Result<WeightsFile> {
        let io = |source| ExchangeError::Io { path: path.to_owned(), source };
        let no_file = |reason: String| ExchangeError::NotSafetensors { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            return Err(no_file("it is a folder".to_owned()));
        }
        // Before all of it is read: the length of the header, and where that begins.
        let mut bytes = Vec::new();
        (&mut file).take(9).read_to_end(&mut bytes).map_err(io)?;
        if PICKLES.iter().any(|start| bytes.starts_with(start)) {
            return Err(ExchangeError::Pickle { path: path.to_owned() });
        }
        match bytes.split_first_chunk::<8>() {
            Some((length, b"{")) if u64::from_le_bytes(*length) < metadata.len() => {}
            _ => return Err(no_file("it does not begin as one".to_owned())),
        }
        file.read_to_end(&mut bytes).map_err(io)?;
        let (length, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| no_file(error.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(WeightsFile { path: path.to_owned(), metadata, header, start: size_of::<u64>() + length, bytes })
    }

    /// The tensors' names, in order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let mut names = self.header.offset_keys();
        names.sort_unstable();
        names.into_iter()
    }

    /// The sides of a tensor, where it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| info.shape.as_slice())
    }

    /// A tensor in f32.
    ///
    /// # Errors
    /// One that is not there, is not of floating point of 16 or 32 bits, or is not finite.
    pub fn tensor(&self, name: &str) -> Result<NamedTensor> {
        let missing = || self.problem(format!("tensor `{name}` is missing"));
        let info = self.header.info(name).ok_or_else(missing)?;
        // Reading the header has made sure that they lie within the file.
        let bytes = &self.bytes[self.start..][info.data_offsets.0..info.data_offsets.1];
        let data: Vec<f32> = match info.dtype {
            Dtype::F32 => bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            Dtype::F16 => {
                bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes).to_f32()).collect()
            }
            Dtype::BF16 => {
                bytes.as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes).to_f32()).collect()
            }
            other => {
                return Err(self.problem(format!("tensor `{name}` is {other:?}, expected F32, F16 or BF16")));
            }
        };
        match data.iter().all(|value| value.is_finite()) {
            true => Ok(NamedTensor { name: name.to_owned(), shape: info.shape.clone(), data }),
            false => Err(ExchangeError::NotFinite { name: name.to_owned() }),
        }
    }

    /// An error of this file.
    pub fn problem(&self, problem: String) -> ExchangeError {
        ExchangeError::Weights { path: self.path.clone(), problem }
    }
}
