//! The order in which the official code creates a network's layers.

use std::collections::BTreeSet;

use simclr_nn::Depth;

use super::{CONV, ENCODER, NORM, number};

/// This program's names of a network's convolutions and BatchNorms, in the order in which the official code creates
/// them.
#[derive(Default)]
pub(super) struct Layers {
    pub convolutions: Vec<String>,
    pub norms: Vec<String>,
}

/// The kind of network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One convolution before the blocks, and no selective kernels.
    Standard,
    /// Selective kernels where blocks are bottlenecks, and shortcuts of ResNet-D.
    Selective {
        /// Three convolutions before the blocks.
        deep: bool,
    },
}

impl Layers {
    /// The layers of the network that has as many as these variables. With `pooled` shortcuts it is a ResNet-D.
    /// Checkpoints of TensorFlow 1 do not show this for a ResNet-18 or 34 with the stem for small images, which is then
    /// taken to be a standard one.
    ///
    /// # Errors
    /// A description of a number of layers that no network of this program has.
    pub fn of(variables: &BTreeSet<&str>, pooled: bool) -> Result<Layers, String> {
        let first = format!("{ENCODER}{CONV}/kernel");
        if !variables.contains(first.as_str()) {
            return Err(format!(
                "it is not a checkpoint of the official code of SimCLR: it has no `{first}`"
            ));
        }
        let count = |layer: &str, part: &str| {
            let parts = variables.iter().filter_map(|name| name.strip_prefix(ENCODER)?.split_once('/'));
            parts.filter(|&(name, found)| found == part && number(name, layer).is_some()).count()
        };
        let (convolutions, norms) = (count(CONV, "kernel"), count(NORM, "gamma"));
        if count(CONV, "bias") > 0 {
            return Err("it has squeeze and excitation (se_ratio), which is not known here".to_owned());
        }
        let kinds = [Kind::Standard, Kind::Selective { deep: true }, Kind::Selective { deep: false }];
        let possible = kinds.iter().filter(|&&kind| !pooled || kind != Kind::Standard);
        let mut known = possible.flat_map(|&kind| Depth::ALL.iter().map(move |&depth| made(depth, kind)));
        known.find(|known| (known.convolutions.len(), known.norms.len()) == (convolutions, norms)).ok_or_else(|| {
            format!(
                "its encoder has {convolutions} convolutions and {norms} BatchNorms, which none of {} has",
                Depth::WORDS.join(", ")
            )
        })
    }

    fn add(&mut self, conv: impl Into<String>, norm: impl Into<String>) {
        self.convolutions.push(conv.into());
        self.norms.push(norm.into());
    }
}

fn made(depth: Depth, kind: Kind) -> Layers {
    let mut layers = Layers::default();
    if kind == (Kind::Selective { deep: true }) {
        layers.add("conv1.0", "conv1.1");
        layers.add("conv1.3", "conv1.4");
        layers.add("conv1.6", "bn1");
    } else {
        layers.add("conv1", "bn1");
    }
    let is_selective = kind != Kind::Standard;
    for (stage, blocks) in (1..).zip(depth.blocks()) {
        for block in 0..blocks {
            let block_name = format!("layer{stage}.{block}");
            // Every stage begins with a projection, which is created before the branch; in a ResNet-D after a pool.
            if block == 0 {
                let at = usize::from(is_selective);
                layers.add(
                    format!("{block_name}.downsample.{at}"),
                    format!("{block_name}.downsample.{}", at + 1),
                );
            }
            for i in 1..=if depth.is_bottleneck() { 3 } else { 2 } {
                layers.add(format!("{block_name}.conv{i}"), format!("{block_name}.bn{i}"));
                if is_selective && depth.is_bottleneck() && i == 2 {
                    layers.add(format!("{block_name}.attn.fc_reduce"), format!("{block_name}.attn.bn"));
                    layers.convolutions.push(format!("{block_name}.attn.fc_select"));
                }
            }
        }
    }
    layers
}
