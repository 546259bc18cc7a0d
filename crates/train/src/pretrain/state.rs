//! The whole state of a run, saved to and restored from checkpoints.

use simclr_data::Position;
use simclr_engine::{Device, LossScaleFigures};

use super::Worker;
use super::epoch::WarningState;
use super::identity::Identity;
use super::plan::trained_on;
use crate::checkpoint::{Best, Checkpoint, Extra, Meta, NamedTensor, OPTIMIZER};
use crate::optim::Optimizer;
use crate::{Config, Model, TrainError};

/// Sums over the steps of the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct EpochSums {
    pub(super) steps: u64,
    pub(super) loss: f64,
    pub(super) contrastive_accuracy: f64,
}

/// Everything that training changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Model,
    pub(super) optimizer: Optimizer,
    pub(super) step: u64,
    /// The position of each worker, by rank, in its own share of the images.
    pub(super) positions: Vec<Position>,
    pub(super) sums: EpochSums,
    /// The loss scale, if the loss is scaled, and the number of steps skipped because of overflow.
    pub(super) loss_scale: Option<LossScaleFigures>,
    pub(super) skipped_steps: u64,
    pub(super) best: Option<Best>,
    /// Whether an epoch has ended with this step and is not recorded yet: its sums are still those of its steps.
    pub(super) epoch_due: bool,
    /// What warnings go by.
    pub(super) warnings: WarningState,
}

impl State {
    /// The initial state of a run of `workers` workers.
    pub(super) fn new(config: &Config, device: &Device, workers: usize) -> Result<State, TrainError> {
        let model = Model::new(config, device)?;
        let optimizer = Optimizer::new(&config.optim, &model.parameters)?;
        Ok(State {
            model,
            optimizer,
            step: 0,
            positions: vec![Position::default(); workers],
            sums: EpochSums::default(),
            loss_scale: None,
            skipped_steps: 0,
            best: None,
            epoch_due: false,
            warnings: WarningState::default(),
        })
    }

    /// The position of all workers together.
    pub(super) fn position(&self) -> Position {
        Position(self.positions.iter().map(|position| position.0).sum())
    }

    /// Restores the state from a checkpoint.
    pub(super) fn restore(
        checkpoint: &Checkpoint,
        config: &Config,
        device: &Device,
        worker: Worker,
    ) -> Result<State, TrainError> {
        let mut state = State::new(config, device, worker.world_size)?;
        state.model.load(checkpoint)?;
        let meta = &checkpoint.meta;
        for (id, buffer) in state.optimizer.state_mut() {
            let name = format!("{OPTIMIZER}{}", state.model.parameters.name(id));
            let Some(tensor) = checkpoint.tensor(&name) else {
                return Err(TrainError::MissingTensor { name });
            };
            let (found, needed) = (tensor.data.len(), buffer.len());
            if found != needed {
                return Err(TrainError::TensorLength { name, found, needed });
            }
            buffer.write(&tensor.data)?;
        }
        state.optimizer.set_steps(meta.step);
        state.step = meta.step;
        state.positions = positions_of(meta, trained_on(config, meta.images as usize), worker.world_size);
        let extra = &meta.extra;
        state.sums = EpochSums {
            steps: extra.epoch_steps,
            loss: extra.epoch_loss,
            contrastive_accuracy: extra.epoch_contrastive_accuracy,
        };
        let steps = extra.loss_scale_steps.unwrap_or(0);
        state.loss_scale = extra.loss_scale.map(|scale| LossScaleFigures { scale: scale as f32, steps });
        state.skipped_steps = extra.skipped_steps.unwrap_or(0);
        state.best = meta.best.clone();
        state.epoch_due = extra.epoch_due;
        state.warnings = WarningState::restore(extra);
        Ok(state)
    }

    /// Makes a checkpoint of the state. `metrics_bytes` and `events_bytes` are the logs' lengths.
    pub(super) fn checkpoint(
        &self,
        config: &Config,
        identity: Identity,
        metrics_bytes: u64,
        events_bytes: u64,
    ) -> Result<Checkpoint, TrainError> {
        let mut tensors = self.model.store()?;
        for (id, value) in self.optimizer.state() {
            let name = format!("{OPTIMIZER}{}", self.model.parameters.name(id));
            tensors.push(NamedTensor { name, shape: value.shape().to_vec(), data: value.to_vec()? });
        }
        let mut extra = Extra {
            epoch_steps: self.sums.steps,
            epoch_loss: self.sums.loss,
            epoch_contrastive_accuracy: self.sums.contrastive_accuracy,
            loss_scale: self.loss_scale.map(|figures| figures.scale.into()),
            loss_scale_steps: self.loss_scale.map(|figures| figures.steps),
            skipped_steps: self.loss_scale.map(|_| self.skipped_steps),
            epoch_due: self.epoch_due,
            names_within: identity.names_within,
            sizes: identity.sizes,
            worker_places: (self.positions.len() > 1)
                .then(|| self.positions.iter().map(|position| position.0).collect()),
            ..Extra::default()
        };
        self.warnings.record(&mut extra);
        let (position, images) = (self.position(), trained_on(config, identity.images as usize));
        let meta = Meta {
            step: self.step,
            epoch: position.epochs(images),
            next: position.0 % images.max(1) as u64,
            seed: config.train.seed,
            images: identity.images,
            names: Some(identity.names),
            metrics_bytes,
            events_bytes,
            best: self.best.clone(),
            config: config.to_toml()?,
            extra,
        };
        Ok(Checkpoint { tensors, meta })
    }
}

/// The positions of `workers` workers that train on `images` images. If their number is unchanged, each goes on where
/// it was; otherwise the positions are divided evenly, the first workers going one place further where they must: their
/// sum tells which epochs are done. The positions are even already unless one worker met more broken images than
/// another; then a few images are seen once more or once less.
fn positions_of(meta: &Meta, images: usize, workers: usize) -> Vec<Position> {
    let passed = meta.epoch.saturating_mul(images as u64).saturating_add(meta.next);
    // Older versions recorded positions within the epoch: those are divided evenly too.
    let sound = |positions: &&Vec<u64>| {
        let sum = positions.iter().try_fold(0u64, |sum, &position| sum.checked_add(position));
        positions.len() == workers && sum == Some(passed)
    };
    let known = meta.extra.worker_places.as_ref().filter(sound);
    let of = workers as u64;
    // The places of all together are dealt to the workers in turn.
    let dealt = || (0..of).map(|rank| passed / of + u64::from(rank < passed % of)).collect();
    let positions = known.cloned().unwrap_or_else(dealt);
    positions.into_iter().map(Position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_kept_or_dealt_anew() {
        let found =
            |meta: &Meta, workers| positions_of(meta, 100, workers).into_iter().map(|position| position.0);
        let mut meta = Meta { epoch: 2, next: 96, ..Meta::default() };
        assert!(found(&meta, 1).eq([296]));
        assert!(found(&meta, 4).eq([74; 4]));
        meta.extra.worker_places = Some(vec![147, 149]);
        assert!(found(&meta, 2).eq([147, 149]));
        assert!(found(&meta, 1).eq([296]));
        assert!(found(&meta, 4).eq([74; 4]));
        // No place is lost, whatever the number of workers.
        assert!(found(&meta, 3).eq([99, 99, 98]));
        for (next, workers) in (0..100).flat_map(|next| (1..9).map(move |workers| (next, workers))) {
            let meta = Meta { epoch: 2, next, ..Meta::default() };
            assert_eq!(found(&meta, workers).sum::<u64>(), 200 + next, "{workers} workers");
        }
        // Positions within the epoch.
        meta.extra.worker_places = Some(vec![47, 49]);
        assert!(found(&meta, 2).eq([148; 2]));
    }
}
