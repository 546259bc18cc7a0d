//! A fine-tuned network, which has a classifier.

use std::collections::HashMap;
use std::path::Path;

use simclr_engine::Device;
use simclr_nn::stored_shape;
use simclr_train::checkpoint::NamedTensor;
use simclr_train::{Config, Model, TrainError};

use super::safetensors::Safetensors;
use super::weights::Source;
use crate::flaw::flaw;
use crate::trained::HEAD;
use crate::{ExchangeError, Result};

const WEIGHT: &str = "fc.weight";
const BIAS: &str = "fc.bias";

/// A fine-tuned network, read from a file.
#[derive(Clone, Debug)]
pub struct FineTunedFile {
    /// The configuration that it was pretrained with.
    pub config: Config,
    /// The encoder, what was kept of the projection head, and the classifier.
    pub tensors: Vec<NamedTensor>,
    /// The names of the classes, in the order of the classifier's outputs.
    pub classes: Vec<String>,
}

impl FineTunedFile {
    /// Reads what [`StateDict::of`](crate::StateDict::of) wrote of a fine-tuned network, with its `classes`.
    ///
    /// # Errors
    /// [`ExchangeError::NotFineTuned`] for a file of anything else; a file that is damaged or cannot be read; a tensor
    /// that is missing, has another shape, or is useless.
    pub fn read(path: &Path) -> Result<FineTunedFile> {
        let problem = |problem: String| ExchangeError::weights(path, problem);
        let lacks = |problem: String| ExchangeError::NotFineTuned { path: path.to_owned(), problem };
        let file = Safetensors::read(path).map_err(|error| match error {
            ExchangeError::NoWeights { .. } => lacks("it is not a safetensors file".to_owned()),
            ExchangeError::NotAFile { found, .. } => lacks(found.to_owned()),
            other => other,
        })?;
        let shapes: HashMap<String, Vec<usize>> = file.tensors().into_iter().collect();
        if !shapes.contains_key(WEIGHT) {
            return Err(lacks(format!("it has no classifier (tensor `{WEIGHT}`)")));
        }
        let Some(config) = file.facts()?.config else {
            return Err(lacks("it does not state its configuration".to_owned()));
        };
        let Some(classes) = file.fact("classes") else {
            return Err(lacks("it does not state the names of its classes".to_owned()));
        };
        let classes: Vec<String> = serde_json::from_str(classes).map_err(|_| {
            problem(format!("its metadata `classes` is {classes:?}, expected a list of names"))
        })?;
        let config = Config::from_toml(&config, &format!("{} (its configuration)", path.display()))?;
        let mut tensors = Vec::new();
        for (name, expected) in expected(&config, &shapes, classes.len())? {
            match shapes.get(&name) {
                Some(shape) if *shape == expected => {}
                Some(shape) => {
                    return Err(problem(format!("tensor `{name}` is {shape:?}, expected {expected:?}")));
                }
                None => return Err(problem(format!("tensor `{name}` is missing, expected {expected:?}"))),
            }
            let data = file.values(&name)?;
            if let Some(what) = flaw(&name, &data) {
                return Err(problem(format!("tensor `{name}` holds {what}, so the network is useless")));
            }
            tensors.push(NamedTensor { name, shape: expected, data });
        }
        Ok(FineTunedFile { config, tensors, classes })
    }
}

/// The names and shapes of the tensors that such a network has, with as many layers of the head as the file has.
fn expected(
    config: &Config,
    shapes: &HashMap<String, Vec<usize>>,
    classes: usize,
) -> Result<Vec<(String, Vec<usize>)>> {
    let model = Model::new(config, &Device::dry().map_err(TrainError::from)?)?;
    let layer = |i: usize| format!("{HEAD}{i}.");
    let is_there = |i: &usize| shapes.keys().any(|name| name.starts_with(&layer(*i)));
    let kept = (0..model.head.layers().len()).take_while(is_there).count();
    let is_kept = |name: &str| !name.starts_with(HEAD) || (0..kept).any(|i| name.starts_with(&layer(i)));
    let own = model.parameters.iter().filter(|(name, ..)| is_kept(name));
    let mut all: Vec<_> = own.map(|(name, _, tensor)| (name.to_owned(), stored_shape(tensor))).collect();
    all.push((WEIGHT.to_owned(), vec![classes, model.head.dim_after(kept)]));
    all.push((BIAS.to_owned(), vec![classes]));
    Ok(all)
}
