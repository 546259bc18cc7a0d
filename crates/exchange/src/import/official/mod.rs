//! Checkpoints of the official code (google-research/simclr), under torchvision's names.
//!
//! Its layers are numbered in the order of their creation, under `base_model`: `conv2d`, `conv2d_1`, ..., and likewise
//! `batch_normalization`. The stem comes first, then the blocks, and within a block the shortcut's projection before
//! the branch. The projection head is under `head_contrastive`, a classifier under `head_supervised`. An optimiser's
//! slot of a variable has the variable's name and one more word.

mod layers;
mod objects;

use std::collections::BTreeMap;

use simclr_train::config::{Normalize, PoolPadding};

use self::layers::Layers;
use super::bundle::Bundle;
use super::weights::{Entry, Layout, Source};
use crate::Result;
use crate::trained::Facts;

/// The name of the step counter in TensorFlow 1 and in TensorFlow 2.
const STEPS: [&str; 2] = ["global_step", "global_step/.ATTRIBUTES/VARIABLE_VALUE"];
const ENCODER: &str = "base_model/";
const CONV: &str = "conv2d";
const NORM: &str = "batch_normalization";
const HEAD: &str = "head_contrastive/";
const CLASSIFIER: &str = "head_supervised/";

/// Names of a layer's values, the official code's and this program's.
const PARTS: [[&str; 2]; 6] = [
    ["kernel", "weight"],
    ["bias", "bias"],
    ["gamma", "weight"],
    ["beta", "bias"],
    ["moving_mean", "running_mean"],
    ["moving_variance", "running_var"],
];

/// Tensors by this program's names, and the names of those that were left out.
pub(super) struct Renamed {
    pub tensors: BTreeMap<String, Entry>,
    pub left_out: Vec<String>,
}

/// Facts that hold for all networks of the official code, which a checkpoint does not state.
pub(super) fn facts(bundle: &Bundle) -> Facts {
    Facts {
        step: STEPS.iter().find_map(|name| bundle.whole(name)).unwrap_or(0),
        normalize: Some(Normalize::None),
        pool_padding: PoolPadding::Same,
        ..Facts::default()
    }
}

/// Finds this program's names of a checkpoint's tensors.
///
/// # Errors
/// A checkpoint of another program, or of a network that this program does not have.
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
            // A tensor without a name here keeps its own, which no network has, so that it is reported as unknown.
            let own = own.unwrap_or(name);
            // The official code has convolutions of single pixels for the dense layers of gates.
            let sides = match sides[..] {
                [1, 1, inputs, outputs] if own.contains(".attn.") => &[inputs, outputs][..],
                _ => sides,
            };
            renamed.tensors.insert(own, Entry::new(stored.clone(), sides, Layout::TensorFlow));
        }
    }
    Ok(renamed)
}

/// This program's name of a tensor of the encoder.
fn encoder_name(name: &str, layers: &Layers) -> Option<String> {
    let (layer, part) = name.strip_prefix(ENCODER)?.split_once('/')?;
    let name = match (number(layer, CONV), number(layer, NORM)) {
        (Some(conv), _) => layers.convolutions.get(conv)?,
        (None, norm) => layers.norms.get(norm?)?,
    };
    Some(format!("{name}.{}", own_part(part)?))
}

/// This program's name of a tensor of the projection head.
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

/// The number of a layer among those of its kind: `conv2d` is 0, `conv2d_1` is 1.
fn number(name: &str, kind: &str) -> Option<usize> {
    match name.strip_prefix(kind)? {
        "" => Some(0),
        number => number.strip_prefix('_')?.parse().ok(),
    }
}

fn own_part(part: &str) -> Option<&'static str> {
    PARTS.iter().find(|[theirs, _]| *theirs == part).map(|[_, ours]| *ours)
}

/// Whether this is an optimiser's slot of a variable, such as `VARIABLE/Momentum`.
fn is_slot(name: &str, all: &BTreeMap<String, Vec<usize>>) -> bool {
    name.rsplit_once('/').is_some_and(|(variable, _)| all.contains_key(variable))
}
