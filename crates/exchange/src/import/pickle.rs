//! A file of `torch.save`: a pickle of dictionaries, of which the tensors are read. Nothing in it is run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader, Tensor};

use super::weights::Source;
use crate::{ExchangeError, Result};

/// How such a file begins: as a zip archive, or, before 2020, as a pickle of protocol 2.
const STARTS: [&[u8]; 2] = [b"PK\x03\x04", b"\x80\x02"];

/// A file whose pickle has been read. A tensor's name is the keys that lead to it, with points between them.
#[derive(Debug)]
pub(super) struct Pickle {
    path: PathBuf,
    /// Bytes of the file.
    length: u64,
    tensors: HashMap<String, Tensor>,
}

impl Pickle {
    /// Whether a file that begins so may be one.
    pub fn begins(start: &[u8]) -> bool {
        STARTS.iter().any(|known| start.starts_with(known))
    }

    /// Reads a file, but no values yet.
    ///
    /// # Errors
    /// A file that cannot be read, or is none of PyTorch's.
    pub fn read(path: &Path) -> Result<Pickle> {
        let length =
            path.metadata().map_err(|source| ExchangeError::Io { path: path.to_owned(), source })?.len();
        let reader = PytorchReader::new(path).map_err(|error| ExchangeError::Weights {
            path: path.to_owned(),
            problem: format!("it cannot be read as a file of PyTorch's: {error}"),
        })?;
        Ok(Pickle { path: path.to_owned(), length, tensors: reader.into_tensors() })
    }
}

impl Source for Pickle {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let problem = |what: String| ExchangeError::Weights {
            path: self.path.clone(),
            problem: format!("tensor `{name}` {what}"),
        };
        let tensor = self.tensors.get(name).ok_or_else(|| problem("is missing".to_owned()))?;
        // A view that repeats values may claim any number of them.
        if tensor.byte_len() as u64 > self.length {
            return Err(problem(format!("takes {} bytes, more than its file has", tensor.byte_len())));
        }
        let bytes = || tensor.read().map_err(|error| problem(format!("cannot be read: {error}")));
        Ok(match tensor.dtype() {
            DType::F32 => bytes()?.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)).collect(),
            DType::F16 => {
                bytes()?.as_chunks().0.iter().map(|&bytes| f16::from_ne_bytes(bytes).to_f32()).collect()
            }
            DType::BF16 => {
                bytes()?.as_chunks().0.iter().map(|&bytes| bf16::from_ne_bytes(bytes).to_f32()).collect()
            }
            other => return Err(problem(format!("is {other:?}, expected F32, F16 or BF16"))),
        })
    }
}
