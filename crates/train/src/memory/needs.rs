//! What a run takes, from the shapes of its network.

use simclr_data::{Dataset, DecodeScratch};
use simclr_engine::{Device, MemoryUse, Mode, SingleProcess, Tape, Tensor};

use crate::config::{Cache, Memory};
use crate::optim::Optimizer;
use crate::pretrain::forward_backward;
use crate::{Config, Embedding, Model, TrainError};

/// Batches that the loader has in circulation: two ready, one in the making, one in training.
const BATCHES: u64 = 4;
/// What a thread's kernels hold between calls: transformed weights and tiles.
const KERNELS: u64 = 64 << 20;
/// Images that are looked at to learn how large they are.
const LOOKED_AT: usize = 16;

/// Bytes that a run takes at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// Parameters, running averages and the optimiser's state.
    pub state: u64,
    /// Activations, their gradients and those of the parameters.
    pub step: u64,
    /// Intermediate values of kernels, and the views of the loss.
    pub kernels: u64,
    /// The copy of the state that is being saved.
    pub checkpoint: u64,
    /// Batches on their way.
    pub loader: u64,
    /// Decoded images that are kept by order (`data.cache = "ram"`).
    pub cache: u64,
}

impl Needs {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.state + self.step + self.kernels + self.checkpoint + self.loader + self.cache
    }

    /// Of a run of `config` with batches of `batch` images, `model` and `optimizer` being its state, as `memory` keeps activations.
    /// `cache` bytes of images will be kept.
    pub fn of(
        (model, optimizer): (&Model, &Optimizer),
        config: &Config,
        memory: Memory,
        batch: usize,
        cache: u64,
    ) -> Result<Needs, TrainError> {
        let bytes = |x: &Tensor| (x.len() * x.dtype().size()) as u64;
        let state = model.parameters.iter().map(|(_, _, value)| bytes(value)).sum::<u64>()
            + optimizer.state().map(|(_, value)| bytes(value)).sum::<u64>();
        let views = 2 * batch as u64;
        let side = u64::from(config.data.image_size);
        let threads = model.device.threads() as u64;
        // Three copies of z stand in the loss.
        let loss = 3 * 4 * views * model.head.dim() as u64;
        Ok(Needs {
            state,
            step: (step_use((model, optimizer), config, memory, batch)?.held as u64).saturating_sub(state),
            kernels: threads * KERNELS + loss,
            checkpoint: state,
            loader: BATCHES * views * 3 * side * side,
            cache,
        })
    }
}

/// What the tensors of a run take, the state, a step and the figures after an epoch: all is gone through without computing it, so that
/// the figures are exact.
pub fn step_use(
    (model, optimizer): (&Model, &Optimizer),
    config: &Config,
    memory: Memory,
    batch: usize,
) -> Result<MemoryUse, TrainError> {
    let device = Device::dry()?;
    // The state comes first, as in a run: where the rest finds room depends on it.
    let parameters = model.parameters.iter().map(|(_, _, value)| value);
    let state: Vec<Tensor> = parameters
        .chain(optimizer.state().map(|(_, value)| value))
        .map(|value| Tensor::empty_of(&device, value.shape(), value.dtype()))
        .collect();
    let model = model.clone().with_memory(memory);
    let images = |count: usize| {
        let side = model.image_size();
        Tensor::empty_of(&device, &[count, side, side, 3], model.activations())
    };
    drop(forward_backward(&model, &config.loss, &SingleProcess, images(2 * batch), None)?);
    if config.data.holdout > 0 {
        // Pairs of views for the health figures, single ones for kNN.
        for count in [2 * Embedding::BATCH, Embedding::BATCH] {
            let mut tape = Tape::new(&model.parameters, Mode::Eval, &SingleProcess);
            let images = tape.input(images(count));
            let h = model.encoder.forward(&mut tape, &images)?;
            model.head.forward(&mut tape, &h)?;
        }
    }
    drop(state);
    Ok(device.memory())
}

/// Bytes of decoded images that `config` keeps by order, judged by some of them. What is kept only where there is room is not counted.
pub fn cache_bytes(config: &Config, dataset: &dyn Dataset) -> u64 {
    if config.data.cache != Cache::Ram {
        return 0;
    }
    let all = image_bytes(dataset);
    config.data.cache_bytes().map_or(all, |limit| all.min(limit))
}

/// Bytes of all decoded images, judged by some of them.
pub fn image_bytes(dataset: &dyn Dataset) -> u64 {
    let stride = (dataset.len() / LOOKED_AT).max(1);
    let mut scratch = DecodeScratch::default();
    let (mut bytes, mut images) = (0, 0);
    for index in (0..dataset.len()).step_by(stride).take(LOOKED_AT) {
        if let Ok(image) = dataset.read(index, &mut scratch) {
            bytes += image.pixels.len() as u64;
            images += 1;
        }
    }
    bytes / images.max(1) * dataset.len() as u64
}
