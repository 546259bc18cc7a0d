//! A network's tensors under torchvision's names, as a safetensors file that `load_state_dict` takes.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Map, json};
use simclr_train::checkpoint::NamedTensor;
use simclr_train::file_system::{Disk, write_atomically};

use crate::checksum::{CHECKSUM, Checksum};
use crate::trained::is_written;
use crate::{Result, Trained};

/// Values converted to bytes at a time.
const PART: usize = 1 << 14;

/// A network's tensors in PyTorch's layouts, (out, in, h, w) for convolutions, with `num_batches_tracked` of each
/// BatchNorm, so that `load_state_dict(..., strict=False)` of torchvision's ResNet misses only `fc.*`. The metadata
/// state facts about the network and a checksum of the contents. The same network gives the same bytes.
#[derive(Debug)]
pub struct StateDict {
    tensors: Vec<NamedTensor>,
    metadata: BTreeMap<String, String>,
    steps: u64,
}

impl StateDict {
    /// The encoder's tensors and, `with_head`, those of the head under `head.`.
    ///
    /// # Errors
    /// Tensors that cannot be copied from their device.
    pub fn new(trained: &Trained, with_head: bool) -> Result<StateDict> {
        let mut tensors = trained.model.store()?;
        tensors.retain(|tensor| is_written(&tensor.name, with_head));
        StateDict::of(trained, tensors)
    }

    /// `tensors` instead of the network's own, in PyTorch's layouts: the result of further training.
    ///
    /// # Errors
    /// A configuration that cannot be written.
    pub fn of(trained: &Trained, tensors: Vec<NamedTensor>) -> Result<StateDict> {
        // Transformers and other programs look for this key.
        let mut metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        metadata.extend(trained.facts(false)?.into_iter().map(|(name, value)| (name.to_owned(), value)));
        Ok(StateDict { tensors, metadata, steps: trained.step })
    }

    /// Adds a fact to the metadata.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: String) -> StateDict {
        self.metadata.insert(name.to_owned(), value);
        self
    }

    /// Writes the file to `path`, whole or not at all.
    ///
    /// # Errors
    /// Whatever the system reports, with the path.
    pub fn save(&self, path: &Path) -> Result<()> {
        Ok(write_atomically(&Disk, path, |out| self.write(out))?)
    }

    /// Writes the contents of the file to `out`.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut metadata = self.metadata.clone();
        metadata.insert(CHECKSUM.to_owned(), self.checksum());
        let mut header = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
        let mut offset = 0;
        for Stored { name, dtype, shape, values } in self.stored() {
            let offsets = [offset, offset + values.bytes()];
            offset = offsets[1];
            header
                .insert(name, json!({ "dtype": dtype.to_string(), "shape": shape, "data_offsets": offsets }));
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        let mut parts = self.stored().flat_map(|tensor| tensor.values.parts());
        parts.try_for_each(|bytes| out.write_all(&bytes))
    }

    fn checksum(&self) -> String {
        let mut checksum = Checksum::of_metadata(&self.metadata);
        for Stored { name, dtype, shape, values } in self.stored() {
            checksum.add_tensor(&name, dtype, shape, values.parts());
        }
        checksum.digits()
    }

    /// The tensors in the order of the file, wider values first, so that all are aligned and can be mapped into
    /// memory.
    fn stored(&self) -> impl Iterator<Item = Stored<'_>> {
        let norms = self.tensors.iter().filter_map(|tensor| tensor.name.strip_suffix(".running_var"));
        let counts = norms.map(|norm| Stored {
            name: format!("{norm}.num_batches_tracked"),
            dtype: Dtype::I64,
            shape: &[],
            values: Values::Count(self.steps),
        });
        counts.chain(self.tensors.iter().map(|NamedTensor { name, shape, data }| Stored {
            name: name.clone(),
            dtype: Dtype::F32,
            shape,
            values: Values::Floats(data),
        }))
    }
}

/// A tensor of the file.
struct Stored<'a> {
    name: String,
    dtype: Dtype,
    shape: &'a [usize],
    values: Values<'a>,
}

enum Values<'a> {
    Count(u64),
    Floats(&'a [f32]),
}

impl<'a> Values<'a> {
    fn bytes(&self) -> usize {
        match self {
            Values::Count(count) => size_of_val(count),
            Values::Floats(values) => size_of_val(*values),
        }
    }

    /// The bytes, in parts: a network may take gigabytes.
    fn parts(&self) -> Box<dyn Iterator<Item = Vec<u8>> + 'a> {
        match *self {
            Values::Count(count) => Box::new(std::iter::once(count.to_le_bytes().to_vec())),
            Values::Floats(values) => {
                let bytes = |part: &[f32]| part.iter().flat_map(|value| value.to_le_bytes()).collect();
                Box::new(values.chunks(PART).map(bytes))
            }
        }
    }
}
