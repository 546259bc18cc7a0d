//! Training that begins with the encoder of another run.

use std::sync::Arc;

use simclr_engine::Device;
use simclr_nn::{load_tensor, stored_shape};

use super::{Identity, State};
use crate::checkpoint::Checkpoint;
use crate::file_system::Disk;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// Where a run stands before its first step.
pub(super) struct Beginning {
    /// Weights that another run has come to, nothing of its optimiser.
    pub(super) checkpoint: Checkpoint,
    /// What they are, in words.
    pub(super) words: String,
}

impl Beginning {
    /// What a run of `config` on images of this identity begins with, where `train.from` names another run: its encoder with its running averages,
    /// and its head where that is one like this run's.
    ///
    /// # Errors
    /// [`TrainError::Conflict`] of `train.from` where there is no such run, it has no checkpoint, or its encoder is another one.
    pub(super) fn of(config: &Config, identity: Identity) -> Result<Option<Beginning>, TrainError> {
        let Some(from) = config.train.begins_with() else { return Ok(None) };
        let problem = |problem: String| TrainError::Conflict {
            origin: "the configuration".to_owned(),
            key: "train.from".to_owned(),
            problem: format!("is {}: {problem}", from.display()),
        };
        let opened = RunFolder::open(from, Arc::new(Disk)).map_err(|error| problem(error.to_string()))?;
        let (run, theirs) = opened;
        let found = run.checkpoints(1).latest_good().map_err(|error| problem(error.to_string()))?;
        let found = found.ok_or_else(|| problem("it has no checkpoint yet".to_owned()))?.checkpoint;

        let mut state = State::new(config, &Device::cpu(1)?, 1)?;
        let parameters = &mut state.model.parameters;
        let is_head = |name: &str| name.starts_with("head.");
        let fits =
            |name: &str, shape: &[usize]| found.tensor(name).is_some_and(|tensor| tensor.shape == shape);
        let (mut head, mut other) = (Vec::new(), None);
        for (name, _, value) in parameters.iter() {
            let fits = fits(name, &stored_shape(value));
            match is_head(name) {
                true => head.push(fits),
                false if !fits => other = other.or(Some(name.to_owned())),
                false => {}
            }
        }
        let of_one_kind =
            |config: &Config| format!("{} of width {}", config.encoder.name, config.encoder.width);
        if let Some(name) = other {
            return Err(problem(format!(
                "its encoder, a {}, has no tensor `{name}` like that of this run's, a {}; leave the keys of [encoder] out, which are then as there",
                of_one_kind(&theirs),
                of_one_kind(config)
            )));
        }
        // A head of other layers may have some that fit.
        let heads = found.tensors.iter().filter(|tensor| is_head(&tensor.name)).count();
        let takes_head = head.iter().all(|&fits| fits) && head.len() == heads && heads > 0;
        for id in parameters.ids() {
            let name = parameters.name(id).to_owned();
            if let Some(tensor) = found.tensor(&name).filter(|_| takes_head || !is_head(&name)) {
                load_tensor(parameters, id, &tensor.shape, &tensor.data)?;
            }
        }
        let words = format!(
            "begins with the encoder of {}{}",
            from.display(),
            if takes_head { " and its projection head" } else { ", and a new projection head" }
        );
        Ok(Some(Beginning { checkpoint: state.checkpoint(config, identity, 0, 0)?, words }))
    }
}
