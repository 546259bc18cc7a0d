//! The whole state of a run, into a checkpoint and out of it.

use simclr_data::Position;
use simclr_engine::{Device, LossScaleFigures};

use super::identity::Identity;
use crate::checkpoint::{Best, Checkpoint, Meta, NamedTensor};
use crate::optim::Optimizer;
use crate::{Config, Model, TrainError};

/// Prefix of the optimiser's tensors in a checkpoint.
const OPTIMIZER: &str = "optimizer.";

/// What is known of the loss's scale, under these names beside the tensors.
const SCALE: &str = "loss_scale";
const SCALE_STEPS: &str = "loss_scale_steps";
const SKIPPED_STEPS: &str = "skipped_steps";

/// Sums over the steps of the epoch under way.
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
    pub(super) position: Position,
    pub(super) sums: EpochSums,
    /// The scale of the loss, where it is scaled, and steps skipped for it.
    pub(super) loss_scale: Option<LossScaleFigures>,
    pub(super) skipped_steps: u64,
    pub(super) best: Option<Best>,
}

impl State {
    /// The start of a run.
    pub(super) fn new(config: &Config, device: &Device) -> Result<State, TrainError> {
        let model = Model::new(config, device)?;
        let optimizer = Optimizer::new(&config.optim, &model.parameters)?;
        let (position, sums) = (Position::default(), EpochSums::default());
        Ok(State {
            model,
            optimizer,
            step: 0,
            position,
            sums,
            loss_scale: None,
            skipped_steps: 0,
            best: None,
        })
    }

    /// The state that a checkpoint holds.
    pub(super) fn restore(
        checkpoint: &Checkpoint,
        config: &Config,
        device: &Device,
    ) -> Result<State, TrainError> {
        let mut state = State::new(config, device)?;
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
        state.position = Position { epoch: meta.epoch, next: meta.next };
        let sum = |key: &str| meta.extra.get(key).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
        state.sums = EpochSums {
            steps: sum("epoch_steps") as u64,
            loss: sum("epoch_loss"),
            contrastive_accuracy: sum("epoch_contrastive_accuracy"),
        };
        let known = meta.extra.contains_key(SCALE);
        state.loss_scale =
            known.then(|| LossScaleFigures { scale: sum(SCALE) as f32, steps: sum(SCALE_STEPS) as u32 });
        state.skipped_steps = sum(SKIPPED_STEPS) as u64;
        state.best = meta.best.clone();
        Ok(state)
    }

    /// The checkpoint of the state. `metrics_bytes` and `events_bytes` are the logs' lengths.
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
        let mut extra = serde_json::Map::new();
        extra.insert("epoch_steps".into(), self.sums.steps.into());
        extra.insert("epoch_loss".into(), self.sums.loss.into());
        extra.insert("epoch_contrastive_accuracy".into(), self.sums.contrastive_accuracy.into());
        if let Some(LossScaleFigures { scale, steps }) = self.loss_scale {
            extra.insert(SCALE.into(), f64::from(scale).into());
            extra.insert(SCALE_STEPS.into(), steps.into());
            extra.insert(SKIPPED_STEPS.into(), self.skipped_steps.into());
        }
        let meta = Meta {
            step: self.step,
            epoch: self.position.epoch,
            next: self.position.next,
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
