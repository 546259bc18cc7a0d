//! Training that starts from the encoder of another run.

use simclr_data::Window;
use simclr_engine::Device;
use simclr_nn::{load_tensor, stored_shape};

use super::{Failure, Identity, State};
use crate::checkpoint::Checkpoint;
use crate::config::Difference;
use crate::run_folder::RunFolder;
use crate::{Config, TrainError};

/// The state of a run before its first step.
pub(super) struct WarmStart {
    /// The weights of another run, with a new optimiser.
    pub(super) checkpoint: Checkpoint,
    /// A description of the weights.
    pub(super) words: String,
}

impl WarmStart {
    /// Loads what a run of `config` on images of this identity begins with, if `train.from` names another run: that
    /// run's encoder with its running averages, and its head if that has the same shape as this run's.
    ///
    /// # Errors
    /// [`TrainError::Conflict`] of `train.from` if there is no such run, it has no checkpoint, or its encoder differs.
    pub(super) fn of(config: &Config, identity: Identity) -> Result<Option<WarmStart>, TrainError> {
        let Some(from) = config.train.begins_with() else { return Ok(None) };
        let problem =
            |problem: String| TrainError::conflict("train.from", format!("is {}: {problem}", from.display()));
        let opened = RunFolder::open(from).map_err(|error| problem(error.to_string()))?;
        let (run, theirs) = opened;
        let found = run.checkpoints(1).latest_good().map_err(|error| problem(error.to_string()))?;
        let none = match (run.imported(), Failure::of(&run)) {
            (Some(file), _) => format!("its import was interrupted; import {file} again"),
            (None, Some(failure)) => format!("it has no checkpoint: it {failure}"),
            (None, None) => "it has no checkpoint yet".to_owned(),
        };
        let found = found.ok_or_else(|| problem(none))?.checkpoint;

        let there = Config { encoder: theirs.encoder, ..config.clone() };
        if let Some(Difference { key, ours, theirs, .. }) = config.differences(&there).into_iter().next() {
            return Err(problem(format!(
                "its encoder has {key} = {theirs}, and {ours} was asked for; leave that key out to use that run's value"
            )));
        }

        let mut state = State::new(config, &Device::cpu(1)?, 1)?;
        let parameters = &mut state.model.parameters;
        let is_head = |name: &str| name.starts_with("head.");
        let fits =
            |name: &str, shape: &[usize]| found.tensor(name).is_some_and(|tensor| tensor.shape == shape);
        let own_head: Vec<bool> = parameters
            .iter()
            .filter(|(name, ..)| is_head(name))
            .map(|(name, _, value)| fits(name, &stored_shape(value)))
            .collect();
        // Some layers of a different head may fit, but the head is taken whole or not at all.
        let heads = found.tensors.iter().filter(|tensor| is_head(&tensor.name)).count();
        let takes_head = own_head.iter().all(|&fits| fits) && own_head.len() == heads && heads > 0;
        for id in parameters.ids() {
            let name = parameters.name(id).to_owned();
            if is_head(&name) && !takes_head {
                continue;
            }
            let tensor = found.tensor(&name).ok_or_else(|| problem(format!("it has no tensor `{name}`")))?;
            load_tensor(parameters, id, &tensor.shape, &tensor.data)?;
        }
        let head = match (takes_head, own_head.is_empty()) {
            (true, _) => " and its projection head",
            (false, true) => "",
            (false, false) => ", and a new projection head",
        };
        let theirs = Config::from_toml(&found.meta.config, "the checkpoint's configuration")?;
        let words = format!("begins with the encoder of {}{head}", from.display());
        let words = words + &other_window(config, &theirs, &run).unwrap_or_default();
        Ok(Some(WarmStart { checkpoint: state.checkpoint(config, identity, 0, 0)?, words }))
    }
}

/// Says if `run`, trained with `theirs`, took stored values for other colours than a run of `config` will: its encoder
/// then sees images unlike those that it was trained on. A network of another program does not say how it did.
fn other_window(config: &Config, theirs: &Config, run: &RunFolder) -> Option<String> {
    const WINDOW: &str = "data.window";
    if run.imported().is_some() && theirs.data.window == Window::Full {
        return None;
    }
    let differs = config.differences(theirs).into_iter().find(|difference| difference.key == WINDOW);
    differs.map(|Difference { ours, theirs, .. }| {
        format!("; {} read images with {WINDOW} = {theirs}, this run with {ours}", run.path().display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Layers;
    use crate::checkpoint::NamedTensor;

    fn config(sets: &[String]) -> Config {
        let usual = ["data.image_size=8".to_owned(), "encoder.width=0.0625".to_owned()];
        let sets = [&usual, sets].concat();
        Config::resolve(&Layers { preset: Some("small"), sets: &sets, ..Layers::default() }).unwrap()
    }

    #[test]
    fn all_of_the_encoder_is_taken_and_nothing_of_the_optimiser() {
        let (folder, config_of_first) = (tempfile::tempdir().unwrap(), config(&[]));
        let identity = Identity { images: 9, names: 7, names_within: None, sizes: None };
        let first = folder.path().join("first");
        let run = RunFolder::create(&first, &config_of_first).unwrap();
        let state = State::new(&config_of_first, &Device::cpu(1).unwrap(), 1).unwrap();
        let mut saved = state.checkpoint(&config_of_first, identity, 5, 6).unwrap();
        for (i, NamedTensor { data, .. }) in saved.tensors.iter_mut().enumerate() {
            data.fill(i as f32 + 0.5);
        }
        saved.meta.step = 11;
        run.checkpoints(1).save(&saved).unwrap();

        let from = format!("train.from={}", toml::Value::from(first.to_str().unwrap()));
        // Which stored values are black and white is a matter of the images.
        let window = "data.window=[100, 700]".to_owned();
        let begun = WarmStart::of(&config(&[from.clone(), window]), identity).unwrap().unwrap();
        let told = "first and its projection head; ";
        assert!(begun.words.contains(told), "{}", begun.words);
        assert!(
            begun.words.ends_with("first read images with data.window = \"full\", this run with [100, 700]"),
            "{}",
            begun.words
        );
        let begun = WarmStart::of(&config(&[from, "train.seed=3".to_owned()]), identity).unwrap().unwrap();
        assert!(begun.words.ends_with("first and its projection head"), "{}", begun.words);
        assert_eq!((begun.checkpoint.meta.step, begun.checkpoint.meta.metrics_bytes), (0, 0));
        let mut averages = 0;
        for tensor in &begun.checkpoint.tensors {
            averages += usize::from(tensor.name.contains("running_"));
            match tensor.name.starts_with("optimizer.") {
                true => assert!(tensor.data.iter().all(|&value| value == 0.0), "{}", tensor.name),
                false => assert_eq!(Some(tensor), saved.tensor(&tensor.name)),
            }
        }
        assert!(averages > 20);
    }
}
