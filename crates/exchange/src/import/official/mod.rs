//! Checkpoints of the official code (google-research/simclr), under torchvision's names.
//!
//! Its layers are numbered as they are made: `conv2d`, `conv2d_1`, ..., and `batch_normalization` likewise, under
//! `base_model`. First comes the stem, then block after block, of a block the shortcut's projection before the
//! branch. The projection head is under `head_contrastive`, a classifier under `head_supervised`. What an optimiser
//! keeps of a variable is called by the variable's name and one more word.

mod layers;
mod objects;

use std::collections::BTreeMap;

use simclr_train::config::{Normalize, PoolPadding};

use self::layers::Layers;
use super::bundle::Bundle;
use super::weights::{Entry, Layout, Source};
use crate::Result;
use crate::trained::Facts;

/// What the number of training's steps is called, by version 1 of TensorFlow and by 2.
const STEPS: [&str; 2] = ["global_step", "global_step/.ATTRIBUTES/VARIABLE_VALUE"];
const ENCODER: &str = "base_model/";
const CONV: &str = "conv2d";
const NORM: &str = "batch_normalization";
const HEAD: &str = "head_contrastive/";
const CLASSIFIER: &str = "head_supervised/";

/// What the values of layers are called there and here.
const PARTS: [[&str; 2]; 6] = [
    ["kernel", "weight"],
    ["bias", "bias"],
    ["gamma", "weight"],
    ["beta", "bias"],
    ["moving_mean", "running_mean"],
    ["moving_variance", "running_var"],
];

/// Tensors by the names that they have here, and the names of those that have none.
pub(super) struct Renamed {
    pub tensors: BTreeMap<String, Entry>,
    pub left_out: Vec<String>,
}

/// What the official code does, and a checkpoint need not tell.
pub(super) fn facts(bundle: &Bundle) -> Facts {
    Facts {
        step: STEPS.iter().find_map(|name| bundle.whole(name)).unwrap_or(0),
        normalize: Some(Normalize::None),
        pool_padding: PoolPadding::Same,
        ..Facts::default()
    }
}

/// Finds the names of the tensors of a checkpoint.
///
/// # Errors
/// A checkpoint of another program, or of a network that there is not here.
pub(super) fn rename(bundle: &Bundle) -> Result<Renamed> {
    let objects::Told { names, pooled } = match bundle.text(objects::GRAPH)? {
        Some(graph) => objects::read(&graph).map_err(|problem| bundle.problem(problem))?,
        None => objects::Told::default(),
    };
    let sides: BTreeMap<String, Vec<usize>> = bundle.tensors().into_iter().collect();
    let stored = sides.iter().filter(|(name, _)| !is_slot(name, &sides));
    let variables: BTreeMap<String, (&String, &Vec<usize>)> =
        stored.map(|(name, sides)| (names.get(name).unwrap_or(name).clone(), (name, sides))).collect();
    let layers = Layers::of(&variables.keys().map(String::as_str).collect(), pooled)
        .map_err(|problem| bundle.problem(problem))?;
    let mut renamed = Renamed { tensors: BTreeMap::new(), left_out: Vec::new() };
    for (name, (stored, sides)) in variables {
        let own = encoder_name(&name, &layers).or_else(|| head_name(&name));
        if name.starts_with(CLASSIFIER) {
            renamed.left_out.push(stored.clone());
        } else if name.starts_with(ENCODER) || name.starts_with(HEAD) {
            // What has no name here keeps its own, which no network has: that is said then.
            let own = own.unwrap_or(name);
            // The dense layers of gates are convolutions of single pixels there.
            let sides = match sides[..] {
                [1, 1, inputs, outputs] if own.contains(".attn.") => &[inputs, outputs][..],
                _ => sides,
            };
            renamed.tensors.insert(own, Entry::new(stored.clone(), sides, Layout::TensorFlow));
        }
    }
    Ok(renamed)
}

/// What a tensor of the encoder is called here.
fn encoder_name(name: &str, layers: &Layers) -> Option<String> {
    let (layer, part) = name.strip_prefix(ENCODER)?.split_once('/')?;
    let name = match (number(layer, CONV), number(layer, NORM)) {
        (Some(conv), _) => layers.convolutions.get(conv)?,
        (None, norm) => layers.norms.get(norm?)?,
    };
    Some(format!("{name}.{}", own_part(part)?))
}

/// What a tensor of the projection head is called here.
fn head_name(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(HEAD)?.splitn(3, '/');
    let (scope, layer, part) = (parts.next()?, parts.next()?, own_part(parts.next()?)?);
    let index: usize = scope.strip_prefix("nl_").or_else(|| scope.strip_prefix("l_"))?.parse().ok()?;
    match layer {
        "dense" => Some(format!("head.{index}.linear.{part}")),
        NORM => Some(format!("head.{index}.bn.{part}")),
        _ => None,
    }
}

/// Which of the layers of a kind is called so: `conv2d` is 0, `conv2d_1` is 1.
fn number(name: &str, kind: &str) -> Option<usize> {
    match name.strip_prefix(kind)? {
        "" => Some(0),
        number => number.strip_prefix('_')?.parse().ok(),
    }
}

fn own_part(part: &str) -> Option<&'static str> {
    PARTS.iter().find(|[theirs, _]| *theirs == part).map(|[_, ours]| *ours)
}

/// Whether an optimiser keeps this beside a variable: `VARIABLE/Momentum` and the like.
fn is_slot(name: &str, all: &BTreeMap<String, Vec<usize>>) -> bool {
    name.rsplit_once('/').is_some_and(|(variable, _)| all.contains_key(variable))
}
