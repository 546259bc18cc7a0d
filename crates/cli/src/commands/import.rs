//! `simclr import`: turns a network of another program into a run.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simclr_exchange::{ImportOptions, Imported};
use simclr_train::config::{Depth, Normalize, Precision, Stem, Variant};

use crate::exit::Done;
use crate::settings::{from_to, one_of};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  simclr import resnet50.pth --out runs/imagenet --normalize imagenet
  simclr import encoder.safetensors --out runs/again
  simclr import simclr/model.ckpt-225206 --out runs/official
  simclr knn runs/imagenet --train photos/

FILE is one of:
  - safetensors, or a file of torch.save (.pth, .pt, .ckpt), with a ResNet under torchvision's names, or a ResNet-D under timm's. \
Prefixes of the names (state_dict, module., backbone. and the like) are stripped; the indices of an nn.Sequential (0., 1., 4.) are read \
as conv1., bn1., layer1. Nothing in a pickle is executed.
  - what `simclr export RUN --to torchvision` wrote.
  - a checkpoint of the official code of SimCLR or SimCLR v2, that is TensorFlow's NAME.index and NAME.data-*: give either of them, \
NAME, the folder, or that of a SavedModel. The imported network gives the same h and z as the official code.

Depth, width, stem, shortcuts and head are detected; a classifier is left out. The run folder can be evaluated and exported, \
and a new run can continue training from it (simclr pretrain --from RUN).";

/// Make a run folder from another program's network: torchvision's, timm's, or the official code's
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Import {
    /// The weights: safetensors, a PyTorch file, or a TensorFlow checkpoint
    file: PathBuf,

    /// The run folder, new or empty
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// The network that it must be [default: any]
    #[arg(long, value_name = "NAME", value_parser = one_of(&Depth::ALL, Depth::word))]
    encoder: Option<Depth>,

    /// Side of its images in pixels [default: what the file says, else 224, or 32 if the first convolution is 3 x 3]
    #[arg(long, value_name = "PIXELS", value_parser = from_to(8_u32, 1024))]
    size: Option<u32>,

    /// How its images are normalised, which PyTorch files do not say: imagenet (torchvision, timm), or none (from 0
    /// to 1)
    #[arg(long, value_name = "HOW", value_parser = one_of(&Normalize::ALL, Normalize::word))]
    normalize: Option<Normalize>,

    /// Prefix of the tensor names of the network to import, if the file holds several
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,

    /// Precision to compute it in [default: what the file says, else f32]
    #[arg(long, value_name = "TYPE", value_parser = one_of(&[Precision::F32, Precision::Bf16], Precision::word))]
    precision: Option<Precision>,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

impl Import {
    pub fn run(self) -> Result<Done> {
        let options = ImportOptions {
            encoder: self.encoder,
            image_size: self.size,
            normalize: self.normalize,
            prefix: self.prefix,
            precision: self.precision,
        };
        let imported = Imported::read(&self.file, &options)?;
        imported.save(&self.out)?;
        let (encoder, head) = (&imported.config.encoder, &imported.config.head);
        let size = imported.config.data.image_size;
        if !imported.prefix.is_empty() {
            terminal::say(&format!("taken off the names: {}", imported.prefix));
        }
        if !imported.other_prefixes.is_empty() {
            // Quoted, since a prefix may be empty.
            let quoted: Vec<_> =
                imported.other_prefixes.iter().map(|prefix| format!("\"{prefix}\"")).collect();
            terminal::say(&format!("other networks in it, for --prefix: {}", listed(&quoted)));
        }
        if !imported.left_out.is_empty() {
            terminal::say(&format!("not imported (not part of the encoder): {}", listed(&imported.left_out)));
        }
        let stem = if encoder.stem_at(size) == Stem::Small { " with the stem for small images" } else { "" };
        let d = match (encoder.settled_variant(), encoder.selective_kernels > 0.0) {
            (_, true) => " with selective kernels",
            (Variant::D, false) => ", ResNet-D,",
            (_, false) => "",
        };
        terminal::say(&format!(
            "{}: {}{d} of width {}{stem}, {} parameters, images of {size} x {size} pixels, normalisation {}, head {}, {}",
            self.out.display(),
            encoder.name,
            encoder.width,
            terminal::grouped(imported.parameters() as u64),
            encoder.normalize,
            head.kind,
            imported.config.train.precision,
        ));
        if self.json {
            let summary = json!({
                "run": self.out.to_string_lossy(),
                "encoder": encoder.name,
                "width": encoder.width,
                "stem": encoder.stem,
                "variant": encoder.variant,
                "selective_kernels": encoder.selective_kernels,
                "shortcut": encoder.shortcut,
                "pool_padding": encoder.pool_padding,
                "normalize": encoder.normalize,
                "head": head.kind,
                "image_size": size,
                "precision": imported.config.train.precision,
                "parameters": imported.parameters(),
                "prefix": imported.prefix,
                "other_prefixes": imported.other_prefixes,
                "left_out": imported.left_out,
            });
            terminal::print_json(&summary)?;
        }
        Ok(Done::Finished)
    }
}

/// The first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = terminal::inert(&names[..names.len().min(SHOWN)].join(", "));
    match names.len() {
        0..=SHOWN => shown,
        count => format!("{shown} and {} more", count - SHOWN),
    }
}
