//! A network's tensors under torchvision's names, as a safetensors file that `load_state_dict` takes.

use std::io::{self, Write};

use serde_json::{Map, Value, json};
use simclr_train::checkpoint::NamedTensor;

use crate::trained::is_written;
use crate::{Result, Trained};

/// A network's tensors in PyTorch's layouts, (out, in, h, w) of convolutions, with `num_batches_tracked` of each
/// BatchNorm, so that `load_state_dict(..., strict=False)` of torchvision's ResNet misses only `fc.*`. Beside them
/// stands, as metadata, what is known of the network. The same network gives the same bytes.
#[derive(Debug)]
pub struct StateDict {
    tensors: Vec<NamedTensor>,
    metadata: Map<String, Value>,
    steps: u64,
}

impl StateDict {
    /// The encoder's tensors, and those of the head under `head.`, where it is asked for.
    ///
    /// # Errors
    /// Tensors that cannot be brought from their device.
    pub fn new(trained: &Trained, with_head: bool) -> Result<StateDict> {
        let mut tensors = trained.model.store()?;
        tensors.retain(|tensor| is_written(&tensor.name, with_head));
        StateDict::of(trained, tensors)
    }

    /// `tensors` in the place of the network's own, in PyTorch's layouts: what further training made of it.
    ///
    /// # Errors
    /// A configuration that cannot be written.
    pub fn of(trained: &Trained, tensors: Vec<NamedTensor>) -> Result<StateDict> {
        // What transformers and others look for.
        let mut metadata = Map::from_iter([("format".to_owned(), "pt".into())]);
        metadata
            .extend(trained.facts(false)?.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        Ok(StateDict { tensors, metadata, steps: trained.step })
    }

    /// The same with one more thing known of it.
    #[must_use]
    pub fn with_fact(mut self, name: &str, value: String) -> StateDict {
        self.metadata.insert(name.to_owned(), value.into());
        self
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut header = Map::from_iter([("__metadata__".to_owned(), self.metadata.clone().into())]);
        let mut offset = 0;
        let mut enter = |name: String, dtype: &str, shape: &[usize], bytes: usize| {
            let offsets = [offset, offset + bytes];
            offset += bytes;
            header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets }));
        };
        // The wider values first: all then lie at multiples of their size, and can be mapped into memory.
        let counted = || self.tensors.iter().filter_map(|tensor| tensor.name.strip_suffix(".running_var"));
        for norm in counted() {
            enter(format!("{norm}.num_batches_tracked"), "I64", &[], size_of::<i64>());
        }
        for tensor in &self.tensors {
            enter(tensor.name.clone(), "F32", &tensor.shape, size_of_val(tensor.data.as_slice()));
        }
        let mut header = serde_json::to_vec(&header)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for _ in counted() {
            out.write_all(&self.steps.to_le_bytes())?;
        }
        let mut values = self.tensors.iter().flat_map(|tensor| &tensor.data);
        values.try_for_each(|value| out.write_all(&value.to_le_bytes()))
    }
}
