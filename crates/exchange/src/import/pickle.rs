//! A `torch.save` file: a pickle of dictionaries, from which tensors are read. No code in it is run.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use zip::ZipArchive;
use zip::read::ZipReadOptions;
use zip::result::ZipError;

use super::weights::{Source, TYPES, each};
use crate::{ExchangeError, Result};

/// The first bytes of such a file: those of a zip archive or, before 2020, of a pickle of any protocol.
const STARTS: [&[u8]; 2] = [ARCHIVE, b"\x80"];
const ARCHIVE: &[u8] = b"PK\x03\x04";
/// A file unpacks to at most this many times its length: `torch.save` compresses nothing, and weights do not
/// compress so far.
const TIMES: u64 = 4;
/// The most bytes of a pickle. A ResNet's takes some 20 to 200 kB, and an optimiser's state as much again; each byte
/// may become an object of some 180 bytes. In files that are not archives, the length of the pickle is unknown before
/// it is read, but at most the file's.
const PICKLE_LIMIT: u64 = 4 << 20;
const PICKLE: &str = "data.pkl";
/// The end of the arguments of a tensor with the negative bit, in pickles of protocol 2 or later: `{"neg": True}`,
/// where a memo opcode may follow the name.
const NEGATIVE: [&[u8]; 2] = [b"neg", b"\x88st"];

/// A file whose pickle has been read. A tensor's name is the keys that lead to it, joined by dots.
#[derive(Debug)]
pub(super) struct Pickle {
    path: PathBuf,
    /// Bytes of tensors that may still be read. Tensors that share values, and views that repeat them, could claim any
    /// number.
    left: Cell<u64>,
    tensors: HashMap<String, Tensor>,
}

impl Pickle {
    /// Whether a file with these first bytes may be one.
    pub fn begins(start: &[u8]) -> bool {
        STARTS.iter().any(|known| start.starts_with(known))
    }

    /// Reads the pickle of a file that begins with `start`, but no tensor values.
    ///
    /// # Errors
    /// A file that cannot be read, is not a PyTorch file, would unpack to many times its length, or has tensors with
    /// the negative bit.
    pub fn read(path: &Path, start: &[u8]) -> Result<Pickle> {
        let io = |source| ExchangeError::Io { path: path.to_owned(), source };
        let problem = |problem: String| ExchangeError::weights(path, problem);
        let unread =
            |error: &dyn Display| problem(format!("it cannot be read as a file of PyTorch's: {error}"));
        let file = File::open(path).map_err(io)?;
        let limit = file.metadata().map_err(io)?.len().saturating_mul(TIMES);
        let mut pickles = Vec::new();
        if start.starts_with(ARCHIVE) {
            let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| unread(&error))?;
            let sizes = sizes(&mut archive).map_err(|error| unread(&error))?;
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
            read_pickles(&mut archive, &mut pickles).map_err(|error| unread(&error))?;
            compare_checksums(&mut archive).map_err(|error| problem(format!("it is damaged: {error}")))?;
        } else {
            file.take(PICKLE_LIMIT).read_to_end(&mut pickles).map_err(io)?;
        }
        let reader = PytorchReader::new(path).map_err(|error| match error {
            PytorchError::Io(_) => unread(&error),
            // TorchScript, `torch.export`, or another program's pickle.
            _ => {
                let error = error.to_string();
                let error = error.trim_end_matches('.');
                unread(&format!("{error}; save `network.state_dict()` with torch.save"))
            }
        })?;
        // The reader does not report which tensors have it.
        if turns_signs(&pickles) {
            return Err(problem(
                "it has tensors whose sign is turned when they are read (`tensor.is_neg()`): save \
                 `tensor.resolve_neg()` in their places"
                    .to_owned(),
            ));
        }
        Ok(Pickle { path: path.to_owned(), left: Cell::new(limit), tensors: reader.into_tensors() })
    }
}

type Archive = ZipArchive<BufReader<File>>;

/// Unpacked sizes of the contents of an archive, in bytes.
#[derive(Default)]
struct Sizes {
    /// The largest pickle.
    pickle: u64,
    all: u64,
}

fn sizes(archive: &mut Archive) -> std::result::Result<Sizes, ZipError> {
    let mut sizes = Sizes::default();
    for number in 0..archive.len() {
        // An entry that unpacks to more than its stated size is an error when it is read.
        let entry = archive.by_index_raw(number)?;
        sizes.all = sizes.all.saturating_add(entry.size());
        if entry.name_raw().ends_with(PICKLE.as_bytes()) {
            sizes.pickle = sizes.pickle.max(entry.size());
        }
    }
    Ok(sizes)
}

/// Reads the pickles of an archive.
fn read_pickles(archive: &mut Archive, out: &mut Vec<u8>) -> std::result::Result<(), ZipError> {
    for number in 0..archive.len() {
        let entry = archive.by_index_raw(number)?;
        if entry.name_raw().ends_with(PICKLE.as_bytes()) {
            // PyTorch writes 0 where it is told to compute no checksums.
            let options = ZipReadOptions::new().ignore_crc32(entry.crc32() == 0);
            drop(entry);
            archive.by_index_with_options(number, options)?.take(PICKLE_LIMIT).read_to_end(out)?;
        }
    }
    Ok(())
}

/// Reads all of an archive, whose contents are else read in part where tensors share values: the checksum of a file in
/// it is compared at its end.
fn compare_checksums(archive: &mut Archive) -> std::result::Result<(), ZipError> {
    for number in 0..archive.len() {
        // PyTorch writes 0 where it is told to compute none.
        if archive.by_index_raw(number)?.crc32() != 0 {
            io::copy(&mut archive.by_index(number)?, &mut io::sink())?;
        }
    }
    Ok(())
}

/// Whether a tensor of a pickle has the negative bit: its values are the stored ones with the sign flipped.
fn turns_signs(pickle: &[u8]) -> bool {
    let [name, end] = NEGATIVE;
    pickle.windows(name.len()).enumerate().filter(|(_, found)| *found == name).any(|(at, _)| {
        let rest = match &pickle[at + name.len()..] {
            [b'q', _, rest @ ..] | [b'r', _, _, _, _, rest @ ..] | [0x94, rest @ ..] => rest,
            rest => rest,
        };
        rest.starts_with(end)
    })
}

impl Source for Pickle {
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
    }

    fn values(&self, name: &str) -> Result<Vec<f32>> {
        let problem = |what: &str| ExchangeError::tensor(&self.path, name, what);
        let tensor = self.tensors.get(name).ok_or_else(|| problem("is missing"))?;
        let Some(left) = self.left.get().checked_sub(tensor.byte_len() as u64) else {
            return Err(problem(&format!(
                "takes {} bytes, with the tensors before it more than {TIMES} times what its file has",
                tensor.byte_len()
            )));
        };
        self.left.set(left);
        let bytes = || tensor.read().map_err(|error| problem(&format!("cannot be read: {error}")));
        Ok(match tensor.dtype() {
            DType::F64 => each(&bytes()?, |bytes| f64::from_ne_bytes(bytes) as f32),
            DType::F32 => each(&bytes()?, f32::from_ne_bytes),
            DType::F16 => each(&bytes()?, |bytes| f16::from_ne_bytes(bytes).to_f32()),
            DType::BF16 => each(&bytes()?, |bytes| bf16::from_ne_bytes(bytes).to_f32()),
            other => return Err(problem(&format!("is {other:?}, expected {TYPES}"))),
        })
    }
}
