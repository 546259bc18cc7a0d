//! Pretraining: the loop that turns images into an encoder.

mod batches;
mod best;
mod cache;
mod captured;
mod epoch;
mod health;
mod identity;
mod plan;
mod records;
mod run;
mod saving;
mod state;
mod step;
mod views;
mod views_on;

use std::path::PathBuf;
use std::sync::Arc;

use simclr_data::Dataset;
use simclr_engine::Device;

use crate::checkpoint::Checkpoint;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError, memory};

pub use batches::Batches;
pub use captured::CapturedStep;
pub(crate) use health::PAIRS;
pub use health::{Health, features, health, holdout_knn};
pub use identity::Identity;
pub use plan::{Plan, held_out, plan};
pub use records::{EpochRecord, HealthFields, StepRecord};
pub(crate) use step::forward_backward;
pub use step::{StepFigures, train_step, weight_norm};
pub use views::RunViews;
pub use views_on::ViewsPlace;

use plan::Prepared;
use run::Run;
use state::State;

/// Somebody who watches a run, and may stop it.
pub trait Observer {
    /// The run is about to take its first step.
    fn started(&mut self, plan: &Plan);
    /// A step was logged.
    fn step(&mut self, record: &StepRecord);
    /// An epoch has ended.
    fn epoch(&mut self, record: &EpochRecord);
    /// Something is worth a line.
    fn warn(&mut self, message: &str);
    /// Something is as it should be, but could surprise.
    fn note(&mut self, _message: &str) {}
    /// Whether to stop after this step. What was done is saved first.
    fn stop(&self) -> bool;
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Whether all epochs are done; otherwise an observer stopped the run.
    pub finished: bool,
    /// Steps done.
    pub step: u64,
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Images that could not be used.
    pub skipped: usize,
}

/// Trains on `dataset` as `config` says, in `run`, from `from` or from the start, until done or stopped.
///
/// The same configuration on the same data gives the same bits for any number of threads, and however often the run
/// is interrupted and taken up again; on a GPU, unless `train.deterministic` is false.
pub fn pretrain(
    dataset: &Arc<dyn Dataset>,
    config: &Config,
    run: &RunFolder,
    from: Option<&Checkpoint>,
    device: &Device,
    observer: &mut dyn Observer,
) -> Result<Outcome, TrainError> {
    let held_out = plan::check(config, dataset.len(), device)?;
    let identity = Identity::of(dataset.as_ref());
    let state = match from {
        Some(checkpoint) => {
            if let Some(problem) = identity.problem(&checkpoint.meta) {
                return Err(TrainError::CannotResume { path: run.path().to_path_buf(), problem });
            }
            State::restore(checkpoint, config, device)?
        }
        None => State::new(config, device)?,
    };
    let keep = |memory: &memory::Choice| cache::kept(dataset, config, run, device.is_gpu(), memory);
    let prepared = Prepared::new(state, dataset, held_out, config, keep)?;
    Run::new(prepared, config, run, identity, from)?.go(observer)
}
