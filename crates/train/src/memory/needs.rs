//! The memory that a run takes, computed from the shapes of its network.

use simclr_engine::{Device, MemoryUse, Mode, Pixels, SingleProcess, Tape, Tensor, ViewMaker};

use super::Images;
use crate::config::Memory;
use crate::optim::Optimizer;
use crate::pretrain::{ViewsPlace, forward_backward, pairs_at_once};
use crate::{Config, Model, TrainError};

/// Batches in circulation: two ready, one being made, one in training.
const BATCHES: u64 = 4;
/// Bytes that a thread's kernels hold between calls: transformed weights and tiles.
const KERNELS: u64 = 64 << 20;
/// The most bytes that a GPU's kernels use besides tensors, for any number of threads that start them: the workspace
/// limit of a convolution's algorithm.
const KERNELS_OF_GPU: u64 = 1 << 30;
/// Bytes of a GPU's memory for the handles of cuDNN and cuBLASLt and for their code, most of which is loaded only when
/// it is first needed: after the free memory was asked for.
const LIBRARIES: u64 = 512 << 20;
/// A step in 16 bits on a GPU may take more than the processor's by this share of it: see [`step_use`].
const MARGIN: u64 = 16;

/// A forward and backward pass of a batch of images through a model, with any loss.
pub type Pass<'p> = &'p dyn Fn(&Model, Tensor) -> Result<(), TrainError>;

/// Bytes that a run takes at its peak in the memory that holds its network: the system's or a GPU's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Needs {
    /// Parameters, running averages and the optimiser's state.
    pub state: u64,
    /// Activations, their gradients and the parameters' gradients.
    pub step: u64,
    /// Intermediate values of kernels and of the loss.
    pub kernels: u64,
    /// What a GPU's libraries load when they are first used.
    pub libraries: u64,
    /// Copies of the state, in the system's memory: the one being saved, and the best.
    pub checkpoint: u64,
    /// Batches in circulation; on a GPU, the buffers to transfer them and to make their views.
    pub loader: u64,
    /// Memory for the figures after an epoch in addition to a step's; on a GPU only, where the captured step keeps its
    /// own memory.
    pub figures: u64,
    /// Decoded images that are kept on request (`data.cache = "ram"`), and any further ones once it is known that
    /// there is room.
    pub images: u64,
}

impl Needs {
    /// The sum of all parts.
    pub fn total(&self) -> u64 {
        let Needs { state, step, kernels, libraries, checkpoint, loader, figures, images } = *self;
        state + step + kernels + libraries + checkpoint + loader + figures + images
    }

    /// The needs of a run of `config` with batches of `batch` images, where `model` and `optimizer` are its state and
    /// `memory` says which activations are kept. Images that a GPU may keep are not counted.
    pub fn of(
        model: &Model,
        optimizer: &Optimizer,
        config: &Config,
        memory: Memory,
        batch: usize,
        images: &Images,
    ) -> Result<Needs, TrainError> {
        let state = bytes_of(model, optimizer);
        let views = 2 * batch;
        // The loss holds three copies of z.
        let kernels = |step| kernels_on(&model.device, step) + 3 * 4 * (views * model.head.dim()) as u64;
        let embedded = embedded(model, config, images);
        let most = embedded.iter().max().copied().unwrap_or(0);
        let beside_state = |batch, embedded: &[usize]| {
            let found = go_through(model, optimizer, config, memory, batch, embedded)?;
            Ok::<u64, TrainError>((found.held as u64).saturating_sub(state))
        };
        let image = 3 * model.image_size() * model.image_size();
        let pixels = views * image;
        if !model.device.is_gpu() {
            let step = beside_state(Some(batch), &embedded)?;
            return Ok(Needs {
                state,
                step,
                kernels: kernels(step),
                libraries: 0,
                // There is a best where held-out images are measured.
                checkpoint: if embedded.is_empty() { state } else { 2 * state },
                // The held-out images have a loader of their own.
                loader: BATCHES * (pixels + most * image) as u64,
                figures: 0,
                images: images.cache,
            });
        }
        let loader = match ViewsPlace::is_gpu(config, &model.device, images, batch)? {
            true => {
                let sent = usize::try_from(images.of_batch(batch)).unwrap_or(usize::MAX);
                pixels + ViewMaker::needs(views, sent, model.image_size(), images.longest)
            }
            false => Pixels::needs_to_write(pixels),
        };
        let step = with_margin(model, beside_state(Some(batch), &[])?);
        Ok(Needs {
            state,
            step,
            kernels: kernels(step),
            libraries: LIBRARIES,
            checkpoint: 0,
            loader: loader as u64,
            figures: if embedded.is_empty() {
                0
            } else {
                let figures = beside_state(None, &embedded)?;
                figures + kernels_on(&model.device, figures) + (model.embedded_with(most) * image) as u64
            },
            images: 0,
        })
    }

    /// The needs of training with labels in batches of `batch` images, one view each, by `pass`; `model` is also
    /// tested between or after steps.
    pub fn of_labelled(
        model: &Model,
        optimizer: &Optimizer,
        memory: Memory,
        batch: usize,
        pass: Pass,
    ) -> Result<Needs, TrainError> {
        let state = bytes_of(model, optimizer);
        let found = walk(model, optimizer, memory, Some((batch, pass)), &[model.images_at_once()])?;
        let pixels = batch * 3 * model.image_size() * model.image_size();
        let loader = if model.device.is_gpu() {
            Pixels::needs_to_write(pixels) as u64
        } else {
            BATCHES * pixels as u64
        };
        let step = with_margin(model, (found.held as u64).saturating_sub(state));
        let libraries = if model.device.is_gpu() { LIBRARIES } else { 0 };
        let kernels = kernels_on(&model.device, step);
        Ok(Needs { state, step, kernels, libraries, loader, ..Needs::default() })
    }
}

/// The bytes of a step on the device of `model` whose tensors take `step` bytes on a processor.
fn with_margin(model: &Model, step: u64) -> u64 {
    let takes_more = model.device.is_gpu() && model.activations().size() == 2;
    if takes_more { step + step / MARGIN } else { step }
}

/// Bytes that kernels use besides tensors, in a step whose tensors take `step` bytes; on a GPU hardly more than
/// `step`.
fn kernels_on(device: &Device, step: u64) -> u64 {
    if device.is_gpu() { KERNELS_OF_GPU.min(step) } else { device.threads() as u64 * KERNELS }
}

/// Bytes of parameters, running averages and the optimiser's state.
fn bytes_of(model: &Model, optimizer: &Optimizer) -> u64 {
    let bytes = |x: &Tensor| (x.len() * x.dtype().size()) as u64;
    model.parameters.iter().map(|(_, _, value)| bytes(value)).sum::<u64>()
        + optimizer.state().map(|(_, value)| bytes(value)).sum::<u64>()
}

/// Measures the memory of a run's tensors (the state and a step) by a dry run of what the processor would do, for which
/// it is exact. A GPU keeps less where it fuses operators that are separate here, and
/// more for the masks of BatchNorms with a residual and a ReLU, a bit per value: in total a little less for ResNet-18,
/// and a sixteenth more for ResNet-50 in 16 bits, which [`Needs`] adds.
pub fn step_use(
    model: &Model,
    optimizer: &Optimizer,
    config: &Config,
    memory: Memory,
    batch: usize,
) -> Result<MemoryUse, TrainError> {
    go_through(model, optimizer, config, memory, Some(batch), &[])
}

/// Returns a function that tells whether a run of `config` fits in `bytes` with a given batch. Like [`step_use`], it
/// makes a dry run and allocates nothing.
pub(crate) fn fits_in(
    config: &Config,
    bytes: u64,
) -> Result<impl Fn(usize) -> Result<bool, TrainError>, TrainError> {
    let model = Model::new(config, &Device::dry()?)?;
    let optimizer = Optimizer::new(&config.optim, &model.parameters)?;
    Ok(move |batch| {
        let memory = config.train.memory.unwrap_or_default();
        let found = go_through(&model, &optimizer, config, memory, Some(batch), &[])?;
        Ok(found.held as u64 <= bytes)
    })
}

/// The numbers of images that are embedded at once for the figures after an epoch: pairs of views for the health
/// figures, single views for kNN.
fn embedded(model: &Model, config: &Config, images: &Images) -> Vec<usize> {
    let (train, held_out) = (&config.train, images.held_out);
    let health = (train.health_every > 0).then(|| 2 * pairs_at_once(model, held_out));
    let knn = (train.knn_every > 0 && images.labelled).then(|| model.images_at_once());
    health.into_iter().chain(knn).filter(|_| held_out > 0).collect()
}

/// Measures the state with, if requested, a step of `batch` images, and with a forward pass for each number of images
/// in `embedded`.
fn go_through(
    model: &Model,
    optimizer: &Optimizer,
    config: &Config,
    memory: Memory,
    batch: Option<usize>,
    embedded: &[usize],
) -> Result<MemoryUse, TrainError> {
    let pass: Pass = &|model, images| {
        drop(forward_backward(model, &config.loss, &SingleProcess, images, None)?);
        Ok(())
    };
    walk(model, optimizer, memory, batch.map(|batch| (2 * batch, pass)), embedded)
}

/// Measures the state with a step on the given number of views, and with a forward pass for each number of views in
/// `embedded`.
fn walk(
    model: &Model,
    optimizer: &Optimizer,
    memory: Memory,
    step: Option<(usize, Pass)>,
    embedded: &[usize],
) -> Result<MemoryUse, TrainError> {
    let device = model.device.dry_run()?;
    // The state comes first, as in a run, because it affects where the rest is allocated.
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
    if let Some((views, pass)) = step {
        pass(&model, images(views))?;
    }
    for &count in embedded {
        let mut tape = Tape::new(&model.parameters, Mode::Eval, &SingleProcess);
        let images = tape.input(images(model.embedded_with(count)));
        let h = model.encoder.forward(&mut tape, &images)?;
        model.head.forward(&mut tape, &h)?;
    }
    drop(state);
    Ok(device.memory())
}
