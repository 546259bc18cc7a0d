//! `simclr export`: the encoder of a run, for other programs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::json;
use simclr_engine::Device;
use simclr_exchange::{OnnxFile, StateDict, Trained};
use simclr_train::run_folder::{BEST_ENCODER, BEST_ENCODER_ONNX, ENCODER, ENCODER_ONNX};

use crate::encoding::{check_head, load_encoder};
use crate::exit::Done;
use crate::out::{check_ending, check_folder, check_place};
use crate::terminal;
use crate::weights::{warn_of_no_network, warn_of_other_networks};

const EXAMPLES: &str = "\
Examples:
  simclr export runs/first --to onnx
  simclr export runs/first --to torchvision --out encoder.safetensors --best

onnx: one file for onnxruntime and others, in f32, opset 17. Input `images`: float32 (batch, 3, S, S), RGB, \
values from 0 to 1 (bytes divided by 255), where S is the run's image size. Output `h`: (batch, features), and with \
--projection also `z`.
  onnxruntime.InferenceSession(\"encoder.onnx\").run([\"h\"], {\"images\": images})

Neither file crops or resizes images. `simclr embed` and the evaluations do, before the network sees them, and whoever \
compares with them does the same: of the upright image (as data.window, data.background and data.shrink have it) the \
central square of 7/8 of the shorter side, or all of it, square or not, where S is at most 32; resized to S x S by \
bicubic interpolation with antialiasing. As Pillow does it, but for the rounding of bytes:
  side = round(0.875 * min(image.size))
  left, top = [(length - side + 1) // 2 for length in image.size]
  image.crop((left, top, left + side, top + side)).resize((S, S), Image.Resampling.BICUBIC)
(for S up to 32 without the crop). The files' metadata say so as `preprocessing`.

torchvision: safetensors under the names of torchvision's ResNets, for images from 0 to 1, normalised only if the run \
has encoder.normalize (the file's metadata say how).
  torchvision.models.resnet50().load_state_dict(safetensors.torch.load_file(FILE), strict=False)
loads everything but fc.*, if the encoder has width 1 and torchvision's stem and shortcuts. Other encoders, such as \
those of images up to 32 pixels (encoder.stem=small), are no network of torchvision's: take onnx. If the run has \
encoder.pool_padding=same and an image size that is a multiple of 4, also set \
network.maxpool = torch.nn.MaxPool2d(3, 2, ceil_mode=True). With encoder.variant=d the network is one of timm's, such as \
resnet50d; with encoder.pool_padding=same as well, no library has it.";

/// Export the encoder of a run for other programs: PyTorch, or anything that runs ONNX
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Export {
    /// The run folder
    run: PathBuf,

    /// Format to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    to: Format,

    /// The file to write; an existing one is replaced [default: encoder.onnx or encoder.safetensors in the
    /// run folder; with --best, encoder-best.onnx or encoder-best.safetensors]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Use the checkpoint that did best on held-out images (by kNN, if they have labels) instead of the newest
    #[arg(long)]
    best: bool,

    /// Include the projection head: output `z`, tensors `head.*`
    #[arg(long)]
    projection: bool,

    /// Print one JSON object on standard output
    #[arg(long)]
    json: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// Safetensors under torchvision's names
    Torchvision,
    /// A graph with its weights
    Onnx,
}

impl Format {
    /// The format's name, and its file extension.
    fn names(self) -> [&'static str; 2] {
        match self {
            Format::Torchvision => ["torchvision", "safetensors"],
            Format::Onnx => ["onnx", "onnx"],
        }
    }

    /// The name of its file in a run folder. That of the best checkpoint does not take the place of the newest's, which
    /// a finished run has.
    fn file(self, best: bool) -> &'static str {
        match (self, best) {
            (Format::Torchvision, false) => ENCODER,
            (Format::Torchvision, true) => BEST_ENCODER,
            (Format::Onnx, false) => ENCODER_ONNX,
            (Format::Onnx, true) => BEST_ENCODER_ONNX,
        }
    }
}

impl Export {
    pub fn run(self) -> Result<Done> {
        let [format, ending] = self.to.names();
        match &self.out {
            Some(out) => {
                check_ending(out, ending)?;
                check_place(out)?;
            }
            None => check_folder(&self.run, "write the file elsewhere: --out FILE")?,
        }
        let encoder = load_encoder(&self.run, self.best, &Device::cpu(0)?)?;
        if self.projection {
            check_head(&encoder, &self.run)?;
        }
        let trained = Trained {
            model: &encoder.model,
            config: &encoder.config,
            step: encoder.step,
            epoch: encoder.epoch,
        };
        let out = self.out.unwrap_or_else(|| self.run.join(self.to.file(self.best)));
        match self.to {
            Format::Torchvision => {
                StateDict::new(&trained, self.projection)?.save(&out)?;
                warn_of_no_network(&encoder.config);
                warn_of_other_networks(&encoder.config.encoder);
            }
            Format::Onnx => OnnxFile::new(&trained, self.projection)?.save(&out)?,
        }
        let bytes = out.metadata()?.len();
        let parameters = trained.parameters(self.projection);
        if self.json {
            let file = out.to_string_lossy();
            let summary = json!({ "file": file, "bytes": bytes, "format": format, "parameters": parameters });
            terminal::print_json(&summary)?;
        }
        terminal::say(&format!(
            "written to {}: {} parameters, {:.1} MB",
            out.display(),
            terminal::grouped(parameters as u64),
            bytes as f64 / 1e6
        ));
        Ok(Done::Finished)
    }
}
