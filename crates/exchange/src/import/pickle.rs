//! A file of `torch.save`: a pickle of dictionaries, of which the tensors are read. Nothing in it is run.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader, Tensor};
use zip::ZipArchive;
use zip::result::ZipError;

use super::weights::Source;
use crate::{ExchangeError, Result};

/// How such a file begins: as a zip archive, or, before 2020, as a pickle of whatever protocol.
const STARTS: [&[u8]; 2] = [ARCHIVE, b"\x80"];
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// A file holds no more than this many times its length: `torch.save` compresses nothing, and weights cannot be
/// compressed so far.
const TIMES: u64 = 4;
/// The pickle of a ResNet takes some 20 to 200 kB, an optimiser's state as much again. Each of its bytes may become
/// an object of some 180. That is so of files that are no archives too, where nothing tells the pickle's length
/// before it is read: no more than the file's.
const PICKLE_LIMIT: u64 = 4 << 20;
const PICKLE: &str = "data.pkl";

/// A file whose pickle has been read. A tensor's name is the keys that lead to it, with points between them.
#[derive(Debug)]
pub(super) struct Pickle {
    path: PathBuf,
    /// Bytes of tensors that may still be read: tensors that share values, and views that repeat them, may claim
    /// any number.
    left: Cell<u64>,
    tensors: HashMap<String, Tensor>,
}

impl Pickle {
    /// Whether a file that begins so may be one.
    pub fn begins(start: &[u8]) -> bool {
        STARTS.iter().any(|known| start.starts_with(known))
    }

    /// Reads a file that begins with `start`, but no values yet.
    ///
    /// # Errors
    /// A file that cannot be read, is none of PyTorch's, or would hold many times its length.
    pub fn read(path: &Path, start: &[u8]) -> Result<Pickle> {
        let io = |source| ExchangeError::Io { path: path.to_owned(), source };
        let problem = |problem| ExchangeError::Weights { path: path.to_owned(), problem };
        let unread =
            |error: &dyn Display| problem(format!("it cannot be read as a file of PyTorch's: {error}"));
        let file = File::open(path).map_err(io)?;
        let limit = file.metadata().map_err(io)?.len().saturating_mul(TIMES);
        if start.starts_with(ARCHIVE) {
            let sizes = sizes(file).map_err(|error| unread(&error))?;
            if sizes.pickle > PICKLE_LIMIT {
                return Err(problem(format!(
                    "its {PICKLE} has {} bytes, expected at most {PICKLE_LIMIT}",
                    sizes.pickle
                )));
            }
            if sizes.all > limit {
                return Err(problem(format!(
                    "unpacked, it has {} bytes, more than {TIMES} times its length: save it with torch.save, which does not compress",
                    sizes.all
                )));
            }
        }
        let reader = PytorchReader::new(path).map_err(|error| unread(&error))?;
        Ok(Pickle { path: path.to_owned(), left: Cell::new(limit), tensors: reader.into_tensors() })
    }
}

/// Bytes of what an archive holds, unpacked.
#[derive(Default)]
struct Sizes {
    /// The largest pickle.
    pickle: u64,
    all: u64,
}

fn sizes(archive: File) -> std::result::Result<Sizes, ZipError> {
    let mut archive = ZipArchive::new(BufReader::new(archive))?;
    let mut sizes = Sizes::default();
    for number in 0..archive.len() {
        // What unpacks to more than is said here is an error when it is read.
        let entry = archive.by_index_raw(number)?;
        sizes.all = sizes.all.saturating_add(entry.size());
        if entry.name_raw().ends_with(PICKLE.as_bytes()) {
            sizes.pickle = sizes.pickle.max(entry.size());
        }
    }
    Ok(sizes)
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
        let Some(left) = self.left.get().checked_sub(tensor.byte_len() as u64) else {
            return Err(problem(format!(
                "takes {} bytes, with the tensors before it more than {TIMES} times what its file has",
                tensor.byte_len()
            )));
        };
        self.left.set(left);
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
