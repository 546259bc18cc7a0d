//! The tensors of a file of any format, under the names that this program uses.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use simclr_data::not_a_file;
use simclr_train::checkpoint::NamedTensor;

use super::bundle::{self, Bundle};
use super::official;
use super::pickle::Pickle;
use super::prefix::Naming;
use super::safetensors::Safetensors;
use crate::flaw::flaw;
use crate::trained::Facts;
use crate::{ExchangeError, Result};

/// A file whose tensors are listed, and can be read one by one.
pub(super) trait Source: Debug {
    /// The names and shapes of its tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)>;

    /// The values of a floating-point tensor, in the order of the file.
    ///
    /// # Errors
    /// A tensor that is missing, damaged or of another type.
    fn values(&self, name: &str) -> Result<Vec<f32>>;
}

/// The order of a tensor's dimensions in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// PyTorch's: (out, in, h, w), (out, in).
    Torch,
    /// TensorFlow's: (h, w, in, out), (in, out).
    TensorFlow,
}

/// Where a tensor is.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name in the file.
    pub stored: String,
    /// Its shape in PyTorch's order.
    pub shape: Vec<usize>,
    pub layout: Layout,
}

impl Entry {
    /// A tensor with these sides in the file.
    pub fn new(stored: String, sides: &[usize], layout: Layout) -> Entry {
        let shape = match (layout, sides) {
            (Layout::TensorFlow, &[height, width, inputs, outputs]) => vec![outputs, inputs, height, width],
            (Layout::TensorFlow, &[inputs, outputs]) => vec![outputs, inputs],
            _ => sides.to_vec(),
        };
        Entry { stored, shape, layout }
    }
}

/// The weights of a network.
#[derive(Debug)]
pub(super) struct Weights {
    pub path: PathBuf,
    /// The facts that the file states beside them.
    pub facts: Facts,
    /// The prefix that was stripped from the names.
    pub prefix: String,
    /// The prefixes of the other networks in the file.
    pub other_prefixes: Vec<String>,
    /// Tensors that are not part of an encoder or its head, by their names in the file.
    pub left_out: Vec<String>,
    tensors: BTreeMap<String, Entry>,
    source: Box<dyn Source>,
}

impl Weights {
    /// Lists the tensors of a safetensors file, a `torch.save` file, or a TensorFlow checkpoint. Of several networks in
    /// a PyTorch file, `prefix` chooses the one whose names begin with it.
    ///
    /// # Errors
    /// A file that is none of these, is damaged, or cannot be read; a checkpoint that is not of the official code;
    /// a file of several networks without a `prefix`.
    pub fn read(path: &Path, prefix: Option<&str>) -> Result<Weights> {
        if let Some(index) = bundle::index_of(path)? {
            let bundle = Bundle::read(&index)?;
            if prefix.is_some() {
                return Err(bundle.problem(
                    "it has one network; leave the prefix out, which is for files of PyTorch".to_owned(),
                ));
            }
            let official::Renamed { tensors, left_out } = official::rename(&bundle)?;
            let facts = official::facts(&bundle);
            return Ok(Weights {
                path: index,
                facts,
                prefix: String::new(),
                other_prefixes: Vec::new(),
                left_out,
                tensors,
                source: Box::new(bundle),
            });
        }
        let begun = start(path)?;
        let is_graph = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx"));
        if is_graph && !Pickle::begins(&begun) && !Safetensors::begins(&begun) {
            return Err(ExchangeError::Graph { path: path.to_owned() });
        }
        let (source, facts): (Box<dyn Source>, Facts) = match begun {
            // The length of a safetensors header may look like the start of a pickle.
            start if Pickle::begins(&start) && !Safetensors::begins(&start) => {
                (Box::new(Pickle::read(path, &start)?), Facts::default())
            }
            _ => {
                let file = Safetensors::read(path)?;
                let facts = file.facts()?;
                (Box::new(file), facts)
            }
        };
        let stored = source.tensors();
        let names: Vec<&str> = stored.iter().map(|(name, _)| name.as_str()).collect();
        let naming = Naming::choose(path, &names, prefix)?;
        let (mut tensors, mut left_out) = (BTreeMap::new(), Vec::new());
        for (stored, sides) in stored {
            match naming.own(&stored).filter(|name| !name.starts_with(CLASSIFIER)) {
                Some(name) => {
                    tensors.insert(name, Entry::new(stored, &sides, Layout::Torch));
                }
                None => left_out.push(stored),
            }
        }
        left_out.sort_unstable();
        let Naming { prefix, others: other_prefixes, .. } = naming;
        Ok(Weights { path: path.to_owned(), facts, prefix, other_prefixes, left_out, tensors, source })
    }

    /// The tensors' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor in PyTorch's order, if the file has it.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// The name of a tensor in messages: the file's own, if the file has it.
    pub fn called<'n>(&'n self, name: &'n str) -> &'n str {
        self.tensors.get(name).map_or(name, |entry| &entry.stored)
    }

    /// A tensor in f32, in PyTorch's order.
    ///
    /// # Errors
    /// Those of the file; values that are not finite; negative variances.
    pub fn tensor(&self, name: &str) -> Result<NamedTensor> {
        let entry =
            self.tensors.get(name).ok_or_else(|| self.problem(format!("tensor `{name}` is missing")))?;
        let values = self.source.values(&entry.stored)?;
        if let Some(what) = flaw(name, &values) {
            let problem = format!("tensor `{}` holds {what}, so the network is useless", entry.stored);
            return Err(self.problem(problem));
        }
        let data = match entry.layout {
            Layout::Torch => values,
            Layout::TensorFlow => outputs_first(&values, &entry.shape),
        };
        Ok(NamedTensor { name: name.to_owned(), shape: entry.shape.clone(), data })
    }

    /// An error of this file.
    pub fn problem(&self, problem: String) -> ExchangeError {
        ExchangeError::weights(&self.path, problem)
    }
}

/// The prefix of the names of a classifier's tensors.
const CLASSIFIER: &str = "fc.";

/// The number of first bytes that tell a file's format.
pub(super) const START: u64 = 9;

/// Opens a file of weights.
///
/// # Errors
/// [`ExchangeError::NotAFile`], [`ExchangeError::Io`].
pub(super) fn open(path: &Path) -> Result<File> {
    match not_a_file(path) {
        Some(found) => Err(ExchangeError::NotAFile { path: path.to_owned(), found }),
        None => File::open(path).map_err(|source| ExchangeError::Io { path: path.to_owned(), source }),
    }
}

/// The first bytes of a file.
fn start(path: &Path) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    open(path)?
        .take(START)
        .read_to_end(&mut start)
        .map_err(|source| ExchangeError::Io { path: path.to_owned(), source })?;
    Ok(start)
}

/// The types of values that are read, for messages.
pub(super) const TYPES: &str = "F64, F32, F16 or BF16";

/// Converts each `N` bytes by `value`.
pub(super) fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| value(bytes)).collect()
}

/// Values of (h, w, in, out) or (in, out) in the order of `shape`, (out, in, h, w) or (out, in).
fn outputs_first(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let &[outputs, inputs, ref pixels @ ..] = shape else { return values.to_vec() };
    let pixels: usize = pixels.iter().product();
    let mut out = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for input in 0..inputs {
            out.extend((0..pixels).map(|pixel| values[(pixel * inputs + input) * outputs + output]));
        }
    }
    out
}
