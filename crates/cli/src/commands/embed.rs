//! `simclr embed`: an encoder's features of images, in a file for other programs.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use simclr_eval::EvalError;
use simclr_eval::embedding::{FileFormat, Images, Split, Vector, embed};

use crate::encoding::{Encoding, check_head, open_for, warn_of_broken};
use crate::evaluation_progress::EvaluationProgress;
use crate::exit::Done;
use crate::interrupt::{self, Watch};
use crate::settings::part;
use crate::{data, out, terminal};

const EXAMPLES: &str = "\
Examples:
  simclr embed runs/first photos/ --out features.parquet
  simclr embed runs/cifar cifar/ --split test --out test.npy --json

A .parquet file has the columns name, split, label, class and features (a list of float32, to Arrow's \
readers of a fixed length, as vector databases want it); split, label and class are null where there is none. An .npy file is only the matrix, one row per image. A \
.safetensors file holds features and labels (int64, -1 for none). Next to either of these two, \
FILE.csv lists the name, split, label and class of each row. The metadata of Parquet and safetensors files \
hold the classes, the step, and a fingerprint of the encoder. Rows are in the order of the images.

A name is the path of an image within DATA, or as it was given if it is an image file itself, with \\\\ for a backslash, \\n, \\t and the like for a control \
character, and \\x and two digits for a byte that is not UTF-8.

The encoder sees the central square of 7/8 of an image's shorter side, or the whole image where the run's \
image size is at most 32, resized to that size (bicubic, antialiased). Whoever compares with an exported encoder \
does the same: see `simclr export --help`.";

/// Write an encoder's features of images to a file: Parquet, NumPy or safetensors
#[derive(Args, Debug)]
#[command(after_help = format!("{EXAMPLES}\n\n{}", data::FORMS))]
pub struct Embed {
    /// The run folder
    run: PathBuf,

    /// The images; several are read as one; train/ and test/ are both included
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The file to write: .parquet, .npy or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Use only this part of the images: train, test or unlabelled
    #[arg(long, value_name = "PART", value_parser = part(), hide_possible_values = true)]
    split: Option<Split>,

    /// Write z, the output of the projection head, instead of h
    #[arg(long)]
    projection: bool,

    #[command(flatten)]
    encoding: Encoding,
}

impl Embed {
    pub fn run(self) -> Result<Done> {
        let format = FileFormat::of(&self.out)?;
        let files = format.files(&self.out);
        for file in &files {
            out::check_place(file)?;
            out::check_apart(file, &self.data)?;
        }
        let encoder = self.encoding.load_beside(&self.run, &self.data)?;
        if self.projection {
            check_head(&encoder, &self.run)?;
        }
        let source = open_for(&encoder, &self.data, self.encoding.is_strict(&encoder))?;
        out::check_new_archive(&self.out, &source, &self.data)?;
        let images = Images::of(&source, self.split)?;
        let vector = if self.projection { Vector::Z } else { Vector::H };
        let reading = self.encoding.reading(&encoder);

        let start = Instant::now();
        let count = images.dataset().len();
        let mut progress = EvaluationProgress::default();
        let watch = Watch::start("stopping: nothing will be written");
        let written = embed(&encoder, &images, vector, reading, (&self.out, format), &mut |done| {
            progress.embedding(done, count);
            if interrupt::requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        drop((progress, watch));
        let written = match written {
            Err(EvalError::Stopped) => return Ok(Done::Interrupted),
            written => written?,
        };
        let seconds = start.elapsed().as_secs_f64();
        warn_of_broken(&written.broken, "will have no row");
        let beside = files.get(1);
        if self.encoding.json {
            let object = json!({
                "images": written.images,
                "dims": written.dim,
                "skipped": written.broken.len(),
                "broken": written.broken,
                "seconds": seconds,
                "out": self.out.to_string_lossy(),
                "csv": beside.map(|file| file.to_string_lossy()),
            });
            terminal::print_json(&object)?;
        }
        let rows = terminal::counted(written.images, "row");
        terminal::say(&format!("{}: {rows} of {} values", self.out.display(), written.dim));
        if let Some(beside) = beside {
            terminal::say(&format!("{}: name, split, label and class of each row", beside.display()));
        }
        Ok(Done::Finished)
    }
}
