//! The plan of a run, decided before its first step.

use std::sync::Arc;

use simclr_augment::ViewFamily;
use simclr_data::{Cached, Dataset, Subset};
use simclr_engine::Device;

use crate::{Config, Schedule, TrainError, memory};

use super::cache::{CachedImages, Kept};
use super::state::State;
use super::warm_start::WarmStart;
use super::{Identity, RunViews, ViewsPlace, Worker};

/// Fewer held-out images than this are too few to measure on: they are trained on instead.
const LEAST_HOLDOUT: usize = 8;

/// The plan of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Images trained on.
    pub images: usize,
    /// Images held out.
    pub holdout: usize,
    /// Images in a batch of all workers.
    pub batch: usize,
    /// Steps of the whole run.
    pub steps: u64,
    /// Steps already done.
    pub done: u64,
    /// The learning rate of each step.
    pub schedule: Schedule,
    /// A description of what the run starts from, unless that is random weights.
    pub starts_from: Option<String>,
    /// How many workers share the steps.
    pub workers: usize,
    /// The number of trained values, of encoder and head together.
    pub parameters: usize,
    /// The device that it runs on.
    pub device: String,
    /// Whether the device is a GPU.
    pub on_gpu: bool,
    /// Operators left out of the views because they do not change grey images.
    pub left_out: Vec<&'static str>,
    /// Where the views are made.
    pub views: ViewsPlace,
    /// What is kept for the backward pass, and the memory that the run takes.
    pub memory: memory::Choice,
    /// Decoded images kept in the system's memory.
    pub cached: CachedImages,
}

/// Returns the plan that [`pretrain`](super::pretrain) would follow on `dataset`, as its `worker`.
///
/// # Errors
/// Those that `pretrain` would return before its first step.
pub fn plan(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    device: &Device,
    worker: Worker,
) -> Result<Plan, TrainError> {
    let config = &config.resolved()?;
    let held_out = check(config, dataset.len(), device)?;
    worker.batch_size(config, dataset.len() - held_out)?;
    let warm_start = WarmStart::of(config, Identity::of(dataset.as_ref()))?;
    let state = State::new(config, device, worker.world_size)?;
    let sizes = memory::Images::of(config, device, dataset.as_ref(), worker);
    let memory = choose_memory(&state, &sizes, config, worker)?;
    let prepared = Prepared::new(state, &sizes, held_out, config, memory, worker, |_| {
        Ok(Kept::elsewhere(dataset.clone()))
    })?;
    Ok(Plan { starts_from: warm_start.map(|warm_start| warm_start.words), ..prepared.plan })
}

/// Decides what the `worker` keeps for the backward pass, with images of these `sizes`.
pub(super) fn choose_memory(
    state: &State,
    sizes: &memory::Images,
    config: &Config,
    worker: Worker,
) -> Result<memory::Choice, TrainError> {
    memory::choose(&state.model, &state.optimizer, config, sizes, worker)
}

/// The number of `images` that are held out.
///
/// # Errors
/// [`TrainError::BatchTooLarge`] if the others do not make a batch.
pub fn held_out(config: &Config, images: usize) -> Result<usize, TrainError> {
    let (batch, left) = (config.train.batch, trained_on(config, images));
    let holdout = images - left;
    if left < batch {
        return Err(TrainError::BatchTooLarge { batch, images: left, holdout });
    }
    Ok(holdout)
}

/// The number of `images` that are trained on.
pub(crate) fn trained_on(config: &Config, images: usize) -> usize {
    match config.data.holdout_of(images) {
        holdout if holdout >= LEAST_HOLDOUT => images - holdout,
        _ => images,
    }
}

/// Checks what must hold before a network is made. Returns [`held_out`] of `images`.
pub(super) fn check(config: &Config, images: usize, device: &Device) -> Result<usize, TrainError> {
    config.prepare(device)?;
    held_out(config, images)
}

/// A run that is ready to begin.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) state: State,
    pub(super) train: Arc<dyn Dataset>,
    pub(super) holdout: Option<Arc<dyn Dataset>>,
    /// The distributions of the views, one per branch.
    pub(super) families: [ViewFamily; 2],
    /// The cache of decoded images, if it is on the disk of the run.
    pub(super) cache: Option<Arc<Cached>>,
}

impl Prepared {
    /// Prepares a run from `state` on images of these `sizes`: `keep` decides where decoded images are kept, then
    /// `held_out` images are set apart.
    pub(super) fn new(
        mut state: State,
        sizes: &memory::Images,
        held_out: usize,
        config: &Config,
        mut memory: memory::Choice,
        worker: Worker,
        keep: impl FnOnce(&memory::Choice) -> Result<Kept, TrainError>,
    ) -> Result<Prepared, TrainError> {
        let device = state.model.device.clone();
        state.model = state.model.with_memory(memory.memory);
        let Kept { images, on_disk: cache } = keep(&memory)?;
        let cached = CachedImages::of(config, device.is_gpu(), worker, &memory, sizes);
        let (train, holdout) = split(images, config, held_out)?;
        let RunViews { families, left_out } = RunViews::new(config, &*train)?;
        let batch = config.train.batch.div_ceil(worker.world_size);
        let views = ViewsPlace::decide(config, &device, &families, &*train, &memory, sizes, batch)?;
        memory.needs.images = if device.is_gpu() { views.to_keep(sizes) } else { cached.bytes };
        let plan = Plan {
            images: train.len(),
            holdout: held_out,
            batch: config.train.batch,
            steps: Schedule::steps(train.len() as u64, config.train.batch as u64, config.train.epochs),
            done: state.step,
            schedule: Schedule::new(config, train.len() as u64),
            starts_from: None,
            workers: worker.world_size,
            parameters: state.model.parameters.trained_values(),
            device: device.to_string(),
            on_gpu: device.is_gpu(),
            left_out,
            views,
            memory,
            cached,
        };
        Ok(Prepared { plan, state, train, holdout, families, cache })
    }
}

/// The images to train on, and the held-out ones, if any.
type Parts = (Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

/// Sets `held_out` images apart.
fn split(whole: Arc<dyn Dataset>, config: &Config, held_out: usize) -> Result<Parts, TrainError> {
    if held_out == 0 {
        return Ok((whole, None));
    }
    let (train, holdout) = Subset::split_off_holdout(whole, held_out, config.train.seed)?;
    Ok((Arc::new(train), Some(Arc::new(holdout))))
}
