//! Checkpoints of the official code (google-research/simclr), under torchvision's names.
//!
//! Its layers are numbered as they are made: `conv2d`, `conv2d_1`, ..., and `batch_normalization` likewise, under `base_model`. First comes the
//! stem, then block after block, of a block the shortcut's projection before the branch. The projection head is under `head_contrastive`, a
//! classifier under `head_supervised`. What an optimiser keeps of a variable is called by the variable's name and one more word.

use std::collections::BTreeMap;
use std::path::Path;

use simclr_train::config::{EncoderName, Normalize, PoolPadding};

use super::recognise::depth_of;
use super::weights::{Entry, Layout};
use crate::trained::Facts;
use crate::{ExchangeError, Result};

/// Steps of training behind it.
pub(super) const STEP: &str = "global_step";
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
pub(super) fn facts(step: Option<u64>) -> Facts {
    Facts {
        step: step.unwrap_or(0),
        normalize: Some(Normalize::None),
        pool_padding: PoolPadding::Same,
        ..Facts::default()
    }
}

/// Finds the names of the tensors of a checkpoint, of which the names and the sides are given.
///
/// # Errors
/// A checkpoint of another program, or of a network that there is not here.
pub(super) fn rename(path: &Path, tensors: Vec<(String, Vec<usize>)>) -> Result<Renamed> {
    let sides: BTreeMap<String, Vec<usize>> = tensors.into_iter().collect();
    let layers =
        layers(&sides).map_err(|problem| ExchangeError::Weights { path: path.to_owned(), problem })?;
    let mut renamed = Renamed { tensors: BTreeMap::new(), left_out: Vec::new() };
    for (stored, sides) in sides.iter().filter(|(name, _)| !is_slot(name, &sides)) {
        let own = encoder_name(stored, &layers).or_else(|| head_name(stored));
        if stored.starts_with(CLASSIFIER) {
            renamed.left_out.push(stored.clone());
        } else if stored.starts_with(ENCODER) || stored.starts_with(HEAD) {
            // What has no name here keeps its own, which no network has: that is said then.
            let entry = Entry::new(stored.clone(), sides, Layout::TensorFlow);
            renamed.tensors.insert(own.unwrap_or_else(|| stored.clone()), entry);
        }
    }
    Ok(renamed)
}

/// What the convolutions of a network and their BatchNorms are called here, in the order in which the official code makes them.
fn layers(sides: &BTreeMap<String, Vec<usize>>) -> std::result::Result<Vec<[String; 2]>, String> {
    let first = format!("{ENCODER}{CONV}/kernel");
    if !sides.contains_key(&first) {
        return Err(format!("it is no checkpoint of the official code of SimCLR: it has no `{first}`"));
    }
    let count = |layer: &str, part: &str| {
        let parts = sides.keys().filter_map(|name| name.strip_prefix(ENCODER)?.split_once('/'));
        parts.filter(|&(name, found)| found == part && number(name, layer).is_some()).count()
    };
    let convolutions = count(CONV, "kernel");
    if count(CONV, "bias") > 0 {
        return Err("it has squeeze and excitation (se_ratio), which is not known here".to_owned());
    }
    if convolutions > count(NORM, "gamma") {
        return Err("it has selective kernels (sk_ratio), which are not known here: take one without, `sk0`"
            .to_owned());
    }
    let found =
        EncoderName::ALL.iter().map(|&name| layers_of(name)).find(|layers| layers.len() == convolutions);
    found.ok_or_else(|| {
        let known: Vec<_> = EncoderName::ALL.iter().map(|name| name.word()).collect();
        format!("its encoder has {convolutions} convolutions, which none of {} has", known.join(", "))
    })
}

fn layers_of(name: EncoderName) -> Vec<[String; 2]> {
    let depth = depth_of(name);
    let mut layers = vec![["conv1".to_owned(), "bn1".to_owned()]];
    for (stage, blocks) in (1..).zip(depth.blocks()) {
        for block in 0..blocks {
            let name = format!("layer{stage}.{block}");
            // Every stage begins with a projection.
            if block == 0 {
                layers.push([format!("{name}.downsample.0"), format!("{name}.downsample.1")]);
            }
            let convolutions = if depth.is_bottleneck() { 3 } else { 2 };
            layers.extend((1..=convolutions).map(|i| [format!("{name}.conv{i}"), format!("{name}.bn{i}")]));
        }
    }
    layers
}

/// What a tensor of the encoder is called here.
fn encoder_name(stored: &str, layers: &[[String; 2]]) -> Option<String> {
    let (layer, part) = stored.strip_prefix(ENCODER)?.split_once('/')?;
    let name = match (number(layer, CONV), number(layer, NORM)) {
        (Some(conv), _) => &layers.get(conv)?[0],
        (None, norm) => &layers.get(norm?)?[1],
    };
    Some(format!("{name}.{}", own_part(part)?))
}

/// What a tensor of the projection head is called here.
fn head_name(stored: &str) -> Option<String> {
    let mut parts = stored.strip_prefix(HEAD)?.splitn(3, '/');
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
