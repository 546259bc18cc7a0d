//! Recognises a network by the names and shapes of its tensors.

use simclr_nn::{Depth, SelectiveKernels};
use simclr_train::config::{
    Auto, EncoderConfig, HeadConfig, HeadKind, Normalize, PoolPadding, Shortcut, Stem, Variant,
};

use super::weights::Weights;
use crate::Result;

/// Channels of the first convolution of a network of width 1.
const BASE: f64 = 64.0;

/// The network that a file's tensors belong to. Whether all are there is checked by
/// [`take_tensors`](super::take_tensors).
pub(super) struct Recognised {
    pub encoder: EncoderConfig,
    pub head: HeadConfig,
}

impl Recognised {
    /// Looks at the first convolution, the number and kind of the blocks, and the head's layers.
    ///
    /// # Errors
    /// [`ExchangeError::Weights`](crate::ExchangeError::Weights) if no ResNet has these.
    pub fn of(file: &Weights) -> Result<Recognised> {
        let (width, stem) = first_layer(file)?;
        let is_there = |name: &str| file.shape(name).is_some();
        let bottleneck = is_there("layer1.0.conv3.weight");
        // In a ResNet-D's shortcut the convolution is the second layer, after a pool.
        let is_d = matches!(file.shape("layer2.0.downsample.1.weight"), Some([_, _, 1, 1]));
        let shortcut = if is_d { "layer1.0.downsample.1.weight" } else { "layer1.0.downsample.0.weight" };
        let projected = is_there(shortcut);
        let encoder = EncoderConfig {
            name: name_of(file, bottleneck)?,
            width,
            stem: Auto::Value(stem),
            selective_kernels: selective_kernels(file),
            variant: Auto::Value(if is_d { Variant::D } else { Variant::Standard }),
            // Bottleneck blocks always change the number of channels first, so there is no difference.
            shortcut: if projected && !bottleneck { Shortcut::Projection } else { Shortcut::Auto },
            pool_padding: PoolPadding::All,
            normalize: Normalize::None,
        };
        Ok(Recognised { encoder, head: head(file)? })
    }
}

fn first_layer(file: &Weights) -> Result<(f64, Stem)> {
    const FIRST: &str = "conv1.weight";
    /// The last of a ResNet-D's three first convolutions.
    const THIRD: &str = "conv1.6.weight";
    if let Some(&[channels, _, 3, 3]) = file.shape(THIRD) {
        return Ok((channels as f64 / BASE, Stem::ImageNet));
    }
    let no_resnet = |what: String| Err(file.problem(format!("it is not a ResNet: {what}")));
    match file.shape(FIRST) {
        Some(&[channels, 3, 7, 7]) => Ok((channels as f64 / BASE, Stem::ImageNet)),
        Some(&[channels, 3, 3, 3]) => Ok((channels as f64 / BASE, Stem::Small)),
        Some(shape) => no_resnet(format!(
            "tensor `{FIRST}` is {shape:?}, expected [channels, 3, 7, 7], or [channels, 3, 3, 3] for small images"
        )),
        None => {
            let found: Vec<_> = file.names().take(3).map(|name| format!("`{}`", file.called(name))).collect();
            let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") + ", ..." };
            no_resnet(format!("it has no tensor `{FIRST}`, with whatever before it; its tensors are {found}"))
        }
    }
}

/// The share of channels that the gates of selective kernels squeeze to; 0 without gates. Narrow networks have the
/// minimum width whatever the share, so the paper's share is assumed then.
fn selective_kernels(file: &Weights) -> f64 {
    const PAPER: f64 = 0.0625;
    match file.shape("layer4.0.attn.fc_reduce.weight") {
        Some(&[few, channels]) if few == SelectiveKernels::squeezed(channels, PAPER) => PAPER,
        Some(&[few, channels]) => {
            let share = few as f64 / channels as f64;
            // Rounding may make the share give one channel less.
            let exact = SelectiveKernels::squeezed(channels, share) == few;
            if exact { share } else { ((few as f64 + 0.5) / channels as f64).min(1.0) }
        }
        _ => 0.0,
    }
}

/// The network with the file's number of blocks in each stage, each of two convolutions or, if `bottleneck`, three.
fn name_of(file: &Weights, bottleneck: bool) -> Result<Depth> {
    let blocks_of = |stage: usize| {
        (0..).take_while(|block| file.shape(&format!("layer{stage}.{block}.conv1.weight")).is_some()).count()
    };
    let blocks: [usize; 4] = std::array::from_fn(|stage| blocks_of(stage + 1));
    let found =
        Depth::ALL.into_iter().find(|depth| depth.blocks() == blocks && depth.is_bottleneck() == bottleneck);
    found.ok_or_else(|| {
        let convolutions = if bottleneck { "three" } else { "two" };
        file.problem(format!(
            "its stages have {blocks:?} blocks of {convolutions} convolutions, which none of {} has",
            Depth::WORDS.join(", ")
        ))
    })
}

/// The projection head, of kind `None` if the file has none.
fn head(file: &Weights) -> Result<HeadConfig> {
    let weight = |layer: usize| file.shape(&format!("head.{layer}.linear.weight"));
    let layers = (0..).take_while(|&layer| weight(layer).is_some()).count();
    let Some(last) = layers.checked_sub(1).and_then(weight) else {
        return Ok(HeadConfig { kind: HeadKind::None, ..HeadConfig::default() });
    };
    let outputs = |shape: &[usize]| match *shape {
        // A layer without inputs has no values, and may claim any number of outputs.
        [outputs, inputs] if inputs > 0 => Ok(outputs),
        _ => Err(file.problem(format!("a layer of the head is {shape:?}, expected [outputs, inputs]"))),
    };
    let mut head = HeadConfig {
        kind: HeadKind::Linear,
        dim: outputs(last)?,
        batch_norm: file.shape("head.0.bn.weight").is_some(),
        ..HeadConfig::default()
    };
    if let Some(first) = weight(0).filter(|_| layers > 1) {
        let hidden = Auto::Value(outputs(first)?);
        head = HeadConfig { kind: HeadKind::Nonlinear, layers, hidden, ..head };
    }
    Ok(head)
}
