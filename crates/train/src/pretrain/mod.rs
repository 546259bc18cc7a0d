//! Pretraining: the loop that turns images into an encoder.

mod batches;
mod best;
mod cache;
mod captured;
mod checkpoint_writer;
mod epoch;
mod failure;
mod health;
mod identity;
mod plan;
mod records;
mod rescue;
mod resume;
mod run;
mod run_writer;
mod state;
mod step;
mod team;
mod views;
mod views_on;
mod warm_start;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use simclr_data::Dataset;
use simclr_engine::Device;

use crate::checkpoint::Checkpoint;
use crate::config::{Auto, Memory, TrainConfig};
use crate::run_folder::RunFolder;
use crate::{Config, TrainError, memory};

pub use batches::Batches;
pub use cache::CachedImages;
pub use captured::CapturedStep;
pub use failure::Failure;
pub(crate) use health::pairs_at_once;
pub use health::{Health, health, holdout_knn};
pub use identity::Identity;
pub(crate) use plan::trained_on;
pub use plan::{Plan, held_out, plan};
pub use records::{EpochRecord, StepRecord};
pub use resume::{Resumed, inspect, resume};
pub(crate) use step::forward_backward;
pub use step::{StepFigures, train_step, weight_norm};
pub use team::{Team, Worker};
pub use views::RunViews;
pub use views_on::ViewsPlace;

use plan::Prepared;
use run::Run;
use run_writer::RunWriter;
use state::State;
use warm_start::WarmStart;

/// Watches a run and may stop it; `()` does neither. Implement the methods of interest.
pub trait Observer {
    /// The run is about to take its first step.
    fn started(&mut self, _plan: &Plan) {}
    /// A step was logged.
    fn step(&mut self, _record: &StepRecord) {}
    /// An epoch has ended.
    fn epoch(&mut self, _record: &EpochRecord) {}
    /// The run has a warning.
    fn warn(&mut self, _message: &str) {}
    /// Something is in order but may be surprising.
    fn note(&mut self, _message: &str) {}
    /// The run ends with an error that came from outside: once what failed is mended, it can go on from `checkpoint`,
    /// its newest. That has all steps but the last `lost`: those could not be saved, for example because the disk is
    /// full or a GPU has failed.
    fn rescued(&mut self, _checkpoint: &Path, _lost: u64) {}
    /// Whether to stop after this step. The state is saved first.
    fn stop(&self) -> bool {
        false
    }
}

/// No observer.
impl Observer for () {}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all epochs are done; if not, an observer stopped the run.
    pub finished: bool,
    /// Steps done.
    pub step: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Images that could not be used.
    pub skipped: usize,
}

/// Trains on `dataset` as configured, in `run`, from the checkpoint `from` or from the start, until done or stopped.
/// The start is random weights, or those of the run that `train.from` names.
///
/// The same configuration on the same data gives the same bits for any number of threads, and however often the run
/// is interrupted and taken up again. On a GPU so do cards of the same kind, unless `train.deterministic` is false, for
/// as long as they compute with the same kernels: which of those of cuDNN and cuBLASLt are the fastest is found by
/// timing, and remembered in the user's cache folder, not with the run. On another machine, without such a folder, if
/// it cannot be written, or where a choice was not remembered for want of free memory, others may be chosen, which
/// round otherwise.
///
/// `config` is [resolved](Config::resolved) first, except `train.device` and `train.threads`, which `device` decides.
/// To go on with a run, get its folder, its configuration and its newest good checkpoint from [`resume`].
///
/// # Errors
/// Those of [`Config::validate`]; [`TrainError::Conflict`] if the configuration of `from` differs in keys that change
/// results; [`TrainError::CannotResume`] if `from` was trained on other images, or `run` holds an imported network;
/// [`TrainError::BatchTooLarge`], [`TrainError::DoesNotFit`]; [`TrainError::NotFinite`] if training diverges; images
/// that cannot be read, a folder that cannot be written to.
pub fn pretrain(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: &RunFolder,
    from: Option<&Checkpoint>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    lead(dataset, config, run, from, &Team::ALONE, device, observer)
}

/// [`pretrain`] as worker 0 of `team`, which keeps the run: every other worker calls [`assist`] with the same
/// configuration and data.
///
/// Together the workers take the same steps as a single one, except for the rounding of sums: each has its part of
/// every batch, and negatives and BatchNorm's sums come from all. A broken image is replaced from the worker's own part
/// of an epoch, which may run out sooner than the whole would. The same number of workers gives the same bits each
/// time. A run may be resumed by a different number.
///
/// # Errors
/// Those of `pretrain`, and [`TrainError::Workers`] if the workers do not fit together or one has gone.
pub fn lead(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: &RunFolder,
    from: Option<&Checkpoint>,
    team: &Team,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let identity = Identity::of(dataset.as_ref());
    let resolved = || config.resolved().inspect_err(|error| team.leave(&error.to_string()));
    let config = &resolved()?;
    let prepare = || {
        run.check_trained_here()?;
        if let Some(checkpoint) = from {
            let begun = Config::from_toml(&checkpoint.meta.config, "the checkpoint's configuration")?;
            begun.check_resume(config)?;
        }
        from.map_or(Ok(()), |checkpoint| identity.check(run.path(), &checkpoint.meta))?;
        let prepared =
            Inputs { dataset, identity, config, run: Some(run), from, team: *team, device }.prepare()?;
        let cache = prepared.cache.clone();
        Ok((prepared, RunWriter::new(run, &config.train, identity, cache, from)?))
    };
    let (prepared, writer) = prepare().inspect_err(|error: &TrainError| team.leave(&error.to_string()))?;
    team.on(device, |team| Run::new(prepared, config, Some(writer), team)?.go(observer)?.outcome())
}

/// Trains as a worker of `team` other than the first, in a run that [`lead`] keeps. Returns whether all epochs are
/// done.
///
/// # Errors
/// As [`lead`].
pub fn assist(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    team: &Team,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<bool, TrainError> {
    let prepare = || {
        let config = config.resolved()?;
        let identity = Identity::of(dataset.as_ref());
        let inputs =
            Inputs { dataset, identity, config: &config, run: None, from: None, team: *team, device };
        Ok((inputs.prepare()?, config))
    };
    let (prepared, config) = prepare().inspect_err(|error: &TrainError| team.leave(&error.to_string()))?;
    team.on(device, |team| Ok(Run::new(prepared, &config, None, team)?.go(observer)?.finished))
}

/// What a worker prepares its run from.
struct Inputs<'a> {
    dataset: &'a Arc<dyn Dataset>,
    identity: Identity,
    config: &'a Config,
    /// Only the first worker has the folder.
    run: Option<&'a RunFolder>,
    /// The checkpoint to go on from.
    from: Option<&'a Checkpoint>,
    team: Team<'a>,
    device: &'a Device,
}

impl Inputs<'_> {
    /// Prepares for the first step; the workers of a team agree on what they must share. The worker with the `run`
    /// decides what it begins with.
    fn prepare(&self) -> Result<Prepared, TrainError> {
        let Inputs { dataset, identity, config, run, from, team, device } = *self;
        let worker = team.worker;
        let held_out = plan::check(config, dataset.len(), device)?;
        worker.batch_size(config, dataset.len() - held_out)?;
        team.check(identity, device)?;
        let warm_start = match (run, from) {
            (Some(_), None) => WarmStart::of(config, identity)?,
            _ => None,
        };
        let start = from.or(warm_start.as_ref().map(|warm_start| &warm_start.checkpoint));
        let shared = if team.is_alone() { None } else { team.share(start)? };
        let state = match shared.as_ref().or(start) {
            Some(checkpoint) => State::restore(checkpoint, config, device, worker)?,
            None => State::new(config, device, worker.world_size)?,
        };
        let sizes = memory::Images::of(config, device, dataset.as_ref(), worker);
        let mut memory = plan::choose_memory(&state, &sizes, config, worker)?;
        if team.settle_memory(memory.memory)? != memory.memory {
            let train = TrainConfig { memory: Auto::Value(Memory::Blocks), ..config.train.clone() };
            let blocks = Config { train, ..config.clone() };
            memory = plan::choose_memory(&state, &sizes, &blocks, worker)?;
        }
        let keep =
            |memory: &memory::Choice| cache::kept(dataset, config, run, device.is_gpu(), worker, memory);
        let mut prepared = Prepared::new(state, &sizes, held_out, config, memory, worker, keep)?;
        prepared.plan.starts_from = warm_start.map(|warm_start| warm_start.words);
        Ok(prepared)
    }
}
